"""Refresh the lake: pull every archive for every target that it has not answered yet."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.forms import FormField, archives_and_services
from flows.living import living
from flows.pull import pulled
from flows.report import publish_summary
from lake.redact import safe_line
from lake.settings import load_settings
from tasks.pull import lake_at
from tasks.pull.refresh import refreshed
from tasks.pull.report import PullReport
from tasks.sources.registry import check_parameters, expand


def run_name() -> str:
    """Return the name of a run, for the UI: what it refreshes, and for which sample."""
    given = flow_run.parameters
    archives = ", ".join(given.get("archives") or ["all archives"])
    return safe_line(f"refresh {archives} for {given.get('sample') or 'all targets'}")


@flow(name="refresh", flow_run_name=run_name, validate_parameters=True)
def refresh(
    archives: Annotated[
        list[Annotated[str, FormField(choices=archives_and_services)]] | None,
        FormField("Archives, or services for all of theirs", empty="all archives"),
    ] = None,
    sample: Annotated[str | None, FormField("Only targets of this sample", empty="all targets")] = None,
    lake: Annotated[str | None, FormField("The lake: a folder or s3://BUCKET/PREFIX", empty="LIGHTLAKE_URL")] = None,
    parameters: Annotated[
        dict[str, dict[str, Any]] | None,
        FormField('Parameters by archive other than the defaults, such as {"ARCHIVE": {"radius_arcsec": 2}}'),
    ] = None,
    again: Annotated[bool, FormField("Ask for what was answered before, too")] = False,
    back_off: Annotated[
        bool, FormField("Leave alone what failed lately: an hour, and twice as long after each further failure")
    ] = False,
    newest: Annotated[
        bool, FormField("Then pull the newest release, too, where releases lie side by side: all targets anew")
    ] = False,
) -> State[list[PullReport]]:
    """Pull all archives side by side; one that fails or hangs does not keep the others from their work.

    The run ends Failed if anything asked for was not got; its message says what. While another refresh of the same
    lake runs, this one waits, and so does the part of an archive that another run pulls.
    """
    log = get_run_logger()
    names = expand(archives)
    parameters = check_parameters(parameters, names)  # all at once, before any work
    url = str(lake or load_settings().url)
    opened = lake_at(url)
    with living(opened):
        done = refreshed(
            opened,
            names,
            lambda requests: pulled(opened, requests),
            run=flow_run.name or "of a script",
            log=log,
            parameters=parameters,
            sample=sample,
            again=again,
            back_off=back_off,
            newest=newest,
        )
        publish_summary(opened, done.reports, done.lost, log)
    if done.lost:
        log.error("%d of %d archives lost something", len(done.lost), len(names))
        return Failed(message=" | ".join(done.lost), data=done.reports)
    return Completed(message=" | ".join(done.lines), data=done.reports)
