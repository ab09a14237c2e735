"""Pull without Prefect: the same engine in the process of the command, with progress on the terminal."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lake.query import Lake
from lake.settings import Settings, load_settings
from tasks.endings import ending_together
from tasks.logs import Clean
from tasks.progress import Bars
from tasks.pull.driver import Run
from tasks.pull.refresh import Refreshed, refreshed
from tasks.pull.run import Outcome, pull_all, width_of
from tasks.pull.runners import LocalRunner
from tasks.sources.protocol import Request
from tasks.worker import lake_at, logger

# The terminal shows so many losses as they come; the last line, and the ledger, have the others.
MOST_SHOWN = 20


def pull(url: str, request: Request, settings: Settings | None = None) -> Outcome:
    """Pull a source; return its report, or the error that ended it."""
    with _running():
        (outcome,) = _pulled(lake_at(url), [request], settings or load_settings())
    return outcome


def refresh(url: str, archives: Sequence[str], **more: Any) -> Refreshed:
    """Pull archives side by side: see tasks.pull.refresh."""
    with _running():
        lake, settings = lake_at(url), load_settings()
        more |= {"run": _name(), "log": logger}
        return refreshed(lake, archives, lambda requests: _pulled(lake, requests, settings), **more)


def _pulled(lake: Lake, requests: Sequence[Request], settings: Settings) -> list[Outcome]:
    width = width_of(settings, {request.source for request in requests})
    with Bars() as bars, LocalRunner(settings, width) as runner:
        return pull_all(Run(lake, runner, logger, f"local-{uuid.uuid4().hex[:12]}", _name(), bars, settings), requests)


def _name() -> str:
    return f"process {os.getpid()}"


@contextmanager
def _running() -> Iterator[None]:
    """Show warnings as they come; on SIGTERM end soon, and in order."""
    shown = logging.StreamHandler(sys.stderr)
    shown.setLevel(logging.WARNING)
    shown.addFilter(_Few())
    shown.addFilter(Clean())
    logger.addHandler(shown)
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _end) if in_main else None
    try:
        with ending_together():
            yield
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)
        logger.removeHandler(shown)


class _Few(logging.Filter):
    """Passes so many lines."""

    def __init__(self) -> None:
        super().__init__()
        self._left = MOST_SHOWN

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is shown."""
        self._left -= 1
        return self._left >= 0


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
