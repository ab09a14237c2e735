"""Read light curves of TESS from FITS files to Arrow: Lightlake on two processes against lightkurve in a loop.

The files are generated like TESS-SPOC's of one sector. The loop does what notebooks do: it reads each file with
lightkurve, keeps time, flux and error as a table, and joins the tables at the end. Each side runs in fresh processes,
in turns, with the files in the page cache; times exclude imports. Both must find the same good fluxes. Needs
lightkurve, from the extra test: pip install -c constraints.txt -e '.[test]'

The last line is a JSON object: ``vs_lightkurve_loop`` is the speed ratio on two processes, then the same on one, and
``rss_growth`` is the peak memory with all files over that with a quarter of them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.measure import Run, fresh, import_all, peak_rss_mb, print_result, print_table, use_cores

FULL, QUICK, CADENCES, CORES = 1000, 100, 3649, 2
BAND = "tess_tess_spoc_pdcsap"


def generate(folder: str, n: int) -> None:
    """Write the files of n targets, each with its own seed."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    mast = importlib.import_module("helpers.mast")
    for number in range(n):
        body = mast.product("tess_spoc", seed=number, n=CADENCES, target=1 + number)
        (Path(folder) / mast.name_of("tess_spoc", 1 + number)).write_bytes(body)


def _read(path: str) -> tuple[int, int, float]:
    """Read a file to the lake's tables; return its rows, good fluxes and their sum."""
    from tasks.sources.tess_kepler.mast_fits import read_product, tables_of

    product = read_product(Path(path), Path(path).name)
    rows = tables_of([product], "tess_kepler", "benchmark")["lightcurves"]
    good = rows["good"].to_numpy() & (rows["band"].to_numpy() == BAND)
    return rows.num_rows, int(good.sum()), float(rows["flux"].to_numpy()[good].sum(dtype=np.float64))


def _warm(seconds: float) -> None:
    """Import what is needed, and wait until every process has one of these calls."""
    import tasks.sources.tess_kepler.mast_fits  # noqa: F401

    import_all()
    time.sleep(seconds)


def _read_some(paths: list[str]) -> dict[str, float]:
    answers = [_read(path) for path in paths]
    sums = [sum(column) for column in zip(*answers, strict=True)]
    return dict(zip(("rows", "good", "flux"), sums, strict=True), peak_rss_mb=peak_rss_mb())


def lightlake(folder: str, n: int, processes: int) -> dict[str, float]:
    """Read files to Arrow and drop each after counting, as a pull drops what it has staged."""
    paths = sorted(str(path) for path in Path(folder).iterdir())[:n]
    parts = [paths[start::processes] for start in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_warm, [1.0] * processes))
        started = time.perf_counter()
        done = list(pool.map(_read_some, parts))
        seconds = time.perf_counter() - started
    # At worst, the peaks of parallel processes add up.
    return {name: sum(part[name] for part in done) for name in done[0]} | {"seconds": seconds}


def loop(folder: str, n: int) -> dict[str, float]:
    """Read files with lightkurve, one after the other, into one table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightkurve = importlib.import_module("lightkurve")
        import pandas as pd

        frames = []
        started = time.perf_counter()
        for path in sorted(str(path) for path in Path(folder).iterdir())[:n]:
            curve = lightkurve.read(path)
            columns = {"time": curve.time.mjd, "flux": _plain(curve.flux), "err": _plain(curve.flux_err)}
            frames.append(pd.DataFrame(columns).assign(label=curve.meta["OBJECT"], band=curve.meta["MISSION"]))
        table = pd.concat(frames, ignore_index=True)
        seconds = time.perf_counter() - started
    flux = table["flux"].to_numpy(np.float64)
    good = int(np.isfinite(flux).sum())
    return {"rows": len(table), "good": good, "flux": float(np.nansum(flux)), "seconds": seconds}


def _plain(column: Any) -> np.ndarray[Any, Any]:
    """Return a column of lightkurve, masked or not, in native order."""
    values = column.filled(np.nan).value if hasattr(column, "mask") else column.value
    return np.asarray(values, np.float32)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} files instead of {FULL:,}")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    n, turns = (QUICK, 1) if given.quick else (FULL, given.turns)
    use_cores(CORES)
    with tempfile.TemporaryDirectory(prefix="lightlake-benchmark-") as folder:
        generate(folder, n)
        sides = {
            "lightkurve loop": partial(fresh, loop, folder, n),
            "lightlake, 2 processes": partial(fresh, lightlake, folder, n, 2),
            "lightlake, 1 process": partial(fresh, lightlake, folder, n, 1),
            "lightlake, a quarter": partial(fresh, lightlake, folder, n // 4, 2),
        }
        runs: dict[str, list[Run]] = {}
        for _ in range(turns):
            for side, run in sides.items():
                runs.setdefault(side, []).append(run())
    seconds = {side: median(run.value["seconds"] for run in done) for side, done in runs.items()}
    value = {side: done[-1].value for side, done in runs.items()}
    theirs, ours = value["lightkurve loop"], value["lightlake, 2 processes"]
    if theirs["good"] != ours["good"] or abs(theirs["flux"] - ours["flux"]) > 1e-9 * abs(theirs["flux"]):
        sys.exit(f"the sides differ: {theirs} and {ours}")
    rss = {side: max(run.value.get("peak_rss_mb", run.peak_rss_mb) for run in done) for side, done in runs.items()}
    print_table(
        f"{n:,} light curves of {CADENCES:,} cadences; median of {turns}",
        ("side", "seconds", "peak RSS (MB)", "rows"),
        [(side, took, rss[side], value[side]["rows"]) for side, took in seconds.items()],
    )
    print_result(
        {
            "vs_lightkurve_loop": seconds["lightkurve loop"] / seconds["lightlake, 2 processes"],
            "vs_lightkurve_loop_one_process": seconds["lightkurve loop"] / seconds["lightlake, 1 process"],
            "rss_growth": rss["lightlake, 2 processes"] / rss["lightlake, a quarter"],
            "files": n,
            "files_per_s": n / seconds["lightlake, 2 processes"],
            "rss_mb": rss["lightlake, 2 processes"],
            "loop_rss_mb": rss["lightkurve loop"],
            "turns": turns,
            "load": os.getloadavg()[0],
        }
    )


if __name__ == "__main__":
    main()
