"""Intents: records of files that are about to appear in the tree; and recovery after a crash."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from lake.commit.quarantine import set_aside
from lake.model.declared import all_tables, is_table
from lake.store.catalog import Catalog
from lake.store.failures import overtaken
from lake.store.storage import PARTIAL, Storage, publish, remove, remove_folder, write_text

if TYPE_CHECKING:
    from upath import UPath

PUBLISHING = "publishing"


@dataclass
class Intent:
    """The files that a change is about to publish in the tree.

    Parameters
    ----------
    path
        The intent's file in the staging area.
    fence
        Fence number of the writer.
    files
        Files of the tree, relative to data/main.
    """

    path: UPath
    fence: int = 0
    files: list[str] = field(default_factory=list)

    @property
    def aside(self) -> UPath:
        """Return the folder with second copies of the files that DuckLake wrote in the tree."""
        return self.path.with_suffix("")

    def write(self) -> None:
        """Write it safely to disk."""
        write_text(self.path, json.dumps({"fence": self.fence, "files": self.files}))

    @classmethod
    def read(cls, path: UPath) -> Intent | None:
        """Read an intent; None if it is not valid, such as one that names files outside the tree."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, FileNotFoundError):
            return None
        if isinstance(found, list):  # as versions before the fence wrote it
            found = {"fence": 0, "files": found}
        number, files = (found.get("fence"), found.get("files")) if isinstance(found, dict) else (None, None)
        if not isinstance(number, int) or not isinstance(files, list):
            return None
        return cls(path, number, files) if all(isinstance(name, str) and _is_of_tree(name) for name in files) else None


def _is_of_tree(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and bool(path.parts) and is_table(path.parts[0]) and ".." not in path.parts


def recover(catalog: Catalog, number: int) -> list[UPath]:
    """Remove files from the tree that a crashed commit published but did not register.

    The caller holds the lock. Only intents of earlier holders are read: none of them can commit any more. Files named
    by an intent are deleted; other unknown files go to the quarantine, and so does an intent that cannot be read.

    Parameters
    ----------
    catalog
        The lake.
    number
        The caller's fence number.

    Returns
    -------
    list of UPath
        Files that were moved to the quarantine.

    Raises
    ------
    Interrupted
        If there is an intent of a later holder: the caller has lost the lock.
    """
    moved: list[UPath] = []
    for path in _publishing(catalog.storage):
        if path.suffix == PARTIAL:  # nothing was moved into the tree before its intent was whole
            remove(path)
        elif path.suffix == ".json" and path.exists():
            intent = Intent.read(path)
            if intent is None:
                moved += set_aside(catalog.storage, [path])
            else:
                _check_not_overtaken(catalog, intent, number)
                settle(catalog, intent)
            # DuckLake writes files of its own for a DELETE or a compaction.
            moved += set_aside_unknown(catalog, number)
            remove(path)
    return moved


def settle(catalog: Catalog, intent: Intent) -> None:
    """Reconcile the files of an intent with the catalogue, once its transaction is over.

    Files that the catalogue does not know are deleted. Files that it knows, and that DuckLake deleted because the
    answer to its COMMIT was lost, are restored.
    """
    tree = catalog.storage.data / "main"
    with closing(catalog.cursor()) as cursor:
        known = catalog.known_files(cursor) if intent.files else set()
    for name in intent.files:
        if PurePosixPath(name).name not in known:
            remove(tree / name)
            remove((tree / name).with_suffix(PARTIAL))
    put_back(catalog, intent)
    remove_folder(intent.aside)


def put_back(catalog: Catalog, intent: Intent) -> None:
    """Restore files that the catalogue knows and DuckLake deleted because the answer to its COMMIT was lost."""
    tree = catalog.storage.data / "main"
    copies = list(intent.aside.rglob("*.parquet"))
    if not copies:
        return
    with closing(catalog.cursor()) as cursor:
        known = catalog.known_files(cursor)
    for copy in copies:
        final = tree / copy.relative_to(intent.aside).as_posix()
        if copy.name in known and not final.exists():
            publish(copy, final)


def _publishing(storage: Storage) -> list[UPath]:
    try:
        return list((storage.staging / PUBLISHING).iterdir())
    except (FileNotFoundError, NotADirectoryError):  # the latter of S3
        return []


def intents(storage: Storage) -> list[Intent]:
    """Return the intents of commits that are under way or were interrupted."""
    found = [Intent.read(path) for path in _publishing(storage) if path.suffix == ".json"]
    return [intent for intent in found if intent is not None]


def _check_not_overtaken(catalog: Catalog, intent: Intent, number: int) -> None:
    if intent.fence > number:
        raise overtaken(catalog.location)


def unknown_files(catalog: Catalog, number: int, *, named: bool = False) -> list[UPath]:
    """Return all files of the tree that are in no snapshot of the catalogue; the caller holds the lock.

    The caller may have lost the lock without knowing it. So the tree is listed first, then the intents, then the
    catalogue: a file that another writer has just added is in one of them.

    Parameters
    ----------
    catalog
        The lake.
    number
        The caller's fence number.
    named
        Include files that an intent names.

    Raises
    ------
    Interrupted
        If there is an intent of a later holder of the lock.
    """
    found = [path for table in all_tables() for path in catalog.storage.table_files(table)]
    spared: set[str] = set()
    for intent in intents(catalog.storage):
        _check_not_overtaken(catalog, intent, number)
        if not named:
            spared |= {PurePosixPath(name).name for name in intent.files}
    with closing(catalog.cursor()) as cursor:
        known = catalog.known_files(cursor)
    return [path for path in found if path.name not in known and path.name not in spared]


def set_aside_unknown(catalog: Catalog, number: int) -> list[UPath]:
    """Move unknown files to the quarantine."""
    return set_aside(catalog.storage, unknown_files(catalog, number))
