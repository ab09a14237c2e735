"""Retry work that failed in a way that may pass: the one policy for archives, stores and databases."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState

Result = TypeVar("Result")


def retried(
    work: Callable[[], Result],
    is_passing: Callable[[BaseException], bool],
    *,
    first_pause_s: float,
    longest_pause_s: float = math.inf,
    longest_wished_s: float = 0.0,
    tries: float = math.inf,
    within_s: float = math.inf,
    before_retry: Callable[[BaseException], None] = lambda error: None,
    sleep: Callable[[float], object] = time.sleep,
) -> Result:
    """Do a piece of work, and retry it while its failures may pass.

    Pauses double, and are up to a half longer by chance, so that not all callers return at once.

    Parameters
    ----------
    work
        What may fail.
    is_passing
        Whether a retry may mend an error.
    first_pause_s, longest_pause_s
        Pauses between tries, s.
    longest_wished_s
        Longest pause that a server may ask for by Retry-After, s.
    tries
        Tries at most.
    within_s
        Time for retries, from the first failure, s.
    before_retry
        Called with the error before each pause.
    sleep
        Waits for some seconds.

    Raises
    ------
    BaseException
        The last error, or the first that a retry does not mend.
    """
    try:
        return work()
    except BaseException as error:
        if not is_passing(error):
            raise
        failed = [error]

    # Most work ends at its first try, and many pieces of it are quick: they shall not wait for this.
    from tenacity import Retrying, retry_if_exception

    deadline = math.inf

    def again() -> Result:
        if failed:
            raise failed.pop()  # of the first try
        return work()

    def error_of(state: RetryCallState) -> BaseException:
        error = state.outcome.exception() if state.outcome else None
        return error or AssertionError("only failures are retried")

    def is_over(state: RetryCallState) -> bool:
        nonlocal deadline
        deadline = min(deadline, time.monotonic() + within_s)
        return state.attempt_number >= tries or time.monotonic() > deadline

    def pause_s(state: RetryCallState) -> float:
        doubled = first_pause_s * 2.0 ** min(state.attempt_number - 1, 60)
        wished = getattr(error_of(state), "retry_after_s", None) or 0.0
        pause = min(doubled, longest_pause_s) * random.uniform(1.0, 1.5)  # noqa: S311
        return max(pause, min(wished, longest_wished_s))

    def wait(seconds: float) -> None:
        sleep(seconds)

    def note(state: RetryCallState) -> None:
        before_retry(error_of(state))

    policy = Retrying(
        retry=retry_if_exception(is_passing), stop=is_over, wait=pause_s, before_sleep=note, sleep=wait, reraise=True
    )
    return policy(again)
