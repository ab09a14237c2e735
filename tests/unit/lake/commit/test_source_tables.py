"""Tables that a source declares: their rows come, are compared and are replaced with the source that they belong to."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.granules import ARCHIVE, RELEASE, attempt, count, errors, register, tables

from lake.commit.commit import Receipt, commit, commit_together
from lake.commit.sound import without_sources
from lake.commit.staging import stage, stage_together
from lake.errors import GranuleRejected
from lake.model import declared
from lake.model.declared import Declaration, source_tables
from lake.model.table import Column, Table
from lake.query import Lake
from lake.upkeep.restore import _forget_incomplete


def _column(name: str, type: str = "VARCHAR") -> Column:
    return Column(name, type, name, required=True)


FLASHES = Table(
    "flashes",
    "a flash of a source",
    (
        *map(_column, ("archive", "release", "source_id")),
        _column("hpx29", "BIGINT"),
        _column("number", "INTEGER"),
        Column("energy", "DOUBLE", "Its energy", low=0),
        _column("granule"),
    ),
    key=("archive", "release", "source_id", "number"),
    partition="archive",
    sort=("source_id", "number"),
)
NAMES = Table("other_names", "a name", (_column("name"), _column("meaning")), key=("name",))


@pytest.fixture
def flashes(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """A lake with the tables of a made-up source, and targets."""
    known = [one for one in declared.declarations() if one.archive != ARCHIVE]
    known.append(Declaration(archive=ARCHIVE, tables=(FLASHES, NAMES)))
    for module in ("lake.model.declared", "lake.store.migrations"):
        monkeypatch.setattr(f"{module}.declarations", lambda: known)
    declared.tables_by_archive.cache_clear()
    assert lake.catalog.create()
    register(lake.catalog, range(5))
    yield lake
    monkeypatch.undo()
    declared.tables_by_archive.cache_clear()


def _with_flashes(energies: dict[int, list[float]], granule: str, version: int = 1) -> dict[str, pa.Table]:
    """Tables of a granule with a source for each number."""
    made = tables(dict.fromkeys(energies, version), granule)
    pixels = dict(zip(made["sources"]["source_id"].to_pylist(), made["sources"]["hpx29"].to_pylist(), strict=True))
    keys = {"archive": ARCHIVE, "release": RELEASE, "granule": granule}
    rows = [
        {**keys, "source_id": f"s{source}", "hpx29": pixels[f"s{source}"], "number": number, "energy": energy}
        for source, mine in energies.items()
        for number, energy in enumerate(mine)
    ]
    return {**made, "flashes": pa.Table.from_pylist(rows)}


def _committed(lake: Lake, granule: str, energies: dict[int, list[float]], again: int = 0) -> Receipt:
    tried = attempt(granule, again=again, n_targets=len(energies))
    return commit(lake.catalog, stage(lake.storage.staging / granule, tried, _with_flashes(energies, granule)))


def _held(lake: Lake) -> dict[str, list[float]]:
    query = "SELECT source_id, list(energy ORDER BY number) AS e FROM flashes GROUP BY ALL"
    return {row["source_id"]: row["e"] for row in lake.sql(query).to_pylist()}


def test_rows_are_replaced_with_their_source_and_compared(flashes: Lake) -> None:
    _committed(flashes, "g0", {0: [1.0, 2.0], 1: [3.0], 2: [4.0]})
    # Light curves are the same: source 1 differs in its flashes alone, and source 0 in nothing.
    receipt = _committed(flashes, "g1", {0: [1.0, 2.0], 1: [3.0, 5.0], 3: [6.0]})
    assert (receipt.replaced, receipt.kept) == (1, 1)
    assert _held(flashes) == {"s0": [1.0, 2.0], "s1": [3.0, 5.0], "s2": [4.0], "s3": [6.0]}
    granules = flashes.sql("SELECT DISTINCT source_id, granule FROM flashes").to_pylist()
    assert {row["source_id"]: row["granule"] for row in granules} == {"s0": "g0", "s1": "g1", "s2": "g0", "s3": "g1"}
    # A source that comes without flashes has none.
    made = {name: table for name, table in _with_flashes({0: [1.0]}, "g2").items() if name != "flashes"}
    commit(flashes.catalog, stage(flashes.storage.staging / "g2", attempt("g2", n_targets=1), made))
    assert set(_held(flashes)) == {"s1", "s2", "s3"}
    assert count(flashes.catalog, "lightcurves WHERE source_id = 's0'") == 6
    assert errors(flashes.catalog) == []


def test_granules_that_are_staged_together_keep_their_rows(flashes: Lake) -> None:
    granules = [(attempt(name), _with_flashes({n: [float(n)]}, name)) for n, name in enumerate(("g0", "g1"))]
    names = pa.table({"name": ["a"], "meaning": ["b"]})
    granules.append((attempt("g2"), {"other_names": names}))
    commit(flashes.catalog, stage_together(flashes.storage.staging / "all", granules))
    assert _held(flashes) == {"s0": [0.0], "s1": [1.0]}
    assert flashes.sql("FROM other_names").to_pylist() == [{"name": "a", "meaning": "b"}]
    assert errors(flashes.catalog) == []


def test_a_large_table_is_staged_in_parts_and_a_bad_part_rejects_its_granule_alone(flashes: Lake) -> None:
    whole = {name: _with_flashes({n: [1.0, 2.0, 3.0]}, name) for n, name in enumerate(("g0", "g1", "g2"))}
    flashes_of = whole["g1"]["flashes"]
    bad = flashes_of.set_column(flashes_of.column_names.index("energy"), "energy", pa.array([1.0, 2.0, -3.0]))
    large = {name: made.pop("flashes") for name, made in whole.items()} | {"g1": bad}
    made = {name: (lambda table=table: iter([table.slice(0, 2), table.slice(2)])) for name, table in large.items()}
    manifest = stage_together(
        flashes.storage.staging / "all",
        [(attempt(name), tables) for name, tables in whole.items()],
        large={"flashes": made},
    )
    assert [one.status for one in manifest.attempts] == ["done", "rejected", "done"]
    assert "flashes.energy is below 0" in str(manifest.attempts[1].reason)
    assert {file.table: file.rows for file in manifest.files}["flashes"] == 6
    commit_together(flashes.catalog, manifest)
    assert _held(flashes) == {"s0": [1.0, 2.0, 3.0], "s2": [1.0, 2.0, 3.0]}
    assert errors(flashes.catalog) == []


@pytest.mark.parametrize(
    ("column", "values", "rule"),
    [
        ("energy", [-1.0, 2.0], "energy"),
        ("source_id", ["s0", "s4"], "source_id"),
        ("hpx29", [1, 2], "hpx29"),
        ("number", [7, 7], "1 key "),
    ],
)
def test_rows_that_break_a_rule_are_rejected(flashes: Lake, column: str, values: list[object], rule: str) -> None:
    made = _with_flashes({0: [1.0, 2.0]}, "g0")
    place = made["flashes"].column_names.index(column)
    made["flashes"] = made["flashes"].set_column(place, column, pa.array(values))
    with pytest.raises(GranuleRejected, match=rule):
        stage(flashes.storage.staging / "g0", attempt("g0", n_targets=1), made)


def test_rows_go_with_a_source_that_is_left_out(flashes: Lake) -> None:
    left = without_sources(_with_flashes({0: [1.0], 1: [2.0]}, "g0"), ["s0"])
    assert left["flashes"]["source_id"].to_pylist() == ["s1"]
    assert source_tables("lamp") == source_tables("ztf")[:3]
    assert source_tables("ztf")[3:] == ("flashes",)


def test_rows_of_an_incomplete_source_are_removed(flashes: Lake) -> None:
    _committed(flashes, "g0", {0: [1.0], 1: [3.0]})
    cursor = flashes.catalog.cursor()
    cursor.execute("DELETE FROM lightcurves WHERE source_id = 's0'")
    assert _forget_incomplete(cursor).num_rows == 1
    cursor.close()
    assert set(_held(flashes)) == {"s1"}


@pytest.mark.parametrize("is_sorted", [True, False])
def test_rows_are_staged_in_order_whatever_their_dictionaries(flashes: Lake, is_sorted: bool) -> None:
    made = _with_flashes({source: [3.0, 1.0, 2.0] for source in (4, 0, 2)}, "g0")
    keys = [("source_id", "ascending"), ("number", "ascending" if is_sorted else "descending")]
    parts = [made["flashes"].sort_by(keys).slice(start, 4) for start in (0, 4, 8)]
    # Each part has a dictionary of its own, in another order of values.
    coded = []
    for part in parts:
        column = part["source_id"].combine_chunks()
        values = pa.array(sorted(set(column.to_pylist()), reverse=True))
        indices = pa.array([values.to_pylist().index(one) for one in column.to_pylist()], pa.int32())
        place = part.column_names.index("source_id")
        coded.append(part.set_column(place, "source_id", pa.DictionaryArray.from_arrays(indices, values)))
    made["flashes"] = pa.concat_tables(coded)
    manifest = stage(flashes.storage.staging / "g0", attempt("g0", n_targets=3), made)
    (file,) = (file for file in manifest.files if file.table == "flashes")
    staged = pq.read_table(flashes.storage.staging / "g0" / file.name)
    assert staged.schema.field("source_id").type == pa.string()
    assert list(zip(staged["source_id"].to_pylist(), staged["number"].to_pylist(), strict=True)) == [
        (source, number) for source in ("s0", "s2", "s4") for number in range(3)
    ]
