"""The queries that a report consists of, by name: each is plain SQL that `lightlake sql "..."` answers in the same way.

They add up in the lake, so that a report of half a million targets is not longer than one of fifty. None has a double
quote, a dollar or a backslash, which a shell would read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from textwrap import dedent

import duckdb
import pyarrow as pa

from lake.query import Lake

# So many targets, samples, runs and kinds of losses are shown by themselves; the rest is counted.
MOST_TARGETS, MOST_SAMPLES, MOST_RUNS, MOST_LOSSES = 60, 20, 20, 30
# The sky has about so many dots at most. Of all HEALPix orders, the finest with so few is taken.
MOST_DOTS = 2_000
_ORDERS = range(4, 13)
# Where the columns of ages end, d.
AGES = (1, 7, 30, 90, 365)

# The answers of the release that the lake shows of each archive, of its targets.
_ASKED = """\
asked AS NOT MATERIALIZED (
    SELECT archive, coverage.release, target_id, status, n_rows, asked_at FROM coverage
    JOIN targets USING (target_id)
    LEFT JOIN archives USING (archive)
    WHERE coverage.release = coalesce(archives.release, coverage.release)
)"""

_TOTALS = """
SELECT (SELECT count(*) FROM targets) AS targets,
    (SELECT count(DISTINCT sample) FROM labels) AS samples,
    (SELECT count(DISTINCT archive) FROM coverage) AS archives,
    (SELECT count(*) FROM lightcurves) AS measurements,
    (SELECT count(*) FROM coverage WHERE status IN ('failed', 'rejected')) AS failed_or_rejected,
    (SELECT count(DISTINCT run_id) FROM runs) AS runs,
    (SELECT count(*) FROM files) AS files,
    (SELECT coalesce(sum(bytes), 0)::BIGINT FROM files) AS bytes
"""

_ANSWERS = """
WITH {asked}
SELECT archive, max(release) AS release, (SELECT count(*) FROM targets) AS targets,
    count(*) FILTER (status = 'found') AS found,
    count(*) FILTER (status = 'empty') AS empty,
    count(*) FILTER (status = 'failed') AS failed,
    count(*) FILTER (status = 'rejected') AS rejected,
    (SELECT count(*) FROM targets) - count(*) AS never_asked,
    sum(n_rows)::BIGINT AS measurements
FROM asked GROUP BY archive ORDER BY archive
"""

_COVERAGE = """
WITH {asked}, scores AS (
    SELECT target_id, count(*) FILTER (status IN ('failed', 'rejected')) AS lost,
        count(*) AS answers, count(*) FILTER (status = 'found') AS found
    FROM asked GROUP BY target_id
), worst AS (
    SELECT target_id, coalesce(lost, 0) AS lost, coalesce(answers, 0) AS answers, coalesce(found, 0) AS found
    FROM targets LEFT JOIN scores USING (target_id)
    ORDER BY 2 DESC, 3, 4, 1 LIMIT {most}
), placed AS (
    SELECT target_id, row_number() OVER (ORDER BY lost DESC, answers, found, target_id) AS place FROM worst
), theirs AS (SELECT * FROM asked WHERE target_id IN (SELECT target_id FROM placed))
SELECT place, target_id, name, archive, coalesce(status, 'never asked') AS status, coalesce(n_rows, 0) AS measurements
FROM placed JOIN targets USING (target_id)
CROSS JOIN (SELECT DISTINCT archive FROM asked) AS every
LEFT JOIN theirs USING (target_id, archive)
ORDER BY place, archive
"""

_SAMPLES = """
WITH {asked}, members AS (SELECT DISTINCT sample, target_id FROM labels), largest AS (
    SELECT sample, count(*) AS targets FROM members GROUP BY sample ORDER BY targets DESC, sample LIMIT {most}
)
SELECT sample, targets, archive, coalesce(found, 0) AS found, coalesce(lost, 0) AS lost,
    targets - coalesce(asked_for, 0) AS never_asked
