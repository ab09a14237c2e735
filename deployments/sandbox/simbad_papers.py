"""Papers of the stand-in for SIMBAD: tables `has_ref` and `ref`, and the papers' objects in table `basic`."""

from __future__ import annotations

import pyarrow as pa

from deployments.sandbox.papers import Papers
from deployments.sandbox.tap import TapService

_TABLES = """
ALTER TABLE basic ADD COLUMN IF NOT EXISTS rvz_redshift DOUBLE;
CREATE TABLE IF NOT EXISTS ref (oidbib BIGINT, bibcode VARCHAR);
CREATE TABLE IF NOT EXISTS has_ref (oidref BIGINT, oidbibref BIGINT, obj_freq SMALLINT);
"""


def add(service: TapService, papers: Papers) -> None:
    """Add papers, with their objects, to a service that has the tables `basic` and `ident`."""
    cursor = service._db.cursor()
    cursor.execute(_TABLES)
    oid = cursor.execute("SELECT coalesce(max(oid), 0) FROM basic").fetchall()[0][0]
    oidbib = cursor.execute("SELECT coalesce(max(oidbib), 0) FROM ref").fetchall()[0][0]
    for bibcode, objects in papers.items():
        oidbib += 1
        cursor.execute("INSERT INTO ref VALUES (?, ?)", [oidbib, bibcode])
        ids = list(range(oid + 1, oid + 1 + len(objects)))
        oid += len(objects)
        rows = pa.table(
            {
                "oid": pa.array(ids, pa.int64()),
                "main_id": pa.array([one.name for one in objects], pa.string()),
                "ra": pa.array([one.ra for one in objects], pa.float64()),
                "dec": pa.array([one.dec for one in objects], pa.float64()),
                "rvz_redshift": pa.array([one.redshift for one in objects], pa.float64()),
            }
        )
        cursor.register("objects", rows)
        cursor.execute("INSERT INTO basic BY NAME FROM objects")
        cursor.execute("INSERT INTO ident BY NAME SELECT main_id AS id, oid AS oidref FROM objects")
        cursor.execute(f"INSERT INTO has_ref SELECT oid, {oidbib}, NULL FROM objects")
        cursor.unregister("objects")
    cursor.close()
