"""Fetch one granule of an archive and stage it: sound values, keys, statistics, coverage, and the ledger's attempt."""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.commit.ledger import Attempt, canonical
from lake.commit.sound import rejected_remark, sound, without_broken
from lake.commit.staging import Manifest, stage
from lake.commit.staging import lost as as_lost
from lake.errors import GranuleRejected, SchemaError, TruncatedAnswer
from lake.science.motion import Followed, has_motion
from lake.settings import load_settings
from lake.store.memory import peak_rss_mb
from tasks.services.request_counters import facts
from tasks.sources.base import Archive, FetchResult, Granule
from tasks.sources.statistics import statistics

if TYPE_CHECKING:
    from upath import UPath

# Tables of an answer, which made_sound checks.
_TABLES = ("sources", "matches", "lightcurves", "exposures")


def fetch_granule(archive: Archive, granule: Granule, folder: UPath) -> Manifest:
    """Fetch one granule and stage it.

    Raises
    ------
    ArchiveError
        If the archive does not return it.
    GranuleRejected
        If the answer breaks a rule of the lake.
    """
    settings = load_settings()
    started_at, started = datetime.now(UTC), time.monotonic()
    result = archive.fetch(granule, settings)
    try:
        result = made_sound(result, granule, archive.band_units)
        tables = complete(result, granule, started_at, archive.followed(granule.parameters))
    except SchemaError as error:
        raise GranuleRejected(str(error)) from error
    attempt = replace(
        _attempt(archive, granule, started_at, time.monotonic() - started),
        status="done" if result.sources.num_rows else "empty",
        reason=result.remark,
        endpoint=result.endpoint or archive.endpoint_url(settings),
    )
    del result
    passed_on = [tables]
    del tables
    # It then holds the only reference.
    return stage(folder, attempt, passed_on.pop(), archive.band_units, checked=_TABLES)


def made_sound(result: FetchResult, granule: Granule, band_units: Mapping[str, str | None]) -> FetchResult:
    """Make values sound and leave out sources that break a rule; the remark counts both."""
    tables, remarks = sound(_keyed(result, granule))
    n = granule.targets.num_rows
    nothing = np.zeros(n, np.int64)
    asked = {"coverage": _coverage_rows(granule, ["empty"] * n, nothing, nothing, datetime.now(UTC))}
    kept, rejected = without_broken(granule.archive, granule.release, {**tables, **asked}, band_units)
    del kept["coverage"]
    # A target whose every source was rejected has no answer.
    unanswered = set(tables["matches"]["target_id"].to_pylist()) if rejected else set()
    unanswered -= set(kept["matches"]["target_id"].to_pylist()) if rejected else set()
    remark = "; ".join(filter(None, [result.remark, *remarks, rejected_remark(rejected)])) or None
    return replace(result, **kept, remark=remark, unanswered=result.unanswered | unanswered)


def complete(
    result: FetchResult, granule: Granule, asked_at: datetime, followed: Followed | None = None
) -> dict[str, pa.Table]:
    """Complete the tables of a granule to the lake's schema: fill in keys, add statistics and coverage."""
    tables = _keyed(result, granule)
    tables["statistics"] = statistics(tables["lightcurves"])
    coverage = _coverage(granule, tables["matches"], tables["lightcurves"], asked_at, result.unanswered)
    if followed is not None:
        parameters = pc.if_else(pa.array(has_motion(granule.targets)), followed.parameters, coverage["parameters"])
        coverage = coverage.set_column(coverage.column_names.index("parameters"), "parameters", parameters)
    tables["coverage"] = coverage
    return tables


def _keyed(result: FetchResult, granule: Granule) -> dict[str, pa.Table]:
    return {name: _with_keys(getattr(result, name), granule) for name in _TABLES}


def _with_keys(table: pa.Table, granule: Granule) -> pa.Table:
    for name, value in (("archive", granule.archive), ("release", granule.release), ("granule", granule.id)):
        if name not in table.column_names:
            place = pa.array(np.zeros(table.num_rows, np.int32))
            table = table.append_column(name, pa.DictionaryArray.from_arrays(place, pa.array([value])))
    return table


def _coverage(
    granule: Granule, matches: pa.Table, lightcurves: pa.Table, asked_at: datetime, rejected: Set[int]
) -> pa.Table:
    """Return one row for every target of the granule: found, empty, or rejected if its every source was."""
    ids = granule.targets["target_id"].to_numpy()
    rows_of = lightcurves.group_by("source_id").aggregate([([], "count_all")])
    counted = matches.select(["target_id", "source_id"]).join(rows_of, "source_id").group_by("target_id")
    counts = counted.aggregate([([], "count_all"), ("count_all", "sum")])
    order = np.argsort(ids)
    place = order[np.searchsorted(ids[order], counts["target_id"].to_numpy())]
    n_sources, n_rows = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
    n_sources[place] = counts["count_all"].to_numpy()
    n_rows[place] = counts["count_all_sum"].fill_null(0).to_numpy()
    is_rejected = np.isin(ids, np.fromiter(rejected, np.int64))
    status = np.where(is_rejected, "rejected", np.where(n_sources > 0, "found", "empty"))
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
        endpoint=archive.endpoint_url(load_settings()),
        input_checksum=granule.input_checksum,
        **facts(),
    )


def lost(archive: Archive, granule: Granule, folder: UPath, error: BaseException, seconds: float = 0.0) -> Manifest:
    """Stage the attempt of a granule that was rejected or failed after so many seconds, with the error."""
    now = datetime.now(UTC)
    n = granule.targets.num_rows
    nothing = np.zeros(n, np.int64)
    attempt = as_lost(_attempt(archive, granule, now - timedelta(seconds=seconds), seconds), error)
    return stage(folder, attempt, {"coverage": _coverage_rows(granule, [attempt.status] * n, nothing, nothing, now)})


def split(archive: Archive, granule: Granule, folder: UPath, error: TruncatedAnswer, seconds: float) -> Manifest:
    """Stage the attempt of a granule whose answer was cut short; its halves bring the coverage of its targets."""
    started_at = datetime.now(UTC) - timedelta(seconds=seconds)
    attempt = replace(as_lost(_attempt(archive, granule, started_at, seconds), error), status="split")
    halves = " and ".join(half.id for half in granule.halves())
    return stage(folder, replace(attempt, reason=f"{attempt.reason}; asked again as {halves}"), {})
