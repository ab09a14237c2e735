"""Cut rows into row groups, and choose how the columns of a Parquet file are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# If fewer rows than this share have the first key of the row before, that key mostly decides their order.
_MOSTLY = 0.2

# A column of floats of which at least this share is distinct in a row group has no dictionary.
_DISTINCT = 1 / 3


def row_groups(parts: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of all parts, so many at a time; the last has fewer.

    So have parts whose dictionaries cannot be joined, since their indices are too narrow.

    Parameters
    ----------
    parts
        Tables of the same columns, of any numbers of rows; their dictionaries may differ.
    rows
        Rows of a group.

    Raises
    ------
    ValueError
        If the columns of a part are not those of the first.
    """
    waiting, n = list[pa.Table](), 0
    schema: pa.Schema | None = None
    for part in parts:
        schema = part.schema if schema is None else schema
        if not part.schema.equals(schema):
            raise ValueError(f"the schema of a part is not that of the first: {part.schema.names}, {schema.names}")
        start = 0
        while start < part.num_rows:
            piece = part.slice(start, rows - n)
            waiting.append(piece)
            start, n = start + piece.num_rows, n + piece.num_rows
            if n == rows:
                yield from _together(waiting)
                waiting, n = [], 0
    if waiting:
        yield from _together(waiting)


def _together(pieces: list[pa.Table]) -> list[pa.Table]:
    if len(pieces) == 1:
        return pieces
    try:
        return [pa.concat_tables(pieces).unify_dictionaries().combine_chunks()]
    except pa.ArrowInvalid:
        return pieces  # the indices are too narrow for the values of all


def ordered(table: pa.Table, names: Sequence[str], row_group: int) -> Iterator[pa.Table]:
    """Yield a table's rows in the order of some columns, so many at a time, to save memory."""
    if not names:
        yield table
        return
    keys = pa.table({name: _ranked(table[name]) for name in names})
    # A table of many rows that is in order is not sorted, nor copied: most are.
    is_sorted = _is_sorted(keys)
    if not is_sorted:
        order = _order(keys)
        table = table.combine_chunks()
    for start in range(0, table.num_rows, row_group):
        rows = slice(start, start + row_group)
        yield table[rows] if is_sorted else table.take(order[rows])


def _order(keys: pa.Table) -> pa.Array:
    """Return the order of rows by all keys; where the first one mostly decides, only the rest is sorted by all."""
    by_all = [(name, "ascending") for name in keys.column_names]
    first = keys[0]
    if not pa.types.is_integer(first.type) or first.null_count:
        return pc.sort_indices(keys, by_all)
    values = first.to_numpy()
    order = np.argsort(values)
    values = values[order]
    same = values[1:] == values[:-1]
    if np.count_nonzero(same) > _MOSTLY * len(values):
        return pc.sort_indices(keys, by_all)
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if tied.size:
        rows = np.sort(order[tied])  # so that rows of the same keys stay in their order
        order[tied] = rows[pc.sort_indices(keys.take(pa.array(rows)), by_all).to_numpy()]
    return pa.array(order)


def _is_sorted(keys: pa.Table) -> bool:
    """Say whether rows are in order; those with NULL or NaN in a key count as not."""
    same = np.ones(max(keys.num_rows - 1, 0), bool)  # rows whose keys so far are those of the next row
    for column in keys.columns:
        if column.null_count:
            return False
        before, after = column.slice(0, len(same)), column.slice(1)
        if not (~same | pc.less_equal(before, after).to_numpy()).all():
            return False
        same &= pc.equal(before, after).to_numpy()
    return True


def _ranked(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return what sorts as a column does: of a dictionary, the places of its values in order, which take less room."""
    if not pa.types.is_dictionary(column.type):
        return column
    if column.null_count or not column.num_chunks:
        return column.cast(column.type.value_type)
    column = column.unify_dictionaries()
    values = column.chunk(0).dictionary
    rank = pc.rank(values, tiebreaker="dense").cast(pa.int32())
    return pa.chunked_array([rank.take(chunk.indices) for chunk in column.chunks], pa.int32())


def encodings(head: pa.Table) -> dict[str, Any]:
    """Choose how columns are written: a dictionary only where values repeat, else the bytes of floats split.

    A dictionary of measurements, which hardly ever repeat, saves little room if any, and takes long to make.

    Parameters
    ----------
    head
        The first rows.
    """
    floats = [field.name for field in head.schema if pa.types.is_floating(field.type)]
    split = [name for name in floats if _is_distinct(head[name])]
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in head.column_names if name not in split],
        "use_byte_stream_split": split,
        "write_statistics": True,
        # Read by read_parquet and by other readers, but not by DuckDB; a commit, a compaction and verify compare the
        # checksum of the whole file.
        "write_page_checksum": True,
        "store_schema": False,  # lake.store.storage.write_parquet does
    }


def _is_distinct(column: pa.ChunkedArray) -> bool:
    """Say whether so many values are distinct that a dictionary does not pay."""
    most = len(column) * _DISTINCT
    if len(column) - column.null_count <= most:
        return False
    # Of measurements, the first values are enough to know.
    first = column.slice(0, int(1.2 * most) + 1)
    return any(pc.count_distinct(part).as_py() > most for part in (first, column))


def compact(table: pa.Table) -> pa.Table:
    """Drop unused values from dictionaries: each row group is written with all of its dictionaries."""
    for place, field in enumerate(table.schema):
        if not pa.types.is_dictionary(field.type):
            continue
        column = table[field.name].combine_chunks()
        if len(column.dictionary) <= 1 or column.null_count:
            continue
        indices = column.indices.to_numpy()
        used = np.zeros(len(column.dictionary), bool)
        used[indices] = True
        if not used.all():
            smaller = (np.cumsum(used) - 1).astype(indices.dtype)[indices]
            kept = column.dictionary.filter(pa.array(used))
            table = table.set_column(place, field, pa.DictionaryArray.from_arrays(pa.array(smaller), kept))
    return table
