"""Complete DuckLake's statistics of files, by which it skips files in a query, and of tables, which it plans with.

DuckLake uses the range of a float column only if its catalogue says that the file has no NaN, and says nothing for
files that were registered rather than written by it (duckdb/ducklake, issue 1442). No file of a lake has NaN:
`lake.model.table` converts NaN to NULL, and `lake.commit.validate` rejects values that are not finite.

Of a table that never had a row, DuckLake has no statistics, and each query of it searches them again for each column,
which takes a millisecond each. So such tables get those of no rows.
"""

from __future__ import annotations

import duckdb

from lake.model.table import quoted
from lake.store.connection import rollback

METADATA = "__ducklake_metadata_lake"

# More rows (files times columns) than any commit adds. A commit's rows are the last ones of the table.
_NEWEST_ROWS = 100_000


def note_no_nan(cursor: duckdb.DuckDBPyConnection, kind: str, schema: str, *, newest: bool = True) -> None:
    """Record in the catalogue that the lake's registered files have no NaN.

    Parameters
    ----------
    cursor
        Connection to the lake, not in a transaction; the caller holds the catalogue's lock. If newest, one outside of
        the lake will do.
    kind, schema
        The catalogue's database, sqlite or postgres, and its schema.
    newest
        Only for files of the newest snapshot; otherwise for all in table files.
    """
    if newest:
        snapshot = f'(SELECT max(snapshot_id) FROM "{schema}".ducklake_snapshot)'
        files = f'(SELECT data_file_id FROM "{schema}".ducklake_data_file WHERE begin_snapshot = {snapshot})'
    else:
        known = cursor.execute(
            f'SELECT data_file_id FROM {METADATA}."{schema}".ducklake_data_file AS file '
            f'JOIN {METADATA}."{schema}".ducklake_table AS held USING (table_id) '
            "JOIN files ON files.path = concat(held.path, file.path)"
        ).fetchall()
        files = f"({', '.join(str(row[0]) for row in known) or 'NULL'})"
    statistics = f'"{schema}".ducklake_file_column_stats'
    floats = (
        f"(SELECT table_id, column_id FROM \"{schema}\".ducklake_column WHERE column_type IN ('float32', 'float64'))"
    )
    where = f"WHERE contains_nan IS NULL AND (table_id, column_id) IN {floats} AND data_file_id IN {files}"
    if kind == "sqlite":
        # There is no index, so take the last rows by rowid: fast whatever the size of the table.
        where += f" AND rowid > (SELECT max(rowid) FROM {statistics}) - {_NEWEST_ROWS}" if newest else ""
        update = f"UPDATE {statistics} SET contains_nan = 0 {where} RETURNING 1"
        cursor.execute(f"FROM sqlite_query('{METADATA}', {quoted(update)})").fetchall()
        return
    update = f"UPDATE {statistics} SET contains_nan = false {where}"
    cursor.execute(f"CALL postgres_execute('{METADATA}', {quoted(update)})")


def index_statistics(cursor: duckdb.DuckDBPyConnection, kind: str, schema: str) -> None:
    """Create indexes in PostgreSQL for DuckLake's search of its statistics (duckdb/ducklake, issue 1147).

    DuckDB scans SQLite without indexes.
    """
    if kind != "postgres":
        return
    there = cursor.execute(
        f"SELECT indexname FROM postgres_query('{METADATA}', ?)",
        [f"SELECT indexname::text FROM pg_indexes WHERE schemaname = {quoted(schema)}"],
    ).fetchall()
    for name, columns in (("by_column", "table_id, column_id"), ("by_file", "data_file_id")):
        if (f"lightlake_statistics_{name}",) in there:  # CREATE INDEX IF NOT EXISTS needs the owner even then
            continue
        index = f"CREATE INDEX IF NOT EXISTS lightlake_statistics_{name}"
        index += f' ON "{schema}".ducklake_file_column_stats ({columns})'
        cursor.execute(f"CALL postgres_execute('{METADATA}', {quoted(index)})")


def begin_statistics(cursor: duckdb.DuckDBPyConnection, kind: str, schema: str) -> None:
    """Give the tables that never had a row the statistics of no rows; DuckLake merges those of later rows into them.

    Parameters
    ----------
    cursor
        Connection beside the lake, not in a transaction; the caller holds the catalogue's lock.
    kind, schema
        The catalogue's database, sqlite or postgres, and its schema.
    """
    never = f'end_snapshot IS NULL AND table_id NOT IN (SELECT table_id FROM "{schema}".ducklake_table_stats)'
    of_columns = (
        f'INSERT INTO "{schema}".ducklake_table_column_stats (table_id, column_id, contains_null, contains_nan) '
        "SELECT table_id, column_id, false, CASE WHEN column_type IN ('float32', 'float64') THEN false END "
        f'FROM "{schema}".ducklake_column WHERE {never}'
    )
    of_tables = (
        f'INSERT INTO "{schema}".ducklake_table_stats (table_id, record_count, next_row_id, file_size_bytes) '
        f'SELECT table_id, 0, 0, 0 FROM "{schema}".ducklake_table WHERE {never}'
    )
    cursor.execute("BEGIN")
    try:
        for insert in (of_columns, of_tables):
            if kind == "sqlite":
                cursor.execute(f"FROM sqlite_query('{METADATA}', {quoted(f'{insert} RETURNING 1')})").fetchall()
            else:
                cursor.execute(f"CALL postgres_execute('{METADATA}', {quoted(insert)})")
        cursor.execute("COMMIT")
    finally:
        rollback(cursor)
