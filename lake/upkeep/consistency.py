"""Check that the rows of a lake agree with each other: keys, parents, statistics, answers, clocks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from lake.commit.ledger import AHEAD, dated_ahead
from lake.model.declared import all_tables, declarations, source_tables
from lake.model.table import Table
from lake.text import counted


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


def check_constraints(cursor: duckdb.DuckDBPyConnection, filled: Collection[str]) -> Iterator[Finding]:
    """Find missing and forbidden values, keys that are there twice, and rows without their parents.

    Parameters
    ----------
    cursor
        Connection to the lake.
    filled
        The tables that may have rows.
    """
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
        counts = [f"count(*) FILTER ({condition})" for _, condition in broken]
        # Of rows with a NULL in a key of one column, too few are counted: such rows are looked at once more.
        is_unique = table.key and table.name != "lightcurves"  # two measurements may share source, band and time
        counts.append(f"count(*) - count(DISTINCT ({', '.join(table.key)}))" if is_unique else "0")
        *row, again = cursor.execute(f"SELECT {', '.join(counts)} FROM {table.name}").fetchall()[0]
        for (rule, _), count in zip(broken, row, strict=True):
            if count:
                found = f"{table.name}: {rule} in {counted(count, 'row')}"
                yield Finding("error", "constraints", found, "report this as a bug")
        if again:
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


def check_coverage(cursor: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
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
