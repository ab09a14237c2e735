"""Light curves of TESS, Kepler and K2 on a real S3 server, laid out as MAST's public bucket: as from a folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from helpers.mast import KINDS, name_of, product
from helpers.s3 import S3, FaultyProxy

from lake.errors import ArchiveError
from lake.settings import Settings
from lake.store.storage import path_of
from tasks.sources.tess_kepler import mast_bucket
from tasks.sources.tess_kepler.mast_bucket import TREES
from tasks.sources.tess_kepler.mast_files import Files, Found
from tasks.sources.tess_kepler.mast_fits import read_product
from tasks.sources.tess_kepler.mast_mirror import find
from tasks.sources.tess_kepler.mast_products import named

pytestmark = pytest.mark.server

IDS = {"TIC": [25155310, 38846515], "KIC": [2556081], "EPIC": [211436265]}
TARGETS = {"kepler": IDS["KIC"], "k2": IDS["EPIC"], "k2sff": IDS["EPIC"], "everest": IDS["EPIC"]}
NOWHERE = (np.array([]), np.array([]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small copy of the bucket: each pipeline, some sectors and campaigns."""
    root = tmp_path_factory.mktemp("copy")
    for kind in KINDS:
        for target in TARGETS.get(kind, IDS["TIC"]):
            for sequence in (5, 37):
                name = name_of(kind, target, sequence)
                what = named(name)
                assert what is not None
                tree = TREES[what.pipeline.name]
                width = "{:02d}" if tree.base.startswith("mast") else "{:d}"
                parts = {"TIC": f"s{sequence:04d}", "KIC": f"{target:09d}"[:4], "EPIC": f"c{width.format(sequence)}"}
                (place,) = tree.places(target, [parts[what.pipeline.mission.catalogue]])
                path = root / tree.base / place / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(product(kind, target=target, sequence=sequence, seed=sequence))
    return root


def upload(folder: Path, to: str) -> None:
    for path in sorted(folder.rglob("*.fits")):
        (path_of(to) / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())


@pytest.fixture(scope="module")
def bucket(s3: S3, folder: Path) -> str:
    """The same, in a bucket that anybody may read."""
    name = s3.bucket("stpubdata")
    with pytest.MonkeyPatch.context() as patch:
        reach(s3, patch)
        upload(folder, f"s3://{name}")
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": "*",
                    "Action": ["s3:GetObject", "s3:ListBucket"],
                    "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
                }
            ],
        }
        client = pytest.importorskip("botocore.session").get_session().create_client("s3", endpoint_url=s3.endpoint)
        client.put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
        client.close()
    return name


def reach(s3: S3, monkeypatch: pytest.MonkeyPatch, endpoint: str | None = None) -> None:
    for name, value in s3.environment_at(endpoint or s3.endpoint).items():
        monkeypatch.setenv(name, value)


