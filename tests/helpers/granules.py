"""Seeded granules: source number s is always at the same place, and its rows follow from its version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from lake.commit.commit import Receipt, commit
from lake.commit.ledger import Attempt, canonical
from lake.commit.staging import Manifest, stage
from lake.commit.targets import add_targets
from lake.query import Lake
from lake.science.sky import hpx29
from lake.store.catalog import Catalog
from lake.store.connection import rollback
from lake.upkeep.consistency import Finding
from lake.upkeep.maintenance import verify

ARCHIVE, RELEASE = "ztf", "DR1"
PARAMETERS = canonical({"radius_arcsec": 1.0})
ASKED = datetime(2024, 5, 1, tzinfo=UTC)
BANDS = ("g", "r")

Version = int


def positions(sources: Iterable[int], moved_arcsec: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Places on the sky: a spiral, so that neighbours in number are neighbours in place."""
    s = np.fromiter(sources, np.int64)
    ra = (10.0 + 0.37 * s) % 360
    return ra, -30.0 + 0.11 * (s % 500) + moved_arcsec / 3600


def rows_of(source: int, version: Version) -> list[tuple[str, float, float]]:
    """Band, mjd and flux of a source: what the lake must hold, in plain Python.

    Versions differ in flux and, every third, in the number of rows.
    """
    n = 3 if version % 3 else 4
    return [
        (band, 58000.0 + source % 7 + k, float(np.float32(100 * source + 10 * version + k + 0.5 * b)))
        for b, band in enumerate(BANDS)
        for k in range(n)
    ]


def tables(
    sources: Mapping[int, Version] | Iterable[int],
    granule: str = "g0",
    *,
    targets: Iterable[int] | None = None,
    status: str | None = None,
    archive: str = ARCHIVE,
    release: str = RELEASE,
    asked_at: datetime = ASKED,
    moved_arcsec: float = 0.0,
    exposures: Mapping[str, float] | None = None,
) -> dict[str, pa.Table]:
    """Tables of a granule: each source is the match of the target of its number.

    Parameters
    ----------
    sources
        Source numbers, with the version of their content.
    targets
        Targets asked for; those without a source are empty. None: those of the sources.
    status
        Status of all targets; None: found or empty.
    """
    versions = dict(sources) if isinstance(sources, Mapping) else dict.fromkeys(sources, 1)
    numbers = list(versions)
    asked = list(targets) if targets is not None else numbers
    made: dict[str, pa.Table] = {}
    same = {"archive": archive, "release": release, "granule": granule}

    def table(columns: dict[str, object]) -> pa.Table:
        n = len(next(iter(columns.values())))  # type: ignore[call-overload]
        return pa.table({**{name: [value] * n for name, value in same.items()}, **columns})

    ra, dec = positions(numbers, moved_arcsec)
    pixels = dict(zip(numbers, hpx29(ra, dec).tolist(), strict=True)) if numbers else {}
    if numbers:
        made["sources"] = table(
            {"source_id": [f"s{s}" for s in numbers], "hpx29": list(pixels.values()), "ra": ra, "dec": dec}
        )
        rows = [(s, *row) for s in numbers for row in rows_of(s, versions[s])]
        made["lightcurves"] = table(
            {
                "source_id": [f"s{row[0]}" for row in rows],
                "hpx29": [pixels[row[0]] for row in rows],
                "band": [row[1] for row in rows],
                "mjd": [row[2] for row in rows],
                "bmjd_tdb": [row[2] + 0.001 for row in rows],
                "flux": [row[3] for row in rows],
                "flux_err": [0.5] * len(rows),
                "unit": ["mJy"] * len(rows),
                "detected": [True] * len(rows),
                "good": [int(row[2]) % 2 == 0 for row in rows],
            }
        )
        groups = [(s, band, [r for r in rows_of(s, versions[s]) if r[0] == band]) for s in numbers for band in BANDS]
        made["statistics"] = table(
            {
                "source_id": [f"s{s}" for s, _, _ in groups],
                "hpx29": [pixels[s] for s, _, _ in groups],
                "band": [band for _, band, _ in groups],
                "n": [len(g) for _, _, g in groups],
                "n_detected": [len(g) for _, _, g in groups],
                "n_good": [sum(int(r[1]) % 2 == 0 for r in g) for _, _, g in groups],
                "mjd_first": [g[0][1] for _, _, g in groups],
                "mjd_last": [g[-1][1] for _, _, g in groups],
                "unit": ["mJy"] * len(groups),
            }
        )
    matched = [t for t in asked if t in versions]
    if matched:
        made["matches"] = table(
            {
                "target_id": target_ids(matched),
                "source_id": [f"s{t}" for t in matched],
                "hpx29": [pixels[t] for t in matched],
                "separation_arcsec": [abs(moved_arcsec)] * len(matched),
                "rank": [1] * len(matched),
            }
        )
    if asked:
        made["coverage"] = table(
            {
                "target_id": target_ids(asked),
                "status": [status or ("found" if t in versions else "empty") for t in asked],
                "n_sources": [int(t in versions) for t in asked],
                "n_rows": [len(rows_of(t, versions[t])) if t in versions else 0 for t in asked],
                "parameters": [PARAMETERS] * len(asked),
                "asked_at": pa.array([asked_at] * len(asked), pa.timestamp("us", tz="UTC")),
            }
        )
    if exposures:
        made["exposures"] = table(
            {"exposure_id": list(exposures), "mjd_start": list(exposures.values()), "details": ["{}"] * len(exposures)}
        )
    return made


