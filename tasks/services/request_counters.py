"""Count the requests and retries of a granule, wherever in the code they happen."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from lake.redact import safe_line
from lake.store.storage import write_text
from lake.text import one_line
from tasks.services.usage import counted

if TYPE_CHECKING:
    from upath import UPath

Log = logging.Logger | logging.LoggerAdapter[Any]

# Counts of earlier tries at a granule, in its staging folder.
_NOTE = "tries.json"

_Result = TypeVar("_Result")


@dataclass
class RequestCounter:
    """Requests and retries of one granule so far.

    Parameters
    ----------
    granule
        Its id.
    log
        Receives what is retried.
    retries, requests
        Counts so far; requests is None if they cannot be counted.
    """

    granule: str
    log: Log | None = None
    retries: int = 0
    requests: int | None = 0
    started: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def seconds(self) -> float:
        """Return the time since this try began."""
        return time.monotonic() - self.started

    def facts(self) -> dict[str, Any]:
        """Return the counts for the ledger."""
        return {"retries": self.retries, "requests": self.requests}

    def again(self, why: BaseException | str) -> None:
        """Count a retry, and log why."""
        with self._lock:
            self.retries += 1
        if self.log is not None:
            self.log.warning("%s: trying again: %s", self.granule, why)

    def sent(self) -> None:
        """Count a request."""
        with self._lock:
            if self.requests is not None:
                self.requests += 1

    def keep(self, folder: UPath, why: BaseException) -> None:
        """Write a note of the counts for the granule's next try."""
        note = {"retries": self.retries, "requests": self.requests, "why": safe_line(why) or type(why).__name__}
        write_text(folder / _NOTE, json.dumps(note))


_current: ContextVar[RequestCounter | None] = ContextVar("request counter", default=None)


@contextmanager
def count_requests(
    granule: str, log: Log | None = None, folder: UPath | None = None, *, again: bool = False
) -> Iterator[RequestCounter]:
    """Count the requests and retries of a granule, by this thread and by those of a `Threads`.

    Parameters
    ----------
    granule, log
        As in RequestCounter.
    folder
        Its staging folder. The counts that earlier tries noted there are added; a try that fails leaves such a note.
    again
        An earlier try counts as one that is retried now.
    """
    note = _noted(folder)
    # Of a granule that is only given up, an earlier process may have sent some.
    done = RequestCounter(
        granule, log, note.get("retries", 0), note.get("requests", 0 if again or folder is None else None)
    )
    if note and again:
        done.again(note["why"])
    token = _current.set(done)
    try:
        yield done
    except BaseException as error:
        if folder is not None:  # a time-out, such as Prefect's, may be retried
            done.keep(folder, error)
        raise
    finally:
        _current.reset(token)


def _noted(folder: UPath | None) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / _NOTE).read_text())) if folder is not None else {}
    except FileNotFoundError:
        return {}


def facts() -> dict[str, Any]:
    """Return the counts of the current granule for the ledger."""
    done = _current.get()
    return {} if done is None else done.facts()


def request_sent() -> None:
    """Count a request for the current granule."""
    done = _current.get()
    if done is not None:
        done.sent()


def not_counted() -> None:
    """Note that requests for the current granule are sent by a client that does not count them."""
    done = _current.get()
    if done is not None:
        done.requests = None


def tried_again(why: BaseException) -> None:
    """Count a retry for the current granule, and log why."""
    done = _current.get()
    if done is not None:
        done.again(why)


def summarise(names: Sequence[str]) -> str:
    """Shorten a list of names to the first and a count."""
    return one_line(f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else "".join(names))


class Threads(ThreadPoolExecutor):
    """Threads that work, and count, for the granule of their caller."""

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:
        """Run a function in one of the threads."""
        return super().submit(copy_context().run, counted, fn, *args, **kwargs)
