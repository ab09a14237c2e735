"""The time of a task that a process of the command does."""

from __future__ import annotations

import signal
import time

import pytest

from lake.settings import load_settings
from tasks.pull.runners import LocalRunner
from tasks.worker import OutOfTime, in_time, is_passing


def test_what_reads_does_not_take_the_end_of_its_time_for_an_error_of_its_own() -> None:
    tried = []

    def read() -> None:
        for _ in range(3):
            try:
                tried.append(1)
                time.sleep(2)
            except Exception:  # noqa: BLE001 - as careless as can be
                continue

    handler, kept = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    try:
        with pytest.raises(TimeoutError, match="LIGHTLAKE_TASK_TIMEOUT_S"):
            in_time(0.05, read)
        assert len(tried) == 1
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *kept)


def test_a_process_that_takes_too_long_is_another_try() -> None:
    with LocalRunner(load_settings(runner="processes", task_timeout_s=0.2), 1) as runner:
        error = runner.submit("", (), time.sleep, 10).exception()
        assert runner.submit("", (), abs, -1).result() == 1, "the process goes on"
    assert isinstance(error, TimeoutError)
    assert is_passing(error)
    assert is_passing(OutOfTime())
