"""Read the rows of some keys from sorted Parquet files of this machine: only the row groups that may have them.

DuckDB prepares a reader for each column of each row group before it skips one, which takes longer than to read the one
that is needed. Here the ranges of the key in all row groups of a file are found once, and kept with its footer.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from lake.store.arrays import Integers, distinct, expanded, from_numpy, to_numpy
from lake.store.failures import unreadable_file

# Footers are kept of so many row groups; one takes some 20 kB. A lake of a thousand million rows has 30,000.
_KEPT_GROUPS = 10_000

# So many threads read: more than there are cores take longer.
_THREADS = min(os.cpu_count() or 1, 8)

# Row groups of so many rows are read by one call: each call costs time, and more rows memory.
_ROWS_AT_ONCE = 2**18

_LOWEST, _HIGHEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True)
class Ranges:
    """Ranges of a key, in order and apart from each other.

    Parameters
    ----------
    first, last
        Of each range, inclusive.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    def of_keys(cls, keys: ArrayLike) -> Ranges:
        """Return the ranges of one key each."""
        found = distinct(np.asarray(keys, np.int64))
        return cls(found, found)

    @classmethod
    def joined(cls, low: Sequence[int], high: Sequence[int]) -> Ranges:
        """Sort ranges, and join those that overlap.

        Examples
        --------
        >>> found = Ranges.joined([20, 0, 5], [30, 9, 12])
        >>> found.first.tolist(), found.last.tolist()
        ([0, 20], [12, 30])
        """
        first: list[int] = []
        last: list[int] = []
        for one, other in sorted(zip(low, high, strict=True)):
            if last and one <= last[-1]:
                last[-1] = max(last[-1], other)
            else:
                first.append(one)
                last.append(other)
        return cls(np.array(first, np.int64), np.array(last, np.int64))

    def meet(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which ranges, of files for instance, have a key in common with one of these."""
        return np.asarray(np.searchsorted(self.last, low, "left") < np.searchsorted(self.first, high, "right"))

    def rows(self, keys: NDArray[np.int64]) -> slice | Integers:
        """Return the places of the keys that are in a range; a slice, if they are next to each other."""
        if not bool((keys[1:] >= keys[:-1]).all()):
            return np.flatnonzero(self.meet(keys, keys))
        start, stop = np.searchsorted(keys, self.first, "left"), np.searchsorted(keys, self.last, "right")
        some = stop > start
        start, stop = start[some], stop[some]
        if len(start) < 2 or bool((start[1:] == stop[:-1]).all()):
            return slice(int(start[0]), int(stop[-1])) if len(start) else slice(0, 0)
        return expanded(start, stop)[0]


@dataclass(frozen=True)
class _Footer:
    """The footer of a file, and the ranges of the key in its row groups."""

    metadata: pq.FileMetaData
    columns: dict[str, int]
    low: NDArray[np.int64]
    high: NDArray[np.int64]


class Footers:
    """The footers of files that were read last; they never change."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Footer] = OrderedDict()
        self._groups = 0
        self._lock = threading.Lock()

    def of(self, path: str, key: str) -> _Footer:
        """Return the footer of a file; read it, if it is not kept."""
        with self._lock:
            if (kept := self._kept.get(path)) is not None:
                self._kept.move_to_end(path)
                return kept
        footer = _read_footer(path, key)
        with self._lock:
            if path not in self._kept:
                self._kept[path] = footer
                self._groups += footer.metadata.num_row_groups
                while self._groups > _KEPT_GROUPS and len(self._kept) > 1:
                    self._groups -= self._kept.popitem(last=False)[1].metadata.num_row_groups
        return footer


def _read_footer(path: str, key: str) -> _Footer:
    metadata = pq.read_metadata(path)
    columns = {metadata.schema.column(place).path: place for place in range(metadata.num_columns)}
    ranges = [
        (found.min, found.max) if found is not None and found.has_min_max else (_LOWEST, _HIGHEST)
        for group in range(metadata.num_row_groups)
        for found in [metadata.row_group(group).column(columns[key]).statistics]
    ]
    low, high = np.array(ranges, np.int64).reshape(-1, 2).T
    return _Footer(metadata, columns, low, high)


def read_rows(
    footers: Footers, paths: Sequence[str], key: str, ranges: Ranges, schema: pa.Schema
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of local files whose key is in a range, with the place of their file, in the files' order.

    Parameters
    ----------
    footers
        Those that are known; others are added.
    paths
        Of the files.
    key
        The column of 64-bit integers.
    ranges
        Of the key.
    schema
        Columns that are wanted. Text may come as dictionaries.

    Raises
    ------
    FileNotFoundError
        If a file is gone.
    CatalogError
        If it cannot be read, or a page is not that of its checksum. Files that a pull wrote have checksums; those of
        DuckDB, after a compaction, have none.
    """
    wanted = []
    for place, path in enumerate(paths):
        with _readable(path):
            footer = footers.of(path, key)
        groups = np.flatnonzero(ranges.meet(footer.low, footer.high)).tolist()
        wanted += [(place, path, footer, some) for some in _together(footer.metadata, groups)]

    def read(one: tuple[int, str, _Footer, list[int]]) -> tuple[int, pa.Table]:
        place, path, footer, groups = one
        with _readable(path):
            return place, _read_groups(path, footer, groups, key, ranges, schema)

    if len(wanted) == 1:
        yield read(wanted[0])
        return
    pool = ThreadPoolExecutor(_THREADS)
    try:
        yield from pool.map(read, wanted)
    finally:
        pool.shutdown(cancel_futures=True)


def _together(metadata: pq.FileMetaData, groups: list[int]) -> list[list[int]]:
    """Divide the wanted row groups of a file into those that are read at once, about as many by each thread."""
    most = -(-len(groups) // _THREADS)
    if most > 1:
        most = max(1, min(most, _ROWS_AT_ONCE // max(1, metadata.row_group(groups[0]).num_rows)))
    return [groups[start : start + most] for start in range(0, len(groups), most or 1)]


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Name the file that cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException, KeyError) as error:
        raise unreadable_file(f"{path}: {' '.join(str(error).split())}") from error


def _read_groups(
    path: str, footer: _Footer, groups: list[int], key: str, ranges: Ranges, schema: pa.Schema
) -> pa.Table:
    """Read the rows of some row groups: the key first, then the other columns, unless they have only NULL."""
    text = [field.name for field in schema if pa.types.is_string(field.type)]
    stored_groups = [footer.metadata.row_group(group) for group in groups]
    chunks = {name: [group.column(footer.columns[name]) for group in stored_groups] for name in schema.names}
    # Of texts that hardly repeat DuckDB stores differences, which Arrow reads as plain texts only.
    repeated = [
        name for name in text if not any("DELTA" in encoding for chunk in chunks[name] for encoding in chunk.encodings)
    ]
    with pq.ParquetFile(
        path, metadata=footer.metadata, read_dictionary=repeated, page_checksum_verification=True
    ) as file:
        keys = file.read_row_groups(groups, [key], use_threads=False)
        rows = ranges.rows(to_numpy(keys[key]))
        n = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        is_null = {name: _nulls(some) == keys.num_rows for name, some in chunks.items()}
        others = [name for name in schema.names if not is_null[name] and name != key]
        stored = file.read_row_groups(groups, others, use_threads=False) if n else keys
    # Copied: a slice would keep the memory of the whole group.
    places = from_numpy(np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows)
    columns = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        if is_null[name] or not n:
            kind = pa.dictionary(pa.int32(), kind) if name in text else kind
            columns.append(pa.chunked_array([pa.nulls(n, kind)]))
            continue
        column = (keys if name == key else stored)[name]
        if name in repeated and column.num_chunks > 1:
            column = column.unify_dictionaries()
        column = column if n == keys.num_rows else column.take(places)
        if name not in text:
            column = column.cast(kind)
        elif name not in repeated or len(column.chunk(0).dictionary) > n:
            # The texts of all rows of the group: those of other rows would be looked through again and again.
            column = column.cast(kind).dictionary_encode()
        columns.append(column)
    return pa.table(columns, names=schema.names)


def _nulls(chunks: list[pq.ColumnChunkMetaData]) -> int:
    """Return how many NULLs a column has for certain."""
    found = [chunk.statistics for chunk in chunks]
    return sum(one.null_count or 0 for one in found if one is not None)
