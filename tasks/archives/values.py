"""Numbers as archives give them: which are known, which are times, and magnitudes that can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.schema import TABLES
from lake.sound import check_clock, named
from lake.times import FIRST_UTC_MJD, LAST_MJD

Floats = NDArray[np.float64]


def measured(values: pa.ChunkedArray | pa.Array, *, sentinel: float | None = None) -> Floats:
    """Return values as float64, NaN where the archive has none: NULL, not finite, or its sentinel."""
    found = np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    missing = ~np.isfinite(found)
    if sentinel is not None:
        missing |= found == sentinel
    return np.where(missing, np.nan, found)


def nullable(values: Floats) -> pa.Array:
    """Return an Arrow array with NULL where a value is not finite."""
    return pa.array(values, mask=~np.isfinite(values))


def dated(mjd: Floats) -> NDArray[np.bool_]:
    """Say which times are MJDs that a clock can have shown: not missing, no sentinel, no JD."""
    return (mjd >= FIRST_UTC_MJD) & (mjd <= LAST_MJD)


def possible_mag(mag: Floats) -> Floats:
    """Return magnitudes, NaN for what can be none, such as -999 or 99."""
    column = TABLES["lightcurves"].column("mag")
    return np.where((mag >= (column.low or 0)) & (mag <= (column.high or 0)), mag, np.nan)


def undated_remark(mjd: Floats, whose: Callable[[NDArray[np.bool_]], Iterable[str | None]]) -> str | None:
    """Return the remark on measurements that have no time, and so cannot be kept.

    Parameters
    ----------
    mjd
        Times of all measurements.
    whose
        Gives the sources of some of them, by a mask.

    Raises
    ------
    GranuleRejected
        If they have times of which none can be: see lake.sound.check_clock.
    """
    check_clock(mjd)
    undated = ~dated(mjd)
    n = int(np.count_nonzero(undated))
    return f"measurements without a time, left out: {n}{named(whose(undated))}" if n else None
