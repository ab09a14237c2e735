"""View virac: the columns of the survey's published CSV files."""

from __future__ import annotations

from lake.model.declared import ViewNote, Views
from lake.model.table import Column

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

_COLUMNS = (
    *(
        Column(
            f"{band.lower()}_{name}",
            "FLOAT",
            f"{words} in {band}, Vega; NULL in rows of other filters",
            unit="mag",
            ucd=f"{start}phot.mag;{ucd}",
        )
        for band, ucd in (("Ks", "em.IR.K"), ("Z", "em.opt.I"), ("Y", "em.IR.J"), ("J", "em.IR.J"), ("H", "em.IR.H"))
        for name, words, start in (("mag", "Magnitude", ""), ("err", "One standard deviation", "stat.error;"))
    ),
    Column("seeing", "FLOAT", "Seeing of the pawprint", unit="arcsec", ucd="instr.obsty.seeing"),
    Column("exptime", "DOUBLE", "Exposure time", unit="s", ucd="time.duration;obs.exposure"),
    Column("skylevel", "FLOAT", "Sky level of the pawprint", ucd="instr.skyLevel"),
    Column(
        "detected", "INTEGER", "1: detected; 0: the pawprint covers the source, without a detection", ucd="meta.code"
    ),
    Column("filter", "VARCHAR", "Filter of the pawprint, a band of the lake", ucd="instr.filter"),
)
VIEWS = Views(
    statements=(_STATEMENT,),
    notes={
        "virac": ViewNote(
            text="VIRAC's light curves with the columns of the published CSV files.",
            example="SELECT mjd, ks_mag, ks_err FROM virac WHERE detected = 1 AND filter = 'Ks'",
            columns=_COLUMNS,
        )
    },
)
