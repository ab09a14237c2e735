"""Every rule that a granule must keep, each broken alone."""

import pyarrow as pa
import pytest
from helpers.granules import ARCHIVE, RELEASE, tables

from lake.errors import GranuleRejected
from lake.schema import TABLES
from lake.validate import validate


def _cast(made):
    return {name: TABLES[name].cast(table) for name, table in made.items()}


def _with(table, column, value, row=0):
    values = table[column].to_pylist() if column in table.column_names else [None] * table.num_rows
    values[row] = value
    array = pa.array(values, TABLES_OF[id(table)].arrow.field(column).type)
    if column in table.column_names:
        return table.set_column(table.column_names.index(column), column, array)
    return table.append_column(column, array)


TABLES_OF = {}


def _broken(name, column, value):
    made = tables(range(4), exposures={"e1": 58000.0, "e2": 58001.0})
    TABLES_OF[id(made[name])] = TABLES[name]
    made[name] = _with(made[name], column, value)
    return made


@pytest.mark.parametrize(
    ("table", "column", "value", "reason"),
    [
        ("sources", "source_id", None, "sources.source_id is NULL in 1 of 4 rows"),
        ("sources", "ra", 361.0, "sources.ra is above 360"),
        ("sources", "dec", -91.0, "sources.dec is below -90"),
        ("sources", "dec", -29.0, "sources.hpx29 is not the pixel of ra, dec"),
        ("sources", "hpx29", 5, "sources.hpx29 is not the pixel of ra, dec"),
        ("sources", "source_id", "s1", "sources has 1 keys more than once"),
        ("sources", "release", "DR9", "sources.release is not 'DR1'"),
        ("sources", "archive", "gaia", "sources.archive is not 'ztf'"),
        ("lightcurves", "mjd", None, "lightcurves.mjd is NULL"),
        ("lightcurves", "mjd", 2458000.0, "lightcurves.mjd is above 88069"),
        ("lightcurves", "bmjd_tdb", 8000.0, "lightcurves.bmjd_tdb is below 33282"),
        ("lightcurves", "flux", float("inf"), "lightcurves.flux is not a finite number"),
        ("lightcurves", "flux_err", -1.0, "lightcurves.flux_err is below 0"),
        ("lightcurves", "mag", 99.0, "lightcurves.mag is above 60"),
        ("lightcurves", "source_id", "other", "lightcurves.source_id is not among the granule's sources"),
        ("lightcurves", "hpx29", 7, "lightcurves.hpx29 differs from its source's"),
        ("lightcurves", "band", "z", "lightcurves.band 'z' is none of g, r"),
        ("lightcurves", "unit", "Jy", "lightcurves.unit of band g is 'Jy', not 'mJy'"),
        ("matches", "source_id", "other", "matches.source_id is not among the granule's sources"),
        ("matches", "target_id", 5, "matches.target_id is not among the granule's coverage"),
        ("matches", "separation_arcsec", -1.0, "matches.separation_arcsec is below 0"),
        ("matches", "rank", 0, "matches.rank is below 1"),
        ("coverage", "status", "maybe", "coverage.status is none of found, empty, failed"),
        ("coverage", "parameters", None, "coverage.parameters is NULL"),
        ("statistics", "band", "r", "statistics has 1 keys more than once"),
        ("statistics", "n", 0, "statistics.n is below 1"),
        ("exposures", "exposure_id", "e2", "exposures has 1 keys more than once"),
    ],
)
def test_a_broken_rule_is_named(table, column, value, reason):
    with pytest.raises(GranuleRejected) as error:
        validate(ARCHIVE, RELEASE, _cast(_broken(table, column, value)), {"g": "mJy", "r": "mJy"})
    assert error.value.reason.startswith(reason)


def test_a_sound_granule_passes():
    validate(ARCHIVE, RELEASE, _cast(tables(range(4))), {"g": "mJy", "r": "mJy"})
    validate(ARCHIVE, RELEASE, _cast(tables([], targets=range(3))))
    validate(ARCHIVE, RELEASE, {})
