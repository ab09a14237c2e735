"""A run that is told to end says so at once, and when it has ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.processes import child_environment

# A run that has a handler for each signal, and waits for an archive longer than it may.
WAITING = """
import signal, sys, threading
import tasks.endings

for one in (signal.SIGINT, signal.SIGTERM):
    signal.signal(one, lambda *_: None)
tasks.endings.GRACE_S = 0.1
with tasks.endings.ending_together():
    signal.raise_signal(int(sys.argv[1]))
    threading.Event().wait(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_are_told(number: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WAITING, str(int(number))],
        capture_output=True,
        text=True,
        env=child_environment(PYTHONPATH=str(Path(__file__).parents[3])),
        timeout=60,
        check=False,
    )
    assert done.returncode == 128 + number
    begun, ended = done.stderr.splitlines()
    assert begun.startswith("lightlake: stopping, in 0.1 s at most")
    assert ended.startswith("lightlake: stopped")
