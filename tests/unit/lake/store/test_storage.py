"""Parquet files written in parts, with dictionaries: what every reader sees, and how it is stored."""

from __future__ import annotations

import errno
from itertools import pairwise
from unittest.mock import Mock

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.errors import ConfigurationError
from lake.store import storage
from lake.store.row_groups import compact, row_groups
from lake.store.storage import ROW_GROUP_ROWS, Storage, decoded, read_parquet, write_parquet


def dictionary(indices, values, kind=np.int32) -> pa.DictionaryArray:
    mask = np.array([i is None for i in indices], bool)
    return pa.DictionaryArray.from_arrays(
        pa.array(np.array([0 if i is None else i for i in indices], kind), mask=mask), pa.array(values)
    )


def some(n: int, seed: int = 0) -> pa.Table:
    """Rows with names in a dictionary, measurements that are all different with holes, and few different numbers."""
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "name": dictionary(np.sort(rng.integers(0, 5000, n)), [f"s{i:04d}" for i in range(5000)]),
            "flux": pa.array(rng.normal(size=n).astype("f4"), mask=rng.random(n) < 0.1),
            "exposure_s": pa.array(rng.integers(1, 5, n).astype("f4")),
            "archive": dictionary([0] * n, ["virac"], np.int8),
            "n": pa.array(rng.integers(0, 9, n)),
        }
    )


def groups(path, column):
    """Encodings and statistics of a column, by row group."""
    file = pq.ParquetFile(path)
    place = file.schema_arrow.get_field_index(column)
    return [file.metadata.row_group(g).column(place) for g in range(file.metadata.num_row_groups)]


def test_parts_are_one_file(tmp_path):
    table, path = some(1000), tmp_path / "a/x.parquet"
    assert write_parquet((table.slice(at, 300) for at in range(0, 1000, 300)), path) == 1000
    assert read_parquet(path) == decoded(table)
    assert storage.parquet_rows(path) == 1000
    assert [group.num_values for group in groups(path, "n")] == [1000]


def test_parts_are_held_one_at_a_time(tmp_path):
    alive = []

    def parts():
        for seed in range(4):
            alive.append(seed)
            yield some(50, seed)
            assert storage.is_local(tmp_path)

    write_parquet(parts(), tmp_path / "x.parquet")
    assert alive == [0, 1, 2, 3]
    assert read_parquet(tmp_path / "x.parquet") == pa.concat_tables([decoded(some(50, seed)) for seed in range(4)])


@pytest.mark.parametrize("as_parts", [True, False])
def test_every_reader_sees_plain_text(tmp_path, as_parts):
    table, path = some(500), tmp_path / "x.parquet"
    write_parquet(iter([table.slice(0, 200), table.slice(200)]) if as_parts else table, path)
    names = decoded(table)["name"].to_pylist()
    assert read_parquet(path).schema.field("name").type == pa.string()
    assert read_parquet(path, ["name"])["name"].to_pylist() == names
    frame = pd.read_parquet(path)
    assert frame["name"].dtype == object, "not a categorical"
    assert frame["name"].tolist() == names
    assert pq.read_schema(path).field("archive").type == pa.string()
    described = dict(duckdb.execute("SELECT name, type FROM parquet_schema(?)", [str(path)]).fetchall())
    assert described["name"] == described["archive"] == "BYTE_ARRAY"
    with duckdb.connect() as connection:
        assert (
            connection.execute("SELECT name FROM read_parquet(?)", [str(path)]).to_arrow_table()["name"].to_pylist()
            == names
        )


def test_files_with_and_without_dictionaries_are_one_dataset(tmp_path):
    table = some(100)
    write_parquet(table, tmp_path / "a.parquet")
    write_parquet(decoded(table), tmp_path / "b.parquet")
    assert pq.read_schema(tmp_path / "a.parquet").equals(pq.read_schema(tmp_path / "b.parquet"), check_metadata=True)
    assert pyarrow.dataset.dataset(tmp_path).to_table() == pa.concat_tables([decoded(table)] * 2)
    assert len(pd.read_parquet(tmp_path)) == 200


