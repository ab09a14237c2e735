"""Count what an archive uses in this process: processor time, bytes received, open requests.

Work that is done for an archive says so with `working_for`; services report bytes and requests of whatever work is
under way. All counts are since the process began.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class Usage:
    """What one archive used so far.

    Parameters
    ----------
    cpu_s
        Processor time of threads that have ended their work.
    received_bytes, open_requests
        Bytes of answers so far; requests that are open now.
    clocks
        Of each thread at work: its processor clock, and what that showed when the work began.
    """

    cpu_s: float = 0.0
    received_bytes: int = 0
    open_requests: int = 0
    clocks: dict[int, tuple[int | None, float]] = field(default_factory=dict)


_all: dict[str, Usage] = {}
_lock = threading.Lock()
_current: ContextVar[Usage | None] = ContextVar("usage", default=None)


@contextmanager
def working_for(archive: str) -> Iterator[None]:
    """Count what this thread, and the threads that it starts, use for an archive."""
    with _lock:
        usage = _all.setdefault(archive, Usage())
    token = _current.set(usage)
    try:
        with _clocked(usage):
            yield
    finally:
        _current.reset(token)


@contextmanager
def _clocked(usage: Usage) -> Iterator[None]:
    """Count this thread's processor time."""
    me = threading.get_ident()
    began = time.thread_time()
    with _lock:
        mine = me not in usage.clocks  # else this work is part of other work of this thread
        if mine:
            usage.clocks[me] = (_clock_of(me), began)
    try:
        yield
    finally:
        if mine:
            with _lock:
                del usage.clocks[me]
                usage.cpu_s += time.thread_time() - began


def _clock_of(thread: int) -> int | None:
    """Return a thread's processor clock; None where the system has none for others to read."""
    clock_of: Callable[[int], int] | None = getattr(time, "pthread_getcpuclockid", None)
    return None if clock_of is None else clock_of(thread)


def counted(work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run work in a thread that was started for the current archive, and count its processor time."""
    usage = _current.get()
    if usage is None:
        return work(*args, **kwargs)
    with _clocked(usage):
        return work(*args, **kwargs)


def received(n: int) -> None:
    """Count bytes of an answer."""
    usage = _current.get()
    if usage is not None:
        with _lock:
            usage.received_bytes += n


@contextmanager
def requesting() -> Iterator[None]:
    """Count a request as open."""
    usage = _current.get()
    if usage is None:
        yield
        return
    with _lock:
        usage.open_requests += 1
    try:
        yield
    finally:
        with _lock:
            usage.open_requests -= 1


def used() -> dict[str, tuple[float, int, int]]:
    """Return processor time (s), bytes received and open requests of each archive."""
    with _lock:  # a thread that is counted cannot end meanwhile, so its clock exists
        return {
            archive: (
                usage.cpu_s
                + sum(time.clock_gettime(clock) - began for clock, began in usage.clocks.values() if clock is not None),
                usage.received_bytes,
                usage.open_requests,
            )
            for archive, usage in _all.items()
        }
