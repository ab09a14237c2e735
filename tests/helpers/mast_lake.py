"""Lakes with light curves of TESS, Kepler and K2 in them, without a search at MAST."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from lake.commit.commit import commit
from lake.commit.ledger import Attempt
from lake.commit.staging import stage
from lake.commit.targets import add_targets
from lake.query import Lake
from lake.science.sky import separation_arcsec
from tasks.sources.statistics import statistics
from tasks.sources.tess_kepler.mast_fits import read_product, tables_of
from tasks.sources.tess_kepler.mast_products import BAND_UNITS, BANDS, Product

ARCHIVE, RELEASE, RADIUS_ARCSEC = "tess_kepler", "2026", 1.0
AXES = ("ra", "dec")


def register(lake: Lake, products: Sequence[Product]) -> None:
    """Make each source a target, by the name of the source."""
    places = {product.source_id: (product.ra, product.dec) for product in products}
    ra, dec = (np.array(axis) for axis in zip(*places.values(), strict=True))
    add_targets(lake.catalog, pa.table({"ra": ra, "dec": dec, "name": list(places)}), "stars")


def hold(lake: Lake, products: Sequence[Product], granule: str = "g0") -> None:
    """Commit light curves as a pull would, matched to the targets within an arcsecond."""
    made = tables_of(products, ARCHIVE, RELEASE)
    made["lightcurves"] = made["lightcurves"].append_column("granule", pa.repeat(granule, made["lightcurves"].num_rows))
    targets = lake.targets().select(["target_id", "ra", "dec"]).to_pylist()
    sources = made["sources"].to_pylist()
    pairs = [
        (
            target["target_id"],
            source,
            float(separation_arcsec(*(one[axis] for one in (target, source) for axis in AXES))),
        )
        for target in targets
        for source in sources
    ]
    near = [pair for pair in pairs if pair[2] <= RADIUS_ARCSEC]
    matched = [target_id for target_id, *_ in near]
    made["statistics"] = statistics(made["lightcurves"])
    made["matches"] = pa.table(
        {
            "target_id": matched,
            "source_id": [source["source_id"] for _, source, _ in near],
            "hpx29": [source["hpx29"] for _, source, _ in near],
            "separation_arcsec": [separation for *_, separation in near],
            "rank": pa.array([1 + matched[:i].count(target) for i, target in enumerate(matched)], pa.int32()),
        }
    )
    now = datetime.now(UTC)
    made["coverage"] = pa.table(
        {
            "target_id": sorted(set(matched)),
            "status": ["found"] * len(set(matched)),
            "n_sources": [matched.count(target) for target in sorted(set(matched))],
            "n_rows": [made["lightcurves"].num_rows] * len(set(matched)),
            "parameters": ["{}"] * len(set(matched)),
            "asked_at": pa.array([now] * len(set(matched)), pa.timestamp("us", tz="UTC")),
        }
    )
    same = {"archive": ARCHIVE, "release": RELEASE, "granule": granule}
    for name, table in made.items():
        for key, value in same.items():
            if key not in table.column_names:
                table = table.append_column(key, pa.repeat(value, table.num_rows))
        made[name] = table
    attempt = Attempt(ARCHIVE, RELEASE, granule, "done", now, n_targets=len(set(matched)))
    commit(lake.catalog, stage(lake.storage.staging / granule, attempt, made, BAND_UNITS))
    cursor = lake.catalog.cursor()
    cursor.execute("DELETE FROM bands WHERE archive = ?", [ARCHIVE])
    rows = pa.Table.from_pylist([{"archive": ARCHIVE, **vars(band)} for band in BANDS])
    cursor.register("given", rows)
    cursor.execute("INSERT INTO bands BY NAME FROM given")
    cursor.close()


def read(path: Path) -> Product:
    return read_product(path, path.name)
