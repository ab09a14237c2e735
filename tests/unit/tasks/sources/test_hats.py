"""Catalogues in HEALPix partitions: their layout, what targets need of them, and what goes wrong."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import astropy.units as u
import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord, search_around_sky

from lake.errors import ArchiveError
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from lake.settings import load_settings
from tasks.services import hats, parquet
from tasks.services import store as stores
from tasks.services.hats import Catalogue, Near, Scan, read_catalogue, scan
from tasks.services.store import Store, open_store
from tasks.sources.base import Archive, Granule
from tasks.sources.hats import plan


def targets_at(ra: Any, dec: Any) -> pa.Table:
    """Rows of table targets, in the order of hpx29; one for each place."""
    ra, dec = np.atleast_1d(np.asarray(ra, float)) % 360, np.atleast_1d(np.asarray(dec, float))
    pixel = hpx29(ra, dec)
    pixel, order = np.unique(pixel, return_index=True)
    ra, dec = ra[order], dec[order]
    return TABLES["targets"].cast(pa.table({"target_id": pixel, "ra": ra, "dec": dec, "hpx29": pixel}))


def write_hats(
    folder: Path,
    rows: pa.Table,
    *,
    ra: str = "ra",
    dec: str = "dec",
    orders: Sequence[int] = (1, 3),
    max_rows: int = 40,
    row_group: int = 7,
    suffix: str = ".parquet",
) -> list[Path]:
    """Write a small HATS catalogue: pixels of the first order, split while they have too many rows."""
    pixel = hpx29(rows[ra].to_numpy(), rows[dec].to_numpy())
    rows = rows.append_column("_healpix_29", pa.array(pixel)).take(pa.array(np.argsort(pixel, kind="stable")))
    pixel, files, lines = np.sort(pixel), [], []
    todo = [(orders[0], n) for n in range(12 * 4 ** orders[0])]
    while todo:
        order, n = todo.pop()
        low, high = np.searchsorted(pixel, [n << 2 * (29 - order), (n + 1) << 2 * (29 - order)])
        if high - low > max_rows and order < orders[1]:
            todo += [(order + 1, 4 * n + part) for part in range(4)]
        elif high > low:
            path = folder / f"dataset/Norder={order}/Dir={n // 10_000 * 10_000}/Npix={n}{suffix}"
            path = path / "part0.parquet" if suffix == "/" else path
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows.slice(low, high - low), path, row_group_size=row_group)
            files.append(path)
            lines.append(f"{order},{n}\n")
    (folder / "partition_info.csv").write_text("Norder,Npix\n" + "".join(lines))
    (folder / "hats.properties").write_text(
        f"#HATS catalog\nhats_col_ra={ra}\nhats_col_dec={dec}\nhats_npix_suffix={suffix}\nhats_builder=a\\:b\n"
    )
    return files


def around(ra: Any, dec: Any, arcsec: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions scattered around others, over edges, wraps and poles alike."""
    random = np.random.default_rng(seed)
    centre = SkyCoord(np.repeat(ra, n) * u.deg, np.repeat(dec, n) * u.deg)
    at = centre.directional_offset_by(
        random.uniform(0, 360, len(centre)) * u.deg, arcsec * np.sqrt(random.uniform(0, 1, len(centre))) * u.arcsec
    )
    return at.ra.deg % 360, at.dec.deg


