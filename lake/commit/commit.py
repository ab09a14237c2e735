"""Commit staged granules to the lake, in one transaction.

The rule: data and ledger cannot disagree, a source's rows exist once, and a crash at any point leaves either the old
state or the new one.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.commit import ledger
from lake.commit.ledger import Attempt
from lake.commit.staging import Manifest, check_staged
from lake.commit.transaction import Change, write
from lake.model.declared import source_tables, table_named
from lake.science.sky import HPX_ORDER
from lake.store.arrays import distinct
from lake.store.catalog import Catalog
from lake.store.migrations import INLINED_ROWS
from lake.store.storage import read_parquet, remove_folder, write_parquet
from lake.text import file_name

if TYPE_CHECKING:
    from upath import UPath

# A live archive may move a source slightly within a release. Its earlier rows are searched in the pixels of this order
# (26 arcsec wide) around its new position.
_MOVED_ORDER = 13
# A file of the ledger costs each later commit more than so many inserts of a few rows cost this one.
_MOST_INSERTS = 10
# Neighbours of at most so many pixels.
_MOST_PIXELS = 10_000


@dataclass(frozen=True)
class Receipt:
    """The result of a commit."""

    granule: str
    status: str
    n_targets: int
    n_sources: int
    n_rows: int
    bytes: int
    replaced: int
    kept: int
    reason: str | None = None
    n_found: int = 0
    n_unanswered: int = 0
    seconds: float = 0.0
    retries: int = 0
    requests: int | None = None
    peak_rss_mb: float | None = None


def commit(catalog: Catalog, manifest: Manifest) -> Receipt:
    """Commit a staged granule, completely or not at all: see `commit_together`."""
    return commit_together(catalog, manifest)[0]


def commit_together(catalog: Catalog, manifest: Manifest) -> list[Receipt]:
    """Commit all granules of a manifest, completely or not at all.

    Unchanged rows of a source that the lake already has stay, and the new copy is dropped; changed rows are replaced.
    Matches and coverage of the granules' targets are replaced. Committing the same manifest again does nothing.

    Returns
    -------
    list of Receipt
        One for each granule, in order. The first has the numbers of replaced and kept sources of all.

    Raises
    ------
    StagingLost
        If the staged files are not those of the manifest.
    CatalogError
        If the catalogue cannot be locked or written.
    """

    def work(number: int) -> tuple[int, int]:
        # One transaction from the first query on: outside of one, DuckLake reads its catalogue for each query.
        with Change(catalog, number) as change:
            numbers = ledger.numbers(change.cursor, manifest.attempts)
            if numbers is None:
                return 0, 0
            check_staged(catalog.storage, manifest)
            return _Merge(change, catalog, manifest).run(numbers)

    replaced, kept = write(catalog, work)
    remove_folder(catalog.storage.path(manifest.folder))
    catalog.committed()
    first, *others = manifest.attempts
    return [_receipt(first, replaced, kept), *(_receipt(attempt, 0, 0) for attempt in others)]


def _receipt(attempt: Attempt, replaced: int, kept: int) -> Receipt:
    return Receipt(
        attempt.granule,
        attempt.status,
        attempt.n_targets,
        attempt.n_sources,
        attempt.n_rows,
        attempt.bytes,
        replaced,
        kept,
        attempt.reason,
        attempt.n_found,
        attempt.n_unanswered,
        attempt.seconds,
        attempt.retries,
        attempt.requests,
        attempt.peak_rss_mb,
    )


class _Merge:
    """One commit: which rows overlap, which files are published, and the transaction."""

    def __init__(self, change: Change, catalog: Catalog, manifest: Manifest) -> None:
        self.change = change
        self.cursor = change.cursor
        self.storage = storage = catalog.storage
        self.folder = storage.path(manifest.folder)
        self.attempts = manifest.attempts
        self.scope = [manifest.attempt.archive, manifest.attempt.release]
        self.of_sources = source_tables(manifest.attempt.archive)
        self.staged = {file.table: self.folder / file.name for file in manifest.files}
        self.checksums = {self.folder / file.name: file.blake2b for file in manifest.files}

    def run(self, numbers: Sequence[int]) -> tuple[int, int]:
        """Run it; return how many sources were replaced, and how many kept."""
        # Statistics follow from light curves.
        compared = tuple(table for table in self.of_sources if table != "statistics")
        changed, same = self._overlap("source_id", compared, pruned_by="hpx29")
        changed_exposures, same_exposures = self._overlap("exposure_id", ("exposures",), pruned_by="exposure_id")
        moved = self._moved(changed)
        removed = self._removed()
        paths: dict[str, UPath | None] = {}
        answered = None
        for table, path in self.staged.items():
            paths[table] = path
            if table in self.of_sources:
                paths[table] = self._without(path, "source_id", same)
            elif table == "exposures":
                paths[table] = self._without(path, "exposure_id", same_exposures)
            elif table == "matches":
                paths[table] = self._without(path, "target_id", removed)
            elif table == "coverage":
                unwanted = [removed]
                if any(attempt.status not in ("done", "empty") for attempt in self.attempts):
                    answered = self._answered(path)
                    unwanted.append(answered.select(["target_id"]))
                paths[table] = self._without(path, "target_id", pa.concat_tables(unwanted))
        snapshot = self.cursor.execute("FROM ducklake_current_snapshot('lake')").fetchall()[0][0] + 1
        if len(self.attempts) > _MOST_INSERTS * INLINED_ROWS:
            path = paths["ledger"] = self.folder / "ledger.parquet"
            write_parquet(ledger.rows(self.attempts, numbers, snapshot), path)
        name = f"{file_name(self.attempts[0].granule)}-{uuid.uuid4().hex[:8]}.parquet"
        moves = {
            table: (path, self.storage.table_folder(table, self._partition(table)) / name)
            for table, path in paths.items()
            if path is not None
        }

        def rewrites() -> list[str]:
            rewritten = [*self.of_sources] if changed.num_rows else []
            for table in self.of_sources:
                self._delete(table, "source_id", changed, "hpx29")
            self._delete("exposures", "exposure_id", changed_exposures, "exposure_id")
            rewritten += ["exposures"] if changed_exposures.num_rows else []
            if "coverage" in moves and self._delete_targets(moves["coverage"][1]):
                rewritten += ["coverage", "matches"]
            if answered is not None and self._reject(answered):
                rewritten += ["coverage"]
            self._follow(moved)
            rewritten += ["matches"] if moved.num_rows else []
            if "ledger" not in moves:
                ledger.record(self.cursor, self.attempts, numbers, snapshot)
            return rewritten

        self.change.bring_in(moves, rewrites, self.checksums, archive=self.scope[0])
        return changed.num_rows, same.num_rows

    def _partition(self, table: str) -> str | None:
        return self.scope[0] if table_named(table).partition else None

    def _overlap(self, key: str, tables: Sequence[str], pruned_by: str) -> tuple[pa.Table, pa.Table]:
        """Return the staged keys that the lake has with different content, and with the same.

        Column bound is the value of pruned_by in the lake.
        """
        main = tables[0]
        if main not in self.staged:
            none = pa.table({key: pa.array([], pa.string()), "bound": pa.array([], pa.int64())})
            return none, none
        keys = read_parquet(self.staged[main], sorted({key, pruned_by}))
        if pruned_by == "hpx29":
            ranges = _around(keys["hpx29"].to_numpy())
        else:
            ranges = [tuple(pc.min_max(keys[pruned_by]).as_py().values())]
        scope = list(self.scope)
        where = f"archive = ? AND release = ? AND {pruned_by} BETWEEN ? AND ?"
        self.cursor.register("offered", keys)
        # One SELECT for each range: DuckLake skips files for a BETWEEN, not for several joined by OR. And only this
        # column selects files: for each further column, DuckLake searches the statistics of all files again.
        near = " UNION ALL ".join(
            f"SELECT {key}, {pruned_by} AS bound, archive, release FROM {main} WHERE {pruned_by} BETWEEN ? AND ?"
            for _ in ranges
        )
        known = self.cursor.execute(
            f"WITH near AS MATERIALIZED ({near}) SELECT {key}, bound FROM near "
            f"WHERE archive = ? AND release = ? AND {key} IN (SELECT {key} FROM offered)",
            [*(value for pair in ranges for value in pair), *scope],
        ).to_arrow_table()
        self.cursor.unregister("offered")
        if not known.num_rows:
            return known, known
        scope += pc.min_max(known["bound"]).as_py().values()
        self.cursor.register("known", known)
        differing: set[str] = set()
        for table in tables:
            # Column granule is not content.
            spec = table_named(table)
            columns = ", ".join(c for c in spec.names if c not in ("granule", spec.partition))
            theirs = f"SELECT {columns} FROM {table} SEMI JOIN known USING ({key}) WHERE {where}"
            if table in self.staged:
                mine = f"SELECT {columns} FROM read_parquet(?, hive_partitioning = false) SEMI JOIN known USING ({key})"
                path = str(self.staged[table])
                rows = self.cursor.execute(
                    f"SELECT DISTINCT {key} FROM (({mine}) EXCEPT ALL ({theirs}) "
                    f"UNION ALL (({theirs}) EXCEPT ALL ({mine})))",
                    [path, *scope, *scope, path],
                ).fetchall()
            else:
                rows = self.cursor.execute(f"SELECT DISTINCT {key} FROM ({theirs})", scope).fetchall()
            differing.update(row[0] for row in rows)
        self.cursor.unregister("known")
        is_changed = pc.is_in(known[key], value_set=pa.array(sorted(differing), pa.string()))
        return known.filter(is_changed), known.filter(pc.invert(is_changed))

    def _moved(self, changed: pa.Table) -> pa.Table:
        """Return the changed sources that have another position now."""
        if not changed.num_rows:
            return changed
        now = read_parquet(self.staged["sources"], ["source_id", "hpx29"])
        both = changed.join(now, "source_id")
        return both.filter(pc.not_equal(both["bound"], both["hpx29"]))

    def _follow(self, moved: pa.Table) -> None:
        """Point matches of other granules to the new pixels of moved sources."""
        if moved.num_rows:
            self.cursor.register("moved", moved)
            self.cursor.execute(
                "UPDATE matches SET hpx29 = moved.hpx29 FROM moved "
                "WHERE archive = ? AND release = ? AND matches.source_id = moved.source_id",
                self.scope,
            )
            self.cursor.unregister("moved")

    def _without(self, path: UPath, key: str, keys: pa.Table) -> UPath | None:
        """Return the staged file without some keys: the same file, a smaller one, or None."""
        if not keys.num_rows:
            return path
        table = read_parquet(path)
        rest = table.filter(pc.invert(pc.is_in(table[key], value_set=keys[key].combine_chunks())))
        if not rest.num_rows:
            return None
        smaller = path.with_name(f"rest-{path.name}")
        write_parquet(rest, smaller)
        return smaller

    def _removed(self) -> pa.Table:
        """Return the requested targets that were removed from the lake since."""
        if "coverage" not in self.staged:
            return pa.table({"target_id": pa.array([], pa.int64())})
        asked = pc.unique(read_parquet(self.staged["coverage"], ["target_id"])["target_id"])
        bounds = pc.min_max(asked).as_py()
        there = self.cursor.execute(
            "SELECT target_id FROM targets WHERE target_id BETWEEN ? AND ?", [bounds["min"], bounds["max"]]
        ).to_arrow_table()
        gone = pc.invert(pc.is_in(asked, value_set=there["target_id"].combine_chunks()))
        return pa.table({"target_id": asked.filter(gone)})

    def _answered(self, path: UPath) -> pa.Table:
        """Return the staged rows of targets that got no sound answer now, but have an earlier one: that one stays."""
        return self.cursor.execute(
            "SELECT staged.* FROM (SELECT target_id, status, parameters, asked_at, granule FROM "
            "read_parquet(?, hive_partitioning = false) WHERE status IN ('failed', 'rejected')) AS staged "
            "SEMI JOIN (SELECT target_id FROM coverage WHERE archive = ? AND release = ? "
            "AND status IN ('found', 'empty')) USING (target_id)",
            [str(path), *self.scope],
        ).to_arrow_table()

    def _reject(self, answered: pa.Table) -> bool:
        """Note that the newest answer on targets was rejected, beside the earlier one; say whether there are any."""
        rejected = answered.filter(pc.equal(answered["status"], "rejected"))
        if rejected.num_rows:
            self.cursor.register("rejected", rejected)
            self.cursor.execute(
                "UPDATE coverage SET status = 'rejected', parameters = rejected.parameters, "
                "asked_at = rejected.asked_at, granule = rejected.granule FROM rejected "
                "WHERE archive = ? AND release = ? AND coverage.target_id = rejected.target_id",
                self.scope,
            )
            self.cursor.unregister("rejected")
        return bool(rejected.num_rows)

    def _delete(self, table: str, key: str, keys: pa.Table, pruned_by: str) -> None:
        if not keys.num_rows:
            return
        bounds = pc.min_max(keys["bound"]).as_py()
        self.cursor.register("outgoing", keys)
        self.cursor.execute(
            f"DELETE FROM {table} WHERE archive = ? AND release = ? AND {pruned_by} BETWEEN ? AND ? "
            f"AND {key} IN (SELECT {key} FROM outgoing)",
            [*self.scope, bounds["min"], bounds["max"]],
        )
        self.cursor.unregister("outgoing")

    def _delete_targets(self, coverage: UPath) -> bool:
        """Delete coverage and matches of earlier pulls for the granule's targets; return whether there were any."""
        targets = read_parquet(coverage, ["target_id"])
        bounds = pc.min_max(targets["target_id"]).as_py()
        self.cursor.register("asked", targets)
        where = (
            "WHERE archive = ? AND release = ? AND target_id BETWEEN ? AND ? "
            "AND target_id IN (SELECT target_id FROM asked)"
        )
        scope = [*self.scope, bounds["min"], bounds["max"]]
        # Most targets are new. No target has matches without coverage: see lake.commit.validate.
        known = self.cursor.execute(
            "WITH near AS MATERIALIZED "  # by target_id alone, as in _overlap
            "(SELECT archive, release, target_id FROM coverage WHERE target_id BETWEEN ? AND ?) "
            "SELECT count(*) FROM near WHERE archive = ? AND release = ? "
            "AND target_id IN (SELECT target_id FROM asked)",
            [*scope[2:], *scope[:2]],
        ).fetchall()
        if known[0][0]:
            self.cursor.execute(f"DELETE FROM coverage {where}", scope)
            self.cursor.execute(f"DELETE FROM matches {where}", scope)
        self.cursor.unregister("asked")
        return bool(known[0][0])


def _around(pixels: np.ndarray) -> list[tuple[int, int]]:
    """Return ranges of hpx29 that cover some pixels and their neighbours."""
    order = _MOVED_ORDER
    own = distinct(pixels >> 2 * (HPX_ORDER - order))
    # Wider pixels have wider neighbours: that covers what is asked, and costs less where there are many.
    while own.size > _MOST_PIXELS:
        order -= 1
        own = distinct(own >> 2)
    shift = 2 * (HPX_ORDER - order)
    near = distinct(np.append(own, hpgeom.neighbors(2**order, own)))
    near = near[near >= 0]  # -1 is a missing neighbour
    # Adjacent pixels may be far apart in the index: then two ranges, at the cost of one SELECT each.
    widest = int(np.argmax(np.diff(near)))
    far = near[widest + 1] - near[widest] > (near[-1] - near[0]) / 2
    parts = np.split(near, [widest + 1] if far else [])
    return [(int(part[0]) << shift, (int(part[-1]) + 1 << shift) - 1) for part in parts]
