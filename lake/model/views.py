"""SQL views and macros that live in the catalogue, so that every client of the lake has them."""

from __future__ import annotations

# Great-circle distance by the formula that is stable for small and for antipodal angles alike:
# T. Vincenty 1975, Survey Review 23, 88, on a sphere.
_SEPARATION = """
CREATE OR REPLACE MACRO separation_arcsec(ra1, dec1, ra2, dec2) AS
    3600 * degrees(atan2(
        sqrt(
            pow(cos(radians(dec2)) * sin(radians(ra2 - ra1)), 2)
            + pow(cos(radians(dec1)) * sin(radians(dec2))
                - sin(radians(dec1)) * cos(radians(dec2)) * cos(radians(ra2 - ra1)), 2)
        ),
        sin(radians(dec1)) * sin(radians(dec2))
        + cos(radians(dec1)) * cos(radians(dec2)) * cos(radians(ra2 - ra1))
    ))
"""

# The bounds on dec prune files and row groups by their min and max; the distance then decides.
_IN_CONE = """
CREATE OR REPLACE MACRO {name}(ra0, dec0, radius_arcsec) AS TABLE
    SELECT *, separation_arcsec(ra0, dec0, ra, dec) AS separation_arcsec
    FROM {table}
    WHERE dec BETWEEN dec0 - radius_arcsec / 3600 - 1e-9 AND dec0 + radius_arcsec / 3600 + 1e-9
        AND separation_arcsec(ra0, dec0, ra, dec) <= radius_arcsec
    ORDER BY separation_arcsec
"""

_LIGHTCURVES_IN_CONE = """
CREATE OR REPLACE MACRO cone(ra0, dec0, radius_arcsec) AS TABLE
    SELECT found.ra, found.dec, found.separation_arcsec, lightcurves.*
    FROM sources_in_cone(ra0, dec0, radius_arcsec) AS found
    JOIN lightcurves ON lightcurves.archive = found.archive AND lightcurves.release = found.release
        AND lightcurves.hpx29 = found.hpx29 AND lightcurves.source_id = found.source_id
"""

# Where two releases of an archive lie side by side, the one that table archives names is seen.
_TARGET_LIGHTCURVES = """
CREATE OR REPLACE VIEW target_lightcurves AS
    SELECT targets.target_id, targets.name, targets.ra, targets.dec, matches.rank, matches.separation_arcsec,
        lightcurves.*, bands.mag_system, bands.wavelength_nm
    FROM targets
    JOIN matches ON matches.target_id = targets.target_id
    LEFT JOIN archives ON archives.archive = matches.archive
    JOIN lightcurves ON lightcurves.archive = matches.archive AND lightcurves.release = matches.release
        AND lightcurves.hpx29 = matches.hpx29 AND lightcurves.source_id = matches.source_id
    LEFT JOIN bands ON bands.archive = lightcurves.archive AND bands.band = lightcurves.band
    WHERE matches.release = coalesce(archives.release, matches.release)
"""

# A target goes by its main name and by what each list calls it.
_TARGET_NAMES = """
CREATE OR REPLACE VIEW target_names AS
    SELECT target_id, name FROM targets WHERE name IS NOT NULL
    UNION
    SELECT target_id, name FROM labels WHERE name IS NOT NULL
"""

# What a light curve is. DuckDB applies a condition on any of these before it makes a window over them, so they are more
# than it takes to tell light curves apart, and other targets stay unread. Of TESS, Kepler and K2 each sector, quarter
# or campaign at each cadence is one of its own, with its own aperture and level; elsewhere an exposure is a single
# measurement, or has no part in the level.
_A_LIGHT_CURVE = """target_id, name, archive, release, hpx29, source_id, band,
            CASE WHEN archive = 'tess_kepler' THEN exposure_id END"""

# What is not good or not detected is divided, too, by the median of what is; without a median, or with one that is not
# positive, flux and flux_err are NULL.
_NORMALISED = f"""
CREATE OR REPLACE VIEW normalised AS
    SELECT target_id, name, ra, dec, rank, separation_arcsec, archive, release, source_id, hpx29, band, exposure_id,
        mjd, bmjd_tdb, CASE WHEN flux_median > 0 THEN flux::DOUBLE / flux_median END AS flux,
        CASE WHEN flux_median > 0 THEN flux_err::DOUBLE / flux_median END AS flux_err, '' AS unit,
        flux_median, unit AS flux_median_unit, detected, good, quality, exposure_s, cadence_s
    FROM (
        SELECT *, median(flux::DOUBLE) FILTER (WHERE good AND detected) OVER (
            PARTITION BY {_A_LIGHT_CURVE}
        ) AS flux_median
        FROM target_lightcurves
    )
"""

