"""Run the work of a pull: in threads or processes of this command. Prefect's task runners are in flows.runners."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from lake.errors import ConfigurationError
from lake.settings import Settings
from tasks.endings import end_with_parent
from tasks.services.request_counters import Threads
from tasks.worker import in_time

# The page that helps with errors from here.
HELP_TOPIC = "how-to/cluster"

T = TypeVar("T")


class Runner(Protocol):
    """Runs pieces of work, several at a time; all sources of a run share one."""

    def submit(self, name: str, tags: tuple[str, ...], work: Callable[..., T], *args: Any) -> Future[T]:
        """Start work elsewhere; the future holds its result, or the error of the work or of its worker."""

    def here(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Run work in this thread."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """End; after an error, work that has not begun is dropped."""


class LocalRunner:
    """Threads or processes of this process.

    Parameters
    ----------
    settings
        Which of both; time-outs.
    width
        How many pieces of work run at a time.

    Raises
    ------
    ConfigurationError
        If the setting is dask, which needs Prefect.
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
        """Start work in a thread or a process."""
        if not self._processes:
            return self._pool.submit(work, *args)
        with self._lock:
            try:
                return self._pool.submit(in_time, self._timeout_s, work, *args)
            except BrokenProcessPool:  # a worker was killed, and the work of all workers with it
                self._pool.shutdown(wait=False)
                self._pool = self._new()
                return self._pool.submit(in_time, self._timeout_s, work, *args)

    def here(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Run work in this thread."""
        return work(*args)

    def _new(self) -> Executor:
        if self._processes:
            # A fork would copy the threads' locks, and DuckDB, in whatever state they are.
            return ProcessPoolExecutor(self._width, mp_context=get_context("spawn"), initializer=end_with_parent)
        return Threads(self._width)
