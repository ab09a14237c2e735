"""Find the files that hold rows of some keys, and read them directly: faster than a query by way of DuckLake.

DuckLake searches the statistics of all files for each table of each query. Here the ranges of the keys are read once
for each snapshot, and kept. A table whose rows are not just those of its files is left to DuckLake.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.model.table import quoted
from lake.store.arrays import repeated
from lake.store.location import CatalogLocation
from lake.store.lookup import Footers, Ranges, read_rows
from lake.store.pruning import METADATA
from lake.store.storage import Storage

# Tables that can be listed, and the key that selects files.
LISTED = {"targets": "target_id", "matches": "target_id", "sources": "hpx29", "lightcurves": "hpx29"}

# Tables whose files are all read, for the names of targets.
OF_NAMES = ("targets", "labels", "aliases")
_KEYS = {**LISTED, **dict.fromkeys(OF_NAMES, "target_id")}

# DuckLake's names of the types of columns, in SQL, and in Arrow.
_TYPES = {
    "varchar": ("VARCHAR", pa.string()),
    "int64": ("BIGINT", pa.int64()),
    "int32": ("INTEGER", pa.int32()),
    "float64": ("DOUBLE", pa.float64()),
    "float32": ("FLOAT", pa.float32()),
    "boolean": ("BOOLEAN", pa.bool_()),
    "timestamptz": ("TIMESTAMPTZ", pa.timestamp("us", "UTC")),
}
_ARROW = dict(_TYPES.values())

# So often the files are read, at most, while others commit.
_LOOKS = 4

_NEWEST = (
    "SELECT snapshot_id, snapshot_time, next_file_id FROM {schema}.ducklake_snapshot ORDER BY snapshot_id DESC LIMIT 1"
)

_COLUMNS = """
    SELECT t.table_id, t.table_name, t.path, c.column_id, c.column_name, c.column_type, c.begin_snapshot
    FROM {schema}.ducklake_table AS t JOIN {schema}.ducklake_column AS c ON c.table_id = t.table_id
    WHERE t.end_snapshot IS NULL AND c.end_snapshot IS NULL AND t.table_name IN ({names})
    ORDER BY t.table_id, c.column_order
"""

# The statistics come first, and CROSS JOIN keeps SQLite to that order: they have no index, and one reading will do.
_FILES = """
    SELECT s.table_id, f.path, s.min_value, s.max_value, f.begin_snapshot
    FROM {schema}.ducklake_file_column_stats AS s CROSS JOIN {schema}.ducklake_data_file AS f
    WHERE ({keys}) AND f.data_file_id = s.data_file_id AND f.end_snapshot IS NULL
"""

_LIVE = """
    SELECT table_id, count(*) AS n FROM {schema}.ducklake_data_file
    WHERE end_snapshot IS NULL AND path_is_relative GROUP BY table_id
"""

# Rows that are not in files, and rows of files that are no more.
_CHANGED = """
    SELECT table_id FROM {schema}.ducklake_delete_file WHERE end_snapshot IS NULL
    UNION SELECT table_id FROM {schema}.ducklake_inlined_data_tables
