"""Runs of one archive take turns, whoever started them: a schedule, the UI, an automation or the command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger

from lake.query import Lake

# Seconds until a run that waits looks again.
LOOK_AGAIN_S = 2.0


@contextmanager
def turn(lake: Lake, archive: str) -> Iterator[None]:
    """Wait until no other run fills this lake from this archive, then keep others waiting.

    It is the lake's own lock, since runs of one lake may have different Prefect servers, or none of their own. It
    goes away with its process.
    """
    waited = False
    while True:
        with lake.catalog.claim(f"pull-{archive}", strict=True) as ours:
            if ours:
                yield
                return
        if not waited:
            get_run_logger().warning("another run fills %s from %s: waiting for it", lake.storage.root, archive)
            waited = True
        time.sleep(LOOK_AGAIN_S)
