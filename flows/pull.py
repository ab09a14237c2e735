"""Pull one archive for every target without an answer, as a flow; and run pulls of any source by Prefect's tasks."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State, StateType
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.forms import LakeField, PullOptions
from flows.living import living
from flows.recorded import note_outcome, pull_recorded
from flows.report import Watch, publish
from flows.runners import PrefectRunner
from flows.titles import title
from lake.query import Lake
from lake.settings import Settings, load_settings
from tasks.options import spread
from tasks.pull.driver import Run
from tasks.pull.recording import Recording, RunStopped
from tasks.pull.report import PullReport
from tasks.pull.run import Outcome, pull_all, width_of
from tasks.sources.base import Origin
from tasks.sources.protocol import Request
from tasks.worker import lake_at

# The name of the state that a flow ends with if its run was stopped through the lake.
STOPPED_STATE = "Stopped"


def run_name() -> str:
    """Return the name of a run, for the UI: what it pulls, for which sample, into which lake."""
    given = flow_run.parameters
    return title(f"pull {given.get('archive')} for {given.get('sample') or 'all targets'}", given)


@flow(name="pull", flow_run_name=run_name, validate_parameters=True)
@spread(PullOptions, positional=["archive", "sample"])
def pull_archive(*, lake: LakeField = None, options: PullOptions) -> State[PullReport]:
    """Ask an archive for every target that it has not answered yet, and commit its answers.

    The run ends Failed if a target failed or was rejected; its message says why. All other answers are in the lake,
    and the next run asks for what failed. While another run pulls the same archive into the same lake, this one waits.
    """
    return pulled_alone(options.request, lake, load_settings())


def pulled_alone(request: Request, lake: str | None, settings: Settings) -> State[PullReport]:
    """Pull one source by Prefect's tasks, and return the state that its flow ends with."""
    opened = lake_at(str(lake or settings.url))
    try:
        with living(opened), pull_recorded(opened, request, flow_run_id=flow_run.id) as recording:
            (outcome,) = pulled(opened, [request], settings, recording)
            note_outcome(recording, outcome)
    except RunStopped as error:
        return stopped(error)
    if isinstance(outcome, Exception):
        raise outcome
    return (Failed if outcome.lost else Completed)(message=outcome.message, data=outcome)


def stopped(error: RunStopped) -> State[Any]:
    """Return the state of a flow that somebody stopped through the lake."""
    return State(type=StateType.CANCELLED, name=STOPPED_STATE, message=str(error))


def pulled(opened: Lake, requests: Sequence[Request], settings: Settings, recording: Recording) -> list[Outcome]:
    """Pull sources by Prefect's tasks; each leaves its report as artifacts when it ends."""
    log = get_run_logger()

    def ended(origin: Origin, report: PullReport) -> None:
        publish(report, opened, origin, log)
        log.log(logging.ERROR if report.lost else logging.INFO, report.message)

    width = width_of(settings, {request.source for request in requests})
    with Watch(log) as watch, PrefectRunner(settings, width) as runner, recording.told_early():
        name = flow_run.name or "of a script"
        run = Run(opened, runner, log, str(flow_run.id or uuid.uuid4()), name, watch, settings, recording)
        return pull_all(run, requests, ended)
