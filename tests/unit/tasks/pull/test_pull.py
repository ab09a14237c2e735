"""The plain functions of a pull: what is planned, fetched, staged, lost and committed."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import archives
from helpers.archives import harvest, refusal, register

from lake.commit.staging import MANIFEST
from lake.commit.targets import add_targets
from lake.errors import ArchiveError, CatalogError, GranuleRejected, StagingLost, TruncatedAnswer
from lake.model.schema import TABLES
from lake.query import Lake
from lake.settings import Settings
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.pull import (
    Batch,
    commit_batch,
    complete,
    count_to_ask,
    fetch_batch,
    is_passing,
    lake_at,
    lost,
    mark_batch_failed,
    max_age,
    plan_batches,
    read_granules,
)
from tasks.pull.report import PullReport
from tasks.register import register_archive
from tasks.sources.base import Archive, FetchResult, Granule
from tasks.sources.registry import REGISTRY

DEPTH = {"depth": 1}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[None]:
    monkeypatch.setenv("LIGHTLAKE_URL", settings.url)
    if settings.catalog:
        monkeypatch.setenv("LIGHTLAKE_CATALOG", settings.catalog)
    monkeypatch.setenv("LIGHTLAKE_LOCK_TIMEOUT_S", "10")
    yield
    lake_at.cache_clear()


@pytest.fixture
def madeup(monkeypatch: pytest.MonkeyPatch) -> Archive:
    """The made-up archive, in the registry."""
    archive = archives.archive()
    monkeypatch.setitem(REGISTRY, archive.name, archive)
    return archive


def answering(monkeypatch: pytest.MonkeyPatch, fetch: Any) -> None:
    """Let the made-up archive answer otherwise."""
    monkeypatch.setitem(REGISTRY, "madeup", archives.archive(fetch=fetch))


def planned(lake: Lake, archive: Archive, folder: Path, **more: Any) -> list[Batch]:
    return list(plan_batches(lake, archive, more.pop("parameters", DEPTH), more.pop("samples", None), folder, **more))


def planned_as_one(lake: Lake, archive: Archive, folder: Path) -> Batch:
    """Plan for one worker, which gets all granules in one batch if they are few."""
    lake.settings = lake.settings.model_copy(update={"workers": 1})
    (batch,) = planned(lake, archive, folder)
    return batch


def whole(catalog: Catalog) -> bool:
    return not [finding for finding in verify(catalog) if finding.is_error]


# --- plan ---


def test_a_plan_covers_everything_once_in_the_order_of_the_sky(
    catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path
) -> None:
    register(catalog, range(50))
    batches = planned(lake, madeup, tmp_path / "a")
    tables = [granule.targets for batch in batches for granule in read_granules(batch)]
    asked = pa.concat_tables(tables)
    assert asked.sort_by("target_id")["target_id"].to_pylist() == sorted(lake.targets()["target_id"].to_pylist())
    assert asked["hpx29"].to_pylist() == sorted(asked["hpx29"].to_pylist())
    assert [table.num_rows for table in tables] == [2] * 25
    assert [len(batch.granules) for batch in batches] == [4] * 6 + [1]
    assert sum(batch.n_targets for batch in batches) == 50 == count_to_ask(lake, madeup, DEPTH, None)


def test_granule_ids_follow_from_what_is_asked(catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path) -> None:
    register(catalog, range(9))

    def ids(archive: Archive, **more: Any) -> list[str]:
        return [one for batch in planned(lake, archive, tmp_path, **more) for one in batch.granules]

    first = ids(madeup)
    assert first == ids(madeup)
    assert len(set(first)) == 5
    batch = planned(lake, madeup, tmp_path)[0]
    assert tuple(granule.id for granule in read_granules(batch)) == batch.granules
    assert not set(first) & set(ids(madeup, parameters={"depth": 2}))
    assert not set(first) & set(ids(madeup.at_release("DR2")))
    register(catalog, range(9, 10))
    assert len(set(first) & set(ids(madeup))) < 5


def test_a_plan_streams_while_its_batches_are_committed(
    catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path
) -> None:
    """A long plan is still being read when its first batches are committed: neither waits for the other."""
    n = 30_000
    rng = np.random.default_rng(7)
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    add_targets(catalog, pa.table({"ra": ra, "dec": dec, "name": [f"T{i}" for i in range(n)]}), "many")
    archive = replace(madeup, batch_size=500, fetch=lambda granule, settings: _nothing())
    known = {archive.name: archive}
    seen = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(REGISTRY, archive.name, known[archive.name])
        for number, batch in enumerate(plan_batches(lake, archive, DEPTH, ["many"], tmp_path / "plan")):
            seen += batch.n_targets
            if number % 5 == 0:
                commit_batch(lake.settings.url, fetch_batch(batch))
    assert seen == lake.targets().num_rows
    assert lake.sql("FROM coverage").num_rows == 3 * 2000
    assert count_to_ask(lake, archive, DEPTH, None) == seen - 6000


def _nothing() -> FetchResult:
    return FetchResult(*(TABLES[name].empty() for name in ("sources", "matches", "lightcurves")))


def test_only_what_has_no_answer_is_planned(catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path) -> None:
    register(catalog, range(10), "first")
    register(catalog, range(8, 14), "second")
    assert count_to_ask(lake, madeup, DEPTH, ["second"]) == 6
    for batch in planned(lake, madeup, tmp_path, samples=["first"]):
        commit_batch(lake.settings.url, fetch_batch(batch))
    assert count_to_ask(lake, madeup, DEPTH, None) == 4
    assert sum(batch.n_targets for batch in planned(lake, madeup, tmp_path, samples=["second"])) == 4
    assert count_to_ask(lake, madeup, DEPTH, ["first"]) == 0
    assert count_to_ask(lake, madeup, DEPTH, ["nobody"]) == 0
    assert count_to_ask(lake, madeup, {"depth": 2}, None) == 14
    assert count_to_ask(lake, madeup.at_release("DR2"), DEPTH, None) == 14
    assert count_to_ask(lake, madeup, DEPTH, None, select="all") == 14


def test_answers_of_live_archives_age(catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path) -> None:
    register(catalog, range(4))
    for batch in planned(lake, madeup, tmp_path):
        commit_batch(lake.settings.url, fetch_batch(batch))
    live = replace(madeup, cadence="live", max_age_days=30.0)
    assert max_age(madeup) is None
    assert max_age(live) == timedelta(days=30)
    assert count_to_ask(lake, live, DEPTH, None) == 0
    assert count_to_ask(lake, replace(live, max_age_days=1e-9), DEPTH, None) == 4
    assert count_to_ask(lake, madeup, DEPTH, None) == 0


def test_a_few_granules_are_shared_by_all_workers(
    catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path
) -> None:
    register(catalog, range(47))
    archive = replace(madeup, batch_size=5)  # of 10 granules 4 are a batch, and 4 again
    assert [len(batch.granules) for batch in planned(lake, archive, tmp_path)] == [4, 4, 1, 1]
    assert len(planned_as_one(lake, replace(madeup, batch_size=20), tmp_path).granules) == 3


def test_an_archive_may_cut_granules_its_own_way(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def alone(archive: Archive, targets: pa.Table, settings: Settings, parameters: Any) -> list[Granule]:
        return [Granule("madeup", "DR1", parameters, targets.slice(i, 1)) for i in range(targets.num_rows)]

    archive = archives.archive(plan=alone)
    monkeypatch.setitem(REGISTRY, "madeup", archive)
    register(catalog, range(9))
    batches = planned(lake, archive, tmp_path)
    assert [granule.targets.num_rows for batch in batches for granule in read_granules(batch)] == [1] * 9
    assert [len(batch.granules) for batch in batches] == [3, 3, 3], "few granules are shared out among 4 workers"
    register(catalog, range(9, 47))
    assert [len(batch.granules) for batch in planned(lake, archive, tmp_path)] == [4] * 11 + [3]


def test_what_an_archive_cuts_goes_on_over_the_ends_of_what_is_read_at_once(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Targets are read 8 at a time; a piece of the sky that ends later is one granule all the same."""
    seen: list[int] = []

    def by_piece(archive: Archive, targets: pa.Table, settings: Settings, parameters: Any) -> list[Granule]:
        seen.append(targets.num_rows)
        piece = targets["hpx29"].to_numpy() >> 2 * 29
        edges = np.flatnonzero(np.diff(piece, prepend=-1, append=-1)).tolist()
        parts = (targets.slice(a, b - a) for a, b in pairwise(edges))
        return [Granule("madeup", "DR1", parameters, part) for part in parts]

    archive = archives.archive(plan=by_piece)
    monkeypatch.setitem(REGISTRY, "madeup", archive)
    register(catalog, range(90))
    granules = [granule for batch in planned(lake, archive, tmp_path) for granule in read_granules(batch)]
    pieces = [(granule.targets["hpx29"].to_numpy() >> 2 * 29).tolist() for granule in granules]
    assert [piece[0] for piece in pieces] == sorted({number for piece in pieces for number in piece})
    assert all(len(set(piece)) == 1 for piece in pieces)
    assert max(map(len, pieces)) > 8
    asked = [one for granule in granules for one in granule.targets["target_id"].to_pylist()]
    assert len(seen) == 12
    assert sorted(asked) == sorted(lake.targets()["target_id"].to_pylist())
    assert sum(seen) < 3 * len(asked), "what is held back is little"


