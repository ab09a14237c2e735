"""Channels of RXTE's PCA: how Standard-2 packs them, and their energies in each gain epoch.

The edges are those of HEASARC's energy-channel conversion table as stingray tabulates it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]

# The detectors that a column of HEASARC's table is of.
ALL_PCUS = "PCU0-4"
_DETECTORS = {1: (ALL_PCUS,), 2: (ALL_PCUS,), 3: (ALL_PCUS,), 4: (ALL_PCUS,), 5: ("PCU1-4", "PCU0")}

# Absolute channels of a Standard-2 channel, as (first Standard-2 channel, first absolute channel, how many make one):
# 0-4 are one, 5-53 single, 54-135 pairs, 136-237 threes, 238-249 fours, 250-255 one.
STD2_PACKING = ((0, 0, 5), (1, 5, 1), (50, 54, 2), (91, 136, 3), (125, 238, 4), (128, 250, 6))
ABSOLUTE_CHANNELS, STD2_CHANNELS = 256, 129

# Upper edges of the Standard-2 channels, keV, by gain epoch and detectors: HEASARC's table has
# them to be those of the average detector. The lower edge of one is the upper edge of the one before.
# fmt: off
_UPPER_KEV = {
    (1, ALL_PCUS): """
        1.51 1.76 2.02 2.27 2.53 2.78 3.04 3.30 3.55 3.81 4.07 4.32 4.58 4.84 5.10 5.35 5.61 5.87 6.13 6.39 6.65 6.91
        7.17 7.43 7.69 7.95 8.21 8.47 8.73 8.99 9.25 9.52 9.78 10.04 10.30 10.57 10.83 11.09 11.36 11.62 11.89 12.15
        12.42 12.68 12.95 13.21 13.48 13.74 14.01 14.28 14.81 15.35 15.88 16.42 16.96 17.50 18.04 18.58 19.12 19.67
        20.21 20.76 21.30 21.85 22.40 22.95 23.50 24.06 24.61 25.17 25.72 26.28 26.84 27.40 27.96 28.52 29.09 29.65
        30.22 30.79 31.36 31.93 32.50 33.07 33.64 34.22 34.80 35.38 35.95 36.54 37.12 37.99 38.87 39.75 40.64 41.53
        42.42 43.32 44.21 45.12 46.02 46.93 47.84 48.76 49.68 50.60 51.53 52.46 53.39 54.33 55.27 56.22 57.17 58.12
        59.08 60.04 61.00 61.97 62.95 63.93 64.91 65.90 66.89 67.89 68.89 70.23 71.58 72.94 74.99""",
    (2, ALL_PCUS): """
        1.61 1.91 2.22 2.52 2.83 3.13 3.44 3.75 4.05 4.36 4.67 4.98 5.28 5.59 5.90 6.21 6.52 6.83 7.14 7.45 7.76 8.07
        8.38 8.69 9.00 9.31 9.63 9.94 10.25 10.56 10.88 11.19 11.50 11.82 12.13 12.45 12.76 13.08 13.39 13.71 14.03
        14.34 14.66 14.98 15.29 15.61 15.93 16.25 16.57 16.89 17.52 18.16 18.81 19.45 20.09 20.74 21.39 22.03 22.68
        23.33 23.99 24.64 25.29 25.95 26.61 27.27 27.93 28.59 29.25 29.91 30.58 31.25 31.92 32.59 33.26 33.93 34.61
        35.28 35.96 36.64 37.32 38.00 38.68 39.37 40.06 40.74 41.43 42.13 42.82 43.51 44.21 45.26 46.31 47.36 48.42
        49.49 50.55 51.62 52.70 53.78 54.86 55.95 57.04 58.13 59.23 60.33 61.44 62.55 63.67 64.79 65.92 67.05 68.18
        69.32 70.47 71.62 72.77 73.93 75.10 76.27 77.44 78.62 79.81 81.00 82.20 83.80 85.42 87.04 89.50""",
    (3, ALL_PCUS): """
        1.94 2.29 2.64 2.99 3.35 3.70 4.05 4.41 4.76 5.12 5.47 5.82 6.18 6.54 6.89 7.25 7.60 7.96 8.32 8.68 9.03 9.39
        9.75 10.11 10.47 10.83 11.19 11.55 11.91 12.27 12.63 12.99 13.36 13.72 14.08 14.44 14.81 15.17 15.54 15.90 16.26
        16.63 17.00 17.36 17.73 18.09 18.46 18.83 19.20 19.56 20.30 21.04 21.78 22.52 23.26 24.01 24.75 25.50 26.25
        27.00 27.75 28.50 29.26 30.02 30.77 31.53 32.29 33.06 33.82 34.59 35.35 36.12 36.89 37.67 38.44 39.22 39.99
        40.77 41.55 42.34 43.12 43.91 44.70 45.49 46.28 47.07 47.87 48.66 49.46 50.26 51.06 52.27 53.48 54.70 55.92
        57.14 58.37 59.60 60.84 62.08 63.33 64.58 65.84 67.10 68.37 69.64 70.91 72.19 73.48 74.77 76.07 77.37 78.68
        79.99 81.30 82.63 83.96 85.29 86.63 87.98 89.33 90.69 92.05 93.42 94.80 96.64 98.50 100.37 103.19""",
    (4, ALL_PCUS): """
        2.13 2.54 2.96 3.37 3.79 4.21 4.63 5.04 5.46 5.88 6.30 6.72 7.14 7.56 7.98 8.40 8.82 9.24 9.67 10.09 10.51 10.93
        11.36 11.78 12.21 12.63 13.06 13.48 13.91 14.34 14.76 15.19 15.62 16.05 16.47 16.90 17.33 17.76 18.19 18.62
        19.05 19.49 19.92 20.35 20.78 21.22 21.65 22.08 22.52 22.95 23.82 24.70 25.57 26.45 27.33 28.21 29.09 29.97
        30.86 31.74 32.63 33.52 34.42 35.31 36.21 37.10 38.00 38.91 39.81 40.72 41.62 42.53 43.44 44.36 45.27 46.19
        47.11 48.03 48.96 49.88 50.81 51.74 52.67 53.61 54.54 55.48 56.42 57.37 58.31 59.26 60.21 61.64 63.07 64.51
        65.95 67.40 68.86 70.32 71.78 73.25 74.73 76.21 77.70 79.19 80.69 82.20 83.71 85.23 86.75 88.28 89.81 91.36
        92.91 94.46 96.02 97.59 99.17 100.75 102.34 103.93 105.54 107.15 108.76 110.39 112.02 114.21 116.41 118.63
        121.98""",
    (5, "PCU0"): """
        1.95 2.38 2.81 3.24 3.67 4.09 4.53 4.96 5.39 5.82 6.25 6.68 7.11 7.55 7.98 8.42 8.85 9.28 9.72 10.16 10.59 11.03
        11.47 11.90 12.34 12.78 13.22 13.66 14.10 14.54 14.98 15.42 15.86 16.30 16.74 17.19 17.63 18.07 18.52 18.96
        19.41 19.85 20.30 20.75 21.19 21.64 22.09 22.54 22.98 23.43 24.33 25.24 26.14 27.05 27.95 28.86 29.78 30.69
        31.61 32.52 33.44 34.36 35.29 36.21 37.14 38.07 39.01 39.94 40.88 41.82 42.76 43.70 44.64 45.59 46.54 47.49
        48.45 49.41 50.36 51.33 52.29 53.25 54.22 55.19 56.17 57.14 58.12 59.10 60.08 61.07 62.06 63.54 65.04 66.54
        68.04 69.55 71.07 72.59 74.12 75.65 77.19 78.74 80.30 81.86 83.43 85.00 86.58 88.17 89.76 91.37 92.98 94.59
        96.22 97.85 99.49 101.14 102.79 104.46 106.13 107.81 109.50 111.19 112.90 114.61 116.33 118.65 120.97 123.32
        126.87""",
    (5, "PCU1-4"): """
        2.06 2.47 2.87 3.28 3.68 4.09 4.49 4.90 5.31 5.71 6.12 6.53 6.94 7.35 7.76 8.17 8.57 8.98 9.40 9.81 10.22 10.63
        11.04 11.45 11.87 12.28 12.69 13.11 13.52 13.93 14.35 14.76 15.18 15.60 16.01 16.43 16.85 17.26 17.68 18.10
        18.52 18.94 19.36 19.78 20.20 20.62 21.04 21.46 21.88 22.30 23.15 24.00 24.85 25.70 26.55 27.40 28.26 29.12
        29.97 30.83 31.70 32.56 33.43 34.29 35.16 36.03 36.91 37.78 38.66 39.53 40.41 41.30 42.18 43.06 43.95 44.84
        45.73 46.62 47.52 48.41 49.31 50.21 51.12 52.02 52.93 53.83 54.74 55.66 56.57 57.49 58.40 59.78 61.17 62.56
        63.96 65.36 66.76 68.17 69.59 71.01 72.43 73.86 75.30 76.74 78.18 79.63 81.09 82.55 84.02 85.49 86.97 88.46
        89.95 91.45 92.95 94.46 95.97 97.49 99.02 100.55 102.09 103.64 105.19 106.75 108.32 110.42 112.53 114.65
        117.86""",
}
# fmt: on


def std2_channel(absolute: ArrayLike) -> Ints:
    """Return the Standard-2 channel, 0 to 128, of each absolute channel; ValueError if one is not of 0 to 255."""
    channel = np.asarray(absolute, np.int64)
    if ((channel < 0) | (channel >= ABSOLUTE_CHANNELS)).any():
        raise ValueError(f"absolute channels are 0 to 255, not {channel}")
    std2, first, width = (np.array(column) for column in zip(*STD2_PACKING, strict=True))
    part = np.searchsorted(first, channel, side="right") - 1
    return np.asarray(std2[part] + (channel - first[part]) // width[part], np.int64)


def energy_range(chmin: int, chmax: int, epoch: int, detector: str | None = None) -> tuple[float | None, float]:
    """Convert absolute channels, both ends included, to energies, keV.

    The same channels have other energies in each epoch: light curves of two epochs do not compare without this.

    Parameters
    ----------
    chmin, chmax
        Absolute channels, 0 to 255. Of a Standard-2 channel that holds several the range is that of all.
    epoch
        Gain epoch, 1 to 5.
    detector
        As table channels has it; None: all PCUs, in epoch 5 PCU1-4.

    Returns
    -------
    tuple
        Lower end, None for channel 0, of which the table has none; upper end.

    Raises
    ------
    ValueError
        If there are no such channels, epoch or detector.
    """
    first, last = std2_channel([chmin, chmax]).tolist()
    if first > last:
        raise ValueError(f"chmin {chmin} is above chmax {chmax}")
    key = (epoch, detector or _DETECTORS.get(epoch, ("",))[0])
    if key not in _UPPER_KEV:
        raise ValueError(f"there is no gain epoch {epoch} with detector {key[1] or 'of any kind'}")
    upper = _upper_kev(*key)
    return (upper[first - 1] if first else None), upper[last]


@lru_cache(maxsize=len(_UPPER_KEV))
def _upper_kev(epoch: int, detector: str) -> tuple[float, ...]:
    return tuple(float(value) for value in _UPPER_KEV[epoch, detector].split())


def channels() -> pa.Table:
    """Return the energies of absolute channels: table channels of the lake, one row per epoch, detectors and channel.

    Channels that Standard-2 packs into one have its edges. emin_kev of channels 0 to 4 is NULL: no source has it.
    """
    absolute = np.arange(ABSOLUTE_CHANNELS, dtype=np.int32)
    std2 = std2_channel(absolute)
    edges = [np.array([np.nan, *_upper_kev(*key)]) for key in _UPPER_KEV]
    columns = {
        "epoch": np.repeat(np.array([epoch for epoch, _ in _UPPER_KEV], np.int32), len(absolute)),
        "detector": np.repeat([detector for _, detector in _UPPER_KEV], len(absolute)),
        "channel": np.tile(absolute, len(edges)),
        "std2_channel": np.tile(std2.astype(np.int32), len(edges)),
        "emin_kev": np.concatenate([one[std2] for one in edges]),
        "emax_kev": np.concatenate([one[std2 + 1] for one in edges]),
    }
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
