"""Gaia's epoch photometry in every layout that its DataLink service has, and as light curves of the lake.

Three layouts: long (a row per transit and band; structures INDIVIDUAL and COMBINED), wide (a row per transit,
columns per band), and arrays (a row per source, a cell per column with all its transits; structure RAW, and the
bulk files of the release). Columns as in the Gaia DR3 documentation, sect. 20.7.1, epoch_photometry.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from xml.parsers.expat import ExpatError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io.votable.exceptions import VOTableSpecError
from astropy.table import Table
from numpy.typing import NDArray

from lake.commit.sound import named
from lake.science.photometry import AB_ZERO_POINT_JY, magnitude_err
from lake.science.times import MJD_OFFSET, to_bmjd_tdb
from tasks.services.bounds import Budget, open_zip, parsed_votable
from tasks.services.values import dated, possible, undated_remark


class ZeroPoints(NamedTuple):
    """Magnitudes of one electron per second."""

    vega: float
    ab: float


ZERO_POINT_SOURCE = "Gaia EDR3 passbands, table of zero points (Riello et al. 2021, A&A 649, A3)"
ZERO_POINTS = {
    "G": ZeroPoints(25.6873668671, 25.8010446445),
    "BP": ZeroPoints(25.3385422158, 25.3539555559),
    "RP": ZeroPoints(24.7478955012, 25.1039837393),
}

# Light curves count days from JD(TCB) 2455197.5: Gaia DR3 documentation, data model.
EPOCH_MJD = 2455197.5 - MJD_OFFSET  # 55197.0

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
QUALITY_NOTE = (
    "Bits of quality: 0 rejected by photometry, 1 rejected by variability, 2 noisy, 8 to 19 unavailable and 20 to 31 "
    "rejected CCDs (SM, AF1 to AF9, BP, RP), from 32 on the archive's other_flags; good has none of the first three."
)

EMPTY = pa.table(
    {
        "source_id": pa.array([], pa.int64()),
        "transit_id": pa.array([], pa.int64()),
        "band": pa.array([], pa.string()),
        "time": pa.array([], pa.float64()),
        "flux": pa.array([], pa.float64()),
        "flux_error": pa.array([], pa.float64()),
        "mag": pa.array([], pa.float64()),
        "quality": pa.array([], pa.int64()),
    }
)

# No transit is older than Gaia's launch, 2013 December 19 (Gaia Collaboration 2016, A&A 595, A1): a time of 0 is none.
LAUNCH_MJD = 56645.0

# Columns of time, flux, flux_error and mag in arrays and wide tables.
_BAND_COLUMNS = {
    "G": ("g_transit_time", "g_transit_flux", "g_transit_flux_error", "g_transit_mag"),
    "BP": ("bp_obs_time", "bp_flux", "bp_flux_error", "bp_mag"),
    "RP": ("rp_obs_time", "rp_flux", "rp_flux_error", "rp_mag"),
}


def read(body: bytes, ids: Sequence[int], budget: Budget, broken: dict[int, str] | None = None) -> pa.Table:
    """Read what DataLink sent: a zip of VOTables, or one VOTable.

    Parameters
    ----------
    body
        The answer.
    ids
        Sources that were asked for; others are left out.
    budget
        What it may come to, unpacked and in memory.
    broken
        Takes sources of which something cannot be read, and why, so that the others are; None: that is an error.

    Returns
    -------
    pa.Table
        Columns of EMPTY: time in days since 2455197.5 (BJD, TCB), flux in electrons per second, mag Vega.

    Raises
    ------
    ValueError
        If it is neither, or is damaged, or has none of the layouts.
    """
    parts = [EMPTY]
    for name, content in _members(body, budget):
        try:
            votable = parsed_votable(content, budget)
        except (ExpatError, VOTableSpecError, ValueError, IndexError, zlib.error) as error:
            if not _noted(f"{name} is no VOTable, or part of one: {error}", _named(name), ids, broken):
                raise ValueError(f"{name} is no VOTable, or part of one: {error}") from error
            continue
        for info in votable.infos + [info for resource in votable.resources for info in resource.infos]:
            if info.name == "QUERY_STATUS" and str(info.value).upper() != "OK":
                raise ValueError(f"{name} says {info.value}: {info.content or 'no more'}")
        for table in votable.iter_tables():
            params = {param.name: param.value for param in table.params}
            parts += _sound_parts(table.to_table(), name, params, ids, broken)
    rows = _each_once(pa.concat_tables(parts))
    wanted = set(ids) - set(broken or ())
    return rows.filter(pc.is_in(rows["source_id"], value_set=pa.array(sorted(wanted), pa.int64())))


def _sound_parts(
    table: Table, name: str, params: Mapping[str, Any], ids: Sequence[int], broken: dict[int, str] | None
) -> list[pa.Table]:
    """Return the measurements of a table, of several sources those of each that can be read."""
    try:
        return [transits(table, name, params)]
    except ValueError as error:
        is_arrays = "source_id" in table.colnames and "g_transit_time" in table.colnames and _has_arrays(table)
        if is_arrays and len(table) > 1 and broken is not None:
            rows = (table[n : n + 1] for n in range(len(table)))
            return [part for row in rows for part in _sound_parts(row, name, params, ids, broken)]
        whose = int(table["source_id"][0]) if is_arrays else _named(name)
        if not _noted(f"{name}: {error}", whose, ids, broken):
            raise
        return []


def _noted(reason: str, source: int | None, ids: Sequence[int], broken: dict[int, str] | None) -> bool:
    """Note that a source is broken; say whether it could be: if it is known which of those asked for it is."""
    if broken is None or source is None or source not in ids:
        return False
    broken.setdefault(source, reason)
    return True


def _named(name: str) -> int | None:
    """Return the source that a file's name says."""
    numbers = re.findall(r"\d{5,}", name)
    return int(numbers[-1]) if numbers else None