def hard_places(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Poles, the RA wrap, corners and edges of pixels of several orders, and anywhere."""
    random = np.random.default_rng(seed)
    ra = [0.0, 123.4, 77.0, 0.0, 359.99999, 0.00001, 180.0]
    dec = [90.0, -90.0, 89.9999, 12.3, -45.0, 60.0, 0.0]
    for order in (1, 2, 3, 5):
        for pixel in random.integers(0, 12 * 4**order, 12):
            lon, lat = hpgeom.boundaries(2**order, int(pixel), step=3)
            ra += (np.asarray(lon)[[0, 1, 4]] % 360).tolist()
            dec += np.asarray(lat)[[0, 1, 4]].tolist()
    ra += random.uniform(0, 360, 30).tolist()
    dec += np.degrees(np.arcsin(random.uniform(-1, 1, 30))).tolist()
    return np.array(ra), np.array(dec)


def by_hand(ra1: Any, dec1: Any, ra2: Any, dec2: Any, arcsec: float) -> set[tuple[int, int]]:
    one, two = SkyCoord(ra1, dec1, unit="deg"), SkyCoord(ra2, dec2, unit="deg")
    i, j, _, _ = search_around_sky(one, two, arcsec * u.arcsec)
    return set(zip(i.tolist(), j.tolist(), strict=True))


def store_at(folder: Path) -> Store:
    return open_store(str(folder), "someone", load_settings(timeout_s=10.0))


def plan_of(archive: Archive, catalogue: Callable[[], Catalogue], targets: pa.Table, parameters: Any) -> list[Granule]:
    return plan(archive, targets, load_settings(), parameters, catalogue=lambda archive, settings: catalogue())


# --- layout ---


def test_a_real_collection_is_read(data_dir: Path) -> None:
    """Rubin DP1's object_lc: a collection, 389 partitions of orders 5 to 11."""
    catalogue = read_catalogue(store_at(data_dir / "hats_real_metadata"))
    lines = (data_dir / "hats_real_metadata" / "object_lc" / "partition_info.csv").read_text().split()[1:]
    assert catalogue.store.url.endswith("/object_lc")
    assert (len(catalogue.paths), catalogue.ra, catalogue.dec) == (len(lines), "coord_ra", "coord_dec")
    expected = {
        f"dataset/Norder={order}/Dir={int(n) // 10000 * 10000}/Npix={n}.parquet"
        for order, n in (line.split(",")[:2] for line in lines)
    }
    assert set(catalogue.paths) == expected
    assert any("/Dir=0/" not in path for path in catalogue.paths)
    assert np.all(catalogue.first[1:] > catalogue.last[:-1]), "in the order of the sky, none inside another"


@pytest.mark.parametrize("listed", ["partition_info.csv", "_metadata"])
def test_every_row_of_a_genuine_layout_is_found(data_dir: Path, tmp_path: Path, listed: str) -> None:
    source = data_dir / "hats_SYNTHETIC_layout" / "small_sky_order1_nested_sources" / "catalog"
    shutil.copytree(source, tmp_path / "catalog", copy_function=shutil.copyfile)
    for path in [tmp_path / "catalog", *(tmp_path / "catalog").rglob("*")]:
        path.chmod(0o755)
    if listed == "_metadata":
        (tmp_path / "catalog" / "partition_info.csv").unlink()
    catalogue = read_catalogue(store_at(tmp_path / "catalog"))
    assert all((tmp_path / "catalog" / path).is_file() for path in catalogue.paths)
    every = pa.concat_tables(
        [pq.read_table(path, partitioning=None) for path in sorted(source.rglob("Npix=*.parquet"))]
    )
    near = Near(every["ra"].to_numpy(), every["dec"].to_numpy(), 1.0)
    rows, epochs = scan(catalogue, near, Scan(("id",), nested="sources", fields=("mjd", "mag", "band")))
    assert rows is not None
    assert epochs is not None
    assert sorted(rows["id"].to_pylist()) == sorted(every["id"].to_pylist())
    expected = {
        row["id"]: list(zip(*(row["sources"][name] for name in ("mjd", "mag", "band")), strict=True))
        for row in every.to_pylist()
    }
    found: dict[int, list[Any]] = {row: [] for row in expected}
    for epoch in epochs.to_pylist():
        found[rows["id"][epoch["row"]].as_py()].append((epoch["mjd"], epoch["mag"], epoch["band"]))
    assert found == expected


@pytest.mark.parametrize("suffix", [".parquet", "/", ".parq"])
def test_partitions_are_files_or_folders(tmp_path: Path, suffix: str) -> None:
    rows = pa.table({"id": [1, 2], "ra": [10.0, 200.0], "dec": [5.0, -60.0]})
    write_hats(tmp_path, rows, suffix=suffix)
    found, _ = scan(read_catalogue(store_at(tmp_path)), Near(np.array([10.0]), np.array([5.0]), 1.0), Scan(("id",)))
    assert found is not None
    assert found["id"].to_pylist() == [1]


# --- what targets need ---


# Half of all combinations, in which any two come together; the others take as long again.
HERE = {
    (1.0, 0, "float64"),
    (45.0, 0, "float32"),
    (1.0, 1, "float32"),
    (45.0, 1, "float64"),
    (1.0, 2, "float64"),
    (45.0, 2, "float32"),
}


@pytest.mark.parametrize(
    ("radius", "orders", "kind"),
    [
        pytest.param(radius, orders, kind, marks=() if (radius, n, kind) in HERE else pytest.mark.long)
        for radius in (1.0, 45.0)
        for n, orders in enumerate([(0, 0), (1, 5), (5, 5)])
        for kind in ("float64", "float32")
    ],
)
def test_nothing_near_a_target_is_lost(tmp_path: Path, radius: float, orders: tuple[int, int], kind: str) -> None:
    """Against all pairs by astropy: corners and edges of pixels, the wrap, both poles, partitions of mixed orders."""
    ra, dec = hard_places()
    row_ra, row_dec = (values.astype(kind) for values in around(ra, dec, 1.6 * radius, 12, seed=int(radius)))
    write_hats(tmp_path, pa.table({"id": np.arange(len(row_ra)), "ra": row_ra, "dec": row_dec}), orders=orders)
    found, _ = scan(read_catalogue(store_at(tmp_path)), Near(ra, dec, radius), Scan(("id",)))
    expected = {j for _, j in by_hand(ra, dec, row_ra.astype(float), row_dec.astype(float), radius)}
    assert 0.2 < len(expected) / len(row_ra) < 0.8
    assert found is not None
    assert found["id"].to_pylist() == sorted(set(found["id"].to_pylist()), key=found["id"].to_pylist().index)
    assert set(found["id"].to_pylist()) == expected
    assert found.num_rows == len(expected), "a row comes once"


def test_an_index_of_better_positions_than_the_rows_own_loses_nothing(tmp_path: Path) -> None:
    """Partitions and _healpix_29 are of float64 positions; the float32 ones in the row are 0.05 arcsec off."""
    ra, dec = hard_places()
    fine_ra, fine_dec = around(ra, dec, 1.3, 40, seed=5)
    rows = pa.table({"id": np.arange(len(fine_ra)), "ra": fine_ra, "dec": fine_dec})
    for path in write_hats(tmp_path, rows, orders=(3, 6), row_group=3):
        table = pq.read_table(path, partitioning=None)
        for name in ("ra", "dec"):
            table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.float32()))
        pq.write_table(table, path, row_group_size=3)
    found, _ = scan(read_catalogue(store_at(tmp_path)), Near(ra, dec, 1.0), Scan(("id",)))
    rough = [values.astype("f4").astype(float) for values in (fine_ra, fine_dec)]
    assert found is not None
    assert set(found["id"].to_pylist()) == {j for _, j in by_hand(ra, dec, *rough, 1.0)}


