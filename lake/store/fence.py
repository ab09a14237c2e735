"""The fence: a number that the catalogue hands out with its lock, and that it compares at every COMMIT.

A lock can be lost silently: an administrator or a firewall ends its session, or a network file system forgets it. Then
two writers believe that they hold it. So a writer takes a new number with the lock, and signs its transactions with it.
A trigger on the table where DuckLake records every change refuses a transaction whose number is not the newest. A
writer that has taken a number knows that no earlier writer can commit any more.

Numbers follow the database's clock, so that they also grow after a backup of the catalogue was restored.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import duckdb

from lake.errors import CatalogError
from lake.model.table import quoted
from lake.store.location import CatalogLocation
from lake.store.pruning import METADATA

# The page that helps with errors from here.
HELP_TOPIC = "how-to/postgresql"

_NAME = "lightlake_fence"
_TRIGGER = f"{_NAME}_at_commit"  # DuckDB would take a trigger with the table's name for the table
_AUTHOR = "lightlake"

_SQLITE = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS {_NAME} (number INTEGER NOT NULL);
INSERT INTO {_NAME} SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM {_NAME});
CREATE TRIGGER IF NOT EXISTS {_TRIGGER} BEFORE INSERT ON ducklake_snapshot_changes
WHEN NEW.commit_extra_info LIKE 'fence %' BEGIN
    SELECT RAISE(ABORT, '{_NAME}: overtaken') WHERE NOT EXISTS
        (SELECT 1 FROM {_NAME} WHERE NEW.commit_extra_info LIKE 'fence ' || number || ' %');
END;
COMMIT;
"""

# The trigger's FOR SHARE lasts until its transaction ends, and the next owner's UPDATE waits for that end.
_POSTGRES = f"""
CREATE TABLE IF NOT EXISTS {{schema}}.{_NAME} (number BIGINT NOT NULL);
INSERT INTO {{schema}}.{_NAME} SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM {{schema}}.{_NAME});
CREATE OR REPLACE FUNCTION {{schema}}.{_NAME}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.commit_extra_info LIKE 'fence %' THEN
        PERFORM 1 FROM {{schema}}.{_NAME} WHERE NEW.commit_extra_info LIKE 'fence ' || number || ' %' FOR SHARE;
        IF NOT FOUND THEN RAISE EXCEPTION '{_NAME}: overtaken'; END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE FUNCTION {{schema}}.{_NAME}(waiting TEXT, overtake BOOLEAN) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE newest BIGINT;
BEGIN
    PERFORM set_config('lock_timeout', waiting, true);
    UPDATE {{schema}}.{_NAME} SET number = CASE WHEN overtake
        THEN greatest(number + 1, (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT) ELSE number END
    RETURNING number INTO newest;
    RETURN newest;
END $$;
DROP TRIGGER IF EXISTS {_TRIGGER} ON {{schema}}.ducklake_snapshot_changes;
CREATE TRIGGER {_TRIGGER} BEFORE INSERT ON {{schema}}.ducklake_snapshot_changes
FOR EACH ROW EXECUTE FUNCTION {{schema}}.{_NAME}();
"""


def is_built(cursor: duckdb.DuckDBPyConnection, location: CatalogLocation) -> bool:
    """Say whether a catalogue has its fence."""
    if location.kind == "sqlite":
        query = f"SELECT count(*) AS found FROM sqlite_master WHERE name IN ('{_NAME}', '{_TRIGGER}')"
    else:
        schema = quoted(location.schema)
        query = (
            f"SELECT (SELECT count(*) FROM pg_tables WHERE schemaname = {schema} AND tablename = '{_NAME}') + "
            "(SELECT count(*) FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid JOIN pg_namespace "
            f"ON pg_namespace.oid = relnamespace WHERE tgname = '{_TRIGGER}' AND nspname = {schema}) AS found"
        )
    found = cursor.execute(f"FROM {location.kind}_query('{METADATA}', {quoted(query)})").fetchall()
    return int(found[0][0]) == len((_NAME, _TRIGGER))


