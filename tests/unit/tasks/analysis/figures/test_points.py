"""Every measurement of a target is drawn or counted, whatever it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.analysis.figures import points as module
from tasks.analysis.figures.points import Fold, Look, points, running_mean

COLUMNS = {
    "archive": pa.string(),
    "band": pa.string(),
    "mjd": pa.float64(),
    "bmjd_tdb": pa.float64(),
    "flux": pa.float32(),
    "flux_err": pa.float32(),
    "mag": pa.float32(),
    "mag_err": pa.float32(),
    "mag_system": pa.string(),
    "unit": pa.string(),
    "detected": pa.bool_(),
    "good": pa.bool_(),
    "exposure_s": pa.float64(),
}
ONE: dict[str, Any] = {
    "archive": "ztf",
    "band": "ztf_g",
    "mjd": 58000.5,
    "bmjd_tdb": 58000.503,
    "flux": 0.5,
    "flux_err": 0.01,
    "mag": 17.2,
    "mag_err": 0.02,
    "mag_system": "AB",
    "unit": "mJy",
    "detected": True,
    "good": True,
    "exposure_s": 30.0,
}


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([{**ONE, **row} for row in rows], pa.schema(list(COLUMNS.items())))


ROWS = st.fixed_dictionaries(
    {
        "archive": st.sampled_from(["ztf", "tess", "burst"]),
        "band": st.sampled_from(["ztf_g", "ztf_r_ap", "tess_sap", "tess", "B<i>x"]),
        "mjd": st.one_of(st.none(), st.floats(50000, 60000)),
        "bmjd_tdb": st.one_of(st.none(), st.floats(50000, 60000)),
        "flux": st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)),
        "flux_err": st.one_of(st.none(), st.floats(0, 1e3, width=32)),
        "mag": st.one_of(st.none(), st.floats(-2, 25, width=32)),
        "unit": st.sampled_from(["mJy", "", "electron.s**-1", "GeV", "erg.cm**-2", "count.s**-1", None]),
        "detected": st.booleans(),
        "good": st.booleans(),
    }
)
LOOKS = st.builds(
    Look,
    axis=st.sampled_from(["flux", "magnitude", "normalised"]),
    scale=st.sampled_from(["linear", "symlog", "log"]),
    clip=st.one_of(st.none(), st.floats(0.5, 4)),
    with_bad=st.booleans(),
    scaled=st.booleans(),
    fold=st.one_of(st.none(), st.just(Fold(3.3, 50000.0))),
    bands=st.one_of(st.none(), st.just(("ztf_g", "tess"))),
)


@given(rows=st.lists(ROWS, max_size=40), look=LOOKS)
def test_every_measurement_is_drawn_or_counted(rows: list[dict[str, Any]], look: Look) -> None:
    made = points(table(*rows), look)
    assert made.total == len(rows)
    assert len(made.frame) == made.drawn.total()
    shown = made.frame[made.frame.kind.isin(("point", "bad", "limit"))]
    assert np.isfinite(shown.y).all()
    assert np.isfinite(made.frame.x).all()
    if look.scale == "log" and look.axis != "magnitude":
        assert (shown.y > 0).all()


@pytest.mark.parametrize(
    ("change", "look", "kind", "why"),
    [
        ({}, Look(), "point", None),
        ({"good": False}, Look(), None, "not good"),
        ({"good": False}, Look(with_bad=True), "bad", None),
        ({"flux": None}, Look(), None, "without a flux"),
        ({"detected": False}, Look(), "limit", None),
        ({"detected": False, "flux": None}, Look(), "unseen", None),
        ({"detected": False, "flux_err": None}, Look(), "unseen", None),
        ({"unit": None, "flux": None}, Look(), "event", None),
        ({"unit": "erg.cm**-2"}, Look(), "event", None),
        ({"mag": None}, Look(axis="magnitude"), None, "without a magnitude"),
        ({"flux": -0.5}, Look(), "point", None),
        ({"flux": -0.5}, Look(scale="symlog"), "point", None),
        ({"flux": -0.5}, Look(scale="log"), None, "not positive, on a log axis"),
        ({"bmjd_tdb": None}, Look(fold=Fold(1.0, 0.0)), None, "without a time at the barycentre"),
        ({}, Look(bands=("ztf_r",)), None, "of other bands"),
    ],
)
def test_what_becomes_of_a_measurement(change: dict[str, Any], look: Look, kind: str | None, why: str | None) -> None:
    made = points(table(change), look)
    assert made.frame.kind.tolist() == ([kind] if kind else [])
    assert dict(made.left_out) == ({why: 1} if why else {})


def test_a_limit_is_three_errors_above_and_of_magnitudes_below() -> None:
    unseen = table({"detected": False})
    assert points(unseen, Look()).frame.y.tolist() == pytest.approx([0.53])
    assert points(unseen, Look(axis="magnitude")).frame.y.tolist() == pytest.approx([17.14])


def test_a_band_that_repeats_a_better_one_is_counted_unless_it_is_alone() -> None:
    rows = table({"band": "tess_pdcsap", "archive": "t"}, {"band": "tess_sap", "archive": "t"}, {"band": "k2_sap"})
    made = points(rows, Look())
    assert sorted(made.frame.band) == ["k2_sap", "tess_pdcsap"]
    assert dict(made.left_out) == {"of 1 band that repeat a better one": 1}
    assert sorted(points(rows, Look(bands=("tess_sap",))).frame.band) == ["tess_sap"]


def test_units_have_panels_of_their_own() -> None:
    rows = table({"unit": "GeV"}, {"unit": ""}, {"unit": "count.s**-1"}, {"unit": "mJy"}, {"unit": None})
    assert points(rows, Look()).panels == ["mJy", "count.s**-1", "over its median", "GeV"]


def test_phases_are_of_times_at_the_barycentre() -> None:
    times = [100.0, 100.5, 101.0, 101.9, 98.1, 107.0]
    made = points(table(*({"bmjd_tdb": time} for time in times)), Look(fold=Fold(2.0, 100.0)))
    assert sorted(made.frame.x) == pytest.approx(sorted([0, 0.25, -0.5, -0.05, 0.05, -0.5]))


def test_clipping_marks_what_it_hides() -> None:
    rng = np.random.default_rng(1)
    flux = [*(1 + 0.01 * rng.normal(size=200)), 9.0, -7.0]
    made = points(table(*({"flux": value, "mjd": 58000.0 + i} for i, value in enumerate(flux))), Look(clip=3))
    assert made.frame.kind.value_counts().to_dict() == {"point": 200, "above": 1, "below": 1}
    assert made.frame[made.frame.kind == "above"].x.tolist() == [58200.0]
    few = points(table(*({"flux": value} for value in [1.0] * 8 + [99.0])), Look(clip=2))
    assert set(few.frame.kind) == {"point"}, "the scatter of nine points is not known"


def test_scaled_bands_lie_at_the_median_of_the_others_and_say_their_factor() -> None:
    rows = table(
        *({"flux": v} for v in (1.0, 2.0, 3.0)),
        *(
            {"archive": "tess", "band": "tess", "unit": "electron.s**-1", "flux": v, "flux_err": 40.0}
            for v in (4000.0, 5000.0)
        ),
    )
    made = points(rows, Look(scaled=True))
    own = made.frame[made.frame.band == "tess"]
    assert own.panel.unique().tolist() == ["mJy"]
    assert own.y.median() == pytest.approx(2.0)
    assert own.err.tolist() == pytest.approx([40 * 2 / 4500] * 2)
    assert own.series.iloc[0] == "tess × 0.000444"
    assert made.factors == {"tess": pytest.approx(2 / 4500)}
    assert points(rows, Look()).panels == ["mJy", "electron.s**-1"]


def test_a_long_light_curve_is_thinned_evenly_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_POINTS", 101)
    made = points(table(*({"mjd": 58000.0 + i} for i in range(250)), {"band": "ztf_r"}), Look())
    g = made.frame[made.frame.band == "ztf_g"]
    assert np.diff(g.x).tolist() == [3.0] * 83
    assert made.left_out == {"of ztf_g: every 3rd is drawn": 166}


@given(st.lists(st.integers(1, 600), min_size=1, max_size=12))
def test_short_light_curves_stay_whole_beside_long_ones(counts: list[int]) -> None:
    most = 200
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_POINTS", most)
        made = points(
            table(*({"band": f"b{i}", "mjd": float(n)} for i, count in enumerate(counts) for n in range(count))), Look()
        )
    kept = made.frame.band.value_counts()
    assert len(made.frame) <= most
    assert made.total == sum(counts)
    for i, count in enumerate(counts):
        assert kept[f"b{i}"] == count if sum(counts) <= most else kept[f"b{i}"] >= min(count, most // len(counts)) / 2


def test_the_running_mean_is_weighted_by_the_inverse_square_of_the_error() -> None:
    rng = np.random.default_rng(2)
    mjd, y = np.sort(rng.uniform(0, 300, 80)), rng.normal(5, 1, 80)
    err = rng.uniform(0.1, 2, 80)
    err[::9] = np.nan
    times, mean = running_mean(mjd, y, err, 30.0)
    for time, value in zip(times, mean, strict=True):
        near = (np.abs(mjd - time) < 15) & (err > 0)
        expected = np.average(y[near], weights=err[near] ** -2) if near.sum() >= 2 else np.nan
        np.testing.assert_allclose(value, expected, rtol=1e-9)
    assert np.diff(times) == pytest.approx(7.5)
