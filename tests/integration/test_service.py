"""What the service promises, on a real Prefect server: runs take turns, upkeep reports, failures are told."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from helpers import granules
from helpers.archives import register
from helpers.brightening import bring
from helpers.processes import until
from prefect import flow, runtime, tags
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import Automation
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Crashed, Running

from deployments import paused, serve
from deployments.automations import (
    FAILED_RUNS,
    SILENT_RUNS,
    crash_silent_runs,
    notify_of_failures,
    notify_of_variations,
    reach_api,
)
from deployments.deployed import NAME, deployed
from deployments.doctor import former_deployments_check
from deployments.former import FORMER, former_deployments
from flows import living
from flows.changed import tell_changes
from flows.maintenance import maintain, verify
from flows.pull import pull_archive
from lake.cli import main
from lake.errors import ConfigurationError, LightlakeError
from lake.export.provenance import current_snapshot
from lake.query import Lake
from lake.store import claims
from lake.store.catalog import Catalog
from lake.store.identity import tree_id
from tasks.archives import source as engine
from tasks.pull import limits

Rows = Callable[..., list[dict[str, Any]]]
pytestmark = pytest.mark.usefixtures("prefect_server")

FULL_NAMES = {one.flow.name: one.full_name for one in deployed()}


@pytest.fixture
def nothing_deployed() -> None:
    """Deployments of a server outlive a test, with what was switched off."""
    with get_client(sync_client=True) as client:
        for one in client.read_deployments():
            client.delete_deployment(one.id)


@pytest.mark.usefixtures("pull_settings")
def test_two_runs_of_one_archive_take_turns(
    catalog: Catalog, rows: Rows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    register(catalog, range(6))
    inside, most = [], []
    monkeypatch.setattr(limits, "LOOK_AGAIN_S", 0.1)
    real = engine.count_to_ask

    def watched(*arguments: Any, **more: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.2)
        inside.pop()
        return real(*arguments, **more)

    monkeypatch.setattr(engine, "count_to_ask", watched)
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
        until(lambda: caplog.text.count("which holds the lock pull-icecube") == 2, "both runs wait")
        assert rows("FROM ledger") == []
    for run in runs:
        run.join()
    assert [state.name for state in states] == ["Completed", "Completed"], states
    assert most == [1, 1]
    attempts = rows(
        "SELECT started_at, started_at + to_microseconds((1e6 * seconds)::BIGINT) AS ended FROM ledger "
        "WHERE archive = 'icecube' ORDER BY started_at"
    )
    assert len(attempts) == 2
    assert attempts[0]["ended"] <= attempts[1]["started_at"]


def test_a_turn_is_not_waited_for_for_ever(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOOK_AGAIN_S", 0.05)
    impatient = Lake(lake.storage.root, lake.settings.model_copy(update={"turn_timeout_s": 0.2}), writable=True)
    too_long = pytest.raises(
        LightlakeError, match=f"first, process {os.getpid()} on .*, which holds the lock pull-madeup"
    )
    second = limits.exclusive_pull(impatient, "pull-madeup", "second", logging.getLogger("turns"))
    with claims.held(lake.catalog, "pull-madeup", "first"), impatient, too_long, second:
        pass


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
    assert " became " in (state.message or "")
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
    assert f"verify {catalog.storage.root.name} Failed" in told[0]
    assert f"{victim.name} is missing" in told[0]


@pytest.mark.usefixtures("pull_settings")
def test_brightenings_are_told(catalog: Catalog, hook: tuple[str, list[str]], on_disk: None) -> None:
    url, told = hook
    granules.register(catalog, [0])
    block = CustomWebhookNotificationBlock(name="hook", url=url, json_data={"text": "{{subject}}: {{body}}"})
    block.save("watchers", overwrite=True)
    assert "custom-webhook/watchers" in notify_of_variations("custom-webhook/watchers")
    bring(catalog, [96.0, 100.0, 104.0], "a", 1)
    with Lake(str(catalog.storage.root), catalog.settings) as lake:
        before = current_snapshot(lake)
        bring(catalog, [96.0, 100.0, 104.0, 130.0, 101.0], "b", 2)
        tell_changes(lake, before, 5, logging.getLogger(__name__))
    until(lambda: told, "the webhook is told")
    assert "1 brighter, 0 fainter" in told[0]
    assert "+6.0 sigma in ztf g at MJD 58003.000" in told[0]
    assert f"--since {before}" in told[0]


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


def test_a_server_that_is_starting_is_waited_for() -> None:
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Healthy, bind_and_activate=False)
    server.server_bind()  # its port is taken, and refuses until it listens
    started = threading.Thread(target=server.serve_forever, daemon=True)
    said = list[str]()

    def say(line: str) -> None:
        said.append(line)
        server.server_activate()
        started.start()

    api = f"http://127.0.0.1:{server.server_address[1]}/api"
    with temporary_settings({PREFECT_API_URL: api}):
        assert reach_api(60, say) == api
    assert [api in line for line in said] == [True]
    server.shutdown()
    server.server_close()


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
    assert ended.value.code == 0
    assert sum(line.startswith("1 row of one.csv") for line in said) == 1
    (told,) = [line for line in said if line.startswith("Prefect was not told")] if api else [""]
    assert (api or "") in told


def running(client: SyncPrefectClient, lake: Lake, name: str, label: str | None = "", **more: Any) -> UUID:
    """A run that Prefect shows as running; with the label of a lake, else it has not got as far."""
    given = {"parameters": {"lake": str(lake.storage.root)}, "state": Running(), **more}
    run = client.create_flow_run(pull_archive, name=name, **given)
    if label is not None:
        client.update_flow_run_labels(run.id, {living.LABEL: label or tree_id(lake.storage) or ""})
    return run.id


def test_runs_are_alive_that_have_their_claim(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Prefect has heard of them last; one that just begins has no claim yet, and is let be."""
    cancelling = State(type=StateType.CANCELLING)
    seen: list[str] = []

    @flow(name="pull")
    def alive(lake: str) -> None:
        with living.living(opened), get_client(sync_client=True) as client:
            labels = client.read_flow_run(UUID(runtime.flow_run.id)).labels
            assert labels[living.LABEL] == tree_id(opened.storage)
            seen.extend(run.name for run in living.bury(opened, client))
            ends(client, "Running", UUID(runtime.flow_run.id))

    def ends(client: SyncPrefectClient, name: str, *runs: UUID) -> None:
        assert [client.read_flow_run(run).state.name for run in runs] == [name] * len(runs)

    opened = lake
    with get_client(sync_client=True) as client:
        dead, asked_to_end = running(client, lake, "dead"), running(client, lake, "cancelled", state=cancelling)
        begins, other = running(client, lake, "begins", None), running(client, lake, "other", "of another lake")
        in_hand = running(client, lake, "in hand")
        assert {run.id for run in living.bury(lake, client, [in_hand])} == {dead, asked_to_end}
        alive(str(lake.storage.root))
        assert seen == []  # it looks for dead ones when it begins, and is none itself
        ends(client, "Crashed", dead, in_hand)
        ends(client, "Cancelled", asked_to_end)
        ends(client, "Running", begins, other)
        monkeypatch.setattr(living, "BEGINS_S", 0.0)
        assert [run.id for run in living.bury(lake, client)] == [begins]
        ends(client, "Crashed", begins)
        client.set_flow_run_state(other, Crashed())


