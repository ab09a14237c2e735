"""Commands about what leaves a lake: export votable, fits, ecsv, csv and parquet; cite; changes."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lake.cli import LakeURL
from lake.output import TABLE, TableOptions, say, terminal_width, whole_file
from lake.text import counted, one_line

if TYPE_CHECKING:
    from lake.export.files import FileForm

Query = Annotated[str | None, Parameter(help="DuckDB's SQL, such as \"FROM target_lightcurves WHERE archive = 'x'\".")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Options of each form: the file, and which light curves."""

    to: Annotated[Path, Parameter(help="File to write, completely or not at all.")]
    target: Annotated[str | None, Parameter(help="A target: any of its names, or its id.")] = None
    sample: Annotated[str | None, Parameter(help="All targets of this sample.")] = None
    archive: Annotated[str | None, Parameter(help="Of a target or sample: only this archive.")] = None
    band: Annotated[str | None, Parameter(help="Of a target or sample: only this band.")] = None
    good: Annotated[
        bool, Parameter(help="Of a target or sample: only measurements that pass the archive's own recommended cut.")
    ] = False


def votable(query: Query = None, /, *, chosen: Chosen, lake: LakeURL = None) -> int:
    """Write light curves as VOTable: a table a band, with clocks, frame and calibration.

    Give one of: a query, --target, --sample. The file has what to cite and to acknowledge in it.
    """
    return _export("votable", query, chosen, lake)


def fits(query: Query = None, /, *, chosen: Chosen, lake: LakeURL = None) -> int:
    """Write light curves as FITS: a binary table a band, which astropy and TOPCAT read.

    Give one of: a query, --target, --sample. The file has what to cite and to acknowledge in it.
    """
    return _export("fits", query, chosen, lake)


def ecsv(query: Query = None, /, *, chosen: Chosen, lake: LakeURL = None) -> int:
    """Write light curves as ECSV, which astropy reads with units and times.

    Give one of: a query, --target, --sample. The file has what to cite and to acknowledge in it.
    """
    return _export("ecsv", query, chosen, lake)


def csv(query: Query = None, /, *, chosen: Chosen, lake: LakeURL = None) -> int:
    """Write light curves as CSV, with units and UCDs of the columns in lines that begin with #.

    Give one of: a query, --target, --sample. The file has what to cite and to acknowledge in it.
    """
    return _export("csv", query, chosen, lake)


def parquet(query: Query = None, /, *, chosen: Chosen, lake: LakeURL = None) -> int:
    """Write light curves as Parquet, with units and UCDs of the columns (VOParquet).

    Give one of: a query, --target, --sample. The file has what to cite and to acknowledge in it.
    """
    return _export("parquet", query, chosen, lake)


def _export(form: FileForm, query: str | None, chosen: Chosen, url: str | None) -> int:
    from lake.export.files import Selection, export
    from lake.query import Lake

    which = Selection(query, chosen.target, chosen.sample, chosen.archive, chosen.band, chosen.good)
    with Lake(url) as opened:
        done = export(opened, chosen.to, form, which)
    tables = counted(len(done.parts), "table") if form in ("votable", "fits") else "one table"
    say(one_line(f"{chosen.to}: {counted(done.whole.rows, 'row')} in {tables}"))
    return 0


def cite(
    query: str | None = None,
    /,
    *,
    target: str | None = None,
    sample: str | None = None,
    to: Path | None = None,
    lake: LakeURL = None,
) -> int:
    """Print what to cite and to acknowledge for an answer, as BibTeX: papers, data sets, software, snapshot.

    Give one of: a query, --target, --sample. Lines that begin with % have licences and acknowledgements.

    Parameters
    ----------
    query
        DuckDB's SQL. Named are the archives of the rows that it reads; where that cannot be told, all archives of the
        tables that it reads.
    target
        Any of its names, or its id.
    sample
        All targets of this sample.
    to
        File to write, such as lake.bib.
    """
    from lake.export.citations import cite as find
    from lake.query import Lake

    with Lake(lake) as opened:
        found = find(opened, query, target=target, sample=sample)
    if to is None:
        say(found.bibtex().rstrip("\n"))
        return 0
    with whole_file(to) as file:
        file.write(found.bibtex().encode())
    say(one_line(f"{to}: {counted(len(found.archives), 'archive')}, {counted(len(found.papers()), 'paper')}"))
    return 0


# What a terminal has room for.
_FIRST = ("name", "archive", "new_points", "brighter", "fainter", "changed_points")


def changes(
    *, since: str, sample: str | None = None, sigma: float = 5.0, form: TableOptions = TABLE, lake: LakeURL = None
) -> int:
    """Show which measurements are new, changed or gone, by target and archive.

    Rows that were pulled again with the same values are no change. Targets that brightened or faded come first.

    Parameters
    ----------
    since
        A snapshot's number, or a date (and time, UTC) such as 2026-11-28: the state of the lake then.
    sample
        Only targets of this sample.
    sigma
        A new point that is so many standard deviations off the median of its light curve counts as brighter or fainter.
    """
    from lake.query import Lake
    from lake.upkeep.changes import changes_summary

    with Lake(lake) as opened:
        found = changes_summary(opened, since, sample=sample, sigma=sigma)
    form.show(found.rows, first=_FIRST)
    if form.is_text:
        for line in found.lines():
            say(textwrap.fill(one_line(line), terminal_width() or 10_000, subsequent_indent="  "))
    return 0
