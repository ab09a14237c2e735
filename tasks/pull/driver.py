"""Drive the work of a source: hand out batches, retry them, commit and report them, in whatever order they end.

What belongs to the whole run (commits, progress, reports) runs in the thread that began it: the lake takes one commit
at a time, and Prefect knows its flow in that thread alone.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from lake.errors import ArchiveError, LightlakeError
from lake.query import Lake
from lake.settings import Settings, load_settings
from lake.text import counted
from tasks.pull.limits import connection_slots
from tasks.pull.recording import Recording
from tasks.pull.report import PullReport, is_lost, log_receipt
from tasks.pull.runners import Runner
from tasks.pull.sampling import Work, do
from tasks.services.request_counters import Log, summarise
from tasks.services.usage import working_for
from tasks.sources.protocol import Batch, Done, Receipts, Source
from tasks.worker import is_passing

S = TypeVar("S")
T = TypeVar("T")

# Seconds after which a waiting thread looks whether the run is to end.
_LOOK_UP_S = 0.5

# A commit that fails is repeated after a pause, so often in all.
_COMMITS, _COMMIT_PAUSE_S = 3, 1.0

# A batch of more granules than this has one line in the log, beside those of its losses.
_LINES = 20


class Watch(Protocol):
    """Shows the progress of a run."""

    def begin(self, source: str, total: int, what: str = "targets") -> None:
        """Show that a source begins."""

    def advance(self, source: str, done: int) -> None:
        """Show that some of its targets are done."""


class Stopped(Exception):
    """Ends a part of a run that is to end as a whole."""


@dataclass
class Run:
    """What the sources of a run share.

    Parameters
    ----------
    lake
        Open for writing.
    runner
        Runs the work.
    log
        The run's log.
    id, name
        Its staging folder, and its name for others that wait for it.
    watch
        Shows its progress.
    recording
        Records it in the lake, and says when it is to stop.
    """

    lake: Lake
    runner: Runner
    log: Log
    id: str
    name: str
    watch: Watch
    settings: Settings = field(default_factory=load_settings)
    recording: Recording | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _posted: queue.SimpleQueue[Callable[[], object]] = field(default_factory=queue.SimpleQueue)

    @property
    def url(self) -> str:
        """Return the lake's URL."""
        return str(self.lake.storage.root)

    def check(self) -> None:
        """Raise Stopped if the run is to end."""
        if self._stop.is_set():
            raise Stopped

    def work_for(self, source: str) -> Work:
        """Return what a piece of work for a source belongs to."""
        return Work(None, source) if self.recording is None else self.recording.work_for(source)

    def slots(self, service: str, share: int = 1) -> AbstractContextManager[int]:
        """Hold connection slots of a service, of which the run gets one part in `share`."""
        wanted = min(self.settings.workers, max(1, self.settings.archive_concurrency // share))
        return connection_slots(self.settings, service, wanted, self.log, self.check)

    def post(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Queue something for the thread that began the run."""
        future: Future[T] = Future()

        def do() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(*args))
                except Exception as error:  # noqa: BLE001 - the caller gets it
                    future.set_exception(error)

        self._posted.put(do)
        return future

    def here(self, work: Callable[..., T], *args: Any) -> T:
        """Run something in the thread that began the run, and wait for it."""
        future = self.post(work, *args)
        while not future.done():
            self.check()
            wait([future], _LOOK_UP_S)
        return future.result()

    def alone(self, work: Callable[[], T]) -> T:
        """Run something in a thread, and meanwhile what it posts."""
        (end,) = self.all(lambda _: work(), [None], 1)
        return end.result()

    def all(self, work: Callable[[S], T], of: Sequence[S], at_once: int) -> list[Future[T]]:
        """Run something for each of several in threads, and meanwhile what they post; return how each ended."""
        with ThreadPoolExecutor(at_once, thread_name_prefix="pull") as pool:
            ends = [pool.submit(copy_context().run, work, one) for one in of]
            try:
                while not all(end.done() for end in ends) or not self._posted.empty():
                    if self.recording is not None:
                        self.recording.look()
                    try:
                        posted = self._posted.get(timeout=0.02 if all(end.done() for end in ends) else 0.2)
                    except queue.Empty:
                        continue
                    posted()
            except BaseException as error:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                if self.recording is not None:
                    self.recording.ended_by(error)
                raise
        return ends


@dataclass(frozen=True, order=True)
class _Try:
    """A batch, the number of its earlier tries, and when it is due."""

    due: float
    number: int
    batch: Any = field(compare=False)
    tries: int = field(default=0, compare=False)
    why: BaseException | None = field(default=None, compare=False)


@dataclass(frozen=True)
class _Staged:
    """What a batch brought, and the future of its receipts."""

    batch: Batch
    fetched: Any
    receipts: Future[Receipts]


class Driver:
    """Work under way: fetched elsewhere, committed by the run, counted in the report."""

    def __init__(self, run: Run, source: Source, report: PullReport) -> None:
        self.run, self.source, self.report = run, source, report
        self.give_up_after = source.limits.give_up_after
        self.fetching: dict[Future[Any], _Try] = {}
        self.committing: dict[Future[Receipts], tuple[_Try, bool]] = {}
        self.waiting: deque[_Staged] = deque()  # those of them whose commit has not begun
        self.delayed: list[_Try] = []
        self.failed_in_a_row = 0
        self.not_before = 0.0  # when a service that asked for a pause may be asked again
        self.broken: Exception | None = None
        self._count = itertools.count()

    def work_off(self, batches: Iterator[Batch], width: int) -> PullReport:
        """Have batches fetched, so many at a time, and commit each as it ends."""
        left: Iterator[Batch] | None = batches
        while left is not None or self.fetching or self.committing or self.delayed:
            self.run.check()
            while (
                len(self.fetching) < width
                and len(self.committing) < 2 * width
                and (time.monotonic() >= self.not_before or self.failed_in_a_row >= self.give_up_after)
            ):
                if self.delayed and self.delayed[0].due <= time.monotonic():
                    self._hand_out(heapq.heappop(self.delayed))
                    continue
                # A batch that waits for its next try holds no slot; memory does not grow with a service that is down.
                if left is None or len(self.delayed) >= 2 * width + 8:
                    break
                if (batch := self._next(left)) is None:
                    left = None
                    break
                self._hand_out(_Try(0.0, next(self._count), batch))
            self._settle(self._ended(width))
        if self.broken is not None:
            raise self.broken
        return self.report

    def settle(self, receipts: Receipts) -> None:
        """Count receipts of what the source committed apart from its batches."""
        self.report = self.report.plus(len(receipts), receipts)

    def _next(self, left: Iterator[Batch]) -> Batch | None:
        """Return the next batch; if the plan breaks, let the work under way end first."""
        try:
            return next(left, None)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - raised when the work under way has ended
            self.broken = error
            return None

    def _ended(self, width: int) -> set[Future[Any]]:
        """Return the futures that have ended, after a short wait at most."""
        pause = _LOOK_UP_S
        if self.delayed and len(self.fetching) < width:
            due = max(self.delayed[0].due, self.not_before)
            pause = min(pause, max(due - time.monotonic(), 0.01))
        under_way = [*self.fetching, *self.committing]
        if under_way:
            return wait(under_way, pause, FIRST_COMPLETED).done
        if self.delayed or time.monotonic() < self.not_before:
            time.sleep(pause)
        return set()

    def _hand_out(self, one: _Try) -> None:
        if self.failed_in_a_row >= self.give_up_after:
            reason = one.why or ArchiveError(
                f"not asked: {counted(self.give_up_after, 'batch', 'batches')} before failed",
                archive=self.source.name,
                endpoint=self.source.endpoint,
                hint="see why, and pull again",
            )
            self._fail(one, reason)
            return
        last_try = one.tries >= self.run.settings.retries
        name, tags, work = f"fetch {one.batch.title}", (self.source.name,), self.run.work_for(self.source.name)
        future = self.run.here(self.run.runner.submit, name, tags, do, work, self.source.fetch, one.batch, last_try)
        self.fetching[future] = one

    def _settle(self, ended: set[Future[Any]]) -> None:
        for future in ended:
            if future in self.fetching:
                one = self.fetching.pop(future)
                if (error := future.exception()) is None:
                    outcome = future.result()
                    if isinstance(outcome, Done):
                        self._done(one, outcome)
                    else:
                        self._commit(one, outcome, fetched=True)
                elif not self._retry(one, error):
                    self._fail(one, error)
                continue
            one, fetched = self.committing.pop(future)
            error = future.exception()
            if error is None:
                self._report(one.batch.size, future.result(), fetched=fetched)
            elif not (fetched and self._retry(one, error)):
                if not fetched:
                    raise error  # not even the failure can be committed
                self._fail(one, error)

    def _retry(self, one: _Try, error: BaseException) -> bool:
        """Delay a batch until its next try, if that may help."""
        settings = self.run.settings
        if not is_passing(error) or one.tries >= settings.retries:
            return False
        # Up to half as long again, so that not all come at once; the service may have asked for a longer pause.
        pause = settings.retry_delay_s * 2**one.tries * (1 + random.random() / 2)  # noqa: S311
        due = time.monotonic() + pause
        if asked_for := getattr(error, "retry_after_s", None):
            self.not_before = max(self.not_before, time.monotonic() + min(asked_for, settings.timeout_s))
        heapq.heappush(self.delayed, _Try(due, next(self._count), one.batch, one.tries + 1, error))
        return True

    def _fail(self, one: _Try, error: BaseException) -> None:
        """Commit a batch as failed."""
        self._commit(one, self.source.mark_failed(one.batch, error), fetched=False)

    def _commit(self, one: _Try, staged: Any, *, fetched: bool) -> None:
        staged_batch = _Staged(one.batch, staged, Future())
        self.committing[staged_batch.receipts] = one, fetched
        self.waiting.append(staged_batch)
        self.run.post(self._commit_waiting)

    def _commit_waiting(self) -> None:
        """Commit what waits by now, in the thread that began the run; each batch has posted this, and most find none.

        A transaction takes about as long for many batches as for one. So a source whose batches end faster than they
        are committed has more of them in the next.
        """
        some: list[_Staged] = []
        while self.waiting and len(some) < self.source.limits.together:
            some.append(self.waiting.popleft())
        if len(some) > 1:
            try:
                together = _commit(self.run, self.source, some, tries=1)
            except Exception as error:  # noqa: BLE001 - each of them, alone, has its own
                self.run.log.warning("%s: committed one by one: %s", _title(some), error)
            else:
                for one, receipts in zip(some, together, strict=True):
                    one.receipts.set_result(receipts)
                return
        for one in some:
            try:
                (receipts,) = _commit(self.run, self.source, [one])
            except Exception as error:  # noqa: BLE001 - the driver gets it
                one.receipts.set_exception(error)
            else:
                one.receipts.set_result(receipts)

    def _done(self, one: _Try, done: Done) -> None:
        """Report what a worker has committed, and retry the rest."""
        left = 0 if done.rest is None else done.rest.size
        self._report(one.batch.size - left, done.receipts, fetched=True)
        if done.rest is not None and done.why is not None:
            rest = replace(one, batch=done.rest)
            if not self._retry(rest, done.why):
                self._fail(rest, done.why)

    def _report(self, size: int, receipts: Receipts, *, fetched: bool) -> None:
        self.report = self.report.plus(size, receipts)
        level = logging.INFO if len(receipts) <= _LINES else logging.DEBUG
        for name, receipt in receipts:
            log_receipt(self.run.log, receipt, name, level=level)
        if level < logging.INFO:
            done = [receipt for _, receipt in receipts if not is_lost(receipt)]
            names = summarise([name or receipt.granule for name, receipt in receipts])
            self.run.log.info("%s: %d done, %d rows", names, len(done), sum(receipt.n_rows for receipt in done))
        self.run.here(self.run.watch.advance, self.source.name, size)
        if receipts and (fetched or self.failed_in_a_row < self.give_up_after):
            failed = all(receipt.status == "failed" for _, receipt in receipts)
            self.failed_in_a_row = self.failed_in_a_row + 1 if failed else 0


def _title(some: Sequence[_Staged]) -> str:
    others = counted(len(some) - 1, "more batch", "more batches")
    return f"{some[0].batch.title} and {others}" if len(some) > 1 else some[0].batch.title


def _commit(run: Run, source: Source, some: Sequence[_Staged], tries: int = _COMMITS) -> list[Receipts]:
    """Commit the results of batches; a catalogue that fails may work a second later."""
    fetched = [one.fetched for one in some]
    for left in reversed(range(tries)):
        try:
            with working_for(source.name):
                return run.runner.here(f"commit {_title(some)}", source.commit, run.url, fetched)
        except LightlakeError as error:
            if is_passing(error) or not left:
                raise
            time.sleep(_COMMIT_PAUSE_S)
    raise AssertionError("unreachable")
