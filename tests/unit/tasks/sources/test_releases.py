"""Releases of an archive, found beside the one that is pulled."""

from __future__ import annotations

from pathlib import Path

import pytest

from lake.errors import ArchiveError, ConfigurationError
from lake.settings import Settings, load_settings
from tasks.sources import wise, ztf
from tasks.sources.base import Archive
from tasks.sources.gaia import archive as gaia
from tasks.sources.registry import REGISTRY, find
from tasks.sources.releases import found, newer


def at(root: Path, *folders: str, archive: Archive = ztf.ARCHIVE, pattern: str = "{release}/lc/hats") -> Settings:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        (root / folder / "collection.properties").write_text("")
    return load_settings(endpoints={archive.name: f"{root}/{pattern}"})


def test_releases_are_sorted_by_number_and_newer_ones_told(tmp_path: Path) -> None:
    settings = at(tmp_path, *(f"dr{n}/lc/hats" for n in (9, 24, 100, 25)), "other/lc/hats", "dr26x/lc/hats")
    assert found(ztf.ARCHIVE, settings) == ["DR9", "DR24", "DR25", "DR100"]
    assert newer(ztf.ARCHIVE, settings) == ["DR25", "DR100"]
    assert newer(ztf.ARCHIVE.at_release("DR25"), settings) == ["DR100"]


def test_a_release_without_its_data_is_not_one_yet(tmp_path: Path) -> None:
    settings = at(tmp_path, "dr24/lc/hats", "dr25/lc/images")
    assert found(ztf.ARCHIVE, settings) == ["DR24"]
    (tmp_path / "dr26/lc/hats").mkdir(parents=True)
    assert newer(ztf.ARCHIVE, settings) == []


def test_the_name_of_a_release_may_stand_twice_and_inside_a_name(tmp_path: Path) -> None:
    pattern = "unwise/{release}/catalogs/unwise-{release}-time_domain.parquet"
    settings = at(
        tmp_path,
        *(pattern.replace("{release}", name) for name in ("neo6", "neo7", "neo8")),
        "unwise/allwise",
        archive=wise.ARCHIVE,
        pattern=pattern,
    )
    assert newer(wise.ARCHIVE, settings) == ["neo8"]
    (tmp_path / "flat" / "unwise-neo9.parquet" / "x").mkdir(parents=True)
    flat = load_settings(endpoints={"wise": f"{tmp_path}/flat/unwise-{{release}}.parquet"})
    assert newer(wise.ARCHIVE, flat) == ["neo9"]


def test_what_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match="ztf"):
        found(ztf.ARCHIVE, load_settings(endpoints={"ztf": f"{tmp_path}/file/{{release}}"}, retries=0))


def test_archives_with_one_address_have_no_other_releases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert found(gaia.ARCHIVE, load_settings()) == []
    assert find("gaia", "DR3") is gaia.ARCHIVE
    with pytest.raises(ConfigurationError, match="gaia is pulled at release DR3"):
        find("gaia", "DR4")
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ZTF", str(tmp_path))
    with pytest.raises(ConfigurationError, match="LIGHTLAKE_ENDPOINTS__ZTF"):
        find("ztf", "DR25")


def test_an_address_follows_the_release() -> None:
    settings = load_settings()
    assert ztf.ARCHIVE.endpoint_url(settings) == "s3://ipac-irsa-ztf/ztf/enhanced/dr24/lc/hats"
    assert find("ztf", "DR25").endpoint_url(settings) == "s3://ipac-irsa-ztf/ztf/enhanced/dr25/lc/hats"
    assert wise.ARCHIVE.endpoint_url(settings) == (
        "s3://nasa-irsa-wise/unwise/neo7/catalogs/time_domain/healpix_k5/unwise-neo7-time_domain-healpix_k5.parquet"
    )
    assert all("{" not in archive.row()["endpoint"] for archive in REGISTRY.values())
