"""Convert every archive's times to MJD in TDB at the solar system barycentre.

Pure functions on numpy arrays. They use only ERFA: its built-in leap seconds (the last is of 2017-01-01) and its
analytic ephemeris. Nothing is downloaded and no Earth-rotation table is read.

Accuracy:

- a float64 MJD near 60000 resolves 0.6 us; the sums here round once;
- the Earth's position is ERFA's `epv00`: against JPL's DE405 over 1900 to 2100, 4.6 km rms and
  13.4 km at most, so 15 us and 45 us of light;
- every observer on Earth is taken to be at its centre: 21.3 ms at most on the ground (the Earth's radius over c);
  for a satellite add the light travel time of its altitude;
- a day that ends with a leap second is 86401 s long, ERFA's and astropy's convention: a UTC MJD from clock
  time over 86400 is up to 1 s off on that day alone;
- a future leap second is unknown until pyerfa is updated. A UTC given at BARYCENTER has its leap second
  looked up at the barycentric reading, so it is 1 s off within 510 s of a leap second;
- the Shapiro delay (0.1 ms at the Sun's limb) and the source's parallax (1.2 ms at 1 pc) are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
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

# `epv00` is tested from 1900 to 2100, and UTC begins on 1960-01-01. Source: ERFA, epv00 and dat.
FIRST_MJD, LAST_MJD = 15020.0, 88069.0
FIRST_UTC_MJD = 36934.0

SCALES = ("utc", "tai", "tt", "tdb", "tcb")
# Reference positions of IVOA's TIMESYS, with the values that table archives stores.
# Source: IVOA VOTable 1.4, TIMESYS.
TOPOCENTER, GEOCENTER, HELIOCENTER, BARYCENTER = "topocentre", "geocentre", "heliocentre", "barycentre"
REFERENCE_POSITIONS = (TOPOCENTER, GEOCENTER, HELIOCENTER, BARYCENTER)

# epv00 takes 40 us and dtdb 12 us for a time, so both are computed every two days only. The four of these around a
# node of a grid of half a day give the node, to 0.01 us (Hermite of degree 7, position and velocity) and 0.002 us
# (cubic); two nodes give a time, to 0.02 us (cubic Hermite) and 0.02 us (linear).
_EXACT_D, _GRID_D = 2.0, 0.5
# So many nodes are computed at a time, in some milliseconds: what another thread computed meanwhile is not done again.
_NODES_AT_ONCE = 128

# Times are converted in chunks of this many; each needs some 250 bytes meanwhile.
_AT_ONCE = 1 << 16


def to_bmjd_tdb(mjd: ArrayLike, ra_deg: ArrayLike, dec_deg: ArrayLike, *, scale: str, frame: str) -> Floats:
    """Convert times to MJD(TDB) at the solar system barycentre: when the light would have passed it.

    Waves are taken as plane, which is right for sources beyond a parsec. The module's docstring states the accuracy.

    Parameters
    ----------
    mjd
        Times as Modified Julian Dates, days. The arguments broadcast.
    ra_deg, dec_deg
        Direction of the source, ICRS degrees, one for all or one per time. Not used for BARYCENTER.
    scale
        The times' scale: utc, tai, tt, tdb or tcb.
    frame
        Reference position of the times. GEOCENTER and TOPOCENTER are treated alike: on Earth. HELIOCENTER times are
        corrected for light travel time to the Sun, like ZTF's HMJD: the correction is undone, and a UTC's leap
        second is the one at the Earth. For BARYCENTER only the scale is converted.

    Returns
    -------
    numpy.ndarray
        MJD(TDB) in days, of the broadcast shape. NaN where the time is, or where the direction is needed
        and is.

    Raises
    ------
    ValueError
        If the scale or frame is unknown, or a time is infinite or before 1900 (1960 in UTC) or after
        2099, such as a JD or days since a mission's zero. The message names the first.

    Examples
    --------
    A time of ZTF's, on Earth in UTC, and Gaia's zero point, TCB at the barycentre:

    >>> f"{to_bmjd_tdb(58000.0, 10.0, -30.0, scale='utc', frame=GEOCENTER):.8f}"
    '58000.00563296'
    >>> f"{to_bmjd_tdb(55197.0, 0.0, 0.0, scale='tcb', frame=BARYCENTER):.8f}"
    '55196.99981312'
    """
    if frame not in REFERENCE_POSITIONS:
        raise ValueError(f"unknown time frame {frame!r}: one of {', '.join(REFERENCE_POSITIONS)}")
    read, ra, dec = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (mjd, ra_deg, dec_deg)))
    _check_scale(read, scale)
    if read.size > _AT_ONCE:
        each = [array.reshape(-1) for array in (read, ra, dec)]
        parts = [slice(start, start + _AT_ONCE) for start in range(0, read.size, _AT_ONCE)]
        with ThreadPoolExecutor(2) as pool:  # most of it is numpy's and ERFA's, which leave Python to others
            done = pool.map(lambda part: to_bmjd_tdb(*(array[part] for array in each), scale=scale, frame=frame), parts)
            return np.concatenate(list(done)).reshape(read.shape)
    known = ~np.isnan(read)
    if frame != BARYCENTER:
        known &= ~(np.isnan(ra) | np.isnan(dec))
    result = np.full(read.shape, np.nan)
    times, row = np.unique(read[known], return_inverse=True)
    shift = _to_tdb_s(times, scale)
    if frame == BARYCENTER:
        later = shift[row]
    else:
        earth, sun, sun_speed = _ephemeris(times + shift / DAY_S)
        source = unit_vectors(ra[known], dec[known])
        if frame == HELIOCENTER:
            # The clock reads this much later than the Earth's, which decides the leap second and the Sun's position.
            ahead = _along(earth - sun, row, source)
            shift_s = _to_tdb_s(read[known] - ahead / DAY_S, scale)
            later = shift_s + _along(sun, row, source) - ahead * _along(sun_speed, row, source)
        else:
            later = shift[row] + _along(earth, row, source)
    result[known] = read[known] + later / DAY_S
    return result


class EarthTimes:
    """Times on Earth that many sources share, such as those of exposures: what depends only on time is computed once.

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
        """Convert pairs of a time and a source, given by their indices, to MJD(TDB) at the barycentre.

        Parameters
        ----------
        row
            Index of each pair's time in `mjd`.
        ra_deg, dec_deg
            Directions of the sources, ICRS degrees.
        source
            Index of each pair's source in `ra_deg` and `dec_deg`.

        Returns
        -------
        numpy.ndarray
            MJD(TDB) in days, one for each pair.
        """
        later = self._later_s[row]
        for earth, direction in zip(self._earth, unit_vectors(ra_deg, dec_deg).T, strict=True):
            later += earth[row] * direction[source]
        return np.asarray(self.mjd[row] + later / DAY_S)


