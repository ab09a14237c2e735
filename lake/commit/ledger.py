"""The ledger of attempts at granules, and which targets an archive is still to be asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import duckdb
import pyarrow as pa

from lake.errors import PartlyCommitted
from lake.model.schema import TABLES
from lake.redact import redacted, safe_line, safe_text
from lake.science.motion import Followed
from lake.store.catalog import Catalog
from lake.store.migrations import INLINED_ROWS, SOFTWARE
from lake.store.storage import Storage, write_text
from lake.store.walk import shown

# Which targets, or granules, a run asks for: those without an answer, those that failed or were rejected, or all.
Select = Literal["pending", "failed", "all"]

# Granules that begin so are lists of targets that a service gave, not answers of an archive.
SAMPLE_GRANULE = "sample:"

_run: ContextVar[str | None] = ContextVar("run", default=None)


def current_run() -> str | None:
    """Return the id of the run that this work belongs to; None if it belongs to none."""
    return _run.get()


@contextmanager
def in_run(run_id: str | None) -> Iterator[None]:
    """Let attempts that are made meanwhile, by this thread and those that copy its context, belong to a run."""
    token = _run.set(run_id)
    try:
        yield
    finally:
        _run.reset(token)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a granule: the ledger's row, before the commit adds its number and snapshot; without secrets."""

    archive: str
    release: str
    granule: str
    status: str
    started_at: datetime
    n_targets: int = 0
    n_sources: int = 0
    n_rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    parameters: str = "{}"
    reason: str | None = None
    error_type: str | None = None
    error: str | None = None
    peak_rss_mb: float | None = None
    endpoint: str | None = None
    input_checksum: str | None = None
    software: str = SOFTWARE
    n_found: int = 0
    n_unanswered: int = 0  # not a column: coverage says which
    retries: int = 0
    requests: int | None = None
    run_id: str | None = field(default_factory=current_run)

    def __post_init__(self) -> None:
        """Remove secrets from errors and addresses; make names of files text."""
        cleaned = {"reason": safe_line, "error": safe_text, "endpoint": redacted, "parameters": redacted}
        for name, value in vars(self).items():
            if isinstance(value, str):
                object.__setattr__(self, name, cleaned.get(name, str)(shown(value)))

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, times in ISO 8601."""
        return {**vars(self), "started_at": self.started_at.isoformat()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Attempt:
        """Read it back from plain data."""
        return cls(**{**data, "started_at": datetime.fromisoformat(data["started_at"])})


def write_plan(storage: Storage, archive: str, granules: Sequence[str]) -> None:
    """Write the granules of a run, finished ones among them, for those who watch it."""
    text = json.dumps({"granules": len(granules), "ids": list(granules)})
    write_text(storage.staging / "plans" / f"{archive}.json", text)


def read_plan(storage: Storage, archive: str) -> list[str] | None:
    """Return the granules of an archive's last run; None if no run has written them."""
    try:
        noted = json.loads((storage.staging / "plans" / f"{archive}.json").read_text())
    except FileNotFoundError:
        return None
    ids: list[str] | None = noted.get("ids")  # earlier versions wrote only their number
    return ids


def canonical(parameters: Mapping[str, Any]) -> str:
    """Return parameters as JSON; equal values give equal text."""
    return json.dumps(parameters, sort_keys=True, separators=(",", ":"), default=str)


def numbers(cursor: duckdb.DuckDBPyConnection, attempts: Sequence[Attempt]) -> list[int] | None:
    """Return the numbers in the ledger of attempts that are committed together; None if they are in it already.

    Raises
    ------
    PartlyCommitted
        If only some of them are.
    """
    granules = [attempt.granule for attempt in attempts]
    known_rows = cursor.execute(
        "SELECT granule, max(attempt), list(started_at) FROM ledger "
        "WHERE granule IN (SELECT unnest(?)) GROUP BY granule",
        [granules],
    ).fetchall()
    earlier = {granule: (last, set(starts)) for granule, last, starts in known_rows}
    known = [earlier.get(granule, (0, set())) for granule in granules]
    recorded = [attempt.started_at in starts for attempt, (_, starts) in zip(attempts, known, strict=True)]
    if all(recorded):
        return None
    if any(recorded):
        granule = granules[recorded.index(True)]
        raise PartlyCommitted(f"{granule} is committed, others of its batch are not", hint="run it again")
    return [int(last) + 1 for last, _ in known]


