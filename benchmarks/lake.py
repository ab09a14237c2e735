"""Point and cone queries of a lake against globs of its files and against pandas; what a commit costs.

``python -m benchmarks.lake`` makes 20 million rows of a ZTF-like archive in 2,000 granules, the way a pull
does, keeps a copy as written, compacts the other, and asks both in every way that it knows. All answers are
checked against the rows as generated. All files are in the page cache, and DuckDB's own caches are at their
defaults, on every side. ``--quick`` takes a tenth of the granules.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Run, fresh, interleaved, print_result, print_table

# Only what every side needs is imported here: a side's process must not pay for another's libraries.
if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SEED = 20_260_101
GRANULES = 2000
QUICK_GRANULES = 200
SOURCES = 100  # of a granule
BANDS = ("ztf_g", "ztf_r")
EPOCHS = 50  # of a source in a band
ROWS = SOURCES * len(BANDS) * EPOCHS
ARCHIVE = "ztf"
RELEASE = "dr24"
RADIUS_ARCSEC = 10.0
COLUMNS = ("source_id", "band", "mjd", "flux", "flux_err")  # what a notebook needs to plot

# Name, ra, dec, source id.
Target = tuple[str, float, float, str]
# Rows, and exact sums of mjd and flux, which do not depend on the rows' order.
Answer = tuple[int, float, float]


def sky(granules: int) -> dict[str, NDArray[Any]]:
    """Return the targets, granules * SOURCES of them: spread over ZTF's sky, neighbours next to each other.

    Every fiftieth has a companion at 5 arcsec, so that some cones hold two.
    """
    import numpy as np

    from lake.science.sky import hpx29

    rng = np.random.default_rng(SEED)
    n = granules * SOURCES
    pairs = n // 50
    ra = rng.uniform(0, 360, n)
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(-30)), 1, n)))
    ra[-pairs:] = ra[:pairs]
    dec[-pairs:] = np.where(dec[:pairs] > 0, dec[:pairs] - 5 / 3600, dec[:pairs] + 5 / 3600)
    order = np.argsort(hpx29(ra, dec))
    return {"ra": ra[order], "dec": dec[order]}


def granule(index: int, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> dict[str, pa.Table]:
    """Return the tables of a granule: those of `index`, at the positions of its targets."""
    import numpy as np
    import pyarrow as pa

    from lake.science.sky import hpx29, separation_arcsec
    from tasks.sources.statistics import statistics

    rng = np.random.default_rng([SEED, index])
    name = granule_id(index)
    src_ra, src_dec = ra + rng.normal(0, 2e-5, SOURCES), dec + rng.normal(0, 2e-5, SOURCES)
    pixel = hpx29(src_ra, src_dec)
    ids = source_ids(index, ra, dec)
    n = SOURCES * len(BANDS) * EPOCHS
    source = np.repeat(np.arange(SOURCES), len(BANDS) * EPOCHS)
    band = np.tile(np.repeat(np.arange(len(BANDS)), EPOCHS), SOURCES)
    mjd = np.sort(rng.uniform(58_200, 60_900, (SOURCES * len(BANDS), EPOCHS))).ravel()
    mag = (rng.uniform(15, 20.5, SOURCES)[source] + 0.4 * band + rng.normal(0, 0.1, n)).astype(np.float32)
    mag_err = (0.01 + 0.1 * 10 ** (0.3 * (mag - 20))).astype(np.float32)
    flux = 3.631e6 * 10 ** (-0.4 * mag.astype(np.float64))
    quality = np.where(rng.random(n) < 0.05, 32_768, 0)
    same = {
        "archive": pa.repeat(ARCHIVE, SOURCES),
        "release": pa.repeat(RELEASE, SOURCES),
        "granule": pa.repeat(name, SOURCES),
        "source_id": ids,
        "hpx29": pixel,
    }
    curves = pa.table(
        {
            "archive": pa.repeat(ARCHIVE, n),
            "release": pa.repeat(RELEASE, n),
            "granule": pa.repeat(name, n),
            "source_id": ids.take(source),
            "hpx29": pixel[source],
            "band": pa.array(BANDS).take(band),
            "mjd": mjd,
            "bmjd_tdb": mjd + 0.0057 * np.cos(mjd / 58.1),
            "flux": flux,
            "flux_err": flux * mag_err / 1.0857,
            "unit": pa.repeat("mJy", n),
            "mag": mag,
            "mag_err": mag_err,
            "detected": np.ones(n, bool),
            "good": quality == 0,
            "quality": quality,
        }
    )
    target_id = hpx29(ra, dec)
    return {
        "sources": pa.table({**same, "ra": src_ra % 360, "dec": src_dec}),
        "matches": pa.table(
            {
                **same,
                "target_id": target_id,
                "separation_arcsec": separation_arcsec(ra, dec, src_ra, src_dec),
                "rank": np.ones(SOURCES, np.int32),
            }
        ),
        "lightcurves": curves,
        "statistics": statistics(curves),
        "coverage": pa.table(
            {
                **{key: same[key] for key in ("archive", "release", "granule")},
                "target_id": target_id,
                "status": pa.repeat("found", SOURCES),
                "n_sources": np.ones(SOURCES, np.int64),
                "n_rows": np.full(SOURCES, len(BANDS) * EPOCHS),
                "parameters": pa.repeat('{"radius_arcsec":1.0}', SOURCES),
                "asked_at": pa.repeat(pa.scalar(0, pa.timestamp("us", tz="UTC")), SOURCES),
            }
        ),
    }


def source_ids(index: int, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> pa.Array:
    """Return ids like ZTF's: they begin with the number of the field, 7 degrees wide, that the source is in.

    So the minimum and maximum of a file prune a query by id too, as they do with the archive's own files.
    """
    import numpy as np
    import pyarrow as pa

    field = 200 + ((dec + 90) // 7).astype(int) * 50 + (ra * np.cos(np.radians(dec)) // 7).astype(int)
    return pa.array([f"{f}1{index:06d}{i:05d}" for i, f in enumerate(field)])


def granule_id(index: int) -> str:
    return hashlib.blake2b(f"{ARCHIVE} {RELEASE} {index}".encode(), digest_size=16).hexdigest()


# --- Making the lake. ---


def register(url: str, granules: int) -> None:
    import pyarrow as pa

    from lake.commit.targets import add_targets
    from lake.settings import Settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage

    catalog = Catalog(Storage.from_url(url), Settings())
    catalog.create()
    names = [target_name(row) for row in range(granules * SOURCES)]
    add_targets(catalog, pa.table({**sky(granules), "name": names}), "benchmark", radius_arcsec=1.0)


def target_name(row: int) -> str:
    return f"Target {row:07d}"


def stage_some(url: str, granules: int, first: int, step: int) -> list[float]:
    """Stage every `step`-th granule; return the seconds of each, without those of making it up."""
    from datetime import UTC, datetime

    from lake.commit.ledger import Attempt
    from lake.commit.staging import stage
    from lake.store.storage import Storage

    storage = Storage.from_url(url)
    positions = sky(granules)
    seconds = []
    for index in range(first, granules, step):
        here = slice(index * SOURCES, (index + 1) * SOURCES)
        tables = granule(index, positions["ra"][here], positions["dec"][here])
        attempt = Attempt(ARCHIVE, RELEASE, granule_id(index), "done", datetime.now(UTC), n_targets=SOURCES)
        started = time.perf_counter()
        stage(storage.staging / granule_id(index), attempt, tables, dict.fromkeys(BANDS, "mJy"))
        seconds.append(time.perf_counter() - started)
    return seconds


def commit_all(url: str, granules: int) -> list[float]:
    """Commit the staged granules in the order of the sky, in one process; return the seconds of each."""
    from lake.commit.commit import commit
    from lake.commit.staging import Manifest
    from lake.settings import Settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage

    storage = Storage.from_url(url)
    catalog = Catalog(storage, Settings())
    seconds = []
    for index in range(granules):
        manifest = Manifest.read(storage.staging / granule_id(index))
        assert manifest is not None
        started = time.perf_counter()
        receipt = commit(catalog, manifest)
        seconds.append(time.perf_counter() - started)
        assert receipt.n_rows == ROWS
    return seconds


def run_compact(url: str) -> dict[str, int]:
    from lake.settings import Settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from lake.upkeep.compaction import compact

    done = compact(Catalog(Storage.from_url(url), Settings()))
    return {"before": done.files_before, "after": done.files_after, "bytes": done.bytes_after}


def run_verify(url: str, quick: bool) -> list[str]:
    from lake.settings import Settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from lake.upkeep.maintenance import verify

    findings = verify(Catalog(Storage.from_url(url), Settings()), quick=quick)
    return [f"{finding.check}: {finding.message}" for finding in findings if finding.is_error]


def copy_as_written(url: str, to: str) -> None:
    """Copy a lake at rest: links to its files, which compaction unlinks and never changes, and its catalogue."""
    shutil.copytree(Path(url) / "data", Path(to) / "data", copy_function=os.link)
    (Path(to) / "staging").mkdir()
    with sqlite3.connect(Path(url) / "catalog.sqlite") as one, sqlite3.connect(Path(to) / "catalog.sqlite") as two:
        one.backup(two)


# --- The sides: each returns a function of a question. Question: target, and the expected answers. ---


def _lake(url: str) -> Any:
    from lake.query import Lake

    return Lake(url)


def _glob(url: str, table: str) -> str:
    return f"read_parquet('{_tree(url, table)}/archive=*/*.parquet', hive_partitioning=true)"


def _tree(url: str, table: str) -> str:
    return f"{url}/data/main/{table}"


def lake_point(url: str) -> Callable[[Target], Any]:
    opened = _lake(url)
    return lambda target: opened.light_curve(target[0])


def lake_point_id(url: str) -> Callable[[Target], Any]:
    """Return the query of one who has the target's id, which is its place on the sky: no name to look up."""
    from lake.science.sky import hpx29

    opened = _lake(url)
    return lambda target: opened.light_curve(int(hpx29(target[1], target[2])))


