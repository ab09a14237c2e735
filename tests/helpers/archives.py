"""An archive made up for tests: one module's worth of Archive, as the registry would hold it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lake.commit.targets import add_targets
from lake.errors import ArchiveError
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from lake.settings import Settings
from lake.store.catalog import Catalog
from tasks.sources.base import Archive, Band, FetchResult, Granule

# A spiral over the sky: place number n is always the same.
PLACES = [((7.0 + 137.508 * n) % 360, -75.0 + 150.0 * (n * 0.618034 % 1)) for n in range(200)]

# Every so many of the targets, by number, has nothing in the made-up archive.
EMPTY_EVERY = 5
ENDPOINT = "http://archive.invalid"


def register(catalog: Catalog, numbers: range, sample: str = "test") -> None:
    """Register places of PLACES, by number, under a sample; T007 is the name of number 7."""
    ra, dec = zip(*(PLACES[n] for n in numbers), strict=True)
    add_targets(catalog, pa.table({"ra": ra, "dec": dec, "name": [f"T{n:03}" for n in numbers]}), sample)


def numbers_of(granule: Granule) -> list[int]:
    """Numbers of a granule's targets, in its order."""
    return [int(name[1:]) for name in granule.targets["name"].to_pylist()]


def harvest(granule: Granule, settings: Settings | None = None) -> FetchResult:
    """Give one source a target, with two rows in g and one in r; every EMPTY_EVERY-th target has none."""
    targets = [row for row in granule.targets.to_pylist() if int(row["name"][1:]) % EMPTY_EVERY]
    if not targets:
        return FetchResult(*(TABLES[name].empty() for name in ("sources", "matches", "lightcurves")))
    ra, dec = [row["ra"] for row in targets], [row["dec"] for row in targets]
    pixels = hpx29(ra, dec).tolist()
    ids = [f"s-{row['name']}" for row in targets]
    sources = pa.table({"source_id": ids, "hpx29": pixels, "ra": ra, "dec": dec})
    matches = pa.table(
        {
            "target_id": [row["target_id"] for row in targets],
            "source_id": ids,
            "hpx29": pixels,
            "separation_arcsec": [0.0] * len(ids),
            "rank": [1] * len(ids),
        }
    )
    shape = [("g", 58000.0), ("g", 58001.0), ("r", 58000.5)]
    lightcurves = pa.table(
        {
            "source_id": [one for one in ids for _ in shape],
            "hpx29": [pixel for pixel in pixels for _ in shape],
            "band": [band for _ in ids for band, _ in shape],
            "mjd": [mjd for _ in ids for _, mjd in shape],
            "bmjd_tdb": [mjd + 0.001 for _ in ids for _, mjd in shape],
            "flux": [1.5] * len(ids) * len(shape),
            "flux_err": [0.5] * len(ids) * len(shape),
            "unit": ["mJy"] * len(ids) * len(shape),
            "detected": [True] * len(ids) * len(shape),
            "good": [True] * len(ids) * len(shape),
        }
    )
    return FetchResult(sources, matches, lightcurves)


def archive(**more: Any) -> Archive:
    """Return the made-up archive; whatever of it a test wants otherwise is given."""
    values: dict[str, Any] = {
        "name": "madeup",
        "title": "An archive of the tests",
        "release": "DR1",
        "endpoint": ENDPOINT,
        "time_scale": "UTC",
        "time_frame": "geocentre",
        "bands": (Band("r", "red", "mJy"), Band("g", "green", "mJy", mag_system="AB", zero_point_jy=3631.0)),
        "radius_arcsec": 1.0,
        "batch_size": 2,
        "cadence": "frozen",
        "licence": "none",
        "acknowledgement": "none",
        "fetch": harvest,
        "parameters": {"depth": 1},
    }
    return Archive(**{**values, **more})


def refusal(message: str = "HTTP 503 Service Unavailable", *, transient: bool = True) -> ArchiveError:
    """Return what an archive that does not want raises."""
    return ArchiveError(message, archive="madeup", endpoint=ENDPOINT, transient=transient)
