"""RXTE's observations by flow and by command: found over TAP, read over HTTP, all of them once, killed and resumed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pytest
from helpers.processes import Run, child_environment
from helpers.servers import artifacts

from deployments.sandbox import rxte as sandbox_rxte
from deployments.sandbox.rxte import write_mirror, xtemaster
from deployments.sandbox.server import Sandbox
from flows import local
from flows.rxte import pull_rxte
from lake.commit.targets import add_targets
from lake.errors import ConfigurationError
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.pull.report import PullReport
from tasks.sources.protocol import Request
from tasks.sources.rxte.options import RxteOptions

Rows = Callable[..., list[dict[str, Any]]]

pytestmark = pytest.mark.usefixtures("pull_settings")

PLACE = "161.265 -59.6845"  # eta Carinae


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A mirror on disk, and the observations of the first target in it."""
    rows = write_mirror(tmp_path / "mirror", n_obsids=48, seed=4, broken=0.1, std2=0, bins=(20, 60))
    csv.write_csv(xtemaster(rows).drop(["__row"]), tmp_path / "xtemaster.csv")
    known = [row for row in rows.to_pylist() if row["obsid"] and row["target_name"] == "ETA_CAR"]
    for row in known:
        (tmp_path / "mirror" / row["folder"]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "mirror" / row["folder"] / "FMI").touch()
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", str(tmp_path / "mirror"))
    return known


def pulled(catalog: Catalog, **more: Any) -> PullReport:
    """Pull in this process, without Prefect."""
    options = RxteOptions.of(**more)
    request = Request("rxte", options, options.sample, options.select)
    outcome = local.pull(str(catalog.storage.root), request, load_settings())
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def errors(catalog: Catalog) -> list[str]:
    return [finding.message for finding in verify(catalog) if finding.is_error]