FROM largest CROSS JOIN (SELECT DISTINCT archive FROM asked) AS every
LEFT JOIN (
    SELECT sample, archive, count(*) AS asked_for, count(*) FILTER (status = 'found') AS found,
        count(*) FILTER (status IN ('failed', 'rejected')) AS lost
    FROM members JOIN asked USING (target_id) GROUP BY sample, archive
) AS counted USING (sample, archive)
ORDER BY targets DESC, sample, archive
"""

_SKY = """
WITH points AS (SELECT target_id, sum(n_rows)::BIGINT AS n FROM coverage GROUP BY target_id)
SELECT hpx29 >> {shift} AS pixel, count(*) AS targets, coalesce(sum(n), 0)::BIGINT AS measurements,
    (degrees(atan2(avg(sin(radians(ra))), avg(cos(radians(ra))))) + 360) % 360 AS ra, avg(dec) AS dec,
    CASE count(*) WHEN 1 THEN any_value(name) END AS name, {order} AS hpx_order
FROM targets LEFT JOIN points USING (target_id) GROUP BY pixel ORDER BY pixel
"""

# MJD 40587 is 1970-01-01. A time that no calendar has is of no year.
_YEARS = """
SELECT year(make_timestamp((86400e6 * (mjd - 40587))::BIGINT)) AS year, archive, count(*) AS measurements
FROM lightcurves GROUP BY ALL ORDER BY ALL
"""

_AGES = """
WITH {asked}, aged AS (
    SELECT archive, asked_at, (epoch(TIMESTAMPTZ '{now}') - epoch(asked_at)) / 86400 AS days
    FROM asked WHERE status IN ('found', 'empty')
)
SELECT archive, cadence, {bins},
    min(asked_at) AS oldest, max(asked_at) AS newest
FROM aged LEFT JOIN archives USING (archive) GROUP BY archive, cadence ORDER BY archive
"""

_RUNS = """
SELECT run_id, name, state, started_at, ended_at, epoch(ended_at) - epoch(started_at) AS seconds, starts, message,
    count(*) OVER () AS runs
FROM (
    SELECT *, count(*) OVER (PARTITION BY run_id) AS starts FROM runs
    QUALIFY started_at = max(started_at) OVER (PARTITION BY run_id)
) ORDER BY started_at DESC LIMIT {most}
"""

# What survey files lost has no target. A granule's last attempt says why.
_MISSING = """
WITH attempts AS (
    SELECT archive, granule, release, status, n_targets, reason, started_at FROM ledger
    QUALIFY attempt = max(attempt) OVER (PARTITION BY archive, granule)
), lost AS (
    SELECT archive, granule, status, count(*) AS targets FROM coverage
    WHERE status IN ('failed', 'rejected') GROUP BY ALL
    UNION ALL
    SELECT archive, granule, status, 0 FROM attempts WHERE n_targets = 0 AND status IN ('failed', 'rejected')
)
SELECT archive, lost.status, left(reason, 300) AS reason, count(*) AS granules, sum(targets)::BIGINT AS targets,
    max(started_at) AS last_tried, count(*) OVER () AS kinds
FROM lost LEFT JOIN attempts USING (archive, granule)
GROUP BY ALL ORDER BY targets DESC, granules DESC, archive, reason LIMIT {most}
"""

_SIZES = """
SELECT table_name, nullif(regexp_extract(path, 'archive=([^/]+)', 1), '') AS archive, count(*) AS files,
    sum(rows)::BIGINT AS rows, sum(bytes)::BIGINT AS bytes
FROM files GROUP BY ALL ORDER BY table_name, archive
"""

# What a lake filled with more rows changed takes minutes to tell, and is no news.
_MOST_COMPARED = 20_000_000
_CHANGED_WITHIN = timedelta(days=7)

_CHANGES = """
SELECT archive, count(*) FILTER (change = 'new') AS new_points, count(*) FILTER (change = 'changed') AS changed_points,
    count(*) FILTER (change = 'gone') AS gone_points, count(DISTINCT source_id) AS sources, {first} AS since_snapshot
