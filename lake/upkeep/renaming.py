"""Give the rows of an archive that has another name now that name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from functools import partial

import duckdb

from lake.commit.transaction import Change, write
from lake.model.declared import all_tables, declarations, source_tables
from lake.model.schema import TABLES
from lake.model.table import Table, quoted
from lake.store.catalog import Catalog
from lake.upkeep.compaction import compact, note_files, refuse_damaged


def _naming() -> list[Table]:
    """Return the tables whose rows name an archive."""
    return [table for table in all_tables().values() if "archive" in table.names]


def rename_archives(catalog: Catalog) -> list[str]:
    """Rename the archives of a lake that have another name in this version, and compact the lake if there are any.

    All rows of an archive change in one transaction. A lake without former names is left as it is.

    Returns
    -------
    list of str
        A line for each archive that was renamed.

    Raises
    ------
    CatalogError
        If the catalogue cannot be locked or written, or a file is not the one that was committed.
    """
    lines, has_old_files = [], False
    for one in declarations():
        for former, changes in one.former_names.items():
            if _is_held(catalog, former):
                write(catalog, partial(_rename, catalog, former=former, archive=one.archive, changes=changes))
                lines.append(f"the archive {former} is now called {one.archive}: its rows have the new name")
            has_old_files |= _has_files(catalog, former)
    if has_old_files:  # else plain readers would see these rows twice; a rename that was killed may have left them, too
        compact(catalog)
    return lines


def _is_held(catalog: Catalog, archive: str) -> bool:
    with closing(catalog.cursor()) as cursor:
        return any(_has(cursor, table, archive) for table in _naming())


def _has_files(catalog: Catalog, archive: str) -> bool:
    folders = (catalog.storage.table_folder(table.name, archive) for table in _naming() if table.partition)
    return any(next(folder.glob("*.parquet"), None) is not None for folder in folders if folder.exists())


def _has(cursor: duckdb.DuckDBPyConnection, table: Table, archive: str) -> bool:
    return bool(cursor.execute(f"SELECT 1 FROM {table.name} WHERE archive = ? LIMIT 1", [archive]).fetchall())


def _rename(
    catalog: Catalog, number: int, *, former: str, archive: str, changes: Mapping[str, Mapping[str, str]]
) -> None:
    with closing(catalog.cursor()) as cursor:
        refuse_damaged(cursor, catalog, archive=former)
    with Change(catalog, number, rewrites=True) as change:
        for table in _naming():
            # A table at a time, whole files: what is inserted is sorted, and no delete file stays behind.
            values = {**changes.get(table.name, {}), "archive": quoted(archive)}
            new = ", ".join(f"{value} AS {name}" for name, value in values.items())
            where = f"archive = {quoted(former)}{_unless_held(change.cursor, table, archive)}"
            change.cursor.execute(
                f"INSERT INTO {table.name} BY NAME SELECT * REPLACE ({new}) FROM {table.name} AS held WHERE {where} "
                f"ORDER BY {', '.join(table.sort or table.key)}"
            )
            change.cursor.execute(f"DELETE FROM {table.name} WHERE archive = ?", [former])
        note_files(change.cursor, catalog)
        change.keep_aside(table.name for table in (*_naming(), TABLES["files"]))


def _unless_held(cursor: duckdb.DuckDBPyConnection, table: Table, archive: str) -> str:
    """Return the condition that leaves out rows which the new name has already: those are newer."""
    if not _has(cursor, table, archive):
        return ""
    key = ("archive", "release", "source_id") if table.name in source_tables() else table.key
    same = " AND ".join(f"mine.{name} = held.{name}" for name in key if name != "archive")
    return (
        f" AND NOT EXISTS (FROM {table.name} AS mine WHERE mine.archive = {quoted(archive)}{same and ' AND ' + same})"
    )
