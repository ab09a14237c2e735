"""Commit the matches and coverage of targets, once their RXTE observations are in the lake."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from astropy.coordinates import SkyCoord
from upath import UPath

from lake.commit.commit import Receipt, commit
from lake.commit.ledger import Attempt, canonical
from lake.commit.staging import lost, stage
from lake.commit.targets import add_targets
from lake.errors import ConfigurationError
from lake.query import Lake
from lake.science.sky import ranks
from lake.store.memory import peak_rss_mb
from tasks.services.request_counters import facts
from tasks.sources.granule_status import last_status
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.find import Found
from tasks.sources.rxte.observations import Extraction, granule_id
from tasks.worker import lake_at


def target_of(lake: Lake, target: str) -> pa.Table:
    """Return the row of table targets for a name or a position; register a new position.

    Parameters
    ----------
    target
        A name of the lake's; or right ascension and declination, ICRS degrees, with a space or comma between.

    Raises
    ------
    ConfigurationError
        If the lake has no target of that name, or the text is no valid position.
    """
    place = place_of(target)
    if place is None:
        wanted = lake.target_id(target)
    else:
        ra, dec = place
        add_targets(lake.catalog, pa.table({"ra": [ra], "dec": [dec], "name": [target.strip()]}), rxte.NAME)
        wanted = lake.target_id(SkyCoord(ra, dec, unit="deg"))
    row: pa.Table = lake.sql("SELECT * FROM targets WHERE target_id = ?", [wanted])
    return row


def place_of(target: str) -> tuple[float, float] | None:
    """Read a position, ICRS degrees, from a text; return None if it is a name.

    Raises
    ------
    ConfigurationError
        If it looks like a position, and is none.
    """
    parts = re.fullmatch(r"\s*([0-9.]+)[\s,]+([+-]?[0-9.]+)\s*", target)
    if parts is None:
        return None
    try:
        ra, dec = float(parts[1]), float(parts[2])
        if not (0 <= ra <= 360 and -90 <= dec <= 90):
            raise ValueError
    except ValueError as error:
        raise ConfigurationError(f"{target!r} is no position", hint="such as '161.265 -59.6845'") from error
    return ra, dec


def answer(
    url: str,
    targets: pa.Table,
    found: Found,
    extraction: Extraction,
    parameters: Mapping[str, Any],
    asked_at: datetime,
    endpoint: str,
    spent: Mapping[str, Any] | None = None,
) -> Receipt:
    """Commit the matches of targets with the observations in the lake, and their coverage.

    A target with an observation that failed counts as failed, so that the next run asks again. If its missing
    observations were all rejected, so is the target. Either has its matches with the other observations.

    Parameters
    ----------
    targets
        Columns of table targets.
    found
        Rows of xtemaster near them.
    extraction, parameters
        Of the request.
    asked_at, endpoint
        Time and address of the question to xtemaster.
    spent
        Requests and retries, for the ledger.
    """
    lake = lake_at(url)
    origin = extraction.origin
    obsids = pc.unique(found.observations["obsid"]).to_pylist()
    known = lake.sql(
        "SELECT sources.source_id, any_value(sources.hpx29) AS hpx29, coalesce(sum(statistics.n), 0)::BIGINT AS n "
        "FROM sources LEFT JOIN statistics USING (archive, release, source_id, hpx29) "
        "WHERE archive = $archive AND release = $release AND source_id IN (SELECT unnest($obsids)) GROUP BY ALL",
        {"archive": origin.name, "release": origin.release, "obsids": obsids},
    )
    pairs = found.matches().drop(["hpx29"]).join(known, "source_id", join_type="left outer")
    pairs = pairs.sort_by([("target_id", "ascending"), ("rank", "ascending")])
    missing = pc.is_null(pairs["hpx29"])
    matches = pairs.filter(pc.invert(missing))
    counts = {row["target_id"]: row for row in _counts(matches)}
    known_status = last_status(lake, origin.name, [origin.release])
    absent: dict[int, str] = {}
    for row in pairs.filter(missing).select(["target_id", "source_id"]).to_pylist():
        is_rejected = known_status.get(extraction.granule(row["source_id"])) == "rejected"
        if not is_rejected or row["target_id"] not in absent:
            absent[row["target_id"]] = "rejected" if is_rejected else "failed"
    ids = targets["target_id"].to_pylist()
    status = [absent.get(one) or ("found" if one in counts else "empty") for one in ids]
    n_sources, n_rows = ([counts.get(one, {}).get(name, 0) for one in ids] for name in ("n_sources", "n_rows"))
    attempt = _attempt(targets, extraction, parameters, asked_at)
    tables = {"coverage": _coverage(targets, attempt, status, n_sources, n_rows)}
    if matches.num_rows:
        ranked = pa.array(ranks(matches["target_id"].to_numpy()))
        columns = matches.select(["target_id", "source_id", "hpx29", "separation_arcsec"])
        tables["matches"] = _keyed(columns.append_column("rank", ranked), attempt)
    done = replace(
        attempt,
        status="done" if matches.num_rows else "empty",
        endpoint=endpoint,
        reason=_remark(found, pairs, missing),
        seconds=(datetime.now(UTC) - asked_at).total_seconds(),
        peak_rss_mb=peak_rss_mb(),
        **(spent or {}),
    )
    return commit(lake.catalog, stage(_folder(lake, attempt), done, tables, known=known))


def give_up(
    url: str, targets: pa.Table, extraction: Extraction, parameters: Mapping[str, Any], error: BaseException
) -> Receipt:
    """Mark targets as failed that could not be looked up; an earlier answer stays."""
    lake, n = lake_at(url), targets.num_rows
    attempt = lost(_attempt(targets, extraction, parameters, datetime.now(UTC)), error)
    tables = {"coverage": _coverage(targets, attempt, ["failed"] * n, [0] * n, [0] * n)}
    return commit(lake.catalog, stage(_folder(lake, attempt), replace(attempt, **facts()), tables))


def _attempt(targets: pa.Table, extraction: Extraction, parameters: Mapping[str, Any], asked_at: datetime) -> Attempt:
    origin = extraction.origin
    granule = granule_id(origin, parameters, *map(str, targets["target_id"].to_pylist()))
    return Attempt(
        origin.name,
        origin.release,
        granule,
        status="failed",
        started_at=asked_at,
        n_targets=targets.num_rows,
        parameters=canonical(parameters),
    )


def _folder(lake: Lake, attempt: Attempt) -> UPath:
    return lake.storage.staging / rxte.NAME / attempt.granule


def _coverage(
    targets: pa.Table, attempt: Attempt, status: Sequence[str], n_sources: Sequence[int], n_rows: Sequence[int]
) -> pa.Table:
    n = targets.num_rows
    coverage = {
        "target_id": targets["target_id"],
        "status": status,
        "n_sources": pa.array(n_sources, pa.int64()),
        "n_rows": pa.array(n_rows, pa.int64()),
        "parameters": [attempt.parameters] * n,
        "asked_at": pa.array([attempt.started_at] * n, pa.timestamp("us", tz="UTC")),
    }
    return _keyed(pa.table(coverage), attempt)


def _counts(matches: pa.Table) -> list[dict[str, Any]]:
    grouped = matches.group_by("target_id").aggregate([([], "count_all"), ("n", "sum")])
    rows: list[dict[str, Any]] = grouped.rename_columns(["target_id", "n_sources", "n_rows"]).to_pylist()
    return rows


def _keyed(table: pa.Table, attempt: Attempt) -> pa.Table:
    for name in ("archive", "release", "granule"):
        table = table.append_column(name, pa.array([getattr(attempt, name)] * table.num_rows, pa.string()))
    return table


def _remark(found: Found, pairs: pa.Table, missing: pa.ChunkedArray) -> str | None:
    """Return the ledger's remark on missing observations and on unusable rows of xtemaster."""
    remarks = []
    if missing_ids := pc.unique(pairs.filter(missing)["source_id"]).to_pylist():
        some = ", ".join(missing_ids[:5]) + (", ..." if len(missing_ids) > 5 else "")
        remarks.append(f"{len(missing_ids)} observations are not in the lake: {some}")
    reasons = found.unusable["reason"].value_counts().to_pylist()
    remarks += [f"{one['counts']} rows of xtemaster: {one['values']}" for one in reasons]
    return "; ".join(remarks) or None
