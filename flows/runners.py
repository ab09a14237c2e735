"""Run the work of a flow by Prefect: in threads, processes or Dask, by setting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, PrefectWrappedFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.importtools import from_qualified_name

from lake.errors import ConfigurationError
from lake.settings import Settings, load_settings
from tasks.endings import end_with_parent
from tasks.worker import in_time, logging_to

# The page that helps with errors from here.
HELP_TOPIC = "how-to/cluster"

# A file of LIGHTLAKE_DASK_CLUSTER may have these arguments of prefect_dask.DaskTaskRunner.
_MAPPINGS = ("cluster_kwargs", "adapt_kwargs", "client_kwargs")


def task_runner(settings: Settings | None = None) -> TaskRunner[Any]:
    """Return the task runner that LIGHTLAKE_RUNNER names, LIGHTLAKE_WORKERS wide.

    Raises
    ------
    ConfigurationError
        If it needs a package that is not installed, or the description of its Dask cluster is wrong.
    """
    settings = settings or load_settings()
    if settings.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=settings.workers)
    if settings.runner == "processes":
        return ProcessPoolTaskRunner(max_workers=settings.workers, initializer=end_with_parent)
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise ConfigurationError(
            "LIGHTLAKE_RUNNER=dask needs prefect-dask", hint="pip install 'lightlake[dask]'"
        ) from error
    if settings.dask_cluster:
        runner: TaskRunner[Any] = DaskTaskRunner(**dask_cluster(settings))
    elif settings.dask_address:
        runner = DaskTaskRunner(address=settings.dask_address)
    else:
        local = {"n_workers": settings.workers, "threads_per_worker": 1, "preload": ["flows.temporary_server"]}
        runner = DaskTaskRunner(cluster_kwargs=local)
    return runner


def dask_cluster(settings: Settings) -> dict[str, Any]:
    """Read the arguments of DaskTaskRunner from the file of LIGHTLAKE_DASK_CLUSTER, and import its class.

    A cluster without a size in the file has LIGHTLAKE_WORKERS workers, or at most so many if it is adaptive.

    Raises
    ------
    ConfigurationError
        If the file is missing or wrong, or if LIGHTLAKE_DASK_ADDRESS is set, too.
    """
    path = Path(settings.dask_cluster or "").expanduser()
    if settings.dask_address:
        raise ConfigurationError(
            "LIGHTLAKE_DASK_ADDRESS and LIGHTLAKE_DASK_CLUSTER are both set",
            hint="unset the first to have a cluster made for each run, the second to use the one that runs",
        )
    try:
        given = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(
            f"LIGHTLAKE_DASK_CLUSTER: cannot read {path}: {reason}",
            hint="give the path of a file such as deployments/cluster/slurm.yaml",
        ) from error
    except yaml.YAMLError as error:
        raise _wrong(path, f"is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict) or "cluster_class" not in given:
        raise _wrong(path, "is not a mapping with cluster_class")
    if unknown := set(given) - {"cluster_class", *_MAPPINGS}:
        raise _wrong(path, f"has {', '.join(sorted(map(str, unknown)))}, which nothing reads")
    if wrong := [name for name in _MAPPINGS if not isinstance(given.get(name) or {}, dict)]:
        raise _wrong(path, f"has {', '.join(wrong)}, which is not a mapping")
    arguments = {name: dict(given.get(name) or {}) for name in _MAPPINGS}
    if any("asynchronous" in arguments[name] for name in _MAPPINGS):
        raise _wrong(path, "has asynchronous, which Prefect sets itself")
    kwargs, adapt = arguments["cluster_kwargs"], arguments["adapt_kwargs"]
    if adapt and "maximum_jobs" not in adapt:
        adapt.setdefault("maximum", settings.workers)
    elif not adapt:
        kwargs.setdefault("n_workers", settings.workers)
    return {"cluster_class": _class(path, given["cluster_class"]), **arguments}


def _class(path: Path, name: Any) -> type:
    try:
        found = from_qualified_name(str(name))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{path}: cluster_class {name} cannot be imported: {error}",
            hint="for those of dask_jobqueue: pip install 'lightlake[cluster]'; others are in packages of their own",
        ) from error
    if not isinstance(found, type):
        raise _wrong(path, f"has cluster_class {name}, which is not a class")
    return found


def _wrong(path: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} of LIGHTLAKE_DASK_CLUSTER {reason}",
        hint=f"it has cluster_class, {', '.join(_MAPPINGS)}, as deployments/cluster/slurm.yaml has",
    )


T = TypeVar("T")


class PrefectRunner:
    """One of Prefect's task runners: each piece of work is a task run.

    Parameters
    ----------
    settings
        Which one; time-outs.
    width
        How many pieces of work run at a time.
    """

    def __init__(self, settings: Settings, width: int) -> None:
        self._settings = settings.model_copy(update={"workers": width})
        self._runs, self._broken = task_runner(self._settings), False
        # Prefect cannot interrupt a thread: the archives' own time-outs hold. A process has a clock of its own.
        self._timeout_s = settings.task_timeout_s if settings.runner == "dask" else None
        self._waiting = ThreadPoolExecutor(1024, thread_name_prefix="task")  # one for each task under way

    def __enter__(self) -> Self:
        """Begin."""
        self._runs.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """End."""
        self._waiting.shutdown(wait=False, cancel_futures=True)
        self._runs.__exit__(kind, error, where)

    def submit(self, name: str, tags: tuple[str, ...], work: Callable[..., T], *args: Any) -> Future[T]:
        """Start work as a task run."""
        if self._broken:  # Prefect keeps the pool of a killed worker, which does no more work
            self._runs.__exit__(None, None, None)
            self._runs, self._broken = task_runner(self._settings), False
            self._runs.__enter__()
        if self._settings.runner == "processes":
            work, args = in_time, (self._settings.task_timeout_s, work, *args)
        task = _elsewhere.with_options(task_run_name=_plain(name), tags=list(tags), timeout_seconds=self._timeout_s)
        future = self._runs.submit(task, {"work": work, "arguments": args})
        return self._waiting.submit(copy_context().run, self._settled, future)

    def _settled(self, future: PrefectFuture[Any]) -> Any:
        try:
            return _settled(future)
        except BrokenExecutor:
            self._broken = True
            raise

    def here(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Run work in this thread, as a task run."""
        done: Any = _here.with_options(task_run_name=_plain(name))(work, args)
        return done  # type: ignore[no-any-return]


def _plain(name: str) -> str:
    """Escape a name, which Prefect formats."""
    return name.replace("{", "{{").replace("}", "}}")


# Staged granules are not fetched again, so results need not be kept; the engine decides on retries.
@task(name="fetch", cache_policy=NO_CACHE, persist_result=False)
def _elsewhere(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    with logging_to(get_run_logger()):
        return work(*arguments)


@task(name="commit", cache_policy=NO_CACHE, persist_result=False)
def _here(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return work(*arguments)


def _settled(future: PrefectFuture[Any]) -> Any:
    """Return the result of a task run, or raise its error."""
    future.wait()
    if isinstance(future, PrefectWrappedFuture) and (lost := future.wrapped_future.exception()) is not None:
        # Dask drops a task with its worker, and Prefect never hears how it ended.
        raise RuntimeError(f"its worker was lost: {lost}") from lost
    state = future.state
    if state.is_completed():
        return future.result()
    error = state.result(raise_on_failure=False)
    if not isinstance(error, BaseException):
        error = RuntimeError(state.message or f"it ended as {state.name}")
    raise error
