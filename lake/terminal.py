"""Tables for a terminal: as wide as it is, with units, and as many digits as a value has."""

from __future__ import annotations

import datetime as dt
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lake.export.tables import as_json, unit_of
from lake.text import counted, visible

# A cell with more characters is folded.
_WIDEST = 40
# So few rows are shown below each other, a column a line, if they are too wide.
_FEW_ROWS = 3
_NAMED = 6
_SPELT = {"s": "seconds"}
_NUMBERS = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal)
# Columns whose names end like this have one decimal: nobody reads more of an age.
_AGE = "age_days"


def table_text(
    table: pa.Table, width: int | None = None, longest: int = 1000, *, expand: bool = False, enough: int = 0
) -> str:
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
    expand
        Show rows a column a line, however many there are.
    enough
        So many first columns are enough for a reader: if they fit, a few rows are shown like many.

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
    if not table.num_rows:
        return "no rows"
    rows = counted(table.num_rows, "row")
    if table.num_rows > longest:
        rows += f", the first {longest} shown"
    names = [visible(name) for name in table.column_names]
    cells = [
        [visible(_cell(value, name)) for value in column]
        for name, column in zip(names, _columns(table.slice(0, longest)), strict=True)
    ]
    units = [_unit(field) for field in table.schema]
    heads = [f"{name}\n({unit})" if unit else name for name, unit in zip(names, units, strict=True)]
    widths = [_width(head, column) for head, column in zip(heads, cells, strict=True)]
    fits = width is None or _together(widths) <= width
    has_enough = width is not None and enough > 0 and _together(widths[:enough]) <= width
    if expand or (not fits and not has_enough and table.num_rows <= _FEW_ROWS):
        return _listed(names, units, cells, width) + rows
    if width is None or fits:
        return _grid(table.schema, heads, cells, width) + rows
    fitting = 1
    while _together(widths[: fitting + 1]) <= width:
        fitting += 1
    left = names[fitting:]
    named = ", ".join(left[:_NAMED]) + (", ..." if len(left) > _NAMED else "")
    more = _wrapped(f"... and {len(left)} more (--expand shows all): {named}", width) if left else ""
    return f"{_grid(table.schema, heads[:fitting], cells[:fitting], width)}{more}{rows}"


def _wrapped(text: str, width: int) -> str:
    """Return a text in lines of so many columns; between words, where all letters take one."""
    from rich.cells import chop_cells

    lines = textwrap.wrap(text, width) if text.isascii() else chop_cells(text, width)
    return "".join(f"{line}\n" for line in lines)


def _together(widths: Sequence[int]) -> int:
    """Return how wide a table is with its lines."""
    return sum(widths) + 3 * len(widths) + 1


def _width(head: str, cells: Sequence[str]) -> int:
    return max(*map(_columns_of, head.split("\n")), 0, min(_WIDEST, max(map(_columns_of, cells), default=0)))


def _columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: letters of East Asia take two."""
    from rich.cells import cell_len

    return len(text) if text.isascii() else cell_len(text)


def _unit(field: pa.Field) -> str | None:
    """Return the unit of a column, unless its name says it."""
    unit = unit_of(field)
    said = field.name.lower()
    return None if unit is None or said.endswith(f"_{unit.lower()}") or said in (f"{unit}s", _SPELT.get(unit)) else unit


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
        number = any(is_number(field.type) for is_number in _NUMBERS)
        # Text, not str, in which rich would look for its markup, such as [red].
        drawn.add_column(Text(head), justify="right" if number else "left", overflow="fold")
    for row in zip(*cells, strict=True):
        drawn.add_row(*map(Text, row))
    console = Console(width=width or 10_000, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(drawn)
    return capture.get()


def _listed(
    names: Sequence[str], units: Sequence[str | None], cells: Sequence[Sequence[str]], width: int | None
) -> str:
    """Write rows below each other, a column a line; what is longer than a line goes on below itself."""
    heads = [f"{name} ({unit})" if unit else name for name, unit in zip(names, units, strict=True)]
    room = max(map(_columns_of, heads))
    if width is not None:
        room = min(room, width // 2)
    lines = []
    for row in zip(*cells, strict=True):
        for head, value in zip(heads, row, strict=True):
            lines += _beside(head, value, room, width)
        lines.append("─" * min(width or 80, room + 20))
    return "\n".join(lines) + "\n"


def _beside(head: str, value: str, room: int, width: int | None) -> list[str]:
    from rich.cells import chop_cells, set_cell_size

    # A line that is as wide as the terminal is fine, one more is not.
    left = _columns_of(head) > room
    first = chop_cells(head, room) if left else [head]
    second = [value] if width is None else chop_cells(value, max(1, width - room - 2)) or [""]
    lines = []
    for at in range(max(len(first), len(second))):
        name = set_cell_size(first[at] if at < len(first) else "", room)
        lines.append(f"{name}  {second[at] if at < len(second) else ''}".rstrip())
    return lines


def _cell(value: Any, name: str = "") -> str:
    """Return a value with the digits that its type holds: 15 of a double."""
    if value is None:
        return ""
    if isinstance(value, np.float32):
        return str(value)
    if isinstance(value, float):
        return f"{value:.1f}" if name.endswith(_AGE) else f"{value:.15g}"
    if isinstance(value, dt.datetime):
        return str(value).replace("+00:00", "Z")
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    if isinstance(value, dict | list):
        return as_json(value)
    return str(value)
