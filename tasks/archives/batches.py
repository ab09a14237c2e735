"""Plan what an archive is still to be asked, in batches of granules: each is one task, its targets in a file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lake.commit.ledger import Select, canonical, count_pending, pending
from lake.model.schema import TABLES
from lake.query import Lake
from lake.store.storage import is_local, path_of
from tasks.services.request_counters import summarise
from tasks.sources.base import Archive, Granule, granules_per_task

if TYPE_CHECKING:
    from upath import UPath


@dataclass(frozen=True)
class Batch:
    """Granules that one task carries; their targets are the row groups of a Parquet file."""

    archive: str
    release: str
    parameters: str
    path: str
    granules: tuple[str, ...]
    n_targets: int

    @property
    def title(self) -> str:
        """Return its granules in a few words."""
        return summarise(self.granules)

    @property
    def size(self) -> int:
        """Return how many targets it has."""
        return self.n_targets


def release_in(lake: Lake, archive: Archive) -> str:
    """Return the release that the lake shows of an archive: that of its registry, as long as it shows none."""
    if "{release}" not in archive.url_template(lake.settings):
        return archive.release
    shown = lake.sql("SELECT release FROM archives WHERE archive = ?", [archive.name])["release"].to_pylist()
    return str(shown[0]) if shown else archive.release


def max_age(archive: Archive) -> timedelta | None:
    """Return the age at which an answer expires; None for frozen archives."""
    return None if archive.max_age_days is None else timedelta(days=archive.max_age_days)


def count_to_ask(
    lake: Lake,
    archive: Archive,
    parameters: Mapping[str, Any],
    samples: Sequence[str] | None,
    *,
    select: Select = "pending",
    back_off: bool = False,
) -> int:
    """Count the targets that an archive is still to be asked for."""
    asked = (archive.name, archive.release, canonical(parameters), samples, max_age(archive))
    followed = archive.followed(parameters)
    with lake.catalog.borrowed() as cursor:
        return count_pending(cursor, *asked, select=select, back_off=back_off, followed=followed)


def plan_batches(
    lake: Lake,
    archive: Archive,
    parameters: Mapping[str, Any],
    samples: Sequence[str] | None,
    folder: UPath,
    *,
    select: Select = "pending",
    back_off: bool = False,
    granules_per_batch: int | None = None,
) -> Iterator[Batch]:
    """Yield what is still to be asked, in batches of neighbouring targets; memory does not grow with the sample.

    Parameters
    ----------
    lake, archive, parameters, samples
        What is asked; samples None means all targets.
    folder
        Staging folder of this pull.
    select, back_off
        As in a `Request`.
    granules_per_batch
        Granules that one task carries, at most; default: the archive's limit. If there are few, all workers get some.
    """
    most = granules_per_batch or archive.limits.granules
    key, followed = canonical(parameters), archive.followed(parameters)
    waiting: list[Granule] = []
    enough, open_end = most, None
    if archive.plan is not None:
        # Only when there is work for all workers is it clear how to share it out.
        enough = most * lake.settings.workers
    asked = (archive.name, archive.release, key, samples, max_age(archive))
    more: dict[str, Any] = {"back_off": back_off, "followed": followed, "batch_size": archive.batch_size * most}
    for targets in pending(lake.catalog, *asked, select=select, **more):
        if open_end is not None:
            targets = pa.concat_tables([open_end.targets, targets])
        waiting += archive.granules(targets, lake.settings, parameters)
        # Where an archive cuts targets itself, the last granule may go on in the next targets.
        open_end = waiting.pop() if archive.plan is not None else None
        while len(waiting) >= enough:
            yield _batch(archive, key, folder, waiting[:most])
            del waiting[:most]
    if open_end is not None:
        waiting.append(open_end)
    share = granules_per_task(len(waiting), most, lake.settings.workers)
    for first in range(0, len(waiting), share):
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
