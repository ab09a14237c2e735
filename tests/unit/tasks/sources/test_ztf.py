"""ZTF: real objects through the whole path, every layout of light curves, and what is not as it should be."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from test_hats import around, by_hand, hard_places, targets_at, write_hats

from lake.commit.validate import validate
from lake.errors import ArchiveError
from lake.model.schema import TABLES
from lake.science.times import to_bmjd_tdb
from lake.settings import load_settings
from tasks.pull import complete
from tasks.services import hats
from tasks.sources import ztf
from tasks.sources.base import FetchResult, Granule


def granule(targets: pa.Table, **parameters: Any) -> Granule:
    return Granule(ztf.NAME, ztf.RELEASE, ztf.ARCHIVE.with_defaults(parameters), targets)


def fetched(folder: Path, targets: pa.Table, **parameters: Any) -> FetchResult:
    """Fetch, and check that the lake takes it."""
    asked = granule(targets, **parameters)
    harvest = ztf.fetch(asked, load_settings(endpoints={ztf.NAME: str(folder)}))
    tables = {name: TABLES[name].cast(table) for name, table in complete(harvest, asked, datetime.now(UTC)).items()}
    validate(ztf.NAME, ztf.RELEASE, tables, {band.band: band.unit for band in ztf.ARCHIVE.bands})
    return harvest


def collection(folder: Path, rows: pa.Table, **more: Any) -> Path:
    """Write a collection as IRSA's is: partitions that are folders, and a primary catalogue."""
    (folder / "ztf_lc").mkdir(parents=True, exist_ok=True)
    rows = rows.drop_columns([name for name in ("_healpix_29", "__index_level_0__") if name in rows.column_names])
    write_hats(folder / "ztf_lc", rows, ra="objra", dec="objdec", suffix="/", **more)
    (folder / "collection.properties").write_text("hats_primary_table_url=ztf_lc\n")
    return folder


def objects(ra: Any, dec: Any, filterid: Any, epochs: int = 3) -> pa.Table:
    n = len(ra)
    light = [
        [
            {"hmjd": 58300.25 + k + i * 1e-4, "mag": 18.0 + 0.01 * k, "magerr": 0.03, "clrcoeff": 0.1, "catflags": 0}
            for k in range(epochs)
        ]
        for i in range(n)
    ]
    kind = pa.struct(
        {
            "hmjd": pa.float64(),
            "mag": pa.float32(),
            "magerr": pa.float32(),
            "clrcoeff": pa.float32(),
            "catflags": pa.int32(),
        }
    )
    return pa.table(
        {
            "objectid": np.arange(n) + 10**15,
            "filterid": pa.array(filterid, pa.int8()),
            "objra": np.asarray(ra, float),
            "objdec": np.asarray(dec, float),
            "lightcurve": pa.array(light, pa.list_(kind)),
        }
    )


def layout(rows: pa.Table, how: str) -> pa.Table:
    """Return the same light curves as a list of structs, a struct of lists, or plain lists."""
    if how == "list":
        return rows
    column = rows["lightcurve"].combine_chunks()
    lists = {name: [[one[name] for one in row] for row in column.to_pylist()] for name in (*ztf.FIELDS, "clrcoeff")}
    types = {field.name: pa.list_(field.type) for field in column.type.value_type}
    arrays = {name: pa.array(values, types[name]) for name, values in lists.items()}
    rows = rows.drop_columns(["lightcurve"])
    if how == "struct":
        return rows.append_column("lightcurve", pa.StructArray.from_arrays(list(arrays.values()), list(arrays)))
    for name, values in arrays.items():
        rows = rows.append_column(name, values)
    return rows


@pytest.fixture(scope="module")
def five(data_dir: Path) -> pa.Table:
    """Five objects of the real catalogue, with light curves as a list of structs."""
    return pq.read_table(data_dir / "ztf" / "hats_ztf_lightcurve_5obj.parquet")


