"""Find light curves in a lake: of one target or many, in one cone on the sky or many, by the same few queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from lake.errors import CatalogError, ConfigurationError
from lake.model.table import quoted
from lake.names import (
    check_archive,
    check_band,
    current_archive,
    is_one_target,
    listed_targets,
    position_of,
    target_id_of,
    target_ids_of,
)
from lake.science.sky import cone_ranges
from lake.store.listing import LISTED, TableFiles

if TYPE_CHECKING:
    from lake.query import Lake

# The page that helps with errors from here.
HELP_TOPIC = "how-to/python"

# A name, or several; None: all.
Names = str | Sequence[str] | None

# For more sources than this a join is as fast as a list, which only serves to skip files.
_LONGEST_LIST = 2000

_SQL_TYPES = {"string": "VARCHAR", "int64": "BIGINT", "int32": "INTEGER", "double": "DOUBLE"}

_KEYS = ("archive", "release", "hpx29", "source_id")

# What goes before the columns of a measurement, if there are several targets or cones.
_FIRST = ("number", "centre", "target_id", "name")


def of_targets(
    lake: Lake, target: Any, archive: Names, band: Names, good: bool, radius_arcsec: float, *, named: bool = False
) -> pa.Table:
    """Return the measurements of one target, or of several in their order.

    Parameters
    ----------
    named
        Tell id and name of one target, too: those of several are told in any case.

    Raises
    ------
    ConfigurationError
        If a target, an archive or a band is unknown.
    """
    archives, bands = names_of(archive), names_of(band)
    one = is_one_target(target)
    known = one and isinstance(target, int)
    ids = [int(target)] if known else _ids(lake, target, radius_arcsec)

    def measured(rows: _Rows) -> pa.Table:
        sources = _matches(rows, ids, archives)
        if named or not one:
            sources = _with_names(rows, ids, sources)
        return _measurements(rows, _shown(lake, sources), bands, good)

    found = _answer(lake, measured)
    if known and not found.num_rows:
        _ids(lake, target, radius_arcsec)  # raises if there is no such target
    if (renamed := _renamed(lake, found, archives)) != archives:
        again: Any = ids[0] if one else ids
        return of_targets(lake, again, renamed, bands, good, radius_arcsec, named=named)
    _check_names(lake, found, archives, bands)
    return found


def of_cones(
    lake: Lake, ra: Any, dec: Any, radius_arcsec: float | None, archive: Names, band: Names, good: bool
) -> pa.Table:
    """Return the measurements of all sources in a cone, or in several with the number of each, from 0.

    Parameters
    ----------
    ra, dec
        Centre, or centres, in ICRS degrees. Without dec, ra is a target or a list of them.

    Raises
    ------
    ConfigurationError
        If a target, an archive or a band is unknown, or there is no radius.
    """
    if radius_arcsec is None:
        raise ConfigurationError("a cone needs a radius", hint="give radius_arcsec")
    archives, bands = names_of(archive), names_of(band)
    centres, one = _centres(lake, ra, dec)

    def measured(rows: _Rows) -> pa.Table:
        sources = (
            _in_cone(rows, *centres[0], radius_arcsec, archives)
            if one
            else _in_cones(rows, centres, radius_arcsec, archives)
        )
        return _measurements(rows, _shown(lake, sources), bands, good)

    found = _answer(lake, measured)
    if (renamed := _renamed(lake, found, archives)) != archives:
        return of_cones(lake, ra, dec, radius_arcsec, renamed, bands, good)
    _check_names(lake, found, archives, bands)
    return found


def names_of(given: Names) -> list[str] | None:
    """Return names as a list; None if all are meant."""
    if given is None:
        return None
    return [given] if isinstance(given, str) else list(dict.fromkeys(given))


@dataclass(frozen=True)
class _Rows:
    """Where rows come from: files that are known to hold them, or DuckLake."""

    lake: Lake
    cursor: duckdb.DuckDBPyConnection
    files: Mapping[str, TableFiles]

    def of(self, table: str, first: ArrayLike, last: ArrayLike | None = None) -> str:
        """Return the SQL of a table that has all rows whose key is one of some, or in one of some sorted ranges."""
        if table not in self.files:
            return table
        first = np.sort(np.asarray(first, np.int64)) if last is None else first
        return self.files[table].rows(first, first if last is None else last)

    def ask(self, query: str, **tables: pa.Table) -> pa.Table:
        """Run SQL."""
        return self.lake.run(query, None, within=self.cursor, **tables)


def files_of(lake: Lake) -> tuple[duckdb.DuckDBPyConnection, dict[str, TableFiles]]:
    """Return the tables whose files can be read directly, and the cursor for it; none if that cannot be found out."""
    cursor = lake.catalog.cursor_outside()
    try:
        return cursor, lake.listing.newest(cursor)
    except duckdb.Error:  # DuckLake says what is wrong
        return cursor, {}


def _answer(lake: Lake, work: Callable[[_Rows], pa.Table]) -> pa.Table:
    """Do a piece of work with the files of a lake, or else by DuckLake."""
    cursor, files = files_of(lake)
    if len(files) == len(LISTED):
        with suppress(CatalogError):  # a file went away meanwhile, or is damaged, which the second reading says
            return work(_Rows(lake, cursor, files))
    with lake.snapshot() as within:
        return work(_Rows(lake, within, {}))


def _ids(lake: Lake, target: Any, radius_arcsec: float) -> list[int]:
    """Return the ids of a target or of several."""
    # One name may be asked for again and again, such as once for each archive.
    known = lake.listing.ids_by_name(files_of(lake)[1]) if isinstance(target, str) else {}
    if isinstance(target, str) and target in known:
        return [known[target]]
    with lake.snapshot() as cursor:
        ask = partial(lake.run, within=cursor)
        if not is_one_target(target):
            return target_ids_of(listed_targets(target), radius_arcsec, ask)
        found = target_id_of(target, radius_arcsec, ask)
    if isinstance(target, str):
        known[target] = found
    return [found]


def _matches(rows: _Rows, ids: Sequence[int], archives: list[str] | None) -> pa.Table:
    # The ids as literals: DuckLake skips files for them.
    listed_ids = ", ".join(map(str, ids)) or "NULL"
    number = f"list_position([{listed_ids}], target_id)::BIGINT AS number, target_id, " if len(ids) != 1 else ""
    return rows.ask(
        f"SELECT {number}archive, release, source_id, hpx29, rank, separation_arcsec FROM {rows.of('matches', ids)} "
        f"WHERE target_id IN ({listed_ids}){_of_archives(archives)}"
    )


def _with_names(rows: _Rows, ids: Sequence[int], sources: pa.Table) -> pa.Table:
    """Add the targets' ids and names, and the number of each in the list."""
    n = sources.num_rows
    if "target_id" not in sources.column_names:
        numbers = pa.array(np.ones(n, np.int64))
        sources = sources.append_column("number", numbers)
        sources = sources.append_column("target_id", pa.array([ids[0]] * n, pa.int64()))
    names = rows.ask(
        f"SELECT target_id, name FROM {rows.of('targets', ids)} "
        f"WHERE target_id IN ({', '.join(map(str, ids)) or 'NULL'})"
    )
    called = dict(zip(names["target_id"].to_pylist(), names["name"].to_pylist(), strict=True))
    return sources.append_column(
        "name", pa.array([called[one] for one in sources["target_id"].to_pylist()], pa.string())
    )


