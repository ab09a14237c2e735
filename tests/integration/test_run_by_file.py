"""Runs by file: from one file to light curves; killed, resumed, stopped by others, watched, and what they used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.archives import register
from helpers.figures import figure
from helpers.literature import Literature, positions
from helpers.processes import Run, child_environment, marked, until

from deployments.sandbox.papers import Published
from deployments.sandbox.server import Sandbox
from flows import local
from flows.run_names import core
from lake.commit.metrics import runs_with_pieces
from lake.commit.runs import request_stop
from lake.query import Lake
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from lake.upkeep.run_status import of_archives, run_named, runs
from tasks.pull import recording
from tasks.pull.recording import STOPPED
from tasks.sources.protocol import Request
from tasks.worker import lake_at

ARCHIVES = ("gaia", "heasarc", "icecube", "wise", "ztf")
ZTF = ("ZTF18aabtxvd", "ZTF18aahqkbt", "ZTF18abxftqm", "ZTF18acaqdaa")
VARIABLE = ("2022ApJ...933...37W", "2020ApJ...896...10B")

Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Iterator[tuple[Sandbox, dict[str, str]]]:
    """The archives and the services of samples that the helper's example needs."""
    known = [(ra, dec) for ra, dec, label in positions(data_dir) if label in ("Green 22", "Ruan 16")]
    root = tmp_path_factory.mktemp("archives")
    with Sandbox.start(root, archives=ARCHIVES, scale=0.002, targets=known) as box:
        papers = Literature(box, data_dir)
        for number, bibcode in enumerate(VARIABLE):
            papers.ned.papers[bibcode] = [Published(f"VAR {number} {n}", 30.0 + n, 5.0 * number, 0.1) for n in range(2)]
        papers.alerce.objects |= {oid: (200.0 + n, 30.0) for n, oid in enumerate(ZTF)}
        endpoints = {**box.endpoints, **papers.endpoints}
        yield box, {f"LIGHTLAKE_ENDPOINTS__{name.upper()}": url for name, url in endpoints.items()}
        papers.close()


@pytest.fixture
def box(
    services: tuple[Sandbox, dict[str, str]], catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sandbox]:
    """The same, in the environment of commands, with a lake of their own."""
    sandbox, values = services
    values = {
        **values,
        "LIGHTLAKE_URL": str(catalog.storage.root),
        "LIGHTLAKE_CACHE_DIR": str(tmp_path / "cache"),
        "LIGHTLAKE_RETRY_DELAY_S": "0.05",
        "LIGHTLAKE_METRICS_EVERY_S": "0.5",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield sandbox
    lake_at.cache_clear()


def in_background(tmp_path: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """Start the command in a process of its own, with the environment of this test."""
    ours = {name: value for name, value in os.environ.items() if name.startswith("LIGHTLAKE_")}
    code = "from lake.cli import main; main()"
    with (tmp_path / "said.txt").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)], env=child_environment(**ours), stdout=said, stderr=said
        )


def rows_of(query: str) -> list[dict[str, Any]]:
    with Lake(load_settings().url) as opened:
        found: list[dict[str, Any]] = opened.sql(query).to_pylist()
    return found


def state(run_id: str) -> str | None:
    with Lake(load_settings().url) as opened:
        return next((row["state"] for row in runs(opened, run_id).to_pylist()), None)


# --- from one file to light curves ---


