"""Answers without end, bombs and drips: each is given up early, by an error that names its setting."""

from __future__ import annotations

import gzip
import io
import json
import socket
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.processes import child_environment
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import ArchiveError, ConfigurationError, GranuleRejected, LightlakeError
from lake.settings import Settings, load_settings
from lake.settings import settings as settings_of_process
from tasks.doctor import Endpoint, look
from tasks.samples import tables as target_tables
from tasks.services.bounds import Budget, gunzipped, in_memory, in_time, open_zip, parsed_json, parsed_votable
from tasks.services.download import download
from tasks.services.fits import read_tables, unpacked
from tasks.services.http import Session, failing
from tasks.services.store import open_store
from tasks.services.tap import Service, to_votable
from tasks.sources.gaia import epochs as gaia_epochs
from tasks.sources.hcv.pages import parse as parse_hcv
from tasks.sources.icecube import archive as icecube

MB = 1_000_000
ZEROS = gzip.compress(bytes(4 * MB))
HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"

Pieces = Callable[[], Iterator[bytes]]


class Server:
    """A server on loopback that answers each request with pieces, `pause` s between them, for as long as it may."""

    def __init__(self) -> None:
        self.pieces: Pieces = lambda: iter(())
        self.pause, self.sent, self.asked = 0.0, 0, 0
        self._closing = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        while not self._closing.is_set():
            connection, _ = self._socket.accept()
            self._threads.append(threading.Thread(target=self._answer, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if not connection.recv(65536):
                return
            self.asked += 1
            for piece in self.pieces():
                connection.sendall(piece)
                self.sent += len(piece)
                if self._closing.wait(self.pause):
                    return

    def close(self) -> None:
        self._closing.set()
        with suppress(OSError), socket.create_connection(self._socket.getsockname(), 1):
            pass
        for thread in self._threads:
            thread.join(5)
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def small(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """At most 1 MB, and a fifth of a second."""
    for name, value in (("MAX_ANSWER_MB", "1"), ("MAX_FILE_GB", "0.001"), ("TASK_TIMEOUT_S", "0.2")):
        monkeypatch.setenv(f"LIGHTLAKE_{name}", value)
    settings_of_process.cache_clear()
    yield settings.model_copy(
        update={"max_answer_mb": 1.0, "max_file_gb": 0.001, "task_timeout_s": 0.2, "timeout_s": 5.0, "retries": 0}
    )
    settings_of_process.cache_clear()


def tap(server: Server, settings: Settings, folder: Path) -> object:
    service = Service("someone", f"{server.url}/tap", settings.timeout_s, settings.task_timeout_s)
    return service.query("SELECT 1", maxrec=10)


def post(server: Server, settings: Settings, folder: Path) -> object:
    with Session("someone", server.url, settings.timeout_s, settings.task_timeout_s) as session:
        return session.post(server.url, data={"ID": "1"}).content


def listing(server: Server, settings: Settings, folder: Path) -> object:
    with closing(open_store(server.url, "someone", settings, web_connections=1)) as store:
        return store.files("stdprod")


def to_cache(server: Server, settings: Settings, folder: Path) -> object:
    return download(f"{server.url}/a.zip", "someone", settings, check=lambda path: None)


ASK = [tap, post, listing, to_cache]

ENDLESS: dict[str, Pieces] = {
    "a body": lambda: chain([HEADER, b"\r\n<VOTABLE>"], repeat(b"<TR><TD>1</TD></TR>" * 1000)),
    "chunks": lambda: chain(
        [HEADER, b"Transfer-Encoding: chunked\r\n\r\n"], repeat(b"fa0\r\n" + b"1" * 4000 + b"\r\n")
    ),
    "a header": lambda: chain([HEADER], (b"X-%d: %s\r\n" % (n, b"x" * 60_000) for n in count())),
    "a line of a header": lambda: chain([HEADER, b"X: "], repeat(b"x" * 10_000)),
    "bodies of redirects": lambda: chain(
        [b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Encoding: gzip\r\n\r\n"], repeat(ZEROS)
    ),
}


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("what", ENDLESS)
def test_an_answer_without_end_is_given_up(
    server: Server, small: Settings, tmp_path: Path, ask: Any, what: str
) -> None:
    server.pieces = ENDLESS[what]
    with pytest.raises(ArchiveError) as caught:
        ask(server, small.model_copy(update={"task_timeout_s": 60.0}), tmp_path)
    assert server.url in str(caught.value)
    if what in ("a body", "chunks"):
        assert "LIGHTLAKE_MAX_" in str(caught.value)
        assert not caught.value.transient
    # What the kernel's buffers hold has been sent, too; each of requests' 30 redirects may have some.
    assert server.sent < 10 * MB * max(1, server.asked)


DRIPS: dict[str, Pieces] = {
    "the body": lambda: chain([HEADER + b"Content-Length: 100000\r\n\r\n"], repeat(b" ")),
    "the header": lambda: chain([HEADER + b"X-Slow: "], repeat(b"x")),
    "the first line": lambda: chain(repeat(b"H", 1), repeat(b"T")),
    "empty chunks": lambda: chain([HEADER + b"Transfer-Encoding: chunked\r\n\r\n"], repeat(b"1\r\n \r\n")),
    "lines before the answer": lambda: repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("what", DRIPS)
def test_a_drip_is_left_when_the_time_is_over(
    server: Server, small: Settings, tmp_path: Path, ask: Any, what: str
) -> None:
    server.pieces, server.pause = DRIPS[what], 0.02
    with pytest.raises(ArchiveError, match=r"still not through after 0\.2 s \(LIGHTLAKE_TASK_TIMEOUT_S\)") as caught:
        ask(server, small, tmp_path)
    assert caught.value.transient
    # Of a drip that lasts an hour and more.
    assert server.sent < 2000


@pytest.mark.parametrize("ask", ASK)
def test_a_packed_body_is_unpacked_no_further_than_it_may(
    server: Server, small: Settings, tmp_path: Path, ask: Any
) -> None:
    server.pieces = lambda: iter([HEADER + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(ZEROS), ZEROS])
    with pytest.raises(ArchiveError, match="once unpacked, is larger than LIGHTLAKE_MAX_") as caught:
        ask(server, small.model_copy(update={"task_timeout_s": 60.0}), tmp_path)
    assert not caught.value.transient
    assert not [path for path in small.cache_dir.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_what_says_that_it_is_too_large_is_not_read(server: Server, small: Settings, tmp_path: Path) -> None:
    for ask in ASK:
        server.sent = 0
        server.pieces = lambda: chain([HEADER + b"Content-Length: 5000000000000\r\n\r\n"], repeat(bytes(1000)))
        with pytest.raises(ArchiveError, match="says that it has 5,000,000 MB, and LIGHTLAKE_MAX_"):
            ask(server, small, tmp_path)


def test_doctor_waits_for_no_drip(server: Server) -> None:
    server.pieces, server.pause = DRIPS["the header"], 0.02
    (answer,) = look([Endpoint("sky", server.url, None, True)], 0.2)
    assert (answer.check.status, "no answer for" in answer.check.found) == ("fail", True)
    assert server.sent < 2000


def rows_without_bytes() -> bytes:
    cards = [
        "XTENSION= 'BINTABLE'",
        "BITPIX  = 8",
        "NAXIS   = 2",
        "NAXIS1  = 0",
        "NAXIS2  = 1000000000000",
        "PCOUNT  = 0",
        "GCOUNT  = 1",
        "TFIELDS = 1",
        "TTYPE1  = 'TIME'",
        "TFORM1  = '0D'",
    ]
    parts = [["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0"], cards]
    return b"".join("".join(f"{card:80}" for card in [*part, "END"]).ljust(2880).encode() for part in parts)


def test_rows_that_have_no_bytes_are_none() -> None:
    (table,) = read_tables(rows_without_bytes())
    with pytest.raises(GranuleRejected, match="rows of 0 bytes"):
        table.column("TIME")


def budget(most: int = MB, **more: Any) -> Budget:
    return Budget(failing("someone", "somewhere", "look there"), most, "LIGHTLAKE_MAX_ANSWER_MB=1", **more)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(0, 800))
def test_gzip_gives_all_or_an_error(parts: list[bytes], most: int) -> None:
    packed, whole = b"".join(map(gzip.compress, parts)), b"".join(parts)
    if len(whole) <= most:
        assert gunzipped(packed, budget(most)) == whole == gzip.decompress(packed)
    else:
        with pytest.raises(ArchiveError, match="once unpacked, is larger than LIGHTLAKE_MAX_ANSWER_MB=1 allows"):
            gunzipped(packed, budget(most))
    with pytest.raises((EOFError, OSError, zlib.error)):
        gunzipped(packed[:-1], budget(1000))


def zipped(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def test_zips_are_unpacked_no_further_than_they_may(small: Settings, tmp_path: Path) -> None:
    bomb = zipped(a=bytes(4 * MB))
    # One that says that it is small, and many that are small each.
    liar = bomb.replace((4 * MB).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    for body in (bomb, liar, zipped(**{f"{n}": bytes(MB // 2) for n in range(3)})):
        with open_zip(io.BytesIO(body), budget()) as opened, pytest.raises((ArchiveError, zipfile.BadZipFile)):
            list(map(opened.read, opened.names))
    with pytest.raises(ArchiveError, match="LIGHTLAKE_MAX_ANSWER_MB=1"):
        gaia_epochs.read(bomb, [1], budget())
    release = tmp_path / "release.zip"
    release.write_bytes(zipped(**{f"{icecube.FOLDER}/events/IC40_exp.csv": bytes(4 * MB)}))
    with pytest.raises(ArchiveError, match="LIGHTLAKE_MAX_ANSWER_MB=1") as caught:
        icecube._events(str(release), ("IC40",), small)
    assert (caught.value.archive, caught.value.endpoint) == ("icecube", str(release))
    with pytest.raises(ArchiveError, match="LIGHTLAKE_MAX_FILE_GB"):
        icecube._check_zip(release)
    members = bytearray(zipped(a=b""))
    members[-10:-6] = (2**31).to_bytes(4, "little")
    with pytest.raises(zipfile.BadZipFile, match="members"), open_zip(io.BytesIO(bytes(members)), budget()):
        pass


def test_files_are_unpacked_no_further_than_they_may(small: Settings, tmp_path: Path) -> None:
    for name in ("a.lc.gz", "a.csv.gz"):
        (tmp_path / name).write_bytes(ZEROS)
    for data in (ZEROS, tmp_path / "a.lc.gz"):
        with pytest.raises(GranuleRejected, match="LIGHTLAKE_MAX_ANSWER_MB=1"):
            unpacked(data)
    with pytest.raises(ConfigurationError, match=r"a\.csv\.gz: .* LIGHTLAKE_MAX_ANSWER_MB=1"):
        target_tables.read_tables(tmp_path / "a.csv.gz")
    (tmp_path / "large").write_bytes(bytes(2 * MB))
    with pytest.raises(ArchiveError, match="LIGHTLAKE_MAX_ANSWER_MB=1") as caught:
        open_store(str(tmp_path), "someone", small).read("large")
    assert caught.value.endpoint == str(tmp_path / "large")


TABLE = "<VOTABLE version='1.3'><RESOURCE><TABLE {table}>{fields}<DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>"
ONE = "<FIELD name='a' datatype='double'/>"
ROWS = "<TABLEDATA>" + "<TR><TD>1</TD></TR>" * 3000 + "</TABLEDATA>"


@pytest.mark.parametrize(
    ("told", "table", "fields", "data"),
    [
        ("in memory", "nrows='1000000000000'", ONE, ROWS),
        ("in memory", "", "<FIELD name='a' datatype='double' arraysize='100x1000'/>", "<TABLEDATA/>"),
        ("in memory", "", "<FIELD name='a' datatype='char' arraysize='1&#48;00'/>", ROWS),
        ("in memory", "", "<FIELD name='a' datatype='int' arraysize='*'/>", ROWS.replace("3000", "1") * 3),
        ("in memory", "", "", "<BINARY><STREAM encoding='base64'>AAAA</STREAM></BINARY>"),
        ("in memory", "", ONE + "<INFO name='a' value='b'/>" * 10_000, ROWS),
        ("elsewhere", "", ONE, "<FITS><STREAM type='>' href='file:///etc/passwd'/></FITS>"),
        ("elsewhere", "", ONE, "<BINARY2><STREAM href='http://127.0.0.1:9/' encoding='base64'/></BINARY2>"),
    ],
)
def test_a_votable_that_would_not_fit_or_refers_elsewhere_is_not_parsed(
    told: str, table: str, fields: str, data: str
) -> None:
    body = TABLE.format(table=table, fields=fields, data=data)
    for text in (body, body.replace("<", "<v:").replace("<v:/", "</v:")):
        with pytest.raises((ArchiveError, ValueError), match=told):
            parsed_votable(text.encode(), budget(MB // 4))


def test_a_votable_is_what_it_says_it_is() -> None:
    good = to_votable(pa.table({"a": np.arange(1000.0), "b": ["x"] * 1000}))
    for body in (good, gzip.compress(good), b"\xef\xbb\xbf" + good):
        assert len(parsed_votable(body, budget()).get_first_table().array) == 1000
    defined = b'<?xml version="1.0"?><!DOCTYPE VOTABLE [<!ENTITY a "b">]><VOTABLE/>'
    for body in (good.decode().encode("utf-16"), defined, b"BZh9" + good, b"PK", b""):
        with pytest.raises(ValueError, match=r"it is no XML|it defines entities"):
            parsed_votable(body, budget())
    with pytest.raises(ArchiveError, match="once unpacked"):
        parsed_votable(ZEROS, budget())


def test_json_that_is_deep_or_takes_more_memory_than_it_has_bytes() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parsed_json(b"[" * 50_000 + b"]" * 50_000, budget(10 * MB))
    with pytest.raises(ArchiveError, match=r"nested|no JSON"):
        parse_hcv(b"[" * 50_000, "somewhere")
    with pytest.raises(ArchiveError, match=r"in memory, says that it has .* LIGHTLAKE_MAX_ANSWER_MB=1"):
        parsed_json(b"[" + b"[]," * 300_000 + b"1]", budget())
    assert parsed_json(json.dumps({"data": [[1, 2]]}).encode(), budget()) == {"data": [[1, 2]]}


def test_parquet_that_says_that_it_is_too_large(small: Settings, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"ra": np.zeros(1_000_000), "n": np.zeros(1_000_000)}), tmp_path / "a.parquet", use_dictionary=False
    )
    assert (tmp_path / "a.parquet").stat().st_size < MB
    store = open_store(str(tmp_path), "someone", small)
    with store.parquet("a.parquet") as file:
        # A megabyte is the most, and this is ten times as much, packed.
        with pytest.raises(ArchiveError, match=r"row group 0 says .* LIGHTLAKE_MAX_FILE_GB=0\.001") as caught:
            store.check_group("a.parquet", file, 0, ["ra"])
        store.check_group("a.parquet", file, 0, [])
    assert caught.value.endpoint == str(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1" + bytes(20 * MB) + (2**30).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ArchiveError, match="LIGHTLAKE_MAX_FILE_GB"), store.parquet("b.parquet"):
        pass
    roomy = open_store(str(tmp_path), "someone", small.model_copy(update={"max_file_gb": 1.0}))
    told = r"metadata, in memory, says .* LIGHTLAKE_MAX_ANSWER_MB"
    with pytest.raises(ArchiveError, match=told), roomy.parquet("b.parquet"):
        pass


def test_a_drip_from_s3_is_left_when_the_time_is_over(
    server: Server, small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    server.pieces, server.pause = DRIPS["the body"], 0.05
    left: list[threading.Thread] = []
    monkeypatch.setattr("tasks.services.bounds.leave_behind", left.append)
    store = open_store("s3://bucket/there", "someone", small)
    with pytest.raises(ArchiveError, match=r"still not through after 0\.2 s \(LIGHTLAKE_TASK_TIMEOUT_S\)") as caught:
        store.files()
    assert caught.value.transient
    assert server.sent < 2000
    assert len(left) == 1, "and the process ends without it: see the next"


LEAVING = """
import sys
from lake.errors import LightlakeError
from lake.settings import load_settings
from tasks.services.store import open_store
try:
    open_store("s3://bucket/there", "someone", load_settings()).files()
except LightlakeError as error:
    sys.stdout.write(str(error))
"""


def test_a_drip_from_s3_does_not_keep_the_process(server: Server) -> None:
    server.pieces, server.pause = DRIPS["the body"], 0.2
    here = {"AWS_ENDPOINT_URL": server.url, "LIGHTLAKE_TASK_TIMEOUT_S": "0.2"}
    done = subprocess.run(
        [sys.executable, "-c", LEAVING],
        env=child_environment(**here),
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert "still not through after 0.2 s" in done.stdout


def test_what_is_left_behind_is_no_ones_failure() -> None:
    now = [0.0]
    limited = budget(seconds=10.0, clock=lambda: now[0])
    assert in_time(lambda: 1, limited) == 1
    with pytest.raises(ZeroDivisionError):
        in_time(lambda: 1 / 0, limited)
    now[0] = 9.99
    ended = threading.Event()
    with pytest.raises(LightlakeError, match="still not through after 10 s"):
        in_time(lambda: ended.wait(60), limited)
    ended.set()
    now[0] = 10.0
    for late in (lambda: limited.took(0), limited.check_time, lambda: in_time(lambda: 1, limited)):
        with pytest.raises(LightlakeError, match="still not through"):
            late()


def test_defaults_leave_room_for_what_archives_send_on_a_machine_of_4_gb() -> None:
    largest = in_memory(failing("someone", "somewhere", ""), load_settings())
    # A million rows of VIRAC's light curves, as a VOTable.
    assert 300 * MB < largest.most < 1000 * MB
