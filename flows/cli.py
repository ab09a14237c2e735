"""Commands that run flows: pull, refresh, virac."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from lake.cli import LakeURL, say
from lake.errors import ConfigurationError

Parameters = Annotated[
    str | None, Parameter(help="Other than the defaults, as JSON: '{\"max_search_radius_deg\": 1.0}'.")
]

pull = App(name="pull")
refresh = App(name="refresh")
virac = App(name="virac")


@pull.default
def run_pull(
    archive: str,
    *,
    sample: str | None = None,
    lake: LakeURL = None,
    parameters: Parameters = None,
    again: bool = False,
    release: str | None = None,
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
        Another data release than the one that the lake shows: see `lightlake archives --releases`. It is kept beside
        that one, and takes over when it has an answer for all of that one's targets.
    """
    from tasks.archives import expand, find

    given = _parameters(parameters) or {}
    names = expand([archive])
    for name in names:
        find(name, release).with_defaults(given)
    if names != [archive]:
        return run_refresh(
            *names, sample=sample, lake=lake, parameters=json.dumps(dict.fromkeys(names, given)), again=again
        )
    url = _existing(lake)
    quiet()
    from flows.pull import pull_archive

    return _tell(pull_archive(archive, sample, url, given, again, release, return_state=True))


@refresh.default
def run_refresh(
    *archives: str,
    sample: str | None = None,
    lake: LakeURL = None,
    parameters: Parameters = None,
    again: bool = False,
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
    """
    from tasks.archives import expand, find

    given = _parameters(parameters)
    for name in expand(archives):
        find(name).with_defaults((given or {}).get(name))
    url = _existing(lake)
    quiet()
    from flows.refresh import refresh as refresh_flow

    return _tell(refresh_flow(list(archives) or None, sample, url, given, again, return_state=True))


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
    """
    url = _existing(lake)
    quiet()
    from flows.virac import extract_virac

    return _tell(extract_virac(tiles, url, pattern, min_ks, bands, retry_failed, shard, runner, return_state=True))


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


def _existing(url: str | None) -> str:
    """Return the lake's URL, once it is sure that there is one: Prefect takes seconds to start."""
    from lake.query import Lake

    with Lake(url) as lake:
        return str(lake.storage.root)


def quiet() -> None:
    """Let the final line speak, unless the user asked Prefect for more; call it before Prefect is imported.

    The server that Prefect starts for the length of a command writes to SQLite from several tasks, and logs the
    traceback of each "database is locked", although it tries again and nothing is lost.
    """
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")


def _tell(state: Any) -> int:
    for line in (state.message or state.name).split(" | "):
        say(line)
    return 0 if state.is_completed() else 1
