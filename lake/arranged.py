"""Tables of commands as they are shown: what matters first, and the schema as a table or as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from lake.model.table import Table

FINDINGS = pa.schema([(name, pa.string()) for name in ("level", "check", "message", "hint")])
BACKUPS = pa.schema([("made_at", pa.timestamp("us", tz="UTC")), ("path", pa.string())])
_SCHEMA = pa.schema([(name, pa.string()) for name in ("table", "column", "type", "unit", "ucd", "description")])
# What one looks for in the status of a lake; the others follow.
_FIRST = ("archive", "asked", "found", "empty", "failed", "rejected", "rows", "age_days")


def status_for_reading(table: pa.Table) -> pa.Table:
    """Put those columns of the status first that one looks for, and the release with them if an archive has two."""
    archives = table["archive"].to_pylist()
    several = len(set(archives)) < len(archives)
    first = [_FIRST[0], "release", *_FIRST[1:]] if several else list(_FIRST)
    return table.select([*first, *(name for name in table.column_names if name not in first)])


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


def schema_lines(tables: Iterable[Table]) -> Iterator[str]:
    """Write the schema for reading: a line for each table and column."""
    for table in tables:
        yield f"{table.name}: one row per {table.row}"
        for column in table.columns:
            notes = " ".join(filter(None, (column.unit, column.ucd)))
            yield f"  {column.name:20} {column.type:12} {column.description}{f' [{notes}]' if notes else ''}"
