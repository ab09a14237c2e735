"""What is counted for a granule: requests and retries, in whatever thread, over several tries."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import archives
from helpers.archives import harvest, refusal, register

from deployments.sandbox.icecube import URL_PATH
from deployments.sandbox.server import Sandbox
from lake.errors import ArchiveError, TruncatedAnswer
from lake.query import Lake
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from tasks.pull import Batch, commit_batch, fetch_batch, lake_at, mark_batch_failed, plan_batches
from tasks.services.download import download
from tasks.services.http import Session
from tasks.services.request_counters import Threads, count_requests, facts, request_sent, summarise, tried_again
from tasks.services.retry import with_retries
from tasks.services.store import open_store
from tasks.sources.base import FetchResult, Granule
from tasks.sources.registry import REGISTRY


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[None]:
    monkeypatch.setenv("LIGHTLAKE_URL", settings.url)
    if settings.catalog:
        monkeypatch.setenv("LIGHTLAKE_CATALOG", settings.catalog)
    yield
    lake_at.cache_clear()


def patient(settings: Settings) -> Settings:
    return settings.model_copy(update={"retries": 3, "retry_delay_s": 0.0})


def test_nothing_is_counted_where_there_is_no_granule() -> None:
    request_sent()
    tried_again(ValueError("x"))
    assert facts() == {}


def test_threads_count_for_who_gave_them_work() -> None:
    def work(n: int) -> None:
        request_sent()
        tried_again(ValueError(str(n)))

    with count_requests("a") as a, Threads(4) as pool:
        list(pool.map(work, range(50)))
        with count_requests("b") as b:
            pool.submit(work, 0).result()
        assert facts() == {"retries": 50, "requests": 50}
    assert (a.retries, a.requests) == (50, 50)
    assert (b.retries, b.requests) == (1, 1)
    assert facts() == {}


def test_requests_over_http_are_counted_with_what_is_tried_again(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Sandbox.start(tmp_path / "box", archives=("icecube",), scale=0.001) as sandbox,
        count_requests("g1", logging.getLogger("test")) as done,
    ):
        sandbox.fault(URL_PATH, "status:503", times=2)
        url = sandbox.endpoints["icecube"]
        with_retries(lambda: download(url, "icecube", settings, check=lambda path: None), patient(settings))
        assert facts() == {"retries": 2, "requests": 3} == {"retries": 2, "requests": len(sandbox.requests)}
        with Session("tap", url, 5, 5) as session:
            session.get(url)
    assert (done.retries, done.requests) == (2, 4)
    told = [record.getMessage() for record in caplog.records if record.name == "test"]
    assert len(told) == 2
    assert all(line.startswith("g1: trying again: icecube: HTTP 503") for line in told)


def test_what_arrow_asks_of_s3_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"y")
    with count_requests("local") as local:
        request_sent()
        assert open_store(str(tmp_path), "ztf", load_settings(timeout_s=1.0)).read("x") == b"y"
    assert local.requests == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with count_requests("far") as far:
        request_sent()
        with pytest.raises(ArchiveError):
            open_store("s3://bucket/catalogue", "ztf", load_settings(timeout_s=1.0)).read("x")
        request_sent()
    assert far.requests is None


def test_names_in_a_few_words() -> None:
    assert [summarise(names) for names in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a and 2 more"]


# --- a pull ---


class Fetch:
    """Let granules fail at first, each as often as is asked for."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)

    def __call__(self, granule: Granule, settings: Settings) -> FetchResult:
        request_sent()
        if self.failures:
            raise self.failures.pop(0)
        return harvest(granule)


def batch_of(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, folder: Path, fetch: Any, n: int = 2
) -> Batch:
    archive = archives.archive(fetch=fetch, batch_size=n)
    monkeypatch.setitem(REGISTRY, archive.name, archive)
    register(catalog, range(1, n + 1))
    (batch,) = plan_batches(lake, archive, {"depth": 1}, None, lake.storage.staging / folder.name)
    return batch