# The cadences of TESS, Kepler and K2 are too many for a plot; other archives are there in full. Good rows are counted
# by themselves, so that a bad cadence never stands for thirty.
_THINNED_BY = 30
_DECIMATED = f"""
CREATE OR REPLACE VIEW decimated AS
    SELECT * FROM target_lightcurves WHERE archive <> 'tess_kepler'
    UNION ALL
    SELECT * FROM target_lightcurves WHERE archive = 'tess_kepler'
    QUALIFY (row_number() OVER (
        PARTITION BY {_A_LIGHT_CURVE}, good, detected ORDER BY mjd
    ) - 1) % {_THINNED_BY} = 0
"""

# objectid, label, band, time, flux, err: the row of the Fornax light-curve collector. A target of several
# samples keeps all its labels, joined by "; ". IceCube's flux is log10(E/GeV) there, to two decimals as in
# the release; its error does not exist. Events without a measured flux, such as triggers, have none.
_FORNAX_ROWS = """
    SELECT rows.target_id AS objectid, known.label, coalesce(bands.fornax_band, rows.band) AS band,
        {time} AS time, {flux} AS flux, {err} AS err
    FROM {rows} AS rows
    JOIN (
        SELECT target_id, string_agg(DISTINCT coalesce(label, sample), '; ' ORDER BY coalesce(label, sample)) AS label
        FROM labels GROUP BY target_id
    ) AS known USING (target_id)
    LEFT JOIN bands ON bands.archive = rows.archive AND bands.band = rows.band
    WHERE {where}
"""
_FLUX = "CASE WHEN rows.unit = 'GeV' THEN round(log10(rows.flux::DOUBLE), 2) ELSE rows.flux::DOUBLE END"


def _fornax_rows(
    *,
    rows: str = "target_lightcurves",
    time: str = "rows.mjd",
    flux: str = _FLUX,
    err: str = "rows.flux_err::DOUBLE",
    where: str = "rows.good AND rows.detected",
) -> str:
    return _FORNAX_ROWS.format(rows=rows, time=time, flux=flux, err=err, where=where)


# The same events come from the collaboration's release and from HEASARC's copy of it; once is enough.
_ONCE = """(rows.archive <> 'icecubepsc' OR NOT EXISTS (
    SELECT 1 FROM coverage
    WHERE coverage.archive = 'icecube' AND coverage.target_id = rows.target_id AND coverage.status <> 'failed'
))"""

# Aperture fluxes beside better ones (Pan-STARRS, HCV, and those of TESS, Kepler and K2 before their systematics are
# taken off) are bands of their own, of which the collector knows nothing.
_IS_BEST = r"NOT regexp_matches(rows.band, '_(ap|sap|raw)$')"

_FORNAX = "CREATE OR REPLACE VIEW fornax AS" + _fornax_rows(
    where=f"rows.good AND rows.detected AND {_IS_BEST} AND {_ONCE}"
)

# The collector keeps the N events of highest energy of each target (N = 3 as published).
_BRIGHTEST = """
CREATE OR REPLACE MACRO brightest_events(archive_name, n) AS TABLE
    SELECT * FROM target_lightcurves
    WHERE archive = archive_name
    QUALIFY row_number() OVER (PARTITION BY target_id ORDER BY flux DESC, mjd) <= n
"""

# Defects D1 and D2 of the collector: half a day too late, and Vega magnitudes through the AB formula, with
# 10**(-48.6/2.5) erg s-1 cm-2 Hz-1 for the 3631 Jy that the lake's fluxes are made with. Of the flags it looks
# at rejected_by_photometry alone, the lowest bit of quality; what has no magnitude is not there.
_VEGA_AS_AB = "pow(10, 0.4 * bands.ab_minus_mag) * 3630.7805477 / 3631"
_GAIA_AS_PUBLISHED = _fornax_rows(
    rows="(SELECT * FROM target_lightcurves WHERE archive = 'gaia')",
    time="rows.mjd + 0.5",
    flux=f"rows.flux::DOUBLE * {_VEGA_AS_AB}",
    err=f"rows.flux_err::DOUBLE * {_VEGA_AS_AB}",
    where="rows.flux > 0 AND rows.quality & 1 = 0",
)

