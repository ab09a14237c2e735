"""Open a DuckDB for a lake, with extensions from their wheels; and copy a catalogue for reading."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING
from urllib.parse import quote

import duckdb

from lake.errors import ConfigurationError
from lake.model.table import quoted
from lake.model.views import SEPARATION
from lake.settings import Settings
from lake.store.access import may
from lake.store.s3 import s3_secret
from lake.store.storage import Storage, is_local

if TYPE_CHECKING:
    from upath import UPath

# Otherwise DuckDB reads each table of the catalogue through its own SQLite connection. A query during a commit then
# sees two states, with replaced rows twice. It is also slower.
CONSISTENT_SCANS = "SET GLOBAL sqlite_disable_multithreaded_scans = true"


# Nothing is downloaded. The name of a missing table is an error, even where a Python variable is called so.
# Signatures of the extensions from the wheels are not checked: they are installed beside DuckDB and Python's own
# libraries, whose signatures nobody checks either, and the hashes of their 70 MB take a quarter of a second each time.
# `lightlake doctor` checks them.
CONFIG: dict[str, bool] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_unsigned_extensions": True,
    "python_enable_replacements": False,
}


def connect(settings: Settings, storage: Storage, kind: str) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB with the extensions from their wheels; nothing is downloaded, and no query loads unsigned ones."""
    config: dict[str, str | bool | int | float | list[str]] = {
        **CONFIG,
        "temp_directory": str(_spill(storage.staging) / f"duckdb-{os.getpid()}"),
    }
    if settings.duckdb_memory:
        config["memory_limit"] = settings.duckdb_memory
    if settings.duckdb_threads:
        config["threads"] = settings.duckdb_threads
    connection = duckdb.connect(config=config)
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    # Files of a lake never change, so their footers, large because of small row groups, are read once.
    connection.execute("SET GLOBAL parquet_metadata_cache = true")
    for name in ("ducklake", f"{kind}_scanner", *(() if storage.is_local else ("httpfs",))):
        connection.execute(f"LOAD {quoted(str(extension_file(name)))}")
    connection.execute("SET GLOBAL allow_unsigned_extensions = false")  # DuckDB lets nobody set it back
    if not storage.is_local:
        connection.execute(s3_secret(storage))
    if kind == "sqlite":
        connection.execute(CONSISTENT_SCANS)
    return connection


class Outside:
    """A connection for each thread, whose default database is not the lake."""

    def __init__(self) -> None:
        self._own = threading.local()

    def of(self, instance: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        """Return this thread's connection to a DuckDB; it can compute separations as the lake does."""
        kept = getattr(self._own, "kept", None)
        if kept is None or kept[0] is not instance:
            cursor = instance.cursor()
            cursor.execute(SEPARATION.replace("OR REPLACE", "OR REPLACE TEMP"))
            kept = self._own.kept = instance, cursor
        return kept[1]


class Idle:
    """Connections to the lake in one DuckDB that nobody uses now: to open one takes as long as a small query."""

    def __init__(self) -> None:
        self._idle: list[duckdb.DuckDBPyConnection] = []

    @contextmanager
    def lend(self, new: Callable[[], duckdb.DuckDBPyConnection]) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend one, or a new one. After an error it is closed.

        It is to come back at rest: not in a transaction, and without tables or settings of its own.
        """
        try:
            cursor = self._idle.pop()
        except IndexError:
            cursor = new()
        try:
            yield cursor
        except BaseException:
            cursor.close()
            raise
        self._idle.append(cursor)

    def closed(self) -> Idle:
        """Close all; return what takes their place. Those that come back later go with the last user of this."""
        while self._idle:
            self._idle.pop().close()
        return Idle()


def rollback(cursor: duckdb.DuckDBPyConnection) -> bool:
    """Roll back a failed transaction, if there is one; return whether that worked.

    Call it before closing a connection. If its database is gone, closing it within a transaction ends the process.
    """
    try:
        cursor.interrupt()  # or a query that a signal ended would be waited for
        cursor.execute("ROLLBACK")
    except duckdb.Error:  # the transaction may be over; its own error matters more
        return False
    return True


@contextmanager
def ended_by_signals(cursor: duckdb.DuckDBPyConnection | None = None) -> Iterator[None]:
    """Let a signal end what it interrupts, as it does everywhere else in Python.

    DuckDB raises a RuntimeError in place of what the signal's handler raised (KeyboardInterrupt, SystemExit), and a
    pool's threads go on with the query until the cursor is interrupted.
    """
    try:
        yield
    except RuntimeError as error:
        if cursor is not None:
            cursor.interrupt()
        if error.__cause__ is None or isinstance(error.__cause__, Exception):
            raise
        raise error.__cause__ from None


def _spill(staging: UPath) -> Path:
    """Return the folder to spill memory to: the lake's own, whose disk is large, or that of TMPDIR."""
    return staging if is_local(staging) and may(staging, os.W_OK | os.X_OK) else Path(gettempdir())


def extension_file(name: str) -> Path:
    """Return the path of a DuckDB extension inside its wheel.

    Raises
    ------
    ConfigurationError
        If the wheel is not installed for this version of DuckDB.
    """
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    for folder in spec.submodule_search_locations or () if spec else ():
        for file in Path(folder).glob(f"extensions/v{duckdb.__version__}/*.duckdb_extension"):
            return file
    raise ConfigurationError(
        f"the DuckDB extension {name} for DuckDB {duckdb.__version__} is not installed",
        hint=f"pip install duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}",
    )


def copy_catalogue(path: Path, folder: Path) -> Path:
    """Copy a SQLite catalogue for a user without permission to write, since reading its write-ahead log writes.

    Such a reader sees the lake as it was when opened. Unlike a backup, the copy is made in this process: this user
    holds no lock on the catalogue that Python's SQLite could lose, and may be unable to start another Python.
    """
    copy = folder / path.name
    # Without a log beside it, the file is complete.
    at_rest = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    with (
        closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro{at_rest}", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    return copy
