"""Pull RXTE's standard products of many observations into a lake, compared with a notebook's serial loop.

The mirror is generated like the archive: missing bands, broken files, slews, scans, all gain epochs. Both sides read
all light curves (vs_loop), then the net ones of the PCA, then one band of those. The loop (benchmarks/rxte_loop.py)
reads with astropy and joins with pandas in memory. Lightlake finds the observations in the same rows of xtemaster,
reads, validates, stages and commits on two processes, and matches them with the targets. Light curves that both could
read must have the same rows and sums. Each side runs in fresh processes, in turns, with the files in the page cache;
times exclude imports.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from benchmarks.measure import Run, fresh, import_all, print_result, print_table, use_cores

CORES, SEED = 2, 20260612
FULL, QUICK = 2_000, 200
# What is read: everything; the net light curves of the PCA; one band.
WHAT = ("all", "abcde", "a")


def generate(folder: Path, n: int) -> None:
    """Write the mirror, a list of its content, and the rows of xtemaster."""
    from deployments.sandbox.rxte import write_mirror, xtemaster

    rows = write_mirror(folder / "mirror", n_obsids=n, seed=SEED, broken=0.03)
    pq.write_table(rows, folder / "rows.parquet")
    csv.write_csv(xtemaster(rows).drop(["__row"]), folder / "xtemaster.csv")


def loop(folder: str, letters: str) -> dict[str, Any]:
    """Run the notebook's loop; write rows and summed rate of each observation and band."""
    from benchmarks.rxte_loop import collect

    rows = pq.read_table(Path(folder) / "rows.parquet")
    started = time.perf_counter()
    table, files, skipped = collect(Path(folder) / "mirror", rows, letters)
    seconds = time.perf_counter() - started
    table["rate"] = table["rate"].astype("f8")
    sums = table.groupby(["obsid", "band"])["rate"].agg(["size", "sum"]).reset_index()
    pq.write_table(pa.Table.from_pandas(sums, preserve_index=False), Path(folder) / "loop.parquet")
    return {"seconds": seconds, "rows": len(table), "files": files, "skipped": len(skipped)}


def _warm() -> None:
    """Import what is needed, and wait until every process has one of these calls."""
    import tasks.sources.rxte.source  # noqa: F401

    import_all()
    time.sleep(1.0)


def lightlake(folder: str, letters: str, lake: str) -> dict[str, Any]:
    """Pull all targets' observations on two processes; write rows and summed rate, and time a light curve."""
    os.environ["LIGHTLAKE_ENDPOINTS__RXTE"] = f"{folder}/mirror"
    from deployments.sandbox.rxte import TARGETS
    from lake.commit.targets import add_targets
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from lake.upkeep.compaction import compact
    from tasks.progress import Bars
    from tasks.pull import lake_at
    from tasks.pull.driver import Run as PullRun
    from tasks.pull.run import pull_all
    from tasks.pull.runners import LocalRunner
    from tasks.sources.protocol import Request
    from tasks.sources.rxte.mission import PRODUCTS, parse_obsid
    from tasks.sources.rxte.options import RxteOptions
    from tasks.worker import logger

    catalog = Catalog(Storage.from_url(lake), load_settings(url=lake))
    catalog.create()
    names, ra, dec = zip(*TARGETS, strict=True)
    add_targets(catalog, pa.table({"name": names, "ra": ra, "dec": dec}), "benchmark")
    catalog.close()
    opened = lake_at(lake)
    logger.setLevel(logging.ERROR)  # some files are broken on purpose
    settings = load_settings(url=lake, runner="processes", workers=CORES)
    bands = None if letters == "all" else [f"pca_{letter}" for letter in letters]
    with Bars() as bars, LocalRunner(settings, CORES) as runner:
        for waiting in [runner.submit("", (), _warm) for _ in range(2 * CORES)]:
            waiting.result()
        started = time.perf_counter()
        options = RxteOptions(bands=bands, slews=True, xtemaster=f"{folder}/xtemaster.csv")
        run = PullRun(opened, runner, logger, "benchmark", "benchmark", bars, settings)
        (outcome,) = pull_all(run, [Request("rxte", options)])
        if isinstance(outcome, Exception):
            raise outcome
        seconds = time.perf_counter() - started
    ended = opened.sql("SELECT status, reason FROM ledger WHERE n_targets = 0").to_pylist()
    if nameless := [row for row in ended if row["status"] in ("rejected", "failed") and not row["reason"]]:
        raise RuntimeError(f"{len(nameless)} failed without a reason")
    codes = {
        band: product.file_name(parse_obsid("10001-01-01-00")).split("_")[1][:3] for band, product in PRODUCTS.items()
    }
    sums = opened.sql(
        "SELECT source_id AS obsid, codes.code AS band, any_value(lightcurves.band) AS name, count(*) AS size, "
        "coalesce(sum(flux::DOUBLE), 0) AS sum FROM lightcurves "
        "JOIN (SELECT unnest($bands) AS band, unnest($codes) AS code) AS codes USING (band) GROUP BY ALL",
        {"bands": list(codes), "codes": list(codes.values())},
    )
    pq.write_table(sums, Path(folder) / "lake.parquet")
    counts = dict(Counter(row["status"] for row in ended))
    peak = opened.sql("SELECT max(peak_rss_mb) AS mb FROM ledger")["mb"][0].as_py()
    before = _curve_ms(opened)
    compact(opened.catalog)
    costs = {"seconds": seconds, "counts": counts, "peak_rss_mb": peak}
    return {**costs, "curve_ms": before, "curve_compacted_ms": _curve_ms(opened)}


