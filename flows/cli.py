"""Commands that run flows: pull, refresh, virac, rxte."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from lake.cli import LakeURL
from lake.errors import ConfigurationError
from lake.output import Output, say, show
from lake.settings import load_settings

if TYPE_CHECKING:
    from tasks.pull.driver import Run
    from tasks.pull.report import SurveyReport
    from tasks.sources.base import Origin

Parameters = Annotated[
    str | None, Parameter(help="Other than the defaults, as JSON: '{\"max_search_radius_deg\": 1.0}'.")
]

ByPrefect = Annotated[bool | None, Parameter(name="--prefect", negative="--local")]

pull = App(name="pull")
refresh = App(name="refresh")
virac = App(name="virac")
rxte = App(name="rxte")


@pull.default
def run_pull(
    archive: str,
    *,
    sample: str | None = None,
    lake: LakeURL = None,
    parameters: Parameters = None,
    again: bool = False,
    release: str | None = None,
    prefect: ByPrefect = None,
) -> int:
    """Pull one archive for every target that it has not answered yet; exit with 1 if anything is missing.

    Parameters
    ----------
    archive
        As `lightlake archives` names it; or a service, such as heasarc, for all its archives.
    sample
        Only targets of this sample.
    again
        Ask for what was answered before, too.
    release
        Another data release than the one that the lake shows, or newest: see `lightlake archives --releases`. It is
        kept beside that one, and takes over when it has an answer for all of that one's targets.
    prefect
        By Prefect, or in this process; default: by Prefect if PREFECT_API_URL says where its server is.
    """
    from tasks.sources.registry import SURVEYS, expand, find
    from tasks.sources.releases import NEWEST

    given = _parameters(parameters) or {}
    if archive in SURVEYS:
        raise ConfigurationError(
            f"{archive} is no archive that is pulled target by target", hint=f"run: lightlake {SURVEYS[archive]} --help"
        )
    names = expand([archive])
    for name in names:
        find(name, None if release == NEWEST else release).with_defaults(given)
    if names != [archive]:
        return run_refresh(
            *names,
            sample=sample,
            lake=lake,
            parameters=json.dumps(dict.fromkeys(names, given)),
            again=again,
            prefect=prefect,
        )
    url = existing(lake, sample)
    if not by_prefect(prefect):
        from flows.local import pull as pull_here
        from tasks.pull.run import Request

        outcome = pull_here(url, Request(archive, given, sample, again, release))
        if isinstance(outcome, Exception):
            raise outcome
        say(outcome.message)
        return 1 if outcome.failed else 0
    check_prefect()
    from flows.pull import pull_archive

    return _tell(lambda: pull_archive(archive, sample, url, given, again, release, return_state=True))


@refresh.default
def run_refresh(
    *archives: str,
    sample: str | None = None,
    lake: LakeURL = None,
    parameters: Parameters = None,
    again: bool = False,
    newest: Annotated[bool, Parameter(negative=())] = False,
    plan: Annotated[bool, Parameter(negative=())] = False,
    output: Output = "table",
    prefect: ByPrefect = None,
) -> int:
    """Pull all archives, or those named, for every target that they have not answered yet.

    Parameters
    ----------
    archives
        Archives, or services for all of theirs; default: all.
    sample
        Only targets of this sample.
    parameters
        By archive.
    again
        Ask for what was answered before, too.
    newest
        Of ZTF and unWISE the newest release, too: all targets are asked anew, and it takes over when it has them all.
    plan
        Ask for nothing, and say what would be asked: how many targets and why, with an estimate of time, rows and
        bytes from what the ledger has of earlier answers.
    output
        Of the plan.
    prefect
        By Prefect, or in this process; default: by Prefect if PREFECT_API_URL says where its server is.
    """
    from tasks.sources.registry import check_parameters, expand

    given = _parameters(parameters)
    names = expand(archives)
    check_parameters(given, names)
    if plan:
        return _show_plan(lake, names, given, sample, output, again=again, newest=newest)
    url = existing(lake, sample)
    if not by_prefect(prefect):
        from flows.local import refresh as refresh_here

        done = refresh_here(url, names, parameters=given, sample=sample, again=again, newest=newest)
        for line in done.lost or done.lines:
            say(line)
        return 1 if done.lost else 0
    check_prefect()
    from flows.refresh import refresh as refresh_flow

    chosen = list(archives) or None
    return _tell(lambda: refresh_flow(chosen, sample, url, given, again, newest=newest, return_state=True))


def _show_plan(
    url: str | None,
    names: Sequence[str],
    parameters: dict[str, Any] | None,
    sample: str | None,
    output: Output,
    *,
    again: bool,
    newest: bool,
) -> int:
    import pyarrow as pa

    from lake.query import Lake
    from tasks.pull.estimates import plans

    with Lake(url) as lake:
        made = plans(lake, names, parameters, sample, again=again, newest=newest)
    show(pa.Table.from_pylist([one.row() for one in made]), output)
    return 0


@virac.default
def run_virac(
    tiles: str,
    *,
    lake: LakeURL = None,
    pattern: str = "n*_*.hdf5",
    min_ks: int = 20,
    bands: list[str] | None = None,
    retry_failed: bool = False,
    shard: str | None = None,
    runner: Literal["threads", "processes", "dask"] | None = None,
    prefect: ByPrefect = None,
) -> int:
    """Extract VIRAC's tiles into the lake, those that are not in it yet; exit with 1 if one cannot be.

    Parameters
    ----------
    tiles
        Folder of the tiles, or s3://BUCKET/PREFIX; or eso:n1024_9000000,n512_2652179 for what the public release,
        VIRAC2, has in those.
    pattern
        Names of the tiles' files.
    min_ks
        Keep sources with more Ks detections than this; what is left out is in table sources, with the reason.
    bands
        Bands whose rows are kept; default: all.
    retry_failed
        Exactly the tiles that were rejected or failed before.
    shard
        One of several jobs, such as 0/96. Without it jobs share the tiles, too: each takes what no other has.
    runner
        What runs the tasks: threads, processes or dask; default: LIGHTLAKE_RUNNER.
    prefect
        By Prefect, or in this process; default: by Prefect if PREFECT_API_URL says where its server is, or for Dask.
    """
    from tasks.sources.virac.source import Asked, pull
    from tasks.sources.virac.tile import BANDS
    from tasks.sources.virac.tiles import Selection

    url = existing(lake)
    asked = Asked(tiles, pattern, Selection(min_ks, tuple(sorted(bands or BANDS))), retry_failed, shard)
    asked.check()  # Prefect takes long to start: what is wrong without it is better said before
    if not by_prefect(prefect, runner):
        return _survey_here(url, runner, lambda run: pull(run, asked))
    check_prefect()
    from flows.virac import extract_virac

    return _tell(
        lambda: extract_virac(tiles, url, pattern, min_ks, bands, retry_failed, shard, runner, return_state=True)
    )


@rxte.default
def run_rxte(
    target: str | None = None,
    *,
    sample: str | None = None,
    lake: LakeURL = None,
    radius_deg: float = 0.1,
    method: Literal["products", "heasoft", "standard2"] = "products",
    bands: list[str] | None = None,
    chmin: int | None = None,
    chmax: int | None = None,
    emin_kev: float | None = None,
    emax_kev: float | None = None,
    pcus: list[int] | None = None,
    layers: list[int] | None = None,
    bin_s: float | None = None,
    gti: str | None = None,
    limit: int | None = None,
    slews: bool = False,
    xtemaster: str | None = None,
    again: bool = False,
    retry_failed: bool = False,
    runner: Literal["threads", "processes", "dask"] | None = None,
    prefect: ByPrefect = None,
) -> int:
    """Bring RXTE's observations of targets into the lake; exit with 1 if one cannot be.

    Parameters
    ----------
    target
        A target of the lake by name, or a new one as 'RA DEC', ICRS degrees; default: all that have no answer yet.
    sample
        Only targets of this sample.
    radius_deg
        Observations within this of a target, degrees.
    method
        products: the archive's standard light curves. heasoft: chosen channels by HEASoft's pcaextlc2. standard2:
        chosen channels without HEASoft, with the background in them, not corrected for dead time.
    bands
        Of the standard products, such as pca_a; default: all that there are.
    chmin, chmax
        Absolute channels, 0 to 255, both ends included.
    emin_kev, emax_kev
        Instead of channels: energies, keV, whose channels follow from each observation's gain epoch.
    pcus, layers
        Detectors 0 to 4, anode layers 1 to 3; default: all.
    bin_s
        Length of a bin, seconds: a multiple of 16, which is the default.
    gti
        Good times, as maketime takes them; the default is HEASARC's: see the README.
    limit
        At most so many observations of a target.
    slews
        Slews to and from targets, too.
    xtemaster
        Rows of HEASARC's table xtemaster as a CSV file, instead of asking for them.
    again
        Ask for targets that were answered before, too.
    retry_failed
        Exactly the observations that were rejected or failed before.
    runner
        What runs the tasks: threads, processes or dask; default: LIGHTLAKE_RUNNER.
    prefect
        By Prefect, or in this process; default: by Prefect if PREFECT_API_URL says where its server is, or for Dask.
    """
    url = existing(lake, sample)
    from lake.query import Lake
    from tasks.sources.rxte.files import Mirror
    from tasks.sources.rxte.source import asked_of, pull
    from tasks.sources.rxte.targets import place_of

    given: dict[str, Any] = {
        "target": target,
        "sample": sample,
        "radius_deg": radius_deg,
        "method": method,
        "bands": bands,
        "chmin": chmin,
        "chmax": chmax,
        "emin_kev": emin_kev,
        "emax_kev": emax_kev,
        "pcus": pcus,
        "layers": layers,
        "bin_s": bin_s,
        "gti": gti,
        "limit": limit,
        "slews": slews,
        "xtemaster": xtemaster,
        "again": again,
        "retry_failed": retry_failed,
    }
    asked = asked_of(**given)
    if not by_prefect(prefect, runner):
        return _survey_here(url, runner, partial(pull, asked=asked))
    Mirror(load_settings()).close()
    if target is not None and place_of(target) is None:
        with Lake(url) as opened:
            opened.target_id(target)  # is there one? Better now than when Prefect has started
    check_prefect()
    from flows.rxte import pull_rxte

    return _tell(lambda: pull_rxte(lake=url, runner=runner, **given, return_state=True))


def _parameters(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        parameters = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"--parameters is not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise ConfigurationError("--parameters is not a JSON object", hint='such as {"max_search_radius_deg": 1.0}')
    return parameters


def existing(url: str | None, sample: str | None = None) -> str:
    """Return the lake's URL, once it is sure that it can be written and has that sample: Prefect takes seconds."""
    from lake.names import check_sample
    from lake.query import Lake

    with Lake(url, writable=True) as lake:
        check_sample(lake, sample)
        return str(lake.storage.root)


