"""Write a sample as a HATS collection: targets with nested light curves, a margin cache, and indexes by id and name.

The layout is that of the IVOA Note HATS 1.0, as hats 0.11 writes it. Neither hats nor lsdb is needed: they want
pandas 3, and read whole partitions into memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lake.errors import ConfigurationError
from lake.export import hats_files as files
from lake.export.healpix import Ints, Partition, Pixel, finest_order, margins, partitions
from lake.export.nested import Selection, Targets, rows, schema, targets_of
from lake.export.provenance import Provenance, current_snapshot, provenance
from lake.names import check_archive, check_sample, current_archive
from lake.query import Lake
from lake.store.s3 import reached
from lake.store.storage import PARTIAL, is_local, path_of, remove, remove_folder, write_text
from lake.text import counted

if TYPE_CHECKING:
    from upath import UPath

# The page that helps with errors from here.
HELP_TOPIC = "how-to/hats"

# Some 180 MB of Arrow: what a worker of LSDB takes at once.
ROWS_PER_FILE = 1_000_000
MARGIN_ARCSEC = 10.0
_WORKERS = 4

# Where what is asked for stands while it is written: an export that goes on must be the same one.
_PLAN = "plan.json"


@dataclass(frozen=True)
class Collection:
    """What was written.

    Parameters
    ----------
    targets, rows
        Targets, and their measurements.
    partitions, kept
        Files of targets; and how many files, of targets or margins, were there already.
    in_margins
        Rows of the margin cache.
    bytes
        Size of all Parquet files.
    """

    targets: int
    rows: int
    partitions: int
    kept: int
    in_margins: int
    bytes: int


@dataclass(frozen=True)
class _File:
    """A file to write: a pixel of a catalogue, and the rows of its targets."""

    catalogue: str
    pixel: Pixel
    targets: Ints


Progress = Callable[[int, int], None]


def export_collection(
    lake: Lake,
    to: str | Path,
    *,
    sample: str | None = None,
    archives: Sequence[str] | None = None,
    good: bool = False,
    rows_per_file: int = ROWS_PER_FILE,
    margin_arcsec: float = MARGIN_ARCSEC,
    again: bool = False,
    workers: int = _WORKERS,
    progress: Progress | None = None,
) -> Collection:
    """Write targets and their light curves as a HATS collection, in parallel, a partition of the sky at a time.

    Every row is of one snapshot of the lake. A folder on a disk appears when all of it is written; on S3, the file
    that makes it a collection comes last. An export that was stopped goes on where it was, if the lake has not changed.

    Parameters
    ----------
    lake
        The lake.
    to
        Folder to write, or s3://BUCKET/PREFIX.
    sample
        Only targets of this sample; None: all.
    archives
        Only light curves of these archives; None: all.
    good
        Only measurements that pass the archive's own recommended cut.
    rows_per_file
        Measurements and targets in a partition. One with a single target, or of the smallest size, may have more.
    margin_arcsec
        Radius of the margin cache; crossmatches across pixels work up to it. 0: no margin cache.
    again
        Replace a collection that is there.
    workers
        Partitions that are written at the same time.
    progress
        Called with the number of files that are done, and of all.

    Raises
    ------
    ConfigurationError
        If there is no such sample or archive, nothing to write, or something else in the folder.

    Examples
    --------
    >>> with lake.open("my-lake") as opened:
    ...     done = export_collection(opened, "my-collection", sample="quasars")
    >>> done.targets, done.rows, done.partitions
    (2, 12, 1)
    """
    if not 0 <= margin_arcsec <= 3600:
        raise ConfigurationError(f"a margin of {margin_arcsec:g} arcsec is not of 0 to 3600", hint="10 is usual")
    if rows_per_file < 1:
        raise ConfigurationError(
            f"a file cannot have {counted(rows_per_file, 'row')}", hint=f"{ROWS_PER_FILE} is usual"
        )
    check_sample(lake, sample)
    chosen = None if archives is None else tuple(sorted(str(current_archive(lake, one)) for one in archives))
    for archive in chosen or ():
        check_archive(lake, archive)
    selection = Selection(current_snapshot(lake), sample, chosen, good)
    targets = targets_of(lake, selection)
    if not len(targets.target_id):
        raise ConfigurationError(f"the lake at {lake.storage.root} has no targets", hint="lightlake targets add FILE")
    source = provenance(lake, selection.snapshot, sample, chosen)
    plan = {
        **{name: value for name, value in source.as_dict().items() if name != "made_at"},
        "chosen": chosen, "good": good, "rows_per_file": rows_per_file, "margin_arcsec": margin_arcsec,
    }  # fmt: skip
    final = path_of(to)
    with (
        nullcontext() if is_local(final) else reached(final),
        _workplace(final, json.dumps(plan, default=str, sort_keys=True), again) as work,
    ):
        writer = _Writer(lake, work, selection, targets, margin_arcsec)
        return writer.write(_name_of(final), rows_per_file, source, workers, progress)


def _name_of(folder: UPath) -> str:
    """Return the name of the collection: that of its folder, of signs that HATS has in names."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", folder.name).strip("_") or "lightlake"


