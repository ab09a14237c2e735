"""Pan-STARRS1: real detections through the whole path, and how objects and detections are joined."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.time import Time
from test_hats import around, by_hand, hard_places, targets_at, write_hats

from lake.commit.validate import validate
from lake.errors import ArchiveError
from lake.model.schema import TABLES
from lake.science.times import to_bmjd_tdb
from lake.settings import load_settings
from tasks.pull import complete
from tasks.sources import panstarrs
from tasks.sources.base import FetchResult, Granule

REAL = ("160802869044447231", "190361393344112894")


def fetched(folder: Path, targets: pa.Table, **parameters: Any) -> FetchResult:
    """Fetch, and check that the lake takes it."""
    asked = Granule(panstarrs.NAME, panstarrs.RELEASE, panstarrs.ARCHIVE.with_defaults(parameters), targets)
    harvest = panstarrs.fetch(asked, load_settings(endpoints={panstarrs.NAME: str(folder)}))
    tables = {name: TABLES[name].cast(table) for name, table in complete(harvest, asked, datetime.now(UTC)).items()}
    units = {band.band: band.unit for band in panstarrs.ARCHIVE.bands}
    validate(panstarrs.NAME, panstarrs.RELEASE, tables, units)
    return harvest


def catalogues(folder: Path, objects: pa.Table, detections: pa.Table, orders: tuple[int, int] = (2, 5)) -> Path:
    """Write both catalogues, cut into different partitions: one plain, one as a collection."""
    write_hats_at(folder / "otmo", objects, "raMean", "decMean", (1, 3))
    write_hats_at(folder / "detection" / "detection", detections, "ra", "dec", orders)
    (folder / "detection" / "collection.properties").write_text("hats_primary_table_url=detection\n")
    return folder


def write_hats_at(folder: Path, rows: pa.Table, ra: str, dec: str, orders: tuple[int, int]) -> None:
    folder.mkdir(parents=True)
    write_hats(folder, rows, ra=ra, dec=dec, orders=orders)


def detections(objid: Any, ra: Any, dec: Any, **more: Any) -> pa.Table:
    objid = np.atleast_1d(np.asarray(objid, np.int64))
    n = len(objid)
    columns: dict[str, Any] = {
        "objID": objid,
        "detectID": np.arange(n),
        "ra": np.broadcast_to(ra, n),
        "dec": np.broadcast_to(dec, n),
        "filterID": np.ones(n, "i2"),
        "obsTime": 55500.0 + np.arange(n),
        "psfFlux": np.full(n, 1e-3),
        "psfFluxErr": np.full(n, 1e-5),
        "apFlux": np.full(n, 1.1e-3),
        "apFluxErr": np.full(n, 2e-5),
        "infoFlag": np.full(n, 102760517),
        "infoFlag2": np.full(n, 128, "i4"),
        "infoFlag3": np.full(n, 7374912, "i4"),
    }
    return pa.table({**columns, **more})


def objects(objid: Any, ra: Any, dec: Any) -> pa.Table:
    return pa.table(
        {
            "objID": np.atleast_1d(np.asarray(objid, np.int64)),
            "raMean": np.atleast_1d(ra).astype(float),
            "decMean": np.atleast_1d(dec).astype(float),
        }
    )


def real(data_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = data_dir / "panstarrs"
    one, many = (
        pd.concat([pd.read_csv(folder / f"{name}_obj{number}.csv") for number in REAL], ignore_index=True)
        for name in ("ps1_dr2_object", "ps1_dr2_detections_tap")
    )
    return one, many


def test_real_objects_and_their_detections(data_dir: Path, tmp_path: Path) -> None:
    """Rows of MAST's TAP service, in the layout of its HATS catalogues."""
    one, many = real(data_dir)
    found = pa.table(
        {name: one[name].to_numpy() for name in ("objID",)}
        | {"raMean": one["RAMean"].to_numpy(), "decMean": one["DecMean"].to_numpy()}
    )
    names = {"filterid": "filterID"}
    columns = [name for name in many.columns if name not in ("filterType", "magmean", "mag", "dmag")]
    rows = pa.table({names.get(name, name): many[name].to_numpy() for name in columns})
    targets = targets_at(one["RAMean"], one["DecMean"])
    harvest = fetched(catalogues(tmp_path, found, rows), targets)
    assert sorted(harvest.sources["source_id"].to_pylist()) == sorted(REAL)
    assert harvest.lightcurves.num_rows == 2 * len(many)
    table = harvest.lightcurves.to_pandas()
    psf = table[~table["band"].str.endswith("_ap")].set_index(["source_id", "mjd"])
    aperture = table[table["band"].str.endswith("_ap")].set_index(["source_id", "mjd"])
    for row in many.itertuples():
        key = (str(row.objID), row.obsTime)
        assert psf.loc[key, "band"] == f"ps1_{row.filterType}"
        assert aperture.loc[key, "band"] == f"ps1_{row.filterType}_ap"
        assert psf.loc[key, "flux"] == pytest.approx(row.psfFlux * 1e3)
        assert psf.loc[key, "flux_err"] == pytest.approx(row.psfFluxErr * 1e3)
        assert aperture.loc[key, "flux"] == pytest.approx(row.apFlux * 1e3)
        assert psf.loc[key, "quality"] == row.infoFlag | row.infoFlag3 << 32
        assert aperture.loc[key, "quality"] == row.infoFlag | row.infoFlag2 << 32
        assert psf.loc[key, "good"] == ((row.infoFlag & 0x3BC88) == 0 and row.psfQfPerfect >= 0.9)
    # The mean magnitude of the archive, from the mean of the fluxes, to what variables allow.
    bright = psf.loc[REAL[0]]
    mag = -2.5 * np.log10(np.median(bright.loc[bright["band"] == "ps1_g", "flux"]) / 3631e3)
    assert mag == pytest.approx(one.loc[0, "gMeanPSFMag"], abs=0.1)


