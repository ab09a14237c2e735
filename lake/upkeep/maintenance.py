"""Report what a lake holds, and verify it."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
from upath import UPath

from lake.commit.intents import Intent, intents
from lake.commit.ledger import AHEAD, SAMPLE_GRANULE, dated_ahead
from lake.commit.quarantine import as_text, held
from lake.errors import ConfigurationError, ReadOnly
from lake.model.declared import all_tables, declarations, source_tables
from lake.model.table import Table, quoted
from lake.store.catalog import Catalog
from lake.store.connection import rollback
from lake.store.storage import Storage, changed_at, checksum, is_local, parquet_rows
from lake.text import counted

_GIVE_UP = "restore it from a backup of the files; or move it away, and give up its rows with: lightlake restore now"

# The catalogue's own bookkeeping: its rows may sit in the catalogue database, and need no plain reader.
BOOKKEEPING = ("files", "schema_version")

# How often a reader looks again, at most, at a lake that is written meanwhile.
_LOOKS = 3

# Rows, bytes and checksum of files.
Records = dict[UPath, tuple[int, int, str]]

# The clocks of a catalogue's disk and of S3 differ by less, seconds.
_SKEW_S = 60


@dataclass(frozen=True)
class Finding:
    """One finding of verify."""

    level: str  # error or note
    check: str
    message: str
    hint: str

    @property
    def is_error(self) -> bool:
        """Say whether something is wrong with the lake."""
        return self.level == "error"


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
    cursor = catalog.cursor()
    findings: list[Finding] = []
    try:
        # All checks see one state of the lake, and DuckLake reads its catalogue once instead of for each query.
        cursor.execute("BEGIN")
        findings += _check_schema(cursor)
        if findings:
            return findings  # all other checks need them
        recorded = recorded_files(cursor, catalog.storage)
        for table in all_tables().values():
            findings += _check_files(cursor, catalog, table, recorded[table.name], quick=quick)
        if any(finding.is_error for finding in findings):
            return findings  # the other checks would fail on the same files
        findings += _check_constraints(cursor)
        findings += _check_coverage(cursor)
        findings += [
            Finding("note", "quarantine", line, "check whether you need any, and delete the folder if not")
            for line in quarantined(catalog)
        ]
        return findings
    except duckdb.Error as error:
        return [*findings, Finding("error", "files", f"cannot be read: {error}", _GIVE_UP)]
    finally:
        rollback(cursor)
        cursor.close()


def _check_schema(cursor: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """Find tables and columns that were dropped."""
    there: dict[str, set[str]] = {}
    for table, column in cursor.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = 'lake'"
    ).fetchall():
        there.setdefault(table, set()).add(column)
    hint = "restore the catalogue from a backup made before it was dropped"
    for spec in all_tables().values():
        if spec.name not in there:
            yield Finding("error", "schema", f"table {spec.name} of the schema is missing", hint)
            continue
        for name in spec.names:
            if name not in there[spec.name]:
                yield Finding("error", "schema", f"column {name} of table {spec.name} is missing", hint)


def live_files(cursor: duckdb.DuckDBPyConnection, storage: Storage, table: str) -> dict[UPath, UPath | None]:
    """Return a table's files in the catalogue, each with its delete file."""
    rows = cursor.execute("SELECT data_file, delete_file FROM ducklake_list_files('lake', ?)", [table]).fetchall()
    return {storage.path(data): storage.path(delete) if delete else None for data, delete in rows}


def recorded_files(cursor: duckdb.DuckDBPyConnection, storage: Storage) -> dict[str, Records]:
    """Return rows, bytes and checksum of files by table, as their commits recorded them."""
    found: dict[str, Records] = {name: {} for name in all_tables()}
    rows = cursor.execute("SELECT table_name, path, rows, bytes, blake2b FROM files").fetchall()
    for table, path, count, size, digest in rows:
        found.setdefault(table, {})[storage.data / "main" / path] = (count, size, digest)
    return found


def _check_files(
    cursor: duckdb.DuckDBPyConnection, catalog: Catalog, table: Table, recorded: Records, *, quick: bool
) -> Iterator[Finding]:
    storage = catalog.storage
    try:
        # First the tree, then the intents, then the catalogue: a file in neither of the latter was in neither when the
        # tree was listed.
        in_tree = set(storage.table_files(table.name))
    except OSError as error:
        message = f"{error.filename or storage.table_folder(table.name)} cannot be read: {error.strerror or error}"
        hint = "ask its owner for permission; nothing else of this table was checked"
        yield Finding("error", "files", f"{table.name}: {message}", hint)
        return
    under_way = intents(storage)
    live = live_files(cursor, storage, table.name)
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


def _with_rows(cursor: duckdb.DuckDBPyConnection) -> set[str]:
    """Return the tables that have rows: a question about one without takes DuckLake longer than one about many."""
    looks = " UNION ALL ".join(f"(SELECT '{name}' FROM {name} LIMIT 1)" for name in all_tables())
    return {name for (name,) in cursor.execute(looks).fetchall()}


