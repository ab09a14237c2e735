"""The service on a real Prefect server: what `lightlake serve` schedules really runs, and at which events.

Two pins of pyproject.toml rest on these tests, since a plain `pip install prefect` breaks both silently:

- ``fastapi>=0.139,<0.151``: with a newer one `prefect server start` dies while it is imported, and the fixture
  `prefect_server` fails with the server's own last words.
- ``sqlalchemy[asyncio]<2.1``: with 2.1 the server starts, takes deployments and shows their schedules, but its
  scheduler never makes a run of them: the tests below wait in vain.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from helpers.archives import PLACES, register
from helpers.processes import child_environment
from helpers.servers import PrefectServer
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from deployments.deployed import NAME, deployed
from lake.cli import main
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.sources.registry import REGISTRY

# What `lightlake serve` does, but that the first archive's clock is a fast one, and no other strikes during the test.
SERVE = """
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from prefect.schedules import Cron, Interval
from deployments.deployed import deployed
from deployments.serve import serve
from lake.query import Lake

soon = Interval(timedelta(seconds=15), slug="soon", parameters={"archive": "icecube", "sample": "pulled"})
half_a_day_on = datetime.now(UTC) + timedelta(hours=12)
later = (Cron(f"{half_a_day_on.minute} {half_a_day_on.hour} * * *", timezone="UTC", slug="later"),)
first, *rest = deployed(sys.argv[1])
others = [replace(one, schedules=one.schedules and later) for one in rest]
with Lake(sys.argv[1], writable=True) as lake:
    served = [replace(first, schedules=(soon,)), *others]
    serve(lake, served, limit=2, notify=None, say=lambda line: print(line, flush=True))
"""


def test_the_pinned_versions_are_installed() -> None:
    def parts(name: str) -> tuple[int, ...]:
        return tuple(int(part) for part in version(name).split(".")[:2])

    assert (0, 139) <= parts("fastapi") < (0, 151)
    assert parts("sqlalchemy") < (2, 1)
    assert parts("prefect") == (3, 8)


def runs(name: str) -> list[Any]:
    """Flow runs of that name that ended well."""
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(like_=name)))
    return [run for run in found if run.state is not None and run.state.is_completed()]


@pytest.mark.timeout(900)
def test_it_serves_what_is_due_and_what_events_ask_for(
    prefect_server: PrefectServer,
    pull_settings: dict[str, str],
    catalog: Catalog,
    tmp_path: Path,
    rows: Callable[..., list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api)
    root = str(catalog.storage.root)
    register(catalog, range(6), "pulled")
    with get_client(sync_client=True) as client:  # other tests may have left some, and paused them
        for one in client.read_deployments():
            client.delete_deployment(one.id)
    log = tmp_path / "serve.log"
    with log.open("w") as out:
        child = subprocess.Popen(
            [sys.executable, "-c", SERVE, root],
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=child_environment(
                **pull_settings,
                **prefect_server.environment,
                # The server is asked each second what is to run, instead of every ten.
                PREFECT_RUNNER_POLL_FREQUENCY="1",
            ),
        )

    def until(true: Callable[[], Any]) -> Any:
        patience = time.monotonic() + 300
        while not (found := true()):
            assert child.poll() is None, log.read_text()[-3000:]
            if time.monotonic() > patience:
                pytest.fail(f"not in 300 s:\n{log.read_text()[-30000:]}")
            time.sleep(0.5)
        return found

    try:
        with get_client(sync_client=True) as client:
            until(lambda: f"serving {len(deployed())} deployments" in log.read_text())
            there = {one.full_name: client.read_deployment_by_name(one.full_name) for one in deployed()}
            assert all(one.parameters == {"lake": root} and not one.paused for one in there.values())
            assert all(one.version == version("lightlake") and NAME in one.tags for one in there.values())
            pulled = until(lambda: runs("pull icecube for pulled into %"))
            client.pause_deployment(there["pull/pull-one-archive"].id)  # once was enough
            listing = tmp_path / "more.csv"
            places = [(*PLACES[n], n) for n in range(6, 9)]
            listing.write_text("ra,dec,name\n" + "".join(f"{ra},{dec},T{n:03}\n" for ra, dec, n in places))
            with pytest.raises(SystemExit, match="0"):
                main(["targets", "add", str(listing), "--sample", "it's new", "--lake", root])
            (refreshed,) = until(lambda: runs("refresh % for it's new in %"))
            # A run that waits for its turn when the service ends waits for the next service.
            with catalog.claim("pull-icecube", strict=True):
                late = client.create_flow_run_from_deployment(
                    there["pull/pull-one-archive"].id, parameters={"archive": "icecube"}
                )
                until(lambda: "waits for another run, which holds the lock pull-icecube" in log.read_text())
                child.send_signal(signal.SIGTERM)
                assert child.wait(90) == 0, log.read_text()[-3000:]
            state = client.read_flow_run(late.id).state
            assert state is not None
            assert state.type.value == "SCHEDULED"
            assert all(client.read_deployment(one.id).paused for one in there.values())
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    # One was paused by hand.
    ended = f"ended; schedules of {len(deployed()) - 1} deployments are paused until it serves again"
    assert log.read_text().rstrip().endswith(ended)
    assert "maintenance/compact-the-lake: next " in log.read_text()
    for run in pulled:
        assert run.deployment_id == there["pull/pull-one-archive"].id
        assert run.auto_scheduled
    assert refreshed.deployment_id == there["refresh/refresh-all-archives"].id
    assert refreshed.created_by.type == "AUTOMATION"
    assert refreshed.parameters["lake"] == root
    assert rows("SELECT count(*) AS n FROM coverage WHERE status <> 'failed' AND archive = 'icecube'") == [{"n": 9}]
    # What is frozen was asked for the new targets; what is live has its own clock.
    frozen = {name for name, archive in REGISTRY.items() if archive.cadence == "frozen"}
    assert {row["archive"] for row in rows("SELECT DISTINCT archive FROM coverage")} == frozen
    assert rows("SELECT count(*) > 0 AS some FROM lightcurves") == [{"some": True}]
    assert [finding for finding in verify(catalog) if finding.is_error] == []