def test_times_are_tai(tmp_path: Path) -> None:
    """The column obsTime is TAI, 34 s ahead of UTC in 2010."""
    harvest = fetched(
        catalogues(tmp_path, objects(1, 10.0, 5.0), detections(1, 10.0, 5.0, obsTime=[55500.0])), targets_at(10.0, 5.0)
    )
    row = harvest.lightcurves.to_pylist()[0]
    utc = Time(55500.0, format="mjd", scale="tai").utc.mjd
    expected = to_bmjd_tdb(utc, 10.0, 5.0, scale="utc", frame="topocentre")
    assert row["bmjd_tdb"] == pytest.approx(float(expected), abs=1e-10)
    assert (row["mjd"] - utc) * 86400 == pytest.approx(34, abs=1e-4)


def test_detections_are_joined_by_id_alone(tmp_path: Path) -> None:
    """One of a neighbour at the very place is not taken, one of the object 5 arcsec off and across an edge is."""
    edge = 45.0  # of pixels of all orders, at the equator
    near = [edge - 0.3 / 3600, edge + 5 / 3600, edge, edge - 9 / 3600]
    rows = detections([1, 1, 2, 1], near, 0.0)
    folder = catalogues(tmp_path, objects([1, 2], [edge - 0.3 / 3600, edge + 20 / 3600], [0.0, 0.0]), rows, (5, 5))
    assert len(list((folder / "detection").rglob("Npix=*.parquet"))) >= 2
    harvest = fetched(folder, targets_at(edge, 0.0))
    assert harvest.sources["source_id"].to_pylist() == ["1"]
    assert sorted(set(harvest.lightcurves["mjd"].to_pylist())) == [55500.0, 55501.0, 55503.0]


