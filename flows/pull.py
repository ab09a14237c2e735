"""Pull one archive for every target that has no answer yet, as a flow."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.forms import FormField, archives
from flows.living import living
from flows.report import Watch, publish
from flows.runners import PrefectRunner
from lake.query import Lake
from lake.redact import safe_line
from lake.settings import load_settings
from tasks.pull import lake_at
from tasks.pull.driver import Run
from tasks.pull.report import PullReport
from tasks.pull.run import Outcome, Request, pull_all, width_of
from tasks.sources.base import Archive
from tasks.sources.registry import find


def run_name() -> str:
    """Return the name of a run, for the UI: what it pulls, and for which sample."""
    given = flow_run.parameters
    return safe_line(f"pull {given.get('archive')} for {given.get('sample') or 'all targets'}")


@flow(name="pull", flow_run_name=run_name, validate_parameters=True)
def pull_archive(
    archive: Annotated[str, FormField("The archive to ask", choices=archives)],
    sample: Annotated[str | None, FormField("Only targets of this sample", empty="all targets")] = None,
    lake: Annotated[str | None, FormField("The lake: a folder or s3://BUCKET/PREFIX", empty="LIGHTLAKE_URL")] = None,
    parameters: Annotated[
        dict[str, Any] | None, FormField('Parameters other than the archive\'s defaults, such as {"radius_arcsec": 2}')
    ] = None,
    again: Annotated[bool, FormField("Ask for what was answered before, too")] = False,
    release: Annotated[
        str | None, FormField("Data release, such as DR24, or newest", empty="the one that the lake shows")
    ] = None,
    back_off: Annotated[
        bool, FormField("Leave alone what failed lately: an hour, and twice as long after each further failure")
    ] = False,
) -> State[PullReport]:
    """Ask an archive for every target that it has not answered yet, and commit what it gives.

    The run ends Failed if anything asked for was not got; its message says what. All the rest is in the
    lake all the same, and the next run asks for what is missing. While another run pulls the same archive into
    the same lake, this one waits.
    """
    opened = lake_at(str(lake or load_settings().url))
    request = Request(find(archive).name, parameters, sample, again, release, back_off)
    with living(opened):
        (outcome,) = pulled(opened, [request])
    if isinstance(outcome, Exception):
        raise outcome
    if outcome.failed:
        return Failed(message=outcome.message, data=outcome)
    return Completed(message=outcome.message, data=outcome)


def pulled(opened: Lake, requests: Sequence[Request]) -> list[Outcome]:
    """Pull archives by Prefect's tasks; each leaves its report as artifacts when it ends."""
    log, settings = get_run_logger(), load_settings()

    def ended(source: Archive, report: PullReport) -> None:
        publish(report, opened, source, log)
        log.log(logging.ERROR if report.failed else logging.INFO, report.message)

    width = width_of(settings, {request.archive for request in requests})
    with Watch(log) as watch, PrefectRunner(settings, width) as runner:
        name = flow_run.name or "of a script"
        run = Run(opened, runner, log, str(flow_run.id or uuid.uuid4()), name, watch, settings)
        return pull_all(run, requests, ended)
