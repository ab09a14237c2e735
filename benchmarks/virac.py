"""Extract tiles of VIRAC: throughput, memory and bytes, compared with an extractor that goes source after source.

That extractor, benchmarks.virac_per_source, writes a CSV for each source, as published. Both extract generated tiles
with 200 to 600 epochs per source and 10,000 pawprints, in turns, in processes that have extracted a small tile before,
since a worker does hundreds. Only the call is timed, without the start of Python and imports. The extractor is slow,
so its processes are timed on a tile of fewer sources and compared per source. Both also extract one whole tile, and
must keep the same sources with the same numbers of rows and detections.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq

from benchmarks.measure import Prepared, Race, print_result, print_table, race
from benchmarks.virac_published import print_stages, published

# The generator's faint sources have up to 40 Ks detections, which this cut excludes; others have 200 to 600 epochs.
MIN_KS = 40
FEW, FEW_OF_LARGE = 0.41, 0.1
SEED, PAWPRINTS, EPOCHS = 20241, 10_000, (200, 600)
WARM_SOURCES = 100

# From the log of the published extractor's first run.
PUBLISHED_SOURCES_PER_S = 472 * 17_254 / (46 * 60) / 96

# Goals: times the throughput of a process, GB a worker, share of the bytes.
GOAL_THROUGHPUT, GOAL_GB, GOAL_BYTES = 50, 2.0, 0.2

# Columns of the CSV for a row, and for its pawprint. The file is named after the source.
_CSV = {
    "lightcurves": (
        "source_id",
        "mjd",
        "mag",
        "mag_err",
        "chi",
        "ast_res_chisq",
        "detected",
        "band",
        "exposure_id",
        "exposure_s",
    ),
    "exposures": ("exposure_id", "seeing_arcsec", "sky_level", "ellipticity", "exposure_s"),
}


@dataclass(frozen=True)
class Size:
    """The size of a run: sources of the tiles, and turns of the sides."""

    whole: int
    part: int
    large: tuple[tuple[int, int], ...]
    turns: int


FULL = Size(whole=17_254, part=3_400, large=((512, 54_000), (256, 80_000)), turns=3)
QUICK = Size(whole=2_000, part=2_000, large=((256, 2_000),), turns=1)


def lightlake(url: str, warm: Path, tile: Path) -> Prepared:
    """Extract a tile into a lake: read, validate, write, commit."""
    from tasks.pull import lake_at
    from tasks.sources.virac.pieces import extract, find_pieces
    from tasks.sources.virac.tiles import Selection

    opened, cut = lake_at(url), Selection(min_ks=MIN_KS)
    (rehearsal,), (piece,) = (find_pieces(str(path.parent), path.name).found for path in (warm, tile))

    def bring(what: Any) -> dict[str, int]:
        receipt = extract(opened, what, cut)
        if receipt is None or receipt.status != "done":
            raise RuntimeError(f"{what.name}: {receipt}")
        return {"sources": receipt.n_sources, "rows": receipt.n_rows}

    bring(rehearsal)
    return lambda: bring(piece)


def per_source(out: Path, warm: Path, tile: Path) -> Prepared:
    """Extract a tile source after source into CSV files."""
    from benchmarks.virac_per_source import extract_tile

    extract_tile(warm, out / "warm", MIN_KS)
    return lambda: extract_tile(tile, out / tile.stem, MIN_KS)


def reading(tile: Path) -> Prepared:
    """Only read the arrays of a tile."""

    def read() -> int:
        rows = 0
        with h5py.File(tile, "r") as file:
            for group in ("catIndex", "sourceList", "timeSeries"):
                for dataset in file[group].values():
                    values = dataset[:]
                    if group == "timeSeries":
                        rows = max(rows, len(np.concatenate(values)))
        return rows

    return read


def encoding(folder: Path, tile: Path) -> Prepared:
    """Only write a lake's Parquet files of a tile from Arrow tables."""
    from lake.model.schema import TABLES
    from lake.store.storage import write_parquet
    from tasks.sources.virac.tile import open_tile
    from tasks.sources.virac.tiles import Extraction, Selection

    with open_tile(tile) as opened:
        extraction = Extraction(opened, "virac-benchmark", Selection(min_ks=MIN_KS))
        tables = {"lightcurves": [TABLES["lightcurves"].cast(part) for part in extraction.lightcurves()]}
        for name, table in (extraction.tables() | extraction.statistics()).items():
            tables[name] = [TABLES[name].cast(table).sort_by([(key, "ascending") for key in TABLES[name].sort])]

    def write() -> int:
        return {name: write_parquet(parts, folder / f"{name}.parquet") for name, parts in tables.items()}["lightcurves"]

    return write


