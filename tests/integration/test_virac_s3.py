"""Tiles on a real S3 server, into a lake on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.s3 import S3

from deployments.sandbox import virac as sandbox_virac
from lake.errors import ConfigurationError
from lake.query import Lake
from lake.store.storage import path_of
from lake.upkeep.maintenance import verify
from tasks.register import register_archive
from tasks.sources.virac.pieces import extract, find_tiles, granule_status
from tasks.sources.virac.tiles import ORIGIN, Selection

pytestmark = pytest.mark.server


@pytest.fixture
def bucket(s3: S3, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_bucket}/tiles"


def test_tiles_in_a_bucket_are_those_in_a_folder(lake: Lake, bucket: str, tmp_path: Path) -> None:
    made = sandbox_virac.write_tiles(
        tmp_path / "tiles", 4, seed=2, broken=0.25, n_sources=12, n_pawprints=60, epochs=(25, 50)
    )
    for path in sorted((tmp_path / "tiles").iterdir()):
        (path_of(bucket) / "deep" / path.name).write_bytes(path.read_bytes())
    (path_of(bucket) / "deep" / "README.txt").write_bytes(b"no tile")
    register_archive(lake, ORIGIN)
    found = find_tiles(bucket).found
    assert [tile.name for tile in found] == sorted(f"deep/{name}" for name in made)
    assert all(tile.version for tile in found)
    receipts = {tile.name: extract(lake, tile, Selection()) for tile in found}
    assert {name.partition("/")[2]: receipt.status for name, receipt in receipts.items() if receipt} == {
        name: "rejected" if kind else "done" for name, kind in made.items()
    }
    assert granule_status(lake, find_tiles(bucket).found, Selection()).waiting == []
    local = sum(
        receipt.n_rows
        for tile in find_tiles(str(tmp_path / "tiles")).found
        if (receipt := extract(lake, tile, Selection())) and receipt.status == "done"
    )
    assert local == sum(receipt.n_rows for receipt in receipts.values() if receipt)
    assert lake.sql("SELECT count(*) AS n FROM lightcurves")["n"].to_pylist() == [local], "the same sources, once"

    good = next(name for name, kind in made.items() if not kind)
    (path_of(bucket) / "deep" / good).write_bytes(b"replaced")
    (waiting,) = granule_status(lake, find_tiles(bucket).found, Selection()).waiting
    assert waiting.name == f"deep/{good}"
    assert [finding.message for finding in verify(lake.catalog) if finding.is_error] == []


def test_a_bucket_without_tiles(bucket: str) -> None:
    with pytest.raises(ConfigurationError, match="no file of"):
        find_tiles(f"{bucket}/nowhere")
