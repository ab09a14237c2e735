"""What a user of the views and macros must know: what each returns, what it takes, its own columns, a query."""

from __future__ import annotations

from lake.model.declared import ViewNote
from lake.model.fornax import FORNAX_NOTES
from lake.model.schema import TABLES
from lake.model.table import Column

_CENTRE = {
    "ra0": "right ascension of the centre, ICRS, degrees",
    "dec0": "its declination, degrees",
    "radius_arcsec": "radius of the cone, arcsec",
}
_SEPARATION = Column(
    "separation_arcsec", "DOUBLE", "Distance from the centre", unit="arcsec", ucd="pos.angDistance", low=0
)
_PLACE = tuple(TABLES["sources"].column(name) for name in ("ra", "dec"))
_MEASURED = TABLES["lightcurves"]

VIEW_NOTES = {
    "separation_arcsec": ViewNote(
        text="Angular distance of two positions in arcsec; positions are in degrees.",
        example="SELECT name, separation_arcsec(ra, dec, 10.0, -30.0) AS arcsec FROM targets ORDER BY arcsec",
        arguments={
            "ra1": "right ascension of the first position, degrees",
            "dec1": "its declination, degrees",
            "ra2": "right ascension of the second position, degrees",
            "dec2": "its declination, degrees",
        },
    ),
    "targets_in_cone": ViewNote(
        text="Targets in a cone on the sky, nearest first.",
        example="FROM targets_in_cone(10.0, -30.0, 60)",
        arguments=_CENTRE,
        columns=(_SEPARATION,),
        tables=("targets",),
    ),
    "sources_in_cone": ViewNote(
        text="Sources of all archives in a cone on the sky, nearest first.",
        example="FROM sources_in_cone(10.0, -30.0, 60)",
        arguments=_CENTRE,
        columns=(_SEPARATION,),
        tables=("sources",),
    ),
    "cone": ViewNote(
        text="All measurements of all sources in a cone on the sky.",
        example="FROM cone(10.0, -30.0, 5)",
        arguments=_CENTRE,
        columns=(*_PLACE, _SEPARATION),
    ),
    "target_lightcurves": ViewNote(
        text="Targets, their matches and all measurements: the table to begin with. Of an archive with two releases, "
        "it has the one that table archives names.",
        example="SELECT mjd, flux, flux_err FROM target_lightcurves WHERE name = 'A' AND good ORDER BY mjd",
        tables=("lightcurves", "matches", "targets", "bands", "sources", "exposures"),
    ),
    "target_names": ViewNote(
        text="Each name of each target: its main name, those of lists, and those of name services.",
        example="FROM target_lightcurves SEMI JOIN (FROM target_names WHERE name = 'B') USING (target_id)",
        columns=(Column("name", "VARCHAR", "A name of the target", ucd="meta.id"),),
        tables=("targets",),
    ),
    "changes": ViewNote(
        text="Measurements that are new, changed or gone after one snapshot, up to another. A row that was pulled "
        "again with the same values is no change.",
        example="SELECT change, count(*) FROM changes(1, 2) GROUP BY change",
        arguments={"first_snapshot": "number of the earlier snapshot", "last_snapshot": "number of the later one"},
        columns=(
            Column("change", "VARCHAR", "new, changed or gone", ucd="meta.code"),
            *(
                Column(
                    f"{name}_before",
                    _MEASURED.column(name).type,
                    f"Column {name} in the earlier snapshot; NULL of new rows",
                    unit=_MEASURED.column(name).unit,
                    ucd=_MEASURED.column(name).ucd,
                )
                for name in ("flux", "flux_err", "mag", "mag_err", "good")
            ),
        ),
    ),
    "normalised": ViewNote(
        text="View target_lightcurves with flux and flux_err divided by the median of the light curve's good fluxes. "
        "Where an exposure (a sector, a quarter, a campaign) has its own level, it is divided by its own median. "
        "NULL where no positive median exists.",
        example="SELECT mjd, flux, flux_median FROM normalised WHERE name = 'A' AND good",
        columns=(
            Column("flux", "DOUBLE", "Flux over flux_median", ucd="phot.flux;arith.ratio"),
            Column("flux_err", "DOUBLE", "One standard deviation of that", ucd="stat.error;phot.flux"),
            Column("unit", "VARCHAR", "Unit of flux and flux_err: none", ucd="meta.unit"),
            Column("flux_median", "DOUBLE", "Median of the light curve's good fluxes", ucd="phot.flux;stat.median"),
            Column("flux_median_unit", "VARCHAR", "Unit of flux_median", ucd="meta.unit"),
        ),
    ),
    "decimated": ViewNote(
        text="View target_lightcurves with every thirtieth measurement of archives that have too many for a plot; "
        "good and other rows are counted apart.",
        example="SELECT mjd, flux FROM decimated WHERE name = 'A'",
    ),
    "brightest_events": ViewNote(
        text="The n events of highest flux or energy of each target.",
        example="SELECT name, mjd, flux FROM brightest_events('ARCHIVE', 3)",
        arguments={"archive_name": "the archive", "n": "how many events of each target"},
    ),
    **FORNAX_NOTES,
}