def test_real_objects_come_whole(five: pa.Table, tmp_path: Path) -> None:
    real = five.to_pylist()
    targets = targets_at([row["objra"] for row in real], [row["objdec"] for row in real])
    harvest = fetched(collection(tmp_path, five), targets)
    assert harvest.remark is None
    assert sorted(harvest.sources["source_id"].to_pylist()) == sorted(str(row["objectid"]) for row in real)
    rows = harvest.lightcurves.to_pylist()
    for row in real:
        mine = [one for one in rows if one["source_id"] == str(row["objectid"])]
        assert [one["mjd"] for one in mine] == [epoch["hmjd"] for epoch in row["lightcurve"]]
        assert [one["mag"] for one in mine] == [epoch["mag"] for epoch in row["lightcurve"]]
        assert [one["quality"] for one in mine] == [epoch["catflags"] for epoch in row["lightcurve"]]
        assert {one["band"] for one in mine} == {{1: "ztf_g", 2: "ztf_r", 3: "ztf_i"}[row["filterid"]]}
    mag, flux = (np.array([one[name] for one in rows]) for name in ("mag", "flux"))
    # 3631 Jy and astropy's 10**(-48.6/2.5) erg/s/cm2/Hz differ by 6e-5.
    assert flux == pytest.approx((mag * u.ABmag).to_value(u.mJy), rel=7e-5)
    error = np.array([one["mag_err"] for one in rows])
    assert np.array([one["flux_err"] for one in rows]) == pytest.approx(flux * error * np.log(10) / 2.5)
    assert [one["good"] for one in rows] == [one["quality"] < 32768 for one in rows]
    # Heliocentric UTC to barycentric TDB: 37 + 32.184 s since 2017, and less than 6 s from the Sun to the barycentre.
    late = np.array([(one["bmjd_tdb"] - one["mjd"]) * 86400 for one in rows])
    assert np.abs(late - 69.184).max() < 6
    assert np.abs(late - 69.184).max() > 0.1


@pytest.mark.parametrize("how", ["struct", "plain"])
def test_light_curves_are_the_same_in_every_layout(five: pa.Table, tmp_path: Path, how: str) -> None:
    targets = targets_at(five["objra"].to_numpy(), five["objdec"].to_numpy())
    first = fetched(collection(tmp_path / "list", five), targets)
    other = fetched(collection(tmp_path / how, layout(five, how)), targets)
    assert other.lightcurves.to_pylist() == first.lightcurves.to_pylist()
    assert other.sources.to_pylist() == first.sources.to_pylist()


def test_a_bulk_file_of_dr5(data_dir: Path, tmp_path: Path) -> None:
    """One row an object with plain lists, uint8 and uint16, and times as float32."""
    bulk = pq.read_table(data_dir / "ztf" / "ztf_000250_zg_c01_q1_dr5.parquet")
    targets = targets_at(bulk["objra"].to_numpy(), bulk["objdec"].to_numpy())
    harvest = fetched(collection(tmp_path, bulk, max_rows=5000, row_group=600), targets)
    rows = harvest.lightcurves
    assert harvest.sources.num_rows == bulk.num_rows
    assert rows.num_rows == sum(bulk["nepochs"].to_pylist())
    flags = np.concatenate([np.array(one) for one in bulk["catflags"].to_pylist()])
    assert int(np.sum(rows["quality"].to_numpy() != 0)) == int(np.sum(flags != 0))
    assert int(np.sum(rows["good"].to_numpy(zero_copy_only=False))) == int(np.sum(flags < 32768))
    assert harvest.remark == "hmjd is kept as float32 there: times are good to 3 min (0.002 d)"
    # 2^-8 d is what float32 resolves near MJD 58348: values are kept, neither rounded nor mended.
    assert np.all(rows["mjd"].to_numpy() * 256 % 1 == 0)
    published = sorted(float(np.float32(value)) for one in bulk["hmjd"].to_pylist() for value in one)
    assert sorted(rows["mjd"].to_pylist()) == published


