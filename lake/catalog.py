"""The DuckLake catalogue: create it, migrate it, attach it, and let one writer in at a time."""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from urllib.parse import quote

import duckdb
from upath import UPath

from lake.errors import CatalogError, ConfigurationError, NoLake
from lake.lock import advisory_lock, file_lock
from lake.migrations import MIGRATIONS
from lake.s3 import s3_secret
from lake.schema import SCHEMA_VERSION, TABLES
from lake.settings import Settings
from lake.storage import ROW_GROUP_ROWS, Storage
from lake.table import create_statements, quoted
from lake.views import VIEWS

SOFTWARE = f"lightlake {version('lightlake')}"

# Commits after which a process goes on with a new DuckDB: making one takes as long as a commit or two.
_RENEWED_AFTER = 50

# Compaction makes files of this size from the small ones of single granules.
TARGET_FILE_SIZE = "256MB"

# Else DuckDB reads each of the catalogue's tables through a SQLite connection of its own, and what a query
# sees while another process commits is of two states: rows that were replaced came up twice. It is also slower.
CONSISTENT_SCANS = "SET GLOBAL sqlite_disable_multithreaded_scans = true"

# Small inserts into these stay in the catalogue database until compaction; all other rows, and what is
# deleted of them, are Parquet files at once, which is what plain readers see.
INLINED_ROWS = 10
KEPT_IN_CATALOGUE = ("ledger", "files", "archives", "bands", "schema_version")


@dataclass(frozen=True)
class CatalogLocation:
    """Which database holds the catalogue.

    Parameters
    ----------
    kind
        sqlite or postgres.
    target
        The file's path, or PostgreSQL's connection string.
    metadata_schema
        PostgreSQL's schema for this lake, so that one database can hold several lakes.
    """

    kind: str
    target: str
    metadata_schema: str | None = None

    @classmethod
    def parse(cls, spec: str | None, storage: Storage) -> CatalogLocation:
        """Read LIGHTLAKE_CATALOG: ``sqlite:PATH`` or ``postgres:CONNINFO [schema=NAME]``.

        Raises
        ------
        ConfigurationError
            If it is neither.
        """
        if not spec and not storage.is_local:
            raise ConfigurationError(
                f"the lake at {storage.root} needs a catalogue elsewhere: no database lives on S3",
                hint="set LIGHTLAKE_CATALOG to sqlite:PATH on this machine, or to postgres:...",
            )
        if not spec:
            return cls("sqlite", str(storage.root / "catalog.sqlite"))
        kind, _, target = spec.partition(":")
        if kind == "sqlite" and target:
            return cls("sqlite", str(Path(target).expanduser().absolute()))
        if kind == "postgres" and target:
            schema = re.search(r"\bschema=(\w+)", target)
            conninfo = re.sub(r"\s*\bschema=\w+", "", target).strip()
            return cls("postgres", conninfo, schema[1] if schema else "public")
        raise ConfigurationError(
            f"LIGHTLAKE_CATALOG={redacted(spec)!r} is not valid",
            hint="use sqlite:PATH or postgres:host=HOST dbname=NAME user=USER [schema=NAME]",
        )

    def __str__(self) -> str:
        return redacted(f"{self.kind}:{self.target}")

    def attach_statement(self, storage: Storage, *, create: bool = False, timeout_s: float = 60) -> str:
        """Return the SQL that attaches the lake in any DuckDB that has the extensions."""
        options = [f"DATA_PATH {quoted(f'{storage.data}/')}", "OVERRIDE_DATA_PATH true"]
        if not create:
            options.append("CREATE_IF_NOT_EXISTS false")
        if self.kind == "sqlite":
            # With a write-ahead log a long query and a commit do not wait for each other; the time-out is for
            # the moments when they must.
            options += ["META_JOURNAL_MODE 'WAL'", f"META_BUSY_TIMEOUT {int(timeout_s * 1000)}"]
        if self.metadata_schema:
            options.append(f"METADATA_SCHEMA {quoted(self.metadata_schema)}")
        return f"ATTACH {quoted(f'ducklake:{self.kind}:{self.target}')} AS lake ({', '.join(options)})"


