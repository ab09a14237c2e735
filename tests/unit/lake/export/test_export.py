"""The forms that other software takes hold the same values."""

from dataclasses import replace

import astropy.units as u
import pyarrow as pa
import pytest
from helpers.granules import committed, register

from lake.errors import ConfigurationError
from lake.export.context import Context
from lake.export.forms import convert, fornax_multiindex


@pytest.fixture
def held(lake):
    register(lake.catalog, range(3))
    committed(lake.catalog, range(3), "g0")
    return lake


def test_astropy_has_units_and_masks(held):
    table = held.light_curve("T1", form="astropy")
    arrow = held.light_curve("T1")
    assert table.colnames == ["time", *arrow.column_names]
    assert table["mjd"].unit == u.d
    assert table["separation_arcsec"].unit == u.arcsec
    assert table["mag"].mask.all()
    assert table["flux"].unit == u.mJy
    assert table["exposure_id"].mask.all()
    assert table["flux"].value.tolist() == arrow["flux"].to_pylist()
    assert list(table["band"]) == arrow["band"].to_pylist()
    assert len(held.cone(0, 89, 1, form="astropy")) == 0
    assert held.sql("SELECT asked_at FROM coverage", form="astropy")["asked_at"].dtype.kind == "M"


def test_pandas_has_the_same_rows(held):
    frame = held.light_curve("T1", form="pandas")
    assert frame["flux"].tolist() == held.light_curve("T1")["flux"].to_pylist()
    assert frame["mag"].isna().all()


def test_the_form_of_the_fornax_collector(held):
    frame = fornax_multiindex(held.sql("FROM fornax"))
    assert frame.index.names == ["objectid", "label", "band", "time"]
    assert list(frame.columns) == ["flux", "err"]
    assert len(frame) == held.sql("FROM lightcurves WHERE good AND detected").num_rows
    assert frame.index.get_level_values("label").unique().tolist() == ["test"]


def test_another_form_is_refused(held):
    with pytest.raises(ConfigurationError, match="'excel'"):
        convert(held.sql("FROM bands"), "excel")


def test_fluxes_of_several_units_are_numbers_with_the_unit_beside(held):
    rows = held.light_curve("T1")
    mixed = rows.set_column(
        rows.column_names.index("unit"), "unit", pa.array(["mJy", "electron.s**-1"] * (rows.num_rows // 2))
    )
    table = convert(mixed, "astropy")
    assert getattr(table["flux"], "unit", None) is None
    assert set(table["unit"]) == {"mJy", "electron.s**-1"}
    with pytest.raises(ConfigurationError, match="cannot carry fluxes in mJy, electron"):
        convert(mixed, "lightkurve")
    with pytest.raises(ConfigurationError, match="cannot carry fluxes in cats"):
        convert(
            mixed.set_column(mixed.column_names.index("unit"), "unit", pa.array(["cats"] * len(rows))), "lightkurve"
        )


def test_a_column_has_a_unit_only_if_it_is_the_schemas():
    made = convert(pa.table({"x": [1, 2], "exposure_s": ["a", "b"], "mag": [1.0, 2.0]}), "astropy")
    assert made["x"].unit is None
    assert made["exposure_s"].unit is None
    assert made["mag"].unit == u.mag


def test_a_missing_time_is_masked_and_a_light_curve_of_lightkurve_says_so(held):
    rows = held.light_curve("T1")
    column = rows.column_names.index("bmjd_tdb")
    gap = rows.set_column(column, "bmjd_tdb", pa.array([None, *rows["bmjd_tdb"].to_pylist()[1:]], pa.float64()))
    times = convert(gap, "astropy")["time"]
    assert times.masked
    assert times.mask.tolist() == [True] + [False] * (len(rows) - 1)
    with pytest.raises(ConfigurationError, match="no time at the barycentre"):
        convert(gap, "lightkurve")


def test_clocks(held):
    with pytest.raises(ConfigurationError, match="does not say which clock ztf has"):
        held.light_curve("T1", form="timeseries", clock="archive")
    held.catalog.cursor().execute(
        "INSERT INTO archives (archive, title, release, endpoint, time_scale, time_frame, cadence, licence, "
        "acknowledgement) VALUES ('ztf', 'ZTF', 'DR1', 'none', 'UTC', 'heliocentre', 'frozen', 'none', 'none')"
    )
    own = held.light_curve("T1", form="timeseries", clock="archive")
    assert (own["time"].scale, own.meta["time_frame"]) == ("utc", "heliocentre")
    assert sorted(own["time"].mjd) == sorted(held.light_curve("T1")["mjd"].to_pylist())
    bary = held.light_curve("T1", form="timeseries")
    assert (bary["time"].scale, bary.meta["time_frame"]) == ("tdb", "barycentre")
    with pytest.raises(ConfigurationError, match="no clock 'sundial'"):
        held.light_curve("T1", form="astropy", clock="sundial")
    two = Context(
        {"a": {"time_scale": "UTC", "time_frame": "geocentre"}, "b": {"time_scale": "TAI", "time_frame": "x"}}
    )
    rows = held.light_curve("T1").slice(0, 2)
    rows = rows.set_column(rows.column_names.index("archive"), "archive", pa.array(["a", "b"]))
    with pytest.raises(ConfigurationError, match="several clocks"):
        convert(rows, "astropy", replace(two, clock="archive"))


def test_light_curves_come_one_for_each_target_source_and_band(held):
    each = held.light_curve(["T2", "T0"], form="timeseries_bands")
    assert [(one.meta["name"], one.meta["band"]) for one in each] == [
        ("T2", "g"),
        ("T2", "r"),
        ("T0", "g"),
        ("T0", "r"),
    ]
    assert {len(one) for one in each} == {3}
    assert all(one["flux"].unit == u.mJy for one in each)
    assert [one.meta["name"] for one in held.light_curve("T1", form="timeseries_bands")] == ["T1", "T1"]
    assert [one.meta["LABEL"] for one in held.light_curve("T1", form="lightkurve")] == ["T1 g", "T1 r"]
    assert held.cone(10.37, -29.89, 5, form="timeseries_bands")[0].meta["source_id"] == "s1"
    with pytest.raises(ConfigurationError, match="cannot be told apart"):
        held.sql("SELECT bmjd_tdb, flux FROM lightcurves", form="timeseries_bands")
    with pytest.raises(ConfigurationError, match="needs column bmjd_tdb"):
        held.sql("SELECT flux FROM lightcurves", form="timeseries")


def test_the_fornax_form_of_targets_is_that_of_the_view(held):
    view = held.sql("FROM fornax", form="fornax")
    assert held.light_curve(["T0", "T1", "T2"], form="fornax").equals(view)
    one = held.light_curve("T1", form="fornax")
    assert one.equals(view.loc[[one.index[0][0]]])
    rows = held.sql("SELECT * REPLACE ('GeV' AS unit) FROM fornax LIMIT 3")
    assert fornax_multiindex(rows)["unit"].tolist() == ["GeV"] * 3
    with pytest.raises(ConfigurationError, match="of targets"):
        held.cone(10.37, -29.89, 5, form="fornax")
    with pytest.raises(ConfigurationError, match="of targets"):
        held.sql("FROM bands", form="fornax")
