"""unWISE: real detections through the whole path, and which of them make a source."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import ascii as text_tables
from test_hats import around, by_hand, hard_places, targets_at

from lake.commit.validate import validate
from lake.errors import ArchiveError
from lake.model.schema import TABLES
from lake.science.photometry import AB_ZERO_POINT_JY
from lake.science.sky import hpx29, separation_arcsec
from lake.settings import load_settings
from tasks.pull import complete
from tasks.sources import wise
from tasks.sources.base import FetchResult, Granule

VISITS = 55215.0 + 180.0 * np.arange(16)


def fetched(folder: Path, targets: pa.Table, **parameters: Any) -> FetchResult:
    """Fetch, and check that the lake takes it."""
    asked = Granule(wise.NAME, wise.RELEASE, wise.ARCHIVE.with_defaults(parameters), targets)
    harvest = wise.fetch(asked, load_settings(endpoints={wise.NAME: str(folder)}))
    tables = {name: TABLES[name].cast(table) for name, table in complete(harvest, asked, datetime.now(UTC)).items()}
    validate(wise.NAME, wise.RELEASE, tables, {band.band: band.unit for band in wise.ARCHIVE.bands})
    return harvest


def dataset(folder: Path, rows: pa.Table, row_group: int = 50, parent: bool = False) -> Path:
    """Write the Hive partitions; the archive's own have a folder healpix_k0 above them."""
    pixel = hpgeom.angle_to_pixel(32, rows["ra"].to_numpy(), rows["dec"].to_numpy())
    for n in np.unique(pixel):
        above = folder / f"healpix_k0={n // 1024}" if parent else folder
        (above / f"healpix_k5={n}").mkdir(parents=True)
        part = rows.take(pa.array(np.flatnonzero(pixel == n)))
        pq.write_table(part, above / f"healpix_k5={n}" / "part0.snappy.parquet", row_group_size=row_group)
    return folder


def detections(ra: Any, dec: Any, time: Any = 55215.0, band: Any = 1, flux: Any = 100.0, **more: Any) -> pa.Table:
    ra, dec, time, band, flux = np.broadcast_arrays(np.atleast_1d(ra), dec, time, band, flux)
    columns = {
        "ra": ra,
        "dec": dec,
        "MJDMEAN": time.astype(float),
        "band": band.astype("i4"),
        "flux": flux.astype("f4"),
        "dflux": np.full(len(ra), 5.0, "f4"),
        "primary": np.ones(len(ra), "i2"),
    }
    return pa.table({**columns, **more})


@pytest.fixture(scope="module")
def untimely(data_dir: Path) -> pa.Table:
    """Rows of the real catalogue around one position, with its own column names.

    The explorer that wrote the file read some epochs twice: it has 92 primary detections two times.
    """
    table = text_tables.read(data_dir / "wise" / "unTimely_search_26.978383+23.661691.dat", format="ipac")
    names = {"epoch": "EPOCH", "forward": "FORWARD", "mjdmin": "MJDMIN", "mjdmax": "MJDMAX", "mjdmean": "MJDMEAN"}
    keep = (
        "ra",
        "dec",
        "flux",
        "dflux",
        "band",
        "primary",
        "unwise_detid",
        "flags_unwise",
        "flags_info",
        "mag",
        "dmag",
    )
    columns = {name: np.asarray(table[name]) for name in (*keep, *names)}
    first = np.sort(np.unique(columns["unwise_detid"], return_index=True)[1])
    return pa.table({names.get(name, name): pa.array(values[first].tolist()) for name, values in columns.items()})


