"""Change files of the tree and rows of the catalogue together, and undo what a crash in between leaves.

Every change of a lake is one `Change` inside one `write`. An intent in the staging area names the files that are about
to appear in the tree, and has the writer's fence number: see lake.store.fence.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import duckdb
import pyarrow as pa

from lake.commit.intents import PUBLISHING, Intent, recover, settle
from lake.errors import Interrupted, LightlakeError
from lake.model.declared import table_named
from lake.model.schema import TABLES
from lake.store import fence
from lake.store.catalog import Catalog
from lake.store.connection import ended_by_signals, rollback
from lake.store.failures import overtaken
from lake.store.lock import until_back
from lake.store.migrations import INLINED_ROWS
from lake.store.pruning import note_no_nan
from lake.store.storage import Storage, checksum, parquet_rows, publish, remove, remove_folder, write_parquet

if TYPE_CHECKING:
    from upath import UPath

T = TypeVar("T")


def write(catalog: Catalog, work: Callable[[int], T], within_s: float | None = None) -> T:
    """Do a piece of work as the only writer; repeat it if its connection or its lock is lost.

    Parameters
    ----------
    catalog
        The lake.
    work
        Called with the fence number, for its `Change`; several times if it is interrupted. What an interrupted call did
        is in the lake completely, or not at all.
    within_s
        Longest wait for other writers; None: LIGHTLAKE_LOCK_TIMEOUT_S.

    Raises
    ------
    CatalogError
        If the catalogue cannot be locked or written, or was unavailable for too long.
    """

    def once() -> T:
        with ended_by_signals(), catalog.lock(within_s=within_s) as number, catalog.changing():
            try:
                recover(catalog, number)
                return work(number)
            except (LightlakeError, duckdb.Error, OSError) as error:
                # A writer that has taken over has also cleaned up the tree, so any step may have failed.
                if not isinstance(error, Interrupted) and _is_overtaken(catalog, number):
                    raise overtaken(catalog.location) from error
                raise

    longest = catalog.settings.lock_timeout_s if within_s is None else within_s
    return until_back(once, longest, catalog.renew)


def _is_overtaken(catalog: Catalog, number: int) -> bool:
    with closing(catalog.cursor()) as cursor:
        return fence.newest(cursor, catalog.location) != number


class Change:
    """One transaction of the lake, as a context manager: committed at the end, or undone after an error.

    If the answer to a COMMIT is lost, DuckLake takes it for failed, and deletes the files that it wrote in the
    transaction. So these files get a second name in the staging area until the outcome is known from the catalogue,
    over a new connection.

    Parameters
    ----------
    catalog
        The lake; the caller holds its lock.
    number
        The fence number that came with the lock.
    rewrites
        DuckLake will write files whose names are not known beforehand: write an intent at the start.
    """

    def __init__(self, catalog: Catalog, number: int, *, rewrites: bool = False) -> None:
        self.catalog = catalog
        self.storage = catalog.storage
        self.number = number
        self.id = uuid.uuid4().hex
        self._intent = Intent(catalog.storage.staging / PUBLISHING / f"{self.id}.json", number)
        self._has_intent = False
        self._has_rewritten = rewrites
        self._has_copies = False
        self._rewrites = rewrites

    def __enter__(self) -> Self:
        # Work that rewrites makes temporary tables.
        self._lent = closing(self.catalog.cursor()) if self._rewrites else self.catalog.borrowed()
        self.cursor = self._lent.__enter__()
        try:
            self.cursor.execute("BEGIN")
            fence.sign(self.cursor, self.number, self.id)
            if self._has_rewritten:
                self._note()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        at_rest = False
        try:
            if kind is None:
                at_rest = self._commit()
            else:
                # After an orderly rollback DuckLake has deleted what it wrote.
                self._has_rewritten &= not rollback(self.cursor)
                self._undo()
        finally:
            self._end(at_rest=at_rest)

    def _end(self, *, at_rest: bool = False) -> None:
        if at_rest:
            self._lent.__exit__(None, None, None)
        else:
            rollback(self.cursor)
            self.cursor.close()

    def bring_in(
        self,
        moves: Mapping[str, tuple[UPath, UPath]],
        rewrites: Callable[[], Iterable[str]] = tuple,
        checksums: Mapping[UPath, str] | None = None,
        *,
        archive: str | None = None,
    ) -> None:
        """Publish staged files in the tree, and register them and all other changes in the catalogue.

        Parameters
        ----------
        moves
            Staged and final path, by table.
        rewrites
            Does the rest of the transaction, before the files are registered; returns the tables in which it deleted
            or changed rows.
        checksums
            Checksums that the caller has just verified: on a local disk the file in the tree is the staged file.
        archive
            The partition of the rows; None: all.
        """
        storage = self.storage
        finals = [(table, final) for table, (_, final) in moves.items()]
        self._intent.files = [storage.relative(final) for _, final in finals]
        self._note()
        for staged, final in moves.values():
            publish(staged, final)
        self._has_rewritten = True
        rewritten = set(rewrites())
        for table, final in finals:
            add_file(self.cursor, table, final)
        verified = checksums if checksums and storage.is_local else {}
        known = {final: verified[staged] for staged, final in moves.values() if staged in verified}
        record_files(self.cursor, storage, finals, known)
        if len(finals) > INLINED_ROWS:
            rewritten.add("files")
        if rewritten:
            self.keep_aside(rewritten, archive)

    def _note(self) -> None:
        self._intent.write()
        self._has_intent = True

    def keep_aside(self, tables: Iterable[str], archive: str | None = None) -> None:
        """Give files that DuckLake wrote in this transaction a second name, unknown to it.

        Parameters
        ----------
        tables
            Tables whose folders are searched.
        archive
            Only this partition, and the table's folder; None: all.
        """
        self._has_rewritten = self._has_copies = True
        if not self._has_intent:
            self._note()
        found = [path for table in tables for path in _of_partition(self.storage, table, archive)]
        known = self.catalog.known_files(self.cursor)
        own = {PurePosixPath(name).name for name in self._intent.files}
        for path in found:
            if path.name not in known and path.name not in own:
                try:
                    publish(path, self._intent.aside / self.storage.relative(path))
                except FileNotFoundError:
                    # The file of another writer, which lost its lock and has cleaned up.
                    if path.exists():
                        raise

    def _commit(self) -> bool:
        """Commit, and say whether the connection did without any trouble."""
        answered = True
        try:
            self.cursor.execute("COMMIT")
        except duckdb.Error:
            answered = False
            rollback(self.cursor)
            if not self._landed():
                self._undo()
                raise
            settle(self.catalog, self._intent)
        self._forget()
        with suppress(duckdb.Error):  # the data are committed; without this, queries are slower until the next compact
            note_no_nan(self.catalog.cursor_outside(), self.catalog.location.kind, self.catalog.location.schema)
        return answered

    def _landed(self) -> bool:
        """Check over a new connection whether the transaction is in the catalogue.

        Raises
        ------
        Interrupted
            If that fails: files and intent stay, and the next writer settles them.
        """
        longest_s = self.catalog.settings.lock_timeout_s

        def ask() -> bool:
            with self.catalog.changing():
                self.catalog.renew()
                with closing(self.catalog.cursor()) as cursor:
                    return fence.has(cursor, self.catalog.location, self.id, longest_s)

        return until_back(ask, longest_s)

    def _undo(self) -> None:
        for name in self._intent.files:
            remove(self.storage.data / "main" / name)
        self._intent.files = []
        if not self._has_rewritten:
            self._forget()
        # Otherwise the intent stays, so that the next writer looks for files that DuckLake may have left in the tree.

    def _forget(self) -> None:
        if self._has_copies:
            remove_folder(self._intent.aside)
        if self._has_intent:
            with suppress(OSError):  # the transaction is over: the next writer settles an intent that is left
                remove(self._intent.path)


def _of_partition(storage: Storage, table: str, archive: str | None) -> Iterator[UPath]:
    if archive is None:
        yield from storage.table_files(table)
        return
    for folder in {storage.table_folder(table), storage.table_folder(table, archive)}:
        if folder.exists():
            yield from folder.glob("*.parquet")


def stage_rows(storage: Storage, folder: UPath, tables: Mapping[str, pa.Table]) -> dict[str, tuple[UPath, UPath]]:
    """Stage rows of tables that have no granule; return the staged and the final path of each table with rows."""
    moves = {}
    for name, rows in tables.items():
        if rows.num_rows:
            file = f"{folder.name}-{uuid.uuid4().hex[:8]}.parquet"
            staged = folder / file / f"{name}.parquet"
            spec = TABLES[name]
            write_parquet(spec.cast(rows).sort_by([(key, "ascending") for key in spec.sort]), staged)
            moves[name] = (staged, storage.table_folder(name) / file)
    return moves


def add_file(cursor: duckdb.DuckDBPyConnection, table: str, final: UPath) -> None:
    """Register a file of the tree, in the caller's transaction."""
    cursor.execute(
        "CALL ducklake_add_data_files('lake', ?, ?, hive_partitioning => ?)",
        [table, str(final), table_named(table).partition is not None],
    )


def record_files(
    cursor: duckdb.DuckDBPyConnection,
    storage: Storage,
    files: Iterable[tuple[str, UPath]],
    known: Mapping[UPath, str] | None = None,
) -> None:
    """Record path, rows, bytes and checksum of new files, by table; some checksums are known."""
    values: list[object] = []
    for table, path in files:
        content = (known or {}).get(path) or checksum(path)
        values += [storage.relative(path), table, parquet_rows(path), path.stat().st_size, content]
    if values:
        marks = ", ".join("(?, ?, ?, ?, ?)" for _ in range(len(values) // 5))
        cursor.execute(f"INSERT INTO files VALUES {marks}", values)
