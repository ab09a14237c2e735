"""Serve all deployments in one process, for one machine and one lake."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.schedules import Schedule
from prefect.server.schemas.schedules import CronSchedule

from deployments import paused
from deployments.automations import crash_silent_runs, notify_of_failures, reach_api
from deployments.deployed import Deployed
from deployments.former import former_deployments, former_name, keep_switched_off, remove
from deployments.runner import ServiceRunner
from flows.living import bury
from lake.errors import ConfigurationError, LightlakeError
from lake.query import Lake
from lake.redact import safe_line
from lake.store.claims import Holder, held, holder_of, note
from lake.text import counted

# The page that helps with errors from here.
HELP_TOPIC = "how-to/prefect"

# The lake's claim of its service.
CLAIM = "serve"
_WHAT = "a service (`lightlake serve`)"

# Longest wait for a server of Prefect that is starting, s.
STARTING_S = 30.0

# Longest wait for a service that is ending, s; it may take half a minute to end its runs.
ENDING_S = 90.0

# Seconds between searches for dead runs, and between reports of paused schedules.
LOOK_S, REPORT_S = 20.0, 3600.0


def serve(
    lake: Lake, deployments: Sequence[Deployed], *, limit: int, notify: str | None, say: Callable[[str], None]
) -> None:
    """Register deployments and run them until SIGTERM or Ctrl-C.

    Parameters
    ----------
    lake
        The lake that they fill.
    limit
        Runs at the same time.
    notify
        Block that reports failed runs.
    say
        Called with lines for the user.

    Raises
    ------
    ConfigurationError
        If Prefect's API or the block is not available, or another service has the lake.
    """
    api = reach_api(STARTING_S, say)
    with _only_service(lake, say):
        try:
            say(crash_silent_runs())
            if notify is not None:
                say(notify_of_failures(notify))
            _crash_dead_runs(lake, say)
            runner = _register(lake, deployments, limit, say)
            greeting = f"serving {counted(len(deployments), 'deployment')} of {api}, {counted(limit, 'run')} at a time"
            asyncio.run(_run_until_stopped(runner, lake, deployments, greeting, say))
        except (httpx.HTTPError, PrefectException) as error:
            raise ConfigurationError(
                f"Prefect's API at {api} fails: {' '.join(str(error).split()) or type(error).__name__}",
                hint="check its server, and start this again; schedules are not paused",
            ) from error
        _pause(lake, deployments, say)


@contextmanager
def _only_service(lake: Lake, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the claim of the lake's only service; wait for one that is ending."""
    end, waited = time.monotonic() + ENDING_S, False
    while True:
        with held(lake.catalog, CLAIM, _WHAT) as ours:
            if ours:
                yield
                return
        other = holder_of(lake.storage, CLAIM)
        if other is None or not other.ending or time.monotonic() > end:
            raise ConfigurationError(
                f"{lake.storage.root} is served already, by {other or 'another process'}",
                hint="end that one first, or keep it",
            )
        if not waited:
            say(f"waiting for the end of {other}")
            waited = True
        time.sleep(0.5)


def _register(lake: Lake, deployments: Sequence[Deployed], limit: int, say: Callable[[str], None]) -> ServiceRunner:
    """Register deployments; schedules that somebody has paused stay paused."""
    ours = paused.paused_by_services()
    lock_names: dict[UUID, Callable[..., str | None]] = {}
    runner = ServiceRunner(lake, lock_names, limit=limit, say=say)
    with get_client(sync_client=True) as client:
        for one in deployments:
            # Runs that were due without a service are not made up for: a pull asks for all that is due anyway.
            before = former_name(one.full_name)
            now = paused.read_state(client, one.full_name, ours, before)
            deployment = one.as_runner(paused=now.paused, inactive=now.inactive)
            doubles = former_deployments(client, [one.full_name]).values()
            for double in doubles:
                keep_switched_off(client, double, deployment)
            deployment_id: Any = runner.add_deployment(deployment)
            for double in doubles:
                remove(client, double)
                say(f"{before}: is called {one.full_name} now")
            lock_names[deployment_id] = one.pull_lock
            resumed = "resumed, a service had paused it at its end" if {one.full_name, before} & {*(ours or ())} else ""
            other = f"it filled {now.lake} before" if now.lake not in (None, str(lake.storage.root)) else ""
            say("; ".join(part for part in (f"{one.full_name}: {_when(one)}", now.description, resumed, other) if part))
    paused.note_paused([])
    return runner


