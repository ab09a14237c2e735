"""Flip bits in a lake's files, report what queries, verify and compact do, and measure what checksums cost.

Each flip is one bit of one light-curve file, in a copy of the lake. DuckDB compares no checksums, so a query may return
wrong rows silently. `verify` and `compact` must find every flip, and `compact` must rewrite no damaged file.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import print_result, print_table
from lake.commit.commit import commit
from lake.commit.ledger import Attempt
from lake.commit.staging import stage
from lake.errors import LightlakeError
from lake.query import Lake
from lake.science.sky import hpx29
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage, read_parquet, write_parquet
from lake.upkeep.compaction import compact, refuse_damaged
from lake.upkeep.maintenance import verify

FLIPS = 25
_ROWS = 100  # of each source


def make(root: Path, granules: int, sources: int) -> Settings:
    """Make a lake of granules with one file of light curves each."""
    settings = load_settings(url=str(root))
    catalog = Catalog(Storage.from_url(root), settings)
    catalog.create()
    rng = np.random.default_rng(5)
    for number in range(granules):
        ra, dec = rng.uniform(0, 360, sources), rng.uniform(-60, 60, sources)
        ids = [f"{number}-{k}" for k in range(sources)]
        scope = {"archive": "ztf", "release": "DR1", "granule": f"g{number}"}
        positions = pa.table({"source_id": ids, "hpx29": hpx29(ra, dec), "ra": ra, "dec": dec})
        each = np.repeat(np.arange(sources), _ROWS)
        n = len(each)
        rows = pa.table(
            {
                "source_id": pa.array(ids).take(pa.array(each)),
                "hpx29": positions["hpx29"].take(pa.array(each)),
                "band": ["ztf_g"] * n,
                "mjd": 58000 + np.tile(np.arange(_ROWS), sources) + rng.uniform(0, 0.5, n),
                "flux": rng.normal(1, 0.1, n).astype(np.float32),
                "flux_err": rng.uniform(0.01, 0.02, n).astype(np.float32),
                "unit": ["mJy"] * n,
                "detected": [True] * n,
                "good": [True] * n,
            }
        )
        counts: dict[str, Any] = {"band": ["ztf_g"] * sources, "unit": ["mJy"] * sources}
        counts |= {name: [_ROWS] * sources for name in ("n", "n_detected", "n_good")}
        counts |= {name: [value] * sources for name, value in (("mjd_first", 58000.0), ("mjd_last", 58000.0 + _ROWS))}
        statistics = pa.table({"source_id": ids, "hpx29": positions["hpx29"], **counts})
        tables = {"sources": positions, "lightcurves": rows, "statistics": statistics}
        whole = {
            name: pa.table({**{key: [value] * table.num_rows for key, value in scope.items()}, **_columns(table)})
            for name, table in tables.items()
        }
        attempt = Attempt("ztf", "DR1", f"g{number}", "done", datetime.now(UTC))
        commit(catalog, stage(catalog.storage.staging / f"g{number}", attempt, whole))
    catalog.close()
    return settings


def _columns(table: pa.Table) -> dict[str, Any]:
    return dict(zip(table.column_names, table.columns, strict=True))


def digest(root: Path) -> Any:
    """Query all light curves: the number of rows, and a sum over their content."""
    with Lake(root) as opened:
        return opened.sql(
            "SELECT count(*) AS n, sum(hash(lightcurves)::HUGEINT)::VARCHAR AS digest FROM lightcurves"
        ).to_pylist()


def flip(root: Path, copy: Path, seed: int, truth: Any) -> dict[str, str]:
    """Flip one bit in a copy of a lake, and return what each reader did."""
    shutil.copytree(root, copy)
    generator = random.Random(seed)
    paths = sorted((copy / "data/main/lightcurves").rglob("*.parquet"))
    path = paths[generator.randrange(len(paths))]
    data = bytearray(path.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.unlink()  # staging may hold another name of it
    path.write_bytes(data)
    done: dict[str, str] = {}
    try:
        done["query"] = "right rows" if digest(copy) == truth else "WRONG ROWS"
    except LightlakeError:
        done["query"] = "error"
    try:
        read_parquet(path)
        done["Arrow, pages compared"] = "read"
    except (OSError, pa.ArrowInvalid):
        done["Arrow, pages compared"] = "error"
    catalog = Catalog(Storage.from_url(copy), load_settings(url=str(copy)))
    findings = [finding for finding in verify(catalog) if finding.is_error]
    done["verify"] = "named" if any(path.name in finding.message for finding in findings) else "NOT SEEN"
    try:
        compact(catalog)
        done["compact"] = "REWRITTEN"
    except LightlakeError as error:
        done["compact"] = "refused" if path.name in str(error) else "failed otherwise"
    done["file"] = "as it was" if path.exists() and path.read_bytes() == bytes(data) else "CHANGED"
    catalog.close()
    shutil.rmtree(copy)
    return done


def cost(root: Path, repeats: int) -> dict[str, float]:
    """Measure what checksums cost: of pages, when Arrow reads them; of files, in a compaction."""
    path = next((root / "data/main/lightcurves").rglob("*.parquet"))
    table = read_parquet(path)
    plain = root / "plain.parquet"
    write_parquet(table, plain)
    times: dict[str, list[float]] = {"plain": [], "compared": []}
    for _ in range(repeats):
        for name, compared in (("plain", False), ("compared", True)):
            start = time.perf_counter()
            pq.ParquetFile(plain, page_checksum_verification=compared).read(use_threads=False)
            times[name].append(time.perf_counter() - start)
    plain.unlink()
    ratios = [compared / read for read, compared in zip(times["plain"], times["compared"], strict=True)]
    catalog = Catalog(Storage.from_url(root), load_settings(url=str(root)))
    cursor = catalog.cursor()
    start = time.perf_counter()
    refuse_damaged(cursor, catalog)
    looking = time.perf_counter() - start
    cursor.close()
    start = time.perf_counter()
    compact(catalog)
    whole = time.perf_counter() - start
    catalog.close()
    return {
        "read_with_page_checksums": float(np.median(ratios)),
        "file_checksums_of_compaction": looking / whole,
        "compaction_s": whole,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five flips instead of 25")
    flips = 5 if parser.parse_args().quick else FLIPS
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "lake"
        make(root, granules=4, sources=300)
        truth = digest(root)
        did = [flip(root, Path(folder) / "copy", seed, truth) for seed in range(flips)]
        large = Path(folder) / "large"
        make(large, granules=4, sources=5_000)
        costs = cost(large, repeats=5 if flips < FLIPS else 25)
    counts: dict[tuple[str, str], int] = {}
    for one in did:
        for who, what in one.items():
            counts[who, what] = counts.get((who, what), 0) + 1
    print_table(f"{flips} bits flipped, one a lake", ("who", "did", "times"), [(*key, n) for key, n in counts.items()])
    print_table("cost of checksums", ("what", "ratio or seconds"), list(costs.items()))
    seen = counts.get(("verify", "named"), 0), counts.get(("compact", "refused"), 0)
    wrong = counts.get(("query", "WRONG ROWS"), 0)
    print_result({"flips": flips, "verify_named": seen[0], "compact_refused": seen[1], "queries_wrong": wrong, **costs})


if __name__ == "__main__":
    main()