@pytest.mark.usefixtures("prefect_server")
def test_over_the_services_with_every_loss_named(
    catalog: Catalog, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox.start(tmp_path / "box", archives=()) as box:
        files = sandbox_rxte.mount(box, tmp_path / "box", seed=6, scale=0.001)
        service = box.services["rxte"]
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__HEASARC", box.endpoints["heasarc"])
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", files)
        monkeypatch.setenv("LIGHTLAKE_RETRIES", "0")
        state = pull_rxte(target=PLACE, return_state=True)
        every = {row["obsid"] for row in service.table.to_pylist() if row["obsid"] and row["target_name"] == "ETA_CAR"}
        slews = {obsid for obsid in every if obsid[-1] in "AZ"}
        ledger = {row["source_id"] for row in rows("SELECT source_id FROM sources")}
        report = state.result(raise_on_failure=False)
        assert report.known == len(every - slews)
        missing = every - slews - ledger
        assert (report.failed + report.rejected) == len(missing)
        assert all(obsid in state.message for obsid in sorted(missing)[:1])
        assert state.is_failed() == bool(missing)
        left = artifacts(state)
        assert set(left) == {"missing-rxte", "plot-rxte", "progress-rxte", "rxte"}
        assert all(f"| {obsid} (`" in left["missing-rxte"].data for obsid in sorted(missing))
        assert rows("SELECT bool_and(requests > 0) AS asked FROM ledger WHERE status = 'done'") == [{"asked": True}]
        (covered,) = rows("SELECT DISTINCT status FROM coverage")
        assert covered["status"] in (("failed", "rejected") if missing else ("found",))
        assert rows("SELECT count(*) AS n FROM matches") == [{"n": len(ledger)}]
        assert errors(catalog) == []

        # xtemaster does not answer: the target is in coverage as failed only if it had no answer.
        box.fault(sandbox_rxte.TAP_PATH, "status:503")
        lost = pull_rxte(target="20.5 30.5", return_state=True)
        assert lost.is_failed()
        assert "503" in lost.message
        assert {"status": "failed", "n_targets": 1} in rows("SELECT status, n_targets FROM ledger")
        assert errors(catalog) == []


def test_all_once_limits_and_what_was_mended(
    catalog: Catalog, rows: Rows, mirror: list[dict[str, Any]], tmp_path: Path
) -> None:
    here = {"target": PLACE, "xtemaster": str(tmp_path / "xtemaster.csv")}
    wanted = [row for row in mirror if not row["is_slew"]]
    assert pulled(catalog, **here, limit=5).known == 5
    assert rows("SELECT count(*) AS n FROM sources")[0]["n"] <= 5
    second = pulled(catalog, **here)
    bad = [row for row in wanted if row["broken"]]
    assert (second.known, second.lost) == (len(wanted), bool(bad))
    assert rows("SELECT count(*) AS n FROM sources") == [{"n": len(wanted) - len(bad)}]
    assert rows("SELECT count(*) AS n FROM ledger WHERE status = 'rejected'") == [{"n": len(bad)}]
    third = pulled(catalog, **here)
    assert not third.lost
    assert "nothing to do" in third.message
    assert "--retry-failed" in third.message
    before = rows("SELECT * FROM lightcurves ORDER BY ALL")

    # The archive mends its files: those, and only those, are read again.
    whole = write_mirror(tmp_path / "mirror", n_obsids=48, seed=4, broken=0.0, std2=0, bins=(20, 60))
    assert {row["obsid"] for row in whole.to_pylist()} >= {row["obsid"] for row in wanted}
    mended = pulled(catalog, **here, retry_failed=True)
    assert (mended.done, mended.lost) == (len(bad), False), mended.message
    assert rows("SELECT DISTINCT status FROM coverage") == [{"status": "found"}]
    after = rows("SELECT * FROM lightcurves ORDER BY ALL")
    held = {row["source_id"] for row in before}
    assert [row for row in after if row["source_id"] in held] == before
    assert pulled(catalog, **here, slews=True).known == len(mirror)
    good = rows("SELECT DISTINCT good FROM rxte WHERE is_slew")
    assert good in ([], [{"good": False}])
    assert errors(catalog) == []


@pytest.mark.long
def test_targets_of_a_sample_are_asked_once_and_again_when_asked(
    catalog: Catalog, rows: Rows, mirror: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.sources.rxte.source.TARGETS", 1)  # chunks that have the same observations
    ra, dec = (float(part) for part in PLACE.split())
    add_targets(catalog, pa.table({"name": ["one", "two"], "ra": [ra] * 2, "dec": [dec, dec + 0.01]}), "pair")
    add_targets(catalog, pa.table({"name": ["far"], "ra": [10.0], "dec": [80.0]}), "others")
    here = {"xtemaster": str(tmp_path / "xtemaster.csv")}
    wanted = [row for row in mirror if not row["is_slew"]]
    bad = [row for row in wanted if row["broken"]]
    held = len(wanted) - len(bad)
    with pytest.raises(ConfigurationError, match="unknown sample 'nobody'"):
        pulled(catalog, **here, sample="nobody")
    first = pulled(catalog, **here, sample="pair")
    assert (first.known, first.done, first.rejected, first.done_before) == (len(wanted), held, len(bad), 0)
    assert rows("SELECT count(*) AS n FROM ledger WHERE n_targets = 0") == [{"n": len(wanted)}]
    of_each = "SELECT name, count(*) AS n FROM matches JOIN targets USING (target_id) GROUP BY ALL ORDER BY name"
    assert rows(of_each) == [{"name": "one", "n": held}, {"name": "two", "n": held}]
    # What was rejected is left alone with its targets, and counted all the same.
    every = pulled(catalog, **here)
    assert (every.lost, every.rejected_before) == (False, len(bad))
    answers = "SELECT name, status, asked_at FROM coverage JOIN targets USING (target_id) ORDER BY name"
    assert [(row["name"], row["status"]) for row in rows(answers)] == [
        ("far", "empty"),
        ("one", "rejected" if bad else "found"),
        ("two", "rejected" if bad else "found"),
    ]
    write_mirror(tmp_path / "mirror", n_obsids=48, seed=4, broken=0.0, std2=0, bins=(20, 60))
    mended = pulled(catalog, **here, retry_failed=True)
    assert (mended.done, mended.rejected_before) == (len(bad), 0)
    before = rows(answers)
    assert {row["status"] for row in before} == {"found", "empty"}
    assert pulled(catalog, **here).known == 0, "every target has its answer"
    assert rows(answers) == before
    once_more = pulled(catalog, **here, again=True)
    assert (once_more.known, once_more.done_before, once_more.done) == (len(wanted), len(wanted), 0)
    after = rows(answers)
    assert all(new["asked_at"] > old["asked_at"] for new, old in zip(after, before, strict=True))

    # xtemaster that cannot be read takes no answer away; other bands do not take away those that are there.
    (tmp_path / "torn.csv").write_text("obsid,ra\n1,2\n")
    torn = pulled(catalog, sample="pair", xtemaster=str(tmp_path / "torn.csv"), again=True)
    assert torn.lost
    assert "lack time" in torn.message
    assert rows(answers) == after
    n = rows("SELECT count(*) AS n FROM lightcurves")
    some = pulled(catalog, **here, bands=["pca_a"], again=True)
    assert (some.done, some.done_before) == (0, len(wanted))
    assert rows("SELECT count(*) AS n FROM lightcurves") == n
    assert errors(catalog) == []


@pytest.mark.crash
@pytest.mark.parametrize(("how", "runner"), [(signal.SIGKILL, "threads"), (signal.SIGTERM, "processes")])
def test_killed_and_resumed(
    catalog: Catalog,
    rows: Rows,
    mirror: list[dict[str, Any]],
    run: Run,
    tmp_path: Path,
    pull_settings: dict[str, str],
    how: signal.Signals,
    runner: str,
) -> None:
    here = {**pull_settings, "LIGHTLAKE_WORKERS": "1", "LIGHTLAKE_ENDPOINTS__RXTE": str(tmp_path / "mirror")}
    command = ["rxte", PLACE, "--xtemaster", str(tmp_path / "xtemaster.csv")]
    # Small batches, slowly: so that there is something to be killed.
    code = (
        "import time; from tasks.sources.rxte import observations as rxte_pull; rxte_pull.TOGETHER['products'] = 2; "
        "from lake.commit import commit; "
        "true = commit.check_staged; commit.check_staged = lambda *a: (time.sleep(1.0), true(*a)); "
        "from lake.cli import main; main()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, *command, "--runner", runner],
        env=child_environment(**here),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    patience = time.monotonic() + 120
    try:
        while time.monotonic() < patience and child.poll() is None:
            if rows("SELECT count(*) AS n FROM ledger")[0]["n"] >= 4:
                break
            time.sleep(0.2)
        assert child.poll() is None, "it ended before it was told to"
    finally:
        child.send_signal(how)
        ended = child.wait(60)
    assert ended in (-how, 128 + how)
    done = rows("SELECT count(*) AS n FROM ledger WHERE n_targets = 0")[0]["n"]
    wanted = [row for row in mirror if not row["is_slew"]]
    assert 0 < done < len(wanted)
    finished = run(*command)
    bad = sum(bool(row["broken"]) for row in wanted)
    assert finished.code == (1 if "REJECTED" in finished.out else 0), finished.err
    counted = rows("SELECT status, count(*) AS n FROM ledger WHERE n_targets = 0 GROUP BY ALL")
    assert sum(row["n"] for row in counted) == len(wanted), "each once"
    assert rows("SELECT count(*) AS n FROM sources") == [{"n": len(wanted) - bad}]
    assert rows("SELECT count(*) AS n FROM matches") == [{"n": len(wanted) - bad}]
    assert errors(catalog) == []


def test_the_command_refuses_in_one_line(
    catalog: Catalog, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PATH": "/usr/bin:/bin", "HEADAS": "", "LIGHTLAKE_ENDPOINTS__RXTE": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    done = run("rxte", PLACE, "--method", "heasoft", "--chmin", "5", "--chmax", "10")
    assert done.code == 2, done
    assert "HEASoft" in done.err
    assert len(done.err.strip().splitlines()) == 1
    done = run("pull", "rxte")
    assert done.code == 2
    assert "lightlake rxte" in done.err