def test_what_is_not_on_the_sky_matches_nothing(tmp_path: Path) -> None:
    write_hats(tmp_path, pa.table({"id": [1, 2, 3, 4], "ra": [10.0] * 4, "dec": [5.0] * 4}), row_group=4)
    path = next(tmp_path.rglob("Npix=*.parquet"))
    table = pq.read_table(path, partitioning=None)
    table = table.set_column(1, "ra", pa.array([10.0, -999.0, None, np.inf]))
    pq.write_table(table.set_column(2, "dec", pa.array([5.0, -999.0, None, 5.0])), path)
    found, _ = scan(read_catalogue(store_at(tmp_path)), Near(np.array([10.0]), np.array([5.0]), 1.0), Scan(("id",)))
    assert found is not None
    assert found["id"].to_pylist() == [1]


def test_row_groups_that_cannot_matter_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    rows = pa.table(
        {
            "id": np.arange(4000),
            "ra": random.uniform(20, 30, 4000),
            "dec": random.uniform(-5, 5, 4000),
            "kind": np.repeat([1, 2], 2000),
        }
    )
    write_hats(tmp_path, rows, orders=(0, 0), row_group=50)
    read: list[int] = []
    real = parquet.pick

    def counted(file: Any, group: int, *more: Any) -> Any:
        read.append(group)
        return real(file, group, *more)

    monkeypatch.setattr(hats, "pick", counted)
    catalogue = read_catalogue(store_at(tmp_path))
    near = Near(rows["ra"].to_numpy()[:3], rows["dec"].to_numpy()[:3], 1.0)
    found, _ = scan(catalogue, near, Scan(("id",)))
    assert found is not None
    assert sorted(found["id"].to_pylist()) == [0, 1, 2]
    assert 1 <= len(read) <= 4, "of 80 row groups"
    read.clear()
    assert scan(catalogue, near, Scan(("id",), where={"kind": (3,)})) == (None, None)
    assert read == []


