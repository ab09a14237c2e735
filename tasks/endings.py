"""What a command starts ends with it, however it ends: worker processes, tools, a server of its own.

Each of them looks after its parent by itself, since a process that is killed cannot look after its children.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

# How long a command that is told to end may take to do so, s; what it has in hand may wait for an archive.
GRACE_S = 10.0

_ENDINGS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ending_together() -> Iterator[None]:
    """Do a command's work so that the command ends soon when it is told to, and nothing stays behind.

    SIGTERM and Ctrl-C let a run end what it has begun, but not wait for what an archive does not answer; SIGHUP, of a
    terminal that is closed, does the same as SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    hangup = signal.getsignal(signal.SIGHUP)
    if hangup is signal.SIG_DFL:  # it is ignored below nohup
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
    """Wait for a signal, and then end the process if it does not do so by itself; return when none can come."""
    with os.fdopen(reading, "rb", buffering=0) as signals:
        while (number := signals.read(1)) and number[0] not in _ENDINGS:
            pass
        if not number:
            return
        # From here on it ends, even if the flow is left at once: Python waits for threads and processes then.
        end = time.monotonic() + GRACE_S
        os.set_blocking(reading, False)
        # Whoever presses Ctrl-C twice waits no longer.
        while time.monotonic() < end and bytes([signal.SIGINT]) != signals.read(1):
            time.sleep(0.05)
        kill_children()
        os._exit(128 + number[0])


def end_with_parent() -> None:
    """Let this process, a worker, end with the one that started it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_outlive_nobody, args=(parent.sentinel,), daemon=True).start()


def _outlive_nobody(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    kill_children()
    os._exit(1)


def kill_children() -> None:
    """Kill all processes below this one, where /proc says which they are."""
    doomed = _children(os.getpid())
    for pid in doomed:  # which grows
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
