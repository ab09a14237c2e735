"""Tables of commands as they are shown: what matters first, and the schema as a table or as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

import pyarrow as pa

from lake.model.table import Table
from lake.model.views import View
from lake.store.backup import Backup

_FINDINGS = pa.schema([(name, pa.string()) for name in ("level", "check", "message", "hint")])
_BACKUPS = pa.schema([("made_at", pa.timestamp("us", tz="UTC")), ("path", pa.string())])
_SCHEMA = pa.schema([(name, pa.string()) for name in ("table", "column", "type", "unit", "ucd", "description")])
# What one looks for in the status of a lake.
_FIRST = ("archive", "asked", "found", "empty", "failed", "rejected", "rows", "age_days")


def first_of_status(table: pa.Table) -> list[str]:
    """Return the columns of the status that one looks for, with the release if an archive has two."""
    archives = table["archive"].to_pylist()
    several = len(set(archives)) < len(archives)
    return [_FIRST[0], "release", *_FIRST[1:]] if several else list(_FIRST)


def findings_table(findings: Iterable[object]) -> pa.Table:
    """Return a row for each finding of `verify`."""
    return pa.Table.from_pylist([vars(finding) for finding in findings], schema=_FINDINGS)


def backups_table(backups: Iterable[Backup]) -> pa.Table:
    """Return a row for each backup of the catalogue."""
    rows = [{"made_at": backup.made_at, "path": str(backup.path)} for backup in backups]
    return pa.Table.from_pylist(rows, schema=_BACKUPS)


def schema_table(tables: Iterable[Table]) -> pa.Table:
    """Return a row for each column of the lake's tables."""
    rows = [
        {
            "table": table.name,
            "column": column.name,
            "type": column.type,
            "unit": column.unit,
            "ucd": column.ucd,
            "description": column.description,
        }
        for table in tables
        for column in table.columns
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def schema_lines(tables: Iterable[Table], views: Iterable[View], width: int | None = None) -> Iterator[str]:
    """Write the schema for reading: a line for each table, column, view and macro; more in a narrow terminal."""
    for table in tables:
        yield f"{table.name}: one row per {table.row.removeprefix('a ').removeprefix('an ')}"
        for column in table.columns:
            notes = " ".join(filter(None, (column.unit, column.ucd)))
            start = f"  {column.name:20} {column.type:12} "
            told = f"{column.description}{f' [{notes}]' if notes else ''}"
            yield textwrap.fill(
                told,
                width or 10_000,
                initial_indent=start,
                subsequent_indent=" " * (len(start) if (width or 80) >= 60 else 4),
                break_long_words=False,
                break_on_hyphens=False,
            )
    for view in views:
        line = f"{view.call}: {view.kind}: {view.note.text}"
        yield textwrap.fill(line, width or 10_000, subsequent_indent="  ", break_long_words=False)
