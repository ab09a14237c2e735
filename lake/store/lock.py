"""Locks that processes on one or many machines share: beside a SQLite catalogue, or inside PostgreSQL.

Either goes away with its process, however that ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import duckdb

from lake.errors import ConfigurationError, Interrupted
from lake.model.table import quoted
from lake.retry import retried
from lake.store.connection import rollback
from lake.store.storage import remove as remove_file

T = TypeVar("T")

# By default the server would let a machine that is gone hold a lock for two hours.
_KEEPALIVES = (
    "SET LOCAL tcp_keepalives_idle = 30",
    "SET LOCAL tcp_keepalives_interval = 10",
    "SET LOCAL tcp_keepalives_count = 3",
)


# A database that is restarted is back within a minute or two.
_AWAY_FOR_S = 120.0


def until_back(work: Callable[[], T], longest_s: float, between: Callable[[], object] = lambda: None) -> T:
    """Do a piece of work, and retry it while it is interrupted.

    Parameters
    ----------
    work
        Raises Interrupted if its connection or its lock is lost, and can be done again then.
    longest_s
        For how long after the first time, at most; a database that is away for two minutes is waited for no longer.
    between
        Done before each new try; it may be interrupted, too.
    """

    def pause(seconds: float) -> None:
        time.sleep(seconds)
        with suppress(Interrupted):  # the next try finds out
            between()

    return retried(
        work,
        lambda error: isinstance(error, Interrupted),
        first_pause_s=0.1,
        longest_pause_s=5.0,
        within_s=min(longest_s, _AWAY_FOR_S),
        sleep=pause,
    )


@contextmanager
def file_lock(path: Path, timeout_s: float, *, remove: bool = False) -> Iterator[bool]:
    """Hold a lock on a file; yield whether it was free in time.

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
    import filelock  # which readers do without

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
    """Hold an advisory lock of PostgreSQL; yield whether it was free in time.

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
            for statement in (limit, *_KEEPALIVES, f"SELECT pg_advisory_xact_lock({number})"):
                cursor.execute("CALL postgres_execute('locks', ?)", [statement])
            held = True
        except duckdb.Error as error:
            if "lock timeout" not in str(error):
                raise trouble(error) from None
            held = False
        yield held
    finally:
        rollback(cursor)
        cursor.close()
