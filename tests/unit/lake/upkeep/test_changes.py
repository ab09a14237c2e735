"""What changed between snapshots: by keys and values, not by files."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from helpers.brightening import bring
from helpers.granules import committed, content, register, staged, tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake.commit.commit import commit
from lake.commit.staging import stage
from lake.errors import ConfigurationError
from lake.export.provenance import current_snapshot
from lake.query import Lake
from lake.store.catalog import Catalog
from lake.upkeep.changes import changes_summary
from lake.upkeep.compaction import compact

ROWS = ("new_points", "changed_points", "gone_points", "gone_sources")


@pytest.fixture
def three(catalog: Catalog) -> Catalog:
    register(catalog, range(3), "all")
    register(catalog, [0], "one")
    committed(catalog, [0, 1])
    return catalog


def by_name(lake: Lake, since: int, **more: object) -> dict[str, tuple[int, ...]]:
    rows = changes_summary(lake, since, **more).rows.to_pylist()  # type: ignore[arg-type]
    return {row["name"]: tuple(row[name] for name in ROWS) for row in rows}


def test_new_changed_and_gone_rows_are_told_apart(three: Catalog, lake: Lake) -> None:
    before = current_snapshot(lake)
    committed(three, {0: 2, 1: 1, 2: 1}, "g1")
    assert by_name(lake, before) == {"T0": (0, 6, 0, 0), "T2": (6, 0, 0, 0)}
    committed(three, {0: 3}, "g2", again=1)  # one row more in each band
    assert by_name(lake, before) == {"T0": (2, 6, 0, 0), "T2": (6, 0, 0, 0)}
    assert by_name(lake, before, sample="one") == {"T0": (2, 6, 0, 0)}
    middle = current_snapshot(lake)
    committed(three, {0: 1}, "g3", again=2)
    assert by_name(lake, middle) == {"T0": (0, 6, 2, 0)}
    rows = lake.sql(
        "SELECT flux, flux_before FROM changes($first, $last) WHERE change = 'changed' AND band = 'g' ORDER BY mjd",
        {"first": before, "last": middle},
    ).to_pylist()
    assert rows == [{"flux": 30.0 + k, "flux_before": 10.0 + k} for k in range(3)]


def test_rows_that_came_again_are_no_change(three: Catalog, lake: Lake) -> None:
    before = current_snapshot(lake)
    committed(three, {0: 2}, "g1")
    committed(three, {0: 1}, "g2", again=1)
    committed(three, [0, 1], "other granule", again=2)
    found = changes_summary(lake, before)
    assert found.last > found.first
    assert found.rows.num_rows == 0
    assert found.lines()[1].startswith("new points: 0; changed: 0; gone: 0")
    assert changes_summary(lake, found.last).rows.num_rows == 0


def test_a_source_that_went_is_counted(three: Catalog, lake: Lake) -> None:
    before = current_snapshot(lake)
    with_nothing = {name: made for name, made in tables([], "g9", targets=[0]).items() if made.num_rows}
    manifest = staged(three, [1], "g9", again=3)
    commit(three, stage(lake.storage.staging / "x", replace(manifest.attempt, status="empty"), with_nothing))
    cursor = three.cursor()
    for name in ("lightcurves", "sources", "statistics"):
        cursor.execute(f"DELETE FROM {name} WHERE source_id = 's0'")
    cursor.close()
    assert by_name(lake, before) == {"T0": (0, 0, 6, 1)}


@pytest.mark.long
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=4, deadline=None)
@given(st.lists(st.dictionaries(st.integers(0, 2), st.integers(1, 4), min_size=1), min_size=1, max_size=3))
def test_changes_lead_from_one_state_to_the_other(three: Catalog, lake: Lake, steps: list[dict[int, int]]) -> None:
    first, before = current_snapshot(lake), content(three)
    for number, versions in enumerate(steps):
        committed(three, versions, f"p{first}-{number}", again=10 + number)
    last, after = current_snapshot(lake), content(three)
    if first == last:
        return
    rows = {
        (source, band, mjd): flux for source, held in before.items() for band, mjd, flux in held
    }  # fmt: skip
    for change, source, band, mjd, flux in (
        lake.sql(f"SELECT change, source_id, band, mjd, flux FROM changes({first}, {last})")
        .to_pandas()
        .itertuples(index=False)
    ):
        key = (source, band, mjd)
        assert (key in rows) == (change != "new")
        assert change == "gone" or rows.get(key) != flux
        rows.pop(key, None)
        if change != "gone":
            rows[key] = flux
    assert rows == {(source, band, mjd): flux for source, held in after.items() for band, mjd, flux in held}


def test_brightening_and_fading_are_measured_by_the_old_scatter(catalog: Catalog, lake: Lake) -> None:
    register(catalog, range(2))

    bring(catalog, [96.0, 100.0, 104.0], "a", 1)
    before = current_snapshot(lake)
    bring(catalog, [96.0, 100.0, 104.0, 130.0, 60.0, 105.0], "b", 2)
    (row,) = changes_summary(lake, before).rows.to_pylist()
    assert (row["new_points"], row["brighter"], row["fainter"]) == (3, 1, 1)
    assert (row["most_above_sigma"], row["most_below_sigma"]) == (6.0, -8.0)  # by sqrt(3**2 + 4**2)
    assert (row["band"], row["mjd"]) == ("g", 58004.0)
    (row,) = changes_summary(lake, before, sigma=7).rows.to_pylist()
    assert (row["brighter"], row["fainter"]) == (0, 1)


def test_dates_and_snapshots_that_are_not_there(three: Catalog, lake: Lake) -> None:
    now = datetime.now(UTC)
    old = current_snapshot(lake)
    assert changes_summary(lake, "2001-01-01").total("new_points") == 12
    assert changes_summary(lake, 0).total("new_points") == 12
    assert changes_summary(lake, now + timedelta(days=1)).rows.num_rows == 0
    assert changes_summary(lake, (now + timedelta(days=1)).isoformat()).rows.num_rows == 0
    for wrong, message in ((old + 5, f"there is no snapshot {old + 5}"), ("soon", "neither a snapshot nor a date")):
        with pytest.raises(ConfigurationError, match=message):
            changes_summary(lake, wrong)
    with pytest.raises(ConfigurationError, match="sigma"):
        changes_summary(lake, old, sigma=0)
    with pytest.raises(ConfigurationError, match="unknown sample"):
        changes_summary(lake, old, sample="nothing")
    compact(three)
    oldest = lake.sql("SELECT min(snapshot_id) AS n FROM ducklake_snapshots('lake')")["n"][0].as_py()
    for gone in (old, "2001-01-01"):
        with pytest.raises(ConfigurationError) as caught:
            changes_summary(lake, gone)
        assert "lightlake compact" in str(caught.value)
        assert f"--since {oldest}" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert changes_summary(lake, oldest).rows.num_rows == 0
