"""Commands about what leaves a lake: export votable, fits, ecsv, csv and parquet; cite; changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lake.cli import LakeURL
from lake.output import Output, say, show, whole_file
from lake.text import counted, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from lake.export.files import FileForm

_Flag = Parameter(negative=())

_DOC = """{what}

Give one of: a query, --target, --sample. The file has what to cite and to acknowledge in it.

Parameters
----------
query
    DuckDB's SQL, such as "FROM target_lightcurves WHERE archive = 'x'".
to
    File to write, completely or not at all.
target
    Any of its names, or its id.
sample
    All targets of this sample.
archive, band
    Of a target or sample: only these.
good
    Of a target or sample: only measurements that pass the archive's own recommended cut.
"""


def _command(form: FileForm, what: str) -> Callable[..., int]:
    def command(
        query: str | None = None,
        /,
        *,
        to: Path,
        target: str | None = None,
        sample: str | None = None,
        archive: str | None = None,
        band: str | None = None,
        good: Annotated[bool, _Flag] = False,
        lake: LakeURL = None,
    ) -> int:
        from lake.export.files import Selection, export
        from lake.query import Lake

        chosen = Selection(query, target, sample, archive, band, good)
        with Lake(lake) as opened:
            done = export(opened, to, form, chosen)
        tables = counted(len(done.parts), "table") if form in ("votable", "fits") else "one table"
        say(one_line(f"{to}: {counted(done.whole.rows, 'row')} in {tables}"))
        return 0

    command.__name__, command.__doc__ = form, _DOC.format(what=what)
    return command


votable = _command("votable", "Write light curves as VOTable: a table a band, with clocks, frame and calibration.")
fits = _command("fits", "Write light curves as FITS: a binary table a band, which astropy and TOPCAT read.")
ecsv = _command("ecsv", "Write light curves as ECSV, which astropy reads with units and times.")
csv = _command("csv", "Write light curves as CSV, with units and UCDs of the columns in lines that begin with #.")
parquet = _command("parquet", "Write light curves as Parquet, with units and UCDs of the columns (VOParquet).")


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


def changes(
    *,
    since: str,
    sample: str | None = None,
    sigma: float = 5.0,
    lake: LakeURL = None,
    output: Output = "table",
    to: Path | None = None,
) -> int:
    """Show what changed in the light curves: new points, changed values, sources that went, by target and archive.

    Rows that were pulled again with the same values are no change. Targets that brightened or faded come first.

    Parameters
    ----------
    since
        A snapshot's number, or a date (and time, UTC) such as 2026-11-28: the state of the lake then.
    sample
        Only targets of this sample.
    sigma
        A new point that is so many standard deviations off the median of its light curve counts as brighter or fainter.
    to
        File to write; Parquet needs one.
    """
    from lake.query import Lake
    from lake.upkeep.changes import changes_summary

    with Lake(lake) as opened:
        found = changes_summary(opened, since, sample=sample, sigma=sigma)
    show(found.rows, output, to)
    if output == "table":
        for line in found.lines():
            say(one_line(line))
    return 0
