"""Files that are in a lake's folder but that nothing knows: moved aside, kept for a while, and told of.

Nothing deletes a file that it cannot prove to be dead. A file that no snapshot of the catalogue knows may be a leftover
of a crash, or the only copy of data whose catalogue is lost or older than the tree.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from upath import UPath

from lake.errors import CatalogError
from lake.store.storage import Storage, flush, is_local, remove_folder

FOLDER = "quarantine"


@dataclass(frozen=True)
class Held:
    """What was moved aside on a day."""

    day: date
    files: int
    bytes: int


def set_aside(storage: Storage, paths: Iterable[UPath], *, day: date | None = None) -> list[UPath]:
    """Move files of a lake's folder to its quarantine, each at its place below the day's folder.

    Returns
    -------
    list of UPath
        Where they are now.

    Raises
    ------
    CatalogError
        If one cannot be moved; it stays where it is.
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
    """Return the path, or the first of NAME.1, NAME.2, ... that is not taken."""
    taken, number = target, 0
    while taken.exists():
        number += 1
        taken = target.with_name(f"{target.name}.{number}")
    return taken


def held(storage: Storage) -> list[Held]:
    """Return what is in the quarantine, by day."""
    found = []
    for day, folder in _days(storage):
        try:
            sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        except FileNotFoundError:  # maintenance has removed the day meanwhile
            continue
        if sizes:
            found.append(Held(day, len(sizes), sum(sizes)))
    return found


def as_text(one: Held, days: int) -> str:
    """Return what was set aside on a day in a line."""
    until = one.day + timedelta(days=days)
    files = f"{one.files} file{'s' if one.files != 1 else ''}"
    return f"{FOLDER}/{one.day}: {files}, {one.bytes / 1e6:.1f} MB, kept until {until}"


def expire(storage: Storage, days: int, *, today: date | None = None) -> int:
    """Delete what has been in the quarantine for longer than some days; return of how many days that was."""
    oldest = (today or datetime.now(UTC).date()) - timedelta(days=days)
    old = [folder for day, folder in _days(storage) if day < oldest]
    for folder in old:
        remove_folder(folder)
    return len(old)


def _days(storage: Storage) -> list[tuple[date, UPath | Path]]:
    root = storage.root / FOLDER
    folders = sorted(root.iterdir(), key=lambda path: path.name) if root.exists() else []
    # Only what set_aside has made: what else somebody keeps there is theirs.
    named = [folder for folder in folders if re.fullmatch(r"\d{4}-\d\d-\d\d", folder.name.rstrip("/"))]
    return [(date.fromisoformat(folder.name.rstrip("/")), folder) for folder in named]
