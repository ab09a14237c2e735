"""What is still to be asked, in batches of granules: what one task carries. A batch's targets are in a file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from lake.commit.ledger import canonical, count_pending, pending
from lake.model.schema import TABLES
from lake.query import Lake
from lake.store.storage import is_local, path_of
from tasks.sources.base import Archive, Granule


@dataclass(frozen=True)
class Batch:
    """Granules that one task carries: their targets are the row groups of a Parquet file."""

    archive: str
    release: str
    parameters: str
    path: str
    granules: tuple[str, ...]
    n_targets: int


def release_in(lake: Lake, archive: Archive) -> str:
    """Return the release that the lake shows of an archive: that of its registry, as long as it shows none."""
    if "{release}" not in archive.url_template(lake.settings):
        return archive.release
    shown = lake.sql("SELECT release FROM archives WHERE archive = ?", [archive.name])["release"].to_pylist()
    return str(shown[0]) if shown else archive.release


def max_age(archive: Archive, *, again: bool = False) -> timedelta | None:
    """Return the age at which an answer counts as not given: None for frozen archives, 0 to ask all again."""
    if again:
        return timedelta(0)
    return None if archive.max_age_days is None else timedelta(days=archive.max_age_days)


def count_to_ask(
    lake: Lake,
    archive: Archive,
    parameters: Mapping[str, Any],
    samples: Sequence[str] | None,
    *,
    again: bool = False,
    back_off: bool = False,
) -> int:
    """Count the targets that an archive is still to be asked for."""
    key, age = canonical(parameters), max_age(archive, again=again)
    with closing(lake.catalog.cursor()) as cursor:
        return count_pending(
            cursor,
            archive.name,
            archive.release,
            key,
            samples,
            age,
            back_off=back_off,
            followed=archive.followed(parameters),
        )


def plan_batches(
    lake: Lake,
    archive: Archive,
    parameters: Mapping[str, Any],
    samples: Sequence[str] | None,
    folder: UPath,
    *,
    again: bool = False,
    back_off: bool = False,
    granules_per_batch: int = 4,
) -> Iterator[Batch]:
    """Yield what is still to be asked, in batches of neighbouring targets; memory does not grow with the sample.

    Parameters
    ----------
    lake, archive, parameters, samples
        What is asked for; samples None means all targets.
    folder
        Staging folder of this pull.
    again
        Ask for what was answered before, too.
    back_off
        Leave out what failed lately.
    granules_per_batch
        Granules that one task carries, at most: if there are few, all workers get some.
    """
    size = archive.batch_size * granules_per_batch
    key = canonical(parameters)
    age = max_age(archive, again=again)
    waiting: list[Granule] = []
    enough, open_end = granules_per_batch, None
    if archive.plan is not None:
        # Until there is work for all workers it is not known how to share it out.
        enough = granules_per_batch * lake.settings.workers
    asked = (archive.name, archive.release, key, samples, age)
    followed = archive.followed(parameters)
    for targets in pending(lake.catalog, *asked, back_off=back_off, followed=followed, batch_size=size):
        if open_end is not None:
            targets = pa.concat_tables([open_end.targets, targets])
        waiting += archive.granules(targets, lake.settings, parameters)
        # Where an archive cuts for itself, the last piece may go on in the targets that come next.
        open_end = waiting.pop() if archive.plan is not None else None
        while len(waiting) >= enough:
            yield _batch(archive, key, folder, waiting[:granules_per_batch])
            del waiting[:granules_per_batch]
    if open_end is not None:
        waiting.append(open_end)
    share = granules_per_batch
    if archive.plan is not None:
        share = min(share, -(-len(waiting) // lake.settings.workers))
    for first in range(0, len(waiting), max(share, 1)):
        yield _batch(archive, key, folder, waiting[first : first + share])


def _batch(archive: Archive, parameters: str, folder: UPath, granules: Sequence[Granule]) -> Batch:
    """Write a batch's file."""
    path = folder / f"batch-{uuid.uuid4().hex[:12]}.parquet"
    if is_local(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, pq.ParquetWriter(file, TABLES["targets"].arrow) as writer:
        for granule in granules:
            targets = TABLES["targets"].cast(granule.targets)
            writer.write_table(targets, row_group_size=max(targets.num_rows, 1))
    ids = tuple(granule.id for granule in granules)
    n_targets = sum(granule.targets.num_rows for granule in granules)
    return Batch(archive.name, archive.release, parameters, str(path), ids, n_targets)


def read_granules(batch: Batch) -> Iterator[Granule]:
    """Yield the granules of a batch from its file."""
    with path_of(batch.path).open("rb") as opened:
        file = pq.ParquetFile(opened)
        for number in range(len(batch.granules)):
            targets = file.read_row_group(number)
            yield Granule(batch.archive, batch.release, json.loads(batch.parameters), targets)
