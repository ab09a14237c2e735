"""Time scales and the barycentre: every archive's clock to MJD(TDB) at the solar system barycentre.

Pure functions on numpy arrays, through ERFA alone: its built-in leap seconds (to 2017-01-01, the
last one there is) and analytic ephemeris. Nothing is downloaded and no Earth-rotation table is read.

How good the result is:

- a float64 MJD near 60000 resolves 0.6 us, and the sums here round once;
- the Earth's position is ERFA's `epv00`: against JPL's DE405 over 1900 to 2100, 4.6 km rms and
  13.4 km at most, so 15 us and 45 us of light;
- the observer is taken at the geocentre: 21.3 ms at most on the ground (the Earth's radius over c),
  the same plus its altitude's light travel time for a satellite;
- a day that ends with a leap second is 86401 s long, ERFA's and astropy's convention: a UTC MJD from clock
  time over 86400 is up to 1 s off on that day alone;
- a future leap second is unknown until pyerfa is updated. A UTC given at the barycentre has its leap
  second looked up at the barycentric reading, so it is 1 s off within 510 s of a leap second;
- left out: the Shapiro delay (0.1 ms at the Sun's limb) and the source's parallax (1.2 ms at 1 pc).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from erfa import ufunc as erfa
from numpy.typing import ArrayLike, NDArray

from lake.science.sky import unit_vectors

Floats = NDArray[np.float64]

DAY_S = 86400.0

# JD - MJD. Source: IAU 1997 Resolution B1.
MJD_OFFSET = 2400000.5

# TESS's BTJD = BJD(TDB) - 2457000. Source: TESS Science Data Products Description, EXP-TESS-ARC-ICD-0014.
BTJD_OFFSET = 2457000.0 - MJD_OFFSET  # 56999.5

# Kepler's and K2's BKJD = BJD(TDB) - 2454833. Source: Kepler Archive Manual, KDMC-10008-006.
BKJD_OFFSET = 2454833.0 - MJD_OFFSET  # 54832.5

# TT - TAI. Source: IAU 1991 Resolution A4, Recommendation IV.
TT_MINUS_TAI_S = 32.184

# Light travel time of one astronomical unit: 149597870700 m (IAU 2012 Resolution B2) over c (SI).
AU_LIGHT_S = 149597870700.0 / 299792458.0

# Where `epv00` is tested, 1900 to 2100, and where UTC begins, 1960-01-01. Source: ERFA, epv00 and dat.
FIRST_MJD, LAST_MJD = 15020.0, 88069.0
FIRST_UTC_MJD = 36934.0

SCALES = ("utc", "tai", "tt", "tdb", "tcb")
FRAMES = ("topocentre", "geocentre", "heliocentre", "barycentre")

# epv00 takes 40 us and dtdb 12 us a time, so both are computed on a grid and interpolated: at half a
# day the errors are 0.02 us (cubic Hermite, position and velocity) and 0.02 us (linear).
_GRID_D = 0.5

# Vectors of so many times are held at once: a time takes some 250 bytes on the way.
_AT_ONCE = 1 << 16

# The grid is computed, and kept, by the block of a month: 2.6 ms and 6 kB each.
_BLOCK, _BLOCKS_KEPT = 64, 4096


def to_bmjd_tdb(mjd: ArrayLike, ra_deg: ArrayLike, dec_deg: ArrayLike, *, scale: str, frame: str) -> Floats:
    """Instants at which light would have passed the solar system barycentre, as MJD in TDB.

    Plane waves: right for sources beyond a parsec. The module's docstring says how good it is.

    Parameters
    ----------
    mjd
        Times as Modified Julian Dates, days. The arguments broadcast.
    ra_deg, dec_deg
        Direction of the source, ICRS degrees, one for all or one per time. Not used at the barycentre.
    scale
        The times' scale: utc, tai, tt, tdb or tcb.
    frame
        Where the times' clock is. `geocentre`, and `topocentre`, treated alike: on Earth.
        `heliocentre`: corrected for light travel time to the Sun, like ZTF's HMJD; that correction is
        undone, and a UTC's leap second is the one at the Earth. `barycentre`: only the scale is converted.

    Returns
    -------
    numpy.ndarray
        MJD(TDB) in days, of the broadcast shape. NaN where the time is, or where the direction is needed
        and is.

    Raises
    ------
    ValueError
        If the scale or frame is unknown, or a time is infinite or before 1900 (1960 in UTC) or after
        2099: a JD, or days since a mission's zero, is not an MJD. Names the first.
    """
    if frame not in FRAMES:
        raise ValueError(f"unknown time frame {frame!r}: one of {', '.join(FRAMES)}")
    read, ra, dec = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (mjd, ra_deg, dec_deg)))
    _check_scale(read, scale)
    if read.size > _AT_ONCE:
        each = [array.reshape(-1) for array in (read, ra, dec)]
        parts = [slice(start, start + _AT_ONCE) for start in range(0, read.size, _AT_ONCE)]
        done = [to_bmjd_tdb(*(array[part] for array in each), scale=scale, frame=frame) for part in parts]
        return np.concatenate(done).reshape(read.shape)
    known = ~np.isnan(read)
    if frame != "barycentre":
        known &= ~(np.isnan(ra) | np.isnan(dec))
    result = np.full(read.shape, np.nan)
    times, row = np.unique(read[known], return_inverse=True)
    shift = _to_tdb_s(times, scale)
    if frame == "barycentre":
        later = shift[row]
    else:
        earth, sun, sun_speed = _ephemeris(times + shift / DAY_S)
        source = unit_vectors(ra[known], dec[known])
        if frame == "heliocentre":
            # The clock read this much later than the Earth's, for which the leap second and the Sun hold.
            ahead = _along(earth - sun, row, source)
            shift_s = _to_tdb_s(read[known] - ahead / DAY_S, scale)
            later = shift_s + _along(sun, row, source) - ahead * _along(sun_speed, row, source)
        else:
            later = shift[row] + _along(earth, row, source)
    result[known] = read[known] + later / DAY_S
    return result


class EarthTimes:
    """Times on Earth that many sources share, such as those of exposures: what depends on the time alone is kept.

    Parameters
    ----------
    mjd
        Times as Modified Julian Dates, days, without NaN.
    scale
        utc, tai, tt, tdb or tcb.

    Raises
    ------
    ValueError
        As to_bmjd_tdb.
    """

    def __init__(self, mjd: ArrayLike, scale: str) -> None:
        self.mjd = np.asarray(mjd, dtype=np.float64)
        _check_scale(self.mjd, scale)
        self._later_s = _to_tdb_s(self.mjd, scale)
        earth, _, _ = _ephemeris(self.mjd + self._later_s / DAY_S)
        self._earth = np.ascontiguousarray(earth.T)

    def to_bmjd_tdb(
        self, row: NDArray[np.integer[Any]], ra_deg: ArrayLike, dec_deg: ArrayLike, source: NDArray[np.integer[Any]]
    ) -> Floats:
        """Return what to_bmjd_tdb does for times and sources that are given by their places.

        Parameters
        ----------
        row
            Place of each time.
        ra_deg, dec_deg
            Directions of the sources, ICRS degrees.
        source
            Place of each source.
        """
        later = self._later_s[row]
        for earth, direction in zip(self._earth, unit_vectors(ra_deg, dec_deg).T, strict=True):
            later += earth[row] * direction[source]
        return np.asarray(self.mjd[row] + later / DAY_S)


def met_to_mjd(met_s: ArrayLike, mjdrefi: float, mjdreff: float, timezero_s: float = 0.0) -> Floats:
    """Mission elapsed time to MJD, in the scale of the mission's reference (RXTE: TT).

    MJD = MJDREFI + MJDREFF + (TIMEZERO + TIME) / 86400, after OGIP/93-003 and the HEASARC's RXTE pages.
    Whole days and fractions are summed apart, so the result is the float64 next to the exact one.

    Parameters
    ----------
    met_s
        Seconds, the column TIME.
    mjdrefi, mjdreff
        The reference's whole days and fraction: 49353 and 0.000696574074 for RXTE.
    timezero_s
        Seconds, the keyword TIMEZERO; 0 where the header has none.

    Returns
    -------
    numpy.ndarray
        MJD in days, of the shape of `met_s`. NaN where that is.
    """
    seconds = np.asarray(met_s, dtype=np.float64) + timezero_s
    days = np.floor(seconds / DAY_S)
    return np.asarray((mjdrefi + days) + (mjdreff + (seconds - days * DAY_S) / DAY_S), dtype=np.float64)


def _check_scale(mjd: Floats, scale: str) -> None:
    if scale not in SCALES:
        raise ValueError(f"unknown time scale {scale!r}: one of {', '.join(SCALES)}")
    first = FIRST_UTC_MJD if scale == "utc" else FIRST_MJD
    bad = np.flatnonzero((mjd < first) | (mjd > LAST_MJD))
    if bad.size:
        raise ValueError(f"{mjd.flat[bad[0]]} at index {bad[0]} is not an MJD({scale}) of {first:g} to {LAST_MJD:g}")


def _to_tdb_s(mjd: Floats, scale: str) -> Floats:
    """Seconds from times in a scale to TDB (at the geocentre, where that matters: 2 us)."""
    if scale == "tdb":
        return np.zeros_like(mjd)
    day = np.floor(mjd)
    fraction = mjd - day
    if scale == "tcb":
        # IAU 2006 Resolution B3: TDB = TCB - L_B (JD - T_0) 86400 - 6.55e-5 s.
        whole, rest, _ = erfa.tcbtdb(day + MJD_OFFSET, fraction)
        return np.asarray(((whole - MJD_OFFSET - day) + (rest - fraction)) * DAY_S)
    to_tt = np.zeros_like(mjd)
    if scale == "utc":
        # The third value says whether the year is beyond ERFA's knowledge of leap seconds: see the top.
        whole, rest, _ = erfa.utctai(day + MJD_OFFSET, fraction)
        to_tt += ((whole - MJD_OFFSET - day) + (rest - fraction)) * DAY_S
    if scale in ("utc", "tai"):
        to_tt += TT_MINUS_TAI_S
    left, part, (tdb_tt,) = _tabulated(mjd + to_tt / DAY_S, _tdb_tt)
    return np.asarray(to_tt + tdb_tt[left] * (1 - part) + tdb_tt[left + 1] * part)


def _ephemeris(tdb: Floats) -> tuple[Floats, Floats, Floats]:
    """Barycentric positions of the Earth and the Sun in light seconds, and the Sun's velocity over c."""
    left, part, (earth, speed, sun, sun_speed) = _tabulated(tdb, _positions)
    s = part[:, None]
    cubic = (1 + 2 * s) * (1 - s) ** 2, s * (1 - s) ** 2, s**2 * (3 - 2 * s), s**2 * (s - 1)

    def between(p: Floats, v: Floats) -> Floats:
        terms = zip(cubic, (p[left], v[left], p[left + 1], v[left + 1]), strict=True)
        return np.asarray(sum(weight * term for weight, term in terms) * AU_LIGHT_S)

    sun_speed_c = sun_speed[left] * (AU_LIGHT_S / _GRID_D / DAY_S)
    return between(earth, speed), between(sun, sun_speed), sun_speed_c


