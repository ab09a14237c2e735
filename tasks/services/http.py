"""HTTP: one client for all requests to archives, which enforces limits of time and size at every byte.

See counted_bytes.py for how.
"""

from __future__ import annotations

import io
import re
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from html import unescape
from typing import TYPE_CHECKING, Any, Self

from lake.errors import ArchiveError
from tasks.services.bounds import Budget, Failed, in_memory
from tasks.services.request_counters import request_sent
from tasks.services.usage import received, requesting

# Every command loads this module, and few send a request.
if TYPE_CHECKING:
    import httpx

TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}

OK, PARTIAL_CONTENT, NOT_FOUND, GONE, RANGE_NOT_SATISFIABLE = 200, 206, 404, 410, 416

# Bytes of a body that are unpacked at a time, and of a redirect's that are read to keep its connection.
_PIECE = 1 << 16

_MOST_REDIRECTS = 20


class Client:
    """Connections to archives, which threads may share.

    Parameters
    ----------
    timeout_s
        Longest silence, s.
    connections
        That are kept open.
    """

    def __init__(self, timeout_s: float, connections: int = 10) -> None:
        self.timeout_s = timeout_s
        from tasks.services.counted_bytes import client

        self._client = client(connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @contextmanager
    def getting(
        self, url: str, budget: Budget, headers: Mapping[str, str] | None = None, method: str = "GET", **more: Any
    ) -> Iterator[httpx.Response]:
        """Send a request, whose answer's body is still to be read; what fails until the end is an ArchiveError.

        Parameters
        ----------
        url
            Address; redirects are followed.
        budget
            What the answer may come to.
        headers, method, more
            As httpx has them: params, data, content.
        """
        from tasks.services.counted_bytes import spending

        with spending(budget), requesting(), connecting(budget, self.timeout_s):
            request = self._client.build_request(method, url, headers=headers, **more)
            reply = self._answer(request, budget)
            try:
                yield reply
            finally:
                reply.close()

    def _answer(self, request: httpx.Request, budget: Budget) -> httpx.Response:
        request_sent()
        for _ in range(_MOST_REDIRECTS + 1):
            patience = budget.patience(self.timeout_s)
            request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), patience)
            reply = self._client.send(request, stream=True)
            if reply.next_request is None:
                return reply
            request = reply.next_request
            # httpx would read, and unpack, whatever comes with it.
            if (length := length_of(reply)) is not None and length <= _PIECE:
                for _piece in reply.iter_raw():
                    pass
            reply.close()
        raise budget.failed(f"more than {_MOST_REDIRECTS} redirects")


@dataclass(frozen=True)
class Reply:
    """An answer that was read as a whole."""

    url: str
    status_code: int
    reason: str
    headers: Mapping[str, str]
    content: bytes

    def raise_for_status(self) -> None:
        """Do nothing, where astroquery expects an error: one was raised when the answer came."""


