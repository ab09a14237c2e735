"""Matches and coverage of targets, once the observations near them are in the lake: what pointed surveys share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lake.commit.aliases import keep_aliases
from lake.commit.commit import Receipt, commit
from lake.commit.ledger import Attempt, canonical
from lake.commit.staging import lost, stage
from lake.commit.targets import add_targets
from lake.errors import ConfigurationError
from lake.query import Lake
from lake.science.sky import ranks
from lake.store.memory import peak_rss_mb
from lake.text import one_line
from tasks.services.request_counters import facts
from tasks.sources.base import Origin
from tasks.sources.granule_status import last_status

if TYPE_CHECKING:
    from upath import UPath

# Ids that a remark names.
_NAMED = 5


def target_of(lake: Lake, target: str, sample: str) -> pa.Table:
    """Return the row of table targets for a name or a position; register a new one.

    A name that the lake does not have is looked up in the names that it keeps, and then by name services. The object is
    the target within an arcsecond of it, or a new one.

    Parameters
    ----------
    target
        A name; or right ascension and declination, ICRS degrees, with a space or comma between.

    sample
        Where a new target goes.

    Raises
    ------
    ConfigurationError
        If nobody knows the name, several targets or objects have it, or the text is no valid position.
    ArchiveError
        If the name is none of the lake's, and a name service does not answer.
    """
    from tasks.samples.by_name import known_target, object_named

    place = place_of(target)
    if place is None:
        wanted = known_target(lake, target)
        if wanted is None:
            found = object_named(lake, target)
            add_targets(lake.catalog, found.targets, sample, aliases=found.aliases)
            wanted = lake.target_id(target.strip())
    else:
        ra, dec = place
        from astropy.coordinates import SkyCoord

        add_targets(lake.catalog, pa.table({"ra": [ra], "dec": [dec], "name": [target.strip()]}), sample)
        wanted = lake.target_id(SkyCoord(ra, dec, unit="deg"))
    row: pa.Table = lake.sql("SELECT * FROM targets WHERE target_id = ?", [wanted])
    return row


def check_target(lake: Lake, target: str) -> str | None:
    """See that a name or a position stands for a target; keep what services say of a name, and add nothing else.

    Returns
    -------
    str or None
        In words, the object that the name stands for; None if it is one of the lake's, or a position.

    Raises
    ------
    ConfigurationError, ArchiveError
        As of `target_of`.
    """
    from tasks.samples.by_name import known_target, object_named

    if place_of(target) is not None or known_target(lake, target) is not None:
        return None
    found = object_named(lake, target)
    if found.aliases is None:
        return None
    keep_aliases(lake.catalog, found.aliases.drop_columns(["row"]))
    one = found.aliases.slice(0, 1).to_pylist()[0]
    by = f"by {one['service'].upper()}" if one["service"] else "by the position in its name"
    return one_line(f"{target} is {one['canonical_name']} {by}, at {one['ra']:.5f} {one['dec']:+.5f}")


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


def granule_id(origin: Origin, parameters: Mapping[str, Any], *inputs: str) -> str:
    """Return the id of a granule: the same for the same release, parameters and inputs."""
    key = "\n".join((origin.release, canonical(parameters), *inputs))
    return f"{origin.name}-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"


@dataclass(frozen=True)
class Question:
    """What was asked about some targets.

    Parameters
    ----------
    origin
        Archive and release of the observations.
    parameters
        Of the question, as coverage has them.
    targets
        Columns of table targets.
    asked_at, endpoint
        When, and of whom.
    """

    origin: Origin
    parameters: Mapping[str, Any]
    targets: pa.Table
    asked_at: datetime
    endpoint: str

    @property
    def attempt(self) -> Attempt:
        """Return the attempt at its granule."""
        ids = map(str, self.targets["target_id"].to_pylist())
        return Attempt(
            self.origin.name,
            self.origin.release,
            granule_id(self.origin, self.parameters, *ids),
            status="failed",
            started_at=self.asked_at,
            n_targets=self.targets.num_rows,
            parameters=canonical(self.parameters),
            endpoint=self.endpoint,
        )


def answer(
    lake: Lake,
    question: Question,
    pairs: pa.Table,
    granule_of: Callable[[str], str],
    remarks: Sequence[str] = (),
    spent: Mapping[str, Any] | None = None,
) -> Receipt:
    """Commit the matches of targets with the observations in the lake, and their coverage.

    A target with an observation that failed counts as failed, so that the next run asks again. If its missing
    observations were all rejected, so is the target. Either has its matches with the other observations.

    Parameters
    ----------
    pairs
        Columns target_id, source_id and separation_arcsec: observations near targets.
    granule_of
        Returns the granule of an observation, whose attempts the ledger has.
    remarks
        For the ledger.
    spent
        Requests and retries, for the ledger.
    """
    origin, targets = question.origin, question.targets
    known = lake.sql(
        "SELECT sources.source_id, any_value(sources.hpx29) AS hpx29, coalesce(sum(statistics.n), 0)::BIGINT AS n "
        "FROM sources LEFT JOIN statistics USING (archive, release, source_id, hpx29) "
        "WHERE archive = $archive AND release = $release AND source_id IN (SELECT unnest($ids)) GROUP BY ALL",
        {"archive": origin.name, "release": origin.release, "ids": pc.unique(pairs["source_id"]).to_pylist()},
    )
    pairs = pairs.join(known, "source_id", join_type="left outer")
    pairs = pairs.sort_by([("target_id", "ascending"), ("separation_arcsec", "ascending"), ("source_id", "ascending")])
    missing = pc.is_null(pairs["hpx29"])
    matches = pairs.filter(pc.invert(missing))
    counts = {row["target_id"]: row for row in _counts(matches)}
    absent = _absent(lake, origin, pairs.filter(missing), granule_of)
    ids = targets["target_id"].to_pylist()
    status = [absent.get(one) or ("found" if one in counts else "empty") for one in ids]
    n_sources, n_rows = ([counts.get(one, {}).get(name, 0) for one in ids] for name in ("n_sources", "n_rows"))
    attempt = question.attempt
    tables = {"coverage": _coverage(targets, attempt, status, n_sources, n_rows)}
    if matches.num_rows:
        columns = matches.select(["target_id", "source_id", "hpx29", "separation_arcsec"])
        ranked = pa.array(ranks(matches["target_id"].to_numpy()))
        tables["matches"] = _keyed(columns.append_column("rank", ranked), attempt)
    done = replace(
        attempt,
        status="done" if matches.num_rows else "empty",
        reason="; ".join([*_missing(pairs, missing), *remarks]) or None,
        seconds=(datetime.now(UTC) - question.asked_at).total_seconds(),
        peak_rss_mb=peak_rss_mb(),
        **(spent or {}),
    )
    return commit(lake.catalog, stage(_folder(lake, attempt), done, tables, known=known))


def give_up(lake: Lake, question: Question, error: BaseException) -> Receipt:
    """Mark targets as failed that could not be looked up; an earlier answer stays."""
    n, attempt = question.targets.num_rows, lost(question.attempt, error)
    tables = {"coverage": _coverage(question.targets, attempt, ["failed"] * n, [0] * n, [0] * n)}
    return commit(lake.catalog, stage(_folder(lake, attempt), replace(attempt, **facts()), tables))


def _absent(lake: Lake, origin: Origin, pairs: pa.Table, granule_of: Callable[[str], str]) -> dict[int, str]:
    """Return failed or rejected of each target that has observations which are not in the lake."""
    if not pairs.num_rows:
        return {}
    known = last_status(lake, origin.name, [origin.release])
    found: dict[int, str] = {}
    for target, source in zip(pairs["target_id"].to_pylist(), pairs["source_id"].to_pylist(), strict=True):
        is_rejected = known.get(granule_of(source)) == "rejected"
        if not is_rejected or target not in found:
            found[target] = "rejected" if is_rejected else "failed"
    return found


def _missing(pairs: pa.Table, missing: pa.ChunkedArray) -> list[str]:
    ids = sorted(pc.unique(pairs.filter(missing)["source_id"]).to_pylist())
    if not ids:
        return []
    some = ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")
    return [f"{len(ids)} observation{'s are' if len(ids) > 1 else ' is'} not in the lake: {some}"]


def _folder(lake: Lake, attempt: Attempt) -> UPath:
    return lake.storage.staging / attempt.archive / attempt.granule


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
