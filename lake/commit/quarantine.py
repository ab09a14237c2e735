"""The quarantine: unknown files of a lake's folder are moved there, listed, and kept for some days.

No file is deleted unless it is proven dead. A file that is in no snapshot of the catalogue may be left over from a
crash, or be the only copy of data whose catalogue is lost or older than the tree.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lake.errors import CatalogError
from lake.store.storage import Storage, flush, is_local, remove_folder

if TYPE_CHECKING:
    from upath import UPath

# The page that helps with errors from here.
HELP_TOPIC = "how-to/keep-a-lake"

FOLDER = "quarantine"


@dataclass(frozen=True)
class Held:
    """The files quarantined on one day."""

    day: date
    files: int
    bytes: int


def set_aside(storage: Storage, paths: Iterable[UPath], *, day: date | None = None) -> list[UPath]:
    """Move files of a lake to its quarantine, with their paths below the day's folder.

    Returns
    -------
    list of UPath
        Where they are now.

    Raises
    ------
    CatalogError
        If a file cannot be moved; it stays in place.
    """
    folder = storage.root / FOLDER / (day or datetime.now(UTC).date()).isoformat()
    moved = []
    for path in paths:
        target = _free(folder / path.relative_to(storage.root).as_posix())
        try:
            if is_local(path) and is_local(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, target)
                flush(target.parent)
                flush(path.parent)
            else:
                path.fs.mv(path.path, target.path)
        except OSError as error:
            raise CatalogError(
                f"cannot move {path} to the quarantine: {error.strerror or error}", hint=f"move it by hand to {folder}"
            ) from error
        moved.append(target)
    return moved


def _free(target: UPath) -> UPath:
    """Return the path, or the first of NAME.1, NAME.2, ... that does not exist."""
    taken, number = target, 0
    while taken.exists():
        number += 1
        taken = target.with_name(f"{target.name}.{number}")
    return taken


def held(storage: Storage) -> list[Held]:
    """List the quarantine by day."""
    found = []
    for day, folder in _days(storage):
        try:
            sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        except FileNotFoundError:  # maintenance has deleted the day meanwhile
            continue
        if sizes:
            found.append(Held(day, len(sizes), sum(sizes)))
    return found


def as_text(one: Held, days: int) -> str:
    """Format the files of one day in a line."""
    until = one.day + timedelta(days=days)
    files = f"{one.files} file{'s' if one.files != 1 else ''}"
    return f"{FOLDER}/{one.day}: {files}, {one.bytes / 1e6:.1f} MB, kept until {until}"


def expire(storage: Storage, days: int, *, today: date | None = None) -> int:
    """Delete days of the quarantine older than `days`; return how many were deleted."""
    oldest = (today or datetime.now(UTC).date()) - timedelta(days=days)
    old = [folder for day, folder in _days(storage) if day < oldest]
    for folder in old:
        remove_folder(folder)
    return len(old)


def _days(storage: Storage) -> list[tuple[date, UPath | Path]]:
    root = storage.root / FOLDER
    folders = sorted(root.iterdir(), key=lambda path: path.name) if root.exists() else []
    # Only folders that set_aside made: others belong to the user.
    named = [folder for folder in folders if re.fullmatch(r"\d{4}-\d\d-\d\d", folder.name.rstrip("/"))]
    return [(date.fromisoformat(folder.name.rstrip("/")), folder) for folder in named]
