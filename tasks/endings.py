"""End all that a command starts together with it: worker processes, tools, a server of its own.

Each of them watches its parent by itself, since a killed process cannot end its children.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

# After a signal a command may take so long to end, s; its work may be waiting for an archive.
GRACE_S = 10.0

_ENDINGS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ending_together() -> Iterator[None]:
    """Run a command's work so that it ends soon after a signal, and leaves no process behind.

    On SIGTERM and Ctrl-C a run finishes what it has begun, but does not wait long for an archive; it says so, since
    nothing else may be seen until then. SIGHUP, of a closed
    terminal, does the same as SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    hangup = signal.getsignal(signal.SIGHUP)
    if hangup is signal.SIG_DFL:  # nohup ignores it
        signal.signal(signal.SIGHUP, _as_sigterm)
    threading.Thread(target=_end_soon, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, hangup)
        signal.set_wakeup_fd(before)
        os.close(writing)


def _as_sigterm(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)


def _end_soon(reading: int) -> None:
    """Wait for a signal, then end the process unless it ends by itself; return when no signal can come."""
    with os.fdopen(reading, "rb", buffering=0) as signals:
        while (number := signals.read(1)) and number[0] not in _ENDINGS:
            pass
        if not number:
            return
        _say(f"stopping, in {GRACE_S:g} s at most; what is in the lake stays. Ctrl-C again stops at once")
        # Python, leaving the flow, would wait for threads and processes; from here on the process ends in any case.
        end = time.monotonic() + GRACE_S
        os.set_blocking(reading, False)
        # A second Ctrl-C ends the wait.
        while time.monotonic() < end and bytes([signal.SIGINT]) != signals.read(1):
            time.sleep(0.05)
        kill_children()
        _say("stopped; the next run goes on from here")
        os._exit(128 + number[0])


def _say(text: str) -> None:
    with suppress(OSError, ValueError):  # a closed terminal
        sys.stderr.write(f"lightlake: {text}\n")
        sys.stderr.flush()


def end_with_parent() -> None:
    """End this process, a worker, when its parent ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_outlive_nobody, args=(parent.sentinel,), daemon=True).start()


def _outlive_nobody(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    kill_children()
    os._exit(1)


def kill_children() -> None:
    """Kill all processes below this one, where /proc lists them."""
    doomed = _children(os.getpid())
    for pid in doomed:  # the list grows
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        doomed += _children(pid)
    for pid in doomed:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found
