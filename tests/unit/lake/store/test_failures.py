"""What errors mean: full disks above all, which databases tell in their own ways."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest
from helpers.granules import committed, content, errors, expected, register
from pydantic import ValidationError

from lake.errors import CatalogError, ConfigurationError, Interrupted
from lake.query import Lake
from lake.settings import Settings
from lake.store.catalog import Catalog
from lake.store.failures import DiskFull, disk_full, explain
from lake.store.s3 import S3Unreachable
from lake.store.storage import Storage
from lake.upkeep.compaction import compact


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(disk)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    filling = disk / "filling"
    with filling.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filling


@pytest.mark.long
def test_a_full_disk_is_read_and_writers_name_it(small_disk: Path, settings: Settings) -> None:
    root = small_disk / "lake"
    settings = settings.model_copy(update={"url": str(root), "catalog": None})
    catalog = Catalog(Storage(root), settings)
    catalog.create()
    register(catalog, range(8))
    committed(catalog, range(5), "g0")
    filling = fill(small_disk)
    # One who has it open, and one who comes later.
    for writer in (lambda: committed(catalog, range(5, 8), "g1"), lambda: compact(catalog)):
        with pytest.raises((DiskFull, OSError)) as error:
            writer()
        told = explain(error.value)
        assert isinstance(told, DiskFull)
        assert str(small_disk) in told.message
        assert ": 0.0 MB are free" in told.message
    catalog.close()
    with Lake(root, settings) as lake:
        assert content(lake.catalog) == expected(dict.fromkeys(range(5), 1))
        assert errors(lake.catalog) == []
    filling.unlink()
    committed(catalog, range(5, 8), "g1")
    compact(catalog)
    assert content(catalog) == expected(dict.fromkeys(range(8), 1))
    assert errors(catalog) == []
    catalog.close()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/tmp/x"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        duckdb.IOException('IO Error: Could not write all bytes to file "/tmp/x.parquet": No space left on device'),
        duckdb.Error("Failed to commit: database or disk is full"),
        sqlite3.OperationalError("database or disk is full"),
    ],
)
def test_no_room_is_told_whoever_says_it(error: Exception, tmp_path: Path) -> None:
    found = disk_full(error, tmp_path)
    assert found is not None
    assert "MB are free" in found.message
    # What comes of it later must not hide it.
    later = duckdb.TransactionException("TransactionContext Error: cannot rollback - no transaction is active")
    later.__context__ = error
    assert isinstance(explain(later), DiskFull)


def test_other_errors_are_not_of_full_disks(tmp_path: Path) -> None:
    assert disk_full(sqlite3.OperationalError("disk I/O error"), tmp_path) is None
    assert isinstance(explain(sqlite3.OperationalError("disk I/O error")), CatalogError)
    unanswered = explain(duckdb.IOException("Failure when receiving data error for HTTP GET to 'http://a/b.parquet'"))
    assert unanswered.message.startswith("S3 does not answer")
    assert "AWS_ENDPOINT_URL" in unanswered.hint
    assert "AWS_ENDPOINT_URL" in explain(S3Unreachable("Could not connect to the endpoint URL")).hint
    away = duckdb.Error('Failed to prepare "SELECT 1\nFROM a": server closed the connection unexpectedly\n\tThis')
    assert isinstance(explain(away), Interrupted)
    assert explain(away).message.endswith("is lost: server closed the connection unexpectedly")
    told = explain(PermissionError(errno.EACCES, "Permission denied", "/a/b\udce9"))
    assert isinstance(told, ConfigurationError)
    assert told.message == r"/a/b\xe9: Permission denied"
    with pytest.raises(RuntimeError) as homeless:
        Path("~nobody-of-that-name/lake").expanduser()
    assert "HOME" in (explain(homeless.value).hint or "")
    with pytest.raises(ValidationError) as wrong:
        Settings(workers=0)
    assert "workers is not valid" in explain(wrong.value).message
    assert "not UTF-8" in explain(UnicodeEncodeError("utf-8", "a\udce9", 1, 2, "surrogates")).message
    assert "memory" in explain(MemoryError()).message
    assert "is missing: No module" in explain(ModuleNotFoundError("No module named 'x'")).message
    assert explain(KeyError("x")) is None
    assert explain(ZeroDivisionError()) is None