def ledger(lake: Lake) -> list[dict[str, Any]]:
    return lake.sql("SELECT status, n_found, retries, requests FROM ledger ORDER BY started_at").to_pylist()


def test_the_ledger_says_how_often_a_granule_was_tried(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fetch = Fetch(refusal(), refusal())
    batch = batch_of(catalog, lake, monkeypatch, tmp_path, fetch)
    log = logging.getLogger("test")
    for _ in range(2):
        with pytest.raises(ArchiveError):
            fetch_batch(batch, last_try=False, log=log)
    (receipt,) = commit_batch(lake.settings.url, fetch_batch(batch, last_try=False, log=log))
    assert (receipt.retries, receipt.requests, receipt.n_found) == (2, 3, 2)
    assert receipt.seconds >= 0
    assert receipt.peak_rss_mb > 10
    assert ledger(lake) == [{"status": "done", "n_found": 2, "retries": 2, "requests": 3}]
    (granule,) = batch.granules
    told = [record.getMessage() for record in caplog.records if record.name == "test"]
    assert [line.partition(": madeup")[0] for line in told] == [f"{granule}: trying again"] * 2


def test_the_last_try_and_one_that_was_interrupted_count_too(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetch = Fetch(refusal(), TimeoutError(), refusal())
    batch = batch_of(catalog, lake, monkeypatch, tmp_path, fetch)
    for error in (ArchiveError, TimeoutError):
        with pytest.raises(error):
            fetch_batch(batch, last_try=False)
    commit_batch(lake.settings.url, fetch_batch(batch, last_try=True))
    assert ledger(lake) == [{"status": "failed", "n_found": 0, "retries": 2, "requests": 3}]


def test_a_batch_that_is_given_up_has_what_its_tries_took(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    batch = batch_of(catalog, lake, monkeypatch, tmp_path, Fetch(TimeoutError(), TimeoutError()))
    commit_batch(
        lake.settings.url, mark_batch_failed(batch, ArchiveError("not asked", archive="madeup", endpoint="here"))
    )
    assert ledger(lake)[-1] == {"status": "failed", "n_found": 0, "retries": 0, "requests": None}
    for _ in range(2):
        with pytest.raises(TimeoutError):
            fetch_batch(batch, last_try=False)
    commit_batch(lake.settings.url, mark_batch_failed(batch, TimeoutError("too long")))
    assert ledger(lake)[-1] == {"status": "failed", "n_found": 0, "retries": 1, "requests": 2}


def test_halves_of_a_granule_have_their_own_counts(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cut = TruncatedAnswer("cut", archive="madeup", endpoint="here")
    batch = batch_of(catalog, lake, monkeypatch, tmp_path, Fetch(cut, refusal()))
    with pytest.raises(ArchiveError):
        fetch_batch(batch, last_try=False)
    commit_batch(lake.settings.url, fetch_batch(batch, last_try=False))
    assert {(row["status"], row["retries"], row["requests"]) for row in ledger(lake)} == {
        ("split", 0, 1),
        ("done", 1, 2),
        ("done", 0, 1),
    }


def test_a_manifest_of_an_older_version_is_read(catalog: Catalog, lake: Lake, tmp_path: Path) -> None:
    from helpers.granules import staged

    from lake.commit.staging import MANIFEST, Manifest

    manifest = staged(catalog, [], targets=[])
    path = catalog.storage.path(manifest.folder) / MANIFEST
    data = json.loads(path.read_text())
    for name in ("n_found", "retries", "requests"):
        del data["attempts"][0][name]
    path.write_text(json.dumps(data))
    assert Manifest.read(path.parent) == manifest


def test_a_server_that_is_away_counts_its_request(settings: Settings) -> None:
    with count_requests("g") as done, pytest.raises(ArchiveError):
        download("http://127.0.0.1:1/x", "icecube", settings, check=lambda path: None)
    assert done.requests == 1
