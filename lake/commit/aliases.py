"""Keep what name services said in table aliases: a name, the object that it stands for, and the target that this is.

Rows of other methods than those here are a source's own: they have no position, and are not touched.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import duckdb
import pyarrow as pa

from lake.commit.transaction import Change, stage_rows, write
from lake.model.schema import TABLES
from lake.store.catalog import Catalog
from lake.store.storage import remove_folder

IDENTIFIER, BY_SESAME, POSITION_IN_NAME, OTHER_NAME = "identifier", "sesame", "position_in_name", "other_name"
"""How the object of a name was found: as an identifier of SIMBAD, by Sesame, by the coordinates in it; or the name came
with an object as one of its other names."""

ASKED = (IDENTIFIER, BY_SESAME, POSITION_IN_NAME)
"""Methods of names that were asked for: there is one row for each name."""

METHODS = (*ASKED, OTHER_NAME)

_KEY = TABLES["aliases"].key
_CONTENT = [name for name in TABLES["aliases"].names if name not in (*_KEY, "asked_at", "target_id")]
_SAME = " AND ".join(f"kept.{name} = offered.{name}" for name in _KEY)
_IN = "('" + "', '".join(ASKED) + "')"
_OURS = "('" + "', '".join(METHODS) + "')"


def keep_aliases(catalog: Catalog, rows: pa.Table) -> int:
    """Keep what services said of some names; return how many rows were new or are others now.

    Parameters
    ----------
    catalog
        The lake.
    rows
        Of table aliases, with methods out of `METHODS`.
    """
    folder = catalog.storage.staging / f"aliases-{uuid.uuid4().hex}"

    def work(number: int) -> int:
        with Change(catalog, number) as change:
            fresh = fresh_rows(change.cursor, rows)
            if moves := stage_rows(catalog.storage, folder, {"aliases": fresh}):
                change.bring_in(moves, lambda: replace_rows(change.cursor, fresh))
            return int(fresh.num_rows)

    try:
        return write(catalog, work)
    finally:
        remove_folder(folder)


def fresh_rows(cursor: duckdb.DuckDBPyConnection, rows: pa.Table) -> pa.Table:
    """Return the rows that the lake does not have so, and kept names of the same objects that get a target now.

    A name that belongs to a target stays with it. When a name was asked is no reason to write it again.
    """
    columns = ", ".join(f"offered.{name}" for name in _CONTENT)
    changed = " OR ".join(f"kept.{name} IS DISTINCT FROM offered.{name}" for name in _CONTENT)
    cursor.register("given", TABLES["aliases"].cast(rows))
    try:
        return cursor.execute(
            f"""
            WITH offered AS MATERIALIZED (
                -- An asked name of an object counts more than the same name as one of its others.
                FROM given QUALIFY row_number() OVER (
                    PARTITION BY name, canonical_name, service
                    ORDER BY method = '{OTHER_NAME}', target_id IS NULL, asked_at
                ) = 1
            ),
            held AS MATERIALIZED (
                SELECT kept.* FROM aliases AS kept WHERE kept.method IN {_OURS} AND (
                    kept.name IN (SELECT name FROM offered)
                    OR kept.canonical_name IN (SELECT canonical_name FROM offered)
                )
            ),
            fresh AS (
                SELECT offered.name, offered.canonical_name, offered.method, offered.asked_at, {columns},
                    coalesce(kept.target_id, offered.target_id) AS target_id
                FROM offered LEFT JOIN held AS kept ON {_SAME}
                WHERE (kept.name IS NULL OR {changed} OR (kept.target_id IS NULL AND offered.target_id IS NOT NULL))
                    AND NOT (offered.method = '{OTHER_NAME}' AND EXISTS (
                        FROM held WHERE held.name = offered.name AND held.canonical_name = offered.canonical_name
                            AND held.method IN {_IN}
                    ))
            ),
            objects AS (
                SELECT canonical_name, service, min(target_id) AS target_id FROM offered
                WHERE target_id IS NOT NULL GROUP BY ALL
            )
            FROM fresh
            UNION ALL BY NAME
            SELECT kept.* REPLACE (objects.target_id AS target_id)
            FROM held AS kept JOIN objects ON objects.canonical_name = kept.canonical_name
                AND objects.service IS NOT DISTINCT FROM kept.service
            WHERE kept.target_id IS NULL AND NOT EXISTS (FROM offered WHERE offered.name = kept.name
                AND (offered.method = kept.method OR offered.method IN {_IN} AND kept.method IN {_IN}))
            """
        ).to_arrow_table()
    finally:
        cursor.unregister("given")


def replace_rows(cursor: duckdb.DuckDBPyConnection, fresh: pa.Table) -> Sequence[str]:
    """Delete the rows in whose place fresh ones come; return the tables in which there were any."""
    cursor.register("offered", fresh)
    try:
        gone = cursor.execute(
            f"DELETE FROM aliases AS kept WHERE kept.name IN (SELECT name FROM offered) AND EXISTS (FROM offered "
            f"WHERE {_SAME} OR (kept.name = offered.name AND kept.method IN {_IN} AND offered.method IN {_IN}))"
        ).fetchall()[0][0]
    finally:
        cursor.unregister("offered")
    return ["aliases"] if gone else []


def forget_targets(cursor: duckdb.DuckDBPyConnection, targets: str) -> None:
    """Keep the answers about targets that are removed, but not that they are targets.

    Parameters
    ----------
    targets
        A table with their target_id.
    """
    chosen = f"target_id IN (SELECT target_id FROM {targets})"
    if cursor.execute(f"SELECT 1 FROM aliases WHERE {chosen} LIMIT 1").fetchall():
        cursor.execute(f"UPDATE aliases SET target_id = NULL WHERE {chosen}")
