"""Pull Gaia through TAP and DataLink: throughput, and memory that must not grow with the sample.

The comparison is a plain loop with pyvo: for each target one cone query, one DataLink request for the sources found,
all rows in a list. It is slow, so it gets fewer targets and is compared per target. Both use the same servers in
turns: TAP of GAVO DaCHS if installed, else simulated; DataLink is simulated. The full run also does HEASARC's Fermi
triggers. Servers and clients share this machine's cores.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Run, fresh, print_result, print_table

SEED, N_FIELD = 20210126, 100_000
GAIA, TRIGGERS = "gaiadr3.gaia_source", "fermigtrig"
CONES = {
    "gaia": f"SELECT source_id, ra, dec, has_epoch_photometry FROM {GAIA} WHERE 1 = CONTAINS("
    f"POINT('ICRS', ra, dec), CIRCLE('ICRS', {{}}, {{}}, {1 / 3600}))",
    "fermigtrig": f'SELECT name, ra, dec, "time", error_radius FROM {TRIGGERS} WHERE error_radius < 1.0 '
    "AND 1 = CONTAINS(POINT('ICRS', {}, {}), CIRCLE('ICRS', ra, dec, error_radius))",
}
COLUMNS = ["transit_id", "band", "time", "flux", "flux_error", "mag", "rejected_by_photometry"]


@dataclass(frozen=True)
class Servers:
    """The running TAP server, and the URLs of both services."""

    name: str
    tap: str
    datalink: str


def lightlake(servers: dict[str, str], folder: str, archive_name: str, targets: str, n: int, common: int) -> Any:
    """Pull the first n targets into a new lake in this process; count the results of the first `common` ones."""
    for endpoint, url in (("GAIA", "tap"), ("HEASARC", "tap"), ("GAIA_DATALINK", "datalink")):
        os.environ[f"LIGHTLAKE_ENDPOINTS__{endpoint}"] = servers[url]
    from lake.commit.targets import add_targets
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from tasks.pull import commit_batch, fetch_batch, lake_at, plan_batches
    from tasks.register import register_archive
    from tasks.sources.registry import find

    catalog = Catalog(Storage.from_url(folder), load_settings(url=folder))
    catalog.create()
    add_targets(catalog, pq.read_table(targets).slice(0, n), "sky")
    catalog.close()
    started = time.perf_counter()
    opened, archive = lake_at(folder), find(archive_name)
    register_archive(opened, archive)
    for batch in plan_batches(opened, archive, archive.with_defaults(None), None, opened.storage.staging / "pull"):
        commit_batch(folder, fetch_batch(batch))
    seconds = time.perf_counter() - started
    covered = opened.sql("SELECT count(*) AS n FROM coverage WHERE status <> 'failed'")["n"][0].as_py()
    if covered != n:
        raise RuntimeError(f"{covered} of {n} targets covered")
    counted = opened.sql(
        "SELECT count(*) AS matches, coalesce(sum(curves.n), 0)::BIGINT AS n_rows FROM matches "
        "JOIN targets ON targets.target_id = matches.target_id LEFT JOIN (SELECT hpx29, source_id, count(*) AS n "
        "FROM lightcurves GROUP BY ALL) AS curves ON curves.hpx29 = matches.hpx29 "
        "AND curves.source_id = matches.source_id WHERE targets.name::INTEGER < ?",
        [common],
    )
    return {"seconds": seconds, **counted.to_pylist()[0]}


def loop(servers: dict[str, str], parquet: str, archive_name: str, targets: str, first: int, n: int) -> Any:
    """Query n targets one after the other, and write the results as one Parquet file."""
    import pandas as pd
    import requests
    from astropy.table import Table
    from pyvo.dal import TAPService

    rows = pq.read_table(targets).slice(first, n).to_pylist()
    started = time.perf_counter()
    service = TAPService(servers["tap"])
    matches, curves = 0, []
    for target in rows:
        found = service.run_sync(CONES[archive_name].format(target["ra"], target["dec"])).to_table()
        matches += len(found)
        if archive_name != "gaia":
            curves.append(found.to_pandas().assign(objectid=target["name"]))
            continue
        ids = [int(source) for source in found["source_id"][np.asarray(found["has_epoch_photometry"], bool)]]
        if not ids:
            continue
        asked = {
            "RETRIEVAL_TYPE": "EPOCH_PHOTOMETRY",
            "ID": ",".join(map(str, ids)),
            "RELEASE": "Gaia DR3",
            "DATA_STRUCTURE": "INDIVIDUAL",
            "FORMAT": "votable",
            "VALID_DATA": "false",
        }
        reply = requests.get(servers["datalink"], params=asked, timeout=60)
        reply.raise_for_status()
        with zipfile.ZipFile(io.BytesIO(reply.content)) as members:
            for member in members.namelist():
                curve = Table.read(io.BytesIO(members.read(member)), format="votable")
                curves.append(curve[COLUMNS].to_pandas().assign(objectid=target["name"]))
    pd.concat(curves, ignore_index=True).to_parquet(parquet)
    return {"seconds": time.perf_counter() - started, "matches": matches, "n_rows": sum(map(len, curves))}


@contextmanager
def servers_running(tables: dict[str, pa.Table]) -> Iterator[Servers]:
    """Serve the tables by TAP, and light curves by DataLink, each in its own process."""
    with ExitStack() as undo:
        datalink = undo.enter_context(_own_process("datalink", tables))
        helper = _dachs()
        if helper is None:
            name, tap = "sandbox", undo.enter_context(_own_process("tap", tables))
        else:
            # PostgreSQL's user must reach the path, and it must be short enough for a socket.
            folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="dachs")))
            name, tap = "DaCHS", undo.enter_context(helper.Dachs.start(folder, tables)).url
        yield Servers(name, tap, datalink)


def _dachs() -> Any:
    """Return the tests' module that starts DaCHS, if DaCHS is installed."""
    path = Path(__file__).parents[1] / "tests" / "helpers" / "dachs.py"
    spec = importlib.util.spec_from_file_location("benchmarks_dachs", path)
    if spec is None or spec.loader is None or not path.exists():
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    try:
        spec.loader.exec_module(module)
    except ImportError:  # the extra `test` is not installed
        return None
    return None if module.installed() else module