def test_an_automation_stays_the_one_that_it_is() -> None:
    """One that is made anew has forgotten which runs fell silent."""
    with get_client(sync_client=True) as client:

        def there() -> Automation:
            (found,) = client.read_automations_by_name(SILENT_RUNS)
            return found

        crash_silent_runs()
        first = there()
        client.pause_automation(first.id)
        crash_silent_runs()
        assert (there().id, there().enabled, there().trigger) == (first.id, False, first.trigger)
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: 40}):
            crash_silent_runs()
        assert there().trigger.within == timedelta(seconds=120)
        assert (there().id, there().enabled) == (first.id, False)


def test_a_second_service_is_refused_and_told_who_has_the_lake(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with serve._only_service(lake, said.append):
        with pytest.raises(ConfigurationError) as refused, serve._only_service(lake, said.append):
            pass
        assert f"process {os.getpid()} on {socket.gethostname()}" in refused.value.message
        assert str(lake.storage.root) in refused.value.message
    # One that ends is waited for.
    first = serve._only_service(lake, said.append)
    first.__enter__()
    claims.note(lake.storage, serve.CLAIM, claims.Holder.this("one", ending=True))
    threading.Timer(0.7, lambda: first.__exit__(None, None, None)).start()
    with serve._only_service(lake, said.append):
        assert len(said) == 1
        assert claims.holder_of(lake.storage, serve.CLAIM).is_this
    assert claims.holder_of(lake.storage, serve.CLAIM) is None


@pytest.mark.usefixtures("nothing_deployed")
def test_what_somebody_paused_stays_paused(lake: Lake) -> None:
    """And what a service paused when it ended comes back, unless another has taken over."""
    root, said = str(lake.storage.root), list[str]()
    pull, refresh, *_, verify = deployed(root)
    ours = [pull, refresh, verify]
    names = [one.full_name for one in ours]

    def begin() -> dict[str, str]:
        said.clear()
        serve._register(lake, ours, 1, said.append)
        return {line.partition(":")[0]: line for line in said}

    with get_client(sync_client=True) as client:

        def there(name: str) -> DeploymentResponse:
            return client.read_deployment_by_name(FULL_NAMES[name])

        begin()
        assert not any(client.read_deployment_by_name(name).paused for name in names)
        triggers = client.read_resource_related_automations(f"prefect.deployment.{there('refresh').id}")
        client.pause_automation(triggers[0].id)
        client.pause_deployment(there("verify").id)
        slug = there("pull").schedules[0].slug
        client.update_deployment_schedule(there("pull").id, there("pull").schedules[0].id, active=False)
        told = begin()
        assert "not by this service" in told[FULL_NAMES["verify"]]
        assert f"{slug} paused" in told[FULL_NAMES["pull"]]
        serve._pause(lake, ours, said.append)
        assert all(client.read_deployment_by_name(name).paused for name in names)
        told = begin()
        assert [name for name in names if client.read_deployment_by_name(name).paused] == [FULL_NAMES["verify"]]
        assert [one.active for one in there("pull").schedules if one.slug == slug] == [False]
        assert sum(one.active for one in there("pull").schedules) == len(there("pull").schedules) - 1
        assert "resumed" in told[FULL_NAMES["refresh"]]
        assert "resumed" not in told[FULL_NAMES["verify"]]
        serve._report_paused(ours, said.append)
        assert FULL_NAMES["verify"] in said[-1]
        assert f"{FULL_NAMES['pull']} ({slug} paused" in said[-1]
        after = client.read_resource_related_automations(f"prefect.deployment.{there('refresh').id}")
        assert [(one.id, one.enabled) for one in after] == [(triggers[0].id, False)]
        # One of another lake has registered the same: schedules are its own now.
        paused.pause(client, names, "another lake")
        claims.note(lake.storage, serve.CLAIM, claims.Holder("another", "elsewhere", 1, "now"))
        serve._pause(lake, ours, said.append)
        assert "another, process 1 on elsewhere" in said[-1]
        assert [name for name in names if client.read_deployment_by_name(name).paused] == [FULL_NAMES["verify"]]
        # What one has paused, another does not forget.
        paused.note_paused(names)
        assert paused.pause(client, names, "another lake") == []
        assert paused.paused_by_services() == sorted(names)


@pytest.mark.usefixtures("nothing_deployed")
def test_deployments_of_former_names_give_way(lake: Lake) -> None:
    """With what somebody has paused and switched off there."""
    root, said = str(lake.storage.root), list[str]()
    pull, refresh, *_, verify = deployed(root)
    ours = [pull, refresh, verify]
    with get_client(sync_client=True) as client:
        for one in ours:
            replace(one, name=FORMER).as_runner().apply()
        before = former_deployments(client, FULL_NAMES.values())
        assert set(before) == {"pull/lightlake", "refresh/lightlake", "verify/lightlake"}
        (check,) = former_deployments_check()
        assert (check.status, check.found.count("/lightlake")) == ("warn", 3)
        (trigger,) = client.read_resource_related_automations(f"prefect.deployment.{before['refresh/lightlake'].id}")
        client.pause_automation(trigger.id)
        client.pause_deployment(before["verify/lightlake"].id)
        schedule = before["pull/lightlake"].schedules[0]
        client.update_deployment_schedule(before["pull/lightlake"].id, schedule.id, active=False)
        paused.note_paused(["pull/lightlake"])

        serve._register(lake, ours, 1, said.append)
        assert former_deployments(client, FULL_NAMES.values()) == {}
        assert former_deployments_check() == []
        there = {name: client.read_deployment_by_name(FULL_NAMES[name]) for name in ("pull", "refresh", "verify")}
        assert [name for name, one in there.items() if one.paused] == ["verify"]
        assert [one.slug for one in there["pull"].schedules if not one.active] == [schedule.slug]
        (kept,) = client.read_resource_related_automations(f"prefect.deployment.{there['refresh'].id}")
        assert (kept.name, kept.enabled) == (trigger.name, False)
        assert trigger.id not in {one.id for one in client.read_automations()}
        assert any("resumed" in line for line in said if line.startswith(FULL_NAMES["pull"]))
        said.clear()
        serve._register(lake, ours, 1, said.append)
        assert not any("lightlake: is called" in line for line in said)


def test_who_waits_for_a_turn_has_no_place(lake: Lake) -> None:
    root, said = str(lake.storage.root), list[str]()
    runner = serve._register(lake, deployed(root)[:1], 1, said.append)

    async def what_goes(*due: FlowRun) -> list[str]:
        async with runner:
            return [run.name for run in await runner._may_start(list(due))]

    with get_client(sync_client=True) as client:
        pull = client.read_deployment_by_name(FULL_NAMES["pull"]).id

        def run(archive: str, name: str) -> FlowRun:
            given = {"archive": archive, "sample": name if name != "twin" else "second"}
            made = client.create_flow_run_from_deployment(pull, parameters=given, name=name)
            return made.model_copy(update={"auto_scheduled": True})

        due = [run("gaia", "first"), run("gaia", "second"), run("gaia", "twin"), run("ztf", "taken"), run("wise", "x")]
        with lake.catalog.claim("pull-ztf", strict=True):
            assert asyncio.run(what_goes(*due)) == ["first", "x"]
        states = {one.name: client.read_flow_run(one.id).state for one in due}
        assert {name: state.name for name, state in states.items()} == {
            "first": "Scheduled",
            "second": "Waiting",
            "twin": "Cancelled",
            "taken": "Waiting",
            "x": "Scheduled",
        }
        assert "pull-ztf" in states["taken"].message
        late = lake.settings.model_copy(update={"turn_timeout_s": 0.001})
        runner._lake = SimpleNamespace(catalog=lake.catalog, storage=lake.storage, settings=late)
        with lake.catalog.claim("pull-ztf", strict=True):
            assert asyncio.run(what_goes(due[3])) == []
        assert client.read_flow_run(due[3].id).state.is_failed()
        for one in due:
            client.delete_flow_run(one.id)
