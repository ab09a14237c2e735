"""Read the tables of a file as they are: columns with what the file says about them, cells as Arrow arrays.

Text is split into cells line by line, because a list of targets has to name the line of every bad row: the
readers of astropy and pyarrow refuse the whole file, or turn a whole column into text, for one bad cell. What
the header of an ECSV file means is left to astropy.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from astropy.coordinates import SkyCoord
from astropy.io import fits, votable
from astropy.table import Table
from astropy.table.meta import YamlParseError, get_header_from_yaml

from lake.errors import ConfigurationError
from tasks.samples.columns import EQUATORIAL, GALACTIC, Column, Frame
from tasks.samples.positions import NUMBER, SEXAGESIMAL, frame_of, to_text, year_of

FORMATS = {
    "ecsv": (".ecsv",),
    "csv": (".csv",),
    "tsv": (".tsv", ".tab"),
    "ascii": (".txt", ".dat", ".cat", ".ascii", ".lst"),
    "votable": (".vot", ".votable", ".xml"),
    "fits": (".fits", ".fit", ".fts"),
    "parquet": (".parquet", ".parq", ".pq"),
}
_DELIMITERS = {"csv": ",", "tsv": "\t", "ascii": None}
_VALUE = re.compile(rf"(?:{NUMBER}|{SEXAGESIMAL})")
_RULE = re.compile(r"[-=+|,;\s]*---[-=+|,;\s]*")
_POSITION_NAMES = {name for group in EQUATORIAL + GALACTIC for pair in group for name in pair}
_ROLES = {"lon": "lon", "lat": "lat", "d_lon_coslat": "pm_lon", "d_lat": "pm_lat"}


@dataclass(frozen=True)
class Sheet:
    """One table of a file.

    Parameters
    ----------
    title
        What the file calls it; empty where a file holds but one.
    columns
        Its columns.
    n_rows
        How many rows it has.
    frames
        The frames that it declares without saying for which columns.
    lines, texts
        Of text files: line number and text of each row.
    broken
        Rows that can't be taken apart into cells, with the reason.
    has_header
        False if the columns have no names of their own, and are called col1, col2, ...
    """

    title: str
    columns: tuple[Column, ...]
    n_rows: int
    frames: tuple[Frame, ...] = ()
    lines: Sequence[int] = ()
    texts: Sequence[str] = ()
    broken: Mapping[int, str] = field(default_factory=dict)
    has_header: bool = True


def read_sheets(path: Path, *, format: str | None = None, asked: Iterable[str] = ()) -> list[Sheet]:
    """Read all tables of a file.

    Parameters
    ----------
    path
        The file, compressed with gzip or not.
    format
        One of `FORMATS`. By default what the file begins with decides, then its name.
    asked
        Names of columns that the user asked for: they help to tell a header from data.

    Raises
    ------
    ConfigurationError
        If the file isn't there, is empty, or can't be read.
    """
    where = path.name
    if format is not None and format not in FORMATS:
        raise ConfigurationError(f"no format is called '{format}'", hint=f"formats are {', '.join(FORMATS)}")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ConfigurationError(f"{path} {what}", hint="give the path of a file with targets")
    kind = format or "table"
    try:
        content = path.read_bytes()
        name = path
        if content.startswith(b"\x1f\x8b"):
            content, name = gzip.decompress(content), path.with_suffix("")
        if not content.strip():
            raise ConfigurationError(f"{where} is empty", hint="give a file with one target a row")
        kind = format or _format_of(name.suffix.lower(), content[:512], where)
        if kind == "votable":
            return _read_votable(content)
        if kind == "fits":
            return _read_fits(content)
        if kind == "parquet":
            return _read_parquet(content)
        return [_read_text(_decode(content), where, kind, format, set(asked))]
    except (OSError, ValueError, TypeError, LookupError, SyntaxError, EOFError, UserWarning) as error:
        raise _unreadable(where, kind, error) from error
    except (pa.ArrowException, YamlParseError, zlib.error) as error:
        raise _unreadable(where, kind, error) from error


def _unreadable(where: str, kind: str, error: Exception) -> ConfigurationError:
    said = str(error).strip().splitlines() or [type(error).__name__]
    return ConfigurationError(
        f"{where} can't be read as {kind}: {said[0]}",
        hint=f"check that the file is whole, or say what it is with format ({', '.join(FORMATS)})",
    )


def _format_of(suffix: str, start: bytes, where: str) -> str:
    begins = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if begins.startswith((b"<!doctype html", b"<html")):
        raise ConfigurationError(f"{where} is a web page, not a table", hint="save the table itself")
    for magic, kind in (
        (b"simple  =", "fits"),
        (b"par1", "parquet"),
        (b"# %ecsv", "ecsv"),
        (b"<?xml", "votable"),
        (b"<votable", "votable"),
    ):
        if begins.startswith(magic):
            return kind
    return next((kind for kind, suffixes in FORMATS.items() if suffix in suffixes), "ascii")


def _decode(content: bytes) -> str:
    if re.search(rb"[\x00-\x08\x0e-\x1a]", content[:4096]):
        raise ValueError("it holds bytes that are no text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # older tables; only names can suffer


def _read_text(text: str, where: str, kind: str, format: str | None, asked: set[str]) -> Sheet:
    """Read lines of cells. A row is a line: a quoted cell that runs over several lines makes bad rows."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip()]
    rows = [(n, line) for n, line in numbered if not line.lstrip().startswith("#")]
    if not rows:
        return Sheet("", (), 0)
    if rows[0][1].startswith(("|", "\\")):
        raise ConfigurationError(
            f"{where} is an IPAC table", hint="save it as VOTable, ECSV or CSV; IRSA offers all of them"
        )
    above = [line for n, line in numbered if n < rows[0][0]]
    about: dict[str, dict[str, Any]] = {}
    if kind == "ecsv":
        about, delimiter = _read_ecsv_header(above, rows[0][1])
    elif format is not None:
        delimiter = _DELIMITERS[format]
    else:
        delimiter = _find_delimiter([line for _, line in rows[:20]])
    split = functools.partial(_split, delimiter=delimiter)
    names = split(rows[0][1]) or []
    has_header, start = True, 1
    if kind != "ecsv" and not _is_header(names, asked):
        start = 0
        commented = (split(above[-1].lstrip().lstrip("#").strip()) or []) if above else []
        has_header = len(commented) == len(names) and _names_position(commented, asked)
        names = commented if has_header else _number_columns([split(line) for _, line in rows[:200]])
    while names and not names[-1]:
        names.pop()
    # VizieR writes a line of units and a line of dashes below the names.
    if has_header and any(_RULE.fullmatch(line) for _, line in rows[1:3]):
        start = 2 if _RULE.fullmatch(rows[1][1]) else 3
        units = (split(rows[1][1]) or []) if start == 3 else []
        about = {name: {"unit": unit} for name, unit in zip(names, units, strict=False)}
    rows = rows[start:]
    cells, broken = _split_rows([line for _, line in rows], split, len(names))
    columns = [
        Column(name, functools.partial(_text_column, cells, i), **about.get(name, {})) for i, name in enumerate(names)
    ]
    numbers, texts = [n for n, _ in rows], [line for _, line in rows]
    return Sheet("", _apply_masks(columns), len(rows), (), numbers, texts, broken, has_header)


