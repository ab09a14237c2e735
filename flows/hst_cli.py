"""The commands `lightlake hst pages` and `lightlake hst reset`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from lake.cli import LakeURL
from lake.output import say
from lake.text import counted


def pages(
    *, to: Path, lake: LakeURL = None, threshold: Annotated[float | None, Parameter(name="--threshold")] = None
) -> int:
    """Write pages of all composites of COS and STIS.

    They are dashboards, periodograms, tables that sort, and charts.

    Parameters
    ----------
    to
        Folder to write to; index.html is the first page.
    threshold
        Poisson factor from which on a light curve is interesting; default: 1.2.
    """
    from lake.query import Lake
    from tasks.analysis.hst_pages import THRESHOLD, write_pages_of

    def tell(done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done} of {counted(total, 'composite')} ")

    with Lake(lake) as opened:
        done = write_pages_of(opened, to, threshold=THRESHOLD if threshold is None else threshold, progress=tell)
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    say(f"{counted(done.composites, 'composite')}: open {done.start}")
    return 0


def reset(
    what: Literal["production", "events", "aliases"] = "production",
    /,
    *,
    lake: LakeURL = None,
    yes: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Remove HST's light curves, so that the next run makes them anew.

    It asks first, and backs up first. Exposures that were rejected are remembered, and skipped as before.

    Parameters
    ----------
    what
        production: all light curves, statistics and composites, with what targets match. events: only the events.
        aliases: only the names of HST's targets, which are then asked for again.
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
