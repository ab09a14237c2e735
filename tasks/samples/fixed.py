"""Read tables with cells at fixed columns of the text: IPAC's, and those of the AAS and CDS.

The header says where cells are, so an empty cell or a name with blanks shifts nothing. A row with text between two
cells is bad.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import ConfigurationError
from lake.text import counted
from tasks.samples.cells import to_numbers, to_text
from tasks.samples.columns import Column
from tasks.samples.frames import Frame, frames_in
from tasks.samples.table import InputTable

_BYTES = re.compile(r"\s*(?:(\d+)\s*-\s*)?(\d+)\s+[AIFEDL]\d*(?:\.\d+)?\s+(\S+)\s+(\S+)(?:\s+(.*))?")
# Explanations begin with limits and the value of an empty cell: [0/24]?=-9.99
_NULL = re.compile(r"(?:[\[\]][^\[\]]*[\[\]])?\s*\?=(\S+)")
_KEY = re.compile(r"\\(\w+)\s*=\s*(.*)")


@dataclass(frozen=True)
class _Cell:
    """Where a column's cells are, from ``start`` to before ``end``, and what the header declares about them."""

    name: str
    start: int
    end: int
    unit: str = ""
    null: str = ""
    description: str = ""


def read_fixed(lines: list[str], where: str) -> InputTable | None:
    """Read a table of IPAC, AAS or CDS; None if the lines are none of these.

    Raises
    ------
    ConfigurationError
        If its header or its rows can't be understood.
    """
    first = next((line for line in lines if line.strip()), "")
    if first.startswith(("|", "\\")):
        return _read_ipac(lines, where)
    blocks = [n for n, line in enumerate(lines) if line.lower().startswith("byte-by-byte description of file")]
    if not blocks:
        return None
    if len(blocks) > 1:
        raise ConfigurationError(
            f"{where} describes {counted(len(blocks), 'table')}", hint="give a file with one table"
        )
    return _read_described(lines, blocks[0], where)


def _read_ipac(lines: list[str], where: str) -> InputTable:
    header = [n for n, line in enumerate(lines) if line.startswith("|")]
    above = [line for line in lines if line.startswith("\\")]
    if not header or len(header) > 4 or header != list(range(header[0], header[0] + len(header))):
        raise ConfigurationError(
            f"{where} is an IPAC table without a header that can be read", hint="save it as VOTable, ECSV or CSV"
        )
    ends = [found.start() for found in re.finditer(r"\|", lines[header[0]])]
    spans = list(itertools.pairwise(ends))
    header_cells = [[lines[n][start + 1 : end].strip() for start, end in spans] for n in header]
    units = header_cells[2] if len(header_cells) > 2 else [""] * len(spans)
    nulls = header_cells[3] if len(header_cells) > 3 else ["null"] * len(spans)
    # The character below a bar belongs to no cell.
    cells = [
        _Cell(name, start + 1, end, unit if unit not in ("-", "--") else "", null)
        for (start, end), name, unit, null in zip(spans, header_cells[0], units, nulls, strict=True)
    ]
    rows = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith(("|", "\\"))]
    if rows and all(_is_shifted(line, cells, ends) for _, line in rows):
        raise ConfigurationError(
            f"{where} is an IPAC table whose cells are not below their names", hint="save it as VOTable, ECSV or CSV"
        )
    keywords = {match[1]: match[2] for line in above if (match := _KEY.match(line))}
    return _table(cells, rows, ends, frames_in(keywords), "\n".join(above))


def _read_described(lines: list[str], block: int, where: str) -> InputTable:
    rules = [n for n, line in enumerate(lines) if n > block and re.fullmatch(r"\s*-{20,}\s*", line)]
    if len(rules) < 3:
        raise ConfigurationError(f"{where} describes a table and has none", hint="give the file with the rows")
    cells: list[_Cell] = []
    for line in lines[rules[1] + 1 : rules[2]]:
        match = _BYTES.fullmatch(line)
        if match:
            start, end, unit, name, text = match.groups()
            null = _NULL.match(text or "")
            cells.append(
                _Cell(
                    name,
                    int(start or end) - 1,
                    int(end),
                    unit.strip("-"),
                    null[1].rstrip("),;") if null else "",
                    text or "",
                )
            )
        elif cells:
            last = cells.pop()
            cells.append(_Cell(**{**vars(last), "description": f"{last.description} {line.strip()}"}))
    rows = [(n, line) for n, line in enumerate(lines, 1) if n > rules[-1] + 1 and line.strip()]
    width = max((cell.end for cell in cells), default=0)
    used = {at for cell in cells for at in range(cell.start, cell.end)}
    return _table(cells, rows, [at for at in range(width) if at not in used], ())


def _is_shifted(line: str, cells: list[_Cell], between: list[int]) -> bool:
    return bool(line[cells[-1].end :].strip()) or any(
        not line[at : at + 1].isspace() for at in between if at < len(line)
    )


def _table(
    cells: list[_Cell], rows: list[tuple[int, str]], between: list[int], frames: tuple[Frame, ...], notes: str = ""
) -> InputTable:
    texts = [line for _, line in rows]
    broken = {
        row: "its cells are not where the header has them"
        for row, line in enumerate(texts)
        if _is_shifted(line, cells, between)
    }
    columns = tuple(
        Column(cell.name, functools.partial(_read_cells, texts, cell), unit=cell.unit, description=cell.description)
        for cell in cells
    )
    return InputTable("", columns, len(rows), frames, [n for n, _ in rows], texts, broken, notes=notes)


def _read_cells(lines: list[str], cell: _Cell) -> pa.Array:
    text = to_text(pa.array([line[cell.start : cell.end] for line in lines], pa.string()))
    if not cell.null:
        return text
    is_null = pc.equal(text, cell.null)
    numbers = pa.array(to_numbers(pa.array([cell.null])))
    if numbers[0].as_py() == numbers[0].as_py():  # -9.9 may be written -9.90
        is_null = pc.or_(is_null, pc.equal(pa.array(to_numbers(text)), numbers[0]))
    return pc.if_else(is_null, None, text)
