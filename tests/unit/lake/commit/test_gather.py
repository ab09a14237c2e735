"""Small granules that one transaction commits leave what their commits one after the other leave."""

from pathlib import Path

import pytest
from helpers.granules import content, count, errors, expected, register, staged, target_ids

from lake.commit import gather as gathering
from lake.commit.commit import commit, commit_together
from lake.errors import PartlyCommitted, StagingLost
from lake.model.declared import table_named
from lake.store.storage import read_parquet

BLOCK = 6


@pytest.fixture
def lake(prepared):
    return prepared(lambda catalog: register(catalog, range(4 * BLOCK)))


def gather(storage, manifests):
    """Return what transactions would commit, and see that no granule is lost on the way."""
    found = list(gathering.gather(storage, manifests))
    assert [one for _, group in found for one in group] == list(manifests)
    return [joined for joined, _ in found]


def _staged(catalog, granules):
    """Stage granules; the targets of each are a block of their own, its sources are anywhere."""
    return [
        staged(
            catalog,
            sources,
            f"g{n}",
            targets=range(n * BLOCK, (n + 1) * BLOCK),
            exposures={name: 58000.0 + shift for name, shift in exposures.items()},
        )
        for n, (sources, exposures) in enumerate(granules)
    ]


def test_granules_that_agree_are_one_transaction(lake):
    manifests = _staged(lake, [({0: 1, 1: 1, 20: 2}, {"a": 0}), ({}, {}), ({1: 1, 12: 1}, {"a": 0, "b": 1})])
    before = count(lake, "ducklake_snapshots('lake')")
    (joined,) = gather(lake.storage, manifests)
    commit_together(lake, joined)
    assert count(lake, "ducklake_snapshots('lake')") == before + 1
    assert content(lake) == expected({0: 1, 1: 1, 12: 1, 20: 2})
    assert count(lake, "sources WHERE granule = 'g0'") == 3  # the first that brings a source is named
    assert count(lake, "exposures") == 2
    assert count(lake, "ledger") == 3
    assert errors(lake) == []


@pytest.mark.parametrize(
    ("second", "exposures"), [({1: 2, 7: 1}, {}), ({1: 1, 7: 1}, {"a": 1})], ids=["rows of a source", "an exposure"]
)
def test_who_contradicts_comes_after(lake, second, exposures):
    manifests = _staged(lake, [({1: 1}, {"a": 0}), (second, exposures)])
    assert gather(lake.storage, manifests) == manifests


def test_two_answers_on_one_target_stay_apart(lake):
    first, second = staged(lake, [1], "g0"), staged(lake, [], "g1", targets=[1, 2])
    assert gather(lake.storage, [first, second]) == [first, second]
    for manifest in (first, second):
        commit(lake, manifest)
    assert count(lake, f"coverage WHERE target_id = {target_ids([1])[0]} AND status = 'empty'") == 1


def test_large_ones_stay_alone(lake, monkeypatch):
    manifests = _staged(lake, [({n * BLOCK: 1}, {}) for n in range(4)])
    rows = sum(file.rows for file in manifests[0].files)
    monkeypatch.setattr(gathering, "MOST_ROWS", 2 * rows)
    assert [len(manifest.attempts) for manifest in gather(lake.storage, manifests)] == [2, 2]
    monkeypatch.setattr(gathering, "MOST_ROWS", rows - 1)
    assert gather(lake.storage, manifests) == manifests


def test_one_whose_files_are_lost_harms_no_other(lake):
    first, second, third = _staged(lake, [({n * BLOCK: 1}, {}) for n in range(3)])
    (Path(second.folder) / second.files[0].name).unlink()
    assert gather(lake.storage, [first, second, third]) == [first, second, third]
    with pytest.raises(StagingLost):
        commit(lake, second)


def test_what_is_in_the_ledger_in_part_is_not_taken_for_done(lake):
    manifests = _staged(lake, [({0: 1}, {}), ({BLOCK: 1}, {})])
    (joined,) = gather(lake.storage, manifests)
    commit(lake, manifests[0])
    with pytest.raises(PartlyCommitted):
        commit_together(lake, joined)
    assert content(lake) == expected({0: 1})
    commit(lake, manifests[1])
    (receipt, _) = commit_together(lake, joined)  # both are in it now
    assert (receipt.granule, count(lake, "ledger")) == ("g0", 2)


def test_who_comes_after_keeps_all_of_its_rows(lake):
    manifests = _staged(lake, [({1: 1}, {"a": 0}), ({1: 1, 7: 1}, {"a": 1}), ({13: 1}, {})])
    first, joined = gather(lake.storage, manifests)
    assert first == manifests[0]
    assert {file.table: file.rows for file in joined.files}["sources"] == 3


def test_rows_of_neighbours_are_in_order(lake):
    """Whether the granules come in order, in the opposite one, or each between the other's sources."""
    along = sorted(range(8), key=lambda s: target_ids([s])[0])
    for first, second in ((along[:4], along[4:]), (along[4:], along[:4]), (along[::2], along[1::2])):
        manifests = _staged(lake, [(dict.fromkeys(sources, 1), {}) for sources in (first, second)])
        (joined,) = gather(lake.storage, manifests)
        for file in joined.files:
            spec = table_named(file.table)
            table = read_parquet(Path(joined.folder) / file.name)
            assert table.equals(table.sort_by([(name, "ascending") for name in spec.sort])), file.table
            staged_rows = [one.rows for each in manifests for one in each.files if one.table == file.table]
            assert table.num_rows == file.rows == sum(staged_rows)
