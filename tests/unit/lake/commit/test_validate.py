"""Every rule that a granule must keep, each broken alone."""

import numpy as np
import pyarrow as pa
import pytest
from helpers.granules import ARCHIVE, RELEASE, tables

from lake.commit.validate import is_within, validate, validate_rows
from lake.errors import GranuleRejected
from lake.model.schema import TABLES
from lake.store.storage import decoded


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
        ("sources", "source_id", "s1", "sources has 1 key more than once"),
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
        ("coverage", "status", "maybe", "coverage.status is none of found, empty, rejected, failed"),
        ("coverage", "parameters", None, "coverage.parameters is NULL"),
        ("statistics", "band", "r", "statistics has 1 key more than once"),
        ("statistics", "n", 0, "statistics.n is below 1"),
        ("exposures", "exposure_id", "e2", "exposures has 1 key more than once"),
    ],
)
def test_a_broken_rule_is_named(table, column, value, reason):
    with pytest.raises(GranuleRejected) as error:
        validate(ARCHIVE, RELEASE, _cast(_broken(table, column, value)), {"g": "mJy", "r": "mJy"})
    assert error.value.reason.startswith(reason)


def test_tables_that_passed_are_not_checked_again_and_all_others_are():
    made = _cast(tables(range(4)))
    odd = made["sources"].set_column(made["sources"].column_names.index("ra"), "ra", pa.array([400.0] * 4))
    with pytest.raises(GranuleRejected, match="ra is above"):
        validate(ARCHIVE, RELEASE, {**made, "sources": odd})
    validate(ARCHIVE, RELEASE, {**made, "sources": odd}, checked=("sources",))
    few = {**made, "coverage": made["coverage"].slice(1)}
    with pytest.raises(GranuleRejected, match="is not among the granule's coverage"):
        validate(ARCHIVE, RELEASE, few, checked=("sources", "matches"))
    with pytest.raises(GranuleRejected, match=r"statistics\.n is below 1"):
        validate(ARCHIVE, RELEASE, _cast(_broken("statistics", "n", 0)), checked=("sources", "matches", "lightcurves"))


def test_the_same_match_twice_is_named_whether_its_source_is_of_the_granule_or_known():
    made = _cast(tables(range(3)))
    twice = {**made, "matches": pa.concat_tables([made["matches"], made["matches"].slice(1, 1)])}
    # The ids of the sources come twice, too, when all of them are known.
    both = {**made, "matches": pa.concat_tables([made["matches"], made["matches"]]).combine_chunks()}
    for broken, known in ((twice, None), (twice, made["sources"]), (both, made["sources"])):
        with pytest.raises(GranuleRejected, match=r"matches has . keys? more than once"):
            validate(ARCHIVE, RELEASE, broken, known=known)


def test_a_sound_granule_passes():
    validate(ARCHIVE, RELEASE, _cast(tables(range(4))), {"g": "mJy", "r": "mJy"})
    validate(ARCHIVE, RELEASE, _cast(tables([], targets=range(3))))
    validate(ARCHIVE, RELEASE, {})


# --- dictionaries


def _encoded(table, *columns):
    for name in columns or [n for n in table.column_names if table.schema.field(n).type == pa.string()]:
        table = table.set_column(table.column_names.index(name), name, table[name].combine_chunks().dictionary_encode())
    return table


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("source_id", "other", "lightcurves.source_id is not among the granule's sources in 1 of 24 rows, such as"),
        ("source_id", None, "lightcurves.source_id is NULL in 1 of 24 rows"),
        ("hpx29", 7, "lightcurves.hpx29 differs from its source's in 1 of 24 rows, such as 7"),
        ("band", "z", "lightcurves.band 'z' is none of g, r"),
        ("band", None, "lightcurves.band is NULL in 1 of 24 rows"),
        ("unit", "Jy", "lightcurves.unit of band g is 'Jy', not 'mJy'"),
        ("unit", None, "lightcurves.unit of band g is None, not 'mJy'"),
        ("archive", "gaia", "lightcurves.archive is not 'ztf' in 1 of 24 rows, such as 'gaia'"),
        ("release", "DR9", "lightcurves.release is not 'DR1'"),
        ("granule", None, "lightcurves.granule is NULL"),
    ],
)
def test_a_broken_rule_is_named_in_dictionaries_too(column, value, reason):
    made = _cast(_broken("lightcurves", column, value))
    rows = TABLES["lightcurves"].cast(_encoded(made["lightcurves"]))
    assert pa.types.is_dictionary(rows.schema.field("source_id").type)
    with pytest.raises(GranuleRejected) as error:
        validate_rows(ARCHIVE, RELEASE, "lightcurves", rows, made["sources"], {"g": "mJy", "r": "mJy"})
    assert error.value.reason.startswith(reason)


