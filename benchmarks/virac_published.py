"""The published extractor of VIRAC's tiles, run as its users run it: the project does not contain it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import print_table


def published(script: Path, folder: Path, tile: Path, min_ks: int) -> tuple[float, int]:
    """Extract a tile by the script, with one worker in a fresh process; return seconds and files.

    Raises
    ------
    RuntimeError
        If it fails, or writes no light curve: it hides errors.
    """
    tiles, out = folder / "tiles", folder / "out"
    tiles.mkdir(parents=True)
    out.mkdir()
    os.link(tile, tiles / tile.name)
    command = [sys.executable, str(script), "--input-dir", str(tiles), "--output-dir", str(out), "--workers", "1"]
    command += ["--min-ks", str(min_ks), "--shard", "0", "--total-shards", "1"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    files = sum(1 for _ in out.rglob("*.csv"))
    if done.returncode or not files:
        raise RuntimeError(f"{script} wrote {files} light curves of {tile.name}:\n{done.stderr}")
    return seconds, files


def print_stages(whole_s: float, read_s: float, encode_s: float) -> None:
    """Print where the time of one tile in one process goes, as the two limits show it."""
    stages = {
        "read the arrays": read_s,
        "encode Parquet": encode_s,
        "all else: validate, cast, sort, statistics, checksums, commit": whole_s - read_s - encode_s,
    }
    print_table(
        "Stages of one tile in one process; reading and encoding are timed alone",
        ("stage", "seconds", "share"),
        [(stage, seconds, f"{seconds / whole_s:.0%}") for stage, seconds in stages.items()],
    )
