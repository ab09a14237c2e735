"""Create the tables of a lake, and migrate a lake from an older schema."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import duckdb

from lake.errors import CatalogError
from lake.model.declared import all_tables, declarations, declared_tables
from lake.model.schema import SCHEMA_VERSION, TABLES
from lake.model.table import add_statements, comment_statement, create_statements, quoted
from lake.model.views import view_comments, view_statements
from lake.store import fence
from lake.store.location import CatalogLocation
from lake.store.storage import ROW_GROUP_ROWS, Storage

SOFTWARE = f"lightlake {version('lightlake')}"

# Compaction merges the small files of granules into files of this size, and leaves those that have half of it.
TARGET_FILE_BYTES = 256_000_000
MERGED_BELOW_BYTES = TARGET_FILE_BYTES // 2

_WRITING = {
    "parquet_row_group_size": str(ROW_GROUP_ROWS),
    "parquet_compression": "zstd",
    # The bytes of floats are split, as `lake.store.row_groups` does: smaller, and read sooner.
    "parquet_version": "2",
    "target_file_size": f"{TARGET_FILE_BYTES}B",
}

# Small inserts into these tables stay in the catalogue database until compaction. All other rows, and their deletions,
# go to Parquet files at once, which plain readers see.
INLINED_ROWS = 10
KEPT_IN_CATALOGUE = ("ledger", "files", "archives", "bands", "runs", "schema_version")

_TABLES = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake'"

# SQL that migrates a lake to each version from the version before.
MIGRATIONS: dict[int, Sequence[str]] = {
    2: add_statements(TABLES["bands"], "ab_minus_mag", "ab_source"),
    3: [
        *add_statements(
            TABLES["sources"],
            "ra_err",
            "dec_err",
            "parallax",
            "parallax_err",
            "pm_ra_err",
            "pm_dec_err",
            "astfit_chisq",
            "astfit_params",
            "uwe",
            "duplicate",
            "left_out",
        ),
        *add_statements(TABLES["lightcurves"], "x", "y", "sky", "cnf_ctr", "diff_fit_ap", "ext"),
        *add_statements(TABLES["exposures"], "seeing_arcsec", "sky_level", "ellipticity"),
    ],
    4: (),  # a table of a source: every migration creates missing ones
    5: (),  # only views: every migration makes them anew
    6: add_statements(TABLES["ledger"], "n_found", "retries", "requests"),
    7: [*add_statements(TABLES["labels"], "added_at", "name"), *add_statements(TABLES["schema_version"], "lake_id")],
    8: [*add_statements(TABLES["lightcurves"], "cadence_s"), *add_statements(TABLES["schema_version"], "declared")],
    9: add_statements(TABLES["ledger"], "run_id"),  # and tables: every migration creates missing ones
}


def schema_version(cursor: duckdb.DuckDBPyConnection) -> tuple[int | None, str | None]:
    """Return the schema's version (None without tables, 0 if creating them was cut short), and the lake's id."""
    # Without the time: pyarrow imports pandas to convert it. Versions before 7 have no lake_id.
    query = "SELECT * EXCLUDE (applied_at) FROM lake.main.schema_version ORDER BY version DESC, applied_at DESC LIMIT 1"
    try:  # listing all tables and views would take longer than all else of opening a lake
        newest = cursor.execute(query).to_arrow_table().to_pylist()
    except duckdb.CatalogException:
        if _has_table(cursor, "schema_version"):
            raise
        return None, None
    return (int(newest[0]["version"]), newest[0].get("lake_id")) if newest else (0, None)


def check_not_newer(found: int, location: CatalogLocation) -> None:
    """Raise CatalogError if a catalogue has a newer version than this software."""
    if found > SCHEMA_VERSION:
        raise CatalogError(
            f"the catalogue {location} has schema version {found}, newer than this software's {SCHEMA_VERSION}",
            hint="upgrade with: pip install --upgrade lightlake",
        )


def check_current(found: int, location: CatalogLocation, storage: Storage) -> None:
    """Raise CatalogError if a lake has another version than this software."""
    check_not_newer(found, location)
    if found < SCHEMA_VERSION:
        raise CatalogError(
            f"the lake at {storage.root} has schema version {found}, this software has {SCHEMA_VERSION}",
            hint=f"migrate it with: lightlake init {storage.root}",
        )


def _has_table(cursor: duckdb.DuckDBPyConnection, name: str) -> bool:
    # As a literal: for parameters DuckDB imports pandas.
    return bool(cursor.execute(f"SELECT count(*) FROM ({_TABLES} AND table_name = {quoted(name)})").fetchall()[0][0])


def set_writing(cursor: duckdb.DuckDBPyConnection) -> None:
    """Tell DuckLake how to write files, in a lake of an earlier version, too; the caller holds the lock."""
    known = dict(
        cursor.execute("SELECT option_name, value FROM ducklake_options('lake') WHERE scope = 'GLOBAL'").fetchall()
    )
    for option, value in _WRITING.items():
        if str(known.get(option)).removeprefix("V") != value.removesuffix("B"):  # as DuckLake says them
            cursor.execute(f"CALL ducklake_set_option('lake', '{option}', '{value}')")


def make_tables(cursor: duckdb.DuckDBPyConnection, found: int | None) -> None:
    """Create the tables of a new lake; `found` is None, or 0 if that was begun before and all tables are there.

    DuckLake makes the room for small inserts with the table, if it is told of them before. Otherwise the first insert
    makes it, which changes the schema, and then every connection loads the whole schema again. All other tables are in
    the first snapshot.
    """
    if found is None:
        set_writing(cursor)
        _keep_rows(cursor, 0)
        _create(cursor, [name for name in TABLES if name not in KEPT_IN_CATALOGUE])
        _keep_rows(cursor, INLINED_ROWS)
        _create(cursor, KEPT_IN_CATALOGUE)
    _keep_rows(cursor, 0)
    _keep_in_catalogue(cursor)


def _create(cursor: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    held = {name for (name,) in cursor.execute(_TABLES).fetchall()}
    cursor.execute("BEGIN")
    for name in names:
        for statement in create_statements(TABLES[name]) if name not in held else ():
            cursor.execute(statement)
    cursor.execute("COMMIT")


def _keep_rows(cursor: duckdb.DuckDBPyConnection, limit: int) -> None:
    cursor.execute(f"CALL ducklake_set_option('lake', 'data_inlining_row_limit', {limit})")


def _keep_in_catalogue(cursor: duckdb.DuckDBPyConnection) -> None:
    for name in KEPT_IN_CATALOGUE:  # the options of a table cannot be set in the transaction that makes it
        cursor.execute(
            f"CALL ducklake_set_option('lake', 'data_inlining_row_limit', {INLINED_ROWS}, table_name => '{name}')"
        )


def migrate(cursor: duckdb.DuckDBPyConnection, found: int, lake_id: str | None, number: int) -> None:
    """Migrate a lake from a version of the schema to this one, with all views, in one signed transaction."""
    if found < SCHEMA_VERSION:
        _make_kept(cursor, number)
    cursor.execute("BEGIN")
    fence.sign(cursor, number, uuid.uuid4().hex)
    for step in range(found + 1, SCHEMA_VERSION + 1):
        for statement in MIGRATIONS[step]:
            cursor.execute(statement)
    views = (*view_statements(declarations()), *view_comments(declarations()))
    for statement in (*_missing(cursor), *_comments(cursor), *views):
        cursor.execute(statement)
    own_id = "NULL" if lake_id is None else quoted(lake_id)
    cursor.execute(
        f"INSERT INTO schema_version BY NAME SELECT {SCHEMA_VERSION} AS version, {quoted(SOFTWARE)} AS software, "
        f"'{datetime.now(UTC).isoformat()}'::TIMESTAMPTZ AS applied_at, {own_id} AS lake_id, "
        f"{quoted(declared_checksum())} AS declared"
    )
    cursor.execute("COMMIT")


def _make_kept(cursor: duckdb.DuckDBPyConnection, number: int) -> None:
    """Create the tables whose small inserts stay in the catalogue; a migration that is stopped does it again."""
    held = {name for (name,) in cursor.execute(_TABLES).fetchall()}
    cursor.execute("BEGIN")
    fence.sign(cursor, number, uuid.uuid4().hex)
    for name in KEPT_IN_CATALOGUE:
        if name not in held:
            for statement in create_statements(TABLES[name]):
                cursor.execute(statement)
    cursor.execute("COMMIT")
    _keep_in_catalogue(cursor)


def declared_checksum() -> str:
    """Return a checksum of all views, and of the tables that sources declare."""
    tables = [statement for table in declared_tables().values() for statement in create_statements(table)]
    text = "\n".join([*view_statements(declarations()), *view_comments(declarations()), *tables])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def has_declared(cursor: duckdb.DuckDBPyConnection) -> bool:
    """Say whether a lake of this schema version has the views and tables that sources declare now."""
    query = "SELECT declared FROM schema_version ORDER BY version DESC, applied_at DESC LIMIT 1"
    return bool(cursor.execute(query).fetchall() == [(declared_checksum(),)])


def _missing(cursor: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Yield the SQL that creates missing tables, and missing columns of tables that are or were declared by sources."""
    query = "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = 'lake'"
    held = set(cursor.execute(query).fetchall())
    names = {table for table, _ in held}
    for table in all_tables().values():
        if table.name not in names:
            yield from create_statements(table)
        else:
            yield from add_statements(table, *(name for name in table.names if (table.name, name) not in held))


def _comments(cursor: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the SQL that updates the comments of columns."""
    held = cursor.execute(
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE database_name = 'lake'"
    ).fetchall()
    said = {(table, column): comment for table, column, comment in held}
    return [
        comment_statement(table, column)
        for table in all_tables().values()
        for column in table.columns
        if said.get((table.name, column.name)) != column.comment
    ]
