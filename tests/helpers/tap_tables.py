"""Tables for a real TAP service, seeded: a sky of Gaia's sources and HEASARC's events, and what is near what."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky
from astropy.table import Table

YEARS = 16.0

Sky = tuple[np.ndarray, np.ndarray]


def sky(rng: np.random.Generator, rows: int) -> Sky:
    """Positions all over the sky, some near a pole and some on both sides of right ascension 0."""
    ra, dec = rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))
    some = rows // 40
    dec[:some] = 90 - rng.exponential(1, some)
    ra[some : 2 * some] = rng.normal(0, 0.5, some) % 360
    return ra, dec


def _holes(rng: np.random.Generator, values: np.ndarray, share: float = 0.1) -> pa.Array:
    return pa.array(values, mask=rng.random(len(values)) < share)


def _gaia(rng: np.random.Generator, rows: int) -> pa.Table:
    ra, dec = sky(rng, rows)
    no_motion = rng.random(rows) < 0.1
    return pa.table(
        {
            "source_id": pa.array(rng.permutation(rows) * 113_000_000_000_003 + 4_295_806_720),
            "random_index": pa.array(np.arange(rows)),
            "ref_epoch": pa.array(np.full(rows, 2016.0)),
            "ra": pa.array(ra),
            "dec": pa.array(dec),
            "ra_error": pa.array(rng.uniform(0.01, 1, rows).astype("f4")),
            "dec_error": pa.array(rng.uniform(0.01, 1, rows).astype("f4")),
            "parallax": _holes(rng, rng.normal(1, 1, rows)),
            "pmra": pa.array(rng.normal(0, 300, rows), mask=no_motion),
            "pmdec": pa.array(rng.normal(0, 300, rows), mask=no_motion),
            "phot_g_mean_mag": _holes(rng, rng.uniform(6, 21, rows).astype("f4")),
            "has_epoch_photometry": pa.array(rng.random(rows) < 0.3),
        }
    )


def _bursts(rng: np.random.Generator, rows: int, name: str, lost: float = 0.0, **more: pa.Array) -> pa.Table:
    ra, dec = sky(rng, rows)
    nowhere = rng.random(rows) < lost
    return pa.table(
        {
            "name": pa.array([f"{name}{row:06d}" for row in range(rows)]),
            "ra": pa.array(ra, mask=nowhere),
            "dec": pa.array(dec, mask=nowhere),
            "time": pa.array(np.sort(rng.uniform(50000, 60000, rows))),
            "error_radius": pa.array(rng.uniform(0, 6, rows), mask=nowhere),
            **more,
        }
    )


def _tables() -> dict[str, pa.Table]:
    rng = np.random.default_rng(20261121)
    words = np.array(["Short", 'Long, "odd"', "O'Neil\t", ""])
    return {
        "gaiadr3.gaia_source": _gaia(rng, 60_000),
        "fermigtrig": _bursts(rng, 800, "bn", trigger_type=_holes(rng, words[rng.integers(0, 4, 800)])),
        "saxgrbmgrb": _bursts(rng, 1082, "GRB", 0.3, fluence=_holes(rng, rng.lognormal(-14, 1, 1082))),
        "icecubepsc": _bursts(rng, 20_000, "x", event_energy=pa.array(rng.uniform(2, 6, 20_000))).drop(["name"]),
        "xmmssc": _bursts(
            rng,
            3000,
            "4XMM J",
            detid=pa.array(np.arange(3000) + 2**40),
            ep_8_flux=_holes(rng, rng.lognormal(-30, 1, 3000)),
            ep_8_flux_error=_holes(rng, rng.lognormal(-32, 1, 3000).astype("f4")),
        ),
    }


TABLES = _tables()


def targets_near(rows: int, near: Sky, spread_deg: float) -> Table:
    """Most targets near something, the rest anywhere."""
    rng = np.random.default_rng(rows)
    ra, dec = sky(rng, rows)
    some = 4 * rows // 5
    here = SkyCoord(*near, unit="deg")[rng.integers(0, len(near[0]), some)]
    moved = here.directional_offset_by(rng.uniform(0, 360, some) * u.deg, rng.uniform(0, spread_deg, some) * u.deg)
    ra[:some], dec[:some] = moved.ra.deg, moved.dec.deg
    radius = rng.uniform(0.5, 3, rows) / 3600
    return Table(
        {
            "target_id": rng.permutation(rows) + 2**53 + 1,
            "ra": ra,
            "dec": dec,
            "radius_deg": radius,
            "reach_deg": radius + YEARS * 10.5 / 3600,
            "years": np.full(rows, YEARS),
        }
    )


def positions_in(name: str) -> Sky:
    """Where the rows of a table are, NaN for those without a position."""
    table = TABLES[name]
    return table["ra"].to_numpy(), table["dec"].to_numpy()


def around(targets: Table, name: str, limit_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By brute force: target's row, table's row and distance in degrees of all pairs closer than the limit."""
    ra, dec = positions_in(name)
    there = np.flatnonzero(np.isfinite(ra))
    targeted = SkyCoord(targets["ra"], targets["dec"], unit="deg")
    one, other, distance, _ = search_around_sky(
        targeted, SkyCoord(ra[there], dec[there], unit="deg"), limit_deg * u.deg
    )
    return np.asarray(one), there[np.asarray(other)], distance.deg


def pairs_of(answer: Table, column: str) -> list[tuple[object, ...]]:
    return sorted(zip(answer["target_id"].tolist(), answer[column].tolist(), strict=True))


def expected_pairs(
    targets: Table, one: np.ndarray, name: str, other: np.ndarray, column: str
) -> list[tuple[object, ...]]:
    ids = targets["target_id"].tolist()
    values = TABLES[name][column].to_pylist()
    return sorted((ids[row], values[match]) for row, match in zip(one.tolist(), other.tolist(), strict=True))
