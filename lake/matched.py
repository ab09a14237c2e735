"""Join measurements with the sources that they belong to, and bring them in order: Arrow tables, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.store.arrays import distinct, from_numpy, to_numpy

Integers = NDArray[np.integer[Any]]

# What identifies a source.
_KEYS = ("archive", "release", "source_id")

# What goes before the columns of a measurement, if there are several targets or cones.
_FIRST = ("number", "centre", "target_id", "name")


def with_sources(near: pa.Table, sources: pa.Table) -> pa.Table:
    """Return the measurements of sources in order; those of a source that is there twice come twice.

    Parameters
    ----------
    near
        Rows of table lightcurves, of these sources and of others.
    sources
        Archive, release, source_id and hpx29 of each; other columns are passed on. Column number is the place of its
        target in a list.

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
    columns = {name: _taken(sources[name], of_source) for name in first}
    columns |= {name: _taken(near[name], places) for name in near.column_names}
    columns |= {name: _taken(sources[name], of_source) for name in others if name not in first}
    return pa.table(columns)


def expanded(start: Integers, stop: Integers) -> tuple[Integers, Integers]:
    """Return all places of some slices, one slice after the other, and the slice of each place.

    Examples
    --------
    >>> places, of_slice = expanded(np.array([3, 0, 7]), np.array([5, 0, 8]))
    >>> places.tolist(), of_slice.tolist()
    ([3, 4, 7], [0, 0, 2])
    """
    counts = np.maximum(stop - start, 0)
    of_slice = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return np.arange(len(of_slice)) - before[of_slice] + start[of_slice], of_slice


def _taken(column: pa.ChunkedArray, places: pa.Array) -> pa.Array:
    """Return values by their places; text without its dictionary."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if column.null_count == len(column):
        return pa.nulls(len(places), kind)
    column = column.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        return column.take(places)
    return column.dictionary.take(column.indices.take(places))


def _codes(column: pa.ChunkedArray, known: Sequence[str] | None = None) -> tuple[Integers, list[str]]:
    """Return the number of each text, -1 if it is none of the known ones, and the texts by number, in their order."""
    column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunks = (column if column.num_chunks < 2 else column.unify_dictionaries()).chunks
    values = chunks[0].dictionary.to_pylist() if chunks else []
    names = sorted(values) if known is None else list(known)
    numbers = {name: number for number, name in enumerate(names)}
    of_value = np.array([numbers.get(value, -1) for value in values], np.int64)
    return of_value[np.concatenate([np.empty(0, np.int32), *(to_numpy(chunk.indices) for chunk in chunks)])], names


def _joined(near: pa.Table, sources: pa.Table) -> tuple[Integers, Integers]:
    """Return the pairs of a measurement and its source, by their places in the tables."""
    of_source, of_row = np.zeros(sources.num_rows, np.int64), np.zeros(near.num_rows, np.int64)
    is_known = np.ones(near.num_rows, bool)
    for name in _KEYS:
        codes, known = _codes(sources[name])
        of_source = of_source * len(known) + codes
        codes, _ = _codes(near[name], known)
        of_row = of_row * len(known) + codes
        is_known &= codes >= 0
    by_key = np.argsort(of_source, kind="stable")
    ordered = of_source[by_key]
    stop = np.searchsorted(ordered, of_row, "right")
    place, row = expanded(np.where(is_known, np.searchsorted(ordered, of_row, "left"), stop), stop)
    source = by_key[place]
    same = to_numpy(near["hpx29"])[row] == to_numpy(sources["hpx29"])[source]
    return row[same], source[same]


def _in_order(near: pa.Table, row: Integers, sources: pa.Table, source: Integers) -> Integers:
    """Return the order of pairs: by number in the list or centre, archive, band, time, source and release."""
    groups = np.zeros(len(row), np.int64)
    for name in _FIRST[:2]:
        if name in sources.column_names:
            numbers = to_numpy(sources[name])
            groups = groups * (sources.num_rows + 1) + np.searchsorted(distinct(numbers), numbers)[source]
    for name in ("archive", "band"):
        codes, known = _codes(near[name])
        groups = groups * len(known) + codes[row]
    mjd = to_numpy(near["mjd"])[row]
    order = np.lexsort((mjd, groups))
    same = (np.diff(mjd[order]) == 0) & (np.diff(groups[order]) == 0)
    if same.any():  # which is rare, and text sorts slowly
        last = [_codes(near[name])[0][row] for name in ("release", "source_id")]
        order = np.lexsort((*last, mjd, groups))
    return order
