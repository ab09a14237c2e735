"""Keep the names of targets, and the groups of exposures that composites are made of, up to date in the lake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from lake.commit.commit import commit
from lake.commit.ledger import Attempt, canonical
from lake.commit.staging import stage
from lake.commit.transaction import Change, write
from lake.model.declared import source_tables
from lake.query import Lake
from tasks.sources.hst_timetag.composites import Group
from tasks.sources.hst_timetag.files import relocated
from tasks.sources.hst_timetag.names import OWN
from tasks.sources.hst_timetag.tables import NAME, ORIGIN
from tasks.sources.hst_timetag.work import Job
from tasks.sources.observed import granule_id

# Exposures whose name means another object by now.
_RENAMED = f"""
    FROM hst_exposures AS e JOIN (FROM aliases WHERE {OWN}) AS a ON a.name = e.target_name
    WHERE e.archive = ? AND e.product = 'exposure' AND e.canonical_name <> a.canonical_name
"""
# What exposures of a composite have in common.
_GROUP = "instrument, detector, canonical_name, grating, cenwave, aperture"

_GROUPS = f"""
    SELECT DISTINCT instrument, detector, coalesce(a.canonical_name, e.canonical_name), grating, cenwave, aperture
    FROM hst_exposures AS e LEFT JOIN (FROM aliases WHERE {OWN}) AS a ON a.name = e.target_name
    WHERE archive = ? AND product = 'exposure'
"""


def unnamed(lake: Lake) -> pa.Table:
    """Return the names of targets without a canonical name, with whether they move."""
    rows: pa.Table = lake.sql(
        "SELECT target_name, bool_or(is_moving) AS is_moving FROM hst_exposures "
        f"WHERE product = 'exposure' AND target_name NOT IN (SELECT name FROM aliases WHERE {OWN}) "
        "GROUP BY ALL ORDER BY ALL"
    )
    return rows


def commit_names(lake: Lake, rows: pa.Table) -> None:
    """Commit canonical names to table aliases."""
    if rows.num_rows:
        granule = granule_id(ORIGIN, {}, "names", *rows["name"].to_pylist())
        attempt = Attempt(NAME, ORIGIN.release, granule, "done", datetime.now(UTC))
        commit(lake.catalog, stage(lake.storage.staging / NAME / granule, attempt, {"aliases": rows}))


def settle(lake: Lake) -> None:
    """Give exposures the canonical names of their targets; remove composites without a member."""
    with closing(lake.catalog.cursor()) as cursor:
        renamed = cursor.execute(f"SELECT count(*) {_RENAMED}", [NAME]).fetchall()[0][0]
        composites = cursor.execute(
            f"SELECT source_id, {_GROUP} FROM hst_exposures AS c WHERE archive = ? AND product = 'composite'", [NAME]
        ).to_arrow_table()
        left = set(cursor.execute(_GROUPS, [NAME]).fetchall())
    ids = [row["source_id"] for row in composites.to_pylist() if tuple(row.values())[1:] not in left]
    if not renamed and not ids:
        return

    def work(number: int) -> None:
        with Change(lake.catalog, number, rewrites=True) as change:
            change.cursor.execute(
                "UPDATE hst_exposures SET canonical_name = aliases.canonical_name FROM aliases "
                "WHERE archive = ? AND product = 'exposure' AND aliases.name = hst_exposures.target_name "
                f"AND hst_exposures.canonical_name <> aliases.canonical_name AND aliases.{OWN}",
                [NAME],
            )
            for table in source_tables(NAME):
                change.cursor.execute(
                    f"DELETE FROM {table} WHERE archive = ? AND source_id IN (SELECT unnest(?::VARCHAR[]))", [NAME, ids]
                )
            change.keep_aside(source_tables(NAME), NAME)

    write(lake.catalog, work)


def jobs(lake: Lake, parameters: Mapping[str, Any]) -> list[Job]:
    """Return the composites of all groups with an exposure that was extracted with some parameters."""
    rows = lake.sql(
        f"""
        SELECT {_GROUP}, list(source_id ORDER BY source_id) AS members, list(files ORDER BY source_id) AS files
        FROM hst_exposures WHERE product = 'exposure'
        GROUP BY {_GROUP} HAVING bool_or(parameters = ?) ORDER BY {_GROUP}
        """,
        [canonical(parameters)],
    )
    made = []
    for row in rows.to_pylist():
        members, files = row.pop("members"), row.pop("files")
        group = Group(*row.values())
        pieces = tuple(relocated(json.loads(one)) for one in files)
        made.append(Job(group.source_id, pieces, group, tuple(members)))
    return made