def _split_rows(
    lines: list[str], split: Callable[[str], list[str] | None], width: int
) -> tuple[list[list[str] | None], dict[int, str]]:
    """Split lines into cells; None, with the reason, for those that don't have as many as there are columns."""
    cells: list[list[str] | None] = []
    broken: dict[int, str] = {}
    is_open = False  # below a line whose last quote is not closed
    for row, line in enumerate(lines):
        found = split(line)
        odd_quotes = line.count('"') % 2 == 1
        if found is None:
            broken[row] = "its quotes do not match; a row is one line"
        elif is_open and odd_quotes:
            broken[row] = "it goes on with a quoted cell of a line above; a row is one line"
        elif len(found) != width and (len(found) < width or any(found[width:])):
            broken[row] = f"{len(found)} cells instead of {width}"
        is_open = row in broken and odd_quotes != is_open
        cells.append(None if row in broken else found)
    return cells, broken


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
    # Whatever the file's name says: some that are called csv hold blanks, semicolons or tabs.
    for delimiter in ("\t", ",", ";", "|"):
        if delimiter in lines[0] and 2 * sum(delimiter in line for line in lines) > len(lines):
            return delimiter
    return None if len(lines[0].split()) > 1 else "\t"  # blanks belong to the cells of a single column


def _is_header(cells: list[str], asked: set[str]) -> bool:
    if _names_position(cells, asked):
        return True
    by_number = any(re.fullmatch(r"col\d+", name) for name in asked)
    return not by_number and not any(_VALUE.fullmatch(cell) for cell in cells)


def _names_position(cells: list[str], asked: set[str]) -> bool:
    return any(cell in asked or Column(cell, lambda: None).habit in _POSITION_NAMES for cell in cells)


def _number_columns(rows: list[list[str] | None]) -> list[str]:
    """Name the columns of a file without a header; empty cells at the end of all rows don't count."""
    usual = Counter(len(row) for row in rows if row).most_common(1)[0][0] if any(rows) else 1
    used = [i for row in rows if row and len(row) == usual for i, cell in enumerate(row, 1) if cell]
    return [f"col{i}" for i in range(1, max(used, default=1) + 1)]


