"""The lake that `benchmarks.lake` asks: rows of a ZTF-like archive, committed in batches as a pull does."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Only shared imports are here: the process of one side must not pay for another's libraries.
if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SEED = 20_260_101
SOURCES = 100  # of a granule
BANDS = ("ztf_g", "ztf_r")
EPOCHS = 50  # of a source in a band
ROWS = SOURCES * len(BANDS) * EPOCHS
APART = 10  # of so many commits, two are of a few granules
ARCHIVE = "ztf"
RELEASE = "dr24"
DAYS = (58_200.0, 60_900.0)  # MJD


def sky(granules: int) -> dict[str, NDArray[Any]]:
    """Return granules * SOURCES targets over ZTF's sky, sorted so that neighbours are together.

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
    """Generate the tables of granule `index`, at the positions of its targets."""
    from tasks.sources.statistics import statistics_of_sorted

    tables = sources_at(index, ra, dec, granule_id(index))
    curves = curves_at(index, tables["sources"])
    return {**tables, "lightcurves": curves, "statistics": statistics_of_sorted(curves)}


def sources_at(
    index: int, ra: NDArray[np.float64], dec: NDArray[np.float64], name: str, archive: str = ARCHIVE
) -> dict[str, pa.Table]:
    """Generate the sources of granule `name`, or of part `index` of it, one at each target; matches and coverage."""
    import numpy as np
    import pyarrow as pa

    from lake.science.sky import hpx29, separation_arcsec

    rng = np.random.default_rng([SEED, index, *archive.encode()])
    n = len(ra)
    src_ra, src_dec = ra + rng.normal(0, 2e-5, n), dec + rng.normal(0, 2e-5, n)
    same = {
        "archive": pa.repeat(archive, n),
        "release": pa.repeat(RELEASE, n),
        "granule": pa.repeat(name, n),
        "source_id": source_ids(index, ra, dec),
        "hpx29": hpx29(src_ra, src_dec),
    }
    target_id = hpx29(ra, dec)
    return {
        "sources": pa.table({**same, "ra": src_ra % 360, "dec": src_dec}),
        "matches": pa.table(
            {
                **same,
                "target_id": target_id,
                "separation_arcsec": separation_arcsec(ra, dec, src_ra, src_dec),
                "rank": np.ones(n, np.int32),
            }
        ),
        "coverage": pa.table(
            {
                **{key: same[key] for key in ("archive", "release", "granule")},
                "target_id": target_id,
                "status": pa.repeat("found", n),
                "n_sources": np.ones(n, np.int64),
                "n_rows": np.full(n, len(BANDS) * EPOCHS),
                "parameters": pa.repeat('{"radius_arcsec":1.0}', n),
                "asked_at": pa.repeat(pa.scalar(0, pa.timestamp("us", tz="UTC")), n),
            }
        ),
    }


def curves_at(
    index: int, sources: pa.Table, bands: Sequence[str] = BANDS, days: tuple[float, float] = DAYS
) -> pa.Table:
    """Generate the light curves of sources, in the lake's sort order, each observed EPOCHS times in some days."""
    import numpy as np
    import pyarrow as pa

    each = len(bands) * EPOCHS
    sources = sources.sort_by([("hpx29", "ascending"), ("source_id", "ascending")])
    count, n = sources.num_rows, sources.num_rows * each
    rng = np.random.default_rng([SEED, index, *sources["archive"][0].as_py().encode(), EPOCHS])
    band = np.tile(np.repeat(np.arange(len(bands)), EPOCHS), count)
    mjd = np.sort(rng.uniform(*days, (count * len(bands), EPOCHS))).ravel()
    mag = (np.repeat(rng.uniform(15, 20.5, count), each) + 0.4 * band + rng.normal(0, 0.1, n)).astype(np.float32)
    mag_err = (0.01 + 0.1 * 10 ** (0.3 * (mag - 20))).astype(np.float32)
    flux = 3.631e6 * 10 ** (-0.4 * mag.astype(np.float64))
    quality = np.where(rng.random(n) < 0.05, 32_768, 0)
    source = np.repeat(np.arange(count, dtype=np.int32), each)
    same = {name: pa.repeat(sources[name][0], n) for name in ("archive", "release", "granule")}
    return pa.table(
        {
            **same,
            "source_id": pa.DictionaryArray.from_arrays(source, sources["source_id"].combine_chunks()),
            "hpx29": sources["hpx29"].to_numpy()[source],
            "band": pa.DictionaryArray.from_arrays(pa.array(band, pa.int32()), pa.array(bands)),
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


def source_ids(index: int, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> pa.Array:
    """Return ids like ZTF's, which begin with the number of the source's field, 7 degrees wide.

    So a file's minimum and maximum also prune a query by id, as for the archive's own files.
    """
    import numpy as np
    import pyarrow as pa

    field = 200 + ((dec + 90) // 7).astype(int) * 50 + (ra * np.cos(np.radians(dec)) // 7).astype(int)
    return pa.array([f"{f}1{index:06d}{i:05d}" for i, f in enumerate(field)])


def granule_id(index: int) -> str:
    return hashlib.blake2b(f"{ARCHIVE} {RELEASE} {index}".encode(), digest_size=16).hexdigest()


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
    """Stage every `step`-th granule; return the seconds of each, without its generation."""
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


def stage_all(url: str, granules: int) -> list[float]:
    """Stage all granules on all cores; return the seconds of each, without its generation."""
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(stage_some, url, granules, first, workers) for first in range(workers)]
        return [seconds for job in jobs for seconds in job.result()]


def per_commit(granules: int) -> int:
    """Return how many granules a pull commits together, when as many wait; of few, a quarter."""
    from tasks.sources.base import TOGETHER, Limits

    return min(TOGETHER * Limits().granules, -(-granules // 4))


def commit_all(url: str, granules: int) -> dict[str, list[float]]:
    """Commit the staged granules in the order of the sky, in one process.

    Returns
    -------
    dict
        Seconds of each granule that was committed with all that a pull commits together when batches wait, with those
        of its task only, or alone.
    """
    from lake.commit.commit import commit_together
    from lake.commit.gather import gather
    from lake.commit.staging import Manifest
    from lake.settings import Settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from tasks.sources.base import Limits

    storage = Storage.from_url(url)
    catalog = Catalog(storage, Settings())
    seconds: dict[str, list[float]] = {"batch": [], "task": [], "alone": []}
    first = number = 0
    while first < granules:
        kind = {1: "alone", 2: "task"}.get(number % APART, "batch")
        after = min(first + (per_commit(granules) if kind == "batch" else Limits().granules), granules)
        read = [Manifest.read(storage.staging / granule_id(i)) for i in range(first, after)]
        manifests = [manifest for manifest in read if manifest is not None]
        first, number = after, number + 1
        for some in [[manifest] for manifest in manifests] if kind == "alone" else [manifests]:
            started = time.perf_counter()
            receipts = [one for joined, _ in gather(storage, some) for one in commit_together(catalog, joined)]
            took = (time.perf_counter() - started) / len(some)
            seconds[kind] += [took] * len(some)
            assert [one.n_rows for one in receipts] == [ROWS] * len(some)
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
    """Copy an idle lake: its catalogue, and links to its files, which compaction removes but never changes."""
    shutil.copytree(Path(url) / "data", Path(to) / "data", copy_function=os.link)
    (Path(to) / "staging").mkdir()
    shutil.copy(Path(url) / "lake.json", to)
    with sqlite3.connect(Path(url) / "catalog.sqlite") as one, sqlite3.connect(Path(to) / "catalog.sqlite") as two:
        one.backup(two)
