"""Read the tables of a file as they are: columns with what the file declares, cells as Arrow arrays."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from astropy.io import fits, votable
from astropy.table import Table
from astropy.table.meta import YamlParseError, get_header_from_yaml

from lake.errors import ConfigurationError
from tasks.samples.cells import to_numbers, to_text
from tasks.samples.columns import Column
from tasks.samples.frames import Frame, frames_in
from tasks.samples.positions import frame_of, year_of
from tasks.samples.table import InputTable, apply_masks, describe
from tasks.samples.text import decode, read_text
from tasks.services.bounds import Budget, gunzipped, in_memory, parsed_votable, read_file
from tasks.services.votables import Clipped

FORMATS = {
    "ecsv": (".ecsv",),
    "csv": (".csv",),
    "tsv": (".tsv", ".tab"),
    "ascii": (".txt", ".dat", ".cat", ".ascii", ".lst"),
    "votable": (".vot", ".votable", ".xml"),
    "fits": (".fits", ".fit", ".fts"),
    "parquet": (".parquet", ".parq", ".pq"),
}


def read_tables(path: Path, *, format: str | None = None, asked: Iterable[str] = ()) -> list[InputTable]:
    """Read all tables of a file.

    Parameters
    ----------
    path
        The file, compressed with gzip or not.
    format
        One of `FORMATS`. By default the beginning of the file decides, then its name.
    asked
        Names of columns that the user gave: they help to tell a header from data.

    Raises
    ------
    ConfigurationError
        If the file isn't there, is empty, or can't be read.
    """
    where = path.name
    kind = format or "table"
    try:
        content, kind, budget = _content(path, format)
        if kind == "votable":
            return _read_votable(content, budget)
        if kind == "fits":
            return _read_fits(content)
        if kind == "parquet":
            return _read_parquet(content)
        return [read_text(decode(content), where, kind, format, set(asked))]
    except (OSError, ValueError, TypeError, LookupError, SyntaxError, EOFError, UserWarning) as error:
        raise unreadable(where, kind, error) from error
    except (pa.ArrowException, YamlParseError, zlib.error) as error:
        raise unreadable(where, kind, error) from error


def read_lines(path: Path) -> list[str] | None:
    """Return the lines of a text file, compressed with gzip or not; None if its format is another than plain text.

    Raises
    ------
    ConfigurationError
        If the file isn't there, is empty, or can't be read.
    """
    try:
        content, kind, _ = _content(path, None)
        if kind in ("votable", "fits", "parquet", "ecsv"):
            return None
        return decode(content).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise unreadable(path.name, "text", error) from error


def _content(path: Path, format: str | None) -> tuple[bytes, str, Budget]:
    """Return the content of a file, its format, and the limits of its size."""
    where = path.name
    if format is not None and format not in FORMATS:
        raise ConfigurationError(f"no format is called '{format}'", hint=f"formats are {', '.join(FORMATS)}")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ConfigurationError(f"{path} {what}", hint="give the path of a file with targets")
    budget = in_memory(lambda message, **_: ConfigurationError(f"{where}: {message}"))
    content = read_file(path, budget)
    name = path
    if content.startswith(b"\x1f\x8b"):
        content, name = gunzipped(content, budget), path.with_suffix("")
    if not content.strip():
        raise ConfigurationError(f"{where} is empty", hint="give a file with one target a row")
    return content, format or _format_of(name.suffix.lower(), content[:512], where), budget


def unreadable(where: str, kind: str, error: Exception) -> ConfigurationError:
    """Make the error of a file that can't be read, in the reader's words."""
    if isinstance(error, Clipped):
        return ConfigurationError(
            f"of {where}, {error}", hint="give these FIELDs a larger datatype or arraysize, or save the list as CSV"
        )
    info = str(error).strip().splitlines() or [type(error).__name__]
    return ConfigurationError(
        f"{where} can't be read as {kind}: {info[0]}",
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


def _numpy_column(values: Callable[[], Any]) -> pa.Array:
    """Convert a column of a FITS table or VOTable to Arrow."""
    array = values()
    if array.dtype.kind == "O" and any(isinstance(cell, np.ndarray) for cell in np.ma.getdata(array)):
        array = np.ma.masked_invalid([float(cell[0]) if np.size(cell) else np.nan for cell in array])
    array = array.reshape(len(array))  # arrays of one value are values
    hidden, data = np.ma.getmaskarray(array), np.ma.getdata(array)
    if data.dtype.kind in "SUO":
        texts = [c.decode("utf-8", "replace") if isinstance(c, bytes) else str(c) for c in data.tolist()]
        return to_text(pa.array([text.partition("\0")[0] for text in texts], pa.string(), mask=hidden))
    return pa.array(data.astype(data.dtype.newbyteorder("=")), mask=hidden)


def _votable_column(table: Any, key: str) -> pa.Array:
    cells = _numpy_column(functools.partial(table.array.__getitem__, key))
    null = table.get_field_by_id(key).values.null
    # Astropy masks null values of numbers, but not of text.
    return pc.if_else(pc.equal(cells, str(null)), None, cells) if pa.types.is_string(cells.type) and null else cells


def _read_votable(content: bytes, budget: Budget) -> list[InputTable]:
    # An unreadable float is masked, so that its row is bad and not the file. Other cells raise an error: astropy's
    # invalid="mask" would move the cells after them up by one.
    document = parsed_votable(content, budget)
    elements = list(document.iter_tables())
    if not elements:
        raise ValueError("it holds no table")
    systems = {c.ID: _coosys(c) for c in document.iter_coosys() if c.system}
    # Without a reference, a frame can only belong to right ascension and declination.
    equatorial = [f for f in systems.values() if f.title.lower().startswith(("icrs", "eq_", "fk"))]
    frames = tuple({f.title: f for f in equatorial}.values())
    tables = []
    for number, element in enumerate(elements, 1):
        about = _describe_fields(element.fields, systems)
        columns = [
            Column(read=functools.partial(_votable_column, element, ID), **info)
            for ID, info in about.items()
            if _is_single(element.array, ID)
        ]
        skipped = [info["name"] for ID, info in about.items() if not _is_single(element.array, ID)]
        title = element.name or element.ID or f"table {number}"
        infos = [*element.params, *element.infos, *(x for r in document.resources for x in (*r.params, *r.infos))]
        keywords = {item.name: item.value for item in reversed(infos) if item.name and item.value is not None}
        notes = "\n".join(str(x.description or "") for x in (document, *document.resources, element))
        tables.append(
            InputTable(
                title,
                tuple(columns),
                len(element.array),
                frames or frames_in(keywords),
                skipped=skipped,
                notes=notes,
                remarks=_query_status(infos),
            )
        )
    return tables


def _query_status(items: Iterable[Any]) -> list[str]:
    """Return a remark if the service truncated its answer; raise ValueError if the answer is an error."""
    for item in items:
        info = str(item.value).upper() if (item.name or "").upper() == "QUERY_STATUS" else ""
        if info == "ERROR":
            raise ValueError(f"it is an error message of the service: {item.content or 'no reason given'}")
        if info == "OVERFLOW":
            return [f"the service truncated its answer (QUERY_STATUS {info}): rows are missing from the list"]
    return []


def _is_single(array: Any, key: str) -> bool:
    """Return whether a column holds one value per row, and no arrays."""
    kind = array.dtype[key]
    if kind.kind != "O":
        return bool(math.prod(kind.shape) == 1)
    return all(isinstance(cell, str | bytes) or np.size(cell) <= 1 for cell in array[key])


def _describe_fields(fields: Iterable[Any], systems: Mapping[str, Frame]) -> dict[str, dict[str, Any]]:
    about: dict[str, dict[str, Any]] = {}
    for f in fields:
        unit = f.unit.to_string() if hasattr(f.unit, "to_string") else (f.unit or "")
        about[f.ID] = {"name": f.name or f.ID, "also": f.ID, "unit": unit, "ucd": f.ucd or ""}
        about[f.ID]["description"] = str(f.description or "")
        if f.ref in systems:
            about[f.ID]["frame"] = systems[f.ref]
    return about


def _coosys(declared: Any) -> Frame:
    epoch = None
    with contextlib.suppress(ValueError):  # some of VizieR's are no year
        epoch = float(year_of(declared.epoch).jyear) if declared.epoch else None
    title = " ".join(filter(None, (declared.system, declared.equinox)))
    return Frame(title, functools.partial(frame_of, declared.system, declared.equinox), epoch)


def _read_fits(content: bytes) -> list[InputTable]:
    hdus = fits.open(io.BytesIO(content))
    found = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
    if not found:
        raise ValueError("it holds images, but no table")
    return [_read_hdu(hdu, number, hdus[0].header) for number, hdu in enumerate(found, 1)]


def _read_hdu(hdu: Any, number: int, primary: Any) -> InputTable:
    header, data, n_rows = hdu.header, hdu.data, int(hdu.header["NAXIS2"])
    about: dict[str, dict[str, Any]] = {}
    if any("ASTROPY-SERIALIZED-COLUMNS" in str(line) for line in header.get("COMMENT", ())):
        empty = Table.read(fits.BinTableHDU(data[:0], header=header))
        about = describe([{"name": name} for name in hdu.columns.names], empty)
    columns, skipped = [], []
    for i, column in enumerate(hdu.columns, 1):
        info = {**about.get(column.name, {}), "unit": column.unit or "", "ucd": header.get(f"TUCD{i}", "")}
        info["description"] = (
            f"{header.get(f'TCOMM{i}', '')} {header.comments[f'TTYPE{i}'] if f'TTYPE{i}' in header else ''}".strip()
        )
        if isinstance(hdu, fits.TableHDU):
            # As a number, an empty cell of an ASCII table would become 0; text keeps it empty.
            null = str(column.null).strip() if column.null is not None else ""
            read = functools.partial(_ascii_fits_column, data, column, null)
        elif _dim_of(column) == 1 and re.fullmatch(r"1?[LXBIJKED]|\d*A", column.format):
            read = functools.partial(_fits_column, data, i - 1, column.null)
        else:
            skipped.append(column.name)
            continue
        columns.append(Column(name=column.name, read=read, **info))
    return InputTable(
        hdu.name or f"HDU {number}",
        apply_masks(columns),
        n_rows,
        frames_in(header) or frames_in(primary),
        skipped=skipped,
        notes="\n".join(str(line) for line in (*header.get("COMMENT", ()), *primary.get("COMMENT", ()))),
    )


def _fits_column(data: Any, i: int, null: Any) -> pa.Array:
    cells = _numpy_column(functools.partial(data.field, i))
    if null is None or not len(data):
        return cells
    # TNULL is a stored value, before TSCAL and TZERO.
    stored = np.asarray(data)[data.dtype.names[i]].reshape(len(data))
    return pc.if_else(pa.array(stored == null), pa.scalar(None, cells.type), cells)


def _dim_of(column: Any) -> int:
    """Count the values in a cell by TDIM, whose first dimension is the length of a text."""
    if not column.dim:
        return 1
    sizes = [int(n) for n in re.findall(r"\d+", str(column.dim))]
    return math.prod(sizes[1:] if column.format.endswith("A") else sizes)


def _ascii_fits_column(data: Any, column: Any, null: str) -> pa.Array:
    raw = np.asarray(data)[column.name].tolist()
    text = to_text(pa.array([cell.decode("ascii", "replace") for cell in raw], pa.string()))
    if column.format[0] in "DEF":
        text = pc.replace_substring(text, "D", "E")  # Fortran's exponents
    text = pc.if_else(pc.equal(text, null), None, text) if null else text
    if column.bscale in (None, "", 1) and column.bzero in (None, "", 0):
        return text
    return pa.array(to_numbers(text) * (column.bscale or 1) + (column.bzero or 0), from_pandas=True)


def _read_parquet(content: bytes) -> list[InputTable]:
    file = pq.ParquetFile(pa.BufferReader(content))
    schema, metadata = file.schema_arrow, file.schema_arrow.metadata or {}
    about: dict[str, dict[str, Any]] = {}
    frames = frames_in(
        {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in metadata.items()}
    )
    if b"table_meta_yaml" in metadata:  # written by astropy
        empty = io.BytesIO()
        pq.write_table(schema.empty_table(), empty)
        header = get_header_from_yaml(metadata[b"table_meta_yaml"].decode().split("\n"))
        frames = frames or frames_in(dict(header.get("meta") or {}))
        about = describe(header["datatype"], Table.read(io.BytesIO(empty.getvalue()), format="parquet"))
    elif b"IVOA.VOTable-Parquet.content" in metadata:
        described = votable.parse(io.BytesIO(metadata[b"IVOA.VOTable-Parquet.content"]), verify="ignore")
        systems = {c.ID: _coosys(c) for c in described.iter_coosys() if c.system}
        fields = _describe_fields(described.get_first_table().fields, systems).values()
        about = {info["name"]: info for info in fields}
    columns, skipped = [], []
    for name in schema.names:
        column = schema.field(name)
        if pa.types.is_nested(column.type):
            skipped.append(name)
            continue
        info = {**_field_info(column.metadata or {}), **{k: v for k, v in about.get(name, {}).items() if v}}
        columns.append(Column(**{"name": name, "read": functools.partial(_parquet_column, file, name), **info}))
    return [InputTable("", apply_masks(columns), file.metadata.num_rows, frames, skipped=skipped)]


def _field_info(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    """Get unit, UCD and description from the metadata of an Arrow field."""
    # Some writers add a prefix: lsst:unit, votable.unit.
    texts = {re.split(r"[:.]", key.decode("utf-8", "replace").strip().lower())[-1]: v for key, v in metadata.items()}
    found = {}
    for name, keys in (
        ("unit", ("unit", "units", "tunit")),
        ("ucd", ("ucd", "tucd")),
        ("description", ("description", "desc", "comment", "tcomm")),
    ):
        value = next((texts[key] for key in keys if key in texts), b"").decode("utf-8", "replace").strip()
        # Some writers store JSON, with its quotes.
        found[name] = value.strip("\"'")
    return found


def _parquet_column(file: Any, name: str) -> pa.Array:
    cells = file.read(columns=[name]).column(name)
    if pa.types.is_dictionary(cells.type):
        cells = pc.cast(cells, cells.type.value_type)
    return pa.concat_arrays(cells.chunks) if cells.num_chunks else pa.array([], cells.type)
