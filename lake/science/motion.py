"""Follow targets with proper motion: to an epoch, or along their path over the years of a survey.

Targets with an incomplete proper motion, or without an epoch, stay at their listed position. Stars move as in
`lake.science.sky.apply_proper_motion`: without parallax (0.8 arcsec at most) and perspective acceleration.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from lake.science.sky import Floats, Ints, Pairs, SkyIndex, apply_proper_motion, match, separation_arcsec, unit_vectors

# Julian epoch J2000.0 is JD 2451545.0, and a Julian year is 365.25 days (IAU 1976; J. H. Lieske 1979, A&A 73, 282).
J2000, J2000_MJD, JULIAN_YEAR_D = 2000.0, 51544.5, 365.25

_UNIX_MJD = 40587.0

# Circles around paths are this much wider, so that rounding loses nothing at the ends.
_PAD_ARCSEC = 1e-6

# An answer stays valid if its target moved by less than this part of the match radius.
TOLERATED_SHIFT = 0.1


def julian_year(mjd: ArrayLike) -> Floats:
    """Convert MJDs to Julian years; differences between time scales do not matter here.

    Examples
    --------
    >>> float(julian_year(57388.5))
    2016.0
    """
    return np.asarray(J2000 + (np.asarray(mjd, np.float64) - J2000_MJD) / JULIAN_YEAR_D)


@dataclass(frozen=True)
class Span:
    """When a survey observed.

    Parameters
    ----------
    first_yr, last_yr
        Julian years; the last is None for a survey that continues.
    cited
        Where the years are published.
    """

    first_yr: float
    last_yr: float | None
    cited: str

    @property
    def description(self) -> str:
        """Describe the span in words."""
        return f"{self.first_yr} to {'now' if self.last_yr is None else self.last_yr} ({self.cited})"

    @property
    def years(self) -> tuple[float, float]:
        """Return the first and the last year, which is today's for a survey that continues."""
        now = float(julian_year(_UNIX_MJD + datetime.now(UTC).timestamp() / 86400))
        return self.first_yr, now if self.last_yr is None else self.last_yr


@dataclass(frozen=True)
class Followed:
    """Tells which answers of an archive followed proper motion, and which are due again because they did not.

    Parameters
    ----------
    parameters
        Value of `parameters` in table coverage for a target whose proper motion was followed.
    span, radius_arcsec
        When the archive observed, and the match radius.
    """

    parameters: str
    span: Span
    radius_arcsec: float

    @property
    def is_far(self) -> str:
        """Return an SQL condition on table targets: the target moved too far for an answer that did not follow it."""
        first, last = self.span.years
        return (
            f"coalesce(sqrt(pm_ra * pm_ra + pm_dec * pm_dec) / 1000 "
            f"* greatest(abs(ref_epoch - {first!r}), abs(ref_epoch - {last!r})) "
            f"> {float(self.radius_arcsec) * TOLERATED_SHIFT!r}, false)"
        )


