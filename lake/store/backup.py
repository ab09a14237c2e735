"""Dated backups of a SQLite catalogue, in the lake's folder backups."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lake.errors import CatalogError, ConfigurationError
from lake.store.location import CatalogLocation
from lake.store.storage import PARTIAL, Storage, is_local, publish, remove

if TYPE_CHECKING:
    from upath import UPath

# The page that helps with errors from here.
HELP_TOPIC = "how-to/backups"

FOLDER = "backups"

_NAME = re.compile(r"catalog-(\d{8}T\d{6}Z)\.sqlite")
_STAMP = "%Y%m%dT%H%M%SZ"

# SQLite's own backup, in a process of its own: a process that has two copies of SQLite, Python's and DuckDB's, loses
# the locks that the one holds on a file when the other closes it (sqlite.org/howtocorrupt.html, section 2.2.1).
_COPY = """
import sqlite3, sys
source, target = sys.argv[1:]
with sqlite3.connect(source, timeout=60) as read, sqlite3.connect(target, timeout=60) as write:
    if read.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        sys.exit("it is damaged")
    read.backup(write)
"""


@dataclass(frozen=True)
class Backup:
    """A backup of a catalogue."""

    path: UPath
    made_at: datetime

    @property
    def name(self) -> str:
        """Return its date and time, which name it."""
        return self.made_at.strftime(_STAMP)


def backups(storage: Storage) -> list[Backup]:
    """Return the backups of a lake's catalogue, the newest first."""
    folder = storage.root / FOLDER
    found = []
    for path in folder.iterdir() if folder.exists() else ():
        if stamp := _NAME.fullmatch(path.name):
            found.append(Backup(path, datetime.strptime(stamp[1], _STAMP).replace(tzinfo=UTC)))
    return sorted(found, key=lambda backup: backup.made_at, reverse=True)


def back_up(location: CatalogLocation, storage: Storage, keep: int) -> Backup | None:
    """Back up a catalogue, and delete all but the newest backups; the caller holds the lock.

    Parameters
    ----------
    location, storage
        The lake.
    keep
        How many backups to keep, including this one.

    Returns
    -------
    Backup or None
        None for PostgreSQL, which has its own tools: see `backup_hint`.

    Raises
    ------
    CatalogError
        If it cannot be read or written.
    """
    if location.kind != "sqlite":
        return None
    now = datetime.now(UTC).replace(microsecond=0)
    folder = storage.root / FOLDER
    backup = Backup(folder / f"catalog-{now.strftime(_STAMP)}.sqlite", now)
    database = Path(location.target)
    try:
        if is_local(backup.path):
            backup.path.parent.mkdir(exist_ok=True)
            partial = backup.path.with_suffix(PARTIAL)
            copy_database(database, partial)
            partial.chmod(database.stat().st_mode & 0o777)
            partial.replace(backup.path)
        else:
            with tempfile.TemporaryDirectory(prefix="lightlake-") as work:
                copy_database(database, Path(work) / "catalog.sqlite")
                publish(Path(work) / "catalog.sqlite", backup.path)
        for old in backups(storage)[keep:]:
            remove(old.path)
    except OSError as error:
        raise CatalogError(
            f"cannot write the backup {backup.path}: {error.strerror or error}",
            hint="free some space, or ask its owner",
        ) from error
    return backup


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite database, including its log, while others may use it; the target is replaced atomically.

    Raises
    ------
    CatalogError
        If the source is damaged, or the target cannot be written.
    """
    command = [sys.executable, "-I", "-c", _COPY, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["it failed"])[-1]
        raise CatalogError(f"cannot copy {source} to {target}: {message}", hint="check that disk")


def find(storage: Storage, date: str | None) -> Backup:
    """Return the newest backup, or the newest of a date: 2026-11-28, 20261128, or with the time.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    every = backups(storage)
    wanted = re.sub(r"[-:]", "", date or "").replace(" ", "T").upper()
    for backup in every:
        if backup.name.startswith(wanted):
            return backup
    if not every:
        raise ConfigurationError(
            f"there is no backup of a catalogue at {storage.root / FOLDER}", hint="each lightlake compact makes one"
        )
    raise ConfigurationError(
        f"there is no backup of {date!r} at {storage.root / FOLDER}",
        hint=f"the backups are: {', '.join(backup.name for backup in every)}",
    )


def backup_hint(location: CatalogLocation) -> str:
    """Return the commands that back up and restore a catalogue in PostgreSQL."""
    schema = location.schema
    return (
        f"back it up with: pg_dump --format=custom --schema={schema} --file=catalog.dump CONNECTION; "
        f"restore it, if {schema} holds only this lake, with: psql CONNECTION -c 'DROP SCHEMA {schema} CASCADE', "
        "pg_restore --dbname=CONNECTION catalog.dump, lightlake restore"
    )
