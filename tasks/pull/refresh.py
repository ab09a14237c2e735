"""Refresh a lake: pull every archive for every target without an answer, and sum up what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lake.commit.ledger import Select
from lake.names import check_sample
from lake.query import Lake
from tasks.archives.batches import release_in
from tasks.archives.estimates import plans
from tasks.pull.limits import exclusive_pull
from tasks.pull.report import PullReport
from tasks.pull.run import Outcome
from tasks.services.request_counters import Log
from tasks.sources import releases
from tasks.sources.protocol import Request
from tasks.sources.registry import find

# The lock that refreshes of a lake take.
TURN = "refresh"


@dataclass(repr=False)
class Refreshed:
    """Result of a refresh: reports, a line for each archive, and the lines of those with something missing."""

    reports: list[PullReport] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return "\n".join(f"<{line}>" for line in self.lines) or "<no archives>"


def refreshed(
    lake: Lake,
    archives: Sequence[str],
    pulled: Callable[[list[Request]], list[Outcome]],
    *,
    run: str,
    log: Log,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    sample: str | None = None,
    select: Select = "pending",
    back_off: bool = False,
    newest: bool = False,
    check: Callable[[], object] = lambda: None,
) -> Refreshed:
    """Pull archives; wait while another refresh of the same lake runs.

    Parameters
    ----------
    archives
        Their names.
    pulled
        Pulls requests, and returns the outcome of each.
    run
        Name of this run.
    parameters
        By archive, other than the defaults.
    sample, select, back_off
        As in a `Request`.
    newest
        Then pull the newest release, too, where releases lie side by side.
    check
        Raises if this run is to end while it waits.

    Raises
    ------
    ConfigurationError
        If the lake has no such sample.
    LightlakeError
        If the other refresh takes too long.
    """
    with exclusive_pull(lake, TURN, run, log, check):
        # Each pull looks up again which release the lake shows: it may have changed by then.
        requests = []
        check_sample(lake, sample)
        for name in archives:
            given = (parameters or {}).get(name)
            wanted: list[str | None] = [None]
            try:
                made = plans(lake, [name], parameters, sample, select=select, back_off=back_off, newest=newest)
                shown = release_in(lake, find(name))
            except Exception as error:  # noqa: BLE001 - its pull reports what is wrong, and the others go on
                log.warning("%s: no plan could be made: %s", name, error)
            else:
                log.info("; ".join(one.message for one in made))
                wanted = [None if one.release == shown else releases.NEWEST for one in made]
            requests += [Request(name, given, sample, select, release, back_off) for release in wanted]
        return summed_up(requests, pulled(requests))


def summed_up(requests: Sequence[Request], outcomes: Sequence[Outcome]) -> Refreshed:
    """Sum up the outcome of each request."""
    done = Refreshed()
    for request, outcome in zip(requests, outcomes, strict=True):
        done.lines.append(_line(request, outcome, requests))
        if isinstance(outcome, PullReport):
            done.reports.append(outcome)
        if isinstance(outcome, Exception) or outcome.lost:
            done.lost.append(done.lines[-1])
    return done


def _line(request: Request, outcome: Outcome, requests: Sequence[Request]) -> str:
    """Return the outcome of a request in a line that names the archive."""
    if isinstance(outcome, Exception):
        message = str(outcome) or type(outcome).__name__
        return message if request.source in message else f"{request.source}: {message}"
    if request.release is not None:
        return f"{outcome.release} of {outcome.message}"
    if any(other.release is not None and other.source == request.source for other in requests):
        return replace(outcome, newer=()).message  # they come next
    return outcome.message
