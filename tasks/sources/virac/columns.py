"""Convert columns of VIRAC to numbers: impossible values, types of objects, and answers of ESO's TAP service."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.errors import GranuleRejected
from lake.text import counted
from tasks.services import values
from tasks.sources.virac.tile import BANDS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Of column quality: bit 0 is ambiguous_match, bits 8 to 15 are objtype; of the public release, bit 1 is set if
# phot_flag is not 0.
AMBIGUOUS, PHOT_FLAG, OBJTYPE_SHIFT = 1, 2, 8

ODD_VALUES = "values that no measurement has (sentinels, negative errors, infinities), made NULL"


def without_odd(given: NDArray[Any], low: float, high: float) -> tuple[NDArray[Any], int]:
    """Replace infinities and values out of a range by NaN, and count them."""
    if len(given):
        least, most = np.fmin.reduce(given), np.fmax.reduce(given)
        if least >= low and most <= high and np.isfinite(least) and np.isfinite(most):
            return given, 0
    odd = (given < low) | (given > high) | np.isinf(given)
    n = int(np.count_nonzero(odd))
    return np.where(odd, np.nan, given) if n else given, n


def or_null(values: NDArray[Any]) -> pa.Array:
    """Convert floats to Arrow, NaN to NULL, without a copy of them: they must not change afterwards."""
    missing = np.isnan(values)
    known = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
    buffers = [known, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def as_json(columns: Mapping[str, Sequence[str | int]]) -> list[str]:
    """Return an object in JSON for each row of some columns."""
    encode = json.JSONEncoder().encode  # once for each distinct value: many pawprints share them
    texts = []
    for name, column in columns.items():
        known = {value: f"{encode(name)}: {encode(value)}" for value in set(column)}
        texts.append([known[value] for value in column])
    return [f"{{{', '.join(row)}}}" for row in zip(*texts, strict=True)]


def objtype_bits(given: NDArray[Any]) -> tuple[Ints, NDArray[np.bool_]]:
    """Pack objtype into its bits of column quality, 0 where it is no type; return also where it is one.

    Raises
    ------
    GranuleRejected
        If none of several values is a type.
    """
    with np.errstate(invalid="ignore"):
        word = given.astype(np.int64)
    odd = (word != given) | (word < 0) | (word > 255)
    if odd.all() and len(odd) > 1:
        raise GranuleRejected(f"objtype has values that are no type, such as {given[0]}")
    return np.where(odd, 0, word) << OBJTYPE_SHIFT, ~odd


def quality(found: pa.Table) -> tuple[pa.Array, Flags, int]:
    """Return flag words, NULL where a flag is NULL or odd; whether the flags pass a row; how many are odd."""
    flags = {name: cast(found, name, pa.int64()).combine_chunks() for name in ("ambiguous_match", "phot_flag")}
    known = np.logical_and.reduce([flag.is_valid().to_numpy(zero_copy_only=False) for flag in flags.values()])
    ambiguous, flagged = (np.asarray(flag.fill_null(1).to_numpy() != 0, bool) for flag in flags.values())
    objtype = cast(found, "objtype", pa.int64()).fill_null(0).to_numpy()
    word, has_type = objtype_bits(objtype)
    word |= np.where(ambiguous, AMBIGUOUS, 0) | np.where(flagged, PHOT_FLAG, 0)
    return pa.array(word, mask=~(known & has_type)), ~ambiguous & ~flagged, int((~has_type).sum())


def bands(found: pa.Table) -> NDArray[np.int8]:
    """Return the index in BANDS of each row's band; -1 for unknown ones."""
    names = pc.utf8_trim_whitespace(found["filter"].cast(pa.string()))
    places = pc.fill_null(pc.index_in(names, value_set=pa.array(BANDS)), -1)
    return np.asarray(places.to_numpy()).astype(np.int8)


def is_known(found: pa.Table, name: str) -> Flags:
    """Say which rows have a value in a column."""
    return np.asarray(found[name].is_valid().to_numpy(), bool)


def places(found: pa.Table) -> tuple[Floats, Floats]:
    """Return the positions of sources, ICRS degrees, NaN where they are not on the sky."""
    return values.places(pa.table({"ra": found["ra"], "dec": found["de"]}))


def distinct(catid: Ints, band: NDArray[np.int8], mjd: Floats) -> tuple[Ints, NDArray[np.int8], Floats]:
    """Return each catid once, with its band and time.

    Raises
    ------
    GranuleRejected
        If one has several.
    """
    ids, first, place = np.unique(catid, return_index=True, return_inverse=True)
    other = (band[first][place] != band) | (mjd[first][place] != mjd)
    if other.any():
        raise GranuleRejected(f"catid {catid[other][0]} has several bands or times")
    return ids, band[first], mjd[first]


def ints(table: pa.Table, name: str, of: str) -> Ints:
    """Return a column of whole numbers; GranuleRejected if one is missing."""
    if table[name].null_count:
        raise GranuleRejected(f"{of}.{name} is NULL in {table[name].null_count} of {counted(table.num_rows, 'row')}")
    return np.asarray(cast(table, name, pa.int64()).to_numpy())


def floats(table: pa.Table, name: str) -> Floats:
    """Convert a column to float64, NaN where nothing is known."""
    return np.asarray(cast(table, name, pa.float64()).to_numpy(), np.float64)


def cast(table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """Convert a column to another type; GranuleRejected if it does not fit."""
    try:
        return table[name].cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise GranuleRejected(f"column {name} of the answer is {table[name].type}, not {kind}: {error}") from error
