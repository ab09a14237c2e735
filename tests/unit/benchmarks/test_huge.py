"""The lakes of `benchmarks.lake --huge`: made in pieces that are committed once, and every answer is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import huge
from benchmarks.lake_rows import target_name
from lake.commit.commit import commit_together
from lake.commit.staging import Manifest
from lake.query import Lake
from lake.settings import Settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage

TARGETS = 13


@pytest.mark.long
def test_granules_of_several_parts_and_their_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ARCHIVES": ("tess", "wise", "ztf"), "GRANULE": 8, "PART": 4, "SECTOR": 4}.items():
        monkeypatch.setattr(huge, name, value)
    url = str(tmp_path / "lake")
    huge.register(url, TARGETS)
    storage = Storage.from_url(url)
    catalog = Catalog(storage, Settings())
    for archive in huge.ARCHIVES:
        for first, targets in ((0, 8), (8, 5)):
            name = huge.stage_one(url, TARGETS, archive, first)
            manifest = Manifest.read(storage.staging / name)
            assert manifest is not None
            assert [one.n_rows for one in commit_together(catalog, manifest)] == [targets * huge.EACH]
    catalog.close()
    assert huge.committed(url) == {f"{archive}-0000000{first}" for archive in huge.ARCHIVES for first in (0, 8)}
    found = huge.ask(url, TARGETS)
    assert {"open_ms", "object_ms", "cone_first_ms", "time_range_ms", "statistics_ms", "join_ms"} <= found.keys()
    with pytest.raises(AssertionError):  # of another target
        huge.check(first_target(url), TARGETS, 1)


def first_target(url: str) -> object:
    """Return the measurements of target 0."""
    with Lake(url) as lake:
        return lake.light_curve(target_name(0))
