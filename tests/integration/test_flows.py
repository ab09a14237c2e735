"""The flows against a real Prefect server: what is asked, what is told, and what survives failures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import archives
from helpers.archives import register
from helpers.processes import child_environment, lightlake
from helpers.servers import PrefectServer, artifacts
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.logging.handlers import APILogWorker
from prefect.states import State
from prefect.task_runners import ThreadPoolTaskRunner

from deployments.sandbox.icecube import URL_PATH
from deployments.sandbox.server import Sandbox
from flows import runners
from flows.markdown import text
from flows.pull import pull_archive
from flows.refresh import refresh
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.sources.base import Archive
from tasks.sources.icecube import archive as icecube
from tasks.sources.registry import REGISTRY

Rows = Callable[..., list[dict[str, Any]]]

pytestmark = pytest.mark.usefixtures("prefect_server", "pull_settings")

STATUSES = "SELECT status, count(*) AS n FROM coverage GROUP BY ALL ORDER BY ALL"


def pull(archive: str = "icecube", *arguments: Any, **more: Any) -> State[Any]:
    return pull_archive(archive, *arguments, **more, return_state=True)


def counts(rows: Rows) -> dict[str, int]:
    return {row["status"]: row["n"] for row in rows(STATUSES)}


def errors(catalog: Catalog) -> list[str]:
    return [finding.message for finding in verify(catalog) if finding.is_error]


def logged(state: State[Any]) -> str:
    """What the logs of a flow run and its tasks say, as Prefect's server has them."""
    APILogWorker.drain_all(timeout=20)
    run_id = state.state_details.flow_run_id
    with get_client(sync_client=True) as client:
        found = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])))
    return "\n".join(line.message for line in found)


def task_runs(state: State[Any]) -> set[str]:
    """Names of the task runs of a flow run; events bring them to the server a little later."""
    run_id = state.state_details.flow_run_id
    patience = time.monotonic() + 60
    while True:
        with get_client(sync_client=True) as client:
            found = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
        names = {run.name for run in found}
        if all(run.state is not None and run.state.is_final() for run in found) and len(names) > 1:
            return names
        assert time.monotonic() < patience, names
        time.sleep(0.5)


@pytest.fixture
def madeup(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Archive]:
    """Put the made-up archive into the registry: one module and one line."""

    def put(**more: Any) -> Archive:
        archive = archives.archive(**more)
        monkeypatch.setitem(REGISTRY, archive.name, archive)
        return archive

    return put


# --- all is well ---


def test_a_pull_answers_every_target_and_the_next_one_only_what_is_new(
    catalog: Catalog, rows: Rows, sandbox: Sandbox
) -> None:
    register(catalog, range(24))
    first = pull(sample="test")
    assert first.is_completed()
    report = first.result()
    assert first.message == f"icecube: 24 of 24 targets answered, {report.rows} rows"
    assert sum(counts(rows).values()) == 24
    # The sandbox put four events at each of six of them.
    by_target = {
        row["name"]: row for row in rows("SELECT name, coverage.* FROM coverage JOIN targets USING (target_id)")
    }
    assert all(by_target[f"T{n:03}"]["n_rows"] >= 4 for n in range(0, 24, 4))
    assert report.rows == rows("SELECT count(*) AS n FROM lightcurves")[0]["n"] > 0
    assert rows("SELECT status, attempt, n_targets FROM ledger") == [{"status": "done", "attempt": 1, "n_targets": 24}]
    assert [seen.path for seen in sandbox.requests] == [URL_PATH]
    assert errors(catalog) == []

    left = artifacts(first)
    assert set(left) == {"missing-icecube", "plot-icecube", "progress-icecube", "pull-icecube"}
    assert left["progress-icecube"].data == 100.0
    (table,) = json.loads(left["pull-icecube"].data)
    assert (table["asked"], table["failed"], table["rows"]) == (24, 0, report.rows)
    assert table["found"] == counts(rows)["found"]
    assert table["found"] + table["empty"] == 24
    assert (table["tried again"], table["requests"]) == (0, 1)
    assert left["missing-icecube"].data.endswith("24 targets were asked for, and all have their answer.")
    assert "](data:image/png;base64,iVBORw0KGgo" in left["plot-icecube"].data
    assert len(left["plot-icecube"].data) < 100_000, "it is in Prefect's database"
    (granule,) = (row["granule"] for row in rows("SELECT granule FROM ledger"))
    assert f"{granule}: done, 24 targets, {table['found']} found, " in logged(first)
    assert task_runs(first) == {f"fetch {granule}", f"commit {granule}"}

    # A frozen archive is asked once, ever, and downloaded once.
    second = pull()
    assert second.is_completed()
    assert second.message == "icecube: nothing to do, every target has its answer"
    assert len(sandbox.requests) == 1
    assert rows("SELECT count(*) AS n FROM ledger") == [{"n": 1}]
    assert errors(catalog) == []


