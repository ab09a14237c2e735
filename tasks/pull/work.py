"""What a task does, here or in a worker: fetch a batch, and note what was lost of one; and commit what is staged.

What travels between tasks is small: batches name a file of targets, manifests name staged files.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from functools import lru_cache

from upath import UPath

from lake.commit.commit import Receipt, commit
from lake.commit.staging import Manifest
from lake.errors import ArchiveError, GranuleRejected, LightlakeError, StagingLost, TruncatedAnswer
from lake.query import Lake
from lake.settings import load_settings
from lake.store.memory import release_freed_memory
from lake.store.storage import path_of, remove_folder
from lake.text import file_name
from tasks.pull.batches import Batch, read_granules
from tasks.pull.runners import OutOfTime, current_log
from tasks.pull.stage import fetch_granule, lost, split
from tasks.services.request_counters import Log, count_requests
from tasks.sources.base import Granule
from tasks.sources.registry import find

# What a network, or a disk behind one, ends a read with; s3fs says EIO of all that it does not know.
_PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.EAGAIN,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
}


@lru_cache(maxsize=4)
def lake_at(url: str) -> Lake:
    """Return the lake at a URL for writing, opened once a process, which then gives back what memory it frees."""
    release_freed_memory()
    return Lake(url, load_settings(), writable=True)


def fetch_batch(batch: Batch, *, last_try: bool = True, log: Log | None = None) -> list[Manifest]:
    """Fetch and stage every granule of a batch; what an earlier try staged is not fetched again.

    A granule whose answer was cut short is asked again in halves, down to a single target.

    Parameters
    ----------
    batch
        The granules.
    last_try
        Give up on granules that fail in a passing way: their manifests then say failed.
    log
        Is told of what is tried again, and why.

    Raises
    ------
    ArchiveError
        If a granule failed in a passing way and this is not the last try; the others are staged by then.
    """
    archive = find(batch.archive, batch.release)
    last_try = last_try or archive.patient
    manifests = []
    passing: ArchiveError | None = None
    for granule, folder in _walk(batch):
        manifest = Manifest.read(folder)
        if manifest is None:
            with count_requests(granule.id, log, folder, again=True) as done:
                try:
                    manifest = fetch_granule(archive, granule, folder)
                except TruncatedAnswer as error:
                    divisible = granule.targets.num_rows > 1
                    manifest = (split if divisible else lost)(archive, granule, folder, error, done.seconds)
                except (ArchiveError, GranuleRejected) as error:
                    if isinstance(error, ArchiveError) and error.transient and not last_try:
                        passing = passing or error
                        done.keep(folder, error)
                        continue
                    manifest = lost(archive, granule, folder, error, done.seconds)
        manifests.append(manifest)
    if passing is not None:
        raise passing
    return manifests


def fetch(batch: Batch, last_try: bool) -> list[Manifest]:
    """Fetch and stage a batch, and tell the run's log of it: what a runner is given to do."""
    return fetch_batch(batch, last_try=last_try, log=current_log())


def _walk(batch: Batch) -> Iterator[tuple[Granule, UPath]]:
    """Yield the granules of a batch with their staging folders; after one that was split, its halves."""
    waiting = deque(read_granules(batch))
    while waiting:
        granule = waiting.popleft()
        folder = path_of(batch.path).parent / file_name(granule.id)
        yield granule, folder
        manifest = Manifest.read(folder)
        if manifest is not None and manifest.attempt.status == "split":
            waiting.extendleft(reversed(granule.halves()))


def mark_batch_failed(batch: Batch, error: BaseException) -> list[Manifest]:
    """Stage the news that a whole batch was not got, less what was staged before it was lost."""
    archive = find(batch.archive, batch.release)
    manifests = []
    for granule, folder in _walk(batch):
        # If staged files went missing, a manifest says nothing any more.
        staged = None if isinstance(error, StagingLost) else Manifest.read(folder)
        with count_requests(granule.id, folder=folder):
            manifests.append(staged or lost(archive, granule, folder, error))
    return manifests


def commit_batch(url: str, manifests: Sequence[Manifest]) -> list[Receipt]:
    """Commit staged granules, one transaction each.

    Raises
    ------
    StagingLost
        If staged files are gone or damaged; their folder is given up then, so that the next try fetches anew.
    """
    catalog, receipts = lake_at(url).catalog, []
    for manifest in manifests:
        try:
            receipts.append(commit(catalog, manifest))
        except StagingLost:
            remove_folder(path_of(manifest.folder))
            raise
    return receipts


def is_passing(error: BaseException) -> bool:
    """Say whether what a batch ended with is worth another try: passing failures, time-outs, lost staging, workers."""
    if isinstance(error, ArchiveError):
        return error.transient
    if isinstance(error, LightlakeError):
        return isinstance(error, StagingLost)
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    return isinstance(error, TimeoutError | ConnectionError | BrokenExecutor | OutOfTime)
