"""Compute statistics of light curves: one row per source and band."""

from __future__ import annotations

from functools import cache

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.model.schema import TABLES
from lake.store.storage import decoded

_STATISTICS = """
    SELECT archive, source_id, release, band, first(hpx29) AS hpx29,
        count(*) AS n,
        count(*) FILTER (detected) AS n_detected,
        count(*) FILTER (detected AND good) AS n_good,
        min(mjd) AS mjd_first, max(mjd) AS mjd_last,
        first(unit) AS unit,
        median(flux::DOUBLE) FILTER (detected AND good) AS flux_median,
        avg(flux::DOUBLE) FILTER (detected AND good) AS flux_mean,
        CASE WHEN count(flux) FILTER (detected AND good) > 1
            THEN stddev_samp(flux::DOUBLE) FILTER (detected AND good AND isfinite(flux)) END AS flux_std,
        median(mag::DOUBLE) FILTER (detected AND good) AS mag_median,
        first(granule) AS granule
    FROM rows
    GROUP BY archive, release, source_id, band
    ORDER BY hpx29, source_id, band
"""


def statistics(lightcurves: pa.Table) -> pa.Table:
    """Summarise light curves by source and band.

    Parameters
    ----------
    lightcurves
        Rows of table lightcurves.

    Returns
    -------
    pa.Table
        Rows of table statistics; fluxes and magnitudes are of good detections only.
    """
    rows = TABLES["lightcurves"].cast(lightcurves)
    if rows.num_rows and pc.count_distinct(decoded(rows.select(["source_id"]))["source_id"]).as_py() == rows.num_rows:
        return statistics_of_sorted(rows)  # events: in any order they are sorted by source, and nothing is summed
    with _database().cursor() as connection:
        connection.register("rows", rows)
        return TABLES["statistics"].cast(connection.execute(_STATISTICS).to_arrow_table())


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """Open a database in memory, once a process: that takes longer than to summarise most granules."""
    # One thread: several workers run at a time, and each thread has its own memory.
    return duckdb.connect(config={"threads": 1})


def statistics_of_sorted(lightcurves: pa.Table) -> pa.Table:
    """Summarise large, sorted light curves: the same as `statistics`, about ten times faster.

    Parameters
    ----------
    lightcurves
        Rows of table lightcurves, sorted by source, band and time.

    Returns
    -------
    pa.Table
        Rows of table statistics.
    """
    table = lightcurves.combine_chunks()
    if not table.num_rows:
        return TABLES["statistics"].empty()
    source, band = (_codes(table[name].chunk(0)) for name in ("source_id", "band"))
    new = np.append(True, (source[1:] != source[:-1]) | (band[1:] != band[:-1]))
    first = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    mjd, flux = (table[name].to_numpy() for name in ("mjd", "flux"))
    mag = table["mag"].to_numpy() if "mag" in table.column_names else np.full(len(mjd), np.nan, np.float32)
    detected, good = (table[name].to_numpy() for name in ("detected", "good"))
    good = detected & good
    with np.errstate(invalid="ignore"):
        measured = good & np.isfinite(flux)
    value = np.where(measured, flux, 0.0).astype(np.float64)
    n = np.add.reduceat(measured, first, dtype=np.int64)
    some = np.maximum(n, 1)
    mean = np.add.reduceat(value, first) / some
    square = np.add.reduceat(np.where(measured, (value - mean[group]) ** 2, 0.0), first)
    last = np.append(first[1:], len(new)) - 1
    columns = {
        "n": last + 1 - first,
        "n_detected": np.add.reduceat(detected, first, dtype=np.int64),
        "n_good": np.add.reduceat(good, first, dtype=np.int64),
        "mjd_first": mjd[first],
        "mjd_last": mjd[last],
        "flux_median": _medians(flux, group, good, len(first)),
        "flux_mean": _or_null(mean, n > 0),
        "flux_std": _or_null(np.sqrt(square / np.maximum(n - 1, 1)), n > 1),
        "mag_median": _medians(mag, group, good, len(first)),
    }
    same = table.select(["archive", "release", "source_id", "band", "hpx29", "unit", "granule"]).take(pa.array(first))
    for name, column in columns.items():
        same = same.append_column(name, pa.array(column))
    return TABLES["statistics"].cast(decoded(same))


def _codes(texts: pa.Array) -> NDArray[np.int32]:
    """Return a code for each text; equal texts have equal codes."""
    coded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
    return np.asarray(coded.indices.to_numpy())


def _medians(values: NDArray[np.float32], group: NDArray[np.int64], wanted: NDArray[np.bool_], n: int) -> pa.Array:
    """Return the median of the wanted values of each group; NULL for a group without any."""
    wanted = wanted & np.isfinite(values)
    of = group[wanted]
    # One sort of integers serves all groups: the high half is the group, the low half has bits that sort like floats.
    bits = values[wanted].astype(np.float32).view(np.int32)
    ordered = np.where(bits < 0, np.int32(-1) ^ bits, bits ^ np.int32(-(2**31))).view(np.uint32)
    key = np.sort(of.astype(np.uint64) << np.uint64(32) | ordered)
    counts = np.bincount(of, minlength=n)
    start = np.cumsum(counts) - counts
    there = counts > 0

    def at(place: NDArray[np.int64]) -> NDArray[np.float64]:
        found = key[np.where(there, place, 0)].astype(np.uint32).view(np.int32) if len(key) else np.zeros(n, np.int32)
        back = np.where(found < 0, found ^ np.int32(-(2**31)), np.int32(-1) ^ found)
        return back.view(np.float32).astype(np.float64)

    return _or_null((at(start + (counts - 1) // 2) + at(start + counts // 2)) / 2, there)


def _or_null(values: NDArray[np.float64], there: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values, mask=~there)
