"""The engine without Prefect: what is asked, tried again, given up and told, of one archive or many side by side."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.compute as pc
import pytest
from helpers import archives
from helpers.archives import PLACES, harvest, numbers_of, refusal, register

from deployments.sandbox.icecube import URL_PATH
from deployments.sandbox.server import Sandbox
from flows import local
from lake.errors import ArchiveError, CatalogError, ConfigurationError, LightlakeError, StagingLost
from lake.query import Lake
from lake.science.sky import hpx29
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from lake.store.storage import path_of, read_parquet
from lake.upkeep.maintenance import verify
from tasks.archives import work
from tasks.archives.source import ArchiveSource
from tasks.pull import driver, limits
from tasks.pull.driver import Run
from tasks.pull.report import PullReport
from tasks.pull.run import pull_all, width_of
from tasks.pull.runners import LocalRunner
from tasks.sources.base import Archive, FetchResult, Granule
from tasks.sources.icecube import archive as icecube
from tasks.sources.protocol import Request
from tasks.sources.registry import REGISTRY
from tasks.worker import lake_at, logger

Rows = Callable[..., list[dict[str, Any]]]

pytestmark = pytest.mark.usefixtures("pull_settings")

STATUSES = "SELECT status, count(*) AS n FROM coverage GROUP BY ALL ORDER BY ALL"


class Watched:
    """Progress, as it is told."""

    def __init__(self) -> None:
        self.total: dict[str, int] = {}
        self.done: Counter[str] = Counter()

    def begin(self, source: str, total: int, what: str = "targets") -> None:
        self.total[source] = self.total.get(source, 0) + total

    def advance(self, source: str, done: int) -> None:
        self.done[source] += done


def pull_several(*requests: Request, told: bool = True) -> list[PullReport | Exception]:
    """Pull by the local runner, and see that the progress is told to the end."""
    settings, watch = load_settings(), Watched()
    width = width_of(settings, {request.source for request in requests})
    with LocalRunner(settings, width) as runner:
        run = Run(lake_at(settings.url), runner, logger, "test", "the test", watch, settings)
        outcomes = pull_all(run, requests)
    assert watch.total == dict(watch.done) or not told
    return outcomes


def pull(archive: str = "icecube", **more: Any) -> PullReport:
    """Pull one archive; raise what ended it."""
    (outcome,) = pull_several(Request(archive, **more))
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def counts(rows: Rows) -> dict[str, int]:
    return {row["status"]: row["n"] for row in rows(STATUSES)}


def errors(catalog: Catalog) -> list[str]:
    return [finding.message for finding in verify(catalog) if finding.is_error]


@pytest.fixture
def madeup(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Archive]:
    """Put the made-up archive into the registry: one module and one line."""

    def put(**more: Any) -> Archive:
        archive = archives.archive(**more)
        monkeypatch.setitem(REGISTRY, archive.name, archive)
        return archive

    return put


# --- one archive ---


def test_every_target_is_answered_and_the_next_pull_asks_only_what_is_new(
    catalog: Catalog, rows: Rows, sandbox: Sandbox
) -> None:
    register(catalog, range(24))
    first = pull(sample="test")
    assert (first.asked, first.failed, first.requests) == (24, 0, 1)
    assert sum(counts(rows).values()) == 24
    assert first.rows == rows("SELECT count(*) AS n FROM lightcurves")[0]["n"] > 0
    assert rows("SELECT status, attempt, n_targets FROM ledger") == [{"status": "done", "attempt": 1, "n_targets": 24}]
    # A frozen archive is asked once, ever, and downloaded once.
    assert pull().message == "icecube: nothing to do, every target has its answer"
    register(catalog, range(20, 30), "more")
    assert pull(sample="more").asked == 6
    before = rows("SELECT * EXCLUDE granule FROM lightcurves ORDER BY ALL")
    assert pull(select="all").asked == 30
    assert rows("SELECT * EXCLUDE granule FROM lightcurves ORDER BY ALL") == before
    # Other parameters are another question.
    narrow = {"max_search_radius_deg": 0.01}
    assert pull(options=narrow).asked == 30
    assert {row["parameters"] for row in rows("FROM coverage")} == {
        json.dumps(icecube.ARCHIVE.with_defaults(narrow), sort_keys=True, separators=(",", ":"))
    }
    assert len(sandbox.requests) == 1
    assert errors(catalog) == []


@pytest.mark.parametrize(
    "kinds", [pytest.param(["status:503"] * 2, marks=pytest.mark.long), ["truncate", "garbage", "short"]]
)
def test_what_can_pass_is_tried_again(
    catalog: Catalog, rows: Rows, sandbox: Sandbox, kinds: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    register(catalog, range(5))
    for kind in kinds:
        sandbox.fault(URL_PATH, kind)
    assert pull().failed == 0
    assert len(sandbox.requests) == len(kinds) + 1
    (ledger,) = rows("SELECT granule, status, retries, requests FROM ledger")
    assert (ledger["status"], ledger["retries"], ledger["requests"]) == ("done", len(kinds), len(kinds) + 1)
    assert caplog.text.count(f"{ledger['granule']}: trying again: icecube: ") == len(kinds)


def test_what_cannot_pass_is_told_and_mended_by_the_next_run(catalog: Catalog, rows: Rows, sandbox: Sandbox) -> None:
    register(catalog, range(5))
    sandbox.fault(URL_PATH, "status:404")
    failed = pull()
    assert (failed.asked, failed.failed, failed.granules_failed) == (5, 5, 1)
    assert len(sandbox.requests) == 1
    assert counts(rows) == {"failed": 5}
    (ledger,) = rows("FROM ledger")
    assert (ledger["status"], ledger["error_type"]) == ("failed", "ArchiveError")
    assert failed.reasons == (ledger["reason"],)
    assert ledger["endpoint"] == sandbox.endpoints["icecube"]
    assert pull().failed == 0
    assert counts(rows).keys() <= {"found", "empty"}
    assert [row["status"] for row in rows("FROM ledger ORDER BY attempt")] == ["failed", "done"]
    assert errors(catalog) == []


def test_an_archive_that_hangs_is_given_up(
    catalog: Catalog, rows: Rows, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(catalog, range(3))
    monkeypatch.setenv("LIGHTLAKE_TIMEOUT_S", "0.2")
    monkeypatch.setenv("LIGHTLAKE_RETRIES", "1")
    sandbox.fault(URL_PATH, "hang", times=9)
    assert "icecube: no answer for 0.2 s" in pull().message
    assert len(sandbox.requests) == 2
    assert counts(rows) == {"failed": 3}


def test_an_archive_that_stays_away_is_not_asked_for_ever(
    catalog: Catalog, rows: Rows, madeup: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLAKE_RETRIES", "0")
    monkeypatch.setenv("LIGHTLAKE_WORKERS", "1")
    asked: set[int] = set()

    def away(granule: Granule, settings: Settings) -> FetchResult:
        asked.update(numbers_of(granule))
        raise refusal()

    madeup(fetch=away, batch_size=1, give_up_after=2)
    register(catalog, range(16))  # four batches
    report = pull("madeup")
    assert (report.asked, report.failed, report.granules_failed) == (16, 16, 16)
    assert any("not asked: 2 batches before failed" in reason for reason in report.reasons)
    assert 4 * 2 <= len(asked) < 16
    assert counts(rows) == {"failed": 16}
    backed_off = pull("madeup", back_off=True)
    assert (backed_off.asked, backed_off.backed_off) == (0, 16)


def test_granules_that_stay_away_take_no_other_of_their_batch_with_them(
    catalog: Catalog, rows: Rows, madeup: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLAKE_RETRIES", "1")
    asked: Counter[int] = Counter()

    def fetch(granule: Granule, settings: Settings) -> FetchResult:
        (number,) = numbers_of(granule)
        asked[number] += 1
        if number in (1, 2):
            raise refusal(f"no answer for {number}")
        return harvest(granule)

    madeup(fetch=fetch, batch_size=1)
    register(catalog, range(4))  # a granule each, and one batch
    report = pull("madeup")
    assert (report.asked, report.failed, report.granules_failed) == (4, 2, 2)
    assert asked == {0: 1, 1: 2, 2: 2, 3: 1}, "only what failed is asked again"
    lost = rows("SELECT reason, retries FROM ledger WHERE status = 'failed' ORDER BY reason")
    assert [row["retries"] for row in lost] == [1, 1]
    assert [f"no answer for {n}" in row["reason"] for n, row in enumerate(lost, 1)] == [True, True], "each its own"


@pytest.mark.parametrize(("patient", "times"), [(False, 3), (True, 1)])
def test_retries_are_in_one_place(
    catalog: Catalog, madeup: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch, patient: bool, times: int
) -> None:
    """In the engine, or in the archive's own requests; never in both."""
    monkeypatch.setenv("LIGHTLAKE_RETRIES", "2")
    asked: list[int] = []

    def away(granule: Granule, settings: Settings) -> FetchResult:
        asked.extend(numbers_of(granule))
        raise refusal()

    madeup(fetch=away, patient=patient)
    register(catalog, range(1))
    assert pull("madeup").failed == 1
    assert asked == [0] * times


