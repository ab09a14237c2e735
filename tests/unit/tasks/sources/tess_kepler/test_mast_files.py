"""Files from MAST: whole or not at all, resumed and not glued, checked whenever they are used."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import filelock
import pytest
from helpers.mast import name_of, product
from helpers.processes import child_environment
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lake.errors import ArchiveError
from lake.settings import Settings, load_settings
from tasks.services.http import retry_after_s
from tasks.sources.tess_kepler.mast_files import Files, Found
from tasks.sources.tess_kepler.mast_products import named

BODY = product("kepler", n=800)
OTHER = product("kepler", n=800, seed=2)
NAME = name_of("kepler")
URI = f"mast:Kepler/url/missions/kepler/lightcurves/0251/025155310/{NAME}"
HALF = len(BODY) // 2

assert len(BODY) == len(OTHER)


@dataclass
class Asked:
    """A request, and what was sent."""

    uri: str
    range: str | None
    status: int = 0
    sent: int = 0


class Origin(ThreadingHTTPServer):
    """A download service like MAST's; `script` says what goes wrong with the next answers.

    Words of the script: reset n, cut n (n bytes of the body, then RST or FIN), hang n, short n (Content-Length says n
    too), endless n (no Content-Length, n bytes, FIN), chunked, whole (Range ignored), glue (If-Range ignored), shifted
    (206 of another range), page (HTML), and statuses such as 503 or 429.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, tuple[bytes, str | None]] = {URI: (BODY, '"one"')}
        self.script: list[str] = []
        self.asked: list[Asked] = []
        self.retry_after = "0"
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def sent(self) -> int:
        return sum(one.sent for one in self.asked)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Origin

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: `Origin.asked` is the log."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        assert parts.path == "/api/v0.1/Download/file"
        asked = Asked(parse_qs(parts.query)["uri"][0], self.headers.get("Range"))
        self.server.asked.append(asked)
        word, _, number = (self.server.script.pop(0) if self.server.script else "").partition(" ")
        if word.isdigit():
            self._head(asked, int(word), {"Content-Length": "0", "Retry-After": self.server.retry_after})
            return
        if word == "page":
            self._head(asked, 200, {"Content-Length": "13"})
            self.wfile.write(b"<html></html>")
            return
        if asked.uri not in self.server.files:
            self._head(asked, 404, {"Content-Length": "0"})
            return
        body, tag = self.server.files[asked.uri]
        start = self._start(tag, word)
        rest = body[start:]
        n = min(int(number), len(rest)) if number else len(rest)
        status = 200 if start == 0 else 206
        headers = {"ETag": tag} if tag else {}
        if status == 206:
            first = start + (word == "shifted")
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        if word == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        elif word != "endless":
            headers["Content-Length"] = str(n if word == "short" else len(rest))
        self._head(asked, status, headers)
        self._body(asked, word, rest[:n])

    def _start(self, tag: str | None, word: str) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        right = word == "glue" or (tag is not None and self.headers.get("If-Range") == tag)
        return int(found[1]) if found and right and word not in ("whole", "short") else 0

    def _head(self, asked: Asked, status: int, headers: dict[str, str]) -> None:
        asked.status = status
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, asked: Asked, word: str, content: bytes) -> None:
        if word == "chunked":
            content = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
        asked.sent += len(content)  # before the client has it, and the test looks
        self.wfile.write(content)
        if word == "hang":
            self.server.over.wait(60)
        if word in ("reset", "cut", "hang", "endless"):
            self.close_connection = True
        if word == "reset":
            time.sleep(0.02)  # an RST takes what the client has not read
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture(scope="module")
def server() -> Iterator[Origin]:
    with Origin() as origin:
        thread = threading.Thread(target=origin.serve_forever, args=(0.02,))
        thread.start()
        yield origin
        origin.over.set()
        origin.shutdown()
        thread.join()


@pytest.fixture
def origin(server: Origin) -> Origin:
    server.files = {URI: (BODY, '"one"')}
    server.script, server.asked, server.retry_after = [], [], "0"
    return server


@pytest.fixture
def patient(settings: Settings) -> Settings:
    return settings.model_copy(update={"retry_delay_s": 0.0, "timeout_s": 0.5})


