"""One policy of retries: what can pass, how long the pauses are, and when to stop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lake.errors import ArchiveError
from lake.retry import retried
from lake.settings import Settings
from tasks.services.retry import with_retries


def failing(*errors: BaseException) -> Callable[[], int]:
    left = list(errors)

    def work() -> int:
        if left:
            raise left.pop(0)
        return 7

    return work


def busy(wished: float | None = None, *, transient: bool = True) -> ArchiveError:
    return ArchiveError("busy", archive="sky", endpoint="here", transient=transient, retry_after_s=wished)


def test_pauses_double_and_honour_retry_after(settings: Settings) -> None:
    given, pauses = settings.model_copy(update={"retry_delay_s": 2.0, "retries": 4, "timeout_s": 60.0}), list[float]()
    assert with_retries(failing(busy(), busy(), busy(30.0), busy(1e6)), given, pauses.append) == 7
    assert 2 <= pauses[0] <= 3
    assert 4 <= pauses[1] <= 6
    assert pauses[2:] == [30.0, 60.0], "as the server wishes, up to the longest silence"


@pytest.mark.parametrize("error", [busy(transient=False), KeyError("x"), KeyboardInterrupt()], ids=repr)
def test_what_cannot_pass_is_not_retried(settings: Settings, error: BaseException) -> None:
    pauses: list[float] = []
    with pytest.raises(type(error)) as caught:
        with_retries(failing(error), settings, pauses.append)
    assert caught.value is error
    assert not pauses


def test_the_last_error_is_raised_once_tries_or_time_are_over(settings: Settings) -> None:
    errors = [busy() for _ in range(9)]
    with pytest.raises(ArchiveError) as caught:
        with_retries(failing(*errors), settings.model_copy(update={"retries": 2}), lambda pause: None)
    assert caught.value is errors[2]
    with pytest.raises(ArchiveError):
        retried(failing(*errors), lambda error: True, first_pause_s=0.001, longest_pause_s=0.001, within_s=0.0)