def anonymously(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


def seen(found: list[Found]) -> list[tuple[object, ...]]:
    return [(one.uri, one.named, one.cadence_s, one.size, one.ra, one.dec) for one in found]


@pytest.mark.parametrize("below", ["", "/tess/public", "/mast/hlsp"])
@pytest.mark.parametrize("who", ["owner", "anybody"])
def test_a_bucket_is_read_as_a_folder(
    s3: S3, bucket: str, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, below: str, who: str
) -> None:
    reach(s3, monkeypatch)
    if who == "anybody":
        anonymously(monkeypatch)
    here, there = str(folder) + below, f"s3://{bucket}{below}"
    local = find(here, settings, IDS, NOWHERE, 1.0)
    assert len(local) == {"": 19, "/tess/public": 4, "/mast/hlsp": 12}[below]
    found = find(there, settings, IDS, NOWHERE, 1.0)
    assert seen(found) == seen(local)
    ra, dec = (
        np.array([getattr(read_product(Path(here) / one.uri, one.name), key) for one in local]) for key in ("ra", "dec")
    )
    assert seen(find(there, settings, {}, (ra, dec), 1.0)) == seen(find(here, settings, {}, (ra, dec), 1.0))
    with Files(there, settings) as far, Files(here, settings) as near:
        pairs = zip(far.fetch(found), near.fetch(local), strict=True)
        assert all(one.read_bytes() == other.read_bytes() for (_, one), (_, other) in pairs)


def test_files_of_a_bucket_are_cached_and_checked(
    s3: S3, bucket: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also what MAST finds, in which case nothing is asked for what is in the cache."""
    with FaultyProxy(s3.endpoint) as proxy:
        reach(s3, monkeypatch, proxy.endpoint)
        url = f"s3://{bucket}"
        there = settings.model_copy(update={"endpoints": {"mast_files": url}, "retry_delay_s": 0.0})
        listed = find(url, settings, {"TIC": [25155310]}, NOWHERE, 1.0)
        mast = [Found(f"mast:TESS/product/{one.name}", one.name, one.named, size=one.size) for one in listed]
        for where, files in ((url, listed), ("http://127.0.0.1:9", mast)):
            with Files(where, there) as source:
                first = [(path, path.read_bytes()) for _, path in source.fetch(files)]
                first[0][0].write_bytes(b"damaged")
                begun = len(proxy.requests)
                assert [path.read_bytes() for _, path in source.fetch(files)] == [content for _, content in first]
                asked = {seen.path.partition("?")[0].rsplit("/", 1)[-1] for seen in proxy.requests[begun:]}
                assert {name for name in asked if name.endswith(".fits")} == {first[0][0].name}
        assert caplog.text.count("is damaged in the cache") == 2


def test_what_passes_is_asked_again(
    s3: S3, bucket: str, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyProxy(s3.endpoint) as proxy:
        reach(s3, monkeypatch, proxy.endpoint)
        patient = settings.model_copy(update={"retry_delay_s": 0.0})
        found = find(f"s3://{bucket}", patient, {"KIC": IDS["KIC"]}, NOWHERE, 1.0)
        for kind in ("slowdown", "truncate", "reset"):
            proxy.fault(kind, 1, match=r"^GET .*kplr")
        with Files(f"s3://{bucket}", patient) as files:
            ((one, path),) = files.fetch(found)
        assert path.read_bytes() == (folder / one.uri).read_bytes()


def test_what_is_not_there_is_told(
    s3: S3, bucket: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reach(s3, monkeypatch)
    for nowhere in ("s3://no-such-bucket", f"s3://{bucket}/nothing/here"):
        with pytest.raises(ArchiveError, match="there is no such folder"):
            find(nowhere, settings, IDS, NOWHERE, 1.0)
    with caplog.at_level(logging.WARNING), Files(f"s3://{bucket}", settings) as files:
        what = named(name_of("spoc", 5))
        assert what is not None
        for uri in (f"mast:TESS/product/{name_of('spoc', 5)}", f"tess/public/tid/{name_of('spoc', 5)}"):
            with pytest.raises(ArchiveError, match=r"does not have it|is gone"):
                list(files.fetch([Found(uri, name_of("spoc", 5), what)]))
    assert [path for path in settings.cache_dir.rglob("*") if path.suffix in (".fits", ".part", ".json")] == []


def test_a_large_bucket_needs_names_of_targets(
    s3: S3, bucket: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(s3, monkeypatch)
    monkeypatch.setattr(mast_bucket, "MOST", 20)
    with pytest.raises(ArchiveError, match=r"TIC n, KIC n or EPIC n.*LIGHTLAKE_ENDPOINTS__MAST_FILES=s3://"):
        find(f"s3://{bucket}", settings, {}, (np.array([1.0]), np.array([2.0])), 1.0)
    assert len(find(f"s3://{bucket}", settings, IDS, NOWHERE, 1.0)) == 19
