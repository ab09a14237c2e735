"""Connections whose bytes are counted: what is slow or too large ends at the byte that is too much.

httpx's own time-outs bound each wait, and not the sum of many: a server that sends a byte a second would never end. So
bytes are counted, and the time is looked at, where they leave the socket: in headers, redirects and bodies.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import version
from typing import Any

import httpcore
import httpx

from tasks.services.bounds import Budget

_budget: ContextVar[Budget | None] = ContextVar("budget of the request in hand", default=None)


@contextmanager
def spending(budget: Budget) -> Iterator[None]:
    """Count bytes of this thread's requests against a budget."""
    token = _budget.set(budget)
    try:
        yield
    finally:
        _budget.reset(token)


class _Stream(httpcore.NetworkStream):
    """A connection whose bytes are counted; no wait is longer than the budget has time."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if (budget := _budget.get()) is None:
            return self._inner.read(max_bytes, timeout)
        data = self._inner.read(max_bytes, budget.patience(timeout))
        budget.took(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout))


class _Backend(httpcore.SyncBackend):
    """Connections of `_Stream`."""

    def connect_tcp(self, *args: Any, **more: Any) -> httpcore.NetworkStream:
        return _Stream(super().connect_tcp(*args, **more))


@cache
def _certificates() -> ssl.SSLContext:
    # Reading them takes longer than many a request.
    return httpx.create_ssl_context()


def client(connections: int) -> httpx.Client:
    """Return a client that keeps some connections open, whose bytes count against the budget in hand."""
    made = httpx.Client(
        headers={"User-Agent": f"lightlake/{version('lightlake')} (IVOA-science)", "Accept-Encoding": "gzip"},
        verify=_certificates(),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=connections),
    )
    # httpx has no parameter for this; of its proxies' transports, too.
    for transport in (made._transport, *made._mounts.values()):
        if isinstance(transport, httpx.HTTPTransport):
            transport._pool._network_backend = _Backend()
    return made