@pytest.mark.long
@pytest.mark.usefixtures("box")
def test_the_helpers_example_runs_from_that_one_file(
    catalog: Catalog, lake: Lake, cases_dir: Path, tmp_path: Path, run: Run
) -> None:
    example = cases_dir / "runs" / "extended-example.yml"
    plan = run("run", example, "--dry-run", "--output", "json")
    assert plan.code == 0
    steps = json.loads(plan.out)
    assert [(row["name"], row["expected"]) for row in steps if row["step"] == "sample"][-2:] == [
        ("sdss", 10),
        ("ztf_names", 4),
    ]
    assert [row["name"] for row in steps if row["step"] == "archive"] == [
        "gaia", "fermigtrig", "saxgrbmgrb", "icecube", "wise", "ztf"
    ]  # fmt: skip
    done = run("run", example)
    assert done.code == 0, done.out + done.err
    assert done.out.count("no parameter of a pull") == 3

    samples = dict(lake.sql("SELECT sample, count(*) FROM labels GROUP BY ALL", form="pandas").itertuples(index=False))
    assert samples.pop("green22") == 16
    assert samples.pop("ruan16") == 3
    assert samples == {"Galex variable 22": 2, "Palomar variable 20": 2, "sdss": 10, "ztf_names": 4}
    targets = lake.sql("SELECT count(*) AS n FROM targets")["n"][0].as_py()
    covered = lake.sql(
        "SELECT archive, count(*) AS n, count(DISTINCT target_id) AS m FROM coverage GROUP BY 1"
    ).to_pylist()
    assert {row["archive"]: (row["n"], row["m"]) for row in covered} == dict.fromkeys(core(), (targets, targets))
    given = {
        row["archive"]: json.loads(row["parameters"])
        for row in lake.sql("SELECT DISTINCT archive, parameters FROM coverage").to_pylist()
    }
    assert (given["gaia"]["radius_arcsec"], given["wise"]["radius_arcsec"], given["ztf"]["radius_arcsec"]) == (
        2,
        1.5,
        2,
    )

    # Every row of the ledger knows its run, samples and archives alike.
    assert lake.sql("SELECT DISTINCT run_id FROM ledger")["run_id"].to_pylist() == ["extended-example"]
    row = run_named(lake, "extended-example")
    assert (row["state"], row["archives"], row["targets"]) == ("done", core(), targets)
    assert row["rows"] == lake.sql("SELECT count(*) AS n FROM lightcurves")["n"][0].as_py() > 0
    _check_metrics(lake, "extended-example")

    # Started again, it asks nobody anything.
    attempts = lake.sql("SELECT count(*) AS n FROM ledger")["n"][0].as_py()
    written = tmp_path / "mine.yml"
    assert run("run", example, "--write", written, "--set", "archives=core").code == 0
    assert run("run", written).code == 0
    assert lake.sql("SELECT count(*) AS n FROM ledger")["n"][0].as_py() == attempts
    # Asked for the samples again, it finds every target again, although those at one place are not joined.
    assert run("run", written, "--again").code == 0
    assert lake.sql("SELECT count(*) AS n FROM targets")["n"][0].as_py() == targets
    assert lake.sql("SELECT count(*) AS n FROM ledger WHERE archive = 'gaia'")["n"][0].as_py() == 2
    assert run_named(lake, "extended-example")["starts"] == 3
    assert [finding.message for finding in verify(catalog) if finding.is_error] == []

    shown = run("status", "--run", "extended-example")
    assert all(archive in shown.out for archive in core())
    listed = run("runs")
    assert "extended-example" in listed.out
    assert max(map(len, listed.out.splitlines())) <= 80
    page = tmp_path / "page.html"
    assert run("runs", "extended-example", "--page", page).code == 0
    drawn = {row.get("archive") for rows in figure(page)["datasets"].values() for row in rows}
    assert set(core()) <= drawn
    assert run("runs", "extended-exmple").code == 2


def _check_metrics(lake: Lake, run_id: str) -> None:
    """See that what was measured is plausible."""
    whole = lake.sql("FROM metrics WHERE archive IS NULL AND run_id = $run ORDER BY time", {"run": run_id}).to_pylist()
    assert len(whole) > 1
    cpu = [row["cpu_s"] for row in whole]
    assert cpu == sorted(cpu)
    assert cpu[-1] > cpu[0] > 0
    assert all(10e6 < row["resident_bytes"] < 64e9 for row in whole)
    received = [row["received_bytes"] for row in whole]
    assert received == sorted(received)
    each = {row["archive"]: row for row in of_archives(lake, run_id).to_pylist()}
    for archive in ("gaia", "icecube", "fermigtrig"):  # over HTTP
        assert each[archive]["received_bytes"] > 0
    assert all(row["cpu_s"] > 0 for row in each.values())
    assert sum(row["cpu_s"] for row in each.values()) <= cpu[-1] + 1
    assert sum(row["received_bytes"] for row in each.values()) <= received[-1]
    assert runs_with_pieces(lake.storage) == []


