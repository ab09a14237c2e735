"""Compare point and cone queries of a lake with globs of its files and with pandas; measure commits.

``python -m benchmarks.lake`` makes 20 million rows of a ZTF-like archive in 2,000 granules as a pull does, keeps a copy
as written, compacts the other, and queries both in several ways. All answers are compared with the generated rows. All
files are in the page cache, and DuckDB's caches have their defaults. ``--quick`` takes a tenth of the granules.
``--huge`` makes lakes of 10, 100 and 1,000 million rows instead, and asks them the same questions: see benchmarks.huge.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.huge import compare
from benchmarks.lake_rows import (
    BANDS,
    EPOCHS,
    ROWS,
    SOURCES,
    commit_all,
    copy_as_written,
    per_commit,
    register,
    run_compact,
    run_verify,
    stage_all,
)
from benchmarks.lake_sides import (
    HEADLINE,
    RARE,
    SIDES,
    TITLES,
    Answer,
    Target,
    ask_in_turn,
    one_side,
    open_lake,
    pandas_in_memory,
    tree,
    warm,
)
from benchmarks.measure import Run, fresh, print_result, print_table

GRANULES = 2000
QUICK_GRANULES = 200


def build(urls: dict[str, str], granules: int, brief: bool) -> dict[str, Any]:
    """Make both lakes and return the costs. If brief, run only one full verify."""
    url = urls["compacted"]
    registered = fresh(register, url, granules)
    started = time.perf_counter()
    stage_s = median(stage_all(url, granules))
    staged_s = time.perf_counter() - started
    committed = fresh(commit_all, url, granules)
    batched = committed.value["batch"]
    edge = min(100, granules // 4)
    verify_written = None if brief else fresh(run_verify, url, True)
    copy_as_written(url, urls["written"])
    compacted = fresh(run_compact, url)
    verify_quick = None if brief else fresh(run_verify, url, True)
    verify_full = fresh(run_verify, url, False)
    for run in (verify_written, verify_quick, verify_full):
        assert not (run and run.value), run
    return {
        "register_s": registered.seconds,
        "stage_ms_per_granule": 1e3 * stage_s,
        "stage_total_s": staged_s,
        "commit_granules_in_batch": per_commit(granules),
        "commit_ms_per_granule": 1e3 * median(batched),
        "commit_ms_of_one_task": 1e3 * median(committed.value["task"]),
        "commit_ms_alone": 1e3 * median(committed.value["alone"]),
        "commit_ms_first": 1e3 * median(batched[:edge]),
        "commit_ms_last": 1e3 * median(batched[-edge:]),
        "commit_growth": median(batched[-edge:]) / median(batched[:edge]),
        "commit_total_s": committed.seconds,
        "commit_peak_rss_mb": committed.peak_rss_mb,
        "compaction_s": compacted.seconds,
        "compaction_peak_rss_mb": compacted.peak_rss_mb,
        "files_as_written": compacted.value["before"],
        "files_compacted": compacted.value["after"],
        "lightcurve_files_as_written": _count(urls["written"]),
        "lightcurve_files_compacted": _count(url),
        "lake_mb": compacted.value["bytes"] / 1e6,
        "lake_as_written_mb": _bytes(urls["written"]) / 1e6,
        "catalog_mb": (Path(url) / "catalog.sqlite").stat().st_size / 1e6,
        "verify_quick_as_written_s": verify_written and verify_written.seconds,
        "verify_quick_s": verify_quick and verify_quick.seconds,
        "verify_s": verify_full.seconds,
        "verify_peak_rss_mb": verify_full.peak_rss_mb,
    }


def _count(url: str) -> int:
    return sum(1 for _ in Path(tree(url, "lightcurves")).rglob("*.parquet"))


def _bytes(url: str) -> int:
    return sum(path.stat().st_size for path in (Path(url) / "data").rglob("*.parquet"))


def from_scratch(
    kind: str, urls: dict[str, str], question: tuple[Target, Answer], names: list[str], times: int
) -> dict[str, Run]:
    """Query each side in fresh processes in turn; pandas once, because it takes seconds."""
    target, expected = question
    runs: dict[str, list[Run]] = {}
    for turn in range(times):
        for name in names:
            if turn and name in RARE:
                continue
            run = fresh(one_side, kind, name, urls, target)
            if list(run.value) != list(expected):
                raise AssertionError(f"{kind}, {name}, {target}: {run.value} is not {expected}")
            runs.setdefault(name, []).append(run)
    return {
        name: Run(
            None,
            median(run.seconds for run in all_of),
            median(run.wall_s for run in all_of),
            max(run.peak_rss_mb for run in all_of),
        )
        for name, all_of in runs.items()
    }


def _table(title: str, timed: dict[str, float], scratch: dict[str, Run]) -> None:
    print_table(
        title,
        ("side", "ms", "times the lake", "from scratch, ms", "times the lake", "peak RSS, MB"),
        [
            (
                name,
                1e3 * seconds,
                seconds / timed["lake"],
                run and 1e3 * run.wall_s,
                run and run.wall_s / scratch["lake"].wall_s,
                run and run.peak_rss_mb,
            )
            for name, seconds in timed.items()
            for run in [scratch.get(name)]
        ],
    )


def _ratios(kind: str, timed: dict[str, float], scratch: dict[str, Run]) -> dict[str, float]:
    lake = timed["lake"]
    _, written, frame = HEADLINE[kind]
    others = {
        "glob": written,
        "glob_compacted": written.replace("as written", "compacted"),
        "glob_hpx29": written.replace("id,", "id + hpx29,").replace("glob,", "glob, join with hpx29,"),
        "pandas": frame,
        "pandas_columns": "pandas, 5 columns, compacted",
    }
    others["glob_hpx29_compacted"] = others["glob_hpx29"].replace("as written", "compacted")
    if kind == "point":
        others["glob_cached"] = "glob by id, as written, footers cached"
        others["pandas_filters"] = "pandas with filters=, compacted"
    result = {
        f"{kind}_query_ms": 1e3 * lake,
        f"{kind}_query_uncompacted_ms": 1e3 * timed["lake, as written"],
        f"{kind}_query_uncompacted_vs_glob": timed[written] / timed["lake, as written"],
        f"{kind}_query_from_scratch_ms": 1e3 * scratch["lake"].wall_s,
        f"{kind}_query_from_scratch_vs_glob": scratch[written].wall_s / scratch["lake"].wall_s,
        f"{kind}_peak_rss_mb_lake": scratch["lake"].peak_rss_mb,
        f"{kind}_peak_rss_mb_glob": scratch[written].peak_rss_mb,
        f"{kind}_peak_rss_mb_pandas": scratch[frame].peak_rss_mb,
    }
    if kind == "point":
        by_name = timed["lake, by name"]
        result |= {"point_query_by_name_ms": 1e3 * by_name, "point_query_by_name_vs_glob": timed[written] / by_name}
        result["point_query_vs_compacted_glob"] = timed[others["glob_compacted"]] / lake
    else:
        result["cone_ms"] = 1e3 * lake
    for key, name in others.items():
        result[f"{kind}_query_vs_{key}"] = timed[name] / lake
        result[f"{kind}_query_{key}_ms"] = 1e3 * timed[name]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_GRANULES} granules, not {GRANULES}")
    parser.add_argument("--granules", type=int, help=f"another number of granules of {ROWS:,} rows")
    parser.add_argument("--huge", action="store_true", help="up to 1,000 million rows: 30 GB, most of an hour")
    parser.add_argument("--keep", metavar="DIR", help="make the lakes here, and keep them; --huge goes on with them")
    options = parser.parse_args()
    if options.huge:
        with tempfile.TemporaryDirectory(prefix="lightlake-benchmark-") as temporary:
            return compare(Path(options.keep or temporary).absolute())
    granules = options.granules or (QUICK_GRANULES if options.quick else GRANULES)
    count, times = (11, 1) if options.quick else (25, 3)
    started = time.perf_counter()
    # The lakes take 1 kB for 10 rows, so the user may choose another place than the system's temporary folder.
    root = Path(options.keep or tempfile.mkdtemp(prefix="lightlake-benchmark-"))
    try:
        root.mkdir(parents=True, exist_ok=not options.keep)
        urls = {name: str(root.absolute() / name) for name in ("compacted", "written")}
        result: dict[str, Any] = {"rows": granules * ROWS, "granules": granules}
        result |= build(urls, granules, options.quick)
        print_table(
            f"{granules * ROWS:,} rows in {granules:,} granules of {SOURCES} sources, {len(BANDS)} bands, "
            f"{EPOCHS} epochs",
            ("building", ""),
            result.items(),
        )
        fresh(warm, urls)
        opening = fresh(open_lake, urls["compacted"], processes=1 + 2 * times)
        result |= {"open_ms": 1e3 * opening.seconds, "open_process_ms": 1e3 * opening.wall_s}
        for kind in SIDES:
            raced = fresh(ask_in_turn, kind, urls, granules, count).value
            timed, asked = raced["seconds"], raced["asked"]
            names = list(HEADLINE[kind] if options.quick else SIDES[kind])
            scratch = from_scratch(kind, urls, asked[0], names, times)
            _table(TITLES[kind], timed, scratch)
            result |= _ratios(kind, timed, scratch)
            if kind == "point":
                memory = fresh(pandas_in_memory, urls["compacted"], [target for target, _ in asked])
                result |= {
                    "pandas_in_memory_load_s": memory.value["load_s"],
                    "pandas_in_memory_select_ms": 1e3 * memory.value["select_s"],
                    "pandas_in_memory_peak_rss_mb": memory.peak_rss_mb,
                    "point_query_vs_pandas_in_memory": 1e3 * memory.value["select_s"] / result["point_query_ms"],
                }
        result["total_s"] = time.perf_counter() - started
        print_result(result)
    finally:
        if not options.keep:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
