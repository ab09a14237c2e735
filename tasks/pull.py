"""Pull any archive: plan what is to be asked, fetch and stage it, commit it.

Plain functions first, Prefect's tasks at the end. What travels between tasks is small: batches name a
file of targets, manifests name staged files.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import get_run_logger, task
from prefect.cache_policies import INPUTS, RUN_ID
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run
from upath import UPath

from lake.commit import Receipt, commit
from lake.errors import ArchiveError, GranuleRejected, LightlakeError, SchemaError, StagingLost, TruncatedAnswer
from lake.ledger import Attempt, canonical, count_pending, pending
from lake.memory import give_back, peak_rss_mb
from lake.motion import Followed, has_motion
from lake.query import Lake
from lake.schema import TABLES
from lake.settings import load_settings
from lake.sound import rejected_remark, sound, without_broken
from lake.staging import Manifest, stage
from lake.staging import lost as as_lost
from lake.storage import is_local, path_of
from lake.text import file_name
from tasks.archives import find
from tasks.archives.base import Archive, Granule, Harvest
from tasks.effort import Log, effort, facts, several
from tasks.stats import statistics


@dataclass(frozen=True)
class Batch:
    """Granules that one task carries: their targets are the row groups of a Parquet file."""

    archive: str
    release: str
    parameters: str
    path: str
    granules: tuple[str, ...]
    n_targets: int


@lru_cache(maxsize=4)
def lake_at(url: str) -> Lake:
    """Return the lake at a URL for writing, opened once a process, which then gives back what memory it frees."""
    give_back()
    return Lake(url, load_settings(), writable=True)


def release_in(lake: Lake, archive: Archive) -> str:
    """Return the release that the lake shows of an archive: that of its registry, as long as it shows none."""
    if "{release}" not in archive.pattern(lake.settings):
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
            cursor, archive.name, archive.release, key, samples, age, back_off=back_off,
            followed=archive.followed(parameters),
        )  # fmt: skip


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
    manifests = []
    passing: ArchiveError | None = None
    for granule, folder in _walk(batch):
        manifest = Manifest.read(folder)
        if manifest is None:
            with effort(granule.id, log, folder, again=True) as done:
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


def fetch_granule(archive: Archive, granule: Granule, folder: UPath) -> Manifest:
    """Fetch one granule and stage it.

    Raises
    ------
    ArchiveError
        If the archive does not give it.
    GranuleRejected
        If what it gives breaks a rule of the lake.
    """
    settings = load_settings()
    started_at, started = datetime.now(UTC), time.monotonic()
    harvest = archive.fetch(granule, settings)
    try:
        harvest = made_sound(harvest, granule, archive.band_units)
        tables = complete(harvest, granule, started_at, archive.followed(granule.parameters))
    except SchemaError as error:
        raise GranuleRejected(str(error)) from error
    attempt = replace(
        _attempt(archive, granule, started_at, time.monotonic() - started),
        status="done" if harvest.sources.num_rows else "empty",
        reason=harvest.remark,
        endpoint=harvest.endpoint or archive.reach(settings),
    )
    del harvest
    given = [tables]
    del tables
    return stage(folder, attempt, given.pop(), archive.band_units)  # which then holds them alone


def made_sound(harvest: Harvest, granule: Granule, band_units: Mapping[str, str | None]) -> Harvest:
    """Return what an archive gave with sound values, without sources that break a rule, and with remarks on both."""
    tables, remarks = sound(_keyed(harvest, granule))
    n = granule.targets.num_rows
    nothing = np.zeros(n, np.int64)
    asked = {"coverage": _coverage_rows(granule, ["empty"] * n, nothing, nothing, datetime.now(UTC))}
    kept, rejected = without_broken(granule.archive, granule.release, {**tables, **asked}, band_units)
    del kept["coverage"]
    # A target of which every source was rejected has no answer.
    unanswered = set(tables["matches"]["target_id"].to_pylist()) if rejected else set()
    unanswered -= set(kept["matches"]["target_id"].to_pylist()) if rejected else set()
    remark = "; ".join(filter(None, [harvest.remark, *remarks, rejected_remark(rejected)])) or None
    return replace(harvest, **kept, remark=remark, unanswered=harvest.unanswered | unanswered)


def complete(
    harvest: Harvest, granule: Granule, asked_at: datetime, followed: Followed | None = None
) -> dict[str, pa.Table]:
    """Return the tables of a granule in the lake's schema: keys filled in, statistics and coverage made."""
    tables = _keyed(harvest, granule)
    tables["statistics"] = statistics(tables["lightcurves"])
    lost = harvest.unanswered
    coverage = _coverage(granule, tables["matches"], tables["lightcurves"], asked_at, lost)
    if followed is not None:
        said = pc.if_else(pa.array(has_motion(granule.targets)), followed.parameters, coverage["parameters"])
        coverage = coverage.set_column(coverage.column_names.index("parameters"), "parameters", said)
    tables["coverage"] = coverage
    return tables


def _keyed(harvest: Harvest, granule: Granule) -> dict[str, pa.Table]:
    names = ("sources", "matches", "lightcurves", "exposures")
    return {name: _with_keys(getattr(harvest, name), granule) for name in names}


def _with_keys(table: pa.Table, granule: Granule) -> pa.Table:
    for name, value in (("archive", granule.archive), ("release", granule.release), ("granule", granule.id)):
        if name not in table.column_names:
            place = pa.array(np.zeros(table.num_rows, np.int32))
            table = table.append_column(name, pa.DictionaryArray.from_arrays(place, pa.array([value])))
    return table