@pytest.mark.parametrize(
    ("archive", "more", "message"),
    [
        ("icecub", {}, r"unknown archive 'icecub' \(did you mean icecube.*\? known: fermigtrig, gaia, hcv, icecube, "),
        ("icecube", {"sample": "tset"}, r"unknown sample 'tset' in .*\(did you mean test\? known: test\)"),
        ("icecube", {"sample": ""}, "the sample has no name"),
        (
            "icecube",
            {"parameters": {"radius": 1}},
            r"icecube has no parameter radius \(it has: max_search_radius_deg, seasons\)",
        ),
        ("icecube", {"parameters": {"seasons": "IC40"}}, r"parameter seasons of icecube cannot be 'IC40'"),
    ],
)
def test_a_wrong_question_fails_before_any_work(
    catalog: Catalog, rows: Rows, sandbox: Sandbox, archive: str, more: Any, message: str
) -> None:
    register(catalog, range(2))
    state = pull(archive, **more)
    assert state.is_failed()
    with pytest.raises(Exception, match=message):
        state.result()
    assert rows("FROM ledger") == []
    assert sandbox.requests == []


# --- the archive fails ---


@pytest.mark.parametrize("kinds", [["truncate", "garbage", "short"]])
def test_what_can_pass_is_tried_again(catalog: Catalog, rows: Rows, sandbox: Sandbox, kinds: list[str]) -> None:
    register(catalog, range(5))
    for kind in kinds:
        sandbox.fault(URL_PATH, kind)
    state = pull()
    assert state.is_completed(), state.message
    assert len(sandbox.requests) == len(kinds) + 1
    assert rows("SELECT status, retries, requests FROM ledger") == [
        {"status": "done", "retries": len(kinds), "requests": len(kinds) + 1}
    ]
    (granule,) = (row["granule"] for row in rows("SELECT granule FROM ledger"))
    log = logged(state)
    assert log.count(f"{granule}: trying again: icecube: ") == len(kinds)
    assert f"tried again {len(kinds)} times" in log
    assert json.loads(artifacts(state)["pull-icecube"].data)[0]["tried again"] == len(kinds)
    assert sum(counts(rows).values()) == 5


def test_what_cannot_pass_is_told_and_mended_by_the_next_run(catalog: Catalog, rows: Rows, sandbox: Sandbox) -> None:
    register(catalog, range(5))
    sandbox.fault(URL_PATH, "status:404")
    state = pull()
    assert state.is_failed()
    endpoint = sandbox.endpoints["icecube"]
    told = f"icecube: HTTP 404 Not Found [{endpoint}] (check LIGHTLAKE_ENDPOINTS__ICECUBE)"
    assert state.message == (
        f"icecube: 5 of 5 targets FAILED in 1 of 1 granule: {told}. 0 of 5 targets answered, 0 rows"
    )
    assert len(sandbox.requests) == 1
    assert counts(rows) == {"failed": 5}
    (ledger,) = rows("FROM ledger")
    assert (ledger["status"], ledger["reason"], ledger["error_type"]) == ("failed", told, "ArchiveError")
    assert ledger["endpoint"] == endpoint
    left = artifacts(state)
    assert json.loads(left["pull-icecube"].data)[0]["failed"] == 5
    assert "plot-icecube" not in left
    assert left["missing-icecube"].description == "Missing: 5 targets failed"
    missing = left["missing-icecube"].data
    assert "5 of 5 targets failed, 0 were rejected, in 1 of 1 granule." in missing
    assert f"| `{ledger['granule']}` | failed | T00" in missing
    assert f" and 2 more | 0 | {text(told)} |" in missing
    assert f"{ledger['granule']}: failed, 5 targets, 0 found, " in logged(state)
    assert errors(catalog) == []

    mended = pull()
    assert mended.is_completed()
    assert counts(rows).keys() <= {"found", "empty"}
    assert rows("SELECT status, attempt FROM ledger ORDER BY attempt") == [
        {"status": "failed", "attempt": 1},
        {"status": "done", "attempt": 2},
    ]
    assert errors(catalog) == []


