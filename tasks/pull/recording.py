"""Record a run in the lake: that it began, what it uses, whether it is to stop, and how it ended."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from lake.commit import metrics
from lake.commit.ledger import in_run
from lake.commit.runs import Start, State, begin, claimed, end, is_alive, is_stop_requested, take_stop
from lake.errors import CatalogError, ConfigurationError, LightlakeError
from lake.query import Lake
from lake.redact import safe_line
from lake.store.memory import peak_rss_mb
from tasks.endings import GRACE_S, kill_children
from tasks.pull.sampling import Work, end_sampler, sampler_of

# A command whose run was stopped exits with this.
STOPPED = 3

# A run looks this often whether it was asked to stop, and commits what its processes measured, s.
LOOK_S, COMMIT_S = 3.0, 300.0

# A run that finds the catalogue locked begins all the same, and is written down later.
_BEGIN_WITHIN_S, _BEGIN_AGAIN_S = 2.0, 30.0

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

logger = logging.getLogger("lightlake")


class RunStopped(LightlakeError):
    """Ends a run that somebody asked to stop."""

    advice = "Start it again when it may run: it asks for the rest."
    topic = "how-to/runs"


def check_run_id(run_id: str) -> str:
    """Return a run's id, which becomes a part of file names.

    Raises
    ------
    ConfigurationError
        If it cannot be one.
    """
    if not _ID.fullmatch(run_id):
        raise ConfigurationError(
            f"a run cannot be called {run_id!r}", hint="use letters, digits, '.', '_' and '-', 100 at most"
        )
    return run_id


def new_run_id(what: str) -> str:
    """Return an id for a run without a name: what it does, when, and four digits by chance."""
    return f"{what}-{datetime.now(UTC):%y%m%d-%H%M}-{uuid.uuid4().hex[:4]}"


class Recording:
    """A run that is under way.

    Parameters
    ----------
    lake, start
        The lake, and the row of this start.
    """

    def __init__(self, lake: Lake, start: Start) -> None:
        self.lake, self.start = lake, start
        self.every_s = lake.settings.metrics_every_s
        self.folder = metrics.folder_of(lake.storage, start.run_id)
        self._stop_requested, self._over = threading.Event(), threading.Event()
        self._committed = time.monotonic()
        self._begun_at: float | None = None  # when it was last tried in vain; None: it is written
        self._earlier = take_stop(lake.storage, start.run_id)
        self._state: State | None = None
        self._outcome: tuple[State, str | None] = ("done", None)

    @property
    def run_id(self) -> str:
        """Return the run's id."""
        return self.start.run_id

    @property
    def is_begun(self) -> bool:
        """Say whether the lake knows of the run."""
        return self._begun_at is None

    def work_for(self, source: str) -> Work:
        """Return what a piece of this run's work for a source belongs to."""
        return Work(self.run_id, source, str(self.folder) if self.every_s else None, self.every_s or 5.0)

    def check(self) -> None:
        """Raise RunStopped if the run was asked to stop."""
        if self._stop_requested.is_set():
            raise RunStopped(
                f"the run {self.run_id} was stopped: what it committed stays",
                hint="start it again, and it asks for the rest",
            )

    def look(self) -> None:
        """Do what is due in the thread that began the run, which calls this often.

        Raises
        ------
        RunStopped
            If the run was asked to stop.
        """
        self.check()
        if self._begun_at is not None and time.monotonic() - self._begun_at > _BEGIN_AGAIN_S:
            self.begin()
        if time.monotonic() - self._committed > COMMIT_S:
            self.commit_metrics()

    def begin(self) -> None:
        """Write that the run starts, unless others write for long just now."""
        try:
            begin(self.lake.catalog, self.start, self._earlier, _BEGIN_WITHIN_S)
            self._begun_at = None
        except CatalogError:  # what it commits says what is wrong
            self._begun_at = time.monotonic()

    def ends(self, *, lost: bool, message: str) -> None:
        """Note how the run came to its end."""
        self._outcome = ("incomplete" if lost else "done", message)

    @contextmanager
    def told_early(self) -> Iterator[None]:
        """Write at once that the run was stopped: the process may not live until its work under way has ended."""
        try:
            yield
        except BaseException as error:
            self.ended_by(error)
            raise

    def ended_by(self, error: BaseException) -> None:
        """Write that the run was stopped, if that is what ends it."""
        if isinstance(error, RunStopped | SystemExit | KeyboardInterrupt):
            self.finish("stopped", _why(error))

    def finish(self, state: State, message: str | None) -> None:
        """Write how the run ended, once; a failure is logged, since the work is done."""
        if self._state is not None:
            return
        self._state = state
        if self._begun_at is not None:
            self._safely(lambda: begin(self.lake.catalog, self.start, self._earlier), "the start of the run")
        # First what matters: a process that was told to end has seconds.
        self._safely(lambda: end(self.lake.catalog, self.start, state, message, peak_rss_mb()), "the end of the run")
        if self.every_s:
            self.commit_metrics(last=True)

    def commit_metrics(self, *, last: bool = False) -> None:
        """Commit what the processes of this run measured so far."""
        self._committed = time.monotonic()

        def commit() -> None:
            if last:
                end_sampler(self.run_id)
            metrics.commit_pieces(self.lake.catalog, self.run_id)
            if last:
                metrics.remove_pieces(self.lake.storage, self.run_id)

        self._safely(commit, "what the run used")

    def commit_leftovers(self) -> None:
        """Commit what processes of killed runs measured."""

        def commit() -> None:
            for run_id in metrics.runs_with_pieces(self.lake.storage):
                if run_id == self.run_id or is_alive(self.lake.catalog, run_id) is False:
                    metrics.commit_pieces(self.lake.catalog, run_id)
                    metrics.remove_pieces(self.lake.storage, run_id)

        self._safely(commit, "what earlier runs used")

    @contextmanager
    def watched(self, *, hard: bool) -> Iterator[None]:
        """Look whether the run is to stop, and at what this process uses."""
        if self.every_s:
            sampler_of(self.run_id, str(self.folder), self.every_s).of_main()
        watcher = threading.Thread(target=self._watch, args=(hard,), name="lightlake-stop", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._over.set()
            end_sampler(self.run_id)

    def outcome(self) -> tuple[State, str | None]:
        """Return how the run ended, if nothing was raised."""
        return self._outcome

    def _watch(self, hard: bool) -> None:
        while not self._over.wait(LOOK_S):
            try:
                asked = is_stop_requested(self.lake.storage, self.run_id)
            except (OSError, LightlakeError):  # the store may answer the next time
                continue
            if asked:
                self._stop_requested.set()
                if hard and not self._over.wait(GRACE_S):
                    kill_children()
                    os._exit(STOPPED)
                return

    def _safely(self, step: Callable[[], object], what: str) -> None:
        try:
            with self.lake.storage.reached():
                step()
        except (LightlakeError, duckdb.Error, OSError, pa.ArrowException, ValueError) as error:
            logger.warning("%s was not recorded: %s", what, safe_line(error))


@contextmanager
def recorded(
    lake: Lake,
    name: str,
    run_id: str,
    *,
    request: str | None = None,
    flow_run_id: str | None = None,
    hard: bool = False,
) -> Iterator[Recording]:
    """Record a run while it lasts; every attempt that it makes belongs to it.

    Parameters
    ----------
    lake
        Open for writing.
    name
        What it does, in a few words.
    request
        What was asked for, as JSON.
    flow_run_id
        Its flow run, if Prefect runs it.
    hard
        End this process if it does not end by itself soon after it was asked to stop.

    Raises
    ------
    ConfigurationError
        If a run of that id is running.
    """
    catalog = lake.catalog
    with claimed(catalog, run_id), in_run(run_id):
        start = Start(run_id, name, socket.gethostname(), os.getpid(), datetime.now(UTC), request, flow_run_id)
        recording = Recording(lake, start)
        recording.begin()
        if recording.is_begun:
            recording.commit_leftovers()
        with recording.watched(hard=hard):
            try:
                yield recording
            except BaseException as error:
                stopped = isinstance(error, RunStopped) or not isinstance(error, Exception)
                recording.finish("stopped" if stopped else "failed", _why(error))
                raise
            recording.finish(*recording.outcome())


def _why(error: BaseException) -> str:
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return "ended by a signal"
    return str(error) or type(error).__name__
