"""Draw what a run used: processor, memory, bytes and requests, by archive and over time."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import pandas as pd

from lake.errors import ConfigurationError
from lake.query import Lake
from lake.text import one_line
from tasks.analysis.figures.light_curve import WIDTH
from tasks.analysis.figures.page import Packed, write_page
from tasks.analysis.figures.pictures import chart_png

# The page that helps with errors from here.
HELP_TOPIC = "how-to/runs"

# A plot has at most so many points of a line: beyond that, looks are joined.
_MOST = 600

_WHOLE = "all"

_SHORT_S, _DAY_S = 1_200, 86_400

# What is drawn: column, title, and whether it is of whole processes.
_PANELS = (
    ("cores", "Processor cores in use", False),
    ("mb_per_s", "Received, MB/s", False),
    ("open_requests", "Open requests", False),
    ("resident_mb", "Memory of processes, MB", True),
    ("disk_mb_per_s", "Read and written, MB/s", True),
)


def usage_of(lake: Lake, run_id: str) -> pd.DataFrame:
    """Return what a run used, between one look and the next, summed over its processes.

    Returns
    -------
    pandas.DataFrame
        Columns time, archive (all: the whole processes), cores, mb_per_s, open_requests, resident_mb, disk_mb_per_s.
    """
    frame: pd.DataFrame = lake.sql(
        """
        WITH looks AS (
            SELECT *, epoch(time) AS t, min(epoch(time)) OVER () AS began,
                greatest(max(epoch(time)) OVER () - min(epoch(time)) OVER (), 1) AS lasted
            FROM metrics WHERE run_id = $run
        ), steps AS (
            SELECT archive, host, process, t, began, lasted, open_requests, resident_bytes,
                t - lag(t) OVER one AS dt, cpu_s - lag(cpu_s) OVER one AS cpu_s,
                received_bytes - lag(received_bytes) OVER one AS received_bytes,
                read_bytes + written_bytes - lag(read_bytes + written_bytes) OVER one AS disk_bytes
            FROM looks WINDOW one AS (PARTITION BY host, process, archive ORDER BY t)
        ), binned AS (
            SELECT coalesce(archive, $whole) AS archive, host, process,
                began + (floor((t - began) / greatest(lasted / $most, 1)) + 0.5) * greatest(lasted / $most, 1) AS t,
                sum(cpu_s) / nullif(sum(dt), 0) AS cores, sum(received_bytes) / nullif(sum(dt), 0) / 1e6 AS mb_per_s,
                avg(open_requests) AS open_requests, max(resident_bytes) / 1e6 AS resident_mb,
                sum(disk_bytes) / nullif(sum(dt), 0) / 1e6 AS disk_mb_per_s
            FROM steps GROUP BY ALL
        )
        SELECT make_timestamp((t * 1e6)::BIGINT) AS time, archive, sum(cores) AS cores, sum(mb_per_s) AS mb_per_s,
            sum(open_requests) AS open_requests, sum(resident_mb) AS resident_mb, sum(disk_mb_per_s) AS disk_mb_per_s
        FROM binned GROUP BY ALL ORDER BY time, archive
        """,
        {"run": run_id, "whole": _WHOLE, "most": _MOST},
        form="pandas",
    )
    return frame


def run_chart(lake: Lake, run_id: str) -> alt.VConcatChart:
    """Return the plots of what a run used, one below the other.

    Raises
    ------
    ConfigurationError
        If nothing was measured.
    """
    frame = usage_of(lake, run_id)
    if not len(frame):
        raise ConfigurationError(
            f"nothing is recorded of what the run {run_id} used", hint="see LIGHTLAKE_METRICS_EVERY_S"
        )
    lasted_s = (frame["time"].max() - frame["time"].min()).total_seconds()
    clock = "%H:%M:%S" if lasted_s < _SHORT_S else "%H:%M" if lasted_s < _DAY_S else "%m-%d %H:%M"
    panels = []
    for column, title, whole in _PANELS:
        rows = frame[(frame["archive"] == _WHOLE) == whole][["time", "archive", column]].dropna()
        panels.append(
            alt.Chart(rows)
            .mark_line(interpolate="step-after", point={"size": 12})
            .encode(
                x=alt.X("time:T", title="Time (UTC)", axis=alt.Axis(format=clock, tickCount=8)),
                y=alt.Y(f"{column}:Q", title=None),
                color=alt.value("#555555") if whole else alt.Color("archive:N", scale=alt.Scale(scheme="tableau20")),
                tooltip=[
                    "archive:N",
                    alt.Tooltip("time:T", format="%H:%M:%S"),
                    alt.Tooltip(f"{column}:Q", format=".3g"),
                ],
            )
            .properties(
                width=WIDTH, height=130, title=alt.TitleParams(title, anchor="start", fontSize=12, fontWeight="normal")
            )
        )
    chart: alt.VConcatChart = alt.vconcat(*panels).resolve_scale(x="shared", color="shared")
    words = alt.TitleParams(f"What the run {one_line(run_id)} used", anchor="start")
    drawn: alt.VConcatChart = chart.properties(title=words).configure_legend(orient="bottom", title=None)
    return drawn


def write_run_page(lake: Lake, run_id: str, path: Path) -> Path:
    """Write a page with these plots; it needs no network."""
    return write_page([Packed.of(run_chart(lake, run_id).to_dict())], f"Run {run_id}", path)


def run_png(lake: Lake, run_id: str) -> bytes:
    """Return these plots as a picture."""
    return chart_png(run_chart(lake, run_id))
