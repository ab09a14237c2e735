"""Read text tables: lines of cells with any delimiter.

Lines are split into cells here, because every bad row must be named by its line. The readers of astropy and pyarrow
refuse the whole file, or convert a whole column to text, for one bad cell. Astropy reads the headers of ECSV files.
"""

from __future__ import annotations

import csv
import functools
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from astropy.table import Table
from astropy.table.meta import get_header_from_yaml

from lake.errors import ConfigurationError
from lake.text import counted
from tasks.samples.cells import NUMBER, is_missing, to_text
from tasks.samples.column_names import EQUATORIAL, GALACTIC
from tasks.samples.columns import Column
from tasks.samples.fixed import read_fixed
from tasks.samples.frames import Frame, frames_in
from tasks.samples.positions import SEXAGESIMAL, frame_of, is_angle
from tasks.samples.table import InputTable, apply_masks, describe

_DELIMITERS = {"csv": ",", "tsv": "\t", "ascii": None}
_VALUE = re.compile(rf"(?:{NUMBER}|{SEXAGESIMAL})")
_KEYWORD = re.compile(r"#+\s*(?i:(radesys|radecsys|equinox|epoch))\s*[=:]\s*['\"]?([\w.-]+)")
_HASHED = "it begins with #, and looks like a row: put quotes around a name like that, or delete the line"
_SUBTYPE = re.compile(r""",\s*(?:\n#\s*)?subtype: *(?:'[^']*'|"[^"]*"|[^,}\n]*)|\n#\s*subtype:[^\n]*""")
_RULE = re.compile(r"[-=+|,;\s]*---[-=+|,;\s]*")
_DECIMAL_COMMA = r"^[-+−]?(?:\d+|[\d: hmdHMD°'′]*\d,\d+ *[sS″\"]?|\d*,\d+(?:[eE][-+]?\d+)?)$"
_POSITION_NAMES = {name for group in EQUATORIAL + GALACTIC for pair in group for name in pair}


def decode(content: bytes) -> str:
    """Decode a text file; ValueError if it is binary."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")  # as spreadsheets save "Unicode text"
    if re.search(rb"[\x00-\x08\x0e-\x1a]", content[:4096]):
        raise ValueError("it holds bytes that are no text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")  # older tables; only names can suffer


def read_text(text: str, where: str, kind: str, format: str | None, asked: set[str]) -> InputTable:
    """Read lines of cells. A row is a line; a quoted cell of several lines makes bad rows."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if all(re.fullmatch(r"\|.*\||#.*", line.strip()) for line in lines if line.strip()):
        lines = [re.sub(r"^\s*\|(.*)\|\s*$", r"\1", line) for line in lines]  # bars at both ends: Markdown, HEASARC
    if kind != "ecsv" and format is None and (fixed := read_fixed(lines, where)) is not None:
        return fixed
    numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip()]
    rows = [(n, line) for n, line in numbered if not line.lstrip().startswith("#")]
    if not rows:
        return InputTable("", (), 0)
    if kind != "ecsv":
        rows = rows[_n_before_header([line for _, line in rows[:100]], asked) :]
    above = [line for n, line in numbered if n < rows[0][0]]
    about: dict[str, dict[str, Any]] = {}
    frames = frames_in({found[1]: found[2] for line in above if (found := _KEYWORD.match(line))})
    notes = "\n".join(above)
    if kind == "ecsv":
        about, delimiter, meta = _read_ecsv_header(above, rows[0][1])
        frames, notes = frames_in(meta), "\n".join(map(str, [*meta.get("comments", ()), meta.get("description", "")]))
    elif format is not None:
        delimiter = _DELIMITERS[format]
    else:
        delimiter = _find_delimiter([line for _, line in rows[:20]])
    split = functools.partial(_split, delimiter=delimiter)
    names = split(rows[0][1]) or []
    if not names:
        raise ConfigurationError(
            f"the quotes in line {rows[0][0]} of {where} do not match: {rows[0][1]}", hint="put the header on one line"
        )
    arrays = [name for name, info in about.items() if info.pop("array", False)]
    has_header, start, header = True, 1, (0, "")
    if kind != "ecsv" and not _is_header(names, asked):
        start = 0
        commented: list[str] = []
        # Rows whose name begins with # may be between such a header and the first row.
        for at, line in reversed(list(enumerate(above))):
            commented = split(line.lstrip().lstrip("#").strip()) or []
            if len(commented) == len(names) and _names_position(commented, asked):
                header = numbered[at]
                below = [split(line.lstrip().lstrip("#").strip()) or [] for line in above[at + 1 : at + 2]]
                if below and _are_units(commented, below[0], asked):
                    about = {n: {"unit": unit.strip("()[]")} for n, unit in zip(commented, below[0], strict=False)}
                break
        has_header = header[0] > 0
        names = commented if has_header else _number_columns([split(line) for _, line in rows[:200]])
    while names and not names[-1]:
        names.pop()
    if start:
        header = rows[0]
    # VizieR writes a line of units and a line of dashes below the names. Below data, dashes are an empty row.
    if has_header and (
        (len(rows) > 1 and _RULE.fullmatch(rows[1][1]))
        or (len(rows) > 2 and _RULE.fullmatch(rows[2][1]) and not _n_values(split(rows[1][1])))
    ):
        start = 2 if _RULE.fullmatch(rows[1][1]) else 3
        units = (split(rows[1][1]) or []) if start == 3 else []
        about = {name: {"unit": unit} for name, unit in zip(names, units, strict=False)}
    elif has_header and kind != "ecsv" and len(rows) > start and _are_units(names, split(rows[start][1]) or [], asked):
        units = split(rows[start][1]) or []
        about = {name: {"unit": unit.strip("()[]")} for name, unit in zip(names, units, strict=False)}
        start += 1
    if kind != "ecsv":
        frames = frames or vizier_frames(above)
        for name, info in vizier_columns(above).items():
            about.setdefault(name, {}).update(info)
    rows = rows[start:]
    like_rows = _find_like_rows(numbered, header[0], split, len(names), delimiter)
    rows = sorted([*rows, *like_rows])
    cells, broken = _split_rows([line for _, line in rows], split, len(names))
    broken |= {row: _HASHED for row, (n, _) in enumerate(rows) if n in {n for n, _ in like_rows}} if like_rows else {}
    if delimiter is None:
        broken = {**_shifted(header[1], [line for _, line in rows], cells), **broken}
    for row in broken:
        cells[row] = None
    odd = [rows[row] for row, found in enumerate(cells) if not found or not _n_values(found)]
    _refuse_second_header([row for row in odd if split(row[1]) != names], split, where)
    columns = [
        Column(name, functools.partial(_text_column, cells, i, delimiter), **about.get(name, {}))
        for i, name in enumerate(names)
        if name not in arrays
    ]
    numbers, texts = [n for n, _ in rows], [line for _, line in rows]
    return InputTable(
        "",
        apply_masks(columns),
        len(rows),
        frames,
        numbers,
        texts,
        broken,
        arrays,
        has_header,
        delimiter is None,
        notes,
    )