def met_to_mjd(met_s: ArrayLike, mjdrefi: float, mjdreff: float, timezero_s: float = 0.0) -> Floats:
    """Convert mission elapsed time to MJD, in the scale of the mission's reference (RXTE: TT).

    MJD = MJDREFI + MJDREFF + (TIMEZERO + TIME) / 86400, after OGIP/93-003 and the HEASARC's RXTE pages.
    Whole days and fractions are summed separately, so the result is the float64 next to the exact one.

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
        MJD in days, of the shape of `met_s`, NaN where it is NaN.

    Examples
    --------
    >>> f"{met_to_mjd(86400.0, 49353, 0.000696574074):.9f}"
    '49354.000696574'
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
    """Return TDB minus each time in seconds, for an observer at GEOCENTER (elsewhere on Earth 2 us differ)."""
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
        # The third value says whether the year is beyond ERFA's leap seconds: see the module's docstring.
        whole, rest, _ = erfa.utctai(day + MJD_OFFSET, fraction)
        to_tt += ((whole - MJD_OFFSET - day) + (rest - fraction)) * DAY_S
    if scale in ("utc", "tai"):
        to_tt += TT_MINUS_TAI_S
    left, part, (tdb_tt,) = _TDB_TT.around(mjd + to_tt / DAY_S)
    return np.asarray(to_tt + tdb_tt[left] * (1 - part) + tdb_tt[left + 1] * part)


def _ephemeris(tdb: Floats) -> tuple[Floats, Floats, Floats]:
    """Interpolate barycentric positions of the Earth and the Sun, light seconds, and the Sun's velocity over c."""
    left, part, (earth, speed, sun, sun_speed) = _POSITIONS.around(tdb)
    s = part[:, None]
    cubic = (1 + 2 * s) * (1 - s) ** 2, s * (1 - s) ** 2, s**2 * (3 - 2 * s), s**2 * (s - 1)

    def between(p: Floats, v: Floats) -> Floats:
        terms = zip(cubic, (p[left], v[left], p[left + 1], v[left + 1]), strict=True)
        return np.asarray(sum(weight * term for weight, term in terms) * AU_LIGHT_S)

    sun_speed_c = sun_speed[left] * (AU_LIGHT_S / _GRID_D / DAY_S)
    return between(earth, speed), between(sun, sun_speed), sun_speed_c


Tables = tuple[Floats, ...]