def _text_column(cells: list[list[str] | None], i: int) -> pa.Array:
    return to_text(pa.array([row[i] if row else None for row in cells], pa.string()))


def _read_ecsv_header(comments: list[str], names: str) -> tuple[dict[str, dict[str, Any]], str | None]:
    empty = Table.read([*comments, names], format="ascii.ecsv")
    header = get_header_from_yaml([line[2:] for line in comments if not line.startswith("# %ECSV")])
    delimiter = header.get("delimiter", " ")
    return _describe(header["datatype"], empty), None if delimiter == " " else delimiter


def _describe(datatype: list[dict[str, Any]], empty: Table) -> dict[str, dict[str, Any]]:
    """Tell what astropy's header says about each column as it is stored, SkyCoords in their parts."""
    about: dict[str, dict[str, Any]] = {
        d["name"]: {"unit": str(d.get("unit", "")), "ucd": str(dict(d.get("meta") or {}).get("ucd", ""))}
        for d in datatype
    }
    for name in empty.colnames:
        sky = empty[name]
        if isinstance(sky, SkyCoord):
            parts = sky.get_representation_component_names() | sky.get_representation_component_names("s")
            obstime = getattr(sky, "obstime", None)
            epoch = float(obstime.jyear) if obstime is not None and obstime.isscalar else None
            frame = Frame(name, sky.frame.replicate_without_data, epoch)
            for part, generic in parts.items():
                if generic in _ROLES:
                    stored = about.setdefault(f"{name}.{part}", {})
                    stored |= {"role": _ROLES[generic], "frame": frame}
    return about


def _apply_masks(columns: list[Column]) -> tuple[Column, ...]:
    """Empty the cells that astropy has masked in a column of its own, called ``<name>.mask``."""
    by_name = {c.name: c for c in columns}
    return tuple(
        replace(c, read=functools.partial(_masked, c.read, by_name[mask].read))
        if (mask := f"{c.name}.mask") in by_name
        else c
        for c in columns
    )


def _masked(read: Callable[[], pa.Array], read_mask: Callable[[], pa.Array]) -> pa.Array:
    cells, hidden = read(), pc.equal(pc.utf8_lower(to_text(read_mask())), "true")
    return pc.if_else(pc.fill_null(hidden, False), pa.scalar(None, cells.type), cells)


def _numpy_column(values: Callable[[], Any], null: Any = None) -> pa.Array:
    """Turn a column of a FITS table or VOTable into Arrow."""
    array = values()
    hidden, data = np.ma.getmaskarray(array), np.ma.getdata(array)
    if data.dtype.kind in "SUO":
        texts = [c.decode("utf-8", "replace") if isinstance(c, bytes) else str(c) for c in data.tolist()]
        return to_text(pa.array(texts, pa.string(), mask=hidden))
    if null is not None:
        hidden = hidden | (data == null)
    return pa.array(data.astype(data.dtype.newbyteorder("=")), mask=hidden)


def _read_votable(content: bytes) -> list[Sheet]:
    # A cell that can't be read is masked: then its row is bad, and not the file.
    document = votable.parse(io.BytesIO(content), verify="ignore", invalid="mask")
    tables = list(document.iter_tables())
    if not tables:
        raise ValueError("it holds no table")
    systems = {c.ID: _coosys(c) for c in document.iter_coosys() if c.system}
    # Without a reference, a frame can only be meant for right ascension and declination.
    equatorial = [f for f in systems.values() if f.title.lower().startswith(("icrs", "eq_", "fk"))]
    frames = tuple({f.title: f for f in equatorial}.values())
    sheets = []
    for number, table in enumerate(tables, 1):
        about = _describe_fields(table.fields, systems)
        columns = [
            Column(read=functools.partial(_numpy_column, functools.partial(table.array.__getitem__, ID)), **said)
            for ID, said in about.items()
            if table.array.dtype[ID].shape == ()
        ]
        title = table.name or table.ID or f"table {number}"
        sheets.append(Sheet(title, tuple(columns), len(table.array), frames))
    return sheets


def _describe_fields(fields: Iterable[Any], systems: Mapping[str, Frame]) -> dict[str, dict[str, Any]]:
    about: dict[str, dict[str, Any]] = {}
    for f in fields:
        unit = f.unit.to_string() if hasattr(f.unit, "to_string") else (f.unit or "")
        about[f.ID] = {"name": f.name or f.ID, "also": f.ID, "unit": unit, "ucd": f.ucd or ""}
        if f.ref in systems:
            about[f.ID]["frame"] = systems[f.ref]
    return about