"""


@dataclass(frozen=True)
class TableFiles:
    """The files of a table, with the range of its key in each.

    Parameters
    ----------
    key
        The column that selects files.
    columns
        Their types in SQL, in order.
    paths, archives
        Of each file; an archive is None where the table has no partitions.
    low, high
        Of the key.
    """

    key: str
    columns: Mapping[str, str]
    paths: NDArray[np.object_]
    archives: NDArray[np.object_]
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    def read(self, footers: Footers, ranges: Ranges, names: Sequence[str] | None = None) -> pa.Table:
        """Read the rows whose key is in some ranges, from files of this machine; text may come as dictionaries.

        Parameters
        ----------
        names
            Columns; None: all.

        Raises
        ------
        FileNotFoundError
            If a file is gone: compaction removes files.
        CatalogError
            If a file cannot be read: see `lake.store.lookup.read_rows`.
        """
        met = ranges.meet(self.low, self.high)
        paths, archives = self.paths[met].tolist(), self.archives[met].tolist()
        schema = pa.schema([(name, _ARROW[self.columns[name]]) for name in names or self.columns])
        # Folders above the lake may look like Hive's, and DuckLake takes the archive of a file from its folder.
        stored = schema if None in archives else pa.schema([field for field in schema if field.name != "archive"])
        parts = []
        for place, part in read_rows(footers, paths, self.key, ranges, stored):
            if len(stored) < len(schema):
                archive = repeated(archives[place], part.num_rows)
                part = part.add_column(schema.get_field_index("archive"), "archive", archive)
            parts.append(part)
        return pa.concat_tables(parts).unify_dictionaries() if parts else schema.empty_table()

    def rows(self, ranges: Ranges) -> str:
        """Return the SQL of a table with all rows whose key is in some ranges, and others."""
        return self._sql(ranges.meet(self.low, self.high))

    def all_rows(self) -> str:
        """Return the SQL of the whole table."""
        return self._sql(np.ones(len(self.paths), bool))

    def _sql(self, met: NDArray[np.bool_]) -> str:
        by_archive: dict[str | None, list[str]] = {}
        for path, archive in zip(self.paths[met], self.archives[met], strict=True):
            by_archive.setdefault(archive, []).append(quoted(glob.escape(path)))  # DuckDB takes it for a pattern
        if not by_archive:
            nothing = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in self.columns.items())
            return f"(SELECT {nothing} WHERE false)"
        parts = []
        for archive, paths in by_archive.items():
            # As in read.
            names = [f'"{name}"' if archive is None or name != "archive" else quoted(archive) for name in self.columns]
            chosen = ", ".join(f'{value} AS "{name}"' for value, name in zip(names, self.columns, strict=True))
            parts.append(
                f"SELECT {chosen} FROM system.main.read_parquet([{', '.join(paths)}], hive_partitioning = false)"
            )
        return f"({' UNION ALL '.join(parts)})"


class Listing:
    """The files of the newest snapshot of a lake, by table.

    Parameters
    ----------
    location, storage
        Of its catalogue and its files.
    """

    def __init__(self, location: CatalogLocation, storage: Storage) -> None:
        self._location, self._storage = location, storage
        self._kept: tuple[tuple[object, ...], dict[str, TableFiles]] | None = None
        self._named: tuple[Mapping[str, TableFiles], dict[str, int]] = {}, {}
        self.footers = Footers()

    def newest(self, cursor: duckdb.DuckDBPyConnection) -> dict[str, TableFiles]:
        """Return the tables that can be read by their files alone.

        Parameters
        ----------
        cursor
            Connection to the DuckDB that has the lake attached, but another default database: with the lake as default,
            each of these queries would begin a transaction of DuckLake.
        """
        for _ in range(_LOOKS):
            (snapshot,) = self._ask(cursor, _NEWEST)
            kept = self._kept  # another thread may replace it
            if kept is not None and kept[0] == snapshot:
                return kept[1]
            # What is read is of one state if that is still the newest one then: otherwise the next turn reads it again.
            self._kept = snapshot, self._read(cursor)
        return {}

    def ids_by_name(self, files: Mapping[str, TableFiles]) -> dict[str, int]:
        """Return the ids of targets that were found by name while these were the newest files; more can be added."""
        if self._named[0] is not files:
            self._named = files, {}
        return self._named[1]

    def _ask(self, cursor: duckdb.DuckDBPyConnection, query: str, **parts: str) -> list[tuple[object, ...]]:
        return _ask(cursor, self._location, query, **parts)

    def _read(self, cursor: duckdb.DuckDBPyConnection) -> dict[str, TableFiles]:
        names = ", ".join(map(quoted, _KEYS))
        tables: dict[int, tuple[str, str, dict[str, str], int]] = {}
        keys = {}
        for table_id, table, folder, column_id, column, kind, since in self._ask(cursor, _COLUMNS, names=names):
            of = tables.setdefault(int(str(table_id)), (str(table), str(folder), {}, 0))
            of[2][str(column)] = _TYPES.get(str(kind), ("", None))[0]
            tables[int(str(table_id))] = (*of[:3], max(of[3], int(str(since))))
            if column == _KEYS[str(table)]:
                keys[int(str(table_id))] = int(str(column_id))
        changed = {int(str(row[0])) for row in self._ask(cursor, _CHANGED)} | self._deleted(cursor, list(tables))
        live = {int(str(table_id)): int(str(n)) for table_id, n in self._ask(cursor, _LIVE)}
        pairs = " OR ".join(f"s.table_id = {table} AND s.column_id = {column}" for table, column in keys.items())
        files: dict[int, list[tuple[object, ...]]] = {table: [] for table in tables}
        for table_id, *file in self._ask(cursor, _FILES, keys=pairs or "false"):
            files[int(str(table_id))].append(tuple(file))
        found = {}
        for table_id, (table, folder, columns, since) in tables.items():
            own = files[table_id]
            # A file from before a column was added has other columns; one without a range cannot be chosen.
            is_whole = len(own) == live.get(table_id, 0) and all(low is not None for _, low, _, _ in own)
            if table_id in changed or not is_whole or not all(columns.values()):
                continue
            if any(int(str(begin)) < since for *_, begin in own):
                continue
            root = f"{self._storage.data / 'main'}/{folder}"
            archives = [_archive(str(path)) if "archive" in columns else None for path, *_ in own]
            if "archive" in columns and None in archives:
                continue
            found[table] = TableFiles(
                _KEYS[table],
                columns,
                np.array([f"{root}{path}" for path, *_ in own], object),
                np.array(archives, object),
                np.array([int(str(low)) for _, low, _, _ in own], np.int64),
                np.array([int(str(high)) for _, _, high, _ in own], np.int64),
            )
        return found

    def _deleted(self, cursor: duckdb.DuckDBPyConnection, tables: list[int]) -> set[int]:
        """Return the tables that have deletions in the catalogue itself."""
        names = ", ".join(quoted(f"ducklake_inlined_delete_{table}") for table in tables) or "NULL"
        if self._location.kind == "sqlite":
            query = f"SELECT name FROM sqlite_master WHERE name IN ({names})"
        else:
            schema = quoted(self._location.schema)
            query = (
                f"SELECT tablename::text AS name FROM pg_tables WHERE schemaname = {schema} AND tablename IN ({names})"
            )
        return {int(str(name).rpartition("_")[2]) for (name,) in self._ask(cursor, query)}


_VERSIONS = """
    SELECT 'inlined' AS held, i.table_name AS place FROM {schema}.ducklake_inlined_data_tables AS i
    JOIN {schema}.ducklake_table AS t ON t.table_id = i.table_id
    WHERE t.table_name = 'schema_version' AND t.end_snapshot IS NULL
    UNION ALL SELECT 'file' AS held, t.path || f.path AS place FROM {schema}.ducklake_data_file AS f
    JOIN {schema}.ducklake_table AS t ON t.table_id = f.table_id
    WHERE t.table_name = 'schema_version' AND t.end_snapshot IS NULL AND f.end_snapshot IS NULL
    UNION ALL SELECT 'deleted' AS held, '' AS place FROM {schema}.ducklake_delete_file AS d
    JOIN {schema}.ducklake_table AS t ON t.table_id = d.table_id
    WHERE t.table_name = 'schema_version' AND t.end_snapshot IS NULL AND d.end_snapshot IS NULL
