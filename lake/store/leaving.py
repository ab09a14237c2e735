"""End the process although one of its threads cannot be stopped, such as Arrow waiting for a slow S3 server.

Otherwise Python, or a library's destructor, waits for the thread as long as the server likes.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from threading import Thread

_left: list[Thread] = []
_status: list[int] = []


def leave_behind(thread: Thread) -> None:
    """Do not wait for a thread when the process ends."""
    if not _left:
        # Handlers run in reverse order: this one before Arrow's shutdown of S3, which waits.
        atexit.register(_leave)
    _left.append(thread)


def ending_with(status: int) -> int:
    """Record the exit status, which Python does not pass to exit handlers; return it."""
    _status[:] = [status]
    return status


def _leave() -> None:
    if not any(thread.is_alive() for thread in _left):
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Python keeps an uncaught exception in sys.last_value.
    os._exit(_status[0] if _status else int(hasattr(sys, "last_value")))
