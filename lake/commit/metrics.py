"""Collect what processes of a run measured of themselves, and commit it in few large pieces.

A process writes pieces into a folder of the staging area; one writer, the run, commits them together.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.commit.transaction import Change, write
from lake.model.schema import TABLES
from lake.store.catalog import Catalog
from lake.store.storage import Storage, remove, remove_folder, write_parquet, write_text
from lake.text import file_name

if TYPE_CHECKING:
    from upath import UPath

FOLDER = "metrics"


def folder_of(storage: Storage, run_id: str) -> UPath:
    """Return the folder with the pieces of a run."""
    return storage.staging / FOLDER / file_name(run_id)


def write_piece(folder: UPath, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of table metrics, whole or not at all; times are datetimes."""
    write_text(folder / f"{uuid.uuid4().hex}.json", json.dumps(list(rows), default=datetime.isoformat))


def commit_pieces(catalog: Catalog, run_id: str) -> int:
    """Commit the pieces of a run together, and remove them; return the number of rows.

    A piece that was committed before, by a process that was killed before it could remove it, is left out.
    """
    folder = folder_of(catalog.storage, run_id)
    pieces = [path for path in _entries(folder) if path.suffix == ".json"]
    rows = [row for path in pieces for row in _read(path)]
    if not rows:
        return 0
    made = [{**row, "time": datetime.fromisoformat(row["time"])} for row in rows]
    table = TABLES["metrics"].cast(pa.Table.from_pylist(made))
    staging = catalog.storage.staging / f"metrics-{uuid.uuid4().hex}"

    def work(number: int) -> int:
        with Change(catalog, number) as change:
            cursor = change.cursor
            cursor.register("measured", table)
            same = " AND ".join(f"m.{name} IS NOT DISTINCT FROM measured.{name}" for name in TABLES["metrics"].key)
            fresh = cursor.execute(
                f"SELECT DISTINCT * FROM measured WHERE NOT EXISTS (FROM metrics AS m WHERE {same}) "
                "ORDER BY run_id, time, archive NULLS FIRST, process"
            ).to_arrow_table()
            cursor.unregister("measured")
            if not fresh.num_rows:
                return 0
            name = f"metrics-{uuid.uuid4().hex}.parquet"
            staged = staging / name
            write_parquet(TABLES["metrics"].cast(fresh), staged)
            change.bring_in({"metrics": (staged, catalog.storage.table_folder("metrics") / name)})
            return int(fresh.num_rows)

    try:
        count = write(catalog, work)
    finally:
        remove_folder(staging)
    for path in pieces:
        remove(path)
    return count


def pending_rows(storage: Storage, run_id: str) -> list[dict[str, Any]]:
    """Return what the pieces of a run say that are not committed yet, in order of time."""
    pieces = [path for path in _entries(folder_of(storage, run_id)) if path.suffix == ".json"]
    rows = [row | {"time": datetime.fromisoformat(row["time"])} for path in pieces for row in _read(path)]
    return sorted(rows, key=lambda row: row["time"])


def runs_with_pieces(storage: Storage) -> list[str]:
    """Return the runs that have pieces, by the names of their folders."""
    return [path.name for path in _entries(storage.staging / FOLDER)]


def remove_pieces(storage: Storage, run_id: str) -> None:
    """Remove the folder of a run's pieces, which are committed."""
    remove_folder(folder_of(storage, run_id))


def _entries(folder: UPath) -> list[UPath]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # the latter of S3
        return []


def _read(path: UPath) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):
        return []
