"""The table of docs/how-to/prefect.md: whatever is killed of server, service, worker and run, the next comes soon.

Soon is within two minutes. A service and a worker, each with a lake of its own, have one Prefect server, which keeps
its leases in memory. The worker, and those rows that have not gone wrong before, are there with LIGHTLAKE_TEST_FULL:
each takes half a minute.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from helpers.archives import PLACES, register
from helpers.processes import child_environment, kill_tree, until
from helpers.servers import start_prefect
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from deployments.deployed import deployed
from deployments.sandbox.server import Sandbox
from lake.query import Lake
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from lake.upkeep.maintenance import verify

ROOT = Path(__file__).parents[2]
TAP = "/heasarc/tap/sync"
FULL = bool(os.environ.get("LIGHTLAKE_TEST_FULL"))
pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

# What the README promises, in seconds.
PROMISED = 120

PULL = "pull/pull-one-archive"
SERVE = "from lake.cli import main; main()"


@dataclass
class Keeper:
    """A service or a worker, the lake that it fills, and the archive whose pulls are killed."""

    name: str
    command: list[str]
    lake: Path
    archive: str
    deployment: str
    log: Path
    process: subprocess.Popen[bytes] | None = None


class House:
    """All that runs, and that may be killed."""

    process: subprocess.Popen[bytes]

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.home, self.sandbox = folder / "prefect", sandbox
        self.home.mkdir()
        self.server, self.process = start_prefect(self.home, "--no-ui")
        prefect = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "lightlake", "--type", "process"]
        ours = [sys.executable, "-c", SERVE, "serve", "--lake"]
        served, worked = folder / "served", folder / "worked"
        self.keepers = [
            Keeper("service", [*ours, str(served)], served, "icecubepsc", PULL, folder / "serve.log"),
            Keeper("worker", prefect, worked, "saxgrbmgrb", "pull/worker", folder / "worker.log"),
        ][: 2 if FULL else 1]
        for keeper in self.keepers:
            catalog = Catalog(Storage.from_url(str(keeper.lake)), load_settings(url=str(keeper.lake)))
            catalog.create()
            register(catalog, range(12))
            catalog.close()

    def start(self, keeper: Keeper) -> None:
        """Start a service or a worker."""
        with keeper.log.open("a") as out:
            keeper.process = subprocess.Popen(
                keeper.command,
                cwd=keeper.log.parent,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=child_environment(
                    **self.server.environment,
                    PYTHONPATH=str(ROOT),
                    LIGHTLAKE_URL=str(keeper.lake),
                    LIGHTLAKE_ENDPOINTS__HEASARC=self.sandbox.endpoints["heasarc"],
                    LIGHTLAKE_TIMEOUT_S="600",
                    LIGHTLAKE_RETRY_DELAY_S="0.1",
                    LIGHTLAKE_DUCKDB_THREADS="1",
                    # One place at each archive, which a dead run must not keep.
                    LIGHTLAKE_ARCHIVE_CONCURRENCY="1",
                    LIGHTLAKE_WORKERS="1",
                    # They ask each second what is to run, and soon again when the server was away.
                    PREFECT_RUNNER_POLL_FREQUENCY="1",
                    PREFECT_WORKER_QUERY_SECONDS="1",
                    PREFECT_CLIENT_MAX_RETRIES="2",
                ),
            )

    def begin(self) -> dict[str, UUID]:
        """Begin a run of each keeper, and return them when they hang at their archive."""
        hung = self.hung()
        self.sandbox.fault(TAP, "hang", times=len(self.keepers))
        runs = {one.name: self.ask(one, one.archive, again=True) for one in self.keepers}
        until(lambda: self.hung() == hung + len(runs), self.told)
        return runs

    def ask(self, keeper: Keeper, archive: str, **more: Any) -> UUID:
        """Ask for a pull."""
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(keeper.deployment)
            return client.create_flow_run_from_deployment(deployment.id, parameters={"archive": archive, **more}).id

    def state(self, run: UUID) -> str:
        """Name of the state of a run."""
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run).state
        return "" if state is None or state.name is None else state.name

    def hung(self) -> int:
        """Requests that were not answered."""
        return sum(one.status == 0 for one in self.sandbox.requests)

    def told(self) -> str:
        """What everybody said last."""
        return "\n".join(one.log.read_text()[-3000:] for one in self.keepers)

    def kill(self, what: set[str], runs: dict[str, UUID]) -> None:
        """Kill some of it at once, with SIGKILL, and start what was killed again, but for the runs."""
        doomed = [pid for run in runs.values() for pid in pids(run)] if "run" in what else []
        assert len(doomed) >= len(runs) or "run" not in what
        if "server" in what:
            kill_tree(self.process)
        for keeper in self.keepers if "keeper" in what else ():
            assert keeper.process is not None
            assert keeper.process.poll() is None, self.told()
            keeper.process.kill()
            keeper.process.wait()
        for pid in doomed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if "server" in what:
            port = int(self.server.api.rsplit(":", 1)[1].split("/")[0])
            self.server, self.process = start_prefect(self.home, "--no-ui", port=port)
        for keeper in self.keepers if "keeper" in what else ():
            self.start(keeper)

    def end(self) -> None:
        """End all of it."""
        for process in (*(one.process for one in self.keepers), self.process):
            if process is not None and process.poll() is None:
                kill_tree(process)


def pids(run: UUID) -> list[int]:
    """Processes of a run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"PREFECT__FLOW_RUN_ID={run}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """All of it, running."""
    folder = tmp_path_factory.mktemp("house")
    with Sandbox.start(folder / "archives", archives=["heasarc"], scale=0.002, targets=PLACES[:12]) as sandbox:
        house = House(folder, sandbox)
        try:
            with temporary_settings({PREFECT_API_URL: house.server.api, PREFECT_HOME: house.home}):
                if FULL:
                    with get_client(sync_client=True) as client:
                        client.create_work_pool(WorkPoolCreate(name="lightlake", type="process"))
                    pull = deployed()[0].as_runner()
                    pull.name, pull.schedules = "worker", []
                    pull.apply(work_pool_name="lightlake")
                for keeper in house.keepers:
                    house.start(keeper)
                until(lambda: f"serving {len(deployed())} deployments" in house.told(), house.told)
                yield house
        finally:
            house.end()


LIVING = ["server", "keeper", "server keeper"]
DEAD = ["server run", "keeper run", *(["run", "server keeper run"] if FULL else [])]


@pytest.mark.parametrize("what", DEAD)
def test_a_run_that_was_killed_keeps_the_next_from_nothing(house: House, what: str) -> None:
    runs = house.begin()
    house.kill(set(what.split()), runs)
    nexts = {one.name: house.ask(one, one.archive) for one in house.keepers}
    for name, run in nexts.items():
        until(lambda run=run: house.state(run) == "Completed", lambda: house.told(), PROMISED)
        until(lambda name=name: house.state(runs[name]) == "Crashed", house.told, PROMISED)


@pytest.mark.skipif(not FULL, reason="LIGHTLAKE_TEST_FULL is not set")
def test_a_run_outlives_whoever_started_it(house: House) -> None:
    runs = house.begin()
    for what in LIVING:
        house.kill(set(what.split()), runs)
        nexts = [house.ask(one, "fermigtrig") for one in house.keepers]
        for run in nexts:
            until(lambda run=run: house.state(run) == "Completed", house.told, PROMISED)
        assert {house.state(run) for run in runs.values()} == {"Running"}
    house.sandbox._server.drop_connections()  # it asks again
    for run in runs.values():
        until(lambda run=run: house.state(run) == "Completed", house.told, PROMISED)
    for keeper in house.keepers:
        with Lake(str(keeper.lake)) as lake:
            rows = lake.sql(
                "SELECT archive, count(*) AS n FROM coverage WHERE status <> 'failed' GROUP BY ALL ORDER BY ALL"
            )
            assert {row["archive"]: row["n"] for row in rows.to_pylist()} == {keeper.archive: 12, "fermigtrig": 12}
            assert {one.check for one in verify(lake.catalog) if one.is_error} <= {"orphans"}
