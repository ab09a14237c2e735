"""Find light curves in a lake: of one target or many, in one cone on the sky or many, by the same few queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import CatalogError, ConfigurationError
from lake.matched import with_sources
from lake.model.schema import TABLES
from lake.model.table import quoted
from lake.model.views import NAMES_OF_TARGETS
from lake.names import (
    check_archive,
    check_band,
    current_archive,
    is_one_target,
    listed_targets,
    position_of,
    target_id_of,
    target_ids_of,
    unknown,
)
from lake.science.sky import cone_ranges, separation_arcsec
from lake.store.arrays import distinct, expanded, from_numpy, numbered, texts, to_numpy
from lake.store.listing import LISTED, OF_NAMES, TableFiles
from lake.store.lookup import Ranges

if TYPE_CHECKING:
    from lake.query import Lake

# The page that helps with errors from here.
HELP_TOPIC = "how-to/python"

# A name, or several; None: all.
Names = str | Sequence[str] | None

# For more ranges than this, one condition with a list of them is faster than a query of each.
_FEW_RANGES = 8

_LIGHTCURVES = TABLES["lightcurves"]
_OF_A_MATCH = ("archive", "release", "source_id", "hpx29", "rank", "separation_arcsec")


def of_targets(
    lake: Lake,
    target: Any,
    archive: Names,
    band: Names,
    good: bool,
    radius_arcsec: float,
    columns: Names = None,
    *,
    named: bool = False,
) -> pa.Table:
    """Return the measurements of one target, or of several in their order.

    Parameters
    ----------
    columns
        Only these; None: all.
    named
        Tell id and name of one target, too: those of several are told in any case.

    Raises
    ------
    ConfigurationError
        If a target, an archive, a band or a column is unknown.
    """
    archives, bands = names_of(archive), names_of(band)
    one = is_one_target(target)
    wanted = _columns(columns, () if one and not named else ("target_id", "name"), ("rank", "separation_arcsec"))
    known = one and isinstance(target, int)
    ids = [int(target)] if known else _ids(lake, target, radius_arcsec)

    def measured(rows: _Rows) -> pa.Table:
        sources = _matches(rows, ids, archives)
        if named or not one:
            sources = _with_names(rows, ids, sources)
        return _measurements(rows, _shown(lake, sources), bands, good, wanted)

    found = _answer(lake, measured)
    if known and not found.num_rows:
        _ids(lake, target, radius_arcsec)  # raises if there is no such target
    if (renamed := _renamed(lake, found, archives)) != archives:
        again: Any = ids[0] if one else ids
        return of_targets(lake, again, renamed, bands, good, radius_arcsec, wanted, named=named)
    _check_names(lake, found, archives, bands)
    return found if wanted is None else found.select(wanted)


def of_cones(
    lake: Lake,
    ra: Any,
    dec: Any,
    radius_arcsec: float | None,
    archive: Names,
    band: Names,
    good: bool,
    columns: Names = None,
) -> pa.Table:
    """Return the measurements of all sources in a cone, or in several with the number of each, from 0.

    Parameters
    ----------
    ra, dec
        Centre, or centres, in ICRS degrees. Without dec, ra is a target or a list of them.
    columns
        Only these; None: all.

    Raises
    ------
    ConfigurationError
        If a target, an archive, a band or a column is unknown, or there is no radius.
    """
    if radius_arcsec is None:
        raise ConfigurationError("a cone needs a radius", hint="give radius_arcsec")
    archives, bands = names_of(archive), names_of(band)
    centres, one = _centres(lake, ra, dec)
    wanted = _columns(columns, () if one else ("centre",), ("ra", "dec", "separation_arcsec"))

    def measured(rows: _Rows) -> pa.Table:
        sources = _in_cones(rows, centres, radius_arcsec, archives)
        sources = sources.drop_columns(["centre"]) if one else sources
        return _measurements(rows, _shown(lake, sources), bands, good, wanted)

    found = _answer(lake, measured)
    if (renamed := _renamed(lake, found, archives)) != archives:
        return of_cones(lake, ra, dec, radius_arcsec, renamed, bands, good, wanted)
    _check_names(lake, found, archives, bands)
    return found if wanted is None else found.select(wanted)


def _columns(given: Names, first: Sequence[str], last: Sequence[str]) -> list[str] | None:
    """Return the columns that are wanted; None: all, those of lightcurves and others."""
    wanted = names_of(given)
    known = [*first, *_LIGHTCURVES.names, *last]
    for name in wanted or ():
        if name not in known:
            raise unknown("column", name, known, "of these light curves")
    return wanted


def names_of(given: Names) -> list[str] | None:
    """Return names as a list; None if all are meant."""
    if given is None:
        return None
    return [given] if isinstance(given, str) else list(dict.fromkeys(given))


class _GoneAway(Exception):
    """A file is gone, since its rows are in another one now, or cannot be read."""


@dataclass(frozen=True)
class _Rows:
    """Where rows come from: files that are known to hold them, or DuckLake."""

    lake: Lake
    cursor: duckdb.DuckDBPyConnection
    files: Mapping[str, TableFiles]

    def of(self, table: str, ranges: Ranges, names: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a table whose key is in some ranges; some columns, or all. Text may be in dictionaries."""
        files = self.files.get(table)
        if files is not None and self.lake.storage.is_local:
            try:
                return files.read(self.lake.listing.footers, ranges, names)
            except FileNotFoundError as error:
                raise _GoneAway from error
        query = _query(table if files is None else files.rows(ranges), LISTED[table], ranges, names)
        try:
            return self.lake.run(query, None, within=self.cursor)
        except CatalogError as error:
            if files is None:
                raise
            raise _GoneAway from error  # or it is damaged, which the second reading says


