"""Join small granules that are staged into one set of files, so that one transaction commits them all.

A transaction takes as long for one granule as for many. Joined granules remain granules of their own in the ledger, and
the lake gets the rows that it would get from their commits one after the other.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from lake.commit.staging import Manifest, joined, read_staged, stage_files
from lake.errors import StagingLost
from lake.model.declared import source_tables, table_named
from lake.store.storage import Storage, decoded

# More rows are worth a transaction of their own, and would fill the memory: so many take some 60 MB.
MOST_ROWS = 400_000

Tables = dict[str, pa.Table]


def gather(storage: Storage, manifests: Sequence[Manifest]) -> Iterator[tuple[Manifest, list[Manifest]]]:
    """Join staged granules of one archive and release, as many as one transaction may commit.

    Granules stay apart if both have an answer on one target, or different rows of one source or exposure: then the
    later one is to replace what the earlier one brought. So do large ones, and those whose staged files are lost.

    Parameters
    ----------
    storage
        The lake's storage.
    manifests
        Staged granules, in the order in which they are to be committed.

    Yields
    ------
    Manifest, list of Manifest
        What one transaction may commit, and the granules that this is: several, or one as it is. All of them are
        yielded, in order. The files of what was joined stay where they are, too.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for some in _within_memory(manifests):
            if len(some) == 1:
                yield some[0], some
                continue
            group = _Group()
            for manifest, tables in zip(some, pool.map(partial(_read, storage), some), strict=True):
                if tables is not None and group.add(manifest, tables):
                    continue
                yield from group.joined(storage)
                group = _Group()
                if tables is None:
                    yield manifest, [manifest]
                else:
                    group.add(manifest, tables)
            yield from group.joined(storage)


def _within_memory(manifests: Sequence[Manifest]) -> Iterator[list[Manifest]]:
    """Cut granules into parts that may be read at a time; a large one is a part of its own."""
    some: list[Manifest] = []
    held = 0
    for manifest in manifests:
        rows = sum(file.rows for file in manifest.files)
        if some and held + rows > MOST_ROWS:
            yield some
            some, held = [], 0
        some.append(manifest)
        held += rows
    if some:
        yield some


def _read(storage: Storage, manifest: Manifest) -> Tables | None:
    """Return the tables of a staged granule; None if its files are not those of its manifest."""
    try:
        return read_staged(storage, manifest)
    except StagingLost:  # its commit says so
        return None


class _Group:
    """Granules that do not contradict each other, with their rows."""

    def __init__(self) -> None:
        self.manifests: list[Manifest] = []
        self.held: dict[str, list[pa.Table]] = {}
        self.targets: set[int] = set()
        self.keys: dict[str, set[str]] = {"source_id": set(), "exposure_id": set()}

    def add(self, manifest: Manifest, tables: Tables) -> bool:
        """Add a granule, without its rows of sources and exposures that the others have; return False if it may not."""
        of = {"source_id": source_tables(manifest.attempt.archive), "exposure_id": ("exposures",)}
        named = {key: tables[names[0]][key].to_pylist() if names[0] in tables else [] for key, names in of.items()}
        asked = tables["coverage"]["target_id"].to_pylist() if "coverage" in tables else []
        if not self.targets.isdisjoint(asked):
            return False
        rest: Tables = {}
        for key, names in of.items():
            common = self.keys[key].intersection(named[key])
            if not common:
                continue
            shared = pa.array(sorted(common), pa.string())
            for name in names:
                mine = _rows_of([tables[name]] if name in tables else [], name, key, shared)
                if not mine.equals(_rows_of(self.held.get(name, []), name, key, shared)):
                    return False
                if name in tables:
                    rest[name] = tables[name].filter(pc.invert(pc.is_in(tables[name][key], value_set=shared)))
        self.manifests.append(manifest)
        for name, table in {**tables, **rest}.items():
            if table.num_rows:
                self.held.setdefault(name, []).append(table)
        self.targets.update(asked)
        for key in of:
            self.keys[key].update(named[key])
        return True

    def joined(self, storage: Storage) -> Iterator[tuple[Manifest, list[Manifest]]]:
        """Write the granules as one, if they are several."""
        if len(self.manifests) < 2:
            yield from ((manifest, [manifest]) for manifest in self.manifests)
            return
        folder = storage.path(self.manifests[0].folder).parent / f"joined-{uuid.uuid4().hex[:12]}"
        attempts = tuple(attempt for manifest in self.manifests for attempt in manifest.attempts)
        tables = {name: joined(_in_order(name, self.held.pop(name))) for name in list(self.held)}
        yield Manifest(str(folder), attempts, tuple(stage_files(folder, tables))), self.manifests


def _in_order(name: str, parts: list[pa.Table]) -> list[pa.Table]:
    """Return parts by the first value of each: those of neighbours in the sky are then in order as a whole, mostly."""
    first = table_named(name).sort[:1]
    return sorted(parts, key=lambda part: part[first[0]][0].as_py()) if first else parts


def _rows_of(parts: Sequence[pa.Table], name: str, key: str, keys: pa.Array) -> pa.Table:
    """Return a table's rows of some keys in an order of their own, without the name of their granule."""
    spec = table_named(name)
    columns = [column for column in spec.names if column not in ("granule", spec.partition)]
    chosen = [decoded(part.filter(pc.is_in(part[key], value_set=keys)).select(columns)) for part in parts]
    rows = pa.concat_tables([spec.arrow.empty_table().select(columns), *chosen]).combine_chunks()
    return rows.sort_by([(column, "ascending") for column in columns if not pa.types.is_nested(rows[column].type)])
