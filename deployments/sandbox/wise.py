"""Stand-in for the unWISE time-domain catalogue (unTimely) of IRSA: Parquet in Hive partitions of HEALPix order 5.

A row is a detection in one coadd of one visit and band. Column names are those of the catalogue, those of its index of
coadds in capitals; fluxes are Vega nanomaggies. Detections are random and depend on the seed and the arguments only.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hpgeom
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deployments.sandbox.gaia import _mix as mix
from deployments.sandbox.gaia import _normal as normal
from deployments.sandbox.gaia import _uniform as uniform
from deployments.sandbox.heasarc import offset
from deployments.sandbox.ztf import Floats, Ints, field_positions, keys, write_dataset

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

Targets = Sequence[tuple[float, float]]

DATASET = "unwise-neo7-time_domain-healpix_k5.parquet"
"""The folder with all of it, as it is named in the bucket."""
ORDER = 5
FIELD_SOURCES = 20_000
"""Sources away from targets at scale 1, with some 30 detections each."""

_CHUNK = 20_000
# Visits of one place on the sky, the first two of the cryogenic mission.
_VISITS = (
    55_213,
    55_401,
    55_579,
    56_677,
    56_866,
    57_039,
    57_228,
    57_400,
    57_592,
    57_759,
    57_959,
    58_123,
    58_323,
    58_484,
    58_688,
    58_848,
    59_054,
)
_FEWEST = 12
_DESCRIBED = {
    "x": ("f8", "pix", "x coordinate in the coadd"),
    "y": ("f8", "pix", "y coordinate in the coadd"),
    "flux": ("f4", "nMgy", "Vega flux"),
    "dx": ("f4", "pix", "uncertainty of x"),
    "dy": ("f4", "pix", "uncertainty of y"),
    "dflux": ("f4", "nMgy", "statistical uncertainty of flux"),
    "qf": ("f4", "", "PSF-weighted share of good pixels"),
    "rchi2": ("f4", "", "PSF-weighted mean chi squared"),
    "fracflux": ("f4", "", "share of the flux that is the source's"),
    "fluxlbs": ("f4", "nMgy", "Vega flux, local background subtracted"),
    "dfluxlbs": ("f4", "nMgy", "uncertainty of fluxlbs"),
    "fwhm": ("f4", "pix", "FWHM of the PSF"),
    "spread_model": ("f4", "", "size parameter"),
    "dspread_model": ("f4", "", "uncertainty of spread_model"),
    "fluxiso": ("f4", "nMgy", "flux of the model when isolated"),
    "xiso": ("f4", "pix", "x when isolated"),
    "yiso": ("f4", "pix", "y when isolated"),
    "sky": ("f4", "nMgy", "background"),
    "ra": ("f8", "deg", "right ascension"),
    "dec": ("f8", "deg", "declination"),
    "coadd_id": ("U", "", "tile"),
    "band": ("i4", "", "1 for W1, 2 for W2"),
    "unwise_detid": ("U", "", "detection"),
    "nm": ("i4", "", "exposures in the coadd"),
    "primary": ("i2", "", "1 in the primary region of its coadd"),
    "flags_unwise": ("i4", "", "coadd flags"),
    "flags_info": ("i4", "", "additional flags"),
    "EPOCH": ("i4", "", "number of the visit"),
    "FORWARD": ("i2", "", "1 if scanned forward"),
    "MJDMIN": ("f8", "d", "first exposure"),
    "MJDMAX": ("f8", "d", "last exposure"),
    "MJDMEAN": ("f8", "d", "mean time"),
}


def mount(sandbox: Sandbox, root: Path, *, seed: int, scale: float, targets: Targets) -> str:
    """Write the dataset under `root` unless it is there, and return its folder."""
    folder = root / "wise"
    # Raise "format" when what is written changes, so that cached datasets are made anew.
    key = {"format": 1, "seed": seed, "scale": float(scale), "targets": np.array(targets, dtype=float).tolist()}
    sandbox.cached(
        folder / DATASET / "_metadata",
        key,
        lambda: write_collection(folder, targets, seed=seed, n_field=round(FIELD_SOURCES * scale)),
    )
    return str(folder / DATASET)


def write_collection(folder: Path, targets: Targets, *, seed: int, n_field: int, row_group: int = 10_000) -> None:
    """Write the dataset: ``DATASET/healpix_k5=<pixel>/part0.snappy.parquet``, and ``_metadata`` last.

    Parameters
    ----------
    folder
        Where to make the folder `DATASET`. One that is there is removed.
    targets
        Positions (right ascension, declination, deg). Each has a source within 0.3 arcsec; detections scatter around
        it by 0.1 arcsec, each in the partition of its own position.
    seed
        Seed of everything random.
    n_field
        Number of sources away from targets. One in eight, at targets too, is in an overlap of two coadds: its
        detections are there twice, the second ones with ``primary`` 0.
    row_group
        Rows of a row group.
    """
    detections = _Detections(targets, seed, n_field)
    shutil.rmtree(folder / DATASET, ignore_errors=True)
    order = np.argsort(detections.pixel, kind="stable")
    pixels, starts = np.unique(detections.pixel[order], return_index=True)
    parts = np.split(order, starts[1:]) if len(pixels) else []
    files = ((f"healpix_k{ORDER}={n}/part0.snappy.parquet", one) for n, one in zip(pixels.tolist(), parts, strict=True))
    write_dataset(folder / DATASET, files, detections.rows, row_group=row_group, compression="snappy")


class _Detections:
    """Rows of the dataset, by number: those of a source follow each other, by coadd, band and visit."""

    def __init__(self, targets: Targets, seed: int, n_field: int) -> None:
        places = np.asarray(targets, dtype=np.float64).reshape(-1, 2)
        self.sky = np.concatenate([places, field_positions(n_field, seed)])
        self.key = keys(np.arange(len(self.sky)), seed ^ 0x3155)
        radius = np.where(np.arange(len(self.sky)) < len(places), 0.28, 0.0) * uniform(self.key, 1) / 3600
        self.sky = np.column_stack(offset(self.sky, radius, 360 * uniform(self.key, 2)))
        self.visits = _FEWEST + ((len(_VISITS) + 1 - _FEWEST) * uniform(self.key, 3)).astype(np.int64)
        self.coadds = np.where(uniform(self.key, 4) < 0.125, 2, 1)
        self.first = np.concatenate(([0], np.cumsum(2 * self.visits * self.coadds)))
        self.pixel = np.empty(self.first[-1], dtype=np.int16)
        for start in range(0, len(self.pixel), _CHUNK):
            ra, dec = self._places(np.arange(start, min(start + _CHUNK, len(self.pixel))))[-2:]
            self.pixel[start : start + _CHUNK] = hpgeom.angle_to_pixel(2**ORDER, ra, dec)

    def _places(self, which: Ints) -> tuple[Ints, Ints, NDArray[np.uint64], Floats, Floats]:
        """Source, number within it, key and position of detections; a second one is at the same place but for noise."""
        of = np.searchsorted(self.first, which, side="right") - 1
        number = which - self.first[of]
        key = mix(self.key[of] + (number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
        scatter = 0.1 * np.abs(normal(key, 1)) / 3600
        ra, dec = offset(self.sky[of], scatter, 360 * uniform(key, 3))
        return of, number, key, ra, dec

    def rows(self, which: Ints) -> pa.Table:
        of, number, key, ra, dec = self._places(which)
        source = self.key[of]
        coadd, rest = np.divmod(number, 2 * self.visits[of])
        band, visit = np.divmod(rest, self.visits[of])
        # Those with fewer visits lack the last ones. Both bands are seen at the same time.
        when = mix(source + visit.astype(np.uint64))
        middle = np.array(_VISITS)[visit] + 150 * uniform(source, 10) + 8 * uniform(when, 1)
        half = 1.2 + 2.5 * uniform(when, 2) ** 3
        bright = np.where(band == 1, 0.45 + 0.5 * uniform(source, 12), 1) * 10 ** (0.7 + 3 * uniform(source, 11) ** 1.5)
        change = 1 + 0.3 * uniform(source, 13) * np.sin(2 * np.pi * (middle / 800 + uniform(source, 14)))
        noise = np.where(band == 1, 30.0, 85.0) * (0.08 + 0.05 * uniform(key, 5))
        error = np.hypot(noise, 0.004 * bright)
        flux = bright * change + error * normal(key, 6)
        flux = np.where(uniform(key, 8) < 0.01, -np.abs(flux) * 0.05 - 0.1 * error, flux)
        tile = self._tiles(self.sky[of], coadd)
        x, y = 2048 * uniform(source, 20) + 0.02 * normal(key, 9), 2048 * uniform(source, 22) + 0.02 * normal(key, 11)
        shift, per_flux = np.clip(error / np.maximum(flux, error), 0.001, 1), error / np.maximum(np.abs(flux), error)
        names = [
            f"{name}w{b}o{int(n) % 10_000_000:07d}e{v:03d}"
            for name, b, n, v in zip(tile, (band + 1).tolist(), of.tolist(), visit.tolist(), strict=True)
        ]
        values: dict[str, Any] = {
            "x": x,
            "y": y,
            "flux": flux,
            "dx": shift,
            "dy": shift,
            "dflux": error,
            "qf": np.where(uniform(key, 15) < 0.03, 0.6 + 0.3 * uniform(key, 16), 1.0),
            "rchi2": 0.3 + 3 * uniform(key, 17) ** 4,
            "fracflux": 1 - 0.5 * uniform(source, 18) ** 2,
            "fluxlbs": flux - 0.02 * error,
            "dfluxlbs": 1.02 * error,
            "fwhm": np.where(band == 0, 2.6, 2.87) + 0.03 * normal(key, 19),
            "spread_model": 0.002 * normal(key, 21),
            "dspread_model": 0.01 * per_flux,
            "fluxiso": flux,
            "xiso": 0.1 * shift,
            "yiso": -0.1 * shift,
            "sky": np.where(band == 0, -1.0, -5.0) + normal(key, 23),
            "ra": ra,
            "dec": dec,
            "coadd_id": tile,
            "band": band + 1,
            "unwise_detid": names,
            "nm": 6 + (20 * uniform(when, 3) ** 3).astype(int),
            "primary": 1 - coadd,
            "flags_unwise": np.where(uniform(key, 25) < 0.01, 1 << (number % 8), 0),
            "flags_info": np.where(uniform(key, 26) < 0.02, 2, 0),
            "EPOCH": visit,
            "FORWARD": visit % 2,
            "MJDMIN": middle - half,
            "MJDMAX": middle + half,
            "MJDMEAN": middle,
        }
        fields, arrays = [], []
        for name, (kind, unit, words) in _DESCRIBED.items():
            array = pa.array(values[name], pa.string()) if kind == "U" else pa.array(values[name].astype(kind))
            fields.append(pa.field(name, array.type, metadata={"unit": unit, "description": words}))
            arrays.append(array)
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    @staticmethod
    def _tiles(sky: Floats, coadd: Ints) -> list[str]:
        """Names of tiles, some 1.5 deg apart: right ascension and declination of the centre in tenths of a degree."""
        dec = np.clip(np.round(sky[:, 1] / 1.5) * 1.5, -89, 89)
        step = 1.5 / np.cos(np.radians(dec))
        ra = (np.round(sky[:, 0] / step) + coadd) * step % 360
        tenths = np.floor(10 * ra).astype(int).tolist(), np.round(10 * dec).astype(int).tolist()
        return [f"{r:04d}{'m' if d < 0 else 'p'}{abs(d):03d}" for r, d in zip(*tenths, strict=True)]
