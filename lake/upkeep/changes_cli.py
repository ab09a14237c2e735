"""The command `lightlake changes`."""

from __future__ import annotations

from pathlib import Path

from lake.cli import LakeURL
from lake.output import Output, say, show
from lake.text import one_line


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