def _curve_ms(lake: Any) -> float:
    """Time a query of one target's light curve over sixteen years, ms."""
    times = []
    for _ in range(7):
        started = time.perf_counter()
        curve = lake.sql(
            "SELECT mjd, bmjd_tdb, rate, rate_err, obsid, epoch, emin_kev, emax_kev FROM rxte "
            "WHERE name = 'ETA_CAR' AND band = 'pca_a' AND good"
        )
        times.append(1000 * (time.perf_counter() - started))
    if not curve.num_rows:
        raise RuntimeError("the light curve is empty")
    return median(times)


def compare(folder: Path) -> int:
    """Count the light curves that both sides have; RuntimeError if one differs."""
    ours, theirs = (pq.read_table(folder / name) for name in ("lake.parquet", "loop.parquet"))
    both = ours.join(theirs, ["obsid", "band"], right_suffix="_loop", join_type="inner").to_pylist()
    for row in both:
        # Both sides leave out NaN bins; they add the same float32 values in another order.
        if row["size"] != row["size_loop"] or abs(row["sum"] - row["sum_loop"]) > 1e-6 * abs(row["sum"]):
            raise RuntimeError(f"the sides differ: {row}")
    return len(both)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} observations instead of {FULL}")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    n, turns = (QUICK, 1) if given.quick else (FULL, given.turns)
    use_cores(CORES)
    with tempfile.TemporaryDirectory(prefix="lightlake-benchmark-") as name:
        folder = Path(name)
        generate(folder, n)
        runs: dict[tuple[str, str], list[Run]] = {}
        for turn in range(turns):
            for letters in WHAT:
                lake = str(folder / f"lake-{letters}-{turn}")
                runs.setdefault(("loop", letters), []).append(fresh(loop, name, letters))
                runs.setdefault(("lightlake", letters), []).append(fresh(lightlake, name, letters, lake))
                same = compare(folder)
                if not same:
                    sys.exit("no light curve is on both sides")
    seconds = {key: median(run.value["seconds"] for run in timed) for key, timed in runs.items()}
    print_table(
        f"{n:,} observations; median of {turns}",
        ("side", "light curves", "seconds", "peak RSS (MB)"),
        [(*key, took, max(run.peak_rss_mb for run in runs[key])) for key, took in seconds.items()],
    )
    last = runs["lightlake", "all"][-1].value
    print_result(
        {
            "vs_loop": seconds["loop", "all"] / seconds["lightlake", "all"],
            "vs_loop_pca_net": seconds["loop", "abcde"] / seconds["lightlake", "abcde"],
            "vs_loop_one_band": seconds["loop", "a"] / seconds["lightlake", "a"],
            "observations": n,
            "ended": last["counts"],
            "pull_peak_rss_mb": last["peak_rss_mb"],
            "loop_files": runs["loop", "all"][-1].value["files"],
            "loop_skipped": runs["loop", "all"][-1].value["skipped"],
            "long_term_curve_ms": last["curve_ms"],
            "long_term_curve_compacted_ms": last["curve_compacted_ms"],
            "turns": turns,
            "load": os.getloadavg()[0],
        }
    )


if __name__ == "__main__":
    main()
