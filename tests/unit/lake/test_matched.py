"""Measurements joined with their sources: each pair once, in order, and no other."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lake.matched import with_sources

A, B = ("ztf", "DR1", "a"), ("ztf", "DR1", "b")
KEYS = st.tuples(st.sampled_from(["ztf", "wise"]), st.sampled_from(["DR1", "DR2"]), st.sampled_from(["a", "b", "c"]))
BY_SOURCE = {"a": 7, "b": 7, "c": 9}  # two sources are in one pixel


def near(rows):
    archive, release, source, band, mjd = zip(*rows, strict=True) if rows else ((),) * 5
    text = pa.string()
    return pa.table(
        {
            "archive": pa.array(archive, text),
            "band": pa.array(band, text),
            "source_id": pa.array(source, text).dictionary_encode(),
            "release": pa.array(release, text).dictionary_encode(),
            "hpx29": pa.array([BY_SOURCE[one] for one in source], pa.int64()),
            "mjd": pa.array(mjd, pa.float64()),
            "nothing": pa.nulls(len(rows), pa.float32()),
        }
    )


def sources(rows):
    columns = list(zip(*[(*key, number) for key, number in rows], strict=True)) or [()] * 4
    names, kinds = ("archive", "release", "source_id", "number"), (pa.string(),) * 3 + (pa.int64(),)
    table = {name: pa.array(column, kind) for name, column, kind in zip(names, columns, kinds, strict=True)}
    pixels = [BY_SOURCE[key[2]] for key, _ in rows]
    return pa.table({**table, "hpx29": pa.array(pixels, pa.int64()), "rank": pa.array(range(len(rows)), pa.int64())})


# Times out of order, rows of a source that are apart, and the same time of two sources.
@example([(A, "g", 2.0), (A, "g", 1.0)], [(A, 0)])
@example([(A, "g", 1.0), (B, "g", 2.0), (A, "g", 3.0)], [(A, 0), (B, 0)])
@example([(B, "g", 1.0), (A, "g", 1.0)], [(A, 0), (B, 0)])
@given(
    st.lists(st.tuples(KEYS, st.sampled_from(["g", "r"]), st.sampled_from([1.0, 2.0, 3.0])), max_size=12, unique=True),
    st.lists(st.tuples(KEYS, st.integers(0, 2)), max_size=6, unique=True),
)
def test_the_rows_are_those_of_a_plain_loop_in_order(measured, wanted):
    rows = [(*key, band, mjd) for key, band, mjd in measured]
    found = with_sources(near(rows), sources(wanted))
    expected = sorted(
        (number, archive, band, mjd, source, release, rank)
        for rank, ((archive, release, source), number) in enumerate(wanted)
        for *key, band, mjd in rows
        if tuple(key) == (archive, release, source)
    )
    names = ("archive", "band", "mjd", "source_id", "release")
    assert [tuple(row[name] for name in names) for row in found.to_pylist()] == [one[1:6] for one in expected]
    assert sorted(found["rank"].to_pylist()) == sorted(one[6] for one in expected)
    assert found.column_names == ["archive", "band", "source_id", "release", "hpx29", "mjd", "nothing", "rank"]
    assert found.schema.field("source_id").type == pa.string()


@pytest.mark.parametrize("first", ["centre", "target_id"])
def test_what_comes_first_and_last(first):
    asked = sources([(("ztf", "DR1", "a"), 0)]).append_column(first, pa.array([5]))
    found = with_sources(near([("ztf", "DR1", "a", "g", 1.0)]), asked)
    assert found.column_names[0] == first
    assert found.column_names[-1] == "rank"
    assert "number" not in found.column_names
