"""The command `lightlake hst pages`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lake.cli import LakeURL
from lake.output import say


def pages(
    *, to: Path, lake: LakeURL = None, threshold: Annotated[float | None, Parameter(name="--threshold")] = None
) -> int:
    """Write pages of all composites of COS and STIS: dashboards, periodograms, tables that sort, charts.

    Parameters
    ----------
    to
        Folder to write to; index.html is the first page.
    threshold
        Poisson factor from which on a light curve is interesting; default: 1.2.
    """
    from lake.query import Lake
    from tasks.analysis.hst_pages import THRESHOLD, write_pages
    from tasks.sources.hst_timetag.hlsp_export import bins_of

    def tell(done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done} of {total} composites ")

    with Lake(lake) as opened:
        statistics = opened.sql("SELECT * FROM hst_statistics")
        exposures = opened.sql(
            "SELECT *, source_id AS exposure_id FROM hst_exposures WHERE product = 'exposure' ORDER BY source_id"
        )
        done = write_pages(
            to,
            statistics,
            exposures,
            lambda source: bins_of(opened, source),
            threshold=THRESHOLD if threshold is None else threshold,
            progress=tell,
        )
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    say(f"{done.composites} composites shown from {done.start} on")
    return 0
