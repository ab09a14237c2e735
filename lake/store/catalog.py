"""The DuckLake catalogue: create it, migrate it, attach it, and lock it for one writer at a time."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import duckdb

from lake.errors import CatalogError, NoLake, ReadOnly
from lake.model.declared import all_tables
from lake.model.schema import SCHEMA_VERSION
from lake.settings import Settings
from lake.store import confined, failures, fence, s3
from lake.store.access import (
    check_catalogue,
    check_folders,
    check_postgres,
    last_written,
    make_catalogue,
    make_folders,
    readable_in_place,
    share_catalogue,
)
from lake.store.backup import back_up
from lake.store.connection import Idle, Outside, connect, copy_catalogue, rollback
from lake.store.identity import check_same, foreign, has_data, knows_tree, mark_tree, new_id, no_lake, tree_id
from lake.store.listing import newest_version
from lake.store.location import CatalogLocation
from lake.store.lock import advisory_lock, file_lock, until_back
from lake.store.migrations import check_current, check_not_newer, has_declared, make_tables, migrate, schema_version
from lake.store.pruning import METADATA, begin_statistics, index_statistics, note_no_nan
from lake.store.storage import Storage
from lake.text import file_name

# After so many commits a process opens a new DuckDB, which takes as long as a commit or two.
_RENEWED_AFTER = 50


class Catalog:
    """One process's connection to a lake's catalogue.

    Parameters
    ----------
    storage
        The lake's folders.
    settings
        Catalogue, DuckDB limits and lock timeout.
    read_only
        Attach it for reading, and refuse to write.
    confined
        For SQL of untrusted users: DuckDB reads no other files, and its configuration is locked. See
        lake.store.confined.
    """

    def __init__(
        self, storage: Storage, settings: Settings, *, read_only: bool = False, confined: bool = False
    ) -> None:
        self.storage = storage
        self.settings = settings
        self.read_only = read_only or confined
        self.confined = confined
        self.location = CatalogLocation.parse(settings.catalog, storage)
        self._instance: duckdb.DuckDBPyConnection | None = None
        self._attached = False
        self._private: TemporaryDirectory[str] | None = None
        self.as_of: float | None = None  # of a copy: when the catalogue was last written
        self._commits = 0
        self._outside = Outside()
        self._idle = Idle()

    def create(self) -> bool:
        """Create the catalogue, or migrate it to the schema version and views of this software.

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

        def once() -> bool:
            with self.lock(fenced=False):
                return self.create_locked()

        return until_back(once, self.settings.lock_timeout_s, self.close)

    def create_locked(self) -> bool:
        """Do the same as `create`; the caller holds the lock."""
        try:
            self._attach_existing()
            fresh = False
        except NoLake:
            fresh = True
        if self.storage.is_local:
            make_folders(Path(str(self.storage.data), "main"), all_tables())
        if self.location.kind == "sqlite":
            share_catalogue(Path(self.location.target))
        if fresh:
            self._attach(create=True)
        with closing(self.cursor()) as cursor, self.changing():
            found, marked = self._accept(cursor)
            fenced = fence.is_built(cursor, self.location)
            is_current = found == SCHEMA_VERSION and has_declared(cursor)
        if not fenced:
            if self.location.kind == "sqlite":
                self.close()  # see fence.build
            with self.changing():
                fence.build(self.location, self._duckdb)
            self._attach(create=False)
        if is_current:
            return marked or not fenced
        with closing(self.cursor()) as cursor, self.changing():
            try:
                self._upgrade(cursor, found)
            finally:
                rollback(cursor)
        return True

    def check_lake(self) -> None:
        """Check that the catalogue belongs to the tree, whatever the version of its schema.

        Raises
        ------
        CatalogError
            If it belongs to another lake, or holds none.
        """
        self._attach(create=False)
        with closing(self.cursor()) as cursor:
            found, own_id = schema_version(cursor)
            if not found:
                raise NoLake(f"the catalogue {self.location} holds no lake", hint="use another backup")
            if own_id is not None:
                check_same(self.storage, str(self.location), own_id)
            elif not knows_tree(self.storage, self.known_files(cursor)):
                raise foreign(self.storage, str(self.location))

    def _accept(self, cursor: duckdb.DuckDBPyConnection) -> tuple[int | None, bool]:
        """Check that catalogue and tree belong together; return the version, and whether the tree was marked now."""
        found, own_id = schema_version(cursor)
        if not found and has_data(self.storage):
            raise self._empty()
        check_not_newer(found or 0, self.location)
        return found, bool(found) and self._marked(cursor, own_id)

    def _upgrade(self, cursor: duckdb.DuckDBPyConnection, found: int | None) -> None:
        number = fence.take(cursor, self.location, self.settings.lock_timeout_s)
        if not found:
            make_tables(cursor, found)
            # With a new id, an empty tree refuses an older catalogue.
            mark_tree(self.storage, new_id())
        else:
            back_up(self.location, self.storage, self.settings.backups)
        # Before the version is recorded: if this is stopped, the next run does it again.
        index_statistics(cursor, self.location.kind, self.location.schema)
        note_no_nan(cursor, self.location.kind, self.location.schema, newest=False)
        migrate(cursor, found or SCHEMA_VERSION, tree_id(self.storage), number)
        begin_statistics(self.cursor_outside(), self.location.kind, self.location.schema)

    def _marked(self, cursor: duckdb.DuckDBPyConnection, own_id: str | None) -> bool:
        """Check that the tree has the catalogue's id, or mark the right tree; return whether it was marked."""
        of_tree = tree_id(self.storage)
        if own_id is not None and of_tree is not None:
            check_same(self.storage, str(self.location), own_id)
            return False
        if not knows_tree(self.storage, self.known_files(cursor)):
            raise foreign(self.storage, str(self.location))
        if of_tree is None:
            mark_tree(self.storage, own_id or new_id())
        return of_tree is None

    def _empty(self, place: str | None = None) -> CatalogError:
        return no_lake(self.storage, str(self.location), place)

    def _attach_existing(self) -> None:
        """Attach the existing catalogue.

        Raises
        ------
        NoLake
            If there is none, and the tree has no data.
        """
        if self.location.kind == "sqlite" and not self._is_file():
            raise self._empty(f"at {self.storage.root}")
        self._attach(create=False)

    def _is_file(self) -> bool:
        try:
            return stat.S_ISREG(Path(self.location.target).stat().st_mode)
        except PermissionError as error:
            raise CatalogError(f"no permission to read {self.location.target}", hint="ask its owner") from error
        except OSError:
            return False

    def open(self) -> None:
        """Attach an existing catalogue.

        Raises
        ------
        CatalogError
            If there is none, or it has another version or belongs to another lake.
        ReadOnly
            If it is opened for writing, and this user has no permission to write it.
        """
        if not self.read_only and (self.location.kind != "sqlite" or self._is_file()):
            self.check_writable()
            if self.storage.is_local:
                check_folders(Path(str(self.storage.root)))
            self.storage.check_reachable()
        self._attach_existing()
        with failures.converted(self._unreadable):
            quick = newest_version(self.cursor_outside(), self.location, self.storage)
            found, own_id = quick or schema_version(self.cursor())
        if found is None and has_data(self.storage):
            tables = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' ORDER BY ALL LIMIT 1"
            for (table,) in self.cursor().execute(tables).fetchall():
                raise CatalogError(
                    f"the catalogue {self.location} has the table {table}, but schema_version is missing",
                    hint="restore a backup from before it was dropped with: lightlake restore",
                )
        if not found:
            raise self._empty()
        check_current(found, self.location, self.storage)
        check_same(self.storage, str(self.location), own_id)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Open a new connection to the same database, for one thread or transaction."""
        if not self._attached:
            self.open()
        cursor = self._duckdb().cursor()
        with failures.converted(self._unreadable):
            cursor.execute("USE lake")
        return cursor

    def borrowed(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Lend a connection as `cursor` opens it; it is to come back as `Idle` says."""
        return self._idle.lend(self.cursor)

    def cursor_outside(self) -> duckdb.DuckDBPyConnection:
        """Return this thread's connection whose default database is not the lake.

        Queries of the catalogue's database, and of files by their paths, begin no transaction of DuckLake there.
        """
        if not self._attached:
            self.open()
        return self._outside.of(self._duckdb())

    def known_files(self, cursor: duckdb.DuckDBPyConnection) -> set[str]:
        """Return the names of all files in any snapshot of the catalogue, and of those it waits to remove."""
        schema = self.location.schema
        known = " UNION ".join(
            f'SELECT path FROM {METADATA}."{schema}".{name}'
            for name in ("ducklake_data_file", "ducklake_delete_file", "ducklake_files_scheduled_for_deletion")
        )
        return {Path(row[0]).name for row in cursor.execute(known).fetchall()}

    def refresh(self) -> None:
        """Drop a private copy of the catalogue, so that the next query reads its present state."""
        if self._private is not None:
            self.close()

    def close(self) -> None:
        """Close all connections to the catalogue."""
        with nullcontext() if self._instance is None else closing(self._instance):
            self._leave()

    def _leave(self) -> None:
        """Leave the DuckDB to cursors in use: to close one that holds a lock in a lost database ends the process."""
        self._outside = Outside()
        self._idle = self._idle.closed()
        self._instance = None
        self._attached = False
        if self._private is not None:
            self._private.cleanup()
            self._private = self.as_of = None

    def committed(self) -> None:
        """Count a commit; after every 50, open a new DuckDB.

        DuckLake keeps the statistics of every snapshot it has seen, and DuckDB the footers of all files, as long as
        they live. Cursors in use keep the old DuckDB.
        """
        self._commits += 1
        if self._commits % _RENEWED_AFTER == 0:
            self.renew()

    def renew(self) -> None:
        """Open a new DuckDB, with new connections to the catalogue. Cursors in use keep the old one."""
        if self._private is not None:
            return
        instance = connect(self.settings, self.storage, self.location.kind)
        timeout = self.settings.lock_timeout_s
        with failures.converted(self._unreadable):
            instance.execute(self.location.attach_statement(self.storage, read_only=self.read_only, timeout_s=timeout))
        self._instance, self._attached = instance, True
        self._idle = self._idle.closed()

    def check_writable(self) -> None:
        """Check that this user may write, before any work is done.

        Raises
        ------
        ReadOnly
            If this catalogue was opened for reading, or this user has no permission to write its file.
        """
        if self.read_only:
            raise ReadOnly(f"the lake at {self.storage.root} is open for reading only", hint=failures.READING_ONLY)
        if self.location.kind == "sqlite":
            check_catalogue(Path(self.location.target))

    @contextmanager
    def lock(self, *, reading: bool = False, fenced: bool = True, within_s: float | None = None) -> Iterator[int]:
        """Hold the catalogue's lock: one writer at a time, over all processes and machines that share it.

        Every commit holds this lock. Without it, DuckLake would let two transactions add rows of the same source, since
        appends do not conflict; and SQLite would fail with "database is locked". Yields the number of the writer's
        fence: see lake.store.fence.

        Parameters
        ----------
        reading
            Only keep writers out, to read the lake while it is at rest.
        fenced
            Take a fence number, which needs a catalogue; else it is 0.
        within_s
            Longest wait; None: LIGHTLAKE_LOCK_TIMEOUT_S.

        Raises
        ------
        CatalogError
            If others hold it for longer than that.
        ReadOnly
            If this user may not write the catalogue.
        """
        if not reading:
            self.check_writable()
        timeout = self.settings.lock_timeout_s if within_s is None else within_s
        failures.check_free_space(self._folders())
        with self._held("", timeout) as held:
            if not held:
                raise CatalogError(
                    f"other writers held the catalogue {self.location} for {timeout:g} s",
                    hint="wait for them, or raise LIGHTLAKE_LOCK_TIMEOUT_S",
                )
            with nullcontext() if self.storage.is_local else s3.reached(self.storage.root):
                yield self.fence() if fenced and not reading else 0

    def fence(self) -> int:
        """Take the newest fence number: no earlier writer can commit any more. The caller holds the lock."""
        with self.changing():
            return fence.take(self.cursor_outside(), self.location, self.settings.lock_timeout_s)

    @contextmanager
    def claim(self, name: str, *, strict: bool = False) -> Iterator[bool]:
        """Claim a piece of work for this process; yields False if another process has claimed it.

        Parameters
        ----------
        name
            Name of the work, such as the id of a granule.
        strict
            Never let two processes have it at once: the lock file beside a SQLite catalogue is kept.

        Raises
        ------
        ReadOnly
            If this user may not write the catalogue.
        """
        self.check_writable()
        with self._held(name, 0.0, strict=strict) as held:
            yield held

    def _held(self, name: str, timeout_s: float, *, strict: bool = True) -> AbstractContextManager[bool]:
        if self.location.kind == "sqlite":
            database = Path(self.location.target)
            path = database.parent / "claims" / f"{file_name(name)}.lock" if name else database.with_suffix(".lock")
            return file_lock(path, timeout_s, remove=not strict)
        key = f"lightlake:{self.location.metadata_schema}" + (f":{name}" if name else "")
        return advisory_lock(self._duckdb(), self.location.connection, key, timeout_s, self._unreadable)

    def _duckdb(self) -> duckdb.DuckDBPyConnection:
        if self._instance is None:
            self._instance = connect(self.settings, self.storage, self.location.kind)
        return self._instance

    def _attach(self, *, create: bool) -> None:
        if self._attached:
            return
        timeout = self.settings.lock_timeout_s
        try:
            location = self.location
            if location.kind == "sqlite":
                path = Path(location.target)
                if create:
                    make_catalogue(path)
                elif self.read_only and not (readable_in_place(path) and failures.has_free_space(path.parent)):
                    # SQLite writes its log even to read, which fails on a full disk.
                    self._private = TemporaryDirectory(prefix="lightlake-")
                    self.as_of = last_written(path)
                    location = replace(location, target=str(copy_catalogue(path, Path(self._private.name))))
            self._duckdb().execute(
                location.attach_statement(self.storage, create=create, read_only=self.read_only, timeout_s=timeout)
            )
            if location.metadata_schema and not create and not self.read_only:
                check_postgres(self._duckdb(), location.metadata_schema, f"the catalogue {self.location}")
            if self.confined:
                confined.lock(self._duckdb(), self.storage, self.settings)
        except ReadOnly:
            self._leave()
            raise
        except (sqlite3.Error, OSError) as error:  # of the copy
            raise failures.disk_full(error, gettempdir()) or CatalogError(
                f"cannot read the catalogue {self.location}: {error}", hint="ask its owner to check it"
            ) from error
        except duckdb.Error as error:
            self._leave()
            raise self._unreadable(error) from None  # the text may contain a password
        self._attached = True

    def unwritable(self, error: duckdb.Error) -> Exception:
        """Return the exception to raise when a commit or maintenance failed."""
        return failures.write_failure(error, self.location, self.storage, self._folders())

    def changing(self) -> AbstractContextManager[None]:
        """Convert a database error of a change: see `unwritable`."""
        return failures.converted(self.unwritable)

    def _folders(self) -> list[str]:
        """Return the folders on local disks that a change writes to."""
        folders = [str(self.storage.root)] if self.storage.is_local else []
        return [*folders, str(Path(self.location.target).parent)] if self.location.kind == "sqlite" else folders

    def _unreadable(self, error: duckdb.Error) -> Exception:
        if "explicitly disabled" in str(error):  # DuckLake will not create one while attaching
            return self._empty()
        return failures.read_failure(error, self.location, self._folders())
