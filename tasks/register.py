"""Keep the lake's description of an archive and its bands up to date."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import duckdb
import pyarrow as pa

from lake.commit.transaction import Change, write
from lake.model.declared import table_named
from lake.query import Lake
from lake.store.lock import until_back
from lake.store.migrations import INLINED_ROWS, has_declared
from lake.store.storage import remove_folder, write_parquet
from lake.upkeep.renaming import rename_archives
from tasks.sources.base import Origin

T = TypeVar("T")


def register_archive(lake: Lake, archive: Origin, **facts: pa.Table) -> bool:
    """Update the rows of tables archives and bands; say whether the lake shows this release.

    A release takes over from the one that the lake shows when it has an answer for every target that that one has.

    Parameters
    ----------
    facts
        Whole tables that are needed to read the archive's numbers, such as channels.
    """
    if archive.former_names:
        if not _at_once(lake, has_declared):
            lake.catalog.create()
        rename_archives(lake.catalog)
    news_of = partial(_news, lake, archive, facts)
    found = _at_once(lake, lambda cursor: news_of(cursor) if has_declared(cursor) else None)
    if found is None:
        lake.catalog.create()
        found = _at_once(lake, news_of)
    taking_over, news = found
    if not news:
        return taking_over
    folder = lake.storage.staging / f"register-{uuid.uuid4().hex}"

    def work(number: int) -> None:
        moves = {}
        for name, (table, _, _) in news.items():
            if table.num_rows > INLINED_ROWS:
                file = f"{folder.name}-{uuid.uuid4().hex[:8]}.parquet"
                moves[name] = (folder / file / f"{name}.parquet", lake.storage.table_folder(name) / file)
                write_parquet(table.sort_by([(key, "ascending") for key in table_named(name).key]), moves[name][0])
        with Change(lake.catalog, number) as change:

            def rewrites() -> list[str]:
                for name, (table, where, values) in news.items():
                    change.cursor.execute(f"DELETE FROM {name} {where}", values)
                    if name not in moves:
                        change.cursor.register("wanted", table)
                        change.cursor.execute(f"INSERT INTO {name} BY NAME FROM wanted")
                        change.cursor.unregister("wanted")
                return list(news)

            change.bring_in(moves, rewrites)

    write(lake.catalog, work)
    remove_folder(folder)
    return taking_over


def _at_once(lake: Lake, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    """Ask a lake several questions in one state of it, which costs little more than one."""

    def once() -> T:
        with lake.snapshot() as cursor:
            return work(cursor)

    return until_back(once, lake.settings.lock_timeout_s, lake.catalog.renew)


# A table, and which rows of the lake's it is to take the place of.
_Wanted = tuple[pa.Table, str, list[str]]


def _news(
    lake: Lake, archive: Origin, facts: Mapping[str, pa.Table], cursor: duckdb.DuckDBPyConnection
) -> tuple[bool, dict[str, _Wanted]]:
    """Say whether the lake shows a release, and return what is not up to date, by table."""
    ask = partial(lake.run, within=cursor)
    shown = ask("SELECT release FROM archives WHERE archive = ?", [archive.name])["release"].to_pylist()
    # Mostly there is nothing to take over from, which is cheaper to see than what has an answer.
    taking_over = (
        shown in ([], [archive.release])
        or not ask(
            """
        SELECT 1
        FROM archives JOIN coverage AS shown ON shown.archive = archives.archive AND shown.release = archives.release
        WHERE archives.archive = $archive AND archives.release <> $release AND shown.status IN ('found', 'empty')
            AND NOT EXISTS (
                FROM coverage AS next
                WHERE next.archive = $archive AND next.release = $release AND next.status IN ('found', 'empty')
                    AND next.target_id = shown.target_id
            )
        LIMIT 1
        """,
            {"archive": archive.name, "release": archive.release},
        ).num_rows
    )
    rows = (
        {"archives": [archive.row()], "bands": archive.band_rows()} if taking_over else {"bands": archive.band_rows()}
    )
    mine = {name: table_named(name).cast(pa.Table.from_pylist(rows[name])) for name in rows}
    wanted = {name: (table, "WHERE archive = ?", [archive.name]) for name, table in mine.items()}
    wanted |= {name: (table_named(name).cast(table), "", []) for name, table in facts.items()}
    news = {
        name: one
        for name, one in wanted.items()
        if ask(f"FROM {name} {one[1]} ORDER BY {', '.join(table_named(name).key)}", one[2]).to_pylist()
        != one[0].sort_by([(key, "ascending") for key in table_named(name).key]).to_pylist()
    }
    return taking_over, news
