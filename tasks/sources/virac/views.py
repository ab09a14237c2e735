"""View virac: the columns of the survey's published CSV files."""

from __future__ import annotations

from lake.model.declared import Views

# The columns of the published CSV, and the keys that find a row. The archive is named on both sides of the join, so
# that files of other archives are not opened.
_MAGNITUDES = ", ".join(
    f"CASE WHEN rows.band = '{band}' THEN rows.{column} END AS {band.lower()}_{name}"
    for band in ("Ks", "Z", "Y", "J", "H")
    for column, name in (("mag", "mag"), ("mag_err", "err"))
)
_STATEMENT = f"""
CREATE OR REPLACE VIEW virac AS
    SELECT rows.source_id, rows.release, rows.hpx29, rows.mjd, {_MAGNITUDES},
        exposures.seeing_arcsec AS seeing, exposures.exposure_s AS exptime, exposures.sky_level AS skylevel,
        exposures.ellipticity, rows.chi, rows.ast_res_chisq, rows.detected::INTEGER AS detected, rows.band AS filter
    FROM lightcurves AS rows
    LEFT JOIN exposures ON exposures.archive = 'virac' AND exposures.release = rows.release
        AND exposures.exposure_id = rows.exposure_id
    WHERE rows.archive = 'virac'
"""

VIEWS = Views(statements=(_STATEMENT,))
