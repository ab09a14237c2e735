"""What one task does: fetch the files of some exposures, extract them and stage their rows; and its commit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.commit.commit import commit_together
from lake.commit.ledger import Attempt, canonical
from lake.commit.sound import sound
from lake.commit.staging import Manifest, lost, stage_together
from lake.errors import ArchiveError, GranuleRejected, SchemaError
from lake.query import Lake
from lake.settings import Settings, load_settings
from lake.store.memory import peak_rss_mb
from lake.store.storage import path_of
from tasks.services.request_counters import count_requests, summarise
from tasks.sources.base import granules_per_task
from tasks.sources.hst_timetag.composites import Group, Member, composite
from tasks.sources.hst_timetag.exposure import Exposure, open_exposure, open_exposures
from tasks.sources.hst_timetag.files import Files, Piece, located
from tasks.sources.hst_timetag.headers import UNREADABLE
from tasks.sources.hst_timetag.names import OWN
from tasks.sources.hst_timetag.options import HstOptions
from tasks.sources.hst_timetag.products import Made, event_parts, joined_tables, tables_of
from tasks.sources.hst_timetag.tables import COMPOSITE, EXPOSURE, ORIGIN
from tasks.sources.observed import granule_id
from tasks.sources.protocol import Receipts
from tasks.worker import current_log, lake_at

if TYPE_CHECKING:
    from upath import UPath

# A task carries so many bytes and granules: some ten seconds of work.
BATCH_BYTES, BATCH_GRANULES = 1 << 30, 16

# Errors of one file, which must not affect the others of its batch.
_OF_ONE = (GranuleRejected, ArchiveError, SchemaError, MemoryError, ArithmeticError, Warning, *UNREADABLE)

Tables = dict[str, pa.Table]


@dataclass(frozen=True)
class Job:
    """One granule: an exposure, or a composite of several.

    Parameters
    ----------
    name
        Rootname of the exposure's files, or the composite's source_id.
    pieces
        Their files: one piece of an exposure, one for each member of a composite.
    group
        Of a composite.
    members
        Of a composite: rootname of each member, in the order of the pieces.
    """

    name: str
    pieces: tuple[Piece, ...]
    group: Group | None = None
    members: tuple[str, ...] = ()

    def granule(self, parameters: Mapping[str, Any]) -> str:
        """Return the granule's id: another one for other parameters, or files that were calibrated anew."""
        versions = [version for piece in self.pieces for version in piece.version]
        return granule_id(ORIGIN, parameters, self.name, *self.members, *versions)

    @property
    def bytes(self) -> int:
        """Return how large its files are."""
        return sum(piece.bytes for piece in self.pieces)


@dataclass(frozen=True)
class Batch:
    """Granules that one task stages, and one transaction commits.

    Parameters
    ----------
    url, folder
        The lake, and the parent of staging folders.
    jobs
        The granules.
    options
        How they are extracted.
    """

    url: str
    folder: str
    jobs: tuple[Job, ...]
    options: HstOptions

    @property
    def title(self) -> str:
        """Return its granules in a few words."""
        return summarise([job.name for job in self.jobs])

    @property
    def size(self) -> int:
        """Return how many granules it has."""
        return len(self.jobs)

    def attempt(self, job: Job) -> Attempt:
        """Return an attempt at a granule that begins now."""
        parameters = self.options.extraction
        now = datetime.now(UTC)
        return Attempt(
            ORIGIN.name, ORIGIN.release, job.granule(parameters), "done", now, parameters=canonical(parameters)
        )

    def staged(
        self,
        granules: Sequence[tuple[Attempt, Mapping[str, pa.Table]]],
        name: str = "",
        events: Mapping[str, Callable[[], Iterator[pa.Table]]] | None = None,
    ) -> Staged:
        """Stage attempts and tables, and events by granule; return them with the granules' names."""
        key = "\n".join(attempt.granule for attempt, _ in granules)
        folder = path_of(self.folder) / f"{name}{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"
        return [job.name for job in self.jobs], stage_together(
            folder, granules, ORIGIN.band_units, {"events": events or {}}
        )


Staged = tuple[list[str], Manifest]


def batches(url: str, folder: UPath, jobs: Sequence[Job], options: HstOptions, workers: int) -> Iterator[Batch]:
    """Yield granules in the batches that tasks carry; if there are few, all workers get some."""
    some: list[Job] = []
    most = granules_per_task(len(jobs), BATCH_GRANULES, workers)
    for job in jobs:
        if some and (len(some) == most or sum(one.bytes for one in some) + job.bytes > BATCH_BYTES):
            yield Batch(url, str(folder), tuple(some), options)
            some = []
        some.append(job)
    if some:
        yield Batch(url, str(folder), tuple(some), options)


@dataclass
class _Places:
    """Where files are fetched from: MAST and folders, each opened once."""

    settings: Settings
    stack: ExitStack
    held: dict[str | None, Files] = field(default_factory=dict)

    def of(self, folder: str | None) -> Files:
        if folder not in self.held:
            self.held[folder] = self.stack.enter_context(Files(folder, self.settings))
        return self.held[folder]

    def fetch(self, piece: Piece) -> list[Path]:
        return self.of(piece.folder).fetch(piece)


