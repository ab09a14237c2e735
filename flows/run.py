"""Do what a file describes: get samples, and pull archives for them, as a flow."""

from __future__ import annotations

from functools import partial

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.artifacts import log_errors
from flows.forms import LakeField, RunOptions
from flows.living import living
from flows.pull import pulled, stopped
from flows.recorded import as_json
from flows.report import publish_metrics, publish_summary
from flows.run_steps import checked, run_all
from flows.titles import title
from lake.settings import load_settings
from tasks.options import spread
from tasks.pull.recording import RunStopped, new_run_id, recorded
from tasks.pull.report import PullReport
from tasks.worker import lake_at


def run_name() -> str:
    """Return the name of a run, for the UI."""
    given = flow_run.parameters
    archives = ", ".join(given.get("archives") or ["all archives"])
    return title(f"run {given.get('run_id') or archives}", given, "in")


@flow(name="run", flow_run_name=run_name, validate_parameters=True)
@spread(RunOptions)
def run_by_file(*, lake: LakeField = None, options: RunOptions) -> State[list[PullReport]]:
    """Get samples, add their targets, and pull archives for them side by side.

    The run ends Failed if a target failed or was rejected; its message says why. A run that was stopped or killed goes
    on where it was when it is started again with the same run_id. A sample that cannot be had whole ends the run before
    anything is asked for it.
    """
    log, settings = get_run_logger(), load_settings()
    names = checked(options)
    opened = lake_at(str(lake or settings.url))
    run_id = options.run_id or new_run_id("run")
    options = options.model_copy(update={"run_id": run_id})
    record = {"request": as_json(options), "flow_run_id": flow_run.id}
    try:
        with living(opened):
            with recorded(opened, f"run {run_id}", run_id, **record) as recording:
                do = partial(pulled, opened, settings=settings, recording=recording)
                done = run_all(opened, options, names, recording, do, log)
                publish_summary(opened, done.reports, done.lost, log)
            with log_errors(log, "the page of what the run used"):
                publish_metrics(opened, run_id)
    except RunStopped as error:
        return stopped(error)
    if done.lost:
        log.error("%d of %d archives have something missing", len(done.lost), len(names))
        return Failed(message=" | ".join(done.lost), data=done.reports)
    return Completed(message=" | ".join(done.lines), data=done.reports)
