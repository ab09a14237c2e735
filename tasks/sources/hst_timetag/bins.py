"""Bins of time, and how much of each was observed: good time intervals, and the Sun's height as HST saw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lake.errors import GranuleRejected
from tasks.sources.hst_timetag.events import Array, EventTable
from tasks.sources.hst_timetag.options import STEP_S

# A light curve has so many bins at most: 8 minutes in bins of 0.1 ms. Those of an exposure take 0.1 kB each.
MOST_BINS = 5_000_000

# Edges are sums of steps in floating point.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Bins:
    """Bins of equal length, seconds since EXPSTART.

    Parameters
    ----------
    start_s
        Left edge of the first.
    step_s
        Length of each.
    number
        How many there are.
    """

    start_s: float
    step_s: float
    number: int

    @property
    def left(self) -> Array:
        """Return the left edge of each bin."""
        return self.start_s + self.step_s * np.arange(self.number)

    def index(self, times: Array) -> Array:
        """Return the bin of each time; -1 or `number` and above for times before the first and after the last bin."""
        # In place: an exposure has millions of times.
        place = times - self.start_s
        place /= self.step_s
        place += _TOLERANCE
        return np.floor(place, out=place).astype(np.int64)


def bins(tables: Sequence[EventTable], step_s: float = STEP_S) -> Bins:
    """Return the bins of an exposure: from the first event that all segments have to the last event of any.

    The last bin is left out if the exposure ends within it. The end is never later than the end of the good times,
    or without these than EXPTIME. EXPTIME alone would be wrong: gaps are not in it, so it cuts off real data.

    Parameters
    ----------
    tables
        Segments of one exposure, each with one event at least.
    step_s
        Length of a bin, seconds.

    Raises
    ------
    GranuleRejected
        If there would be more than `MOST_BINS`.
    """
    times = [table.time_range for table in tables]
    ends = [
        table.exposure_s if table.good_times is None or not len(table.good_times) else table.good_times[:, 1].max()
        for table in tables
    ]
    start, end = max(one.first for one in times), min(max(one.last for one in times), max(ends))
    number = (end - start) / step_s + _TOLERANCE
    if number > MOST_BINS:
        raise GranuleRejected(
            f"{end - start:g} s have more than {MOST_BINS:,} bins of {step_s:g} s: bins must be longer"
        )
    return Bins(start, step_s, max(int(np.floor(number)), 0))


def good_intervals(table: EventTable, sun_below_deg: float | None = None) -> Array | None:
    """Return when a segment was observed: its good times, less those with the Sun too high; shape (n, 2), seconds.

    None if nothing is known of it, so that all of it counts as observed.

    Parameters
    ----------
    sun_below_deg
        Leave out the time of each row of TIMELINE whose SUN_ALT is above this, in degrees; None: leave out none.
    """
    good = table.good_times
    if sun_below_deg is None or table.sun is None or not len(table.sun):
        return good
    dark = _dark(table.sun, sun_below_deg)
    return dark if good is None else intersection(good, dark)


def _dark(sun: Array, below_deg: float) -> Array:
    """Return when the Sun was low enough: each row of TIMELINE stands for the time until the next one."""
    times, is_dark = sun[:, 0], ~(sun[:, 1] > below_deg)
    length = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    ends = np.append(times[1:], times[-1] + length)
    # Runs of dark rows, each from its first row's start to its last row's end.
    change = np.diff(np.concatenate([[False], is_dark, [False]]).astype(np.int8))
    return np.column_stack([times[change[:-1] == 1], ends[change[1:] == -1]])


def intersection(one: Array, other: Array) -> Array:
    """Return the times that are in both of two lists of intervals, each sorted and without overlaps."""
    low = np.maximum(one[:, None, 0], other[None, :, 0])
    high = np.minimum(one[:, None, 1], other[None, :, 1])
    keep = low < high
    return np.column_stack([low[keep], high[keep]])


def inside(times: Array, intervals: Array) -> Array:
    """Say of each time whether it is in one of some sorted intervals, both ends included."""
    if np.all(times[1:] >= times[:-1]):
        found = np.zeros(len(times), bool)
        ends = np.searchsorted(times, intervals[:, 1], side="right")
        for first, end in zip(np.searchsorted(times, intervals[:, 0], side="left"), ends, strict=True):
            found[first:end] = True
        return found
    place = np.searchsorted(intervals[:, 0], times, side="right") - 1
    last = intervals[:, 1] if len(intervals) else np.array([-np.inf])
    return (place >= 0) & (times <= last[np.maximum(place, 0)])


def exposure_fraction(grid: Bins, intervals: Array | None) -> Array:
    """Return what part of each bin is in some sorted intervals: 1 for all of it, 0 for none."""
    if intervals is None:
        return np.ones(grid.number)
    edges = grid.start_s + grid.step_s * np.arange(grid.number + 1)
    # Seconds observed until each edge.
    until = np.zeros(len(edges))
    for low, high in intervals:
        until += np.clip(edges, low, high) - low
    return np.clip(np.diff(until) / grid.step_s, 0.0, 1.0)
