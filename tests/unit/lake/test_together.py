"""Granules that are staged and committed together: one transaction, and still granules of their own."""

from __future__ import annotations

import shutil

import pytest
from helpers.granules import attempt, committed, content, count, errors, expected, register, tables
from helpers.profiles import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake.commit.commit import commit_together
from lake.commit.staging import Manifest, lost, stage, stage_together
from lake.errors import GranuleRejected
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage


def pairs(versions, *, again=0):
    """Attempts and tables: granule gN has the sources N*10 to N*10 + 9 that are given for it."""
    return [
        (attempt(f"g{n}", "done" if sources else "empty", again=again), tables(sources, f"g{n}", targets=()))
        for n, sources in versions.items()
    ]


@pytest.fixture
def known(catalog):
    register(catalog, range(40))
    return catalog


def together(catalog, granules, folder="together"):
    manifest = stage_together(catalog.storage.staging / folder, granules)
    assert Manifest.read(catalog.storage.staging / folder) == manifest
    return commit_together(catalog, manifest)


def test_one_snapshot_and_a_row_of_the_ledger_for_each(known):
    before = count(known, "ducklake_snapshots('lake')")
    receipts = together(known, pairs({0: {0: 1, 1: 2}, 1: {}, 2: {20: 1}}))
    assert count(known, "ducklake_snapshots('lake')") == before + 1
    assert [(one.granule, one.status, one.n_sources, one.n_rows) for one in receipts] == [
        ("g0", "done", 2, 12),
        ("g1", "empty", 0, 0),
        ("g2", "done", 1, 6),
    ]
    assert content(known) == expected({0: 1, 1: 2, 20: 1})
    cursor = known.cursor()
    rows = cursor.execute("SELECT granule, attempt, n_rows, bytes > 0 FROM ledger ORDER BY granule").fetchall()
    assert rows == [("g0", 1, 12, True), ("g1", 1, 0, False), ("g2", 1, 6, True)]
    files = cursor.execute("SELECT sum(bytes) FROM files WHERE table_name IN ('sources', 'lightcurves', 'statistics')")
    assert abs(files.fetchall()[0][0] - sum(one.bytes for one in receipts)) < len(receipts)
    assert len(list(known.storage.table_files("lightcurves"))) == 1
    assert errors(known) == []


def test_the_same_manifest_again_does_nothing(known):
    manifest = stage_together(known.storage.staging / "together", pairs({0: {0: 1}, 1: {10: 1}}))
    first = commit_together(known, manifest)
    before = count(known, "ducklake_snapshots('lake')")
    assert [one.granule for one in commit_together(known, manifest)] == [one.granule for one in first]
    assert count(known, "ducklake_snapshots('lake')") == before
    assert count(known, "ledger") == 2


def test_one_that_breaks_a_rule_is_rejected_and_the_others_go_on(known):
    granules = pairs({0: {0: 1}, 1: {10: 1}, 2: {20: 1}})
    rows = granules[1][1]["lightcurves"]
    mjd = rows["mjd"].to_pylist()
    granules[1][1]["lightcurves"] = rows.set_column(rows.column_names.index("mjd"), "mjd", [[-1.0, *mjd[1:]]])
    first, second, third = together(known, granules)
    assert (first.status, second.status, third.status) == ("done", "rejected", "done")
    assert "lightcurves.mjd" in (second.reason or "")
    assert content(known) == expected({0: 1, 20: 1})
    error = known.cursor().execute("SELECT error_type, error, n_rows FROM ledger WHERE granule = 'g1'").fetchall()
    assert error[0][0] == "GranuleRejected"
    assert "Traceback" in error[0][1]
    assert error[0][2] == 0


def test_what_was_lost_before_is_told_beside_what_came(known):
    gone = lost(attempt("g1"), OSError("no such disk"))
    receipts = together(known, [(gone, {}), *pairs({0: {0: 1}})])
    assert [(one.status, one.reason) for one in receipts] == [("failed", "OSError: no such disk"), ("done", None)]
    again = together(known, pairs({1: {10: 2}}, again=5))
    assert again[0].status == "done"
    assert count(known, "ledger WHERE granule = 'g1' AND attempt = 2 AND status = 'done'") == 1
    assert errors(known) == []


def test_all_of_them_lost_is_a_commit_of_the_ledger_alone(known):
    receipts = together(known, [(lost(attempt(f"g{n}"), GranuleRejected("no")), {}) for n in range(3)])
    assert {one.status for one in receipts} == {"rejected"}
    assert count(known, "ledger") == 3
    assert count(known, "sources") == 0


@settings(max_examples=examples(3), suppress_health_check=list(HealthCheck))
@given(st.lists(st.dictionaries(st.integers(0, 3), st.integers(1, 3), max_size=3), min_size=1, max_size=3))
def test_together_is_as_one_by_one(template, tmp_path_factory, rounds):
    made = []
    for way in ("one", "all"):
        url = str(tmp_path_factory.mktemp(way) / "lake")
        shutil.copytree(template, url)
        catalog = Catalog(Storage.from_url(url), load_settings(url=url))
        for again, versions in enumerate(rounds):
            by_granule = {n: {10 * n: version} for n, version in versions.items()}
            if way == "one":
                for n, sources in by_granule.items():
                    committed(catalog, sources, f"g{n}", again=again, targets=())
            elif by_granule:
                together(catalog, pairs(by_granule, again=again), f"f{again}")
        ledger = (
            catalog.cursor()
            .execute("SELECT granule, attempt, status, n_sources, n_rows FROM ledger ORDER BY granule, attempt")
            .fetchall()
        )
        made.append((content(catalog), ledger))
        assert errors(catalog) == []
        catalog.close()
    assert made[0] == made[1]


def test_matches_may_be_with_sources_that_the_lake_has(known):
    committed(known, {0: 1, 1: 1}, "g0", targets=())
    wanted = tables({0: 1, 1: 1}, "matching")
    answers = {name: wanted[name] for name in ("matches", "coverage")}
    folder = known.storage.staging / "matching"
    with pytest.raises(GranuleRejected, match="not among the granule's sources"):
        stage(folder, attempt("matching"), answers)
    sources = wanted["sources"].select(["source_id", "hpx29"])
    for again in range(2):
        commit_together(known, stage(folder, attempt("matching", again=again), answers, known=sources))
    assert count(known, "matches") == 2
    assert count(known, "coverage WHERE status = 'found'") == 2
    assert content(known) == expected({0: 1, 1: 1})
    # The sources come again without what is said of targets: that stays.
    together(known, pairs({0: {0: 2, 1: 1}}, again=7))
    assert content(known) == expected({0: 2, 1: 1})
    assert count(known, "matches") == 2
    assert errors(known) == []
