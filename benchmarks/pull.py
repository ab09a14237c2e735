"""Pull IceCube for a small and a large sample: throughput, and memory that must not grow with the sample.

The comparison does what the Fornax collector does: astropy finds all pairs within the search radius at once, in one
table. The release is generated at full size (1,134,450 events); the targets cover the sky evenly.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import fresh, print_result, print_table

SMALL, MEDIUM = 5_000, 40_000


def lightlake(folder: str, release: str, n_targets: int) -> dict[str, Any]:
    """Pull n targets into a new lake in this process."""
    os.environ["LIGHTLAKE_ENDPOINTS__ICECUBE"] = release
    from lake.commit.targets import add_targets
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from tasks.pull import commit_batch, fetch_batch, lake_at, plan_batches
    from tasks.register import register_archive
    from tasks.sources.registry import find

    catalog = Catalog(Storage.from_url(folder), load_settings(url=folder))
    catalog.create()
    add_targets(catalog, _targets(n_targets), "sky")
    catalog.close()
    started = time.perf_counter()
    opened, archive = lake_at(folder), find("icecube")
    register_archive(opened, archive)
    matches = 0
    for batch in plan_batches(opened, archive, archive.with_defaults(None), None, opened.storage.staging / "pull"):
        commit_batch(folder, fetch_batch(batch))
    seconds = time.perf_counter() - started
    matches = opened.sql("SELECT count(*) AS n FROM matches")["n"][0].as_py()
    covered = opened.sql("SELECT count(*) AS n FROM coverage")["n"][0].as_py()
    twice = opened.sql("SELECT count(*) - count(DISTINCT source_id) AS n FROM sources")["n"][0].as_py()
    if covered != n_targets or twice:
        raise RuntimeError(f"{covered} of {n_targets} targets covered, {twice} sources twice")
    return {"seconds": seconds, "matches": matches}


def collector(release: str, n_targets: int) -> dict[str, Any]:
    """Find the same pairs as the published collector: all at once, in memory."""
    import numpy as np
    import pandas as pd
    from astropy import units as u
    from astropy.coordinates import SkyCoord, search_around_sky

    from tasks.sources.icecube.archive import SEASONS

    targets = _targets(n_targets)
    started = time.perf_counter()
    columns = ["mjd", "log10_energy", "angular_err", "ra", "dec", "azimuth", "zenith"]
    events = pd.concat(
        pd.read_csv(Path(release) / "events" / f"{season}_exp.csv", sep=r"\s+", comment="#", names=columns)
        for season in SEASONS
    )
    positions = SkyCoord(targets["ra"].to_numpy(), targets["dec"].to_numpy(), unit="deg")
    sky = SkyCoord(events.ra, events.dec, unit="deg")
    row, event, separation, _ = search_around_sky(positions, sky, 2 * u.deg)
    near = separation.deg < events.angular_err.to_numpy()[event]
    rows = pd.DataFrame({"objectid": row[near], "time": events.mjd.to_numpy()[event[near]]})
    return {"seconds": time.perf_counter() - started, "matches": int(np.asarray(rows.objectid).size)}


def _targets(n: int) -> Any:
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(11)
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    return pa.table({"ra": ra, "dec": dec})


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40,000 targets instead of 500,000")
    large = MEDIUM if parser.parse_args().quick else 500_000
    from deployments.sandbox.icecube import write_folder

    with tempfile.TemporaryDirectory() as folder:
        release = str(write_folder(Path(folder) / "release"))
        ours = {n: fresh(lightlake, f"{folder}/lake-{n}", release, n) for n in sorted({SMALL, MEDIUM, large})}
        theirs = fresh(collector, release, SMALL)
    if theirs.value["matches"] != ours[SMALL].value["matches"]:
        raise RuntimeError(f"the sides differ: {theirs.value} and {ours[SMALL].value}")
    rows = [
        (side, n, run.value["matches"], run.value["seconds"], n / run.value["seconds"], run.peak_rss_mb)
        for side, n, run in (*(("lightlake", n, run) for n, run in ours.items()), ("collector", SMALL, theirs))
    ]
    columns = ("side", "targets", "matches", "seconds", "targets/s", "peak RSS (MB)")
    print_table("IceCube for targets all over the sky", columns, rows)
    print_result(
        {
            "targets": large,
            "targets_per_s": large / ours[large].value["seconds"],
            "rss_growth": ours[large].peak_rss_mb / ours[SMALL].peak_rss_mb,
            "peak_rss_mb": ours[large].peak_rss_mb,
            "time_vs_collector": theirs.value["seconds"] / ours[SMALL].value["seconds"],
            "s_40000": ours[MEDIUM].value["seconds"],
            "rss_vs_collector": theirs.peak_rss_mb / ours[SMALL].peak_rss_mb,
        }
    )


if __name__ == "__main__":
    main()