def lake_cone(url: str) -> Callable[[Target], Any]:
    opened = _lake(url)
    return lambda target: opened.cone(target[1], target[2], RADIUS_ARCSEC)


def _duckdb(cached: bool = False) -> Any:
    import duckdb

    connection = duckdb.connect()
    if cached:
        connection.execute("SET parquet_metadata_cache = true")
    return connection


def glob_point(url: str, cached: bool = False) -> Callable[[Target], Any]:
    connection = _duckdb(cached)
    rows = _glob(url, "lightcurves")
    return lambda target: connection.execute(f"SELECT * FROM {rows} WHERE source_id = '{target[3]}'").to_arrow_table()


def glob_point_hpx29(url: str) -> Callable[[Target], Any]:
    """Return the query of a user who knows the lake's sort order, and has the source's position to hand."""
    from lake.science.sky import cone_ranges

    connection = _duckdb()
    rows = _glob(url, "lightcurves")

    def ask(target: Target) -> Any:
        ranges = cone_ranges(target[1], target[2], 1.0, max_ranges=1)
        return connection.execute(
            f"SELECT * FROM {rows} WHERE hpx29 BETWEEN {ranges[0][0]} AND {ranges[0][1]} AND source_id = '{target[3]}'"
        ).to_arrow_table()

    return ask


