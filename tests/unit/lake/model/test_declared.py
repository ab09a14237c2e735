"""What a new source brings: its views and tables come into lakes that exist already."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.granules import ARCHIVE, errors, hold, register

from lake.model import declared
from lake.model.declared import Declaration, FornaxRows, Views, current_name
from lake.model.table import Column, Table
from lake.query import Lake
from lake.upkeep.compaction import compact
from tasks.register import register_archive
from tasks.sources.registry import find

FILTERS = Table("filters", "a filter", (Column("name", "VARCHAR", "Its name", required=True),), key=("name",))
WIDER = Table(FILTERS.name, FILTERS.row, (*FILTERS.columns, Column("width_nm", "DOUBLE", "Its width")), key=("name",))
ROWS = [{"mjd": 58000.0 + n, "flux": 1.0 + n, "unit": "mJy"} for n in range(6)]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Declaration]]:
    """What is installed; a test may add to it."""
    known = declared.declarations()
    for module in ("lake.model.declared", "lake.store.migrations"):
        monkeypatch.setattr(f"{module}.declarations", lambda: known)
    declared.tables_by_archive.cache_clear()
    yield known
    monkeypatch.undo()
    declared.tables_by_archive.cache_clear()


def _declare(installed: list[Declaration], table: Table, **views: object) -> None:
    installed[:] = [one for one in installed if one.archive != "lamp"]
    installed.append(Declaration(archive="lamp", tables=(table,), views=Views(**views)))  # type: ignore[arg-type]
    declared.tables_by_archive.cache_clear()


def test_views_and_tables_of_a_new_source(lake: Lake, installed: list[Declaration]) -> None:
    assert not lake.catalog.create()
    _declare(
        installed,
        FILTERS,
        statements=("CREATE OR REPLACE VIEW lamp AS SELECT mjd, flux FROM lightcurves WHERE archive = 'lamp'",),
        thinned_by=3,
        fornax_where="(rows.archive <> 'lamp' OR rows.flux > 2)",
        as_published=(FornaxRows(rows="(FROM target_lightcurves WHERE archive = 'lamp')", flux="7.0"),),
    )
    assert lake.catalog.create()
    assert not lake.catalog.create()
    register(lake.catalog, [0])
    hold(lake, "lamp", "white", ROWS)

    def count(relation: str) -> int:
        return int(lake.sql(f"SELECT count(*) AS n FROM {relation}")["n"][0].as_py())

    assert [count(name) for name in ("lamp", "target_lightcurves", "decimated", "fornax")] == [6, 6, 2, 4]
    assert set(lake.sql("SELECT flux FROM fornax_as_published")["flux"].to_pylist()) == {7.0}
    assert count("filters") == 0
    lake.catalog.cursor().execute("INSERT INTO filters VALUES ('white')")
    compact(lake.catalog)
    # What a pull notes first brings views and tables up to date, too.
    _declare(installed, WIDER)
    register_archive(lake, find(ARCHIVE))
    assert lake.sql("FROM filters").to_pylist() == [{"name": "white", "width_nm": None}]
    assert [count(name) for name in ("decimated", "fornax")] == [6, 6]
    assert not lake.catalog.create()
    assert not [finding for finding in errors(lake.catalog) if finding.check == "schema"]


def test_a_former_name_is_translated_with_one_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lake.model.declared._warned", set())
    known = [Declaration(archive="lamp", former_names={"torch": {}})]
    names = [current_name(name, known) for name in ("torch", "torch", "lamp", "moon")]
    assert names == ["lamp", "lamp", "lamp", "moon"]
    assert len(caplog.records) == 1