Tables = tuple[Floats, ...]


@lru_cache(maxsize=_BLOCKS_KEPT)
def _tdb_tt(block: int) -> Tables:
    """TDB - TT in seconds at the nodes of a block of the grid."""
    return (erfa.dtdb(MJD_OFFSET, _nodes(block), 0.0, 0.0, 0.0, 0.0),)


@lru_cache(maxsize=_BLOCKS_KEPT)
def _positions(block: int) -> Tables:
    """Barycentric position and velocity of the Earth and of the Sun, au and au a step, at the nodes of a block."""
    from_sun, from_bary, _ = erfa.epv00(MJD_OFFSET, _nodes(block))
    earth, speed = from_bary["p"], from_bary["v"] * _GRID_D
    return earth, speed, earth - from_sun["p"], speed - from_sun["v"] * _GRID_D


def _nodes(block: int) -> Floats:
    return np.asarray(np.arange(block * _BLOCK, (block + 1) * _BLOCK + 1) * _GRID_D, np.float64)


def _tabulated(mjd: Floats, table: Callable[[int], Tables]) -> tuple[NDArray[np.intp], Floats, Tables]:
    """Index of the node before each time, the part of the step after it, and what a table has at the nodes.

    The grid is the same for every call, so a time's result does not depend on its company, and what was
    computed for a block of it is kept.
    """
    step = np.floor(mjd / _GRID_D).astype(np.int64)
    block = step // _BLOCK
    needed = np.unique(block)
    tables = [table(int(one)) for one in needed]
    values = tuple(np.concatenate(parts) for parts in zip(*tables, strict=True)) if tables else table(0)
    left = np.searchsorted(needed, block) * (_BLOCK + 1) + step - block * _BLOCK
    return left, mjd / _GRID_D - step, values


def _along(vectors: Floats, row: NDArray[np.intp], source: Floats) -> Floats:
    """Dot product of each row's vector with its direction."""
    return np.asarray(sum(vectors[row, axis] * source[:, axis] for axis in range(3)))
