"""Stage Parquet, validate it, and bring it into the lake in one transaction.

The rule that everything here serves: data and ledger cannot disagree, a source's rows exist once,
and a crash at any point leaves either the old state or the new one.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import chain

import duckdb
import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from lake import ledger
from lake.catalog import Catalog
from lake.errors import GranuleRejected, SchemaError, StagingLost
from lake.ledger import Attempt
from lake.schema import SOURCE_TABLES, TABLES
from lake.sky import HPX_ORDER
from lake.storage import (
    Storage,
    checksum,
    decoded,
    parquet_rows,
    read_parquet,
    remove_folder,
    write_parquet,
    write_text,
)
from lake.transaction import recover, transact
from lake.validate import validate, validate_rows

MANIFEST = "manifest.json"
_CONFLICT_RETRIES = 5

# An archive that goes on observing may move a source a little within a release. Its earlier rows are looked
# for in the pixels of this order (26 arcsec wide) around its new place.
_MOVED_ORDER = 13


@dataclass(frozen=True)
class StagedFile:
    """One Parquet file that waits for its commit."""

    table: str
    name: str
    rows: int
    bytes: int
    blake2b: str


@dataclass(frozen=True)
class Manifest:
    """What a granule staged: small enough to travel between tasks and machines."""

    folder: str
    attempt: Attempt
    files: tuple[StagedFile, ...]

    def as_json(self) -> str:
        """Return it as JSON."""
        return json.dumps({"attempt": self.attempt.as_dict(), "files": [asdict(file) for file in self.files]})

    @classmethod
    def read(cls, folder: UPath) -> Manifest | None:
        """Read the manifest of a staging folder; None if the staging was not finished."""
        try:
            data = json.loads((folder / MANIFEST).read_text())
        except FileNotFoundError:
            return None
        files = tuple(StagedFile(**file) for file in data["files"])
        return cls(str(folder), Attempt.from_dict(data["attempt"]), files)


@dataclass(frozen=True)
class Receipt:
    """What a commit did."""

    granule: str
    status: str
    n_targets: int
    n_sources: int
    n_rows: int
    bytes: int
    replaced: int
    kept: int
    reason: str | None = None


def stage(
    folder: UPath,
    attempt: Attempt,
    tables: Mapping[str, pa.Table],
    band_units: Mapping[str, str | None] | None = None,
    *,
    lightcurves: Iterable[pa.Table] | None = None,
    afterwards: Callable[[], Mapping[str, pa.Table]] | None = None,
) -> Manifest:
    """Validate a granule's tables and write them where no reader looks.

    Parameters
    ----------
    folder
        Staging folder of this granule alone.
    attempt
        The granule and its circumstances; counts and bytes are filled in here.
    tables
        Arrow tables by the name of the lake's table.
    band_units
        VOUnit of flux by band; light curves may hold these bands only. None: not checked.
    lightcurves
        Light curves too large to be held at once, instead of those in tables: parts, each sorted as the table is.
        They are validated and written as they come.
    afterwards
        Gives further tables once the light curves have been seen, such as their statistics.

    Raises
    ------
    GranuleRejected
        If the tables break a rule of the lake.
    """
    cast = _cast({name: decoded(table) for name, table in tables.items()})
    validate(attempt.archive, attempt.release, cast, band_units)
    files = []
    if lightcurves is not None:
        parts = _checked(attempt, lightcurves, cast.get("sources", TABLES["sources"].empty()), band_units)
        files += _stage(folder, "lightcurves", parts)
    if afterwards is not None:
        later = _cast({name: decoded(table) for name, table in afterwards().items()})
        validate(attempt.archive, attempt.release, {**cast, **later}, band_units)
        cast |= later
    for name, table in cast.items():
        order = [(column, "ascending") for column in TABLES[name].sort]
        files += _stage(folder, name, iter([table.sort_by(order) if order else table]))
    rows = {file.table: file.rows for file in files}
    attempt = replace(
        attempt,
        n_sources=rows.get("sources", 0),
        n_rows=rows.get("lightcurves", 0),
        bytes=sum(file.bytes for file in files),
    )
    manifest = Manifest(str(folder), attempt, tuple(files))
    write_text(folder / MANIFEST, manifest.as_json())
    return manifest


def _cast(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    try:
        return {name: TABLES[name].cast(table) for name, table in tables.items() if table.num_rows}
    except SchemaError as error:
        raise GranuleRejected(str(error)) from error


def _checked(
    attempt: Attempt, parts: Iterable[pa.Table], sources: pa.Table, band_units: Mapping[str, str | None] | None
) -> Iterator[pa.Table]:
    for part in parts:
        for cast in _cast({"lightcurves": part}).values():
            validate_rows(attempt.archive, attempt.release, "lightcurves", cast, sources, band_units)
            yield cast


def _stage(folder: UPath, table: str, parts: Iterator[pa.Table]) -> list[StagedFile]:
    """Write one staged file; none if there are no rows."""
    first = next(parts, None)
    if first is None:
        return []
    path = folder / f"{table}.parquet"
    rows = write_parquet(chain([first], parts), path)
    return [StagedFile(table, path.name, rows, path.stat().st_size, checksum(path))]


def commit(catalog: Catalog, manifest: Manifest) -> Receipt:
    """Bring a staged granule into the lake, whole or not at all.

    Rows of a source that the lake has already, unchanged, stay as they are and the new copy is left
    out; changed ones are replaced. Matches and coverage of the granule's targets are replaced.
    Committing the same manifest again does nothing.

    Raises
    ------
    StagingLost
        If the staged files are not, or no more, those of the manifest.
    CatalogError
        If the catalogue cannot be locked or written.
    """
    attempt = manifest.attempt
    with catalog.lock():
        for tries_left in reversed(range(_CONFLICT_RETRIES)):
            try:
                recover(catalog)
                with closing(catalog.cursor()) as cursor:
                    # One transaction from the first question on: outside of one, each question makes DuckLake
                    # read its catalogue anew.
                    cursor.execute("BEGIN")
                    number = ledger.number(cursor, attempt)
                    if number is None:
                        receipt = _receipt(attempt, 0, 0)
                    else:
                        _check_staged(catalog.storage, manifest)
                        receipt = _Merge(cursor, catalog.storage, manifest).run(number)
                break
            except duckdb.Error as error:
                # Only writers that do not take our lock can conflict: another tool on PostgreSQL.
                conflict = isinstance(error, duckdb.TransactionException)
                if not (conflict and tries_left) or "database is locked" in str(error):
                    raise catalog.unwritable(error) from None
                time.sleep(0.2)
        remove_folder(catalog.storage.path(manifest.folder))
    return receipt


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
    )


def _check_staged(storage: Storage, manifest: Manifest) -> None:
    for file in manifest.files:
        path = storage.path(manifest.folder) / file.name
        try:
            if parquet_rows(path) != file.rows or checksum(path) != file.blake2b:
                raise StagingLost(f"staged file {path} is not the one of its manifest", hint="pull it again")
        except FileNotFoundError as error:
            raise StagingLost(f"staged file {path} is gone", hint="pull it again") from error
        except pa.ArrowInvalid as error:
            raise StagingLost(f"staged file {path} is damaged: {error}", hint="pull it again") from error


class _Merge:
    """One granule's way into the lake: what it overlaps, which files move, and the transaction."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, storage: Storage, manifest: Manifest) -> None:
        self.cursor = cursor
        self.storage = storage
        self.folder = storage.path(manifest.folder)
        self.attempt = manifest.attempt
        self.staged = {file.table: self.folder / file.name for file in manifest.files}
        self.checksums = {self.folder / file.name: file.blake2b for file in manifest.files}

    def run(self, number: int) -> Receipt:
        attempt = self.attempt
        changed, same = self._overlap("source_id", ("sources", "lightcurves"), pruned_by="hpx29")
        changed_exposures, same_exposures = self._overlap("exposure_id", ("exposures",), pruned_by="exposure_id")
        moved = self._moved(changed)
        paths: dict[str, UPath | None] = {}
        for table, path in self.staged.items():
            paths[table] = path
            if table in SOURCE_TABLES:
                paths[table] = self._without(path, "source_id", same)
            elif table == "exposures":
                paths[table] = self._without(path, "exposure_id", same_exposures)
            elif table == "coverage" and attempt.status not in ("done", "empty"):
                paths[table] = self._without(path, "target_id", self._answered(path))
        name = f"{attempt.granule}-{uuid.uuid4().hex[:8]}.parquet"
        moves = {
            table: (path, self.storage.table_folder(table, self._partition(table)) / name)
            for table, path in paths.items()
            if path is not None
        }

        def change() -> None:
            for table in SOURCE_TABLES:
                self._delete(table, "source_id", changed, "hpx29")
            self._delete("exposures", "exposure_id", changed_exposures, "exposure_id")
            if "coverage" in moves:
                self._delete_targets(moves["coverage"][1])
            self._follow(moved)
            snapshot = self.cursor.execute("FROM ducklake_current_snapshot('lake')").fetchall()[0][0]
            ledger.record(self.cursor, attempt, number, snapshot + 1)

        transact(self.cursor, self.storage, moves, change, self.checksums)
        return _receipt(attempt, changed.num_rows, same.num_rows)

    def _partition(self, table: str) -> str | None:
        return self.attempt.archive if TABLES[table].partition else None

    def _overlap(self, key: str, tables: Sequence[str], pruned_by: str) -> tuple[pa.Table, pa.Table]:
        """Return the staged keys that the lake has with other content, and with the same.

        Column bound of either is the value of pruned_by that the lake has.
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
        scope = [self.attempt.archive, self.attempt.release]
        where = f"archive = ? AND release = ? AND {pruned_by} BETWEEN ? AND ?"
        self.cursor.register("offered", keys)
        # One SELECT a range: DuckLake leaves files unread for a BETWEEN, not for several joined by OR. And
        # files are chosen by this column alone: each other one that a condition names makes DuckLake search
        # the statistics of all files once more.
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
            # The granule says who brought a row, not what the row is.
            columns = ", ".join(c for c in TABLES[table].names if c not in ("granule", TABLES[table].partition))
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
        """Return the changed sources that are at another place now."""
        if not changed.num_rows:
            return changed
        now = read_parquet(self.staged["sources"], ["source_id", "hpx29"])
        both = changed.join(now, "source_id")
        return both.filter(pc.not_equal(both["bound"], both["hpx29"]))

    def _follow(self, moved: pa.Table) -> None:
        """Let the matches that other granules brought find the rows of moved sources."""
        if moved.num_rows:
            self.cursor.register("moved", moved)
            self.cursor.execute(
                "UPDATE matches SET hpx29 = moved.hpx29 FROM moved "
                "WHERE archive = ? AND release = ? AND matches.source_id = moved.source_id",
                [self.attempt.archive, self.attempt.release],
            )
            self.cursor.unregister("moved")

    def _without(self, path: UPath, key: str, keys: pa.Table) -> UPath | None:
        """Return the staged file less some keys: the same one, a smaller one, or none."""
        if not keys.num_rows:
            return path
        table = read_parquet(path)
        rest = table.filter(pc.invert(pc.is_in(table[key], value_set=keys[key].combine_chunks())))
        if not rest.num_rows:
            return None
        smaller = path.with_name(f"rest-{path.name}")
        write_parquet(rest, smaller)
        return smaller

    def _answered(self, path: UPath) -> pa.Table:
        """Return the targets of a failed granule that have an answer already: that one stays true."""
        return self.cursor.execute(
            "SELECT target_id FROM coverage WHERE archive = ? AND release = ? AND status <> 'failed' "
            "AND target_id IN (SELECT target_id FROM read_parquet(?, hive_partitioning = false))",
            [self.attempt.archive, self.attempt.release, str(path)],
        ).to_arrow_table()

    def _delete(self, table: str, key: str, keys: pa.Table, pruned_by: str) -> None:
        if not keys.num_rows:
            return
        bounds = pc.min_max(keys["bound"]).as_py()
        self.cursor.register("outgoing", keys)
        self.cursor.execute(
            f"DELETE FROM {table} WHERE archive = ? AND release = ? AND {pruned_by} BETWEEN ? AND ? "
            f"AND {key} IN (SELECT {key} FROM outgoing)",
            [self.attempt.archive, self.attempt.release, bounds["min"], bounds["max"]],
        )
        self.cursor.unregister("outgoing")

    def _delete_targets(self, coverage: UPath) -> None:
        """Take out what earlier pulls say of the granule's targets."""
        targets = read_parquet(coverage, ["target_id"])
        bounds = pc.min_max(targets["target_id"]).as_py()
        self.cursor.register("asked", targets)
        where = (
            "WHERE archive = ? AND release = ? AND target_id BETWEEN ? AND ? "
            "AND target_id IN (SELECT target_id FROM asked)"
        )
        scope = [self.attempt.archive, self.attempt.release, bounds["min"], bounds["max"]]
        # Most targets are asked for the first time. No target has matches but no coverage: see lake.validate.
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


def _around(pixels: np.ndarray) -> list[tuple[int, int]]:
    """Return ranges of hpx29 that hold some places and what is near them."""
    shift = 2 * (HPX_ORDER - _MOVED_ORDER)
    own = np.unique(pixels >> shift)
    near = np.unique(np.append(own, hpgeom.neighbors(2**_MOVED_ORDER, own)))
    near = near[near >= 0]  # -1 stands for a neighbour that is not there
    # Pixels that touch may be far apart in the index: then two ranges, which cost a question each.
    widest = int(np.argmax(np.diff(near)))
    far = near[widest + 1] - near[widest] > (near[-1] - near[0]) / 2
    parts = np.split(near, [widest + 1] if far else [])
    return [(int(part[0]) << shift, (int(part[-1]) + 1 << shift) - 1) for part in parts]