def _centres(lake: Lake, ra: Any, dec: Any) -> tuple[list[tuple[float, float]], bool]:
    """Return the centres of cones, and whether one was asked for."""
    if dec is not None:
        one = np.ndim(ra) == 0 and np.ndim(dec) == 0
        pairs = np.broadcast_arrays(np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float)))
        return list(zip(*(axis.tolist() for axis in pairs), strict=True)), one
    one = is_one_target(ra)
    targets = [ra] if one else listed_targets(ra)
    places = [position_of(target) for target in targets]
    if unplaced := [target for target, place in zip(targets, places, strict=True) if place is None]:
        with lake.snapshot() as cursor:
            # By its own id each: one that is named twice is two cones.
            ask = partial(lake.run, within=cursor)
            ids = [target_ids_of([target], 0.0, ask)[0] for target in unplaced]
            rows = ask(f"SELECT target_id, ra, dec FROM targets WHERE target_id IN ({', '.join(map(str, ids))})", None)
        where = {row["target_id"]: (row["ra"], row["dec"]) for row in rows.to_pylist()}
        left = iter([where[one_id] for one_id in ids])
        places = [next(left) if place is None else place for place in places]
    return [place for place in places if place is not None], one


def _in_cone(rows: _Rows, ra: float, dec: float, radius_arcsec: float, archives: list[str] | None) -> pa.Table:
    # One SELECT for each range: DuckLake skips files for a BETWEEN, not for several joined by OR.
    parts = " UNION ALL ".join(
        f"SELECT * FROM {rows.of('sources', [low], [high])} WHERE hpx29 BETWEEN {low} AND {high}"
        for low, high in cone_ranges(ra, dec, radius_arcsec, max_ranges=2)
    )
    distance = f"separation_arcsec({_number(ra)}, {_number(dec)}, ra, dec)"
    return rows.ask(
        f"SELECT archive, release, source_id, hpx29, ra, dec, {distance} AS separation_arcsec "
        f"FROM ({parts}) WHERE {distance} <= {_number(radius_arcsec)}{_of_archives(archives)}"
    )


