"""ZTF, unWISE and Pan-STARRS from a real S3 server: pulled whole, by threads, through faults and under replacement."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import helpers.s3
import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from helpers.s3 import S3, FaultyProxy
from pyarrow import fs

from deployments.sandbox import panstarrs, wise, ztf
from deployments.sandbox.heasarc import offset
from lake.commit.targets import add_targets
from lake.errors import ArchiveError
from lake.model.schema import TABLES
from lake.query import Lake
from lake.science.sky import hpx29
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from lake.upkeep.maintenance import verify
from tasks.pull import commit_batch, count_to_ask, fetch_batch, lake_at, plan_batches
from tasks.register import register_archive
from tasks.services import hats, store
from tasks.services.retry import with_retries
from tasks.services.store import Store
from tasks.sources.base import FetchResult, Granule
from tasks.sources.registry import find

pytestmark = pytest.mark.server

NAMES = ("ztf", "wise", "panstarrs")
each = pytest.mark.parametrize("name", NAMES)

# Corners and edges of a pixel of order 1 and one of order 5, and places 0.7 arcsec beside those; a pole, and a place
# in the dense cluster.
_EDGES = np.concatenate(
    [np.column_stack(hpgeom.boundaries(2, 20, step=2)), np.column_stack(hpgeom.boundaries(32, 5000, step=1))]
)
_BESIDE = np.column_stack(offset(_EDGES, np.full(len(_EDGES), 0.7 / 3600), np.arange(len(_EDGES)) * 50.0))
_CLUSTER = (130.1, 19.67)
PLACES = [_CLUSTER, (0.0, 89.99999)] + [(float(a), float(b)) for a, b in (*_EDGES, *_BESIDE)]
PLACES += [(7 + 9.3 * n, 70 * np.sin(n)) for n in range(40 - len(PLACES))]


def write(root: Path, places: list[tuple[float, float]], *, n_field: int, most: int) -> None:
    """Write the three collections, each in a folder of its name."""
    ztf.write_collection(root / "ztf", places, seed=5, n_field=n_field, max_rows=most, row_group=50)
    wise.write_collection(root / "wise", places, seed=5, n_field=n_field, row_group=500)
    panstarrs.write_collection(root / "panstarrs", places, seed=5, n_field=n_field, max_rows=most // 2, row_group=500)


def endpoint(root: str, name: str) -> str:
    return f"{root}/{name}/{wise.DATASET}" if name == "wise" else f"{root}/{name}"


@dataclass
class Bucket:
    """Collections in a folder, and the same in a bucket."""

    s3: S3
    folder: Path
    name: str
    known: dict[str, FetchResult] = field(default_factory=dict)

    def locally(self, granule: Granule) -> FetchResult:
        """What the folder has of it."""
        if granule.id not in self.known:
            url = endpoint(str(self.folder), granule.archive)
            hats._KNOWN.clear()
            settings = load_settings(endpoints={granule.archive: url})
            self.known[granule.id] = find(granule.archive).fetch(granule, settings)
        return self.known[granule.id]

    def put(self, path: str, content: bytes) -> None:
        with self.s3.filesystem.open_output_stream(f"{self.name}/{path}") as out:
            out.write(content)

    def delete(self, path: str) -> None:
        self.s3.filesystem.delete_file(f"{self.name}/{path}")

    @contextmanager
    def restored(self, path: str) -> Iterator[bytes]:
        """Content of an object, which is put back at the end."""
        content = (self.folder / path).read_bytes()
        try:
            yield content
        finally:
            self.put(path, content)


def upload(s3: S3, folder: Path, bucket: str) -> Bucket:
    s3.bucket(bucket)
    fs.copy_files(str(folder), bucket, source_filesystem=fs.LocalFileSystem(), destination_filesystem=s3.filesystem)
    return Bucket(s3, folder, bucket)


@pytest.fixture(scope="module")
def bucket(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    folder = tmp_path_factory.mktemp("collections")
    write(folder, PLACES, n_field=400, most=400)
    return upload(s3, folder, "collections")


@pytest.fixture(autouse=True)
def _new_process() -> Iterator[None]:
    """Nothing is remembered from another test: neither clients nor lists of partitions."""
    forget()
    yield
    forget()
    lake_at.cache_clear()


def forget() -> None:
    store._s3.cache_clear()
    hats._KNOWN.clear()


def reach(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], root: str, **more: str) -> None:
    """Have the archives in a bucket, and S3 where an environment says."""
    more |= {f"LIGHTLAKE_ENDPOINTS__{name.upper()}": endpoint(root, name) for name in NAMES}
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    for name, value in {**environment, **more}.items():
        monkeypatch.setenv(name, value)


# Comes before the lake in a test's arguments: a pull is planned by the settings that the lake was opened with.
@pytest.fixture
def direct(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    reach(monkeypatch, bucket.s3.environment, f"s3://{bucket.name}")


@pytest.fixture
def proxy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with FaultyProxy(bucket.s3.endpoint) as proxy:
        reach(monkeypatch, bucket.s3.environment_at(proxy.endpoint), f"s3://{bucket.name}", LIGHTLAKE_TIMEOUT_S="1")
        yield proxy


def granule(name: str, places: list[tuple[float, float]]) -> Granule:
    ra, dec = np.mod(np.array(places)[:, 0], 360.0), np.array(places)[:, 1]
    pixel = hpx29(ra, dec)
    order = np.argsort(pixel, kind="stable")
    targets = pa.table({"target_id": order, "ra": ra[order], "dec": dec[order], "hpx29": pixel[order]})
    archive = find(name)
    return Granule(name, archive.release, archive.with_defaults({}), TABLES["targets"].cast(targets))


def fetch(granule: Granule) -> FetchResult:
    return find(granule.archive).fetch(granule, load_settings())


def assert_same(got: FetchResult, wanted: FetchResult) -> None:
    assert wanted.lightcurves.num_rows
    for table in ("sources", "matches", "lightcurves"):
        assert getattr(got, table).equals(getattr(wanted, table)), table
    assert got.remark == wanted.remark


def errors(catalog: Catalog) -> list[str]:
    return [finding.message for finding in verify(catalog) if finding.is_error]


def register(catalog: Catalog) -> None:
    ra, dec = np.array(PLACES).T
    names = [f"T{n}" for n in range(len(PLACES))]
    add_targets(catalog, pa.table({"ra": np.mod(ra, 360.0), "dec": dec, "name": names}), "forty", radius_arcsec=0.1)


def pull(lake: Lake, name: str, *, last_try: bool = True) -> int:
    """Pull an archive into a lake; return the number of batches that took."""
    archive = find(name)
    register_archive(lake, archive)
    batches = list(plan_batches(lake, archive, archive.with_defaults({}), None, lake.storage.staging / "pull"))
    for batch in batches:
        commit_batch(lake.settings.url, fetch_batch(batch, last_try=last_try))
    return len(batches)


def content(lake: Lake) -> dict[str, pa.Table]:
    """All rows, without what depends on the clock or on the cut into granules."""
    without = dict.fromkeys(("sources", "matches", "lightcurves", "statistics"), "granule")
    without["coverage"] = "granule, asked_at"
    return {name: lake.sql(f"SELECT * EXCLUDE ({less}) FROM {name} ORDER BY ALL") for name, less in without.items()}


@contextmanager
def another_lake(template: Path, root: Path) -> Iterator[Lake]:
    shutil.copytree(template, root)
    catalog = Catalog(Storage(root), load_settings(url=str(root)))
    catalog.create()
    try:
        register(catalog)
        with Lake(str(root), load_settings(url=str(root)), writable=True) as lake:
            yield lake
    finally:
        catalog.close()


# --- whole ---


@each
def test_an_archive_is_pulled_whole(
    direct: None,
    catalog: Catalog,
    lake: Lake,
    bucket: Bucket,
    name: str,
    settings: Settings,
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIGHTLAKE_URL", settings.url)
    register(catalog)
    archive = find(name)
    assert pull(lake, name) > 0
    assert errors(catalog) == []
    found = lake.sql("SELECT status, count(DISTINCT target_id) AS n FROM coverage GROUP BY ALL").to_pylist()
    assert found == [{"status": "found", "n": len(PLACES)}]
    assert lake.sql("SELECT DISTINCT endpoint FROM ledger").to_pylist() == [
        {"endpoint": endpoint(f"s3://{bucket.name}", name)}
    ]
    assert len(lake.sql("SELECT DISTINCT granule FROM coverage")) > 4, "planned by partitions"
    assert count_to_ask(lake, archive, archive.with_defaults({}), None) == 0
    assert pull(lake, name) == 0
    got = content(lake)
    lake_at.cache_clear()
    monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", endpoint(str(bucket.folder), name))
    monkeypatch.setenv("LIGHTLAKE_URL", str(tmp_path / "other"))
    monkeypatch.setattr("tasks.sources.hats._PARTITIONS_PER_GRANULE", 1000)
    with another_lake(template, tmp_path / "other") as other:
        pull(other, name)
        wanted = content(other)
    assert wanted["lightcurves"].num_rows > len(PLACES)
    for table, rows in wanted.items():
        assert got[table].equals(rows), table


@each
def test_eight_threads_get_what_one_gets(bucket: Bucket, direct: None, name: str) -> None:
    granules = [granule(name, PLACES[start : start + 5]) for start in range(0, len(PLACES), 5)]
    wanted = [bucket.locally(one) for one in granules]
    forget()
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(fetch, granules))
    for one, other in zip(got, wanted, strict=True):
        assert_same(one, other)


# --- faults ---

SPOTS = {
    "list": r"^GET .*(properties|partition_info|list-type)",
    "head": r"^HEAD .*(Npix|part0)",
    "data": r"^GET .*(Npix\S*parquet$|part0\S*$)",
}


def drain(proxy: FaultyProxy, spot: str) -> int:
    """Drop the faults that still wait; return how many there were."""
    request = {"list": "GET /properties", "head": "HEAD /part0", "data": "GET /part0"}[spot]
    n = 0
    while proxy.take(request) is not None:
        n += 1
    return n


KINDS = ("slowdown", "status:500", "reset", "truncate", "hang")
SPOILT = [
    *(("ztf", kind, "data") for kind in KINDS),
    ("wise", "truncate", "data"),
    ("panstarrs", "reset", "data"),
    ("ztf", "truncate", "list"),
    ("wise", "truncate", "list"),
    ("panstarrs", "slowdown", "list"),
    ("ztf", "reset", "head"),
    ("wise", "status:500", "head"),
    ("panstarrs", "truncate", "head"),
]


@pytest.mark.parametrize(("name", "kind", "spot"), SPOILT)
def test_a_fault_on_the_way_loses_no_row(
    bucket: Bucket, proxy: FaultyProxy, name: str, kind: str, spot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = granule(name, [PLACES[0], PLACES[2]])
    wanted = bucket.locally(asked)
    forget()
    proxy.fault(kind, 1, SPOTS[spot])
    soon = load_settings(retry_delay_s=0.0)
    assert_same(with_retries(lambda: fetch(asked), soon), wanted)
    assert drain(proxy, spot) == 0, "the fault was not met"
    forget()
    proxy.fault(kind, 100, SPOTS[spot])
    with pytest.raises(ArchiveError) as caught:
        fetch(asked)
    # Several files may be read at once; none is retried by the client.
    assert 1 <= 100 - drain(proxy, spot) < 20
    assert caught.value.transient
    assert caught.value.archive == name
    assert caught.value.endpoint.startswith(endpoint(f"s3://{bucket.name}", name))
    assert_same(fetch(asked), wanted)


def test_a_fault_that_passes_is_not_the_end_of_a_batch(
    proxy: FaultyProxy,
    catalog: Catalog,
    lake: Lake,
    bucket: Bucket,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIGHTLAKE_URL", settings.url)
    register(catalog)
    proxy.fault("slowdown", 9, SPOTS["data"])
    with pytest.raises(ArchiveError, match="reading failed"):
        pull(lake, "ztf", last_try=False)
    drain(proxy, "data")
    assert lake.sql("SELECT count(*) AS n FROM coverage WHERE status = 'failed'").to_pylist() == [{"n": 0}]
    pull(lake, "ztf", last_try=False)
    found = lake.sql("SELECT status, count(DISTINCT target_id) AS n FROM coverage GROUP BY ALL").to_pylist()
    assert found == [{"status": "found", "n": len(PLACES)}]
    assert errors(catalog) == []


# --- objects that change ---


def partition(bucket: Bucket, name: str, place: tuple[float, float]) -> str:
    """Path below the bucket of the partition of a place: of Pan-STARRS the one of detections."""
    if name == "wise":
        n = hpgeom.angle_to_pixel(32, *place)
        return f"wise/{wise.DATASET}/healpix_k5={n}/part0.snappy.parquet"
    root = bucket.folder / {"ztf": f"ztf/{ztf.CATALOG}", "panstarrs": "panstarrs/detection"}[name]
    for file in root.glob("dataset/*/*/*.parquet"):
        order, n = map(int, re.findall(r"(?:Norder|Npix)=(\d+)", str(file)))
        if hpgeom.angle_to_pixel(2**order, *place) == n:
            return str(file.relative_to(bucket.folder))
    raise LookupError(name)


def between_footer_and_data(
    monkeypatch: pytest.MonkeyPatch, bucket: Bucket, path: str, act: Callable[[], None]
) -> list[str]:
    """Do something, once, when the footer of an object has been read and its rows have not."""
    done: list[str] = []
    really = Store.parquet

    @contextmanager
    def opened(self: Store, file: str) -> Iterator[pq.ParquetFile]:
        with really(self, file) as opened:
            if f"{self.root}/{file}" == f"{bucket.name}/{path}" and not done:
                done.append(path)
                act()
            yield opened

    monkeypatch.setattr(Store, "parquet", opened)
    return done


def assert_passing(error: ArchiveError, name: str, path: str) -> None:
    assert error.transient
    assert error.archive == name
    assert error.endpoint.endswith(path)


# How objects change, and how a bucket refuses, is the same code for all three: each way with one of them.
@pytest.mark.parametrize(
    ("name", "by"), [*((name, "another partition") for name in NAMES), ("wise", "half of it"), ("panstarrs", "nothing")]
)
def test_an_object_replaced_between_footer_and_data(
    bucket: Bucket, direct: None, name: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = granule(name, [_CLUSTER])
    wanted = bucket.locally(asked)
    forget()
    path = partition(bucket, name, _CLUSTER)
    with bucket.restored(path) as content:
        other = (bucket.folder / partition(bucket, name, PLACES[1])).read_bytes()
        assert other != content
        act = {
            "another partition": lambda: bucket.put(path, other),
            "half of it": lambda: bucket.put(path, content[: len(content) // 2]),
            "nothing": lambda: bucket.delete(path),
        }[by]
        done = between_footer_and_data(monkeypatch, bucket, path, act)
        with pytest.raises(ArchiveError) as caught:
            fetch(asked)
        assert done
        assert_passing(caught.value, name, path)
        if by == "half of it":
            with pytest.raises(ArchiveError) as caught:
                fetch(asked)
            assert_passing(caught.value, name, path)
    assert_same(fetch(asked), wanted)


def plain(table: pa.Table) -> bytes:
    """A Parquet file of which the size does not depend on the values."""
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="none", use_dictionary=False, row_group_size=100)
    return out.getvalue().to_pybytes()


@pytest.mark.parametrize("name", ["ztf", "wise"])  # of HATS, and of unWISE's own layout
def test_an_object_replaced_by_one_of_its_size_in_the_same_second(
    bucket: Bucket, direct: None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 gives times in seconds."""
    asked = granule(name, [_CLUSTER])
    path = partition(bucket, name, _CLUSTER)
    old = pq.read_table(bucket.folder / path, partitioning=None)
    column = {"ztf": "objectid", "wise": "flux", "panstarrs": "psfFlux"}[name]
    place = old.column_names.index(column)
    changed = pc.multiply(old[column], pa.scalar(2, old[column].type))
    new = old.set_column(place, old.schema.field(place), changed)
    assert len(plain(old)) == len(plain(new))
    wanted = bucket.locally(asked)
    with bucket.restored(path):
        fetch(asked)  # so that listing and connecting do not take time below
        new_bytes, old_bytes = plain(new), plain(old)
        time.sleep(1 - time.time() % 1)
        bucket.put(path, old_bytes)
        done = between_footer_and_data(monkeypatch, bucket, path, lambda: bucket.put(path, new_bytes))
        with pytest.raises(ArchiveError, match="changed while it was read") as caught:
            fetch(asked)
        assert done
        assert_passing(caught.value, name, path)
        got = fetch(asked)
    assert not got.lightcurves.equals(wanted.lightcurves)
    assert got.lightcurves.num_rows == wanted.lightcurves.num_rows