def new_lake(folder: Path) -> str:
    """Create a lake and return its URL."""
    from lake.query import Lake
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from tasks.register import register_archive
    from tasks.sources.virac.tiles import ORIGIN

    shutil.rmtree(folder, ignore_errors=True)
    settings = load_settings(url=str(folder))
    catalog = Catalog(Storage.from_url(str(folder)), settings)
    catalog.create()
    catalog.close()
    with Lake(str(folder), settings, writable=True) as opened:
        register_archive(opened, ORIGIN)
    return str(folder)


def in_lake(url: str, tile: Path) -> dict[str, tuple[int, int]]:
    """Return rows and detections of each source with a light curve in the lake, from one tile."""
    from lake.query import Lake
    from lake.settings import load_settings

    with Lake(url, load_settings(url=url)) as opened:
        found = opened.sql(
            "SELECT source_id, count(*) AS n_rows, count(*) FILTER (detected) AS n FROM lightcurves WHERE granule = "
            "(SELECT DISTINCT granule FROM ledger WHERE endpoint = $tile AND status = 'done') GROUP BY source_id",
            {"tile": str(tile)},
        )
    return {row["source_id"]: (row["n_rows"], row["n"]) for row in found.to_pylist()}


def in_csv(folder: Path) -> dict[str, tuple[int, int]]:
    """Return rows and detections of each source from a folder of CSV files."""
    files = {path.stem: path.read_bytes() for path in folder.rglob("*.csv")}
    return {name: (text.count(b"\n") - 1, text.count(b",1,")) for name, text in files.items()}


def check_same(ours: Mapping[str, tuple[int, int]], theirs: Mapping[str, tuple[int, int]]) -> None:
    """Check that both sides kept the same sources, with the same numbers of rows and detections.

    Raises
    ------
    RuntimeError
        If they differ.
    """
    if not ours or ours != theirs:
        differ = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        examples = ", ".join(f"{name}: {ours.get(name)} and {theirs.get(name)}" for name in differ[:3]) or "no rows"
        raise RuntimeError(f"the sides differ in {len(differ)} of {len(ours)} and {len(theirs)} sources: {examples}")


def parquet_bytes(url: str, tile: Path) -> dict[str, int]:
    """Return bytes of a lake's files of one tile: all, and those of the CSV's columns; and the number of files."""
    from lake.query import Lake
    from lake.settings import load_settings

    with Lake(url, load_settings(url=url)) as opened:
        granule = opened.sql("SELECT DISTINCT granule FROM ledger WHERE endpoint = $tile", {"tile": str(tile)})
    name = granule["granule"][0].as_py()
    files = list((Path(url) / "data" / "main").rglob(f"{name}-*.parquet"))
    same = 0
    for path in files:
        (table,) = (part for part in path.parts if part in _CSV or part in ("sources", "statistics"))
        metadata = pq.ParquetFile(path).metadata
        for group in range(metadata.num_row_groups):
            for at in range(metadata.num_columns):
                column = metadata.row_group(group).column(at)
                if column.path_in_schema in _CSV.get(table, ()):
                    same += column.total_compressed_size
    return {"bytes": sum(path.stat().st_size for path in files), "same_columns": same, "files": len(files)}


