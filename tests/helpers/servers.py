"""Fixtures of tests that run flows: a real Prefect server, and the sandbox as archive."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import flows  # noqa: F401  # its settings come before Prefect is imported
from deployments.sandbox.server import Sandbox
from helpers.archives import PLACES
from helpers.processes import child_environment, shipped_environment
from lake.query import Lake
from lake.settings import Settings


@dataclass(frozen=True)
class PrefectServer:
    """A Prefect server of the tests' own."""

    api: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to use it."""
        return {"PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.home)}

    def used(self) -> AbstractContextManager[Any]:
        """Use it in this process."""
        from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

        return temporary_settings({PREFECT_API_URL: self.api, PREFECT_HOME: self.home})


@pytest.fixture(autouse=True)
def own_prefect(request: pytest.FixtureRequest) -> Iterator[None]:
    """Use the Prefect server that a test asks for: the process may have a second one, of tests before."""
    names = [name for name in ("prefect_server", "prefect_on_postgres") if name in request.fixturenames]
    with request.getfixturevalue(names[-1]).used() if names else nullcontext():
        yield


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """`prefect server start`, once a session, used by the test process itself and by its children."""
    with _prefect(tmp_path_factory.mktemp("prefect"), "--no-ui") as server:
        yield server


@pytest.fixture(scope="session")
def prefect_on_postgres(tmp_path_factory: pytest.TempPathFactory, postgres: str) -> Iterator[PrefectServer]:
    """The same with its database in PostgreSQL, and with its UI."""
    place = dict(part.split("=", 1) for part in postgres.split())
    url = f"postgresql+asyncpg://{place['user']}@{place['host']}:{place['port']}/{place['dbname']}"
    home = tmp_path_factory.mktemp("prefect")
    with _prefect(home, **shipped_environment("server.env", PREFECT_SERVER_DATABASE_CONNECTION_URL=url)) as server:
        yield server


@contextmanager
def _prefect(home: Path, *options: str, **more: str) -> Iterator[PrefectServer]:
    server, process = start_prefect(home, *options, **more)
    try:
        with server.used():
            yield server
            send_what_is_left()
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_prefect(
    home: Path, *options: str, port: int | None = None, **more: str
) -> tuple[PrefectServer, subprocess.Popen[bytes]]:
    """Start `prefect server start`, and wait until it answers; a port is that of one that was there before."""
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    server = PrefectServer(f"http://127.0.0.1:{port}/api", home)
    environment = child_environment(
        **server.environment,
        PREFECT_SERVER_API_HOST="127.0.0.1",
        PREFECT_SERVER_API_PORT=str(port),
        PREFECT_LOGGING_LEVEL="WARNING",
        # Schedules are looked at every two seconds instead of every minute.
        PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS="2",
        **{"PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false", **more},
    )
    log = home / "server.log"
    with log.open("a") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), *options],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=home,
        )
    try:
        _wait_until_healthy(server.api, process, log)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return server, process


def _wait_until_healthy(api: str, process: subprocess.Popen[bytes], log: Path) -> None:
    patience = time.monotonic() + 120
    with httpx.Client(timeout=5) as client:
        while time.monotonic() < patience:
            if process.poll() is not None:
                pytest.fail(f"the Prefect server died with {process.returncode}:\n{log.read_text()[-3000:]}")
            try:
                if client.get(f"{api}/health").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
    pytest.fail(f"the Prefect server is not up after 120 s:\n{log.read_text()[-3000:]}")


def send_what_is_left() -> None:
    """Let Prefect's client send its last logs and events while there is a server."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)


@pytest.fixture(scope="session")
def archive_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the sandbox's data, made by the first sandbox that needs it."""
    return tmp_path_factory.mktemp("archives")


@pytest.fixture
def sandbox(archive_root: Path) -> Iterator[Sandbox]:
    """Archive stand-ins with something at every fourth of the first 48 PLACES, and their own log of requests."""
    with Sandbox.start(archive_root, scale=0.002, targets=PLACES[:48:4]) as box:
        yield box


@pytest.fixture
def pull_settings(settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The settings of a pull, in the environment: an empty cache, the sandbox as archive, short waits."""
    from tasks.pull import lake_at

    values = {
        "LIGHTLAKE_URL": settings.url,
        "LIGHTLAKE_CACHE_DIR": str(settings.cache_dir),
        "LIGHTLAKE_LOCK_TIMEOUT_S": "60",
        "LIGHTLAKE_RETRY_DELAY_S": "0.05",
        "LIGHTLAKE_TIMEOUT_S": "20",
        **{f"LIGHTLAKE_ENDPOINTS__{name.upper()}": url for name, url in sandbox.endpoints.items()},
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield values
    lake_at.cache_clear()


@pytest.fixture
def rows(lake: Lake) -> Callable[..., list[dict[str, Any]]]:
    """Ask the test's lake: rows as dictionaries."""
    return lambda query, *values: lake.sql(query, list(values)).to_pylist()


def artifacts(state: Any) -> dict[str, Any]:
    """Artifacts of a flow run, by key."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
    from prefect.client.schemas.sorting import ArtifactSort

    with get_client(sync_client=True) as client:
        run_id = state.state_details.flow_run_id
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id])),
            sort=ArtifactSort.KEY_ASC,
        )
    return {artifact.key: artifact for artifact in found}
