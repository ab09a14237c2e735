"""Who does the work of a pull: threads or processes of this command, here; Prefect's task runners, in flows.runners."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from multiprocessing import get_context
from types import FrameType, TracebackType
from typing import Any, Protocol, Self, TypeVar

from lake.errors import ConfigurationError
from lake.settings import Settings
from tasks.endings import end_with_parent
from tasks.services.request_counters import Log, Threads

T = TypeVar("T")

logger = logging.getLogger("lightlake")

_log: ContextVar[Log] = ContextVar("log", default=logger)


def current_log() -> Log:
    """Return the log of the run that this work is of."""
    return _log.get()


@contextmanager
def logging_to(log: Log) -> Iterator[None]:
    """Have work of this thread tell another log."""
    token = _log.set(log)
    try:
        yield
    finally:
        _log.reset(token)


class Runner(Protocol):
    """Does pieces of work, several at a time; all sources of a run share one."""

    def submit(self, name: str, tags: tuple[str, ...], work: Callable[..., T], *args: Any) -> Future[T]:
        """Have work done elsewhere; its future ends with what it gives, or with the error of it or of its worker."""

    def here(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Do work in this thread."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """End: of what is handed in and not begun, nothing is begun any more if this is because of an error."""


class LocalRunner:
    """Threads or processes of this process.

    Parameters
    ----------
    settings
        Which of both; time-outs.
    width
        How many pieces of work are done at a time.

    Raises
    ------
    ConfigurationError
        If the setting is dask, which is Prefect's to run.
    """

    def __init__(self, settings: Settings, width: int) -> None:
        if settings.runner == "dask":
            raise ConfigurationError("LIGHTLAKE_RUNNER=dask needs Prefect", hint="leave --local out, or give --prefect")
        self._width = width
        self._timeout_s = settings.task_timeout_s
        self._processes = settings.runner == "processes"
        self._lock = threading.Lock()
        self._pool = self._new()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """End."""
        self._pool.shutdown(cancel_futures=error is not None)

    def submit(self, name: str, tags: tuple[str, ...], work: Callable[..., T], *args: Any) -> Future[T]:
        """Have work done by a thread or a process."""
        if not self._processes:
            return self._pool.submit(work, *args)
        with self._lock:
            try:
                return self._pool.submit(in_time, self._timeout_s, work, *args)
            except BrokenProcessPool:  # a worker was killed, and all that it and the others had is lost
                self._pool.shutdown(wait=False)
                self._pool = self._new()
                return self._pool.submit(in_time, self._timeout_s, work, *args)

    def here(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Do work in this thread."""
        return work(*args)

    def _new(self) -> Executor:
        if self._processes:
            # A fork would have the threads' locks, and DuckDB, in whatever state they are.
            return ProcessPoolExecutor(self._width, mp_context=get_context("spawn"), initializer=end_with_parent)
        return Threads(self._width)


class OutOfTime(BaseException):
    """Ends work that takes too long. What reads files would take a TimeoutError for an error of theirs."""


def in_time(timeout_s: float, work: Callable[..., T], *args: Any) -> T:
    """Do work in a process of its own for so long at most; then it is a TimeoutError."""
    if threading.current_thread() is not threading.main_thread():  # no signal comes there
        return work(*args)
    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        return work(*args)
    except OutOfTime as error:
        raise TimeoutError(str(error)) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def untimed() -> Iterator[None]:
    """Do what no time-out of a task is to break off, such as a commit: the clock of a process stands still."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)


def _late(number: int, frame: FrameType | None) -> None:
    raise OutOfTime("longer than LIGHTLAKE_TASK_TIMEOUT_S")
