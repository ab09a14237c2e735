"""Odd values become NULL, rows that cannot be kept are left out, and a broken source takes no neighbour with it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.commit.sound import rejected_remark, sound, without_broken
from lake.errors import GranuleRejected
from lake.model.schema import TABLES
from lake.science.sky import hpx29

UNITS = {"g": "mJy"}
IDS = ["a", "b", "c"]
PLACES = {name: (10.0 * n, 5.0 * n) for n, name in enumerate(IDS)}
KEYS = {"archive": "madeup", "release": "DR1", "granule": "madeup-1"}


def granule(**odd: Any) -> dict[str, pa.Table]:
    """Three sources with two rows each; odd values replace those of the first row of source b, by column."""
    pixels = {name: int(hpx29(*place)) for name, place in PLACES.items()}
    sources = [
        {**KEYS, "source_id": name, "hpx29": pixels[name], "ra": ra, "dec": dec, "position_err_arcsec": 1.0}
        for name, (ra, dec) in PLACES.items()
    ]
    matches = [
        {
            **KEYS,
            "target_id": 7,
            "source_id": name,
            "hpx29": pixels[name],
            "separation_arcsec": float(rank),
            "rank": rank,
        }
        for rank, name in enumerate(IDS, 1)
    ]
    rows = [
        {
            **KEYS,
            "source_id": name,
            "hpx29": pixels[name],
            "band": "g",
            "mjd": 58000.0 + n,
            "bmjd_tdb": 58000.1 + n,
            "flux": 1.5,
            "flux_err": 0.5,
            "unit": "mJy",
            "mag": 18.0,
            "mag_err": 0.125,
            "background": 1.0,
            "x": 2.0,
            "detected": True,
            "good": True,
            "exposure_id": f"e-{n}",
        }
        for name in IDS
        for n in range(2)
    ]
    rows[2] |= {name: value for name, value in odd.items() if name in rows[2]}
    sources[1] |= {name: value for name, value in odd.items() if name in ("ra", "dec", "position_err_arcsec")}
    exposures = [{**KEYS, "exposure_id": f"e-{n}", "details": json.dumps({"file": f"f{n}.fits"})} for n in range(2)]
    tables = {"sources": sources, "matches": matches, "lightcurves": rows, "exposures": exposures}
    return {name: pa.Table.from_pylist(table) for name, table in tables.items()}


def covered() -> pa.Table:
    n = np.zeros(1, np.int64)
    asked = pa.array([0], pa.timestamp("us", tz="UTC"))
    return pa.table(
        {
            **{name: [value] for name, value in KEYS.items()},
            "target_id": [7],
            "status": ["found"],
            "n_sources": n,
            "n_rows": n,
            "parameters": ["{}"],
            "asked_at": asked,
        }
    )


def whole(tables: dict[str, pa.Table]) -> tuple[dict[str, pa.Table], dict[str, str]]:
    return without_broken("madeup", "DR1", {**tables, "coverage": covered()}, UNITS)


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("flux", np.inf, "infinite"),
        ("flux", 1e39, "infinite"),
        ("flux_err", np.inf, "infinite"),
        ("flux_err", -1.0, "negative"),
        ("flux_err", -999.0, "negative"),
        ("mag", -999.0, "impossible"),
        ("mag", 99.0, "impossible"),
        ("mag_err", -1.0, "negative"),
        ("background", -np.inf, "infinite"),
        ("x", np.inf, "infinite"),
        ("bmjd_tdb", np.inf, "infinite"),
    ],
)
def test_an_odd_value_is_null_and_nothing_else_is(column: str, value: float, kind: str) -> None:
    made, remarks = sound(granule(**{column: value}))
    rows, before = made["lightcurves"].to_pylist(), granule()["lightcurves"].to_pylist()
    before[2][column] = None
    if column == "flux":
        before[2] |= {"detected": False, "good": False}
    assert rows == before
    (told,) = remarks
    assert told.startswith(kind)
    assert f" lightcurves.{column} " in told
    assert told.endswith(": 1 (b in f0.fits)")
    assert whole(made)[1] == {}


@pytest.mark.parametrize("mjd", [None, np.nan, np.inf, 0.0, -999.0, 2458000.5])
def test_a_row_without_a_time_is_left_out(mjd: float | None) -> None:
    made, remarks = sound(granule(mjd=mjd))
    assert made["lightcurves"].num_rows == 5
    assert made["sources"].num_rows == 3
    assert any("without a time, left out: 1 (b in f0.fits)" in told for told in remarks)
    assert whole(made)[1] == {}


def test_a_clock_that_is_wrong_throughout_is_no_odd_number() -> None:
    tables = granule()
    rows = tables["lightcurves"]
    place = rows.column_names.index("mjd")
    days = {**tables, "lightcurves": rows.set_column(place, "mjd", pc.add(rows["mjd"], 2400000.5))}
    with pytest.raises(GranuleRejected, match=r"mjd is not 33282 to 88069 in any of 6 rows, such as 2458000\.5"):
        sound(days)
    # Sentinels are no clock.
    nothing = {**tables, "lightcurves": rows.set_column(place, "mjd", pa.array([0.0] * 6))}
    made, remarks = sound(nothing)
    assert made["lightcurves"].num_rows == 0
    assert any("without a time, left out: 6" in told for told in remarks)


@pytest.mark.parametrize("ra", [None, np.nan, np.inf, -999.0])
def test_a_source_without_a_place_is_left_out_with_its_rows(ra: float | None) -> None:
    made, remarks = sound(granule(ra=ra))
    for name, n in (("sources", 2), ("matches", 2), ("lightcurves", 4)):
        assert (made[name].num_rows, set(made[name]["source_id"].to_pylist())) == (n, {"a", "c"})
    assert made["matches"]["rank"].to_pylist() == [1, 2]
    assert any("sources without a place, left out: 1 (b)" in told for told in remarks)
    assert whole(made)[1] == {}


@pytest.mark.parametrize("odd", [None, ""])
def test_what_has_no_id_is_left_out(odd: str | None) -> None:
    tables = granule()
    for name in ("sources", "matches", "lightcurves"):
        ids = [odd if one == "b" else one for one in tables[name]["source_id"].to_pylist()]
        tables[name] = tables[name].set_column(
            tables[name].column_names.index("source_id"), "source_id", pa.array(ids, pa.string())
        )
    made, remarks = sound(tables)
    assert [made[name].num_rows for name in ("sources", "matches", "lightcurves")] == [2, 2, 4]
    assert made["matches"]["rank"].to_pylist() == [1, 2]
    assert any("sources without an id, left out: 1" in told for told in remarks)


def test_an_odd_error_of_a_position_is_null() -> None:
    made, remarks = sound(granule(position_err_arcsec=-1.0))
    assert made["sources"]["position_err_arcsec"].to_pylist() == [1.0, None, 1.0]
    assert remarks == ["negative values of sources.position_err_arcsec taken for missing: 1 (b)"]


def test_what_breaks_a_rule_rejects_its_source_alone() -> None:
    made, rejected = whole(granule(unit="mJy", detected=None))
    assert list(rejected) == ["b"]
    assert "lightcurves.detected is NULL in 1 of 6 rows" in rejected["b"]
    assert set(made["lightcurves"]["source_id"].to_pylist()) == {"a", "c"}
    assert "sources rejected: 1 (b)" in (rejected_remark(rejected) or "")
    tables = granule()
    twice = pa.concat_tables([tables["sources"], tables["sources"].slice(2)])
    made, rejected = whole({**tables, "sources": twice})
    assert list(rejected) == ["c"]
    with pytest.raises(GranuleRejected, match="is none of"):
        whole(granule(band="V"))
    with pytest.raises(GranuleRejected, match="more than once"):
        whole({**tables, "sources": pa.concat_tables([tables["sources"]] * 2)})


def test_the_only_source_takes_no_other_target_with_it() -> None:
    """Beside targets that have nothing, one broken source is no sign that all is; by itself it is all there is."""
    tables = {
        name: table.filter(pc.equal(table["source_id"], "b")) if "source_id" in table.column_names else table
        for name, table in granule(detected=None).items()
    }
    with pytest.raises(GranuleRejected, match="detected is NULL in 1 of 2 rows"):
        whole(tables)
    neighbour = covered().set_column(covered().column_names.index("target_id"), "target_id", pa.array([8]))
    asked = pa.concat_tables([covered(), neighbour])
    made, rejected = without_broken("madeup", "DR1", {**tables, "coverage": asked}, UNITS)
    assert list(rejected) == ["b"]
    assert [made[name].num_rows for name in ("sources", "matches", "lightcurves")] == [0, 0, 0]


NUMBERS = (
    "flux",
    "flux_err",
    "mag",
    "mag_err",
    "mjd",
    "bmjd_tdb",
    "background",
    "x",
    "ra",
    "dec",
    "position_err_arcsec",
)
ODD = st.floats(allow_nan=True, allow_infinity=True)


@given(st.fixed_dictionaries({name: st.none() | ODD for name in NUMBERS}))
def test_whatever_the_numbers_neighbours_are_untouched(odd: dict[str, float | None]) -> None:
    odd |= {axis: PLACES["b"][n] for n, axis in enumerate(("ra", "dec")) if odd[axis] is not None}
    made, rejected = whole(sound(granule(**odd))[0])
    assert rejected == {}
    kept = [row for row in made["lightcurves"].to_pylist() if row["source_id"] != "b"]
    clean = [row for row in TABLES["lightcurves"].cast(granule()["lightcurves"]).to_pylist() if row["source_id"] != "b"]
    assert kept == clean