def rows(attempts: Sequence[Attempt], numbers: Sequence[int], snapshot_id: int) -> pa.Table:
    """Return attempts as rows of the ledger."""
    made = [
        {**vars(attempt), "attempt": number, "snapshot_id": snapshot_id}
        for attempt, number in zip(attempts, numbers, strict=True)
    ]
    return TABLES["ledger"].cast(pa.Table.from_pylist(made).drop_columns("n_unanswered"))


def record(
    cursor: duckdb.DuckDBPyConnection, attempts: Sequence[Attempt], numbers: Sequence[int], snapshot_id: int
) -> None:
    """Write attempts into the ledger, inside the caller's transaction: so few at a time that they make no file."""
    cursor.register("attempts", rows(attempts, numbers, snapshot_id))
    for start in range(0, len(attempts), INLINED_ROWS):
        cursor.execute(f"INSERT INTO ledger BY NAME FROM attempts LIMIT {INLINED_ROWS} OFFSET {start}")
    cursor.unregister("attempts")


def failed_targets(
    cursor: duckdb.DuckDBPyConnection, archive: str, release: str, granules: Sequence[str], most: int
) -> dict[str, list[str]]:
    """Return the names, or else ids, of some targets of each granule that failed or were rejected."""
    found = cursor.execute(
        "SELECT granule, list(coalesce(name, target_id::VARCHAR) ORDER BY hpx29)[:?] FROM coverage "
        "JOIN targets USING (target_id) WHERE archive = ? AND release = ? AND status IN ('failed', 'rejected') "
        "AND granule IN (SELECT unnest(?)) GROUP BY granule",
        [most, archive, release, list(granules)],
    ).fetchall()
    return dict(found)


def count_failed(cursor: duckdb.DuckDBPyConnection, archive: str, release: str) -> int:
    """Count the targets for which an archive returned no answer."""
    counted = cursor.execute(
        "SELECT count(*) FROM coverage WHERE archive = ? AND release = ? AND status = 'failed'", [archive, release]
    ).fetchall()
    return int(counted[0][0])


_TARGETS = """
    FROM targets
    WHERE ({everyone} OR target_id IN (SELECT target_id FROM labels WHERE sample IN ({samples})))
"""

# What was rejected has its answer, which is bad: it counts as answered, and so do its age and its parameters.
_PENDING = """
        AND NOT EXISTS (
            FROM coverage
            WHERE coverage.target_id = targets.target_id AND archive = ? AND release = ? AND {answered}
                AND status <> 'failed' AND asked_at BETWEEN ? AND ?
        )
"""

_FAILED = """
        AND EXISTS (
            FROM coverage
            WHERE coverage.target_id = targets.target_id AND archive = ? AND release = ? AND {asked}
                AND status IN ({statuses})
        )
"""

# A granule that fails again has the same id, and its next number; with other targets in it, it is another granule.
_RESTING = """
        AND NOT EXISTS (
            FROM coverage JOIN (
                SELECT granule, max(attempt) AS times FROM ledger WHERE archive = ? AND status = 'failed'
                GROUP BY granule
            ) USING (granule)
            WHERE coverage.target_id = targets.target_id AND archive = ? AND release = ? AND {asked}
                AND status = 'failed' AND asked_at <= ?
                AND asked_at + to_hours(least(1 << (least(times, 30) - 1), ?)::INTEGER) > ?
        )
"""

# A time ahead of the clock by more than this comes from a wrong clock, here or there.
AHEAD = timedelta(minutes=10)

# Tables with times, and the column.
_DATED = {"coverage": "asked_at", "ledger": "started_at", "labels": "added_at", "targets": "added_at"}


