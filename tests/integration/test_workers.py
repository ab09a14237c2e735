"""A work pool, Prefect's server and the lake's catalogue in PostgreSQL: workers die, schedules fire, all is whole."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers.archives import PLACES, register
from helpers.processes import child_environment, kill_tree, until
from helpers.servers import PrefectServer
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_HOME, temporary_settings

from deployments.automations import SILENT_RUNS, crash_silent_runs
from deployments.deployed import deployed
from deployments.sandbox import ztf
from deployments.sandbox.server import Sandbox
from flows.living import LABEL
from flows.pull import pull_archive
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from lake.upkeep.maintenance import verify
from tasks.pull.limits import connection_slots

ROOT = Path(__file__).parents[2]
Rows = Callable[..., list[dict[str, Any]]]
pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

# A table of HEASARC in granules of two targets, four granules to a batch.
TABLE = {"id_columns": ["detid"], "radius_arcsec": 5, "error_column": None, "batch_size": 2}
HEARTBEAT_S = 30  # the shortest that Prefect knows
TAP = "/heasarc/tap/sync"


@pytest.fixture(scope="module")
def pool(prefect_on_postgres: PrefectServer) -> PrefectServer:
    """The server, with everything deployed to its work pool as the README says."""
    for command in (
        ["work-pool", "create", "lightlake", "--type", "process"],
        ["deploy", "--all", "--prefect-file", "deployments/prefect.yaml"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=child_environment(**prefect_on_postgres.environment),
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return prefect_on_postgres


@pytest.fixture
def prefect(pool: PrefectServer) -> Iterator[SyncPrefectClient]:
    """A client of the server, which the test's own flows use too."""
    with (
        temporary_settings({PREFECT_API_URL: pool.api, PREFECT_HOME: pool.home}),
        get_client(sync_client=True) as client,
    ):
        yield client


@pytest.fixture
def lake_place(tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A lake on disk with its catalogue in PostgreSQL."""
    catalog = f"postgres:{postgres} schema=lake_workers"
    monkeypatch.setenv("LIGHTLAKE_CATALOG", catalog)
    return {"url": str(tmp_path / "lake"), "catalog": catalog}


@pytest.fixture
def catalog(settings: Settings) -> Iterator[Catalog]:
    """Its catalogue, new."""
    catalog = Catalog(Storage.from_url(settings.url), settings)
    catalog.create()
    yield catalog
    catalog.close()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """HEASARC alone, with a log of its requests."""
    with Sandbox.start(tmp_path / "archives", archives=["heasarc"], scale=0.002, targets=PLACES[:48]) as box:
        yield box


@contextmanager
def worker(pool: PrefectServer, log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`prefect worker start --pool lightlake`, until the end."""
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "lightlake", "--limit", "1"],
            cwd=log.parent,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=child_environment(
                **pool.environment,
                **environment,
                LIGHTLAKE_DUCKDB_THREADS="1",
                PYTHONPATH=str(ROOT),
                PREFECT_WORKER_QUERY_SECONDS="1",
                PREFECT_FLOWS_HEARTBEAT_FREQUENCY=str(HEARTBEAT_S),
            ),
        )
    try:
        yield process
        process.terminate()
        process.wait(60)
    finally:
        if process.poll() is None:
            kill_tree(process)


def test_the_pool_has_what_is_served(prefect: SyncPrefectClient) -> None:
    for one in deployed():
        there, served = prefect.read_deployment_by_name(one.full_name), one.as_runner()
        assert there.work_pool_name == "lightlake"
        assert (there.entrypoint, there.tags, there.version) == (served.entrypoint, served.tags, served.version)
        assert there.description == served.description
        assert there.pull_steps == []
        assert there.parameter_openapi_schema == served._parameter_openapi_schema.model_dump(exclude_unset=True)
        assert {each.slug: (each.schedule.cron, each.parameters) for each in there.schedules} == {
            each.slug: (each.cron, each.parameters) for each in one.schedules
        }
        owned = prefect.read_resource_related_automations(f"prefect.deployment.{there.id}")
        assert [each.name for each in owned] == [trigger.name for trigger in one.triggers]
        for each, trigger in zip(owned, one.triggers, strict=True):
            assert each.actions[0].parameters == trigger.parameters