def test_types_and_what_columns_say_of_themselves_are_kept(tmp_path):
    schema = pa.schema(
        [
            pa.field("at", pa.timestamp("us", tz="UTC")),
            pa.field("flux", pa.float32(), metadata={"unit": "mJy"}),
            pa.field("id", pa.dictionary(pa.int8(), pa.string()), metadata={"ucd": "meta.id"}),
            pa.field("i", pa.int32()),
        ]
    )
    table = pa.table(
        [
            pa.array([0], pa.timestamp("us", tz="UTC")),
            pa.array([1.0], pa.float32()),
            dictionary([0], ["a"], np.int8),
            pa.array([1], pa.int32()),
        ],
        schema=schema,
    )
    write_parquet(table, tmp_path / "x.parquet")
    read = pq.read_table(tmp_path / "x.parquet")
    assert read == decoded(table)
    assert read.schema.field("flux").metadata[b"unit"] == b"mJy"
    assert read.schema.field("id").metadata[b"ucd"] == b"meta.id"


def test_dictionaries_hold_what_a_row_group_has(tmp_path):
    table, path = some(3 * ROW_GROUP_ROWS), tmp_path / "x.parquet"
    write_parquet(iter([table]), path)
    names = decoded(table)["name"].to_pylist()
    found = groups(path, "name")
    assert len(found) == 3
    for number, group in enumerate(found):
        own = names[number * ROW_GROUP_ROWS : (number + 1) * ROW_GROUP_ROWS]
        assert (group.statistics.min, group.statistics.max) == (min(own), max(own))
        # 5,000 names of 9 bytes are 45 kB; a third of them is in each group, whose rows take 11 bits and less.
        assert group.total_uncompressed_size < 9 * len(set(own)) + 2 * len(own) + 1000
    compacted = compact(table.slice(0, ROW_GROUP_ROWS))["name"].chunk(0)
    assert len(compacted.dictionary) == len(set(names[:ROW_GROUP_ROWS]))
    assert compacted.to_pylist() == names[:ROW_GROUP_ROWS]


@settings(derandomize=True)
@given(
    st.lists(st.lists(st.one_of(st.none(), st.integers(0, 6)), max_size=8), min_size=1, max_size=4),
    st.integers(0, 5),
    st.integers(1, 20),
)
def test_compacting_changes_no_value(chunks, start, n):
    """Several chunks, each with its own dictionary, slices, and NULL."""
    arrays = [dictionary(one, [f"{place}-{i}" for i in range(7)]) for place, one in enumerate(chunks)]
    table = pa.table({"a": pa.chunked_array(arrays, pa.dictionary(pa.int32(), pa.string()))}).slice(start, n)
    if table.num_rows:
        assert compact(table)["a"].to_pylist() == table["a"].to_pylist()


def test_nulls_are_kept_with_and_without_dictionaries(tmp_path):
    table = pa.table(
        {
            "name": dictionary([0, None, 1, None], ["a", "b", "never"]),
            "only": dictionary([None] * 4, ["x"]),
            "flux": pa.array([1.5, None, None, -2.5], pa.float32()),
        }
    )
    write_parquet(table, tmp_path / "x.parquet")
    assert read_parquet(tmp_path / "x.parquet").to_pydict() == {
        "name": ["a", None, "b", None],
        "only": [None] * 4,
        "flux": [1.5, None, None, -2.5],
    }


def test_measurements_are_split_and_repeated_numbers_are_dictionaries(tmp_path):
    table, path = some(1000), tmp_path / "x.parquet"
    write_parquet(table, path)
    (flux,), (exposure), (name) = groups(path, "flux"), groups(path, "exposure_s")[0], groups(path, "name")[0]
    assert "BYTE_STREAM_SPLIT" in flux.encodings
    assert flux.dictionary_page_offset is None
    assert "RLE_DICTIONARY" in exposure.encodings
    assert "RLE_DICTIONARY" in name.encodings
    assert flux.compression == "ZSTD"
    values = [value for value in table["flux"].to_pylist() if value is not None]
    assert (flux.statistics.min, flux.statistics.max) == (min(values), max(values))
    assert flux.statistics.null_count == 1000 - len(values)
    bits = read_parquet(path)["flux"].drop_null().to_numpy().tobytes()
    assert bits == table["flux"].drop_null().to_numpy().tobytes()


def test_an_empty_first_part_does_not_choose_the_encodings(tmp_path):
    table, path = some(1000), tmp_path / "x.parquet"
    assert write_parquet(iter([table.slice(0, 0), table.slice(0, 0), table, table.slice(0, 0)]), path) == 1000
    assert "BYTE_STREAM_SPLIT" in groups(path, "flux")[0].encodings
    assert len(groups(path, "flux")) == 1
    assert read_parquet(path) == decoded(table)