def test_sound_rows_with_dictionaries_pass_whatever_their_chunks():
    made = _cast(tables(range(6)))
    sources, rows = made["sources"], made["lightcurves"]
    parts = [TABLES["lightcurves"].cast(_encoded(rows.slice(at, 5))) for at in range(0, rows.num_rows, 5)]
    for part in (*parts, pa.concat_tables(parts), parts[0].slice(0, 0), pa.concat_tables(parts).slice(3, 9)):
        validate_rows(ARCHIVE, RELEASE, "lightcurves", part, sources, {"g": "mJy", "r": "mJy"})


def test_values_of_a_dictionary_that_no_row_has_break_no_rule():
    made = _cast(tables(range(4)))
    ids = pa.DictionaryArray.from_arrays(
        pa.array([int(name[1:]) for name in made["lightcurves"]["source_id"].to_pylist()], pa.int8()),
        pa.array(["s0", "s1", "s2", "s3", "nobody"]),
    )
    rows = made["lightcurves"]
    rows = rows.set_column(rows.column_names.index("source_id"), "source_id", ids)
    validate_rows(ARCHIVE, RELEASE, "lightcurves", rows, made["sources"])
    wrong = rows.set_column(rows.column_names.index("hpx29"), "hpx29", pa.array(rows["hpx29"].to_pylist()[::-1]))
    with pytest.raises(GranuleRejected, match="differs from its source's in 24 of 24 rows"):
        validate_rows(ARCHIVE, RELEASE, "lightcurves", wrong, made["sources"])


def test_a_null_inside_of_a_dictionary_is_a_null():
    made = _cast(tables(range(2)))
    rows = made["lightcurves"]
    granules = pa.DictionaryArray.from_arrays(pa.array([0] * 11 + [1], pa.int8()), pa.array(["g0", None]))
    rows = rows.set_column(rows.column_names.index("granule"), "granule", granules)
    with pytest.raises(GranuleRejected, match=r"lightcurves.granule is NULL in 1 of 12 rows"):
        validate_rows(ARCHIVE, RELEASE, "lightcurves", rows, made["sources"])


def test_casting_keeps_dictionaries_of_text_and_only_those():
    rows = tables(range(2))["lightcurves"]
    cast = TABLES["lightcurves"].cast(_encoded(rows, "source_id", "band"))
    assert [pa.types.is_dictionary(cast.schema.field(name).type) for name in ("source_id", "band", "unit")] == [
        True,
        True,
        False,
    ]
    assert decoded(cast).equals(TABLES["lightcurves"].cast(rows))
    assert cast.column_names == TABLES["lightcurves"].names
    large = rows.set_column(
        rows.column_names.index("band"), "band", rows["band"].cast(pa.large_string()).dictionary_encode()
    )
    assert TABLES["lightcurves"].cast(large)["band"].type == pa.string()
    numbers = rows.set_column(rows.column_names.index("band"), "band", rows["hpx29"].dictionary_encode())
    assert set(TABLES["lightcurves"].cast(numbers)["band"].to_pylist()) == {str(v) for v in rows["hpx29"].to_pylist()}


@pytest.mark.parametrize("below_null", [np.nan, 0.0, 1e9, -np.inf])
@pytest.mark.parametrize(
    ("values", "is_sound"),
    [
        ([1.0, None, 5.0], True),
        ([None, 0.0], True),
        ([None, None], True),
        ([], True),
        ([1.0, np.nan, None], True),  # Table.cast has made NaN NULL
        ([5.5, None], False),
        ([None, -0.1], False),
        ([np.inf, 1.0], False),
        ([1.0, -np.inf], False),
    ],
)
def test_numbers_in_range_are_told_whatever_is_below_null(values, is_sound, below_null):
    missing = np.array([value is None for value in [7.0, *values, -7.0]])
    numbers = np.array([below_null if value is None else value for value in [7.0, *values, -7.0]], np.float32)
    part = pa.array(numbers, mask=missing).slice(1, len(values))
    assert is_within(pa.chunked_array([part]), 0.0, 5.0) == is_sound
    assert is_within(pa.chunked_array([part, pa.array([1.0], pa.float32()), part]), 0.0, 5.0) == is_sound
    assert (
        is_within(pa.chunked_array([part]), None, None)
        == np.isfinite([one for one in values if one is not None and not np.isnan(one)]).all()
    )


def test_whole_numbers_in_range_are_told():
    column = pa.chunked_array([pa.array([1, None, 3]), pa.array([2])])
    assert is_within(column, 1, 3)
    assert not is_within(column, 2, None)
    assert not is_within(column, None, 2)