def test_one_granule_of_each_kind(catalog: Catalog, rows: Rows, madeup: Callable[..., Archive]) -> None:
    """A bug, broken rows and a refusal each lose their granules, named; all the rest is in the lake."""
    asked: Counter[int] = Counter()

    def fetch(granule: Granule, settings: Settings) -> FetchResult:
        numbers = numbers_of(granule)
        asked.update(numbers)
        harvested = harvest(granule)
        if 1 in numbers:
            raise KeyError("ObsMJD")
        if 2 in numbers:
            curves = harvested.lightcurves
            julian = pc.add(curves["mjd"], 2400000.5)  # a forgotten offset
            return replace(harvested, lightcurves=curves.set_column(curves.column_names.index("mjd"), "mjd", julian))
        if 3 in numbers and asked[3] == 1:
            raise refusal()
        return harvested

    madeup(fetch=fetch, batch_size=1)
    register(catalog, range(12))
    report = pull("madeup")
    ledger = rows("SELECT DISTINCT status, error_type, reason FROM ledger WHERE status NOT IN ('done', 'empty')")
    assert {(row["status"], row["error_type"]) for row in ledger} == {
        ("failed", "KeyError"),
        ("rejected", "GranuleRejected"),
    }
    assert {row["reason"] for row in ledger} == set(report.reasons)
    missing = "SELECT name FROM coverage JOIN targets USING (target_id) WHERE status IN ({})"
    lost = {row["name"] for row in rows(missing.format("'failed', 'rejected'"))}
    rejected = {row["name"] for row in rows(missing.format("'rejected'"))}
    assert rejected <= {"T002"}
    # The bug takes down what of its batch was not staged yet: at most the four granules of a task.
    assert {"T001", "T002"} <= lost
    assert len(lost) == report.failed + report.rejected <= 5
    assert len(rejected) == report.rejected
    assert asked[3] == 2 or "T003" in lost
    assert sum(counts(rows).values()) == report.asked == 12
    held = {row["source_id"] for row in rows("SELECT DISTINCT source_id FROM lightcurves")}
    assert held == {f"s-T{n:03}" for n in range(12) if n % archives.EMPTY_EVERY and f"T{n:03}" not in lost}
    madeup(batch_size=1)
    failed = lost - rejected
    mended = pull("madeup")
    assert (mended.asked, mended.failed, mended.rows) == (len(failed), 0, 3 * len(failed - {"T000"}))
    assert (mended.rejected_before, mended.lost) == (len(rejected), False)
    mended = pull("madeup", select="failed")
    assert (mended.asked, mended.failed, mended.rows) == (len(rejected), 0, 3 * len(rejected))
    assert errors(catalog) == []


