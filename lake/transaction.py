"""Files of the tree and rows of the catalogue, changed together; and what a crash in between leaves, taken back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import duckdb
from upath import UPath

from lake.catalog import Catalog
from lake.schema import TABLES
from lake.storage import PARTIAL, Storage, checksum, parquet_rows, publish, remove, write_text

PUBLISHING = "publishing"


def transact(
    cursor: duckdb.DuckDBPyConnection,
    storage: Storage,
    moves: Mapping[str, tuple[UPath, UPath]],
    change: Callable[[], None],
    checksums: Mapping[UPath, str] | None = None,
) -> None:
    """Show staged files in the tree and make them, and a change, part of the catalogue; end the transaction.

    Parameters
    ----------
    cursor
        Connection to the lake, in a transaction; the caller holds the catalogue's lock.
    moves
        Staged and final path, by table.
    change
        What else the transaction does, before the files are added.
    checksums
        Those of staged files that the caller has just verified: on a disk the file in the tree is the same file.
    """
    verified = checksums if checksums and storage.is_local else {}
    intent = write_intent(storage, [final for _, final in moves.values()])
    try:
        for staged, final in moves.values():
            publish(staged, final)
        change()
        for table, (_, final) in moves.items():
            add_file(cursor, table, final)
        known = {final: verified[staged] for staged, final in moves.values() if staged in verified}
        record_files(cursor, storage, [(table, final) for table, (_, final) in moves.items()], known)
    except BaseException:
        _rollback(cursor)
        for _, final in moves.values():
            remove(final)
        remove(intent)
        raise
    try:
        cursor.execute("COMMIT")
    except BaseException:
        # A connection that is lost now may have lost only the answer. So the files stay, and so does the
        # intent: whoever writes next sees in the catalogue which it was.
        _rollback(cursor)
        raise
    remove(intent)


def _rollback(cursor: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.Error):  # the transaction may be over; what made it fail is what matters
        cursor.execute("ROLLBACK")


def add_file(cursor: duckdb.DuckDBPyConnection, table: str, final: UPath) -> None:
    """Register a file of the tree, inside the caller's transaction."""
    cursor.execute(
        "CALL ducklake_add_data_files('lake', ?, ?, hive_partitioning => ?)",
        [table, str(final), TABLES[table].partition is not None],
    )


def record_files(
    cursor: duckdb.DuckDBPyConnection,
    storage: Storage,
    files: Iterable[tuple[str, UPath]],
    known: Mapping[UPath, str] | None = None,
) -> None:
    """Note path, rows, bytes and checksum of files, by table, that a transaction brings in; some sums are known."""
    values: list[object] = []
    for table, path in files:
        content = (known or {}).get(path) or checksum(path)
        values += [storage.relative(path), table, parquet_rows(path), path.stat().st_size, content]
    if values:
        marks = ", ".join("(?, ?, ?, ?, ?)" for _ in range(len(values) // 5))
        cursor.execute(f"INSERT INTO files VALUES {marks}", values)


def write_intent(storage: Storage, finals: Iterable[UPath]) -> UPath:
    """Note, safely on disk, which files are about to appear in the tree."""
    path = storage.staging / PUBLISHING / f"{uuid.uuid4().hex}.json"
    write_text(path, json.dumps([storage.relative(final) for final in finals]))
    return path


def recover(catalog: Catalog) -> list[UPath]:
    """Take out of the tree what a crashed commit put there but did not register.

    The caller holds the lock, so no commit that is still alive can be met here.

    Returns
    -------
    list of UPath
        The files removed.
    """
    removed = []
    tree = catalog.storage.data / "main"
    for intent in (catalog.storage.staging / PUBLISHING).glob("*.json"):
        names = set(json.loads(intent.read_text()))
        cursor = catalog.cursor()
        marks = ", ".join("?" * len(names)) or "NULL"
        live = cursor.execute(f"SELECT path FROM files WHERE path IN ({marks})", list(names)).fetchall()
        cursor.close()
        for name in names - {row[0] for row in live}:
            remove(tree / name)
            remove((tree / name).with_suffix(PARTIAL))
            removed.append(tree / name)
        # DuckLake writes files of its own for a DELETE or a compaction.
        removed += remove_unknown(catalog)
        remove(intent)
    return removed


def remove_unknown(catalog: Catalog) -> list[UPath]:
    """Take out of the tree all files that no snapshot of the catalogue knows; the caller holds the lock."""
    cursor = catalog.cursor()
    known = catalog.known_files(cursor)
    cursor.close()
    removed = [path for table in TABLES for path in catalog.storage.table_files(table) if path.name not in known]
    for path in removed:
        remove(path)
    return removed