def _in_cones(
    rows: _Rows, centres: Sequence[tuple[float, float]], radius_arcsec: float, archives: list[str] | None
) -> pa.Table:
    ranges = [
        (number, ra, dec, low, high)
        for number, (ra, dec) in enumerate(centres)
        for low, high in cone_ranges(ra, dec, radius_arcsec, max_ranges=2)
    ]
    columns = list(zip(*ranges, strict=True)) or [()] * 5
    first, last = min(columns[3], default=0), max(columns[4], default=0)
    near = rows.of("sources", *_apart(columns[3], columns[4]))
    kinds = ("BIGINT", "DOUBLE", "DOUBLE", "BIGINT", "BIGINT")
    lists = ", ".join(
        f"unnest({_list(values, kind)}) AS {name}"
        for name, values, kind in zip(("centre", "ra", "dec", "low", "high"), columns, kinds, strict=True)
    )
    return rows.ask(
        "SELECT centre, archive, release, source_id, hpx29, sources.ra, sources.dec, "
        "separation_arcsec(cones.ra, cones.dec, sources.ra, sources.dec) AS separation_arcsec "
        f"FROM (SELECT {lists}) AS cones "
        f"JOIN (FROM {near} WHERE hpx29 BETWEEN {first} AND {last}) AS sources ON hpx29 BETWEEN low AND high "
        "WHERE separation_arcsec(cones.ra, cones.dec, sources.ra, sources.dec) "
        f"<= {_number(radius_arcsec)}{_of_archives(archives)}"
    )


def _apart(low: Sequence[int], high: Sequence[int]) -> tuple[list[int], list[int]]:
    """Sort ranges, and join those that overlap."""
    first: list[int] = []
    last: list[int] = []
    for one, other in sorted(zip(low, high, strict=True)):
        if last and one <= last[-1]:
            last[-1] = max(last[-1], other)
        else:
            first.append(one)
            last.append(other)
    return first, last


# Values are written into the SQL: for parameters DuckDB imports pandas, which takes longer than the query.


def _number(value: float) -> str:
    """Return a number as SQL, to the last bit: DuckDB takes 0.1 for a decimal."""
    return f"'{float(value)!r}'::DOUBLE"


def _list(values: Iterable[Any], kind: str) -> str:
    """Return a list in SQL, of a type in SQL."""
    written = [
        "NULL" if value is None else quoted(value if isinstance(value, str) else repr(value)) for value in values
    ]
    return f"[{', '.join(written)}]::{kind}[]"


