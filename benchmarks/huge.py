"""The lakes of `benchmarks.lake --huge`: 10, 100 and 1,000 million rows of eight archives, asked the same questions.

Every target has a source of 100 rows in each archive. TESS observes 12,500 targets at a time, for 27 days. The largest
lake takes some 30 GB, and its making most of an hour on two cores. It is made granule by granule: what is committed is
kept, so a run that was ended goes on with the same `--keep`. Each object and cone is asked for twice, and the second
time counts: a lake larger than memory is not in the page cache.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.lake_rows import BANDS, EPOCHS, RELEASE, SEED, curves_at, run_compact, sources_at, target_name
from benchmarks.measure import fresh, print_result, print_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

ARCHIVES = ("gaia", "hcv", "k2", "kepler", "panstarrs", "tess", "wise", "ztf")
EACH = len(BANDS) * EPOCHS  # rows of a source
SIZES = (10**7, 10**8, 10**9)  # rows

PART = 2_500  # targets, generated at a time
GRANULE = 100_000  # targets, whose file of light curves is about as large as compaction makes them
SECTOR = 12_500  # targets, observed by TESS at a time
SECTOR_DAYS = 27.0
FIRST_SECTOR = 58_325.0  # MJD

RADIUS_ARCSEC = 10.0
ASKED = 12


@cache
def positions(targets: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return positions over the whole sky in the lake's order; no two are one target."""
    import numpy as np

    from lake.science.sky import SkyIndex, hpx29

    rng = np.random.default_rng(SEED)
    n = targets + targets // 100 + 10
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    row, other, _ = SkyIndex(ra, dec).within(ra, dec, 2 * RADIUS_ARCSEC)
    alone = np.setdiff1d(np.arange(n), row[row != other])[:targets]
    ra, dec = ra[alone], dec[alone]
    order = np.argsort(hpx29(ra, dec))
    return ra[order], dec[order]


def bands(archive: str) -> tuple[str, ...]:
    return tuple(f"{archive}_{band[-1]}" for band in BANDS)


def days(archive: str, target: int) -> tuple[float, float]:
    """Return when an archive observes the part that begins with a target, MJD."""
    if archive != "tess":
        return 58_200.0, 60_900.0
    first = FIRST_SECTOR + target // SECTOR * SECTOR_DAYS
    return first, first + SECTOR_DAYS


def granule_id(archive: str, first: int) -> str:
    return f"{archive}-{first:08d}"


