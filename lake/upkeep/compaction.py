"""Compact a lake: few large sorted files, and a plain tree equal to the catalogue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from lake.commit.intents import set_aside_unknown
from lake.commit.quarantine import expire
from lake.commit.transaction import Change, record_files, write
from lake.errors import CatalogError
from lake.model.declared import all_tables
from lake.store.backup import back_up
from lake.store.catalog import Catalog
from lake.store.connection import rollback
from lake.store.migrations import MERGED_BELOW_BYTES, set_writing
from lake.store.pruning import begin_statistics, index_statistics, note_no_nan
from lake.store.storage import Storage, remove_folder
from lake.text import counted
from lake.upkeep.maintenance import BOOKKEEPING, damage, live_files, recorded_files

if TYPE_CHECKING:
    from upath import UPath

# A staging folder untouched for this long belongs to a dead process.
STALE_AFTER = timedelta(days=1)

# So many files of a table are made in one transaction.
_MERGED_AT_ONCE = 8

_NAMED = 3


@dataclass(frozen=True)
class Compacted:
    """The result of a compaction.

    Parameters
    ----------
    quarantined
        Unknown files that were moved to the quarantine.
    """

    files_before: int
    files_after: int
    bytes_after: int
    quarantined: int
    seconds: float

    @property
    def summary(self) -> str:
        """Say what it did: a small lake may have more files than before, with the rows that its catalogue held."""
        with_rows = " and rows that were in the catalogue" if self.files_after > self.files_before else ""
        return (
            f"{counted(self.files_before, 'file')}{with_rows} became {counted(self.files_after, 'file')} "
            f"({self.bytes_after / 1e6:.1f} MB), {counted(self.quarantined, 'unknown file')} moved to the quarantine"
        )


def compact(catalog: Catalog) -> Compacted:
    """Merge small files into few large sorted ones, and make the plain tree equal to the catalogue.

    Rows in the catalogue database move to files; deleted rows, old snapshots with their files, and staging of dead
    pulls are removed; unknown files move to the quarantine. Then the catalogue is backed up. Queries that began before
    may fail; run them again.

    Raises
    ------
    CatalogError
        If a file that would be rewritten is not the one that was committed: nothing has changed then.
    """
    started = time.monotonic()
    before = 0
    moved: list[UPath] = []

    def work(number: int) -> tuple[int, int]:
        nonlocal before
        with closing(catalog.cursor()) as cursor:
            with _at_once(cursor):
                before = before or sum(map(len, live_files(cursor, catalog).values()))
                refuse_damaged(cursor, catalog)
            index_statistics(cursor, catalog.location.kind, catalog.location.schema)
            begin_statistics(catalog.cursor_outside(), catalog.location.kind, catalog.location.schema)
            set_writing(cursor)
        _rewrite(catalog, number)
        _refresh_file_records(catalog, number)
        moved.extend(set_aside_unknown(catalog, number))
        with closing(catalog.cursor()) as cursor:
            note_no_nan(cursor, catalog.location.kind, catalog.location.schema, newest=False)
            with _at_once(cursor):
                live = [path for files in live_files(cursor, catalog).values() for path in files]
        back_up(catalog.location, catalog.storage, catalog.settings.backups)
        return len(live), sum(path.stat().st_size for path in live)

    after, size = write(catalog, work)
    with catalog.storage.reached():
        _remove_stale_staging(catalog.storage)
        expire(catalog.storage, catalog.settings.quarantine_days)
    return Compacted(before, after, size, len(moved), time.monotonic() - started)


@contextmanager
def _at_once(cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Ask in one transaction: DuckLake reads its catalogue once then, instead of for each question."""
    cursor.execute("BEGIN")
    try:
        yield
    finally:
        rollback(cursor)


def _rewrite(catalog: Catalog, number: int) -> None:
    """Rewrite and remove files; each step of DuckLake is a change of its own."""
    for step in ("ducklake_flush_inlined_data('lake')", "ducklake_rewrite_data_files('lake', delete_threshold => 0)"):
        with Change(catalog, number, rewrites=True) as change:
            change.cursor.execute(f"CALL {step}").fetchall()
            change.keep_aside(all_tables())
    while _merge(catalog, number):
        _clean(catalog)  # a large lake needs room for few files at a time, not for a second copy of all
    _clean(catalog)