def build(location: CatalogLocation, connect: Callable[[], duckdb.DuckDBPyConnection]) -> None:
    """Build the fence in a catalogue. The caller holds the lock, and has not attached the catalogue.

    DuckDB cannot create triggers in SQLite, so Python's SQLite does. Of two copies of SQLite in one process, one loses
    its locks when the other closes the file (sqlite.org/howtocorrupt.html, section 2.2.1).

    Parameters
    ----------
    location
        The catalogue.
    connect
        Opens a DuckDB that can reach PostgreSQL.

    Raises
    ------
    CatalogError
        If the database refuses.
    """
    if location.kind == "sqlite":
        try:
            with closing(sqlite3.connect(location.target, timeout=60)) as connection:
                connection.executescript(_SQLITE)
        except sqlite3.Error as error:
            raise CatalogError(f"cannot write the catalogue {location}: {error}", hint="ask its owner") from error
        return
    with closing(connect().cursor()) as cursor:
        cursor.execute(f"ATTACH IF NOT EXISTS {quoted(location.connection)} AS builder (TYPE postgres)")
        cursor.execute("CALL postgres_execute('builder', ?)", [_POSTGRES.format(schema=f'"{location.schema}"')])


def take(cursor: duckdb.DuckDBPyConnection, location: CatalogLocation, timeout_s: float) -> int:
    """Take the newest number. From now on no earlier writer can commit, and none is committing.

    Parameters
    ----------
    cursor
        Connection beside the lake, not in a transaction; the caller has just taken the catalogue's lock.
    location
        The catalogue.
    timeout_s
        Longest wait for a transaction that is committing.
    """
    if location.kind == "sqlite":
        clock = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"  # of 1970 the Julian day, and milliseconds
        query = f"UPDATE {_NAME} SET number = max(number + 1, {clock}) RETURNING number"
        return int(cursor.execute(f"FROM sqlite_query('{METADATA}', {quoted(query)})").fetchall()[0][0])
    return _settled(cursor, location, timeout_s, overtake=True)


def newest(cursor: duckdb.DuckDBPyConnection, location: CatalogLocation) -> int:
    """Return the newest number."""
    query = f'SELECT number FROM {METADATA}."{location.schema}".{_NAME}'
    return int(cursor.execute(query).fetchall()[0][0])


def _settled(cursor: duckdb.DuckDBPyConnection, location: CatalogLocation, timeout_s: float, *, overtake: bool) -> int:
    waiting = max(1, int(timeout_s * 1000))
    query = f"SELECT \"{location.schema}\".{_NAME}('{waiting}', {overtake}) AS number"
    return int(cursor.execute(f"FROM postgres_query('{METADATA}', {quoted(query)})").fetchall()[0][0])


def sign(cursor: duckdb.DuckDBPyConnection, number: int, change: str) -> None:
    """Sign a cursor's transaction with a number, and with the id of the change."""
    about = quoted(f"fence {number} change {change}")
    cursor.execute(f"CALL lake.set_commit_message({quoted(_AUTHOR)}, NULL, extra_info => {about})")


def has(cursor: duckdb.DuckDBPyConnection, location: CatalogLocation, change: str, timeout_s: float) -> bool:
    """Say whether a transaction is in the catalogue, after waiting for one that is committing.

    Parameters
    ----------
    cursor
        A new connection to the lake, not in a transaction.
    location
        The catalogue.
    change
        Id of the transaction.
    timeout_s
        Longest wait for a transaction that is committing.
    """
    if location.kind == "postgres":
        _settled(cursor, location, timeout_s, overtake=False)
    query = (
        f'SELECT count(*) FROM {METADATA}."{location.schema}".ducklake_snapshot_changes '
        "WHERE commit_extra_info LIKE concat('fence % change ', ?::VARCHAR)"
    )
    return bool(cursor.execute(query, [change]).fetchall()[0][0])


def is_overtaken(error: Exception) -> bool:
    """Say whether the fence refused a transaction."""
    return f"{_NAME}: overtaken" in str(error)