@contextmanager
def _own_process(what: str, tables: dict[str, pa.Table]) -> Iterator[str]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, what, tables), daemon=True)
    process.start()
    there.close()
    try:
        yield here.recv()
    finally:
        here.close()
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()


def _serve(pipe: Connection, what: str, tables: dict[str, pa.Table]) -> None:
    """Serve until the other end of the pipe closes."""
    from deployments.sandbox.gaia import DATALINK_PATH, DataLink
    from deployments.sandbox.server import Sandbox
    from deployments.sandbox.tap import TapService

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Sandbox() as box:
        if what == "tap":
            box.services["tap"] = TapService(box, "/tap", tables)
            pipe.send(box.services["tap"].url)
        else:
            sources = tables[GAIA]
            ids = sources.filter(sources["has_epoch_photometry"])["source_id"].to_numpy()
            pipe.send(DataLink(box, DATALINK_PATH, ids, SEED).url)
        try:
            pipe.recv()
        except EOFError:
            return


def race(servers: Servers, folder: Path, archive: str, turns: tuple[int, ...], n_loop: int) -> dict[str, float]:
    """Run both sides in turn, print the table, and return rates and memory.

    Parameters
    ----------
    servers, folder, archive
        Services, folder for files, and archive to pull.
    turns
        Targets that Lightlake pulls in each turn; the last number is the largest.
    n_loop
        Targets of the loop in each turn, different ones each time. A rehearsal of the loop warms up the servers.
    """
    small, large = turns[0], turns[-1]
    common = len(turns) * n_loop
    where, targets = asdict(servers), str(folder / "targets.parquet")
    fresh(loop, where, str(folder / "rehearsal.parquet"), archive, targets, 0, 5)
    ours: dict[int, list[Run]] = {small: [], large: []}
    theirs: list[Run] = []
    for turn, n in enumerate(turns):
        ours[n].append(fresh(lightlake, where, str(folder / f"{archive}-{turn}"), archive, targets, n, common))
        parquet = str(folder / f"{archive}-{turn}.parquet")
        theirs.append(fresh(loop, where, parquet, archive, targets, turn * n_loop, n_loop))
    seen = {name: sum(run.value[name] for run in theirs) for name in ("matches", "n_rows")}
    for run in ours[small] + ours[large]:
        if (got := {name: run.value[name] for name in seen}) != seen:
            raise RuntimeError(f"the sides differ for the same {common} targets: {got} and {seen}")
    sides = (("lightlake", small, ours[small]), ("lightlake", large, ours[large]), ("pyvo loop", n_loop, theirs))
    per_s = {(side, n): n / median(run.value["seconds"] for run in runs) for side, n, runs in sides}
    print_table(
        f"{archive}, TAP by {servers.name}; the loop has {n_loop} targets a turn and is compared per target; the same "
        f"{seen['matches']:,} matches and {seen['n_rows']:,} rows of {common} targets on both sides",
        ("side", "targets", "turns", "seconds", "targets/s", "peak RSS (MB)"),
        [
            (side, n, len(runs), n / per_s[side, n], per_s[side, n], max(run.peak_rss_mb for run in runs))
            for side, n, runs in sides
        ],
    )
    return {
        "targets_per_s": per_s["lightlake", large],
        "small_targets_per_s": per_s["lightlake", small],
        "loop_targets_per_s": per_s["pyvo loop", n_loop],
        "vs_pyvo_loop": per_s["lightlake", large] / per_s["pyvo loop", n_loop],
        "peak_rss_growth": ours[large][0].peak_rss_mb / max(run.peak_rss_mb for run in ours[small]),
        "peak_rss_mb": ours[large][0].peak_rss_mb,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="1,000 and 5,000 targets, not 5,000 and 50,000")
    quick = parser.parse_args().quick
    turns, n_loop = ((1_000, 5_000), 50) if quick else ((5_000, 5_000, 5_000, 50_000), 100)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end, too
    from deployments.sandbox.gaia import SHARE_WITH_EPOCHS, gaia_source
    from deployments.sandbox.heasarc import fermigtrig

    started = time.perf_counter()
    sources = gaia_source((), seed=SEED, n_field=N_FIELD, share_with_epochs=SHARE_WITH_EPOCHS)
    tables = (
        {GAIA: sources}
        if quick
        else {GAIA: sources, TRIGGERS: fermigtrig((), seed=SEED, scale=1).drop(["trigger_type"])}
    )
    chosen = np.random.default_rng(SEED).choice(N_FIELD, turns[-1], replace=False)
    targets = sources.take(chosen).select(["ra", "dec"])
    targets = targets.append_column("name", pa.array([str(number) for number in range(len(chosen))]))
    with tempfile.TemporaryDirectory(prefix="lightlake-benchmark-") as name, servers_running(tables) as servers:
        folder = Path(name)
        pq.write_table(targets, folder / "targets.parquet")
        result = {"server": servers.name, "targets": turns[-1], "loop_targets": n_loop * len(turns)}
        result |= race(servers, folder, "gaia", turns, n_loop)
        if not quick:
            heasarc = race(servers, folder, "fermigtrig", turns, n_loop)
            result |= {f"fermigtrig_{name}": value for name, value in heasarc.items()}
    print_result(result | {"total_s": time.perf_counter() - started})


if __name__ == "__main__":
    main()
