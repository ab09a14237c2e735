"""Show what a run brought of HST's photons: the most variable composites, and a link to the pages of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from flows.artifacts import key_of, log_errors, picture
from flows.markdown import cells, row, text
from lake.query import Lake
from lake.text import counted
from tasks.services.request_counters import Log
from tasks.sources.hst_timetag.tables import NAME

# Composites with a picture.
MOST = 6


def publish_composites(lake: Lake, folder: Path | None, log: Log) -> None:
    """Leave the most variable composites in Markdown; write the pages of all to a folder, if there is one, with a link.

    What cannot be made is logged, and the run is none the worse.
    """
    with log_errors(log, "the most variable composites"):
        if (page := most_variable(lake)) is not None:
            about = "The light curves of photons that vary most, with their pictures"
            create_markdown_artifact(page, key=key_of("composites", NAME), description=about)
    if folder is not None:
        from tasks.analysis.hst_pages import write_pages_of

        with log_errors(log, f"the pages in {folder}"):
            start = write_pages_of(lake, folder.expanduser()).start
            create_link_artifact(start.resolve().as_uri(), "Light curves of photons", key=key_of("pages", NAME))


def most_variable(lake: Lake) -> str | None:
    """Return the composites with the highest Poisson factors in Markdown; None if there are no composites."""
    from tasks.analysis.hst_charts import figure_png
    from tasks.sources.hst_timetag.hlsp_export import bins_of

    (sums,) = lake.sql(
        "SELECT count(*) AS composites, count(DISTINCT target) AS targets, sum(members) AS exposures, "
        "sum(exposure_s) / 3600 AS hours FROM hst_above(0)"
    ).to_pylist()
    if not sums["composites"]:
        return None
    found: list[dict[str, Any]] = lake.sql(
        "SELECT target, instrument, grating, cenwave, aperture, members AS exposures, round(exposure_s) AS seconds, "
        "total AS counts, round(poisson_factor, 2) AS poisson_factor, "
        f"source_id FROM hst_above(0) AS c ORDER BY c.poisson_factor DESC, source_id LIMIT {MOST}"
    ).to_pylist()
    ids = [one.pop("source_id") for one in found]
    lines = [
        "# Light curves of photons",
        "",
        f"{counted(sums['composites'], 'composite')} of {counted(sums['exposures'], 'exposure')} and "
        f"{counted(sums['targets'], 'target')}, {sums['hours']:,.1f} hours. Those with the highest Poisson factors:",
        "",
        row(*found[0]),
        f"|{'---|' * len(found[0])}",
        *(row(*cells(one).values()) for one in found),
        "",
    ]
    for one, source_id in zip(found, ids, strict=True):
        title = f"{one['target']}, {one['grating']}/{one['cenwave']}"
        lines += [
            f"**{text(title)}**",
            "",
            picture(f"Light curve of {text(title)}", figure_png(bins_of(lake, source_id))),
            "",
        ]
    lines += ["All of them: `lightlake hst pages --to FOLDER`."]
    return "\n".join(lines)