def _query(source: str, key: str, ranges: Ranges, names: Sequence[str] | None) -> str:
    """Return the SQL of all rows of a source whose key is in some ranges, each once."""
    # Literals: DuckLake skips files for these, but not for several conditions joined by OR; and for parameters, as for
    # a registered table, DuckDB imports pandas, which takes longer than a query.
    first, last = ranges.first.tolist(), ranges.last.tolist()
    rows = f"SELECT {', '.join(f'held.{name}' for name in names or '*')} FROM {source} AS held"
    if first == last:
        return f"{rows} WHERE {key} IN ({', '.join(map(str, first)) or 'NULL'})"
    if len(first) <= _FEW_RANGES:
        return " UNION ALL ".join(
            f"{rows} WHERE {key} BETWEEN {low} AND {high}" for low, high in zip(first, last, strict=True)
        )
    wanted = f"(SELECT unnest({first}) AS low, unnest({last}) AS high)"
    return f"{rows} JOIN {wanted} ON {key} BETWEEN low AND high WHERE {key} BETWEEN {first[0]} AND {last[-1]}"


def files_of(lake: Lake) -> tuple[duckdb.DuckDBPyConnection, dict[str, TableFiles]]:
    """Return the tables whose files can be read directly, and the cursor for it; none if that cannot be found out."""
    cursor = lake.catalog.cursor_outside()
    try:
        return cursor, lake.listing.newest(cursor)
    except duckdb.Error:  # DuckLake says what is wrong
        return cursor, {}


def _answer(lake: Lake, work: Callable[[_Rows], pa.Table]) -> pa.Table:
    """Do a piece of work with the files of a lake, or else by DuckLake."""
    # A confined lake has a time limit, which DuckDB keeps.
    cursor, files = files_of(lake)
    if LISTED.keys() <= files.keys() and not (lake.confined and lake.storage.is_local):
        with suppress(_GoneAway):
            return work(_Rows(lake, cursor, files))
    with lake.snapshot() as within:
        return work(_Rows(lake, within, {}))


def _ids(lake: Lake, target: Any, radius_arcsec: float) -> list[int]:
    """Return the ids of a target or of several."""
    targets = [] if is_one_target(target) else listed_targets(target)
    if targets and all(isinstance(one, int | np.integer) for one in targets):
        ids = dict.fromkeys(map(int, targets))
        held = _answer(lake, lambda rows: rows.of("targets", Ranges.of_keys(list(ids)), ("target_id",)))
        if held.num_rows == len(ids):
            return list(ids)
    if isinstance(target, str):
        return [_id_by_name(lake, target, radius_arcsec)]
    with lake.snapshot() as cursor:
        ask = partial(lake.run, within=cursor)
        if not is_one_target(target):
            return target_ids_of(targets, radius_arcsec, ask)
        return [target_id_of(target, radius_arcsec, ask)]


def _id_by_name(lake: Lake, name: str, radius_arcsec: float) -> int:
    """Return the id of a target, which may be asked for again and again, such as once for each archive."""
    cursor, files = files_of(lake)
    known = lake.listing.ids_by_name(files)
    if name in known:
        return known[name]
    if files.keys() >= set(OF_NAMES):
        tables = [f"{table} AS (FROM {files[table].all_rows()})" for table in OF_NAMES]
        here = f"WITH {', '.join(tables)}, target_names AS ({NAMES_OF_TARGETS})"

        def ask(query: str, parameters: list[str]) -> pa.Table:
            for value in parameters:  # all of them are the name; for parameters DuckDB imports pandas
                query = query.replace("?", quoted(value))
            return lake.run(f"{here} {query}", None, within=cursor)

        with suppress(CatalogError):  # as in _answer
            known[name] = target_id_of(name, radius_arcsec, ask)
            return known[name]
    with lake.snapshot() as within:
        known[name] = target_id_of(name, radius_arcsec, partial(lake.run, within=within))
    return known[name]