def _split_rows(
    lines: list[str], split: Callable[[str], list[str] | None], width: int
) -> tuple[list[list[str] | None], dict[int, str]]:
    """Split lines into cells; None, with the reason, for lines with another number of cells than there are columns."""
    cells: list[list[str] | None] = []
    broken: dict[int, str] = {}
    is_open = False  # below a line whose last quote is not closed
    for row, line in enumerate(lines):
        found = split(line)
        odd_quotes = line.count('"') % 2 == 1
        if found is None:
            broken[row] = "its quotes do not match; a row is one line"
        elif is_open and odd_quotes:
            broken[row] = "it continues a quoted cell of a line above; a row is one line"
        elif len(found) != width and (len(found) < width or any(found[width:])):
            broken[row] = f"{counted(len(found), 'cell')} instead of {width}"
        is_open = row in broken and odd_quotes != is_open
        cells.append(None if row in broken else found)
    return cells, broken


def _n_values(cells: list[str] | None) -> int:
    return sum(bool(_VALUE.fullmatch(cell.lstrip("#").strip())) for cell in cells or ())


def _find_like_rows(
    numbered: list[tuple[int, str]],
    header: int,
    split: Callable[[str], list[str] | None],
    width: int,
    delimiter: str | None,
) -> list[tuple[int, str]]:
    """Find the lines below the header that begin with # and look like a row, not a comment."""
    found = []
    for n, line in numbered:
        if n > header and line.lstrip().startswith("#"):
            cells = split(line) or []
            wide = len(cells) == width if delimiter else len(cells) >= width
            if wide and _n_values(cells) >= min(2, width):
                found.append((n, line))
    return found


def _shifted(header: str, lines: list[str], cells: list[list[str] | None]) -> dict[int, str]:
    """Find rows of an aligned table with a cell left of its column: a name of two words and a missing cell."""
    words = [found.span() for found in re.finditer(r"\S+", header.replace("#", " "))]
    if "\t" in header or not re.search(r"\S\s{2,}\S", header):
        return {}
    ends = [start for start, _ in words[1:]] + [10**6]
    n_fit, left = 0, []
    for row, line in enumerate(lines):
        spans = [found.span() for found in re.finditer(r"\S+", line)]
        if cells[row] is None or len(spans) != len(words) or '"' in line:
            continue
        n_fit += all(
            word[0] <= at[0] < end or (at[1] <= word[1] and at[1] > word[0])
            for at, word, end in zip(spans, words, ends, strict=True)
        )
        if any(at[1] <= word[0] for at, word in zip(spans, words, strict=True)):
            left.append(row)
    if 2 * n_fit < len(lines) or not n_fit:
        return {}
    return dict.fromkeys(left, "its cells are left of their columns: a name with a blank goes in quotes")


def _split(line: str, delimiter: str | None) -> list[str] | None:
    if '"' not in line:
        return [cell.strip() for cell in line.split(delimiter)]
    blanks = delimiter is None
    plain = line.replace("\t", " ").strip() if blanks else line
    try:
        cells = next(csv.reader([plain], delimiter=delimiter or " ", skipinitialspace=True, strict=True))
    except csv.Error:
        return None
    return [cell.strip() for cell in cells]