@pytest.mark.parametrize("name", ["ztf", "wise"])
def test_an_object_that_vanishes(bucket: Bucket, proxy: FaultyProxy, name: str) -> None:
    asked = granule(name, [_CLUSTER])
    wanted = bucket.locally(asked)
    forget()
    fetch(asked)
    path = partition(bucket, name, _CLUSTER)
    with bucket.restored(path):
        bucket.delete(path)
        with pytest.raises(ArchiveError, match="gone") as caught:
            fetch(asked)
        assert caught.value.transient
        assert path.startswith(caught.value.endpoint.removeprefix(f"s3://{bucket.name}/"))
    del proxy.requests[:]
    assert_same(fetch(asked), wanted)
    assert any(re.search(SPOTS["list"], f"{seen.method} {seen.path}") for seen in proxy.requests), "listed anew"


# --- refusals ---


def assert_final(error: ArchiveError, name: str, words: str) -> None:
    assert not error.transient
    assert error.archive == name
    assert error.endpoint.startswith("s3://")
    assert error.hint == f"check LIGHTLAKE_ENDPOINTS__{name.upper()}"
    assert re.search(words, str(error)), str(error)
    assert "\n" not in str(error)


@each
def test_a_bucket_that_does_not_exist(bucket: Bucket, direct: None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", "s3://there-is-no-such-bucket/at/all")
    with pytest.raises(ArchiveError) as caught:
        fetch(granule(name, [_CLUSTER]))
    assert_final(caught.value, name, "there is no HATS catalogue|there are no partitions|the bucket")


@pytest.mark.parametrize(("name", "who"), [("ztf", "a stranger"), ("wise", "nobody"), ("panstarrs", "a stranger")])
def test_a_bucket_that_refuses(
    bucket: Bucket, direct: None, name: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if who == "nobody":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    else:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stranger")
    with pytest.raises(ArchiveError) as caught:
        fetch(granule(name, [_CLUSTER]))
    assert_final(caught.value, name, "ACCESS_DENIED|INVALID_ACCESS_KEY")


@each
def test_an_object_that_is_refused_is_final_in_the_ledger(
    proxy: FaultyProxy,
    catalog: Catalog,
    lake: Lake,
    bucket: Bucket,
    settings: Settings,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIGHTLAKE_URL", settings.url)
    add_targets(catalog, pa.table({"ra": [_CLUSTER[0]], "dec": [_CLUSTER[1]], "name": ["one"]}), "one")
    proxy.fault("status:403", 20, SPOTS["head"])
    pull(lake, name, last_try=False)
    assert drain(proxy, "head") == 19, "it was asked once"
    told = lake.sql("SELECT status, reason, error_type FROM ledger").to_pylist()
    assert [(row["status"], row["error_type"]) for row in told] == [("failed", "ArchiveError")]
    assert "reading failed" in told[0]["reason"]
    assert f"s3://{bucket.name}" in told[0]["reason"]
    assert errors(catalog) == []
    pull(lake, name, last_try=False)
    assert lake.sql("SELECT status FROM coverage WHERE status <> 'failed'").to_pylist() == [{"status": "found"}]


# --- what is read ---


@pytest.fixture(scope="module")
def dense(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """Some hundred targets in half a degree: few partitions, and large ones."""
    folder = tmp_path_factory.mktemp("dense")
    rng = np.random.default_rng(1)
    around = np.array([_CLUSTER, *(np.array(_CLUSTER) + rng.uniform(-0.25, 0.25, (600, 2)))])
    # In the order of the sky, as unWISE's stand-in keeps sources in that of their numbers.
    around = around[np.argsort(hpx29(*around.T))]
    write(folder, [(float(a), float(b)) for a, b in around], n_field=0, most=10**6)
    return upload(s3, folder, "dense")


@each
def test_only_what_is_needed_is_read(dense: Bucket, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: Counter[str] = Counter()
    really = helpers.s3._ProxyHandler._answer

    def counted(self: Any, status: int, headers: Any, body: bytes, spoil: str | None = None) -> None:
        if self.command == "GET":
            sent[self.path.partition("?")[0].replace("%3D", "=")] += len(body)
        really(self, status, headers, body, spoil)

    monkeypatch.setattr(helpers.s3._ProxyHandler, "_answer", counted)
    asked = granule(name, [_CLUSTER])
    wanted = dense.locally(asked)
    path = partition(dense, name, _CLUSTER)
    size = (dense.folder / path).stat().st_size
    with FaultyProxy(dense.s3.endpoint) as proxy:
        reach(monkeypatch, dense.s3.environment_at(proxy.endpoint), f"s3://{dense.name}")
        forget()
        assert_same(fetch(asked), wanted)
    print(name, size, dict(sent), len(proxy.requests))
    assert size > 1_000_000
    assert 0 < sent[f"/{dense.name}/{path}"] < size / 5
    assert not [file for file in sent if file.endswith("_metadata") or "margin" in file or "10arcs" in file]
    assert Counter(seen.method for seen in proxy.requests)["GET"] < 20