# Of ZTF's objects the nearest alone, in each band (D10); AB magnitudes by 10**(-48.6/2.5), for the lake's 3631 Jy, and
# errors from the magnitudes a standard deviation above and below.
_ZTF_AS_PUBLISHED = _fornax_rows(
    rows="""(
        SELECT * FROM target_lightcurves WHERE archive = 'ztf'
        QUALIFY rank = min(rank) OVER (PARTITION BY target_id, band)
    )""",
    flux="rows.flux::DOUBLE * 3630.7805477 / 3631",
    err="rows.flux::DOUBLE * 3630.7805477 / 3631 * sinh(0.4 * ln(10) * rows.mag_err::DOUBLE)",
    where="rows.good",
)

# Of Pan-STARRS's objects the nearest alone; no cut on flags or sign. The collector did once mask what is not measured
# (-999), and does not any more (D9): here it is left out.
_PANSTARRS_AS_PUBLISHED = _fornax_rows(
    rows="(SELECT * FROM target_lightcurves WHERE archive = 'panstarrs')",
    where=f"rows.rank = 1 AND {_IS_BEST} AND rows.flux IS NOT NULL",
)

# Of TESS, Kepler and K2 every thirtieth cadence: of TESS those with positive flux, of the others those without, too.
# Places are counted among cadences with a time that pass lightkurve's default mask, and the lake has all of these, so
# they are the collector's. Times are BTJD + 56999.5 for all three, though Kepler's and K2's are BKJD: 2167 days late
# (D3). The collector mixes whatever pipelines and cadences it finds, flux normalised or not (D4). That is not done
# again: here is the one pipeline that bands calls by the collector's name, at all cadences that were pulled.
_TESS_AS_PUBLISHED = _fornax_rows(
    rows=f"""(
        SELECT target_lightcurves.*, bands.fornax_band
        FROM target_lightcurves JOIN bands USING (archive, band)
        WHERE archive = 'tess_kepler' AND bands.fornax_band IN ('TESS', 'Kepler', 'K2')
            AND quality & CASE bands.fornax_band WHEN 'TESS' THEN 17087 ELSE 1130799 END = 0
        QUALIFY (row_number() OVER (PARTITION BY {_A_LIGHT_CURVE} ORDER BY mjd) - 1) % {_THINNED_BY} = 0
    )""",
    time="rows.mjd + CASE rows.fornax_band WHEN 'TESS' THEN 0 ELSE 2167 END",
    where="rows.fornax_band <> 'TESS' OR rows.flux > 0",
)

# D13: triggers get a flux and an error of 0.1, so that a mark appears in the plot.
_TRIGGERS_AS_PUBLISHED = _fornax_rows(
    rows="(SELECT * FROM target_lightcurves WHERE archive IN ('fermigtrig', 'saxgrbmgrb'))", flux="0.1", err="0.1"
)

# D5, the HCV's, cannot be reproduced: its zero points came from a web page, for each light curve's first night.
_FORNAX_AS_PUBLISHED = "CREATE OR REPLACE VIEW fornax_as_published AS" + " UNION ALL ".join(
    (
        _fornax_rows(
            rows="(SELECT * FROM target_lightcurves WHERE archive NOT IN "
            "('gaia', 'ztf', 'panstarrs', 'hcv', 'fermigtrig', 'saxgrbmgrb', 'icecube', 'icecubepsc', 'tess_kepler'))",
            # The collector takes no WISE flux of 0 or below.
            where="rows.good AND rows.detected AND rows.flux IS NOT NULL AND (rows.archive <> 'wise' OR rows.flux > 0)",
        ),
        _GAIA_AS_PUBLISHED,
        _ZTF_AS_PUBLISHED,
        _PANSTARRS_AS_PUBLISHED,
        _TESS_AS_PUBLISHED,
        _TRIGGERS_AS_PUBLISHED,
        _fornax_rows(rows="brightest_events('icecube', 3)", err="0.0"),
        _fornax_rows(rows="brightest_events('icecubepsc', 3)", err="0.0", where=_ONCE),
    )
)