def test_all_objects_in_the_radius_are_ranked_with_detections_or_without(tmp_path: Path) -> None:
    found = objects([11, 12, 13], [10.0, 10.0, 10.0], np.array([0.8, 0.2, 1.5]) / 3600)
    harvest = fetched(catalogues(tmp_path, found, detections([11, 13], 10.0, 0.0)), targets_at(10.0, 0.0))
    assert [(row["source_id"], row["rank"]) for row in harvest.matches.to_pylist()] == [("12", 1), ("11", 2)]
    assert set(harvest.lightcurves["source_id"].to_pylist()) == {"11"}


def test_sentinels_are_null(tmp_path: Path) -> None:
    """Values such as -999 Jy, and 999000 mJy from it, are not measurements."""
    rows = detections(
        [1] * 5,
        10.0,
        5.0,
        psfFlux=[-999.0, 1e-3, 1e-3, -2e-6, 1e-3],
        psfFluxErr=[-999.0, -999.0, 1e-5, 1e-6, 1e-5],
        obsTime=[55500.0, 55501.0, -999.0, 55503.0, 55504.0],
        apFlux=[-999.0] * 5,
        infoFlag=[102760517, 102760517, 102760517, 102760517, 102760517 | 0x1000],
    )
    harvest = fetched(catalogues(tmp_path, objects(1, 10.0, 5.0), rows), targets_at(10.0, 5.0))
    assert harvest.remark == "measurements without a time, left out: 1 (1)"
    table = harvest.lightcurves.to_pylist()
    psf = [row for row in table if row["band"] == "ps1_g"]
    assert [row["mjd"] for row in psf] == [55500.0, 55501.0, 55503.0, 55504.0]
    assert [(row["flux"] is None, row["flux_err"] is None) for row in psf[:2]] == [(True, True), (False, True)]
    assert [row["good"] for row in psf] == [False, True, True, False], "a clean negative flux is a measurement"
    assert psf[2]["flux"] == pytest.approx(-2e-3)
    assert all(row["flux"] is None and not row["good"] for row in table if row["band"] == "ps1_g_ap")


def test_good_has_hardly_a_masked_pixel_and_known_flags(tmp_path: Path) -> None:
    rows = detections([1] * 5, 10.0, 5.0, psfQfPerfect=[0.9, 0.89, -999.0, np.nan, 1.0], infoFlag=[1, 1, 1, 1, -999])
    table = fetched(catalogues(tmp_path, objects(1, 10.0, 5.0), rows), targets_at(10.0, 5.0)).lightcurves.to_pylist()
    for suffix in ("", "_ap"):
        good = [row["good"] for row in table if row["band"] == f"ps1_g{suffix}"]
        assert good == [True, False, False, False, False]
    assert all(row["detected"] for row in table)


def test_objects_without_a_mean_position_match_nothing(tmp_path: Path) -> None:
    folder = catalogues(tmp_path, objects([1, 2], [10.0, 10.0], [5.0, 5.0]), detections([1, 2], 10.0, 5.0))
    (path,) = (folder / "otmo").rglob("Npix=*.parquet")
    table = pq.read_table(path, partitioning=None)
    table = table.set_column(1, "raMean", pa.array([-999.0, 10.0])).set_column(2, "decMean", pa.array([-999.0, 5.0]))
    pq.write_table(table, path)
    assert fetched(folder, targets_at(10.0, 5.0)).sources["source_id"].to_pylist() == ["2"]


def test_a_catalogue_with_no_more_than_what_is_needed(tmp_path: Path) -> None:
    rows = detections(1, 10.0, 5.0).drop_columns(["apFlux", "apFluxErr", "infoFlag", "infoFlag2", "infoFlag3"])
    harvest = fetched(catalogues(tmp_path, objects(1, 10.0, 5.0), rows), targets_at(10.0, 5.0))
    (row,) = harvest.lightcurves.to_pylist()
    assert (row["band"], row["quality"], row["good"]) == ("ps1_g", None, False), "nobody knows its flags"


