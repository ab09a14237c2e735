"""Gaia's epoch photometry in every layout of its DataLink service, as one table of measurements.

Three layouts: long (a row per transit and band; structures INDIVIDUAL and COMBINED), wide (a row per transit,
columns per band), and arrays (a row per source, a cell per column with all its transits; structure RAW, and the
bulk files of the release). Columns as in the Gaia DR3 documentation, sect. 20.7.1, epoch_photometry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.text import counted

if TYPE_CHECKING:
    from astropy.table import Table

# numpy has no types for it.
_masked_all: Any = np.ma.masked_all

# Bits of quality. Long tables say of a row whether it was rejected; arrays and wide tables say it with the flags
# that follow, which the long ones fold into other_flags.
REJECTED_BY_PHOTOMETRY, REJECTED_BY_VARIABILITY, NOISY = 1, 2, 4
_CCDS = ("sm", *(f"af{number}" for number in range(1, 10)), "bp", "rp")
_UNAVAILABLE_BIT, _REJECT_BIT, _OTHER_BIT = 8, 20, 32

# The 25 flags of the arrays are the bits of other_flags, which flat tables have (Gaia DR3 documentation, sect. 20.7.1):
# first SM, AF1 to AF9, BP and RP rejected, then noisy, which is of G.
_OTHER_NOISY = 12

_SCHEMA = pa.schema(
    {
        "source_id": pa.int64(),
        "transit_id": pa.int64(),
        "band": pa.string(),
        "time": pa.float64(),
        "flux": pa.float64(),
        "flux_error": pa.float64(),
        "mag": pa.float64(),
        "quality": pa.int64(),
    }
)
EMPTY = pa.Table.from_batches([], _SCHEMA)  # other ways to make one import pandas

# Columns of time, flux, flux_error and mag in arrays and wide tables.
_BAND_COLUMNS = {
    "G": ("g_transit_time", "g_transit_flux", "g_transit_flux_error", "g_transit_mag"),
    "BP": ("bp_obs_time", "bp_flux", "bp_flux_error", "bp_mag"),
    "RP": ("rp_obs_time", "rp_flux", "rp_flux_error", "rp_mag"),
}


def transits(table: Table, name: str = "", params: Mapping[str, Any] | None = None) -> pa.Table:
    """Convert a table in any of the layouts to measurements, with the columns of EMPTY.

    Parameters
    ----------
    table
        As astropy reads it.
    name
        File it came in; its last number is the source, if neither the table nor its parameters have a source_id.
    params
        Parameters of the table.

    Raises
    ------
    ValueError
        If the table is in none of the layouts.
    """
    names, params = set(table.colnames), params or {}
    if not len(table):
        return EMPTY
    if {"band", "time", "flux"} <= names:
        return _long(table, name, params)
    if "g_transit_time" not in names:
        raise ValueError(
            f"{name or 'the table'} has no epoch photometry; its columns: {', '.join(table.colnames)[:200]}"
        )
    if has_arrays(table):
        return _wide(_exploded(table), name, params)
    return _wide({column: _plain(table[column]) for column in table.colnames if _wanted(column)}, name, params)


def has_arrays(table: Table) -> bool:
    """Say whether a row is a source, with its transits in arrays."""
    return bool(table["g_transit_time"].dtype.kind == "O" or table["g_transit_time"].ndim > 1)


def _long(table: Table, name: str, params: Mapping[str, Any]) -> pa.Table:
    columns = {column: _plain(table[column]) for column in table.colnames}
    n = len(table)
    quality = _flag(columns, "rejected_by_photometry", n) * REJECTED_BY_PHOTOMETRY
    quality |= _flag(columns, "rejected_by_variability", n) * REJECTED_BY_VARIABILITY
    band = np.char.strip(np.ma.filled(columns["band"], "").astype(str))
    quality |= _other_flags(columns, "other_flags", n, is_g=band == "G")
    return _rows(
        _source_ids(columns, name, n, params),
        columns.get("transit_id"),
        band,
        [columns.get(column) for column in ("time", "flux", "flux_error", "mag")],
        quality,
    )


def _wide(columns: dict[str, NDArray[Any]], name: str, params: Mapping[str, Any]) -> pa.Table:
    n = len(columns["g_transit_time"])
    common = _flag(columns, "photometry_flag_noisy_data", n) * NOISY
    for number, ccd in enumerate(_CCDS):
        common |= _flag(columns, f"photometry_flag_{ccd}_unavailable", n) << (_UNAVAILABLE_BIT + number)
        common |= _flag(columns, f"photometry_flag_{ccd}_reject", n) << (_REJECT_BIT + number)
    source_ids = _source_ids(columns, name, n, params)
    # DataLink's wide tables have one such flag a transit, for all bands.
    whole = _flag(columns, "rejected_by_photometry", n) * REJECTED_BY_PHOTOMETRY
    whole |= _flag(columns, "rejected_by_variability", n) * REJECTED_BY_VARIABILITY
    parts = []
    for band, names in _BAND_COLUMNS.items():
        if names[0] not in columns:
            continue
        letter = band.lower()
        # A transit's G flux is made of up to nine CCDs, one of which may be rejected without harm.
        rejected = _flag(columns, f"photometry_flag_{letter}_reject", n) * REJECTED_BY_PHOTOMETRY
        rejected |= _flag(columns, f"variability_flag_{letter}_reject", n) * REJECTED_BY_VARIABILITY
        rejected |= whole | _other_flags(columns, f"{letter}_other_flags", n, is_g=band == "G")
        noisy = common if band == "G" else common & ~NOISY
        parts.append(
            _rows(
                source_ids,
                columns.get("transit_id"),
                np.full(n, band),
                [columns.get(column) for column in names],
                noisy | rejected,
            )
        )
    return pa.concat_tables(parts)


def _rows(source_id: Any, transit_id: Any, band: Any, values: Sequence[Any], quality: Any) -> pa.Table:
    n = len(source_id)

    def floats(values: Any) -> pa.Array:
        if values is None:
            return pa.nulls(n, pa.float64())
        filled = np.ma.filled(np.ma.asarray(values).astype(np.float64), np.nan)
        return pa.array(filled, mask=np.isnan(filled))  # what is infinite, lake/commit/sound.py makes NULL, and tells

    transit = pa.nulls(n, pa.int64())
    if transit_id is not None:
        transit = pa.array(np.ma.filled(transit_id, 0).astype(np.int64), mask=np.ma.getmaskarray(transit_id))
    keys = (pa.array(source_id, pa.int64()), transit, pa.array(band.tolist(), pa.string()))
    arrays = [*keys, *map(floats, values), pa.array(quality, pa.int64())]
    return pa.table(dict(zip(EMPTY.column_names, arrays, strict=True)))


def _other_flags(columns: dict[str, NDArray[Any]], name: str, n: int, *, is_g: Any) -> NDArray[np.int64]:
    """Return the bits of a column of other flags, and NOISY where the bit for G is set."""
    if name not in columns:
        return np.zeros(n, np.int64)
    flags = np.ma.filled(columns[name], 0).astype(np.int64)
    noisy = np.where(is_g, flags >> _OTHER_NOISY & 1, 0) * NOISY
    return np.asarray((flags << _OTHER_BIT) | noisy)


def each_once(rows: pa.Table) -> pa.Table:
    """Drop repeated measurements: a source may come twice in a zip."""
    names = ["source_id", "band", "transit_id", "time"]
    keys = rows.select(names).append_column("row", pa.array(np.arange(rows.num_rows)))
    first = keys.group_by(names, use_threads=False).aggregate([("row", "min")])["row_min"]
    return rows if len(first) == rows.num_rows else rows.take(pa.array(np.sort(first.to_numpy())))


def _source_ids(columns: dict[str, NDArray[Any]], name: str, n: int, params: Mapping[str, Any]) -> NDArray[np.int64]:
    if "source_id" in columns:
        return np.asarray(np.ma.filled(columns["source_id"], 0)).astype(np.int64)
    if params.get("source_id") is not None:
        return np.full(n, int(params["source_id"]))
    if (number := source_in(name)) is None:
        raise ValueError(f"{name or 'a table'} does not say which source it is of")
    return np.full(n, number)


def _flag(columns: dict[str, NDArray[Any]], name: str, n: int) -> NDArray[np.int64]:
    """Convert a flag to 0 or 1, from booleans or the letters T and F; 0 where it is missing."""
    if name not in columns:
        return np.zeros(n, np.int64)
    values = np.ma.asarray(columns[name])
    if values.dtype.kind in "OUS":
        texts = np.ma.filled(values.astype(str), "")
        return np.isin(np.char.upper(np.char.strip(texts)), ("T", "TRUE", "1")).astype(np.int64)
    return np.ma.filled(values, 0).astype(bool).astype(np.int64)


def _wanted(column: str) -> bool:
    return column in ("source_id", "transit_id") or column.startswith(
        ("g_", "bp_", "rp_", "photometry_flag_", "variability_flag_", "rejected_by_")
    )


def _plain(column: Any) -> NDArray[Any]:
    """Convert a column to a masked array without unit."""
    values = np.ma.asarray(column)
    if values.dtype.kind == "O":
        texts = [
            "" if value is None else value.decode() if isinstance(value, bytes) else str(value) for value in column
        ]
        return np.ma.asarray(np.array(texts, dtype=str))
    return values


def _exploded(table: Table) -> dict[str, NDArray[Any]]:
    """Flatten a table with array cells to columns with a row per transit."""
    lengths = [0 if cell is None else np.size(cell) for cell in _cells(table["g_transit_time"])]
    columns: dict[str, NDArray[Any]] = {"source_id": np.repeat(np.asarray(table["source_id"]), lengths)}
    for name in table.colnames:
        column = table[name]
        if name == "source_id" or not _wanted(name) or (column.dtype.kind != "O" and column.ndim == 1):
            continue
        parts = [_full(cell, length) for cell, length in zip(_cells(column), lengths, strict=True)]
        kind = next((part.dtype for part in parts if part is not None and len(part)), np.dtype(float))
        # Some sources may have nothing in this column.
        parts = [_masked_all(n, kind) if part is None else part for part, n in zip(parts, lengths, strict=True)]
        values = np.concatenate([part.data for part in parts])
        columns[name] = np.ma.array(values, mask=np.concatenate([np.ma.getmaskarray(part) for part in parts]))
    return columns


def _cells(column: Any) -> list[Any]:
    """Return the cells of a column, None where masked; a MaskedColumn itself would wrap each anew, which is slow."""
    values = np.ma.asarray(column)
    if values.ndim > 1:
        return list(values)
    return [None if hidden else cell for cell, hidden in zip(values.data, np.ma.getmaskarray(values), strict=True)]


def _full(cell: Any, length: int) -> Any:
    """Return an array cell, or None where there is none.

    Raises
    ------
    ValueError
        If it has another length than the transits of its source.
    """
    if cell is None or cell is np.ma.masked or np.size(cell) == 0:
        return None
    if np.size(cell) != length:
        raise ValueError(f"an array of {counted(np.size(cell), 'value')} for {counted(length, 'transit')}")
    values = np.ma.atleast_1d(np.ma.asarray(cell))
    if values.dtype.kind == "O":  # arrays of text files have None for what is missing
        hidden = np.array([value is None for value in values.tolist()])
        kinds = {type(value) for value in values.tolist() if value is not None}
        filler = False if kinds == {bool} else np.nan
        values = np.ma.array([filler if value is None else value for value in values.tolist()], mask=hidden)
    return values


def source_in(name: str) -> int | None:
    """Return the source that a file's name has; None if it has none."""
    numbers = re.findall(r"\d{5,}", name)
    return int(numbers[-1]) if numbers else None
