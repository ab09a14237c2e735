"""Targets that are removed or renamed: what goes, what stays, and that the lake is as it must be afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import asdict

import pyarrow as pa
import pytest
from helpers.crash import change_targets_and_die, child
from helpers.granules import (
    PARAMETERS,
    committed,
    content,
    count,
    errors,
    expected,
    positions,
    register,
    staged,
    target_ids,
)

from lake.commit import ledger
from lake.commit.commit import commit
from lake.commit.target_changes import Removed, remove_targets, rename_target
from lake.commit.targets import add_targets
from lake.errors import ConfigurationError
from lake.model.schema import TABLES
from lake.query import Lake
from lake.store.catalog import Catalog
from lake.upkeep.compaction import compact

# To others, all moments of a transaction before its COMMIT are alike.
STEPS = ["before COMMIT 1", "after COMMIT 1", *(["after delete 1"] if os.environ.get("LIGHTLAKE_TEST_FULL") else [])]

HOSTILE = "[red]o'\"<b>\n\x1b[2J'; DROP TABLE labels --"


def _named(numbers: list[int], names: list[str], **more: object) -> pa.Table:
    ra, dec = positions(numbers)
    return pa.table({"ra": ra, "dec": dec, "name": names, **more})


def _fill(catalog: Catalog) -> None:
    """Ten targets, of which two have no source; 3 to 6 are in a second sample, two of them with another label."""
    register(catalog, range(10))
    again = _named([3, 4, 5, 6], ["A3", "A4", "A5", HOSTILE], label=["AGN", "AGN", "QSO", "QSO"])
    add_targets(catalog, again, "second")
    committed(catalog, range(8), "g0", targets=range(10))
    committed(catalog, {}, "g1", targets=range(10), archive="wise")


@pytest.fixture
def held(prepared: Callable[..., Catalog], request: pytest.FixtureRequest) -> Lake:
    prepared(_fill)
    return request.getfixturevalue("lake")


def _rows(lake: Lake) -> dict[str, list[object]]:
    return {
        name: lake.sql(f"FROM {name} ORDER BY ALL").to_pylist() for name in TABLES if name not in ("files", "ledger")
    }


def _pending(lake: Lake, archive: str = "ztf") -> list[int]:
    batches = ledger.pending(lake.catalog, archive, "DR1", PARAMETERS, batch_size=100)
    return sorted(one for batch in batches for one in batch["target_id"].to_pylist())


def test_a_target_goes_with_all_that_is_said_of_it_and_its_measurements_stay(held: Lake) -> None:
    before = _rows(held)
    removed = remove_targets(held.catalog, HOSTILE, dry_run=True)
    assert removed == Removed(targets=1, labels=2, matches=1, coverage=2, sources=1, measurements=6)
    assert _rows(held) == before
    assert remove_targets(held.catalog, HOSTILE) == removed
    (six,) = target_ids([6])
    after = _rows(held)
    for name in ("targets", "labels", "matches", "coverage"):
        assert after.pop(name) == [row for row in before.pop(name) if row["target_id"] != six]  # type: ignore[index]
    assert after == before
    assert content(held.catalog) == expected(dict.fromkeys(range(8), 1))
    for name in ("T6", HOSTILE):
        with pytest.raises(ConfigurationError, match="no target is named"):
            held.light_curve(name)
    assert held.cone(*(float(x[0]) for x in positions([6])), 1).num_rows == 6
    assert errors(held.catalog) == []
    compact(held.catalog)
    assert errors(held.catalog) == []


def test_a_target_that_is_added_again_is_asked_for_again(held: Lake) -> None:
    assert _pending(held) == []
    curve = held.light_curve("T3")
    remove_targets(held.catalog, "A3")
    assert _pending(held) == []
    register(held.catalog, [3])
    assert _pending(held) == _pending(held, "wise") == target_ids([3])
    assert held.light_curve("T3").num_rows == 0
    assert errors(held.catalog) == []
    receipt = committed(held.catalog, [3], "g2", again=1)
    assert (receipt.kept, receipt.replaced) == (1, 0)  # its rows were there
    assert held.light_curve("T3").equals(curve)
    assert errors(held.catalog) == []


def test_a_sample_goes_and_targets_that_have_other_labels_stay(held: Lake) -> None:
    assert remove_targets(held.catalog, sample="second", label="QSO") == Removed(0, 2, 0, 0, 0, 0)
    assert sorted(held.targets("second")["name"].to_pylist()) == ["T3", "T4"]
    assert remove_targets(held.catalog, "t3", sample="second") == Removed(0, 1, 0, 0, 0, 0)
    removed = remove_targets(held.catalog, sample="test")
    assert removed == Removed(targets=9, labels=10, matches=7, coverage=18, sources=7, measurements=42)
    assert held.targets()["name"].to_pylist() == ["T4"]
    assert held.light_curve("A4").num_rows == 6
    assert errors(held.catalog) == []
    assert asdict(remove_targets(held.catalog, sample="second"))["targets"] == 1
    assert count(held.catalog, "targets") == count(held.catalog, "labels") == count(held.catalog, "matches") == 0
    assert errors(held.catalog) == []
    compact(held.catalog)
    register(held.catalog, range(10))
    assert _pending(held) == sorted(target_ids(range(10)))
    assert errors(held.catalog) == []


def test_a_source_of_two_targets_is_not_without_one(held: Lake) -> None:
    cursor = held.catalog.cursor()
    cursor.execute(
        "INSERT INTO matches SELECT * REPLACE (? AS target_id) FROM matches WHERE source_id = 's1'", target_ids([0])
    )
    assert remove_targets(held.catalog, "T0", dry_run=True) == Removed(1, 1, 2, 2, 1, 6)


def test_an_answer_that_comes_when_the_target_is_gone_is_not_of_it(held: Lake) -> None:
    """A pull that is under way goes on: what it brings of other targets is taken."""
    ones = staged(held.catalog, {2: 2, 3: 2}, "g3", again=1)
    alone = staged(held.catalog, {3: 2}, "g4", again=2)
    lost = staged(held.catalog, {}, "g5", again=3, targets=[2, 3], status="failed", attempt_status="failed")
    remove_targets(held.catalog, "T3")
    for manifest in (ones, alone, lost):
        commit(held.catalog, manifest)
        assert errors(held.catalog) == []
    assert content(held.catalog) == expected(dict.fromkeys(range(8), 1) | {2: 2, 3: 2})
    asked = held.sql("SELECT granule, status FROM coverage WHERE archive = 'ztf' AND target_id = ?", target_ids([2]))
    assert asked.to_pylist() == [{"granule": "g3", "status": "found"}]
    assert count(held.catalog, f"coverage WHERE target_id = {target_ids([3])[0]}") == 0


@pytest.mark.crash
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("change", "arguments"), [(remove_targets, ["T6"]), (rename_target, ["T5", "New"])])
def test_killed_at_a_step_it_is_done_or_not_begun(
    held: Lake, change: Callable[..., object], arguments: list[str], step: str
) -> None:
    before = _rows(held)
    dying = child(change_targets_and_die, held.settings, change, step, *arguments)
    dying.join(60)
    assert dying.exitcode == -signal.SIGKILL
    assert {finding.check for finding in errors(held.catalog)} <= {"orphans"}
    if step != "after COMMIT 1":
        assert _rows(held) == before
        change(held.catalog, *arguments)
    after = _rows(held)
    assert {name for name in after if after[name] != before[name]} == (
        {"targets", "labels", "matches", "coverage"} if change is remove_targets else {"targets"}
    )
    compact(held.catalog)
    assert _rows(held) == after
    assert errors(held.catalog) == []


@pytest.mark.parametrize(
    ("chosen", "message", "hint"),
    [
        ({}, "which target", "--sample"),
        ({"target": "T33"}, "no target is named 'T33'", "did you mean T3"),
        ({"target": 12345}, "no target has the id 12345", "FROM targets"),
        ({"sample": "secnd"}, "unknown sample 'secnd'", "did you mean second"),
        ({"sample": ""}, "the sample has no name", ""),
        ({"sample": "second", "label": "QS0"}, "unknown label 'QS0' in sample second", "did you mean QSO"),
        ({"label": "QSO", "target": "T5"}, "label 'QSO' of which sample", "--sample"),
        ({"target": "T1", "sample": "second"}, "'T1' is no target of sample 'second'", "test"),
        (
            {"target": "T3", "sample": "second", "label": "QSO"},
            "'T3' is no target of sample 'second' of this",
            "second",
        ),
    ],
)
def test_what_is_not_there_is_not_removed(held: Lake, chosen: dict[str, str], message: str, hint: str) -> None:
    before = _rows(held)
    for dry_run in (True, False):
        with pytest.raises(ConfigurationError, match=message) as error:
            remove_targets(held.catalog, **chosen, dry_run=dry_run)  # type: ignore[arg-type]
        assert hint in error.value.hint
    assert _rows(held) == before


def test_a_target_may_be_looked_at_without_the_right_to_write(held: Lake) -> None:
    with Lake(held.settings.url, held.settings) as reading:
        assert remove_targets(reading.catalog, "T1", dry_run=True).targets == 1


@pytest.mark.long
def test_old_names_find_a_renamed_target(held: Lake) -> None:
    (five,) = target_ids([5])
    before = held.light_curve("T5")
    for name in (f" {HOSTILE}5 ", "New", "new", "T5", "A5"):
        renamed = rename_target(held.catalog, five, name)
        assert (renamed.target_id, renamed.name) == (five, name.strip())
        assert held.sql("SELECT name FROM targets WHERE target_id = ?", [five])["name"].to_pylist() == [name.strip()]
        assert errors(held.catalog) == []
    for name in ("T5", "A5", HOSTILE + "5", "New", "new"):
        assert held.light_curve(name).equals(before)
    compact(held.catalog)
    assert errors(held.catalog) == []
    kept = held.sql("SELECT sample, label, name, catalogue FROM labels WHERE target_id = ? ORDER BY name", [five])
    assert [tuple(row.values())[:3] for row in kept.to_pylist()] == [
        ("second", "QSO", "A5"),
        ("second", "QSO", "New"),
        ("test", "test", "T5"),
        ("second", "QSO", HOSTILE + "5"),
        ("second", "QSO", "new"),
    ]
    again = rename_target(held.catalog, "t5", "A5")
    assert (again.before, again.name) == ("A5", "A5")
    assert held.sql("FROM targets").num_rows == 10


def test_a_target_without_a_name_gets_one(held: Lake) -> None:
    add_targets(held.catalog, pa.table({"ra": [1.0], "dec": [80.0]}), "nameless")
    (one,) = held.targets("nameless")["target_id"].to_pylist()
    assert rename_target(held.catalog, str(one), "Mu").before is None
    assert held.target_id("Mu") == one
    assert count(held.catalog, f"labels WHERE target_id = {one}") == 1
    assert errors(held.catalog) == []


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("T33", "New", "no target is named 'T33'", "did you mean T3"),
        ("T3", "t4", "another target is named 't4'", "rename that one"),
        ("T3", "A4", "another target is named 'A4'", "rename that one"),
        ("T3", " ", "the target has no name", ""),
    ],
)
def test_a_target_is_not_renamed_to_what_another_is_called(
    held: Lake, old: str, new: str, message: str, hint: str
) -> None:
    before = _rows(held)
    with pytest.raises(ConfigurationError, match=message) as error:
        rename_target(held.catalog, old, new)
    assert hint in error.value.hint
    assert _rows(held) == before