def _one_of(column: str, names: Iterable[str]) -> str:
    """Return the condition that a column has one of some names; no name in a lake has a NUL."""
    known = ", ".join(quoted(name) for name in names if "\0" not in name)
    return f"{column} IN ({known or 'NULL'})"


def _of_archives(archives: list[str] | None) -> str:
    """Return a condition of SQL, to follow others."""
    return "" if archives is None else f" AND {_one_of('archive', archives)}"


def _shown(lake: Lake, sources: pa.Table) -> pa.Table:
    """Keep only sources of the release that table archives names."""
    releases = set(zip(sources["archive"].to_pylist(), sources["release"].to_pylist(), strict=True))
    if len({archive for archive, _ in releases}) == len(releases):
        return sources  # the usual case, without a query of a third table
    current = lake.run("SELECT archive, release FROM archives", None)
    return sources.join(current, ["archive", "release"], join_type="left semi")


def _measurements(rows: _Rows, sources: pa.Table, bands: list[str] | None, good: bool) -> pa.Table:
    extra = [name for name in sources.column_names if name not in _KEYS]
    first = [f"wanted.{name}, " for name in _FIRST[1:] if name in extra]
    last = ", ".join(f"wanted.{name}" for name in extra if name not in _FIRST)
    places = pc.unique(sources["hpx29"]).to_pylist()
    tables, wanted, near = {"wanted": sources}, "wanted", rows.of("lightcurves", places)
    if is_short := sources.num_rows <= _LONGEST_LIST:
        # For each column in a condition, and each registered table, DuckLake searches the statistics of its files
        # again, and for a table DuckDB imports pandas. So rows are found by hpx29 only, and then joined.
        near = f"(SELECT * FROM {near} WHERE hpx29 IN ({', '.join(map(str, places)) or 'NULL'}))"
        columns = ", ".join(
            f"unnest({_list(sources[name].to_pylist(), _SQL_TYPES[str(sources[name].type)])}) AS {name}"
            for name in sources.column_names
        )
        tables, wanted = {}, f"(SELECT {columns})"
    where = [*([] if bands is None else [_one_of("band", bands)]), *(["good"] if good else [])]
    order = [name for name in _FIRST[:2] if name in extra]
    return rows.ask(
        f"WITH near AS {'' if is_short else 'NOT '}MATERIALIZED (FROM {near}), wanted AS (FROM {wanted}) "
        f"SELECT {''.join(first)}near.*, {last} FROM near JOIN wanted USING ({', '.join(_KEYS)}) "
        f"WHERE {' AND '.join(where) or 'true'} "
        f"ORDER BY {', '.join([*order, 'archive', 'band', 'mjd', 'source_id', 'release'])}",
        **tables,
    )


def _values(found: pa.Table, column: str) -> set[str]:
    return set(pc.unique(found[column]).to_pylist())


def _renamed(lake: Lake, found: pa.Table, archives: list[str] | None) -> list[str] | None:
    """Translate former names of archives that nothing was found of."""
    if archives is None:
        return None
    held = _values(found, "archive")
    now = [name if name in held else current_archive(lake, name) or name for name in archives]
    return list(dict.fromkeys(now))


def _check_names(lake: Lake, found: pa.Table, archives: list[str] | None, bands: list[str] | None) -> None:
    """Check that archives and bands that nothing was found of are known."""
    for name in archives or ():
        if name not in _values(found, "archive"):
            check_archive(lake, name)
    for name in bands or ():
        if name not in _values(found, "band"):
            _check_band(lake, name, archives)


def _check_band(lake: Lake, band: str, archives: list[str] | None) -> None:
    """Check that one of some archives has a band."""
    of: list[str | None] = list(archives) if archives else [None]
    *others, last = of
    for archive in others:
        try:
            return check_band(lake, band, archive)
        except ConfigurationError:
            continue
    check_band(lake, band, last)
    return None