def fetch(batch: Batch, last_try: bool) -> Staged:
    """Extract exposures and stage them, as failed or rejected if they cannot be extracted.

    Passing errors have been retried by then, file by file, so the batch as a whole is not retried for them.
    """
    log, done, staged = current_log(), list[tuple[Attempt, Tables]](), set[str]()
    events: dict[str, Callable[[], Iterator[pa.Table]]] = {}
    names = known_names(lake_at(batch.url))
    with ExitStack() as stack:
        places = _Places(load_settings(), stack)
        for job in batch.jobs:
            attempt, tables, remarks = batch.attempt(job), Tables(), list[str]()
            with count_requests(attempt.granule, log) as counted:
                try:
                    attempt = replace(attempt, endpoint=places.of(job.pieces[0].folder).endpoint)
                    tables, remarks = _extracted(places, job, batch.options, attempt.granule, names)
                    _check_new(tables, staged)
                    if batch.options.keep_events and job.group is None and tables:
                        paths = places.fetch(job.pieces[0])
                        events[attempt.granule] = partial(_event_parts, paths, tables["sources"])
                    attempt = replace(attempt, status="done" if tables else "empty", reason="; ".join(remarks) or None)
                except _OF_ONE as error:
                    attempt, tables = lost(attempt, error), {}
            done.append((replace(attempt, seconds=counted.seconds, **counted.facts()), tables))
    staged_names, manifest = batch.staged(done, events=events)
    return staged_names, manifest.with_details(peak_rss_mb=peak_rss_mb())


def _check_new(tables: Tables, staged: set[str]) -> None:
    """See that no other granule of the batch has the same sources, such as a file of another kind; remember them."""
    mine = set(tables["sources"]["source_id"].to_pylist()) if "sources" in tables else set()
    if twice := sorted(mine & staged):
        raise GranuleRejected(f"{', '.join(twice)} came from other files of this run, too")
    staged |= mine


def known_names(lake: Lake) -> dict[str, str]:
    """Return the canonical names of targets that are known, by TARGNAME."""
    rows = lake.sql(f"SELECT name, canonical_name FROM aliases WHERE {OWN}")
    return dict(zip(rows["name"].to_pylist(), rows["canonical_name"].to_pylist(), strict=True))


def _extracted(
    places: _Places, job: Job, options: HstOptions, granule: str, names: Mapping[str, str]
) -> tuple[Tables, list[str]]:
    """Return the tables of a granule, and what the ledger is to say of it."""
    if job.group is not None:
        tables, remarks = _composite(places, job, job.group, options, granule)
    else:
        tables, remarks = _exposures(places.fetch(job.pieces[0]), job.pieces[0], options, granule, names)
    cleaned, more = sound(tables)
    return cleaned, [*remarks, *more]


def _composite(places: _Places, job: Job, group: Group, options: HstOptions, granule: str) -> tuple[Tables, list[str]]:
    # A member without its files must not be left out silently.
    members = [
        Member(name, partial(open_exposure, places.fetch(piece), name))
        for name, piece in zip(job.members, job.pieces, strict=True)
    ]
    done = composite(members, options.selection)
    made = Made(group.source_id, COMPOSITE, done.first, group.target, done.curves, parameters=options.extraction)
    left_out = [
        f"{row['exposure_id']} is left out: {row['reason']}" for row in done.members.to_pylist() if row["reason"]
    ]
    return tables_of(made, granule), left_out


def _exposures(
    paths: list[Path], piece: Piece, options: HstOptions, granule: str, names: Mapping[str, str]
) -> tuple[Tables, list[str]]:
    """Extract the exposures of a piece: one, but for STIS files of several, of which some may be rejected."""
    parts, remarks, rejected = list[Tables](), list[str](), list[GranuleRejected]()
    with open_exposures(paths) as exposures:
        for exposure in exposures:
            if not exposure.is_science:
                remarks.append(f"{exposure.exposure_id} is of a lamp or a calibration: not extracted")
                continue
            try:
                parts.append(_exposure(exposure, piece, options, granule, names))
            except GranuleRejected as error:
                rejected.append(error)
                remarks.append(f"{exposure.exposure_id}: {error}")
        if rejected and not parts:
            raise rejected[0]
    return joined_tables(parts), remarks


def _exposure(exposure: Exposure, piece: Piece, options: HstOptions, granule: str, names: Mapping[str, str]) -> Tables:
    exposure.check()
    curves = [(exposure.exposure_id, exposure.curve(options.selection))]
    name = names.get(exposure.first.target_name, exposure.first.target_name)
    made = Made(exposure.exposure_id, EXPOSURE, exposure.first, name, curves, located(piece), options.extraction)
    return tables_of(made, granule)


def _event_parts(paths: list[Path], sources: pa.Table) -> Iterator[pa.Table]:
    """Read the events of exposures again, which are too many to be kept until all else is staged."""
    wanted = set(sources["source_id"].to_pylist())
    with open_exposures(paths) as exposures:
        for exposure in sorted(exposures, key=lambda one: one.exposure_id):
            if exposure.exposure_id in wanted:
                yield from event_parts(exposure, sources)


def mark_failed(batch: Batch, error: BaseException) -> Staged:
    """Stage granules as failed."""
    return batch.staged([(lost(batch.attempt(job), error), {}) for job in batch.jobs], "failed-")


def commit(url: str, fetched: Staged) -> Receipts:
    """Commit what is staged; return the receipt of each granule with its name."""
    names, manifest = fetched
    return list(zip(names, commit_together(lake_at(url).catalog, manifest), strict=True))