def positions_at(targets: pa.Table, year: ArrayLike) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Move targets to a Julian year; also return which of them have a proper motion and an epoch."""
    ra, dec, pm_ra, pm_dec, epoch, known = _columns(targets)
    return *apply_proper_motion(ra, dec, pm_ra, pm_dec, epoch, np.where(known, year, epoch)), known


def has_motion(targets: pa.Table) -> NDArray[np.bool_]:
    """Return which targets have a proper motion and an epoch."""
    return _columns(targets)[-1]


def _columns(targets: pa.Table) -> tuple[Floats, Floats, Floats, Floats, Floats, NDArray[np.bool_]]:
    names = ("ra", "dec", "pm_ra", "pm_dec", "ref_epoch")
    ra, dec, pm_ra, pm_dec, epoch = (
        np.asarray(targets[name].cast(pa.float64()).to_numpy(), np.float64) for name in names
    )
    known = ~(np.isnan(pm_ra) | np.isnan(pm_dec) | np.isnan(epoch))
    pm_ra, pm_dec, epoch = np.where(known, (pm_ra, pm_dec, epoch), np.array([[0.0], [0.0], [J2000]]))
    return ra, dec, pm_ra, pm_dec, epoch, known


class Paths:
    """The paths of targets over the span of a survey; most are points.

    Parameters
    ----------
    targets
        Columns ra, dec, pm_ra, pm_dec, ref_epoch of table targets.
    span
        When the survey observed.

    Attributes
    ----------
    ra, dec
        Centres of circles that hold the paths, ICRS degrees.
    moves
        Which targets move.
    """

    def __init__(self, targets: pa.Table, span: Span) -> None:
        *self._motion, known = _columns(targets)
        self._first, self._last = span.years
        self.moves = known & ((self._motion[2] != 0) | (self._motion[3] != 0))
        everyone = np.arange(targets.num_rows)
        middle = np.where(self.moves, (self._first + self._last) / 2, self._motion[4])
        self.ra, self.dec = self.at(everyone, middle)
        # A star's path is part of a great circle, so one of its ends is farthest from any point of it.
        ends = (separation_arcsec(self.ra, self.dec, *self.at(everyone, year)) for year in (self._first, self._last))
        self._half = np.where(self.moves, np.maximum(*ends) + _PAD_ARCSEC, 0.0)

    def at(self, row: Ints, year: ArrayLike) -> tuple[Floats, Floats]:
        """Move targets, given by their rows, to Julian years."""
        ra, dec, pm_ra, pm_dec, epoch = (column[row] for column in self._motion)
        return apply_proper_motion(ra, dec, pm_ra, pm_dec, epoch, year)

    def reach(self, radius_arcsec: float) -> float | Floats:
        """Return the radii, around the centres, that hold all sources near the paths; one if no target moves."""
        return radius_arcsec + self._half if self.moves.any() else radius_arcsec

    def closest(self, row: Ints, ra: Floats, dec: Floats) -> Floats:
        """Return how close, in arcseconds, targets came to positions at any time of the span."""
        begin, end = (unit_vectors(*self.at(row, year)) for year in (self._first, self._last))
        # Along the chord: paths are minutes of arc at most, on which a star keeps its pace.
        along = end - begin
        length = np.sum(along * along, axis=-1)
        part = np.sum((unit_vectors(ra, dec) - begin) * along, axis=-1) / np.where(length > 0, length, 1.0)
        then = self._first + np.clip(part, 0.0, 1.0) * (self._last - self._first)
        return separation_arcsec(*self.at(row, then), ra, dec)

    def match(self, ra: Floats, dec: Floats, radius_arcsec: float, times: tuple[Ints, Floats] | None = None) -> Pairs:
        """Find all pairs of a target and a source that were within a radius when the source was observed.

        For a source with several times, one of them is enough: a source that the target only passed counts, too.

        Parameters
        ----------
        ra, dec
            Sources, ICRS degrees.
        radius_arcsec
            Arcseconds, inclusive.
        times
            When sources were observed: their rows, and Julian years. A source without a time may have been observed
            at any time of the span.

        Returns
        -------
        tuple
            As from `lake.science.sky.match`; the separation is the smallest at any of the source's times.
        """
        if not self.moves.any():
            return match(self.ra, self.dec, ra, dec, radius_arcsec)
        i, j, separation = SkyIndex(ra, dec).within(self.ra, self.dec, self.reach(radius_arcsec))
        moving = np.flatnonzero(self.moves[i])
        separation[moving] = self.closest(i[moving], ra[j[moving]], dec[j[moving]])
        near = separation <= radius_arcsec
        i, j, separation = i[near], j[near], separation[near]
        if times is not None:
            source, year = times
            order = np.argsort(source, kind="stable")
            begin, end = (np.searchsorted(source[order], j, side) for side in ("left", "right"))
            timed = np.flatnonzero(self.moves[i] & (end > begin))
            n = (end - begin)[timed]
            pair = np.repeat(timed, n)
            offset = np.arange(len(pair)) - np.repeat(np.cumsum(n) - n, n)
            then = year[order[begin[pair] + offset]]
            each = separation_arcsec(*self.at(i[pair], then), ra[j[pair]], dec[j[pair]])
            if len(timed):
                separation[timed] = np.minimum.reduceat(each, np.cumsum(n) - n)
        kept = np.flatnonzero(separation <= radius_arcsec)
        kept = kept[np.lexsort((j[kept], separation[kept], i[kept]))]
        return i[kept], j[kept], separation[kept]