@pytest.mark.parametrize("parts", [1, 3])
def test_no_rows_are_a_file_with_columns(tmp_path, parts):
    empty = some(5).slice(0, 0)
    assert write_parquet(iter([empty] * parts), tmp_path / "x.parquet") == 0
    assert read_parquet(tmp_path / "x.parquet") == decoded(empty)


def test_a_write_that_fails_leaves_no_file(tmp_path):
    def parts():
        yield some(10)
        raise KeyboardInterrupt

    path = tmp_path / "x.parquet"
    with pytest.raises(KeyboardInterrupt):
        write_parquet(parts(), path)
    assert not path.exists()
    with pytest.raises(ValueError, match="schema"):
        write_parquet(iter([some(10), some(10).drop(["n"])]), path)
    assert not path.exists()


def test_a_second_name_of_a_file_is_not_written_through(tmp_path):
    write_parquet(some(10), tmp_path / "x.parquet")
    (tmp_path / "tree.parquet").hardlink_to(tmp_path / "x.parquet")
    write_parquet(some(20), tmp_path / "x.parquet")
    assert read_parquet(tmp_path / "tree.parquet").num_rows == 10


def test_decoding_leaves_what_is_plain(tmp_path):
    table = some(10)
    plain = decoded(table)
    assert plain.to_pydict() == table.to_pydict()
    assert not any(pa.types.is_dictionary(kind) for kind in plain.schema.types)
    assert decoded(plain) is plain


@pytest.mark.parametrize("above", ["archive=old", "Archive=x/deep", "mjd=5"])
def test_folders_above_that_readers_take_for_a_column_are_refused(tmp_path, above):
    """DuckDB and DuckLake take the first folder of a path that has the form of a Hive partition."""
    with pytest.raises(ConfigurationError) as error:
        Storage.from_url(tmp_path / above / "lake")
    assert above.split("/")[0] in str(error.value)
    with pytest.raises(ConfigurationError):
        Storage.from_url(f"s3://bucket/{above}/lake")


@pytest.mark.parametrize("above", ["year=2026", "a=b=c", "archive", "=archive"])
def test_other_folders_above_are_no_matter(tmp_path, above):
    assert Storage.from_url(tmp_path / above / "lake").root.name == "lake"


def test_pages_are_compared_with_their_checksums(tmp_path):
    path = tmp_path / "x.parquet"
    write_parquet(pa.table({"mjd": np.random.default_rng(1).uniform(58000, 59000, 1000)}), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(OSError, match="CRC checksum"):
        read_parquet(path)


def test_row_groups_are_full_whatever_the_parts(tmp_path):
    table, path = some(2 * ROW_GROUP_ROWS + 7), tmp_path / "x.parquet"
    cuts = [0, 5, 5, ROW_GROUP_ROWS - 1, 2 * ROW_GROUP_ROWS + 3, table.num_rows]
    parts = [table.slice(start, end - start) for start, end in pairwise(cuts)]
    assert write_parquet(iter(parts), path) == table.num_rows
    assert [group.num_values for group in groups(path, "flux")] == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 7]
    assert read_parquet(path) == decoded(table)


def test_parts_of_more_values_than_their_indices_can_name_are_written(tmp_path):
    parts = [
        pa.table({"name": pa.DictionaryArray.from_arrays(pa.array(np.arange(100, dtype=np.int8)), pa.array(names))})
        for names in ([f"a{at}" for at in range(100)], [f"b{at}" for at in range(100)])
    ]
    assert [group.num_rows for group in row_groups(parts, ROW_GROUP_ROWS)] == [100, 100]
    assert write_parquet(iter(parts), tmp_path / "x.parquet") == 200
    assert read_parquet(tmp_path / "x.parquet")["name"].to_pylist()[99:101] == ["a99", "b0"]


def test_an_error_of_writing_names_the_file_or_keeps_its_text(tmp_path, monkeypatch):
    for error, told in (
        (OSError(errno.ENOSPC, "No space left on device"), ("No space left on device", "some.parquet")),
        (ConnectionError("Could not connect to the endpoint"), ("Could not connect to the endpoint",)),
    ):
        monkeypatch.setattr(storage, "row_groups", Mock(side_effect=error))
        with pytest.raises(OSError, match=r".") as raised:
            write_parquet(some(3), tmp_path / "some.parquet")
        assert all(part in str(raised.value) for part in told)
        assert list(tmp_path.iterdir()) == []
