"""The frame of the Fornax notebooks: its index, its rows, its units, and what names and ids it has."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from helpers.granules import committed, hold, positions, register

from lake.commit.targets import add_targets
from lake.errors import ConfigurationError
from lake.export import fornax
from lake.export.forms import fornax_multiindex
from lake.export.fornax import export_frame
from lake.model.declared import declarations
from lake.query import Lake


@pytest.fixture
def held(lake: Lake) -> Lake:
    register(lake.catalog, range(3), "first")
    ra, dec = positions(range(2))
    add_targets(lake.catalog, pa.table({"ra": ra, "dec": dec, "label": ["AGN", "QSO"]}), "second")
    committed(lake.catalog, range(3), "g0")
    hold(lake, "icecube", "IceCube", [{"mjd": 55000.0 + n, "flux": 1000.0 + n, "unit": "GeV"} for n in range(4)])
    hold(lake, "wise", "W1", [{"mjd": 57000.0, "flux": 0.25, "flux_err": None, "unit": "mJy"}])
    return lake


def test_pandas_reads_the_frame_of_the_view(held: Lake, tmp_path: Path) -> None:
    done = export_frame(held, tmp_path / "frame.parquet")
    frame = pd.read_parquet(tmp_path / "frame.parquet")
    expected = fornax_multiindex(held.sql("FROM fornax"))[["flux", "err"]]  # units are in its attributes
    pd.testing.assert_frame_equal(frame, expected)
    assert frame.index.is_monotonic_increasing
    assert (done.rows, done.targets) == (len(expected), 3)
    assert frame.index.get_level_values("objectid").max() > 2**53
    assert set(frame.index.get_level_values("label")) == {"AGN; first", "QSO; first", "first"}
    assert frame.err.isna().sum() == 5
    assert frame.attrs["units"] == {"IceCube": ["log(GeV)"], "W1": ["mJy"], "g": ["mJy"], "r": ["mJy"]}
    assert frame.attrs["snapshot_id"] > 1
    # As pandas itself would write it.
    expected.to_parquet(tmp_path / "own.parquet")
    ours, own = (pq.read_schema(tmp_path / name) for name in ("frame.parquet", "own.parquet"))
    assert (ours.names, ours.types) == (own.names, own.types)


def test_band_names_of_2024(held: Lake, tmp_path: Path) -> None:
    for archive, band in (("panstarrs", "ps1_g"), ("gaia", "G"), ("hcv", "ACS_F606W")):
        hold(held, archive, band, [{"mjd": 57000.0, "flux": 0.25, "unit": "mJy"}])
    export_frame(held, tmp_path / "frame.parquet", v24=True)
    bands = set(pd.read_parquet(tmp_path / "frame.parquet").index.get_level_values("band"))
    # Where the collector has no name, the lake's stays.
    assert bands == {"IceCube", "W1", "g", "r", "panstarrs g", "G", "ACS_F606W"}
    assert bands == set(held.sql("SELECT DISTINCT band FROM fornax_v24")["band"].to_pylist())
    named = {one.archive: dict(one.views.fornax_v24) for one in declarations()}
    assert named["ztf"] == {"ztf_g": "zg", "ztf_r": "zr", "ztf_i": "zi"}
    assert set(named["panstarrs"].values()) == {f"panstarrs {letter}" for letter in "grizy"}
    known = {one.archive: set(one.bands) for one in declarations()}
    assert all(set(names) <= known[archive] for archive, names in named.items()), "a band that no archive has"


def test_a_row_for_each_label(held: Lake, tmp_path: Path) -> None:
    joined = export_frame(held, tmp_path / "joined.parquet")
    done = export_frame(held, tmp_path / "frame.parquet", exploded=True)
    frame = pd.read_parquet(tmp_path / "frame.parquet").reset_index()
    assert done.rows == len(frame) > joined.rows
    assert done.targets == 3
    assert sorted(frame.label.unique()) == ["AGN", "QSO", "first"]
    counts = frame.groupby(["objectid", "label"]).size().groupby("objectid")
    assert sorted(counts.size()) == [1, 2, 2]
    assert (counts.min() == counts.max()).all(), "all rows of a target for each of its labels"


def test_numbers_and_their_targets(held: Lake, tmp_path: Path) -> None:
    done = export_frame(held, tmp_path / "frame.parquet", numbered=True)
    assert done.ids == tmp_path / "frame_ids.ecsv"
    ids = Table.read(done.ids, format="ascii.ecsv")
    assert list(ids["objectid"]) == [1, 2, 3]
    assert (ids["ra"].unit, ids["target_id"].dtype.kind) == ("deg", "i")
    frame = pd.read_parquet(tmp_path / "frame.parquet").reset_index()
    targets = dict(zip(ids["objectid"], ids["target_id"], strict=True))
    frame["objectid"] = frame.objectid.map(targets)
    columns = ["objectid", "label", "band", "time"]
    expected = fornax_multiindex(held.sql("FROM fornax"))[["flux", "err"]]
    pd.testing.assert_frame_equal(frame.set_index(columns).sort_index(), expected)
    # The macro has the same numbers.
    macro = held.sql("SELECT DISTINCT objectid, target_id FROM fornax_ids ORDER BY ALL").to_pylist()
    assert {row["objectid"]: row["target_id"] for row in macro} == targets
    asked = held.sql("SELECT DISTINCT objectid FROM fornax_v24(numbered := true) ORDER BY ALL")
    assert asked["objectid"].to_pylist() == [1, 2, 3]


def test_numbers_stay_when_targets_are_added(held: Lake) -> None:
    before = held.sql("FROM fornax_ids ORDER BY ALL").to_pylist()
    register(held.catalog, range(3, 6), "third")
    assert held.sql("FROM fornax_ids ORDER BY ALL LIMIT 3").to_pylist() == before


def test_a_sample_has_its_own_labels(held: Lake, tmp_path: Path) -> None:
    done = export_frame(held, tmp_path / "frame.parquet", sample="second", numbered=True)
    frame = pd.read_parquet(tmp_path / "frame.parquet")
    assert done.targets == 2
    assert set(frame.index.get_level_values("label")) == {"AGN", "QSO"}
    assert frame.index.get_level_values("objectid").unique().tolist() == [1, 2]
    assert frame.attrs["sample"] == "second"


def test_parts_are_as_good_as_the_whole(held: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_frame(held, tmp_path / "whole.parquet")
    monkeypatch.setattr(fornax, "_GROUP_ROWS", 3)
    monkeypatch.setattr(fornax, "_BATCH_ROWS", 2)
    done = export_frame(held, tmp_path / "parts.parquet")
    assert done.targets == 3
    assert pq.read_metadata(tmp_path / "parts.parquet").num_row_groups > 3
    whole, parts = (pd.read_parquet(tmp_path / name) for name in ("whole.parquet", "parts.parquet"))
    pd.testing.assert_frame_equal(whole, parts)
    assert whole.attrs["units"] == parts.attrs["units"]


def test_what_cannot_be_exported(lake: Lake, held: Lake, tmp_path: Path) -> None:
    file = tmp_path / "frame.parquet"
    file.write_text("mine")
    with pytest.raises(ConfigurationError, match="did you mean first"):
        export_frame(held, file, sample="frist")
    assert file.read_text() == "mine"


def test_a_lake_without_light_curves_leaves_a_file_as_it_was(lake: Lake, tmp_path: Path) -> None:
    register(lake.catalog, range(2))
    file = tmp_path / "frame.parquet"
    file.write_text("mine")
    with pytest.raises(ConfigurationError, match="no light curve"):
        export_frame(lake, file)
    assert file.read_text() == "mine"