def _members(body: bytes, budget: Budget) -> Iterator[tuple[str, bytes]]:
    if not body.startswith(b"PK"):
        yield "the answer", body
        return
    try:
        with open_zip(io.BytesIO(body), budget) as archive:
            for name in archive.names:
                yield name, archive.read(name)
    except zipfile.BadZipFile as error:
        raise ValueError(f"the answer is a damaged zip: {error}") from error


def transits(table: Table, name: str = "", params: Mapping[str, Any] | None = None) -> pa.Table:
    """Return the measurements of a table in any of the layouts, with the columns of EMPTY.

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
    if _has_arrays(table):
        return _wide(_exploded(table), name, params)
    return _wide({column: _plain(table[column]) for column in table.colnames if _wanted(column)}, name, params)


def _has_arrays(table: Table) -> bool:
    return bool(table["g_transit_time"].dtype.kind == "O" or table["g_transit_time"].ndim > 1)


def lightcurves(epochs: pa.Table, sources: pa.Table) -> pa.Table:
    """Return epoch photometry as rows of table lightcurves.

    Rejected and noisy transits stay, with good false. A transit without a flux in a band is covered, not detected,
    if its time is known. MJD is time + 55197.0: the archive's zero is JD 2455197.5, Gaia DR3 documentation,
    sect. 20.7.1.

    Parameters
    ----------
    epochs
        Columns of EMPTY.
    sources
        Rows of table sources.
    """
    epochs = epochs.filter(pc.and_(pa.array(dated(_mjd(epochs))), _in_band(epochs)))
    place = pc.index_in(epochs["source_id"].cast(pa.string()), value_set=sources["source_id"].combine_chunks())
    mjd = _mjd(epochs)
    rate, rate_err = (epochs[name].to_numpy() for name in ("flux", "flux_error"))
    band = epochs["band"].to_numpy()
    # mJy of one electron per second: the flux of that AB magnitude.
    factor = np.empty(len(band))
    for name, points in ZERO_POINTS.items():
        factor[band == name] = AB_ZERO_POINT_JY * 1e3 * 10 ** (-0.4 * points.ab)
    quality = epochs["quality"].to_numpy()
    detected = ~np.isnan(rate)
    mag_err = magnitude_err(possible(rate, "flux"), possible(rate_err, "flux_err"))
    return pa.table(
        {
            "band": epochs["band"],
            "source_id": epochs["source_id"].cast(pa.string()),
            "hpx29": sources["hpx29"].take(place),
            "mjd": mjd,
            "bmjd_tdb": to_bmjd_tdb(
                mjd,
                sources["ra"].take(place).to_numpy(),
                sources["dec"].take(place).to_numpy(),
                scale="tcb",
                frame="barycentre",
            ),
            "flux": rate * factor,
            "flux_err": rate_err * factor,
            "unit": pa.array(["mJy"] * len(band), pa.string()),
            "mag": epochs["mag"],
            "mag_err": np.where(np.isnan(possible(epochs["mag"].to_numpy(), "mag")), np.nan, mag_err),
            "detected": detected,
            "good": detected & (quality & (REJECTED_BY_PHOTOMETRY | REJECTED_BY_VARIABILITY | NOISY) == 0),
            "quality": quality,
            "exposure_id": epochs["transit_id"].cast(pa.string()),
        }
    )


def out_of_time(epochs: pa.Table) -> str | None:
    """Return the remark on transits with a time that no clock can have shown; those without one are no measurements."""
    known = epochs.filter(pc.is_valid(epochs["time"]))
    whose = known["source_id"].cast(pa.string())
    return undated_remark(_mjd(known), lambda mask: whose.filter(pa.array(mask)).to_pylist())


def out_of_band(epochs: pa.Table) -> str | None:
    """Return the remark on transits in bands that nobody knows."""
    odd = epochs.filter(pc.invert(_in_band(epochs)))
    told = named(odd["band"].cast(pa.string()).to_pylist())
    return f"measurements in bands that nobody knows, left out: {odd.num_rows}{told}" if odd.num_rows else None


def _in_band(epochs: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(epochs["band"], value_set=pa.array(ZERO_POINTS))


def _mjd(epochs: pa.Table) -> NDArray[np.float64]:
    """Return times of transits, 0 for those that are before the launch, as sentinels are."""
    mjd = np.asarray(epochs["time"].to_numpy() + EPOCH_MJD, np.float64)
    return np.where(mjd < LAUNCH_MJD, 0.0, mjd)


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
    """Return the bits of a column of other flags, and NOISY where they say so of G."""
    if name not in columns:
        return np.zeros(n, np.int64)
    flags = np.ma.filled(columns[name], 0).astype(np.int64)
    noisy = np.where(is_g, flags >> _OTHER_NOISY & 1, 0) * NOISY
    return np.asarray((flags << _OTHER_BIT) | noisy)


def _each_once(rows: pa.Table) -> pa.Table:
    """Return each measurement once: a source may come twice in a zip."""
    names = ["source_id", "band", "transit_id", "time"]
    keys = rows.select(names).append_column("row", pa.array(np.arange(rows.num_rows)))
    first = keys.group_by(names, use_threads=False).aggregate([("row", "min")])["row_min"]
    return rows if len(first) == rows.num_rows else rows.take(pa.array(np.sort(first.to_numpy())))


def _source_ids(columns: dict[str, NDArray[Any]], name: str, n: int, params: Mapping[str, Any]) -> NDArray[np.int64]:
    if "source_id" in columns:
        return np.asarray(np.ma.filled(columns["source_id"], 0)).astype(np.int64)
    if params.get("source_id") is not None:
        return np.full(n, int(params["source_id"]))
    if (number := _named(name)) is None:
        raise ValueError(f"{name or 'a table'} does not say which source it is of")
    return np.full(n, number)


def _flag(columns: dict[str, NDArray[Any]], name: str, n: int) -> NDArray[np.int64]:
    """Return a flag as 0 or 1: booleans, or the letters T and F; nothing is no flag."""
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
    """Return a column as a masked array without unit."""
    values = np.ma.asarray(column)
    if values.dtype.kind == "O":
        texts = [
            "" if value is None else value.decode() if isinstance(value, bytes) else str(value) for value in column
        ]
        return np.ma.asarray(np.array(texts, dtype=str))
    return values


def _exploded(table: Table) -> dict[str, NDArray[Any]]:
    """Return the columns of a table with array cells, a row per transit."""
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
        raise ValueError(f"an array of {np.size(cell)} values for {length} transits")
    values = np.ma.atleast_1d(np.ma.asarray(cell))
    if values.dtype.kind == "O":  # arrays of text files have None for what is missing
        hidden = np.array([value is None for value in values.tolist()])
        kinds = {type(value) for value in values.tolist() if value is not None}
        filler = False if kinds == {bool} else np.nan
        values = np.ma.array([filler if value is None else value for value in values.tolist()], mask=hidden)
    return values
