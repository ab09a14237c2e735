"""The commands `lightlake export hlsp` and `lightlake hst reset`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from lake.cli import LakeURL
from lake.output import say

if TYPE_CHECKING:
    from tasks.sources.hst_timetag.hlsp_export import Written


def hlsp(
    *,
    to: Path,
    lake: LakeURL = None,
    product: Literal["exposure", "composite", "both"] = "both",
    where: str | None = None,
    again: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Write light curves of COS and STIS as FITS files, under the names and with the keywords of their published form.

    Parameters
    ----------
    to
        Folder to write to.
    product
        Exposures, composites or both.
    where
        Only light curves for which this SQL is true, on the columns of table hst_exposures: "grating = 'G140L'".
    again
        Write files anew that are there already.
    """
    from lake.query import Lake
    from tasks.sources.hst_timetag.hlsp_export import export_hlsp

    def tell(done: Written) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done.files} files written, {done.kept} kept ")

    with Lake(lake) as opened:
        done = export_hlsp(opened, to, product, where=where, again=again, progress=tell)
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    say(f"{done.files} light curves written to {to}; {done.kept} were there already")
    return 0


def reset(
    what: Literal["production", "events", "aliases"] = "production",
    /,
    *,
    lake: LakeURL = None,
    yes: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Remove HST's light curves from the lake, so that the next run makes them anew; ask first, and back up first.

    Exposures that were rejected are remembered, and skipped as before.

    Parameters
    ----------
    what
        production: all light curves, statistics and composites, with what targets match. events: only the events.
        aliases: only the names of targets, which are then asked for again.
    yes
        Do not ask.
    """
    from lake.query import Lake
    from tasks.pull.limits import exclusive_pull, of_archive
    from tasks.sources.hst_timetag.reset import counts
    from tasks.sources.hst_timetag.reset import reset as remove
    from tasks.sources.hst_timetag.tables import NAME

    lock = of_archive(NAME)
    with Lake(lake, writable=True) as opened, exclusive_pull(opened, lock, "reset", logging.getLogger(__name__)):
        rows = ", ".join(f"{n} of {name}" for name, n in counts(opened, what).items() if n)
        if not rows:
            say("there is nothing to remove")
            return 0
        if not yes and input(f"Remove these rows: {rows}? [y/N] ").strip().lower() not in ("y", "yes"):
            say("nothing was removed")
            return 1
        backup = remove(opened, what)
    where = f"the catalogue as it was: {backup.path}" if backup else "PostgreSQL keeps its own backups"
    say(f"removed: {rows}; {where}")
    return 0
