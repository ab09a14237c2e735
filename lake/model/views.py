"""SQL views and macros that live in the catalogue, so that every client of the lake has them.

Those here are of any archive; what is particular to one comes with its declaration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lake.model.declared import Declaration, ViewNote
from lake.model.fornax import fornax_statements
from lake.model.schema import TABLES
from lake.model.table import listed, quoted
from lake.model.view_notes import VIEW_NOTES

_MADE = re.compile(r"\s*CREATE OR REPLACE (VIEW|MACRO) (\w+)(?:\((.*?)\))? AS( TABLE)?", re.DOTALL)

# Great-circle distance by the formula that is stable for small and for antipodal angles alike:
# T. Vincenty 1975, Survey Review 23, 88, on a sphere.
SEPARATION = """
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
NAMES_OF_TARGETS = """
    SELECT target_id, name FROM targets WHERE name IS NOT NULL
    UNION
    SELECT target_id, name FROM labels WHERE name IS NOT NULL
    UNION
    SELECT target_id, name FROM aliases WHERE target_id IS NOT NULL
"""
_TARGET_NAMES = f"\nCREATE OR REPLACE VIEW target_names AS{NAMES_OF_TARGETS}"

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

# The collector keeps the n events of highest energy of each target.
_BRIGHTEST = """
CREATE OR REPLACE MACRO brightest_events(archive_name, n) AS TABLE
    SELECT * FROM target_lightcurves
    WHERE archive = archive_name
    QUALIFY row_number() OVER (PARTITION BY target_id ORDER BY flux DESC, mjd) <= n
"""

# What became of each measurement between two snapshots, by its key: a row that was deleted and came back with the same
# values is no change. In one snapshot rows are deleted before others come.
_VALUES = [name for name in TABLES["lightcurves"].names if name not in (*TABLES["lightcurves"].key, "hpx29", "granule")]
_CHANGES = """
CREATE OR REPLACE MACRO changes(first_snapshot, last_snapshot) AS TABLE
    SELECT CASE WHEN before IS NULL THEN 'new' WHEN after IS NULL THEN 'gone' ELSE 'changed' END AS change,
        {key}, hpx29, {now}, {then}
    FROM (
        SELECT {key}, any_value(hpx29) AS hpx29,
            CASE WHEN coalesce(min(snapshot_id) FILTER (is_old) <= min(snapshot_id) FILTER (NOT is_old),
                bool_or(is_old)) THEN arg_min(measured, snapshot_id) FILTER (is_old) END AS before,
            CASE WHEN coalesce(max(snapshot_id) FILTER (NOT is_old) >= max(snapshot_id) FILTER (is_old),
                bool_or(NOT is_old)) THEN arg_max(measured, snapshot_id) FILTER (NOT is_old) END AS after
        FROM (
            SELECT *, change_type IN ('delete', 'update_preimage') AS is_old, {{{values}}} AS measured
            FROM ducklake_table_changes('lake', 'main', 'lightcurves', first_snapshot + 1, last_snapshot)
        )
        GROUP BY {key}
    )
    WHERE before IS DISTINCT FROM after
""".format(
    key=", ".join(TABLES["lightcurves"].key),
    now=", ".join(f"after.{name} AS {name}" for name in _VALUES),
    then=", ".join(f"before.{name} AS {name}_before" for name in ("flux", "flux_err", "mag", "mag_err", "good")),
    values=", ".join(f"'{name}': {name}" for name in _VALUES),
)


def view_statements(declared: Sequence[Declaration]) -> list[str]:
    """Return the SQL that makes all views and macros of a lake.

    Parameters
    ----------
    declared
        What the installed sources declare.
    """
    by_exposure = [one.archive for one in declared if one.views.exposure_is_curve]
    a_light_curve = _A_LIGHT_CURVE.format(by_exposure=listed(by_exposure))
    return [
        SEPARATION,
        _IN_CONE.format(name="targets_in_cone", table="targets"),
        _IN_CONE.format(name="sources_in_cone", table="sources"),
        _LIGHTCURVES_IN_CONE,
        _TARGET_LIGHTCURVES,
        _TARGET_NAMES,
        _CHANGES,
        _NORMALISED.format(a_light_curve=a_light_curve),
        _decimated(declared, a_light_curve),
        _BRIGHTEST,
        *fornax_statements(declared),
        *(statement for one in declared for statement in one.views.statements),
    ]


@dataclass(frozen=True)
class View:
    """A view or macro of a lake.

    Parameters
    ----------
    name, arguments
        As its SQL has them; a view takes no arguments.
    returns_table
        It is not a macro that returns a value.
    note
        What a user must know.
    """

    name: str
    arguments: tuple[str, ...] | None
    returns_table: bool
    note: ViewNote

    @property
    def call(self) -> str:
        """Return how a query names it."""
        return self.name if self.arguments is None else f"{self.name}({', '.join(self.arguments)})"

    @property
    def kind(self) -> str:
        """Return view or macro."""
        return "view" if self.arguments is None else "macro"


def views(declared: Sequence[Declaration]) -> list[View]:
    """Return all views and macros of a lake, with what is said of them.

    Parameters
    ----------
    declared
        What the installed sources declare.
    """
    notes = {**VIEW_NOTES, **{name: note for one in declared for name, note in one.views.notes.items()}}
    found = []
    for statement in view_statements(declared):
        if made := _MADE.match(statement):
            kind, name, arguments, table = made.groups()
            listed_ones = None if kind == "VIEW" else tuple(one.strip() for one in arguments.split(","))
            nothing = ViewNote(text="", example="")
            found.append(View(name, listed_ones, kind == "VIEW" or bool(table), notes.get(name, nothing)))
    return found


def view_comments(declared: Sequence[Declaration]) -> list[str]:
    """Return the SQL that puts what is said of views into the catalogue; the views must be there."""
    return [
        f"COMMENT ON VIEW {one.name} IS {quoted(one.note.text)}" for one in views(declared) if one.arguments is None
    ]


def _decimated(declared: Iterable[Declaration], a_light_curve: str) -> str:
    thinned = [one for one in declared if one.views.thinned_by > 1]
    others = f"SELECT * FROM target_lightcurves WHERE archive NOT IN ({listed(one.archive for one in thinned)})"
    parts = [
        _THINNED.format(archive=quoted(one.archive), a_light_curve=a_light_curve, thinned_by=one.views.thinned_by)
        for one in thinned
    ]
    return "CREATE OR REPLACE VIEW decimated AS " + " UNION ALL ".join([others, *parts])
