"""All deployments in one process, for one machine; and who is told of runs that fail."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.schedules import Schedule
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, get_current_settings

from deployments.deployed import NAME, Deployed
from lake.errors import ConfigurationError

FAILED_RUNS, SILENT_RUNS = "lightlake: failed runs", "lightlake: silent runs"

# Signs of life that a run may leave out, one after the other, before it counts as crashed.
_MISSED = 3


_OURS = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{NAME}"}


def serve(deployments: Sequence[Deployed], *, limit: int, notify: str | None, say: Callable[[str], None]) -> None:
    """Register deployments, and run what they are asked for until SIGTERM or Ctrl-C.

    Parameters
    ----------
    limit
        Runs at the same time.
    notify
        Block that tells of runs that fail.
    say
        Takes lines for the user.

    Raises
    ------
    ConfigurationError
        If there is no Prefect API to register at, or no such block.
    """
    api = reach_api()
    say(crash_silent_runs())
    if notify is not None:
        say(notify_of_failures(notify))
    # What was due while nobody served is not made up for: a pull asks for all that is due anyway.
    runner = _Runner(name=NAME, limit=limit, pause_on_shutdown=True)
    for one in deployments:
        runner.add_deployment(one.as_runner())
        say(f"{one.full_name}: {_when(one)}")

    asyncio.run(_until_stopped(runner, f"serving {len(deployments)} deployments of {api}, {limit} runs at a time", say))
    say("ended; schedules are paused until it serves again")


async def _until_stopped(runner: Runner, told: str, say: Callable[[str], None]) -> None:
    stopped = asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(one, stopped.set)
    serving, stopping = asyncio.create_task(runner.start()), asyncio.create_task(stopped.wait())
    while not (runner.started or serving.done() or stopped.is_set()):
        await asyncio.sleep(0.05)
    say(f"{told}; Ctrl-C ends it")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if runner.started:
        say("ending: runs are cancelled; what they have committed stays, and the next goes on from there")
        await runner.astop()
    await serving


class _Runner(Runner):
    """A runner that SIGTERM ends as Ctrl-C does; Prefect's own leaves its runs as running for ever."""

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        """End."""
        signal.raise_signal(signal.SIGINT)


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


def _put(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Put an automation in the place of the one of its name."""
    for there in client.read_automations_by_name(automation.name):
        client.delete_automation(there.id)
    client.create_automation(automation)


def _when(one: Deployed) -> str:
    """Return when a deployment runs by itself."""
    times = [f"{_next(schedule)}{_what(schedule)}" for schedule in one.schedules]
    events = [f"on event {event}" for trigger in one.triggers for event in sorted(trigger.expect)]
    return "; ".join([*times, *events]) or "when asked for"


def _what(schedule: Schedule) -> str:
    return f" ({schedule.slug})" if schedule.slug else ""


def _next(schedule: Schedule) -> str:
    if schedule.cron is None:
        return f"every {schedule.interval}"
    clock = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    (time,) = asyncio.run(clock.get_dates(1, start=datetime.now(UTC)))
    return f"next {time:%Y-%m-%d %H:%M} UTC"
