"""The stand-ins that are Parquet: HATS as hats reads it, Hive partitions as IRSA's, and what is at targets."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from deployments.sandbox import panstarrs, wise, ztf
from deployments.sandbox.heasarc import offset
from deployments.sandbox.server import Sandbox
from lake.science.sky import separation_arcsec

# Tests of the archives see what is wrong with these, too.
pytestmark = pytest.mark.long

SEED, N_FIELD, MAX_ROWS, ORDERS = 11, 600, 120, (1, 9)
POLES = [(0.0, 89.99999), (200.0, -89.9999)]
# A corner of a pixel of order 1 and one of order 5, places along edges of both, and places 0.7 arcsec beside those.
_EDGES = np.concatenate(
    [
        np.column_stack(hpgeom.boundaries(2, 20, step=3)),
        np.column_stack(hpgeom.boundaries(32, [5000, 9000, 700], step=1)).reshape(-1, 2),
    ]
)
_BESIDE = np.column_stack(offset(_EDGES, np.full(len(_EDGES), 0.7 / 3600), np.arange(len(_EDGES)) * 50.0))
PLACES = (
    [(7.0 + 9.3 * n, 70 * np.sin(n)) for n in range(30)]
    + POLES
    + [(float(a), float(b)) for a, b in _EDGES]
    + [(float(a), float(b)) for a, b in _BESIDE]
)
SIZE = {"seed": SEED, "n_field": N_FIELD}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    ztf.write_collection(folder / "ztf", PLACES, **SIZE, max_rows=MAX_ROWS, row_group=50)
    wise.write_collection(folder / "wise", PLACES, **SIZE, row_group=40)
    panstarrs.write_collection(folder / "panstarrs", PLACES, **SIZE, max_rows=MAX_ROWS // 2, row_group=700)
    return folder


CATALOGS = [
    (f"ztf/{ztf.CATALOG}", f"ztf/{ztf.MARGIN}", "objra", "objdec", MAX_ROWS),
    ("panstarrs/otmo", "panstarrs/otmo_10arcs", "raMean", "decMean", MAX_ROWS // 2),
    ("panstarrs/detection", "panstarrs/detection_10arcs", "ra", "dec", 15 * MAX_ROWS),
]
hats = pytest.mark.parametrize(("main", "margin", "ra", "dec", "max_rows"), CATALOGS)


def properties(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def partitions(catalog: Path) -> dict[tuple[int, int], Path]:
    """Files of a catalogue by order and pixel, as partition_info.csv has them."""
    rows = list(csv.DictReader((catalog / "partition_info.csv").read_text().splitlines()))
    pixels = [(int(row["Norder"]), int(row["Npix"])) for row in rows]
    assert len(set(pixels)) == len(pixels)
    return {(k, n): catalog / f"dataset/Norder={k}/Dir={n // 10_000 * 10_000}/Npix={n}.parquet" for k, n in pixels}


def read(folder: Path, **more: Any) -> pa.Table:
    return ds.dataset(folder, format="parquet", **more).to_table()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def near(table: pa.Table, ra: str, dec: str, place: tuple[float, float], radius: float) -> pa.Table:
    far = separation_arcsec(table[ra].to_numpy(), table[dec].to_numpy(), *place)
    return table.append_column("off", pa.array(far)).filter(pa.array(far <= radius))


@hats
def test_partitions_are_those_of_hats(root: Path, main: str, margin: str, ra: str, dec: str, max_rows: int) -> None:
    for name, its_max in ((main, max_rows), (margin, None)):
        files = partitions(root / name)
        assert set(files.values()) == set((root / name).rglob("*.parquet"))
        metadata = pq.read_metadata(root / name / "dataset/_metadata")
        common = pq.read_schema(root / name / "dataset/_common_metadata")
        assert metadata.schema.to_arrow_schema().equals(common, check_metadata=True)
        assert common.names[0] == "_healpix_29"
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        of_files = []
        for (order, pixel), file in files.items():
            table, own = pq.read_table(file, partitioning=None), pq.read_metadata(file)
            assert table.schema.equals(common)
            spot = table["_healpix_29"].to_numpy()
            assert spot.dtype == np.int64
            assert (np.diff(spot) >= 0).all()
            assert (hpgeom.angle_to_pixel(2**29, table[ra].to_numpy(), table[dec].to_numpy()) == spot).all()
            inside = spot >> 2 * (29 - order) == pixel
            assert (inside if its_max else ~inside).all()
            if its_max:
                assert len(table) <= its_max or order == ORDERS[1]
            path = file.relative_to(root / name / "dataset").as_posix()
            of_files += [(path, own.row_group(n).num_rows) for n in range(own.num_row_groups)]
        assert [(group.column(0).file_path, group.num_rows) for group in groups] == of_files
        stated = properties(root / name / "hats.properties")
        assert int(stated["hats_nrows"]) == metadata.num_rows == sum(rows for _, rows in of_files)
        assert (stated["hats_col_ra"], stated["hats_col_dec"]) == (ra, dec)
    assert max(rows for _, rows in of_files) <= 700
    # A part of the sky is dense, so there are several orders; no partition is within another.
    orders = {order for order, _ in partitions(root / main)}
    assert len(orders) >= 3
    assert min(orders) == ORDERS[0]
    ranges = sorted((n << 2 * (29 - k), (n + 1) << 2 * (29 - k)) for k, n in partitions(root / main))
    assert all(stop <= start for (_, stop), (start, _) in pairwise(ranges))


@hats
def test_margins_hold_what_is_10_arcsec_beyond(
    root: Path, main: str, margin: str, ra: str, dec: str, max_rows: int
) -> None:
    stated = properties(root / margin / "hats.properties")
    assert stated["dataproduct_type"] == "margin"
    assert stated["hats_primary_table_url"] == Path(main).name
    assert float(stated["hats_margin_threshold"]) == 10
    files, beside = partitions(root / main), partitions(root / margin)
    assert set(beside) <= set(files)
    starts = np.sort([n << 2 * (29 - k) for k, n in files])
    pixel_at = {n << 2 * (29 - k): (k, n) for k, n in files}
    rows = read(root / main / "dataset", partitioning=None).select(["_healpix_29", ra, dec])
    rows = rows.take(np.arange(0, len(rows), 1 + len(rows) // 3000))
    # What is in a circle is asked in small pixels, so that no edge is missed.
    found: dict[float, set[tuple[int, int, int]]] = {9.7: set(), 10.3: set()}
    for spot, a, b in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        for radius, into in found.items():
            small = np.unique(hpgeom.query_circle(2**19, a, b, radius / 3600) << 20)
            for start in set(starts[np.searchsorted(starts, small, side="right") - 1].tolist()):
                k, n = pixel_at[start]
                if spot >> 2 * (29 - k) != n and (small >> 2 * (29 - k) == n).any():
                    into.add((k, n, spot))
    looked_at = set(rows["_healpix_29"].to_pylist())
    stored = {
        (*pixel, spot)
        for pixel, file in beside.items()
        for spot in pq.read_table(file, partitioning=None)["_healpix_29"].to_pylist()
        if spot in looked_at
    }
    assert len(found[9.7]) > 20
    assert found[9.7] <= stored <= found[10.3]


def test_ztf_collection_and_columns(root: Path) -> None:
    stated = properties(root / "ztf/collection.properties")
    assert (root / "ztf" / stated["hats_primary_table_url"] / "hats.properties").is_file()
    assert stated["default_margin"] in stated["all_margins"].split()
    assert (root / "ztf" / stated["default_margin"] / "hats.properties").is_file()
    table = read(root / "ztf" / ztf.CATALOG / "dataset")
    types = {field.name: str(field.type) for field in table.schema}
    assert types.pop("lightcurve").replace("item", "element") == (
        "struct<hmjd: list<element: double>, mag: list<element: float>, magerr: list<element: float>, "
        "clrcoeff: list<element: float>, catflags: list<element: int32>>"
    )
    assert types == {
        "_healpix_29": "int64",
        "objectid": "int64",
        "filterid": "int8",
        "fieldid": "int16",
        "rcid": "int8",
        "objra": "double",
        "objdec": "double",
        "nepochs": "int64",
    }
    ids = table["objectid"].to_numpy()
    assert len(np.unique(ids)) == len(ids)
    # What an objectid says: field, filter, chip and quadrant.
    assert (ids // 10**12 == table["fieldid"].to_numpy()).all()
    assert (ids // 10**11 % 10 == table["filterid"].to_numpy()).all()
    chip, quadrant = ids // 10**9 % 100, ids // 10**8 % 10
    assert (4 * (chip - 1) + quadrant - 1 == table["rcid"].to_numpy()).all()


def test_ztf_at_targets(root: Path) -> None:
    table, second, third = read(root / "ztf" / ztf.CATALOG / "dataset"), 0, 0
    for place in PLACES:
        close = near(table, "objra", "objdec", place, 0.5)
        assert {1, 2} <= set(close["filterid"].to_pylist())
        around = near(table, "objra", "objdec", place, 0.8)
        per_band = np.bincount(around["filterid"].to_numpy(), minlength=4)
        second += (per_band[1:3] >= 2).any()
        third += per_band[3] > 0
    assert 0.2 * len(PLACES) < second < len(PLACES)
    assert 0.1 * len(PLACES) < third < 0.8 * len(PLACES)


def test_ztf_light_curves(root: Path) -> None:
    table = read(root / "ztf" / ztf.CATALOG / "dataset")
    curves = {name: table["lightcurve"].combine_chunks().field(name) for name in ("hmjd", "mag", "magerr", "catflags")}
    for curve in curves.values():
        assert pc.list_value_length(curve).equals(table["nepochs"].combine_chunks().cast("int32"))
    deep = pc.is_in(table["filterid"], pa.array([1, 2], pa.int8()))
    assert pc.min_max(table["nepochs"].filter(deep)).as_py() == {"min": 200, "max": 400}
    flags = curves["catflags"].flatten().to_numpy()
    assert 0.07 < (flags != 0).mean() < 0.09
    assert 0.04 < (flags >= 32768).mean() < 0.07
    assert ((flags != 0) & (flags < 32768)).any()
    mag, error = (curves[name].flatten().to_numpy() for name in ("mag", "magerr"))
    assert np.isfinite(mag).all()
    assert 12 < np.quantile(mag, 0.01) < np.quantile(mag, 0.99) < 23
    assert 0.01 < error.min() < error.max() < 0.3
    for times in curves["hmjd"].to_pylist()[:50]:
        assert (np.diff(times) > 0).all()
        assert 58_190 < times[0] < times[-1] < 60_700


def test_ztf_as_in_files_of_the_archive(root: Path, tmp_path: Path, data_dir: Path) -> None:
    ztf.write_collection(
        tmp_path, PLACES, **SIZE, max_rows=MAX_ROWS, nesting="list", positions="float32", npix_suffix="/"
    )
    files = list((tmp_path / ztf.CATALOG).rglob("Npix=*/part0.snappy.parquet"))
    assert len(files) == len(partitions(tmp_path / ztf.CATALOG))
    assert properties(tmp_path / ztf.CATALOG / "hats.properties")["hats_npix_suffix"] == "/"
    real = pq.read_schema(data_dir / "ztf/hats_ztf_lightcurve_5obj.parquet").remove_metadata()
    ours = pq.read_schema(files[0])
    assert all(str(ours.field(one.name).type) == str(one.type) for one in real)
    by_struct = read(root / "ztf" / ztf.CATALOG / "dataset").sort_by("objectid")
    by_list = read(tmp_path / ztf.CATALOG / "dataset").sort_by("objectid")
    mag = pc.list_flatten(by_list["lightcurve"]).combine_chunks().field("mag")
    assert by_struct["lightcurve"].combine_chunks().field("mag").flatten().equals(mag)
    for file in files:
        table = pq.read_table(file, partitioning=None)
        spot = hpgeom.angle_to_pixel(2**29, *(table[name].to_numpy().astype(float) for name in ("objra", "objdec")))
        assert (spot == table["_healpix_29"].to_numpy()).all()


def test_wise_layout(root: Path) -> None:
    folder = root / "wise" / wise.DATASET
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"_metadata", "_common_metadata"}
    metadata, of_files = pq.read_metadata(folder / "_metadata"), []
    common = pq.read_schema(folder / "_common_metadata")
    for file in sorted(folder.rglob("*.parquet"), key=lambda path: int(path.parent.name.partition("=")[2])):
        table = pq.read_table(file, partitioning=None)
        assert table.schema.equals(common)
        pixel = int(file.parent.name.removeprefix("healpix_k5="))
        assert (hpgeom.angle_to_pixel(32, table["ra"].to_numpy(), table["dec"].to_numpy()) == pixel).all()
        own = pq.read_metadata(file)
        path = file.relative_to(folder).as_posix()
        of_files += [(path, own.row_group(n).num_rows) for n in range(own.num_row_groups)]
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    assert [(group.column(0).file_path, group.num_rows) for group in groups] == of_files
    assert common.field("flux").metadata[b"unit"] == b"nMgy"
    assert common.field("MJDMEAN").metadata == {b"unit": b"d", b"description": b"mean time"}
    # As the archive's users read it.
    found = ds.parquet_dataset(folder / "_metadata", partitioning="hive")
    here = int(hpgeom.angle_to_pixel(32, *PLACES[0]))
    assert found.to_table(filter=(ds.field("healpix_k5") == here) & (ds.field("primary") == 1)).num_rows >= 24
    assert {"flux", "dflux", "ra", "dec", "band", "MJDMEAN", "primary", "healpix_k5"} <= set(found.schema.names)


def test_wise_columns_are_those_of_the_catalogue(root: Path, data_dir: Path) -> None:
    head = (data_dir / "wise/unTimely_search_26.978383+23.661691.dat").read_text().partition("\n")[0]
    theirs = {name.strip().lower() for name in head.strip("|").split("|")}
    added = {"source_label", "target_dist", "mag", "dmag"} | {
        name for name in theirs if name.endswith(("bits", "descr"))
    }
    ours = {name.lower() for name in pq.read_schema(root / "wise" / wise.DATASET / "_common_metadata").names}
    assert ours == theirs - added


def test_wise_at_targets(root: Path) -> None:
    table = read(root / "wise" / wise.DATASET, partitioning="hive")
    assert len(pc.unique(table["unwise_detid"])) == len(table)
    split = twice = 0
    for place in PLACES:
        close = near(table, "ra", "dec", place, 0.65)
        first = close.filter(pc.equal(close["primary"], 1))
        for band in (1, 2):
            assert pc.sum(pc.equal(first["band"], band)).as_py() >= 12
        split += len(pc.unique(close["healpix_k5"])) > 1
        twice += len(first) < len(close)
    assert split >= 4
    assert 0 < twice < len(PLACES) / 2
    visits = table.group_by(["coadd_id", "unwise_detid"]).aggregate([]).num_rows
    assert visits == len(table)
    assert 0.01 < pc.mean(pc.less(table["flux"], 0)).as_py() < 0.15
    assert pc.min(table["dflux"]).as_py() > 0
    assert pc.all(pc.less(table["MJDMIN"], table["MJDMEAN"])).as_py()
    assert pc.all(pc.less(table["MJDMEAN"], table["MJDMAX"])).as_py()
    again = table.filter(pc.equal(table["primary"], 0))
    assert 0.05 < len(again) / len(table) < 0.2


def test_panstarrs_types(root: Path, data_dir: Path) -> None:
    names = {"float64": "double", "Int32": "int32", "str": "string"}
    for catalog, file in (("otmo", "ps1_otmo_types.csv"), ("detection", "ps1_detections_types.csv")):
        stated = {
            row["name"]: row["type"] for row in csv.DictReader((data_dir / "panstarrs" / file).read_text().splitlines())
        }
        schema = pq.read_schema(root / "panstarrs" / catalog / "dataset/_common_metadata")
        ours = {field.name: str(field.type) for field in schema if field.name != "_healpix_29"}
        assert ours == {name: names.get(kind, kind) for name, kind in stated.items()}


def test_panstarrs_objects_and_detections(root: Path) -> None:
    objects = read(root / "panstarrs/otmo/dataset", partitioning=None)
    detections = read(root / "panstarrs/detection/dataset", partitioning=None)
    assert len(pc.unique(objects["objID"])) == len(objects)
    assert len(pc.unique(detections["detectID"])) == len(detections)
    second = 0
    for place in PLACES:
        around = near(objects, "raMean", "decMean", place, 0.9)
        assert pc.min(around["off"]).as_py() < 0.5
        second += 0 in around["nStackDetections"].to_pylist()
    assert 0.1 * len(PLACES) < second < 0.7 * len(PLACES)
    # Detections of an object are as many as it says, band by band, and where it is.
    counted = {
        (one["objID"], one["filterID"]): one["detectID_count"]
        for one in detections.group_by(["objID", "filterID"]).aggregate([("detectID", "count")]).to_pylist()
    }
    for one in objects.to_pylist():
        said = [one[f"n{band}"] for band in "grizy"]
        assert said == [counted.get((one["objID"], number), 0) for number in range(1, 6)]
        assert sum(said) == one["nDetections"]
        for band, n in zip("grizy", said, strict=True):
            assert (one[f"{band}MeanPSFMag"] == -999) == (n == 0)
    joined = detections.join(objects.select(["objID", "raMean", "decMean"]), "objID")
    off = separation_arcsec(*(joined[name].to_numpy() for name in ("ra", "dec", "raMean", "decMean")))
    assert 0 < np.median(off) < off.max() < 0.5


def test_panstarrs_fluxes(root: Path) -> None:
    table = read(root / "panstarrs/detection/dataset", partitioning=None)
    flux, error = table["psfFlux"].to_numpy(), table["psfFluxErr"].to_numpy()
    assert 0.01 < (flux == -999).mean() < 0.03
    assert ((flux == -999) == (error == -999)).all()
    good = flux != -999
    assert 0.005 < (flux[good] < 0).mean() < 0.15
    assert (error[good] > 0).all()
    assert (np.abs(flux[good]) < 0.1).all()  # Jy
    time = table["obsTime"].to_numpy()
    assert (time == -999).any()
    assert ((time == -999) | ((time > 54_900) & (time < 57_100))).all()
    assert (table["psfQfPerfect"].to_numpy() < 0.95).any()


def test_some_detections_are_in_another_partition_than_their_object(root: Path) -> None:
    files = sorted(partitions(root / "panstarrs/detection").items(), key=lambda one: one[0][1] << 2 * (29 - one[0][0]))
    homes: dict[int, set[tuple[int, int]]] = {}
    for pixel, file in files:
        for number in pq.read_table(file, columns=["objID"], partitioning=None)["objID"].unique().to_pylist():
            homes.setdefault(number, set()).add(pixel)
    assert sum(len(home) > 1 for home in homes.values()) >= 3


WRITERS: list[Callable[..., None]] = [ztf.write_collection, wise.write_collection, panstarrs.write_collection]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for write in WRITERS:
        for name, seed in (("one", 3), ("two", 3), ("other", 4)):
            write(tmp_path / name, PLACES[:4], seed=seed, n_field=20)
        assert contents(tmp_path / "one") == contents(tmp_path / "two")
        assert contents(tmp_path / "one") != contents(tmp_path / "other")


def test_an_empty_sky(tmp_path: Path) -> None:
    for write in WRITERS:
        write(tmp_path, (), seed=3, n_field=0)
        for file in tmp_path.rglob("_metadata"):
            assert pq.read_metadata(file).num_rows == 0
        assert not list(tmp_path.rglob("*.parquet/part0*"))


def test_mount_makes_them_once(tmp_path: Path) -> None:
    archives = ["ztf", "wise", "panstarrs"]
    with Sandbox.start(tmp_path, archives=archives, scale=0.001, targets=PLACES[:3]) as box:
        ends = dict(box.endpoints)
        assert set(ends) == set(archives)
    assert (Path(ends["ztf"]) / "collection.properties").is_file()
    assert (Path(ends["wise"]) / "_metadata").is_file()
    assert {"otmo", "otmo_10arcs", "detection", "detection_10arcs"} <= {
        p.name for p in Path(ends["panstarrs"]).iterdir()
    }
    times = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    with Sandbox.start(tmp_path, archives=archives, scale=0.001, targets=PLACES[:3]) as box:
        assert box.endpoints == ends
    assert times == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    with Sandbox.start(tmp_path, archives=archives, scale=0.001, targets=PLACES[:4]):
        after = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert not set(times.items()) & set(after.items())