class Catalog:
    """One process's connection to a lake's catalogue.

    Parameters
    ----------
    storage
        The lake's folders.
    settings
        Catalogue, DuckDB limits and lock timeout.
    """

    def __init__(self, storage: Storage, settings: Settings) -> None:
        self.storage = storage
        self.settings = settings
        self.location = CatalogLocation.parse(settings.catalog, storage)
        self._instance: duckdb.DuckDBPyConnection | None = None
        self._attached = False
        self._private: TemporaryDirectory[str] | None = None
        self._commits = 0

    def create(self) -> bool:
        """Make the catalogue, or bring an older one to this schema version.

        Returns
        -------
        bool
            True if anything changed.

        Raises
        ------
        CatalogError
            If the catalogue is newer than this software, or unreadable.
        """
        self.storage.create()
        with self.lock():
            self._attach(create=True)
            cursor = self.cursor()
            try:
                return self._upgrade(cursor)
            except duckdb.Error as error:
                raise self.unwritable(error) from None
            finally:
                cursor.close()

    def _upgrade(self, cursor: duckdb.DuckDBPyConnection) -> bool:
        found = _schema_version(cursor)
        if found is not None and found >= SCHEMA_VERSION:
            _check_not_newer(found, self.location)
            return False
        if found is None:
            for option, value in (
                ("parquet_row_group_size", str(ROW_GROUP_ROWS)),
                ("parquet_compression", "zstd"),
                ("target_file_size", TARGET_FILE_SIZE),
                ("data_inlining_row_limit", "0"),
            ):
                cursor.execute("CALL ducklake_set_option('lake', ?, ?)", [option, value])
            cursor.execute("BEGIN")
            for table in TABLES.values():
                for statement in create_statements(table):
                    cursor.execute(statement)
            cursor.execute("COMMIT")
        if not found:  # the options of a table cannot be set in the transaction that makes it
            for name in KEPT_IN_CATALOGUE:
                cursor.execute(
                    f"CALL ducklake_set_option('lake', 'data_inlining_row_limit', {INLINED_ROWS}, table_name => ?)",
                    [name],
                )
        cursor.execute("BEGIN")
        for step in range((found or SCHEMA_VERSION) + 1, SCHEMA_VERSION + 1):
            for statement in MIGRATIONS[step]:
                cursor.execute(statement)
        for statement in VIEWS:
            cursor.execute(statement)
        cursor.execute("INSERT INTO schema_version VALUES (?, ?, ?)", [SCHEMA_VERSION, SOFTWARE, datetime.now(UTC)])
        cursor.execute("COMMIT")
        return True

    def open(self) -> None:
        """Attach an existing catalogue.

        Raises
        ------
        CatalogError
            If there is none, or it is of another version.
        """
        if self.location.kind == "sqlite":
            try:
                exists = stat.S_ISREG(Path(self.location.target).stat().st_mode)
            except PermissionError as error:
                raise CatalogError(f"no permission to read {self.location.target}", hint="ask its owner") from error
            except OSError:
                exists = False
            if not exists:
                raise NoLake(
                    f"there is no lake at {self.storage.root}",
                    hint=f"make one with: lightlake init {self.storage.root}",
                )
        self._attach(create=False)
        found = _schema_version(self.cursor())
        if not found:
            raise NoLake(
                f"the catalogue {self.location} holds no lake",
                hint=f"run: lightlake init {self.storage.root}",
            )
        _check_not_newer(found, self.location)
        if found < SCHEMA_VERSION:
            raise CatalogError(
                f"the lake at {self.storage.root} has schema version {found}, this is {SCHEMA_VERSION}",
                hint=f"migrate it with: lightlake init {self.storage.root}",
            )

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a new connection to the same database, for one thread or transaction."""
        if not self._attached:
            self.open()
        cursor = self._duckdb().cursor()
        cursor.execute("USE lake")
        return cursor

    def known_files(self, cursor: duckdb.DuckDBPyConnection) -> set[str]:
        """Return the names of all files that any snapshot of the catalogue knows, or waits to remove."""
        schema = self.location.metadata_schema or "main"
        known = " UNION ".join(
            f'SELECT path FROM __ducklake_metadata_lake."{schema}".{name}'
            for name in ("ducklake_data_file", "ducklake_delete_file", "ducklake_files_scheduled_for_deletion")
        )
        return {Path(row[0]).name for row in cursor.execute(known).fetchall()}

    def close(self) -> None:
        """Let go of the catalogue."""
        if self._instance is not None:
            self._instance.close()
            self._instance = None
            self._attached = False
        if self._private is not None:
            self._private.cleanup()
            self._private = None

    def committed(self) -> None:
        """Note a commit; after some, go on with a new DuckDB.

        DuckLake keeps the statistics of every snapshot that it has seen, and DuckDB the footers of all files, as long
        as the process lives. Cursors that are in use keep the old one.
        """
        self._commits += 1
        if self._commits % _RENEWED_AFTER == 0 and self._private is None:
            instance = _connect(self.settings, self.storage, self.location.kind)
            timeout = self.settings.lock_timeout_s
            instance.execute(self.location.attach_statement(self.storage, timeout_s=timeout))
            self._instance = instance

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one writer in at a time, over all processes and machines that share the catalogue.

        DuckLake itself lets two transactions add rows of the same source, since appends do not
        conflict; and SQLite fails with "database is locked". So every commit of ours holds this lock.

        Raises
        ------
        CatalogError
            If others hold it for longer than LIGHTLAKE_LOCK_TIMEOUT_S.
        """
        timeout = self.settings.lock_timeout_s
        with self._held("", timeout) as held:
            if not held:
                raise CatalogError(
                    f"other writers held the catalogue {self.location} for {timeout:g} s",
                    hint="wait for them, or raise LIGHTLAKE_LOCK_TIMEOUT_S",
                )
            yield

    @contextmanager
    def claim(self, name: str, *, strict: bool = False) -> Iterator[bool]:
        """Take a piece of work for this process, unless another has it: yields whether it is ours.

        Parameters
        ----------
        name
            Of the work, such as the id of a granule.
        strict
            Two never have it at once: its file beside a SQLite catalogue stays.
        """
        with self._held(name, 0.0, strict=strict) as held:
            yield held

    def _held(self, name: str, timeout_s: float, *, strict: bool = True) -> AbstractContextManager[bool]:
        if self.location.kind == "sqlite":
            database = Path(self.location.target)
            path = database.parent / "claims" / f"{name}.lock" if name else database.with_suffix(".lock")
            return file_lock(path, timeout_s, remove=not strict)
        key = f"lightlake:{self.location.metadata_schema}" + (f":{name}" if name else "")
        return advisory_lock(self._duckdb(), self.location.target, key, timeout_s, self._unreadable)

    def _duckdb(self) -> duckdb.DuckDBPyConnection:
        if self._instance is None:
            self._instance = _connect(self.settings, self.storage, self.location.kind)
        return self._instance

    def _attach(self, *, create: bool) -> None:
        if self._attached:
            return
        timeout = self.settings.lock_timeout_s
        try:
            location = self.location
            if location.kind == "sqlite" and not create and not _writable(Path(location.target)):
                location = replace(location, target=str(self._copy(Path(location.target))))
            self._duckdb().execute(location.attach_statement(self.storage, create=create, timeout_s=timeout))
        except sqlite3.Error as error:
            raise CatalogError(
                f"cannot read the catalogue {self.location}: {error}", hint="ask its owner for a look at it"
            ) from error
        except duckdb.Error as error:
            self.close()
            raise self._unreadable(error) from None  # its text may hold a password
        self._attached = True

    def _copy(self, path: Path) -> Path:
        """Copy the catalogue for one who may only read: SQLite's write-ahead log needs writers.

        Such a reader sees the lake as it was when it was opened.
        """
        self._private = TemporaryDirectory(prefix="lightlake-")
        copy = Path(self._private.name) / path.name
        # Without a log beside it the file is whole, and SQLite need not look for one.
        at_rest = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
        with (
            closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro{at_rest}", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        return copy

    def unwritable(self, error: duckdb.Error) -> CatalogError:
        """Return what to raise for an error of a commit."""
        hint = "the lake is as it was before; see what the database says"
        if "database is locked" in str(error):
            hint = "end the query that keeps a SQLite catalogue busy, and this process; then try again"
        elif isinstance(error, duckdb.TransactionException):
            hint = "see what else writes to it"
        return CatalogError(f"cannot write the catalogue {self.location}: {_first_line(error)}", hint=hint)

    def _unreadable(self, error: duckdb.Error) -> CatalogError:
        if "explicitly disabled" in str(error):  # to make one by attaching it
            return NoLake(f"{self.location} holds no lake", hint=f"run: lightlake init {self.storage.root}")
        hint = "check LIGHTLAKE_CATALOG and the database; a damaged SQLite file must come back from a backup"
        if "database is locked" in str(error):
            hint = "end the process that holds it, or raise LIGHTLAKE_LOCK_TIMEOUT_S"
        return CatalogError(f"cannot read the catalogue {self.location}: {_first_line(error)}", hint=hint)


def _connect(settings: Settings, storage: Storage, kind: str) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB with the extensions from their wheels; nothing is downloaded, nothing is unsigned."""
    spill = storage.staging if storage.is_local else UPath(gettempdir())
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "temp_directory": str(spill / f"duckdb-{os.getpid()}"),
    }
    if settings.duckdb_memory:
        config["memory_limit"] = settings.duckdb_memory
    if settings.duckdb_threads:
        config["threads"] = settings.duckdb_threads
    connection = duckdb.connect(config=config)
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    # Files of a lake never change, so their footers, large because of small row groups, are read once.
    connection.execute("SET GLOBAL parquet_metadata_cache = true")
    # Only what this lake needs: DuckDB checks the signature of each, which takes a tenth of a second.
    for name in ("ducklake", f"{kind}_scanner", *(() if storage.is_local else ("httpfs",))):
        connection.execute(f"LOAD {quoted(str(extension_file(name)))}")
    if not storage.is_local:
        connection.execute(s3_secret(storage))
    if kind == "sqlite":
        connection.execute(CONSISTENT_SCANS)
    return connection


def extension_file(name: str) -> Path:
    """Return the file of a DuckDB extension inside its wheel.

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


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _first_line(error: duckdb.Error) -> str:
    return redacted(str(error).strip().splitlines()[0])


def redacted(text: str) -> str:
    """Return a text without the passwords of connection strings."""
    text = re.sub(r"(password\s*=\s*)('(?:\\.|[^'\\])*'|\S+)", r"\1***", text)
    return re.sub(r"(://[^:/@\s]+):[^@\s]+@", r"\1:***@", text)


def _schema_version(cursor: duckdb.DuckDBPyConnection) -> int | None:
    """Return the schema's version: None without tables, 0 if making them was cut short."""
    found = cursor.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'lake' AND table_name = 'schema_version'"
    ).fetchall()
    if not found[0][0]:
        return None
    return int(cursor.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchall()[0][0])


def _check_not_newer(found: int, location: CatalogLocation) -> None:
    if found > SCHEMA_VERSION:
        raise CatalogError(
            f"the catalogue {location} has schema version {found}, newer than this software's {SCHEMA_VERSION}",
            hint="upgrade with: pip install --upgrade lightlake",
        )