def test_a_worker_dies_and_another_goes_on_by_hand_and_by_schedule(
    pool: PrefectServer,
    prefect: SyncPrefectClient,
    pull_settings: dict[str, str],
    catalog: Catalog,
    sandbox: Sandbox,
    rows: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT_S}):
        assert f"crashed after {3 * HEARTBEAT_S} s" in crash_silent_runs()
        assert crash_silent_runs()
    assert len(prefect.read_automations_by_name(SILENT_RUNS)) == 1
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ZTF", f"{tmp_path}/ztf/{{release}}/hats")
    environment = {
        **pull_settings,
        "LIGHTLAKE_TABLES__XMMSSC": json.dumps(TABLE),
        "LIGHTLAKE_ENDPOINTS__ZTF": f"{tmp_path}/ztf/{{release}}/hats",
    }
    pull = prefect.read_deployment_by_name("pull/pull-one-archive")
    # Where it was deployed the table was not known, so the form does not offer it.
    prefect.update_deployment(pull.id, DeploymentUpdate(enforce_parameter_schema=False, tags=pull.tags))
    register(catalog, range(40))

    dead = _killed_in_mid_run(pool, prefect, pull.id, sandbox, rows, tmp_path / "first.log", environment)
    # As one of another lake, of which only Prefect can know that it is dead: see test_killed_service.py for the others.
    prefect.update_flow_run_labels(dead.id, {LABEL: "another"})
    before = rows("FROM ledger ORDER BY granule")
    assert [row["n_targets"] for row in before] == [2] * 8
    asked = len(sandbox.requests)
    log = tmp_path / "second.log"
    with worker(pool, log, environment):
        again = prefect.create_flow_run_from_deployment(pull.id, parameters={"archive": "xmmssc"})
        state = until(lambda: _ended(prefect, again), log.read_text)
        assert state.name == "Completed", state.message
        assert state.message.startswith("xmmssc: 24 of 24 targets answered")
        # One more counts the rows without a position.
        assert len([one for one in sandbox.requests[asked:] if one.path.startswith(TAP)]) == 12 + 1
        _is_whole(catalog, rows, 40)
        assert [row for row in rows("FROM ledger ORDER BY granule") if row in before] == before
        _keeps_itself_fresh(prefect, catalog, sandbox, rows, tmp_path)
        _is_whole(catalog, rows, 40)
        # Meanwhile the dead run is no longer shown as running, and what it held of the archive is free.
        state = until(lambda: _ended(prefect, dead), lambda: "the dead run is shown as running")
        assert state.name == "Crashed"
        assert "no sign of life for 90 s" in state.message
        until(lambda: _places() == 4, lambda: f"{_places()} places are free")


def _killed_in_mid_run(
    pool: PrefectServer,
    prefect: SyncPrefectClient,
    pull: Any,
    sandbox: Sandbox,
    rows: Rows,
    log: Path,
    environment: dict[str, str],
) -> FlowRun:
    """Let a worker begin a pull, and kill it with all that it runs when the archive hangs in the third batch."""
    drip = sandbox.drip
    sandbox.drip = (1 << 20, 0.0)  # so that an answer which is slow is not, but is counted
    sandbox.fault(TAP, "slow", times=1 + 4 + 4 + 2)
    sandbox.fault(TAP, "hang")
    with worker(pool, log, environment | {"LIGHTLAKE_WORKERS": "1", "LIGHTLAKE_TIMEOUT_S": "600"}) as process:
        run = prefect.create_flow_run_from_deployment(pull, parameters={"archive": "xmmssc"})
        until(lambda: any(one.status == 0 for one in sandbox.requests), log.read_text)
        until(lambda: rows("SELECT count(*) AS n FROM ledger") == [{"n": 8}], log.read_text)
        assert kill_tree(process) >= 2
    sandbox.drip = drip
    assert _ended(prefect, run) is None
    until(lambda: _places() == 4, log.read_text)  # a busy machine takes a moment to end what was killed
    return run


