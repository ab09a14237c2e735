"""A lake with targets at the edges of pixels, and the rows that a collection of it must have."""

from __future__ import annotations

from typing import Any

import hpgeom
import numpy as np
import pyarrow as pa

from deployments.sandbox.heasarc import offset
from helpers.granules import ASKED
from lake.commit.commit import commit
from lake.commit.ledger import Attempt
from lake.commit.staging import stage
from lake.commit.targets import add_targets
from lake.query import Lake
from lake.science.sky import hpx29
from lake.store.catalog import Catalog

# Corners and edges of pixels of orders 1 and 5, where pixels of other orders end, too; around a pole and RA 0; a field.
_EDGES = np.concatenate(
    [np.column_stack(hpgeom.boundaries(2, 20, step=2)), np.column_stack(hpgeom.boundaries(32, 5000, step=2))]
)
_CENTRES = [*map(tuple, _EDGES), (45.0, 90.0), (123.0, -89.9999), (0.0, 0.0), (359.99999, 41.8103)]
BESIDE_ARCSEC = (0.7, 4.0, 8.0, 9.8)
FIELD = [(float((7 + 37.3 * n) % 360), float(np.degrees(np.arcsin(-0.97 + 1.94 * n / 59)))) for n in range(60)]

# Archive, band, unit: the values of each follow from the numbers of target and row.
BANDS = (("lamp", "white", "mJy"), ("lamp", "blue", "electron.s**-1"), ("bell", "tone", "GeV"))
LARGE = 2**60 + 1  # which no float holds


def places() -> tuple[np.ndarray, np.ndarray]:
    """Positions of all targets."""
    centres = np.array(_CENTRES)
    around = [
        np.column_stack(offset(centres, np.full(len(centres), one / 3600), np.arange(len(centres)) * 77.0 + one))
        for one in BESIDE_ARCSEC
    ]
    ra, dec = np.concatenate([centres, *around, np.array(FIELD)]).T
    return ra % 360, dec


def _row(target: int, n: int, unit: str) -> dict[str, Any]:
    return {
        "mjd": 58000.0 + target / 7 + 100 * n,
        "bmjd_tdb": 58000.001 + target / 7 + 100 * n,
        "flux": float(np.float32(1.1 * target + n)),
        "flux_err": None if n == 1 else 0.5,
        "unit": unit,
        "mag": None if n % 2 else 15.25,
        "detected": n != 2,
        "good": n not in (1, 2),
        "quality": LARGE + n,
        "exposure_id": f"é{target}-{n}",
    }


def fill(catalog: Catalog) -> None:
    """Bring targets and light curves of two archives into a lake; every fifth target has none, others up to seven."""
    ra, dec = places()
    count = len(ra)
    names = pa.array([None if n % 11 == 3 else f"T{n}" for n in range(count)])
    add_targets(catalog, pa.table({"ra": ra, "dec": dec, "name": names}), "edges", label="edge", radius_arcsec=0)
    field = pa.table({"ra": [one[0] for one in FIELD], "dec": [one[1] for one in FIELD]})
    add_targets(catalog, field, "field", label="far")
    cursor = catalog.cursor()
    known = cursor.execute("SELECT target_id, ra, dec FROM targets").fetchall()
    cursor.execute(
        "INSERT INTO archives BY NAME SELECT archive, archive AS title, '2' AS release, '' AS endpoint, 'UTC' AS "
        "time_scale, 'geocentre' AS time_frame, 'frozen' AS cadence, 'CC0' AS licence, 'Thank ' || archive || '!' AS "
        "acknowledgement, '2024lmp' AS bibcode FROM (VALUES ('lamp'), ('bell')) AS known (archive)"
    )
    cursor.close()
    for release in ("1", "2"):  # the first is not shown
        for archive in ("lamp", "bell"):
            _bring(catalog, archive, release, [row for row in known if release == "2" or row[0] % 2])


def _bring(catalog: Catalog, archive: str, release: str, targets: list[tuple[int, float, float]]) -> None:
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in ("sources", "matches", "lightcurves", "coverage")}
    for number, (target, ra, dec) in enumerate(targets):
        # A source is beside its target: across the edge of a pixel, too.
        apart = 0.6
        east, north = offset(np.array([ra, dec]), apart / 3600, number * 50.0)
        pixel = int(hpx29(float(east), float(north)))
        source = {"source_id": f"s{number}", "hpx29": pixel}
        rows = [
            {**source, "band": band, **_row(number, n, unit)}
            for of, band, unit in BANDS
            if of == archive
            for n in range(number % 5 and (number % 8))
        ]
        found = {"target_id": target, "n_sources": int(bool(rows)), "n_rows": len(rows), "parameters": "{}"}
        tables["coverage"].append({**found, "status": "found" if rows else "empty", "asked_at": ASKED})
        if rows:
            tables["sources"].append({**source, "ra": float(east), "dec": float(north)})
            tables["matches"].append({**source, "target_id": target, "separation_arcsec": apart, "rank": 1})
            tables["lightcurves"] += rows
    same = {"archive": archive, "release": release, "granule": f"{archive}{release}"}
    made = {name: pa.Table.from_pylist([{**same, **row} for row in rows]) for name, rows in tables.items()}
    attempt = Attempt(archive, release, same["granule"], "done", ASKED)
    commit(catalog, stage(catalog.storage.staging / same["granule"], attempt, made))


NESTED = (
    "archive, band, source_id, release, mjd, bmjd_tdb, flux, flux_err, unit, mag, mag_err, detected, good, quality, "
    "exposure_id, exposure_s, counts, background, chi, ast_res_chisq, x, y, sky, cnf_ctr, diff_fit_ap, ext, cadence_s, "
    "rank, separation_arcsec"
)


def measured(lake: Lake, where: str = "true") -> list[dict[str, Any]]:
    """What the nested light curves must be: rows of the lake with their target, in order."""
    query = f"SELECT target_id, {NESTED} FROM target_lightcurves WHERE {where} ORDER BY target_id, archive, band, mjd"
    rows: list[dict[str, Any]] = lake.sql(query).to_pylist()
    return rows
