"""Bring a catalogue back from a backup, and the tree into step with it.

What the tree has and the catalogue does not know goes to the quarantine; what the catalogue knows and the tree has lost
is taken out of the catalogue. Either way the granules that it was of are due again, and named.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from lake.commit import ledger
from lake.commit.intents import intents, put_back, recover, unknown_files
from lake.commit.ledger import Attempt
from lake.commit.quarantine import set_aside
from lake.commit.transaction import Change
from lake.errors import CatalogError, ConfigurationError
from lake.model.declared import all_tables
from lake.model.schema import SOURCE_TABLES
from lake.store.backup import Backup, backup_hint, copy_database, find
from lake.store.catalog import Catalog
from lake.store.pruning import METADATA
from lake.store.storage import is_local, read_parquet, remove
from lake.upkeep.maintenance import live_files

_NAMED = 5

_GRANULES = pa.schema([("archive", pa.string()), ("release", pa.string()), ("granule", pa.string())])


# Instead of a date: the catalogue that there is.
NOW = "now"


@dataclass(frozen=True)
class Restored:
    """What a restoration did.

    Parameters
    ----------
    backup
        The backup, by date and time; None if the catalogue was there already.
    quarantined
        Files that the catalogue does not know, in the quarantine now.
    missing
        Files that it knows and that are gone, below data/main.
    again
        Columns archive, release, granule: what has to be asked or extracted again, and will be by the next run.
    n_targets
        Rows of targets and labels that are in the quarantine or gone: their lists have to be added again.
    """

    backup: str | None
    quarantined: int
    missing: tuple[str, ...]
    again: pa.Table
    n_targets: int


def restore(catalog: Catalog, date: str | None = None) -> Restored:
    """Bring the catalogue of a date back, and the tree into step with it.

    Parameters
    ----------
    catalog
        The lake, not opened yet: there may be none to be opened.
    date
        Of the backup; None: the newest; NOW: none, the catalogue stays as it is, and what it knows and the tree has no
        more is given up. For PostgreSQL none or NOW: the database's own tools have brought it back before.

    Raises
    ------
    ConfigurationError
        If there is no such backup.
    CatalogError
        If the backup is not of this lake, or cannot be put in place.
    """
    backup = None
    with catalog.lock(fenced=False):
        if catalog.location.kind == "sqlite" and date != NOW:
            backup = find(catalog.storage, date)
            _put_back(catalog, backup)
        elif date not in (None, NOW):
            raise ConfigurationError(
                "a catalogue in PostgreSQL has no dated backups here", hint=backup_hint(catalog.location)
            )
        with catalog.changing():
            catalog.create_locked()
            return _bring_into_step(catalog, backup, catalog.fence())


def _put_back(catalog: Catalog, backup: Backup) -> None:
    """Put a backup in the catalogue's place; what was there goes to the quarantine."""
    database = Path(catalog.location.target)
    catalog.close()
    with tempfile.TemporaryDirectory(prefix="lightlake-") as work:
        copy = Path(work) / "catalog.sqlite"
        if is_local(backup.path):
            copy_database(Path(backup.path), copy)
        else:
            backup.path.fs.get_file(backup.path.path, str(copy))
        other = Catalog(catalog.storage, catalog.settings.model_copy(update={"catalog": f"sqlite:{copy}"}))
        with closing(other):
            other.check_lake()
        # A copy, since other processes may have it open: these see the restored one as its next state.
        aside = Path(work) / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.sqlite"
        if database.exists():
            try:
                copy_database(database, aside)
            except CatalogError:  # it is damaged, and so nobody can be using it
                for path in (database, *(database.with_name(f"{database.name}{end}") for end in ("-wal", "-shm"))):
                    if path.exists():
                        _keep(catalog, path, f"{aside.stem}-{path.name}")
                        remove(path)
            else:
                _keep(catalog, aside, aside.name)
        database.parent.mkdir(parents=True, exist_ok=True)
        copy_database(copy, database)


def _keep(catalog: Catalog, path: Path, name: str) -> None:
    kept = catalog.storage.root / name
    kept.write_bytes(path.read_bytes())
    set_aside(catalog.storage, [kept])