def test_an_archive_that_cannot_plan_is_told_in_the_ledger(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A HATS catalogue that is not there: every target is noted as failed, with the reason."""
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ZTF", str(tmp_path / "nowhere"))
    register(catalog, range(9))
    for batch in planned(lake, REGISTRY["ztf"], tmp_path, parameters={"radius_arcsec": 1.0}):
        commit_batch(lake.settings.url, fetch_batch(batch, last_try=False))
    assert lake.sql("SELECT status, count(*) AS n FROM coverage GROUP BY ALL").to_pylist() == [
        {"status": "failed", "n": 9}
    ]
    (row,) = lake.sql("SELECT status, error_type, reason FROM ledger").to_pylist()
    assert (row["status"], row["error_type"]) == ("failed", "ArchiveError")
    assert "there is no HATS catalogue" in row["reason"]


def test_registering_an_archive_again_changes_nothing(lake: Lake, madeup: Archive) -> None:
    def snapshots() -> int:
        return lake.sql("FROM ducklake_snapshots('lake')").num_rows

    register_archive(lake, madeup)
    before = snapshots()
    register_archive(lake, madeup)
    assert snapshots() == before
    register_archive(lake, replace(madeup, notes="other"))
    assert snapshots() > before
    assert lake.sql("SELECT notes FROM archives").to_pylist() == [{"notes": "other"}]
    bands = lake.sql("SELECT band, zero_point_jy FROM bands ORDER BY band").to_pylist()
    assert bands == [{"band": "g", "zero_point_jy": 3631.0}, {"band": "r", "zero_point_jy": None}]


# --- fetch and stage ---


def only_batch(catalog: Catalog, lake: Lake, folder: Path, n: int = 8) -> Batch:
    register(catalog, range(n))
    return planned_as_one(lake, REGISTRY["madeup"], folder / "plan")


def test_coverage_counts_sources_and_rows_of_each_target(
    catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path
) -> None:
    batch = only_batch(catalog, lake, tmp_path, 2)
    granule = next(read_granules(batch))
    a, b = granule.targets["target_id"].to_pylist()
    matches = pa.table({"target_id": [b, b, a], "source_id": ["x", "y", "x"]})
    curves = TABLES["lightcurves"].cast(
        pa.table(
            {
                "source_id": ["x", "x", "x"],
                "hpx29": [1, 1, 1],
                "band": ["g", "g", "r"],
                "mjd": [58000.0] * 3,
                "flux": [1.0] * 3,
                "detected": [True] * 3,
                "good": [True] * 3,
            }
        )
    )
    curves = curves.drop_columns(["archive", "release", "granule"])
    now = pa.scalar(0, pa.timestamp("us", tz="UTC")).as_py()
    coverage = complete(FetchResult(TABLES["sources"].empty(), matches, curves), granule, now)["coverage"]
    counted = {row["target_id"]: (row["status"], row["n_sources"], row["n_rows"]) for row in coverage.to_pylist()}
    assert counted == {a: ("found", 1, 3), b: ("found", 2, 3)}
    nothing = complete(_nothing(), granule, now)["coverage"].to_pylist()
    assert [(row["status"], row["n_sources"], row["n_rows"]) for row in nothing] == [("empty", 0, 0)] * 2
    assert {row["granule"] for row in nothing} == {granule.id}


def test_a_batch_is_fetched_staged_and_committed(catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path) -> None:
    batch = only_batch(catalog, lake, tmp_path)
    register_archive(lake, madeup)
    receipts = commit_batch(lake.settings.url, fetch_batch(batch))
    assert [receipt.granule for receipt in receipts] == list(batch.granules)
    found = lake.sql("SELECT status, n_sources, n_rows, count(*) AS n FROM coverage GROUP BY ALL ORDER BY ALL")
    assert found.to_pylist() == [
        {"status": "empty", "n_sources": 0, "n_rows": 0, "n": 2},
        {"status": "found", "n_sources": 1, "n_rows": 3, "n": 6},
    ]
    ledger = lake.sql("FROM ledger").to_pylist()
    assert {row["granule"] for row in ledger} == set(batch.granules)
    for row in ledger:
        assert row["status"] in ("done", "empty")
        assert (row["endpoint"], json.loads(row["parameters"])) == (archives.ENDPOINT, DEPTH)
        assert row["peak_rss_mb"] > 10
        assert len(row["input_checksum"]) == 32
    assert lake.sql("SELECT sum(n)::INT AS n FROM statistics").to_pylist() == [{"n": 18}]
    assert whole(catalog)
    # The same again: nothing moves, nothing is there twice.
    assert commit_batch(lake.settings.url, fetch_batch(batch))[0].replaced == 0
    assert lake.sql("FROM lightcurves").num_rows == 18


def test_the_next_try_fetches_only_what_is_not_staged(
    catalog: Catalog, lake: Lake, madeup: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    batch = only_batch(catalog, lake, tmp_path)
    asked: Counter[str] = Counter()

    def once_unwilling(granule: Granule, settings: Settings) -> FetchResult:
        asked[granule.id] += 1
        if granule.id == batch.granules[1] and asked[granule.id] == 1:
            raise refusal()
        return harvest(granule)

    answering(monkeypatch, once_unwilling)
    with pytest.raises(ArchiveError, match="madeup: HTTP 503"):
        fetch_batch(batch, last_try=False)
    assert set(asked.values()) == {1}
    manifests = fetch_batch(batch, last_try=False)
    assert [asked[one] for one in batch.granules] == [1, 2, 1, 1]
    assert [manifest.attempt.granule for manifest in manifests] == list(batch.granules)
    assert {manifest.attempt.status for manifest in manifests} <= {"done", "empty"}


def test_what_an_archive_says_is_unanswered_is_rejected(
    catalog: Catalog, lake: Lake, madeup: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    batch = only_batch(catalog, lake, tmp_path)
    first = next(read_granules(batch)).targets["target_id"][0].as_py()
    answering(monkeypatch, lambda granule, settings: replace(_nothing(), unanswered=frozenset({first})))
    commit_batch(lake.settings.url, fetch_batch(batch))
    rejected = lake.sql("SELECT target_id FROM coverage WHERE status = 'rejected'")
    assert rejected["target_id"].to_pylist() == [first]


def test_staging_that_was_cut_off_is_done_again(catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path) -> None:
    batch = only_batch(catalog, lake, tmp_path)
    first = fetch_batch(batch)
    (Path(first[2].folder) / MANIFEST).unlink()
    again = fetch_batch(batch)
    assert again[0] == first[0]
    assert again[2] != first[2]
    assert [file.blake2b for file in again[2].files if file.table != "coverage"] == [
        file.blake2b for file in first[2].files if file.table != "coverage"
    ]


def test_losses_are_staged_with_their_reason(
    catalog: Catalog, lake: Lake, madeup: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    batch = only_batch(catalog, lake, tmp_path)

    def unwilling(granule: Granule, settings: Settings) -> FetchResult:
        match batch.granules.index(granule.id):
            case 0:
                raise refusal("HTTP 404 Not Found", transient=False)
            case 1:
                raise refusal("HTTP 503 Service Unavailable")
            case 2:
                harvested = harvest(granule)
                return replace(harvested, lightcurves=_with(harvested.lightcurves, "mjd", 2459000.5))
        return harvest(granule)

    answering(monkeypatch, unwilling)
    commit_batch(lake.settings.url, fetch_batch(batch, last_try=True))
    ledger = {row["granule"]: row for row in lake.sql("FROM ledger").to_pylist()}
    told = [(ledger[one]["status"], ledger[one]["error_type"]) for one in batch.granules[:3]]
    assert told == [("failed", "ArchiveError"), ("failed", "ArchiveError"), ("rejected", "GranuleRejected")]
    assert ledger[batch.granules[0]]["reason"] == f"madeup: HTTP 404 Not Found [{archives.ENDPOINT}]"
    assert ledger[batch.granules[2]]["reason"].startswith("lightcurves.mjd is not 33282 to 88069 in ")
    assert "Traceback" in ledger[batch.granules[0]]["error"]
    assert ledger[batch.granules[3]]["status"] in ("done", "empty")
    statuses = "SELECT status, count(*) AS n FROM coverage WHERE n_sources = 0 GROUP BY ALL ORDER BY ALL"
    counts = {row["status"]: row["n"] for row in lake.sql(statuses).to_pylist()}
    assert (counts["failed"], counts["rejected"]) == (4, 2)
    assert count_to_ask(lake, madeup, DEPTH, None) == 4
    assert count_to_ask(lake, madeup, {"depth": 2}, None) == batch.n_targets
    assert whole(catalog)
    # Mended, the archive is asked for these alone, if the run retries what failed, and then nothing is missing.
    monkeypatch.setitem(REGISTRY, "madeup", madeup)
    for rest in planned(lake, madeup, tmp_path / "again", select="failed"):
        assert rest.n_targets == 6
        commit_batch(lake.settings.url, fetch_batch(rest))
    assert lake.sql("FROM coverage WHERE status IN ('failed', 'rejected')").num_rows == 0
    assert count_to_ask(lake, madeup, DEPTH, None) == count_to_ask(lake, madeup, DEPTH, None, select="failed") == 0
    assert whole(catalog)


def _with(table: pa.Table, column: str, value: Any) -> pa.Table:
    if column not in table.column_names:
        return table.append_column(column, pa.nulls(table.num_rows))
    values = pa.array([value] * table.num_rows, table[column].type)
    return table.set_column(table.column_names.index(column), column, values)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("unit", "Jy", "lightcurves.unit of band g is 'Jy', not 'mJy'"),
        ("band", "V", "lightcurves.band 'V' is none of g, r"),
        ("source_id", "who", "lightcurves.source_id is not among the granule's sources"),
        ("good", None, "lightcurves.good is NULL"),
        ("colour", None, "table lightcurves has no column colour"),
    ],
)
def test_rows_that_break_a_rule_are_rejected(
    catalog: Catalog,
    lake: Lake,
    madeup: Archive,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    column: str,
    value: Any,
    reason: str,
) -> None:
    def careless(granule: Granule, settings: Settings) -> FetchResult:
        harvested = harvest(granule)
        return replace(harvested, lightcurves=_with(harvested.lightcurves, column, value))

    answering(monkeypatch, careless)
    manifests = fetch_batch(only_batch(catalog, lake, tmp_path))
    rejected = [one.attempt for one in manifests if one.attempt.status == "rejected"]
    assert rejected
    assert all(reason in (attempt.reason or "") for attempt in rejected)
    assert all([file.table for file in one.files] == ["coverage"] for one in manifests if one.attempt in rejected)


def test_a_source_that_breaks_a_rule_takes_no_neighbour_with_it(
    catalog: Catalog, lake: Lake, madeup: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def careless(granule: Granule, settings: Settings) -> FetchResult:
        harvested = harvest(granule)
        rows = harvested.lightcurves.to_pylist()
        for row in rows:
            row["detected"] = None if row["source_id"] == "s-T001" else True
        return replace(harvested, lightcurves=pa.Table.from_pylist(rows, harvested.lightcurves.schema))

    answering(monkeypatch, careless)
    commit_batch(str(lake.storage.root), fetch_batch(only_batch(catalog, lake, tmp_path, n=4)))
    covered = lake.sql("SELECT name, status FROM coverage JOIN targets USING (target_id)").to_pylist()
    status = {row["name"]: row["status"] for row in covered}
    assert status == {"T000": "empty", "T001": "rejected", "T002": "found", "T003": "found"}
    told = [row["reason"] for row in lake.sql("SELECT reason FROM ledger WHERE reason IS NOT NULL").to_pylist()]
    assert [reason.startswith("sources rejected: 1 (s-T001): ") for reason in told] == [True]
    assert whole(catalog)


def test_a_bug_loses_its_batch_less_what_was_staged(
    catalog: Catalog, lake: Lake, madeup: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    batch = only_batch(catalog, lake, tmp_path)

    def broken(granule: Granule, settings: Settings) -> FetchResult:
        if granule.id == batch.granules[2]:
            raise KeyError("ObsMJD")
        return harvest(granule)

    answering(monkeypatch, broken)
    with pytest.raises(KeyError) as caught:
        fetch_batch(batch, last_try=False)
    attempts = [manifest.attempt for manifest in mark_batch_failed(batch, caught.value)]
    assert [attempt.status == "failed" for attempt in attempts] == [False, False, True, True]
    assert attempts[2].error_type == "KeyError"
    assert attempts[2].reason == "KeyError: 'ObsMJD'"
    assert "in broken" in (attempts[2].error or "")


def test_what_is_lost_covers_every_target(catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path) -> None:
    batch = only_batch(catalog, lake, tmp_path)
    granule = next(read_granules(batch))
    manifest = lost(madeup, granule, tmp_path / "lost", TimeoutError())
    assert (manifest.attempt.status, manifest.attempt.reason) == ("failed", "TimeoutError")
    assert manifest.attempt.n_targets == granule.targets.num_rows == manifest.files[0].rows
    assert lost(madeup, granule, tmp_path / "lost", GranuleRejected("no")).attempt.status == "rejected"
    receipts = commit_batch(lake.settings.url, mark_batch_failed(batch, refusal()))
    assert [receipt.status for receipt in receipts] == ["failed"] * 4
    assert lake.sql("FROM coverage WHERE status = 'failed'").num_rows == batch.n_targets


def test_a_loss_does_not_take_back_an_answer(catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path) -> None:
    batch = only_batch(catalog, lake, tmp_path)
    commit_batch(lake.settings.url, fetch_batch(batch))
    (again,) = planned(lake, madeup, tmp_path / "again", select="all")
    commit_batch(lake.settings.url, mark_batch_failed(again, refusal()))
    assert lake.sql("FROM coverage WHERE status = 'failed'").num_rows == 0
    assert lake.sql("FROM lightcurves").num_rows == 18
    assert lake.sql("FROM ledger WHERE status = 'failed'").num_rows == 4
    assert whole(catalog)


def test_staged_files_that_vanish_before_their_commit_are_told(
    catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path
) -> None:
    batch = only_batch(catalog, lake, tmp_path)
    manifests = fetch_batch(batch)
    next(Path(manifests[1].folder).glob("coverage-*.parquet")).unlink()
    with pytest.raises(StagingLost) as caught:
        commit_batch(lake.settings.url, manifests)
    receipts = commit_batch(lake.settings.url, mark_batch_failed(batch, caught.value))
    assert {receipt.status for receipt in receipts} >= {"failed"}
    assert lake.sql("FROM coverage").num_rows == batch.n_targets
    assert whole(catalog)


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (refusal(), True),
        (refusal(transient=False), False),
        (StagingLost("gone"), True),
        (CatalogError("locked"), False),
        (GranuleRejected("unit"), False),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (OSError(errno.ESTALE, "a disk behind a network"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (KeyError("ObsMJD"), False),
        (BrokenProcessPool("a worker was killed"), True),
    ],
)
def test_only_what_can_pass_is_tried_again(error: BaseException, passing: bool) -> None:
    assert is_passing(error) is passing


# --- answers that are cut ---


def cut_above(most: int, seen: list[int] | None = None) -> Any:
    """An archive whose answers are cut if more than so many targets are asked for."""

    def fetch(granule: Granule, settings: Settings) -> FetchResult:
        n = granule.targets.num_rows
        if seen is not None:
            seen.append(n)
        if n > most:
            raise TruncatedAnswer(f"the answer was cut at {most} rows", archive="madeup", endpoint=archives.ENDPOINT)
        return harvest(granule)

    return fetch


def cutting(monkeypatch: pytest.MonkeyPatch, most: int, seen: list[int] | None = None) -> Archive:
    archive = archives.archive(batch_size=8, fetch=cut_above(most, seen))
    monkeypatch.setitem(REGISTRY, "madeup", archive)
    return archive


@pytest.mark.parametrize("most", [pytest.param(5, marks=pytest.mark.long), 2, pytest.param(1, marks=pytest.mark.long)])
def test_a_granule_that_is_cut_is_asked_again_in_halves(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, most: int
) -> None:
    register(catalog, range(13))
    archive = cutting(monkeypatch, most)
    register_archive(lake, archive)
    batch = planned_as_one(lake, archive, tmp_path / "plan")
    manifests = fetch_batch(batch)
    receipts = commit_batch(lake.settings.url, manifests)
    report = PullReport("madeup", "DR1").plus(0, [(None, one) for one in receipts])
    assert (report.asked, report.failed) == (13, 0), "targets of a split granule are counted once"
    assert report.granules_split == sum(receipt.status == "split" for receipt in receipts) > 0
    assert lake.sql("SELECT count(*) AS n FROM coverage WHERE status <> 'failed'").to_pylist() == [{"n": 13}]
    assert whole(catalog)
    ledger = {row["granule"]: row for row in lake.sql("FROM ledger").to_pylist()}
    for row in ledger.values():
        if row["status"] == "split":
            first, second = (ledger[name] for name in row["reason"].partition("asked again as ")[2].split(" and "))
            assert first["n_targets"] + second["n_targets"] == row["n_targets"] > most
            assert row["error_type"] == "TruncatedAnswer"
            assert (row["n_rows"], row["n_sources"]) == (0, 0)
        else:
            assert row["n_targets"] <= most


def test_one_target_that_is_cut_fails_and_says_so(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    register(catalog, range(3))
    archive = cutting(monkeypatch, 0)
    batch = planned_as_one(lake, archive, tmp_path / "plan")
    receipts = commit_batch(lake.settings.url, fetch_batch(batch))
    assert Counter(receipt.status for receipt in receipts) == {"split": 2, "failed": 3}
    report = PullReport("madeup", "DR1").plus(0, [(None, one) for one in receipts])
    assert (report.asked, report.failed) == (3, 3)
    assert "the answer was cut at 0 rows" in report.message
    assert count_to_ask(lake, archive, DEPTH, None) == 3


def test_a_retry_goes_on_with_the_halves(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was split or staged before a passing failure is not asked again."""
    register(catalog, range(8))
    seen: list[int] = []
    archive = cutting(monkeypatch, 4, seen)
    batch = planned_as_one(lake, archive, tmp_path / "plan")
    calls = iter([None, None, refusal()])

    def failing(granule: Granule, settings: Settings) -> FetchResult:
        if (error := next(calls, None)) is not None:
            seen.append(-granule.targets.num_rows)
            raise error
        return cut_above(4, seen)(granule, settings)

    monkeypatch.setitem(REGISTRY, "madeup", replace(archive, fetch=failing))
    with pytest.raises(ArchiveError, match="503"):
        fetch_batch(batch, last_try=False)
    manifests = fetch_batch(batch, last_try=False)
    assert seen == [8, 4, -4, 4]
    assert [manifest.attempt.status for manifest in manifests] == ["split", "done", "done"]
    lost_ones = mark_batch_failed(batch, RuntimeError("the worker died"))
    assert [manifest.attempt.status for manifest in lost_ones] == ["split", "done", "done"]


def test_committing_a_split_twice_changes_nothing(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    register(catalog, range(8))
    archive = cutting(monkeypatch, 4)
    batch = planned_as_one(lake, archive, tmp_path / "plan")
    manifests = fetch_batch(batch)
    commit_batch(lake.settings.url, manifests)
    before = lake.sql("SELECT * FROM ledger ORDER BY ALL").to_pylist()
    commit_batch(lake.settings.url, manifests)
    assert lake.sql("SELECT * FROM ledger ORDER BY ALL").to_pylist() == before
