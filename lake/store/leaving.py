"""End the process although a thread of it cannot be ended, such as Arrow's reading of a drip from S3.

Without that Python, or a library's destructor, waits for it as long as the server likes.
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
        # Run before what was registered before it, among that Arrow's end of S3, which waits.
        atexit.register(_leave)
    _left.append(thread)


def ending_with(status: int) -> int:
    """Note the exit status of this process, which Python does not tell those who run at its end; return it."""
    _status[:] = [status]
    return status


def _leave() -> None:
    if not any(thread.is_alive() for thread in _left):
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # An exception that nobody caught is noted where Python prints it.
    os._exit(_status[0] if _status else int(hasattr(sys, "last_value")))
