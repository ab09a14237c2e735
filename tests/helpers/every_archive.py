"""A lake with light curves of every archive, of each unit that it has, and text that forms trip over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from helpers.granules import positions, register, target_ids
from lake.commit.transaction import Change, write
from lake.model.schema import TABLES
from lake.query import Lake
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from tasks.sources.base import Origin
from tasks.sources.declared import origins

RELEASE = "1"
_FILLED = ("archives", "bands", "sources", "matches", "lightcurves")
IDS = ("é<&>\"'", None, "a,b", "plain")


def every_origin() -> list[Origin]:
    """Return every archive and survey, at the release of the rows."""
    return [replace(origin, release=RELEASE) for origin in origins()]


def rows_of(origin: Origin) -> list[dict[str, object]]:
    """Return rows of the first band of each unit of an archive; many values are NULL."""
    rng = np.random.default_rng(len(origin.name))
    bands = {band.unit: band for band in reversed(origin.bands)}
    rows: list[dict[str, object]] = []
    for band in bands.values():
        for number in range(5):
            mjd = 50000 + float(rng.uniform(0, 9000))
            rows.append(
                {
                    "band": band.band,
                    "mjd": mjd,
                    "bmjd_tdb": None if number == 4 else mjd + 0.0057,
                    "flux": None if number == 3 else float(rng.normal(1, 1)),
                    "flux_err": None if number == 3 else 10.0 ** float(rng.uniform(-9, 9)),
                    "unit": band.unit,
                    "mag": 20.5 + number if band.mag_system else None,
                    "good": number % 2 == 0,
                    "quality": None if number == 2 else 2**62 + number,
                    "exposure_id": IDS[number % 4],
                    "x": float(number) / 3,
                }
            )
    return rows


@contextmanager
def filled_lake(template: Path, root: Path) -> Iterator[Lake]:
    """Open a copy of an empty lake, with every archive in it, for reading."""
    shutil.copytree(template, root)
    settings = load_settings(url=str(root), duckdb_threads=1)
    catalog = Catalog(Storage(root), settings)
    fill(catalog)
    catalog.close()
    with Lake(root, settings) as opened:
        yield opened


def fill(catalog: Catalog) -> None:
    """Fill a lake: every archive matches the first target of sample test. One commit, since each takes a second."""
    register(catalog, range(2))
    (pixel, _), (ra, dec) = target_ids(range(2)), positions([0])
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in _FILLED}
    for origin in every_origin():
        same = {"archive": origin.name, "release": RELEASE, "source_id": "s", "hpx29": pixel, "granule": "g"}
        made["archives"].append(origin.row())
        made["bands"] += origin.band_rows()
        made["sources"].append({**same, "ra": ra[0], "dec": dec[0]})
        made["matches"].append({**same, "target_id": pixel, "separation_arcsec": 0.0, "rank": 1})
        made["lightcurves"] += [{**same, "detected": True, **row} for row in rows_of(origin)]

    def work(number: int) -> None:
        with Change(catalog, number) as change:

            def rewrites() -> list[str]:
                for name, rows in made.items():
                    change.cursor.register("made", TABLES[name].cast(pa.Table.from_pylist(rows)))
                    change.cursor.execute(f"INSERT INTO {name} BY NAME FROM made")
                return list(made)

            change.bring_in({}, rewrites)

    write(catalog, work)