@pytest.mark.usefixtures("box")
def test_a_service_that_fails_adds_no_target_and_asks_no_archive(
    services: tuple[Sandbox, dict[str, str]], lake: Lake, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__NED", services[0].url("/nobody"))
    monkeypatch.setenv("LIGHTLAKE_RETRIES", "0")
    done = run("run", "--set", "run_id=broken", "--set", "samples=[yang18]", "--archives", "icecube")
    assert done.code == 2
    assert lake.sql("SELECT count(*) AS n FROM targets")["n"][0].as_py() == 0
    assert run_named(lake, "broken")["state"] == "failed"


# --- killed, stopped, resumed ---


def slow_file(tmp_path: Path, box: Sandbox, run_id: str = "slow") -> Path:
    """Write a run of archives of which one does not answer."""
    file = tmp_path / "run.yml"
    file.write_text(f"run_id: {run_id}\nsamples: [{{lake: {{sample: test}}}}]\narchives: [icecube, gaia]\n")
    box.fault("/gaia", "hang", times=1000)
    return file


def until_answered(archive: str, tmp_path: Path) -> None:
    """Wait until the run has an answer of an archive; the lake is opened once, for that takes the longest."""
    with Lake(load_settings().url) as opened:
        query = f"FROM ledger WHERE archive = '{archive}'"
        until(lambda: opened.sql(query).num_rows, (tmp_path / "said.txt").read_text)


@pytest.fixture
def quick_again(box: Sandbox) -> Iterator[None]:
    yield
    box.clear_faults()


@pytest.mark.crash
@pytest.mark.usefixtures("quick_again")
def test_killed_and_started_again_it_asks_for_the_rest(
    catalog: Catalog, lake: Lake, box: Sandbox, tmp_path: Path, run: Run
) -> None:
    register(catalog, range(12))
    file = slow_file(tmp_path, box)
    process = in_background(tmp_path, "run", file)
    try:
        until_answered("icecube", tmp_path)
        assert state("slow") == "running"
        assert run("run", file).code == 2  # the same run twice at a time
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert state("slow") == "interrupted"
    box.clear_faults()
    asked = len([seen for seen in box.requests if "data-releases" in seen.path])
    assert run("run", file).code == 0
    assert len([seen for seen in box.requests if "data-releases" in seen.path]) == asked
    counts = rows_of("SELECT archive, count(*) AS n, sum(n_targets) AS targets FROM ledger GROUP BY 1 ORDER BY 1")
    assert [(row["archive"], row["targets"]) for row in counts] == [("gaia", 12), ("icecube", 12)]
    assert [row["state"] for row in rows_of("FROM runs ORDER BY started_at")] == ["interrupted", "done"]
    row = run_named(lake, "slow")
    assert (row["state"], row["starts"], row["targets"]) == ("done", 2, 12)
    # What the killed process had measured came in with the second.
    assert {row["process"] for row in rows_of("FROM metrics")} >= {os.getpid()}


@pytest.mark.crash
@pytest.mark.usefixtures("quick_again")
@pytest.mark.parametrize("runner", ["threads", "dask"])
def test_stopped_by_another_process_it_ends_soon_and_loses_nothing(
    catalog: Catalog, box: Sandbox, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, runner: str
) -> None:
    monkeypatch.setenv("LIGHTLAKE_RUNNER", runner)
    monkeypatch.setenv("LIGHTLAKE_WORKERS", "2")  # one for each archive
    register(catalog, range(12))
    file = slow_file(tmp_path, box)
    process = in_background(tmp_path, "run", file)
    try:
        until_answered("icecube", tmp_path)
        stopped = run("stop", "slow", "--wait-s", "120")
        assert stopped.code == 0, stopped.out + stopped.err
        assert process.wait(60) == STOPPED
    finally:
        process.kill()
        process.wait()
    ours = f"LIGHTLAKE_URL={os.environ['LIGHTLAKE_URL']}"
    until(lambda: not marked(ours), lambda: f"left: {marked(ours)}", 60)
    assert state("slow") == "stopped"
    assert [row["state"] for row in rows_of("FROM runs")] == ["stopped"]
    assert run("stop", "slow").code == 2
    assert run("stop", "nobody").code == 2
    box.clear_faults()
    monkeypatch.delenv("LIGHTLAKE_RUNNER")
    assert run("run", file).code == 0
    assert rows_of("SELECT archive, sum(n_targets) AS n FROM ledger GROUP BY 1 ORDER BY 1") == [
        {"archive": "gaia", "n": 12},
        {"archive": "icecube", "n": 12},
    ]


@pytest.mark.long
@pytest.mark.usefixtures("quick_again")
def test_again_means_once_more_even_if_it_is_interrupted(
    catalog: Catalog, box: Sandbox, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(catalog, range(6))
    file = tmp_path / "run.yml"
    file.write_text("run_id: twice\narchives: [icecube]\n")
    assert run("run", file).code == 0
    assert run("run", file, "--again").code == 0
    assert [row["attempt"] for row in rows_of("FROM ledger ORDER BY attempt")] == [1, 2]
    assert run("run", file, "--again").code == 0
    assert len(rows_of("FROM ledger")) == 3
    # A start that did not come to its end is gone on with: what it answered is not asked again.
    catalog.refresh()
    catalog.cursor().execute("UPDATE runs SET state = 'stopped' WHERE started_at = (SELECT max(started_at) FROM runs)")
    assert run("run", file, "--again").code == 0
    assert len(rows_of("FROM ledger")) == 3


# --- every way belongs to a run ---


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_pull_is_a_run_too_in_every_process(
    catalog: Catalog, lake: Lake, box: Sandbox, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("LIGHTLAKE_RUNNER", kind)
    monkeypatch.setenv("LIGHTLAKE_WORKERS", "2")
    register(catalog, range(12))
    outcome = local.pull(str(catalog.storage.root), Request("icecube"))
    assert not isinstance(outcome, Exception)
    (row,) = runs(lake).to_pylist()
    assert (row["state"], row["archives"], row["targets"]) == ("done", ["icecube"], 12)
    assert row["run_id"].startswith("icecube-")
    assert lake.sql("SELECT DISTINCT run_id FROM ledger")["run_id"].to_pylist() == [row["run_id"]]
    (used,) = of_archives(lake, row["run_id"]).to_pylist()
    assert used["received_bytes"] > 0
    assert used["cpu_s"] > 0
    processes = lake.sql("SELECT DISTINCT process FROM metrics")["process"].to_pylist()
    assert (len(processes) > 1) == (kind == "processes")
    assert os.getpid() in processes


@pytest.mark.usefixtures("box")
def test_a_run_goes_on_when_it_cannot_be_measured(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("tasks.pull.sampling.write_piece", broken)
    monkeypatch.setattr(recording.metrics, "commit_pieces", broken)
    register(catalog, range(3))
    outcome = local.pull(str(catalog.storage.root), Request("icecube"))
    assert not isinstance(outcome, Exception)
    assert outcome.failed == 0
    assert caplog.text.count("no room") >= 1
    assert runs(lake)["state"].to_pylist() == ["done"]
    monkeypatch.setenv("LIGHTLAKE_METRICS_EVERY_S", "0")
    lake_at.cache_clear()
    assert not isinstance(local.pull(str(catalog.storage.root), Request("icecube", select="all")), Exception)
    assert lake.sql("SELECT count(*) AS n FROM metrics")["n"][0].as_py() == 0


@pytest.mark.usefixtures("prefect_server", "box")
def test_the_flow_does_the_same_and_shows_what_it_used(catalog: Catalog, lake: Lake, monkeypatch: Any) -> None:
    from helpers.servers import artifacts

    from flows.run import run_by_file

    register(catalog, range(8))
    given = {"lake": str(catalog.storage.root), "run_id": "flow", "archives": ["icecube", "gaia"]}
    done = run_by_file(**given, return_state=True)
    assert done.is_completed(), done.message
    row = run_named(lake, "flow")
    assert (row["state"], row["archives"], row["targets"]) == ("done", ["gaia", "icecube"], 8)
    assert row["flow_run_id"] == str(done.state_details.flow_run_id)
    left = artifacts(done)
    assert "data:image/png;base64," in left["run-metrics"].data
    assert {"refresh", "pull-icecube", "pull-gaia"} <= set(left)
    _check_states(catalog, lake, monkeypatch, given)


def _check_states(catalog: Catalog, lake: Lake, monkeypatch: Any, given: dict[str, Any]) -> None:
    """See that a flow ends as stopped when somebody asks for it through the lake."""
    from flows import run as flow

    monkeypatch.setattr(recording, "LOOK_S", 0.1)
    whole = flow.run_all

    def asked_to_stop(*arguments: Any, **more: Any) -> Any:
        request_stop(catalog.storage, "flow", "the test")
        time.sleep(1)
        return whole(*arguments, **more)

    monkeypatch.setattr(flow, "run_all", asked_to_stop)
    stopped = flow.run_by_file(**given, again=True, return_state=True)
    assert (stopped.name, stopped.is_cancelled()) == ("Stopped", True)
    assert run_named(lake, "flow")["state"] == "stopped"
