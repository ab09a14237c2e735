"""Which task runner a flow gets: threads, processes or Dask, by setting."""

from __future__ import annotations

from typing import Any

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
