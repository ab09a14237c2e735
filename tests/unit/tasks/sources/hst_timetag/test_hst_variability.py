"""Statistics and periods of light curves of photons, against SciPy's own and the published formulas."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from astropy.timeseries import LombScargle
from scipy.signal import lombscargle

from lake.science import periodogram
from lake.science.periodogram import highest_peak, power
from tasks.sources.hst_timetag.variability import BANDS, bands, is_periodic, statistics

DAY = 86_400.0


def test_the_power_is_that_of_the_published_formula() -> None:
    random = np.random.default_rng(3)
    times = np.sort(random.uniform(0, 2000, 400))
    values = random.normal(100, 10, 400) + 8 * np.sin(2 * np.pi * times / 83)
    periods = np.linspace(5, 600, 400)
    published = lombscargle(times, values - values.mean(), 2 * np.pi / periods) * 2 / (400 * values.var())
    assert power(times, values, periods) == pytest.approx(published, abs=1e-6)


def test_the_power_is_finite_where_all_times_have_the_same_phase() -> None:
    times, values = np.arange(0, 20, 2.0), np.array([1.0, 2.0] * 5)
    assert power(times, values, np.array([2.0, 4.0])) == pytest.approx([0, 1], abs=1e-9)


@pytest.mark.parametrize("n", [2, 5, 3000])
def test_the_power_is_that_of_astropy(n: int) -> None:
    random = np.random.default_rng(n)
    times = np.concatenate([np.arange(n) * 2.0, 5400.3 + np.arange(n) * 2.0])
    values, periods = random.poisson(30, 2 * n).astype(float), np.linspace(5, 600, 300)
    model = LombScargle(times, values, fit_mean=False, center_data=True, normalization="standard")
    expected = model.power(1 / periods, method="slow", assume_regular_frequency=False)
    assert power(times, values, periods) == pytest.approx(expected, abs=1e-10)


def test_a_sine_in_noise_is_found_in_its_band_alone() -> None:
    random = np.random.default_rng(4)
    times = np.arange(0, 3000, 2.0)
    counts = random.poisson(200 * (1 + 0.3 * np.sin(2 * np.pi * times / 61.7))).astype(float)
    found = bands(counts / 2, 57934 + times / DAY)
    assert found["short"].peak is not None
    assert found["short"].peak.period == pytest.approx(61.7, rel=2e-3)
    assert found["short"].peak.false_alarm_probability < 1e-20
    assert found["short"].highest is not None
    assert found["short"].highest > 0.3
    assert found["short"].periods_s[found["short"].significant] == pytest.approx([61.7], abs=0.5)
    assert is_periodic(found)


def test_exposures_decades_apart_have_no_peak_rather_than_a_missed_one() -> None:
    # With five points a peak, these would be half a thousand million frequencies; fewer would miss the highest.
    random = np.random.default_rng(7)
    times = np.concatenate([start + np.arange(0, 1200, 2.0) for start in (0.0, 2.1e8, 4.7e8)])
    counts = random.poisson(200 * (1 + 0.5 * np.sin(2 * np.pi * times / 61.7))).astype(float)
    tracemalloc.start()
    peak = highest_peak(times, counts, 5.0, 600.0)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak is None
    assert peak_bytes < 500e6


def apart(days: float, period_s: float, *, exposures: int = 3, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Times and counts of exposures of 20 minutes that are days apart, of a source with a period."""
    random = np.random.default_rng(seed)
    starts = np.cumsum(random.uniform(0.9, 1.1, exposures)) * days * DAY
    times = np.concatenate([start + np.arange(0, 1200, 2.0) for start in starts])
    return times, random.poisson(50 * (1 + 0.4 * np.sin(2 * np.pi * times / period_s))).astype(float)


@pytest.mark.parametrize("period_s", [pytest.param(7.3, marks=pytest.mark.long), 48.0, 377.0])
def test_a_large_grid_is_searched_in_blocks_with_the_same_result(
    period_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    times, counts = apart(0.7, period_s)
    whole = highest_peak(times, counts, 5.0, 600.0)
    monkeypatch.setattr(periodogram, "DIRECT_FREQUENCIES", 100)
    searched = highest_peak(times, counts, 5.0, 600.0)
    assert whole is not None
    assert searched is not None
    assert searched.period == pytest.approx(whole.period, rel=1e-9)
    assert searched.power == pytest.approx(whole.power, rel=1e-3)
    assert searched.period == pytest.approx(period_s, rel=1e-3)


def test_exposures_months_apart_have_a_peak() -> None:
    # More than a million frequencies.
    times, counts = apart(20.0, 48.0)
    peak = highest_peak(times, counts, 5.0, 600.0)
    assert peak is not None
    # Exposures so far apart leave aliases, within what a single exposure resolves.
    assert peak.period == pytest.approx(48.0, abs=0.5)
    assert peak.power > 0.5
    assert peak.false_alarm_probability < 1e-6


def test_noise_is_not_periodic() -> None:
    random = np.random.default_rng(5)
    times = np.arange(0, 3000, 2.0)
    found = bands(random.poisson(200, len(times)).astype(float), 57934 + times / DAY)
    assert not is_periodic(found)
    assert found["short"].peak is not None
    assert found["short"].peak.false_alarm_probability > 1e-3
    assert set(found) == set(BANDS)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_short_and_constant_curves_have_no_period(n: int) -> None:
    times = np.arange(n) * 2.0
    assert highest_peak(times, np.ones(n), 5, 600) is None
    # Years apart: a grid for such periods would have a billion points.
    years_apart = np.concatenate([times, times + 1e9])
    assert highest_peak(years_apart, years_apart % 7, 5, 600) is None
    found = bands(np.ones(n), 57934 + times / DAY)
    assert not is_periodic(found)


def test_statistics_of_a_poisson_source() -> None:
    random = np.random.default_rng(6)
    counts, mjd = random.poisson(400, 20_000).astype(float), 57934 + np.arange(20_000) * 2 / DAY
    found = statistics(counts, mjd)
    assert found["total"] == counts.sum()
    assert found["mu"] == pytest.approx(20, rel=2e-3)
    assert found["stdev"] == pytest.approx(np.std(counts))
    assert found["poisson_factor"] == pytest.approx(1, abs=0.02)
    assert abs(found["pearson_r"]) < 0.03
    assert found["pearson_p"] > 1e-3


@pytest.mark.parametrize(
    ("counts", "total", "defined"),
    [([], 0, []), ([0, 0], 0, []), ([-2, 1], -1, []), ([5], 5, ["mean", "mu", "stdev", "poisson_factor"]),
     ([5, 5], 10, ["mean", "mu", "stdev", "poisson_factor"])],
)  # fmt: skip
def test_what_is_not_defined_is_null(counts: list[float], total: int, defined: list[str]) -> None:
    found = statistics(np.array(counts, float), 57934 + np.arange(len(counts)))
    assert found.pop("total") == total
    assert [name for name, value in found.items() if value is not None] == defined
