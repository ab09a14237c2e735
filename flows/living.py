"""Tell which runs are alive: those that hold their claim in the lake, whatever Prefect last heard of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import PrefectException
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Crashed

from lake.errors import ReadOnly
from lake.query import Lake
from lake.store.catalog import Catalog
from lake.store.claims import KEEP_S, held, is_free
from lake.store.identity import tree_id

if TYPE_CHECKING:
    from rich.console import Console

FLOWS = ("pull", "refresh", "run", "virac", "rxte", "hst", "maintenance", "verify")

# A run gets this label, with the lake's id, when it holds its claim.
LABEL = "lightlake.lake"

# Seconds that a run may take from its start, as Prefect has it, to its claim.
BEGINS_S = 60.0

_ALIVE = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


@contextmanager
def living(lake: Lake) -> Iterator[None]:
    """Hold a claim that shows, for as long as this run lasts, that it is alive, and for which lake it works.

    Mark dead runs first.
    """
    run = flow_run.id
    if deployment.id:
        _outlive_reader()
    if not run:  # a plain call of the flow's function
        yield
        return
    catalog = Catalog(lake.storage, lake.settings) if lake.catalog.read_only else lake.catalog
    try:
        catalog.check_writable()
    except ReadOnly:  # a run that cannot claim anything is not searched for
        _label(run, "read-only")
        yield
        return
    while True:
        with held(catalog, _claim(run)) as ours:
            if ours:
                _label(run, _id(lake))
                with suppress(httpx.HTTPError, PrefectException), get_client(sync_client=True) as client:
                    bury(lake, client, {UUID(run)})
                yield
                return
        time.sleep(0.1)  # another process has just looked


def bury(lake: Lake, client: SyncPrefectClient, spare: Collection[UUID] = ()) -> list[FlowRun]:
    """Mark runs of this lake in Prefect that are dead although it shows them as running; return them.

    Parameters
    ----------
    spare
        Runs to skip, since their own process tells Prefect how they end.
    """
    found = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(_ALIVE)))),
    )
    dead = [run for run in found if run.id not in spare and is_of(run, lake) and _is_dead(run, lake)]
    if dead:
        # A restarted database has lost all claims: living runs claim again.
        time.sleep(2 * KEEP_S)
        dead = [run for run in dead if _is_dead(run, lake)]
    for run in dead:
        client.set_flow_run_state(run.id, _ended(run))
    return dead


def is_of(run: FlowRun, lake: Lake) -> bool:
    """Say whether a run works for a lake."""
    if (label := run.labels.get(LABEL)) is not None:
        return label == _id(lake)
    return str(run.parameters.get("lake")) == str(lake.storage.root)


def _label(run: str, label: str) -> None:
    """Label a run; it goes on even if Prefect does not answer."""
    with suppress(httpx.HTTPError, PrefectException), get_client(sync_client=True) as client:
        client.update_flow_run_labels(UUID(run), {LABEL: label})


def _is_dead(run: FlowRun, lake: Lake) -> bool:
    if LABEL not in run.labels:  # it has no claim yet
        began = run.state.timestamp if run.state else run.created
        if began is None or (datetime.now(UTC) - began).total_seconds() < BEGINS_S:
            return False
    return is_free(lake.catalog, _claim(run.id), strict=False)


def _ended(run: FlowRun) -> State[Any]:
    if run.state is not None and run.state.is_cancelling():
        return Cancelled(message="its process was gone when it was to be cancelled. What it committed stays")
    return Crashed(
        message="its process is gone: it was killed, or its machine went down. What it committed stays; the next run "
        "goes on from there"
    )


def _claim(run: object) -> str:
    return f"run-{run}"


def _id(lake: Lake) -> str:
    return tree_id(lake.storage) or str(lake.storage.root)


def _outlive_reader() -> None:
    """Let this process go on when the reader of its output is gone, such as a service that was killed.

    Rich, which prints the log, would end the run at its next line.
    """
    from rich.console import Console

    Console.on_broken_pipe = _be_quiet  # type: ignore[assignment,method-assign]


def _be_quiet(console: Console) -> None:
    console.quiet = True
