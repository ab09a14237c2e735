"""Report what a lake holds, and verify it."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb
import pyarrow as pa

from lake.commit.intents import Intent, intents
from lake.commit.ledger import SAMPLE_GRANULE
from lake.commit.quarantine import as_text, held
from lake.errors import ConfigurationError, ReadOnly
from lake.model.declared import all_tables
from lake.model.table import Table, quoted
from lake.store.catalog import Catalog
from lake.store.connection import rollback
from lake.store.migrations import KEPT_IN_CATALOGUE
from lake.store.pruning import METADATA
from lake.store.storage import Storage, changed_at, checksum, is_local, parquet_rows
from lake.text import counted
from lake.upkeep.consistency import Finding, check_constraints, check_coverage

if TYPE_CHECKING:
    from upath import UPath

_GIVE_UP = "restore it from a backup of the files; or move it away, and give up its rows with: lightlake restore now"

# The catalogue's own bookkeeping: its rows may sit in the catalogue database, and need no plain reader.
BOOKKEEPING = ("files", "schema_version")

# How often a reader looks again, at most, at a lake that is written meanwhile.
_LOOKS = 3

# Rows, bytes and checksum of files.
Records: TypeAlias = "dict[UPath, tuple[int, int, str]]"

# The clocks of a catalogue's disk and of S3 differ by less, seconds.
_SKEW_S = 60


def status(cursor: duckdb.DuckDBPyConnection) -> pa.Table:
    """Count what each archive and release was asked for and holds, with its age and what all attempts cost.

    Columns: targets asked, found, empty, failed, rejected; sources, rows, bytes, age; seconds, retries, requests, peak
    memory.
    """
    return cursor.execute(
        """
        WITH asked AS (
            SELECT archive, release, count(*) AS asked,
                count(*) FILTER (status = 'found') AS found,
                count(*) FILTER (status = 'empty') AS empty,
                count(*) FILTER (status = 'failed') AS failed,
                count(*) FILTER (status = 'rejected') AS rejected,
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
            FROM ledger WHERE NOT starts_with(granule, ?) GROUP BY ALL
        )
        SELECT archive, release, coalesce(asked, 0) AS asked, coalesce(found, 0) AS found,
            coalesce(empty, 0) AS empty, coalesce(failed, 0) AS failed,
            coalesce(rejected, 0) AS rejected, coalesce(sources, 0) AS sources,
            coalesce(rows, 0) AS rows, coalesce(bytes, 0) AS bytes,
            extract(epoch FROM now() - last_asked) / 86400 AS age_days,
            round(seconds, 1) AS seconds, retries, requests, round(peak_rss_mb) AS peak_rss_mb
        FROM asked FULL JOIN held USING (archive, release) FULL JOIN spent USING (archive, release)
            LEFT JOIN sizes USING (archive)
        ORDER BY archive, release
        """,
        [SAMPLE_GRANULE],
    ).to_arrow_table()


def quarantined(catalog: Catalog) -> list[str]:
    """Return a line for each day on which unknown files were moved to the quarantine."""
    return [as_text(one, catalog.settings.quarantine_days) for one in held(catalog.storage)]


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
        Errors and notes; without errors the lake is sound.
    """
    with catalog.storage.reached():
        return _twice(catalog, quick=quick)


def _twice(catalog: Catalog, *, quick: bool) -> list[Finding]:
    findings = _verify(catalog, quick=quick)
    if not any(finding.is_error for finding in findings):
        return findings
    # An error may come from a commit or compaction under way: look again while writers wait.
    try:
        with catalog.lock(reading=True):
            return _verify(catalog, quick=quick)
    except (ConfigurationError, ReadOnly):
        pass  # a reader cannot make writers wait: what is found twice is true
    for _ in range(_LOOKS):
        catalog.refresh()
        again = _verify(catalog, quick=quick)
        alike = [finding for finding in again if not finding.is_error or finding in findings]
        if alike == again or any(finding.is_error for finding in alike):
            return alike
        findings = again
    return findings


def _verify(catalog: Catalog, *, quick: bool) -> list[Finding]:
    with catalog.borrowed() as cursor:
        return _checked(catalog, cursor, quick=quick)


