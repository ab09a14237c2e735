"""Statistics of light curves: one row per source and band."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from lake.schema import TABLES

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
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        return TABLES["statistics"].cast(connection.execute(_STATISTICS).to_arrow_table())
