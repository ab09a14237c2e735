"""Statistics of light curves: by SQL, in bulk, and by hand."""

from __future__ import annotations

import math
import statistics as plain

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.model.schema import TABLES
from lake.store.storage import decoded
from tasks.sources.statistics import statistics, statistics_of_sorted

Row = tuple[int, str, float, float | None, float | None, bool, bool]

BANDS = ["H", "J", "Ks"]


def table(rows: list[Row]) -> pa.Table:
    """Light curves of (source, band, mjd, flux, mag, detected, good), sorted, with dictionaries."""
    rows = sorted(rows, key=lambda row: (row[0], row[1], row[2]))
    source, band, mjd, flux, mag, detected, good = zip(*rows, strict=True) if rows else [()] * 7
    n = len(rows)

    def dictionary(values, places):
        return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(values, pa.string()))

    return pa.table(
        {
            "archive": dictionary(["virac"], [0] * n),
            "release": dictionary(["r"], [0] * n),
            "granule": dictionary(["g"], [0] * n),
            "source_id": dictionary([f"s{i}" for i in range(8)], source),
            "band": dictionary(BANDS, [BANDS.index(one) for one in band]),
            "hpx29": pa.array(source, pa.int64()),
            "mjd": pa.array(mjd, pa.float64()),
            "flux": pa.array(flux, pa.float32()),
            "mag": pa.array(mag, pa.float32()),
            "unit": dictionary(["mJy"], [0] * n),
            "detected": pa.array(detected, pa.bool_()),
            "good": pa.array(good, pa.bool_()),
        }
    )


def by_hand(rows: list[Row]) -> list[dict[str, object]]:
    """The same in plain Python."""
    found = []
    for source, band in sorted({row[:2] for row in rows}):
        own = [row for row in rows if row[:2] == (source, band)]
        good = [row for row in own if row[5] and row[6]]
        flux, mag = ([row[place] for row in good if row[place] is not None] for place in (3, 4))
        found.append(
            {
                "archive": "virac",
                "source_id": f"s{source}",
                "release": "r",
                "band": band,
                "hpx29": source,
                "n": len(own),
                "n_detected": sum(row[5] for row in own),
                "n_good": len(good),
                "mjd_first": min(row[2] for row in own),
                "mjd_last": max(row[2] for row in own),
                "unit": "mJy",
                "flux_median": plain.median(flux) if flux else None,
                "flux_mean": plain.fmean(flux) if flux else None,
                "flux_std": plain.stdev(flux) if len(flux) > 1 else None,
                "mag_median": plain.median(mag) if mag else None,
                "granule": "g",
            }
        )
    return found


def assert_close(found: pa.Table, wanted: list[dict[str, object]], scale: float = 1.0) -> None:
    rows = found.to_pylist()
    assert len(rows) == len(wanted)
    for one, other in zip(rows, wanted, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            if isinstance(value, float) and one[name] is not None:
                assert math.isclose(one[name], value, rel_tol=1e-9, abs_tol=1e-7 * scale), (name, one, other)
            else:
                assert one[name] == value, (name, one, other)


numbers = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-140]), st.floats(-1000, 1000, width=32))
measurements = st.tuples(
    st.integers(0, 1),
    st.sampled_from(BANDS[1:]),
    st.floats(51000, 60000),
    numbers,
    numbers,
    st.booleans(),
    st.booleans(),
)


@settings(derandomize=True)
@given(st.lists(measurements, max_size=60))
def test_in_bulk_as_by_sql_and_by_hand(rows):
    made = table(rows)
    found = statistics_of_sorted(made)
    assert found.schema == TABLES["statistics"].arrow
    assert_close(found, by_hand(rows))
    assert_close(found, statistics(decoded(made)).to_pylist())


def test_of_many_rows():
    rng = np.random.default_rng(3)
    rows = [
        (int(s), BANDS[b], m, None if f < -2 else f, 15 + f, bool(d), bool(g))
        for s, b, m, f, d, g in zip(
            rng.integers(0, 8, 4000),
            rng.integers(0, 3, 4000),
            rng.uniform(55000, 59000, 4000),
            rng.normal(size=4000).astype("f4").tolist(),
            rng.random(4000) < 0.9,
            rng.random(4000) < 0.7,
            strict=True,
        )
    ]
    made = table(rows)
    assert_close(statistics_of_sorted(made), statistics(decoded(made)).to_pylist())
    assert_close(
        statistics_of_sorted(pa.concat_tables([made.slice(0, 7), made.slice(7)])),
        by_hand([(*row[:4], None if row[4] is None else float(np.float32(row[4])), *row[5:]) for row in rows]),
    )


def test_no_rows():
    assert statistics_of_sorted(table([])) == TABLES["statistics"].empty()


def test_a_single_row():
    row = statistics_of_sorted(table([(3, "Ks", 56000.0, 2.5, 14.0, True, True)])).to_pylist()[0]
    assert (row["n"], row["n_detected"], row["n_good"]) == (1, 1, 1)
    assert (row["flux_median"], row["flux_mean"], row["flux_std"], row["mag_median"]) == (2.5, 2.5, None, 14.0)
    assert row["mjd_first"] == row["mjd_last"] == 56000.0


@pytest.mark.parametrize(("detected", "good"), [(True, False), (False, True), (False, False)])
def test_without_good_detections_there_are_counts_alone(detected, good):
    rows = [(0, "J", 56000.0 + k, 1.0 + k, 15.0, detected, good) for k in range(3)]
    row = statistics_of_sorted(table(rows)).to_pylist()[0]
    assert (row["n"], row["n_detected"], row["n_good"]) == (3, 3 * detected, 0)
    assert [row[name] for name in ("flux_median", "flux_mean", "flux_std", "mag_median")] == [None] * 4


def test_medians_of_negative_fluxes_are_in_order():
    rows = [(0, "H", 56000.0 + k, flux, None, True, True) for k, flux in enumerate([-3.0, -1.0, -2.0, -1e30, 5.0])]
    row = statistics_of_sorted(table(rows)).to_pylist()[0]
    assert (row["flux_median"], row["mag_median"], row["n_good"]) == (-2.0, None, 5)
    row = statistics_of_sorted(table(rows[:4])).to_pylist()[0]
    assert row["flux_median"] == -2.5


def test_neighbours_of_the_same_band_or_source_are_told_apart():
    rows = [
        (0, "Ks", 56000.0, 1.0, None, True, True),
        (1, "Ks", 56000.0, 2.0, None, True, True),
        (1, "J", 56000.0, 3.0, None, True, True),
        (2, "J", 56000.0, 4.0, None, True, True),
    ]
    found = [(r["source_id"], r["band"], r["flux_mean"]) for r in statistics_of_sorted(table(rows)).to_pylist()]
    assert found == [("s0", "Ks", 1.0), ("s1", "J", 3.0), ("s1", "Ks", 2.0), ("s2", "J", 4.0)]
