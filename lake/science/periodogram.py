"""Lomb-Scargle periodograms of light curves: on a given grid of periods, and over a range of frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Peak:
    """The highest peak of a periodogram.

    Parameters
    ----------
    period
        In the unit of the times.
    power
        Share of the variance that a sine of this period takes away, 0 to 1.
    false_alarm_probability
        That noise alone has such a peak in the range: Baluev (2008MNRAS.385.1279B).
    """

    period: float
    power: float
    false_alarm_probability: float


# More points of a grid that is uniform in frequency than this are searched group by group of the measurements; and so
# many products of points and groups are computed at most, which takes some seconds. Measurements that are years apart
# would need a billion points for periods of seconds, and a coarser grid would miss peaks.
DIRECT_FREQUENCIES, MOST_WORK = 200_000, 100_000_000
# Of the search: points of a block, of a width of a group's own peaks, and candidates that are looked at exactly.
_ROOT, _OVERSAMPLED, _CANDIDATES = 128, 16, 8
# Values of groups that are in memory at a time, 16 bytes each.
_MOST_VALUES = 4_000_000


def power(times: Array, values: Array, periods: Array) -> Array:
    """Return the classical normalised periodogram at some periods: Scargle (1982ApJ...263..835S), times 2 / (N s**2).

    s is the population standard deviation. It is 1 for a pure sine; 0 everywhere for constant values.

    Parameters
    ----------
    times, values
        Of the measurements, finite, shape (n,).
    periods
        In the unit of times, shape (m,).

    Examples
    --------
    >>> import numpy as np
    >>> times = np.arange(0, 100.0)
    >>> values = 5 + np.sin(2 * np.pi * times / 8)
    >>> power(times, values, np.array([8.0, 20.0])).round(2).tolist()
    [1.0, 0.0]
    """
    if len(times) < 2 or not np.ptp(values) > 0:
        return np.zeros(len(periods))
    # Frequencies on no regular grid need the direct sum: a sine and a cosine of each time and frequency. The matrices
    # are kept small enough for a processor's cache.
    seconds, centred = times - times[0], values - values.mean()
    angular = 2 * np.pi / np.asarray(periods, float)
    chunk = max(1, 250_000 // len(times))
    parts = [_sums(seconds, centred, angular[first : first + chunk]) for first in range(0, len(angular), chunk)]
    return np.clip(np.concatenate(parts) / (centred @ centred) if parts else np.zeros(0), 0.0, 1.0)


def _sums(times: Array, values: Array, angular: Array) -> Array:
    """Return Scargle's power at some angular frequencies, times 2: his equation 10 with its tau."""
    phases = np.outer(angular, times)
    cosines, sines = np.cos(phases), np.sin(phases, out=phases)
    with_cosine, with_sine = cosines @ values, sines @ values
    # Sums of cos(2 w t) and sin(2 w t), by the double angle.
    double_cosine = 2 * np.einsum("ij,ij->i", cosines, cosines) - len(times)
    double_sine = 2 * np.einsum("ij,ij->i", cosines, sines)
    tau, length = np.arctan2(double_sine, double_cosine) / 2, np.hypot(double_sine, double_cosine)
    in_phase = with_cosine * np.cos(tau) + with_sine * np.sin(tau)
    off_phase = with_sine * np.cos(tau) - with_cosine * np.sin(tau)
    squares = (len(times) - length) / 2
    # All phases may be the same but for half turns: then no sine is off.
    off = np.divide(off_phase**2, squares, out=np.zeros(len(angular)), where=squares > 1e-9 * len(times))
    power: Array = 2 * in_phase**2 / (len(times) + length) + off
    return power


