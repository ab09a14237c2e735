"""Loopback HTTP server of the sandbox: mounted files and handlers, and faults on demand."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from email.message import Message
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

logger = logging.getLogger(__name__)

ARCHIVES = (
    "icecube", "gaia", "heasarc", "ztf", "wise", "panstarrs", "hcv", "hst", "tess_kepler", "sesame",
    "ned", "vizier", "sdss", "alerce",
)  # fmt: skip
"""Archives and services with a stand-in: each is a module here, whose function ``mount`` returns the endpoint."""

SURVEYS = ("rxte",)
"""Those that are served only if they are named, after the others."""

_BODY_FAULTS = {"reset", "truncate", "short", "garbage", "slow", "endless"}
_MAINTENANCE = b"""<!DOCTYPE html><html><head><title>Scheduled maintenance</title></head>
<body><h1>We will be back soon</h1><p>The archive is down for maintenance.</p></body></html>\n"""


class Seen(NamedTuple):
    """A request as logged; the status is 0 where no answer was sent."""

    method: str
    path: str
    status: int


@dataclass(frozen=True)
class Request:
    """A request as a mounted handler receives it; `path` is decoded and without the query."""

    method: str
    path: str
    query: str
    headers: Message[str, str]
    body: bytes

    def form(self) -> tuple[dict[str, str], dict[str, bytes]]:
        """Parameters by upper-case name, those given more than once joined by semicolons, and files by part name."""
        pairs, files = parse_qsl(self.query, keep_blank_values=True), {}
        kind = self.headers.get("Content-Type", "")
        if mark := re.search(r'^multipart/form-data;.*boundary="?([^";]+)', kind):
            for part in (b"\r\n" + self.body).split(b"\r\n--" + mark[1].encode())[1:]:
                head, _, content = part.partition(b"\r\n\r\n")
                if named := re.search(rb'[; ]name="([^"]*)"', head):
                    if b"filename=" in head:
                        files[named[1].decode()] = content
                    else:
                        pairs.append((named[1].decode(), content.decode()))
        elif kind.startswith("application/x-www-form-urlencoded"):
            pairs += parse_qsl(self.body.decode(), keep_blank_values=True)
        params: dict[str, str] = {}
        for name, value in pairs:
            params[name.upper()] = f"{params[name.upper()]};{value}" if name.upper() in params else value
        return params, files


@dataclass(frozen=True)
class Response:
    """The answer of a mounted handler. A `Path` is served with validators and byte ranges."""

    body: bytes | Path = b""
    status: int = 200
    content_type: str = "application/octet-stream"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Response]


class Sandbox:
    """Archive stand-ins on a free port of 127.0.0.1, from construction until `close` or the end of ``with``.

    Attributes
    ----------
    endpoints : dict[str, str]
        Endpoint URL of each archive mounted, by the archive's name.
    services : dict[str, Any]
        Services mounted that have faults or settings of their own, by the same names; each has a `close`.
    requests : list[Seen]
        Every request so far: method, path with query as sent, status.
    sent : int
        Bytes of the answers' bodies so far.
    drip : tuple[int, float]
        Bytes and seconds between them of a 'slow' answer.
    wait_s : float
        Seconds before each answer.
    """

    def __init__(self) -> None:
        self.endpoints: dict[str, str] = {}
        self.services: dict[str, Any] = {}
        self.requests: list[Seen] = []
        self.sent = 0
        self.drip = (1024, 0.1)
        self.wait_s = 0.0
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._handlers: dict[str, Handler] = {}
        self._faults: list[tuple[str, str]] = []
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @classmethod
    def start(
        cls,
        root: Path,
        *,
        archives: Sequence[str] = ARCHIVES,
        seed: int = 20210126,
        scale: float = 0.1,
        targets: Sequence[tuple[float, float]] = (),
    ) -> Self:
        """Serve stand-ins of `archives`, with data under `root` that is generated unless it is there.

        Parameters
        ----------
        root
            Folder of the generated data. The same arguments find it again.
        archives, seed, scale
            Names out of `ARCHIVES` and `SURVEYS`, seed of everything random, size relative to the real archives.
        targets
            Positions (right ascension, declination, deg) at which every archive should have something.
        """
        known = (*ARCHIVES, *SURVEYS)
        if unknown := set(archives) - set(known):
            raise ValueError(f"no stand-in for {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        with ExitStack() as undo:
            box = cls()
            undo.enter_context(box)  # closes it if making the data fails
            for name in sorted(archives, key=known.index):
                mount: Callable[..., str] = import_module(f"deployments.sandbox.{name}").mount
                box.endpoints[name] = mount(box, root, seed=seed, scale=scale, targets=targets)
            undo.pop_all()
        return box

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving and drop every connection, hanging ones included. Doing it twice is harmless."""
        if not self.closing.is_set():
            self.closing.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            for service in self.services.values():
                service.close()
            self._server.drop_connections()

    def url(self, path: str = "/") -> str:
        """Full URL of a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{path.lstrip('/')}"

    def mount_file(self, url_path: str, file: Path) -> None:
        """Serve a file at exactly `url_path`, for as long as it exists."""
        self.mount(url_path, lambda asked: _file_or_404(file if asked.path == url_path else None))

    def mount(self, url_prefix: str, handler: Handler) -> None:
        """Let `handler` answer `url_prefix` and all paths below it; the longest prefix wins."""
        self._handlers[url_prefix.rstrip("/")] = handler

    def fault(self, url_path: str, kind: str, times: int = 1) -> None:
        """Spoil the next `times` answers at `url_path` or below it; the faults of a path take turns.

        Kinds: 'hang' (no answer until either side closes), 'reset' (RST in mid-body), 'truncate' (half the
        body, Content-Length says all), 'short' (half, and Content-Length agrees), 'garbage' (a maintenance
        page), 'slow' (see `drip`), 'endless' (blanks until either side closes), 'status:<code>'. HEAD meets
        'hang' and 'status' only.
        """
        if kind not in _BODY_FAULTS and not re.fullmatch(r"hang|status:[2-5]\d\d", kind):
            raise ValueError(f"unknown fault {kind!r}")
        with self._lock:
            self._faults += [(url_path, kind)] * times

    def clear_faults(self) -> None:
        """Forget the faults that no answer has met."""
        with self._lock:
            self._faults.clear()

    def cached(self, file: Path, key: Mapping[str, object], make: Callable[[], object]) -> None:
        """Call `make` to write `file`, unless the stamp beside it says it was made with the same `key`."""
        stamp = file.with_name(f"{file.name}.stamp.json")
        text = json.dumps(key)
        if not (file.is_file() and stamp.is_file() and stamp.read_text() == text):
            stamp.unlink(missing_ok=True)
            make()
            stamp.write_text(text)

    def _take_fault(self, method: str, path: str) -> str | None:
        with self._lock:
            for index, (where, kind) in enumerate(self._faults):
                if _below(path, where) and not (method == "HEAD" and kind in _BODY_FAULTS):
                    return self._faults.pop(index)[1]
        return None

    def prefix_of(self, path: str) -> str | None:
        """Return the mounted prefix that answers a path; None if nothing does."""
        return max((p for p in self._handlers if _below(path, p)), key=len, default=None)

    def _answer(self, request: Request) -> Response:
        prefix = self.prefix_of(request.path)
        return _file_or_404(None) if prefix is None else self._handlers[prefix](request)


def _below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")


def _file_or_404(file: Path | None) -> Response:
    return Response(file) if file and file.is_file() else Response(b"not found\n", 404, "text/plain")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.live: dict[socket.socket, threading.Thread] = {}
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        work = self.process_request_thread
        thread = threading.Thread(target=work, args=(request, client_address), daemon=True)
        self.live[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER):
            request.close()  # an RST, if no shutdown sends a FIN before
        else:
            super().shutdown_request(request)
        self.live.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        level = logging.DEBUG if isinstance(sys.exception(), OSError) else logging.ERROR
        logger.log(level, "connection from %s failed", client_address, exc_info=True)

    def drop_connections(self) -> None:
        for connection, thread in list(self.live.items()):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        logger.debug(format, *args)

    def _serve(self) -> None:
        box = self.server.box
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        request = Request(self.command, unquote(url.path), url.query, self.headers, body)
        if box.wait_s:
            box.closing.wait(box.wait_s)
        kind = box._take_fault(request.method, request.path)
        if kind == "hang":
            box.requests.append(Seen(self.command, self.path, 0))
            while self.connection.recv(65536):
                pass
            raise ConnectionAbortedError("hung until now")
        response = Response(_MAINTENANCE, content_type="text/html; charset=utf-8")
        if kind is not None and kind.startswith("status:"):
            wait = {"Retry-After": "1"} if kind == "status:429" else {}
            response = Response(kind.encode(), int(kind[7:]), "text/plain", wait)
        elif kind != "garbage":
            response = box._answer(request)
        self._send(response, kind)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _send(self, response: Response, kind: str | None) -> None:
        body, status, headers = response.body, response.status, dict(response.headers)
        size = (body.stat().st_size if isinstance(body, Path) else len(body)) // (2 if kind == "short" else 1)
        first, count = 0, size
        if isinstance(body, Path) and status == 200:
            stat = body.stat()
            headers |= {"ETag": f'"{stat.st_mtime_ns:x}-{size:x}"', "Accept-Ranges": "bytes"}
            headers["Last-Modified"] = formatdate(stat.st_mtime, usegmt=True)
            status, first, count = self._select(size, headers)
        self.server.box.requests.append(Seen(self.command, self.path, status))
        self.send_response(status)
        if status not in {204, 304}:
            headers["Content-Type"] = response.content_type
            headers |= {"Connection": "close"} if kind == "endless" else {"Content-Length": str(count)}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or status in {204, 304}:
            return
        if kind == "endless":
            self.close_connection = True
            while not self.server.box.closing.is_set():
                self.wfile.write(b" " * 65536)
            return
        if kind in {"reset", "truncate"}:
            self.close_connection, count = True, count // 2
        piece, pause = self.server.box.drip if kind == "slow" else (1 << 20, 0)
        whole = count
        with body.open("rb") if isinstance(body, Path) else io.BytesIO(body) as source:
            source.seek(first)
            while (chunk := source.read(min(piece, count))) and not self.server.box.closing.wait(pause):
                count -= self.wfile.write(chunk)
        with self.server.box._lock:
            self.server.box.sent += whole - count
        self.close_connection |= count > 0
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _select(self, size: int, headers: dict[str, str]) -> tuple[int, int, int]:
        """Status, first byte and number of bytes that the request's conditions and range ask for."""
        asked, validators = self.headers, {headers["ETag"], headers["Last-Modified"]}
        if asked.get("If-None-Match", asked.get("If-Modified-Since")) in validators:
            return 304, 0, 0
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.get("Range", "").strip())
        right_version = asked.get("If-Range", headers["ETag"]) in validators
        if self.command != "GET" or not match or not any(match.groups()) or not right_version:
            return 200, 0, size
        first = int(match[1]) if match[1] else max(size - int(match[2]), 0)
        last = min(int(match[2]), size - 1) if match[1] and match[2] else size - 1
        if first > last:
            headers["Content-Range"] = f"bytes */{size}"
            return 416, 0, 0
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return 206, first, last - first + 1
