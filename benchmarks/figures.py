"""Draw the figures of a sample: pages, pictures, thumbnails, and the index.

The lake has targets with light curves like those of the demo: three bands of a survey with many measurements, four of
others with few, a light curve in electrons per second. figures_per_s counts finished pages on two processes, the start
of these included; page_mb is the largest page.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.measure import print_result, print_table
from lake.commit.commit import commit
from lake.commit.ledger import Attempt
from lake.commit.staging import stage
from lake.commit.targets import add_targets
from lake.query import Lake
from lake.science.sky import hpx29
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from tasks.analysis.figures.gallery import draw_sample
from tasks.analysis.figures.points import Look

CORES, SEED, FULL, QUICK = 2, 20261129, 500, 50
# Archive, band, unit, measurements.
BANDS = (
    ("ztf", "ztf_g", "mJy", 500),
    ("ztf", "ztf_r", "mJy", 600),
    ("ztf", "ztf_i", "mJy", 60),
    ("gaia", "G", "mJy", 40),
    ("gaia", "BP", "mJy", 40),
    ("gaia", "RP", "mJy", 40),
    ("wise", "W1", "mJy", 15),
    ("tess_kepler", "tess_spoc_pdcsap", "electron.s**-1", 1000),
)


def fill(lake: Lake, n: int) -> None:
    """Bring targets with light curves into a lake, an archive at a time."""
    rng = np.random.default_rng(SEED)
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    names = [f"T{i:04d}" for i in range(n)]
    add_targets(lake.catalog, pa.table({"name": names, "ra": ra, "dec": dec}), "sample")
    ids = hpx29(ra, dec)
    for archive in dict.fromkeys(band[0] for band in BANDS):
        bands = [band for band in BANDS if band[0] == archive]
        curves = []
        for i in range(n):
            for _, band, unit, count in bands:
                flux = rng.lognormal(0, 0.1, count) * (1 if unit == "mJy" else 3000)
                curves.append(
                    pa.table(
                        {
                            "band": [band] * count,
                            "source_id": [str(i)] * count,
                            "hpx29": [ids[i]] * count,
                            "mjd": np.sort(rng.uniform(58000, 60000, count)),
                            "flux": flux,
                            "flux_err": 0.03 * flux,
                            "unit": [unit] * count,
                            "detected": [True] * count,
                            "good": [True] * count,
                        }
                    )
                )
        sources = {"source_id": [str(i) for i in range(n)], "hpx29": ids}
        asked = datetime.now(UTC)
        tables = {
            "sources": pa.table({**sources, "ra": ra, "dec": dec}),
            "matches": pa.table({**sources, "target_id": ids, "separation_arcsec": [0.0] * n, "rank": [1] * n}),
            "lightcurves": pa.concat_tables(curves),
            "coverage": pa.table(
                {
                    "target_id": ids,
                    "status": ["found"] * n,
                    "n_sources": [1] * n,
                    "n_rows": [sum(band[3] for band in bands)] * n,
                    "parameters": ["{}"] * n,
                    "asked_at": [asked] * n,
                }
            ),
        }
        same = {"archive": archive, "release": "1", "granule": archive}
        for name, table in tables.items():
            for column, value in same.items():
                table = table.append_column(column, pa.array([value] * table.num_rows))
            tables[name] = table
        attempt = Attempt(archive, "1", archive, "done", asked)
        commit(lake.catalog, stage(lake.storage.staging / archive, attempt, tables))


def main() -> None:
    """Fill a lake, draw all its targets, and print the figures a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} targets instead of {FULL}")
    n = QUICK if parser.parse_args().quick else FULL
    with tempfile.TemporaryDirectory(prefix="lightlake-benchmark-") as folder:
        catalog = Catalog(Storage.from_url(f"{folder}/lake"), load_settings(url=f"{folder}/lake"))
        catalog.create()
        catalog.close()
        with Lake(f"{folder}/lake", writable=True) as lake:
            fill(lake, n)
        rows: list[list[object]] = []
        seconds: dict[str, float] = {}
        for kind in ("html", "pdf"):
            to = Path(folder) / kind
            started = time.monotonic()
            with Lake(f"{folder}/lake") as lake:
                drawn = draw_sample(lake, to, Look(), sample="sample", kind=kind, workers=CORES)
            seconds[kind] = time.monotonic() - started
            largest = max(path.stat().st_size for path in to.glob(f"*.{kind}")) / 1e6
            rows.append(
                [kind, drawn.made, f"{seconds[kind]:.1f}", f"{drawn.made / seconds[kind]:.2f}", f"{largest:.2f}"]
            )
            if kind == "html":
                page_mb = max(path.stat().st_size for path in to.glob("T*.html")) / 1e6
        print_table(
            f"{n} targets, {CORES} processes", ["form", "figures", "seconds", "figures/s", "largest (MB)"], rows
        )
        print_result(
            {"targets": n, "figures_per_s": n / seconds["html"], "pdf_per_s": n / seconds["pdf"], "page_mb": page_mb}
        )


if __name__ == "__main__":
    main()
