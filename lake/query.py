"""Query a lake: SQL, the light curve of a target, everything in a cone, targets and coverage."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from typing import Any, Self

import duckdb
import pyarrow as pa

from lake import light_curves
from lake.errors import ConfigurationError
from lake.export.context import Clock, load_context
from lake.export.forms import FORMS_OF_CURVES, Form, convert
from lake.export.fornax_form import fornax_rows
from lake.export.html import lake_html
from lake.light_curves import Names
from lake.names import check_archive, check_sample, current_archive, target_id_of
from lake.settings import Settings, load_settings
from lake.store.attaching import attach_snippet
from lake.store.catalog import Catalog
from lake.store.confined import Guard, time_limit
from lake.store.connection import ended_by_signals, rollback
from lake.store.failures import query_failure
from lake.store.listing import Listing
from lake.store.lock import until_back
from lake.store.reading import check_reads_only
from lake.store.storage import Storage

# The page that helps with errors from here.
HELP_TOPIC = "how-to/queries"

# One statement that leaves nothing behind: others may make tables and change settings.
_PLAIN = re.compile(r"\s*(select|from|with)\b[^;]*$", re.IGNORECASE)
# A query is repeated for so long if its connection to the catalogue is lost.
_AWAY_FOR_S = 10.0


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
        self.confined = confined
        self._guard = Guard(self.catalog.cursor()) if confined else None
        self._own = threading.local()  # a cursor for each thread: a new one costs a millisecond
        self.listing = Listing(self.catalog.location, self.storage)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the lake."""
        self.catalog.close()

    def __repr__(self) -> str:
        return f"Lake({str(self.storage.root)!r})"

    def _repr_html_(self) -> str:
        return lake_html(str(self.storage.root), partial(self.run, parameters=None))

    def sql(
        self,
        query: str,
        parameters: Sequence[Any] | dict[str, Any] | None = None,
        *,
        form: Form = "arrow",
        clock: Clock = "barycentre",
    ) -> Any:
        """Run SQL in the lake.

        Parameters
        ----------
        query
            DuckDB's SQL; ``?`` or ``$name`` stand for parameters.
        parameters
            Their values.
        form, clock
            As in light_curve.

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
        return self.converted(self.run(query, parameters), form, clock=clock)

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

    def converted(self, rows: pa.Table, form: Form, *, clock: Clock = "barycentre") -> Any:
        """Convert an answer of this lake to a form; see light_curve.

        Raises
        ------
        ConfigurationError
            If there is no such form or clock, or the form cannot carry the answer.
        """
        if form == "fornax" and "objectid" not in rows.column_names:
            rows = fornax_rows(rows, self.run)
        if form in ("arrow", "pandas", "polars", "fornax"):
            return convert(rows, form)
        return convert(rows, form, load_context(rows, self.run, clock, exposures=form in FORMS_OF_CURVES))

    def _limited(self, cursor: duckdb.DuckDBPyConnection) -> AbstractContextManager[None]:
        return time_limit(cursor, self.settings.query_timeout_s) if self._guard else nullcontext()

    def run(
        self,
        query: str,
        parameters: Sequence[Any] | dict[str, Any] | None,
        within: duckdb.DuckDBPyConnection | None = None,
        **tables: pa.Table,
    ) -> pa.Table:
        """Run SQL as `sql` does, without its checks, and return an Arrow table.

        Parameters
        ----------
        within
            A cursor of `snapshot`.
        **tables
            Tables that the SQL may use, by name.
        """
        if within is not None:
            return self._ask(within, query, parameters, tables)

        def once() -> pa.Table:
            plain = not tables and _PLAIN.match(query)
            with self.catalog.borrowed() if plain else closing(self.catalog.cursor()) as cursor:
                return self._ask(cursor, query, parameters, tables)

        return until_back(once, _AWAY_FOR_S, self.catalog.renew)

    def _ask(
        self,
        cursor: duckdb.DuckDBPyConnection,
        query: str,
        parameters: Sequence[Any] | dict[str, Any] | None,
        tables: dict[str, pa.Table],
    ) -> pa.Table:
        try:
            for name, table in tables.items():
                cursor.register(name, table)
            with ended_by_signals(cursor), self._limited(cursor):
                return cursor.execute(query, parameters).to_arrow_table()
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

        Parameters
        ----------
        sample
            Only targets of this sample; None: all.
        form
            As in light_curve.

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

        Parameters
        ----------
        archive, sample
            Only this archive, or targets of this sample; None: all.
        form
            As in light_curve.

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

    def _or_unknown(self, found: Any, *, archive: str | None = None, sample: str | None = None) -> Any:
        """Return what was found; if that is empty, check that all names are known."""
        if not len(found):
            check_sample(self, sample)
            check_archive(self, archive)
        return found

    def light_curve(
        self,
        target: Any,
        *,
        archive: Names = None,
        band: Names = None,
        good: bool = False,
        radius_arcsec: float = 1.0,
        columns: Names = None,
        form: Form = "arrow",
        clock: Clock = "barycentre",
    ) -> Any:
        """Return all measurements of a target, or of many, from all archives and bands.

        Parameters
        ----------
        target
            Any of its names, target_id, (ra, dec) in ICRS degrees, or an astropy SkyCoord within radius_arcsec of a
            target. Or a list of such, or a SkyCoord of many positions: a thousand targets are one query.
        archive, band
            Only measurements of these: a name, or a list.
        good
            Only measurements that pass the archive's own recommended cut.
        radius_arcsec
            How near a position has to be to its target.
        columns
            Only these, in this order, which takes less time and memory; for the forms arrow, pandas, polars, astropy.
        form
            arrow: a pyarrow Table. pandas, polars: a DataFrame. astropy: a QTable, with a Time column.
            timeseries: one astropy TimeSeries. timeseries_bands: a list of them, one for each source and band, and
            for each sector or quarter where these are light curves of their own. lightkurve: a LightCurveCollection of
            the same. fornax: the DataFrame of the Fornax light-curve collector.
        clock
            Which times column time of astropy's forms has. barycentre: MJD (TDB) at the barycentre, the same for all
            archives. archive: the archive's own, with its scale, and its location where it has one.

        Returns
        -------
        Table
            Columns of lightcurves, with rank and separation_arcsec of the match, sorted by archive, band, mjd. Those of
            several targets begin with target_id and name, in the order of the list, and each target comes once.

        Raises
        ------
        ConfigurationError
            If there is no such target, archive, band or column, or the form cannot carry the answer.

        Examples
        --------
        >>> with lake.open("my-lake") as opened:
        ...     curve = opened.light_curve("A", band="g", form="astropy")
        ...     several = opened.light_curve(["A", "B"], band=["g", "r"], columns=["name", "mjd", "flux"])
        >>> len(curve), str(curve["mjd"].unit), str(curve["flux"].unit), curve["time"].scale
        (3, 'd', 'mJy', 'tdb')
        >>> len(several), several.column_names
        (12, ['name', 'mjd', 'flux'])
        """
        named = form in FORMS_OF_CURVES
        rows = light_curves.of_targets(self, target, archive, band, good, radius_arcsec, columns, named=named)
        return self.converted(rows, form, clock=clock)

    def cone(
        self,
        ra: Any,
        dec: Any = None,
        radius_arcsec: float | None = None,
        *,
        archive: Names = None,
        band: Names = None,
        good: bool = False,
        columns: Names = None,
        form: Form = "arrow",
        clock: Clock = "barycentre",
    ) -> Any:
        """Return all measurements of all sources in a cone on the sky, or in many.

        Parameters
        ----------
        ra, dec
            Centre, ICRS degrees; or arrays of them. Without dec, ra is a target as light_curve takes it, or a list of
            targets.
        radius_arcsec
            Radius.
        archive, band, good, columns, form, clock
            As in light_curve.

        Returns
        -------
        Table
            Columns of lightcurves, with ra, dec and separation_arcsec of the source. Those of several cones begin with
            centre, which counts the cones from 0.

        Raises
        ------
        ConfigurationError
            If there is no such target, archive, band or column, or the form cannot carry the answer.

        Examples
        --------
        >>> with lake.open("my-lake") as opened:
        ...     found = opened.cone(10.0, -30.0, radius_arcsec=5, band="g", good=True)
        ...     around = opened.cone(["A", "B"], radius_arcsec=5)
        >>> found["source_id"].to_pylist(), sorted(set(around["centre"].to_pylist()))
        (['s0', 's0'], [0, 1])
        """
        rows = light_curves.of_cones(self, ra, dec, radius_arcsec, archive, band, good, columns)
        return self.converted(rows, form, clock=clock)

    def target_id(self, target: Any, radius_arcsec: float = 1.0) -> int:
        """Find the id of a target given by name, id or SkyCoord.

        Parameters
        ----------
        target
            As in light_curve.
        radius_arcsec
            How near a position has to be to its target.

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
            return target_id_of(target, radius_arcsec, partial(self.run, within=cursor))

    def attach_snippet(self, *, write: bool = False) -> str:
        """Return the SQL that attaches this lake in a stock DuckDB client.

        Parameters
        ----------
        write
            Attach it for writing, which bypasses the lake's lock and its commit rule.
        """
        return attach_snippet(self.catalog.location, self.storage, write=write)
