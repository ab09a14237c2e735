"""Pull archives, one or many side by side: each plans, hands out and settles in a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lake.commit.staging import Manifest
from lake.errors import ArchiveError
from lake.names import check_sample
from lake.query import Lake
from lake.settings import Settings
from lake.store.storage import remove_folder
from tasks.pull.batches import Batch, count_to_ask, plan_batches, release_in
from tasks.pull.driver import Driver, Run, Stopped, Told
from tasks.pull.estimates import count_ahead
from tasks.pull.limits import connection_slots, exclusive_pull, of_archive
from tasks.pull.report import PullReport
from tasks.pull.work import commit_batch, fetch, mark_batch_failed
from tasks.register import register_archive
from tasks.services.request_counters import summarise
from tasks.sources import releases
from tasks.sources.base import Archive
from tasks.sources.registry import find


@dataclass(frozen=True)
class Request:
    """What a run asks of an archive.

    Parameters
    ----------
    archive
        Its name.
    parameters
        Of the archive, other than its defaults.
    sample
        Only targets of this one; None: all.
    again
        Ask for what was answered before, too.
    release
        A data release, or newest; None: the one that the lake shows.
    back_off
        Leave alone what failed lately.
    """

    archive: str
    parameters: Mapping[str, Any] | None = None
    sample: str | None = None
    again: bool = False
    release: str | None = None
    back_off: bool = False

    @property
    def samples(self) -> list[str] | None:
        """Return the samples whose targets are asked for; None for all."""
        return None if self.sample is None else [self.sample]


Outcome = PullReport | Exception
Ended = Callable[[Archive, PullReport], None]


def _ignored(source: Archive, report: PullReport) -> None:
    pass


def pull_all(run: Run, requests: Sequence[Request], ended: Ended = _ignored) -> list[Outcome]:
    """Pull several archives side by side; one that fails or hangs does not keep the others from their work.

    Parameters
    ----------
    requests
        What is asked. Those of the same archive are pulled one after the other.
    ended
        Is told of each that comes to its end, by the thread that called this.

    Returns
    -------
    list
        A report for each request, or the error that ended it.
    """
    outcomes: dict[int, Outcome] = {}
    of_each: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        of_each.setdefault(request.archive, []).append(number)
    at_once = min(run.settings.sources_at_once or len(of_each), len(of_each))
    services = [_service(find(name)) for name in of_each]

    def one(name: str) -> None:
        for number in of_each[name]:
            request = requests[number]
            try:
                share = max(1, min(services.count(_service(find(name))), at_once))
                source, report = pull(run, request, share)
                outcomes[number] = report
            except Stopped:
                raise
            except Exception as error:  # noqa: BLE001 - the others go on
                outcomes[number] = error
                continue
            try:
                run.here(ended, source, report)
            except Stopped:
                raise
            except Exception:
                run.log.exception("the report of %s could not be published", name)

    run.all(one, list(of_each), at_once)
    return [outcomes[number] for number in range(len(requests))]


def pull(run: Run, request: Request, share: int = 1) -> tuple[Archive, PullReport]:
    """Ask an archive for every target that it has not answered yet, and commit what it gives.

    Parameters
    ----------
    share
        How many archives of this run have the same service: each takes its part of the places there.

    Raises
    ------
    LightlakeError
        If another run has the archive's turn, or its places, for too long; if parameters make no sense.
    """
    lake, log, settings = run.lake, run.log, run.settings
    started = time.monotonic()
    check_sample(lake, request.sample)
    with exclusive_pull(lake, of_archive(find(request.archive).name), run.name, log, run.check):
        source = _at_release(lake, request, settings)
        given = source.with_defaults(request.parameters)
        run.here(register_archive, lake, source)
        report, total = _begin(run, request, source, given)
        if total:
            log.info("%s %s: %d targets to ask", source.name, source.release, total)
            run.here(run.watch.begin, source.name, total)
            folder = lake.storage.staging / run.id / source.name / source.release.lower()
            batches = plan_batches(
                lake, source, given, request.samples, folder, again=request.again, back_off=request.back_off
            )
            most = min(settings.workers, max(1, settings.archive_concurrency // share))
            with connection_slots(settings, _service(source), most, log, run.check) as width:
                report = Driver(run, _Archive(source, settings), report).work_off(batches, width)
            remove_folder(folder)
        shown = run.here(register_archive, lake, source)
    return source, replace(report, seconds=time.monotonic() - started, shown=shown)


def _service(source: Archive) -> str:
    return source.service or source.name


def _at_release(lake: Lake, request: Request, settings: Settings) -> Archive:
    """Return the archive at the release that is asked, looked up when its turn has come: it may have changed."""
    source = find(request.archive, release_in(lake, find(request.archive)))
    if request.release is None:
        return source
    newest = request.release == releases.NEWEST
    return find(request.archive, releases.newest(source, settings) if newest else request.release)


def _begin(run: Run, request: Request, source: Archive, given: Mapping[str, Any]) -> tuple[PullReport, int]:
    """Return the report of nothing yet, and how many targets are to be asked."""
    asked = (run.lake, source, given, request.samples)
    total = count_to_ask(*asked, again=request.again, back_off=request.back_off)
    everyone = count_to_ask(*asked, again=request.again) if request.back_off else total
    ahead = count_ahead(run.lake, source, again=request.again)
    try:
        newer = tuple(releases.newer(source, run.settings))
    except ArchiveError as error:  # a pull does not fail for want of their list, it says so
        run.log.warning("newer releases of %s are not known: %s", source.name, error)
        newer = ()
    return PullReport(source.name, source.release, newer=newer, backed_off=everyone - total, ahead=ahead), total


class _Archive:
    """The work of an archive: its granules are fetched and staged elsewhere."""

    def __init__(self, source: Archive, settings: Settings) -> None:
        self.source, self.endpoint, self.give_up_after = (
            source.name,
            source.endpoint_url(settings),
            source.give_up_after,
        )

    @property
    def fetch(self) -> Callable[[Batch, bool], list[Manifest]]:
        """Return what stages them."""
        return fetch

    def name(self, batch: Batch) -> str:
        """Return its granules in a few words."""
        return summarise(batch.granules)

    def count(self, batch: Batch) -> int:
        """Return how many targets it has."""
        return batch.n_targets

    def mark_failed(self, batch: Batch, error: BaseException) -> list[Manifest]:
        """Stage the news that it was lost."""
        return mark_batch_failed(batch, error)

    def commit(self, url: str, fetched: list[Manifest]) -> Told:
        """Commit what it staged."""
        return [(None, receipt) for receipt in commit_batch(url, fetched)]


def width_of(settings: Settings, archives: Collection[str]) -> int:
    """Return how many pieces of work a runner is to do at a time: threads wait for services, processes need cores."""
    at_once = min(settings.sources_at_once or len(archives), len(archives))
    return settings.workers * (at_once if settings.runner == "threads" else 1)
