"""Bring a lake to rest: few large sorted files, and a plain tree equal to the catalogue."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
from upath import UPath

from lake.commit.intents import set_aside_unknown
from lake.commit.quarantine import expire
from lake.commit.transaction import Change, record_files, write
from lake.errors import CatalogError
from lake.model.declared import all_tables
from lake.store.backup import back_up
from lake.store.catalog import Catalog
from lake.store.migrations import TARGET_FILE_BYTES
from lake.store.pruning import index_statistics, note_no_nan
from lake.store.storage import Storage, remove_folder
from lake.upkeep.maintenance import BOOKKEEPING, damage, live_files, recorded_files

# Staging of a pull that has not been touched for this long belongs to a process that is dead.
STALE_AFTER = timedelta(days=1)

_NAMED = 3


@dataclass(frozen=True)
class Compacted:
    """What compact did.

    Parameters
    ----------
    quarantined
        Files that nothing knew, and that are in the quarantine now.
    """

    files_before: int
    files_after: int
    bytes_after: int
    quarantined: int
    seconds: float


def compact(catalog: Catalog) -> Compacted:
    """Bring the lake to rest: few large sorted files, and a plain tree equal to the catalogue.

    Rows that the catalogue database holds go to files, deleted rows go, small files become large ones, old snapshots
    and their files go, as does staging of dead pulls. Files that nothing knows are moved to the quarantine. Then the
    catalogue is backed up. Queries that began before may fail and have to be asked again.

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
            before = before or sum(len(live_files(cursor, catalog.storage, table)) for table in all_tables())
            refuse_damaged(cursor, catalog.storage)
            index_statistics(cursor, catalog.location.kind, catalog.location.schema)
        _rewrite(catalog, number)
        _refresh_file_records(catalog, number)
        moved.extend(set_aside_unknown(catalog, number))
        with closing(catalog.cursor()) as cursor:
            note_no_nan(cursor, catalog.location.kind, catalog.location.schema, newest=False)
            live = [path for table in all_tables() for path in live_files(cursor, catalog.storage, table)]
        back_up(catalog.location, catalog.storage, catalog.settings.backups)
        return len(live), sum(path.stat().st_size for path in live)

    after, size = write(catalog, work)
    with catalog.storage.reached():
        _remove_stale_staging(catalog.storage)
        expire(catalog.storage, catalog.settings.quarantine_days)
    return Compacted(before, after, size, len(moved), time.monotonic() - started)


def _rewrite(catalog: Catalog, number: int) -> None:
    """Rewrite and remove files, each step of DuckLake's a change of its own."""
    for step in (
        "ducklake_flush_inlined_data('lake')",
        "ducklake_rewrite_data_files('lake', delete_threshold => 0)",
        "ducklake_merge_adjacent_files('lake')",
    ):
        with Change(catalog, number, rewrites=True) as change:
            change.cursor.execute(f"CALL {step}").fetchall()
            change.keep_aside(all_tables())
    # These write no file, and delete none but those that DuckLake has scheduled before.
    with closing(catalog.cursor()) as cursor:
        cursor.execute("CALL ducklake_expire_snapshots('lake', older_than => now())").fetchall()
        cursor.execute("CALL ducklake_cleanup_old_files('lake', cleanup_all => true)").fetchall()


def refuse_damaged(cursor: duckdb.DuckDBPyConnection, storage: Storage, *, archive: str | None = None) -> None:
    """Compare the checksums of all files that a compaction may read with those of their commits.

    A file with a wrong bit can often be read, and its rows, written anew, would have a right checksum.

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
    for table in all_tables():
        records = recorded_files(cursor, storage, table)
        folders: dict[UPath, list[UPath]] = {}
        for path, delete in live_files(cursor, storage, table).items():
            if delete is not None or (archive is not None and path.parent.name == f"archive={archive}"):
                candidates.append((path, records.get(path)))
            elif path not in records or records[path][1] < TARGET_FILE_BYTES:
                folders.setdefault(path.parent, []).append(path)
        # A file that is alone in its folder has none to be merged with.
        candidates += [(path, records.get(path)) for paths in folders.values() if len(paths) > 1 for path in paths]
    with ThreadPoolExecutor(4) as pool:  # hashing lets go of the interpreter
        problems = list(pool.map(lambda one: damage(*one), candidates))
    damaged = [
        f"{storage.relative(path)} {problem}"
        for (path, _), problem in zip(candidates, problems, strict=True)
        if problem
    ]
    if damaged:
        more = f", and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        raise CatalogError(
            f"nothing was compacted, since {len(damaged)} of {len(candidates)} files to rewrite are not as they were "
            f"committed: {'; '.join(damaged[:_NAMED])}{more}",
            hint="restore them from a backup; lightlake verify names all",
        )


def _refresh_file_records(catalog: Catalog, number: int) -> None:
    """Forget files that are gone, and note the checksums of files that compaction wrote."""
    with Change(catalog, number, rewrites=True) as change:
        note_files(change.cursor, catalog.storage)
        change.keep_aside(("files",))


def note_files(cursor: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    """Bring table files up to date inside a transaction: forget files that are gone, note those that are new."""
    recorded = {row[0] for row in cursor.execute("SELECT path FROM files").fetchall()}
    live = {
        storage.relative(path): (table, path) for table in all_tables() for path in live_files(cursor, storage, table)
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
        except FileNotFoundError:  # its run has done with it meanwhile
            continue
        # Nothing is as far in the future: its clock was wrong, and it would never be old.
        if not oldest <= newest <= time.time() + STALE_AFTER.total_seconds():
            remove_folder(folder)


def _changed_last(storage: Storage, folder: UPath) -> float:
    # On S3 a folder has no age of its own.
    aged = [folder, *folder.rglob("*")] if storage.is_local else [path for path in folder.rglob("*") if path.is_file()]
    return max((path.stat().st_mtime for path in aged), default=0)
