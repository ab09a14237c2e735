"""Pull without Prefect: the same engine in the process of the command, its progress on the terminal."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lake.query import Lake
from lake.settings import Settings, load_settings
from tasks.endings import ending_together
from tasks.logs import Clean
from tasks.progress import Bars
from tasks.pull import lake_at
from tasks.pull.driver import Run
from tasks.pull.refresh import Refreshed, refreshed
from tasks.pull.report import SurveyReport
from tasks.pull.run import Outcome, Request, pull_all, width_of
from tasks.pull.runners import LocalRunner, logger
from tasks.sources.base import Origin

# Losses that the terminal is told of as they come; the last line, and the ledger, have the others.
MOST_TOLD = 20


def pull(url: str, request: Request) -> Outcome:
    """Pull an archive; return its report, or the error that ended it."""
    with _running():
        (outcome,) = _pulled(lake_at(url), [request])
    return outcome


def refresh(url: str, archives: Sequence[str], **more: Any) -> Refreshed:
    """Pull archives side by side: see tasks.pull.refresh."""
    with _running():
        lake = lake_at(url)
        return refreshed(lake, archives, lambda requests: _pulled(lake, requests), run=_name(), log=logger, **more)


def survey(url: str, settings: Settings, pulled: Callable[[Run], tuple[Origin, SurveyReport]]) -> SurveyReport:
    """Pull a survey; return its report."""
    with _running(), _run(lake_at(url), settings, settings.workers) as run:
        _, report = run.alone(lambda: pulled(run))
    return report


def _pulled(lake: Lake, requests: Sequence[Request]) -> list[Outcome]:
    settings = load_settings()
    with _run(lake, settings, width_of(settings, {request.archive for request in requests})) as run:
        return pull_all(run, requests)


@contextmanager
def _run(lake: Lake, settings: Settings, width: int) -> Iterator[Run]:
    with Bars() as bars, LocalRunner(settings, width) as runner:
        yield Run(lake, runner, logger, f"local-{uuid.uuid4().hex[:12]}", _name(), bars, settings)


def _name() -> str:
    return f"process {os.getpid()}"


@contextmanager
def _running() -> Iterator[None]:
    """Show what goes wrong as it does; end soon, and in order, if the command is told to."""
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
    """Lets so many lines through."""

    def __init__(self) -> None:
        super().__init__()
        self._left = MOST_TOLD

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is still shown."""
        self._left -= 1
        return self._left >= 0


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
