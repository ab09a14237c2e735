"""Rows of some keys in sorted files: all of them, nothing else, and no damaged ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.granules import committed, register, target_ids
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import CatalogError
from lake.store import lookup
from lake.store.lookup import Footers, Ranges, read_rows
from lake.store.storage import decoded

SCHEMA = pa.schema({"name": pa.string(), "key": pa.int64(), "flux": pa.float32(), "nothing": pa.float32()})
KEYS = st.integers(-5, 40)


def written(path, keys, rows_of_group=4, **options):
    """Write a file with a row for each key; every third name is missing."""
    names = [None if key % 3 == 0 else f"s{key % 7}" for key in keys]
    flux = np.arange(len(keys), dtype=np.float32)
    table = pa.table([names, keys, flux, pa.nulls(len(keys), pa.float32())], schema=SCHEMA)
    pq.write_table(table, path, row_group_size=rows_of_group, write_page_checksum=True, **options)
    return table


def found(paths, ranges, schema=SCHEMA, footers=None):
    parts = read_rows(footers or Footers(), [str(path) for path in paths], "key", ranges, schema)
    return [(place, decoded(part)) for place, part in parts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lookup")


@given(
    st.lists(st.lists(KEYS, max_size=15), min_size=1, max_size=3),
    st.lists(st.tuples(KEYS, st.integers(0, 6)), max_size=4),
    st.booleans(),
)
def test_the_rows_are_those_of_the_ranges(folder, files, wanted, in_order):
    keys = [sorted(some) if in_order else some for some in files]
    paths = [folder / f"{number}.parquet" for number in range(len(keys))]
    tables = [written(path, some) for path, some in zip(paths, keys, strict=True)]
    ranges = Ranges.joined([low for low, _ in wanted], [low + width for low, width in wanted])
    parts = found(paths, ranges)
    for place, table in enumerate(tables):
        is_in = [any(low <= key <= low + width for low, width in wanted) for key in table["key"].to_pylist()]
        here = pa.concat_tables([SCHEMA.empty_table(), *(part for of, part in parts if of == place)])
        assert here.equals(table.filter(pa.array(is_in, pa.bool_())))


def test_some_columns_in_the_order_that_is_asked_for(folder):
    path = folder / "some.parquet"
    table = written(path, list(range(20)))
    schema = pa.schema([SCHEMA.field("flux"), SCHEMA.field("name")])
    ((_, part),) = found([path], Ranges.of_keys([7]), schema)
    assert part.equals(table.slice(7, 1).select(["flux", "name"]))


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY", "PLAIN"])
def test_texts_that_are_stored_in_other_ways(folder, encoding):
    path = folder / f"{encoding}.parquet"
    table = written(path, list(range(20)), use_dictionary=False, column_encoding={"name": encoding})
    parts = found([path], Ranges.joined([3], [13]))
    assert pa.concat_tables([part for _, part in parts]).equals(table.slice(3, 11))


def test_footers_of_few_row_groups_are_kept(folder, monkeypatch):
    monkeypatch.setattr(lookup, "_KEPT_GROUPS", 11)
    paths = [folder / f"kept-{number}.parquet" for number in range(4)]
    for path in paths:
        written(path, list(range(20)))  # five groups
    footers = Footers()
    for path in paths:
        assert found([path], Ranges.of_keys([3]), footers=footers)
    first, _, third, fourth = (str(path) for path in paths)
    assert list(footers._kept) == [third, fourth]
    footers.of(third, "key")
    found([first], Ranges.of_keys([3]), footers=footers)
    assert list(footers._kept) == [third, first]


@pytest.mark.parametrize("damage", ["page", "footer", "half"])
def test_damaged_rows_are_no_answer(lake, damage):
    register(lake.catalog, range(20))
    committed(lake.catalog, dict.fromkeys(range(20), 9), "g0")
    target = target_ids([4])[0]
    (path,) = (lake.storage.data / "main" / "lightcurves").rglob("*.parquet")
    data = bytearray(path.read_bytes())
    if damage == "page":
        chunks = pq.read_metadata(path).row_group(0)
        (flux,) = (chunks.column(n) for n in range(chunks.num_columns) if chunks.column(n).path_in_schema == "flux")
        data[flux.data_page_offset + flux.total_compressed_size // 2] ^= 1
    elif damage == "footer":
        data[-6] ^= 0xFF
    path.unlink()  # staging may have another name of it
    path.write_bytes(data[: len(data) // 2] if damage == "half" else data)
    with pytest.raises(CatalogError) as error:
        lake.light_curve(target)
    assert path.name in str(error.value)
    assert "verify" in str(error.value.hint)