def _checked(catalog: Catalog, cursor: duckdb.DuckDBPyConnection, *, quick: bool) -> list[Finding]:
    findings: list[Finding] = []
    try:
        # All checks see one state of the lake, and DuckLake reads its catalogue once instead of for each query.
        cursor.execute("BEGIN")
        findings += _check_schema(cursor, catalog)
        if findings:
            return findings  # all other checks need them
        recorded = recorded_files(cursor, catalog.storage)
        live = live_files(cursor, catalog)
        for table in all_tables().values():
            findings += _check_files(cursor, catalog, table, live[table.name], recorded[table.name], quick=quick)
        if any(finding.is_error for finding in findings):
            return findings  # the other checks would fail on the same files
        # A question about a table without rows takes DuckLake longer than one about many.
        findings += check_constraints(cursor, {*KEPT_IN_CATALOGUE, *(name for name, files in live.items() if files)})
        findings += check_coverage(cursor)
        findings += [
            Finding("note", "quarantine", line, "check whether you need any, and delete the folder if not")
            for line in quarantined(catalog)
        ]
        return findings
    except duckdb.Error as error:
        return [*findings, Finding("error", "files", f"cannot be read: {error}", _GIVE_UP)]
    finally:
        rollback(cursor)


def _check_schema(cursor: duckdb.DuckDBPyConnection, catalog: Catalog) -> Iterator[Finding]:
    """Find tables and columns that were dropped."""
    there: dict[str, set[str]] = {}
    for table, column in _now(cursor, catalog, _COLUMNS):
        there.setdefault(table, set()).add(column)
    hint = "restore the catalogue from a backup made before it was dropped"
    for spec in all_tables().values():
        if spec.name not in there:
            yield Finding("error", "schema", f"table {spec.name} of the schema is missing", hint)
            continue
        for name in spec.names:
            if name not in there[spec.name]:
                yield Finding("error", "schema", f"column {name} of table {spec.name} is missing", hint)


# DuckDB's own list of columns binds every view first.
_COLUMNS = """
    SELECT held.table_name, part.column_name
    FROM {schema}.ducklake_table AS held
    JOIN {schema}.ducklake_column AS part ON part.table_id = held.table_id AND {now_part}
    WHERE {now_held}
"""

# One question for all tables: DuckLake's own list of one table's files takes as long.
_LIVE = """
    SELECT held.table_name, held.path AS folder, file.path, gone.path
    FROM {schema}.ducklake_table AS held
    JOIN {schema}.ducklake_data_file AS file ON file.table_id = held.table_id AND {now_file}
    LEFT JOIN {schema}.ducklake_delete_file AS gone ON gone.data_file_id = file.data_file_id AND {now_gone}
    WHERE {now_held}
"""


def live_files(cursor: duckdb.DuckDBPyConnection, catalog: Catalog) -> dict[str, dict[UPath, UPath | None]]:
    """Return the files of each table at the state of the lake that a cursor sees, each with its delete file."""
    found: dict[str, dict[UPath, UPath | None]] = {name: {} for name in all_tables()}
    for table, folder, data, delete in _now(cursor, catalog, _LIVE):
        if table in found:
            root = catalog.storage.data / "main" / folder
            found[table][root / data] = root / delete if delete else None
    return found


def _now(cursor: duckdb.DuckDBPyConnection, catalog: Catalog, question: str) -> list[tuple[Any, ...]]:
    """Ask the catalogue's own tables for what is there at the state of the lake that a cursor sees."""
    snapshot = cursor.execute("SELECT id FROM ducklake_current_snapshot('lake')").fetchall()[0][0]
    now = {
        f"now_{name}": f"{name}.begin_snapshot <= {snapshot} "
        f"AND ({name}.end_snapshot IS NULL OR {name}.end_snapshot > {snapshot})"
        for name in ("held", "part", "file", "gone")
    }
    return cursor.execute(question.format(schema=f'{METADATA}."{catalog.location.schema}"', **now)).fetchall()


def recorded_files(cursor: duckdb.DuckDBPyConnection, storage: Storage) -> dict[str, Records]:
    """Return rows, bytes and checksum of files by table, as their commits recorded them."""
    found: dict[str, Records] = {name: {} for name in all_tables()}
    rows = cursor.execute("SELECT table_name, path, rows, bytes, blake2b FROM files").fetchall()
    for table, path, count, size, digest in rows:
        found.setdefault(table, {})[storage.data / "main" / path] = (count, size, digest)
    return found


