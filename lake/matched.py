"""Join measurements with the sources that they belong to, and bring them in order: Arrow tables, and nothing else."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import pyarrow as pa

from lake.store.arrays import Integers, distinct, expanded, from_numpy, numbered, to_numpy

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
    place, source = _joined(near, sources)
    order = _in_order(near, place, sources, source)
    places, of_source = from_numpy(place[order]), from_numpy(source[order])
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


def _runs(*columns: Integers) -> tuple[Integers, Integers]:
    """Return where runs of equal rows begin and end: in files, the rows of a source in a band are together."""
    is_first = np.ones(len(columns[0]), bool)
    is_first[1:] = False
    for values in columns:
        is_first[1:] |= values[1:] != values[:-1]
    start = np.flatnonzero(is_first)
    return start, np.append(start, len(is_first))[1:]


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
    hpx29 = to_numpy(near["hpx29"])
    first, after = _runs(of_row, hpx29)
    by_key = np.argsort(of_source, kind="stable")
    ordered = of_source[by_key]
    place, run = expanded(*(np.searchsorted(ordered, of_row[first], side) for side in ("left", "right")))
    source = by_key[place]
    same = hpx29[first[run]] == to_numpy(sources["hpx29"])[source]
    run, source = run[same], source[same]
    rows, pair = expanded(first[run], after[run])
    return rows, source[pair]


def _in_order(near: pa.Table, row: Integers, sources: pa.Table, source: Integers) -> Integers:
    """Return the order of pairs: by number in the list or centre, archive, band, time, source and release."""
    groups = np.zeros(len(row), np.int64)
    for name in _FIRST[:2]:
        if name in sources.column_names:
            numbers = to_numpy(sources[name])
            groups = groups * (sources.num_rows + 1) + np.searchsorted(distinct(numbers), numbers)[source]
    for name in ("archive", "band"):
        numbers, known = numbered(near[name])
        groups = groups * len(known) + numbers[row]
    mjd = to_numpy(near["mjd"])[row]
    # In files, the rows of a source in a band are in order of time.
    first, after = _runs(groups)
    runs = np.argsort(groups[first], kind="stable")
    order, _ = expanded(first[runs], after[runs])
    later, same = np.diff(mjd[order]), np.diff(groups[order]) == 0
    if (same & (later < 0)).any():
        order = np.lexsort((mjd, groups))
        later, same = np.diff(mjd[order]), np.diff(groups[order]) == 0
    if (same & (later == 0)).any():  # which is rare, and text sorts slowly
        last = [numbered(near[name])[0][row] for name in ("release", "source_id")]
        order = np.lexsort((*last, mjd, groups))
    return order