def _bring_into_step(catalog: Catalog, backup: Backup | None, number: int) -> Restored:
    for intent in intents(catalog.storage):
        put_back(catalog, intent)
    missing = _take_out_missing(catalog)
    unknown = unknown_files(catalog, number, named=True)
    reason = f"lost with its files: the catalogue of {backup.name} was restored" if backup else "lost with its files"
    with Change(catalog, number, rewrites=True) as change:
        n_targets = _forget_without_target(change.cursor)
        again = [_granules_of(catalog, unknown), _forget_incomplete(change.cursor)]
        _ask_again(change.cursor, catalog, unknown)
        granules = pa.concat_tables(again).group_by(_GRANULES.names).aggregate([])
        granules = granules.sort_by([(name, "ascending") for name in _GRANULES.names])
        _note(change.cursor, granules, reason)
        change.keep_aside(all_tables())
    for name in ("targets", "labels"):
        n_targets += sum(rows.num_rows for rows in _rows(catalog, unknown, (name,), ["target_id"]))
    # Last: whatever ends a restoration before, the next one finds all of them here again.
    set_aside(catalog.storage, unknown)
    recover(catalog, number)
    return Restored(backup.name if backup else None, len(unknown), tuple(missing), granules, n_targets)


def _take_out_missing(catalog: Catalog) -> list[str]:
    """Take files out of the catalogue that are gone, or whose list of deleted rows is; return their names."""
    storage = catalog.storage
    gone: list[UPath] = []
    with closing(catalog.cursor()) as cursor:
        for table in all_tables():
            live = live_files(cursor, storage, table)
            there = set(storage.table_files(table))
            for path, delete in live.items():
                if path not in there or (delete is not None and delete not in there):
                    gone.append(path)
        if gone:
            schema = f'{METADATA}."{catalog.location.schema}"'
            names = {path.name for path in gone}
            rows = cursor.execute(f"SELECT data_file_id, path FROM {schema}.ducklake_data_file").fetchall()
            ids = ", ".join(str(number) for number, path in rows if Path(path).name in names)
            cursor.execute("BEGIN")
            for name in ("data_file", "delete_file", "file_column_stats", "file_partition_value"):
                cursor.execute(f"DELETE FROM {schema}.ducklake_{name} WHERE data_file_id IN ({ids})")
            cursor.execute("COMMIT")
    catalog.close()  # DuckLake remembers what it knows of a snapshot
    return sorted(storage.relative(path) for path in gone)


def _rows(catalog: Catalog, files: Iterable[UPath], tables: Collection[str], columns: list[str]) -> Iterator[pa.Table]:
    """Yield some columns of those of some files of the tree that are of some tables; one that is no such file has none.

    Nobody knows what these files are: anything may lie in the tree, with the name of a Parquet file.
    """
    for path in files:
        if catalog.storage.relative(path).partition("/")[0] in tables:
            try:
                yield read_parquet(path, columns).select(columns)
            except (pa.ArrowException, OSError, KeyError):
                continue  # also DuckLake's lists of deleted rows


def _granules_of(catalog: Catalog, files: Iterable[UPath]) -> pa.Table:
    """Return the granules whose rows are in files."""
    names = _GRANULES.names
    with_granule = [name for name, table in all_tables().items() if set(names) <= set(table.names)]
    found = [rows.cast(_GRANULES) for rows in _rows(catalog, files, with_granule, names)]
    return pa.concat_tables([_GRANULES.empty_table(), *found]).group_by(names).aggregate([])


# Sources of which rows are gone: light curves and statistics must tell of the same number, and sources of both.
_INCOMPLETE = """
    CREATE OR REPLACE TEMP TABLE incomplete AS
    SELECT archive, release, source_id FROM
        (SELECT archive, release, source_id, count(*) AS n FROM lightcurves GROUP BY ALL) AS held
        FULL JOIN (SELECT archive, release, source_id, sum(n) AS n FROM statistics GROUP BY ALL) AS told
        USING (archive, release, source_id)
        WHERE held.n IS DISTINCT FROM told.n
    UNION SELECT archive, release, source_id FROM statistics ANTI JOIN sources USING (archive, release, source_id)
    UNION SELECT archive, release, source_id FROM matches ANTI JOIN sources USING (archive, release, source_id)
"""

_INCOMPLETE_TARGETS = """
    CREATE OR REPLACE TEMP TABLE asked_anew AS
    SELECT archive, release, target_id FROM matches SEMI JOIN incomplete USING (archive, release, source_id)
    UNION SELECT archive, release, target_id FROM matches ANTI JOIN coverage USING (archive, release, target_id)
    UNION SELECT archive, release, target_id FROM coverage
        LEFT JOIN (SELECT archive, release, target_id, count(*) AS n FROM matches GROUP BY ALL)
        USING (archive, release, target_id) WHERE status = 'found' AND n_sources > coalesce(n, 0)
"""