def write_tiles(folder: Path, size: Size) -> dict[str, list[Path]]:
    """Write the tiles: two whole ones, two of fewer sources, and two small ones for the rehearsals."""
    from deployments.sandbox.virac import tile_name, write_tile

    made: dict[str, list[Path]] = {}
    pixel = 9_000_000
    for kind, n in (("whole", size.whole), ("part", size.part), ("warm", WARM_SOURCES)):
        if kind == "part" and size.part == size.whole:
            made[kind] = made["whole"]
            continue
        for _ in range(2):
            path = folder / tile_name(1024, pixel)
            write_tile(
                path, nside=1024, pixel=pixel, n_sources=n, n_pawprints=PAWPRINTS, epochs=EPOCHS, few=FEW, seed=SEED
            )
            made.setdefault(kind, []).append(path)
            pixel += 1
    return made


def compare_whole(folder: Path, tiles: Mapping[str, list[Path]]) -> dict[str, Any]:
    """Extract one whole tile with both sides, check that they agree, and return counts and bytes."""
    tile, warm = tiles["whole"][0], tiles["warm"][0]
    url, out = new_lake(folder / "lake"), folder / "csv"
    ours = race(lightlake, (url, warm, tile)).values[0]
    run = race(per_source, (out, warm, tile))
    theirs = run.values[0]
    kept = in_lake(url, tile)
    check_same(kept, in_csv(out / tile.stem))
    if ours["sources"] != theirs["sources"] or ours["rows"] != theirs["rows"]:
        raise RuntimeError(f"the sides counted {ours} and {theirs}")
    lake = parquet_bytes(url, tile)
    shutil.rmtree(out)
    return {
        "sources": ours["sources"],
        "kept": len(kept),
        "rows": ours["rows"],
        "csv_bytes": theirs["bytes"],
        "csv_files": theirs["files"],
        "csv_kept_per_s": len(kept) / run.seconds,
        "tile_bytes": tile.stat().st_size,
        "lake_bytes": lake["bytes"],
        "lake_same_columns": lake["same_columns"],
        "lake_files": lake["files"],
    }


def compare_speed(folder: Path, tiles: Mapping[str, list[Path]], turns: int) -> dict[str, list[Race]]:
    """Run the sides in turns with 1 and with 2 processes, and return the runs by side."""
    runs: dict[str, list[Race]] = {}
    for _ in range(turns):
        for n in (1, 2):
            out = folder / "csv"
            jobs = [(out / str(at), tiles["warm"][at], tiles["part"][at]) for at in range(n)]
            runs.setdefault(f"per source, {n}p", []).append(race(per_source, *jobs))
            shutil.rmtree(out)
            url = new_lake(folder / "lake")
            ours = [(url, tiles["warm"][at], tiles["whole"][at]) for at in range(n)]
            runs.setdefault(f"lightlake, {n}p", []).append(race(lightlake, *ours))
        runs.setdefault("read HDF5", []).append(race(reading, (tiles["whole"][0],)))
        runs.setdefault("encode Parquet", []).append(race(encoding, (folder / "encoded", tiles["whole"][0])))
    return runs


def extract_large(folder: Path, warm: Path, nside: int, n: int) -> tuple[Race, dict[str, int]]:
    """Extract a large tile in a fresh process, and return the run and sizes; nothing stays on disk."""
    from deployments.sandbox.virac import RANGES, tile_name, write_tile

    pixel = sum(RANGES[nside]) // 2
    tile = folder / tile_name(nside, pixel)
    write_tile(
        tile, nside=nside, pixel=pixel, n_sources=n, n_pawprints=PAWPRINTS, epochs=EPOCHS, few=FEW_OF_LARGE, seed=SEED
    )
    url = new_lake(folder / "lake")
    run = race(lightlake, (url, warm, tile))
    sizes = {"tile": tile.stat().st_size, "lake": parquet_bytes(url, tile)["bytes"]}
    tile.unlink()
    shutil.rmtree(folder / "lake")
    return run, sizes


