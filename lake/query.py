"""Ask a lake: SQL, the light curve of a target, everything in a cone, targets and coverage."""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from lake.catalog import CONSISTENT_SCANS, Catalog
from lake.errors import CatalogError, ConfigurationError
from lake.export import Form, convert
from lake.s3 import s3_secret
from lake.settings import Settings, load_settings
from lake.sky import cone_ranges
from lake.storage import Storage

# Above this many sources a join is as good as a list: the list only serves to leave files unread.
_LONGEST_LIST = 2000

_SQL_TYPES = {"string": "VARCHAR", "int64": "BIGINT", "int32": "INTEGER", "double": "DOUBLE"}


class Lake:
    """A lake, open for questions.

    Parameters
    ----------
    url
        Where it is; None: LIGHTLAKE_URL.
    settings
        Other settings; None: those of the environment.

    Raises
    ------
    CatalogError, ConfigurationError
        If there is no lake, or it cannot be read.
    """

    def __init__(self, url: str | os.PathLike[str] | None = None, settings: Settings | None = None) -> None:
        settings = settings or load_settings()
        self.settings = settings
        self.storage = Storage.from_url(url if url is not None else settings.url)
        self.catalog = Catalog(self.storage, settings)
        self.catalog.open()
        self._own = threading.local()  # each thread's cursor: a new one costs a millisecond

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lake."""
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
            If the SQL is wrong.
        """
        return self._run(query, parameters, form)

    def _run(
        self,
        query: str,
        parameters: Sequence[Any] | dict[str, Any] | None,
        form: Form = "arrow",
        within: duckdb.DuckDBPyConnection | None = None,
        **tables: pa.Table,
    ) -> Any:
        cursor = within or self.catalog.cursor()
        try:
            for name, table in tables.items():
                cursor.register(name, table)
            return convert(cursor.execute(query, parameters).to_arrow_table(), form)
        except duckdb.IOException as error:
            raise CatalogError(f"a file of the lake cannot be read: {error}", hint="run: lightlake verify") from error
        except duckdb.Error as error:
            told = str(error).partition("\n\nLINE ")[0]  # less the copy of the SQL with a caret under it
            raise ConfigurationError(f"the SQL failed: {told}", hint="see the tables with: lightlake schema") from error
        finally:
            if within is None:
                cursor.close()

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Let several questions see one state of the lake, and DuckLake read its catalogue once for them."""
        cursor: duckdb.DuckDBPyConnection | None = getattr(self._own, "cursor", None)
        if cursor is None:
            cursor = self._own.cursor = self.catalog.cursor()
        self._run("BEGIN", None, within=cursor)
        try:
            yield cursor
        finally:
            cursor.execute("ROLLBACK")

    def targets(self, sample: str | None = None, *, form: Form = "arrow") -> Any:
        """Return the targets, all or of one sample, with all their labels."""
        return self.sql(
            """
            SELECT targets.*, list(DISTINCT labels.label) AS labels, list(DISTINCT labels.sample) AS samples
            FROM targets LEFT JOIN labels USING (target_id)
            GROUP BY ALL
            HAVING $sample IS NULL OR list_contains(samples, $sample)
            ORDER BY ra
            """,
            {"sample": sample},
            form=form,
        )

    def coverage(self, archive: str | None = None, sample: str | None = None, *, form: Form = "arrow") -> Any:
        """Return what each archive was asked for and what came of it."""
        return self.sql(
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
        """Return all measurements of a target, over all archives and bands.

        Parameters
        ----------
        target
            Name, target_id, or an astropy SkyCoord within radius_arcsec of a target.
        archive, band
            Only of these.
        good
            Only what passes the archive's own recommended cut.
        form
            arrow, pandas or astropy.

        Returns
        -------
        Table
            Columns of lightcurves, with rank and separation_arcsec of the match, sorted by archive, band, mjd.

        Raises
        ------
        ConfigurationError
            If there is no such target.
        """
        with self._transaction() as cursor:
            known = isinstance(target, int)
            target_id = target if known else self._target_id(target, radius_arcsec, cursor)
            sources = self._run(
                "SELECT archive, release, source_id, hpx29, rank, separation_arcsec FROM matches "
                f"WHERE target_id = {target_id}" + (" AND archive = ?" if archive else ""),
                [archive] if archive else [],
                within=cursor,
            )
            if known and not sources.num_rows:
                self._target_id(target, radius_arcsec, cursor)  # nothing matched, or no such target?
            return self._measurements(cursor, self._shown(cursor, sources), band, good, form)

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
        """Return all measurements of all sources in a cone.

        Parameters
        ----------
        ra, dec
            Centre, ICRS degrees.
        radius_arcsec
            Radius.
        archive, band, good, form
            As in light_curve.
        """
        # One SELECT a range: DuckLake leaves files unread for a BETWEEN, not for several joined by OR.
        parts = " UNION ALL ".join(
            f"SELECT * FROM sources WHERE hpx29 BETWEEN {low} AND {high}"
            for low, high in cone_ranges(ra, dec, radius_arcsec, max_ranges=2)
        )
        with self._transaction() as cursor:
            sources = self._run(
                "SELECT archive, release, source_id, hpx29, ra, dec, "
                "separation_arcsec($ra, $dec, ra, dec) AS separation_arcsec "
                f"FROM ({parts}) WHERE separation_arcsec($ra, $dec, ra, dec) <= $radius "
                "AND ($archive IS NULL OR archive = $archive)",
                {"ra": ra, "dec": dec, "radius": radius_arcsec, "archive": archive},
                within=cursor,
            )
            return self._measurements(cursor, self._shown(cursor, sources), band, good, form)

    def _shown(self, cursor: duckdb.DuckDBPyConnection, sources: pa.Table) -> pa.Table:
        """Leave out releases beside the one that table archives names."""
        releases = sources.select(["archive", "release"]).group_by(["archive", "release"]).aggregate([])
        if len(pc.unique(releases["archive"])) == releases.num_rows:
            return sources  # the usual case, for which a third table would be asked in vain
        current = self._run("SELECT archive, release FROM archives", None, within=cursor)
        return sources.join(current, ["archive", "release"], join_type="left semi")

    def _measurements(
        self,
        cursor: duckdb.DuckDBPyConnection,
        sources: pa.Table,
        band: str | None,
        good: bool,
        form: Form,
    ) -> Any:
        keys = ("archive", "release", "hpx29", "source_id")
        extra = ", ".join(f"wanted.{name}" for name in sources.column_names if name not in keys)
        parameters: dict[str, Any] = {"band": band} if band else {}
        tables, wanted, near = {"wanted": sources}, "wanted", "lightcurves"
        if sources.num_rows <= _LONGEST_LIST:
            # Each column that a condition names costs DuckLake another search of its files' statistics, and
            # so does each table that is registered: so rows are found by hpx29 alone, and then joined.
            pixels = ", ".join(map(str, pc.unique(sources["hpx29"]).to_pylist()))
            near = f"(SELECT * FROM lightcurves WHERE hpx29 IN ({pixels or 'NULL'}))"
            columns = ", ".join(
                f"unnest(${name}_list::{_SQL_TYPES[str(sources[name].type)]}[]) AS {name}"
                for name in sources.column_names
            )
            tables, wanted = {}, f"(SELECT {columns})"
            parameters |= {f"{name}_list": sources[name].to_pylist() for name in sources.column_names}
        where = [*(["band = $band"] if band else []), *(["good"] if good else [])]
        return self._run(
            f"WITH near AS {'NOT ' if tables else ''}MATERIALIZED (FROM {near}), wanted AS (FROM {wanted}) "
            f"SELECT near.*, {extra} FROM near JOIN wanted USING ({', '.join(keys)}) "
            f"WHERE {' AND '.join(where) or 'true'} ORDER BY archive, band, mjd",
            parameters,
            form,
            cursor,
            **tables,
        )

    def target_id(self, target: Any, radius_arcsec: float = 1.0) -> int:
        """Return the id of a target given by name, id or SkyCoord.

        Raises
        ------
        ConfigurationError
            If there is none; the message names near ones.
        """
        with self._transaction() as cursor:
            return self._target_id(target, radius_arcsec, cursor)

    def _target_id(self, target: Any, radius_arcsec: float, cursor: duckdb.DuckDBPyConnection) -> int:
        if isinstance(target, str):
            return self._by_name(target, cursor)
        if hasattr(target, "icrs"):
            ra, dec = float(target.icrs.ra.deg), float(target.icrs.dec.deg)
            rows = self._run(
                "SELECT target_id FROM targets_in_cone(?, ?, ?) LIMIT 1",
                [ra, dec, radius_arcsec],
                within=cursor,
            )
            if rows.num_rows:
                return int(rows["target_id"][0].as_py())
            raise ConfigurationError(
                f"no target within {radius_arcsec:g} arcsec of {ra:.6f} {dec:+.6f}",
                hint="ask cone(), or give a larger radius_arcsec",
            )
        if self._run("SELECT 1 FROM targets WHERE target_id = ?", [int(target)], within=cursor).num_rows:
            return int(target)
        raise ConfigurationError(f"no target has the id {target}", hint="see them with: lightlake sql 'FROM targets'")

    def _by_name(self, name: str, cursor: duckdb.DuckDBPyConnection) -> int:
        # As written first: DuckLake can leave files unread for that, not for a function of the name.
        for condition in ("name = ?", "lower(name) = lower(?)"):
            rows = self._run(f"SELECT target_id FROM targets WHERE {condition}", [name], within=cursor)
            if rows.num_rows:
                break
        if rows.num_rows == 1:
            return int(rows["target_id"][0].as_py())
        if rows.num_rows > 1:
            ids = ", ".join(map(str, rows["target_id"].to_pylist()))
            raise ConfigurationError(f"{rows.num_rows} targets are named {name!r}", hint=f"give an id: {ids}")
        names = self.sql("SELECT DISTINCT name FROM targets WHERE name IS NOT NULL")["name"].to_pylist()
        near = ", ".join(difflib.get_close_matches(name, names, 3))
        raise ConfigurationError(
            f"no target is named {name!r}",
            hint=f"did you mean {near}?" if near else "see them with: lightlake sql 'FROM targets'",
        )

    def attach_snippet(self) -> str:
        """Return what a stock DuckDB client runs to have this lake."""
        extensions = ["ducklake", "sqlite" if self.catalog.location.kind == "sqlite" else "postgres"]
        if not self.storage.is_local:
            extensions.append("httpfs")
        lines = [f"INSTALL {name}; LOAD {name};" for name in extensions]
        if not self.storage.is_local:
            lines.append(s3_secret(self.storage).replace("OR REPLACE ", "") + ";")
        if self.catalog.location.kind == "sqlite":
            lines.append(f"{CONSISTENT_SCANS};")
        return "\n".join([*lines, f"{self.catalog.location.attach_statement(self.storage)};", "USE lake;"])
