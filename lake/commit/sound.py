"""Clean the values of a granule, between parsing and validation.

An impossible value (not finite, or outside the column's range, such as a negative error or a sentinel) becomes NULL.
Rows without a time, an id or a position are dropped. A source that still breaks a rule of the lake is rejected alone.
Each kind is counted for the ledger, with the names of sources and files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.commit.staging import cast_tables
from lake.commit.validate import is_within, validate
from lake.errors import GranuleRejected
from lake.model.declared import table_named
from lake.model.schema import TABLES
from lake.model.table import Column
from lake.science.sky import ranks
from lake.store.storage import decoded
from lake.text import counted

Tables = dict[str, pa.Table]

# Rows without these columns are dropped; with the word for the remark. Without another required value, a source is
# rejected.
_NEEDED = {
    "sources": (("source_id", "id"), ("ra", "place"), ("dec", "place")),
    "matches": (("source_id", "id"), ("separation_arcsec", "place")),
    "lightcurves": (("source_id", "id"), ("mjd", "time")),
}
_ROWS = {"sources": "sources", "matches": "matches", "lightcurves": "measurements"}
_NAMED = 5


def named(names: Iterable[str | None]) -> str:
    """Format the first few distinct names in brackets; empty if there are none."""
    known = list(dict.fromkeys(name for name in names if name))
    return f" ({', '.join(known[:_NAMED])}{', ...' if len(known) > _NAMED else ''})" if known else ""


def sound(tables: Mapping[str, pa.Table]) -> tuple[Tables, list[str]]:
    """Clean the values of a granule's tables.

    Parameters
    ----------
    tables
        Tables with columns of the lake, of any numeric type; columns may be absent, and text may be dictionaries.

    Returns
    -------
    tuple
        The tables, and remarks on values set to NULL and rows dropped.

    Raises
    ------
    GranuleRejected
        If measurements have times, and none of them is possible: see check_clock.
    """
    made, remarks = dict(tables), list[str]()
    if "lightcurves" in tables and "mjd" in tables["lightcurves"].column_names:
        check_clock(tables["lightcurves"]["mjd"].to_numpy())
    # Most granules need no names of files, and it takes reading every exposure's details to know them.
    files = cache(partial(_files, tables.get("exposures")))
    for name in ("sources", "matches", "lightcurves", "exposures", *(name for name in made if name not in TABLES)):
        if name in made and made[name].num_rows:
            table, replaced = _without_odd_values(name, made[name], files)
            kept, left_out = _complete_rows(name, table, files)
            made[name] = _ranked(kept) if name == "matches" and kept.num_rows < table.num_rows else kept
            remarks += replaced + left_out
    if "sources" in made and "sources" in tables and made["sources"].num_rows < tables["sources"].num_rows:
        dropped = pc.is_in(tables["sources"]["source_id"], value_set=_plain(made["sources"], "source_id"))
        gone = tables["sources"].filter(pc.invert(dropped))["source_id"]
        made = without_sources(made, [one for one in gone.to_pylist() if one])
    if "lightcurves" in made:
        made["lightcurves"] = _detected(made["lightcurves"])
    return made, remarks


def check_clock(mjd: NDArray[np.float64]) -> None:
    """Raise GranuleRejected if several measurements have times and none is possible: the unit or zero point is wrong.

    One impossible time among good ones counts as missing. So does a time of 0 or below, as a sentinel.
    """
    spec = TABLES["lightcurves"].column("mjd")
    low, high = spec.low or 0.0, spec.high or np.inf
    wrong = mjd[np.isfinite(mjd) & (mjd > 0)]
    if wrong.size > 1 and not ((wrong >= low) & (wrong <= high)).any():
        reason = (
            f"lightcurves.mjd is not {low:g} to {high:g} in any of {counted(len(mjd), 'row')}, such as {wrong[0]:.9g}"
        )
        raise GranuleRejected(f"{reason}: its unit or zero point is wrong")


def without_broken(
    archive: str, release: str, tables: Mapping[str, pa.Table], band_units: Mapping[str, str | None] | None = None
) -> tuple[Tables, dict[str, str]]:
    """Drop the sources that break a rule of the lake.

    Parameters
    ----------
    archive, release, band_units
        As in lake.commit.validate.validate.
    tables
        Cleaned tables of a granule; tables derived from light curves are made after this.

    Returns
    -------
    tuple
        The tables in the lake's schema without these sources, and why each was rejected.

    Raises
    ------
    GranuleRejected
        If not only some sources are wrong: all of several are, or the fault belongs to none. Or if the granule has no
        other source or target to keep.
    """
    made, rejected = dict(tables), dict[str, str]()
    while True:
        made |= cast_tables(made)
        try:
            validate(archive, release, {name: table for name, table in made.items() if table.num_rows}, band_units)
            return made, rejected
        except GranuleRejected as error:
            known = set(made["sources"]["source_id"].to_pylist()) if "sources" in made else set()
            broken = error.sources & known
            others = made["coverage"].num_rows - 1 if "coverage" in made else 0
            if not broken or (broken == known and (len(known | set(rejected)) > 1 or not others)):
                raise
            rejected |= dict.fromkeys(sorted(broken), error.reason)
            made = without_sources(made, broken)


def without_sources(tables: Mapping[str, pa.Table], ids: Iterable[str]) -> Tables:
    """Drop the rows of some sources."""
    gone = pa.array(sorted(ids), pa.string())
    made = dict(tables)
    for name, table in tables.items():
        if "source_id" in table.column_names and len(gone):
            kept = table.filter(pc.invert(pc.is_in(_plain(table, "source_id"), value_set=gone)))
            made[name] = _ranked(kept) if name == "matches" and kept.num_rows < table.num_rows else kept
    return made


def _ranked(matches: pa.Table) -> pa.Table:
    """Renumber the ranks of matches after some were dropped."""
    matches = matches.sort_by([("target_id", "ascending"), ("rank", "ascending")])
    rank = pa.array(ranks(matches["target_id"].to_numpy()))
    return matches.set_column(matches.column_names.index("rank"), "rank", rank)


def rejected_remark(rejected: Mapping[str, str]) -> str | None:
    """Format the remark on rejected sources; None if there are none."""
    if not rejected:
        return None
    reasons = "; ".join(dict.fromkeys(rejected.values()))
    return f"sources rejected: {len(rejected)}{named(rejected)}: {reasons}"


def _without_odd_values(
    name: str, table: pa.Table, files: Callable[[], Mapping[str, str]]
) -> tuple[pa.Table, list[str]]:
    """Replace impossible values of a table by NULL."""
    remarks: list[str] = []
    for column in table_named(name).columns:
        if column.name not in table.column_names:
            continue
        place, values = table.column_names.index(column.name), table[column.name]
        if column.required and column.type != "DOUBLE":
            continue
        kinds, values = _odd(column, values)
        for kind, mask in kinds:
            where = named(_whose(table.filter(mask), files))
            remarks.append(f"{kind} of {name}.{column.name} taken for missing: {_count(mask)}{where}")
            values = pc.if_else(mask, pa.scalar(None, values.type), values)
        if kinds:
            table = table.set_column(place, column.name, values)
    return table, remarks


def _odd(column: Column, values: pa.ChunkedArray) -> tuple[list[tuple[str, pa.ChunkedArray]], pa.ChunkedArray]:
    """Find impossible values, by kind; return masks, and the values in the lake's type."""
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        return [], values
    if not (column.type in ("FLOAT", "DOUBLE") or column.low is not None):
        return [], values
    if column.type == "FLOAT" and pa.types.is_float64(values.type):
        values = values.cast(pa.float32(), safe=False)  # values too large for the lake's type become infinite
    if is_within(values, column.low, column.high):
        return [], values
    low = -float("inf") if column.low is None else column.low
    high = float("inf") if column.high is None else column.high
    kinds = []
    infinite = pc.fill_null(pc.is_inf(values), False) if pa.types.is_floating(values.type) else None
    if infinite is not None and _count(infinite):
        kinds.append(("infinite values", infinite))
    outside = pc.or_(pc.less(values, pa.scalar(low, pa.float64())), pc.greater(values, pa.scalar(high, pa.float64())))
    outside = pc.fill_null(outside, False)
    if infinite is not None:
        outside = pc.and_not(outside, infinite)
    if _count(outside):
        is_negative = column.low == 0 and column.high is None
        kinds.append(("negative values" if is_negative else "impossible values", outside))
    return kinds, values


