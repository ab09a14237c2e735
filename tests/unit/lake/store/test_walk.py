"""Walks through folders pass over nothing in silence."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.granules import committed, register
from hypothesis import given
from hypothesis import strategies as st

from lake.store.catalog import Catalog
from lake.store.walk import files_below, shown
from lake.upkeep.maintenance import verify
from tasks.sources.virac.pieces import find_tiles

NOBODY = 65534


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may read everything; nobody may not."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    os.setresgid(NOBODY, NOBODY, 0)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def names(root: Path, *, follow_links: bool) -> tuple[list[str], list[str]]:
    troubles: list[OSError] = []
    found = files_below(root, "n*.hdf5", troubles.append, follow_links=follow_links)
    told = [str(path.relative_to(root)) for path, info in found if info.st_size == 1]
    return told, [str(Path(str(error.filename)).relative_to(root)) for error in troubles]


def test_links_are_followed_once_and_those_to_nothing_are_named(tmp_path: Path) -> None:
    root, other = tmp_path / "tiles", tmp_path / "other disk"
    for path in (root / "b" / "n1.hdf5", root / "b" / "notes.txt", other / "n2.hdf5", root / "n3.hdf5"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (root / "a").symlink_to(root / "b")  # before the folder itself, in order
    (root / "b" / "up").symlink_to(root)
    (other / "back").symlink_to(root / "b")
    (root / "z").symlink_to(other)
    (root / "not mounted").symlink_to(tmp_path / "nowhere")
    (root / "n4.hdf5").symlink_to(tmp_path / "gone.hdf5")
    (root / "n5.hdf5").symlink_to(root / "n3.hdf5")
    (root / "circle").symlink_to(root / "circle")
    os.mkfifo(root / "n6.hdf5")
    assert names(root, follow_links=True) == (
        ["n3.hdf5", "n5.hdf5", "b/n1.hdf5", "z/n2.hdf5"],
        ["circle", "n4.hdf5", "not mounted"],
    )
    assert names(root, follow_links=False) == (["n3.hdf5", "n5.hdf5", "b/n1.hdf5"], ["n4.hdf5"])
    assert names(tmp_path / "tiles" / "nowhere", follow_links=True) == ([], ["."])
    assert find_tiles(str(root), "n*.hdf5").unreadable[1].startswith(f"{root}/n4.hdf5: No such file")


def test_folders_that_cannot_be_read_are_named(open_folder: Path) -> None:
    for name in ("a", "secret", "closed"):
        (open_folder / name).mkdir()
        (open_folder / name / "n1024_9.hdf5").write_text("x")
    (open_folder / "secret").chmod(0o700)
    (open_folder / "closed").chmod(0o744)  # its files are listed, and no more
    with as_somebody_else():
        found = find_tiles(str(open_folder))
        assert [tile.name for tile in found.found] == ["a/n1024_9.hdf5"]
        assert sorted(found.unreadable) == [
            f"{open_folder}/closed/n1024_9.hdf5: Permission denied",
            f"{open_folder}/secret: Permission denied",
        ]
    assert len(find_tiles(str(open_folder)).found) == 3


@pytest.mark.usefixtures("on_disk")
def test_verify_names_a_folder_of_the_tree_that_it_cannot_read(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "tmp"  # one who may not write reads a copy of the catalogue
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    register(catalog, range(2))
    committed(catalog, range(2))
    catalog.close()
    kept = catalog.storage.table_folder("lightcurves", "older")
    kept.mkdir()
    kept.chmod(0o700)
    reached = [path for path in kept.parents if not path.stat().st_mode & 0o001]
    modes = {path: path.stat().st_mode for path in reached}
    for path in reached:
        path.chmod(modes[path] | 0o005)
    try:
        with as_somebody_else(), pytest.raises(PermissionError):
            list(catalog.storage.table_files("lightcurves"))
        with as_somebody_else():
            reader = Catalog(catalog.storage, catalog.settings, read_only=True)
            found = [finding.message for finding in verify(reader) if finding.is_error]
            reader.close()
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert found == [f"lightcurves: {kept} cannot be read: Permission denied"]


@given(st.binary(max_size=40))
def test_names_of_files_are_shown_as_text_and_text_as_it_is(name: bytes) -> None:
    told = shown(os.fsdecode(name))
    assert told.encode().decode() == told
    try:
        assert told == name.decode()
    except UnicodeDecodeError:
        assert "\\x" in told
