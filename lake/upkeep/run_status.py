"""List the runs of a lake, and show how one goes: what it asked, what it brought, what its processes use."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from lake.commit.ledger import SAMPLE_GRANULE
from lake.commit.metrics import pending_rows
from lake.commit.runs import is_alive, is_stop_requested
from lake.names import unknown
from lake.query import Lake
from lake.text import counted, one_line

# The page that helps with errors from here.
HELP_TOPIC = "how-to/runs"

# Granules of the ledger that are answers of archives; the others are samples.
_OF_ARCHIVES = f"NOT starts_with(granule, '{SAMPLE_GRANULE}')"

_RUNS = f"""
    WITH brought AS (
        SELECT run_id, list(DISTINCT archive ORDER BY archive) AS archives, max(peak_rss_mb) AS peak_rss_mb
        FROM ledger WHERE run_id IS NOT NULL AND ($run IS NULL OR run_id = $run) AND {_OF_ARCHIVES} GROUP BY run_id
    ), each AS (
        SELECT run_id, archive, sum(n_targets) FILTER (status NOT IN ('split')) AS targets,
            sum(n_rows) FILTER (status IN ('done', 'empty')) AS rows
        FROM ledger WHERE run_id IS NOT NULL AND ($run IS NULL OR run_id = $run) AND {_OF_ARCHIVES} GROUP BY ALL
    ), summed AS (
        SELECT run_id, max(targets)::BIGINT AS targets, sum(rows)::BIGINT AS rows FROM each GROUP BY run_id
    ), measured AS (
        SELECT run_id, max(resident_bytes) / 1e6 AS peak_mb FROM metrics
        WHERE $run IS NULL OR run_id = $run GROUP BY run_id
    )
    SELECT runs.run_id, runs.name, runs.state, archives, targets, rows, runs.started_at, runs.ended_at, runs.host,
        runs.process, starts, spent, runs.message, runs.flow_run_id, greatest(brought.peak_rss_mb, peak_mb,
        runs.peak_rss_mb) AS peak_memory_mb
    FROM (
        SELECT *, count(*) OVER each AS starts,
            sum(epoch(ended_at) - epoch(started_at)) FILTER (ended_at IS NOT NULL AND state <> 'interrupted')
                OVER each AS spent
        FROM runs WHERE $run IS NULL OR run_id = $run
        WINDOW each AS (PARTITION BY run_id)
        QUALIFY started_at = max(started_at) OVER each
    ) AS runs
    LEFT JOIN brought USING (run_id) LEFT JOIN summed USING (run_id) LEFT JOIN measured USING (run_id)
    ORDER BY runs.started_at DESC
"""

_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("state", pa.string()),
        ("archives", pa.list_(pa.string())),
        ("targets", pa.int64()),
        ("rows", pa.int64()),
        ("started_at", pa.timestamp("us", tz="UTC")),
        ("seconds", pa.float64()),
        ("peak_memory_mb", pa.float64()),
        ("starts", pa.int64()),
        ("name", pa.string()),
        ("host", pa.string()),
        ("process", pa.int64()),
        ("message", pa.string()),
        ("flow_run_id", pa.string()),
    ]
)


def runs(lake: Lake, run_id: str | None = None) -> pa.Table:
    """Return a row for each run, the newest first, with its state: one whose process is gone is not running.

    Columns targets and rows are of the ledger: targets of the archive with most, rows of all.
    """
    rows = lake.sql(_RUNS, {"run": run_id}).to_pylist()
    now = datetime.now(UTC)
    for row in rows:
        row["state"] = state_of(lake, row)
        end = row["ended_at"] or (now if row["state"] in ("running", "stopping") else None)
        row["seconds"] = None if end is None else (end - row["started_at"]).total_seconds()
    return pa.Table.from_pylist([{name: row[name] for name in _SCHEMA.names} for row in rows], schema=_SCHEMA)


def state_of(lake: Lake, row: dict[str, Any]) -> str:
    """Return the state of a run, from its last row and its claim."""
    if row["state"] != "running":
        return str(row["state"])
    asked = is_stop_requested(lake.storage, row["run_id"])
    if is_alive(lake.catalog, row["run_id"]) is False:
        return "stopped" if asked else "interrupted"
    return "stopping" if asked else "running"


def run_named(lake: Lake, run_id: str) -> dict[str, Any]:
    """Return the row of one run.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    if not (found := runs(lake, run_id).to_pylist()):
        every = lake.sql("SELECT DISTINCT run_id FROM runs")["run_id"].to_pylist()
        raise unknown("run", run_id, every, "in the lake")
    row: dict[str, Any] = found[0]
    return row