def _complete_rows(name: str, table: pa.Table, files: Callable[[], Mapping[str, str]]) -> tuple[pa.Table, list[str]]:
    """Drop rows that lack a needed value."""
    remarks = []
    for column, what in _NEEDED.get(name, ()):
        if column not in table.column_names:
            continue
        values = _plain(table, column)
        missing = pc.fill_null(pc.is_nan(values), True) if pa.types.is_floating(values.type) else pc.is_null(values)
        if column == "source_id":
            missing = pc.or_(missing, pc.equal(pc.fill_null(values, ""), ""))
        if n := _count(missing):
            # A match without an id is counted with its source, and a position with one coordinate once.
            if name != "matches":
                where = named(_whose(table.filter(missing), files))
                remarks.append(f"{_ROWS[name]} without {_article(what)}, left out: {n}{where}")
            table = table.filter(pc.invert(missing))
    return table, remarks


def _article(what: str) -> str:
    return f"an {what}" if what == "id" else f"a {what}"


def _detected(rows: pa.Table) -> pa.Table:
    """Set detected and good to false where the flux is missing, if there are fluxes at all."""
    if "flux" not in rows.column_names or not {"detected", "good"} <= set(rows.column_names) or not rows.num_rows:
        return rows
    measured = pc.fill_null(pc.invert(pc.is_nan(rows["flux"].cast(pa.float64()))), False)
    if pc.all(measured).as_py():
        return rows
    for name in ("detected", "good"):
        rows = rows.set_column(rows.column_names.index(name), name, pc.and_(rows[name], measured))
    return rows