@pytest.mark.long
def test_a_slow_batch_keeps_no_other_from_its_worker(
    catalog: Catalog, rows: Rows, madeup: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that waits for its next try keeps none at all."""
    monkeypatch.setenv("LIGHTLAKE_WORKERS", "2")
    others = threading.Event()
    asked: Counter[int] = Counter()

    def fetch(granule: Granule, settings: Settings) -> FetchResult:
        (number,) = numbers_of(granule)
        asked[number] += 1
        if len(asked) == 21:  # all but those that are in the first one's batch
            others.set()
        if sum(asked.values()) == 1:
            assert others.wait(60), "the others were kept waiting"
        return harvest(granule)

    madeup(fetch=fetch, batch_size=1)
    register(catalog, range(24))
    assert pull("madeup").failed == 0
    assert sum(counts(rows).values()) == 24


def test_what_was_staged_and_is_gone_is_fetched_anew(
    catalog: Catalog, rows: Rows, madeup: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = work.commit_together, []

    def commit(catalog: Any, manifest: Any) -> Any:
        if len(asked) == 1:
            for file in manifest.files:
                (path_of(manifest.folder) / file.name).unlink()
        return real(catalog, manifest)

    def fetch(granule: Granule, settings: Settings) -> FetchResult:
        asked.append(numbers_of(granule))
        return harvest(granule)

    monkeypatch.setattr(work, "commit_together", commit)
    madeup(fetch=fetch)
    register(catalog, range(2))
    assert pull("madeup").failed == 0
    assert len(asked) == 2
    assert sum(counts(rows).values()) == 2
    assert errors(catalog) == []


def test_targets_without_an_answer_in_a_granule_that_is_done_are_lost(
    catalog: Catalog, rows: Rows, madeup: Callable[..., Archive]
) -> None:
    """The archive's answer on them was rejected: the run says so, and they are retried on request."""

    def fetch(granule: Granule, settings: Settings) -> FetchResult:
        ids = dict(zip(granule.targets["name"].to_pylist(), granule.targets["target_id"].to_pylist(), strict=True))
        return replace(harvest(granule), unanswered=frozenset({ids["T000"]}), remark="T000: two positions")

    madeup(fetch=fetch, batch_size=8)
    register(catalog, range(4))
    report = pull("madeup")
    assert (report.asked, report.rejected, report.failed, report.granules_lost) == (4, 1, 0, 1)
    assert report.reasons == ("T000: two positions",)
    assert report.lost
    assert report.empty == 0
    assert [(loss.n_targets, loss.status) for loss in report.losses] == [(1, "done")]
    assert counts(rows) == {"rejected": 1, "found": 3}
    later = pull("madeup")
    assert (later.asked, later.rejected_before, later.lost) == (0, 1, False)
    assert later.message == "madeup: nothing to do. 1 target was rejected before: --retry-failed tries them again"
    assert pull("madeup", select="failed").rejected == 1
    assert pull("madeup", options={"depth": 2}).asked == 4


def test_a_service_that_asks_to_be_left_alone_is_asked_by_nobody(
    catalog: Catalog, madeup: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLAKE_WORKERS", "1")
    asked: list[float] = []
    now = [1000.0]  # a clock that only pauses move
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda pause: now.__setitem__(0, now[0] + pause))
    monkeypatch.setattr(driver, "time", clock)

    def fetch(granule: Granule, settings: Settings) -> FetchResult:
        asked.append(now[0])
        if len(asked) == 1:
            raise ArchiveError("HTTP 429", archive="madeup", endpoint="x", transient=True, retry_after_s=12.0)
        return harvest(granule)

    madeup(fetch=fetch, batch_size=4)
    register(catalog, range(32))
    assert pull("madeup").failed == 0
    first = [one - asked[0] for one in asked[1:]]
    # The others of the batch in hand are asked; then nothing is handed out.
    assert len(first) == 8
    assert all(one >= 12 for one in first[3:]), first


@pytest.mark.parametrize("error", [pytest.param(StagingLost("gone"), marks=pytest.mark.long), CatalogError("locked")])
def test_a_commit_that_fails_is_tried_again(
    catalog: Catalog, rows: Rows, madeup: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch, error: LightlakeError
) -> None:
    """A staging that was lost is fetched anew; a catalogue that could not be written is asked again."""
    asked: list[int] = []
    real, tried = work.commit_together, []

    def commit(*given: Any, **more: Any) -> Any:
        tried.append(1)
        if len(tried) == 1:
            raise error
        return real(*given, **more)

    def fetch(granule: Granule, settings: Settings) -> FetchResult:
        asked.extend(numbers_of(granule))
        return harvest(granule)

    monkeypatch.setattr(work, "commit_together", commit)
    madeup(fetch=fetch)
    register(catalog, range(2))
    assert pull("madeup").failed == 0
    assert len(tried) >= 2
    assert sum(counts(rows).values()) == 2


def test_a_catalogue_that_cannot_be_written_ends_the_pull(
    catalog: Catalog, rows: Rows, madeup: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = work.commit_together

    def commit(catalog: Any, manifest: Any) -> Any:
        if manifest.attempt.status == "done":
            raise CatalogError("it is read-only")
        return real(catalog, manifest)

    monkeypatch.setattr(work, "commit_together", commit)
    monkeypatch.setattr(driver, "_COMMIT_PAUSE_S", 0.0)
    madeup()
    register(catalog, range(2))
    (outcome,) = pull_several(Request("madeup"), told=False)
    assert isinstance(outcome, CatalogError)
    assert counts(rows) == {}
    monkeypatch.setattr(work, "commit_together", real)
    assert pull("madeup").failed == 0
    assert sum(counts(rows).values()) == 2
    assert errors(catalog) == []


# Of 24 targets, those of the first of six batches: a granule for each target, in the order of the sky.
FIRST = set(sorted(range(24), key=lambda n: hpx29(*zip(PLACES[n], strict=True))[0])[:4])


@pytest.fixture
def all_waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[..., FetchResult]]:
    """Hold the first commit of a pull until all other batches, each of which has ended, wait for theirs."""

    def hold(committed: list[Any], meanwhile: Callable[[], object] = lambda: None) -> Any:
        begun, waiting, settled = threading.Event(), threading.Event(), [0]
        real_commit, real_wait = work.commit_together, driver.Driver._commit

        def wait(*given: Any, **more: Any) -> None:
            real_wait(*given, **more)
            settled[0] += 1
            if settled[0] == 6:
                waiting.set()

        def commit(catalog: Any, manifest: Any) -> Any:
            if not begun.is_set():
                begun.set()
                assert waiting.wait(60), "the others did not end"
                meanwhile()
            committed.append(manifest)
            return real_commit(catalog, manifest)

        def fetch(granule: Granule, settings: Settings) -> FetchResult:
            assert FIRST.issuperset(numbers_of(granule)) or begun.wait(60), "the first batch is not committed"
            return harvest(granule)

        monkeypatch.setenv("LIGHTLAKE_WORKERS", "6")
        monkeypatch.setenv("LIGHTLAKE_ARCHIVE_CONCURRENCY", "6")
        monkeypatch.setattr(work, "commit_together", commit)
        monkeypatch.setattr(driver.Driver, "_commit", wait)
        return fetch

    return hold


def test_batches_that_wait_are_committed_together(
    catalog: Catalog, rows: Rows, madeup: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch, all_waiting: Any
) -> None:
    committed: list[Any] = []
    given: list[tuple[Any, Any]] = []
    real = ArchiveSource.commit

    def commit(self: ArchiveSource, url: str, fetched: Any) -> Any:
        receipts = real(self, url, fetched)
        given.extend(zip(fetched, receipts, strict=True))
        return receipts

    monkeypatch.setattr(ArchiveSource, "commit", commit)
    madeup(fetch=all_waiting(committed), batch_size=1)
    register(catalog, range(24))
    report = pull("madeup")
    assert (report.asked, report.failed, report.granules_done + report.granules_empty) == (24, 0, 24)
    assert [len(manifest.attempts) for manifest in committed] == [4, 20]
    assert len(rows("SELECT DISTINCT snapshot_id FROM ledger")) == 2
    assert report.rows == rows("SELECT count(*) AS n FROM lightcurves")[0]["n"]
    assert len(given) == 6
    for manifests, receipts in given:
        assert [receipt.granule for _, receipt in receipts] == [one.attempt.granule for one in manifests]
    assert errors(catalog) == []


def test_a_batch_that_cannot_be_committed_harms_none_that_waits_beside_it(
    catalog: Catalog,
    rows: Rows,
    madeup: Callable[..., Archive],
    monkeypatch: pytest.MonkeyPatch,
    all_waiting: Any,
    lake: Lake,
) -> None:
    """What was staged of one is gone: only that is fetched again."""
    asked: Counter[int] = Counter()
    lost: list[int] = []
    again: list[Any] = []
    real = driver.Driver._retry

    def retry(self: Any, one: Any, error: BaseException) -> bool:
        again.append(error)
        return real(self, one, error)

    def lose() -> None:
        for file in sorted(lake.storage.staging.rglob("lightcurves-*.parquet")):
            number = int(read_parquet(file)["source_id"][0].as_py().removeprefix("s-T"))
            if number not in FIRST:
                lost.append(number)
                file.unlink()
                break

    hold = all_waiting([], lose)
    monkeypatch.setattr(driver.Driver, "_retry", retry)

    def fetch(granule: Granule, settings: Settings) -> FetchResult:
        asked.update(numbers_of(granule))
        return hold(granule, settings)

    madeup(fetch=fetch, batch_size=1)
    register(catalog, range(24))
    report = pull("madeup")
    assert (report.asked, report.failed, report.granules_done + report.granules_empty) == (24, 0, 24)
    assert asked == Counter(range(24)) + Counter(lost)
    assert len(lost) == 1
    assert [type(error) for error in again] == [StagingLost], "no other batch is tried again"
    assert sum(counts(rows).values()) == 24
    assert report.rows == rows("SELECT count(*) AS n FROM lightcurves")[0]["n"]
    assert errors(catalog) == []


@pytest.mark.crash
def test_a_worker_that_is_killed_loses_nothing(
    catalog: Catalog, rows: Rows, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the processes had in hand is handed out again, to new ones."""
    monkeypatch.setenv("LIGHTLAKE_RUNNER", "processes")
    monkeypatch.setenv("LIGHTLAKE_WORKERS", "2")
    register(catalog, range(8))
    sandbox.fault(URL_PATH, "hang", times=1)
    killed: list[int] = []

    def kill_one() -> None:
        patience = time.monotonic() + 60
        while time.monotonic() < patience and not sandbox.requests:
            time.sleep(0.05)
        for pid in _workers():
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    report = pull()
    killer.join()
    assert killed
    assert (report.asked, report.failed) == (8, 0)
    assert sum(counts(rows).values()) == 8
    assert errors(catalog) == []


def _workers() -> list[int]:
    """Return the processes of a local runner: children that were spawned."""
    from tasks.endings import _children

    found = []
    for pid in _children(os.getpid()):
        if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
            found.append(pid)
    return found


def test_ctrl_c_ends_a_run(catalog: Catalog, rows: Rows, madeup: Callable[..., Archive]) -> None:
    let_go = threading.Event()

    def fetch(granule: Granule, settings: Settings) -> FetchResult:
        if 3 in numbers_of(granule):
            os.kill(os.getpid(), signal.SIGINT)
            let_go.wait(1)
        return harvest(granule)

    madeup(fetch=fetch, batch_size=1)
    register(catalog, range(16))
    with pytest.raises(KeyboardInterrupt):
        pull("madeup")
    let_go.set()
    assert sum(counts(rows).values()) < 16
    lake_at.cache_clear()
    madeup(batch_size=1)
    assert pull("madeup").failed == 0
    assert sum(counts(rows).values()) == 16
    assert errors(catalog) == []


# --- many side by side ---


@pytest.fixture
def side_by_side(madeup: Callable[..., Archive]) -> Callable[..., list[str]]:
    """Put archives into the registry: each with its own way to fetch."""

    def put(**fetches: Any) -> list[str]:
        for name, fetch in fetches.items():
            madeup(name=name, fetch=fetch, batch_size=1)
        return list(fetches)

    return put


def test_archives_are_asked_side_by_side_and_one_that_hangs_holds_up_no_other(
    catalog: Catalog, rows: Rows, side_by_side: Callable[..., list[str]]
) -> None:
    """The first answers nothing before all others have all their answers."""

    def patient(granule: Granule, settings: Settings) -> FetchResult:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            others = rows("SELECT count(*) AS n FROM coverage WHERE archive <> 'slow'")[0]["n"]
            if others == 2 * 5:
                return harvest(granule)
            time.sleep(0.3)  # asking a lake takes the time of the others
        raise AssertionError("the others wait for this one")

    names = side_by_side(slow=patient, a=harvest, b=harvest)
    register(catalog, range(5))
    reports = pull_several(*(Request(name) for name in names))
    assert [report.archive for report in reports if isinstance(report, PullReport)] == names
    assert sum(counts(rows).values()) == 3 * 5
    assert errors(catalog) == []


def test_so_many_at_a_time_as_the_setting_says(
    catalog: Catalog, side_by_side: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLAKE_SOURCES_AT_ONCE", "1")
    order: list[str] = []

    def noting(granule: Granule, settings: Settings) -> FetchResult:
        order.append(granule.archive)
        return harvest(granule)

    names = side_by_side(b=noting, a=noting)
    register(catalog, range(4))
    pull_several(*(Request(name) for name in names))
    assert order == ["b"] * 4 + ["a"] * 4


def test_one_that_fails_does_not_end_the_others(catalog: Catalog, side_by_side: Callable[..., list[str]]) -> None:
    names = side_by_side(a=harvest, b=harvest)
    register(catalog, range(2))
    first, second, third = pull_several(
        Request(names[0]), Request(names[1], options={"dept": 2}), Request(names[0], select="all")
    )
    assert isinstance(second, ConfigurationError)
    assert "b has no parameter dept" in str(second)
    assert isinstance(first, PullReport)
    assert isinstance(third, PullReport)
    assert (first.asked, third.asked) == (2, 2)


@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_service_is_asked_by_so_many_tasks_at_a_time(
    catalog: Catalog, madeup: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    monkeypatch.setenv("LIGHTLAKE_ARCHIVE_CONCURRENCY", "2")
    asking, most, free = 0, 0, 0
    counting = threading.Lock()

    def fetch(granule: Granule, settings: Settings) -> FetchResult:
        nonlocal asking, most, free
        with counting:
            asking += 1
            most = max(most, asking)
        time.sleep(0.01)
        impatient = settings.model_copy(update={"turn_timeout_s": 0.0})
        with suppress(LightlakeError), limits.connection_slots(impatient, "there", 1, logger):  # a run of another lake
            free += 1
        with counting:
            asking -= 1
        return harvest(granule)

    names = ["a", "b"] if shared else ["a"]
    for name in names:
        madeup(name=name, service="there", batch_size=1, fetch=fetch)
    register(catalog, range(12))
    reports = pull_several(*(Request(name) for name in names))
    assert [report.failed for report in reports if isinstance(report, PullReport)] == [0] * len(names)
    assert most <= 2
    if not shared:
        assert free == 0
    with limits.connection_slots(load_settings(), "there", 2, logger) as taken:
        assert taken == 2, "they are free again"


def test_who_has_no_place_waits(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    settings = lake.settings.model_copy(update={"turn_timeout_s": 60.0})
    with (
        limits.connection_slots(settings, "there", 3, logger) as first,
        limits.connection_slots(settings, "there", 3, logger) as rest,
    ):
        assert (first, rest) == (3, 1)
        got = threading.Event()

        def wait() -> None:
            with limits.connection_slots(settings, "there", 1, logger):
                got.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        until = time.monotonic() + 60
        while "waiting for a connection slot at there" not in caplog.text and time.monotonic() < until:
            time.sleep(0.02)
        assert not got.is_set()
    waiting.join()
    assert got.is_set()


def test_a_refresh_names_what_was_lost(
    catalog: Catalog,
    rows: Rows,
    sandbox: Sandbox,
    madeup: Callable[..., Archive],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIGHTLAKE_RETRIES", "0")
    register(catalog, range(6))
    sandbox.fault(URL_PATH, "status:404")
    madeup()
    done = local.refresh(settings.url, ["icecube", "madeup"])
    (lost,) = done.lost
    assert lost.startswith("icecube: 6 of 6 targets FAILED")
    assert done.lines[1].startswith("madeup: 6 of 6 targets answered")
    assert rows("SELECT archive, status FROM coverage GROUP BY ALL ORDER BY ALL") == [
        {"archive": "icecube", "status": "failed"},
        {"archive": "madeup", "status": "empty"},
        {"archive": "madeup", "status": "found"},
    ]
    mended = local.refresh(settings.url, ["icecube", "madeup"])
    assert mended.lost == []
    assert mended.lines[1] == "madeup: nothing to do, every target has its answer"
