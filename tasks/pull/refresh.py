"""A refresh: every archive for every target that it has not answered yet, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lake.names import check_sample
from lake.query import Lake
from tasks.pull.batches import release_in
from tasks.pull.estimates import plans
from tasks.pull.limits import exclusive_pull
from tasks.pull.report import PullReport
from tasks.pull.run import Outcome, Request
from tasks.services.request_counters import Log
from tasks.sources import releases
from tasks.sources.registry import find

# Of the turn that refreshes of a lake take.
TURN = "refresh"


@dataclass
class Refreshed:
    """What came of a refresh: reports, a line for each archive, and the lines of those that lost something."""

    reports: list[PullReport] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def refreshed(
    lake: Lake,
    archives: Sequence[str],
    pulled: Callable[[list[Request]], list[Outcome]],
    *,
    run: str,
    log: Log,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    sample: str | None = None,
    again: bool = False,
    back_off: bool = False,
    newest: bool = False,
) -> Refreshed:
    """Pull archives; while another refresh of the same lake runs, wait.

    Parameters
    ----------
    archives
        Their names.
    pulled
        Pulls what is asked, and returns what came of each.
    run
        What this run is called.
    parameters
        By archive, other than the defaults.
    sample, again, back_off
        As of a `Request`.
    newest
        Then pull the newest release, too, where releases lie side by side.

    Raises
    ------
    ConfigurationError
        If the lake has no such sample.
    LightlakeError
        If the other refresh takes too long.
    """
    with exclusive_pull(lake, TURN, run, log):
        # What the lake shows is looked up again when an archive's turn comes: it may have changed by then.
        requests = []
        check_sample(lake, sample)
        for name in archives:
            given = (parameters or {}).get(name)
            wanted: list[str | None] = [None]
            try:
                made = plans(lake, [name], parameters, sample, again=again, back_off=back_off, newest=newest)
                shown = release_in(lake, find(name))
            except Exception as error:  # noqa: BLE001 - its pull will say what is wrong, and the others go on
                log.warning("%s: no plan could be made: %s", name, error)
            else:
                log.info("; ".join(one.message for one in made))
                wanted = [None if one.release == shown else releases.NEWEST for one in made]
            requests += [Request(name, given, sample, again, release, back_off) for release in wanted]
        done = Refreshed()
        for request, outcome in zip(requests, pulled(requests), strict=True):
            done.lines.append(_line(request, outcome, requests))
            if isinstance(outcome, PullReport):
                done.reports.append(outcome)
            if isinstance(outcome, Exception) or outcome.failed:
                done.lost.append(done.lines[-1])
    return done


def _line(request: Request, outcome: Outcome, requests: Sequence[Request]) -> str:
    """Return what came of a request in a line that names the archive."""
    if isinstance(outcome, Exception):
        told = str(outcome) or type(outcome).__name__
        return told if request.archive in told else f"{request.archive}: {told}"
    if request.release is not None:
        return f"{outcome.release} of {outcome.message}"
    if any(other.release is not None and other.archive == request.archive for other in requests):
        return replace(outcome, newer=()).message  # they come next
    return outcome.message