def quiet() -> None:
    """Let the final line speak, unless the user asked Prefect for more; call it before Prefect is imported.

    The server that Prefect starts for the length of a command writes to SQLite from several tasks, and logs the
    traceback of each "database is locked", although it tries again and nothing is lost.
    """
    # A home that cannot be made is told of where it is needed.
    warnings.filterwarnings("ignore", "Failed to create the Prefect home directory", UserWarning)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")


def by_prefect(chosen: bool | None, runner: str | None = None) -> bool:
    """Say whether Prefect is to run it: as chosen, else if a server of it is configured, or a Dask cluster."""
    quiet()
    from tasks.events import prefect_api

    return bool(prefect_api() or load_settings(runner=runner).runner == "dask") if chosen is None else chosen


def check_prefect() -> None:
    """Be quiet, and see that Prefect can run a flow: it takes its time to find out that it cannot."""
    quiet()
    from flows.ready import check_prefect as check

    check()


def _survey_here(url: str, runner: str | None, pulled: Callable[[Run], tuple[Origin, SurveyReport]]) -> int:
    from flows.local import survey

    report = survey(url, load_settings(runner=runner), pulled)
    say(report.message)
    return 1 if report.lost else 0


def _tell(flow: Callable[[], Any]) -> int:
    from flows.ready import run

    state = run(flow)
    for line in str(state.message or state.name).split(" | "):
        say(line)
    return 0 if state.is_completed() else 1