FROM {changed} GROUP BY archive ORDER BY archive
"""

_SNAPSHOTS = """
SELECT coalesce(max(snapshot_id) FILTER (snapshot_time <= $before), min(snapshot_id)) AS first, max(snapshot_id) AS last
FROM ducklake_snapshots('lake') WHERE snapshot_id > 0
"""

_BROUGHT = "SELECT coalesce(sum(n_rows), 0)::BIGINT AS n FROM ledger WHERE snapshot_id > ?"

_PIXELS = """
SELECT {counts} FROM targets
"""


@dataclass(frozen=True)
class Answer:
    """A query of a report, as it was asked, and its answer."""

    name: str
    sql: str
    table: pa.Table

    @property
    def command(self) -> str:
        """Return the command that asks the same."""
        return f'lightlake sql "\n{self.sql}\n"'


def queries(pixel_order: int, now: datetime, first: int, changed: str) -> dict[str, str]:
    """Return the queries of a report, by name.

    Parameters
    ----------
    pixel_order
        HEALPix order at which targets are counted for the map of the sky.
    now
        The time of the report, which ages of answers are counted to.
    first, changed
        A snapshot, and SQL of what changed after it.
    """
    bins = [
        f"count(*) FILTER (days < {AGES[0]}) AS to_{AGES[0]}_d",
        *(f"count(*) FILTER (days >= {low} AND days < {high}) AS to_{high}_d" for low, high in pairwise(AGES)),
        f"count(*) FILTER (days >= {AGES[-1]}) AS older",
    ]
    asked = {"asked": _ASKED}
    texts = {
        "totals": _TOTALS,
        "answers": _ANSWERS.format(**asked),
        "coverage": _COVERAGE.format(**asked, most=MOST_TARGETS),
        "samples": _SAMPLES.format(**asked, most=MOST_SAMPLES),
        "sky": _SKY.format(shift=2 * (29 - pixel_order), order=pixel_order),
        "years": _YEARS,
        "ages": _AGES.format(
            **asked, now=now.astimezone(UTC).isoformat(sep=" ", timespec="seconds"), bins=",\n    ".join(bins)
        ),
        "runs": _RUNS.format(most=MOST_RUNS),
        "missing": _MISSING.format(most=MOST_LOSSES),
        "changes": _CHANGES.format(first=first, changed=changed),
        "sizes": _SIZES,
    }
    return {name: dedent(text).strip() for name, text in texts.items()}


def ask(lake: Lake, now: datetime | None = None, names: Collection[str] | None = None) -> Mapping[str, Answer]:
    """Ask the queries of a report, all or those of some names, of one state of the lake."""
    with lake.snapshot() as cursor:
        counts = ", ".join(f"approx_count_distinct(hpx29 >> {2 * (29 - order)}) AS o{order}" for order in _ORDERS)
        (pixels,) = lake.run(_PIXELS.format(counts=counts), None, within=cursor).to_pylist()
        now = now or datetime.now(UTC)
        first, changed = _changed(lake, now, cursor)
        order = max((one for one in _ORDERS if pixels[f"o{one}"] <= MOST_DOTS), default=_ORDERS[0])
        return {
            name: Answer(name, sql, lake.run(sql, None, within=cursor))
            for name, sql in queries(order, now, first, changed).items()
            if names is None or name in names
        }


def _changed(lake: Lake, now: datetime, cursor: duckdb.DuckDBPyConnection) -> tuple[int, str]:
    """Return a snapshot that is a week old, or the oldest one, and SQL of what changed after it."""
    (found,) = lake.run(_SNAPSHOTS, {"before": now - _CHANGED_WITHIN}, within=cursor).to_pylist()
    first, last = found["first"], found["last"]
    (brought,) = lake.run(_BROUGHT, [first], within=cursor)["n"].to_pylist()
    # DuckLake calls it an error to ask for what comes after the last snapshot.
    if first == last or brought > _MOST_COMPARED:
        return last, f"changes({last - 1}, {last}) WHERE false"
    return first, f"changes({first}, {last})"