def test_the_box_of_a_row_group_prunes_where_there_is_no_index() -> None:
    near = Near(np.array([0.0001, 77.0, 10.0]), np.array([30.0, 89.9999, -20.0]), 1.0)
    assert near.touches_box((359.99, 360.0), (29.0, 31.0)), "across the wrap"
    assert near.touches_box((-1.0, 0.5), (29.0, 31.0)), "right ascension may run from -180"
    assert near.touches_box((200.0, 201.0), (89.9999, 90.0)), "a pole has all right ascensions"
    assert not near.touches_box((10.1, 11.0), (-30.0, 0.0))
    assert not near.touches_box(None, (-10.0, 10.0))
    assert near.touches_box((9.0, 11.0), None)
    assert not near.touches_box((100.0, 101.0), (-30.0, -10.0))


def archive_of(batch_size: int) -> Archive:
    return Archive(
        name="someone",
        title="",
        release="1",
        endpoint="",
        time_scale="UTC",
        time_frame="geocentre",
        bands=(),
        radius_arcsec=1.0,
        batch_size=batch_size,
        cadence="frozen",
        licence="",
        acknowledgement="",
        fetch=lambda granule, settings: None,  # type: ignore[arg-type,return-value]
    )


def test_a_target_is_in_one_granule_and_a_partition_in_as_few_as_can_be(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    crowd = around([130.0], [20.0], 2000.0, 900, seed=2)
    ra = np.concatenate([random.uniform(0, 360, 300), crowd[0]])
    dec = np.concatenate([np.degrees(np.arcsin(random.uniform(-1, 1, 300))), crowd[1]])
    write_hats(tmp_path, pa.table({"ra": ra, "dec": dec}), orders=(2, 2))
    catalogue = read_catalogue(store_at(tmp_path))
    targets = targets_at(ra, dec)
    granules = plan_of(archive_of(200), lambda: catalogue, targets, {"radius_arcsec": 1.0})
    assert pa.concat_tables([granule.targets for granule in granules]).equals(targets)
    assert all(granule.parameters == {"radius_arcsec": 1.0} for granule in granules)
    held = [set(np.searchsorted(catalogue.first, granule.targets["hpx29"].to_numpy(), "right")) for granule in granules]
    assert max(granule.targets.num_rows for granule in granules) <= 200
    assert max(map(len, held)) == 4
    for partition in set().union(*held):
        n = int(np.sum(np.searchsorted(catalogue.first, targets["hpx29"].to_numpy(), "right") == partition))
        assert sum(partition in one for one in held) == max(1, -(-n // 200)), "cut only if it has too many targets"
    assert plan_of(archive_of(200), lambda: catalogue, targets.slice(0, 0), {}) == []


def test_a_plan_without_a_list_of_partitions_leaves_the_error_to_the_fetch(tmp_path: Path) -> None:
    targets = targets_at(np.arange(0, 50, 5.0), np.zeros(10))
    granules = plan_of(archive_of(4), lambda: read_catalogue(store_at(tmp_path / "none")), targets, {})
    assert [granule.targets.num_rows for granule in granules] == [4, 4, 2]


@pytest.mark.parametrize("transient", [True, False])
def test_a_plan_without_a_list_of_partitions_leaves_no_target_out(transient: bool) -> None:
    """Whether or not the reason can pass: raised from the plan, it would leave targets that nothing is noted of."""

    def unwilling() -> hats.Catalogue:
        raise ArchiveError("no", archive="someone", endpoint="there", transient=transient)

    targets = targets_at(np.arange(0, 50, 5.0), np.zeros(10))
    granules = plan_of(archive_of(4), unwilling, targets, {"radius_arcsec": 2.0})
    assert pa.concat_tables([granule.targets for granule in granules]).equals(targets)
    assert all(granule.parameters == {"radius_arcsec": 2.0} for granule in granules)


def test_the_list_of_partitions_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hats(tmp_path, pa.table({"id": [1], "ra": [10.0], "dec": [5.0]}))
    first = hats.remembered(store_at(tmp_path))
    (tmp_path / "partition_info.csv").unlink()
    assert hats.remembered(store_at(tmp_path)) is first


def test_what_is_remembered_of_s3_is_of_one_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same URL at another endpoint, or asked with other keys, is another place."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(hats, "_KNOWN", {})
    stores._s3.cache_clear()
    read: list[Store] = []

    def reading(store: Store) -> hats.Catalogue:
        read.append(store)
        return hats.partitions(store, {(0, 0): "a.parquet"}, "ra", "dec")

    def seen() -> hats.Catalogue:
        return hats.remembered(open_store("s3://bucket/there", "someone", load_settings(timeout_s=1.0)), reading)

    changes = [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:2"),
        ("AWS_ACCESS_KEY_ID", "somebody"),
        ("AWS_SECRET_ACCESS_KEY", "hush-hush"),
        ("AWS_SESSION_TOKEN", "today"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "another"),
    ]
    known = []
    for name, value in changes:
        monkeypatch.setenv(name, value)
        known.append(seen())
        assert seen() is known[-1]
    assert len(read) == len({id(catalogue) for catalogue in known}) == len(changes)
    assert len({id(store.filesystem) for store in read}) == len(changes)
    assert stores._s3.cache_info().currsize == len(changes)
    assert "hush-hush" not in repr(read)
    stores._s3.cache_clear()


# --- when something is wrong ---


def one_row(folder: Path) -> tuple[hats.Catalogue, Near, Path]:
    (path,) = write_hats(folder, pa.table({"id": [1], "ra": [10.0], "dec": [5.0]}))
    return hats.remembered(store_at(folder)), Near(np.array([10.0]), np.array([5.0]), 1.0), path


def test_a_file_that_is_gone_may_come_back_elsewhere(tmp_path: Path) -> None:
    """Archives replace their files while they are read: the list of partitions is then read anew."""
    catalogue, near, path = one_row(tmp_path)
    path.unlink()
    with pytest.raises(ArchiveError, match=r"a file is gone .*Npix=") as caught:
        scan(catalogue, near, Scan(("id",)))
    assert caught.value.transient
    assert (caught.value.archive, caught.value.hint) == ("someone", None)
    assert hats.remembered(store_at(tmp_path)) is not catalogue


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    (path,) = write_hats(tmp_path, pa.table({"id": [1], "ra": [10.0], "dec": [5.0]}), suffix="/")
    path.unlink()
    with pytest.raises(ArchiveError, match="a partition is gone") as caught:
        scan(read_catalogue(store_at(tmp_path)), Near(np.array([10.0]), np.array([5.0]), 1.0), Scan(("id",)))
    assert caught.value.transient


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_damaged_and_may_pass(tmp_path: Path, part: float) -> None:
    catalogue, near, path = one_row(tmp_path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ArchiveError, match="damaged") as caught:
        scan(catalogue, near, Scan(("id",)))
    assert caught.value.transient


def test_damage_inside_a_file(tmp_path: Path) -> None:
    rows = pa.table({"id": np.arange(5000), "ra": np.full(5000, 10.0), "dec": np.full(5000, 5.0)})
    (path,) = write_hats(tmp_path, rows, max_rows=9999, row_group=5000)
    content = bytearray(path.read_bytes())
    content[4:400] = os.urandom(396)
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"damaged|failed") as caught:
        scan(read_catalogue(store_at(tmp_path)), Near(np.array([10.0]), np.array([5.0]), 1.0), Scan(("id",)))
    assert caught.value.transient


def test_partitions_are_read_side_by_side_and_come_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ra, dec = np.array([0.5, 50.5, 100.5, 200.5]), np.array([0.5, 30.5, -30.5, 60.5])
    folder = tmp_path / "catalogue"
    write_hats(folder, pa.table({"number": np.arange(len(ra)), "ra": ra, "dec": dec}), orders=(2, 2))
    catalogue = read_catalogue(store_at(folder))
    near = Near(ra, dec, 1.0)
    together = threading.Barrier(2)
    genuine, waited = Catalogue.files, []

    def files(self: Catalogue, number: int) -> list[str]:
        waited.append(together.wait(30))  # breaks if one thread reads one after the other
        return genuine(self, number)

    monkeypatch.setattr(Catalogue, "files", files)
    rows, _ = scan(catalogue, near, Scan(("number",)))
    assert len(waited) == 4
    assert rows is not None
    found = hpx29(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    assert len(found) == 4
    assert (np.diff(found) > 0).all()


def test_after_a_failure_no_more_partitions_are_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ra, dec = np.linspace(0.5, 340.5, 12), np.zeros(12)
    folder = tmp_path / "catalogue"
    write_hats(folder, pa.table({"number": np.arange(len(ra)), "ra": ra, "dec": dec}), orders=(2, 2))
    catalogue = read_catalogue(store_at(folder))
    first, *_ = catalogue.needed(near := Near(ra, dec, 1.0))
    over, begun, genuine = threading.Event(), [], Catalogue.files

    def files(self: Catalogue, number: int) -> list[str]:
        begun.append(number)
        if number == first:
            raise catalogue.store.trouble("", "the first one is broken")
        over.wait(30)  # a server that does not answer holds up neither the failure nor the end
        return genuine(self, number)

    monkeypatch.setattr(Catalogue, "files", files)
    try:
        with pytest.raises(ArchiveError, match="the first one is broken"):
            scan(catalogue, near, Scan(("number",)))
        threads = [one for one in threading.enumerate() if one.name == "lightlake-partition"]
        assert all(one.daemon for one in threads)
    finally:
        over.set()
    for one in threads:
        one.join(30)
    assert len(begun) <= 3


def test_a_missing_column_is_final(tmp_path: Path) -> None:
    catalogue, near, _ = one_row(tmp_path)
    with pytest.raises(ArchiveError, match="the file has no objid, light curves") as caught:
        scan(catalogue, near, Scan(("objid",), nested="lightcurve", fields=("hmjd",)))
    assert not caught.value.transient
    assert caught.value.hint == "check LIGHTLAKE_ENDPOINTS__SOMEONE"


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    _, _, path = one_row(tmp_path)
    opened = store_at(tmp_path).parquet(path.relative_to(tmp_path).as_posix())
    with pytest.raises(ArchiveError, match="changed while it was read") as caught, opened:
        pq.write_table(pa.table({"id": [1, 2]}), path)
    assert caught.value.transient


def broken(folder: Path, name: str, text: str | None) -> Path:
    write_hats(folder, pa.table({"ra": [10.0], "dec": [5.0]}))
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("hats.properties", None, "there is no HATS catalogue"),
        ("hats.properties", "hats_nrows=1\n", "which columns are the positions"),
        ("partition_info.csv", None, "neither in partition_info.csv nor in _metadata"),
        ("partition_info.csv", "Norder,Npix\n1,99\n", "makes no sense"),
        ("partition_info.csv", "Norder,Npix\n", "there are no partitions"),
        ("partition_info.csv", "order,pixel\n1,2\n", "it is damaged"),
        ("partition_info.csv", "Norder,Npix\n1,two\n", "it is damaged"),
        ("collection.properties", "obs_collection=a\n", "which catalogue is the primary one"),
    ],
)
def test_a_catalogue_that_is_none(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    with pytest.raises(ArchiveError, match=message) as caught:
        read_catalogue(store_at(broken(tmp_path, name, text)))
    assert caught.value.transient == ("damaged" in message)


@pytest.mark.parametrize(
    ("words", "transient"),
    [
        ("AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate. (HTTP status 503)", True),
        ("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 56, Failure when receiving data", True),
        ("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 28, Timeout was reached", True),
        ("AWS Error UNKNOWN (HTTP status 500) during ListObjectsV2 operation", True),
        ("AWS Error NO_SUCH_KEY during GetObject operation: The specified key does not exist", True),
        ("AWS Error UNKNOWN (HTTP status 416) during GetObject operation: not satisfiable", True),
        ("AWS Error ACCESS_DENIED during ListObjectsV2 operation: Access Denied", False),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: no such bucket", False),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadObject operation: PermanentRedirect", False),
    ],
)
def test_what_s3_says_tells_whether_to_ask_again(tmp_path: Path, words: str, transient: bool) -> None:
    with pytest.raises(ArchiveError) as caught, store_at(tmp_path)._asking("part"):
        raise OSError(words)
    assert caught.value.transient == transient


@pytest.mark.parametrize("url", ["ftp://there/data", "https://there/data"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ArchiveError, match="cannot be read") as caught:
        open_store(url, "someone", load_settings(timeout_s=1.0))
    assert not caught.value.transient


# --- S3 itself, on loopback ---


class _S3(http.server.SimpleHTTPRequestHandler):
    """Objects by path, with ranges; as much of S3 as reading takes."""

    root: Path
    status = 200
    protocol_version = "HTTP/1.1"
    seen: list[str | None]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.seen.append(self.headers.get("Authorization"))
        path = self.root / unquote(self.path.partition("?")[0]).lstrip("/")
        if self.status != 200 or not path.is_file():
            status = self.status if self.status != 200 else 404
            code = {503: "SlowDown", 403: "AccessDenied"}.get(status, "NoSuchKey")
            self._send(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(), body, {})
            return
        content, more, status = path.read_bytes(), {"ETag": '"1"'}, 200
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            end = min(int(last or len(content) - 1), len(content) - 1)
            more["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
            content, status = content[int(first) : end + 1], 206
        more["Last-Modified"] = self.date_time_string(path.stat().st_mtime)
        self._send(status, content, body, more)

    def _send(self, status: int, content: bytes, body: bool, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_S3]]:
    handler = type("Handler", (_S3,), {"root": tmp_path, "seen": [], "status": 200})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()


def test_a_bucket_is_read_anonymously(s3: type[_S3], tmp_path: Path) -> None:
    write_hats(tmp_path / "bucket" / "there", pa.table({"id": [1], "ra": [10.0], "dec": [5.0]}))
    catalogue = read_catalogue(open_store("s3://bucket/there/", "someone", load_settings(timeout_s=5.0)))
    found, _ = scan(catalogue, Near(np.array([10.0]), np.array([5.0]), 1.0), Scan(("id",)))
    assert found is not None
    assert found["id"].to_pylist() == [1]
    assert s3.seen
    assert set(s3.seen) == {None}


def test_credentials_are_used_where_there_are_some(
    s3: type[_S3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "known")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    write_hats(tmp_path / "bucket", pa.table({"id": [1], "ra": [10.0], "dec": [5.0]}))
    read_catalogue(open_store("s3://bucket", "someone", load_settings(timeout_s=5.0)))
    assert all("Credential=known/" in str(authorization) for authorization in s3.seen)


@pytest.mark.parametrize(("status", "transient"), [(503, True), (403, False)])
def test_a_bucket_that_refuses(s3: type[_S3], tmp_path: Path, status: int, transient: bool) -> None:
    s3.status = status
    with pytest.raises(ArchiveError, match=r"HTTP status 503|ACCESS_DENIED") as caught:
        read_catalogue(open_store("s3://bucket/there", "someone", load_settings(timeout_s=5.0)))
    assert caught.value.transient == transient
    assert caught.value.endpoint.startswith("s3://bucket/there")


def test_a_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ArchiveError) as caught:
        read_catalogue(open_store("s3://bucket/there", "someone", load_settings(timeout_s=2.0)))
    assert caught.value.transient


def test_a_service_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ArchiveError, match="Timeout") as caught:
            read_catalogue(open_store("s3://bucket/there", "someone", load_settings(timeout_s=1.0)))
    assert caught.value.transient
