"""Who may write: what SQLite takes away between two looks is nobody's fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lake.errors import ReadOnly
from lake.store import access


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.sqlite"
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).touch()
    return path


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_log_that_vanishes_while_it_is_looked_at_closes_no_lake(
    catalogue: Path, comes_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def may(path: Path, mode: int) -> bool:
        if not path.name.endswith("-wal"):
            return True
        if comes_back:  # as another file: the old one's number is not free while its name has moved
            path.rename(path.with_name("taken away"))
            path.touch()
        else:
            path.unlink()
        return False

    monkeypatch.setattr(access, "may", may)
    access.check_catalogue(catalogue)


def test_a_log_that_may_not_be_written_is_named_with_its_owner(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "may", lambda path, mode: not path.name.endswith("-wal"))
    with pytest.raises(ReadOnly) as raised:
        access.check_catalogue(catalogue)
    assert "catalog.sqlite-wal" in str(raised.value)
    assert f"mode {catalogue.stat().st_mode & 0o7777:04o}" in str(raised.value)
    assert os.access(catalogue, os.W_OK)