def _check_constraints(cursor: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    filled = _with_rows(cursor)
    for table in all_tables().values():
        if table.name not in filled:
            continue
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
                found = f"{table.name}: {rule} in {counted(count, 'row')}"
                yield Finding("error", "constraints", found, "report this as a bug")
        if table.key and table.name != "lightcurves":  # two measurements may share source, band and time
            yield from _check_unique(cursor, table)
    source = ("archive", "release", "source_id", "hpx29")
    for child, parent, keys in (
        *((name, "sources", source) for name in ("matches", *source_tables()[1:])),
        ("matches", "coverage", ("archive", "release", "target_id")),
        ("coverage", "targets", ("target_id",)),
        ("labels", "targets", ("target_id",)),
        ("aliases", "targets", ("target_id",)),
    ):
        if child not in filled:
            continue
        has_parent = " AND ".join(f"{key} IS NOT NULL" for key in keys)
        count = cursor.execute(
            f"SELECT count(*) FROM {child} ANTI JOIN {parent} USING ({', '.join(keys)}) WHERE {has_parent}"
        ).fetchall()[0][0]
        if count:
            yield Finding(
                "error",
                "constraints",
                f"{child}: {counted(count, 'row')} without their {parent}",
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
            "error",
            "constraints",
            f"lightcurves: {counted(count, 'source and band', 'sources and bands')} with other "
            f"numbers of rows than statistics",
            "report this as a bug",
        )


def _check_unique(cursor: duckdb.DuckDBPyConnection, table: Table) -> Iterator[Finding]:
    key = ", ".join(table.key)
    twice = cursor.execute(
        f"SELECT count(*), first(k) FROM (SELECT ({key}) AS k FROM {table.name} GROUP BY {key} HAVING count(*) > 1)"
    ).fetchall()[0]
    if twice[0]:
        yield Finding(
            "error",
            "constraints",
            f"{table.name}: {counted(twice[0], 'key')} ({key}) more than once, such as {twice[1]}",
            "report this as a bug",
        )


def _check_coverage(cursor: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """Find targets that an archive was asked for with their sample, but that have no answer."""
    known = {one.archive: one.command for one in declarations() if one.command}

    def command_of(archive: str) -> str:
        return known.get(archive) or f"lightlake pull {archive}"

    rows = cursor.execute(
        """
        WITH asked AS (
            SELECT sample, archive, release, max(asked_at) FILTER (asked_at <= $now) AS last
            FROM coverage JOIN labels USING (target_id) GROUP BY ALL
        ), members AS (
            SELECT sample, target_id, min(coalesce(labels.added_at, targets.added_at)) AS since
            FROM labels JOIN targets USING (target_id) GROUP BY ALL
        )
        SELECT sample, archive, release, count(*) FILTER (since <= last) AS unanswered,
            count(*) FILTER (last IS NULL OR since > last) AS waiting
        FROM asked JOIN members USING (sample)
        WHERE NOT EXISTS (
            FROM coverage WHERE coverage.target_id = members.target_id
                AND coverage.archive = asked.archive AND coverage.release = asked.release
        )
        GROUP BY ALL ORDER BY ALL
        """,
        {"now": datetime.now(UTC) + AHEAD},
    ).fetchall()
    for sample, archive, release, unanswered, waiting in rows:
        hint = f"run: {command_of(archive)} --sample {sample}"
        if unanswered and archive in known:
            # A survey with a command of its own may have been asked for single targets.
            found = counted(unanswered, f"target of {sample} was", f"targets of {sample} were")
            yield Finding("note", "coverage", f"{archive} {release}: {found} not asked for", hint)
        elif unanswered:
            found = counted(unanswered, f"target of {sample} has", f"targets of {sample} have")
            yield Finding("error", "coverage", f"{archive} {release}: {found} no answer", hint)
        if waiting:
            new = f"{counted(waiting, 'new target')} of {sample}"
            yield Finding("note", "coverage", f"{archive} {release}: {new} not asked", hint)
    missing = cursor.execute(
        "SELECT archive, release, status, count(*) FROM coverage WHERE status IN ('failed', 'rejected') "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for archive, release, state, count in missing:
        hint = f"run: {command_of(archive)}{' --retry-failed' if state == 'rejected' else ''}"
        yield Finding("note", "coverage", f"{archive} {release}: {counted(count, 'target')} {state}", hint)
    for table in ("coverage", "ledger", "labels", "targets"):
        for who, (count, latest) in dated_ahead(cursor, table).items():
            of = f" of {who}" if who else ""
            yield Finding(
                "note",
                "clocks",
                f"{table}: {counted(count, f'row{of} is', f'rows{of} are')} dated in the future, up "
                f"to {latest:%Y-%m-%d %H:%M}",
                "check the clocks of the machines that write to the lake with: lightlake doctor",
            )