def _forget_incomplete(cursor: duckdb.DuckDBPyConnection) -> pa.Table:
    """Take out what is left of sources and targets of which rows are gone, so that they are due; return granules."""
    cursor.execute(_INCOMPLETE)
    cursor.execute(_INCOMPLETE_TARGETS)
    of_sources = " UNION ".join(
        f"SELECT archive, release, granule FROM {name} SEMI JOIN incomplete USING (archive, release, source_id)"
        for name in ("sources", "lightcurves", "matches")
    )
    of_targets = " UNION ".join(
        f"SELECT archive, release, granule FROM {name} SEMI JOIN asked_anew USING (archive, release, target_id)"
        for name in ("matches", "coverage")
    )
    granules = cursor.execute(f"{of_sources} UNION {of_targets}").to_arrow_table().cast(_GRANULES)
    for name in SOURCE_TABLES:
        cursor.execute(
            f"DELETE FROM {name} USING incomplete AS gone WHERE {name}.archive = gone.archive "
            f"AND {name}.release = gone.release AND {name}.source_id = gone.source_id"
        )
    where = " AND ".join(f"{{0}}.{key} = gone.{key}" for key in ("archive", "release", "target_id"))
    cursor.execute(f"DELETE FROM matches USING asked_anew AS gone WHERE {where.format('matches')}")
    cursor.execute(
        "UPDATE coverage SET status = 'failed', n_sources = 0, n_rows = 0 FROM asked_anew AS gone "
        f"WHERE {where.format('coverage')}"
    )
    return granules


def _forget_without_target(cursor: duckdb.DuckDBPyConnection) -> int:
    """Take out answers and labels of targets that are gone; return of how many targets."""
    gone = " UNION ".join(
        f"SELECT target_id FROM {name} ANTI JOIN targets USING (target_id)"
        for name in ("coverage", "labels", "matches")
    )
    ids = cursor.execute(gone).to_arrow_table()
    if ids.num_rows:
        cursor.register("gone_targets", ids)
        for name in ("matches", "coverage", "labels"):
            cursor.execute(f"DELETE FROM {name} WHERE target_id IN (SELECT target_id FROM gone_targets)")
        cursor.unregister("gone_targets")
    return int(ids.num_rows)


def _ask_again(cursor: duckdb.DuckDBPyConnection, catalog: Catalog, unknown: Iterable[UPath]) -> None:
    """Make targets due whose newer answer is in unknown files, though the catalogue has an older one."""
    newer = list(_rows(catalog, unknown, ("coverage",), ["archive", "release", "target_id", "asked_at"]))
    if not newer:
        return
    cursor.register("newer", pa.concat_tables(newer, promote_options="permissive"))
    cursor.execute(
        "UPDATE coverage SET status = 'failed' FROM newer WHERE coverage.archive = newer.archive "
        "AND coverage.release = newer.release AND coverage.target_id = newer.target_id "
        "AND coverage.asked_at < newer.asked_at"
    )
    cursor.unregister("newer")


def _note(cursor: duckdb.DuckDBPyConnection, granules: pa.Table, reason: str) -> None:
    """Write into the ledger that granules are lost, by which they are due."""
    if not granules.num_rows:
        return
    now = datetime.now(UTC)
    attempts = [Attempt(**row, status="failed", started_at=now, reason=reason) for row in granules.to_pylist()]
    numbers = ledger.numbers(cursor, attempts)
    snapshot = cursor.execute("FROM ducklake_current_snapshot('lake')").fetchall()[0][0] + 1
    if numbers is not None:
        ledger.record(cursor, attempts, numbers, snapshot)


def summary(done: Restored) -> list[str]:
    """Return what was done in a few lines."""
    what = f"the catalogue of {done.backup} is back" if done.backup else "the tree is in step with the catalogue"
    lines = [
        f"{what}: {done.quarantined} files that it does not know moved to the quarantine, "
        f"{len(done.missing)} that it knew are gone"
    ]
    for archive, count in sorted(Counter(done.again["archive"].to_pylist()).items()):
        granules = done.again.filter(pc.equal(done.again["archive"], archive))["granule"].to_pylist()
        more = ", ..." if count > _NAMED else ""
        lines.append(
            f"  {archive}: {count} granules are asked again by the next run: {', '.join(granules[:_NAMED])}{more}"
        )
    if done.n_targets:
        lines.append(f"  {done.n_targets} rows of targets and labels are not in it: add their lists again")
    return lines