@pytest.mark.parametrize("parent", [False, True])
def test_real_detections_make_one_source(untimely: pa.Table, tmp_path: Path, parent: bool) -> None:
    ra, dec = 26.978383, 23.661691
    harvest = fetched(dataset(tmp_path, untimely, parent=parent), targets_at(ra, dec))
    real = [row for row in untimely.to_pylist() if row["primary"] == 1]
    around_it = [row for row in real if separation_arcsec(ra, dec, row["ra"], row["dec"]) <= 1.6]
    near = [row for row in around_it if separation_arcsec(ra, dec, row["ra"], row["dec"]) <= 1.0]
    rows = harvest.lightcurves.to_pylist()
    assert len(near) > 25
    assert harvest.remark is None
    key = {(row["MJDMEAN"], f"W{row['band']}"): row for row in around_it}
    assert len(key) == len(around_it)
    assert {(row["MJDMEAN"], f"W{row['band']}") for row in near} <= {(row["mjd"], row["band"]) for row in rows}
    for row in rows:
        published = key[row["mjd"], row["band"]]
        assert row["mag"] == pytest.approx(published["mag"], abs=2e-5)
        assert row["mag_err"] == pytest.approx(published["dmag"], rel=1e-3)
        assert row["flux"] == pytest.approx(published["flux"] * {"W1": 3.022734e-4, "W2": 1.676486e-4}[row["band"]])
        assert row["quality"] == published["flags_unwise"] | published["flags_info"] << 32
        assert abs(row["bmjd_tdb"] - row["mjd"]) * 86400 < 510 + 70
    first = min(near, key=lambda row: (row["MJDMEAN"], row["band"]))
    assert harvest.sources["source_id"].to_pylist() == [first["unwise_detid"]]
    (match,), (source,) = harvest.matches.to_pylist(), harvest.sources.to_pylist()
    assert (match["rank"], match["separation_arcsec"] < 1.0) == (1, True)
    # Of the mean position, and not of the detection that is nearest.
    mean = separation_arcsec(ra, dec, source["ra"], source["dec"])
    assert match["separation_arcsec"] == pytest.approx(float(mean), abs=1e-4)


def test_all_real_objects_are_told_apart(untimely: pa.Table, tmp_path: Path) -> None:
    """No source has two detections of one visit and band, which larger steps than 1.25 arcsec would give it."""
    primary = untimely.filter(pa.array(np.asarray(untimely["primary"]) == 1))
    group = wise.groups(primary["ra"].to_numpy(), primary["dec"].to_numpy())
    large = np.flatnonzero(np.bincount(group) > 20)
    assert len(large) >= 5
    for one in large:
        rows = primary.filter(pa.array(group == one))
        keys = list(zip(*(rows[name].to_pylist() for name in ("EPOCH", "band")), strict=True))
        assert len(keys) == len(set(keys))


def test_the_factors_are_the_published_ones() -> None:
    """Specification of the collector, sect. 1.3: 10**(-0.4 (22.5 + AB - Vega - 23.9)) / 1000 mJy a nanomaggy."""
    for number, factor in wise.MJY_PER_NANOMAGGY.items():
        ab = wise.NANOMAGGY_MAG + wise.AB_MINUS_VEGA[number]
        assert factor == pytest.approx(10 ** (-0.4 * (ab - 23.9)) / 1000, rel=1e-6)
    w1, w2 = wise.ARCHIVE.bands
    assert (w1.zero_point_jy, w2.zero_point_jy) == pytest.approx((302.2734, 167.6486))
    # AB magnitude 0 is 3631 Jy here and 3630.78 Jy there: 0.00007 mag.
    for band in (w1, w2):
        assert -2.5 * np.log10(band.zero_point_jy / AB_ZERO_POINT_JY) == pytest.approx(band.ab_minus_mag, abs=1e-4)
    # Jarrett et al. 2011, table 1: 306.682 and 170.663 Jy without colour correction, 309.540 and 171.787 with it.
    assert w1.zero_point_jy == pytest.approx(309.54, rel=0.03)
    assert w2.zero_point_jy == pytest.approx(171.787, rel=0.03)


