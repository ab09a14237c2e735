"""The places that a lake needs: each check with what it is to find fault with."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from helpers.checks import answering, read_only, small_disk

from lake.model.schema import SCHEMA_VERSION
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from lake.upkeep import checks as places
from lake.upkeep.checks import (
    cache,
    catalogue,
    check_free_space,
    check_writable,
    clock,
    file_system,
    room,
    skew_s,
    storage_rights,
)
from lake.upkeep.doctor import Check

MOUNTS = r"""22 1 252:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /home rw,relatime - nfs4 server:/home rw,vers=4.2
31 30 0:26 / /home/me/my\040disk rw - xfs /dev/vdb rw
32 22 0:27 / /scratch rw - lustre 10.0.0.1@tcp:/scratch rw
33 22 0:28 / /mnt/remote rw - fuse.sshfs me@server: rw
"""


def status_of(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.status for check in checks}


def looked_at(catalog: Catalog, settings: Settings) -> Check:
    catalog.close()
    return catalogue(catalog.storage, settings, 1.0)[0]


# --- the catalogue ---


@pytest.mark.usefixtures("on_disk")
def test_a_lake_is_there(catalog: Catalog, settings: Settings) -> None:
    catalog.close()
    checks = catalogue(catalog.storage, settings, 1.0)
    assert status_of(checks) == {"catalogue": "ok", "disk of the catalogue": "ok"}, checks
    assert checks[0].found.endswith(f"catalog.sqlite, schema version {SCHEMA_VERSION}")


def test_no_lake_is_no_failure_and_none_is_made(tmp_path: Path) -> None:
    settings = load_settings(url=str(tmp_path / "lake"))
    storage = Storage.from_url(settings.url)
    check = catalogue(storage, settings, 1.0)[0]
    assert check.status == "warn"
    assert check.hint.startswith(f"make one with: lightlake init {tmp_path / 'lake'}; ")
    (check,) = storage_rights(storage, {}, 1.0)
    assert (check.status, check.found.endswith(f" in {tmp_path}")) == ("ok", True)
    assert not (tmp_path / "lake").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("schema_version", "hint"), [(SCHEMA_VERSION - 1, "lightlake init"), (SCHEMA_VERSION + 1, "pip install --upgrade")]
)
def test_a_lake_of_another_version(catalog: Catalog, settings: Settings, schema_version: int, hint: str) -> None:
    cursor = catalog.cursor()
    cursor.execute("DELETE FROM schema_version")
    cursor.execute("INSERT INTO schema_version VALUES (?, 'lightlake', now(), 'x', NULL)", [schema_version])
    check = looked_at(catalog, settings)
    assert (check.status, f"has schema version {schema_version}" in check.found) == ("fail", True)
    assert hint in str(check.hint)


@pytest.mark.usefixtures("on_disk")
def test_a_damaged_catalogue(catalog: Catalog, settings: Settings) -> None:
    catalog.close()
    (catalog.storage.root / "catalog.sqlite").write_bytes(b"no database" * 1000)
    check = looked_at(catalog, settings)
    assert (check.status, "cannot read the catalogue" in check.found) == ("fail", True)


def test_a_catalogue_elsewhere_has_rights_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = load_settings(url=str(tmp_path / "lake"), catalog=f"sqlite:{tmp_path}/file/catalog.sqlite")
    checks = catalogue(Storage.from_url(settings.url), settings, 1.0)
    assert status_of(checks)["folder of the catalogue"] == "fail"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data", "ext4"),
        ("/home/me/lake", "nfs4"),
        ("/home/me/my disk/lake", "xfs"),
        ("/scratch", "lustre"),
        ("/mnt/remote/x", "fuse.sshfs"),
        ("/homely", "ext4"),
    ],
)
def test_which_file_system_a_path_is_on(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind


def test_sqlite_on_a_network_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(url=str(tmp_path / "lake"))
    storage = Storage.from_url(settings.url)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"{MOUNTS}40 22 0:30 / {tmp_path} rw - nfs server:/tmp rw\n")
    monkeypatch.setattr(places, "_MOUNTS", mounts)
    check = catalogue(storage, settings, 1.0)[-1]
    assert (check.status, "(nfs)" in check.found, "postgres" in str(check.hint)) == ("warn", True, True)
    monkeypatch.setattr(places, "_MOUNTS", tmp_path / "nowhere")
    assert "disk of the catalogue" not in status_of(catalogue(storage, settings, 1.0))


# --- files ---


@pytest.mark.usefixtures("on_disk")
def test_files_can_be_written_and_none_is_left(catalog: Catalog, settings: Settings) -> None:
    before = sorted(catalog.storage.root.rglob("*"))
    (check,) = storage_rights(catalog.storage, {}, 1.0)
    assert (check.status, check.found) == ("ok", f"{catalog.storage.root}: files can be written, linked and removed")
    assert cache(settings).status == "ok"
    assert sorted(catalog.storage.root.rglob("*")) == before
    assert not settings.cache_dir.exists()


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (check,) = storage_rights(Storage.from_url(tmp_path / "file" / "lake"), {}, 1.0)
    assert (check.status, f"cannot write to {tmp_path / 'file'}: " in check.found) == ("fail", True)
    assert cache(load_settings(cache_dir=tmp_path / "file" / "cache")).status == "fail"


def test_a_disk_that_is_read_only(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        (disk / "staging").mkdir()
        read_only(disk)
        (check,) = storage_rights(Storage.from_url(disk), {}, 1.0)
        assert (check.status, check.found) == ("fail", f"cannot write to {disk}: Read-only file system")
        assert "LIGHTLAKE_URL" in str(check.hint)


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        with pytest.raises(OSError, match="No space"):
            (disk / "full").write_bytes(bytes(2 << 20))
        check = room("room", disk / "lake")
        assert (check.status, check.found) == ("fail", f"0.0 GB free at {disk}")
        assert check_writable("lake", disk, "LIGHTLAKE_URL").found.endswith("No space left on device")
        assert [path.name for path in disk.iterdir()] == ["full"]


def test_little_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1g") as disk:
        assert room("room", disk).status == "warn"


def test_room_for_all_that_is_written(settings: Settings, tmp_path: Path) -> None:
    checks = check_free_space(Storage.from_url(tmp_path / "lake"), settings)
    assert [check.name for check in checks] == ["room for lake", "room for cache", "room for temporary files"]


# --- the clock ---


def test_the_clock_of_a_server() -> None:
    for off in (0.0, 600.0, -600.0):
        with answering({"/": (200, b"")}, clock_is_off_s=off) as url:
            before = time.time()
            skew = skew_s(httpx.get(url), before, time.time())
            assert skew == pytest.approx(-off, abs=60)
    with answering({}, clock_is_off_s=None) as url:
        assert skew_s(httpx.get(url), 0, 0) is None
    assert skew_s(httpx.Response(200, headers={"Date": "yesterday"}), 0, 0) is None


def test_the_nearest_clock_counts() -> None:
    (right,) = clock("clock", {"wrong.org": -4000.0, "right.org": 1.2})
    assert (right.status, right.found) == ("ok", "1 s ahead of right.org")
    (wrong,) = clock("clock", {"a.org": -4000.0, "b.org": -90.0})
    assert (wrong.status, wrong.found) == ("warn", "90 s behind b.org")
    assert "15 minutes" in str(wrong.hint)
    assert clock("clock", {})[0].status == "warn"


def test_a_setting_that_duckdb_refuses(catalog: Catalog, settings: Settings) -> None:
    check = looked_at(catalog, settings.model_copy(update={"duckdb_memory": "lots"}))
    assert (check.status, "1GB" in check.found) == ("fail", True), check
