"""Neighbours on the sky by zones of declination: sorted keys in place of a tree.

This is J. Gray et al. 2007, "The Zones Algorithm". Each row of a catalogue is one integer: its zone, its right
ascension, its row. Sorted once, the rows near a position are a range of keys in each zone that its circle meets. Ranges
hold every neighbour, and others, of which the exact separation decides. Sorting and reading in order is what processors
do well; a tree jumps about in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ARCSEC_PER_DEG = 3600.0

# Zones are this many times the radius high: most circles then lie in one zone, and ranges stay short. Where a square as
# wide as the radius has many rows, what a range has beside the circle costs more than several zones.
_HEIGHT_PER_RADIUS, _HEIGHT_IF_CROWDED = 8.0, 1.0
_CROWDED = 10.0
_SKY_DEG2 = 129600 / np.pi
_MIN_HEIGHT_DEG = 0.5 / _ARCSEC_PER_DEG
# Ranges look further than the radius by this: 10 times what the rounding of degrees near 360 makes of a separation.
_PAD_DEG = 2e-9 / _ARCSEC_PER_DEG
_PAD_RATIO = 1e-9
_RA_BITS = 32
# Candidates that are looked at together: bounds the memory of crowded fields.
_CANDIDATES = 2_000_000


class Zones:
    """Positions, right ascension in [0, 360) and none missing, sorted by zone of declination.

    Parameters
    ----------
    ra, dec
        Positions, degrees.
    height_deg
        Height of a zone.
    numbers
        What the rows are called, if not 0, 1, ...
    """

    def __init__(self, ra: Floats, dec: Floats, height_deg: float, numbers: Ints | None = None) -> None:
        self._height = height_deg
        zone_bits = int(self._zone(90.0)).bit_length()
        self._row_bits = int(max(ra.size - 1, 1)).bit_length()
        self._ra_bits = min(_RA_BITS, 62 - zone_bits - self._row_bits)
        keys = ((self._zone(dec) << self._ra_bits) | self._ra_key(ra)) << self._row_bits
        keys |= np.arange(ra.size)
        keys.sort()
        self._keys = keys
        order = keys & ((1 << self._row_bits) - 1)
        self.ra, self.dec = ra[order], dec[order]
        self.rows = order if numbers is None else numbers[order]

    def _zone(self, dec: Floats | float) -> Ints:
        return np.floor((np.clip(dec, -90.0, 90.0) + 90.0) / self._height).astype(np.int64)

    def _ra_key(self, ra: Floats) -> Ints:
        return np.minimum((ra * (2.0**self._ra_bits / 360.0)).astype(np.int64), (1 << self._ra_bits) - 1)

    def near(
        self, ra: Floats, dec: Floats, radius_deg: Floats, closer_deg: Floats | None = None
    ) -> Iterator[tuple[Ints, Ints]]:
        """Find pairs of a position and a sorted row that may lie within a radius: all that do, and some more.

        Parameters
        ----------
        ra, dec
            Positions, right ascension in [0, 360), degrees. Neighbours on the sky are found fastest together.
        radius_deg
            The radius of each.
        closer_deg
            Of each sorted row, how far it may be at most, if that is less.

        Yields
        ------
        tuple
            Indices of positions, and of `rows`, `ra` and `dec`, which are sorted.
        """
        wide = _padded(radius_deg)
        most = None if closer_deg is None else _padded(closer_deg)
        low, high = dec - wide, dec + wide
        first, last = self._zone(low), self._zone(high)
        # A circle reaches asin(sin r / cos dec) in right ascension, which is at most x + (pi/2 - 1) x^3; one that
        # comes close to a pole reaches all around.
        near_pole = np.maximum(high, -low) >= 90.0 - _PAD_DEG
        ratio = np.sin(np.radians(np.where(near_pole, 0.0, wide))) / np.cos(np.radians(np.where(near_pole, 0.0, dec)))
        half = np.degrees(ratio + (np.pi / 2 - 1) * ratio**3) * (1 + _PAD_RATIO)
        around = near_pole | (half >= 180.0)
        west = np.where(around, 0.0, ra - half)
        east = np.where(around, 360.0, ra + half)
        every = np.arange(ra.size)
        # What lies beyond 0 or 360 degrees is another range.
        parts = [(every, np.maximum(west, 0.0), np.minimum(east, 360.0))]
        if (over := np.flatnonzero(west < 0)).size:
            parts.append((over, west[over] + 360.0 - _PAD_DEG, np.full(over.size, 360.0)))
        if (over := np.flatnonzero(east > 360)).size:
            parts.append((over, np.zeros(over.size), east[over] - 360.0 + _PAD_DEG))
        for at, begin, end in parts:
            lows, highs = self._ra_key(begin), self._ra_key(end)
            for step in range(int((last - first)[at].max()) + 1):
                meets = np.flatnonzero(first[at] + step <= last[at])
                circle = at[meets]
                zone = (first[circle] + step) << self._ra_bits
                start, stop = self._ranges(zone | lows[meets], zone | highs[meets])
                for position, place in _expanded(start, stop):
                    i = circle[position]
                    reach = wide[i] if most is None else np.minimum(wide[i], most[place])
                    close = np.flatnonzero(np.abs(self.dec[place] - dec[i]) <= reach)
                    yield i[close], place[close]

    def _ranges(self, low: Ints, high: Ints) -> tuple[Ints, Ints]:
        """Return where ranges of keys, inclusive, begin and end."""
        low, high = low << self._row_bits, (high + 1) << self._row_bits
        # Within the part of the keys that these can meet, which stays in the processor's cache.
        at, end = np.searchsorted(self._keys, [low.min(), high.max()])
        keys = self._keys[at:end]
        return at + np.searchsorted(keys, low), at + np.searchsorted(keys, high)


def _padded(radius_deg: Floats) -> Floats:
    return np.asarray(radius_deg * (1 + _PAD_RATIO) + _PAD_DEG)


def height_for(radius_arcsec: float, rows: int = 0) -> float:
    """Return the height, degrees, of zones that suit a radius: a power of two, so that like radii share zones.

    Parameters
    ----------
    radius_arcsec
        The radius.
    rows
        Rows of the catalogue, as if all over the sky.
    """
    radius_deg = radius_arcsec / _ARCSEC_PER_DEG
    is_crowded = rows * radius_deg**2 > _CROWDED * _SKY_DEG2
    wanted = max(radius_deg * (_HEIGHT_IF_CROWDED if is_crowded else _HEIGHT_PER_RADIUS), _MIN_HEIGHT_DEG)
    return float(min(2.0 ** np.floor(np.log2(wanted)), 180.0))


def together(ra: Floats, dec: Floats, radius: Floats, chunk: int) -> Iterator[tuple[Ints, Floats, Floats, float]]:
    """Return pieces of positions that are alike in radius and neighbours on the sky, and the largest radius alike.

    Parameters
    ----------
    ra, dec, radius
        Positions, degrees, and their radii, arcseconds.
    chunk
        Rows of a piece.

    Yields
    ------
    tuple
        Rows, right ascensions, declinations, largest radius.
    """
    if not ra.size:
        return
    # Their radii differ by less than a factor of 2, so that zones suit them all.
    exponents = np.frexp(radius)[1] if radius.min() < radius.max() else np.zeros(1, np.intc)
    for exponent in np.unique(exponents):
        alike = np.arange(ra.size) if exponents.size < ra.size else np.flatnonzero(exponents == exponent)
        widest = float(radius[alike].max())
        lon, lat = (ra, dec) if alike.size == ra.size else (ra[alike], dec[alike])
        if alike.size > chunk:
            zones = Zones(lon, lat, height_for(widest))
            lon, lat, alike = zones.ra, zones.dec, alike[zones.rows] if alike.size < ra.size else zones.rows
        for start in range(0, alike.size, chunk):
            piece = slice(start, start + chunk)
            yield alike[piece], lon[piece], lat[piece], widest


def sorted_pairs(i: Ints, j: Ints, separation: Floats) -> tuple[Ints, Ints, Floats]:
    """Sort pairs by (i, separation, j).

    Parameters
    ----------
    i, j, separation
        The pairs.
    """
    order = _stable_order(i)
    i = i[order]
    same = i[1:] == i[:-1]
    if same.any():
        # Sorting by more keys takes longer, so only where the first does not decide.
        several = np.zeros(i.size, bool)
        several[1:] = same
        several[:-1] |= same
        tied, of = order[several], i[several]
        by_separation = np.argsort(separation[tied])
        tied = tied[by_separation[_stable_order(of[by_separation])]]
        equal = np.append(False, (of[1:] == of[:-1]) & (separation[tied[1:]] == separation[tied[:-1]]))
        if equal.any():
            equal[:-1] |= equal[1:]
            last = tied[equal]
            tied[equal] = last[np.lexsort((j[last], separation[last], of[equal]))]
        order[several] = tied
    return i, j[order], separation[order]


def _stable_order(i: Ints) -> Ints:
    """Return the order that sorts numbers; equal ones stay as they are."""
    bits = int(max(i.size - 1, 1)).bit_length()
    if i.size and int(i.max()).bit_length() + bits <= 62:
        # Sorting integers is several times as fast as finding the order that sorts them.
        keys = (i << bits) | np.arange(i.size)
        keys.sort()
        return np.asarray(keys & ((1 << bits) - 1))
    return np.argsort(i, kind="stable")


def _expanded(start: Ints, stop: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Return ranges one by one, as (range, member), so many at a time that memory is bounded."""
    filled = np.flatnonzero(stop > start)
    count = (stop - start)[filled]
    ends = np.cumsum(count)
    at = 0
    while at < filled.size:
        done = int(ends[at - 1]) if at else 0
        # At least one range, which may be longer than the bound, but not than the catalogue.
        until = max(at + 1, int(np.searchsorted(ends, done + _CANDIDATES, side="right")))
        some, size = filled[at:until], count[at:until]
        before = ends[at:until] - size - done
        member = np.arange(int(size.sum())) + np.repeat(start[some] - before, size)
        yield np.repeat(some, size), member
        at = until
