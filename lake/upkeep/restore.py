"""Restore a catalogue from a backup, and reconcile the tree with it.

Files that the catalogue does not know go to the quarantine. Files that it knows and that are gone are removed from it.
In both cases the granules of their rows are listed, and due again.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from lake.commit import ledger
from lake.commit.intents import intents, put_back, recover, unknown_files
from lake.commit.ledger import Attempt
from lake.commit.quarantine import set_aside
from lake.commit.transaction import Change
from lake.errors import CatalogError, ConfigurationError
from lake.model.declared import all_tables, source_tables
from lake.store.backup import Backup, backup_hint, copy_database, find
from lake.store.catalog import Catalog
from lake.store.pruning import METADATA
from lake.store.storage import is_local, read_parquet, remove
from lake.text import counted
from lake.upkeep.maintenance import live_files

if TYPE_CHECKING:
    from upath import UPath

# The page that helps with errors from here.
HELP_TOPIC = "how-to/backups"

_NAMED = 5

_GRANULES = pa.schema([("archive", pa.string()), ("release", pa.string()), ("granule", pa.string())])


# Instead of a date: keep the present catalogue.
NOW = "now"


@dataclass(frozen=True)
class Restored:
    """What a restoration did.

    Parameters
    ----------
    backup
        The backup, by date and time; None if the present catalogue was kept.
    quarantined
        Number of files that the catalogue does not know; they are in the quarantine now.
    missing
        Files that it knew and that are gone, below data/main.
    again
        Columns archive, release, granule: what the next run pulls or extracts again.
    n_targets
        Rows of targets and labels that are quarantined or gone: add their lists again.
    """

    backup: str | None
    quarantined: int
    missing: tuple[str, ...]
    again: pa.Table
    n_targets: int


def restore(catalog: Catalog, date: str | None = None) -> Restored:
    """Restore the catalogue of a date, and reconcile the tree with it.

    Parameters
    ----------
    catalog
        The lake, not opened: its catalogue may be missing.
    date
        Date of the backup; None: the newest; NOW: keep the catalogue, and give up files that are gone. For PostgreSQL
        None or NOW, after the database's own tools have restored it.

    Raises
    ------
    ConfigurationError
        If there is no such backup.
    CatalogError
        If the backup belongs to another lake, or cannot be put in place.
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
    """Replace the catalogue by a backup; the replaced one goes to the quarantine."""
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
        # By copying, since other processes may have it open: they see the restored one as its next state.
        aside = Path(work) / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.sqlite"
        if database.exists():
            try:
                copy_database(database, aside)
            except CatalogError:  # it is damaged, so nobody is using it
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
    # Last, so that a restoration that was stopped can be run again.
    set_aside(catalog.storage, unknown)
    recover(catalog, number)
    return Restored(backup.name if backup else None, len(unknown), tuple(missing), granules, n_targets)


def _take_out_missing(catalog: Catalog) -> list[str]:
    """Remove files from the catalogue that are gone, or whose delete files are gone; return their names."""
    storage = catalog.storage
    gone: list[UPath] = []
    with closing(catalog.cursor()) as cursor:
        for table, live in live_files(cursor, catalog).items():
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
    catalog.close()  # DuckLake caches a snapshot
    return sorted(storage.relative(path) for path in gone)


def _rows(catalog: Catalog, files: Iterable[UPath], tables: Collection[str], columns: list[str]) -> Iterator[pa.Table]:
    """Yield columns of the files that belong to some tables; skip files without them.

    The files are unknown: anything may be in the tree under the name of a Parquet file.
    """
    for path in files:
        if catalog.storage.relative(path).partition("/")[0] in tables:
            try:
                yield read_parquet(path, columns).select(columns)
            except (pa.ArrowException, OSError, KeyError):
                continue  # such as DuckLake's delete files


def _granules_of(catalog: Catalog, files: Iterable[UPath]) -> pa.Table:
    """Return the granules whose rows are in files."""
    names = _GRANULES.names
    with_granule = [name for name, table in all_tables().items() if set(names) <= set(table.names)]
    found = [rows.cast(_GRANULES) for rows in _rows(catalog, files, with_granule, names)]
    return pa.concat_tables([_GRANULES.empty_table(), *found]).group_by(names).aggregate([])


# Sources that lost rows: light curves and statistics must count the same rows, and each must have its source.
_INCOMPLETE = """
    CREATE OR REPLACE TEMP TABLE incomplete AS
    SELECT archive, release, source_id FROM
        (SELECT archive, release, source_id, count(*) AS n FROM lightcurves GROUP BY ALL) AS held
        FULL JOIN (SELECT archive, release, source_id, sum(n) AS n FROM statistics GROUP BY ALL) AS counted
        USING (archive, release, source_id)
        WHERE held.n IS DISTINCT FROM counted.n
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
    """Remove the rest of sources and targets that lost rows, so that they are due; return their granules."""
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
    for name in source_tables():
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
    """Remove answers and labels of targets that are gone; return the number of targets."""
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
    """Record granules as failed in the ledger, so that they are due."""
    if not granules.num_rows:
        return
    now = datetime.now(UTC)
    attempts = [Attempt(**row, status="failed", started_at=now, reason=reason) for row in granules.to_pylist()]
    numbers = ledger.numbers(cursor, attempts)
    snapshot = cursor.execute("FROM ducklake_current_snapshot('lake')").fetchall()[0][0] + 1
    if numbers is not None:
        ledger.record(cursor, attempts, numbers, snapshot)


def summary(done: Restored) -> list[str]:
    """Format what was done in a few lines."""
    what = f"the catalogue of {done.backup} is restored" if done.backup else "the catalogue is kept"
    lines = [
        f"{what}: {counted(done.quarantined, 'unknown file')} moved to the quarantine, "
        f"{len(done.missing)} of its files are gone"
    ]
    for archive, count in sorted(Counter(done.again["archive"].to_pylist()).items()):
        granules = done.again.filter(pc.equal(done.again["archive"], archive))["granule"].to_pylist()
        more = ", ..." if count > _NAMED else ""
        lines.append(
            f"  {archive}: {counted(count, 'granule is', 'granules are')} due again in the next "
            f"run: {', '.join(granules[:_NAMED])}{more}"
        )
    if done.n_targets:
        lines.append(f"  missing: {counted(done.n_targets, 'row')} of targets and labels; add their lists again")
    return lines
