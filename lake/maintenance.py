"""Keep a lake in order: status, verify, compact."""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
from upath import UPath

from lake.catalog import Catalog
from lake.errors import ConfigurationError
from lake.schema import TABLES
from lake.storage import Storage, checksum, parquet_rows, remove, remove_folder
from lake.table import Table, quoted
from lake.transaction import record_files, recover, remove_unknown, write_intent

# Staging of a pull that has not been touched for this long belongs to a process that is dead.
STALE_AFTER = timedelta(days=1)

# The catalogue's own bookkeeping: its rows may sit in the catalogue database, and need no plain reader.
_BOOKKEEPING = ("files", "schema_version")


@dataclass(frozen=True)
class Finding:
    """One thing that verify saw."""

    level: str  # error or note
    check: str
    message: str
    hint: str

    @property
    def is_error(self) -> bool:
        """Say whether the lake is not as it must be."""
        return self.level == "error"


def status(cursor: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return, for each archive and release, what was asked and is held, its age, and what all attempts took.

    That is: targets asked, found, empty, failed; sources, rows, bytes, age; seconds, retries, requests, peak memory.
    """
    return cursor.execute(
        """
        WITH asked AS (
            SELECT archive, release, count(*) AS asked,
                count(*) FILTER (status = 'found') AS found,
                count(*) FILTER (status = 'empty') AS empty,
                count(*) FILTER (status = 'failed') AS failed,
                max(asked_at) AS last_asked
            FROM coverage GROUP BY ALL
        ), held AS (
            SELECT archive, release, count(DISTINCT source_id) AS sources, sum(n)::BIGINT AS rows
            FROM statistics GROUP BY ALL
        ), sizes AS (
            SELECT regexp_extract(path, 'archive=([^/]+)', 1) AS archive, sum(bytes)::BIGINT AS bytes
            FROM files GROUP BY ALL
        ), spent AS (
            SELECT archive, release, sum(seconds) AS seconds, sum(retries)::BIGINT AS retries,
                sum(requests)::BIGINT AS requests, max(peak_rss_mb) AS peak_rss_mb
            FROM ledger GROUP BY ALL
        )
        SELECT archive, release, coalesce(asked, 0) AS asked, coalesce(found, 0) AS found,
            coalesce(empty, 0) AS empty, coalesce(failed, 0) AS failed, coalesce(sources, 0) AS sources,
            coalesce(rows, 0) AS rows, coalesce(bytes, 0) AS bytes,
            extract(epoch FROM now() - last_asked) / 86400 AS age_days,
            round(seconds, 1) AS seconds, retries, requests, round(peak_rss_mb) AS peak_rss_mb
        FROM asked FULL JOIN held USING (archive, release) FULL JOIN spent USING (archive, release)
            LEFT JOIN sizes USING (archive)
        ORDER BY archive, release
        """
    ).to_arrow_table()


def verify(catalog: Catalog, *, quick: bool = False) -> list[Finding]:
    """Check a lake: its files, the plain Hive tree, checksums, constraints and coverage.

    Parameters
    ----------
    catalog
        The lake.
    quick
        Do not read the files' content: no checksums, no row-by-row comparison.

    Returns
    -------
    list of Finding
        Errors and notes; no errors means that the lake is as it must be.
    """
    findings = _verify(catalog, quick=quick)
    if not any(finding.is_error for finding in findings):
        return findings
    # What looks wrong may be a commit or a compaction that is on its way: look again while writers wait.
    try:
        with catalog.lock():
            return _verify(catalog, quick=quick)
    except ConfigurationError:  # one who may only read cannot make writers wait
        return findings


def _verify(catalog: Catalog, *, quick: bool) -> list[Finding]:
    cursor = catalog.cursor()
    try:
        findings: list[Finding] = []
        for table in TABLES.values():
            findings += _check_files(cursor, catalog, table, quick=quick)
        if any(finding.is_error for finding in findings):
            return findings  # what follows would stumble over the same files
        findings += _check_constraints(cursor)
        findings += _check_coverage(cursor)
        return findings
    except duckdb.Error as error:
        return [*findings, Finding("error", "files", f"cannot be read: {error}", "restore them from a backup")]
    finally:
        cursor.close()


def live_files(cursor: duckdb.DuckDBPyConnection, storage: Storage, table: str) -> dict[UPath, UPath | None]:
    """Return a table's files as the catalogue knows them, each with its delete file."""
    rows = cursor.execute("SELECT data_file, delete_file FROM ducklake_list_files('lake', ?)", [table]).fetchall()
    return {storage.path(data): storage.path(delete) if delete else None for data, delete in rows}


def _check_files(
    cursor: duckdb.DuckDBPyConnection, catalog: Catalog, table: Table, *, quick: bool
) -> Iterator[Finding]:
    storage = catalog.storage
    live = live_files(cursor, storage, table.name)
    recorded = {
        storage.data / "main" / path: (rows, size, digest)
        for path, rows, size, digest in cursor.execute(
            "SELECT path, rows, bytes, blake2b FROM files WHERE table_name = ?", [table.name]
        ).fetchall()
    }
    in_tree = set(storage.table_files(table.name))
    whole = True
    for path in sorted(live):
        problem = _damage(path, recorded.get(path), quick=quick)
        if problem:
            whole = False
            yield Finding("error", "files", f"{storage.relative(path)} {problem}", "restore it from a backup")
        elif path not in recorded and table.name not in _BOOKKEEPING:
            yield Finding(
                "note",
                "checksums",
                f"{storage.relative(path)} has no recorded checksum",
                "run: lightlake compact",
            )
    deletes = {delete for delete in live.values() if delete}
    others = in_tree - set(live) - deletes
    known = catalog.known_files(cursor) if others else set()
    orphans = sorted(path for path in others if path.name not in known)
    for path in orphans:
        yield Finding(
            "error", "orphans", f"{storage.relative(path)} is in the tree but not in the catalogue",
            "run: lightlake compact",
        )  # fmt: skip
    if table.name in _BOOKKEEPING:
        return
    waiting = len(others) - len(orphans) + len(deletes)
    if waiting:
        yield Finding(
            "note", "at rest",
            f"{table.name}: {waiting} replaced or delete files are still in the tree, so plain readers count too much",
            "run: lightlake compact",
        )  # fmt: skip
    elif whole and not orphans and live:
        yield from _check_plain(cursor, storage, table, quick=quick)


def _damage(path: UPath, record: tuple[int, int, str] | None, *, quick: bool) -> str | None:
    try:
        size = path.stat().st_size
        rows = parquet_rows(path)
    except FileNotFoundError:
        return "is missing"
    except (OSError, pa.ArrowInvalid) as error:
        return f"cannot be read: {error}"
    if record is None:
        return None
    if (rows, size) != record[:2]:
        return f"has {rows} rows in {size} bytes instead of {record[0]} in {record[1]}"
    if not quick and checksum(path) != record[2]:
        return "has changed: its checksum is not the recorded one"
    return None


def _check_plain(
    cursor: duckdb.DuckDBPyConnection, storage: Storage, table: Table, *, quick: bool
) -> Iterator[Finding]:
    """Compare the catalogue's rows with those that a plain reader of the tree finds."""
    pattern = "archive=*/*.parquet" if table.partition else "*.parquet"
    plain = (
        f"read_parquet({quoted(f'{glob.escape(str(storage.table_folder(table.name)))}/{pattern}')}, "
        f"hive_partitioning = {'true' if table.partition else 'false'}, union_by_name = true)"
    )
    # An order-free digest of whole rows; HUGEINT, since sums of 64-bit hashes overflow less.
    columns = ", ".join(table.names)
    digest = "0" if quick else f"sum(hash({columns})::HUGEINT)"
    mine = cursor.execute(f"SELECT count(*), {digest} FROM {table.name}").fetchall()[0]
    theirs = cursor.execute(f"SELECT count(*), {digest} FROM {plain}").fetchall()[0]
    if mine != theirs:
        # Rows that the catalogue database still holds itself come to files with the next compaction.
        level = "note" if mine[0] > theirs[0] else "error"
        yield Finding(
            level, "plain tree",
            f"{table.name}: the catalogue has {mine[0]} rows, a plain reader of the tree {theirs[0]}"
            + ("" if mine[0] != theirs[0] else " with other values"),
            "run: lightlake compact",
        )  # fmt: skip


def _check_constraints(cursor: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    for table in TABLES.values():
        required = [column.name for column in table.columns if column.required]
        broken = [(f"{name} is NULL", f"{name} IS NULL") for name in required]
        for column in table.columns:
            if column.low is not None:
                broken.append((f"{column.name} < {column.low:g}", f"{column.name} < {column.low}"))
            if column.high is not None:
                broken.append((f"{column.name} > {column.high:g}", f"{column.name} > {column.high}"))
        counts = ", ".join(f"count(*) FILTER ({condition})" for _, condition in broken)
        row = cursor.execute(f"SELECT {counts} FROM {table.name}").fetchall()[0]
        for (rule, _), count in zip(broken, row, strict=True):
            if count:
                yield Finding("error", "constraints", f"{table.name}: {rule} in {count} rows", "report this as a bug")
        if table.name != "lightcurves":  # two measurements may share source, band and time
            yield from _check_unique(cursor, table)
    for child, parent, keys in (
        ("matches", "sources", ("archive", "release", "source_id", "hpx29")),
        ("lightcurves", "sources", ("archive", "release", "source_id", "hpx29")),
        ("statistics", "sources", ("archive", "release", "source_id", "hpx29")),
        ("matches", "coverage", ("archive", "release", "target_id")),
        ("coverage", "targets", ("target_id",)),
        ("labels", "targets", ("target_id",)),
    ):
        count = cursor.execute(f"SELECT count(*) FROM {child} ANTI JOIN {parent} USING ({', '.join(keys)})").fetchall()[
            0
        ][0]
        if count:
            yield Finding(
                "error",
                "constraints",
                f"{child}: {count} rows without their {parent}",
                "report this as a bug",
            )
    count = cursor.execute(
        """
        SELECT count(*) FROM
            (SELECT archive, release, source_id, band, count(*) AS n FROM lightcurves GROUP BY ALL) AS held
            FULL JOIN statistics USING (archive, release, source_id, band)
        WHERE held.n IS DISTINCT FROM statistics.n
        """
    ).fetchall()[0][0]
    if count:
        yield Finding(
            "error", "constraints", f"lightcurves: {count} sources and bands have not the rows of statistics",
            "report this as a bug",
        )  # fmt: skip


def _check_unique(cursor: duckdb.DuckDBPyConnection, table: Table) -> Iterator[Finding]:
    key = ", ".join(table.key)
    twice = cursor.execute(
        f"SELECT count(*), first(k) FROM (SELECT ({key}) AS k FROM {table.name} GROUP BY {key} HAVING count(*) > 1)"
    ).fetchall()[0]
    if twice[0]:
        yield Finding(
            "error", "constraints", f"{table.name}: {twice[0]} keys ({key}) more than once, such as {twice[1]}",
            "report this as a bug",
        )  # fmt: skip


def _check_coverage(cursor: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """Find targets that an archive was asked for with their sample, but that have no answer."""
    rows = cursor.execute(
        """
        WITH asked AS (
            SELECT DISTINCT sample, archive, release, max(asked_at) OVER (PARTITION BY sample, archive, release) AS last
            FROM coverage JOIN labels USING (target_id)
        )
        SELECT sample, archive, release, count(DISTINCT target_id) FILTER (added_at <= last) AS lost,
            count(DISTINCT target_id) FILTER (added_at > last) AS waiting
        FROM asked JOIN labels USING (sample) JOIN targets USING (target_id)
        WHERE NOT EXISTS (
            FROM coverage WHERE coverage.target_id = targets.target_id
                AND coverage.archive = asked.archive AND coverage.release = asked.release
        )
        GROUP BY ALL ORDER BY ALL
        """
    ).fetchall()
    for sample, archive, release, lost, waiting in rows:
        hint = f"run: lightlake pull {archive} --sample {sample}"
        if lost:
            yield Finding("error", "coverage", f"{archive} {release}: {lost} targets of {sample} have no answer", hint)
        if waiting:
            yield Finding("note", "coverage", f"{archive} {release}: {waiting} new targets of {sample} not asked", hint)
    failed = cursor.execute(
        "SELECT archive, release, count(*) FROM coverage WHERE status = 'failed' GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for archive, release, count in failed:
        yield Finding(
            "note",
            "coverage",
            f"{archive} {release}: {count} targets failed",
            f"run: lightlake pull {archive}",
        )


@dataclass(frozen=True)
class Compacted:
    """What compact did."""

    files_before: int
    files_after: int
    bytes_after: int
    orphans: int
    seconds: float


def compact(catalog: Catalog) -> Compacted:
    """Bring the lake to rest: few large sorted files, and a plain tree equal to the catalogue.

    Rows that the catalogue database holds go to files, deleted rows go, small files become large
    ones, old snapshots and their files go, as do orphans and staging of dead pulls. Queries that
    began before may fail and have to be asked again.
    """
    started = time.monotonic()
    with catalog.lock():
        orphans = len(recover(catalog))
        cursor = catalog.cursor()
        before = sum(len(live_files(cursor, catalog.storage, table)) for table in TABLES)
        intent = write_intent(catalog.storage, [])
        for step in (
            "ducklake_flush_inlined_data('lake')",
            "ducklake_rewrite_data_files('lake', delete_threshold => 0)",
            "ducklake_merge_adjacent_files('lake')",
            "ducklake_expire_snapshots('lake', older_than => now())",
            "ducklake_cleanup_old_files('lake', cleanup_all => true)",
        ):
            cursor.execute(f"CALL {step}").fetchall()
        orphans += len(remove_unknown(catalog))
        remove(intent)
        _refresh_file_records(cursor, catalog.storage)
        _remove_stale_staging(catalog.storage)
        live = [path for table in TABLES for path in live_files(cursor, catalog.storage, table)]
        cursor.close()
    size = sum(path.stat().st_size for path in live)
    return Compacted(before, len(live), size, orphans, time.monotonic() - started)


def _refresh_file_records(cursor: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    """Forget files that are gone, and note the checksums of files that compaction wrote."""
    recorded = {row[0] for row in cursor.execute("SELECT path FROM files").fetchall()}
    live = {storage.relative(path): (table, path) for table in TABLES for path in live_files(cursor, storage, table)}
    gone = sorted(recorded - live.keys())
    new = [live[name] for name in sorted(live.keys() - recorded) if live[name][0] not in _BOOKKEEPING]
    if not gone and not new:
        return
    cursor.execute("BEGIN")
    try:
        if gone:
            cursor.register("gone", pa.table({"path": gone}))
            cursor.execute("DELETE FROM files WHERE path IN (SELECT path FROM gone)")
            cursor.unregister("gone")
        record_files(cursor, storage, new)
        cursor.execute("COMMIT")
    except BaseException:
        cursor.execute("ROLLBACK")
        raise


def _remove_stale_staging(storage: Storage) -> None:
    oldest = (datetime.now(UTC) - STALE_AFTER).timestamp()
    for folder in storage.staging.iterdir() if storage.staging.exists() else ():
        if not folder.is_dir():
            continue
        # On S3 a folder has no age of its own.
        aged = (
            [folder, *folder.rglob("*")] if storage.is_local else [path for path in folder.rglob("*") if path.is_file()]
        )
        if max((path.stat().st_mtime for path in aged), default=0) < oldest:
            remove_folder(folder)