def found(uri: str = URI, size: int | None = len(BODY)) -> Found:
    what = named(uri)
    assert what is not None
    return Found(uri, uri.rsplit("/", 1)[-1], what, size=size)


def get(origin: Origin, settings: Settings, *files: Found) -> list[Path]:
    with Files(origin.url, settings) as service:
        return [path for _, path in service.fetch(files or (found(),))]


def content(origin: Origin, settings: Settings, *files: Found) -> bytes:
    return get(origin, settings, *files)[-1].read_bytes()


def kept(settings: Settings) -> list[str]:
    """Names of whole files in the cache."""
    return [path.name for path in settings.cache_dir.rglob("*.fits")]


def parts(settings: Settings) -> list[Path]:
    return list(settings.cache_dir.rglob("*.part"))


def many(origin: Origin, n: int) -> list[Found]:
    """Files of different targets."""
    files = []
    for target in range(1, n + 1):
        body = product("spoc", target=target, n=30)
        uri = f"mast:TESS/product/{name_of('spoc', target)}"
        origin.files[uri] = (body, f'"{target}"')
        files.append(found(uri, len(body)))
    return files


def test_files_come_in_order_once_and_are_used_from_the_cache(origin: Origin, patient: Settings) -> None:
    files = many(origin, 30)
    for _ in range(2):
        with Files(origin.url, patient) as service:
            got = list(service.fetch(files))
        assert [one for one, _ in got] == files
        assert [path.read_bytes() for _, path in got] == [origin.files[one.uri][0] for one in files]
    assert len(origin.asked) == 30
    assert got[0][1].relative_to(patient.cache_dir / "mast").parts[1:] == ("TESS", "product", files[0].name)
    assert parts(patient) == []


def test_the_public_address_has_no_folder_of_its_own(patient: Settings) -> None:
    with Files("https://mast.stsci.edu/", patient) as public, Files("http://127.0.0.1:9", patient) as other:
        assert public._cache(public.url).root == patient.cache_dir / "mast"
        assert other._cache(other.url).root.parent == patient.cache_dir / "mast"


def test_a_file_that_is_asked_for_twice_at_once_comes_once(origin: Origin, patient: Settings) -> None:
    assert len(set(get(origin, patient, *[found()] * 6))) == 1
    assert len(origin.asked) == 1


@pytest.mark.parametrize(
    ("script", "transferred"),
    [
        ([f"reset {HALF}"], len(BODY)),
        ([f"cut {HALF}"], len(BODY)),
        ([f"hang {HALF}"], len(BODY)),
        ([f"cut {HALF}", "503", "cut 1000", "429"], len(BODY)),
        (["503", "429", "500"], len(BODY)),
        (["cut 0", "cut 1", f"cut {len(BODY) - 2}"], len(BODY)),
        ([f"cut {HALF}", "whole"], HALF + len(BODY)),
        ([f"cut {HALF}", "shifted"], 2 * len(BODY)),
        (["page"], len(BODY)),
        ([f"short {HALF}"], HALF + len(BODY)),
        ([f"endless {HALF}"], HALF + len(BODY)),
        (["endless"], len(BODY)),
        (["chunked"], len(BODY)),
    ],
)
def test_whatever_goes_wrong_the_bytes_are_right(
    origin: Origin, patient: Settings, script: list[str], transferred: int
) -> None:
    origin.script = [*script]
    assert content(origin, patient.model_copy(update={"retries": 4})) == BODY
    assert origin.script == []
    # What came of a file is not asked for again, where the server lets one.
    assert transferred <= origin.sent <= transferred + 20
    assert (kept(patient), parts(patient)) == ([NAME], [])


@pytest.mark.parametrize("word", ["cut", "glue"])
def test_parts_of_two_versions_are_not_glued(origin: Origin, patient: Settings, word: str) -> None:
    origin.script = [f"cut {HALF}"]
    with pytest.raises(ArchiveError, match="the connection failed"):
        get(origin, patient.model_copy(update={"retries": 0}))
    assert len(parts(patient)) == 1
    origin.files[URI] = (OTHER, '"two"')
    origin.script = [word]
    assert content(origin, patient) == OTHER
    assert origin.asked[1].range == f"bytes={HALF}-"


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_without_a_strong_tag_nothing_is_resumed(origin: Origin, patient: Settings, tag: str | None) -> None:
    origin.files[URI] = (BODY, tag)
    origin.script = [f"cut {HALF}"]
    assert content(origin, patient) == BODY
    assert [one.range for one in origin.asked] == [None, None]