class Session:
    """A service that is asked over HTTP, with a limit on silences, sizes and the whole time.

    Parameters
    ----------
    archive, url
        Names for messages.
    timeout_s, deadline_s
        Longest silence, and longest time for all requests together.
    service
        Name of the setting of the address, for messages, if it is not the archive's.
    """

    def __init__(
        self, archive: str, url: str, timeout_s: float, deadline_s: float, *, service: str | None = None
    ) -> None:
        self.archive, self.url, self.deadline_s = archive, url, deadline_s
        self.setting = f"LIGHTLAKE_ENDPOINTS__{(service or archive).upper()}"
        self.deadline = time.monotonic() + deadline_s
        self._client = Client(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def budget(self) -> Budget:
        """Return what the next answer may come to."""
        failed = failing(self.archive, self.url, f"check {self.setting}")
        return replace(in_memory(failed, deadline=self.deadline), seconds=self.deadline_s)

    def get(self, url: str, **more: Any) -> Reply:
        """Send a GET request, and read the whole body."""
        return self.request("GET", url, **more)

    def post(self, url: str, **more: Any) -> Reply:
        """Send a POST request, and read the whole body."""
        return self.request("POST", url, **more)

    def request(self, method: str, url: str, **more: Any) -> Reply:
        """Send a request, and read the whole body.

        Raises
        ------
        ArchiveError
            Transient for silence, a drip beyond the deadline, failing connections, names that do not resolve,
            429 and 5xx; final for every other status from 400 on, and for what is too large. The message has the
            server's own words.
        """
        budget = self.budget()
        with self._client.getting(url, budget, method=method, **more) as reply:
            body = body_of(reply, budget)
        if reply.status_code >= 400:
            check_status(reply, budget.failed, details=excerpt(body))
        return Reply(str(reply.url), reply.status_code, reply.reason_phrase, reply.headers, body)


@contextmanager
def connecting(budget: Budget, timeout_s: float) -> Iterator[None]:
    """Raise what a connection does wrong as an ArchiveError: silence and resets may pass, wrong addresses do not."""
    import httpx

    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise budget.failed(f"Invalid URL: {error}") from error
    except (httpx.HTTPError, zlib.error) as error:
        if budget.is_over:
            raise budget.too_slow() from error
        if isinstance(error, httpx.TimeoutException):
            raise budget.failed(f"no answer for {timeout_s:g} s", transient=True) from error
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, socket.gaierror):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            message = "its name does not resolve: no network, or not the right endpoint"
            raise budget.failed(message, transient=True) from error
        raise budget.failed(f"the connection failed: {error}", transient=True) from error


def pieces_of(reply: httpx.Response, budget: Budget) -> Iterator[bytes]:
    """Yield a body, unpacked if it came packed. httpx's own decoders unpack however much there is at once."""
    budget.expects(length_of(reply) or 0, "the answer")
    is_packed = reply.headers.get("Content-Encoding", "identity").lower() != "identity"
    unpacker = zlib.decompressobj(wbits=47)
    for piece in reply.iter_raw():
        received(len(piece))
        left = piece
        while left and not unpacker.eof:
            made = unpacker.decompress(left, _PIECE) if is_packed else left
            left = unpacker.unconsumed_tail
            budget.made(len(made))
            yield made
    if is_packed:
        yield unpacker.flush()
        if not unpacker.eof:
            raise zlib.error("the packed body is cut short")


def body_of(reply: httpx.Response, budget: Budget) -> bytes:
    """Read a body, and unpack it if it came packed."""
    body = io.BytesIO()  # which gives its content away without a copy
    for piece in pieces_of(reply, budget):
        body.write(piece)
    return body.getvalue()


def length_of(reply: httpx.Response) -> int | None:
    """Return how many bytes a body is said to have."""
    length = reply.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def check_status(reply: httpx.Response, failed: Failed, *fine: int, details: str = "") -> None:
    """Raise an ArchiveError if an answer has another status than 200, or one that is fine as well."""
    if reply.status_code not in (OK, *fine):
        raise failed(
            f"HTTP {reply.status_code} {reply.reason_phrase}{f': {details}' if details else ''}",
            transient=reply.status_code in TRANSIENT_STATUS,
            retry_after_s=retry_after_s(reply.headers.get("Retry-After", "")),
        )


def excerpt(body: bytes, length: int = 200) -> str:
    """Return the first words of a page, without its markup; of a VOTable that reports an error, those of the error."""
    body = body[:20000]
    status = re.search(rb'<INFO\b[^>]*"QUERY_STATUS"[^>]*>(.*?)</INFO>', body, re.S)
    text = re.sub(
        r"<(script|style|head)\b.*?</\1>|<[^>]*>",
        " ",
        (status[1] if status else body).decode(errors="replace"),
        flags=re.S | re.I,
    )
    return " ".join(unescape(text).split())[:length]


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
