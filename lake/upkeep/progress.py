"""Progress of an archive's granules, read from the ledger, so that any process can watch any run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from lake.commit.ledger import read_plan
from lake.names import check_archive
from lake.query import Lake
from lake.text import as_size, counted

# The rate counts granules that ended within this time.
RECENT = timedelta(minutes=15)

_SLOWEST = 5


@dataclass(frozen=True)
class Progress:
    """Progress of an archive's granules, by the last attempt at each.

    The granules are those of the last run, if it recorded its plan, as surveys do. Otherwise they are all granules of
    the ledger, except those whose targets were all answered in other granules since.

    Parameters
    ----------
    granules
        Their number in the plan of the last run; None if no run recorded one.
    done, empty, rejected, failed
        Number of granules with each status.
    rows, bytes
        Measurements, and bytes of Parquet, of done granules.
    per_minute
        Granules that ended per minute, recently; None if none did.
    expected_end
        When the last granule ends at that rate.
    median_s, longest_s
        Time that a done granule took, s.
    retries, requests
        Retries, and requests sent, in all attempts; None if not known.
    peak_rss_mb
        Largest peak memory of a process, MB.
    """

    archive: str
    granules: int | None
    done: int
    empty: int
    rejected: int
    failed: int
    rows: int
    bytes: int
    per_minute: float | None
    expected_end: datetime | None
    median_s: float | None
    longest_s: float | None
    retries: int | None
    requests: int | None
    peak_rss_mb: float | None

    @property
    def ended(self) -> int:
        """Return how many have ended, with any status."""
        return self.done + self.empty + self.rejected + self.failed

    @property
    def waiting(self) -> int | None:
        """Return how many have not been tried; None if their number is not known."""
        return None if self.granules is None else max(0, self.granules - self.ended)

    def as_table(self) -> pa.Table:
        """Convert it to a table of one row."""
        return pa.Table.from_pylist([asdict(self) | {"waiting": self.waiting}])


_LAST = """(
            SELECT * FROM ledger WHERE archive = $archive AND status <> 'split' AND CASE
                WHEN $planned::VARCHAR[] IS NOT NULL THEN granule IN (SELECT unnest($planned::VARCHAR[]))
                ELSE n_targets = 0 OR granule IN (SELECT granule FROM coverage WHERE archive = $archive) END
            QUALIFY attempt = max(attempt) OVER (PARTITION BY granule)
        )"""


def progress(lake: Lake, archive: str) -> Progress:
    """Read the progress of an archive's granules from the ledger.

    Raises
    ------
    ConfigurationError
        If there is no such archive.
    """
    now = datetime.now(UTC)
    planned = read_plan(lake.storage, archive)
    (row,) = lake.sql(
        f"""
        SELECT count(*) FILTER (status = 'done') AS done, count(*) FILTER (status = 'empty') AS empty,
            count(*) FILTER (status = 'rejected') AS rejected, count(*) FILTER (status = 'failed') AS failed,
            coalesce(sum(n_rows) FILTER (status = 'done'), 0)::BIGINT AS rows,
            coalesce(sum(bytes) FILTER (status = 'done'), 0)::BIGINT AS bytes,
            median(seconds) FILTER (status = 'done') AS median_s, max(seconds) FILTER (status = 'done') AS longest_s,
            max(peak_rss_mb) AS peak_rss_mb,
            count(*) FILTER (started_at + to_seconds(seconds) BETWEEN $since AND $now) AS recent,
            min(started_at) FILTER (started_at + to_seconds(seconds) BETWEEN $since AND $now) AS recent_start
        FROM {_LAST}
        """,
        {"archive": archive, "planned": planned, "since": now - RECENT, "now": now},
    ).to_pylist()
    (spent,) = lake.sql(
        "SELECT sum(retries)::BIGINT AS retries, sum(requests)::BIGINT AS requests FROM ledger "
        "WHERE archive = $archive",
        {"archive": archive},
    ).to_pylist()
    recent, since = row.pop("recent"), row.pop("recent_start")
    if not any(row[name] for name in ("done", "empty", "rejected", "failed")):
        check_archive(lake, archive)
    granules = None if planned is None else len(set(planned))
    per_minute = end = None
    if recent:
        per_minute = recent / max((now - max(since, now - RECENT)).total_seconds() / 60, 1 / 60)
        if granules is not None:
            left = granules - sum(row[name] for name in ("done", "empty", "rejected", "failed"))
            end = now + timedelta(minutes=left / per_minute) if left > 0 else None
    return Progress(archive=archive, granules=granules, per_minute=per_minute, expected_end=end, **row, **spent)


def slowest(lake: Lake, archive: str, n: int = _SLOWEST) -> pa.Table:
    """Return the granules that took longest, with status, seconds, rows and memory."""
    table: pa.Table = lake.sql(
        f"""
        SELECT regexp_extract(endpoint, '[^/]*$') AS granule, status, round(seconds, 1) AS seconds, retries, n_sources,
            n_rows, round(peak_rss_mb) AS peak_rss_mb
        FROM {_LAST} ORDER BY seconds DESC, granule LIMIT $n
        """,
        {"archive": archive, "planned": read_plan(lake.storage, archive), "n": n},
    )
    return table


def as_text(now: Progress) -> str:
    """Format progress in a few lines."""
    total = "" if now.granules is None else f" of {now.granules} ({100 * now.ended / max(now.granules, 1):.1f} %)"
    lines = [
        f"{now.archive}: {counted(now.ended, 'granule')} ended{total}: {now.done} done, {now.empty} empty, "
        f"{now.rejected} rejected, {now.failed} failed",
        f"  {counted(now.rows, 'row')}, {as_size(now.bytes)} of Parquet",
    ]
    if now.median_s is not None:
        memory = "" if now.peak_rss_mb is None else f"; memory of a process at most {now.peak_rss_mb:.0f} MB"
        lines.append(f"  {now.median_s:.1f} s each (median), {now.longest_s:.1f} s at most{memory}")
    if now.retries is not None:
        asked = "" if now.requests is None else f", {counted(now.requests, 'request')}"
        lines.append(f"  {counted(now.retries, 'retry', 'retries')}{asked}")
    rate = "none ended recently" if now.per_minute is None else f"{now.per_minute:.1f} a minute"
    end = "" if now.expected_end is None else f", the last one at {now.expected_end.astimezone():%Y-%m-%d %H:%M:%S}"
    lines.append(f"  {rate}{end}")
    return "\n".join(lines)


def watch(lake: Lake, archive: str, tell: Callable[[str], None], every_s: float) -> None:
    """Report the progress of an archive whenever it changes, until no granule is waiting."""
    reported = ""
    while True:
        now = progress(lake, archive)
        text = as_text(now)
        if text != reported:
            tell(text)
            reported = text
        if not now.waiting:
            return
        time.sleep(every_s)