def test_a_whole_part_is_of_the_version_there_is(origin: Origin, patient: Settings) -> None:
    """Killed between the last byte and the name: the last byte says whether the file is still that."""
    path = get(origin, patient)[0]
    for body, tag in ((BODY, '"one"'), (OTHER, '"two"')):
        part = path.rename(path.with_name(f"{NAME}.part"))
        Path(f"{part}.json").write_text(json.dumps({"validator": '"one"', "size": len(BODY)}))
        origin.files[URI] = (body, tag)
        origin.asked = []
        assert content(origin, patient) == body
        assert origin.asked[0].range == f"bytes={len(BODY) - 1}-"
        assert origin.sent == (1 if body is BODY else len(OTHER))


@pytest.mark.parametrize("note", ["", "[]", "{", '{"validator": 1, "size": "x"}', '{"validator": "a", "size": 0}'])
def test_a_part_of_nobody_knows_what_is_thrown_away(origin: Origin, patient: Settings, note: str) -> None:
    path = get(origin, patient)[0]
    path.unlink()
    Path(f"{path}.part").write_bytes(b"x" * 1000)
    Path(f"{path}.part.json").write_text(note)
    assert content(origin, patient) == BODY


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after_s("7") == 7.0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert (retry_after_s("Wed, 21 Oct 2099 07:28:00 GMT") or 0.0) > 1e9
    assert [retry_after_s(text) for text in ("", "soon", "-1")] == [None] * 3


@pytest.mark.parametrize(
    ("script", "message", "transient"),
    [
        (["404"], "HTTP 404", False),
        (["401"], "HTTP 401", False),
        (["503"] * 2, "HTTP 503", True),
        (["429"] * 2, "HTTP 429", True),
        (["hang 0"] * 2, "no answer for 0.5 s", True),
        (["page"] * 2, "what came is not the file", True),
        ([f"short {HALF}"] * 2, "what came is not the file: .*cut short", True),
        (["reset 10"] * 2, "the connection failed", True),
    ],
)
def test_what_does_not_pass_is_told_and_leaves_no_file(
    origin: Origin, patient: Settings, script: list[str], message: str, transient: bool
) -> None:
    origin.script, origin.retry_after = [*script], "0"
    with pytest.raises(ArchiveError, match=message) as caught:
        get(origin, patient.model_copy(update={"retries": 1}))
    error = caught.value
    assert (error.transient, error.archive) == (transient, "mast")
    assert NAME in error.endpoint
    assert ("LIGHTLAKE_ENDPOINTS__MAST" in str(error)) is not transient
    assert kept(patient) == []
    assert origin.script == []


def test_the_wait_that_a_server_asks_for_is_kept(origin: Origin, patient: Settings) -> None:
    origin.script, origin.retry_after = ["429"], "120"
    with pytest.raises(ArchiveError) as caught:
        get(origin, patient.model_copy(update={"retries": 0}))
    assert caught.value.retry_after_s == 120.0


def test_the_first_failure_in_order_is_raised_and_the_rest_stays(origin: Origin, patient: Settings) -> None:
    files = many(origin, 12)
    del origin.files[files[2].uri]
    with Files(origin.url, patient) as service:
        fetched = service.fetch(files)
        assert [next(fetched)[0], next(fetched)[0]] == files[:2]
        with pytest.raises(ArchiveError, match="HTTP 404"):
            next(fetched)
    assert {files[0].name, files[1].name} <= set(kept(patient))
    del files[2]
    assert [path.name for path in get(origin, patient, *files)] == [one.name for one in files]


def test_what_fails_for_good_does_not_wait_for_what_may_pass(origin: Origin, patient: Settings) -> None:
    files = many(origin, 4)
    origin.script = ["503"] * 4
    slow = patient.model_copy(update={"retry_delay_s": 2.0})
    missing = Found("mast:", NAME, found().named)
    with pytest.raises(ArchiveError, match="is no name of a file"), Files(origin.url, slow) as service:
        list(service.fetch([missing, *files]))
    # Nobody woke up to ask again.
    assert len(origin.asked) <= len(files)