def test_all_visits_and_both_bands_are_one_source(tmp_path: Path) -> None:
    ra, dec = around([40.0], [0.0], 0.3, 32, seed=1)
    rows = detections(ra, dec, np.tile(VISITS, 2), np.repeat([1, 2], 16))
    harvest = fetched(dataset(tmp_path, rows), targets_at(40.0, 0.0))
    assert harvest.sources.num_rows == 1
    assert harvest.lightcurves.num_rows == 32
    first = rows.take([int(np.argmin(np.tile(VISITS, 2)))])
    assert harvest.sources["source_id"].to_pylist() == [str(hpx29(first["ra"].to_numpy(), first["dec"].to_numpy())[0])]


def test_a_source_does_not_depend_on_the_target(tmp_path: Path) -> None:
    """Two targets at one object, asked apart: the same source, the same rows, whichever comes last."""
    ra, dec = around([40.0], [0.0], 0.5, 60, seed=2)
    rows = detections(ra, dec, 55215.0 + np.arange(60), unwise_detid=[f"d{n:03d}" for n in range(60)])
    folder = dataset(tmp_path, rows)
    answers = [fetched(folder, targets_at(40.0 + shift / 3600, 0.0)) for shift in (-0.9, 0.0, 0.8)]
    for answer in answers:
        assert answer.sources["source_id"].to_pylist() == ["d000"]
        assert answer.sources.to_pylist() == answers[0].sources.to_pylist()
        assert answer.lightcurves.to_pylist() == answers[0].lightcurves.to_pylist()
        assert answer.lightcurves.num_rows == 60
    together = fetched(folder, targets_at(40.0 + np.array([-0.9, 0.0, 0.8]) / 3600, np.zeros(3)))
    assert (together.sources.num_rows, together.matches.num_rows) == (1, 3)
    assert together.lightcurves.to_pylist() == answers[0].lightcurves.to_pylist()


def test_neighbours_are_sources_of_their_own_and_ranked(tmp_path: Path) -> None:
    places = [(40.0, 0.0), (40.0, 1.4 / 3600), (40.0, 8.0 / 3600)]
    parts = [detections(*around([ra], [dec], 0.05, 16, seed=n), VISITS) for n, (ra, dec) in enumerate(places)]
    folder = dataset(tmp_path, pa.concat_tables(parts))
    harvest = fetched(folder, targets_at(40.0, 0.6 / 3600))
    assert harvest.sources.num_rows == 2
    assert harvest.matches["rank"].to_pylist() == [1, 2]
    assert harvest.matches["separation_arcsec"].to_pylist() == pytest.approx([0.6, 0.8], abs=0.05)
    assert harvest.lightcurves.num_rows == 32


def test_a_fast_star_is_one_source(tmp_path: Path) -> None:
    dec = 0.5 / 365.25 * (VISITS - VISITS[0]) / 3600
    rows = detections(np.full(16, 40.0), dec, VISITS)
    harvest = fetched(dataset(tmp_path / "slow", rows), targets_at(40.0, dec[8]))
    assert (harvest.sources.num_rows, harvest.lightcurves.num_rows, harvest.remark) == (1, 16, None)
    fast = fetched(dataset(tmp_path / "fast", detections(np.full(16, 40.0), 3 * dec, VISITS)), targets_at(40.0, 0.0))
    assert fast.remark == "sources that run on beyond 7 arcsec of their target: 1"


def test_second_detections_in_overlaps_and_other_bands_are_left_out(tmp_path: Path) -> None:
    rows = detections([40.0] * 4, [0.0] * 4, [55215.0, 55215.0, 55216.0, 55217.0], [1, 1, 2, 3])
    rows = rows.set_column(rows.column_names.index("primary"), "primary", pa.array([1, 0, 1, 1], pa.int16()))
    harvest = fetched(dataset(tmp_path, rows), targets_at(40.0, 0.0))
    assert [(row["band"], row["mjd"]) for row in harvest.lightcurves.to_pylist()] == [("W1", 55215.0), ("W2", 55216.0)]


