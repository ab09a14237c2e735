"""Automations of Prefect's that Lightlake keeps: one tells of runs that fail, one ends those that fell silent."""

from __future__ import annotations

from datetime import timedelta

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, get_current_settings

from deployments.deployed import NAME
from deployments.kept import defined
from lake.errors import ConfigurationError

FAILED_RUNS, SILENT_RUNS = "lightlake: failed runs", "lightlake: silent runs"

# Signs of life that a run may leave out, one after the other, before it counts as crashed.
_MISSED = 3

_OURS = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{NAME}"}


def reach_api() -> str:
    """Return the address of Prefect's API.

    Raises
    ------
    ConfigurationError
        If none is configured, or it does not answer.
    """
    api = PREFECT_API_URL.value()
    if not api:
        raise ConfigurationError(
            "there is no Prefect server to serve",
            hint="run: prefect server start; and: prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    with get_client(sync_client=True) as client:
        trouble = client.api_healthcheck()
    if trouble is not None:
        raise ConfigurationError(f"Prefect's API at {api} does not answer: {trouble}", hint="see PREFECT_API_URL")
    return str(api)


def notify_of_failures(block: str) -> str:
    """Make the automation that tells of runs that fail, or bring it up to date; return what it does.

    Parameters
    ----------
    block
        A notification block of Prefect's, as TYPE/NAME.

    Raises
    ------
    ConfigurationError
        If there is no such block.
    """
    kind, _, name = block.partition("/")
    with get_client(sync_client=True) as client:
        try:
            document = client.read_block_document_by_name(name, kind)
        except (ObjectNotFound, httpx.HTTPStatusError) as error:
            raise ConfigurationError(
                f"Prefect has no block {block!r}",
                hint="make one in its UI, under Blocks; `prefect block ls` names it: slack-webhook/observers",
            ) from error
        automation = AutomationCore(
            name=FAILED_RUNS,
            description="Tells of every run of Lightlake's deployments that has failed or crashed.",
            trigger=EventTrigger(
                expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"},
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related=_OURS,
                for_each={"prefect.resource.id"},
            ),
            actions=[
                SendNotification(
                    block_document_id=document.id,
                    subject="Lightlake: {{ flow_run.name }} {{ flow_run.state.name }}",
                    body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
                )
            ],
        )
        _put(client, automation)
    return f"{FAILED_RUNS}: told to {block}"


def crash_silent_runs() -> str:
    """Make the automation that ends runs whose process is gone, or bring it up to date; return what it does.

    Nobody else would: Prefect shows a run as running until its own process, or its worker, says otherwise.
    """
    every = get_current_settings().flows.heartbeat_frequency
    if every is None:
        return f"{SILENT_RUNS}: none, since PREFECT_FLOWS_HEARTBEAT_FREQUENCY is empty"
    within = timedelta(seconds=_MISSED * every)
    sign = "prefect.flow-run.heartbeat"
    automation = AutomationCore(
        name=SILENT_RUNS,
        description="Ends as crashed every run of Lightlake's deployments that gives no sign of life any more.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={sign},
            # Any change of state will do as well, its name may be anything.
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
                "gone. What it had committed stays; the next run goes on from there",
            )
        ],
    )
    with get_client(sync_client=True) as client:
        _put(client, automation)
    return f"{SILENT_RUNS}: crashed after {within.total_seconds():g} s"


def _put(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Make an automation, or bring the one of its name up to date.

    One that is as it should be is left alone: what it has seen of runs would be forgotten with a change, and a run
    that is dead already never end. One that somebody has switched off stays so.
    """
    there = client.read_automations_by_name(wanted.name)
    for other in there[1:]:
        client.delete_automation(other.id)
    if not there:
        client.create_automation(wanted)
    elif defined(there[0]) != defined(wanted):
        client.update_automation(there[0].id, wanted.model_copy(update={"enabled": there[0].enabled}))
