"""How much a light curve of photons varies: the statistics of the Lightcurve Legacy of COS and STIS (HST 13902)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lake.science.periodogram import Array, Peak, highest_peak, power

SECONDS_PER_DAY = 86_400.0

# Periods that are looked at, seconds: from the first to the second.
BANDS: Mapping[str, tuple[float, float]] = {
    "short": (5.0, 600.0),
    "medium": (600.0, 3600.0),
    "long": (3600.0, 36_000.0),
}
# A peak counts if it is a local maximum higher than the mean by so many standard deviations of all powers; and a light
# curve is of interest if such a peak has this much power.
SIGMAS, INTERESTING_POWER = 3.0, 0.30
# More points than this of the published grid are not computed: they would take hours, and decide nothing.
MOST_PERIODS = 20_000


@dataclass(frozen=True)
class Band:
    """Significant periods of a band.

    Parameters
    ----------
    periods_s, powers
        Of the published grid, as many equally spaced periods as the light curve has bins, and its power at each.
    significant
        Which of them are significant.
    peak
        The highest peak on a grid that is uniform in frequency; its period in seconds.
    """

    periods_s: Array
    powers: Array
    significant: Array
    peak: Peak | None

    @property
    def highest(self) -> float | None:
        """Return the highest significant power; None without any."""
        return float(self.powers[self.significant].max()) if self.significant.any() else None

    @property
    def threshold(self) -> float:
        """Return the power that a significant peak exceeds."""
        return float(self.powers.mean() + SIGMAS * self.powers.std()) if len(self.powers) else 0.0


def statistics(counts: Array, mjd: Array) -> dict[str, Any]:
    """Return total, mean, mu, stdev, poisson_factor, pearson_r and pearson_p of a light curve.

    Parameters
    ----------
    counts
        Counts less background of each bin, finite; shape (n,).
    mjd
        Of each bin, days.

    Returns
    -------
    dict
        total is the whole part of the sum; mu = sqrt(mean); stdev is that of the population; poisson_factor = stdev /
        mu, which is 1 for a constant source; Pearson's r of counts and mjd, with the probability of such an r without
        correlation. What is not defined is None: all but total, if that is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> found = statistics(np.array([90.0, 110.0]), np.array([0.0, 1.0]))
    >>> found["total"], found["mean"], found["stdev"], found["poisson_factor"]
    (200, 100.0, 10.0, 1.0)
    """
    from scipy.stats import pearsonr

    total = int(counts.sum()) if len(counts) else 0
    nothing = dict.fromkeys(("mean", "mu", "stdev", "poisson_factor", "pearson_r", "pearson_p"))
    if total <= 0:
        return {"total": total, **nothing}
    mean, stdev = float(counts.mean()), float(counts.std())
    mu = float(np.sqrt(mean))
    r = p = None
    if len(counts) > 1 and np.ptp(counts) > 0 and np.ptp(mjd) > 0:
        # The first day is taken off: r does not change, and rounding loses nothing.
        r, p = (float(value) for value in pearsonr(mjd - mjd[0], counts))
    return {
        "total": total,
        "mean": mean,
        "mu": mu,
        "stdev": stdev,
        "poisson_factor": stdev / mu if mu > 0 else None,
        "pearson_r": r,
        "pearson_p": p,
    }


def bands(net: Array, mjd: Array, *, with_peaks: bool = True) -> dict[str, Band]:
    """Return the significant periods of a light curve in each band.

    Parameters
    ----------
    net
        Counts per second of each bin, finite; shape (n,).
    mjd
        Of each bin, days.
    with_peaks
        Look for the highest peak, too.
    """
    seconds = (mjd - mjd[0]) * SECONDS_PER_DAY if len(mjd) else mjd
    found = {}
    for name, (shortest, longest) in BANDS.items():
        periods = np.linspace(shortest, longest, min(len(net), MOST_PERIODS))
        powers = power(seconds, net, periods)
        peak = highest_peak(seconds, net, shortest, longest) if with_peaks else None
        found[name] = Band(periods, powers, _significant(powers), peak)
    return found


def _significant(powers: Array) -> Array:
    """Say which powers are higher than both neighbours and than the threshold."""
    found = np.zeros(len(powers), bool)
    if len(powers) > 2:
        inner = powers[1:-1]
        higher = (inner > powers[:-2]) & (inner > powers[2:])
        found[1:-1] = higher & (inner > powers.mean() + SIGMAS * powers.std())
    return found


def is_periodic(found: Mapping[str, Band]) -> bool:
    """Say whether a significant peak of any band has the power that the published rule asks for."""
    return any((band.highest or 0.0) >= INTERESTING_POWER for band in found.values())
