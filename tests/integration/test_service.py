"""What the service promises, on a real Prefect server: runs take turns, upkeep reports, failures are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers.archives import register
from helpers.processes import until
from prefect import tags
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.deployed import NAME
from deployments.serve import FAILED_RUNS, notify_of_failures, reach_api
from flows import turns
from flows.maintenance import maintain, verify
from flows.pull import pull_archive
from lake.catalog import Catalog
from lake.cli import main
from lake.errors import ConfigurationError

Rows = Callable[..., list[dict[str, Any]]]
pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.mark.usefixtures("pull_settings")
def test_two_runs_of_one_archive_take_turns(catalog: Catalog, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    register(catalog, range(6))
    waiting, inside, most = [], [], []
    found = turns.get_run_logger

    class Log:
        def warning(self, *told: Any) -> None:
            waiting.append(told)
            found().warning(*told)

    monkeypatch.setattr(turns, "get_run_logger", Log)
    monkeypatch.setattr(turns, "LOOK_AGAIN_S", 0.1)
    from flows import pull as module

    real = module._pull

    def watched(*arguments: Any, **more: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        try:
            return real(*arguments, **more)
        finally:
            inside.pop()

    monkeypatch.setattr(module, "_pull", watched)
    states: list[Any] = []

    def pull() -> None:
        states.append(pull_archive("icecube", again=True, return_state=True))

    # A copy of the context has the server that the fixture has set.
    runs = [threading.Thread(target=copy_context().run, args=[pull]) for _ in range(2)]
    # As a run of another process would, with another Prefect server or none.
    with catalog.claim("pull-icecube", strict=True) as ours:
        assert ours
        for run in runs:
            run.start()
        until(lambda: len(waiting) == 2, "both runs wait")
        assert rows("FROM ledger") == []
    for run in runs:
        run.join()
    assert [state.name for state in states] == ["Completed", "Completed"], states
    assert most == [1, 1]
    attempts = rows("SELECT started_at, started_at + to_microseconds((1e6 * seconds)::BIGINT) AS ended FROM ledger "
                    "WHERE archive = 'icecube' ORDER BY started_at")  # fmt: skip
    assert len(attempts) == 2
    assert attempts[0]["ended"] <= attempts[1]["started_at"]


def test_a_strict_claim_keeps_its_file(catalog: Catalog, on_disk: None) -> None:
    with catalog.claim("one", strict=True) as mine, catalog.claim("one", strict=True) as theirs:
        assert (mine, theirs) == (True, False)
    path = Path(catalog.location.target).parent / "claims" / "one.lock"
    assert path.exists()
    with catalog.claim("one", strict=True) as mine:
        assert mine
    with catalog.claim("other") as mine:
        assert mine
    assert not path.with_name("other.lock").exists()


@pytest.fixture
def hook() -> Iterator[tuple[str, list[str]]]:
    """A webhook on loopback: its URL, and what it was told."""
    told: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.usefixtures("pull_settings")
def test_upkeep_reports_and_failures_are_told(catalog: Catalog, hook: tuple[str, list[str]], on_disk: None) -> None:
    url, told = hook
    register(catalog, range(6))
    state = maintain(return_state=True)
    assert state.is_completed()
    assert "files became" in (state.message or "")
    assert verify(quick=True, return_state=True).is_completed()
    block = CustomWebhookNotificationBlock(name="hook", url=url, json_data={"text": "{{subject}}: {{body}}"})
    block.save("observers", overwrite=True)
    for _ in range(2):  # a second time it takes the first one's place
        assert "custom-webhook/observers" in notify_of_failures("custom-webhook/observers")
    with get_client(sync_client=True) as client:
        assert len(client.read_automations_by_name(FAILED_RUNS)) == 1
    (victim,) = catalog.storage.table_files("targets")
    victim.unlink()
    with tags(NAME):
        state = verify(return_state=True)
    assert state.is_failed()
    assert f"{victim.name} is missing" in (state.message or "")
    until(lambda: told, "the webhook is told")
    assert "verify Failed" in told[0]
    assert f"{victim.name} is missing" in told[0]


def test_what_cannot_be_is_one_clear_error() -> None:
    with pytest.raises(ConfigurationError, match=r"no block 'slack-webhook/nobody'.*prefect block ls"):
        notify_of_failures("slack-webhook/nobody")
    silent = "http://127.0.0.1:9/api"
    with temporary_settings({PREFECT_API_URL: silent}), pytest.raises(ConfigurationError, match=f"{silent} does not a"):
        reach_api()
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(ConfigurationError, match="no Prefect s"),
    ):
        reach_api()


@pytest.mark.parametrize("api", ["http://127.0.0.1:9/api", None])
def test_targets_are_added_whether_prefect_can_be_told_or_not(
    api: str | None,
    catalog: Catalog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    listing = tmp_path / "one.csv"
    listing.write_text("name,ra,dec\nNGC 1068,40.6696,-0.0133\n")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    if api:
        (tmp_path / "profiles.toml").write_text(f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{api}"\n')
    with temporary_settings({PREFECT_API_URL: api}), pytest.raises(SystemExit) as ended:
        main(["targets", "add", str(listing), "--sample", "s", "--lake", str(catalog.storage.root)])
    said = capsys.readouterr().out.splitlines()
    assert (ended.value.code, said[0][:16]) == (0, "1 rows of one.cs")
    if api is None:
        assert len(said) == 1
    else:
        assert said[1].startswith("Prefect was not told")
        assert api in said[1]
        assert len(said) == 2
