"""Pull ZTF from a HATS catalogue, compared with lsdb's crossmatch and a serial pyarrow loop, on two cores.

The catalogue is generated like IRSA's: a collection with margins, light curves nested in the rows, positions as
float32. All sides search the same targets within 1 arcsec, keep every object of each filter, and must find the same
pairs with the same number of epochs. Each runs in a fresh process, in turns, with the files in the page cache:

- Lightlake plans, fetches, stages and commits on two threads, as a flow does; and only fetches, because the others
  write nothing;
- lsdb as the published collector calls it: for each filter the collection is opened with that filter, the targets are
  crossmatched to it with its margin, and computed on a Dask cluster of two workers with a thread each. Here it returns
  all neighbours, where the collector takes the nearest;
- the loop of the published collector's code for unWISE: pyarrow reads one partition after the other whole, on both
  cores, and astropy searches all pairs.

Times exclude imports and the start of Dask. rss_growth is the peak memory of a pull of a large sample over that of a
small one, including imports, up to the end of the pull.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.measure import Run, fresh, import_all, peak_rss_mb, print_result, print_table, use_cores

CORES, SEED, RADIUS_ARCSEC = 2, 20260521, 1.0
FILTERS, BAD_CATFLAGS = (1, 2, 3), 32_768

# lsdb needs a largest number of neighbours; the published collector takes only the nearest.
NEIGHBOURS = 10


@dataclass(frozen=True)
class Size:
    """The size of a run.

    Parameters
    ----------
    stars, field
        Stars that may be targets, and others; each has two or three rows.
    max_rows, row_group
        Rows of a partition, and of a row group in it, at most.
    race, dense
        Targets of the two comparisons.
    small, large
        Targets of the two pulls whose memory is compared.
    turns
        How often each side runs.
    """

    stars: int
    field: int
    max_rows: int
    row_group: int
    race: int
    dense: int
    small: int
    large: int
    turns: int


FULL = Size(200_000, 100_000, 150_000, 5_000, 100, 2_000, 2_000, 200_000, 3)
QUICK = Size(10_000, 5_000, 12_000, 1_000, 50, 50, 1_000, 6_000, 1)


def generate(folder: Path, size: Size) -> pa.Table:
    """Write the collection and return the possible targets in random order."""
    from deployments.sandbox.ztf import write_collection

    rng = np.random.default_rng(SEED)
    ra, dec = rng.uniform(150, 270, size.stars), np.degrees(np.arcsin(rng.uniform(0.0, 0.9, size.stars)))
    write_collection(
        folder,
        np.column_stack([ra, dec]),  # type: ignore[arg-type]
        seed=SEED,
        n_field=size.field,
        max_rows=size.max_rows,
        row_group=size.row_group,
        positions="float32",
        npix_suffix="/",
    )
    return pa.table({"name": [str(number) for number in range(size.stars)], "ra": ra, "dec": dec})


def lightlake(folder: str, collection: str, targets: str, n: int) -> dict[str, Any]:
    """Pull, stage and commit the first n targets into a new lake on two threads."""
    from tasks.pull import commit_batch, fetch_batch

    opened, batches = _planned(folder, collection, targets, n)
    started = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        for _ in _windowed(pool, lambda batch: commit_batch(folder, fetch_batch(batch)), batches):
            pass
    seconds, peak = time.perf_counter() - started, peak_rss_mb()
    covered = opened.sql("SELECT count(*) AS n FROM coverage WHERE status <> 'failed'")["n"][0].as_py()
    if covered != n:
        raise RuntimeError(f"{covered} of {n} targets covered")
    pairs = opened.sql(
        "SELECT targets.name::BIGINT AS target, matches.source_id::BIGINT AS object, curves.n AS epochs FROM matches "
        "JOIN targets ON targets.target_id = matches.target_id JOIN (SELECT source_id, "
        "count(*) FILTER (good) AS n FROM lightcurves GROUP BY ALL) AS curves ON curves.source_id = matches.source_id"
    )
    found = _found(*(pairs[name].to_numpy() for name in pairs.column_names))
    return {"seconds": seconds, "peak_rss_mb": peak, **found}


def lightlake_fetch(folder: str, collection: str, targets: str, n: int) -> dict[str, Any]:
    """Plan and fetch the first n targets on two threads, without writing."""
    from lake.settings import load_settings
    from tasks.pull import read_granules
    from tasks.sources.registry import find

    opened, batches = _planned(folder, collection, targets, n)
    archive, settings = find("ztf"), load_settings()
    started = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        fetched = list(
            _windowed(pool, lambda b: [archive.fetch(granule, settings) for granule in read_granules(b)], batches)
        )
    seconds = time.perf_counter() - started
    results = [result for batch in fetched for result in batch]
    matches = pa.concat_tables([result.matches.select(["target_id", "source_id"]) for result in results])
    curves = pa.concat_tables([result.lightcurves.select(["source_id", "good"]) for result in results])
    counts = curves.filter(curves["good"]).group_by("source_id").aggregate([([], "count_all")])
    names = opened.sql("SELECT target_id, name::BIGINT AS target FROM targets")
    pairs = matches.join(counts, "source_id").join(names, "target_id")
    columns = (pairs["target"], pairs["source_id"].cast(pa.int64()), pairs["count_all"])
    return {"seconds": seconds, **_found(*(column.to_numpy() for column in columns))}


def _planned(folder: str, collection: str, targets: str, n: int) -> tuple[Any, Iterator[Any]]:
    """Make a lake with the first n targets; return it and the lazy plan."""
    os.environ["LIGHTLAKE_ENDPOINTS__ZTF"] = collection
    from lake.commit.targets import add_targets
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from tasks.pull import lake_at, plan_batches
    from tasks.register import register_archive
    from tasks.sources.registry import find

    import_all()
    catalog = Catalog(Storage.from_url(folder), load_settings(url=folder))
    catalog.create()
    # Two random positions may be within an arcsecond; they must stay two targets.
    add_targets(catalog, pq.read_table(targets).slice(0, n), "sky", radius_arcsec=0.0)
    catalog.close()
    opened, archive = lake_at(folder), find("ztf")
    register_archive(opened, archive)
    parameters = archive.with_defaults({"radius_arcsec": RADIUS_ARCSEC})
    return opened, plan_batches(opened, archive, parameters, None, opened.storage.staging / "pull")


def _windowed(pool: ThreadPoolExecutor, work: Callable[[Any], Any], batches: Iterator[Any]) -> Iterator[Any]:
    """Do the work with at most two batches waiting per thread, as the flow does."""
    window: deque[Future[Any]] = deque()
    for batch in batches:
        window.append(pool.submit(work, batch))
        while len(window) >= 2 * CORES:
            yield window.popleft().result()
    while window:
        yield window.popleft().result()


def lsdb_crossmatch(collection: str, targets: str, n: int, neighbours: int) -> dict[str, Any]:
    """Crossmatch the first n targets filter by filter, and unnest the light curves."""
    import pandas as pd

    lsdb, distributed = (importlib.import_module(name) for name in ("lsdb", "distributed"))
    sample = pq.read_table(targets).slice(0, n).to_pandas()
    sample = sample.rename(columns={"name": "objectid", "ra": "ra_deg", "dec": "dec_deg"}).assign(label="sky")
    columns = ["objectid", "objra", "objdec", "filterid", "lightcurve"]
    with distributed.Client(n_workers=CORES, threads_per_worker=1, memory_limit=None, dashboard_address=None):
        started = time.perf_counter()
        ours = lsdb.from_dataframe(
            sample, ra_column="ra_deg", dec_column="dec_deg", margin_threshold=10, drop_empty_siblings=True
        )
        parts = []
        for number in FILTERS:
            theirs = lsdb.open_catalog(collection, columns=columns, filters=[["filterid", "==", number]])
            found = ours.crossmatch(
                theirs,
                radius_arcsec=RADIUS_ARCSEC,
                n_neighbors=neighbours,
                require_right_margin=True,
                suffixes=("", "_ztf"),
                suffix_method="overlapping_columns",
            ).compute()
            flat = found["lightcurve"].nest.to_flat()
            keys = found[["objectid", "label", "objectid_ztf"]].set_axis(range(len(found)))
            flat.index = np.repeat(np.arange(len(found)), found["lightcurve"].nest.list_lengths)
            rows = keys.join(flat)
            parts.append(_converted(rows[rows["catflags"] < BAD_CATFLAGS]))
        every = pd.concat(parts, ignore_index=True)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, **_counted(every, "objectid_ztf")}


def serial_loop(collection: str, targets: str, n: int) -> dict[str, Any]:
    """Read the partitions of the first n targets one after the other, and search all pairs in each."""
    import hpgeom
    import pandas as pd
    import pyarrow.dataset as ds
    from astropy import units as u
    from astropy.coordinates import SkyCoord, search_around_sky

    from deployments.sandbox.ztf import CATALOG

    sample = pq.read_table(targets).slice(0, n).to_pandas().rename(columns={"name": "objectid"}).assign(label="sky")
    columns = ["objectid", "filterid", "objra", "objdec", "lightcurve"]
    started = time.perf_counter()
    partitions = pd.read_csv(Path(collection) / CATALOG / "partition_info.csv")
    parts = []
    located = _located(sample, partitions, hpgeom)
    for order, pixel in sorted(located):
        mine = sample.iloc[located[order, pixel]]
        path = Path(
            collection, CATALOG, "dataset", f"Norder={order}", f"Dir={pixel // 10_000 * 10_000}", f"Npix={pixel}"
        )
        rows = ds.dataset(path).to_table(columns=columns, filter=ds.field("filterid").isin(FILTERS))
        sky = SkyCoord(rows["objra"].to_numpy(), rows["objdec"].to_numpy(), unit="deg")
        positions = SkyCoord(mine["ra"].to_numpy(), mine["dec"].to_numpy(), unit="deg")
        target, row, _, _ = search_around_sky(positions, sky, RADIUS_ARCSEC * u.arcsec)
        if not len(row):
            continue
        near = rows.take(pa.array(row))
        curve = near["lightcurve"].combine_chunks()
        of = pc.list_parent_indices(pc.struct_field(curve, "hmjd")).to_numpy()
        found = {field.name: pc.list_flatten(pc.struct_field(curve, field.name)).to_numpy() for field in curve.type}
        keys = mine.iloc[target][["objectid", "label"]].assign(
            objectid_ztf=near["objectid"].to_numpy(), filterid=near["filterid"].to_numpy()
        )
        parts.append(keys.iloc[of].reset_index(drop=True).assign(**found))
    every = pd.concat(parts, ignore_index=True)
    every = _converted(every[every["catflags"] < BAD_CATFLAGS])
    seconds = time.perf_counter() - started
    return {"seconds": seconds, **_counted(every, "objectid_ztf")}


def _located(sample: Any, partitions: Any, hpgeom: Any) -> dict[tuple[int, int], list[int]]:
    """Return for each partition the targets whose search circle overlaps it."""
    found: dict[tuple[int, int], list[int]] = {}
    for order, group in partitions.groupby("Norder"):
        known = set(group["Npix"])
        for number, (ra, dec) in enumerate(zip(sample["ra"], sample["dec"], strict=True)):
            for pixel in hpgeom.query_circle(2**order, ra, dec, RADIUS_ARCSEC / 3600, inclusive=True):
                if pixel in known:
                    found.setdefault((int(order), int(pixel)), []).append(number)
    return found


def _converted(rows: Any) -> Any:
    """Add flux and error in mJy, as the published collector computes them from magnitudes."""

    def flux(mag: Any) -> Any:
        return 10 ** (-0.4 * (mag - 23.9)) / 1000

    mag, error = rows["mag"], rows["magerr"]
    return rows.assign(flux=flux(mag), err=(flux(mag - error) - flux(mag + error)) / 2)


def _counted(rows: Any, source: str) -> dict[str, Any]:
    counts = rows.groupby(["objectid", source]).size().reset_index(name="epochs")
    return _found(counts["objectid"].astype("int64").to_numpy(), counts[source].to_numpy(), counts["epochs"].to_numpy())


def _found(target: Any, source: Any, epochs: Any) -> dict[str, Any]:
    """Summarise the pairs, so that sides can be compared."""
    rows = np.stack([np.asarray(column, np.int64) for column in (target, source, epochs)], axis=1)
    rows = rows[np.lexsort(rows.T[::-1])]
    digest = hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()
    return {"pairs": len(rows), "epochs": int(rows[:, 2].sum()), "digest": digest}


def warm(collection: Path) -> int:
    """Read all files into the page cache, for all sides alike; return the number of bytes."""
    size = 0
    for path in sorted(collection.rglob("*.parquet")):
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(1 << 24):
                size += len(chunk)
    return size


def race(folder: Path, n: int, turns: int, *, with_lsdb: bool) -> dict[str, float]:
    """Run all sides on n targets in turn, print the table, and return each side's median seconds.

    Raises
    ------
    RuntimeError
        If the sides find different pairs.
    """
    collection, targets = str(folder / "collection"), str(folder / "targets.parquet")
    runs: dict[str, list[Run]] = {}
    for turn in range(turns):
        lakes = [str(folder / f"lake-{n}-{turn}-{number}") for number in range(2)]
        sides: dict[str, Callable[[], Run]] = {
            "lightlake, fetch": partial(fresh, lightlake_fetch, lakes[0], collection, targets, n),
            "lightlake": partial(fresh, lightlake, lakes[1], collection, targets, n),
            "serial loop": partial(fresh, serial_loop, collection, targets, n),
        }
        if with_lsdb:
            sides["lsdb"] = partial(fresh, lsdb_crossmatch, collection, targets, n, NEIGHBOURS)
        for side, run in sides.items():
            warm(Path(collection))
            runs.setdefault(side, []).append(run())
        for lake in lakes:
            shutil.rmtree(lake)
    found = {side: {key: run.value[key] for key in ("pairs", "epochs", "digest")} for side, (run, *_) in runs.items()}
    first = next(iter(found.values()))
    if any(other != first for other in found.values()) or not first["pairs"]:
        raise RuntimeError(f"the sides differ: {found}")
    seconds = {side: median(run.value["seconds"] for run in timed) for side, timed in runs.items()}
    print_table(
        f"{n:,} targets, {first['pairs']:,} objects at them with {first['epochs']:,} good epochs, the same on all "
        f"sides; median of {turns}",
        ("side", "seconds", "times lightlake, fetch", "peak RSS (MB)"),
        [
            (side, took, took / seconds["lightlake, fetch"], max(run.peak_rss_mb for run in runs[side]))
            for side, took in seconds.items()
        ],
    )
    return seconds


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="0.3 GB, 50 targets; memory at 6,000 by 1,000")
    quick = parser.parse_args().quick
    size = QUICK if quick else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    use_cores(CORES)
    with_lsdb = importlib.util.find_spec("lsdb") is not None
    if not with_lsdb:
        print("lsdb is not installed (pip install 'lightlake[benchmarks]'): vs_lsdb is null")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lightlake-benchmark-") as name:
        folder = Path(name)
        collection, targets = folder / "collection", folder / "targets.parquet"
        pq.write_table(generate(collection, size), targets)
        gigabytes = warm(collection) / 1e9
        print(
            f"{gigabytes:.2f} GB, partitions of up to {size.max_rows:,} rows in row groups of {size.row_group:,}; "
            f"load {os.getloadavg()[0]:.1f}"
        )
        seconds = {n: race(folder, n, size.turns, with_lsdb=with_lsdb) for n in {size.race, size.dense}}
        pulls = {
            n: fresh(lightlake, str(folder / f"lake-{n}"), str(collection), str(targets), n)
            for n in (size.small, size.large)
        }
    print_table(
        "a pull into a lake, whole process",
        ("targets", "objects", "good epochs", "seconds", "peak RSS (MB)"),
        [(n, *(run.value[key] for key in ("pairs", "epochs", "seconds", "peak_rss_mb"))) for n, run in pulls.items()],
    )
    result: dict[str, Any] = {
        f"vs_{side}{kind}{suffix}": _ratio(seconds[n], theirs, ours)
        for n, suffix in ((size.race, ""), (size.dense, "_dense"))
        for ours, kind in (("lightlake, fetch", ""), ("lightlake", "_committed"))
        for theirs, side in (("serial loop", "serial"), ("lsdb", "lsdb"))
    }
    print_result(
        {
            **result,
            "rss_growth": pulls[size.large].value["peak_rss_mb"] / pulls[size.small].value["peak_rss_mb"],
            "peak_rss_mb": pulls[size.large].value["peak_rss_mb"],
            "rss_targets": [size.small, size.large],
            "targets": size.race,
            "targets_dense": size.dense,
            "catalogue_gb": gigabytes,
            "turns": size.turns,
            "load": os.getloadavg()[0],
            "total_s": time.perf_counter() - started,
        }
    )


def _ratio(seconds: dict[str, float], theirs: str, ours: str) -> float | None:
    return seconds[theirs] / seconds[ours] if theirs in seconds else None


if __name__ == "__main__":
    main()
