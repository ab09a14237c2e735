"""Stand-in for the HEASARC: a TAP service with four catalogues of events.

Columns and units are those of the real tables, as are the numbers of rows at scale 1. The rows are random, but
trigger types and the share of bursts without a position are those of the real exports.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deployments.sandbox.tap import TapService

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

Floats = NDArray[np.float64]
Targets = Sequence[tuple[float, float]]

URL_PATH = "/heasarc/tap"
TRIGGERS, BURSTS, NEUTRINOS, DETECTIONS = 9_000, 1_082, 1_100_000, 50_000
"""Rows of the four tables at scale 1. A table is longer where its targets need more."""

_TRIGGER_TYPES = {
    "GRB": 1659,
    "SFLARE": 692,
    "TGF": 654,
    "LOCLPAR": 571,
    "SGR": 257,
    "UNCERT": 227,
    "TRANSNT": 219,
    "DISTPAR": 39,
    "GALBIN": 1,
}
_UNITS = {
    "ra": "deg",
    "dec": "deg",
    "time": "mjd",
    "error_radius": "deg",
    "fluence": "erg/cm^2",
    "event_energy": "GeV",
    "ep_8_flux": "erg/cm^2/s",
    "ep_8_flux_error": "erg/cm^2/s",
}


def mount(sandbox: Sandbox, root: Path, *, seed: int, scale: float, targets: Targets) -> str:
    """Serve the four tables by TAP, and return the endpoint. They are made in no time, so `root` stays empty."""
    tables = {
        "fermigtrig": fermigtrig(targets, seed=seed, scale=scale),
        "saxgrbmgrb": saxgrbmgrb(targets, seed=seed, scale=scale),
        "icecubepsc": icecubepsc(targets, seed=seed, scale=scale),
        "xmmssc": xmmssc(targets, seed=seed, scale=scale),
    }
    service = TapService(sandbox, URL_PATH, tables)
    sandbox.services["heasarc"] = service
    return service.url


def fermigtrig(targets: Targets, *, seed: int, scale: float) -> pa.Table:
    """Triggers of Fermi GBM; every second target is inside a circle of less than 3 deg.

    Parameters
    ----------
    targets
        Positions (right ascension, declination, deg).
    seed, scale
        Seed of everything random, and the number of rows relative to the real table.
    """
    hits = _positions(targets)[1::2]
    rng, n = np.random.default_rng([seed, 1]), _rows(TRIGGERS, scale, len(hits))
    radius = 10 ** rng.uniform(-2, np.log10(20), n)
    ra, dec = _sky(rng, n)
    _near(rng, hits, ra, dec, radius)
    milli = np.sort(rng.choice((60_600 - 54_660) * 1000, n, replace=False)) + 54_660_000
    days = np.datetime_as_string((milli // 1000 - 40_587).astype("datetime64[D]"))
    names = [f"GRB{d[2:4]}{d[5:7]}{d[8:]}{f:03d}" for d, f in zip(days.tolist(), (milli % 1000).tolist(), strict=True)]
    share = np.array(list(_TRIGGER_TYPES.values()), dtype=float)
    kinds = rng.choice(list(_TRIGGER_TYPES), n, p=share / share.sum())
    return _table(
        name=names, ra=ra, dec=dec, time=(milli + rng.uniform(0, 1, n)) / 1000, error_radius=radius, trigger_type=kinds
    )


def saxgrbmgrb(targets: Targets, *, seed: int, scale: float) -> pa.Table:
    """Bursts of the BeppoSAX monitor, a fifth of them without position; the other targets are inside small circles.

    Parameters
    ----------
    targets
        Positions (right ascension, declination, deg).
    seed, scale
        Seed of everything random, and the number of rows relative to the real table.
    """
    hits = _positions(targets)[::2]
    rng, n = np.random.default_rng([seed, 2]), _rows(BURSTS, scale, len(hits))
    radius = 10 ** rng.uniform(-0.5, 1.3, n)
    ra, dec = _sky(rng, n)
    at = _near(rng, hits, ra, dec, radius)
    unplaced = rng.random(n) < 0.2
    unplaced[at] = False
    unplaced[np.setdiff1d(np.arange(n), at)[:1]] = True
    fluence = 10 ** rng.normal(-5.8, 0.7, n)
    milli = np.sort(rng.choice((52_400 - 50_266) * 1000, n, replace=False)) + 50_266_000
    days = np.datetime_as_string((milli // 1000 - 40_587).astype("datetime64[D]"))
    names, seen = [], dict[str, int]()
    for day in days.tolist():
        date = f"GRB {day[2:4]}{day[5:7]}{day[8:]}"
        seen[date] = seen.get(date, 0) + 1
        # The first of a day has no letter, the second is B; the rare 27th goes on with Z1.
        letter = "" if seen[date] == 1 else chr(64 + min(seen[date], 26))
        names.append(f"{date}{letter}{seen[date] - 26 if seen[date] > 26 else ''}")
    return _table(
        name=names,
        ra=pa.array(ra, mask=unplaced),
        dec=pa.array(dec, mask=unplaced),
        time=milli / 1000,
        error_radius=pa.array(radius, mask=unplaced),
        fluence=pa.array(fluence, mask=rng.random(n) < 0.3),
    )


def icecubepsc(targets: Targets, *, seed: int, scale: float) -> pa.Table:
    """Neutrino candidates of IceCube, one of them around each target.

    Parameters
    ----------
    targets
        Positions (right ascension, declination, deg).
    seed, scale
        Seed of everything random, and the number of rows relative to the real table.
    """
    hits = _positions(targets)
    rng, n = np.random.default_rng([seed, 3]), _rows(NEUTRINOS, scale, len(hits))
    radius = np.clip(rng.lognormal(-0.5, 0.6, n), 0.2, 3.0)
    ra, dec = _sky(rng, n)
    _near(rng, hits, ra, dec, radius, most=1.9)
    time = np.sort(rng.uniform(54_562, 58_308, n))
    return _table(time=time, ra=ra, dec=dec, error_radius=radius, event_energy=10 ** rng.normal(3.6, 0.7, n))


def xmmssc(targets: Targets, *, seed: int, scale: float) -> pa.Table:
    """XMM-Newton detections, two or three within 5 arcsec of every other target; error_radius is in arcsec.

    Parameters
    ----------
    targets
        Positions (right ascension, declination, deg).
    seed, scale
        Seed of everything random, and the number of rows relative to the real table.
    """
    rng = np.random.default_rng([seed, 4])
    hits = np.repeat(_positions(targets)[::2], rng.integers(2, 4, len(_positions(targets)[::2])), axis=0)
    n = _rows(DETECTIONS, scale, len(hits))
    ra, dec = _sky(rng, n)
    at = rng.choice(n, len(hits), replace=False)
    ra[at], dec[at] = offset(hits, rng.uniform(0.1, 4.9, len(at)) / 3600, rng.uniform(0, 360, len(at)))
    detid = 100_000_000_000_000 + rng.choice(10**11, n, replace=False) * 1_000 + np.arange(n) % 1_000
    flux = 10 ** rng.normal(-13.8, 0.6, n)
    names = [f"4XMM J{a:09.5f}{d:+09.5f}.{i}" for i, (a, d) in enumerate(zip(ra.tolist(), dec.tolist(), strict=True))]
    return _table(
        detid=detid,
        name=names,
        ra=ra,
        dec=dec,
        time=rng.uniform(51_577, 59_914, n),
        error_radius=np.clip(rng.lognormal(0.3, 0.5, n), 0.1, 5.0),
        ep_8_flux=pa.array(flux, mask=rng.random(n) < 0.02),
        ep_8_flux_error=flux * rng.uniform(0.05, 0.6, n),
    )


def offset(origin: Floats, distance: Floats, bearing: Floats) -> tuple[Floats, Floats]:
    """Right ascension and declination at a distance and bearing from each origin, all in degrees."""
    ra, dec = np.radians(origin.T)
    r, b = np.radians(distance), np.radians(bearing)
    # The arctangent keeps fractions of an arcsecond near the poles, where the arcsine loses them.
    x, y = np.cos(dec) * np.cos(r) - np.sin(dec) * np.sin(r) * np.cos(b), np.sin(r) * np.sin(b)
    z = np.sin(dec) * np.cos(r) + np.cos(dec) * np.sin(r) * np.cos(b)
    return np.degrees(ra + np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


def _positions(targets: Targets) -> Floats:
    return np.asarray(targets, dtype=np.float64).reshape(-1, 2)


def _rows(full: int, scale: float, hits: int) -> int:
    return max(2, round(full * scale), 2 * hits)


def _sky(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


def _near(
    rng: np.random.Generator, hits: Floats, ra: Floats, dec: Floats, radius: Floats, most: float = 2.9
) -> NDArray[np.int64]:
    """Move an event to each position, in place, so that its circle of at most `most` deg contains it."""
    at = rng.choice(len(ra), len(hits), replace=False)
    radius[at] = rng.uniform(0.2, most, len(at))
    ra[at], dec[at] = offset(hits, radius[at] * rng.uniform(0.05, 0.9, len(at)), rng.uniform(0, 360, len(at)))
    return at


def _table(**columns: Any) -> pa.Table:
    units = _UNITS | ({"error_radius": "arcsec"} if "detid" in columns else {})
    arrays = {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()}
    fields = [
        pa.field(name, values.type, metadata={"unit": units[name]} if name in units else None)
        for name, values in arrays.items()
    ]
    return pa.Table.from_arrays(list(arrays.values()), schema=pa.schema(fields))