def test_matches_are_those_of_astropy(tmp_path: Path) -> None:
    """Objects and detections at edges, wraps and poles, in partitions of different orders."""
    ra, dec = hard_places(seed=21)
    ra, dec = ra[np.abs(dec) < 89.99], dec[np.abs(dec) < 89.99]
    targets = targets_at(ra, dec)
    ra, dec = targets["ra"].to_numpy(), targets["dec"].to_numpy()
    row_ra, row_dec = around(ra, dec, 1.8, 5, seed=4)
    ids = np.arange(len(row_ra))
    det_ra, det_dec = around(row_ra, row_dec, 2.0, 3, seed=5)
    folder = catalogues(tmp_path, objects(ids, row_ra, row_dec), detections(np.repeat(ids, 3), det_ra, det_dec))
    settings = load_settings(endpoints={panstarrs.NAME: str(folder)})
    place = {target: row for row, target in enumerate(targets["target_id"].to_pylist())}
    found = set()
    for part in panstarrs.ARCHIVE.granules(targets, settings, panstarrs.ARCHIVE.with_defaults({})):
        harvest = panstarrs.fetch(part, settings)
        found |= {(place[match["target_id"]], int(match["source_id"])) for match in harvest.matches.to_pylist()}
        assert harvest.lightcurves.num_rows == 3 * 2 * harvest.sources.num_rows, "every detection of every object"
    assert found == by_hand(ra, dec, row_ra, row_dec, 1.0)


def test_a_position_has_its_error_and_epoch(tmp_path: Path) -> None:
    found = objects([1, 2], [10.0, 20.0], [5.0, 5.0])
    more = {"raMeanErr": [0.01, -999.0], "decMeanErr": [0.02, -999.0], "epochMean": [55197.0, 0.0]}
    for name, values in more.items():
        found = found.append_column(name, pa.array(values))
    folder = catalogues(tmp_path, found, detections([1, 2], [10.0, 20.0], 5.0))
    rows = {row["source_id"]: row for row in fetched(folder, targets_at([10.0, 20.0], [5.0, 5.0])).sources.to_pylist()}
    assert rows["1"]["ref_epoch"] == pytest.approx(Time(55197.0, format="mjd", scale="tt").jyear)
    assert rows["1"]["position_err_arcsec"] == 0.02
    assert (rows["2"]["position_err_arcsec"], rows["2"]["ref_epoch"]) == (None, None)


def test_nothing_there_is_empty(tmp_path: Path) -> None:
    folder = catalogues(tmp_path, objects(1, 10.0, 5.0), detections(1, 10.0, 5.0))
    assert fetched(folder, targets_at([10.0, 200.0], [5.1, 0.0])).sources.num_rows == 0


def test_a_missing_catalogue_is_final(tmp_path: Path) -> None:
    write_hats_at(tmp_path / "otmo", objects(1, 10.0, 5.0), "raMean", "decMean", (1, 1))
    with pytest.raises(ArchiveError, match="there is no HATS catalogue") as caught:
        fetched(tmp_path, targets_at(10.0, 5.0))
    assert not caught.value.transient
    assert caught.value.endpoint.endswith("/detection")


def test_the_columns_are_those_of_the_release(data_dir: Path) -> None:
    types = {
        name: set(pd.read_csv(data_dir / "panstarrs" / f"{name}_types.csv")["name"])
        for name in ("ps1_otmo", "ps1_detections")
    }
    scanned = panstarrs.SCAN_OBJECTS
    assert set(scanned.columns) | set(scanned.optional) <= types["ps1_otmo"]
    assert set(panstarrs._COLUMNS) | set(panstarrs._OPTIONAL) <= types["ps1_detections"]


def test_constants_are_the_published_ones() -> None:
    """PS1 Detection Flags, MAST; Tonry et al. 2012, table 4."""
    assert panstarrs.BAD == 0x3BC88
    assert panstarrs.FILTERS == {1: "g", 2: "r", 3: "i", 4: "z", 5: "y"}
    assert [band.wavelength_nm for band in panstarrs.ARCHIVE.bands[:5]] == [481, 617, 752, 866, 962]
    assert [band.fornax_band for band in panstarrs.ARCHIVE.bands[:5]] == [f"Pan-STARRS {one}" for one in "grizy"]
