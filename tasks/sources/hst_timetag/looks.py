"""Remember until when MAST was looked through for exposures that became public."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from lake.commit.commit import commit
from lake.commit.ledger import Attempt
from lake.commit.staging import stage
from lake.query import Lake
from lake.store.memory import peak_rss_mb
from tasks.services.request_counters import facts
from tasks.sources.granule_status import last_status
from tasks.sources.hst_timetag.tables import NAME, ORIGIN
from tasks.sources.protocol import Receipts

# How far back the first look goes.
FIRST = timedelta(days=30)

# The granule of looks: each look is an attempt at it.
GRANULE = f"{NAME}-new"


def since(lake: Lake, now: datetime, *, is_first: bool = False) -> datetime:
    """Return from when on exposures are new: the last look, or the first one."""
    which = "min" if is_first else "max"
    (row,) = lake.sql(
        f"SELECT {which}(started_at) AS at FROM ledger WHERE archive = ? AND granule = ? AND status = 'empty'",
        [NAME, GRANULE],
    ).to_pylist()
    if row["at"] is None:
        return now - FIRST
    last: datetime = row["at"].astimezone(UTC)
    return last - FIRST if is_first else last


def note(lake: Lake, asked_at: datetime, endpoint: str, granules: Sequence[str]) -> Receipts:
    """Note a look in the ledger, unless exposures failed that the next run is to find again."""
    last = last_status(lake, NAME, [ORIGIN.release])
    if all(last.get(granule) in ("done", "empty", "rejected") for granule in granules):
        seconds = (datetime.now(UTC) - asked_at).total_seconds()
        attempt = Attempt(NAME, ORIGIN.release, GRANULE, "empty", asked_at, endpoint=endpoint)
        attempt = replace(attempt, seconds=seconds, peak_rss_mb=peak_rss_mb(), **facts())
        commit(lake.catalog, stage(lake.storage.staging / NAME / GRANULE, attempt, {}))
    return []
