"""Export a lake as a HATS collection and as the Fornax frame: time, and memory that does not grow with the rows.

``python -m benchmarks.exports`` makes 5 million rows of a ZTF-like archive for 50,000 targets, compacted, and a lake of
a tenth of that, and exports both in fresh processes. ``--quick`` takes a tenth of both.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.lake_rows import ROWS, SOURCES, commit_all, register, run_compact, stage_some
from benchmarks.measure import fresh, print_result, print_table

GRANULES, QUICK_GRANULES = 500, 50
MEMORY = "1GB"  # as the commands have it


def build(url: str, granules: int) -> None:
    """Make a lake of so many granules."""
    register(url, granules)
    stage_some(url, granules, 0, 1)
    commit_all(url, granules)
    run_compact(url)


def export_hats(url: str, to: str) -> dict[str, Any]:
    """Export a lake as a collection of partitions of a fiftieth of the largest lake's rows."""
    from lake.export.hats import export_collection
    from lake.query import Lake
    from lake.settings import load_settings

    started = time.perf_counter()
    with Lake(url, load_settings(url=url, duckdb_memory=MEMORY)) as lake:
        done = export_collection(lake, to, rows_per_file=GRANULES * ROWS // 50, workers=2)
    return {"seconds": time.perf_counter() - started, "rows": done.rows, "files": done.partitions, "bytes": done.bytes}


def export_fornax(url: str, to: str) -> dict[str, Any]:
    """Export a lake as the Fornax frame."""
    from lake.export.fornax import export_frame
    from lake.query import Lake
    from lake.settings import load_settings

    started = time.perf_counter()
    with Lake(url, load_settings(url=url, duckdb_memory=MEMORY)) as lake:
        done = export_frame(lake, Path(to), v24=True)
    return {"seconds": time.perf_counter() - started, "rows": done.rows, "bytes": Path(to).stat().st_size}


def main() -> None:
    """Make the lakes, export them, and print time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    large = QUICK_GRANULES if parser.parse_args().quick else GRANULES
    rows, result = [], dict[str, Any]()
    with tempfile.TemporaryDirectory(prefix="lightlake-benchmark-") as folder:
        for granules in (large // 10, large):
            url = f"{folder}/{granules}"
            build(url, granules)
            for export in (export_hats, export_fornax):
                run = fresh(export, url, f"{folder}/{granules}.{export.__name__}")
                form = export.__name__.removeprefix("export_")
                rows.append((form, granules * SOURCES, run.value["rows"], run.value["seconds"], run.peak_rss_mb))
                size = "large" if granules == large else "small"
                result |= {f"{form}_{size}_s": run.value["seconds"], f"{form}_{size}_peak_rss_mb": run.peak_rss_mb}
                result[f"{form}_{size}_rows"] = run.value["rows"]
    print_table("Exports, each in a fresh process", ("form", "targets", "rows", "s", "peak RSS, MB"), rows)
    print_result(result)


if __name__ == "__main__":
    main()
