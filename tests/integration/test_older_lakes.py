"""Lakes of every version of the schema, compacted by the software of then, become lakes of this one."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pytest
from helpers.crash import child, migrate_and_die
from helpers.granules import committed, content, errors, expected, register
from helpers.older import code_of, making, unsaid

from lake.model.declared import all_tables, declarations
from lake.model.schema import SCHEMA_VERSION, TABLES
from lake.model.views import view_statements
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.migrations import KEPT_IN_CATALOGUE
from lake.store.storage import Storage
from lake.upkeep.compaction import compact
from lake.upkeep.maintenance import BOOKKEEPING

OLDER = range(1, SCHEMA_VERSION)
# Where the migration of a version is killed.
DEATHS = ("after COMMIT", "after statement 9", "before BEGIN", "before COMMIT")

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Callable[[], Path]]]:
    """What waits for the lake of each version, which are made side by side."""
    folder = tmp_path_factory.mktemp("older")
    with ExitStack() as ending:
        yield {
            version: ending.enter_context(
                # Since version 8, sources bring their tables with them.
                making(
                    code_of(version, folder / f"code{version}", *(("tasks",) if version >= 8 else ())),
                    folder / f"lake{version}",
                )
            )
            for version in OLDER
        }


def _plain(root: Path, table: str, columns: str) -> list[tuple[object, ...]]:
    """Rows as a plain reader of the tree has them, as docs/how-to/other-tools.md says it."""
    pattern = "archive=*/*.parquet" if TABLES[table].partition else "*.parquet"
    return duckdb.sql(
        f"SELECT {columns} FROM read_parquet('{root}/data/main/{table}/{pattern}', hive_partitioning = true, "
        "union_by_name = true) ORDER BY ALL"
    ).fetchall()


@pytest.mark.parametrize("version", OLDER)
def test_a_lake_of_an_older_version_is_migrated_whatever_stops_it(made, version):
    root = made[version]()
    before = {}
    for folder in (root / "data" / "main").iterdir():
        if folder.name not in BOOKKEEPING and any(folder.rglob("*.parquet")):
            there = duckdb.sql(f"FROM '{folder}/**/*.parquet' LIMIT 0").columns
            columns = ", ".join(name for name in TABLES[folder.name].names if name in there)
            before[folder.name] = columns, _plain(root, folder.name, columns)
    assert {"sources", "lightcurves", "exposures", "bands", "labels", "ledger"} <= before.keys()

    settings = load_settings(url=str(root), catalog=None, lock_timeout_s=30.0)
    dying = child(migrate_and_die, settings, DEATHS[version % len(DEATHS)])
    dying.join()
    assert dying.exitcode == -signal.SIGKILL
    catalog = Catalog(Storage(root), settings)
    catalog.create()
    assert not catalog.create()
    cursor = catalog.cursor()
    cursor.execute("BEGIN")  # else DuckLake reads its catalogue for each question
    assert cursor.execute("SELECT max(version) FROM schema_version").fetchall() == [(SCHEMA_VERSION,)]
    kept = cursor.execute(
        "SELECT DISTINCT scope_entry FROM ducklake_options('lake') WHERE option_name = 'data_inlining_row_limit' "
        "AND scope = 'TABLE'"
    ).fetchall()
    assert {name.rpartition(".")[2] for (name,) in kept} == set(KEPT_IN_CATALOGUE)
    described = cursor.execute(
        "SELECT table_name, column_name, replace(data_type, 'TIMESTAMP WITH TIME ZONE', 'TIMESTAMPTZ'), comment "
        "FROM duckdb_columns() WHERE database_name = 'lake' "
        "AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake')"
    ).fetchall()
    assert sorted(described) == sorted(
        (table.name, column.name, column.type, column.comment)
        for table in all_tables().values()
        for column in table.columns
    )
    views = cursor.execute("SELECT view_name FROM duckdb_views() WHERE database_name = 'lake'").fetchall()
    assert len(views) == sum("VIEW" in statement.partition("AS")[0] for statement in view_statements(declarations()))
    for (view,) in views:
        cursor.execute(f"SELECT count(*) FROM {view}").fetchall()
    for name, (columns, rows) in before.items():
        assert cursor.execute(f"SELECT {columns} FROM {name} ORDER BY ALL").fetchall() == rows, name
    cursor.close()
    assert unsaid(catalog) == 0
    assert errors(catalog) == []

    # Files of then and of now beside each other.
    register(catalog, range(3, 5), "new")
    committed(catalog, {2: 2, 3: 1}, "g2", exposures={"e1": 58001.0})
    compact(catalog)
    assert errors(catalog) == []
    assert content(catalog) == expected({0: 1, 1: 1, 2: 2, 3: 1})
    cursor = catalog.cursor()
    cursor.execute("BEGIN")
    for name in ("sources", "lightcurves", "exposures", "labels", "ledger"):  # of which there are files of both
        columns = ", ".join(TABLES[name].names)
        mine = cursor.execute(f"SELECT {columns} FROM {name} ORDER BY ALL").fetchall()
        assert _plain(root, name, columns) == mine, name
    retries = cursor.execute("SELECT granule, retries FROM ledger ORDER BY ALL").fetchall()
    assert retries == [*((granule, None if version < 6 else 0) for granule in ("g0", "g1")), ("g2", 0)]
    catalog.close()
