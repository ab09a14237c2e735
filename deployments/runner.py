"""Extend Prefect's runner for a service: it waits for its server, and waiting runs do not count as running."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

import httpx
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runner import Runner
from prefect.states import Cancelled, Failed, Scheduled

from deployments.deployed import NAME
from lake.errors import LightlakeError
from lake.query import Lake
from tasks.pull.limits import awaited, is_taken, waited_too_long

# State of a run that waits for another run's pull lock.
WAITING = "Waiting"


class ServiceRunner(Runner):
    """A runner of the deployments of one lake.

    Parameters
    ----------
    lake
        The lake.
    lock_names
        For each deployment, a function from a run's parameters to the pull lock that it needs.
    limit
        Runs at the same time; waiting runs are not counted.
    say
        Called with lines for the user.
    """

    def __init__(
        self,
        lake: Lake,
        lock_names: Mapping[UUID, Callable[[dict[str, Any]], str | None]],
        *,
        limit: int,
        say: Callable[[str], None],
    ) -> None:
        # The caller pauses schedules: it knows whether another service has taken over.
        super().__init__(name=NAME, limit=limit, pause_on_shutdown=False)
        self._lake, self._lock_names, self._say = lake, lock_names, say
        self._started: dict[UUID, str] = {}  # pull locks of runs that this runner started
        self._silent = False

    async def __aenter__(self) -> Self:
        """Start, with a poller that waits for the server and holds back waiting runs."""
        await super().__aenter__()
        poller = self._scheduled_run_poller
        due = poller._get_scheduled_flow_runs

        async def ready() -> list[FlowRun]:
            try:
                found = await due()
            except (httpx.TransportError, PrefectHTTPStatusError) as error:
                if isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500:
                    raise
                if not self._silent:
                    self._say(f"Prefect's server does not answer ({type(error).__name__}): waiting for it")
                self._silent = True
                return []
            if self._silent:
                self._say("Prefect's server answers again")
                self._silent = False
            try:
                return await self._may_start(found)
            except LightlakeError as error:  # such as while the catalogue's database restarts
                self._say(f"no run can start now: {error}")
                return []

        poller._get_scheduled_flow_runs = ready  # type: ignore[method-assign]
        return self

    @property
    def in_hand(self) -> set[UUID]:
        """Return the runs that are this runner's own processes, whose ends it reports to Prefect."""
        return set(self._scheduled_run_poller._submitting_flow_run_ids) if self.started else set()

    def watch_cancelling(self) -> None:
        """Poll for cancelled runs again, if a long outage of the server has ended the polling."""
        observer = self._cancelling_observer
        if observer is not None and (task := observer._polling_task) is not None and task.done():
            observer._start_polling_task(task)

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        """End as for Ctrl-C; Prefect's own handler would leave its runs as running for ever."""
        signal.raise_signal(signal.SIGINT)

    async def _may_start(self, due: list[FlowRun]) -> list[FlowRun]:
        """Return the runs whose pull lock is free; set the others to Waiting."""
        begun = self.in_hand
        self._started = {run: name for run, name in self._started.items() if run in begun}
        taken, waiting = set(self._started.values()), set[str]()
        ready = []
        for run in sorted(due, key=lambda run: run.next_scheduled_start_time or datetime.now(UTC)):
            name = self._lock_name(run)
            if run.id in begun or name is None:
                ready.append(run)
            elif name not in taken and not await asyncio.to_thread(is_taken, self._lake, name):
                taken.add(name)
                self._started[run.id] = name
                ready.append(run)
            else:
                taken.add(name)
                await self._wait(run, name, waiting)
        return ready

    def _lock_name(self, run: FlowRun) -> str | None:
        """Return the pull lock that a run needs in this lake."""
        if run.deployment_id is None or run.parameters.get("lake") != str(self._lake.storage.root):
            return None
        return self._lock_names[run.deployment_id](run.parameters)

    async def _wait(self, run: FlowRun, lock_name: str, waiting: set[str]) -> None:
        """Show what a run waits for; end it if it waits too long, or if the same run waits already."""
        start = run.next_scheduled_start_time
        if start is None or start > datetime.now(UTC):
            return
        state: State[Any] | None = None
        same = f"{run.deployment_id} {sorted(run.parameters.items())!r}"
        if run.auto_scheduled and same in waiting:
            state = Cancelled(message=f"the same run waits already for the lock {lock_name}")
        elif (datetime.now(UTC) - start).total_seconds() > self._lake.settings.turn_timeout_s:
            state = Failed(message=str(waited_too_long(self._lake, lock_name)))
        elif run.state is None or run.state.name != WAITING:
            holder = await asyncio.to_thread(awaited, self._lake, lock_name)
            self._say(f"{run.name} waits for {holder}")
            state = Scheduled(scheduled_time=start, name=WAITING, message=f"waiting for {holder}")
        waiting.add(same)
        if state is not None:
            await self._client.set_flow_run_state(run.id, state, force=True)