def main() -> None:
    """Race the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiles of 2,000 sources, under a minute")
    parser.add_argument(
        "--published", type=Path, metavar="FILE", help="the published extractor's script, to run it, too"
    )
    given = parser.parse_args()
    quick = given.quick
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the tiles go, too
    size = QUICK if quick else FULL
    started, load = time.perf_counter(), os.getloadavg()[0]
    print(f"load average at the start {load:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="lightlake-benchmark-") as name:
        folder = Path(name)
        tiles = write_tiles(folder, size)
        whole = compare_whole(folder, tiles)
        runs = compare_speed(folder, tiles, size.turns)
        other: list[float] = []  # sources/s of the published extractor
        for turn in range(size.turns if given.published else 0):
            seconds, files = published(
                given.published.absolute(), folder / f"published-{turn}", tiles["part"][0], MIN_KS
            )
            other.append(size.part / seconds)
            print(f"published extractor: {files:,} of {size.part:,} sources in {seconds:.1f} s")
            shutil.rmtree(folder / f"published-{turn}")
        large = [(nside, n, *extract_large(folder, tiles["warm"][0], nside, n)) for nside, n in size.large]

    kept_share = whole["kept"] / whole["sources"]
    for n in (1, 2):
        for run in runs[f"lightlake, {n}p"]:
            if run.values[0] != {"sources": whole["sources"], "rows": whole["rows"]}:
                raise RuntimeError(f"a run counted {run.values[0]}, not {whole}")
    rates: dict[str, dict[str, float]] = {}
    table = []
    for side, of_side in runs.items():
        values = of_side[0].values
        seconds, cpu_s = median(run.seconds for run in of_side), median(run.cpu_s for run in of_side)
        peak = max(run.peak_rss_mb for run in of_side)
        if not isinstance(values[0], dict):  # the limits
            table.append((side, None, None, seconds, cpu_s, None, None, peak))
            rates[side] = {"seconds": seconds, "cpu_s": cpu_s}
            continue
        sources, rows = (sum(value[key] for value in values) for key in ("sources", "rows"))
        rates[side] = {"seconds": seconds, "sources": sources / seconds, "cpu": sources / cpu_s, "rows": rows / seconds}
        table.append((side, sources, rows, seconds, cpu_s, sources / seconds, rows / seconds, peak))
    print_table(
        f"Tiles n1024, {kept_share:.0%} of their sources kept (more than {MIN_KS} Ks detections), medians of "
        f"{size.turns}; a process that goes source after source has a tile of {size.part:,} sources, the others one of "
        f"{size.whole:,}",
        ("side", "sources", "rows", "seconds", "CPU s", "sources/s", "rows/s", "peak RSS (MB)"),
        table,
    )
    print_table(
        f"Bytes and files of one tile of {whole['sources']:,} sources, {whole['kept']:,} kept, {whole['rows']:,} rows",
        ("side", "MB", "bytes/row", "files"),
        [
            ("HDF5", whole["tile_bytes"] / 1e6, whole["tile_bytes"] / whole["rows"], 1),
            ("CSV", whole["csv_bytes"] / 1e6, whole["csv_bytes"] / whole["rows"], whole["csv_files"]),
            ("lightlake", whole["lake_bytes"] / 1e6, whole["lake_bytes"] / whole["rows"], whole["lake_files"]),
            (
                "  columns of the CSV",
                whole["lake_same_columns"] / 1e6,
                whole["lake_same_columns"] / whole["rows"],
                None,
            ),
        ],
    )
    print_table(
        "The largest tiles, each in a fresh process",
        ("tile", "sources", "rows", "HDF5 (MB)", "lake (MB)", "seconds", "sources/s", "peak RSS (MB)"),
        [
            (
                f"n{nside}",
                n,
                run.values[0]["rows"],
                sizes["tile"] / 1e6,
                sizes["lake"] / 1e6,
                run.seconds,
                n / run.seconds,
                run.peak_rss_mb,
            )
            for nside, n, run, sizes in large
        ],
    )
    one, two = (rates[f"lightlake, {n}p"]["sources"] / rates[f"per source, {n}p"]["sources"] for n in (1, 2))
    ours_s = rates["lightlake, 1p"]["seconds"]
    limits_s = [rates[limit]["seconds"] for limit in ("read HDF5", "encode Parquet")]
    print_stages(ours_s, *limits_s)
    result = {
        "quick": quick,
        "throughput_ratio_1p": one,
        "throughput_ratio_2p": two,
        "peak_rss_gb": max(run.peak_rss_mb for _, _, run, _ in large) / 1e3,
        "bytes_ratio": whole["lake_bytes"] / whole["csv_bytes"],
        "bytes_ratio_same_columns": whole["lake_same_columns"] / whole["csv_bytes"],
        "files_ratio": whole["lake_files"] / whole["csv_files"],
        "published_ratio_1p": rates["lightlake, 1p"]["sources"] / median(other) if other else None,
        "limit_ratio": ours_s / sum(limits_s),
        "scaling_2p": rates["lightlake, 2p"]["sources"] / rates["lightlake, 1p"]["sources"],
        "read_limit": ours_s / rates["read HDF5"]["seconds"],
        "encode_limit": ours_s / rates["encode Parquet"]["seconds"],
        "limits_cpu_ratio_1p": whole["sources"]
        / sum(rates[limit]["cpu_s"] for limit in ("read HDF5", "encode Parquet"))
        / rates["per source, 1p"]["cpu"],
        "cpu_ratio_1p": rates["lightlake, 1p"]["cpu"] / rates["per source, 1p"]["cpu"],
        "cpu_ratio_2p": rates["lightlake, 2p"]["cpu"] / rates["per source, 2p"]["cpu"],
        "rows_ratio_1p": rates["lightlake, 1p"]["rows"] / rates["per source, 1p"]["rows"],
        "rows_ratio_2p": rates["lightlake, 2p"]["rows"] / rates["per source, 2p"]["rows"],
        "sources_per_s_1p": rates["lightlake, 1p"]["sources"],
        "sources_per_s_2p": rates["lightlake, 2p"]["sources"],
        "rows_per_s_1p": rates["lightlake, 1p"]["rows"],
        "per_source_sources_per_s_1p": rates["per source, 1p"]["sources"],
        "per_source_sources_per_s_2p": rates["per source, 2p"]["sources"],
        "kept_share": kept_share,
        "largest_tile_sources": large[-1][1],
        "load_average": f"{load:.1f} to {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        "total_s": time.perf_counter() - started,
    }
    _print_goals(result, quick)
    print_result(result)


def _print_goals(result: Mapping[str, Any], quick: bool) -> None:
    """Print goals and results."""
    goals = [
        (
            f"throughput at {n} process{'es' * (n - 1)}, all sources of a tile counted: "
            f"{result[f'throughput_ratio_{n}p']:.1f} times that of the extractor per source",
            f"at least {GOAL_THROUGHPUT}",
            result[f"throughput_ratio_{n}p"] >= GOAL_THROUGHPUT,
        )
        for n in (1, 2)
    ] + [
        (
            f"memory: {result['peak_rss_gb']:.2f} GB on a tile of {result['largest_tile_sources']:,} sources",
            f"under {GOAL_GB:g}",
            result["peak_rss_gb"] < GOAL_GB,
        ),
        (
            f"bytes: {result['bytes_ratio']:.3f} of the CSV with all that the lake holds, "
            f"{result['bytes_ratio_same_columns']:.3f} with the columns that the CSV has",
            f"under {GOAL_BYTES:g}",
            result["bytes_ratio"] < GOAL_BYTES,
        ),
    ]
    print("\nBoth sides kept the same sources, with the same numbers of rows and detections.")
    for result_line, goal, met in goals:
        print(f"{result_line} (goal: {goal}): {'met' if met else 'NOT met'}")
    print(
        f"The whole takes {result['read_limit']:.1f} times as long as only reading the arrays, "
        f"{result['encode_limit']:.1f} times as long as only encoding the Parquet.\n"
        f"A process that only reads the arrays and encodes the Parquet, and does nothing between, has "
        f"{result['limits_cpu_ratio_1p']:.1f} times the throughput of the extractor per source, by processor time."
    )
    published = PUBLISHED_SOURCES_PER_S
    print(
        f"The published run, 472 tiles of 17,254 sources in 46 minutes on 96 workers of another machine, had "
        f"{published:.0f} sources/s a worker: {result['sources_per_s_1p'] / published:.0f} times less than here."
    )
    if quick:
        print(
            "This was the quick run: tiles of 2,000 sources, of which a commit is a larger part; no goal is for them."
        )


if __name__ == "__main__":
    main()
