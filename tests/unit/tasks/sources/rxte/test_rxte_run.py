"""A run over RXTE's observations without Prefect: what is tried again, and what is given up; turns and places."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pytest

from deployments.sandbox.rxte import TARGETS, write_mirror, xtemaster
from deployments.sandbox.server import Response, Sandbox
from lake.commit.targets import add_targets
from lake.errors import ConfigurationError, LightlakeError, StagingLost
from lake.query import Lake
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.progress import Bars
from tasks.pull.driver import Run
from tasks.pull.limits import connection_slots, exclusive_pull
from tasks.pull.report import PullReport
from tasks.pull.run import pull
from tasks.pull.runners import LocalRunner
from tasks.sources.protocol import Request
from tasks.sources.rxte import observations as rxte_pull
from tasks.sources.rxte import source as rxte_run
from tasks.sources.rxte.options import RxteOptions
from tasks.worker import OutOfTime, lake_at, logger


class Counted(LocalRunner):
    """Threads; the first tries may end with errors instead."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__(load_settings(), 2)
        self.errors, self.n = list(errors), 0

    def submit(self, name: str, tags: tuple[str, ...], work: Callable[..., Any], *args: Any) -> Future[Any]:
        self.n += 1
        if not self.errors:
            return super().submit(name, tags, work, *args)
        lost: Future[Any] = Future()
        lost.set_exception(self.errors.pop())
        return lost


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole mirror of 24 observations, slews among them."""
    folder = tmp_path_factory.mktemp("rxte")
    rows = write_mirror(folder / "mirror", n_obsids=24, seed=8, broken=0, std2=0, bins=(20, 30))
    csv.write_csv(xtemaster(rows).drop(["__row"]), folder / "xtemaster.csv")
    for row in rows.to_pylist():
        if row["obsid"]:
            (folder / "mirror" / row["folder"]).mkdir(parents=True, exist_ok=True)
            (folder / "mirror" / row["folder"] / "FMI").touch()
    return folder


@pytest.fixture
def lake(catalog: Catalog, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    more = {
        "ENDPOINTS__RXTE": str(mirror / "mirror"),
        "RETRY_DELAY_S": "0",
        "TURN_TIMEOUT_S": "0.01",
        "CACHE_DIR": str(tmp_path / "cache"),
    }
    for name, value in more.items():
        monkeypatch.setenv(f"LIGHTLAKE_{name}", value)
    monkeypatch.setitem(rxte_pull.TOGETHER, "products", 5)
    names, ra, dec = zip(*TARGETS, strict=True)
    add_targets(catalog, pa.table({"name": names, "ra": ra, "dec": dec}), "sources")
    yield lake_at(str(catalog.storage.root))
    lake_at.cache_clear()


@pytest.fixture
def pulled(lake: Lake, mirror: Path) -> Callable[..., PullReport]:
    """Pull from the mirror, and return the report."""

    def pulled(runner: LocalRunner | None = None, **more: Any) -> PullReport:
        given = {"xtemaster": str(mirror / "xtemaster.csv"), "slews": True, "method": "products", **more}
        with Bars() as bars, runner or Counted() as runner:
            run = Run(lake, runner, logger, "here", "a test", bars)
            options = RxteOptions.of(**given)
            request = Request("rxte", options, options.sample, options.select)
            _, report = run.alone(lambda: pull(run, rxte_run.SOURCE, request))
        return report

    return pulled


def errors(lake: Lake) -> list[str]:
    return [finding.message for finding in verify(lake.catalog) if finding.is_error]


def ended(lake: Lake) -> set[tuple[str, int]]:
    """How the attempts at observations ended, and how many there were at most at one."""
    rows = lake.sql("SELECT granule, list(status) AS s FROM ledger WHERE n_targets = 0 GROUP BY ALL").to_pylist()
    return {(status, len(row["s"])) for row in rows for status in row["s"]}


@pytest.mark.parametrize(
    "error",
    [
        BrokenProcessPool("killed"),
        pytest.param(TimeoutError("too long"), marks=pytest.mark.long),
        pytest.param(StagingLost("a file is gone"), marks=pytest.mark.long),
    ],
    ids=repr,
)
def test_what_a_worker_lost_is_done_again(lake: Lake, pulled: Callable[..., PullReport], error: Exception) -> None:
    runner = Counted(error, error)
    report = pulled(runner)
    assert (report.known, report.done, report.lost) == (24, 24, False)
    assert runner.n == 5 + 2, "five parts, two of them twice"
    assert {count for _, count in ended(lake)} == {1}
    assert lake.sql("SELECT DISTINCT status FROM coverage WHERE n_sources > 0")["status"].to_pylist() == ["found"]
    assert not list((lake.storage.staging / "here").glob("rxte/*"))
    assert errors(lake) == []
    again = pulled(retry_failed=True)
    assert (again.known, again.done_before, again.done) == (24, 24, 0)


@pytest.mark.long
def test_no_end_of_lost_workers_is_a_loss(lake: Lake, pulled: Callable[..., PullReport]) -> None:
    error = BrokenProcessPool("killed")
    runner = Counted(*[error] * 100)
    report = pulled(runner)
    assert (report.done, report.failed) == (0, 24)
    assert runner.n == 5 * 4, "each once, and three times more"
    assert ended(lake) == {("failed", 1)}
    assert lake.sql("SELECT count(*) AS n FROM matches")["n"].to_pylist() == [0]
    assert pulled().done == 24
    assert errors(lake) == []


def test_the_time_of_a_task_is_not_that_of_one_file(
    lake: Lake, pulled: Callable[..., PullReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, late = rxte_pull.read_observation, [OutOfTime("longer than LIGHTLAKE_TASK_TIMEOUT_S")]

    def slow(*given: Any) -> Any:
        if late:
            raise late.pop()
        return read(*given)

    monkeypatch.setattr(rxte_pull, "read_observation", slow)
    runner = Counted()
    report = pulled(runner)
    assert (report.done, report.failed, runner.n) == (24, 0, 6)


def test_files_are_asked_for_again_and_their_batch_is_not(
    lake: Lake, pulled: Callable[..., PullReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def overloaded(request: Any) -> Any:
        asked.append(request.path)
        return Response(b"busy", 503, "text/plain")

    monkeypatch.setenv("LIGHTLAKE_RETRIES", "1")
    with Sandbox.start(tmp_path / "box", archives=()) as box:
        box.mount("/busy", overloaded)
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", box.url("/busy"))
        runner = Counted()
        report = pulled(runner)
    assert (report.failed, runner.n) == (24, 5)
    assert len(asked) == 24 * 2, "the first page of each, twice"
    assert lake.sql("SELECT DISTINCT status FROM coverage")["status"].to_pylist() == ["failed"]
    retries = lake.sql("SELECT DISTINCT retries, requests FROM ledger WHERE n_targets = 0").to_pylist()
    assert retries == [{"retries": 1, "requests": 2}]


@pytest.mark.long
def test_a_row_of_losses_ends_the_asking(
    lake: Lake, pulled: Callable[..., PullReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty" / "AO1").mkdir(parents=True)
    monkeypatch.setitem(rxte_pull.TOGETHER, "products", 1)
    monkeypatch.setenv("LIGHTLAKE_WORKERS", "1")
    with monkeypatch.context() as here:
        here.setenv("LIGHTLAKE_ENDPOINTS__RXTE", str(tmp_path / "empty"))
        runner = Counted()
        report = pulled(runner)
    assert report.failed == 24
    assert 8 <= runner.n <= 8 + 3, "one is read, and two wait for their commit, when the eighth is told of"
    assert sum("not asked: 8 batches" in reason for reason in report.reasons) == 24 - runner.n

    # The same of xtemaster: it is asked for each of these alone.
    monkeypatch.setattr(rxte_run, "TARGETS", 1)
    add_targets(lake.catalog, pa.table({"ra": [10.0 + n for n in range(10)], "dec": [80.0] * 10}), "ten")
    (tmp_path / "torn.csv").write_text("obsid,ra\n1,2\n")
    report = pulled(sample="ten", xtemaster=str(tmp_path / "torn.csv"))
    assert report.failed + report.rejected == 10
    assert sum("not asked: 8 questions" in reason for reason in report.reasons) == 2
    assert pulled().done == 24
    assert lake.sql("SELECT DISTINCT status FROM coverage ORDER BY status")["status"].to_pylist() == ["empty", "found"]
    assert errors(lake) == []


def test_what_was_rejected_is_left_alone_until_it_is_asked_for(
    lake: Lake, pulled: Callable[..., PullReport], mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(mirror / "mirror", tmp_path / "mirror")
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", str(tmp_path / "mirror"))
    broken = next(path for path in sorted((tmp_path / "mirror").rglob("*_n2a.lc*")))
    content = broken.read_bytes()
    broken.write_bytes(b"no FITS")
    first = pulled()
    assert (first.done, first.rejected, first.failed, first.lost) == (23, 1, 0, True)
    statuses = "SELECT status, count(*) AS n FROM coverage WHERE n_sources > 0 GROUP BY ALL"
    counts = {row["status"]: row["n"] for row in lake.sql(statuses).to_pylist()}
    assert counts["rejected"] == 1
    broken.write_bytes(content)
    # Its target is not looked up again; the report counts the observation all the same.
    again = pulled()
    assert (again.known, again.asked, again.rejected_before, again.lost) == (0, 0, 1, False)
    assert "1 observation was rejected before: --retry-failed" in again.message
    mended = pulled(retry_failed=True)
    assert (mended.known, mended.asked, mended.done, mended.lost) == (24, 1, 1, False)
    assert lake.sql(statuses)["status"].to_pylist() == ["found"]
    assert pulled().rejected_before == 0
    assert errors(lake) == []


@pytest.mark.long
def test_turns_and_places(
    lake: Lake, pulled: Callable[..., PullReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        exclusive_pull(lake, "pull-rxte", "another run", logger),
        pytest.raises(LightlakeError, match="for the run 'another run'"),
    ):
        pulled()
    settings = load_settings()
    with connection_slots(settings, "heasarc", settings.archive_concurrency, logger):
        assert pulled().done == 24, "a folder has no places"
        with pytest.raises(LightlakeError, match="slot at heasarc"):
            pulled(xtemaster=None, again=True)
        with Sandbox.start(tmp_path / "box", archives=()) as box:
            monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", box.url("/here"))
            with pytest.raises(LightlakeError, match="slot at heasarc"):
                pulled(method="standard2", chmin=5, chmax=10)


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in ({"radius_deg": 0}, {"radius_deg": 6.0}, {"limit": 0}, {"chmin": 5}):
        with pytest.raises(ConfigurationError):
            RxteOptions.of(method="products", **wrong)
    cut = RxteOptions.of(method="standard2", chmin=5, chmax=10, pcus=[2], radius_deg=1.0)
    assert cut.parameters == {**cut.extraction.parameters, "radius_deg": 1.0, "slews": False, "limit": None}
    assert cut.extraction.together == 50
