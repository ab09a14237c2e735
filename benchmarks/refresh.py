"""Refresh all archives side by side, and each alone, from simulated services that take 0.2 s to answer a request.

Every run is a command in a process of its own, with a lake and a cache of its own, so that all ask for the same. A
refresh should take little longer than its slowest archive.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import print_result, print_table
from benchmarks.served import BUCKET, IN_BUCKETS, SEED, bucket, positions, serving_elsewhere

WAIT_S = 0.2
SERVICES = ("gaia", "heasarc", "icecube", "ztf", "wise", "panstarrs", "hcv", "tess_kepler")
SCALE = 0.05


def serve(root: Path, n: int) -> None:
    """Serve the archives until the process is ended; their settings go to a file."""
    from deployments.sandbox.server import Sandbox

    with Sandbox.start(root, archives=SERVICES, seed=SEED, scale=SCALE, targets=positions(n, "sky")) as box:
        box.mount(f"/{BUCKET}", bucket(root))
        environment = {"AWS_ENDPOINT_URL": box.url().rstrip("/"), "AWS_EC2_METADATA_DISABLED": "true"}
        for name, url in box.endpoints.items():
            place = f"s3://{BUCKET}/{Path(url).relative_to(root)}" if name in IN_BUCKETS else url
            environment[f"LIGHTLAKE_ENDPOINTS__{name.upper()}"] = place
        box.wait_s = WAIT_S
        (root / "environment.json").write_text(json.dumps(environment))
        signal.pause()


def run(folder: Path, n: int, environment: dict[str, str], *command: str) -> dict[str, Any]:
    """Make a lake of n targets, run a command on it, and return its seconds and what it brought."""
    from benchmarks.served import new_lake

    url = str(folder / "-".join(command))
    opened, _ = new_lake(url, "gaia", n, "sky")
    opened.close()
    given = {**os.environ, **environment, "LIGHTLAKE_CACHE_DIR": f"{url}-cache", "LIGHTLAKE_URL": url}
    started = time.perf_counter()
    code = "from lake.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--local"], env=given, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    from lake.query import Lake

    with Lake(url) as lake:
        found = lake.sql("SELECT count(*) AS answers, sum(n_rows)::BIGINT AS n FROM coverage WHERE status <> 'failed'")
    answers, rows = (found[name][0].as_py() for name in ("answers", "n"))
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return {"seconds": seconds, "answers": answers, "rows": rows}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="50 targets")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    n = 50 if given.quick else given.targets
    if given.serve:
        serve(given.serve, n)
        return
    from tasks.sources.registry import REGISTRY

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary, "archives")
        root.mkdir()
        arguments = ["--serve", str(root), "--targets", str(n)]
        with serving_elsewhere("benchmarks.refresh", root, *arguments) as environment:
            alone = {name: run(Path(temporary), n, environment, "pull", name) for name in sorted(REGISTRY)}
            together = run(Path(temporary), n, environment, "refresh")
    whole = sum(one["answers"] for one in alone.values())
    if together["answers"] != whole or whole != n * len(alone):
        raise RuntimeError(f"{together['answers']} answers together, {whole} one by one, of {n * len(alone)}")
    slowest = max(alone, key=lambda name: alone[name]["seconds"])
    rows = [(name, one["seconds"], one["rows"]) for name, one in {**alone, "all, side by side": together}.items()]
    print_table(f"{n} targets, {WAIT_S:g} s a request", ("archive", "s", "rows"), rows)
    one_by_one = sum(one["seconds"] for one in alone.values())
    print_result(
        {
            "targets": n,
            "archives": len(alone),
            "seconds": together["seconds"],
            "slowest": slowest,
            "vs_slowest": together["seconds"] / alone[slowest]["seconds"],
            "vs_one_by_one": one_by_one / together["seconds"],
        }
    )


if __name__ == "__main__":
    main()