def highest_peak(times: Array, values: Array, shortest: float, longest: float, *, per_peak: int = 5) -> Peak | None:
    """Return the highest peak between two periods, on a grid that is uniform in frequency.

    Parameters
    ----------
    times, values
        Of the measurements, finite, shape (n,).
    shortest, longest
        Periods, in the unit of times.
    per_peak
        Points of the grid for each width of a peak, 1 / (span of the times).

    Returns
    -------
    Peak or None
        None if there are fewer than four measurements, if all values are the same, if the times span less than the
        shortest period, or so much and in so many groups that it would be more than `MOST_WORK`.

    Examples
    --------
    >>> import numpy as np
    >>> times = np.arange(0, 1000.0)
    >>> peak = highest_peak(times, np.sin(2 * np.pi * times / 37), 5, 500)
    >>> round(peak.period, 1), round(peak.power, 2)
    (37.0, 1.0)
    """
    from astropy.timeseries import LombScargle

    span = float(np.ptp(times)) if len(times) else 0.0
    if len(times) < 4 or not np.ptp(values) > 0 or span < shortest:
        return None
    model = LombScargle(times - times[0], values, normalization="standard")
    low, high = 1.0 / min(longest, span), 1.0 / shortest
    number = max(int(np.ceil((high - low) * span * per_peak)), 1) + 1
    frequencies: Array
    if number > DIRECT_FREQUENCIES:
        frequencies = _candidates(times, values, low, (high - low) / (number - 1), number)
        if not len(frequencies):
            return None
        powers = model.power(frequencies, method="slow", assume_regular_frequency=False)
    else:
        frequencies = np.linspace(low, high, number)
        powers = model.power(frequencies, method="fast" if number > 1 else "slow", assume_regular_frequency=True)
    best = int(np.argmax(powers))
    probability = float(model.false_alarm_probability(powers[best], maximum_frequency=high, method="baluev"))
    return Peak(1.0 / float(frequencies[best]), float(min(powers[best], 1.0)), min(max(probability, 0.0), 1.0))


def _candidates(times: Array, values: Array, low: float, step: float, number: int) -> Array:
    """Return the frequencies of a grid with the highest power of Schuster's; none if that is too much work.

    The transform of measurements that are close together is smooth in frequency. So it is computed at few points, and
    between these it is interpolated, to 0.5 %. The transforms of all groups are added with their phases, in blocks.
    """
    order = np.argsort(times)
    seconds, centred = times[order] - times[order[0]], (values - values.mean())[order]
    parts = np.split(np.arange(len(seconds)), np.flatnonzero(np.diff(seconds) > seconds[-1] / 1000) + 1)
    width, size = step * number, _ROOT**2
    points = [int(np.ceil(width * _OVERSAMPLED * max(np.ptp(seconds[rows]), 1.0 / width))) + 2 for rows in parts]
    if number * len(parts) > MOST_WORK or sum(points) > _MOST_VALUES:
        return np.zeros(0)
    groups = []
    for rows, n in zip(parts, points, strict=True):
        middle = (seconds[rows[0]] + seconds[rows[-1]]) / 2
        at = low + np.arange(n) * (width / (n - 2))
        chunk = max(1, 250_000 // len(rows))
        values_at = [
            np.exp(-2j * np.pi * np.outer(at[first : first + chunk], seconds[rows] - middle)) @ centred[rows]
            for first in range(0, n, chunk)
        ]
        turns = middle * step * np.arange(_ROOT)
        phases = np.outer(np.exp(-2j * np.pi * _ROOT * turns), np.exp(-2j * np.pi * turns)).ravel()
        groups.append((middle, at, np.concatenate(values_at), phases))
    best_at, best = np.zeros(0), np.zeros(0)
    for first in range(0, number, size):
        block = low + step * np.arange(first, min(first + size, number))
        total = np.zeros(len(block), complex)
        for middle, at, smooth, phases in groups:
            total += np.interp(block, at, smooth) * (phases[: len(block)] * np.exp(-2j * np.pi * middle * block[0]))
        powers = total.real**2 + total.imag**2
        highest = np.argsort(powers)[-_CANDIDATES:]
        best_at, best = np.append(best_at, block[highest]), np.append(best, powers[highest])
        kept = np.argsort(best)[-_CANDIDATES:]
        best_at, best = best_at[kept], best[kept]
    return best_at
