"""HTTP: one client for all that is asked of archives, which holds limits of time and size at every byte.

It is requests, since pyvo asks through it. What is added is that bytes are counted, and the time is looked at, where
they leave the socket: the lines of a header, redirects, and bodies, however slowly they come.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from lake.errors import ArchiveError
from tasks.services.bounds import Budget, Failed
from tasks.services.request_counters import request_sent

TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}

OK, PARTIAL_CONTENT, NOT_FOUND, GONE, RANGE_NOT_SATISFIABLE = 200, 206, 404, 410, 416

# Bytes of a body that are taken at a time, if so many are there.
_PIECE = 1 << 16

_budget: ContextVar[Budget | None] = ContextVar("budget of the request in hand", default=None)

# Redirects and addresses that cannot be asked at all; http.client refuses some of the latter as ValueErrors.
_FINAL = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.TooManyRedirects,
    urllib3.exceptions.LocationParseError,
)


class _Counted(io.RawIOBase):
    """What comes from a socket, counted; no wait is longer than the budget has time."""

    def __init__(self, inner: io.RawIOBase, sock: socket.socket, budget: Budget) -> None:
        self._inner, self._sock, self._budget, self._timeout = inner, sock, budget, sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._budget.patience(self._timeout))
        n: int | None = self._inner.readinto(buffer)
        self._budget.took(n or 0)
        return n

    def fileno(self) -> int:
        return self._inner.fileno()

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        if (budget := _budget.get()) is not None:
            self.fp: Any = io.BufferedReader(_Counted(self.fp.detach(), sock, budget))


class _Http(HTTPConnection):  # type: ignore[misc]  # nor does urllib3
    response_class = _Response


class _Https(HTTPSConnection):  # type: ignore[misc]
    response_class = _Response


class _HttpPool(HTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Https


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


class _Adapter(HTTPAdapter):  # type: ignore[misc]  # requests comes without types
    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **more)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, *args: Any, **more: Any) -> requests.Response:
        reply: requests.Response = super().send(*args, **more)
        if reply.is_redirect:
            # requests would read, and unpack, whatever comes with it.
            if (length_of(reply) or 0) <= _PIECE and "Content-Length" in reply.headers:
                reply.raw.drain_conn()
            else:
                reply.raw.close()
            reply._content, reply._content_consumed = b"", True
        return reply


class Client(requests.Session):  # type: ignore[misc]
    """Connections to archives, which threads may share.

    Parameters
    ----------
    timeout_s
        Longest silence, s.
    connections
        That are kept open to a server.
    """

    def __init__(self, timeout_s: float, connections: int = 10) -> None:
        super().__init__()
        self.timeout_s = timeout_s
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(pool_maxsize=connections))
        self.headers["User-Agent"] = f"lightlake/{version('lightlake')} (IVOA-science)"

    def ask(self, budget: Budget, *args: Any, **more: Any) -> requests.Response:
        """Send a request, and return what comes once its header is there."""
        request_sent()
        token = _budget.set(budget)
        try:
            more = {**more, "timeout": budget.patience(self.timeout_s), "stream": True}
            reply: requests.Response = super().request(*args, **more)
        finally:
            _budget.reset(token)
        return reply

    @contextmanager
    def getting(
        self, url: str, budget: Budget, headers: Mapping[str, str] | None = None
    ) -> Iterator[requests.Response]:
        """Ask for a file, whose body is still to be read; what fails until the end is an ArchiveError."""
        with connecting(budget, self.timeout_s), self.ask(budget, "GET", url, headers=headers) as reply:
            yield reply


@contextmanager
def connecting(budget: Budget, timeout_s: float) -> Iterator[None]:
    """Let what a connection does wrong be an ArchiveError: silence and resets may pass, wrong addresses do not."""
    try:
        yield
    except _FINAL as error:
        raise budget.failed(str(error)) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
        if budget.is_over:
            raise budget.too_slow() from error
        inner = [getattr(arg, "reason", None) or arg for arg in error.args]
        if any(isinstance(reason, urllib3.exceptions.NameResolutionError) for reason in inner):
            message = "its name does not resolve: no network, or not the right endpoint"
            raise budget.failed(message, transient=True) from error
        silence = requests.Timeout | urllib3.exceptions.ReadTimeoutError | TimeoutError
        if isinstance(error, silence) or any(isinstance(reason, silence) for reason in inner):
            raise budget.failed(f"no answer for {timeout_s:g} s", transient=True) from error
        # Of a connection that was not made, what the system says is in an error in an error.
        told = str(inner[0]).partition(": ")[2] if isinstance(error, requests.ConnectionError) and inner else ""
        raise budget.failed(f"the connection failed: {told or error}", transient=True) from error


def raw_pieces(reply: requests.Response) -> Iterator[bytes]:
    """Yield a body as it comes, be it byte by byte; packed, if it is."""
    while piece := reply.raw.read1(_PIECE, decode_content=False):
        yield piece


def body_of(reply: requests.Response, budget: Budget) -> bytes:
    """Read a body, and unpack it if it came packed."""
    budget.expects(length_of(reply) or 0, "the answer")
    body = io.BytesIO()  # which gives its content away without a copy
    while piece := reply.raw.read1(_PIECE, decode_content=True):
        budget.made(len(piece))
        body.write(piece)
    return body.getvalue()


def length_of(reply: requests.Response) -> int | None:
    """Return how many bytes a body is said to have."""
    length = reply.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def check_status(reply: requests.Response, failed: Failed, *fine: int, told: str = "") -> None:
    """Raise an ArchiveError if an answer has another status than 200, or one that is fine as well."""
    if reply.status_code not in (OK, *fine):
        raise failed(
            f"HTTP {reply.status_code} {reply.reason}{f': {told}' if told else ''}",
            transient=reply.status_code in TRANSIENT_STATUS,
            retry_after_s=retry_after_s(reply.headers.get("Retry-After", "")),
        )


def retry_after_s(text: str) -> float | None:
    """Return seconds to wait, of a number or a date: RFC 9110, section 10.2.3."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def failing(archive: str, endpoint: str, hint: str) -> Failed:
    """Return what makes the errors of an endpoint; a hint is given with those that stay."""

    def failed(message: str, *, transient: bool = False, retry_after_s: float | None = None) -> ArchiveError:
        return ArchiveError(
            message,
            archive=archive,
            endpoint=endpoint,
            transient=transient,
            retry_after_s=retry_after_s,
            hint=None if transient else hint,
        )

    return failed
