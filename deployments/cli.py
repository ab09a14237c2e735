"""The commands doctor, demo, sandbox, serve, deployments and notify."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from cyclopts import App, Parameter

from flows.cli import existing
from lake.cli import LakeURL
from lake.errors import ConfigurationError
from lake.output import TABLE, TableOptions, say, whole_file
from lake.settings import load_settings
from lake.text import counted, one_line

doctor = App(name="doctor")
demo = App(name="demo")
sandbox = App(name="sandbox")
serve = App(name="serve")
deployments = App(name="deployments")
notify = App(name="notify")

_CHECKS = pa.schema([(name, pa.string()) for name in ("status", "name", "found", "hint")])


@doctor.default
def run_doctor(
    *, lake: LakeURL = None, offline: bool = False, timeout_s: float = 5.0, form: TableOptions = TABLE
) -> int:
    """Check the installation, settings, lake, servers and archives.

    Exit with 1 if anything fails.

    Parameters
    ----------
    offline
        Do not check archives.
    timeout_s
        Longest wait for a connection, and for an answer.
    """
    from deployments.doctor import examine

    if not 0 < timeout_s < math.inf:
        raise ConfigurationError(f"--timeout-s cannot be {timeout_s:g}", hint="give seconds, more than 0")
    checks = examine(lake, offline=offline, timeout_s=timeout_s)
    rows = [{name: getattr(check, name) for name in _CHECKS.names} for check in checks]
    table = pa.Table.from_pylist(rows, schema=_CHECKS)
    form.show(table.drop_columns("hint") if form.is_text else table)
    count = Counter(check.status for check in checks)
    if form.is_text:
        for check in checks:
            if check.hint and check.status != "ok":
                say(one_line(f"{check.status}: {check.name}: {check.hint}"))
        say(", ".join(f"{count[status]} {status}" for status in ("ok", "warn", "fail")))
    return 1 if count["fail"] else 0


@demo.default
def run_demo(folder: Path = Path("lightlake-demo")) -> int:
    """Fill a small lake from simulated archives, query it, plot it.

    Parameters
    ----------
    folder
        Folder of the demo's lake, archives and page.
    """
    from deployments.demo import run

    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder", hint="give a new or existing folder")
    folder.mkdir(parents=True, exist_ok=True)
    return run(folder.absolute())


@sandbox.default
def run_sandbox(
    folder: Path = Path("lightlake-sandbox"),
    *,
    archive: Annotated[list[str] | None, Parameter(negative=())] = None,
    env: Path | None = None,
    scale: float = 0.1,
) -> int:
    """Serve simulated archives, and print the settings that lead to them.

    They run on this machine until Ctrl-C or SIGTERM. They answer as the archives do, with generated data; each has
    something at the positions of the demo's targets. NED and VizieR list the samples lamassa15, macleod16_own and
    green22, and with them the archives have something there, too. TESS has the transits of WASP-126 b. The settings
    lead to nothing else: an archive that is not simulated is not asked.

    Parameters
    ----------
    folder
        Folder of the generated data; another start finds it again.
    archive
        Only this archive or service; may be given several times. Only if it is given: rxte.
    env
        Write the settings to this file, which a lake's commands read if it is called .env and lies in their folder.
    scale
        Size relative to the real archives.
    """
    from deployments.demo import serve_archives

    if not 0 < scale <= 1:
        raise ConfigurationError(f"--scale cannot be {scale:g}", hint="give a number above 0, and at most 1")
    return serve_archives(folder.absolute(), archive, env, scale)


@sandbox.command(name="tiles")
def write_sandbox_tiles(folder: Path, *, tiles: int = 8, broken: int = 2, sources: int = 300) -> int:
    """Write simulated VIRAC tiles, some of them broken.

    They are made again alike, so that a whole copy of a broken one is in a folder of --broken 0.

    Parameters
    ----------
    folder
        Folder of the tiles.
    tiles
        Number of tiles.
    broken
        Number of those that are broken.
    sources
        Number of sources of a tile.
    """
    from deployments.sandbox.tiles import write_tiles

    if not (tiles > 0 and 0 <= broken <= tiles and 1 < sources <= 400_000):
        raise ConfigurationError(
            f"cannot make that: --tiles {tiles} --broken {broken} --sources {sources}",
            hint="give one tile or more, no more broken ones than tiles, and 2 to 400000 sources",
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder", hint="give a new or existing folder")
    written = write_tiles(folder, tiles, seed=1, n_sources=sources, broken=broken / tiles)
    size = sum((folder / name).stat().st_size for name in written)
    say(f"{folder}: {counted(len(written), 'tile')}, {sum(map(bool, written.values()))} broken, {size / 1e6:.0f} MB")
    return 0


@serve.default
def run_serve(*, lake: LakeURL = None, limit: int = 5) -> int:
    """Run the deployments and their schedules; needs a Prefect server.

    Serve them on this machine until Ctrl-C or SIGTERM.

    Parameters
    ----------
    limit
        Runs at the same time; runs that wait for another are not counted.
    """
    if limit < 1:
        raise ConfigurationError(f"--limit cannot be {limit}", hint="give 1 or more")
    url = existing(lake)
    from deployments.deployed import deployed
    from deployments.serve import serve
    from lake.query import Lake

    with Lake(url, writable=True) as opened:
        opened.catalog.close()  # a service runs for months, and uses only the lake's claims
        serve(opened, deployed(url), limit=limit, notify=load_settings().notify, say=say)
    return 0


@deployments.default
def write_deployments(*, to: Path | None = None, pool: str = "lightlake") -> int:
    """Write prefect.yaml, to deploy all flows to a work pool.

    `prefect deploy --all` reads it.

    Parameters
    ----------
    to
        File to write; default: print it.
    pool
        Name of the work pool.
    """
    from deployments.deployed import as_yaml

    if to is None:
        say(as_yaml(pool).rstrip("\n"))
        return 0
    with whole_file(to) as file:
        file.write(as_yaml(pool).encode())
    say(f"{to}: now run: prefect deploy --all --prefect-file {to}")
    return 0


@notify.default
def set_notify(block: str | None = None, *, changes: Annotated[bool, Parameter(negative=())] = False) -> int:
    """Let Prefect mark dead runs as crashed, and report failed ones.

    `lightlake serve` does so, too.

    Parameters
    ----------
    block
        A notification block of Prefect, as TYPE/NAME: slack-webhook/observers. Default: LIGHTLAKE_NOTIFY; without
        either, failed runs are not reported.
    changes
        Report targets that brightened or faded, too: after each refresh.
    """
    from deployments.automations import crash_silent_runs, notify_of_failures, notify_of_variations, reach_api

    reach_api()
    say(crash_silent_runs())
    if chosen := block or load_settings().notify:
        say(notify_of_failures(chosen))
        if changes:
            say(notify_of_variations(chosen))
    elif changes:
        raise ConfigurationError("--changes needs a block", hint="lightlake notify slack-webhook/observers --changes")
    return 0
