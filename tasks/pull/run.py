"""Pull sources, one or many side by side: each is planned, driven and settled in a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace

from lake.commit.ledger import write_plan
from lake.names import check_sample
from lake.settings import Settings
from lake.store.storage import remove_folder
from tasks.archives.source import ArchiveSource
from tasks.pull.driver import Driver, Run, Stopped
from tasks.pull.limits import exclusive_pull, of_archive
from tasks.pull.report import PullReport
from tasks.sources.base import Origin
from tasks.sources.protocol import Request, Source
from tasks.sources.registry import SURVEYS, find

Outcome = PullReport | Exception
Ended = Callable[[Origin, PullReport], None]


def _ignored(origin: Origin, report: PullReport) -> None:
    pass


def source_of(name: str, settings: Settings) -> Source:
    """Return the source of that name: a survey, or an archive.

    Raises
    ------
    ConfigurationError
        If there is none; the message names those that exist.
    """
    return SURVEYS[name] if name in SURVEYS else ArchiveSource.of(find(name), settings)


def pull_all(run: Run, requests: Sequence[Request], ended: Ended = _ignored) -> list[Outcome]:
    """Pull several sources side by side; one that fails or hangs does not hold up the others.

    Parameters
    ----------
    requests
        One or more; those of the same source are pulled one after the other.
    ended
        Called with each report as its source ends, by the thread that called this.

    Returns
    -------
    list
        A report for each request, or the error that ended it.
    """
    outcomes: dict[int, Outcome] = {}
    of_each: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        of_each.setdefault(request.source, []).append(number)
    at_once = min(run.settings.sources_at_once or len(of_each), len(of_each))
    sources = {name: source_of(name, run.settings) for name in of_each}
    services = [source.limits.service for source in sources.values()]

    def one(name: str) -> None:
        for number in of_each[name]:
            try:
                share = max(1, min(services.count(sources[name].limits.service), at_once))
                origin, report = pull(run, sources[name], requests[number], share)
                outcomes[number] = report
            except Stopped:
                raise
            except Exception as error:  # noqa: BLE001 - the others go on
                outcomes[number] = error
                continue
            try:
                run.here(ended, origin, report)
            except Stopped:
                raise
            except Exception:
                run.log.exception("the report of %s could not be published", name)

    for end in run.all(one, list(of_each), at_once):
        end.result()
    return [outcomes[number] for number in range(len(requests))]


def pull(run: Run, source: Source, request: Request, share: int = 1) -> tuple[Origin, PullReport]:
    """Pull what a request selects of a source, commit it, and return where its rows are from and a report.

    Parameters
    ----------
    share
        How many sources of this run use the same service: each takes its part of the connection slots.

    Raises
    ------
    LightlakeError
        If another run holds the pull lock, or all connection slots, for too long; or if options make no sense.
    """
    lake, started = run.lake, time.monotonic()
    for sample in request.samples or ():
        check_sample(lake, sample)
    lock = exclusive_pull(lake, of_archive(source.name), run.name, run.log, run.check)
    with lock if source.limits.exclusive else nullcontext():
        source = source.prepared(lake, request, run.settings)
        shown = run.here(source.register, lake)
        driver = Driver(run, source, PullReport(source.name, source.origin.release, source.what, request.select))
        for stage in source.plan(run, request):
            before, driver.report = driver.report, driver.report.counting(stage.counts)
            if stage.granules:
                write_plan(lake.storage, source.origin.name, stage.granules)
            if stage.total:
                run.here(run.watch.begin, source.name, stage.total, stage.what or source.what)
                service = source.limits.service
                with nullcontext(run.settings.workers) if service is None else run.slots(service, share) as width:
                    driver.work_off(iter(stage.batches), width)
            if stage.finish is not None:
                driver.settle(run.here(stage.finish))
            if stage.what is not None:
                driver.report = driver.report.with_share(stage.what, before)
        remove_folder(lake.storage.staging / run.id / source.name)
        if not shown:  # it may take over now
            shown = run.here(source.register, lake)
    return source.origin, replace(driver.report, seconds=time.monotonic() - started, shown=shown)


def width_of(settings: Settings, sources: Collection[str]) -> int:
    """Return how many pieces of work a runner runs at a time: threads wait for services, processes need cores."""
    at_once = min(settings.sources_at_once or len(sources), len(sources))
    return settings.workers * (at_once if settings.runner == "threads" else 1)
