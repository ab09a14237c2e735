"""What TESS, Kepler and K2 add to the lake's views."""

from __future__ import annotations

from lake.model.declared import FornaxRows, Views

# There are too many samples for a plot.
THINNED_BY = 30

# The collector keeps every thirtieth sample: for TESS of those with positive flux, for Kepler and K2 of all. It counts
# samples with a time that pass lightkurve's default mask. The lake has all of these, so these rows are the collector's.
# It takes the times of all three missions for BTJD, though those of Kepler and K2 are BKJD: 2167 days late. It also
# mixes pipelines and cadences, and normalised and other flux. That is not repeated: here is the one pipeline that table
# bands calls by the collector's name, at all cadences that were pulled.
VIEWS = Views(
    exposure_is_curve=True,  # each sector, quarter or campaign at each cadence has its own aperture and level
    thinned_by=THINNED_BY,
    as_published=(
        FornaxRows(
            rows=f"""(
        SELECT target_lightcurves.*, bands.fornax_band
        FROM target_lightcurves JOIN bands USING (archive, band)
        WHERE archive = 'tess_kepler' AND bands.fornax_band IN ('TESS', 'Kepler', 'K2')
            AND quality & CASE bands.fornax_band WHEN 'TESS' THEN 17087 ELSE 1130799 END = 0
        QUALIFY (row_number() OVER (
            PARTITION BY target_id, name, archive, release, hpx29, source_id, band, exposure_id ORDER BY mjd
        ) - 1) % {THINNED_BY} = 0
    )""",
            time="rows.mjd + CASE rows.fornax_band WHEN 'TESS' THEN 0 ELSE 2167 END",
            where="rows.fornax_band <> 'TESS' OR rows.flux > 0",
        ),
    ),
)
