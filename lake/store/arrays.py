"""Convert between NumPy and Arrow without pandas, which pyarrow imports for it, in a quarter of a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]


def to_numpy(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """Return numbers without NULL as a NumPy array.

    Raises
    ------
    ValueError
        If there is a NULL.

    Examples
    --------
    >>> to_numpy(pa.chunked_array([[1.5], [2.5, 3.5]])[1:]).tolist()
    [2.5, 3.5]
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if column.null_count:
        raise ValueError("a column of numbers has NULL")
    kind = column.type.to_pandas_dtype()
    parts = [np.frombuffer(one.buffers()[1], kind)[one.offset : one.offset + len(one)] for one in chunks if len(one)]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, kind), *parts])


def from_numpy(values: NDArray[Any]) -> pa.Array:
    """Return numbers as an Arrow array, without a copy.

    Examples
    --------
    >>> from_numpy(np.arange(3)).to_pylist()
    [0, 1, 2]
    """
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Return distinct numbers in order; np.unique takes many times as long if they are many, and loads numpy.ma.

    Examples
    --------
    >>> distinct(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    ordered = np.sort(values)
    is_first = np.ones(ordered.shape, bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return np.asarray(ordered[is_first])


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


def texts(values: Sequence[str]) -> pa.Array:
    """Return texts as an Arrow array.

    Examples
    --------
    >>> texts(["Sgr A*", "Mrk 1018"]).to_pylist()
    ['Sgr A*', 'Mrk 1018']
    """
    written = [value.encode(errors="surrogatepass") for value in values]
    ends = np.cumsum([0, *map(len, written)]).astype(np.int32)
    return pa.Array.from_buffers(pa.string(), len(written), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(written))])


def coded(column: pa.ChunkedArray) -> tuple[Integers, list[str]]:
    """Return the place of each text in a list of texts, and this list.

    Examples
    --------
    >>> places, names = coded(pa.chunked_array([["wise", "gaia", "wise"]]))
    >>> places.tolist(), names
    ([0, 1, 0], ['wise', 'gaia'])
    """
    column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunks = (column if column.num_chunks < 2 else column.unify_dictionaries()).chunks
    places = np.concatenate([np.empty(0, np.int32), *(to_numpy(chunk.indices) for chunk in chunks)])
    return places, chunks[0].dictionary.to_pylist() if chunks else []


def numbered(column: pa.ChunkedArray, known: Sequence[str] | None = None) -> tuple[Integers, list[str]]:
    """Return the number of each text, -1 if it is none of the known ones, and the texts by number, in their order.

    Examples
    --------
    >>> numbers, names = numbered(pa.chunked_array([["wise", "gaia", "wise"]]))
    >>> numbers.tolist(), names
    ([1, 0, 1], ['gaia', 'wise'])
    """
    places, values = coded(column)
    names = sorted(values) if known is None else list(known)
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers.get(value, -1) for value in values], np.int64)[places], names


def repeated(value: str, n: int) -> pa.DictionaryArray:
    """Return one text n times, as a dictionary of one.

    Examples
    --------
    >>> repeated("ztf", 2).to_pylist()
    ['ztf', 'ztf']
    """
    kind = pa.dictionary(pa.int32(), pa.string())
    return pa.DictionaryArray.from_buffers(kind, n, [None, pa.py_buffer(np.zeros(n, np.int32))], texts([value]))
