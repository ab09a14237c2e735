"""The forms that other software takes hold the same values."""

import astropy.units as u
import pytest
from helpers.granules import committed, register

from lake.errors import ConfigurationError
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