def _find_delimiter(lines: list[str]) -> str | None:
    # The file's name does not decide: some csv files have blanks, semicolons or tabs.
    for delimiter in ("\t", ",", ";", "|"):
        if delimiter in lines[0] and 2 * sum(delimiter in line for line in lines) > len(lines):
            return delimiter
    return None if len(lines[0].split()) > 1 else "\t"  # blanks are inside the cells of a single column


def _n_before_header(lines: list[str], asked: set[str]) -> int:
    """Count the lines of text above a header, as NED writes them; none of them looks like a row."""
    for at, line in enumerate(lines):
        for delimiter in ("\t", "|", ",", ";"):
            cells = _split(line, delimiter) or []
            if _n_values(cells) == 0 and sum(_names_position([cell], asked) for cell in cells) > 1:
                others = [_split(above, delimiter) or [] for above in lines[:at]]
                return at if all(_n_values(found) <= (len(found) != len(cells)) for found in others) else 0
    return 0


def _is_header(cells: list[str], asked: set[str]) -> bool:
    if _names_position(cells, asked):
        return True
    by_number = any(re.fullmatch(r"col\d+", name) for name in asked)
    return not by_number and not any(_VALUE.fullmatch(cell) for cell in cells)


def _names_position(cells: list[str], asked: set[str]) -> bool:
    return any(cell in asked or Column(cell, lambda: None).plain_name in _POSITION_NAMES for cell in cells)


def _number_columns(rows: list[list[str] | None]) -> list[str]:
    """Name the columns of a file without a header; cells that are empty at the end of all rows don't count."""
    usual = Counter(len(row) for row in rows if row).most_common(1)[0][0] if any(rows) else 1
    used = [i for row in rows if row and len(row) == usual for i, cell in enumerate(row, 1) if cell]
    return [f"col{i}" for i in range(1, max(used, default=1) + 1)]


def _text_column(cells: list[list[str] | None], i: int, delimiter: str | None) -> pa.Array:
    text = to_text(pa.array([row[i] if row else None for row in cells], pa.string()))
    if delimiter != ";":
        return text
    # Many spreadsheets write 10,68. If one cell of a column does, all except integers do.
    known = text.filter(pc.invert(is_missing(text)))
    if not pc.all(pc.match_substring_regex(known, _DECIMAL_COMMA), min_count=1).as_py():
        return text
    return pc.replace_substring(text, ",", ".")


def _are_units(names: list[str], cells: list[str], asked: set[str]) -> bool:
    """Return whether a line below the names holds their units: angles for positions, and no digit."""
    units = [cell for name, cell in zip(names, cells, strict=False) if _names_position([name], asked)]
    # A letter in one of them alone is a mistake in a target: many letters are units.
    are_angles = bool(units) and all(is_angle(unit.strip("()[]")) for unit in units)
    return are_angles and not re.search(r"\d", "".join(cells))


def _refuse_second_header(rows: list[tuple[int, str]], split: Callable[[str], list[str] | None], where: str) -> None:
    """Raise an error if a line further down names other columns: rows below it may be in another frame."""
    for number, line in rows:
        cells = split(line)
        if not _n_values(cells) and sum(cell.lower() in _POSITION_NAMES for cell in cells or ()) > 1:
            raise ConfigurationError(
                f"{where} has other names of columns in line {number}", hint="make two lists of it"
            )


def vizier_frames(comments: list[str]) -> tuple[Frame, ...]:
    """Get the frames that VizieR declares: ``#Coosys J2000: eq_FK5 J2000``."""
    found = (re.match(r"#Coosys\s+\S+:\s*(\S+)\s*(\S*)", line, re.IGNORECASE) for line in comments)
    frames = (Frame(m[0].split(":")[1].strip(), functools.partial(frame_of, m[1], m[2])) for m in found if m)
    return tuple({frame.title: frame for frame in frames}.values())


def vizier_columns(comments: list[str]) -> dict[str, dict[str, Any]]:
    """Get what VizieR declares about columns: ``#Column RAJ2000 (F9.5) Right ascension [ucd=pos.eq.ra]``, with tabs."""
    about = {}
    for line in comments:
        if match := re.match(r"#Column\t(\S+)\t\(.*?\)\t(.*?)(?:\[ucd=(.*?)\])?\s*$", line):
            about[match[1]] = {"description": match[2].strip(), "ucd": match[3] or ""}
    return about


def _read_ecsv_header(comments: list[str], names: str) -> tuple[dict[str, Any], str | None, dict[str, Any]]:
    header = get_header_from_yaml([line[2:] for line in comments if not line.startswith("# %ECSV")])
    # Arrays are not used, and astropy cannot make an empty table of them.
    plain = _SUBTYPE.sub("", "\n".join(comments)).split("\n")
    about = describe(header["datatype"], Table.read([*plain, names], format="ascii.ecsv"))
    for info in header["datatype"]:
        about[info["name"]]["array"] = "subtype" in info
    delimiter = header.get("delimiter", " ")
    meta = dict(header.get("meta") or {})
    return about, None if delimiter == " " else delimiter, meta
