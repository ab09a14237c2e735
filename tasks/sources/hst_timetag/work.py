"""What one task does: fetch the files of some exposures, extract them, and stage what they give; and its commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from upath import UPath

from lake.commit.commit import commit_together
from lake.commit.ledger import Attempt, canonical
from lake.commit.sound import sound
from lake.commit.staging import Manifest, lost, stage_together
from lake.errors import ArchiveError, GranuleRejected
from lake.settings import load_settings
from lake.store.memory import peak_rss_mb
from lake.store.storage import path_of
from tasks.services.request_counters import count_requests, summarise
from tasks.sources.hst_timetag.composites import Group, composite
from tasks.sources.hst_timetag.events import events_of
from tasks.sources.hst_timetag.exposure import Exposure, open_exposures
from tasks.sources.hst_timetag.files import Files, Piece
from tasks.sources.hst_timetag.options import HstOptions
from tasks.sources.hst_timetag.products import Made, joined_tables, tables_of
from tasks.sources.hst_timetag.tables import ORIGIN
from tasks.sources.observed import granule_id
from tasks.sources.protocol import Receipts
from tasks.worker import current_log, lake_at

# What a task carries: some ten seconds of work.
BATCH_BYTES, BATCH_EXPOSURES = 1 << 30, 16

# One file that nobody thought of must not take the others of its batch with it.
_OF_ONE = (GranuleRejected, ArchiveError, OSError, ArithmeticError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class Job:
    """One granule: an exposure, or a composite of several.

    Parameters
    ----------
    name
        Rootname of the exposure, or the composite's name.
    pieces
        Their files: one piece of an exposure, one of each member of a composite.
    canonical_names
        Of targets, by the name that HST has: known when the files are fetched.
    group
        Of a composite.
    """

    name: str
    pieces: tuple[Piece, ...]
    canonical_names: Mapping[str, str]
    group: Group | None = None

    def granule(self, parameters: Mapping[str, Any]) -> str:
        """Return the granule's id: another one for other parameters, or files that were calibrated anew."""
        versions = [version for piece in self.pieces for version in piece.version]
        return granule_id(ORIGIN, parameters, self.name, *versions)

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
        How they are extracted, and where the files are from.
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

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters of its granules."""
        return self.options.extraction

    def staged(self, granules: Sequence[tuple[Attempt, Mapping[str, pa.Table]]], name: str = "") -> Staged:
        """Stage attempts and tables; return them with the granules' names."""
        key = "\n".join(attempt.granule for attempt, _ in granules)
        folder = path_of(self.folder) / f"{name}{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"
        return [job.name for job in self.jobs], stage_together(folder, granules, ORIGIN.band_units)


Staged = tuple[list[str], Manifest]


def batches(url: str, folder: UPath, jobs: Sequence[Job], options: HstOptions) -> Iterator[Batch]:
    """Yield granules in the batches that tasks carry."""
    some: list[Job] = []
    for job in jobs:
        if some and (len(some) == BATCH_EXPOSURES or sum(one.bytes for one in some) + job.bytes > BATCH_BYTES):
            yield Batch(url, str(folder), tuple(some), options)
            some = []
        some.append(job)
    if some:
        yield Batch(url, str(folder), tuple(some), options)


def fetch(batch: Batch, last_try: bool) -> Staged:
    """Extract exposures and stage them, as failed or rejected if they cannot be extracted.

    Passing errors have been retried by then, file by file, so the batch as a whole is not retried for them.
    """
    log, settings = current_log(), load_settings()
    done: list[tuple[Attempt, Mapping[str, pa.Table]]] = []
    with Files(batch.options.files, settings) as files:
        for job in batch.jobs:
            attempt = Attempt(
                ORIGIN.name,
                ORIGIN.release,
                job.granule(batch.parameters),
                status="done",
                started_at=datetime.now(UTC),
                parameters=canonical(batch.parameters),
                endpoint=files.endpoint,
            )
            with count_requests(attempt.granule, log) as counted:
                try:
                    tables, remarks = _extracted(files, job, batch.options, attempt.granule)
                except _OF_ONE as error:
                    failed = lost(attempt, error)
                    done.append((_with(failed, seconds=counted.seconds, **counted.facts()), {}))
                    continue
            status = "done" if tables else "empty"
            reason = "; ".join(remarks) or None
            done.append(
                (_with(attempt, status=status, reason=reason, seconds=counted.seconds, **counted.facts()), tables)
            )
    names, manifest = batch.staged(done)
    return names, manifest.with_details(peak_rss_mb=peak_rss_mb())


def _with(attempt: Attempt, **more: Any) -> Attempt:
    from dataclasses import replace

    return replace(attempt, **more)


def _extracted(files: Files, job: Job, options: HstOptions, granule: str) -> tuple[dict[str, pa.Table], list[str]]:
    """Return the tables of a granule, and what the ledger should say of it."""
    if job.group is not None:
        made, remarks = composite(job.group, [files.fetch(piece) for piece in job.pieces], options.selection)
        tables = tables_of(made, granule)
    else:
        (piece,) = job.pieces
        tables, remarks = _of_exposures(files.fetch(piece), piece, job, options, granule)
    cleaned, more = sound(tables)
    return dict(cleaned), [*remarks, *more]


def _of_exposures(
    paths: list[Path], piece: Piece, job: Job, options: HstOptions, granule: str
) -> tuple[dict[str, pa.Table], list[str]]:
    """Extract the exposures of a piece: one, but for STIS files of several, of which some may be rejected."""
    made: list[dict[str, pa.Table]] = []
    remarks: list[str] = []
    rejected: list[GranuleRejected] = []
    with open_exposures(paths) as exposures:
        for exposure in exposures:
            if not exposure.is_science:
                remarks.append(f"{exposure.exposure_id} is of a lamp or a calibration: not extracted")
                continue
            try:
                made.append(_of_exposure(exposure, piece, paths, job, options, granule))
            except GranuleRejected as error:
                rejected.append(error)
                remarks.append(f"{exposure.exposure_id}: {error}")
        if rejected and not made:
            raise rejected[0]
    return joined_tables(made), remarks


def _of_exposure(
    exposure: Exposure, piece: Piece, paths: list[Path], job: Job, options: HstOptions, granule: str
) -> dict[str, pa.Table]:
    exposure.check()
    first = exposure.first
    made = Made(
        exposure.exposure_id,
        "exposure",
        first,
        job.canonical_names.get(first.target_name, first.target_name),
        [(exposure.exposure_id, exposure.curve(options.selection))],
        piece.located,
        rootname=piece.rootname,
    )
    tables = tables_of(made, granule)
    if options.keep_events:
        tables["events"] = events_of(exposure, granule)
    return tables


def mark_failed(batch: Batch, error: BaseException) -> Staged:
    """Stage granules as failed."""
    parameters = canonical(batch.parameters)
    attempts = [
        Attempt(
            ORIGIN.name,
            ORIGIN.release,
            job.granule(batch.parameters),
            status="failed",
            started_at=datetime.now(UTC),
            parameters=parameters,
        )
        for job in batch.jobs
    ]
    return batch.staged([(lost(attempt, error), {}) for attempt in attempts], "failed-")


def commit(url: str, fetched: Staged) -> Receipts:
    """Commit what is staged; return the receipt of each granule with its name."""
    names, manifest = fetched
    return list(zip(names, commit_together(lake_at(url).catalog, manifest), strict=True))
