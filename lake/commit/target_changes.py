"""Remove targets from a lake, and rename them.

Sources and light curves stay: other targets may match them, and surveys hold them without any target. A target that is
added again is pulled again, and matches the sources in the lake.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from lake.commit.aliases import forget_targets
from lake.commit.transaction import Change, stage_rows, write
from lake.errors import ConfigurationError
from lake.model.schema import TABLES
from lake.names import check_not_blank, target_named, unknown
from lake.store.catalog import Catalog
from lake.store.connection import rollback
from lake.store.storage import remove_folder

# The page that helps with errors from here.
HELP_TOPIC = "how-to/target-lists"

# Tables with rows of a target, children first.
_OF_TARGETS = ("matches", "coverage", "targets")


@dataclass(frozen=True)
class Removed:
    """The result of removing targets.

    Parameters
    ----------
    targets, labels, matches, coverage
        Rows removed from these tables.
    sources, measurements
        Rows that stay, and that no other target matches.
    """

    targets: int
    labels: int
    matches: int
    coverage: int
    sources: int
    measurements: int


def remove_targets(
    catalog: Catalog,
    target: str | int | None = None,
    *,
    sample: str | None = None,
    label: str | None = None,
    dry_run: bool = False,
) -> Removed:
    """Remove a target from the lake, or from a sample; or all targets of a sample. All or nothing.

    Parameters
    ----------
    catalog
        The lake.
    target
        Any of its names, or its id.
    sample
        Remove only labels of this sample: targets with labels of other samples stay.
    label
        Remove only this label of the sample.
    dry_run
        Count, and change nothing.

    Returns
    -------
    Removed
        What was removed, or would be.

    Raises
    ------
    ConfigurationError
        If there is no such target, sample or label, or neither target nor sample is given.
    """
    if target is None and sample is None:
        raise ConfigurationError("remove which target?", hint="name one, or a sample with --sample")
    if label is not None and sample is None:
        raise ConfigurationError(f"the label {label!r} of which sample?", hint="add: --sample SAMPLE")
    for what, name in (("sample", sample), ("label", label)):
        check_not_blank(what, name)
    if dry_run:
        with closing(catalog.cursor()) as cursor:
            cursor.execute("BEGIN")
            try:
                return _Choice(cursor, catalog, target, sample, label).count()
            finally:
                rollback(cursor)

    def work(number: int) -> Removed:
        with Change(catalog, number, rewrites=True) as change:
            choice = _Choice(change.cursor, catalog, target, sample, label)
            removed = choice.count()
            choice.delete()
            change.keep_aside(("labels", "aliases", *_OF_TARGETS))
        return removed

    return write(catalog, work)


class _Choice:
    """The labels to remove, and the targets that lose their last label."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        catalog: Catalog,
        target: str | int | None,
        sample: str | None,
        label: str | None,
    ) -> None:
        self.cursor = cursor
        wanted: dict[str, str | int | None] = {"sample": sample, "coalesce(label, sample)": label}
        if target is not None:
            wanted["target_id"] = _find(cursor, target)
        given = {column: value for column, value in wanted.items() if value is not None}
        self.where = " AND ".join(f"{column} = ?" for column in given)
        self.values = list(given.values())
        if sample is not None:
            self._check(catalog, target, sample, label)
        alone = f"SELECT target_id FROM labels GROUP BY target_id HAVING bool_and({self.where})"
        gone = "SELECT target_id FROM targets WHERE target_id = ?" if sample is None else alone
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE gone_targets AS {gone}", self.values)

    def _check(self, catalog: Catalog, target: str | int | None, sample: str, label: str | None) -> None:
        def there(column: str, where: str, *values: Any) -> list[str]:
            query = f"SELECT DISTINCT {column} FROM labels WHERE {where} ORDER BY ALL"
            return [row[0] for row in self.cursor.execute(query, list(values)).fetchall()]

        if not there("sample", "sample = ?", sample):
            raise unknown("sample", sample, there("sample", "true"), f"in {catalog.storage.root}")
        labels = there("coalesce(label, sample)", "sample = ?", sample)
        if label is not None and label not in labels:
            raise unknown("label", label, labels, f"in sample {sample}")
        if not there("sample", self.where, *self.values):
            which = " of this label" if label is not None else ""
            raise ConfigurationError(
                f"{target!r} is no target of sample {sample!r}{which}",
                hint=f"it is in: {', '.join(there('sample', 'target_id = ?', self.values[-1])) or 'none'}",
            )

    def count(self) -> Removed:
        """Count the rows to remove, and the rows that stay without a target."""

        def n(query: str, values: list[Any] | None = None) -> int:
            return int(self.cursor.execute(query, values).fetchall()[0][0])

        counts = {
            table: n(f"SELECT count(*) FROM {table} SEMI JOIN gone_targets USING (target_id)") for table in _OF_TARGETS
        }
        sources, measurements = self.cursor.execute(
            """
            WITH lone AS (
                SELECT archive, release, source_id FROM matches
                GROUP BY ALL HAVING bool_and(target_id IN (FROM gone_targets))
            )
            SELECT count(DISTINCT (archive, release, source_id)), coalesce(sum(n), 0)::BIGINT
            FROM lone LEFT JOIN statistics USING (archive, release, source_id)
            """
        ).fetchall()[0]
        labels = n(f"SELECT count(*) FROM labels WHERE {self.where}", self.values)
        return Removed(**counts, labels=labels, sources=sources, measurements=measurements)

    def delete(self) -> None:
        """Delete the rows, in the transaction of the cursor."""
        self.cursor.execute(f"DELETE FROM labels WHERE {self.where}", self.values)
        forget_targets(self.cursor, "gone_targets")
        for table in _OF_TARGETS:
            self.cursor.execute(f"DELETE FROM {table} WHERE target_id IN (FROM gone_targets)")


