"""Refresh the lake: pull every archive for every target that it has not answered yet."""

from __future__ import annotations

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.changed import tell_changes
from flows.forms import LakeField, RefreshOptions
from flows.lake_report import publish_report
from flows.living import living
from flows.pull import pulled, stopped
from flows.recorded import as_json
from flows.report import publish_summary
from flows.titles import title
from lake.export.provenance import current_snapshot
from lake.settings import load_settings
from tasks.options import spread
from tasks.pull.recording import RunStopped, new_run_id, recorded
from tasks.pull.refresh import refreshed
from tasks.pull.report import PullReport
from tasks.sources.registry import check_parameters, expand
from tasks.worker import lake_at


def run_name() -> str:
    """Return the name of a run, for the UI: what it refreshes, for which sample, in which lake."""
    given = flow_run.parameters
    archives = ", ".join(given.get("archives") or ["all archives"])
    return title(f"refresh {archives} for {given.get('sample') or 'all targets'}", given, "in")


@flow(name="refresh", flow_run_name=run_name, validate_parameters=True)
@spread(RefreshOptions, positional=["archives", "sample"])
def refresh(*, lake: LakeField = None, options: RefreshOptions) -> State[list[PullReport]]:
    """Pull all archives side by side; one that fails or hangs does not hold up the others.

    The run ends Failed if a target failed or was rejected; its message says why. While another refresh of the same
    lake runs, this one waits, and so does the part of an archive that another run pulls.
    """
    log, settings = get_run_logger(), load_settings()
    names = expand(options.archives)
    parameters = check_parameters(options.parameters, names)  # all at once, before any work
    opened = lake_at(str(lake or settings.url))
    name = f"refresh for {options.sample or 'all targets'}"
    record = {"request": as_json(options), "flow_run_id": flow_run.id}
    try:
        with living(opened), recorded(opened, name, new_run_id("refresh"), **record) as recording:
            before = current_snapshot(opened)
            done = refreshed(
                opened,
                names,
                lambda requests: pulled(opened, requests, settings, recording),
                run=flow_run.name or "of a script",
                log=log,
                parameters=parameters,
                sample=options.sample,
                select=options.select,
                back_off=options.back_off,
                newest=options.newest,
                check=recording.check,
            )
            recording.ends(lost=bool(done.lost), message=" | ".join(done.lost or done.lines))
            publish_summary(opened, done.reports, done.lost, log)
            tell_changes(opened, before, sum(report.rows for report in done.reports), log)
            publish_report(opened, log)
    except RunStopped as error:
        return stopped(error)
    if done.lost:
        log.error("%d of %d archives have something missing", len(done.lost), len(names))
        return Failed(message=" | ".join(done.lost), data=done.reports)
    return Completed(message=" | ".join(done.lines), data=done.reports)
