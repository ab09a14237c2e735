"""An exposure's rows of the lake: units, times, gaps, names, and the tables' own schemas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from helpers.hst import cos_file

from lake.errors import GranuleRejected
from lake.model.schema import TABLES as LAKE
from tasks.sources.hst_timetag import products
from tasks.sources.hst_timetag.events import open_events
from tasks.sources.hst_timetag.exposure import open_exposures
from tasks.sources.hst_timetag.extract import Selection, extract
from tasks.sources.hst_timetag.products import Made, tables_of
from tasks.sources.hst_timetag.tables import BANDS, TABLES

OF_SOURCE = {table.name: table for table in TABLES}


def made(path: Path, product: str = "exposure", times: int = 1) -> Made:
    with open_events(path) as tables:
        curve = extract(tables, Selection(wavelengths=(-1e9, 1e9)))
        return Made("l1", product, tables[0], "V* SOME", [(f"l{number}", curve) for number in range(times)])


def test_every_table_fits_its_schema_and_the_bins_are_what_was_extracted(tmp_path: Path) -> None:
    times = np.arange(0, 12.01, 0.5)
    path = cos_file(tmp_path / "l1_corrtag_a.fits", times=times, good_times=[(0, 4), (7, 12)], segment="FUVA")
    tables = tables_of(made(path), "hst_timetag-1")
    for name, table in tables.items():
        (LAKE | OF_SOURCE)[name].cast(table)
    light = tables["lightcurves"].to_pylist()
    # 2 s bins; the third is in a gap, half of the fourth is.
    assert [row["exposure_s"] for row in light] == [2, 2, 1, 2, 2]
    assert [row["good"] for row in light] == [True, True, False, True, True]
    assert [row["flux"] for row in light] == pytest.approx([2.0] * 5)
    assert [row["flux_err"] for row in light] == pytest.approx([1, 1, np.sqrt(2), 1, 1])
    assert {row["unit"] for row in light} == {"count.s**-1"}
    assert light[0]["mjd"] == pytest.approx(57934.2 + 1 / 86_400, abs=1e-9)
    assert {row["band"] for row in light} <= {band.band for band in BANDS}
    bins = tables["hst_bins"].to_pylist()
    assert [row["gross"] for row in bins] == [4, 4, None, 2, 4, 4]
    facts = tables["hst_exposures"].to_pylist()[0]
    assert (facts["instrument"], facts["grating"], facts["cenwave"], facts["fp_pos"]) == ("COS", "G140L", 1105, 3)
    assert (facts["y_min_a"], facts["y_max_a"], facts["bins"], facts["members"]) == (490, 510, 6, 1)
    assert not facts["has_empty_bin"]
    assert not facts["flux_calibrated"]
    assert facts["y_min_b"] is None
    assert tables["hst_statistics"].to_pylist()[0]["total"] == 16


def test_a_composite_numbers_its_exposures_and_has_no_light_curve_twice(tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=np.arange(0, 8.01, 0.5))
    tables = tables_of(made(path, "composite", times=3), "hst_timetag-1")
    assert set(tables) == {"hst_bins", "hst_exposures", "hst_statistics", "sources"}
    (source,) = tables["sources"].to_pylist()
    assert (source["left_out"], source["ra"]) == ("composite", tables["sources"]["ra"][0].as_py())
    assert [row["dataset"] for row in tables["hst_bins"].to_pylist()] == [1] * 4 + [2] * 4 + [3] * 4
    facts = tables["hst_exposures"].to_pylist()[0]
    assert (facts["members"], facts["exposure_s"]) == (3, 24.0)
    assert facts["fp_pos"] is None


def test_rows_of_all_stripes_are_kept(tmp_path: Path) -> None:
    boxes = {name: ((place, 20), (100, 10), (900, 10)) for name, place in (("A", 300), ("B", 500), ("C", 700))}
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[0.0, 4.0], boxes=boxes)
    facts = tables_of(made(path), "hst_timetag-1")["hst_exposures"].to_pylist()[0]
    assert [(facts[f"y_min_{name}"], facts[f"y_max_{name}"]) for name in "abc"] == [(290, 310), (490, 510), (690, 710)]


def test_an_exposure_without_a_position_is_rejected(tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[0.0, 4.0], primary={"RA_TARG": ""})
    with pytest.raises(GranuleRejected, match="RA_TARG"):
        tables_of(made(path), "hst_timetag-1")


def test_a_bin_of_no_counts_is_marked(tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[0.0, 1.0, 9.0])
    tables = tables_of(made(path), "hst_timetag-1")
    assert tables["hst_exposures"].to_pylist()[0]["has_empty_bin"]
    assert [row["detected"] for row in tables["lightcurves"].to_pylist()] == [True] * 4


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events_of_both_segments_come_in_order_of_time_and_in_parts(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "EVENTS", size)
    times = {"a": np.arange(0, 12.01, 0.5), "b": np.repeat([3.0, 3.25, 11.0], 9)}
    files = [
        cos_file(tmp_path / f"l1_corrtag_{name}.fits", times=each, segment=f"FUV{name.upper()}", good_times=[(0, 12)])
        for name, each in times.items()
    ]
    with open_exposures(files) as (exposure,):
        sources = tables_of(Made("l1", "exposure", exposure.first, "x", [("l1", exposure.curve(Selection()))]), "g")
        parts = list(products.event_parts(exposure, sources["sources"]))
    assert max(part.num_rows for part in parts) <= 2 * size
    every = pa.concat_tables([OF_SOURCE["events"].cast(part) for part in parts])
    assert every["time_s"].to_pylist() == sorted([*times["a"], *times["b"]])
    for name, each in times.items():
        mine = every.filter(pc.equal(every["segment"].cast(pa.string()), f"FUV{name.upper()}"))
        assert mine["time_s"].to_pylist() == each.tolist()
        assert set(mine["pha"].to_pylist()) == {10}
