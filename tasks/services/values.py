"""Values as archives give them: which are known, which can be, and which rows are of targets and have a place.

What cannot be, such as infinities and negative errors, is passed on: lake/commit/sound.py makes it NULL, and tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.commit.sound import check_clock, named
from lake.errors import GranuleRejected
from lake.model.schema import TABLES
from lake.science.times import FIRST_UTC_MJD, LAST_MJD

Floats = NDArray[np.float64]
Range = tuple[float, float]


def measured(values: pa.ChunkedArray | pa.Array, *, sentinel: float | None = None) -> Floats:
    """Convert values to float64, NaN where the archive has none: NULL, or its sentinel.

    Raises
    ------
    GranuleRejected
        If they are no numbers.
    """
    try:
        numbers = values.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise GranuleRejected(f"what should be numbers is {values.type}: {error}") from error
    found = np.asarray(numbers.to_numpy(zero_copy_only=False), np.float64)
    return found if sentinel is None else np.where(found == sentinel, np.nan, found)


def integers(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Convert values to int64, NULL where there is no whole number: pandas has columns with gaps as floats."""
    if pa.types.is_floating(values.type):
        values = values.cast(pa.float64())
        fits = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), 2.0**63))
        values = pc.if_else(fits, values, pa.scalar(None, pa.float64()))
    elif pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        fits = pc.match_substring_regex(values, r"^[+-]?\d{1,18}$")
        values = pc.if_else(fits, values, pa.scalar(None, values.type))
    return values.cast(pa.int64())


def as_number(value: Any) -> float | None:
    """Convert a value of JSON to a number, NaN for null; None if it is something else."""
    try:
        return np.nan if value in (None, "") else float(value)
    except (OverflowError, TypeError, ValueError):
        return None


def as_whole(value: Any) -> int | None:
    """Convert a value of JSON to a whole number of 64 bits; None if it is not one."""
    found = as_number(value)
    if found is None or not abs(found) < 2**63:
        return None
    return int(value) if isinstance(value, int) else int(found)


def columns_of(
    rows: Sequence[Mapping[str, Any]], keys: Sequence[str], names: Sequence[str], ranges: Mapping[str, Range]
) -> tuple[Floats, list[str]]:
    """Convert columns of rows of JSON to numbers, NaN where there is none, with remarks on impossible values.

    Parameters
    ----------
    keys
        Other columns that must be there; the first names rows in remarks.
    names
        Columns to return.
    ranges
        Least and greatest value by column, where they are known.

    Raises
    ------
    ValueError
        If a column is not there, or nothing in it is a number though there is something.
    """
    if any(not {*keys, *names} <= set(row) for row in rows):
        raise ValueError(f"rows have not all of {', '.join((*keys, *names))}")
    values, remarks = np.empty((len(rows), len(names))), []
    for place, name in enumerate(names):
        given = [as_number(row[name]) for row in rows]
        column = np.array(given, np.float64)
        low, high = ranges.get(name, (-np.inf, np.inf))
        odd = np.array([one is None for one in given], bool)
        if odd.any() and np.isnan(column).all():
            raise ValueError(f"{name} has no numbers")
        odd |= (column < low) | (column > high)
        values[:, place] = np.where(odd, np.nan, column)
        if odd.any():
            whose = named(str(rows[row][keys[0]]) for row in np.flatnonzero(odd).tolist())
            remarks.append(f"impossible values of {name} taken for missing: {np.count_nonzero(odd)}{whose}")
    return values, remarks


def nullable(values: Floats) -> pa.Array:
    """Return an Arrow array with NULL where nothing is known."""
    return pa.array(values, mask=np.isnan(values))


def dated(mjd: Floats) -> NDArray[np.bool_]:
    """Say which times are MJDs that a clock can have shown: not missing, no sentinel, no JD."""
    return (mjd >= FIRST_UTC_MJD) & (mjd <= LAST_MJD)


def possible(values: Floats, column: str) -> Floats:
    """Replace values that a column of light curves cannot have, such as magnitude -999, by NaN."""
    spec = TABLES["lightcurves"].column(column)
    low, high = -np.inf if spec.low is None else spec.low, np.inf if spec.high is None else spec.high
    return np.where(np.isfinite(values) & (values >= low) & (values <= high), values, np.nan)


def on_sky(ra: Floats, dec: Floats) -> NDArray[np.bool_]:
    """Say which positions are on the sky."""
    return np.asarray((ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90))


def places(table: pa.Table) -> tuple[Floats, Floats]:
    """Return columns ra, also of -180 to 180 deg, and dec, NaN where they are not on the sky."""
    ra, dec = measured(table["ra"]), measured(table["dec"])
    known = (np.abs(ra) <= 360) & (np.abs(dec) <= 90)
    return np.where(known, ra, np.nan), np.where(known, dec, np.nan)


def whole_rows(found: pa.Table, ids: pa.ChunkedArray, what: str) -> tuple[pa.Table, list[str]]:
    """Return the rows of an answer, each once, that have a target, an id and a position, and remarks on the others.

    Parameters
    ----------
    found
        Columns target_id, ra and dec.
    ids
        Id of each row, as text.
    what
        What rows are, for the remarks.

    Raises
    ------
    GranuleRejected
        If none of several rows has all that.
    """
    found = found.append_column("_id", ids)
    found = found.group_by(found.column_names, use_threads=False).aggregate([])
    has = {
        "a target": found["target_id"].is_valid(),
        "an id": pc.fill_null(pc.greater(pc.utf8_length(found["_id"]), 0), False),
        "a place": pa.chunked_array([pa.array(on_sky(measured(found["ra"]), measured(found["dec"])))]),
    }
    every = pa.chunked_array([pa.array(np.ones(found.num_rows, bool))])
    remarks = []
    for lacking, kept in has.items():
        # What lacks several is counted once.
        if n := pc.sum(gone := pc.and_not(every, kept)).as_py():
            remarks.append(f"{what} without {lacking}, left out: {n}{named(found.filter(gone)['_id'].to_pylist())}")
        every = pc.and_(every, kept)
    whole = found.filter(every).drop_columns("_id")
    if found.num_rows > 1 and not whole.num_rows:
        raise GranuleRejected(f"no row is whole: {'; '.join(remarks)}")
    return whole, remarks


def places_of(targets: pa.Table, ids: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return which targets an answer's rows are of; GranuleRejected if one was not asked for."""
    place = pc.index_in(ids.cast(pa.int64()), value_set=targets["target_id"].combine_chunks())
    if place.null_count:
        unasked = ids.filter(pc.is_null(place))[0].as_py()
        raise GranuleRejected(f"the answer has target {unasked}, which was not asked for")
    return np.asarray(place.to_numpy(), np.int64)


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
        If they have times of which none can be: see lake.commit.sound.check_clock.
    """
    check_clock(mjd)
    undated = ~dated(mjd)
    n = int(np.count_nonzero(undated))
    return f"measurements without a time, left out: {n}{named(whose(undated))}" if n else None