def test_a_plot_that_cannot_be_made_does_not_fail_the_pull(
    catalog: Catalog, madeup: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(rows: Any, title: str) -> bytes:
        raise ValueError("no such font")

    monkeypatch.setattr("tasks.analysis.figures.pictures.light_curve_png", broken)
    madeup()
    register(catalog, range(3))
    state = pull("madeup")
    assert state.is_completed()
    assert set(artifacts(state)) == {"missing-madeup", "progress-madeup", "pull-madeup"}
    assert "the plot of what came could not be made: ValueError: no such font" in logged(state)


def test_a_task_carries_a_batch_of_granules_and_commits_are_made_by_the_flow(
    catalog: Catalog, rows: Rows, madeup: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task costs as much as some granules in another process, and commits would wait there for each other."""
    submitted: list[str] = []

    class Counted(ThreadPoolTaskRunner):
        def submit(self, task: Any, *given: Any, **more: Any) -> Any:
            submitted.append(task.name)
            return super().submit(task, *given, **more)

    monkeypatch.setattr(runners, "task_runner", lambda settings: Counted(max_workers=2))
    madeup(batch_size=1)
    register(catalog, range(12))
    assert pull("madeup").is_completed()
    assert submitted == ["fetch"] * 3
    assert len(rows("FROM ledger WHERE status IN ('done', 'empty')")) == 12
    assert errors(catalog) == []


@pytest.fixture
def registry() -> Iterator[dict[str, Archive]]:
    """The archives, which are in order again after the test."""
    held = dict(REGISTRY)
    yield REGISTRY
    REGISTRY.clear()
    REGISTRY.update(held)


def test_refresh_goes_on_past_a_failing_archive(
    registry: dict[str, Archive],
    catalog: Catalog,
    rows: Rows,
    sandbox: Sandbox,
    madeup: Callable[..., Archive],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIGHTLAKE_RETRIES", "0")
    register(catalog, range(6))
    sandbox.fault(URL_PATH, "status:404")
    madeup()
    for name in set(REGISTRY) - {"icecube", "madeup"}:
        del registry[name]
    state = refresh(return_state=True)
    assert state.is_failed()
    assert (state.message or "").startswith("icecube: 6 of 6 targets FAILED")
    assert "madeup" not in (state.message or "")
    left = artifacts(state)
    assert {"pull-icecube", "pull-madeup", "missing-icecube", "progress-madeup", "refresh", "report"} <= set(left)
    assert left["missing-madeup"].description == "Nothing is missing: all targets have their answer"
    assert left["refresh"].description == "Missing at 1 of 2 archives"
    assert "| icecube | 0 | 0 | 6 | 0 | 0 | 0 |" in left["report"].data
    assert "| madeup | 4 | 2 | 0 | 0 | 0 |" in left["report"].data
    assert "](data:image/png;base64," in left["report"].data
    assert "6 targets at 2 archives" in left["report"].description
    assert len(left["report"].data) < 200_000
    summary = left["refresh"].data
    assert "| icecube | 20210126 | 6 | 0 | 0 | 6 |" in summary
    assert "| madeup | DR1 | 6 | 4 | 2 | 0 |" in summary
    assert "![Answers of this refresh: targets by archive](data:image/png;base64," in summary
    assert "- icecube: 6 of 6 targets FAILED" in summary
    assert "### What is missing of icecube 20210126" in summary

    mended = refresh(["icecube", "madeup"], return_state=True)
    assert mended.is_completed()
    first, second = (mended.message or "").split(" | ")
    assert first.startswith("icecube: 6 of 6 targets answered")
    assert second == "madeup: nothing to do, every target has its answer"
    assert "Nothing is missing." in artifacts(mended)["refresh"].data
    assert "targets with changes" in logged(mended)

    wrong = refresh(["madeup", "nowhere"], again=True, return_state=True)
    assert wrong.is_failed()
    assert "unknown archive 'nowhere'" in (wrong.message or "")


# --- processes ---


REPLACED = """
import os
from concurrent.futures.process import BrokenProcessPool
from prefect import flow
from flows import runners
from lake.settings import load_settings

@flow
def killed():
    with runners.PrefectRunner(load_settings(runner="processes", workers=1), 1) as runner:
        try:
            runner.submit("fetch {tile}", (), os._exit, 1).result(120)
        except BrokenProcessPool:
            return [runner.submit("fetch {}", (), abs, -n).result(120) for n in (3, 4)]

if __name__ == "__main__":
    print(killed())
"""


def test_a_worker_that_is_killed_is_replaced_whatever_a_task_is_called(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    (tmp_path / "replaced.py").write_text(REPLACED)
    here = child_environment(
        **prefect_server.environment, PREFECT_LOGGING_LEVEL="CRITICAL", PYTHONPATH=os.pathsep.join(sys.path)
    )
    done = subprocess.run(
        [sys.executable, "replaced.py"],
        cwd=tmp_path,
        env=here,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "[3, 4]\n", done.stderr


SLOW = """
import sys, time
from dataclasses import replace
from tasks.sources.registry import REGISTRY, icecube
from flows.pull import pull_archive

def slow(granule, settings):
    print("asked", flush=True)
    time.sleep(float(sys.argv[1]))
    return icecube.fetch(granule, settings)

REGISTRY["icecube"] = replace(icecube.ARCHIVE, batch_size=1, fetch=slow)
print("ended", pull_archive("icecube", return_state=True).type.value, flush=True)
"""


def test_a_pull_that_was_killed_is_finished_by_the_next(
    catalog: Catalog,
    rows: Rows,
    prefect_server: PrefectServer,
    pull_settings: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(catalog, range(24))
    environment = {**pull_settings, **prefect_server.environment, "LIGHTLAKE_WORKERS": "2"}
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, "0.3"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(**environment, PREFECT_LOGGING_LEVEL="ERROR"),
    )
    watchdog = threading.Timer(120, child.kill)
    try:
        watchdog.start()
        for line in child.stdout:
            assert line != b"ended"
            if counts(rows):
                break
    finally:
        watchdog.cancel()
        child.kill()
        child.wait()
        child.stdout.close()
    done = counts(rows)
    left = 24 - sum(done.values())
    assert 0 < left < 24
    # Killed in the middle of a commit, it leaves files behind that the next commit clears away.
    found = [error for error in errors(catalog) if "is in the tree but not in the catalogue" not in error]
    assert found in ([f"icecube 20210126: {left} targets of test have no answer"], [])
    monkeypatch.setitem(REGISTRY, "icecube", replace(icecube.ARCHIVE, batch_size=3))
    state = pull()
    assert state.is_completed(), state.message
    assert state.result().asked == left
    assert sum(counts(rows).values()) == 24
    assert rows("FROM ledger WHERE attempt > 1") == []
    assert errors(catalog) == []


def test_a_pull_in_processes(
    catalog: Catalog,
    rows: Rows,
    sandbox: Sandbox,
    prefect_server: PrefectServer,
    pull_settings: dict[str, str],
    tmp_path: Path,
) -> None:
    register(catalog, range(8))
    processes = {"LIGHTLAKE_RUNNER": "processes", "LIGHTLAKE_WORKERS": "2"}
    environment = {**pull_settings, **prefect_server.environment, **processes}
    done = lightlake("pull", "icecube", cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("icecube: 8 of 8 targets answered")
    assert done.stderr == "", "the final line speaks"
    assert sum(counts(rows).values()) == 8
    assert errors(catalog) == []
    sandbox.fault(URL_PATH, "status:404")
    shutil.rmtree(pull_settings["LIGHTLAKE_CACHE_DIR"])
    done = lightlake("pull", "icecube", "--again", cwd=tmp_path, environment=environment | {"LIGHTLAKE_WORKERS": "1"})
    assert done.returncode == 1
    assert "icecube: HTTP 404 Not Found" in done.stdout