@dataclass(frozen=True)
class Renamed:
    """A renamed target, with its former main name."""

    target_id: int
    before: str | None
    name: str


def rename_target(catalog: Catalog, target: str | int, name: str) -> Renamed:
    """Give a target another main name; its former names still find it.

    Parameters
    ----------
    catalog
        The lake.
    target
        Any of its names, or its id.
    name
        The new one.

    Raises
    ------
    ConfigurationError
        If there is no such target, the new name is empty, or another target has it.
    """
    check_not_blank("target", name)
    name = name.strip()
    folder = catalog.storage.staging / f"targets-{uuid.uuid4().hex}"

    def work(number: int) -> Renamed:
        with Change(catalog, number) as change:
            cursor = change.cursor
            one = _find(cursor, target)
            _check_free(cursor, name, one)
            row = cursor.execute("SELECT * FROM targets WHERE target_id = ?", [one]).to_arrow_table().to_pylist()[0]
            renamed = Renamed(one, row["name"], name)
            if row["name"] == name:
                return renamed
            rows = {"targets": [row | {"name": name}]}
            if label := _keeping(cursor, one, row["name"]):
                rows["labels"] = [label]
            made = {table: TABLES[table].cast(pa.Table.from_pylist(new)) for table, new in rows.items()}

            def rewrites() -> list[str]:
                cursor.execute("DELETE FROM targets WHERE target_id = ?", [one])
                return ["targets"]

            change.bring_in(stage_rows(catalog.storage, folder, made), rewrites)
        return renamed

    try:
        return write(catalog, work)
    finally:
        remove_folder(folder)


def _find(cursor: duckdb.DuckDBPyConnection, target: str | int) -> int:
    if isinstance(target, str):
        return target_named(target, lambda query, values: cursor.execute(query, values).to_arrow_table())
    if cursor.execute("SELECT 1 FROM targets WHERE target_id = ?", [target]).fetchall():
        return target
    raise ConfigurationError(f"no target has the id {target}", hint="see them with: lightlake sql 'FROM targets'")


def _check_free(cursor: duckdb.DuckDBPyConnection, name: str, target_id: int) -> None:
    others = cursor.execute(
        "SELECT target_id, ra, dec FROM targets WHERE target_id IN "
        "(SELECT target_id FROM target_names WHERE lower(name) = lower(?) AND target_id <> ?) ORDER BY ALL",
        [name, target_id],
    ).fetchall()
    if others:
        other, ra, dec = others[0]
        raise ConfigurationError(
            f"another target is named {name!r}: {other} at {ra:.6f} {dec:+.6f}",
            hint="choose another name, or rename that one first",
        )


def _keeping(cursor: duckdb.DuckDBPyConnection, target_id: int, name: str | None) -> dict[str, Any] | None:
    """Return a label that keeps the former main name; None if a list has that name anyway."""
    labels = cursor.execute("SELECT * FROM labels WHERE target_id = ? ORDER BY ALL", [target_id])
    rows: list[dict[str, Any]] = labels.to_arrow_table().to_pylist()
    if name is None or not rows or any(row["name"] == name for row in rows):
        return None
    of_no_list = {"catalogue": None, "row_in_catalogue": None, "added_at": datetime.now(UTC), "name": name}
    return rows[0] | of_no_list
