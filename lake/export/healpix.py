"""Divide targets over HEALPix pixels of about equal weight, and find those near the pixels' edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import hpgeom
import numpy as np
from numpy.typing import NDArray

from lake.science.sky import ARCSEC_PER_DEG, HPX_ORDER

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BASE_PIXELS = 12

# No pixel is smaller than order 12, 51 arcsec wide: catalogues in HATS hardly go further.
FINEST = 12

# A pixel whose width is four times a radius is, distorted as it may be, further than the radius from what does not
# touch it.
_WIDTHS = 4
# The exact search uses pixels that are smaller by so many orders.
_FINER = 4
# hpgeom works with z = cos(theta), which resolves only 3 mas near a pole.
_PAD_ARCSEC = 0.01

_PIXEL_WIDTH_ARCSEC = float(np.degrees(np.sqrt(np.pi / 3))) * ARCSEC_PER_DEG


@dataclass(frozen=True, order=True)
class Pixel:
    """A HEALPix pixel, nested.

    Examples
    --------
    >>> Pixel(5, 10_240).folder
    'Norder=5/Dir=10000/Npix=10240.parquet'
    """

    order: int
    number: int

    @property
    def low(self) -> int:
        """Return its first pixel of order 29."""
        return self.number << 2 * (HPX_ORDER - self.order)

    @property
    def high(self) -> int:
        """Return the pixel of order 29 after its last."""
        return (self.number + 1) << 2 * (HPX_ORDER - self.order)

    @property
    def folder(self) -> str:
        """Return the path of its file below the dataset, as HATS has it."""
        return f"Norder={self.order}/Dir={self.number // 10_000 * 10_000}/Npix={self.number}.parquet"

    @property
    def children(self) -> list[Pixel]:
        """Return the four pixels of the next order."""
        return [Pixel(self.order + 1, 4 * self.number + n) for n in range(4)]


@dataclass(frozen=True)
class Partition:
    """A pixel, and the targets in it: rows first to last, without last, of targets sorted by hpx29."""

    pixel: Pixel
    first: int
    last: int

    @property
    def is_empty(self) -> bool:
        """Say whether no target is in it."""
        return self.first == self.last


def finest_order(margin_arcsec: float) -> int:
    """Return the deepest order whose pixels are large enough for a margin.

    Examples
    --------
    >>> finest_order(10.0), finest_order(60.0)
    (12, 9)
    """
    if margin_arcsec <= 0:
        return FINEST
    return max(0, min(FINEST, int(np.log2(_PIXEL_WIDTH_ARCSEC / (_WIDTHS * margin_arcsec)))))


def partitions(hpx29: Ints, weights: Ints, limit: int, finest: int = FINEST) -> list[Partition]:
    """Divide the whole sky into pixels that weigh no more than a limit, each as large as that allows.

    A pixel that holds a single target, or that is of the finest order, may weigh more.

    Parameters
    ----------
    hpx29
        Pixels of order 29 of the targets, sorted.
    weights
        What each weighs.
    limit
        Largest weight of a pixel.
    finest
        Deepest order.

    Returns
    -------
    list of Partition
        Pixels that cover the sky once, sorted along it; those without targets are as large as they can be.

    Examples
    --------
    >>> found = partitions(np.array([0, 1 << 57, 5 << 58]), np.array([1, 1, 1]), 1)
    >>> [(one.pixel.order, one.pixel.number) for one in found if not one.is_empty]
    [(1, 0), (1, 2), (0, 5)]
    """
    before = np.concatenate([[0], np.cumsum(weights, dtype=np.int64)])
    found = []
    waiting = [Pixel(0, number) for number in reversed(range(BASE_PIXELS))]
    while waiting:
        pixel = waiting.pop()
        first, last = (int(one) for one in np.searchsorted(hpx29, [pixel.low, pixel.high]))
        if last - first > 1 and before[last] - before[first] > limit and pixel.order < finest:
            waiting += reversed(pixel.children)
        else:
            found.append(Partition(pixel, first, last))
    return found


def margins(hpx29: Ints, ra: Floats, dec: Floats, parts: Sequence[Partition], radius_arcsec: float) -> list[Ints]:
    """Find the targets within a radius of each pixel that are not in it.

    Parameters
    ----------
    hpx29, ra, dec
        The targets, ICRS degrees, sorted by hpx29.
    parts
        What `partitions` made of them, with a finest order of at most `finest_order(radius_arcsec)`.
    radius_arcsec
        The radius. Some targets that are up to half of it further away come, too.

    Returns
    -------
    list of ndarray
        For each pixel, rows of the targets, sorted.
    """
    found: list[list[int]] = [[] for _ in parts]
    if radius_arcsec > 0 and len(hpx29):
        lows = np.array([part.pixel.low for part in parts], dtype=np.int64)
        order = finest_order(radius_arcsec)
        own = _within(hpx29, lows)
        near = hpgeom.neighbors(2**order, hpx29 >> 2 * (HPX_ORDER - order)).astype(np.int64)
        beside = _within(np.maximum(near, 0) << 2 * (HPX_ORDER - order), lows)
        at_edge = ((beside != own[:, np.newaxis]) & (near >= 0)).any(axis=1)
        finer = min(order + _FINER, HPX_ORDER)
        radius = (radius_arcsec + _PAD_ARCSEC) / ARCSEC_PER_DEG
        for row in np.flatnonzero(at_edge):
            disc = hpgeom.query_circle(2**finer, float(ra[row]), float(dec[row]), radius, inclusive=True)
            for part in np.unique(_within(disc.astype(np.int64) << 2 * (HPX_ORDER - finer), lows)):
                if part != own[row]:
                    found[part].append(int(row))
    return [np.array(rows, dtype=np.int64) for rows in found]


def _within(pixels: Ints, lows: Ints) -> Ints:
    """Return which partition, by number, each pixel of order 29 is in."""
    return (np.searchsorted(lows, pixels, side="right") - 1).astype(np.int64)