def _check_files(
    cursor: duckdb.DuckDBPyConnection,
    catalog: Catalog,
    table: Table,
    live: dict[UPath, UPath | None],
    recorded: Records,
    *,
    quick: bool,
) -> Iterator[Finding]:
    storage = catalog.storage
    try:
        # First the tree, then the intents, then all that the catalogue knows: a file in neither of the latter was in
        # neither when the tree was listed.
        in_tree = set(storage.table_files(table.name))
    except OSError as error:
        message = f"{error.filename or storage.table_folder(table.name)} cannot be read: {error.strerror or error}"
        hint = "ask its owner for permission; nothing else of this table was checked"
        yield Finding("error", "files", f"{table.name}: {message}", hint)
        return
    under_way = intents(storage)
    whole = True
    for path in sorted(live):
        problem = damage(path, recorded.get(path), quick=quick)
        if problem:
            whole = False
            yield Finding("error", "files", f"{storage.relative(path)} {problem}", _GIVE_UP)
        elif path not in recorded and table.name not in BOOKKEEPING:
            yield Finding(
                "note", "checksums", f"{storage.relative(path)} has no recorded checksum", "run: lightlake compact"
            )
    deletes = {delete for delete in live.values() if delete}
    others = in_tree - set(live) - deletes
    known = catalog.known_files(cursor) if others else set()
    unknown = {path for path in others if path.name not in known}
    unjudged = {path for path in unknown if _is_being_changed(catalog, path, under_way)}
    orphans = sorted(unknown - unjudged)
    if unjudged:
        yield Finding(
            "note",
            "changes",
            f"{table.name}: {counted(len(unjudged), 'file')} of a change that is under way or later",
            "check again; files left by a crash are removed by the next change, or by: lightlake compact",
        )
    for path in orphans:
        yield Finding(
            "error",
            "orphans",
            f"{storage.relative(path)} is in the tree but not in the catalogue",
            "run: lightlake compact, which moves it to the quarantine",
        )
    if table.name in BOOKKEEPING:
        return
    waiting = len(others) - len(unknown) + len(deletes)
    if waiting:
        yield Finding(
            "note",
            "at rest",
            f"{table.name}: {waiting} replaced or delete files are still in the tree, so plain readers count too much",
            "run: lightlake compact",
        )
    elif whole and not unknown and live:
        yield from _check_plain(cursor, storage, table, quick=quick)


def _is_being_changed(catalog: Catalog, path: UPath, under_way: list[Intent]) -> bool:
    """Say whether an unknown file may belong to a change under way, or is gone by now."""
    # The names of files that DuckLake writes, for a deletion or a compaction, are not known beforehand.
    if under_way and path.name.startswith("ducklake-"):
        return True
    if any(catalog.storage.relative(path) in intent.files for intent in under_way):
        return True
    try:
        changed = changed_at(path)
    except FileNotFoundError:
        return True
    return catalog.as_of is not None and changed >= catalog.as_of - (0 if catalog.storage.is_local else _SKEW_S)


def damage(path: UPath, record: tuple[int, int, str] | None, *, quick: bool = False) -> str | None:
    """Compare a file with the record of its commit; return what is wrong with it, or None."""
    try:
        size = path.stat().st_size
        rows = parquet_rows(path)
    except FileNotFoundError:
        return "is missing"
    except (OSError, pa.ArrowInvalid) as error:
        if isinstance(error, OSError) and not is_local(path):
            raise  # S3 failed, not the file: see Storage.reached
        return f"cannot be read: {error}"
    if record is None:
        return None
    if (rows, size) != record[:2]:
        return f"has {counted(rows, 'row')} in {counted(size, 'byte')} instead of {record[0]} in {record[1]}"
    if not quick and checksum(path) != record[2]:
        return "has changed: its checksum is not the recorded one"
    return None


def _check_plain(
    cursor: duckdb.DuckDBPyConnection, storage: Storage, table: Table, *, quick: bool
) -> Iterator[Finding]:
    """Compare the catalogue's rows with those that a plain reader finds in the tree."""
    pattern = "archive=*/*.parquet" if table.partition else "*.parquet"
    plain = (
        f"read_parquet({quoted(f'{glob.escape(str(storage.table_folder(table.name)))}/{pattern}')}, "
        f"hive_partitioning = {'true' if table.partition else 'false'}, union_by_name = true)"
    )
    # A digest of whole rows in any order; HUGEINT, since sums of 64-bit hashes overflow.
    # Files from before a migration lack its new columns, and the catalogue has NULL there.
    there = {row[0] for row in cursor.execute(f"DESCRIBE FROM {plain}").fetchall()}
    columns = [column.name if column.name in there else f"NULL::{column.type}" for column in table.columns]
    digests = ["0" if quick else f"sum(hash({', '.join(names)})::HUGEINT)" for names in (table.names, columns)]
    mine = cursor.execute(f"SELECT count(*), {digests[0]} FROM {table.name}").fetchall()[0]
    theirs = cursor.execute(f"SELECT count(*), {digests[1]} FROM {plain}").fetchall()[0]
    if mine != theirs:
        # Rows that are still in the catalogue database go to files with the next compaction.
        level = "note" if mine[0] > theirs[0] else "error"
        yield Finding(
            level,
            "plain tree",
            f"{table.name}: the catalogue has {counted(mine[0], 'row')}, a plain reader of the tree {theirs[0]}"
            + ("" if mine[0] != theirs[0] else " with other values"),
            "run: lightlake compact",
        )