def test_negative_fluxes_stay_and_are_good(tmp_path: Path) -> None:
    rows = detections([40.0] * 4, [0.0] * 4, VISITS[:4], 1, [100.0, -3.0, 0.0, np.nan])
    harvest = fetched(dataset(tmp_path, rows), targets_at(40.0, 0.0))
    found = harvest.lightcurves.to_pylist()
    assert [row["good"] for row in found] == [row["detected"] for row in found] == [True, True, True, False]
    assert [row["mag"] is None for row in found] == [False, True, True, True]
    assert found[1]["flux"] == pytest.approx(-3 * 3.022734e-4)
    assert found[3]["flux"] is None
    assert all(row["quality"] is None for row in found)


def test_matches_are_those_of_astropy(tmp_path: Path) -> None:
    """Single detections at edges, wraps and poles: a detection within the radius is a source of its own there."""
    ra, dec = hard_places(seed=11)
    targets = targets_at(ra, dec)
    ra, dec = targets["ra"].to_numpy(), targets["dec"].to_numpy()
    # Well apart from each other, so that no two make a group.
    keep = [0]
    for n in range(1, len(ra)):
        if separation_arcsec(ra[n], dec[n], ra[keep], dec[keep]).min() > 30:
            keep.append(n)
    targets, ra, dec = targets.take(keep), ra[keep], dec[keep]
    row_ra, row_dec = around(ra, dec, 1.6, 1, seed=6)
    names = [f"d{n}" for n in range(len(row_ra))]
    folder = dataset(tmp_path, detections(row_ra, row_dec, unwise_detid=names), row_group=5)
    settings = load_settings(endpoints={wise.NAME: str(folder)})
    granules = wise.ARCHIVE.granules(targets, settings, wise.ARCHIVE.with_defaults({}))
    place = {target: row for row, target in enumerate(targets["target_id"].to_pylist())}
    found = {
        (place[match["target_id"]], int(match["source_id"][1:]))
        for part in granules
        for match in wise.fetch(part, settings).matches.to_pylist()
    }
    expected = by_hand(ra, dec, row_ra, row_dec, 1.0)
    assert len(granules) > 10
    assert 10 < len(expected) < len(ra)
    assert found == expected


def test_a_pixel_without_a_partition_has_nothing(tmp_path: Path) -> None:
    harvest = fetched(dataset(tmp_path, detections([40.0], [0.0])), targets_at([250.0], [40.0]))
    assert harvest.sources.num_rows == 0
    told = "no file is listed for 1 partition that has targets, though the whole sky is covered: "
    assert str(harvest.remark).startswith(told)
    assert fetched(tmp_path, targets_at(40.0, 0.0)).remark is None


def test_no_dataset_is_final(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="there are no partitions") as caught:
        fetched(tmp_path / "none", targets_at(40.0, 0.0))
    assert not caught.value.transient


def test_a_partition_that_vanishes_may_come_back(tmp_path: Path) -> None:
    folder = dataset(tmp_path, detections([40.0], [0.0]))
    assert fetched(folder, targets_at(40.0, 0.0)).sources.num_rows == 1
    (path,) = folder.rglob("*.parquet")
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(ArchiveError, match="gone") as caught:
        fetched(folder, targets_at(40.0, 0.0))
    assert caught.value.transient
    path.write_bytes(content)
    assert fetched(folder, targets_at(40.0, 0.0)).sources.num_rows == 1


def test_another_schema_is_final(tmp_path: Path) -> None:
    rows = detections([40.0], [0.0]).drop_columns(["MJDMEAN", "primary"])
    with pytest.raises(ArchiveError, match="the file has no MJDMEAN, primary") as caught:
        fetched(dataset(tmp_path, rows), targets_at(40.0, 0.0))
    assert not caught.value.transient