def glob_cone(url: str, hpx29: bool = False) -> Callable[[Target], Any]:
    """Return a box, then the haversine, on the sources; joined with their light curves."""
    import math

    connection = _duckdb()
    keys = "archive, release, hpx29, source_id" if hpx29 else "archive, source_id"

    def ask(target: Target) -> Any:
        _, ra, dec, _ = target
        radius = RADIUS_ARCSEC / 3600
        width = radius / math.cos(math.radians(abs(dec) + radius))
        return connection.execute(
            f"""
            SELECT curves.*, found.ra, found.dec
            FROM (
                SELECT * FROM {_glob(url, "sources")}
                WHERE dec BETWEEN {dec - radius} AND {dec + radius} AND ra BETWEEN {ra - width} AND {ra + width}
                    AND 2 * degrees(asin(sqrt(pow(sin(radians(dec - {dec}) / 2), 2)
                        + cos(radians(dec)) * cos(radians({dec})) * pow(sin(radians(ra - {ra}) / 2), 2))))
                        <= {radius}
            ) AS found
            JOIN {_glob(url, "lightcurves")} AS curves USING ({keys})
            """
        ).to_arrow_table()

    return ask


def pandas_point(url: str, columns: bool = False, filters: bool = False) -> Callable[[Target], Any]:
    """Return what the notebooks do: the archive into one DataFrame, then the rows of an id."""
    import pandas as pd

    def ask(target: Target) -> Any:
        frame = pd.read_parquet(
            _tree(url, "lightcurves"),
            columns=list(COLUMNS) if columns else None,
            filters=[("source_id", "==", target[3])] if filters else None,
            partitioning=None,  # compacted files hold the column archive, which pyarrow cannot merge with the folder's
        )
        return frame[frame["source_id"] == target[3]]

    return ask