def _coosys(declared: Any) -> Frame:
    epoch = None
    with contextlib.suppress(ValueError):  # VizieR has some that are no year
        epoch = float(year_of(declared.epoch).jyear) if declared.epoch else None
    title = " ".join(filter(None, (declared.system, declared.equinox)))
    return Frame(title, functools.partial(frame_of, declared.system, declared.equinox), epoch)


def _read_fits(content: bytes) -> list[Sheet]:
    hdus = fits.open(io.BytesIO(content))
    tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
    if not tables:
        raise ValueError("it holds images, but no table")
    return [_read_hdu(hdu, number) for number, hdu in enumerate(tables, 1)]


def _read_hdu(hdu: Any, number: int) -> Sheet:
    header, data, n_rows = hdu.header, hdu.data, int(hdu.header["NAXIS2"])
    about: dict[str, dict[str, Any]] = {}
    if any("ASTROPY-SERIALIZED-COLUMNS" in str(line) for line in header.get("COMMENT", ())):
        empty = Table.read(fits.BinTableHDU(data[:0], header=header))
        about = _describe([{"name": name} for name in hdu.columns.names], empty)
    columns = []
    for i, column in enumerate(hdu.columns, 1):
        said = {**about.get(column.name, {}), "unit": column.unit or "", "ucd": header.get(f"TUCD{i}", "")}
        if isinstance(hdu, fits.TableHDU):
            # An empty number of an ASCII table becomes 0 on the way to a number; it stays text here.
            null = str(column.null).strip() if column.null is not None else ""
            read = functools.partial(_ascii_fits_column, data, column, null)
        elif column.dim is None and re.fullmatch(r"1?[LXBIJKED]|\d*A", column.format):
            read = functools.partial(_numpy_column, functools.partial(data.field, i - 1), column.null)
        else:
            continue  # a column of arrays
        columns.append(Column(name=column.name, read=read, **said))
    return Sheet(hdu.name or f"HDU {number}", _apply_masks(columns), n_rows, _fits_frames(header))


def _ascii_fits_column(data: Any, column: Any, null: str) -> pa.Array:
    raw = np.asarray(data)[column.name].tolist()
    text = to_text(pa.array([cell.decode("ascii", "replace") for cell in raw], pa.string()))
    if column.format[0] in "DEF":
        text = pc.replace_substring(text, "D", "E")  # Fortran's exponents
    return pc.if_else(pc.equal(text, null), None, text) if null else text


def _fits_frames(header: Any) -> tuple[Frame, ...]:
    system = str(header.get("RADESYS", header.get("RADECSYS", ""))).strip()
    equinox = str(header.get("EQUINOX", "")).strip()
    if not system and not equinox:
        return ()
    if not system:  # what the FITS standard says for this case
        system = "FK4" if float(equinox) < 1984.0 else "FK5"
    return (Frame(f"{system} {equinox}".strip(), functools.partial(frame_of, system, equinox)),)


def _read_parquet(content: bytes) -> list[Sheet]:
    file = pq.ParquetFile(pa.BufferReader(content))
    schema, metadata = file.schema_arrow, file.schema_arrow.metadata or {}
    about: dict[str, dict[str, Any]] = {}
    if b"table_meta_yaml" in metadata:  # written by astropy
        empty = io.BytesIO()
        pq.write_table(schema.empty_table(), empty)
        header = get_header_from_yaml(metadata[b"table_meta_yaml"].decode().split("\n"))
        about = _describe(header["datatype"], Table.read(io.BytesIO(empty.getvalue()), format="parquet"))
    elif b"IVOA.VOTable-Parquet.content" in metadata:
        described = votable.parse(io.BytesIO(metadata[b"IVOA.VOTable-Parquet.content"]), verify="ignore")
        systems = {c.ID: _coosys(c) for c in described.iter_coosys() if c.system}
        fields = _describe_fields(described.get_first_table().fields, systems).values()
        about = {said["name"]: said for said in fields}
    columns = [
        Column(**{"name": name, "read": functools.partial(_parquet_column, file, name), **about.get(name, {})})
        for name in schema.names
        if not pa.types.is_nested(schema.field(name).type)
    ]
    return [Sheet("", _apply_masks(columns), file.metadata.num_rows)]


def _parquet_column(file: Any, name: str) -> pa.Array:
    cells = file.read(columns=[name]).column(name)
    if pa.types.is_dictionary(cells.type):
        cells = pc.cast(cells, cells.type.value_type)
    return pa.concat_arrays(cells.chunks) if cells.num_chunks else pa.array([], cells.type)
