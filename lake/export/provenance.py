"""Say in an exported file where its rows come from: the lake, its snapshot, the archives and their terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from lake.export.citations import Citation, papers_of_samples
from lake.query import Lake
from lake.store.identity import tree_id
from lake.store.migrations import SOFTWARE


@dataclass(frozen=True)
class Provenance:
    """Where exported rows come from.

    Parameters
    ----------
    lake_id
        Id of the lake.
    snapshot_id
        Snapshot of its catalogue that was read.
    sample
        The sample; None: all targets.
    archives, bands
        Rows of these tables, of the archives that were exported.
    made_at
        When.
    cite
        What a paper must say: see `lightlake cite`.
    """

    lake_id: str | None
    snapshot_id: int
    sample: str | None
    archives: list[dict[str, Any]]
    bands: list[dict[str, Any]]
    made_at: datetime
    cite: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Convert it to plain data, for JSON."""
        return {
            "software": SOFTWARE,
            "lake_id": self.lake_id,
            "snapshot_id": self.snapshot_id,
            "sample": self.sample,
            "made_at": f"{self.made_at:%Y-%m-%dT%H:%M:%SZ}",
            "archives": self.archives,
            "bands": self.bands,
            "cite": self.cite,
        }


def current_snapshot(lake: Lake, within: duckdb.DuckDBPyConnection | None = None) -> int:
    """Return the id of the lake's newest snapshot, or of the one that a transaction sees.

    Examples
    --------
    >>> import lake
    >>> with lake.open("my-lake") as opened:
    ...     current_snapshot(opened) > 2
    True
    """
    return int(lake.run("FROM ducklake_current_snapshot('lake')", None, within=within)["id"][0].as_py())


def provenance(lake: Lake, snapshot: int, sample: str | None, archives: Sequence[str] | None = None) -> Provenance:
    """Read the provenance of rows from the lake.

    Parameters
    ----------
    lake
        The lake.
    snapshot
        Snapshot that is exported.
    sample
        Sample that is exported; None: all targets.
    archives
        Archives that are exported; None: all that answered for one of the targets.
    """
    used: list[str] = lake.run(
        f"""
        SELECT DISTINCT archive FROM coverage AT (VERSION => {snapshot})
        WHERE n_rows > 0 AND ($archives IS NULL OR list_contains($archives, archive)) AND ($sample IS NULL
            OR target_id IN (SELECT target_id FROM labels AT (VERSION => {snapshot}) WHERE sample = $sample))
        ORDER BY ALL
        """,
        {"archives": None if archives is None else list(archives), "sample": sample},
    )["archive"].to_pylist()
    tables = [
        lake.run(
            f"FROM {table} AT (VERSION => {snapshot}) WHERE list_contains($used, archive) ORDER BY ALL", {"used": used}
        ).to_pylist()
        for table in ("archives", "bands")
    ]
    samples = [sample] if sample else lake.run("SELECT DISTINCT sample FROM labels", None)["sample"].to_pylist()
    (made,) = lake.run("SELECT snapshot_time FROM ducklake_snapshots('lake') WHERE snapshot_id = ?", [snapshot])[
        "snapshot_time"
    ].to_pylist()
    lake_id = tree_id(lake.storage)
    named = papers_of_samples(samples, lake.run)
    time = f"{made.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    said = Citation(tables[0], named, snapshot, time, lake_id, is_exact=True).lines()
    return Provenance(lake_id, snapshot, sample, tables[0], tables[1], datetime.now(UTC), said)
