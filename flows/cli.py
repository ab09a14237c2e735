"""Commands that run flows: pull, refresh, virac, rxte, hst."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from flows.forms import PullOptions, RefreshOptions
from flows.hst_cli import pages, reset
from lake.cli import LakeURL
from lake.errors import ConfigurationError
from lake.output import TABLE, TableOptions, say
from lake.settings import load_settings
from tasks.options import spread
from tasks.pull.recording import STOPPED, RunStopped
from tasks.sources.hst_timetag.options import HstOptions
from tasks.sources.protocol import Request
from tasks.sources.rxte.options import RxteOptions
from tasks.sources.virac.options import ViracOptions

ByPrefect = Annotated[
    bool | None,
    Parameter(
        name="--prefect",
        negative="--local",
        help="By Prefect, or in this process; default: by Prefect if PREFECT_API_URL says where its server is, or for "
        "Dask.",
    ),
]
TaskRunner = Annotated[
    Literal["threads", "processes", "dask"] | None,
    Parameter(help="What runs the tasks: threads, processes or dask; default: LIGHTLAKE_RUNNER."),
]

pull = App(name="pull")
refresh = App(name="refresh")
virac = App(name="virac")
rxte = App(name="rxte")
hst = App(name="hst")
hst.command(pages)
hst.command(reset)


@pull.default
@spread(PullOptions, command=True, positional=["archive"])
def run_pull(*, lake: LakeURL = None, options: PullOptions, prefect: ByPrefect = None) -> int:
    """Pull one archive for every target that it has not answered yet.

    Exit with 1 if anything is missing.
    """
    from tasks.sources.registry import expand, find, survey_of
    from tasks.sources.releases import NEWEST

    archive, given = options.archive, options.parameters or {}
    if survey := survey_of(archive):
        raise ConfigurationError(
            f"{archive} is no archive that is pulled target by target", hint=f"run: lightlake {survey.name} --help"
        )
    names = expand([archive])
    for name in names:
        find(name, None if options.release == NEWEST else options.release).with_defaults(given)
    if len(names) > 1:
        several = RefreshOptions(
            archives=names,
            sample=options.sample,
            parameters=dict.fromkeys(names, given),
            again=options.again,
            retry_failed=options.retry_failed,
        )
        return _refresh(several, lake, prefect)
    (archive,) = names
    options = PullOptions.of(**{**dict(options), "archive": archive})
    url = existing(lake, options.sample, asks_for_targets=True)
    if not by_prefect(prefect):
        return _pull_here(url, options.request)
    check_prefect()
    from flows.pull import pull_archive

    return tell(lambda: pull_archive(lake=url, **dict(options), return_state=True))


@refresh.default
@spread(RefreshOptions, command=True)
def run_refresh(
    *archives: str,
    lake: LakeURL = None,
    options: RefreshOptions,
    plan: Annotated[bool, Parameter(negative=())] = False,
    form: TableOptions = TABLE,
    prefect: ByPrefect = None,
) -> int:
    """Pull all archives for every target that they have not answered.

    Exit with 1 if anything is missing.

    Parameters
    ----------
    archives
        Archives, or services for all of theirs; default: all.
    plan
        Ask for nothing, and say what would be asked: how many targets and why, with an estimate of time, rows and
        bytes from what the ledger has of earlier answers. --output, --to and --expand are of the plan.
    """
    options = RefreshOptions.of(**{**dict(options), "archives": list(archives) or None})
    return _show_plan(lake, options, form) if plan else _refresh(options, lake, prefect)


def _refresh(options: RefreshOptions, lake: str | None, prefect: bool | None) -> int:
    from tasks.sources.registry import check_parameters, expand

    names = expand(options.archives)
    options = RefreshOptions.of(**{**dict(options), "parameters": check_parameters(options.parameters, names)})
    select = options.select
    url = existing(lake, options.sample, asks_for_targets=True)
    if not by_prefect(prefect):
        from flows.local import refresh as refresh_here

        more: dict[str, Any] = {"parameters": options.parameters, "sample": options.sample, "newest": options.newest}
        with stopping() as stopped:
            done = refresh_here(url, names, select=select, **more)
        if stopped:
            return STOPPED
        for line in done.lost or done.lines:
            say(line)
        return 1 if done.lost else 0
    check_prefect()
    from flows.refresh import refresh as refresh_flow

    return tell(lambda: refresh_flow(lake=url, **dict(options), return_state=True))


def _show_plan(url: str | None, options: RefreshOptions, form: TableOptions) -> int:
    import pyarrow as pa

    from lake.query import Lake
    from tasks.archives.estimates import plans
    from tasks.sources.registry import check_parameters, expand

    names = expand(options.archives)
    check_parameters(options.parameters, names)
    with Lake(url) as lake:
        made = plans(lake, names, options.parameters, options.sample, select=options.select, newest=options.newest)
    shown = ("archive", "targets", "new", "old", "failed_before", "rejected_before", "rows")
    form.show(pa.Table.from_pylist([one.row() for one in made]), first=shown)
    return 0


@virac.default
@spread(ViracOptions, command=True, positional=["tiles"])
def run_virac(
    *, lake: LakeURL = None, options: ViracOptions, runner: TaskRunner = None, prefect: ByPrefect = None
) -> int:
    """Extract VIRAC's tiles into the lake, those not in it yet.

    Exit with 1 if one cannot be.
    """
    url = existing(lake)
    if not by_prefect(prefect, runner):
        return _pull_here(url, Request("virac", options, select=options.select), runner)
    check_prefect()
    from flows.virac import extract_virac

    return tell(lambda: extract_virac(lake=url, runner=runner, **dict(options), return_state=True))


@rxte.default
@spread(RxteOptions, command=True, positional=["target"])
def run_rxte(
    *, lake: LakeURL = None, options: RxteOptions, runner: TaskRunner = None, prefect: ByPrefect = None
) -> int:
    """Bring RXTE's observations of targets into the lake.

    Exit with 1 if one cannot be.
    """
    from tasks.sources.rxte.files import Mirror

    url = existing(lake, options.sample)
    _check_target(url, options.target)
    if not by_prefect(prefect, runner):
        return _pull_here(url, Request("rxte", options, options.sample, options.select), runner)
    Mirror(load_settings()).close()
    check_prefect()
    from flows.rxte import pull_rxte

    return tell(lambda: pull_rxte(lake=url, runner=runner, **dict(options), return_state=True))


@hst.default
@spread(HstOptions, command=True, positional=["target"])
def run_hst(*, lake: LakeURL = None, options: HstOptions, runner: TaskRunner = None, prefect: ByPrefect = None) -> int:
    """Bring HST's COS and STIS exposures of targets into the lake.

    Exit with 1 if one cannot be.
    """
    url = existing(lake, options.sample)
    _check_target(url, options.target)
    if not by_prefect(prefect, runner):
        return _pull_here(url, Request("hst_timetag", options, options.sample, options.select), runner)
    check_prefect()
    from flows.hst import pull_hst

    return tell(lambda: pull_hst(lake=url, runner=runner, **dict(options), return_state=True))


def _check_target(url: str, target: str | None) -> None:
    """See that a name stands for a target, and say for which object: that is better reported before Prefect starts."""
    from lake.query import Lake
    from tasks.sources.observed import check_target

    if target is not None:
        with Lake(url, writable=True) as opened:
            found = check_target(opened, target)
        if found is not None:
            say(found)


def existing(url: str | None, sample: str | None = None, *, asks_for_targets: bool = False) -> str:
    """Return the lake's URL after checking that it can be written and has that sample: Prefect starts slowly.

    A lake without targets has nothing to ask archives for. That is said, and is no error: targets may come later.
    """
    from lake.light_curves import files_of
    from lake.names import check_sample
    from lake.query import Lake

    with Lake(url, writable=True) as lake:
        check_sample(lake, sample)
        # That there are files is found out at once; the first query of DuckLake's loads all that it knows of the lake.
        is_known = "targets" in (listed := files_of(lake)[1]) and len(listed["targets"].paths)
        if asks_for_targets and not is_known and not lake.sql("SELECT 1 FROM targets LIMIT 1").num_rows:
            say("note: the lake has no targets yet: lightlake targets add FILE --sample NAME")
        return str(lake.storage.root)


def quiet() -> None:
    """Silence Prefect except for the final line, unless the user asked for more; call it before Prefect is imported.

    The server that Prefect starts for the length of a command writes to SQLite from several tasks, and logs the
    traceback of each "database is locked", although it tries again and nothing is lost.
    """
    # A home that cannot be made is reported where it is needed.
    warnings.filterwarnings("ignore", "Failed to create the Prefect home directory", UserWarning)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")


def by_prefect(chosen: bool | None, runner: str | None = None) -> bool:
    """Say whether Prefect runs it: as chosen, else if a server of Prefect, or Dask, is configured."""
    quiet()
    from tasks.events import prefect_api

    return bool(prefect_api() or load_settings(runner=runner).runner == "dask") if chosen is None else chosen


def check_prefect() -> None:
    """Check that Prefect can run a flow: by itself it takes long to find out that it cannot."""
    quiet()
    from flows.ready import check_prefect as check

    check()


def _pull_here(url: str, request: Request, runner: str | None = None) -> int:
    """Pull a source in this process."""
    from flows.local import pull as pull_here

    with stopping() as stopped:
        outcome = pull_here(url, request, load_settings(runner=runner))
    if stopped:
        return STOPPED
    if isinstance(outcome, Exception):
        raise outcome
    say(outcome.message)
    return 1 if outcome.lost else 0


@contextmanager
def stopping() -> Iterator[list[str]]:
    """Say that a run was stopped; what is yielded is empty if it was not."""
    why: list[str] = []
    try:
        yield why
    except RunStopped as error:
        why.append(str(error))
        say(str(error))


def tell(flow: Callable[[], Any]) -> int:
    """Run a flow, say how it ended, and return the exit code."""
    from flows.ready import run

    state = run(flow)
    for line in str(state.message or state.name).split(" | "):
        say(line)
    if state.is_cancelled():
        return STOPPED
    return 0 if state.is_completed() else 1
