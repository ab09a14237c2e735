"""How a source's work gets done: batches handed out, tried again, committed and told of, in whatever order they end.

What belongs to the whole run, which are commits, progress and reports, is done by the thread that began it: the lake
takes one commit at a time, and Prefect knows its flow there alone.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from lake.commit.commit import Receipt
from lake.errors import ArchiveError, LightlakeError
from lake.query import Lake
from lake.settings import Settings, load_settings
from tasks.pull.report import Report, is_lost, log_receipt
from tasks.pull.runners import Runner
from tasks.pull.work import is_passing
from tasks.services.request_counters import Log, summarise

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R", bound=Report)

# Seconds until a thread that waits for work to be done looks whether the run is to end.
_LOOK_UP_S = 0.5

# A commit that fails is made anew after a pause, so often.
_COMMITS, _COMMIT_PAUSE_S = 3, 1.0

# Granules of a batch that have a line each in the log, at most; of more there is one of all, less those that are lost.
_LINES = 20

# A granule's name, if it has one beside its id, with what became of it.
Told = list[tuple[str | None, Receipt]]


@dataclass(frozen=True)
class Done:
    """What a worker gives that has committed for itself: what came of a batch, and what of it has come to nothing yet.

    Parameters
    ----------
    told
        What is in the lake by now.
    left, why
        A batch of what is to be tried again, if there is any, and because of what.
    """

    told: Told
    left: Any = None
    why: BaseException | None = None


class Watch(Protocol):
    """Is shown how far a run is."""

    def begin(self, source: str, total: int, what: str = "targets") -> None:
        """Note that a source begins."""

    def advance(self, source: str, done: int) -> None:
        """Note that some of its targets are through."""


class Stopped(Exception):
    """The run is to end, and so is this part of it."""


@dataclass
class Run:
    """What the sources of a run share.

    Parameters
    ----------
    lake
        Open for writing.
    runner
        Does the work.
    log
        Of the run.
    id, name
        Of the run: its staging folder, and who others wait for.
    watch
        Is shown how far it is.
    """

    lake: Lake
    runner: Runner
    log: Log
    id: str
    name: str
    watch: Watch
    settings: Settings = field(default_factory=load_settings)
    _stop: threading.Event = field(default_factory=threading.Event)
    _posted: queue.SimpleQueue[Callable[[], object]] = field(default_factory=queue.SimpleQueue)

    @property
    def url(self) -> str:
        """Return the lake's URL."""
        return str(self.lake.storage.root)

    def check(self) -> None:
        """See that the run goes on.

        Raises
        ------
        Stopped
            If not.
        """
        if self._stop.is_set():
            raise Stopped

    def post(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Have something done by the thread that began the run."""
        future: Future[T] = Future()

        def do() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(*args))
                except Exception as error:  # noqa: BLE001 - whoever posted it gets it
                    future.set_exception(error)

        self._posted.put(do)
        return future

    def here(self, work: Callable[..., T], *args: Any) -> T:
        """Have something done by the thread that began the run, and wait for it."""
        future = self.post(work, *args)
        while not future.done():
            self.check()
            wait([future], _LOOK_UP_S)
        return future.result()

    def alone(self, work: Callable[[], T]) -> T:
        """Do something in a thread, and meanwhile what it posts."""
        (end,) = self.all(lambda _: work(), [None], 1)
        return end.result()

    def all(self, work: Callable[[S], T], of: Sequence[S], at_once: int) -> list[Future[T]]:
        """Do something for each of several in threads, and meanwhile what they post; return how each ended."""
        with ThreadPoolExecutor(at_once, thread_name_prefix="pull") as pool:
            ends = [pool.submit(copy_context().run, work, one) for one in of]
            try:
                while not all(end.done() for end in ends) or not self._posted.empty():
                    try:
                        posted = self._posted.get(timeout=0.02 if all(end.done() for end in ends) else 0.2)
                    except queue.Empty:
                        continue
                    posted()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return ends


class Work(Protocol):
    """What is done with the batches of a source, whatever they are."""

    source: str
    endpoint: str
    give_up_after: int

    @property
    def fetch(self) -> Callable[[Any, bool], Any]:
        """Return a function of a module that fetches a batch, wherever it is called.

        It gets the batch, and whether this is its last try. It raises what may pass, and gives what `commit` takes, or
        if it has committed for itself what is `Done`.
        """

    def name(self, batch: Any) -> str:
        """Return what a batch is called."""

    def count(self, batch: Any) -> int:
        """Return how many targets, or pieces, it has."""

    def mark_failed(self, batch: Any, error: BaseException) -> Any:
        """Return for `commit` the news that a batch was lost."""

    def commit(self, url: str, fetched: Any) -> Told:
        """Commit what came of a batch."""


@dataclass(frozen=True, order=True)
class _Try:
    """A batch, how often it was tried before, and when its time comes."""

    due: float
    number: int
    batch: Any = field(compare=False)
    tries: int = field(default=0, compare=False)
    why: BaseException | None = field(default=None, compare=False)


class Driver(Generic[R]):
    """Work on its way: fetched elsewhere, committed by the run, and told of in the report."""

    def __init__(self, run: Run, work: Work, report: R) -> None:
        self.run, self.work, self.report = run, work, report
        self.fetching: dict[Future[Any], _Try] = {}
        self.committing: dict[Future[Told], tuple[_Try, bool]] = {}
        self.delayed: list[_Try] = []
        self.lost_in_a_row = 0
        self.not_before = 0.0  # a service that said how long to leave it alone is asked by nobody until then
        self.broken: Exception | None = None
        self._count = itertools.count()

    def work_off(self, batches: Iterator[Any], width: int) -> R:
        """Have batches fetched, so many at a time, in whatever order they end; return what came of all."""
        left: Iterator[Any] | None = batches
        while left is not None or self.fetching or self.committing or self.delayed:
            self.run.check()
            while (
                len(self.fetching) < width
                and len(self.committing) < 2 * width
                and (time.monotonic() >= self.not_before or self.lost_in_a_row >= self.work.give_up_after)
            ):
                if self.delayed and self.delayed[0].due <= time.monotonic():
                    self._hand_out(heapq.heappop(self.delayed))
                    continue
                # What waits for its next try keeps no place, and memory does not grow with a service that is down.
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

    def _next(self, left: Iterator[Any]) -> Any:
        """Return the next batch; what is under way comes to its end first if none can be planned any more."""
        try:
            return next(left, None)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - it ends the work, after what was begun
            self.broken = error
            return None

    def _ended(self, width: int) -> set[Future[Any]]:
        """Return what has ended, after a while at most."""
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
        limit = self.work.give_up_after
        if self.lost_in_a_row >= limit:
            reason = one.why or ArchiveError(
                f"not asked: {limit} batches before were lost",
                archive=self.work.source,
                endpoint=self.work.endpoint,
                hint="see why, and pull again",
            )
            self._lose(one, reason)
            return
        last_try = one.tries >= self.run.settings.retries
        name, tags = f"fetch {self.work.name(one.batch)}", (self.work.source,)
        future = self.run.here(self.run.runner.submit, name, tags, self.work.fetch, one.batch, last_try)
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
                elif not self._again(one, error):
                    self._lose(one, error)
                continue
            one, fetched = self.committing.pop(future)
            error = future.exception()
            if error is None:
                self._told(self.work.count(one.batch), future.result(), fetched=fetched)
            elif not (fetched and self._again(one, error)):
                if not fetched:
                    raise error  # not even that it is lost can be noted
                self._lose(one, error)

    def _again(self, one: _Try, error: BaseException) -> bool:
        """Put a batch off to its next try, if that may help."""
        settings = self.run.settings
        if not is_passing(error) or one.tries >= settings.retries:
            return False
        # Prolonged by up to a half, so that not all come at once; the service may have said how long to leave it alone.
        pause = settings.retry_delay_s * 2**one.tries * (1 + random.random() / 2)  # noqa: S311
        due = time.monotonic() + pause
        if asked_for := getattr(error, "retry_after_s", None):
            self.not_before = max(self.not_before, time.monotonic() + min(asked_for, settings.timeout_s))
        heapq.heappush(self.delayed, _Try(due, next(self._count), one.batch, one.tries + 1, error))
        return True

    def _lose(self, one: _Try, error: BaseException) -> None:
        """Note a batch as lost in the ledger."""
        self._commit(one, self.work.mark_failed(one.batch, error), fetched=False)

    def _commit(self, one: _Try, staged: Any, *, fetched: bool) -> None:
        future = self.run.post(_commit, self.run, self.work, one.batch, staged)
        self.committing[future] = one, fetched

    def _done(self, one: _Try, done: Done) -> None:
        """Take over what a worker has committed, and have the rest tried again."""
        left = 0 if done.left is None else self.work.count(done.left)
        self._told(self.work.count(one.batch) - left, done.told, fetched=True)
        if done.left is not None and done.why is not None:
            rest = replace(one, batch=done.left)
            if not self._again(rest, done.why):
                self._lose(rest, done.why)

    def _told(self, count: int, told: Told, *, fetched: bool) -> None:
        self.report = self.report.plus(count, told)
        level = logging.INFO if len(told) <= _LINES else logging.DEBUG
        for name, receipt in told:
            log_receipt(self.run.log, receipt, name, level=level)
        if level < logging.INFO:
            done = [receipt for _, receipt in told if not is_lost(receipt)]
            names = summarise([name or receipt.granule for name, receipt in told])
            self.run.log.info("%s: %d done, %d rows", names, len(done), sum(receipt.n_rows for receipt in done))
        self.run.here(self.run.watch.advance, self.work.source, count)
        if told and (fetched or self.lost_in_a_row < self.work.give_up_after):
            lost = all(receipt.status == "failed" for _, receipt in told)
            self.lost_in_a_row = self.lost_in_a_row + 1 if lost else 0


def _commit(run: Run, work: Work, batch: Any, fetched: Any) -> Told:
    """Commit what came of a batch; what does not pass at once may do so a second later."""
    for left in reversed(range(_COMMITS)):
        try:
            return run.runner.here(f"commit {work.name(batch)}", work.commit, run.url, fetched)
        except LightlakeError as error:
            if is_passing(error) or not left:
                raise
            time.sleep(_COMMIT_PAUSE_S)
    raise AssertionError("unreachable")