def test_every_object_at_a_target_is_kept_and_ranked(tmp_path: Path) -> None:
    """A star has several objectids, in one filter, too: none is dropped."""
    rows = objects([10.0, 10.0 + 0.5 / 3600, 10.0, 10.0], np.array([0.0, 0, 0.7, 1.2]) / 3600, [1, 1, 2, 3])
    targets = targets_at([10.0, 200.0], [0.0, 10.0])
    harvest = fetched(collection(tmp_path, rows), targets)
    matches = harvest.matches.to_pylist()
    assert [(row["source_id"][-1], row["rank"]) for row in matches] == [("0", 1), ("1", 2), ("2", 3)]
    assert [row["separation_arcsec"] for row in matches] == pytest.approx([0, 0.5, 0.7], abs=1e-6)
    assert harvest.lightcurves.num_rows == 9
    assert fetched(tmp_path, targets, radius_arcsec=2.0).sources.num_rows == 4


def test_two_targets_at_one_object_get_it_once(tmp_path: Path) -> None:
    harvest = fetched(collection(tmp_path, objects([10.0], [0.0], [1])), targets_at([10.0, 10.0001], [0.0001, 0.0001]))
    assert (harvest.sources.num_rows, harvest.matches.num_rows, harvest.lightcurves.num_rows) == (1, 2, 3)


def test_matches_are_those_of_astropy(tmp_path: Path) -> None:
    """Targets at edges, wraps and poles, cut into granules by the plan."""
    ra, dec = hard_places(seed=9)
    targets = targets_at(ra, dec)
    ra, dec = targets["ra"].to_numpy(), targets["dec"].to_numpy()
    row_ra, row_dec = around(ra, dec, 1.8, 6, seed=4)
    filterid = np.random.default_rng(0).integers(1, 4, len(row_ra))
    settings = load_settings(
        endpoints={ztf.NAME: str(collection(tmp_path, objects(row_ra, row_dec, filterid), orders=(2, 5)))}
    )
    granules = ztf.ARCHIVE.granules(targets, settings, ztf.ARCHIVE.with_defaults({}))
    assert len(granules) > 10
    found = set()
    place = {target: row for row, target in enumerate(targets["target_id"].to_pylist())}
    for part in granules:
        harvest = ztf.fetch(part, settings)
        found |= {(place[m["target_id"]], int(m["source_id"]) - 10**15) for m in harvest.matches.to_pylist()}
        bands = dict(zip(*(harvest.lightcurves[name].to_pylist() for name in ("source_id", "band")), strict=True))
        assert all(bands[key] == ztf.BANDS[filterid[int(key) - 10**15]] for key in bands)
        assert harvest.lightcurves.num_rows == 3 * harvest.sources.num_rows
    assert found == by_hand(ra, dec, row_ra, row_dec, 1.0)


def test_nothing_there_is_empty(tmp_path: Path) -> None:
    folder = collection(tmp_path, objects([10.0], [0.0], [1]))
    for targets in (targets_at([10.0], [0.01]), targets_at([250.0], [40.0])):
        harvest = fetched(folder, targets)
        assert (harvest.sources.num_rows, harvest.lightcurves.num_rows) == (0, 0)


def test_missing_values_are_null_and_epochs_without_a_time_are_counted(tmp_path: Path) -> None:
    light = [
        {"hmjd": 58300.0, "mag": None, "magerr": None, "catflags": 0},
        {"hmjd": 58301.0, "mag": float("nan"), "magerr": 0.1, "catflags": 32769},
        {"hmjd": None, "mag": 18.0, "magerr": 0.1, "catflags": 0},
        {"hmjd": 2458302.0, "mag": 18.0, "magerr": 0.1, "catflags": 0},
        {"hmjd": 58303.0, "mag": 18.0, "magerr": 0.1, "catflags": None},
    ]
    rows = objects([10.0, 20.0], [0.0, 0.0], [1, 2]).drop_columns(["lightcurve"])
    rows = rows.append_column("lightcurve", pa.array([light, []]))
    harvest = fetched(collection(tmp_path, rows), targets_at([10.0, 20.0], [0.0, 0.0]))
    assert harvest.remark == "measurements without a time, left out: 2 (1000000000000000)"
    assert harvest.sources.num_rows == 2, "an object without epochs is there, too"
    table = harvest.lightcurves.to_pylist()
    assert [(row["mag"], row["flux"], row["good"]) for row in table[:2]] == [(None, None, False)] * 2
    assert (table[2]["quality"], table[2]["good"]) == (None, False)


