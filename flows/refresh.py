"""Refresh the lake: pull every archive for every target that it has not answered yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.forms import Shown, archives_and_services
from flows.living import living
from flows.pull import pull_archive
from flows.report import PullReport, publish_summary
from flows.turns import is_taken, of_archive, turn
from lake.query import Lake
from lake.redact import safe_line
from lake.settings import load_settings
from tasks.archives import check_parameters, expand, find, releases
from tasks.plan import plans
from tasks.pull import lake_at, release_in

# Of the turn that refreshes of a lake take.
NAME = "refresh"


def run_name() -> str:
    """Return the name of a run, for the UI: what it refreshes, and for which sample."""
    given = flow_run.parameters
    archives = ", ".join(given.get("archives") or ["all archives"])
    return safe_line(f"refresh {archives} for {given.get('sample') or 'all targets'}")


@flow(name="refresh", flow_run_name=run_name, validate_parameters=True)
def refresh(
    archives: Annotated[
        list[Annotated[str, Shown(choices=archives_and_services)]] | None,
        Shown("Archives, or services for all of theirs", empty="all archives"),
    ] = None,
    sample: Annotated[str | None, Shown("Only targets of this sample", empty="all targets")] = None,
    lake: Annotated[str | None, Shown("The lake: a folder or s3://BUCKET/PREFIX", empty="LIGHTLAKE_URL")] = None,
    parameters: Annotated[
        dict[str, dict[str, Any]] | None,
        Shown('Parameters by archive other than the defaults, such as {"gaia": {"radius_arcsec": 2}}'),
    ] = None,
    again: Annotated[bool, Shown("Ask for what was answered before, too")] = False,
    back_off: Annotated[
        bool, Shown("Leave alone what failed lately: an hour, and twice as long after each further failure")
    ] = False,
    newest: Annotated[
        bool, Shown("Then pull the newest release, too, where releases lie side by side: all targets are asked anew")
    ] = False,
) -> State[list[PullReport]]:
    """Pull all archives, one after the other; one that fails does not keep the others from their turn.

    The run ends Failed if anything asked for was not got; its message says what. While another refresh of the same
    lake runs, this one waits; an archive that another run pulls comes last.
    """
    log = get_run_logger()
    names = expand(archives)
    check_parameters(parameters, names)  # all at once, before any work
    url = str(lake or load_settings().url)
    opened = lake_at(url)
    with living(opened), turn(opened, NAME):
        # What the lake shows is looked up again when its turn comes: it may have changed by then.
        ahead: list[tuple[str, str | None]] = []
        for one in plans(opened, names, parameters, sample, again=again, back_off=back_off, newest=newest):
            log.info(one.message)
            is_shown = one.release == release_in(opened, find(one.archive))
            ahead.append((one.archive, None if is_shown else releases.NEWEST))
        reports, lost, lines = [], [], []
        for name, release in _as_they_come(opened, ahead):
            state = pull_archive(
                name, sample, url, (parameters or {}).get(name), again, release, back_off=back_off, return_state=True
            )
            outcome = state.result(raise_on_failure=False)
            message = state.message or state.name or ""
            if isinstance(outcome, PullReport):
                reports.append(outcome)
                if release is None and (name, releases.NEWEST) in ahead:
                    message = replace(outcome, newer=()).message  # they come next
                elif release is not None:
                    message = f"{outcome.release} of {message}"
            elif name not in message:
                message = f"{name}: {message}"
            lines.append(message)
            if not state.is_completed():
                lost.append(message)
        publish_summary(opened, reports, lost, log)
    if lost:
        log.error("%d of %d archives lost something", len(lost), len(names))
        return Failed(message=" | ".join(lost), data=reports)
    return Completed(message=" | ".join(lines), data=reports)


def _as_they_come(lake: Lake, ahead: list[tuple[str, str | None]]) -> Iterator[tuple[str, str | None]]:
    """Yield archives in order, but those that another run has at the moment after the others."""
    left = list(ahead)
    while left:
        now = next((one for one in left if not is_taken(lake, of_archive(one[0]))), left[0])
        left.remove(now)
        yield now
