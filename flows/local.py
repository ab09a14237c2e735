"""Pull without Prefect: the same engine in the process of the command, with progress on the terminal."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from types import FrameType
from typing import Any

from flows.forms import RunOptions
from flows.recorded import as_json, note_outcome, pull_recorded
from flows.run_steps import run_all
from lake.query import Lake
from lake.settings import Settings, load_settings
from tasks.endings import ending_together
from tasks.logs import Clean
from tasks.progress import Bars
from tasks.pull.driver import Run
from tasks.pull.recording import Recording, new_run_id, recorded
from tasks.pull.refresh import Refreshed, refreshed
from tasks.pull.run import Outcome, pull_all, width_of
from tasks.pull.runners import LocalRunner
from tasks.sources.protocol import Request
from tasks.worker import lake_at, logger

# The terminal shows so many losses as they come; the last line, and the ledger, have the others.
MOST_SHOWN = 20


def pull(url: str, request: Request, settings: Settings | None = None, *, command: bool = True) -> Outcome:
    """Pull a source; return its report, or the error that ended it.

    Parameters
    ----------
    command
        The process is a command, and ends soon after a signal. Otherwise it is somebody's session, which goes on.
    """
    lake = lake_at(url)
    with _running(command), pull_recorded(lake, request, hard=command) as recording:
        (outcome,) = _pulled(lake, [request], settings or load_settings(), recording)
        note_outcome(recording, outcome)
    return outcome


def refresh(url: str, archives: Sequence[str], *, command: bool = True, **more: Any) -> Refreshed:
    """Pull archives side by side: see tasks.pull.refresh, and `pull` for a command."""
    lake, settings = lake_at(url), load_settings()
    asked = as_json({"archives": list(archives), **more})
    name = f"refresh for {more.get('sample') or 'all targets'}"
    with _running(command), recorded(lake, name, new_run_id("refresh"), request=asked, hard=command) as recording:
        more |= {"run": _name(), "log": logger, "check": recording.check}
        done = refreshed(lake, archives, lambda requests: _pulled(lake, requests, settings, recording), **more)
        recording.ends(lost=bool(done.lost), message=" | ".join(done.lost or done.lines))
    return done


def run(url: str, options: RunOptions, names: Sequence[str]) -> Refreshed:
    """Do what a file describes: see flows.run_steps."""
    lake, settings = lake_at(url), load_settings()
    run_id = options.run_id or new_run_id("run")
    options = options.model_copy(update={"run_id": run_id})
    name = f"run {run_id}"
    with _running(), recorded(lake, name, run_id, request=as_json(options), hard=True) as recording:
        pulled = partial(_pulled, lake, settings=settings, recording=recording)
        return run_all(lake, options, names, recording, pulled, logger)


def _pulled(lake: Lake, requests: Sequence[Request], settings: Settings, recording: Recording) -> list[Outcome]:
    width = width_of(settings, {request.source for request in requests})
    folder = f"local-{uuid.uuid4().hex[:12]}"
    with Bars() as bars, LocalRunner(settings, width) as runner, recording.told_early():
        return pull_all(Run(lake, runner, logger, folder, _name(), bars, settings, recording), requests)


def _name() -> str:
    return f"process {os.getpid()}"


@contextmanager
def _running(command: bool = True) -> Iterator[None]:
    """Show warnings as they come; a command ends soon, and in order, on SIGTERM."""
    shown = logging.StreamHandler(sys.stderr)
    shown.setLevel(logging.WARNING)
    shown.addFilter(_Few())
    shown.addFilter(Clean())
    logger.addHandler(shown)
    in_main = command and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _end) if in_main else None
    try:
        with ending_together() if command else nullcontext():
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
