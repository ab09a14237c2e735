"""Observations on a real S3 server, into a lake on disk: the same rows as from a folder, by either prefix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.rxte import extract_all
from helpers.s3 import S3

from deployments.sandbox.rxte import write_mirror, xtemaster
from lake.query import Lake
from lake.settings import load_settings
from lake.store.storage import path_of
from lake.upkeep.maintenance import verify
from tasks.pull import lake_at
from tasks.sources.rxte import observations as rxte_pull
from tasks.sources.rxte.files import Mirror
from tasks.sources.rxte.find import select
from tasks.sources.rxte.mission import PREFIXES, Observation
from tasks.sources.rxte.observations import Extraction, extraction_of

pytestmark = pytest.mark.server

ETA_CAR = (161.265, -59.6845)


@pytest.fixture(scope="module")
def bucket(s3: S3) -> str:
    return s3.bucket("rxte")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, list[Observation]]:
    """A mirror on disk, and what is to be had of it."""
    rows = write_mirror(tmp_path / "mirror", n_obsids=12, seed=8, broken=0.15, std2=0.4, bins=(20, 40))
    ra, dec = ETA_CAR
    found = select(pa.table({"target_id": [1], "ra": [ra], "dec": [dec]}), xtemaster(rows)).each()
    for one in found:
        # A bucket has no empty folders: an observation is there by its files.
        home(tmp_path / "mirror", one).mkdir(parents=True, exist_ok=True)
        (home(tmp_path / "mirror", one) / "FMI").write_bytes(b"index")
    return tmp_path / "mirror", found


def reach(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LIGHTLAKE_RETRY_DELAY_S", "0")


def upload(mirror: Path, to: str, prefix: str) -> None:
    for path in sorted(mirror.rglob("*")):
        if path.is_file():
            name = path.relative_to(mirror).as_posix()
            (path_of(to) / prefix / "data" / "archive" / name).write_bytes(path.read_bytes())


def home(mirror: Path, one: Observation) -> Path:
    return mirror / one.paths[0].partition("archive/")[2]


def rows_of(lake: Lake, archive: str = "rxte") -> tuple[pa.Table, list[tuple[Any, ...]]]:
    """Light curves, and what the ledger has last of each observation."""
    curves = lake.sql("SELECT * FROM lightcurves WHERE archive = ? ORDER BY ALL", [archive])
    last = lake.sql(
        "SELECT granule, arg_max(status, attempt) AS status, arg_max(n_rows, attempt) AS n_rows FROM ledger "
        "WHERE archive = ? GROUP BY granule ORDER BY granule",
        [archive],
    )
    return curves, [tuple(row.values()) for row in last.to_pylist()]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_observations_in_a_bucket_are_those_in_a_folder(
    lake: Lake, s3: S3, bucket: str, made: tuple[Path, list[Observation]], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, observations = made
    url = str(lake.storage.root)
    reach(s3, monkeypatch)
    where = f"s3://{bucket}/{prefix}-mirror/deep"
    upload(mirror, where, prefix)
    cut = extraction_of("standard2", chmin=5, chmax=10)
    for extraction, archive in ((Extraction(), "rxte"), (cut, "rxte_pca")):
        rxte_pull.register(lake_at(url), extraction)
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", str(mirror))
        extract_all(url, observations, extraction)
        local = rows_of(lake, archive)
        assert {status for _, status, _ in local[1]} >= {"done"}
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", where)
        receipts = dict(extract_all(url, observations, extraction))
        assert len(receipts) == len(observations)
        far = rows_of(lake, archive)
        assert far[0].equals(local[0])
        assert far[1] == local[1]
    endpoints = lake.sql("SELECT endpoint FROM ledger WHERE attempt = 2")["endpoint"].to_pylist()
    assert all(one.startswith(f"{where}/") for one in endpoints)
    assert [finding.message for finding in verify(lake.catalog) if finding.is_error] == []
    with Mirror(load_settings()) as reached:
        one = next(one for one in observations if reached.light_curves(one))
        folder = reached.folder(one) or ""
        copied = reached.fetch(folder, mirror.parent / "copy")
    assert folder == f"{prefix}/{one.paths[0].partition('/')[2]}".rstrip("/")
    theirs = {path.relative_to(copied): path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    ours = {path: path.read_bytes() for path in home(mirror, one).rglob("*") if path.is_file()}
    assert theirs == {path.relative_to(home(mirror, one)): content for path, content in ours.items()}


def test_a_public_bucket_needs_no_credentials(
    lake: Lake, s3: S3, bucket: str, made: tuple[Path, list[Observation]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, observations = made
    reach(s3, monkeypatch)
    public = s3.bucket("rxte-public")
    upload(mirror, f"s3://{public}", PREFIXES[0])
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": "*",
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{public}", f"arn:aws:s3:::{public}/*"],
            }
        ],
    }
    client = pytest.importorskip("botocore.session").get_session().create_client("s3", endpoint_url=s3.endpoint)
    client.put_bucket_policy(Bucket=public, Policy=json.dumps(policy))
    client.close()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", f"s3://{public}")
    rxte_pull.register(lake_at(str(lake.storage.root)), Extraction())
    receipts = dict(extract_all(str(lake.storage.root), observations, Extraction()))
    assert {receipt.status for receipt in receipts.values()} >= {"done"}
    assert "failed" not in {receipt.status for receipt in receipts.values()}


def test_an_observation_that_no_bucket_has_is_lost_and_not_empty(
    lake: Lake, s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(s3, monkeypatch)
    (path_of(f"s3://{bucket}") / "nearly" / "xte" / "data" / "archive" / "README").write_bytes(b"nothing else")
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", f"s3://{bucket}/nearly")
    rxte_pull.register(lake_at(str(lake.storage.root)), Extraction())
    one = Observation("94002-01-15-00", "X", *ETA_CAR, 54600.0, 900.0)
    ((_, receipt),) = extract_all(str(lake.storage.root), [one], Extraction())
    assert receipt.status == "failed"
    assert "there is no observation 94002-01-15-00" in (receipt.reason or "")
