"""Write the light curves of a target, of a sample or of a query to a file that other software takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import duckdb

from lake.errors import ConfigurationError
from lake.export.citations import Citation, citation_of
from lake.export.fits import write_fits
from lake.export.parquet import write_parquet
from lake.export.rows import AT_ONCE, Rows, staged
from lake.export.text import write_csv, write_ecsv
from lake.export.votable import write_votable
from lake.names import check_archive, check_band, check_sample, current_archive, target_id_of
from lake.output import whole_file
from lake.store.failures import query_failure

if TYPE_CHECKING:
    from lake.query import Lake

FileForm = Literal["votable", "fits", "ecsv", "csv", "parquet"]

WRITERS: dict[str, Callable[[Rows, BinaryIO], None]] = {
    "votable": write_votable,
    "fits": write_fits,
    "ecsv": write_ecsv,
    "csv": write_csv,
    "parquet": write_parquet,
}
# Several clocks in one table: each row says which is its.
_ONE_TABLE = ("ecsv", "csv", "parquet")


@dataclass(frozen=True)
class Selection:
    """Which rows: those of a target, of a sample, or of a query.

    Parameters
    ----------
    query
        DuckDB's SQL.
    target
        A name, or an id.
    sample
        Name of a sample.
    archive, band
        Of a target or sample: only these.
    good
        Of a target or sample: only measurements that pass the archive's own recommended cut.
    """

    query: str | None = None
    target: Any = None
    sample: str | None = None
    archive: str | None = None
    band: str | None = None
    good: bool = False

    def __post_init__(self) -> None:
        given = [one for one in (self.query, self.target, self.sample) if one is not None]
        if len(given) != 1:
            raise ConfigurationError(
                "it is not clear what to take" if not given else "there is more than one thing to take",
                hint='give one of: "SQL", --target NAME, --sample NAME',
            )
        if self.query is not None and (self.archive or self.band or self.good):
            raise ConfigurationError(
                "--archive, --band and --good are of a target or sample",
                hint="put conditions into the query: WHERE good",
            )

    def sql(self, lake: Lake, cursor: duckdb.DuckDBPyConnection, *, clocks: bool) -> tuple[str, list[Any]]:
        """Return the SQL of the rows, and its parameters.

        Parameters
        ----------
        clocks
            With columns time_scale and time_frame, of mjd.

        Raises
        ------
        ConfigurationError
            If a name is unknown.
        """
        if self.query is not None:
            lake.check_sql(self.query)
            return self.query.strip().rstrip(";"), []
        values: list[Any]
        archive = current_archive(lake, self.archive)
        check_archive(lake, archive)
        check_band(lake, self.band, archive)
        if self.target is not None:
            where, values = "t.target_id = ?", [_target_id(lake, self.target, cursor)]
        else:
            check_sample(lake, self.sample)
            where, values = "t.target_id IN (SELECT target_id FROM labels WHERE sample = ?)", [self.sample]
        for name, value in (("archive", archive), ("band", self.band)):
            if value is not None:
                where += f" AND t.{name} = ?"
                values.append(value)
        where += " AND t.good" if self.good else ""
        extra = ", archives.time_scale, archives.time_frame" if clocks else ""
        return (
            f"SELECT t.*{extra} FROM target_lightcurves AS t LEFT JOIN archives ON archives.archive = t.archive "
            f"WHERE {where} ORDER BY t.archive, t.release, t.band, t.unit, t.target_id, t.rank, t.source_id, t.mjd",
            values,
        )


def export(lake: Lake, to: Path, form: FileForm, selection: Selection) -> Rows:
    """Write rows to a file, completely or not at all; all of them are of one snapshot.

    Rows pass through a Parquet file in the folder for temporary files; no more than 50,000 are in memory.

    Parameters
    ----------
    lake
        The lake.
    to
        File to write.
    form
        votable, fits, ecsv, csv or parquet.
    selection
        Which rows.

    Returns
    -------
    Rows
        What was written; its rows can no longer be read.

    Raises
    ------
    ConfigurationError
        If a name is unknown, the query is wrong, the form cannot carry a unit, or the file cannot be written.

    Examples
    --------
    >>> with lake.open("my-lake") as opened:
    ...     export(opened, Path("A.vot"), "votable", Selection(target="A")).whole.rows
    6
    """
    with rows_of(lake, selection, clocks=form in _ONE_TABLE) as rows, whole_file(to) as file:
        WRITERS[form](rows, file)
    return rows


@contextmanager
def rows_of(lake: Lake, selection: Selection, *, clocks: bool = False) -> Iterator[Rows]:
    """Keep the rows of a selection in a temporary file, with all that is known of them."""
    with TemporaryDirectory(prefix="lightlake-") as folder, lake.snapshot() as cursor:
        query, values = selection.sql(lake, cursor, clocks=clocks)
        try:
            reader = cursor.execute(query, values).to_arrow_reader(AT_ONCE)
            rows = staged(reader, Path(folder) / "rows.parquet")
        except duckdb.Error as error:
            raise query_failure(error, lake.catalog.location, lake.storage) from error
        if selection.query is None and not rows.whole.rows:
            raise ConfigurationError(
                f"the lake has no measurements of {selection.target or selection.sample} of that kind",
                hint="see what it has with: lightlake sql 'SELECT name, archive, band, count(*) "
                "FROM target_lightcurves GROUP BY ALL'",
            )
        yield _with_facts(lake, cursor, rows, selection)


def _target_id(lake: Lake, target: Any, cursor: duckdb.DuckDBPyConnection) -> int:
    return target_id_of(target, 1.0, partial(lake.run, within=cursor))


def _with_facts(lake: Lake, cursor: duckdb.DuckDBPyConnection, rows: Rows, selection: Selection) -> Rows:
    citation = citation_of(
        lake,
        query=selection.query,
        target=selection.target,
        sample=selection.sample,
        within=cursor,
        found=_held(rows) if selection.query is None else None,
    )
    archives = {one["archive"]: one for one in citation.archives if one.get("time_scale")}
    if selection.query is not None:
        title, position = "Rows of a query", None
    elif selection.sample is not None:
        title, position = f"Light curves of sample {selection.sample}", None
    else:
        (one,) = lake.run(
            "SELECT name, ra, dec FROM targets WHERE target_id = ?",
            [_target_id(lake, selection.target, cursor)],
            within=cursor,
        ).to_pylist()
        title, position = f"Light curves of {one['name'] or selection.target}", (one["ra"], one["dec"])
    bands = lake.run("FROM bands ORDER BY archive, band", None, within=cursor).to_pylist()
    held = {(part.key.get("archive"), part.key.get("band")) for part in rows.parts}
    return replace(
        rows,
        archives=archives,
        bands={(b["archive"], b["band"]): b for b in bands if (b["archive"], b["band"]) in held},
        credits=citation.lines(),
        title=title,
        position=position,
        facts=_facts(citation, selection),
    )


def _held(rows: Rows) -> set[tuple[str, str]] | None:
    """Return archives and releases of the rows, if every row says its own; None if that is not known."""
    found = {(part.key.get("archive"), part.key.get("release")) for part in rows.parts}
    if not rows.whole.rows:
        return set()
    return {(a, r) for a, r in found if a and r} if all(a and r for a, r in found) else None


def _facts(citation: Citation, selection: Selection) -> dict[str, str]:
    facts = {"software": citation.software, "snapshot": str(citation.snapshot), "snapshot_time": citation.snapshot_time}
    if selection.query is not None:
        facts["query"] = " ".join(selection.query.split())
    return facts