def _merge(catalog: Catalog, number: int) -> bool:
    """Merge small files into some large ones, a few of each table; return whether there may be more."""
    with Change(catalog, number, rewrites=True) as change:
        merged = change.cursor.execute(
            "SELECT table_name, sum(files_created) FROM ducklake_merge_adjacent_files('lake', "
            f"max_compacted_files => {_MERGED_AT_ONCE}, max_file_size => {MERGED_BELOW_BYTES}) GROUP BY ALL"
        ).fetchall()
        change.keep_aside(all_tables())
    return any(created >= _MERGED_AT_ONCE for _, created in merged)


def _clean(catalog: Catalog) -> None:
    """Remove files that only old snapshots have. This writes none."""
    with closing(catalog.cursor()) as cursor:
        cursor.execute("CALL ducklake_expire_snapshots('lake', older_than => now())").fetchall()
        cursor.execute("CALL ducklake_cleanup_old_files('lake', cleanup_all => true)").fetchall()


def refuse_damaged(cursor: duckdb.DuckDBPyConnection, catalog: Catalog, *, archive: str | None = None) -> None:
    """Compare the checksums of all files that a compaction may read with those of their commits.

    A file with a flipped bit can often be read, and its rewritten rows would get a valid checksum.

    Parameters
    ----------
    archive
        Also compare all files of this archive's partitions.

    Raises
    ------
    CatalogError
        Names the files that are not as they were committed.
    """
    candidates = []
    storage = catalog.storage
    recorded = recorded_files(cursor, storage)
    for table, files in live_files(cursor, catalog).items():
        records = recorded[table]
        folders: dict[UPath, list[UPath]] = {}
        for path, delete in files.items():
            if delete is not None or (archive is not None and path.parent.name == f"archive={archive}"):
                candidates.append((path, records.get(path)))
            elif path not in records or records[path][1] < MERGED_BELOW_BYTES:
                folders.setdefault(path.parent, []).append(path)
        # A file that is alone in its folder is not merged.
        candidates += [(path, records.get(path)) for paths in folders.values() if len(paths) > 1 for path in paths]
    with ThreadPoolExecutor(4) as pool:  # hashing releases the interpreter lock
        problems = list(pool.map(lambda one: damage(*one), candidates))
    damaged = [
        f"{storage.relative(path)} {problem}"
        for (path, _), problem in zip(candidates, problems, strict=True)
        if problem
    ]
    if damaged:
        more = f", and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        raise CatalogError(
            f"nothing was compacted, since {len(damaged)} of {counted(len(candidates), 'file')} to "
            f"rewrite differ from what was "
            f"committed: {'; '.join(damaged[:_NAMED])}{more}",
            hint="restore them from a backup; lightlake verify names all",
        )


def _refresh_file_records(catalog: Catalog, number: int) -> None:
    """Update table files: forget files that are gone, and record the checksums of files that compaction wrote."""
    with Change(catalog, number, rewrites=True) as change:
        note_files(change.cursor, catalog)
        change.keep_aside(("files",))


def note_files(cursor: duckdb.DuckDBPyConnection, catalog: Catalog) -> None:
    """Update table files inside a transaction: remove files that are gone, record new ones with their checksums."""
    recorded = {row[0] for row in cursor.execute("SELECT path FROM files").fetchall()}
    storage = catalog.storage
    live = {
        storage.relative(path): (table, path) for table, files in live_files(cursor, catalog).items() for path in files
    }
    gone = sorted(recorded - live.keys())
    new = [live[name] for name in sorted(live.keys() - recorded) if live[name][0] not in BOOKKEEPING]
    if gone:
        cursor.register("gone", pa.table({"path": gone}))
        cursor.execute("DELETE FROM files WHERE path IN (SELECT path FROM gone)")
        cursor.unregister("gone")
    record_files(cursor, storage, new)


def _remove_stale_staging(storage: Storage) -> None:
    oldest = (datetime.now(UTC) - STALE_AFTER).timestamp()
    for folder in storage.staging.iterdir() if storage.staging.exists() else ():
        if not folder.is_dir():
            continue
        try:
            newest = _changed_last(storage, folder)
        except FileNotFoundError:  # its run has removed it meanwhile
            continue
        # A date so far in the future is of a wrong clock, and the folder would never grow old.
        if not oldest <= newest <= time.time() + STALE_AFTER.total_seconds():
            remove_folder(folder)


def _changed_last(storage: Storage, folder: UPath) -> float:
    # On S3 a folder has no age of its own.
    aged = [folder, *folder.rglob("*")] if storage.is_local else [path for path in folder.rglob("*") if path.is_file()]
    return max((path.stat().st_mtime for path in aged), default=0)
