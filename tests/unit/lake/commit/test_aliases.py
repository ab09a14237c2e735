"""Table aliases: what is kept of names, which targets they find, and what stays when targets go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from helpers.granules import errors

from lake.commit.aliases import METHODS, keep_aliases
from lake.commit.target_changes import remove_targets, rename_target
from lake.commit.targets import add_targets
from lake.errors import ConfigurationError
from lake.model.schema import TABLES
from lake.query import Lake

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
ROW = {
    "name": "3C 273",
    "canonical_name": "3C 273",
    "service": "simbad",
    "method": "identifier",
    "asked_at": NOW,
    "target_id": None,
    "ra": 187.2779,
    "dec": 2.0524,
    "object_type": "BLL",
}
OTHERS = [ROW | {"name": name, "method": "other_name"} for name in ("PG 1226+023", "QSO B1226+0219")]


def aliases(*rows: dict[str, Any], row: int | None = None) -> pa.Table:
    made = TABLES["aliases"].cast(pa.Table.from_pylist([dict.fromkeys(TABLES["aliases"].names) | one for one in rows]))
    return made if row is None else made.append_column("row", pa.array([row] * len(rows), pa.int64()))


def kept(lake: Lake, columns: str = "name, canonical_name, method") -> list[tuple[Any, ...]]:
    rows = lake.sql(f"SELECT {columns} FROM aliases ORDER BY ALL").to_pylist()
    return [tuple(row.values()) for row in rows]


def add(lake: Lake, name: str, ra: float = 187.2779, dec: float = 2.0524, *given: dict[str, Any], **more: Any) -> int:
    targets = pa.table({"name": [name], "ra": [ra], "dec": [dec]})
    add_targets(lake.catalog, targets, "s", aliases=aliases(*given, row=0) if given else None, **more)
    return lake.target_id(name)


def files(lake: Lake) -> int:
    return len(list(lake.storage.table_files("aliases")))


def test_all_names_of_an_object_find_its_target(lake: Lake) -> None:
    one = add(lake, "mine", 187.2779, 2.0524, ROW, *OTHERS)
    for name in ("mine", "3C 273", "3c 273", "PG 1226+023", "qso b1226+0219", " PG  1226+023 "):
        assert lake.target_id(name) == one
    assert kept(lake, "name, target_id") == [("3C 273", one), ("PG 1226+023", one), ("QSO B1226+0219", one)]
    assert lake.targets()["other_names"].to_pylist() == [[]], "lists have no such name"
    assert errors(lake.catalog) == []


def test_the_same_answer_again_changes_nothing(lake: Lake) -> None:
    add(lake, "mine", 187.2779, 2.0524, ROW, *OTHERS)
    before, n = lake.sql("FROM aliases ORDER BY ALL"), files(lake)
    later = [one | {"asked_at": NOW + timedelta(days=1)} for one in (ROW, *OTHERS)]
    add(lake, "mine", 187.2779, 2.0524, *later)
    assert keep_aliases(lake.catalog, aliases(*later)) == 0
    assert lake.sql("FROM aliases ORDER BY ALL") == before
    assert files(lake) == n


def test_another_answer_replaces_the_earlier_one(lake: Lake) -> None:
    keep_aliases(lake.catalog, aliases(ROW, *OTHERS))
    other = ROW | {"canonical_name": "NGC 1", "method": "sesame", "service": "ned", "ra": 10.0}
    assert keep_aliases(lake.catalog, aliases(other)) == 1
    assert kept(lake) == [
        ("3C 273", "NGC 1", "sesame"),
        ("PG 1226+023", "3C 273", "other_name"),
        ("QSO B1226+0219", "3C 273", "other_name"),
    ]
    moved = OTHERS[0] | {"ra": 187.5}
    assert keep_aliases(lake.catalog, aliases(moved)) == 1
    assert kept(lake, "name, ra")[1] == ("PG 1226+023", 187.5)


def test_names_asked_for_before_find_the_target_that_comes_later(lake: Lake) -> None:
    keep_aliases(lake.catalog, aliases(ROW, *OTHERS))
    with pytest.raises(ConfigurationError, match="no target is named"):
        lake.target_id("3C 273")
    by_position = add(lake, "quasar 7", 187.27791, 2.05241)
    assert lake.target_id("PG 1226+023") == by_position
    # By another name of the same object: its names belong to it now.
    add(lake, "quasar 7", 187.27791, 2.05241, ROW | {"name": "QSO B1226+0219", "method": "sesame"})
    assert set(kept(lake, "target_id")) == {(by_position,)}
    assert errors(lake.catalog) == []


def test_answers_stay_when_the_target_goes(lake: Lake) -> None:
    one = add(lake, "3C 273", 187.2779, 2.0524, ROW, *OTHERS)
    add(lake, "M 87", 187.7059, 12.3911)
    assert remove_targets(lake.catalog, "pg 1226+023").targets == 1
    assert kept(lake, "name, target_id") == [("3C 273", None), ("PG 1226+023", None), ("QSO B1226+0219", None)]
    for name in ("3C 273", "PG 1226+023"):
        with pytest.raises(ConfigurationError, match="no target is named"):
            lake.target_id(name)
    assert add(lake, "again", 187.2779, 2.0524, ROW, *OTHERS) == one == lake.target_id("PG 1226+023")
    assert errors(lake.catalog) == []


def test_rename_finds_by_any_name_and_takes_no_other_targets_name(lake: Lake) -> None:
    one = add(lake, "mine", 187.2779, 2.0524, ROW, *OTHERS)
    add(lake, "M 87", 187.7059, 12.3911)
    assert rename_target(lake.catalog, "PG 1226+023", "3C 273").target_id == one
    assert lake.target_id("mine") == one
    with pytest.raises(ConfigurationError, match="another target is named"):
        rename_target(lake.catalog, "M 87", "QSO B1226+0219")


def test_a_name_of_two_targets_names_both(lake: Lake) -> None:
    one = add(lake, "mine", 187.2779, 2.0524, ROW, *OTHERS)
    two = add(lake, "pg 1226+023", 10.0, 20.0)
    with pytest.raises(ConfigurationError, match="2 targets are named") as caught:
        lake.target_id("Pg 1226+023")
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)


def test_rows_of_other_methods_are_not_touched_and_find_nothing(lake: Lake) -> None:
    own = ROW | {"method": "with_blanks", "ra": None, "dec": None}
    assert "with_blanks" not in METHODS
    with lake.catalog.lock(), lake.catalog.changing():
        cursor = lake.catalog.cursor()
        cursor.register("own", aliases(own))
        cursor.execute("INSERT INTO aliases FROM own")
        cursor.close()
    one = add(lake, "mine", 187.2779, 2.0524, ROW)
    assert kept(lake, "method, target_id") == [("identifier", one), ("with_blanks", None)]
    remove_targets(lake.catalog, "3C 273")
    assert ("with_blanks", None) in kept(lake, "method, target_id")


def test_verify_finds_names_of_targets_that_are_gone(lake: Lake) -> None:
    keep_aliases(lake.catalog, aliases(ROW | {"target_id": 4711}))
    assert [one.message for one in errors(lake.catalog)] == ["aliases: 1 row without their targets"]
