"""Join measurements with the sources that they belong to, and bring them in order: Arrow tables, and nothing else."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import pyarrow as pa

from lake.store.arrays import Integers, coded, distinct, expanded, from_numpy, numbered, to_numpy

# What identifies a source.
_KEYS = ("archive", "release", "source_id")

# What goes before the columns of a measurement, if there are several targets or cones.
_FIRST = ("number", "centre", "target_id", "name")


def with_sources(near: pa.Table, sources: pa.Table, wanted: Container[str] | None = None) -> pa.Table:
    """Return the measurements of sources in order; those of a source that is there twice come twice.

    Parameters
    ----------
    near
        Rows of table lightcurves, of these sources and of others.
    sources
        Archive, release, source_id and hpx29 of each; other columns are passed on. Column number is the place of its
        target in a list.
    wanted
        Columns; None: all.

    Returns
    -------
    Table
        By number or centre, archive, band, time, source and release. Centre, target_id and name come first, if sources
        have them; other columns of sources last.
    """
    rows, source = _in_order(near, sources)
    places, of_source = from_numpy(rows), from_numpy(source)
    others = [name for name in sources.column_names if name not in (*_KEYS, "hpx29", "number")]
    first = [name for name in _FIRST if name in others]
    taken = [(sources, of_source, name) for name in first]
    taken += [(near, places, name) for name in near.column_names]
    taken += [(sources, of_source, name) for name in others if name not in first]
    columns = {name: _taken(of[name], at) for of, at, name in taken if wanted is None or name in wanted}
    return pa.table(columns)


def _taken(column: pa.ChunkedArray, places: pa.Array) -> pa.Array:
    """Return values by their places; text without its dictionary."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if column.null_count == len(column):
        return pa.nulls(len(places), kind)
    column = column.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        return column.take(places)
    if len(column.dictionary) == 1 and not column.null_count:
        return pa.repeat(column.dictionary[0], len(places))
    return column.dictionary.take(column.indices.take(places))


def _runs(near: pa.Table) -> tuple[Integers, Integers]:
    """Return where runs of rows of one source and band begin and end: in files, these rows are together."""
    is_first = np.ones(near.num_rows, bool)
    is_first[1:] = False
    for name in (*_KEYS, "hpx29", "band"):
        values = to_numpy(near[name]) if name == "hpx29" else coded(near[name])[0]
        is_first[1:] |= values[1:] != values[:-1]
    start = np.flatnonzero(is_first)
    return start, np.append(start, near.num_rows)[1:]


def _joined(near: pa.Table, sources: pa.Table) -> tuple[Integers, Integers]:
    """Return the pairs of a measurement and its source, by their places in the tables."""
    of_source, of_row = np.zeros(sources.num_rows, np.int64), np.zeros(near.num_rows, np.int64)
    is_unknown = np.zeros(near.num_rows, bool)
    for name in _KEYS:
        numbers, known = numbered(sources[name])
        of_source = of_source * len(known) + numbers
        numbers, _ = numbered(near[name], known)
        of_row = of_row * len(known) + numbers
        is_unknown |= numbers < 0
    of_row[is_unknown] = -1
    by_key = np.argsort(of_source, kind="stable")
    ordered = of_source[by_key]
    place, row = expanded(*(np.searchsorted(ordered, of_row, side) for side in ("left", "right")))
    source = by_key[place]
    same = to_numpy(near["hpx29"])[row] == to_numpy(sources["hpx29"])[source]
    return row[same], source[same]


def _in_order(near: pa.Table, sources: pa.Table) -> tuple[Integers, Integers]:
    """Return the places of a measurement and its source in the tables, in the order of `with_sources`."""
    start, after = _runs(near)
    first = near.select([*_KEYS, "hpx29", "band"]).take(from_numpy(start))
    run, source = _joined(first, sources)
    groups = np.zeros(len(run), np.int64)
    for name in _FIRST[:2]:
        if name in sources.column_names:
            numbers = to_numpy(sources[name])
            groups = groups * (sources.num_rows + 1) + np.searchsorted(distinct(numbers), numbers)[source]
    for name in ("archive", "band"):
        numbers, known = numbered(first[name])
        groups = groups * len(known) + numbers[run]
    by_group = np.argsort(groups, kind="stable")
    run, source, groups = run[by_group], source[by_group], groups[by_group]
    rows, of_run = expanded(start[run], after[run])
    source, groups, mjd = source[of_run], groups[of_run], to_numpy(near["mjd"])[rows]
    is_before = (mjd[1:] <= mjd[:-1]) & (groups[1:] == groups[:-1])
    if not is_before.any():  # in files, the rows of a source and band are in order of time
        return rows, source
    order = np.lexsort((mjd, groups))
    mjd, groups = mjd[order], groups[order]
    if ((mjd[1:] == mjd[:-1]) & (groups[1:] == groups[:-1])).any():  # which is rare, and text sorts slowly
        last = [numbered(near[name])[0][rows[order]] for name in ("release", "source_id")]
        order = order[np.lexsort((*last, mjd, groups))]
    return rows[order], source[order]