def dated_ahead(cursor: duckdb.DuckDBPyConnection, table: str) -> dict[str, tuple[int, datetime]]:
    """Return how many rows of a table are dated in the future, and the latest of their times, by archive and release.

    Parameters
    ----------
    table
        coverage, ledger, labels or targets; the last two are of no archive.
    """
    column = _DATED[table]
    archive = "archive || ' ' || release" if "archive" in TABLES[table].names else "''"
    rows = cursor.execute(
        f"SELECT {archive} AS who, count(*), max({column}) FROM {table} WHERE {column} > ? GROUP BY who ORDER BY who",
        [datetime.now(UTC) + AHEAD],
    ).fetchall()
    return {who: (count, latest) for who, count, latest in rows}


# After a failure scheduled runs skip its targets for an hour, after each further failure for twice as long; at most:
MOST_HOURS = 7 * 24


def _pending_sql(
    archive: str,
    release: str,
    parameters: str,
    samples: Sequence[str] | None,
    max_age: timedelta | None,
    select: Select,
    back_off: bool,
    followed: Followed | None,
) -> tuple[str, list[Any]]:
    now = datetime.now(UTC)
    # Where answers age, one dated in the future never would.
    oldest, latest = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
    if max_age is not None:
        oldest, latest = now - max_age, now + min(max_age, AHEAD)
    marks = ", ".join("?" * len(samples or ())) or "NULL"
    asked, forms = _asked_as(parameters, followed)
    sql = _TARGETS.format(everyone="true" if samples is None else "false", samples=marks)
    values: list[Any] = [*(samples or ())]
    if select == "pending":
        # An answer that did not follow a proper motion is one of those that did not need to.
        answered = asked if followed is None else f"(parameters = ? OR parameters = ? AND NOT {followed.is_far})"
        sql += _PENDING.format(answered=answered)
        values += [archive, release, *forms, oldest, latest]
    elif select == "failed":
        sql += _FAILED.format(asked=asked, statuses="'failed', 'rejected'")
        values += [archive, release, *forms]
    if back_off:
        sql += _RESTING.format(asked=asked)
        values += [archive, archive, release, *forms, now + AHEAD, MOST_HOURS, now]
    return sql, values


def _asked_as(parameters: str, followed: Followed | None) -> tuple[str, list[str]]:
    """Return the condition that coverage has these parameters, and its values."""
    if followed is None:
        return "parameters = ?", [parameters]
    return "parameters IN (?, ?)", [followed.parameters, parameters]


@dataclass(frozen=True)
class Waiting:
    """Number of targets that an archive is still to be asked for, by reason.

    Parameters
    ----------
    new
        Never asked for, or not with these parameters.
    old
        Answered, too long ago, or before proper motion was followed.
    failed
        Asked for, without an answer.
    rejected
        Asked for, with an answer that was rejected.
    """

    new: int
    old: int
    failed: int
    rejected: int = 0

    @property
    def total(self) -> int:
        """Return how many there are."""
        return self.new + self.old + self.failed + self.rejected


def count_pending(
    cursor: duckdb.DuckDBPyConnection,
    archive: str,
    release: str,
    parameters: str,
    samples: Sequence[str] | None = None,
    max_age: timedelta | None = None,
    *,
    select: Select = "pending",
    back_off: bool = False,
    followed: Followed | None = None,
) -> int:
    """Count the targets that an archive is still to be asked for."""
    sql, values = _pending_sql(archive, release, parameters, samples, max_age, select, back_off, followed)
    return int(cursor.execute(f"SELECT count(*) {sql}", values).fetchall()[0][0])


def waiting(
    cursor: duckdb.DuckDBPyConnection,
    archive: str,
    release: str,
    parameters: str,
    samples: Sequence[str] | None = None,
    max_age: timedelta | None = None,
    *,
    select: Select = "pending",
    back_off: bool = False,
    followed: Followed | None = None,
) -> Waiting:
    """Count the same targets by reason."""
    sql, values = _pending_sql(archive, release, parameters, samples, max_age, select, back_off, followed)
    asked, forms = _asked_as(parameters, followed)
    counts = cursor.execute(
        "SELECT count(*) FILTER (status IS NULL), count(*) FILTER (status IN ('found', 'empty')), "
        "count(*) FILTER (status = 'failed'), count(*) FILTER (status = 'rejected') "
        f"FROM (SELECT target_id {sql}) LEFT JOIN (SELECT target_id, "
        f"arg_max(status, asked_at) AS status FROM coverage WHERE archive = ? AND release = ? AND {asked} "
        "GROUP BY target_id) USING (target_id)",
        [*values, archive, release, *forms],
    ).fetchall()[0]
    return Waiting(*map(int, counts))