def _coverage(
    granule: Granule, matches: pa.Table, lightcurves: pa.Table, asked_at: datetime, lost: Set[int]
) -> pa.Table:
    """Return one row for every target asked for: found or not, or failed if what it has was rejected."""
    ids = granule.targets["target_id"].to_numpy()
    rows_of = lightcurves.group_by("source_id").aggregate([([], "count_all")])
    counted = matches.select(["target_id", "source_id"]).join(rows_of, "source_id").group_by("target_id")
    counts = counted.aggregate([([], "count_all"), ("count_all", "sum")])
    order = np.argsort(ids)
    place = order[np.searchsorted(ids[order], counts["target_id"].to_numpy())]
    n_sources, n_rows = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
    n_sources[place] = counts["count_all"].to_numpy()
    n_rows[place] = counts["count_all_sum"].fill_null(0).to_numpy()
    status = np.where(np.isin(ids, np.fromiter(lost, np.int64)), "failed", np.where(n_sources > 0, "found", "empty"))
    return _coverage_rows(granule, status.tolist(), n_sources, n_rows, asked_at)


def _coverage_rows(granule: Granule, status: list[str], n_sources: Any, n_rows: Any, asked_at: datetime) -> pa.Table:
    n = granule.targets.num_rows
    table = pa.table(
        {
            "target_id": granule.targets["target_id"],
            "status": status,
            "n_sources": n_sources,
            "n_rows": n_rows,
            "parameters": [canonical(granule.parameters)] * n,
            "asked_at": pa.array([asked_at] * n, pa.timestamp("us", tz="UTC")),
        }
    )
    return _with_keys(table, granule)


def _attempt(archive: Archive, granule: Granule, started_at: datetime, seconds: float) -> Attempt:
    return Attempt(
        archive.name,
        granule.release,
        granule.id,
        status="done",
        started_at=started_at,
        n_targets=granule.targets.num_rows,
        seconds=seconds,
        parameters=canonical(granule.parameters),
        peak_rss_mb=peak_rss_mb(),
        endpoint=archive.reach(load_settings()),
        input_checksum=granule.input_checksum,
        **facts(),
    )


def lost(archive: Archive, granule: Granule, folder: UPath, error: BaseException, seconds: float = 0.0) -> Manifest:
    """Stage the news that a granule was not got: rejected or failed, why, and after how many seconds."""
    now = datetime.now(UTC)
    n = granule.targets.num_rows
    nothing = np.zeros(n, np.int64)
    coverage = _coverage_rows(granule, ["failed"] * n, nothing, nothing, now)
    attempt = as_lost(_attempt(archive, granule, now - timedelta(seconds=seconds), seconds), error)
    return stage(folder, attempt, {"coverage": coverage})


def split(archive: Archive, granule: Granule, folder: UPath, error: TruncatedAnswer, seconds: float) -> Manifest:
    """Stage the news that a granule's answer was cut short; its targets get their coverage from its halves."""
    started_at = datetime.now(UTC) - timedelta(seconds=seconds)
    attempt = replace(as_lost(_attempt(archive, granule, started_at, seconds), error), status="split")
    halves = " and ".join(half.id for half in granule.halves())
    return stage(folder, replace(attempt, reason=f"{attempt.reason}; asked again as {halves}"), {})


def lose_batch(batch: Batch, error: BaseException) -> list[Manifest]:
    """Stage the news that a whole batch was not got, less what was staged before it was lost."""
    archive = find(batch.archive, batch.release)
    manifests = []
    for granule, folder in _walk(batch):
        # If staged files went missing, a manifest says nothing any more.
        staged = None if isinstance(error, StagingLost) else Manifest.read(folder)
        with effort(granule.id, folder=folder):
            manifests.append(staged or lost(archive, granule, folder, error))
    return manifests


def commit_batch(url: str, manifests: Sequence[Manifest]) -> list[Receipt]:
    """Commit staged granules, one transaction each."""
    catalog = lake_at(url).catalog
    return [commit(catalog, manifest) for manifest in manifests]


def is_passing(task: Any, run: TaskRun, state: State[Any]) -> bool:
    """Say whether a failed task is worth another try: passing archive failures, time-outs, lost staging."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, ArchiveError):
        return error.transient
    if isinstance(error, LightlakeError):
        return isinstance(error, StagingLost)
    return isinstance(error, TimeoutError | ConnectionError)


def _run_name() -> str:
    return f"fetch {several(task_run.parameters['batch'].granules)}"


# The result, a list of manifests, is kept for the flow run: a retried flow fetches nothing twice.
@task(
    name="fetch and stage", task_run_name=_run_name, cache_policy=INPUTS + RUN_ID, persist_result=True,
    retry_condition_fn=is_passing,
)  # fmt: skip
def fetch_and_stage(batch: Batch, retries: int) -> list[Manifest]:
    """Fetch and stage a batch of granules; the run that it is of has a place at the archive for it."""
    try:
        return fetch_batch(batch, last_try=int(task_run.run_count or 1) > retries, log=get_run_logger())
    except ArchiveError as error:
        # The archive said how long to leave it alone; it is, on top of the retry's own pause.
        time.sleep(min(error.retry_after_s or 0.0, load_settings().timeout_s))
        raise


@task(name="commit", cache_policy=INPUTS + RUN_ID, persist_result=True, retries=2, retry_delay_seconds=1)
def commit_staged(url: str, manifests: list[Manifest]) -> list[Receipt]:
    """Commit a batch of staged granules."""
    return commit_batch(url, manifests)
