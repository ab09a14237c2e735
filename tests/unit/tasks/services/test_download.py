"""Downloads: cached once, whole or not at all. Faults of servers are in tests/integration/test_faults.py."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from deployments.sandbox.server import Request, Response, Sandbox
from lake.errors import ArchiveError
from lake.settings import Settings, load_settings
from tasks.services.download import download

CONTENT = b"0123456789" * 30_000


def ends_well(path: Path) -> str | None:
    """Return what is wrong with a file: it must be CONTENT."""
    return None if path.read_bytes() == CONTENT else "it is another"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandbox]:
    file = tmp_path / "served.bin"
    file.write_bytes(CONTENT)
    with Sandbox() as box:
        box.mount_file("/a/file.bin", file)
        yield box


def get(url: str, settings: Settings) -> Path:
    return download(url, "madeup", settings, check=ends_well)


def get_in_child(url: str, cache_dir: str) -> str:
    return str(get(url, load_settings(cache_dir=cache_dir)))


def kept(settings: Settings) -> list[str]:
    """Everything in the cache but locks."""
    return [path.name for path in settings.cache_dir.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_file_is_fetched_once(box: Sandbox, settings: Settings) -> None:
    first = get(box.url("/a/file.bin"), settings)
    assert first.read_bytes() == CONTENT
    assert (first.parent.name, first.suffix) == ("madeup", ".bin")
    assert get(box.url("/a/file.bin"), settings) == first
    assert len(box.requests) == 1
    assert kept(settings) == [first.name]


def test_no_file_is_called_after_a_password(box: Sandbox, settings: Settings, tmp_path: Path) -> None:
    box.mount_file("/", tmp_path / "served.bin")
    with_password = box.url("/").rstrip("/").replace("://", "://me:hunter2@")
    assert get(with_password, settings).read_bytes() == CONTENT
    assert not [name for name in kept(settings) if "hunter2" in name]


def test_urls_do_not_share_a_file(box: Sandbox, settings: Settings, tmp_path: Path) -> None:
    box.mount_file("/b/file.bin", tmp_path / "served.bin")
    paths = {get(box.url(f"/{place}/file.bin"), settings) for place in "ab"}
    assert len(paths) == 2
    assert len(box.requests) == 2


def test_processes_and_threads_that_ask_at_once_fetch_once(box: Sandbox, settings: Settings) -> None:
    box.drip = (100_000, 0.1)
    box.fault("/a/file.bin", "slow")
    url = box.url("/a/file.bin")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as processes, ThreadPoolExecutor(2) as threads:
        asked = [processes.submit(get_in_child, url, str(settings.cache_dir)) for _ in range(2)]
        asked += [threads.submit(get_in_child, url, str(settings.cache_dir)) for _ in range(2)]
        assert len({one.result() for one in asked}) == 1
    assert len(box.requests) == 1


@pytest.mark.parametrize(
    ("kind", "message", "transient"),
    [("truncate", "the connection failed", True), ("status:410", "HTTP 410", False), ("status:204", "HTTP 204", False)],
)
def test_a_failure_leaves_nothing(box: Sandbox, settings: Settings, kind: str, message: str, transient: bool) -> None:
    url = box.url("/a/file.bin")
    box.fault("/a/file.bin", kind)
    with pytest.raises(ArchiveError, match=message) as caught:
        get(url, settings)
    error = caught.value
    assert (error.transient, error.archive, error.endpoint) == (transient, "madeup", url)
    assert url in str(error)
    assert ("LIGHTLAKE_ENDPOINTS__MADEUP" in str(error)) is not transient
    assert kept(settings) == []
    # The fault is over: asking again mends it.
    assert get(url, settings).read_bytes() == CONTENT


def test_a_slow_archive_is_waited_for_but_not_for_ever(box: Sandbox, settings: Settings) -> None:
    box.drip = (200_000, 0.2)
    box.fault("/a/file.bin", "slow", times=2)
    with pytest.raises(ArchiveError, match=r"still not through after 0\.05 s") as caught:
        get(box.url("/a/file.bin"), settings.model_copy(update={"task_timeout_s": 0.05}))
    assert caught.value.transient
    assert kept(settings) == []
    assert get(box.url("/a/file.bin"), settings).read_bytes() == CONTENT


def test_redirects_are_followed_but_not_round_and_round(box: Sandbox, settings: Settings) -> None:
    def redirect(asked: Request) -> Response:
        where = "/a/file.bin" if asked.path == "/old" else "/round"
        return Response(status=302, headers={"Location": where})

    box.mount("/old", redirect)
    box.mount("/round", redirect)
    assert get(box.url("/old"), settings).read_bytes() == CONTENT
    with pytest.raises(ArchiveError, match="redirect") as caught:
        get(box.url("/round"), settings)
    assert not caught.value.transient


def test_a_damaged_encoding_can_pass(box: Sandbox, settings: Settings) -> None:
    box.mount("/zipped", lambda asked: Response(b"not gzip", headers={"Content-Encoding": "gzip"}))
    with pytest.raises(ArchiveError, match="the connection failed") as caught:
        get(box.url("/zipped"), settings)
    assert caught.value.transient


@pytest.mark.parametrize(
    ("url", "transient"), [("http://127.0.0.1:9/file", True), ("http://127.0.0.1:port/file", False)]
)
def test_nobody_there(settings: Settings, url: str, transient: bool) -> None:
    with pytest.raises(ArchiveError) as caught:
        get(url, settings)
    assert caught.value.transient is transient