def pandas_cone(url: str, columns: bool = False) -> Callable[[Target], Any]:
    import pandas as pd

    from lake.science.sky import separation_arcsec

    def ask(target: Target) -> Any:
        needed = ["source_id", "ra", "dec"]
        sources = pd.read_parquet(_tree(url, "sources"), columns=needed, partitioning=None)
        near = separation_arcsec(target[1], target[2], sources["ra"], sources["dec"]) <= RADIUS_ARCSEC
        wanted = list(COLUMNS) if columns else None
        curves = pd.read_parquet(_tree(url, "lightcurves"), columns=wanted, partitioning=None)
        return curves.merge(sources[near], on="source_id")

    return ask


def pandas_in_memory(url: str, targets: list[Target]) -> dict[str, float]:
    """Load everything once, then select: seconds of each part, checked against the expected rows by the caller."""
    import pandas as pd

    started = time.perf_counter()
    frame = pd.read_parquet(_tree(url, "lightcurves"), partitioning=None)
    loaded = time.perf_counter() - started
    seconds = []
    for target in targets:
        started = time.perf_counter()
        rows = frame[frame["source_id"] == target[3]]
        seconds.append(time.perf_counter() - started)
        assert len(rows) == len(BANDS) * EPOCHS
    return {"load_s": loaded, "select_s": median(seconds)}


# Sides by name: how to make it, and of which of the two lakes. Rare ones take seconds a question.
Side = tuple[Callable[..., Callable[[Target], Any]], str, dict[str, bool]]
POINT: dict[str, Side] = {
    "lake": (lake_point_id, "compacted", {}),
    "lake, by name": (lake_point, "compacted", {}),
    "lake, as written": (lake_point_id, "written", {}),
    "glob by id, as written": (glob_point, "written", {}),
    "glob by id, as written, footers cached": (glob_point, "written", {"cached": True}),
    "glob by id + hpx29, as written": (glob_point_hpx29, "written", {}),
    "glob by id, compacted": (glob_point, "compacted", {}),
    "glob by id + hpx29, compacted": (glob_point_hpx29, "compacted", {}),
    "pandas, all columns, compacted": (pandas_point, "compacted", {}),
    "pandas, 5 columns, compacted": (pandas_point, "compacted", {"columns": True}),
    "pandas with filters=, compacted": (pandas_point, "compacted", {"filters": True}),
}
CONE: dict[str, Side] = {
    "lake": (lake_cone, "compacted", {}),
    "lake, as written": (lake_cone, "written", {}),
    "glob, as written": (glob_cone, "written", {}),
    "glob, join with hpx29, as written": (glob_cone, "written", {"hpx29": True}),
    "glob, compacted": (glob_cone, "compacted", {}),
    "glob, join with hpx29, compacted": (glob_cone, "compacted", {"hpx29": True}),
    "pandas, all columns, compacted": (pandas_cone, "compacted", {}),
    "pandas, 5 columns, compacted": (pandas_cone, "compacted", {"columns": True}),
}
# What the headline ratios compare: the lake at rest, a glob of the files as pulls wrote them (what a folder of
# Parquet without a catalogue is), and one DataFrame of everything.
HEADLINE = {
    "point": ("lake", "glob by id, as written", "pandas, all columns, compacted"),
    "cone": ("lake", "glob, as written", "pandas, all columns, compacted"),
}
RARE = {name for name in [*POINT, *CONE] if name.startswith("pandas")}
SIDES = {"point": POINT, "cone": CONE}
TITLES = {
    "point": "All measurements of one target: by target_id through the lake, by the archive's id on the other sides",
    "cone": f"All measurements within {RADIUS_ARCSEC:g} arcsec of a position",
}


def one_side(kind: str, name: str, urls: dict[str, str], target: Target) -> Answer:
    """Ask one side one question: called in a process of its own, for its memory and its time from scratch."""
    make, which, options = SIDES[kind][name]
    return answer(make(urls[which], **options)(target))


def race(kind: str, urls: dict[str, str], granules: int, count: int) -> dict[str, Any]:
    """Ask all sides in turn, each with an open connection, and check every answer."""
    asked = questions(kind, granules, count)

    def check(question: tuple[Target, Answer], found: Any, side: str) -> None:
        if list(answer(found)) != list(question[1]):
            raise AssertionError(f"{kind}, {side}, {question[0]}: {answer(found)} is not {question[1]}")

    def asking(ask: Callable[[Target], Any]) -> Callable[[tuple[Target, Answer]], Any]:
        return lambda question: ask(question[0])

    sides = {name: asking(make(urls[which], **options)) for name, (make, which, options) in SIDES[kind].items()}
    return {"seconds": interleaved(sides, asked, check, RARE), "asked": asked}