def _keeps_itself_fresh(
    prefect: SyncPrefectClient, catalog: Catalog, sandbox: Sandbox, rows: Rows, tmp_path: Path
) -> None:
    """Let the nightly refresh fire every few seconds: it picks up a target, then a release, then nothing."""

    def publish(release: str, seed: int) -> None:
        ztf.write_collection(tmp_path / release / "hats", PLACES[:41], seed=seed, n_field=200)
        (tmp_path / release).rename(tmp_path / "ztf" / release)  # no run sees half of it

    (tmp_path / "ztf").mkdir()
    publish("dr24", 1)
    for archive in ("icecubepsc", "ztf"):
        assert pull_archive(archive, return_state=True).is_completed()
    register(catalog, range(40, 41), "late")
    refresh = prefect.read_deployment_by_name("refresh/refresh-all-archives")
    (nightly,) = refresh.schedules
    assert nightly.parameters == {"back_off": True, "newest": True}
    prefect.update_deployment_schedule(
        refresh.id,
        nightly.id,
        parameters={**nightly.parameters, "archives": ["icecubepsc", "ztf"]},
        schedule=IntervalSchedule(interval=timedelta(seconds=10), anchor_date=datetime.now(UTC)),
    )
    seen: set[Any] = set()

    def fired() -> FlowRun:
        def ended() -> list[FlowRun]:
            runs = prefect.read_flow_runs(
                deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[refresh.id])),
                sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            )
            return [run for run in runs if run.id not in seen and run.state and run.state.is_final()]

        run: FlowRun = until(ended, lambda: "the schedule does not fire")[0]
        seen.add(run.id)
        assert run.auto_scheduled
        assert run.state is not None
        assert run.state.is_completed(), run.state.message
        return run

    def told() -> list[str]:
        return str(fired().state.message).split(" | ")

    events, curves = told()
    assert events.startswith("icecubepsc: 1 of 1 target answered")
    assert curves.startswith("ztf: 1 of 1 target answered")
    assert _releases(rows) == {"DR24": 41}

    publish("dr25", 2)
    nothing = "nothing to do, every target has its answer"
    # One may have fired before the release was out.
    while len(news := told()) == 2:
        assert news == [f"icecubepsc: {nothing}", f"ztf: {nothing}"]
    assert news[:2] == [f"icecubepsc: {nothing}", f"ztf: {nothing}"]
    assert news[2].startswith("DR25 of ztf: 41 of 41 targets answered")
    assert rows("SELECT DISTINCT release FROM target_lightcurves WHERE archive = 'ztf'") == [{"release": "DR25"}]

    held = (
        "SELECT (SELECT count(*) FROM ledger), (SELECT count(*) FROM lightcurves), (SELECT max(asked_at) FROM coverage)"
    )
    asked, before = len(sandbox.requests), rows(held)
    last = fired()
    assert str(last.state.message).split(" | ") == [f"icecubepsc: {nothing}", f"ztf: {nothing}"]
    prefect.update_deployment_schedule(refresh.id, nightly.id, active=False)
    assert len(sandbox.requests) == asked
    assert rows(held) == before, "only that it ran is written"
    ended = rows("SELECT state FROM runs WHERE flow_run_id = ?", str(last.id))
    assert ended == [{"state": "done"}]
    assert _releases(rows) == {"DR24": 41, "DR25": 41}


def _is_whole(catalog: Catalog, rows: Rows, n_targets: int) -> None:
    answers = rows(
        "SELECT target_id, count(*) AS n FROM coverage WHERE archive = 'xmmssc' AND status <> 'failed' GROUP BY ALL"
    )
    assert [row["n"] for row in answers] == [1] * n_targets
    assert rows("SELECT granule FROM ledger GROUP BY ALL HAVING count(*) > 1") == []
    assert rows("SELECT count(*) > 0 AS some FROM lightcurves WHERE archive = 'xmmssc'") == [{"some": True}]
    assert rows("SELECT archive, source_id, band, mjd FROM lightcurves GROUP BY ALL HAVING count(*) > 1") == []
    # What the dead run had staged and not committed is for maintenance to remove.
    assert {finding.check for finding in verify(catalog) if finding.is_error} <= {"orphans"}


def _releases(rows: Rows) -> dict[str, int]:
    found = rows(
        "SELECT release, count(*) AS n FROM coverage WHERE archive = 'ztf' AND status <> 'failed' GROUP BY ALL"
    )
    return {row["release"]: row["n"] for row in found}


def _ended(prefect: SyncPrefectClient, run: FlowRun) -> Any:
    """The state that a run has ended in, or None."""
    state = prefect.read_flow_run(run.id).state
    return state if state is not None and state.is_final() else None


def _places() -> int:
    """How many places at HEASARC nobody has."""
    with connection_slots(load_settings(), "heasarc", 99, logging.getLogger("places")) as free:
        return free