def test_who_does_not_want_the_rest_does_not_get_it(origin: Origin, patient: Settings) -> None:
    files = many(origin, 60)
    with Files(origin.url, patient) as service:
        fetched = service.fetch(files)
        next(fetched)
        fetched.close()
        assert len(origin.asked) < 20
        assert [one for one, _ in service.fetch(files)] == files


def test_a_damaged_file_in_the_cache_is_fetched_again(
    origin: Origin, patient: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    path = get(origin, patient)[0]
    note = Path(f"{path}.json")
    flipped = bytearray(BODY)
    flipped[HALF] ^= 1
    for damage in (
        lambda: path.write_bytes(flipped),
        lambda: path.write_bytes(BODY[:-1]),
        lambda: path.write_bytes(b""),
        lambda: note.write_text("{"),
        lambda: note.write_text("[]"),
    ):
        damage()
        origin.asked = []
        caplog.clear()
        assert content(origin, patient) == BODY
        assert len(origin.asked) == 1
        assert [record.levelno for record in caplog.records if "is damaged in the cache" in record.message] == [
            logging.WARNING
        ]
    for gone in (path, note):
        gone.unlink()
        assert content(origin, patient) == BODY


def test_a_file_that_has_another_size_by_now_is_fetched_again(
    origin: Origin, patient: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    get(origin, patient)
    longer = product("kepler", n=1600)
    origin.files[URI] = (longer, '"two"')
    assert content(origin, patient) == BODY
    assert content(origin, patient, found(size=None)) == BODY
    assert content(origin, patient, found(size=len(longer))) == longer
    assert f"has {len(longer)} bytes by now, and not {len(BODY)}" in caplog.text


def test_a_size_that_is_not_true_is_no_reason_to_fetch_for_ever(
    origin: Origin, patient: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert content(origin, patient, found(size=17)) == BODY
    assert len(origin.asked) == 1
    assert f"has {len(BODY)} bytes, and not 17" in caplog.text


def test_a_file_that_the_archive_has_cut_short_is_passed_on(origin: Origin, patient: Settings) -> None:
    """Of that its reader says what is wrong with it."""
    origin.files[URI] = (BODY[:-3000], '"broken"')
    assert content(origin, patient, found(size=len(BODY) - 3000)) == BODY[:-3000]


@pytest.mark.parametrize("uri", ["mast:../../etc/x/", "mast:", "mast:a/./b/", "/..", "mast:a\\..\\b/"])
def test_a_name_does_not_lead_out_of_the_cache(origin: Origin, patient: Settings, uri: str) -> None:
    where = uri + NAME if uri != "/.." else uri
    with pytest.raises(ArchiveError, match="is no name of a file"):
        get(origin, patient, Found("mast:" if uri == "mast:" else where, NAME, found().named))
    assert origin.asked == []


CHILD = """
import sys
from lake.settings import load_settings
from tasks.sources.tess_kepler.mast_files import Files, Found
from tasks.sources.tess_kepler.mast_products import named
url, cache, retries, *uris = sys.argv[1:]
settings = load_settings(cache_dir=cache, retry_delay_s=0.0, retries=int(retries))
with Files(url, settings) as files:
    for found, path in files.fetch([Found(uri, uri.rsplit("/", 1)[-1], named(uri)) for uri in uris]):
        print(path)
"""


def child(origin: Origin, settings: Settings, *uris: str, retries: int = 0, before: str = "") -> subprocess.Popen[str]:
    arguments = [origin.url, str(settings.cache_dir), str(retries), *uris]
    root = str(Path(__file__).parents[5])
    return subprocess.Popen(
        [sys.executable, "-c", before + CHILD, *arguments],
        cwd=root,
        env=child_environment(PYTHONPATH=root),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_after_a_kill_only_the_rest_is_transferred(origin: Origin, patient: Settings) -> None:
    origin.script = ["hang 3000"]
    with child(origin, patient, URI) as process:
        patience = time.monotonic() + 60
        while not (parts(patient) and parts(patient)[0].stat().st_size == 3000):
            assert process.poll() is None, process.stderr
            assert time.monotonic() < patience
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert kept(patient) == []
    origin.asked = []
    assert content(origin, patient) == BODY
    assert [(one.range, one.status, one.sent) for one in origin.asked] == [("bytes=3000-", 206, len(BODY) - 3000)]


def test_processes_that_want_the_same_files_both_get_them(origin: Origin, patient: Settings) -> None:
    files = many(origin, 12)
    origin.script = ["cut 100"] * 3
    uris = [one.uri for one in files]
    processes = [child(origin, patient, *uris, retries=3) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in processes]
    assert [(process.returncode, error) for process, (_, error) in zip(processes, said, strict=True)] == [(0, "")] * 2
    assert said[0] == said[1]
    paths = [Path(line) for line in said[0][0].splitlines()]
    assert [path.read_bytes() for path in paths] == [origin.files[uri][0] for uri in uris]
    # Each byte was transferred once.
    assert {uri: sum(one.sent for one in origin.asked if one.uri == uri) for uri in uris} == {
        one.uri: one.size for one in files
    }


def test_a_lock_that_is_held_is_not_waited_for_for_ever(origin: Origin, patient: Settings) -> None:
    get(origin, patient)
    (lock,) = (patient.cache_dir / "mast").rglob(".locks/*.lock")
    with filelock.FileLock(lock):
        # What is in the cache needs none.
        assert content(origin, patient) == BODY
        hurried = patient.model_copy(update={"task_timeout_s": 0.1, "retries": 0})
        with pytest.raises(ArchiveError, match=r"another process has been fetching it for 0\.1 s") as caught:
            get(origin, hurried, found(size=1))
    assert caught.value.transient


def test_a_disk_without_room_is_told_and_leaves_no_half_file(origin: Origin, patient: Settings) -> None:
    """No file of the child's may grow beyond half of it: what a write then fails with is an OSError of the kernel."""
    limit = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({HALF}, {resource.RLIM_INFINITY}))
"""
    process = child(origin, patient, URI, before=limit)
    _, error = process.communicate(timeout=60)
    last = error.strip().splitlines()[-1]
    assert process.returncode == 1
    assert "ArchiveError: mast: the cache cannot be used: File too large" in last
    assert "make room there, or set LIGHTLAKE_CACHE_DIR" in last
    assert kept(patient) == []
    # With room again, it goes on.
    origin.asked = []
    assert content(origin, patient) == BODY
    assert origin.sent == len(BODY) - HALF


def test_a_cache_that_cannot_be_written_is_told(origin: Origin, patient: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ArchiveError, match=r"the cache cannot be used: .*LIGHTLAKE_CACHE_DIR") as caught:
        get(origin, patient.model_copy(update={"cache_dir": tmp_path / "file" / "cache"}))
    assert not caught.value.transient


WORDS = st.one_of(
    st.builds("{} {}".format, st.sampled_from(["reset", "cut", "endless", "short"]), st.integers(0, len(BODY) - 1)),
    st.sampled_from(["whole", "shifted", "page", "chunked", "503", "429", "glue", ""]),
)


@given(script=st.lists(WORDS, max_size=6), retries=st.integers(0, 2), changes=st.integers(0, 6))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_sequence_of_interruptions_gives_the_same_bytes(
    origin: Origin, tmp_path_factory: pytest.TempPathFactory, script: list[str], retries: int, changes: int
) -> None:
    """Whatever happens, and whenever the file becomes another: the last that is there, and never a mixture."""
    cache = tmp_path_factory.mktemp("cache")
    settings = load_settings(cache_dir=cache, retries=retries, retry_delay_s=0.0, timeout_s=5.0)
    origin.script, origin.files[URI] = [*script], (BODY, '"one"')
    for turn in range(len(script) + 1):
        if turn == changes:
            origin.files[URI] = (OTHER, '"two"')
        try:
            path = get(origin, settings)[0]
        except ArchiveError as error:
            failed = error
        else:
            assert path.read_bytes() in (BODY, OTHER)
            break
        assert failed.transient
        assert kept(settings) == []
    else:
        raise AssertionError("it never came")
    origin.script = []