@dataclass(frozen=True)
class _Writer:
    lake: Lake
    work: UPath
    selection: Selection
    targets: Targets
    margin_arcsec: float

    def write(
        self, name: str, rows_per_file: int, source: Provenance, workers: int, progress: Progress | None
    ) -> Collection:
        """Write all files; those that say that it is a collection last."""
        targets = self.targets
        parts = partitions(targets.hpx29, targets.rows + 1, rows_per_file, finest_order(self.margin_arcsec))
        main, margin = files.TARGETS, files.margin_name(self.margin_arcsec)
        planned = [_File(main, part.pixel, np.arange(part.first, part.last)) for part in parts if not part.is_empty]
        near = margins(targets.hpx29, targets.ra, targets.dec, parts, self.margin_arcsec)
        planned += [_File(margin, part.pixel, found) for part, found in zip(parts, near, strict=True) if len(found)]
        footers, kept = self._write_files(planned, rows_per_file, workers, progress)
        size = files.finish_catalogue(self.work / main, schema(), footers[main])
        in_margins = 0
        if self.margin_arcsec > 0:
            size += files.finish_catalogue(self.work / margin, schema(), footers.get(margin, {}))
            in_margins = sum(one.num_rows for one in footers.get(margin, {}).values())
        indexes = {}
        for column, values in self._indexed(parts).items():
            indexes[column] = f"{main}_{column}"
            size += files.write_index(self.work / indexes[column], column, values)
        measured = sum(map(files.measurements, footers[main].values()))
        files.write_properties(
            self.work, name, source, footers, indexes, margin_arcsec=self.margin_arcsec, size=size, rows=measured
        )
        return Collection(len(targets.target_id), measured, len(footers[main]), kept, in_margins, size)

    def _write_files(
        self, planned: Sequence[_File], limit: int, workers: int, progress: Progress | None
    ) -> tuple[dict[str, dict[Pixel, pq.FileMetaData]], int]:
        """Write what is not there yet, several small files from each look into the lake; return all footers."""
        missing = [one for one in planned if not self._path(one).exists()]
        done = kept = len(planned) - len(missing)
        with ThreadPoolExecutor(max(1, workers)) as pool:
            jobs = [pool.submit(self._write_some, some) for some in self._together(missing, limit)]
            try:
                for job in jobs:
                    done += job.result()
                    if progress is not None:
                        progress(done, len(planned))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        footers: dict[str, dict[Pixel, pq.FileMetaData]] = {}
        for one in planned:
            footers.setdefault(one.catalogue, {})[one.pixel] = files.footer(self._path(one), one.pixel.folder)
        return footers, kept

    def _path(self, one: _File) -> UPath:
        return self.work / one.catalogue / "dataset" / one.pixel.folder

    def _together(self, planned: Sequence[_File], limit: int) -> Iterator[list[_File]]:
        """Yield files in groups that together have no more measurements than one may have."""
        group, weight = list[_File](), 0
        for one in planned:
            more = int((self.targets.rows[one.targets] + 1).sum())
            if group and weight + more > limit:
                yield group
                group, weight = [], 0
            group.append(one)
            weight += more
        if group:
            yield group

    def _write_some(self, group: Sequence[_File]) -> int:
        ids = self.targets.target_id[np.concatenate([one.targets for one in group])]
        held = list[pa.Table]()
        found = rows(self.lake, self.selection, ids)
        for one in group:
            files.write_rows(self._path(one), schema(), _taken(found, held, len(one.targets)))
        return len(group)

    def _indexed(self, parts: Sequence[Partition]) -> dict[str, pa.Table]:
        """Return the pixel of each target, by the columns that are looked up."""
        order, number = (
            np.repeat([getattr(part.pixel, what) for part in parts], [part.last - part.first for part in parts])
            for what in ("order", "number")
        )
        pixels = {"Norder": pa.array(order.astype(np.uint8)), "Npix": pa.array(number.astype(np.uint64))}
        by_id = pa.table({"target_id": self.targets.target_id, **pixels})
        names = self.lake.run(
            f"SELECT target_id, name FROM {self.selection.table('targets')} WHERE name IS NOT NULL", None
        )
        by_name = by_id.join(names, "target_id", join_type="inner").drop_columns("target_id")
        return {"target_id": by_id, "name": by_name.select(["name", "Norder", "Npix"])}


