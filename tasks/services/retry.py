"""Retry requests as often as the settings say."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lake.errors import ArchiveError
from lake.retry import retried
from lake.settings import Settings
from tasks.services.request_counters import tried_again

Answer = TypeVar("Answer")


def with_retries(
    ask: Callable[[], Answer], settings: Settings, sleep: Callable[[float], object] = time.sleep
) -> Answer:
    """Send a request, and retry it as long as that may help: LIGHTLAKE_RETRIES times at most.

    Only for requests that the engine does not retry: one layer retries, and no client below it.

    Raises
    ------
    ArchiveError
        The last one, or the first that a retry does not mend.
    """
    return retried(
        ask,
        lambda error: isinstance(error, ArchiveError) and error.transient,
        first_pause_s=settings.retry_delay_s,
        longest_wished_s=settings.timeout_s,
        tries=settings.retries + 1,
        before_retry=tried_again,
        sleep=sleep,
    )
