"""Limit who pulls at the same time: a lake has a pull lock for each source, a service has connection slots.

A pull lock is a claim in the lake. Connection slots are files in the cache, which all runs of this machine share,
whatever their lake. The system frees both when their process ends.
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

# Seconds after which a waiting run looks again.
LOOK_AGAIN_S = 2.0


def of_archive(archive: str) -> str:
    """Return the name of the pull lock of an archive or survey."""
    return f"pull-{archive}"


@contextmanager
def exclusive_pull(
    lake: Lake, name: str, run: str, log: Log, check: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Wait until no other run holds this pull lock in the lake, then hold it.

    It is the lake's own lock, since runs of one lake may have different Prefect servers, or none.

    Parameters
    ----------
    name
        Of the lock.
    run
        Name of this run, for those that wait for it.
    check
        Raises if this run is to end.

    Raises
    ------
    LightlakeError
        If the other run holds it for longer than LIGHTLAKE_TURN_TIMEOUT_S.
    """
    warned, end = False, time.monotonic() + lake.settings.turn_timeout_s
    while True:
        check()
        with held(lake.catalog, name, f"the run {run!r}") as ours:
            if ours:
                yield
                return
        if time.monotonic() > end:
            raise waited_too_long(lake, name)
        if not warned:
            log.warning("waiting for %s", awaited(lake, name))
            warned = True
        time.sleep(LOOK_AGAIN_S)


def is_taken(lake: Lake, name: str) -> bool:
    """Say whether a run holds a pull lock just now."""
    return not is_free(lake.catalog, name)


def awaited(lake: Lake, name: str) -> str:
    """Name the run that holds a pull lock."""
    return f"{holder_of(lake.storage, name) or 'another run'}, which holds the lock {name} in {lake.storage.root}"


def waited_too_long(lake: Lake, name: str) -> LightlakeError:
    """Return the error of a run that did not get the pull lock in time."""
    return LightlakeError(
        f"waited {lake.settings.turn_timeout_s:g} s for {awaited(lake, name)}",
        hint="end that one, or wait longer with LIGHTLAKE_TURN_TIMEOUT_S",
    )


@contextmanager
def connection_slots(
    settings: Settings, service: str, wanted: int, log: Log, check: Callable[[], object] = lambda: None
) -> Iterator[int]:
    """Hold connection slots of a service; yield how many: as many as are free, one at least.

    Parameters
    ----------
    service
        Several archives, and runs of several lakes, may share it.
    wanted
        How many, of the LIGHTLAKE_ARCHIVE_CONCURRENCY that exist.
    check
        Raises if this run is to end.

    Raises
    ------
    LightlakeError
        If none is free within LIGHTLAKE_TURN_TIMEOUT_S.
    """
    folder = settings.cache_dir.expanduser() / "places"
    folder.mkdir(parents=True, exist_ok=True)
    end, warned = time.monotonic() + settings.turn_timeout_s, False
    with ExitStack() as stack:
        taken = 0
        while not taken:
            check()
            for number in range(settings.archive_concurrency):
                # A new lock object each time, so that two threads of one process exclude each other, too.
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
                    f"waited {settings.turn_timeout_s:g} s for a connection slot at {service}: other runs of this "
                    f"machine hold all {settings.archive_concurrency}",
                    hint="end those, or set LIGHTLAKE_ARCHIVE_CONCURRENCY or LIGHTLAKE_TURN_TIMEOUT_S",
                )
            if not warned:
                log.warning("waiting for a connection slot at %s: other runs of this machine hold them all", service)
                warned = True
            time.sleep(min(LOOK_AGAIN_S, 0.5))
        yield taken
