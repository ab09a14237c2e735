"""Locks that processes on one or many machines share: beside a SQLite catalogue, or inside PostgreSQL.

Either goes away with its process, however that ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import filelock

from lake.errors import ConfigurationError
from lake.storage import remove as remove_file
from lake.table import quoted


@contextmanager
def file_lock(path: Path, timeout_s: float, *, remove: bool = False) -> Iterator[bool]:
    """Hold a lock on a file; yields whether it was to be had in time.

    Parameters
    ----------
    path
        The file; its folder is made.
    timeout_s
        Longest wait; 0: none.
    remove
        Take the file away afterwards. Two that ask for it just then may both get the lock, so this is for locks that
        save work, not for those that guard it.

    Raises
    ------
    ConfigurationError
        If the file cannot be written.
    """
    lock = filelock.FileLock(path, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout_s)
    except filelock.Timeout:
        yield False
        return
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to {path.parent}: {error.strerror}", hint="ask its owner, or use another lake"
        ) from error
    try:
        yield True
    finally:
        if remove:
            remove_file(path)
        lock.release()


@contextmanager
def advisory_lock(
    connection: duckdb.DuckDBPyConnection,
    postgres: str,
    key: str,
    timeout_s: float,
    trouble: Callable[[duckdb.Error], Exception],
) -> Iterator[bool]:
    """Hold an advisory lock of PostgreSQL; yields whether it was to be had in time.

    Parameters
    ----------
    connection
        A connection to DuckDB, with its postgres extension.
    postgres
        Connection string of PostgreSQL.
    key
        Name of the lock.
    timeout_s
        Longest wait; 0: none.
    trouble
        Makes the exception to raise of what else goes wrong.
    """
    # A cursor of its own: the lock lives as long as this transaction in PostgreSQL.
    cursor = connection.cursor()
    try:
        number = f"hashtextextended({quoted(key)}, 0)"
        try:
            cursor.execute(f"ATTACH IF NOT EXISTS {quoted(postgres)} AS locks (TYPE postgres)")
            cursor.execute("BEGIN")
            # postgres_query would ask on a connection of its own, and 0 would stand for no limit.
            limit = f"SET LOCAL lock_timeout = {max(1, int(timeout_s * 1000))}"
            for statement in (limit, f"SELECT pg_advisory_xact_lock({number})"):
                cursor.execute("CALL postgres_execute('locks', ?)", [statement])
            held = True
        except duckdb.Error as error:
            if "lock timeout" not in str(error):
                raise trouble(error) from None
            held = False
        yield held
    finally:
        cursor.close()
