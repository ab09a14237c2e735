"""Cut rows into row groups, and choose how the columns of a Parquet file are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