def _matches(rows: _Rows, ids: Sequence[int], archives: list[str] | None) -> pa.Table:
    found = rows.of("matches", Ranges.of_keys(ids), ("target_id", *_OF_A_MATCH))
    found = _only(found, "archive", archives)
    if len(ids) == 1:
        return found.drop_columns(["target_id"])
    number = pc.index_in(found["target_id"], from_numpy(np.array(ids, np.int64))).cast(pa.int64())
    return found.add_column(0, "number", number)


def _with_names(rows: _Rows, ids: Sequence[int], sources: pa.Table) -> pa.Table:
    """Add the targets' ids and names, and the number of each in the list."""
    n = sources.num_rows
    if "target_id" not in sources.column_names:
        sources = sources.append_column("number", from_numpy(np.zeros(n, np.int64)))
        sources = sources.append_column("target_id", from_numpy(np.full(n, ids[0], np.int64)))
    known = rows.of("targets", Ranges.of_keys(ids), ("target_id", "name"))
    names = known["name"].cast(pa.string()).combine_chunks()
    return sources.append_column("name", names.take(pc.index_in(sources["target_id"], known["target_id"])))


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


def _in_cones(
    rows: _Rows, centres: Sequence[tuple[float, float]], radius_arcsec: float, archives: list[str] | None
) -> pa.Table:
    """Return the sources within a radius of each centre, with its number."""
    ranges = [
        (number, low, high)
        for number, (ra, dec) in enumerate(centres)
        for low, high in cone_ranges(ra, dec, radius_arcsec, max_ranges=2)
    ]
    numbers, low, high = np.array(ranges, np.int64).reshape(-1, 3).T
    wanted = Ranges.joined(low.tolist(), high.tolist())
    near = rows.of("sources", wanted, ("archive", "release", "source_id", "hpx29", "ra", "dec"))
    near = _only(near, "archive", archives)
    near = near.take(pc.sort_indices(near["hpx29"]))
    # The ranges of a cone are apart, so a source comes once for each cone.
    keys = to_numpy(near["hpx29"])
    places, of_range = expanded(np.searchsorted(keys, low, "left"), np.searchsorted(keys, high, "right"))
    near, number = near.take(from_numpy(places)), numbers[of_range]
    centre_ra, centre_dec = np.array(centres, float).reshape(-1, 2)[number].T
    distance = separation_arcsec(centre_ra, centre_dec, to_numpy(near["ra"]), to_numpy(near["dec"]))
    near = near.add_column(0, "centre", from_numpy(number)).append_column("separation_arcsec", from_numpy(distance))
    return near.take(from_numpy(np.flatnonzero(distance <= radius_arcsec)))


def _only(rows: pa.Table, column: str, names: Sequence[str] | None) -> pa.Table:
    """Return the rows that have one of some names in a column; all if names is None."""
    return rows if names is None else rows.filter(pc.is_in(rows[column], texts(names)))


def _shown(lake: Lake, sources: pa.Table) -> pa.Table:
    """Keep only sources of the release that table archives names."""
    (archive, _), (release, releases) = numbered(sources["archive"]), numbered(sources["release"])
    if len(distinct(archive * len(releases) + release)) == len(distinct(archive)):
        return sources  # the usual case, without a query of a third table
    current = lake.run("SELECT archive, release FROM archives", None)
    return sources.join(current, ["archive", "release"], join_type="left semi")


def _measurements(
    rows: _Rows, sources: pa.Table, bands: list[str] | None, good: bool, wanted: list[str] | None
) -> pa.Table:
    """Return the measurements of sources, in order; those of one that is there twice come twice."""
    names = None
    if wanted is not None:
        # What they are found and put in order by.
        needed = {"archive", "release", "source_id", "hpx29", "band", "mjd", *(["good"] if good else []), *wanted}
        names = [name for name in _LIGHTCURVES.names if name in needed]
    near = _only(rows.of("lightcurves", Ranges.of_keys(to_numpy(sources["hpx29"])), names), "band", bands)
    if good:
        near = near.filter(near["good"])
    return with_sources(near, sources, None if wanted is None else {"archive", "band", *wanted})


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
