"""Places at an archive: how many tasks of all runs of one Prefect server, of whatever lake, ask it at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect import get_run_logger
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
    TaskRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from flows.living import bury, is_of
from lake.errors import ArchiveError
from lake.query import Lake
from tasks.archives.base import Archive

# Seconds until a run that waits looks again whether those whose places it waits for are alive.
LOOK_AGAIN_S = 20.0


@contextmanager
def places(lake: Lake, source: Archive, count: int) -> Iterator[None]:
    """Have places at an archive, from beginning to end of a run that has the archive's turn in its lake.

    A task that took one for itself would wait whenever Prefect's server, on SQLite, is busy with another's.

    Parameters
    ----------
    count
        How many.

    Raises
    ------
    ArchiveError
        If they are not to be had within LIGHTLAKE_TURN_TIMEOUT_S; it says who has them.
    """
    log, end, told = get_run_logger(), time.monotonic() + lake.settings.turn_timeout_s, ""
    limit = lake.settings.archive_concurrency
    with ExitStack() as stack:
        while True:
            taken, by = _taken(lake, source.name, limit)
            if taken + count > limit and by != told:
                told = by
                log.warning("other runs have %d places at %s: waiting for %s", taken, source.name, told)
            try:
                # The shortest lease: after it, those of a run of another lake that was killed are free again.
                stack.enter_context(
                    concurrency(_name(source.name), occupy=count, lease_duration=60, timeout_seconds=LOOK_AGAIN_S)
                )
                break
            except TimeoutError:
                if time.monotonic() > end:
                    raise ArchiveError(
                        f"waited {lake.settings.turn_timeout_s:g} s for the places of {by}", archive=source.name,
                        endpoint=source.reach(lake.settings), hint="end those, or set LIGHTLAKE_TURN_TIMEOUT_S",
                    ) from None  # fmt: skip
        yield


def _name(archive: str) -> str:
    return f"lightlake-{archive}"


def _taken(lake: Lake, archive: str, limit: int) -> tuple[int, str]:
    """Make sure that Prefect lets only so many tasks at an archive at once; return how many places who has of them.

    A run that was killed leaves its places taken: until their lease ends, or for good, if Prefect's server was started
    anew and keeps leases in memory. Those of this lake are dead, since this run has the turn; those of other lakes
    live as long as Prefect says so.
    """
    name = _name(archive)
    with get_client(sync_client=True) as client:
        try:
            taken = client.read_global_concurrency_limit_by_name(name).active_slots
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))
            return 0, ""
        others: list[FlowRun] = []
        if taken and client.server_type is not ServerType.EPHEMERAL:
            bury(lake, client)
            others = [run for run in _asking(client, archive) if not is_of(run, lake)]
        free = {} if others else {"active_slots": 0}
        client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=limit, **free))
        return (taken if others else 0), ", ".join(sorted(repr(run.name) for run in others))


def _asking(client: SyncPrefectClient, archive: str) -> list[FlowRun]:
    """Return runs of this server that have a task at an archive, as far as Prefect knows."""
    running = [StateType.RUNNING]
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=running))),
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=running)),
            tags=TaskRunFilterTags(all_=[archive]),
        ),
    )
