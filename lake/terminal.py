"""Tables for a terminal: as wide as it is, with units, and as many digits as a value has."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lake.model.schema import TABLES
from lake.text import counted, visible

# A cell with more characters is folded.
_WIDEST = 40
# So few rows are shown below each other, a column a line, if they are too wide.
_FEW_ROWS = 3
_NAMED = 6

_UNITS = {column.name: column.unit for table in TABLES.values() for column in table.columns if column.unit}


def table_text(table: pa.Table, width: int | None = None, longest: int = 1000) -> str:
    """Draw a table with lines.

    Parameters
    ----------
    table
        What is shown. Columns that are called as the lake's are have their units below their names.
    width
        Characters of a line; None: as many as it takes. A few rows that are wider are shown a column a line; of many,
        the first columns are.
    longest
        Rows that are shown; the others are counted.

    Examples
    --------
    >>> print(table_text(pa.table({"name": ["M 87"], "ra": [187.70593]})))
    ┏━━━━━━┳━━━━━━━━━━━┓
    ┃      ┃        ra ┃
    ┃ name ┃     (deg) ┃
    ┡━━━━━━╇━━━━━━━━━━━┩
    │ M 87 │ 187.70593 │
    └──────┴───────────┘
    1 row
    """
    rows = counted(table.num_rows, "row")
    if not table.num_rows:
        return rows
    if table.num_rows > longest:
        rows += f", the first {longest:,} shown"
    names = [visible(name) for name in table.column_names]
    cells = [[visible(_cell(value)) for value in column] for column in _columns(table.slice(0, longest))]
    units = [_unit(name) for name in table.column_names]
    heads = [f"{name}\n({unit})" if unit else name for name, unit in zip(names, units, strict=True)]
    widths = [
        max(map(len, head.split("\n")))
        if not column
        else max(*map(len, head.split("\n")), min(_WIDEST, max(map(len, column))))
        for head, column in zip(heads, cells, strict=True)
    ]
    if width is None or sum(widths) + 3 * len(widths) + 1 <= width:
        return _grid(table.schema, heads, cells, width) + rows
    if table.num_rows <= _FEW_ROWS:
        return _listed(names, units, cells, width) + rows
    fitting = 1
    while sum(widths[: fitting + 1]) + 3 * (fitting + 1) + 1 <= width:
        fitting += 1
    left = names[fitting:]
    named = ", ".join(left[:_NAMED]) + (", ..." if len(left) > _NAMED else "")
    told = f"... and {counted(len(left), 'more column')} (all: --output csv): {named}"
    return _grid(table.schema, heads[:fitting], cells[:fitting], width) + f"{textwrap.fill(told, width)}\n{rows}"


def _unit(name: str) -> str | None:
    """Return the unit of a column of the lake, unless its name says it."""
    unit = _UNITS.get(name)
    return None if unit is None or name.endswith(f"_{unit}") else unit


def _columns(table: pa.Table) -> list[list[Any]]:
    """Return the values of each column; those in single precision stay so."""
    return [
        [None if value is None else np.float32(value) for value in column.to_pylist()]
        if pa.types.is_float32(column.type)
        else column.to_pylist()
        for column in table.columns
    ]


def _grid(schema: pa.Schema, heads: Sequence[str], cells: Sequence[Sequence[str]], width: int | None) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table()
    for head, field in zip(heads, schema, strict=False):
        number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        # Text, not str, in which rich would look for its markup, such as [red].
        drawn.add_column(Text(head), justify="right" if number else "left", overflow="fold")
    for row in zip(*cells, strict=True):
        drawn.add_row(*map(Text, row))
    console = Console(width=width or 10_000, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(drawn)
    return capture.get()


def _listed(names: Sequence[str], units: Sequence[str | None], cells: Sequence[Sequence[str]], width: int) -> str:
    """Write rows below each other, a column a line."""
    heads = [f"{name} ({unit})" if unit else name for name, unit in zip(names, units, strict=True)]
    room = max(map(len, heads))
    lines = []
    for row in zip(*cells, strict=True):
        lines += [f"{head:<{room}}  {value}".rstrip() for head, value in zip(heads, row, strict=True)]
        lines.append("─" * min(width, room + 20))
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    """Return a value with the digits that its type holds."""
    if value is None:
        return ""
    if isinstance(value, np.float32):
        return str(value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)