class Grid:
    """Functions of time at the nodes of a grid, each computed when a time beside it is first asked for.

    The grid is the same for every call, so a result does not depend on the other times. Times that are far apart, such
    as those of pointed observations, cost two nodes each; what is never asked for takes no memory.

    Parameters
    ----------
    compute
        Returns an array for each function, the first axis along the times, MJD, that it is given.
    step_d
        Days between nodes.
    beside
        How many nodes on either side of a time it needs.
    """

    def __init__(self, compute: Callable[[Floats], Tables], step_d: float = _GRID_D, beside: int = 1) -> None:
        self._compute = compute
        self._step_d = step_d
        self._near = range(1 - beside, beside + 1)
        # More nodes at either end: a time near the limits may be in another scale, or a node beside one.
        self._first = int(np.floor(FIRST_MJD / step_d)) - beside - 1
        self._n = int(np.ceil(LAST_MJD / step_d)) + beside + 2 - self._first
        self.clear()

    def clear(self) -> None:
        """Forget all nodes."""
        self.known = np.zeros(self._n, bool)
        like = self._compute(np.array([FIRST_MJD]))
        self._values = tuple(np.zeros((self._n, *one.shape[1:])) for one in like)

    def around(self, mjd: Floats) -> tuple[NDArray[np.intp], Floats, Tables]:
        """Return the index of the node before each time, the fraction of the step after it, and the values at nodes."""
        step = np.floor(np.nan_to_num(mjd, nan=FIRST_MJD) / self._step_d)  # the fraction of a NaN stays one
        left = step.astype(np.intp) - self._first
        is_known = np.logical_and.reduce([self.known[left + place] for place in self._near])
        if not is_known.all():
            self._fill(np.unique(np.concatenate([left[~is_known] + place for place in self._near])))
        return left, np.asarray(mjd / self._step_d - step), self._values

    def _fill(self, nodes: NDArray[np.intp]) -> None:
        """Compute nodes, in an order of its own, so that threads that need the same ones share the work."""
        for part in np.random.default_rng().permutation(-(-nodes.size // _NODES_AT_ONCE)):
            some = nodes[part * _NODES_AT_ONCE :][:_NODES_AT_ONCE]
            some = some[~self.known[some]]
            if some.size:
                times = np.asarray((some + self._first) * self._step_d, np.float64)
                for values, made in zip(self._values, self._compute(times), strict=True):
                    values[some] = made
                self.known[some] = True  # last: another thread may read meanwhile


def _exact_tdb_tt(mjd: Floats) -> Tables:
    """Compute TDB - TT in seconds."""
    return (np.asarray(erfa.dtdb(MJD_OFFSET, mjd, 0.0, 0.0, 0.0, 0.0)),)


def _exact_positions(mjd: Floats) -> Tables:
    """Compute barycentric position and velocity of Earth and Sun, au and au per step of the exact grid."""
    from_sun, from_bary = erfa.epv00(MJD_OFFSET, mjd)[:2]
    earth, speed = from_bary["p"], from_bary["v"] * _EXACT_D
    return earth, speed, earth - from_sun["p"], speed - from_sun["v"] * _EXACT_D


_EXACT_TDB_TT = Grid(_exact_tdb_tt, _EXACT_D, beside=2)
_EXACT_POSITIONS = Grid(_exact_positions, _EXACT_D, beside=2)


def _lagrange(part: Floats) -> Iterator[tuple[int, Floats, Floats, float]]:
    """Yield, for the four nodes around each time, the place, Lagrange's polynomial, and its slopes there and at it."""
    places = (-1, 0, 1, 2)
    for place in places:
        others = [other for other in places if other != place]
        below = prod(place - other for other in others)
        value = prod(part - other for other in others) / below
        slope = sum(prod(part - other for other in others if other != left_out) for left_out in others) / below
        yield place, np.asarray(value), np.asarray(slope), sum(1.0 / (place - other) for other in others)


def _tdb_tt(mjd: Floats) -> Tables:
    """Interpolate TDB - TT in seconds."""
    left, part, (exact,) = _EXACT_TDB_TT.around(mjd)
    return (np.asarray(sum(value * exact[left + place] for place, value, _, _ in _lagrange(part))),)


def _positions(mjd: Floats) -> Tables:
    """Interpolate barycentric position and velocity of Earth and Sun, au and au per step of the grid."""
    left, part, exact = _EXACT_POSITIONS.around(mjd)
    found = tuple(np.zeros((len(mjd), 3)) for _ in exact)
    for place, value, slope, own_slope in _lagrange(part):
        after, square = part - place, value**2
        straight = 1 - 2 * own_slope * after
        # Hermite's polynomials of the position and the velocity at this node, and their slopes.
        of_position, of_speed = straight * square, after * square
        slopes = 2 * (straight * value * slope - own_slope * square), square + 2 * after * value * slope
        for p, v, position, speed in zip(exact[::2], exact[1::2], found[::2], found[1::2], strict=True):
            at, velocity = p[left + place], v[left + place]
            position += of_position[:, None] * at + of_speed[:, None] * velocity
            speed += (slopes[0][:, None] * at + slopes[1][:, None] * velocity) * (_GRID_D / _EXACT_D)
    return found


_TDB_TT, _POSITIONS = Grid(_tdb_tt), Grid(_positions)


def _along(vectors: Floats, row: NDArray[np.intp], source: Floats) -> Floats:
    """Multiply each row's vector with its direction, as a dot product."""
    return np.asarray(sum(vectors[row, axis] * source[:, axis] for axis in range(3)))