def as_lines(table: pa.Table) -> list[str]:
    """Return runs as lines of 80 letters at most: an id that is too long has a line of its own."""
    head = ("run", "state", "arch.", "targets", "rows", "started (UTC)", "time", "MB")
    made = [
        (
            one_line(row["run_id"]),
            row["state"],
            str(len(row["archives"] or ())),
            _short(row["targets"]),
            _short(row["rows"]),
            f"{row['started_at']:%m-%d %H:%M}",
            _duration(row["seconds"]),
            "" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:.0f}",
        )
        for row in table.to_pylist()
    ]
    widths = [max(len(row[place]) for row in (head, *made)) for place in range(len(head))]
    room = 80 - sum(widths[1:]) - 2 * (len(head) - 1)
    widths[0] = min(widths[0], room)
    lines = []
    for row in (head, *made):
        first = row[0]
        if len(first) > room:
            lines.append(first)
            first = ""
        cells = [first.ljust(widths[0]), row[1].ljust(widths[1])]
        cells += [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def of_archives(lake: Lake, run_id: str) -> pa.Table:
    """Return a row for each archive of a run: granules, targets, rows, times, memory, and what it used."""
    table: pa.Table = lake.sql(
        f"""
        WITH used AS (
            SELECT archive, sum(cpu_s) AS cpu_s, sum(received)::BIGINT AS received_bytes FROM (
                SELECT archive, host, process, max(cpu_s) AS cpu_s, max(received_bytes) AS received
                FROM metrics WHERE run_id = $run AND archive IS NOT NULL GROUP BY ALL
            ) GROUP BY archive
        )
        SELECT archive, count(*) FILTER (status IN ('done', 'empty')) AS done,
            count(*) FILTER (status IN ('failed', 'rejected')) AS lost,
            sum(n_targets) FILTER (status <> 'split')::BIGINT AS targets,
            sum(n_rows) FILTER (status IN ('done', 'empty'))::BIGINT AS rows,
            (max(epoch(started_at) + seconds) - min(epoch(started_at))) / 3600 AS hours,
            sum(seconds) AS fetch_s, any_value(cpu_s) AS cpu_s, any_value(received_bytes) AS received_bytes,
            max(peak_rss_mb) AS peak_rss_mb
        FROM ledger LEFT JOIN used USING (archive) WHERE run_id = $run AND {_OF_ARCHIVES}
        GROUP BY archive ORDER BY archive
        """,
        {"run": run_id},
    )
    return table


def of_processes(lake: Lake, run_id: str) -> pa.Table:
    """Return a row for each process of a run: its last look, and the largest memory that was seen."""
    table: pa.Table = lake.sql(
        """
        SELECT host, process, max(time) AS last_seen, max(cpu_s) AS cpu_s,
            max(resident_bytes) / 1e6 AS most_memory_mb, arg_max(resident_bytes, time) / 1e6 AS memory_mb,
            max(read_bytes) AS read_bytes, max(written_bytes) AS written_bytes, max(received_bytes) AS received_bytes,
            arg_max(open_requests, time) AS open_requests
        FROM metrics WHERE run_id = $run AND archive IS NULL GROUP BY host, process ORDER BY min(time)
        """,
        {"run": run_id},
    )
    return table


def processes_now(lake: Lake, run_id: str) -> list[dict[str, Any]]:
    """Return the same, with what its processes wrote since the last commit."""
    found = {(row["host"], row["process"]): row for row in of_processes(lake, run_id).to_pylist()}
    for row in pending_rows(lake.storage, run_id):
        if row.get("archive") is not None:
            continue
        one = found.setdefault((row["host"], row["process"]), {**row, "most_memory_mb": 0.0})
        memory = (row.get("resident_bytes") or 0) / 1e6
        one |= {
            "last_seen": row["time"],
            "memory_mb": memory,
            "most_memory_mb": max(one["most_memory_mb"] or 0.0, memory),
        }
        one |= {name: row.get(name) for name in ("cpu_s", "received_bytes", "open_requests")}
    return list(found.values())


def as_text(lake: Lake, run_id: str) -> str:
    """Return how a run goes, in a few lines."""
    row = run_named(lake, run_id)
    started = f"{row['started_at']:%Y-%m-%d %H:%M:%S}"
    again = f", start {row['starts']} of this run" if row["starts"] > 1 else ""
    samples = lake.sql(
        f"SELECT granule, n_targets FROM ledger WHERE run_id = $run AND NOT ({_OF_ARCHIVES}) ORDER BY started_at",
        {"run": run_id},
    ).to_pylist()
    lines = [
        f"{one_line(run_id)}: {row['state']}, started {started} UTC by process {row['process']} on {row['host']}"
        f"{again}",
        *([f"  {one_line(row['message'])}"] if row["message"] else []),
        *(f"  {one_line(one['granule'].rpartition(':')[0])}: {counted(one['n_targets'], 'row')}" for one in samples),
    ]
    for one in of_archives(lake, run_id).to_pylist():
        used = "" if one["cpu_s"] is None else f"; {one['cpu_s']:.1f} s of processor"
        got = "" if not one["received_bytes"] else f", {one['received_bytes'] / 1e6:.1f} MB received"
        lost = f", {counted(one['lost'], 'granule')} LOST" if one["lost"] else ""
        lines.append(
            f"  {one['archive']}: {counted(one['targets'], 'target')}, "
            f"{counted(one['rows'] or 0, 'row')}{lost}{used}{got}"
        )
    for one in processes_now(lake, run_id):
        lines.append(
            f"  process {one['process']} on {one['host']}: {one['cpu_s']:.1f} s of processor, "
            f"{one['most_memory_mb']:.0f} MB at most, {counted(one['open_requests'] or 0, 'request')} open at "
            f"{one['last_seen']:%H:%M:%S}"
        )
    return "\n".join(lines)


def watch(lake: Lake, run_id: str, tell: Callable[[str], None], every_s: float) -> None:
    """Report how a run goes whenever that changes, until it has ended."""
    told = ""
    while True:
        ended = run_named(lake, run_id)["state"] not in ("running", "stopping")
        text = as_text(lake, run_id)
        if text != told:
            tell(text)
            told = text
        if ended:
            return
        time.sleep(every_s)


def _short(number: int | None) -> str:
    """Write a number in six letters at most."""
    if number is None:
        return ""
    for limit, unit in ((10**6, ""), (10**9, "M"), (10**12, "G")):
        if number < limit:
            return str(number) if not unit else f"{number / (limit / 1000):.4g}"[:5] + unit
    return f"{number:.0e}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
