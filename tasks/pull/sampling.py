"""Look every few seconds at what this process of a run uses, and write what is seen as pieces in the staging area.

Nothing here ends a run: what goes wrong is logged once, and the work goes on.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import psutil

from lake.commit.ledger import in_run
from lake.commit.metrics import write_piece
from lake.errors import LightlakeError
from lake.store.storage import path_of
from tasks.services.usage import used, working_for

T = TypeVar("T")

# A process writes what it has seen this often, s; so much is lost if it is killed.
PIECE_S = 30.0

# A worker without work for so long stops to look, s.
_IDLE_S = 60.0

# Looks of one process are at least so far apart, s, however short its work.
_LEAST_S = 0.5

logger = logging.getLogger("lightlake")


@dataclass(frozen=True)
class Work:
    """What a piece of work belongs to; it travels to workers.

    Parameters
    ----------
    run_id
        Its run; None: it is not recorded.
    source
        The archive or survey that it is for.
    folder
        Where its process writes what it uses; None: nowhere.
    every_s
        Seconds between looks.
    """

    run_id: str | None
    source: str
    folder: str | None = None
    every_s: float = 5.0


def do(what: Work, work: Callable[..., T], *args: Any) -> T:
    """Do a piece of work in any process, as a part of its run."""
    sampler = None
    if what.run_id is not None and what.folder is not None:
        sampler = sampler_of(what.run_id, what.folder, what.every_s)
    with in_run(what.run_id), working_for(what.source):
        if sampler is None:
            return work(*args)
        sampler.begin()
        try:
            return work(*args)
        finally:
            sampler.end()


class Sampler:
    """Looks at this process in a thread of its own.

    Parameters
    ----------
    run_id, folder, every_s
        As in `Work`.
    """

    def __init__(self, run_id: str, folder: str, every_s: float) -> None:
        self.run_id, self.folder, self.every_s = run_id, folder, every_s
        self._process, self._before = psutil.Process(), used()
        self._rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._ended, self._complained = threading.Event(), False
        self._working, self._last_work = 0, time.monotonic()
        self._looked = self._flushed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="lightlake-metrics", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Note that a piece of work begins here."""
        with self._lock:
            self._working += 1
        self.look()

    def end(self) -> None:
        """Note that a piece of work ended here; a worker may have no other."""
        with self._lock:
            self._working -= 1
            self._last_work = time.monotonic()
        self.look(at_once=not self._is_main)
        if not self._is_main:  # the run commits what there is when its last work has ended
            self.flush()

    def look(self, *, at_once: bool = False) -> None:
        """Look at this process, unless it was just looked at."""
        now = time.monotonic()
        with self._lock:
            if now - self._looked < _LEAST_S and self._rows and not at_once:
                return
            self._looked = now
        self._safely(self._look)

    def flush(self) -> None:
        """Write what was seen since the last piece."""
        self._safely(self._flush)

    def close(self) -> None:
        """Look for the last time, write it, and end."""
        self._ended.set()
        self.look(at_once=True)
        self.flush()

    def _run(self) -> None:
        self.look(at_once=True)
        while not self._ended.wait(self.every_s):
            self.look(at_once=True)
            if time.monotonic() - self._flushed > PIECE_S:
                self.flush()
            if self.is_idle:
                _forget(self)
                self.flush()
                return

    @property
    def is_idle(self) -> bool:
        """Say whether this is a worker that has had no work for a while."""
        with self._lock:
            return not self._working and time.monotonic() - self._last_work > _IDLE_S and not self._is_main

    _is_main = False

    def of_main(self) -> Sampler:
        """Keep on looking while there is no work: this is the run's first process."""
        self._is_main = True
        return self

    def _look(self) -> None:
        row = {"run_id": self.run_id, "host": socket.gethostname(), "process": os.getpid(), "time": datetime.now(UTC)}
        archives = {name: self._since(name, *counts) for name, counts in used().items()}
        with self._process.oneshot():
            cpu = self._process.cpu_times()
            whole: dict[str, Any] = {
                "cpu_s": cpu.user + cpu.system,
                "resident_bytes": self._process.memory_info().rss,
                "received_bytes": sum(received for _, received, _ in archives.values()),
                "open_requests": sum(requests for _, _, requests in archives.values()),
            }
            with suppress(psutil.Error, AttributeError, NotImplementedError):  # not every system says
                disk = self._process.io_counters()
                whole |= {"read_bytes": disk.read_bytes, "written_bytes": disk.write_bytes}
        rows = [row | {"archive": None} | whole]
        rows += [
            row | {"archive": archive, "cpu_s": cpu_s, "received_bytes": received, "open_requests": requests}
            for archive, (cpu_s, received, requests) in archives.items()
        ]
        with self._lock:
            self._rows += rows

    def _since(self, archive: str, cpu_s: float, received: int, requests: int) -> tuple[float, int, int]:
        """Return what an archive used since this run began here; a process may have served another before."""
        earlier_cpu_s, earlier_received, _ = self._before.get(archive, (0.0, 0, 0))
        return max(0.0, cpu_s - earlier_cpu_s), received - earlier_received, requests

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        with self._lock:
            rows, self._rows = self._rows, []
        if rows:
            write_piece(path_of(self.folder), rows)

    def _safely(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (LightlakeError, OSError, psutil.Error, ValueError, RuntimeError) as error:
            if not self._complained:
                logger.warning("what process %d uses is not recorded: %s", os.getpid(), error)
            self._complained = True


_samplers: dict[str, Sampler] = {}
_making = threading.Lock()


def sampler_of(run_id: str, folder: str, every_s: float) -> Sampler:
    """Return what looks at this process for a run; it is started the first time."""
    with _making:
        if run_id not in _samplers:
            _samplers[run_id] = Sampler(run_id, folder, every_s)
        return _samplers[run_id]


def end_sampler(run_id: str) -> None:
    """End what looks at this process for a run."""
    with _making:
        sampler = _samplers.pop(run_id, None)
    if sampler is not None:
        sampler.close()


def _forget(sampler: Sampler) -> None:
    with _making:
        if _samplers.get(sampler.run_id) is sampler:
            del _samplers[sampler.run_id]
