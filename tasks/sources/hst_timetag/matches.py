"""Say which exposures of the lake are near which targets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.commit.ledger import canonical
from lake.query import Lake
from lake.science.motion import Paths, julian_year
from tasks.sources.granule_status import last_status
from tasks.sources.hst_timetag.files import Piece
from tasks.sources.hst_timetag.find import SPAN
from tasks.sources.hst_timetag.tables import NAME, ORIGIN
from tasks.sources.hst_timetag.work import Job

PAIRS = pa.schema([("target_id", pa.int64()), ("source_id", pa.string()), ("separation_arcsec", pa.float64())])


@dataclass(frozen=True)
class Listed:
    """What MAST lists: which dataset is near which target, and the files of its exposures.

    Parameters
    ----------
    matches
        Rows of `MATCHES` of tasks.sources.hst_timetag.find: of datasets, which may be associations.
    exposures
        Rows of `EXPOSURES` with associations resolved.
    pieces
        Their files.
    remarks
        What was left out.
    """

    matches: pa.Table
    exposures: pa.Table
    pieces: Sequence[Piece]
    remarks: tuple[str, ...] = ()

    def pairs(self, lake: Lake, parameters: Mapping[str, Any]) -> tuple[pa.Table, Callable[[str], str]]:
        """Return targets with the exposures near them, and what returns the granule of an exposure.

        A file may hold several exposures. One that is not in the lake goes by the name of its file. Files of lamps
        alone hold no exposure.
        """
        granules = {one.rootname: Job(one.rootname, (one,)).granule(parameters) for one in self.pieces}
        rows = _of_granules(lake, granules.values())
        sources: dict[str, list[str]] = {}
        for row in rows.select(["granule", "source_id"]).to_pylist():
            sources.setdefault(row["granule"], []).append(row["source_id"])
        status = last_status(lake, NAME, [ORIGIN.release])
        members: dict[str, set[str]] = {}
        for row in self.exposures.select(["exposure_id", "association"]).to_pylist():
            for name in {row["exposure_id"], row["association"]} - {None}:
                members.setdefault(name, set()).add(row["exposure_id"])
        nearest: dict[tuple[int, str], float] = {}
        granule_of: dict[str, str] = {}
        for row in self.matches.to_pylist():
            for rootname in members.get(row["exposure_id"], ()):
                granule = granules[rootname]
                nothing = [] if status.get(granule) == "empty" else [rootname]
                for source in sources.get(granule, nothing):
                    key = row["target_id"], source
                    nearest[key] = min(nearest.get(key, np.inf), row["separation_arcsec"])
                    granule_of[source] = granule
        made = [
            {"target_id": target, "source_id": source, "separation_arcsec": separation}
            for (target, source), separation in nearest.items()
        ]
        return pa.Table.from_pylist(made, PAIRS), lambda source: granule_of[source]


def near_targets(lake: Lake, granules: Collection[str], radius_arcsec: float) -> tuple[pa.Table, pa.Table]:
    """Return the targets of the lake near exposures of some granules, and all exposures of the lake near these."""
    targets = lake.sql("SELECT * FROM targets ORDER BY hpx29")
    mine, every = _of_granules(lake, granules), _of_granules(lake, None)
    if not targets.num_rows or not mine.num_rows:
        return targets.slice(0, 0), PAIRS.empty_table()
    chosen = pc.unique(_matched(targets, mine, radius_arcsec)["target_id"])
    targets = targets.filter(pc.is_in(targets["target_id"], value_set=chosen))
    return targets, _matched(targets, every, radius_arcsec) if targets.num_rows else PAIRS.empty_table()


def is_known(lake: Lake, parameters: Mapping[str, Any], targets: pa.Table, pairs: pa.Table) -> bool:
    """Say whether the lake has exactly these matches of targets, as the answer to the same question."""
    ids = targets["target_id"].to_pylist()
    answered = lake.sql(
        "SELECT DISTINCT target_id FROM coverage WHERE archive = $archive AND status = 'found' "
        "AND parameters = $parameters AND target_id IN (SELECT unnest($ids))",
        {"archive": NAME, "parameters": canonical(parameters), "ids": ids},
    )
    known = lake.sql(
        "SELECT target_id, source_id, separation_arcsec FROM matches "
        "WHERE archive = $archive AND target_id IN (SELECT unnest($ids))",
        {"archive": NAME, "ids": ids},
    )
    return set(answered["target_id"].to_pylist()) == set(ids) and _rounded(known) == _rounded(pairs)


def _rounded(pairs: pa.Table) -> set[tuple[int, str, float]]:
    columns = (pairs[name].to_pylist() for name in PAIRS.names)
    return {(target, source, round(separation, 6)) for target, source, separation in zip(*columns, strict=True)}


def _matched(targets: pa.Table, exposures: pa.Table, radius_arcsec: float) -> pa.Table:
    ra, dec, mjd = (exposures[name].to_numpy() for name in ("ra", "dec", "mjd_start"))
    everything = np.arange(len(ra))
    i, j, separation = Paths(targets, SPAN).match(ra, dec, radius_arcsec, (everything, julian_year(mjd)))
    return pa.table(
        [targets["target_id"].take(pa.array(i)), exposures["source_id"].take(pa.array(j)), pa.array(separation)],
        schema=PAIRS,
    )


def _of_granules(lake: Lake, granules: Collection[str] | None) -> pa.Table:
    """Return the exposures of some granules that are in the lake, or all, except those of moving targets."""
    rows: pa.Table = lake.sql(
        "SELECT source_id, granule, mjd_start, ra, dec FROM hst_exposures "
        "JOIN sources USING (archive, release, source_id, hpx29, granule) "
        "WHERE product = 'exposure' AND NOT is_moving AND ($all OR granule IN (SELECT unnest($granules)))",
        {"all": granules is None, "granules": list(granules or ())},
    )
    return rows
