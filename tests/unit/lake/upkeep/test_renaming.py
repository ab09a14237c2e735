"""Rows of an archive that was called otherwise get its present name, whatever stops that."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from helpers.crash import child, rename_and_die
from helpers.granules import committed, errors, register

from lake.errors import CatalogError
from lake.model.schema import TABLES
from lake.query import Lake
from lake.settings import Settings
from lake.store.catalog import Catalog
from lake.upkeep.renaming import rename_archives

FORMER, NAME = "lightkurve", "tess_kepler"
# To others, all moments of a transaction before its COMMIT are alike: by default one of them, the last.
STEPS = ("before COMMIT 1", "after COMMIT 1", "before compact")
if os.environ.get("LIGHTLAKE_TEST_FULL"):
    STEPS += ("after BEGIN 1", "before insert 5", "after delete 4")
NAMING = [table for table in TABLES.values() if "archive" in table.names]
Held = dict[str, list[tuple[Any, ...]]]


def held(catalog: Catalog, archive: str) -> Held:
    """All rows of an archive, by table; how long a cadence is stands where this version has it."""
    cursor = catalog.cursor()
    found = {}
    for table in NAMING:
        columns = [name for name in table.names if name != "archive"]
        if table.name == "lightcurves" and archive == FORMER:
            columns = [{"cadence_s": "exposure_s", "exposure_s": "NULL"}.get(name, name) for name in columns]
        found[table.name] = cursor.execute(
            f"SELECT {', '.join(columns)} FROM {table.name} WHERE archive = ? ORDER BY ALL", [archive]
        ).fetchall()
    cursor.close()
    return found


def plain(catalog: Catalog, table: str) -> list[tuple[Any, ...]]:
    """Count rows of each archive as a plain reader of the tree does."""
    folder = f"{catalog.storage.data}/main/{table}"
    return duckdb.sql(
        f"SELECT archive, count(*) FROM read_parquet('{folder}/archive=*/*.parquet', hive_partitioning = true, "
        "union_by_name = true) GROUP BY ALL ORDER BY ALL"
    ).fetchall()


def _fill(catalog: Catalog) -> None:
    """Bring rows under the former name, and others."""
    register(catalog, range(60))
    for number in range(3):
        sources = range(20 * number, 20 * number + 20)
        committed(catalog, sources, f"g{number}", exposures={f"e{number}": 58000.0}, archive=FORMER)
    committed(catalog, range(5), "z0")
    cursor = catalog.cursor()
    cursor.execute("INSERT INTO bands (archive, band, description) VALUES ('lightkurve', 'g', 'PDCSAP')")
    cursor.close()


@pytest.fixture
def before(prepared: Callable[..., Catalog]) -> Held:
    """Those rows, in the lake of the test."""
    return held(prepared(_fill), FORMER)


def check_renamed(catalog: Catalog, before: Held) -> None:
    assert held(catalog, NAME) == before
    assert not any(held(catalog, FORMER).values())
    assert errors(catalog) == []
    if catalog.storage.is_local:
        rows = len(before["lightcurves"])
        assert plain(catalog, "lightcurves") == [(NAME, rows), ("ztf", 30)]
    assert rename_archives(catalog) == []


def test_all_rows_get_the_new_name(catalog: Catalog, before: Held) -> None:
    (line,) = rename_archives(catalog)
    assert FORMER in line
    assert NAME in line
    check_renamed(catalog, before)


@pytest.mark.crash
@pytest.mark.parametrize("step", STEPS)
def test_a_rename_that_is_killed_is_done_when_it_is_run_again(
    catalog: Catalog, settings: Settings, before: Held, step: str
) -> None:
    dying = child(rename_and_die, settings, step)
    dying.join()
    assert dying.exitcode == -signal.SIGKILL
    names = [name for name in (FORMER, NAME) if any(held(catalog, name).values())]
    assert names == [NAME if step in ("after COMMIT 1", "before compact") else FORMER]
    rename_archives(catalog)
    check_renamed(catalog, before)


@pytest.mark.long
def test_rows_that_have_the_new_name_already_stay(catalog: Catalog, before: Held) -> None:
    committed(catalog, {0: 2, 1: 2}, "new", archive=NAME)
    newer = held(catalog, NAME)
    rename_archives(catalog)
    after = held(catalog, NAME)
    for table in ("sources", "matches", "coverage", "statistics", "lightcurves"):
        assert set(newer[table]) <= set(after[table])
    assert len(after["sources"]) == len(after["matches"]) == len(after["coverage"]) == 60
    assert errors(catalog) == []


@pytest.mark.usefixtures("on_disk")
def test_a_damaged_file_is_not_rewritten(catalog: Catalog, before: Held) -> None:
    path = next(Path(str(catalog.storage.data)).glob(f"main/lightcurves/archive={FORMER}/*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=path.name):
        rename_archives(catalog)
    assert held(catalog, FORMER)["coverage"] == before["coverage"]


@pytest.mark.long
def test_the_former_name_still_finds_the_rows(
    lake: Lake, before: Held, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lake.model.declared._warned", set())
    rename_archives(lake.catalog)
    assert lake.coverage(FORMER).num_rows == len(before["coverage"])
    assert lake.light_curve("T3", archive=FORMER).num_rows == 6
    assert lake.cone(*lake.sql("SELECT ra, dec FROM sources LIMIT 1").to_pylist()[0].values(), 1.0, archive=FORMER)
    (warning,) = [record.getMessage() for record in caplog.records if FORMER in record.getMessage()]
    assert NAME in warning