async def _run_until_stopped(
    runner: ServiceRunner, lake: Lake, deployments: Sequence[Deployed], greeting: str, say: Callable[[str], None]
) -> None:
    stopped = asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(one, stopped.set)
    serving, stopping = asyncio.create_task(runner.start()), asyncio.create_task(stopped.wait())
    while not (runner.started or serving.done() or stopped.is_set()):
        await asyncio.sleep(0.05)
    say(f"{greeting}; Ctrl-C ends it")
    looking = asyncio.create_task(_look_after(runner, lake, deployments, say))
    await asyncio.wait({serving, stopping, looking}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    looking.cancel()
    if runner.started:
        if not _taken_over(lake):
            note(lake.storage, CLAIM, Holder.this(_WHAT, ending=True))
        say("ending: runs are cancelled; what they have committed stays, and the next run continues from there")
        await runner.astop()
    await serving
    if looking.done() and not looking.cancelled():
        looking.result()


async def _look_after(
    runner: ServiceRunner, lake: Lake, deployments: Sequence[Deployed], say: Callable[[str], None]
) -> None:
    """Look for dead runs, and report paused schedules; return when another service has taken over."""
    report_at, trouble = time.monotonic() + REPORT_S, ""
    while True:
        await asyncio.sleep(LOOK_S)
        runner.watch_cancelling()
        try:
            await asyncio.to_thread(_crash_dead_runs, lake, say, runner.in_hand)
            if time.monotonic() > report_at:
                report_at = time.monotonic() + REPORT_S
                await asyncio.to_thread(_report_paused, deployments, say)
            trouble = ""
        except (httpx.HTTPError, PrefectException, LightlakeError) as error:
            if trouble != str(error):
                say(f"cannot look for dead runs: {safe_line(str(error)) or type(error).__name__}")
            trouble = str(error)
        if _taken_over(lake):
            say(f"the lake was taken over by {holder_of(lake.storage, CLAIM)}")
            return


def _taken_over(lake: Lake) -> bool:
    """Return whether another service holds the lake's claim, which this one has lost."""
    other = holder_of(lake.storage, CLAIM)
    return other is not None and not other.is_this


def _crash_dead_runs(lake: Lake, say: Callable[[str], None], spare: Collection[UUID] = ()) -> None:
    """Mark dead runs as crashed in Prefect."""
    with get_client(sync_client=True) as client:
        for run in bury(lake, client, spare):
            say(f"{run.name}: its process is gone; it is now Crashed in Prefect")


def _report_paused(deployments: Sequence[Deployed], say: Callable[[str], None]) -> None:
    """Report paused schedules; while a service runs, somebody else paused them."""
    with get_client(sync_client=True) as client:
        names = [one.full_name for one in deployments if one.schedules]
        states = {name: paused.read_state(client, name, ()).description for name in names}
        lines = [f"{name} ({state})" for name, state in states.items() if state]
        say(f"paused: {'; '.join(lines)}" if lines else "no schedule is paused")


def _pause(lake: Lake, deployments: Sequence[Deployed], say: Callable[[str], None]) -> None:
    """Pause schedules, so that no runs pile up, unless another service has taken over."""
    if _taken_over(lake):
        say(f"ended; schedules now belong to {holder_of(lake.storage, CLAIM)}")
        return
    names = [one.full_name for one in deployments]
    try:
        with get_client(sync_client=True) as client:
            done = paused.pause(client, names, str(lake.storage.root))
    except (httpx.HTTPError, PrefectException) as error:
        say(f"ended; schedules could not be paused: {type(error).__name__}")
        return
    say(f"ended; schedules of {counted(len(done), 'deployment is', 'deployments are')} paused until it serves again")


def _when(one: Deployed) -> str:
    """Describe when a deployment runs by itself."""
    times = [f"{_next(schedule)}{_what(schedule)}" for schedule in one.schedules]
    events = [f"on event {event}" for trigger in one.triggers for event in sorted(trigger.expect)]
    return "; ".join([*times, *events]) or "only when started by hand"


def _what(schedule: Schedule) -> str:
    return f" ({schedule.slug})" if schedule.slug else ""


def _next(schedule: Schedule) -> str:
    if schedule.cron is None:
        return f"every {schedule.interval}"
    clock = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    (time,) = asyncio.run(clock.get_dates(1, start=datetime.now(UTC)))
    return f"next {time:%Y-%m-%d %H:%M} UTC"
