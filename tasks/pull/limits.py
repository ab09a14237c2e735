"""Who may ask what at the same time: runs of one archive take turns, and a service answers so many at once.

A turn is a claim in the lake, whoever started the run. Places at a service are files in the cache, which all runs of
this machine share, of whatever lake. Both go away with their process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import filelock

from lake.errors import LightlakeError
from lake.query import Lake
from lake.settings import Settings
from lake.store.claims import held, holder_of, is_free
from tasks.services.request_counters import Log

# Seconds until a run that waits looks again.
LOOK_AGAIN_S = 2.0


def of_archive(archive: str) -> str:
    """Return the name of the turn of runs that fill a lake from an archive."""
    return f"pull-{archive}"


@contextmanager
def exclusive_pull(
    lake: Lake, name: str, run: str, log: Log, going_on: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Wait until no other run has this turn in this lake, then keep others waiting.

    It is the lake's own lock, since runs of one lake may have different Prefect servers, or none.

    Parameters
    ----------
    name
        Of the turn.
    run
        What this run is called, for those who wait for it.
    going_on
        Raises if this run is to end.

    Raises
    ------
    LightlakeError
        If the other run takes longer than LIGHTLAKE_TURN_TIMEOUT_S.
    """
    waited, end = False, time.monotonic() + lake.settings.turn_timeout_s
    while True:
        going_on()
        with held(lake.catalog, name, f"the run {run!r}") as ours:
            if ours:
                yield
                return
        if time.monotonic() > end:
            raise waited_too_long(lake, name)
        if not waited:
            log.warning("waiting for %s", awaited(lake, name))
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


@contextmanager
def connection_slots(
    settings: Settings, service: str, wanted: int, log: Log, going_on: Callable[[], object] = lambda: None
) -> Iterator[int]:
    """Have places at a service for as long as a run asks it; yields how many: as many as are free, one at least.

    Parameters
    ----------
    service
        Whom several archives may share, and runs of several lakes.
    wanted
        How many, of the LIGHTLAKE_ARCHIVE_CONCURRENCY that there are.
    going_on
        Raises if this run is to end.

    Raises
    ------
    LightlakeError
        If none is to be had within LIGHTLAKE_TURN_TIMEOUT_S.
    """
    folder = settings.cache_dir.expanduser() / "places"
    folder.mkdir(parents=True, exist_ok=True)
    end, told = time.monotonic() + settings.turn_timeout_s, False
    with ExitStack() as stack:
        taken = 0
        while not taken:
            going_on()
            for number in range(settings.archive_concurrency):
                # A lock of its own each time: two threads of a process keep each other out, too.
                lock = filelock.FileLock(folder / f"{service}-{number}.lock", thread_local=False)
                try:
                    stack.enter_context(lock.acquire(blocking=False))
                except filelock.Timeout:
                    continue
                taken += 1
                if taken == wanted:
                    break
            if taken:
                break
            if time.monotonic() > end:
                raise LightlakeError(
                    f"waited {settings.turn_timeout_s:g} s for a place at {service}: other runs of this machine have "
                    f"all {settings.archive_concurrency}",
                    hint="end those, or set LIGHTLAKE_ARCHIVE_CONCURRENCY or LIGHTLAKE_TURN_TIMEOUT_S",
                )
            if not told:
                log.warning("waiting for a place at %s: other runs of this machine have them all", service)
                told = True
            time.sleep(min(LOOK_AGAIN_S, 0.5))
        yield taken