def test_lists_of_different_lengths_are_damage(tmp_path: Path) -> None:
    rows = objects([10.0], [0.0], [1]).drop_columns(["lightcurve"])
    lists = {"hmjd": [[58300.0, 58301.0]], "mag": [[18.0]], "magerr": [[0.1]], "catflags": [[0]]}
    rows = rows.append_column("lightcurve", pa.array([{name: values[0] for name, values in lists.items()}]))
    with pytest.raises(ArchiveError, match="differ in length") as caught:
        fetched(collection(tmp_path, rows), targets_at([10.0], [0.0]))
    assert caught.value.transient


@pytest.mark.parametrize("how", ["struct", "plain"])
def test_one_odd_light_curve_takes_no_other_with_it(tmp_path: Path, how: str) -> None:
    rows = layout(objects([10.0, 20.0], [0.0, 0.0], [1, 1]), "plain")
    mags = rows["mag"].to_pylist()
    rows = rows.set_column(rows.column_names.index("mag"), "mag", pa.array([mags[0][:-1], mags[1]], rows["mag"].type))
    if how == "struct":
        names = [*ztf.FIELDS, "clrcoeff"]
        light = pa.StructArray.from_arrays([rows[name].combine_chunks() for name in names], names)
        rows = rows.drop_columns(names).append_column("lightcurve", light)
    harvest = fetched(collection(tmp_path, rows), targets_at([10.0, 20.0], [0.0, 0.0]))
    ids = rows["objectid"].to_pylist()
    assert harvest.lightcurves["source_id"].to_pylist() == [str(ids[1])] * len(mags[1])
    assert f"without a time, left out: 1 ({ids[0]})" in str(harvest.remark)


def test_another_schema_is_final(tmp_path: Path) -> None:
    rows = objects([10.0], [0.0], [1]).rename_columns(["oid", "filterid", "objra", "objdec", "lightcurve"])
    with pytest.raises(ArchiveError, match="the file has no objectid") as caught:
        fetched(collection(tmp_path, rows), targets_at([10.0], [0.0]))
    assert not caught.value.transient


def test_a_partition_is_read_once_for_all_its_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ra = 10.0 + np.arange(50) / 100
    settings = load_settings(
        endpoints={ztf.NAME: str(collection(tmp_path, objects(ra, np.zeros(50), [1] * 50), orders=(0, 0)))}
    )
    read: list[int] = []
    real = hats.pick
    monkeypatch.setattr(hats, "pick", lambda *given: (read.append(given[1]), real(*given))[1])
    (part,) = ztf.ARCHIVE.granules(targets_at(ra, np.zeros(50)), settings, ztf.ARCHIVE.with_defaults({}))
    assert ztf.fetch(part, settings).sources.num_rows == 50
    assert len(read) == len(set(read)) == 8


def test_the_archives_own_hjd_is_the_start_of_the_exposure_at_the_sun(data_dir: Path) -> None:
    """What the notes say of the time stamps, by IRSA's rows of single epochs: mjd and hjd are the same instant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = Table.read(data_dir / "ztf" / "TimeSeriesZTF_irsa_api.xml", format="votable")
    ra, dec = np.asarray(rows["ra"], float), np.asarray(rows["dec"], float)
    hjd = to_bmjd_tdb(np.asarray(rows["hjd"], float) - 2400000.5, ra, dec, scale="utc", frame="heliocentre")
    mjd = to_bmjd_tdb(np.asarray(rows["mjd"], float), ra, dec, scale="utc", frame="topocentre")
    assert np.abs(hjd - mjd).max() * 86400 < 0.022
    assert set(np.asarray(rows["exptime"], float)) == {30.0}


def test_the_zero_point_is_the_published_one() -> None:
    for band in ztf.ARCHIVE.bands:
        assert (band.mag_system, band.zero_point_jy, band.ab_minus_mag) == ("AB", 3631.0, 0.0)
        assert band.fornax_band == band.band
