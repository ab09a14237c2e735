"""Run the core archives for many targets from one file against simulated archives, kill the run once, and resume it.

Gaia, ZTF and WISE have data at every target. Catalogues of the whole sky (IceCube, Fermi, BeppoSAX) have as many
events as the real ones, whatever the number of targets. What is a bucket in reality is served as one.
Targets lie in a footprint like that of SDSS's quasars. The run is `lightlake run core.yml`, in a process of its own; it
is killed by SIGKILL when two fifths of the answers are in the lake, and started again. What is printed is what
`lightlake runs` and the ledger have: hours, rows, processor time and memory of each archive. `--folder` keeps
everything, and goes on with it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import print_result, print_table
from benchmarks.served import BUCKET, IN_BUCKETS, SEED, bucket, serving_elsewhere

ALL_SKY = (("heasarc",), ("icecube",))
ARCHIVES = (("gaia",), *ALL_SKY, ("ztf", "wise"))
RUN_ID, KILLED_AT = "core", 0.4


def positions(n: int) -> list[tuple[float, float]]:
    """Return targets between RA 120 and 240 deg, Dec 0 and 60 deg."""
    rng = np.random.default_rng(SEED)
    ra, dec = rng.uniform(120, 240, n), np.degrees(np.arcsin(rng.uniform(0, np.sin(np.radians(60)), n)))
    return list(zip(ra.tolist(), dec.tolist(), strict=True))


@contextmanager
def serving(root: Path, targets: list[tuple[float, float]]) -> Iterator[dict[str, str]]:
    """Serve the archives; yield the environment of a process that pulls from them."""
    from deployments.sandbox.server import Sandbox

    environment = {"LIGHTLAKE_CACHE_DIR": str(root / "cache"), "AWS_EC2_METADATA_DISABLED": "true"}
    with ExitStack() as boxes:
        for names in ARCHIVES:
            began, folder = time.monotonic(), root / names[0]
            scale, there = (1.0, targets[:500]) if names in ALL_SKY else (0.1, targets)
            box = boxes.enter_context(Sandbox.start(folder, archives=names, seed=SEED, scale=scale, targets=there))
            box.mount(f"/{BUCKET}", bucket(folder))
            for name, url in box.endpoints.items():
                if name in IN_BUCKETS:
                    environment["AWS_ENDPOINT_URL"] = box.url().rstrip("/")
                    url = f"s3://{BUCKET}/{Path(url).relative_to(folder)}"
                environment[f"LIGHTLAKE_ENDPOINTS__{name.upper()}"] = url
            print(f"{', '.join(names)}: made in {time.monotonic() - began:.0f} s", flush=True)
        yield environment


def serve(root: Path, n: int) -> None:
    """Serve until the process is ended, with the environment in a file: a process of its own does not slow the run."""
    with serving(root, positions(n)) as environment:
        (root / "environment.json").write_text(json.dumps(environment))
        signal.pause()


def prepare(folder: Path, n: int) -> tuple[str, Path]:
    """Make the lake with the targets, and the file of the run."""
    from lake.commit.targets import add_targets
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from tasks.samples.files import read_targets

    url, run_file, listing = str(folder / "lake"), folder / "core.yml", folder / "targets.csv"
    run_file.write_text(f"run_id: {RUN_ID}\nsamples: [{{lake: {{sample: footprint}}}}]\narchives: [core]\n")
    if not Path(url).exists():
        with listing.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("name", "ra", "dec"))
            rows.writerows((f"T{number}", *place) for number, place in enumerate(positions(n)))
        catalog = Catalog(Storage.from_url(url), load_settings(url=url))
        catalog.create()
        add_targets(catalog, read_targets(listing).targets, "footprint", catalogue=listing.name)
        catalog.close()
    return url, run_file


def started(run_file: Path, url: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the run in a process of its own."""
    command = [sys.executable, "-c", "from lake.cli import main; main()", "run", str(run_file), "--lake", url]
    with (run_file.parent / "run.log").open("ab") as log:
        return subprocess.Popen([*command, "--local"], env={**os.environ, **environment}, stdout=log, stderr=log)


def share_done(url: str) -> float:
    """Return the share of answers that are in the lake."""
    from flows.run_names import core
    from lake.query import Lake

    with Lake(url) as lake:
        done, targets = (
            lake.sql(f"SELECT count(*) AS n FROM {one}")["n"][0].as_py() for one in ("coverage", "targets")
        )
    return float(done / (targets * len(core())))


def measured(folder: Path, n: int, environment: dict[str, str]) -> dict[str, Any]:
    """Run, kill, resume, and return what the lake has of it."""
    from lake.query import Lake
    from lake.upkeep.maintenance import verify
    from lake.upkeep.run_status import of_archives, of_processes, run_named

    url, run_file = prepare(folder, n)
    began = time.monotonic()
    process = started(run_file, url, environment)
    while process.poll() is None and share_done(url) < KILLED_AT:
        time.sleep(5)
    killed_at = share_done(url)
    was_running = process.poll() is None
    process.kill()
    process.wait()
    print(f"killed at {killed_at:.0%} after {time.monotonic() - began:.0f} s", flush=True)
    code = started(run_file, url, environment).wait()
    seconds = time.monotonic() - began
    with Lake(url) as lake:
        run, archives = run_named(lake, RUN_ID), of_archives(lake, RUN_ID).to_pylist()
        processes = of_processes(lake, RUN_ID).to_pylist()
        twice = lake.sql("SELECT count(*) - count(DISTINCT (archive, target_id)) AS n FROM coverage")["n"][0].as_py()
        errors = [finding.message for finding in verify(lake.catalog, quick=True) if finding.is_error]
    if code or twice or errors or share_done(url) != 1 or not was_running:
        raise RuntimeError(f"exit {code}, {twice} answers twice, killed while running: {was_running}, {errors}")
    memory = max(one["most_memory_mb"] for one in processes)
    size = sum(path.stat().st_size for path in Path(url, "data").rglob("*.parquet"))
    return {
        "run": run,
        "archives": archives,
        "seconds": seconds,
        "memory_mb": memory,
        "killed_at": killed_at,
        "lake_gb": size / 1e9,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=200_000)
    parser.add_argument("--quick", action="store_true", help="500 targets")
    parser.add_argument("--folder", type=Path, help="keep archives and lake there")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    n = 500 if given.quick else given.targets
    if given.serve:
        serve(given.folder, n)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).absolute()
        root = folder / "archives"
        root.mkdir(parents=True, exist_ok=True)
        arguments = ["--serve", "--folder", str(root), "--targets", str(n)]
        with serving_elsewhere("benchmarks.core_run", root, *arguments) as environment:
            found = measured(folder, n, environment)
    rows = [
        (one["archive"], one["targets"], one["rows"], one["hours"], one["cpu_s"], (one["received_bytes"] or 0) / 1e6)
        for one in found["archives"]
    ]
    print_table(
        f"core, {n} targets, killed at {found['killed_at']:.0%} and resumed",
        ("archive", "targets asked", "rows", "hours", "processor (s)", "received (MB)"),
        rows,
    )
    print_result(
        {
            "targets": n,
            "hours": found["seconds"] / 3600,
            "rows": sum(one["rows"] for one in found["archives"]),
            "rows_per_s": sum(one["rows"] for one in found["archives"]) / found["seconds"],
            "peak_rss_mb": found["memory_mb"],
            "lake_gb": found["lake_gb"],
            "killed_at": found["killed_at"],
        }
    )


if __name__ == "__main__":
    main()