# A row of the published CSV, and by what it is found. Names of exposures are those of one archive, so its name stands
# on both sides: then neither side's files of other archives are opened.
_VIRAC_MAGNITUDES = ", ".join(
    f"CASE WHEN rows.band = '{band}' THEN rows.{column} END AS {band.lower()}_{name}"
    for band in ("Ks", "Z", "Y", "J", "H")
    for column, name in (("mag", "mag"), ("mag_err", "err"))
)
_VIRAC = f"""
CREATE OR REPLACE VIEW virac AS
    SELECT rows.source_id, rows.release, rows.hpx29, rows.mjd, {_VIRAC_MAGNITUDES},
        exposures.seeing_arcsec AS seeing, exposures.exposure_s AS exptime, exposures.sky_level AS skylevel,
        exposures.ellipticity, rows.chi, rows.ast_res_chisq, rows.detected::INTEGER AS detected, rows.band AS filter
    FROM lightcurves AS rows
    LEFT JOIN exposures ON exposures.archive = 'virac' AND exposures.release = rows.release
        AND exposures.exposure_id = rows.exposure_id
    WHERE rows.archive = 'virac'
"""

# One light curve a target and band over sixteen years. What a rate is of, in keV, is the observation's: the same
# channels have other energies in each gain epoch, and PCUs come and go. Table exposures has it as JSON, a part a band.
_RXTE = """
CREATE OR REPLACE VIEW rxte AS
    WITH observations AS (
        SELECT targets.target_id, targets.name, matches.separation_arcsec, matches.archive, matches.release,
            matches.hpx29, matches.source_id, from_json(exposures.details, '{"target_name": "VARCHAR", '
            || '"epoch": "INTEGER", "pcu_count": "INTEGER", "pcus": "VARCHAR", "is_slew": "BOOLEAN", '
            || '"is_scan": "BOOLEAN", "energies": '
            || '"MAP(VARCHAR, STRUCT(emin_kev DOUBLE, emax_kev DOUBLE, nominal_kev DOUBLE[]))"}') AS told
        FROM targets JOIN matches ON matches.target_id = targets.target_id
        LEFT JOIN exposures ON exposures.archive = matches.archive AND exposures.release = matches.release
            AND exposures.exposure_id = matches.source_id
        WHERE matches.archive IN ('rxte', 'rxte_pca')
    ),
    curves AS (
        SELECT observations.*, bands.band, told.energies[bands.band] AS energy
        FROM observations JOIN bands ON bands.archive = observations.archive
    )
    SELECT curves.target_id, curves.name, curves.separation_arcsec, curves.source_id AS obsid, curves.release,
        curves.band, rows.mjd, rows.bmjd_tdb, rows.flux AS rate, rows.flux_err AS rate_err, rows.unit, rows.counts,
        rows.exposure_s, rows.detected, rows.good, rows.quality, curves.told.epoch, curves.told.pcu_count,
        curves.told.pcus, curves.energy.emin_kev, curves.energy.emax_kev,
        curves.energy.nominal_kev[1] AS nominal_emin_kev, curves.energy.nominal_kev[2] AS nominal_emax_kev,
        curves.told.is_slew, curves.told.is_scan, curves.told.target_name AS observed_as
    FROM curves JOIN lightcurves AS rows ON rows.archive = curves.archive AND rows.release = curves.release
        AND rows.hpx29 = curves.hpx29 AND rows.source_id = curves.source_id AND rows.band = curves.band
    ORDER BY curves.target_id, curves.band, curves.release, rows.mjd
"""

VIEWS = (
    _SEPARATION,
    _IN_CONE.format(name="targets_in_cone", table="targets"),
    _IN_CONE.format(name="sources_in_cone", table="sources"),
    _LIGHTCURVES_IN_CONE,
    _TARGET_LIGHTCURVES,
    _TARGET_NAMES,
    _NORMALISED,
    _DECIMATED,
    _FORNAX,
    _BRIGHTEST,
    _FORNAX_AS_PUBLISHED,
    _VIRAC,
    _RXTE,
)