def count_rejected(
    cursor: duckdb.DuckDBPyConnection,
    archive: str,
    release: str,
    parameters: str,
    samples: Sequence[str] | None = None,
    followed: Followed | None = None,
) -> int:
    """Count the targets whose answer was rejected: a run skips them until it is made to retry what failed."""
    asked, forms = _asked_as(parameters, followed)
    marks = ", ".join("?" * len(samples or ())) or "NULL"
    sql = _TARGETS.format(everyone="true" if samples is None else "false", samples=marks)
    sql += _FAILED.format(asked=asked, statuses="'rejected'")
    values = [*(samples or ()), archive, release, *forms]
    return int(cursor.execute(f"SELECT count(*) {sql}", values).fetchall()[0][0])


@dataclass(frozen=True)
class History:
    """Totals of the answered granules of an archive."""

    n_targets: int
    seconds: float
    n_rows: int
    bytes: int


def history(cursor: duckdb.DuckDBPyConnection, archive: str, release: str) -> History:
    """Sum up the granules of targets that an archive answered."""
    row = cursor.execute(
        "SELECT coalesce(sum(n_targets), 0), coalesce(sum(seconds), 0), coalesce(sum(n_rows), 0), "
        "coalesce(sum(bytes), 0) FROM ledger "
        "WHERE archive = ? AND release = ? AND status IN ('done', 'empty') AND n_targets > 0",
        [archive, release],
    ).fetchall()[0]
    return History(int(row[0]), float(row[1]), int(row[2]), int(row[3]))


def pending(
    catalog: Catalog,
    archive: str,
    release: str,
    parameters: str,
    samples: Sequence[str] | None = None,
    max_age: timedelta | None = None,
    *,
    select: Select = "pending",
    back_off: bool = False,
    followed: Followed | None = None,
    batch_size: int,
) -> Iterator[pa.Table]:
    """Yield the targets that an archive is still to be asked for, neighbours together.

    Parameters
    ----------
    archive, release, parameters
        The question; parameters as canonical JSON. A target asked with other parameters is due.
    samples
        Only targets of these samples; None for all.
    max_age
        An answer older than this is due, and so is one dated in the future; None if answers never age.
    select
        failed: only targets that failed or were rejected; all: every target.
    back_off
        Skip targets that failed recently: for an hour, and twice as long after each further failure.
    followed
        For an archive that follows proper motion: an answer that did not is due again if the target was far from the
        place that was searched.
    batch_size
        Rows of each table.

    Yields
    ------
    pa.Table
        Columns of table targets, in the order of hpx29.
    """
    sql, values = _pending_sql(archive, release, parameters, samples, max_age, select, back_off, followed)
    # Only ids are kept. A query that stays open between batches would block commits to a SQLite catalogue, and an open
    # cursor would keep its DuckDB alive.
    with catalog.borrowed() as cursor:
        ids = cursor.execute(f"SELECT hpx29, target_id {sql} ORDER BY hpx29, target_id", values).to_arrow_table()
    for start in range(0, ids.num_rows, batch_size):
        batch = ids.slice(start, batch_size)
        with catalog.borrowed() as cursor:
            cursor.register("batch", batch)
            targets = cursor.execute(
                "SELECT * FROM targets WHERE hpx29 BETWEEN ? AND ? AND target_id IN (SELECT target_id FROM batch) "
                "ORDER BY hpx29, target_id",
                [batch["hpx29"][0].as_py(), batch["hpx29"][-1].as_py()],
            ).to_arrow_table()
            cursor.unregister("batch")
        yield targets