def _whose(rows: pa.Table, files: Callable[[], Mapping[str, str]]) -> Sequence[str | None]:
    """Return the sources of rows, with their files where known."""
    rows = rows.slice(0, 10_000)
    if "source_id" not in rows.column_names:
        return _ids(rows, "exposure_id")
    ids = _ids(rows)
    if "exposure_id" not in rows.column_names:
        return ids
    exposures = _ids(rows, "exposure_id")
    bands = _ids(rows, "band") if "band" in rows.column_names else [None] * len(ids)
    known = files()
    found = [
        known.get(f"{exposure}\n{band}", known.get(exposure or "", ""))
        for exposure, band in zip(exposures, bands, strict=True)
    ]
    return [f"{one} in {file}" if one and file else one for one, file in zip(ids, found, strict=True)]


def _files(exposures: pa.Table | None) -> dict[str, str]:
    """Return the file of each exposure, or of each band of it, from the exposures' details."""
    files: dict[str, str] = {}
    if exposures is None or not {"exposure_id", "details"} <= set(exposures.column_names):
        return files
    for exposure, text in zip(_ids(exposures, "exposure_id"), _ids(exposures, "details"), strict=True):
        details = json.loads(text) if text else {}
        file, many = details.get("file"), details.get("files")
        if isinstance(file, str):
            files[str(exposure)] = file
        if isinstance(many, dict):
            files |= {f"{exposure}\n{band}": str(one) for band, one in many.items()}
    return files


def _ids(table: pa.Table, name: str = "source_id") -> list[str | None]:
    return list(table[name].to_pylist())


def _plain(table: pa.Table, name: str) -> pa.ChunkedArray:
    return decoded(table.select([name]), (name,))[name].combine_chunks()


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)
