"""The command `lightlake export virac-csv`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lake.cli import LakeURL
from lake.output import say
from lake.text import counted


def virac_csv(
    *,
    to: Path,
    lake: LakeURL = None,
    source: Annotated[list[str] | None, Parameter(negative=())] = None,
    sources_file: Path | None = None,
    where: str | None = None,
    release: str | None = None,
    again: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Write light curves of VIRAC as the published CSVs.

    Each source has a file: ID[:3]/ID[3:6]/ID.csv.

    An export that was stopped goes on when it is run again: files that are there with all their rows are kept.

    Parameters
    ----------
    to
        Folder to write to.
    source
        Id of a source; may be given several times. Without any, and no file of them: all that have a light curve.
    sources_file
        Text file with the id of a source in each line.
    where
        Only sources for which this SQL is true, on the columns of table sources: "dec > -30 AND NOT duplicate".
    release
        Release of VIRAC; default: the one that the lake has.
    again
        Write files anew that are there already.
    """
    from lake.query import Lake
    from tasks.sources.virac.csv_export import Written, export_virac_csv, read_ids

    ids = None if source is None and sources_file is None else list(source or [])
    if ids is not None and sources_file is not None:
        ids += read_ids(sources_file)
    started = time.monotonic()

    def tell(done: Written) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(
                f"\r{counted(done.files, 'file')} written, {done.kept} kept, {time.monotonic() - started:.0f} s "
            )

    with Lake(lake) as opened:
        done = export_virac_csv(opened, to, ids, where=where, release=release, again=again, progress=tell)
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    seconds = time.monotonic() - started
    say(
        f"{done.files} light curves written to {to}, {counted(done.rows, 'row')}, "
        f"{done.bytes / 1e6:.1f} MB, in {seconds:.1f} s; "
        f"{done.kept} were there already"
    )
    return 0