def _taken(tables: Iterator[pa.Table], held: list[pa.Table], count: int) -> Iterator[pa.Table]:
    """Yield the next rows of tables, so many together; what is left of the last one is held."""
    while count:
        table = held.pop() if held else next(tables)
        part = table.slice(0, count)
        if part.num_rows < table.num_rows:
            held.append(table.slice(count))
        count -= part.num_rows
        yield part


@contextmanager
def _workplace(final: UPath, plan: str, again: bool) -> Iterator[UPath]:
    """Yield the folder to write to: beside the final one, which it becomes at the end; on S3, that one itself."""
    local = is_local(final)
    work = final.with_name(f".{final.name}{PARTIAL}") if local else final
    if local:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"cannot make a folder at {final.parent}: {error.strerror}", hint="name one that you may write to"
            ) from error
    with _alone(work, final):
        _check_free(final, again)
        if not local:
            remove(final / files.COLLECTION)  # what is there is no collection any more
        begun = work / _PLAN
        if not begun.exists() or begun.read_text() != plan:
            remove_folder(work)
            write_text(begun, plan)
        yield work
        remove(begun)
        if local:
            old = final.with_name(f".{final.name}.old")
            remove_folder(old)
            if final.exists():
                final.rename(old)
            work.rename(final)
            remove_folder(old)


@contextmanager
def _alone(work: UPath, final: UPath) -> Iterator[None]:
    """Keep other exports to the same folder of a disk out."""
    if not is_local(work):
        yield
        return
    lock = filelock.FileLock(f"{work}.lock", timeout=0)
    try:
        with lock:
            yield
            remove(Path(f"{work}.lock"))
    except filelock.Timeout:
        raise ConfigurationError(
            f"another export is writing {final}", hint="wait for it, or name another folder"
        ) from None


def _check_free(final: UPath, again: bool) -> None:
    """Check that nothing but a collection, or a half-written one, is where one is to be written."""
    if not final.exists():
        return
    if (final / files.COLLECTION).exists():
        if not again:
            raise ConfigurationError(f"{final} is a collection already", hint="add --again to replace it")
        return
    if (final / _PLAN).exists() and not is_local(final):
        return
    if not final.is_dir() or next(iter(final.iterdir()), None) is not None:
        raise ConfigurationError(f"{final} is not empty, and no collection", hint="name a new folder")
