"""Runs of one archive take turns, whoever started them: a schedule, the UI, an automation or the command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger
from prefect.runtime import flow_run

from lake.claims import held, holder_of, is_free
from lake.errors import LightlakeError
from lake.query import Lake

# Seconds until a run that waits looks again.
LOOK_AGAIN_S = 2.0


def of_archive(archive: str) -> str:
    """Return the name of the turn of runs that fill a lake from an archive."""
    return f"pull-{archive}"


@contextmanager
def turn(lake: Lake, name: str) -> Iterator[None]:
    """Wait until no other run has this turn in this lake, then keep others waiting.

    It is the lake's own lock, since runs of one lake may have different Prefect servers, or none of their own. It
    goes away with its process.

    Raises
    ------
    LightlakeError
        If the other run takes longer than LIGHTLAKE_TURN_TIMEOUT_S.
    """
    waited, end = False, time.monotonic() + lake.settings.turn_timeout_s
    while True:
        with held(lake.catalog, name, f"the run {flow_run.name or 'of a script'!r}") as ours:
            if ours:
                yield
                return
        if time.monotonic() > end:
            raise waited_too_long(lake, name)
        if not waited:
            get_run_logger().warning("waiting for %s", awaited(lake, name))
            waited = True
        time.sleep(LOOK_AGAIN_S)


def is_taken(lake: Lake, name: str) -> bool:
    """Say whether a run has a turn just now."""
    return not is_free(lake.catalog, name)


def awaited(lake: Lake, name: str) -> str:
    """Return what those wait for who do not get a turn."""
    return f"{holder_of(lake.storage, name) or 'another run'}, which has the turn {name} in {lake.storage.root}"


def waited_too_long(lake: Lake, name: str) -> LightlakeError:
    """Return what a run ends with that did not get its turn in time."""
    return LightlakeError(
        f"waited {lake.settings.turn_timeout_s:g} s for {awaited(lake, name)}",
        hint="end that one, or wait longer with LIGHTLAKE_TURN_TIMEOUT_S",
    )
