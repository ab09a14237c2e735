"""Tables and columns of the lake, as SQL and Arrow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import SchemaError

_ARROW: dict[str, pa.DataType] = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "DOUBLE": pa.float64(),
    "FLOAT": pa.float32(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMPTZ": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True)
class Column:
    """One column: SQL type, VOUnit, UCD, description and allowed values."""

    name: str
    type: str
    description: str
    unit: str | None = None
    ucd: str | None = None
    required: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None

    @property
    def comment(self) -> str:
        """Return the comment for the catalogue: description, then unit and UCD in brackets."""
        notes = [f"unit={self.unit}"] if self.unit else []
        notes += [f"ucd={self.ucd}"] if self.ucd else []
        return f"{self.description} [{'; '.join(notes)}]" if notes else self.description


@dataclass(frozen=True)
class Table:
    """One table: what a row is, its columns, partition, sort order and key."""

    name: str
    row: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition: str | None = None
    sort: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """Return the column of that name."""
        return next(column for column in self.columns if column.name == name)

    @property
    def names(self) -> list[str]:
        """Return the column names, in order."""
        return [column.name for column in self.columns]

    @cached_property
    def arrow(self) -> pa.Schema:
        """Return the Arrow schema, with unit, UCD and description as field metadata."""
        return pa.schema(
            [
                pa.field(
                    column.name,
                    _ARROW[column.type],
                    nullable=not column.required,
                    metadata={
                        key: value
                        for key, value in (
                            ("unit", column.unit),
                            ("ucd", column.ucd),
                            ("description", column.description),
                        )
                        if value
                    },
                )
                for column in self.columns
            ]
        )

    def cast(self, table: pa.Table) -> pa.Table:
        """Cast a table to this schema: columns in order, missing ones NULL, types checked.

        Raises
        ------
        SchemaError
            If a column is unknown, or a value does not fit its type.
        """
        unknown = sorted(set(table.column_names) - set(self.names))
        if unknown:
            raise SchemaError(f"table {self.name} has no column {', '.join(unknown)}")
        arrays = []
        for field in self.arrow:
            if field.name not in table.column_names:
                arrays.append(pa.nulls(table.num_rows, field.type))
                continue
            try:
                values = table[field.name]
                if pa.types.is_dictionary(values.type) and values.type.value_type == field.type:
                    arrays.append(values)  # equivalent, and a hundredth of the size
                    continue
                # Narrowing float64 to float32 is intended; everything else must fit exactly.
                safe = not pa.types.is_floating(field.type)
                values = values.cast(field.type, safe=safe)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise SchemaError(f"column {self.name}.{field.name} is not {field.type}: {error}") from error
            if pa.types.is_floating(field.type) and pc.any(pc.is_nan(values)).as_py():
                # Missing is NULL in the lake, never NaN.
                values = pc.if_else(pc.is_nan(values), pa.scalar(None, field.type), values)
            arrays.append(values)
        # lake.commit.validate checks nullability, and counts the rows that break it.
        fields = [field.with_type(values.type) for field, values in zip(self.arrow, arrays, strict=True)]
        return pa.table(arrays, schema=pa.schema(fields))

    def empty(self) -> pa.Table:
        """Return a table without rows."""
        return self.arrow.empty_table()


def create_statements(table: Table) -> list[str]:
    """Return the SQL that creates a table with its partition, sort order and comments."""
    columns = ", ".join(
        f"{column.name} {column.type}{' NOT NULL' if column.required else ''}" for column in table.columns
    )
    statements = [f"CREATE TABLE {table.name} ({columns})"]
    if table.partition:
        statements.append(f"ALTER TABLE {table.name} SET PARTITIONED BY ({table.partition})")
    if table.sort:
        order = ", ".join(f"{name} ASC" for name in table.sort)
        statements.append(f"ALTER TABLE {table.name} SET SORTED BY ({order})")
    statements.append(f"COMMENT ON TABLE {table.name} IS {quoted('One row per ' + table.row)}")
    return statements + [comment_statement(table, column) for column in table.columns]


def add_statements(table: Table, *names: str) -> list[str]:
    """Return the SQL that adds nullable columns to a table of an older schema."""
    statements = []
    for column in table.columns:
        if column.name in names:
            statements += [
                f"ALTER TABLE {table.name} ADD COLUMN {column.name} {column.type}",
                comment_statement(table, column),
            ]
    return statements


def comment_statement(table: Table, column: Column) -> str:
    """Return the SQL that sets a column's comment in the catalogue."""
    return f"COMMENT ON COLUMN {table.name}.{column.name} IS {quoted(column.comment)}"


def quoted(text: str) -> str:
    """Quote a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def listed(names: Iterable[str]) -> str:
    """Return names as a list in SQL, which must not be empty."""
    return ", ".join(quoted(name) for name in names) or "''"
