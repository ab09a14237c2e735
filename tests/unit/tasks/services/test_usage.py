"""What an archive uses in a process: processor time of its threads, bytes, open requests."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from tasks.services import usage
from tasks.services.request_counters import Threads
from tasks.services.usage import received, requesting, used, working_for


@pytest.fixture(autouse=True)
def _nothing_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(usage, "_all", {})
    return


def spend(seconds: float) -> None:
    """Use that much processor time in this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_work_belongs_to_its_archive_alone() -> None:
    with working_for("a"):
        received(10)
        with working_for("b"):
            received(5)
            with requesting():
                assert used()["b"][1:] == (5, 1)
                assert used()["a"][1:] == (10, 0)
        received(1)
    received(100)  # of nobody
    with requesting():
        pass
    assert {name: counts[1:] for name, counts in used().items()} == {"a": (11, 0), "b": (5, 0)}


def test_a_request_that_fails_is_not_open() -> None:
    with pytest.raises(OSError, match="gone"), working_for("a"), requesting():
        raise OSError("gone")
    assert used()["a"][2] == 0


def test_processor_time_is_that_of_the_threads_that_work_for_it() -> None:
    with working_for("a"):
        spend(0.1)
        before, _, _ = used()["a"]
        assert before >= 0.1  # before the work has ended
        with working_for("a"):  # a part of the same work is not counted twice
            spend(0.05)
        with Threads(2) as threads:
            list(threads.map(spend, [0.1, 0.1]))
    after, _, _ = used()["a"]
    assert 0.35 <= after < 0.35 + 0.3
    spend(0.1)
    assert used()["a"][0] == after


def test_counts_never_fall_while_others_look() -> None:
    seen: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.append(used().get("a", (0.0, 0, 0))[0])

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(50):
        with working_for("a"):
            spend(0.001)
    over.set()
    looking.join()
    assert all(later >= earlier - 1e-3 for earlier, later in itertools.pairwise(seen))
