"""Query a lake: SQL, the light curve of a target, everything in a cone, targets and coverage."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import ConfigurationError
from lake.export.forms import Form, convert
from lake.names import check_archive, check_band, check_sample, current_archive, target_id_of
from lake.science.sky import cone_ranges
from lake.settings import Settings, load_settings
from lake.store.attaching import attach_snippet
from lake.store.catalog import Catalog
from lake.store.confined import Guard, time_limit
from lake.store.connection import ended_by_signals, rollback
from lake.store.failures import query_failure
from lake.store.lock import until_back
from lake.store.reading import check_reads_only
from lake.store.storage import Storage

# For more sources than this a join is as fast as a list, which only serves to skip files.
_LONGEST_LIST = 2000

# A query is repeated for so long if its connection to the catalogue is lost.
_AWAY_FOR_S = 10.0

_SQL_TYPES = {"string": "VARCHAR", "int64": "BIGINT", "int32": "INTEGER", "double": "DOUBLE"}


class Lake:
    """A lake, open for queries.

    Parameters
    ----------
    url
        Folder or S3 prefix of the lake; None: LIGHTLAKE_URL.
    settings
        Settings; None: those of the environment.
    confined
        For SQL of untrusted users: one SELECT at a time over this lake only, no other files, no network, configuration
        locked, memory (LIGHTLAKE_DUCKDB_MEMORY, else 1GB) and time (LIGHTLAKE_QUERY_TIMEOUT_S) limited.
    writable
        Allow commits. Otherwise the lake is attached for reading only.

    Raises
    ------
    CatalogError, ConfigurationError
        If there is no lake, or it cannot be read.
    ReadOnly
        If `writable`, and this user has no permission to write the lake.

    Examples
    --------
    >>> import lake
    >>> with lake.open("my-lake") as opened:
    ...     opened.sql("SELECT count(*) AS n FROM targets")["n"].to_pylist()
    [2]
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | None = None,
        settings: Settings | None = None,
        *,
        confined: bool = False,
        writable: bool = False,
    ) -> None:
        if confined and writable:
            raise ConfigurationError("a confined lake is for reading only", hint="open it without confined to write")
        settings = settings or load_settings()
        self.settings = settings
        self.storage = Storage.from_url(url if url is not None else settings.url)
        self.catalog = Catalog(self.storage, settings, read_only=not writable, confined=confined)
        self.catalog.open()
        self._guard = Guard(self.catalog.cursor()) if confined else None
        self._own = threading.local()  # a cursor for each thread: a new one costs a millisecond

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the lake."""
        self.catalog.close()

    def __repr__(self) -> str:
        return f"Lake({str(self.storage.root)!r})"

    def sql(self, query: str, parameters: Sequence[Any] | dict[str, Any] | None = None, *, form: Form = "arrow") -> Any:
        """Run SQL in the lake.

        Parameters
        ----------
        query
            DuckDB's SQL; ``?`` or ``$name`` stand for parameters.
        parameters
            Their values.
        form
            arrow, pandas or astropy.

        Raises
        ------
        ConfigurationError
            If the SQL is wrong, or not allowed in a confined lake.
        ReadOnly
            If it would write.

        Examples
        --------
        >>> with lake.open("my-lake") as opened:
        ...     opened.sql("SELECT name FROM targets WHERE dec < ?", [-29.95], form="pandas")["name"].tolist()
        ['A']
        """
        self.check_sql(query)
        return self.run(query, parameters, form)

    def check_sql(self, query: str) -> None:
        """Refuse SQL that would write, or that a confined lake does not allow.

        Raises
        ------
        ReadOnly, ConfigurationError
            If it is refused.
        """
        if self.catalog.read_only:
            check_reads_only(query, self.storage.root)
        if self._guard is not None:
            with closing(self.catalog.cursor()) as cursor, self._limited(cursor):
                self._guard.check(cursor, query)

    def _limited(self, cursor: duckdb.DuckDBPyConnection) -> AbstractContextManager[None]:
        return time_limit(cursor, self.settings.query_timeout_s) if self._guard else nullcontext()

    def run(
        self,
        query: str,
        parameters: Sequence[Any] | dict[str, Any] | None,
        form: Form = "arrow",
        within: duckdb.DuckDBPyConnection | None = None,
        **tables: pa.Table,
    ) -> Any:
        """Run SQL as `sql` does, without its checks.

        Parameters
        ----------
        within
            A cursor of `snapshot`.
        **tables
            Tables that the SQL may use, by name.
        """
        if within is not None:
            return self._ask(within, query, parameters, form, tables)

        def once() -> Any:
            with closing(self.catalog.cursor()) as cursor:
                return self._ask(cursor, query, parameters, form, tables)

        return until_back(once, _AWAY_FOR_S, self.catalog.renew)

    def _ask(
        self,
        cursor: duckdb.DuckDBPyConnection,
        query: str,
        parameters: Sequence[Any] | dict[str, Any] | None,
        form: Form,
        tables: dict[str, pa.Table],
    ) -> Any:
        try:
            for name, table in tables.items():
                cursor.register(name, table)
            with ended_by_signals(cursor), self._limited(cursor):
                found = cursor.execute(query, parameters).to_arrow_table()
            return convert(found, form)
        except duckdb.Error as error:
            if self.catalog.read_only and "read-only" in str(error):
                raise self.catalog.unwritable(error) from None
            raise query_failure(error, self.catalog.location, self.storage) from error

    @contextmanager
    def snapshot(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a transaction: all queries with its cursor see one state of the lake, and read the catalogue once."""
        cursor: duckdb.DuckDBPyConnection | None = getattr(self._own, "cursor", None)
        if cursor is None:
            cursor = self._own.cursor = self.catalog.cursor()
        self.run("BEGIN", None, within=cursor)
        try:
            yield cursor
        finally:
            rollback(cursor)

    def targets(self, sample: str | None = None, *, form: Form = "arrow") -> Any:
        """Return all targets, or those of a sample, with their labels and other names.

        Raises
        ------
        ConfigurationError
            If the lake has no such sample.

        Examples
        --------
        >>> with lake.open("my-lake") as opened:
        ...     opened.targets("quasars")["labels"].to_pylist()
        [['QSO'], ['QSO']]
        """
        found = self.sql(
            """
            SELECT targets.*, list(DISTINCT labels.label) AS labels, list(DISTINCT labels.sample) AS samples,
                coalesce(list(DISTINCT labels.name ORDER BY labels.name)
                    FILTER (labels.name <> coalesce(targets.name, '')), []) AS other_names
            FROM targets LEFT JOIN labels USING (target_id)
            GROUP BY ALL
            HAVING $sample IS NULL OR list_contains(samples, $sample)
            ORDER BY ra
            """,
            {"sample": sample},
            form=form,
        )
        return self._or_unknown(found, sample=sample)

    def coverage(self, archive: str | None = None, sample: str | None = None, *, form: Form = "arrow") -> Any:
        """Return the coverage: which targets each archive was asked for, with the result.

        Raises
        ------
        ConfigurationError
            If there is no such archive or sample.

        Examples
        --------
        >>> with lake.open("my-lake") as opened:
        ...     opened.coverage("ztf")["status"].to_pylist()
        ['found', 'found']
        """
        found = self.sql(
            """
            SELECT targets.name, coverage.*
            FROM coverage JOIN targets USING (target_id)
            WHERE ($archive IS NULL OR archive = $archive)
                AND ($sample IS NULL OR target_id IN (SELECT target_id FROM labels WHERE sample = $sample))
            ORDER BY archive, target_id
            """,
            {"archive": archive, "sample": sample},
            form=form,
        )
        if not len(found) and (renamed := current_archive(self, archive)) != archive:
            return self.coverage(renamed, sample, form=form)
        return self._or_unknown(found, archive=archive, sample=sample)

    def _or_unknown(
        self, found: Any, *, archive: str | None = None, band: str | None = None, sample: str | None = None
    ) -> Any:
        """Return what was found; if that is empty, check that all names are known."""
        if not len(found):
            check_sample(self, sample)
            check_archive(self, archive)
            check_band(self, band, archive)
        return found

    def light_curve(
        self,
        target: Any,
        *,
        archive: str | None = None,
        band: str | None = None,
        good: bool = False,
        radius_arcsec: float = 1.0,
        form: Form = "arrow",
    ) -> Any:
        """Return all measurements of a target, from all archives and bands.

        Parameters
        ----------
        target
            Any of its names, target_id, or an astropy SkyCoord within radius_arcsec of a target.
        archive, band
            Only measurements of these.
        good
            Only measurements that pass the archive's own recommended cut.
        form
            arrow, pandas or astropy.

        Returns
        -------
        Table
            Columns of lightcurves, with rank and separation_arcsec of the match, sorted by archive, band, mjd.

        Raises
        ------
        ConfigurationError
            If there is no such target, archive or band.

        Examples
        --------
        >>> with lake.open("my-lake") as opened:
        ...     curve = opened.light_curve("A", band="g", form="astropy")
        >>> len(curve), str(curve["mjd"].unit), str(curve["unit"][0])
        (3, 'd', 'mJy')
        """
        with self.snapshot() as cursor:
            known = isinstance(target, int)
            target_id = target if known else self._target_id(target, radius_arcsec, cursor)
            sources = self.run(
                "SELECT archive, release, source_id, hpx29, rank, separation_arcsec FROM matches "
                f"WHERE target_id = {target_id}" + (" AND archive = ?" if archive is not None else ""),
                [archive] if archive is not None else [],
                within=cursor,
            )
            if known and not sources.num_rows:
                self._target_id(target, radius_arcsec, cursor)  # raises if there is no such target
            found = self._measurements(cursor, self._shown(cursor, sources), band, good, form)
        if not len(found) and (renamed := current_archive(self, archive)) != archive:
            return self.light_curve(
                target_id, archive=renamed, band=band, good=good, radius_arcsec=radius_arcsec, form=form
            )
        return self._or_unknown(found, archive=archive, band=band)

    def cone(
        self,
        ra: float,
        dec: float,
        radius_arcsec: float,
        *,
        archive: str | None = None,
        band: str | None = None,
        good: bool = False,
        form: Form = "arrow",
    ) -> Any:
        """Return all measurements of all sources in a cone on the sky.

        Parameters
        ----------
        ra, dec
            Centre, ICRS degrees.
        radius_arcsec
            Radius.
        archive, band, good, form
            As in light_curve.

        Raises
        ------
        ConfigurationError
            If there is no such archive or band.

        Examples
        --------
        >>> with lake.open("my-lake") as opened:
        ...     opened.cone(10.0, -30.0, radius_arcsec=5, band="g", good=True)["source_id"].to_pylist()
        ['s0', 's0']
        """
        # One SELECT for each range: DuckLake skips files for a BETWEEN, not for several joined by OR.
        parts = " UNION ALL ".join(
            f"SELECT * FROM sources WHERE hpx29 BETWEEN {low} AND {high}"
            for low, high in cone_ranges(ra, dec, radius_arcsec, max_ranges=2)
        )
        with self.snapshot() as cursor:
            sources = self.run(
                "SELECT archive, release, source_id, hpx29, ra, dec, "
                "separation_arcsec($ra, $dec, ra, dec) AS separation_arcsec "
                f"FROM ({parts}) WHERE separation_arcsec($ra, $dec, ra, dec) <= $radius "
                "AND ($archive IS NULL OR archive = $archive)",
                {"ra": ra, "dec": dec, "radius": radius_arcsec, "archive": archive},
                within=cursor,
            )
            found = self._measurements(cursor, self._shown(cursor, sources), band, good, form)
        if not len(found) and (renamed := current_archive(self, archive)) != archive:
            return self.cone(ra, dec, radius_arcsec, archive=renamed, band=band, good=good, form=form)
        return self._or_unknown(found, archive=archive, band=band)

    def _shown(self, cursor: duckdb.DuckDBPyConnection, sources: pa.Table) -> pa.Table:
        """Keep only sources of the release that table archives names."""
        releases = sources.select(["archive", "release"]).group_by(["archive", "release"]).aggregate([])
        if len(pc.unique(releases["archive"])) == releases.num_rows:
            return sources  # the usual case, without a query of a third table
        current = self.run("SELECT archive, release FROM archives", None, within=cursor)
        return sources.join(current, ["archive", "release"], join_type="left semi")

    def _measurements(
        self, cursor: duckdb.DuckDBPyConnection, sources: pa.Table, band: str | None, good: bool, form: Form
    ) -> Any:
        keys = ("archive", "release", "hpx29", "source_id")
        extra = ", ".join(f"wanted.{name}" for name in sources.column_names if name not in keys)
        parameters: dict[str, Any] = {} if band is None else {"band": band}
        tables, wanted, near = {"wanted": sources}, "wanted", "lightcurves"
        if sources.num_rows <= _LONGEST_LIST:
            # For each column in a condition, and each registered table, DuckLake searches the statistics of its files
            # again. So rows are found by hpx29 only, and then joined.
            pixels = ", ".join(map(str, pc.unique(sources["hpx29"]).to_pylist()))
            near = f"(SELECT * FROM lightcurves WHERE hpx29 IN ({pixels or 'NULL'}))"
            columns = ", ".join(
                f"unnest(${name}_list::{_SQL_TYPES[str(sources[name].type)]}[]) AS {name}"
                for name in sources.column_names
            )
            tables, wanted = {}, f"(SELECT {columns})"
            parameters |= {f"{name}_list": sources[name].to_pylist() for name in sources.column_names}
        where = [*([] if band is None else ["band = $band"]), *(["good"] if good else [])]
        return self.run(
            f"WITH near AS {'NOT ' if tables else ''}MATERIALIZED (FROM {near}), wanted AS (FROM {wanted}) "
            f"SELECT near.*, {extra} FROM near JOIN wanted USING ({', '.join(keys)}) "
            f"WHERE {' AND '.join(where) or 'true'} ORDER BY archive, band, mjd",
            parameters,
            form,
            cursor,
            **tables,
        )

    def target_id(self, target: Any, radius_arcsec: float = 1.0) -> int:
        """Find the id of a target given by name, id or SkyCoord.

        Raises
        ------
        ConfigurationError
            If there is none; the message suggests similar names.

        Examples
        --------
        >>> with lake.open("my-lake") as opened:
        ...     opened.target_id("A") == opened.targets()["target_id"][0].as_py()
        True
        """
        with self.snapshot() as cursor:
            return self._target_id(target, radius_arcsec, cursor)

    def _target_id(self, target: Any, radius_arcsec: float, cursor: duckdb.DuckDBPyConnection) -> int:
        return target_id_of(target, radius_arcsec, partial(self.run, within=cursor))

    def attach_snippet(self, *, write: bool = False) -> str:
        """Return the SQL that attaches this lake in a stock DuckDB client.

        Parameters
        ----------
        write
            Attach it for writing, which bypasses the lake's lock and its commit rule.
        """
        return attach_snippet(self.catalog.location, self.storage, write=write)
