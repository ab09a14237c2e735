"""Which task runner a flow gets: threads, processes or Dask, by setting."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from lake.errors import ConfigurationError
from lake.settings import Settings, load_settings


def task_runner(settings: Settings | None = None) -> TaskRunner[Any]:
    """Return the task runner that LIGHTLAKE_RUNNER names, LIGHTLAKE_WORKERS wide.

    Raises
    ------
    ConfigurationError
        If it needs a package that is not installed.
    """
    settings = settings or load_settings()
    if settings.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=settings.workers)
    if settings.runner == "processes":
        return ProcessPoolTaskRunner(max_workers=settings.workers)
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise ConfigurationError(
            "LIGHTLAKE_RUNNER=dask needs prefect-dask", hint="pip install 'lightlake[dask]'"
        ) from error
    if settings.dask_address:
        runner: TaskRunner[Any] = DaskTaskRunner(address=settings.dask_address)
    else:
        runner = DaskTaskRunner(cluster_kwargs={"n_workers": settings.workers, "threads_per_worker": 1})
    return runner


Piece = TypeVar("Piece")


def windowed(
    runs: TaskRunner[Any], task: Task[..., Any], work: Iterable[tuple[Piece, Mapping[str, Any]]], width: int
) -> Iterator[tuple[Piece, Any]]:
    """Run a task on pieces of work, a limited number of them waiting; yield each with its result, in order.

    Parameters
    ----------
    work
        Pieces, with the task's parameters.
    width
        Tasks that run or wait at the same time.

    Yields
    ------
    tuple
        The piece; the task's result, or the exception that it, or the worker that had it, ended with.
    """
    window: deque[tuple[Piece, PrefectFuture[Any]]] = deque()

    def settled() -> tuple[Piece, Any]:
        piece, future = window.popleft()
        future.wait()
        if future.state.is_completed():
            return piece, future.result()
        error = future.state.result(raise_on_failure=False)
        if not isinstance(error, BaseException):
            error = RuntimeError(future.state.message or future.state.name)
        return piece, error

    for piece, parameters in work:
        window.append((piece, runs.submit(task, dict(parameters))))
        while len(window) >= width:
            yield settled()
    while window:
        yield settled()
