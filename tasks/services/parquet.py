"""Read open Parquet files: what their footers say, and chosen rows and columns, a row group at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.services.values import integers, measured

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Rows decoded at a time: of plain columns, and of nested light curves with some hundred epochs each.
_ROWS, _NESTED_ROWS = 131_072, 64


def column_names(file: pq.ParquetFile) -> dict[str, str]:
    """Return the names of a file's columns, by their names in lower case: archives are not always consistent."""
    return {name.lower(): name for name in file.schema_arrow.names}


def bounds(file: pq.ParquetFile, group: int, column: str) -> tuple[float, float] | None:
    """Return the least and the greatest value of a column in a row group, as its statistics say, or None."""
    number = leaf_numbers(file).get(column)
    if number is None:
        return None
    statistics = file.metadata.row_group(group).column(number).statistics
    if statistics is None or not statistics.has_min_max:
        return None
    return statistics.min, statistics.max


# Of open files: asked for each row group and column.
_LEAVES: WeakKeyDictionary[pq.ParquetFile, dict[str, int]] = WeakKeyDictionary()


def leaf_numbers(file: pq.ParquetFile) -> dict[str, int]:
    """Return the numbers of the leaf columns of a file, by their paths."""
    if file not in _LEAVES:
        _LEAVES[file] = {file.schema.column(number).path: number for number in range(len(file.schema))}
    return _LEAVES[file]


def nested_paths(file: pq.ParquetFile, nested: str, fields: Sequence[str]) -> list[str] | None:
    """Return the paths of the leaves that hold a nested column's fields, or those of plain list columns.

    Parameters
    ----------
    nested
        Column of light curves: a list of structs or a struct of lists. Where there is none, columns named like
        the fields are meant.
    fields
        Names of the values of an epoch.

    Returns
    -------
    list or None
        None if any is missing.
    """
    paths = []
    for name in fields:
        inside = [path for path in leaf_numbers(file) if path.startswith(f"{nested}.") and name in path.split(".")]
        plain = [path for path in leaf_numbers(file) if path.split(".")[0] == name]
        if not inside and not plain:
            return None
        paths.append((inside or plain)[0])
    return paths


def epochs(table: pa.Table, nested: str, fields: Sequence[str]) -> tuple[Ints, dict[str, pa.Array]]:
    """Flatten nested light curves: return the row that each epoch belongs to, and its values by field.

    Parameters
    ----------
    table
        Rows with the nested column, or with a list column for each field.
    nested, fields
        As in nested_paths.

    Raises
    ------
    pa.ArrowInvalid
        If the fields are not of one length in any row. A row among others of which they are not has one epoch, of
        which nothing is known.
    """
    lists = {}
    if nested in table.column_names:
        column = table[nested].combine_chunks()
        if pa.types.is_struct(column.type):
            lists = {name: pc.struct_field(column, name) for name in fields}
        else:
            row = pc.list_parent_indices(column).to_numpy().astype(np.int64)
            values = pc.list_flatten(column)
            return row, {name: pc.struct_field(values, name) for name in fields}
    else:
        lists = {name: table[name].combine_chunks() for name in fields}
    lengths = [pc.fill_null(pc.list_value_length(column), 0).to_numpy() for column in lists.values()]
    same = np.logical_and.reduce([length == lengths[0] for length in lengths])
    if not same.all():
        if not same.any():
            raise pa.ArrowInvalid(f"the lists {', '.join(fields)} of a light curve differ in length")
        nothing = pa.array([[None]])
        lists = {
            name: pc.if_else(pa.array(same), column, nothing.cast(column.type)[0]) for name, column in lists.items()
        }
    rows = pc.list_parent_indices(next(iter(lists.values()))).to_numpy()
    return rows.astype(np.int64), {name: pc.list_flatten(column) for name, column in lists.items()}


def excluded(known: tuple[float, float] | None, values: Ints) -> bool:
    """Say whether a column's bounds leave no room for any of some values."""
    return known is not None and not np.any((values >= known[0]) & (values <= known[1]))


def pick(
    file: pq.ParquetFile,
    group: int,
    columns: Mapping[str, str],
    allowed: Mapping[str, Ints],
    near: Callable[[Floats, Floats], Ints] | None,
) -> tuple[pa.Table, Ints]:
    """Read the wanted rows of a row group, and return them with their numbers in it.

    Parameters
    ----------
    columns
        Columns to return, by the names to give them.
    allowed
        Values that a row must have one of, by name.
    near
        Tells which of some positions are wanted (columns ra and dec, in degrees); None for all.
    """
    parts, places, offset = [], [np.empty(0, np.int64)], 0
    real = list(dict.fromkeys(columns.values()))
    for batch in file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=real, use_threads=False):
        keep = np.arange(batch.num_rows)
        for name, values in allowed.items():
            found = pc.is_in(integers(batch[columns[name]]), value_set=pa.array(values))
            keep = keep[found.to_numpy(zero_copy_only=False)[keep]]
        if near is not None and len(keep):
            keep = keep[near(*(measured(batch[columns[name]])[keep] for name in ("ra", "dec")))]
        if len(keep):
            rows = pa.table({name: batch[real].take(pa.array(keep)) for name, real in columns.items()})
            for name in ("ra", "dec") if near is not None else ():
                rows = rows.set_column(rows.column_names.index(name), name, rows[name].cast(pa.float64()))
            parts.append(rows)
            places.append(keep + offset)
        offset += batch.num_rows
    return pa.concat_tables(parts) if parts else pa.table({}), np.concatenate(places)


def pick_epochs(
    file: pq.ParquetFile, group: int, taken: Ints, nested: str, fields: Sequence[str], paths: Sequence[str]
) -> pa.Table:
    """Read the epochs of the light curves of some rows of a row group; column row counts the rows taken."""
    parts, offset = [], 0
    for batch in file.iter_batches(batch_size=_NESTED_ROWS, row_groups=[group], columns=paths, use_threads=False):
        begin, end = np.searchsorted(taken, (offset, offset + batch.num_rows))
        if end > begin:
            chosen = pa.Table.from_batches([batch]).take(pa.array(taken[begin:end] - offset))
            row, values = epochs(chosen, nested, fields)
            parts.append(pa.table({"row": row + begin, **values}))
        offset += batch.num_rows
        if end == len(taken):
            break
    return pa.concat_tables(parts)
