"""What a piece of work needs wherever it runs: the lake, a log, a clock, and which errors may pass."""

from __future__ import annotations

import errno
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from types import FrameType
from typing import Any, TypeVar

from lake.errors import ArchiveError, LightlakeError, StagingLost
from lake.query import Lake
from lake.settings import load_settings
from lake.store.memory import release_freed_memory
from tasks.services.request_counters import Log

T = TypeVar("T")

# What a network, or a disk behind one, ends a read with; s3fs reports EIO for everything that it does not know.
_PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.EAGAIN,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
}

logger = logging.getLogger("lightlake")

_log: ContextVar[Log] = ContextVar("log", default=logger)


@lru_cache(maxsize=4)
def lake_at(url: str) -> Lake:
    """Open the lake at a URL for writing, once a process; freed memory then goes back to the system."""
    release_freed_memory()
    return Lake(url, load_settings(), writable=True)


def current_log() -> Log:
    """Return the log of the run that this work belongs to."""
    return _log.get()


@contextmanager
def logging_to(log: Log) -> Iterator[None]:
    """Send what work of this thread logs to another log."""
    token = _log.set(log)
    try:
        yield
    finally:
        _log.reset(token)


class OutOfTime(BaseException):
    """Ends work that takes too long. Code that reads files would take a TimeoutError for an error of the file."""


def is_passing(error: BaseException) -> bool:
    """Say whether a retry may help: after passing failures, time-outs, missing staged files and lost workers."""
    if isinstance(error, ArchiveError):
        return error.transient
    if isinstance(error, LightlakeError):
        return isinstance(error, StagingLost)
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    return isinstance(error, TimeoutError | ConnectionError | BrokenExecutor | OutOfTime)


def in_time(timeout_s: float, work: Callable[..., T], *args: Any) -> T:
    """Run work in a process of its own; raise a TimeoutError if it takes longer than this."""
    if threading.current_thread() is not threading.main_thread():  # no signal arrives there
        return work(*args)
    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        return work(*args)
    except OutOfTime as error:
        raise TimeoutError(str(error)) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def untimed() -> Iterator[None]:
    """Stop the clock of `in_time` for what it must not interrupt, such as a commit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)


def _late(number: int, frame: FrameType | None) -> None:
    raise OutOfTime("longer than LIGHTLAKE_TASK_TIMEOUT_S")