def stage_one(url: str, targets: int, archive: str, first: int) -> str:
    """Stage the granule of an archive that begins with a target; return its id."""
    from datetime import UTC, datetime

    import pyarrow as pa

    from lake.commit.ledger import Attempt
    from lake.commit.staging import stage
    from lake.store.storage import Storage
    from tasks.sources.statistics import statistics_of_sorted

    name, last = granule_id(archive, first), min(first + GRANULE, targets)
    parts = {start: sources_of(targets, archive, start) for start in range(first, last, PART)}
    whole = {table: pa.concat_tables([part[table] for part in parts.values()]) for table in parts[first]}
    summaries: list[pa.Table] = []

    def curves() -> Iterator[pa.Table]:
        for start, part in parts.items():
            made = curves_at(start // PART, part["sources"], bands(archive), days(archive, start))
            summaries.append(statistics_of_sorted(made))
            yield made

    stage(
        Storage.from_url(url).staging / name,
        Attempt(archive, RELEASE, name, "done", datetime.now(UTC), n_targets=last - first),
        whole,
        dict.fromkeys(bands(archive), "mJy"),
        lightcurves=curves(),
        afterwards=lambda: {"statistics": pa.concat_tables(summaries)},
    )
    return name


def sources_of(targets: int, archive: str, start: int) -> dict[str, pa.Table]:
    """Return sources, matches and coverage of the part that begins with a target."""
    ra, dec = positions(targets)
    name = granule_id(archive, start // GRANULE * GRANULE)
    # A part does not go beyond its granule.
    here = slice(start, min(start + PART, start // GRANULE * GRANULE + GRANULE))
    return sources_at(start // PART, ra[here], dec[here], name, archive)


def build(url: str, targets: int) -> float:
    """Make a lake, or go on with it; return the seconds that this took."""
    from lake.commit.commit import commit_together
    from lake.commit.staging import Manifest
    from lake.settings import Settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage

    started = time.perf_counter()
    fresh(register, url, targets)
    storage = Storage.from_url(url)
    catalog = Catalog(storage, Settings())
    done = committed(url)
    missing = [
        (archive, first)
        for archive in ARCHIVES
        for first in range(0, targets, GRANULE)
        if granule_id(archive, first) not in done
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(stage_one, url, targets, archive, first) for archive, first in missing]
        for count, job in enumerate(as_completed(jobs), 1):
            manifest = Manifest.read(storage.staging / job.result())
            assert manifest is not None
            (receipt,) = commit_together(catalog, manifest)
            assert receipt.n_rows == receipt.n_targets * EACH
            print(f"{targets * EACH * len(ARCHIVES):,} rows: granule {count} of {len(missing)}", flush=True)
    catalog.close()
    return time.perf_counter() - started


def register(url: str, targets: int) -> None:
    """Make the lake and register its targets, unless that is done."""
    import pyarrow as pa

    from lake.commit.targets import add_targets
    from lake.query import Lake
    from lake.settings import Settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage

    catalog = Catalog(Storage.from_url(url), Settings())
    catalog.create()
    with Lake(url) as opened:
        if opened.sql("SELECT count(*) AS n FROM targets")["n"][0].as_py() == targets:
            return
    ra, dec = positions(targets)
    names = [target_name(row) for row in range(targets)]
    add_targets(catalog, pa.table({"ra": ra, "dec": dec, "name": names}), "benchmark", radius_arcsec=1.0)


def committed(url: str) -> set[str]:
    from lake.query import Lake

    with Lake(url) as opened:
        return set(opened.sql("SELECT granule FROM ledger WHERE status = 'done'")["granule"].to_pylist())


def object_by_id(lake: Any, target: tuple[int, float, float]) -> Any:
    return lake.light_curve(target[0])


def cone(lake: Any, target: tuple[int, float, float]) -> Any:
    return lake.cone(target[1], target[2], RADIUS_ARCSEC)


# SQL of the other questions.
QUESTIONS = {
    "time_range": f"""
        SELECT count(*) AS n, avg(flux) AS mean FROM lightcurves
        WHERE archive = 'tess' AND mjd >= {FIRST_SECTOR} AND mjd < {FIRST_SECTOR + SECTOR_DAYS}
    """,
    "statistics": """
        SELECT band, count(*) AS n, avg(flux) AS mean, stddev(flux) AS deviation FROM lightcurves
        WHERE archive = 'ztf' GROUP BY band
    """,
    "join": """
        SELECT count(*) AS n, avg(one.mag_median - two.mag_median) AS colour
        FROM matches AS a JOIN matches AS b USING (target_id)
        JOIN statistics AS one ON one.archive = a.archive AND one.release = a.release
            AND one.source_id = a.source_id AND one.hpx29 = a.hpx29
        JOIN statistics AS two ON two.archive = b.archive AND two.release = b.release
            AND two.source_id = b.source_id AND two.hpx29 = b.hpx29
        WHERE a.archive = 'ztf' AND b.archive = 'wise' AND one.band = 'ztf_g' AND two.band = 'wise_g'
    """,
}


def ask(url: str, targets: int) -> dict[str, float]:
    """Ask a lake all questions and check the answers; return milliseconds. Runs in a fresh process."""
    import numpy as np

    from lake.query import Lake
    from lake.science.sky import hpx29

    ra, dec = positions(targets)
    picked = np.random.default_rng(SEED + 1).choice(targets, ASKED, replace=False).tolist()
    asked = [(row, (int(hpx29(ra[row], dec[row])), float(ra[row]), float(dec[row]))) for row in picked]
    found: dict[str, float] = {}
    started = time.perf_counter()
    with Lake(url) as lake:
        found["open_ms"] = 1e3 * (time.perf_counter() - started)
        for name, of in {"object": object_by_id, "cone": cone}.items():
            times: list[list[float]] = [[], []]
            for row, target in asked:
                for turn in times:
                    started = time.perf_counter()
                    answer = of(lake, target)
                    turn.append(1e3 * (time.perf_counter() - started))
                if row in picked[:2]:
                    check(answer, targets, row)
                assert answer.num_rows == EACH * len(ARCHIVES), (name, target, answer.num_rows)
            # The first question of a process also reads the list of files.
            found[f"{name}_first_ms"] = median(times[0][1:])
            found[f"{name}_ms"] = median(times[1][1:])
        sector = min(targets, SECTOR)
        counts = {"time_range": [sector * EACH], "statistics": [targets * EPOCHS] * 2, "join": [targets]}
        for name, query in QUESTIONS.items():
            for key in (f"{name}_first_ms", f"{name}_ms"):
                started = time.perf_counter()
                answer = lake.sql(query)
                found[key] = 1e3 * (time.perf_counter() - started)
            assert answer["n"].to_pylist() == counts[name], (name, answer)
    return found


def check(answer: Any, targets: int, row: int) -> None:
    """Compare the measurements of one target with what was generated: their number, and exact sums."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from lake.model.schema import TABLES

    start = row // PART * PART
    made = []
    for archive in ARCHIVES:
        sources = sources_of(targets, archive, start)["sources"]
        curves = curves_at(start // PART, sources, bands(archive), days(archive, start))
        made.append(
            TABLES["lightcurves"].cast(curves.filter(pc.equal(curves["source_id"], sources["source_id"][row - start])))
        )
    for column in ("mjd", "flux"):
        assert math.fsum(answer[column].to_pylist()) == math.fsum(pa.concat_tables(made)[column].to_pylist()), column


def size(url: str) -> dict[str, float]:
    """Return the number of files of a lake, and their bytes."""
    files = [path.stat().st_size for path in (Path(url) / "data").rglob("*.parquet")]
    return {"files": len(files), "gb": sum(files) / 1e9}


def compare(folder: Path, sizes: tuple[int, ...] = SIZES) -> None:
    """Make the lakes in a folder, or go on with them, and ask them."""
    result: dict[str, Any] = {}
    lines: dict[str, list[Any]] = {}
    for rows in sizes:
        url, targets = str(folder / f"{rows:.0e}"), rows // (EACH * len(ARCHIVES))
        costs: dict[str, float] = {"build_s": build(url, targets)}
        compacted = fresh(run_compact, url)
        costs |= {"compact_s": compacted.seconds, "compact_peak_rss_gb": compacted.peak_rss_mb / 1e3}
        costs |= size(url)
        costs["bytes_per_row"] = 1e9 * costs["gb"] / rows
        answers = fresh(ask, url, targets)
        costs |= answers.value | {"ask_peak_rss_gb": answers.peak_rss_mb / 1e3}
        for name, value in costs.items():
            lines.setdefault(name, []).append(value)
            result[f"{name}_{rows:.0e}"] = value
    for name in ("object_ms", "cone_ms", "time_range_ms"):
        result[f"{name.removesuffix('_ms')}_growth"] = lines[name][-1] / lines[name][0]
    print_table(
        f"{len(ARCHIVES)} archives, each target {EACH} rows in each; the second of two equal questions, and the first",
        ("", *(f"{rows:,} rows" for rows in sizes)),
        [(name, *values) for name, values in lines.items()],
    )
    print_result(result)
