"""Tell Prefect, and so its automations, what a refresh changed."""

from __future__ import annotations

from flows.artifacts import log_errors
from lake.query import Lake
from lake.upkeep.changes import changes_summary
from tasks.events import announce_changes
from tasks.services.request_counters import Log

# Comparing more rows than these would take minutes; a refresh that brings more has filled a lake.
MOST_ROWS = 20_000_000


def tell_changes(lake: Lake, first: int, rows: int, log: Log) -> None:
    """Send the events of what changed since a snapshot; what cannot be told is logged.

    Parameters
    ----------
    lake
        The lake.
    first
        Snapshot before the refresh.
    rows
        Rows that it brought.
    log
        Log of the run.
    """
    if not rows:
        return
    if rows > MOST_ROWS:
        log.info("%d rows are too many to compare: ask lightlake changes --since %d", rows, first)
        return
    with log_errors(log, "the event of what changed"):
        found = changes_summary(lake, first)
        for line in found.lines():
            log.info(line)
        if error := announce_changes(str(lake.storage.root), found):
            log.warning("Prefect was not told what changed: %s", error)
