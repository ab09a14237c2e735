"""Where targets with proper motion were when an archive looked: at an epoch, or along their path over a survey.

Targets whose proper motion or epoch is not known whole are taken where they are. Stars move as in
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

# A circle around a path is drawn so much wider, so that rounding loses nothing at its ends.
_PAD_ARCSEC = 1e-6

# Shifts smaller than this part of the match radius leave an answer as good as it was.
TOLERATED = 0.1


def julian_year(mjd: ArrayLike) -> Floats:
    """Return Julian years of MJDs; no difference between time scales matters here."""
    return np.asarray(J2000 + (np.asarray(mjd, np.float64) - J2000_MJD) / JULIAN_YEAR_D)


@dataclass(frozen=True)
class Span:
    """When a survey observed.

    Parameters
    ----------
    first_yr, last_yr
        Julian years; no last one if it goes on.
    said_by
        Who says so.
    """

    first_yr: float
    last_yr: float | None
    said_by: str

    @property
    def told(self) -> str:
        """Return it in words."""
        return f"{self.first_yr} to {'now' if self.last_yr is None else self.last_yr} ({self.said_by})"

    @property
    def years(self) -> tuple[float, float]:
        """Return the first and the last year; that of today if it goes on."""
        now = float(julian_year(_UNIX_MJD + datetime.now(UTC).timestamp() / 86400))
        return self.first_yr, now if self.last_yr is None else self.last_yr


@dataclass(frozen=True)
class Followed:
    """Says of the answers of an archive which of them followed proper motion, and which are due since they did not.

    Parameters
    ----------
    parameters
        What table coverage has of a target whose proper motion was followed.
    span, radius_arcsec
        When the archive looked, and how far from the target.
    """

    parameters: str
    span: Span
    radius_arcsec: float

    @property
    def is_far(self) -> str:
        """Return the condition, in SQL on table targets, that a target was too far off for an answer that did not."""
        first, last = self.span.years
        return (
            f"coalesce(sqrt(pm_ra * pm_ra + pm_dec * pm_dec) / 1000 "
            f"* greatest(abs(ref_epoch - {first!r}), abs(ref_epoch - {last!r})) "
            f"> {float(self.radius_arcsec) * TOLERATED!r}, false)"
        )


def places_at(targets: pa.Table, year: ArrayLike) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return where targets were in a Julian year, and which of them have a proper motion and an epoch."""
    ra, dec, pm_ra, pm_dec, epoch, known = _columns(targets)
    return *apply_proper_motion(ra, dec, pm_ra, pm_dec, epoch, np.where(known, year, epoch)), known


def has_motion(targets: pa.Table) -> NDArray[np.bool_]:
    """Say which targets have a proper motion and an epoch."""
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
    """The paths of some targets over the span of a survey; those of most are points.

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
        Which targets move at all.
    """

    def __init__(self, targets: pa.Table, span: Span) -> None:
        *self._motion, known = _columns(targets)
        self._first, self._last = span.years
        self.moves = known & ((self._motion[2] != 0) | (self._motion[3] != 0))
        everyone = np.arange(targets.num_rows)
        middle = np.where(self.moves, (self._first + self._last) / 2, self._motion[4])
        self.ra, self.dec = self.at(everyone, middle)
        # A star's path is part of a great circle, so that one of its ends is the farthest from a point of it.
        ends = (separation_arcsec(self.ra, self.dec, *self.at(everyone, year)) for year in (self._first, self._last))
        self._half = np.where(self.moves, np.maximum(*ends) + _PAD_ARCSEC, 0.0)

    def at(self, row: Ints, year: ArrayLike) -> tuple[Floats, Floats]:
        """Return where targets, by their rows, were in Julian years."""
        ra, dec, pm_ra, pm_dec, epoch = (column[row] for column in self._motion)
        return apply_proper_motion(ra, dec, pm_ra, pm_dec, epoch, year)

    def reach(self, radius_arcsec: float) -> float | Floats:
        """Return radii of the circles, around the centres, that hold all that is near a path; one if none moves."""
        return radius_arcsec + self._half if self.moves.any() else radius_arcsec

    def closest(self, row: Ints, ra: Floats, dec: Floats) -> Floats:
        """Return how close, in arcseconds, targets came to some places at any time of the span."""
        begin, end = (unit_vectors(*self.at(row, year)) for year in (self._first, self._last))
        # Along the chord: paths are minutes of arc at most, on which a star keeps its pace.
        along = end - begin
        length = np.sum(along * along, axis=-1)
        part = np.sum((unit_vectors(ra, dec) - begin) * along, axis=-1) / np.where(length > 0, length, 1.0)
        then = self._first + np.clip(part, 0.0, 1.0) * (self._last - self._first)
        return separation_arcsec(*self.at(row, then), ra, dec)

    def match(self, ra: Floats, dec: Floats, radius_arcsec: float, times: tuple[Ints, Floats] | None = None) -> Pairs:
        """All pairs of a target and a source that the target was within a radius of when it was observed.

        Of a source of several times, one will do: what a target passed just then is there, too, as any neighbour is.

        Parameters
        ----------
        ra, dec
            Sources, ICRS degrees.
        radius_arcsec
            Arcseconds, inclusive.
        times
            When sources were observed: rows of them, and Julian years; one of which nothing is known may have been
            observed at any time of the span.

        Returns
        -------
        tuple
            As from `lake.science.sky.match`; the separation is the least of those at the source's times.
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
