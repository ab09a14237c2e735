"""SQL views and macros that live in the catalogue, so that every client of the lake has them.

Those here are of any archive; what is particular to one comes with its declaration.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lake.model.declared import Declaration, FornaxRows
from lake.model.table import quoted

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

# If a lake has two releases of an archive, the view shows the one that table archives names.
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

# A target goes by its main name, by what each list calls it, and by what services of names call it.
_TARGET_NAMES = """
CREATE OR REPLACE VIEW target_names AS
    SELECT target_id, name FROM targets WHERE name IS NOT NULL
    UNION
    SELECT target_id, name FROM labels WHERE name IS NOT NULL
    UNION
    SELECT target_id, name FROM aliases WHERE target_id IS NOT NULL
"""

# What identifies a light curve. DuckDB applies a condition on any of these columns before it computes a window over
# them, so the list is longer than it must be, and files of other targets are not read. Where an exposure is a light
# curve of its own, its id belongs to the list; elsewhere an exposure is a single measurement.
_A_LIGHT_CURVE = """target_id, name, archive, release, hpx29, source_id, band,
            CASE WHEN archive IN ({by_exposure}) THEN exposure_id END"""

# Bad and undetected rows, too, are divided by the median of the good detections. Without a positive median, flux and
# flux_err are NULL.
_NORMALISED = """
CREATE OR REPLACE VIEW normalised AS
    SELECT target_id, name, ra, dec, rank, separation_arcsec, archive, release, source_id, hpx29, band, exposure_id,
        mjd, bmjd_tdb, CASE WHEN flux_median > 0 THEN flux::DOUBLE / flux_median END AS flux,
        CASE WHEN flux_median > 0 THEN flux_err::DOUBLE / flux_median END AS flux_err, '' AS unit,
        flux_median, unit AS flux_median_unit, detected, good, quality, exposure_s, cadence_s
    FROM (
        SELECT *, median(flux::DOUBLE) FILTER (WHERE good AND detected) OVER (
            PARTITION BY {a_light_curve}
        ) AS flux_median
        FROM target_lightcurves
    )
"""

# Good rows are counted by themselves, so that a bad one never stands for the others.
_THINNED = """
    SELECT * FROM target_lightcurves WHERE archive = {archive}
    QUALIFY (row_number() OVER (
        PARTITION BY {a_light_curve}, good, detected ORDER BY mjd
    ) - 1) % {thinned_by} = 0
"""

# objectid, label, band, time, flux, err: the row of the Fornax light-curve collector. The labels of a target in several
# samples are joined by "; ".
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

# Bands with these endings are apertures, or fluxes with their systematics in them, beside a better one. The collector
# does not have them.
IS_BEST_BAND = r"NOT regexp_matches(rows.band, '_(ap|sap|raw)$')"

# The collector keeps the n events of highest energy of each target.
_BRIGHTEST = """
CREATE OR REPLACE MACRO brightest_events(archive_name, n) AS TABLE
    SELECT * FROM target_lightcurves
    WHERE archive = archive_name
    QUALIFY row_number() OVER (PARTITION BY target_id ORDER BY flux DESC, mjd) <= n
"""


def view_statements(declared: Sequence[Declaration]) -> list[str]:
    """Return the SQL that makes all views and macros of a lake.

    Parameters
    ----------
    declared
        What the installed sources declare.
    """
    by_exposure = [one.archive for one in declared if one.views.exposure_is_curve]
    a_light_curve = _A_LIGHT_CURVE.format(by_exposure=_listed(by_exposure))
    return [
        _SEPARATION,
        _IN_CONE.format(name="targets_in_cone", table="targets"),
        _IN_CONE.format(name="sources_in_cone", table="sources"),
        _LIGHTCURVES_IN_CONE,
        _TARGET_LIGHTCURVES,
        _TARGET_NAMES,
        _NORMALISED.format(a_light_curve=a_light_curve),
        _decimated(declared, a_light_curve),
        _fornax(declared),
        _BRIGHTEST,
        _fornax_as_published(declared),
        *(statement for one in declared for statement in one.views.statements),
    ]


def _decimated(declared: Iterable[Declaration], a_light_curve: str) -> str:
    thinned = [one for one in declared if one.views.thinned_by > 1]
    others = f"SELECT * FROM target_lightcurves WHERE archive NOT IN ({_listed(one.archive for one in thinned)})"
    parts = [
        _THINNED.format(archive=quoted(one.archive), a_light_curve=a_light_curve, thinned_by=one.views.thinned_by)
        for one in thinned
    ]
    return "CREATE OR REPLACE VIEW decimated AS " + " UNION ALL ".join([others, *parts])


def _fornax(declared: Iterable[Declaration]) -> str:
    return "CREATE OR REPLACE VIEW fornax AS" + fornax_select(declared)


def fornax_select(declared: Iterable[Declaration], rows: str = "target_lightcurves") -> str:
    """Return the SQL of view fornax, of all measurements of targets or of other rows with their columns."""
    conditions = [one.views.fornax_where for one in declared if one.views.fornax_where]
    where = " AND ".join(["rows.good AND rows.detected", IS_BEST_BAND, *conditions])
    return _fornax_rows(FornaxRows(rows=rows, where=where))


def _fornax_as_published(declared: Iterable[Declaration]) -> str:
    special = [one for one in declared if one.views.as_published is not None]
    names = _listed(one.archive for one in special)
    others = FornaxRows(
        rows=f"(SELECT * FROM target_lightcurves WHERE archive NOT IN ({names}))",
        where="rows.good AND rows.detected AND rows.flux IS NOT NULL",
    )
    parts = [others, *(part for one in special for part in one.views.as_published or ())]
    return "CREATE OR REPLACE VIEW fornax_as_published AS" + " UNION ALL ".join(map(_fornax_rows, parts))


def _fornax_rows(parts: FornaxRows) -> str:
    return _FORNAX_ROWS.format(**vars(parts))


def _listed(names: Iterable[str]) -> str:
    """Return names as a list in SQL, which must not be empty."""
    return ", ".join(quoted(name) for name in names) or "''"
