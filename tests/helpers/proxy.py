"""A proxy on loopback between a program and its database or object store, that makes connections fail."""

from __future__ import annotations

import random
import re
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Fault = Literal["reset", "drop", "half"]

_RESET = struct.pack("ii", 1, 0)  # close() sends RST, as a firewall or a dying server does


class Proxy:
    """Pass bytes on, and cut connections at chosen requests.

    A request is what a client sends before the server says something. Its fault is one of

    - ``reset``: the request never reaches the server;
    - ``drop``: the server does what it is asked, and its answer is lost;
    - ``half``: half of the first part of the answer arrives.

    Parameters
    ----------
    target
        Address of the server.
    choose
        Gets a request's bytes, returns its fault or None. It is asked once a part of a request, and from many threads.
    """

    def __init__(self, target: tuple[str, int], choose: Callable[[bytes], Fault | None] | None = None) -> None:
        self.target = target
        self.choose = choose or (lambda request: None)
        self.faults = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def start(self) -> None:
        """Accept connections, in a thread of its own."""
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Take none any more, and cut those that there are."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections that are open now."""
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self.target)
        except OSError:
            client.close()
            return
        with self._lock:
            self._open |= {client, server}
        try:
            self._exchange(client, server)
        except OSError:
            pass  # either side is gone, and with it the other
        finally:
            with self._lock:
                self._open -= {client, server}
            with suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            server.close()

    def _exchange(self, client: socket.socket, server: socket.socket) -> None:
        fault: Fault | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            selector.register(server, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not data:
                        return None
                    if key.fileobj is client:
                        fault = fault or self.choose(data)
                        if fault == "reset":
                            return self._failed()
                        server.sendall(data)
                    elif fault is None:
                        client.sendall(data)
                    else:
                        if fault == "half":
                            client.sendall(data[: len(data) // 2])
                        return self._failed()

    def _failed(self) -> None:
        with self._lock:
            self.faults += 1


@contextmanager
def proxy(host: str, port: int, choose: Callable[[bytes], Fault | None] | None = None) -> Iterator[Proxy]:
    """Run a proxy."""
    one = Proxy((host, port), choose)
    one.start()
    try:
        yield one
    finally:
        one.stop()


class AtCommit:
    """The fault of the n-th COMMIT to PostgreSQL of a transaction that wrote something."""

    def __init__(self, number: int, fault: Fault = "drop") -> None:
        self.number = number
        self.fault = fault
        self.seen = 0
        self._lock = threading.Lock()
        self._wrote = threading.local()  # a connection is a thread

    def __call__(self, request: bytes) -> Fault | None:
        if re.search(rb"INSERT INTO|DELETE FROM|UPDATE |CREATE TABLE", request):
            self._wrote.yes = True
        if b"COMMIT\0" not in request or not getattr(self._wrote, "yes", False):
            return None
        self._wrote.yes = False
        with self._lock:
            self.seen += 1
            return self.fault if self.seen == self.number else None


class After:
    """Reset every request after so many, as if the server went away."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.requests = 0

    def __call__(self, request: bytes) -> Fault | None:
        self.requests += 1
        return "reset" if self.requests > self.allowed else None


class AtRandom:
    """One of the faults, now and then; `quiet` lets all through."""

    def __init__(self, seed: int, rate: float, faults: tuple[Fault, ...] = ("reset", "drop", "half")) -> None:
        self.generator = random.Random(seed)
        self.rate = rate
        self.kinds = faults
        self.quiet = False
        self._lock = threading.Lock()

    def __call__(self, request: bytes) -> Fault | None:
        with self._lock:
            if self.quiet or self.generator.random() >= self.rate:
                return None
            return self.generator.choice(self.kinds)
