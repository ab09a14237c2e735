"""Positions on the sky: HEALPix order-29 indices, separations, cones, cross-matches, proper motion.

Pure functions on numpy arrays, which broadcast. Positions are ICRS degrees, right ascension modulo 360. Separations
and radii are arcseconds, 0 to 648000 (180 degrees). A missing position is NaN; it matches nothing and has no index.
A position that is infinite or beyond a pole, or a radius out of range, is a ValueError that names the first one.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import hpgeom
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lake.science.zones import Zones, height_for, sorted_pairs, together

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Pairs = tuple[Ints, Ints, Floats]

# The order of HATS's `_healpix_29`, the deepest that fits a signed 64-bit integer: 12 nside^2 pixels.
# Source: Gorski et al. 2005, ApJ 622, 759; HATS documentation, spatial index.
HPX_ORDER = 29
HPX_NSIDE = 2**HPX_ORDER
HPX_PIXELS = 12 * HPX_NSIDE**2

ARCSEC_PER_DEG = 3600.0
ARCSEC_PER_RAD = 180.0 * ARCSEC_PER_DEG / np.pi

# Rounding moves a chord by less than 2e-15; the tree of `nearest` looks this much further (2e-9 arcsec), and the
# exact separation then decides.
_CHORD_PAD = 1e-14

# hpgeom works with z = cos(theta), which resolves only 2^-26 rad = 3 mas near a pole. Cones are searched this much
# wider, with pixels well above that: order 20 is 0.2 arcsec.
_CONE_PAD_ARCSEC = 0.01
_CONE_MAX_ORDER = 20
_CONE_PIXELS_PER_RADIUS = 16


def hpx29(ra_deg: ArrayLike, dec_deg: ArrayLike) -> Ints:
    """Return the HEALPix order-29 nested index of positions, none NaN; the parent at order k is `>> 2 * (29 - k)`.

    Parameters
    ----------
    ra_deg, dec_deg
        Positions, ICRS, degrees.

    Examples
    --------
    >>> hpx29([0.0, 266.4], [0.0, -29.0]).tolist()
    [1369094286720630784, 2028741010432736142]
    """
    ra, dec = _positions(ra_deg, dec_deg, missing_ok=False)
    return np.asarray(hpgeom.angle_to_pixel(HPX_NSIDE, ra, dec), dtype=np.int64)


def hpx29_to_radec(pix: ArrayLike) -> tuple[Floats, Floats]:
    """Return the centres, ICRS degrees, of order-29 nested pixels, 0.4 mas wide; ValueError names a wrong index.

    Parameters
    ----------
    pix
        Indices.
    """
    pixels = np.asarray(pix, dtype=np.int64)
    bad = np.flatnonzero((pixels < 0) | (pixels >= HPX_PIXELS))
    if bad.size:
        raise ValueError(f"{pixels.flat[bad[0]]} at index {bad[0]} is not an order-29 HEALPix pixel")
    ra, dec = hpgeom.pixel_to_angle(HPX_NSIDE, pixels)
    return np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)


def separation_arcsec(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> Floats:
    """Return the angle between positions in arcseconds, NaN where a coordinate is NaN.

    Accurate to double rounding from 0 to 180 degrees. This is the half-angle form of Vincenty's formula: it has only
    sums of squares, so nothing cancels, and swapping the two positions gives the same bits.

    Parameters
    ----------
    ra1, dec1, ra2, dec2
        Positions, degrees.

    Examples
    --------
    >>> float(separation_arcsec(10.0, 0.0, 10.0, 0.001).round(6))
    3.6
    """
    lat1, lat2 = np.asarray(dec1, dtype=np.float64), np.asarray(dec2, dtype=np.float64)
    # Differences are taken in degrees, where they are exact for neighbours, before going to radians.
    dlon = np.radians(np.asarray(ra2, dtype=np.float64) - np.asarray(ra1, dtype=np.float64)) / 2
    dlat = np.radians(lat2 - lat1) / 2
    mean = np.radians(lat2 + lat1) / 2
    half_sin = np.hypot(np.cos(dlon) * np.sin(dlat), np.sin(dlon) * np.cos(mean))
    half_cos = np.hypot(np.cos(dlon) * np.cos(dlat), np.sin(dlon) * np.sin(mean))
    return np.asarray(2 * np.arctan2(half_sin, half_cos) * ARCSEC_PER_RAD, dtype=np.float64)


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> Floats:
    """Return directions, shape (n, 3): x to (0, 0), y to (90, 0), z to the north pole; NaN where a coordinate is.

    Parameters
    ----------
    ra, dec
        Positions, degrees.
    """
    lon, lat = np.broadcast_arrays(*(np.radians(np.asarray(a, dtype=np.float64)) for a in (ra, dec)))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def chord(radius_arcsec: float) -> float:
    """Convert an angle to the distance, 0 to 2, between the unit vectors of two positions.

    Parameters
    ----------
    radius_arcsec
        The angle.
    """
    return float(2 * np.sin(_radii(radius_arcsec, missing_ok=False) / ARCSEC_PER_RAD / 2))


def cone_ranges(ra: float, dec: float, radius_arcsec: float, max_ranges: int = 8) -> list[tuple[int, int]]:
    """Return ranges of order-29 indices that together hold every position of a cone.

    They serve to skip files: no position within the radius is outside them, others may be inside. The cone is covered
    with pixels of a sixteenth of its radius (0.2 arcsec at least). The widest gaps in that cover are kept, which is
    the tightest cover for so few ranges: 8 ranges hold 1.5 times the cone's area.

    Parameters
    ----------
    ra, dec
        Centre, ICRS degrees.
    radius_arcsec
        Arcseconds, inclusive.
    max_ranges
        At most this many ranges, 1 or more.

    Returns
    -------
    list
        Inclusive (lo, hi), sorted, disjoint, not touching.

    Examples
    --------
    >>> pixel = int(hpx29(10.0, -30.0))
    >>> any(lo <= pixel <= hi for lo, hi in cone_ranges(10.0, -30.0, 1.0))
    True
    """
    if max_ranges < 1:
        raise ValueError(f"max_ranges must be at least 1, not {max_ranges}")
    lon, lat = _positions(ra, dec, missing_ok=False)
    radius_deg = (float(_radii(radius_arcsec, missing_ok=False)) + _CONE_PAD_ARCSEC) / ARCSEC_PER_DEG
    if radius_deg >= 180:
        return [(0, HPX_PIXELS - 1)]
    if radius_deg > 90:
        # query_circle of hpgeom 1.6.1 loses pixels antipodal to the centre when radius + pixel > 180 deg.
        order, pixels = 5, np.arange(12 * 4**5)
        far = separation_arcsec(lon, lat, *hpgeom.pixel_to_angle(2**order, pixels)) / ARCSEC_PER_DEG
        pixels = pixels[far <= radius_deg + hpgeom.max_pixel_radius(2**order)]
        cover = np.stack([pixels, pixels + 1], axis=-1)
    else:
        # Pixels of order k are sqrt(4 pi / 12) rad / 2^k wide.
        finest = np.log2(np.degrees(np.sqrt(np.pi / 3)) * _CONE_PIXELS_PER_RADIUS / radius_deg)
        order = min(int(finest), _CONE_MAX_ORDER)
        cover = hpgeom.query_circle(
            2**order, float(lon), float(lat), radius_deg, inclusive=True, return_pixel_ranges=True
        )
    starts, ends = (cover.astype(np.int64) << 2 * (HPX_ORDER - order)).T  # [start, end)
    gaps = starts[1:] - ends[:-1]
    kept = np.sort(np.argsort(-gaps, kind="stable")[: max_ranges - 1])
    kept = kept[gaps[kept] > 0]
    lows = [starts[0], *starts[kept + 1]]
    highs = [*ends[kept], ends[-1]]
    return [(int(low), int(high) - 1) for low, high in zip(lows, highs, strict=True)]


class SkyIndex:
    """A catalogue of positions, ICRS degrees of shape (n,), indexed once for many searches."""

    def __init__(self, ra: ArrayLike, dec: ArrayLike) -> None:
        self._ra, self._dec = (np.atleast_1d(a) for a in _positions(ra, dec))
        self._rows = np.flatnonzero(~(np.isnan(self._ra) | np.isnan(self._dec)))
        self._zones: tuple[float, Zones] | None = None

    @cached_property
    def _tree(self) -> cKDTree:
        from scipy.spatial import cKDTree  # a third of what `import lake` would take

        # The simplest kind is built in a third of the time, and searched as fast.
        directions = unit_vectors(self._ra[self._rows], self._dec[self._rows])
        return cKDTree(directions, balanced_tree=False, compact_nodes=False)

    def _zones_for(self, radius_arcsec: float) -> Zones:
        height = height_for(radius_arcsec, self._rows.size)
        if self._zones is None or self._zones[0] != height:
            # Only one is kept: each is as large as the catalogue.
            if self._rows.size == self._ra.size:
                zones = Zones(self._ra, self._dec, height)
            else:
                zones = Zones(self._ra[self._rows], self._dec[self._rows], height, self._rows)
            self._zones = height, zones
        return self._zones[1]

    def within(
        self,
        ra: ArrayLike,
        dec: ArrayLike,
        radius_arcsec: ArrayLike,
        strict: bool = False,
        chunk: int = 50_000,
        *,
        closer_arcsec: ArrayLike = np.inf,
    ) -> Pairs:
        """Find all pairs of a query position and an indexed one that are within a radius.

        Parameters
        ----------
        ra, dec
            Query positions, ICRS degrees, shape (m,).
        radius_arcsec
            Arcseconds: one for all, or one per query position (NaN finds nothing).
        strict
            Keep separations < radius instead of <= radius.
        chunk
            Query positions searched at a time. Memory grows with this and with the pairs found.
        closer_arcsec
            Keep only separations less than this, too: one for all, or one per indexed position.

        Returns
        -------
        tuple
            `i` (rows of the query), `j` (rows of the index), separations in arcseconds: one value per
            pair, sorted by (i, separation, j).
        """
        lon, lat = (np.atleast_1d(a) for a in _positions(ra, dec))
        radius = np.broadcast_to(_radii(radius_arcsec, missing_ok=True), lon.shape)
        closer = np.broadcast_to(np.asarray(closer_arcsec, dtype=np.float64), self._ra.shape)
        is_limited = np.ndim(closer_arcsec) > 0 or closer_arcsec != np.inf
        usable = np.flatnonzero(~(np.isnan(lon) | np.isnan(lat) | np.isnan(radius)))
        every = usable.size == lon.size
        if not every:
            lon, lat, radius = lon[usable], lat[usable], radius[usable]
        parts = []
        for rows, ra_of, dec_of, widest in together(lon, lat, radius, chunk):
            if not self._rows.size:
                break
            zones, radius_of = self._zones_for(widest), radius[rows]
            closer_of = closer[zones.rows] if is_limited else None
            closer_deg = None if closer_of is None else closer_of / ARCSEC_PER_DEG
            for at, place in zones.near(ra_of, dec_of, radius_of / ARCSEC_PER_DEG, closer_deg):
                separation = separation_arcsec(ra_of[at], dec_of[at], zones.ra[place], zones.dec[place])
                inside = separation < radius_of[at] if strict else separation <= radius_of[at]
                if closer_of is not None:
                    inside &= separation < closer_of[place]
                close = np.flatnonzero(inside)
                parts.append((rows[at[close]], zones.rows[place[close]], separation[close]))
        if not parts:
            return usable[:0], usable[:0], np.empty(0)
        i, j, separation = (np.concatenate(column) for column in zip(*parts, strict=True))
        return sorted_pairs(i if every else usable[i], j, separation)

    def nearest(self, ra: ArrayLike, dec: ArrayLike, radius_arcsec: float) -> Pairs:
        """Find the nearest indexed position within a radius of each query position that has one.

        Memory grows with the query positions only, however crowded the index is.

        Returns
        -------
        tuple
            As `within`, but one pair at most for each row of the query.
        """
        lon, lat = (np.atleast_1d(a) for a in _positions(ra, dec))
        i = np.flatnonzero(~(np.isnan(lon) | np.isnan(lat)))
        if not i.size or not self._rows.size:
            return i[:0], i[:0], np.empty(0)
        _, found = self._tree.query(
            unit_vectors(lon[i], lat[i]), distance_upper_bound=chord(radius_arcsec) + _CHORD_PAD
        )
        i, found = i[found < self._rows.size], found[found < self._rows.size]
        j = self._rows[found]
        separation = separation_arcsec(lon[i], lat[i], self._ra[j], self._dec[j])
        close = separation <= radius_arcsec
        return i[close], j[close], separation[close]

    def is_alone(self, radius_arcsec: float) -> NDArray[np.bool_]:
        """Return for each indexed position whether no other lies within a radius, or hardly more, of it."""
        alone = np.ones(self._ra.shape, bool)
        if self._rows.size > 1:
            directions = unit_vectors(self._ra[self._rows], self._dec[self._rows])
            reach, _ = self._tree.query(directions, k=2, distance_upper_bound=chord(radius_arcsec) + 2 * _CHORD_PAD)
            alone[self._rows] = ~np.isfinite(reach[:, 1])
        return alone


def match(
    ra1: ArrayLike,
    dec1: ArrayLike,
    ra2: ArrayLike,
    dec2: ArrayLike,
    radius_arcsec: ArrayLike,
    *,
    strict: bool = False,
    chunk: int = 50_000,
) -> Pairs:
    """Find all pairs of two catalogues that are within a radius.

    Parameters
    ----------
    ra1, dec1, ra2, dec2
        The catalogues, ICRS degrees, shapes (n,) and (m,).
    radius_arcsec
        Arcseconds: one for all, or shape (m,), such as each event's own error radius.
    strict, chunk
        As in `SkyIndex.within`.

    Returns
    -------
    tuple
        `i` (rows of the first), `j` (rows of the second), separations in arcseconds: one value per pair,
        sorted by (i, separation, j), so that `ranks(i)` is 1 for the nearest.

    Examples
    --------
    >>> i, j, separation = match([10.0, 20.0], [5.0, 5.0], [10.0, 10.0001, 30.0], [5.0, 5.0, 5.0], 1.0)
    >>> i.tolist(), j.tolist(), separation.round(3).tolist(), ranks(i).tolist()
    ([0, 0], [0, 1], [0.0, 0.359], [1, 2])
    """
    if np.ndim(radius_arcsec) == 0:
        return SkyIndex(ra2, dec2).within(ra1, dec1, radius_arcsec, strict, chunk)
    j, i, separation = SkyIndex(ra1, dec1).within(ra2, dec2, radius_arcsec, strict, chunk)
    return sorted_pairs(i, j, separation)


def ranks(i: ArrayLike) -> NDArray[np.int32]:
    """Count the pairs of each `i` from 1, in the order of `match`; ValueError if `i` is not sorted.

    Parameters
    ----------
    i
        First indices of pairs, as `match` returns them.
    """
    keys = np.asarray(i)
    if np.any(keys[1:] < keys[:-1]):
        raise ValueError("ranks needs sorted keys")
    return (np.arange(keys.size) - np.searchsorted(keys, keys) + 1).astype(np.int32)


def apply_proper_motion(
    ra: ArrayLike,
    dec: ArrayLike,
    pm_ra_masyr: ArrayLike,
    pm_dec_masyr: ArrayLike,
    from_epoch_yr: ArrayLike,
    to_epoch_yr: ArrayLike,
) -> tuple[Floats, Floats]:
    """Move positions to another epoch, uniformly along the tangent plane.

    This is the standard model without parallax and radial velocity (ESA SP-1200, vol. 1, sect. 1.5.5). It ignores the
    perspective acceleration, at most that of Barnard's star, 1.3 mas/yr^2.

    Parameters
    ----------
    ra, dec
        ICRS degrees.
    pm_ra_masyr, pm_dec_masyr
        Proper motion in mas/yr; in right ascension with the cos(dec). NaN is none.
    from_epoch_yr, to_epoch_yr
        Julian years, such as 2016.0. Not used where there is no proper motion.

    Returns
    -------
    tuple
        Right ascension in [0, 360) and declination, ICRS degrees.

    Examples
    --------
    Barnard's star from J2000 to Gaia's epoch, 2.8 arcmin further north:

    >>> ra, dec = apply_proper_motion(269.45208, 4.69339, -801.6, 10362.4, 2000.0, 2016.0)
    >>> float(ra.round(5)), float(dec.round(5))
    (269.44851, 4.73945)
    """
    lon, lat = _positions(ra, dec)
    years = np.asarray(to_epoch_yr, dtype=np.float64) - np.asarray(from_epoch_yr, dtype=np.float64)
    pm = (np.asarray(a, dtype=np.float64) for a in (pm_ra_masyr, pm_dec_masyr))
    east, north = (np.where(np.isnan(a) | (a == 0), 0.0, a * years) / 1000 / ARCSEC_PER_RAD for a in pm)
    # In the frame turned by the right ascension: x outward, east, z north.
    x = np.cos(np.radians(lat)) - north * np.sin(np.radians(lat))
    z = np.sin(np.radians(lat)) + north * np.cos(np.radians(lat))
    still = (east == 0) & (north == 0)
    moved_lon = _turned(lon + np.degrees(np.arctan2(east, x)))
    moved_lat = np.degrees(np.arctan2(z, np.hypot(x, east)))
    return np.where(still, lon, moved_lon), np.where(still, lat, moved_lat)


def _turned(lon: Floats) -> Floats:
    """Bring right ascension into [0, 360); the remainder of a tiny negative angle rounds to 360 itself."""
    if np.all((lon >= 0.0) & (lon < 360.0)):
        return lon + 0.0  # no negative zero
    turned = np.mod(lon, 360.0)
    return np.where(turned >= 360.0, 0.0, turned)


def _positions(ra: ArrayLike, dec: ArrayLike, *, missing_ok: bool = True) -> tuple[Floats, Floats]:
    lon, lat = np.broadcast_arrays(np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64))
    missing = np.isnan(lon) | np.isnan(lat)
    bad = np.flatnonzero(np.isinf(lon) | (np.abs(lat) > 90) | (missing & (not missing_ok)))
    if bad.size:
        at = bad[0]
        raise ValueError(f"ra={lon.flat[at]}, dec={lat.flat[at]} at index {at} is not a position on the sky")
    return _turned(lon), lat


def _radii(radius_arcsec: ArrayLike, *, missing_ok: bool) -> Floats:
    radius = np.asarray(radius_arcsec, dtype=np.float64)
    fine = (radius >= 0) & (radius <= 180 * ARCSEC_PER_DEG) | (np.isnan(radius) & missing_ok)
    bad = np.flatnonzero(~fine)
    if bad.size:
        at = bad[0]
        raise ValueError(f"radius {radius.flat[at]} arcsec at index {at} is not of 0 to 180 degrees")
    return radius