"""


def newest_version(
    cursor: duckdb.DuckDBPyConnection, location: CatalogLocation, storage: Storage
) -> tuple[int, str] | None:
    """Return version and id of a lake without DuckLake, which would load all tables and views for it; None if unsure.

    In PostgreSQL, DuckLake keeps the texts of such rows as bytes: there it has to read them itself.

    Parameters
    ----------
    cursor
        As in `Listing.newest`.
    location, storage
        Of its catalogue and its files.
    """
    if location.kind != "sqlite":
        return None
    try:
        found = _versions(cursor, location, storage)
    except duckdb.Error:  # DuckLake says what is wrong
        return None
    version, _, lake_id = max(found, default=(0, "", None), key=lambda row: row[:2])
    return (version, str(lake_id)) if version and lake_id else None


def _versions(
    cursor: duckdb.DuckDBPyConnection, location: CatalogLocation, storage: Storage
) -> list[tuple[int, str, object]]:
    found: list[tuple[object, ...]] = []
    columns = "version, lake_id, CAST(applied_at AS VARCHAR) AS applied_at"
    for held, place in _ask(cursor, location, _VERSIONS):
        if held == "inlined":
            found += _ask(cursor, location, f'SELECT {columns} FROM {{schema}}."{place}" WHERE end_snapshot IS NULL')
        elif held == "file":
            path = quoted(glob.escape(f"{storage.data / 'main'}/{place}"))
            rows = f"SELECT {columns} FROM system.main.read_parquet({path}, hive_partitioning = false)"
            found += cursor.execute(rows).fetchall()
        else:
            return []
    return [(int(str(version)), str(applied), lake_id) for version, lake_id, applied in found]


def _ask(
    cursor: duckdb.DuckDBPyConnection, location: CatalogLocation, query: str, **parts: str
) -> list[tuple[object, ...]]:
    """Ask the catalogue's database itself, which has indexes."""
    text = query.format(schema=f'"{location.schema}"', **parts)
    # As a literal: for parameters DuckDB imports pandas.
    return cursor.execute(f"FROM {location.kind}_query('{METADATA}', {quoted(text)})").fetchall()


def _archive(path: str) -> str | None:
    """Return the archive of a file, from its path in the table's folder."""
    key, _, value = path.partition("/")[0].partition("=")
    return unquote(value) if key == "archive" else None
