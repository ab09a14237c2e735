"""Prefect's runner as a service needs it: patient with its server, and without places for runs that only wait."""

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

# Name of the state of a run that waits for its turn.
WAITING = "Waiting"


class ServiceRunner(Runner):
    """A runner of the deployments of one lake.

    Parameters
    ----------
    lake
        The lake.
    turns
        The turn that a run waits for, by its deployment and its parameters.
    limit
        Runs at the same time; those that wait are none.
    say
        Takes lines for the user.
    """

    def __init__(
        self,
        lake: Lake,
        turns: Mapping[UUID, Callable[[dict[str, Any]], str | None]],
        *,
        limit: int,
        say: Callable[[str], None],
    ) -> None:
        # Pausing is done by whoever knows whether another service has taken over.
        super().__init__(name=NAME, limit=limit, pause_on_shutdown=False)
        self._lake, self._turn_of, self._say = lake, turns, say
        self._turns: dict[UUID, str] = {}  # of runs that were let go
        self._silent = False

    async def __aenter__(self) -> Self:
        """Start."""
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
                return await self._whose_turn_it_is(found)
            except LightlakeError as error:  # of the catalogue, as while its database is restarted
                self._say(f"no run begins for now: {error}")
                return []

        poller._get_scheduled_flow_runs = ready  # type: ignore[method-assign]
        return self

    @property
    def in_hand(self) -> set[UUID]:
        """Return runs whose processes are this runner's: it tells Prefect how they end."""
        return set(self._scheduled_run_poller._submitting_flow_run_ids) if self.started else set()

    def watch_cancelling(self) -> None:
        """Look for runs to be cancelled again, if a long silence of the server has ended that."""
        observer = self._cancelling_observer
        if observer is not None and (task := observer._polling_task) is not None and task.done():
            observer._start_polling_task(task)

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        """End as Ctrl-C does; Prefect's own way leaves its runs as running for ever."""
        signal.raise_signal(signal.SIGINT)

    async def _whose_turn_it_is(self, due: list[FlowRun]) -> list[FlowRun]:
        """Return runs that need not wait for another; each of the others is told once what it waits for."""
        begun = self.in_hand
        self._turns = {run: turn for run, turn in self._turns.items() if run in begun}
        taken, waiting = set(self._turns.values()), set[str]()
        ready = []
        for run in sorted(due, key=lambda run: run.next_scheduled_start_time or datetime.now(UTC)):
            turn = self._turn(run)
            if run.id in begun or turn is None:
                ready.append(run)
            elif turn not in taken and not await asyncio.to_thread(is_taken, self._lake, turn):
                taken.add(turn)
                self._turns[run.id] = turn
                ready.append(run)
            else:
                taken.add(turn)
                await self._wait(run, turn, waiting)
        return ready

    def _turn(self, run: FlowRun) -> str | None:
        """Return the turn that a run takes in this lake."""
        if run.deployment_id is None or run.parameters.get("lake") != str(self._lake.storage.root):
            return None
        return self._turn_of[run.deployment_id](run.parameters)

    async def _wait(self, run: FlowRun, turn: str, waiting: set[str]) -> None:
        """Say what a run waits for, and see that it does not wait too long, nor twice for the same."""
        start = run.next_scheduled_start_time
        if start is None or start > datetime.now(UTC):
            return
        state: State[Any] | None = None
        same = f"{run.deployment_id} {sorted(run.parameters.items())!r}"
        if run.auto_scheduled and same in waiting:
            state = Cancelled(message=f"the same run waits already for the turn {turn}")
        elif (datetime.now(UTC) - start).total_seconds() > self._lake.settings.turn_timeout_s:
            state = Failed(message=str(waited_too_long(self._lake, turn)))
        elif run.state is None or run.state.name != WAITING:
            told = await asyncio.to_thread(awaited, self._lake, turn)
            self._say(f"{run.name} waits for {told}")
            state = Scheduled(scheduled_time=start, name=WAITING, message=f"waiting for {told}")
        waiting.add(same)
        if state is not None:
            await self._client.set_flow_run_state(run.id, state, force=True)
