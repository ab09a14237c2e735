"""Fetch, stage and commit a batch of an archive's granules, here or in a worker.

Only small objects travel between tasks: batches name a file of targets, manifests name staged files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lake.commit.commit import Receipt, commit_together
from lake.commit.gather import gather
from lake.commit.staging import Manifest
from lake.errors import ArchiveError, GranuleRejected, PartlyCommitted, StagingLost, TruncatedAnswer
from lake.store.catalog import Catalog
from lake.store.storage import path_of, remove_folder
from lake.text import file_name
from tasks.archives.batches import Batch, read_granules
from tasks.archives.stage import fetch_granule, lost, split
from tasks.services.request_counters import Log, count_requests
from tasks.sources.base import Granule
from tasks.sources.registry import find
from tasks.worker import current_log, lake_at

if TYPE_CHECKING:
    from upath import UPath


def fetch_batch(batch: Batch, *, last_try: bool = True, log: Log | None = None) -> list[Manifest]:
    """Fetch and stage every granule of a batch; skip those that an earlier try staged.

    A granule whose answer was cut short is split into halves, down to a single target.

    Parameters
    ----------
    batch
        The granules.
    last_try
        Give up on granules with a passing error: their manifests then say failed.
    log
        Gets a line on each retry, with the reason.

    Raises
    ------
    ArchiveError
        If a granule had a passing error and this is not the last try; the others are staged by then.
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
    """Fetch and stage a batch, with lines in the run's log: the work of a task."""
    return fetch_batch(batch, last_try=last_try, log=current_log())


def _walk(batch: Batch) -> Iterator[tuple[Granule, UPath]]:
    """Yield the granules of a batch with their staging folders; after a split granule, its halves."""
    waiting = deque(read_granules(batch))
    while waiting:
        granule = waiting.popleft()
        folder = path_of(batch.path).parent / file_name(granule.id)
        yield granule, folder
        manifest = Manifest.read(folder)
        if manifest is not None and manifest.attempt.status == "split":
            waiting.extendleft(reversed(granule.halves()))


def mark_batch_failed(batch: Batch, error: BaseException) -> list[Manifest]:
    """Mark the granules of a batch as failed, except those that are staged already."""
    archive = find(batch.archive, batch.release)
    manifests = []
    for granule, folder in _walk(batch):
        # If staged files are missing, a manifest proves nothing.
        staged = None if isinstance(error, StagingLost) else Manifest.read(folder)
        with count_requests(granule.id, folder=folder):
            manifests.append(staged or lost(archive, granule, folder, error))
    return manifests


def commit_batch(url: str, manifests: Sequence[Manifest]) -> list[Receipt]:
    """Commit staged granules: small ones in one transaction, if they do not contradict each other.

    Raises
    ------
    StagingLost
        If staged files are gone or damaged; their folder is removed, so that the next try fetches them again.
    """
    catalog = lake_at(url).catalog
    receipts = []
    for joined, group in gather(catalog.storage, manifests):
        try:
            receipts += _commit(catalog, joined)
        except PartlyCommitted:  # an earlier try was stopped between its commit and its end
            receipts += [receipt for manifest in group for receipt in _commit(catalog, manifest)]
        finally:
            if len(group) > 1:
                remove_folder(path_of(joined.folder))
    for manifest in manifests:
        remove_folder(path_of(manifest.folder))  # what was joined was committed from a folder of its own
    return receipts


def _commit(catalog: Catalog, manifest: Manifest) -> list[Receipt]:
    try:
        return commit_together(catalog, manifest)
    except StagingLost:
        remove_folder(path_of(manifest.folder))
        raise
