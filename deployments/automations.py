"""Create Prefect automations: they report failed runs and varied light curves, and mark silent runs as crashed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, get_current_settings

from deployments.deployed import NAME
from deployments.kept_deployment import definition
from lake.errors import ConfigurationError
from tasks.events import CURVES_VARIED, LAKE

# The page that helps with errors from here.
HELP_TOPIC = "how-to/prefect"

FAILED_RUNS, SILENT_RUNS = "lightlake: failed runs", "lightlake: silent runs"
VARIED = "lightlake: brightenings and fadings"

# Heartbeats in a row that a run may miss before it counts as crashed.
_MISSED = 3

_OURS = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{NAME}"}


def reach_api(within_s: float = 0.0, say: Callable[[str], None] = lambda _: None) -> str:
    """Return the URL of Prefect's API.

    Parameters
    ----------
    within_s
        Longest wait for a server that is starting.
    say
        Called with a line if there is one to wait for.

    Raises
    ------
    ConfigurationError
        If no API is configured, or it does not answer.
    """
    api = PREFECT_API_URL.value()
    if not api:
        raise ConfigurationError(
            "no Prefect server is configured",
            hint="run: prefect server start; and: prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    end = time.monotonic() + within_s
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
        if error is not None and within_s:
            say(f"waiting up to {within_s:g} s for Prefect's API at {api}")
        while error is not None and time.monotonic() < end:
            time.sleep(0.5)
            error = client.api_healthcheck()
    if error is not None:
        raise ConfigurationError(
            f"Prefect's API at {api} does not answer: {error}",
            hint="start its server (prefect server start), wait until it answers, or correct PREFECT_API_URL",
        )
    return str(api)


def notify_of_failures(block: str) -> str:
    """Create or update the automation that reports failed runs; return a line about it.

    Parameters
    ----------
    block
        A notification block of Prefect, as TYPE/NAME.

    Raises
    ------
    ConfigurationError
        If the block does not exist.
    """
    with get_client(sync_client=True) as client:
        document = _block(client, block)
        automation = AutomationCore(
            name=FAILED_RUNS,
            description="Reports every run of Lightlake's deployments that failed or crashed.",
            trigger=EventTrigger(
                expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"},
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related=_OURS,
                for_each={"prefect.resource.id"},
            ),
            actions=[
                SendNotification(
                    block_document_id=document,
                    subject="Lightlake: {{ flow_run.name }} {{ flow_run.state.name }}",
                    body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
                )
            ],
        )
        _put(client, automation)
    return f"{FAILED_RUNS}: reported to {block}"


def notify_of_variations(block: str) -> str:
    """Create or update the automation that reports light curves that brightened or faded; return a line about it.

    Parameters
    ----------
    block
        A notification block of Prefect, as TYPE/NAME.

    Raises
    ------
    ConfigurationError
        If the block does not exist.
    """
    with get_client(sync_client=True) as client:
        automation = AutomationCore(
            name=VARIED,
            description="Reports targets with new points far from what their light curves were, after each refresh.",
            trigger=EventTrigger(expect={CURVES_VARIED}, match={"prefect.resource.id": f"{LAKE}.*"}),
            actions=[
                SendNotification(
                    block_document_id=_block(client, block),
                    subject="Lightlake: {{ event.payload.brighter }} brighter, {{ event.payload.fainter }} fainter",
                    body="{{ event.payload.text }}\nlightlake changes --since {{ event.payload.first_snapshot }}",
                )
            ],
        )
        _put(client, automation)
    return f"{VARIED}: reported to {block}"


def _block(client: SyncPrefectClient, block: str) -> UUID:
    kind, _, name = block.partition("/")
    try:
        return client.read_block_document_by_name(name, kind).id
    except (ObjectNotFound, httpx.HTTPStatusError) as error:
        raise ConfigurationError(
            f"Prefect has no block {block!r}",
            hint="create one in its UI under Blocks; `prefect block ls` lists names: slack-webhook/observers",
        ) from error


def crash_silent_runs() -> str:
    """Create or update the automation that marks runs with a dead process as crashed; return a line about it.

    Without it Prefect shows a run as running until its own process, or its worker, reports its end.
    """
    every = get_current_settings().flows.heartbeat_frequency
    if every is None:
        return f"{SILENT_RUNS}: off, because PREFECT_FLOWS_HEARTBEAT_FREQUENCY is empty"
    within = timedelta(seconds=_MISSED * every)
    automation = AutomationCore(
        name=SILENT_RUNS,
        description="Marks every run of Lightlake's deployments without heartbeats as crashed.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={"prefect.flow-run.heartbeat"},
            # A change of state counts as a heartbeat; the name of the state is free.
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_OURS,
            for_each={"prefect.resource.id"},
            within=within,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"no sign of life for {within.total_seconds():g} s: its process was killed, or its machine is "
                "gone. What it had committed stays, and the next run continues from there",
            )
        ],
    )
    with get_client(sync_client=True) as client:
        _put(client, automation)
    return f"{SILENT_RUNS}: a run without a sign of life counts as crashed after {within.total_seconds():g} s"


def _put(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Create an automation, or update the one of its name.

    An automation without changes is not touched: an update would forget the heartbeats that it has seen, and runs that
    are dead already would never end. One that somebody has switched off stays off.
    """
    existing = client.read_automations_by_name(wanted.name)
    for other in existing[1:]:
        client.delete_automation(other.id)
    if not existing:
        client.create_automation(wanted)
    elif definition(existing[0]) != definition(wanted):
        client.update_automation(existing[0].id, wanted.model_copy(update={"enabled": existing[0].enabled}))
