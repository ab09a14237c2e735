"""Schedules on a real Prefect server: what `flow.serve` schedules really runs.

Two pins of pyproject.toml rest on these tests, since a plain `pip install prefect` breaks both silently:

- ``fastapi>=0.139,<0.151``: with a newer one `prefect server start` dies while it is imported, and the fixture
  `prefect_server` fails with the server's own last words.
- ``sqlalchemy[asyncio]<2.1``: with 2.1 the server starts, takes deployments and shows their schedules, but its
  scheduler never makes a run of them: the tests below wait in vain.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from helpers.archives import register
from helpers.processes import child_environment
from helpers.servers import PrefectServer
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from lake.catalog import Catalog
from lake.maintenance import verify
from tasks.archives import REGISTRY

SERVE = """
from prefect import serve
from flows.pull import pull_archive
from flows.refresh import refresh

serve(
    pull_archive.to_deployment(name="scheduled", interval=3, parameters={"archive": "icecube", "sample": "pulled"}),
    refresh.to_deployment(name="scheduled", interval=3, parameters={"sample": "refreshed"}),
    limit=1,
)
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
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return [run for run in found if run.state is not None and run.state.is_completed()]


def test_schedules_fire(
    prefect_server: PrefectServer, pull_settings: dict[str, str], catalog: Catalog, tmp_path: Path,
    rows: Callable[..., list[dict[str, Any]]],
) -> None:  # fmt: skip
    register(catalog, range(6), "pulled")
    register(catalog, range(6, 9), "refreshed")
    log = tmp_path / "serve.log"
    with log.open("w") as out:
        child = subprocess.Popen(
            [sys.executable, "-c", SERVE], cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT,
            env=child_environment(
                **pull_settings, **prefect_server.environment,
                # The server is asked each second what is to run, instead of every ten.
                PREFECT_RUNNER_POLL_FREQUENCY="1",
            ),
        )  # fmt: skip
    try:
        patience = time.monotonic() + 180
        while not (runs("pull icecube for pulled") and runs("refresh all archives for refreshed")):
            assert child.poll() is None, log.read_text()[-3000:]
            if time.monotonic() > patience:
                pytest.fail(f"no schedule fired in 180 s:\n{log.read_text()[-3000:]}")
            time.sleep(1)
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for run in [*runs("pull icecube for pulled"), *runs("refresh all archives for refreshed")]:
        assert run.deployment_id is not None
        assert run.auto_scheduled
    assert rows("SELECT count(*) AS n FROM coverage WHERE status <> 'failed' AND archive = 'icecube'") == [{"n": 9}]
    assert {row["archive"] for row in rows("SELECT DISTINCT archive FROM coverage")} == set(REGISTRY)
    assert rows("SELECT count(*) > 0 AS some FROM lightcurves") == [{"some": True}]
    assert [finding for finding in verify(catalog) if finding.is_error] == []