def target_ids(targets: Iterable[int]) -> list[int]:
    """Ids of targets, by number: each is at the place of its source."""
    return hpx29(*positions(targets)).tolist()


def attempt(granule: str = "g0", status: str = "done", *, again: int = 0, **more: object) -> Attempt:
    """An attempt at a granule; `again` tells attempts at the same granule apart."""
    values = {"archive": ARCHIVE, "release": RELEASE, "parameters": PARAMETERS, **more}
    return Attempt(
        granule=granule,
        status=status,
        started_at=ASKED + timedelta(seconds=again),
        **values,  # type: ignore[arg-type]
    )


def staged(
    catalog: Catalog,
    sources: Mapping[int, Version] | Iterable[int],
    granule: str = "g0",
    *,
    again: int = 0,
    folder: Path | None = None,
    attempt_status: str | None = None,
    **more: object,
) -> Manifest:
    """Stage a granule in the lake's staging area."""
    made = tables(sources, granule, **more)  # type: ignore[arg-type]
    status = attempt_status or ("done" if "sources" in made else "empty")
    folder = folder or catalog.storage.staging / f"{granule}-{again}"
    scope = {name: more[name] for name in ("archive", "release") if name in more}
    n_targets = made["coverage"].num_rows if "coverage" in made else 0
    return stage(folder, attempt(granule, status, again=again, n_targets=n_targets, **scope), made)


def committed(
    catalog: Catalog, sources: Mapping[int, Version] | Iterable[int], granule: str = "g0", **more: object
) -> Receipt:
    """Stage and commit a granule."""
    return commit(catalog, staged(catalog, sources, granule, **more))  # type: ignore[arg-type]


def hold(lake: Lake, archive: str, band: str, rows: list[dict[str, object]]) -> None:
    """Bring one source with some rows into the lake, matched to the first target."""
    (pixel,), ((ra,), (dec,)) = target_ids([0]), positions([0])
    scope = {"archive": archive, "release": "1"}
    tables = {
        "sources": [{"source_id": "s", "hpx29": pixel, "ra": ra, "dec": dec}],
        "matches": [{"target_id": pixel, "source_id": "s", "hpx29": pixel, "separation_arcsec": 0.0, "rank": 1}],
        "lightcurves": [
            {"band": band, "source_id": "s", "hpx29": pixel, "detected": True, "good": True, **row} for row in rows
        ],
        "coverage": [
            {
                "target_id": pixel,
                "status": "found",
                "n_sources": 1,
                "n_rows": len(rows),
                "parameters": "{}",
                "asked_at": ASKED,
            }
        ],
    }
    made = {
        name: pa.Table.from_pylist([{**scope, "granule": archive, **row} for row in held])
        for name, held in tables.items()
    }
    attempt = Attempt(archive, "1", archive, "done", ASKED)
    commit(lake.catalog, stage(lake.storage.staging / archive, attempt, made))


def register(catalog: Catalog, targets: Iterable[int], sample: str = "test") -> None:
    """Register targets, by number."""
    numbers = list(targets)
    ra, dec = positions(numbers)
    add_targets(catalog, pa.table({"ra": ra, "dec": dec, "name": [f"T{t}" for t in numbers]}), sample)


Content = dict[str, list[tuple[str, float, float]]]


def content(catalog: Catalog) -> Content:
    """All light curves of the lake by source, in plain Python, to compare with expected()."""
    cursor = catalog.cursor()
    cursor.execute("BEGIN")
    found: Content = {}
    for source, band, mjd, flux in cursor.execute(
        "SELECT source_id, band, mjd, flux FROM lightcurves ORDER BY ALL"
    ).fetchall():
        found.setdefault(source, []).append((band, mjd, flux))
    sources = cursor.execute("SELECT source_id FROM sources ORDER BY ALL").fetchall()
    rollback(cursor)
    cursor.close()
    names = [row[0] for row in sources]
    assert len(names) == len(set(names)), "a source is there twice"
    assert set(names) == set(found), f"sources and light curves are of other sources: {set(names) ^ set(found)}"
    return found


def expected(versions: Mapping[int, Version]) -> Content:
    """What content() must give."""
    return {f"s{s}": sorted(rows_of(s, version)) for s, version in versions.items()}


def errors(catalog: Catalog) -> list[Finding]:
    """What verify finds wrong."""
    return [finding for finding in verify(catalog) if finding.is_error]


def count(catalog: Catalog, what: str) -> int:
    """Count rows: ``count(catalog, "ledger WHERE status = 'done'")``."""
    cursor = catalog.cursor()
    try:
        return int(cursor.execute(f"SELECT count(*) FROM {what}").fetchall()[0][0])
    finally:
        cursor.close()