def answer(found: Any) -> Answer:
    """Sum up an Arrow table or a DataFrame. Sums are exact, so the rows' order does not matter."""
    import math

    mjd, flux = (found[name].to_numpy().tolist() for name in ("mjd", "flux"))
    return len(mjd), math.fsum(mjd), math.fsum(flux)


def warm(urls: dict[str, str]) -> None:
    """Read all files once, so that they are in the page cache."""
    for url in urls.values():
        for path in Path(url).rglob("*"):
            if path.is_file():
                path.read_bytes()


def questions(kind: str, granules: int, count: int) -> list[tuple[Target, Answer]]:
    """Pick targets, away from RA 0 and the pole so that the glob's box is a box; with the rows as generated."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from lake.model.schema import TABLES
    from lake.science.sky import SkyIndex

    positions = sky(granules)
    ra, dec = positions["ra"], positions["dec"]
    far = np.flatnonzero((ra > 1) & (ra < 359) & (dec < 80))
    index = SkyIndex(ra, dec)
    if kind == "cone":  # every second one has a companion
        row, other, _ = index.within(ra, dec, RADIUS_ARCSEC - 1)
        paired = np.intersect1d(row[row != other], far)
        rng = np.random.default_rng(SEED + 2)
        picked = np.concatenate([rng.choice(far, count - count // 2, False), rng.choice(paired, count // 2, False)])
        picked = rng.permutation(picked)
    else:
        picked = np.random.default_rng(SEED + 1).choice(far, count, replace=False)
    asked: list[tuple[Target, Answer]] = []
    for row in picked.tolist():
        wanted = [row]
        if kind == "cone":
            wanted = np.unique(index.within(ra[row], dec[row], RADIUS_ARCSEC - 1)[1]).tolist()
        curves = []
        for i in wanted:
            here = slice(i // SOURCES * SOURCES, (i // SOURCES + 1) * SOURCES)
            table = granule(i // SOURCES, ra[here], dec[here])["lightcurves"]
            source = source_ids(i // SOURCES, ra[here], dec[here])[i % SOURCES]
            curves.append(TABLES["lightcurves"].cast(table.filter(pc.equal(table["source_id"], source))))
            if i == row:
                name = source.as_py()
        target = (target_name(row), float(ra[row]), float(dec[row]), name)
        asked.append((target, answer(pa.concat_tables(curves))))
    return asked


# --- The whole run. ---


def build(urls: dict[str, str], granules: int, brief: bool) -> dict[str, Any]:
    """Make both lakes; return what it took. If brief, verify once, with everything."""
    url = urls["compacted"]
    registered = fresh(register, url, granules)
    started = time.perf_counter()
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(stage_some, url, granules, first, workers) for first in range(workers)]
        stage_s = median([seconds for job in jobs for seconds in job.result()])
    staged_s = time.perf_counter() - started
    committed = fresh(commit_all, url, granules)
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
        "commit_ms_per_granule": 1e3 * median(committed.value),
        "commit_ms_first": 1e3 * median(committed.value[:edge]),
        "commit_ms_last": 1e3 * median(committed.value[-edge:]),
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
    return sum(1 for _ in Path(_tree(url, "lightcurves")).rglob("*.parquet"))


def _bytes(url: str) -> int:
    return sum(path.stat().st_size for path in (Path(url) / "data").rglob("*.parquet"))


def from_scratch(
    kind: str, urls: dict[str, str], question: tuple[Target, Answer], names: list[str], times: int
) -> dict[str, Run]:
    """Ask each side in processes of its own, in turn; pandas once, for it takes seconds anyway."""
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
    for key, name in others.items():
        result[f"{kind}_query_vs_{key}"] = timed[name] / lake
        result[f"{kind}_query_{key}_ms"] = 1e3 * timed[name]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_GRANULES} granules, not {GRANULES}")
    parser.add_argument("--granules", type=int, help=f"another number of granules of {ROWS:,} rows")
    parser.add_argument("--keep", metavar="DIR", help="make the lakes in this new folder, and keep them")
    options = parser.parse_args()
    granules = options.granules or (QUICK_GRANULES if options.quick else GRANULES)
    count, times = (11, 1) if options.quick else (25, 3)
    started = time.perf_counter()
    # Not the system's temporary folder if the user named another: the lakes take 1 kB for 10 rows.
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
        for kind in SIDES:
            raced = fresh(race, kind, urls, granules, count).value
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
