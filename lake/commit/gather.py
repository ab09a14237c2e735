"""Join small granules that are staged into one set of files, so that one transaction commits them all.

A transaction takes as long for one granule as for many. Joined granules remain granules of their own in the ledger, and
the lake gets the rows that it would get from their commits one after the other.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lake.commit.staging import Manifest, check_staged, stage_files
from lake.errors import StagingLost
from lake.model.declared import source_tables, table_named
from lake.store.storage import Storage, decoded, read_parquet

# More rows are worth a transaction of their own, and would fill the memory.
MOST_ROWS = 200_000

Tables = dict[str, pa.Table]


def gather(storage: Storage, manifests: Sequence[Manifest]) -> list[Manifest]:
    """Join staged granules of one archive and release, as many as one transaction may commit.

    Granules stay apart if both have an answer on one target, or different rows of one source or exposure: then the
    later one is to replace what the earlier one brought. So do large ones, and those whose staged files are lost.

    Parameters
    ----------
    storage
        The lake's storage.
    manifests
        Staged granules, in the order in which they are to be committed.

    Returns
    -------
    list of Manifest
        All of them, joined or as they are, in order. The files of what was joined stay where they are, too.
    """
    gathered: list[Manifest] = []
    group: list[Manifest] = []
    held: Tables = {}

    def close() -> None:
        gathered.extend([_as_one(storage, group, held)] if len(group) > 1 else group)
        group.clear()
        held.clear()

    for manifest in manifests:
        rows = sum(file.rows for file in manifest.files)
        if rows > MOST_ROWS or (tables := _read(storage, manifest)) is None:
            close()
            gathered.append(manifest)
            continue
        if rows + sum(table.num_rows for table in held.values()) > MOST_ROWS or not _fits(manifest, tables, held):
            close()
        for name, table in tables.items():
            if table.num_rows:
                held[name] = pa.concat_tables([held[name], table]) if name in held else table
        group.append(manifest)
    close()
    return gathered


def _read(storage: Storage, manifest: Manifest) -> Tables | None:
    """Return the tables of a staged granule; None if its files are not those of its manifest."""
    try:
        check_staged(storage, manifest)
    except StagingLost:  # its commit says so
        return None
    folder = storage.path(manifest.folder)
    return {file.table: read_parquet(folder / file.name) for file in manifest.files}


def _fits(manifest: Manifest, tables: Tables, held: Tables) -> bool:
    """Say whether a granule may be committed with others; drop its rows of sources and exposures that they have."""
    if _common(tables, held, "coverage", "target_id") is not None:
        return False
    rest: Tables = {}
    for key, names in (("source_id", source_tables(manifest.attempt.archive)), ("exposure_id", ("exposures",))):
        common = _common(tables, held, names[0], key)
        if common is None:
            continue
        for name in names:
            mine, theirs = (_rows_of(side, name, key, common) for side in (tables, held))
            if not mine.equals(theirs):
                return False
            if name in tables:
                rest[name] = tables[name].filter(pc.invert(pc.is_in(tables[name][key], value_set=common)))
    tables.update(rest)  # only now: one that does not fit is committed with all of its rows
    return True


def _common(tables: Tables, held: Tables, name: str, key: str) -> pa.Array | None:
    """Return the keys that both have in a table; None if there are none."""
    if name not in tables or name not in held:
        return None
    ours = tables[name][key]
    common = pc.unique(ours.filter(pc.is_in(ours, value_set=pc.unique(held[name][key]))))
    return common if len(common) else None


def _rows_of(tables: Tables, name: str, key: str, keys: pa.Array) -> pa.Table:
    """Return a table's rows of some keys in an order of their own, without the name of their granule."""
    spec = table_named(name)
    columns = [column for column in spec.names if column not in ("granule", spec.partition)]
    table = tables.get(name, spec.arrow.empty_table())
    rows = decoded(table.filter(pc.is_in(table[key], value_set=keys)).select(columns)).combine_chunks()
    return rows.sort_by([(column, "ascending") for column in columns if not pa.types.is_nested(rows[column].type)])


def _as_one(storage: Storage, group: Sequence[Manifest], tables: Tables) -> Manifest:
    folder = storage.path(group[0].folder).parent / f"joined-{uuid.uuid4().hex[:12]}"
    attempts = tuple(attempt for manifest in group for attempt in manifest.attempts)
    return Manifest(str(folder), attempts, tuple(stage_files(folder, tables)))
