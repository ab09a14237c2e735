"""Write plain tables in the forms that other software reads: CSV, JSON, Parquet, VOTable, FITS and ECSV.

A value comes back as it was, or the writer raises an error that names the column. What the forms do to values that
they have no place for:

- CSV and JSON have no units. JSON writes numbers that are not finite as null.
- Missing text is empty text in VOTable, FITS and ECSV, and a missing floating-point number is NaN in VOTable and FITS.
- FITS holds printable ASCII without spaces at the end. Logical columns with missing values are bytes, 255 for those.
- Readers of ECSV strip spaces from both ends of text.
- VOTable, FITS and ECSV hold times as ISO 8601 text, in UTC where they have a zone; lists and structures as JSON;
  decimals as integers, or as doubles.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from lake.errors import ConfigurationError
from lake.export.extensions import Form
from lake.export.units import vounit
from lake.model.schema import TABLES
from lake.model.table import Column
from lake.text import counted

_COLUMNS: dict[str, Column] = {}
for _column in (column for table in TABLES.values() for column in table.columns):
    # What tables do not agree on is not known of a column that only has the name.
    _known = _COLUMNS.get(_column.name, _column)
    _COLUMNS[_column.name] = replace(
        _known,
        unit=_known.unit if _known.unit == _column.unit else None,
        ucd=_known.ucd if _known.ucd == _column.ucd else None,
        description=_known.description if _known.description == _column.description else "",
    )
_FAMILIES = {"DOUBLE": "f", "FLOAT": "f", "VARCHAR": "U", "BOOLEAN": "b"}
_NO_FITS_TEXT = re.compile(r"[^ -~]")
# VOTable's and FITS's names of the types that both have.
_VOT = {"b": "boolean", "u1": "unsignedByte", "i2": "short", "i4": "int", "i8": "long", "f4": "float", "f8": "double"}
_FITS = {"b": "L", "u1": "B", "i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D"}
# Unsigned integers, and those of a byte, are of the next larger type that both have.
_WIDER = {"i1": "i2", "u2": "i4", "u4": "i8", "u8": "i8"}


def write_table(table: pa.Table, form: Form, file: BinaryIO) -> None:
    """Write a table into an open file.

    Columns that are called as the lake's are, and have such values, get their units; so do fields with metadata
    ``unit``.

    Raises
    ------
    ConfigurationError
        If the form cannot carry a column; the error names it.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> write_table(pa.table({"n": [1, None]}), "csv", file)
    >>> file.getvalue().decode().splitlines()
    ['"n"', '1', '']
    """
    if form != "csv":
        _check_names(table, form)
    match form:
        case "csv":
            import pyarrow.csv

            pyarrow.csv.write_csv(_flat(table), file)
        case "json":
            # JSON escapes everything except ASCII, and all control characters except one.
            file.write((as_json(table.to_pylist(), indent=2).replace("\x7f", "\\u007f") + "\n").encode())
        case "parquet":
            import pyarrow.parquet

            pyarrow.parquet.write_table(_with_units(table), file)
        case "vot":
            _write_votable(table, file)
        case "fits":
            _write_fits(table, file)
        case "ecsv":
            _write_ecsv(table, file)


def lake_column(field: pa.Field) -> Column | None:
    """Return the lake's column of this name, if the field has values of its kind."""
    column = _COLUMNS.get(field.name)
    if column is None or len(field.name) == 1:  # x and y are anything
        return None
    kind = _FAMILIES.get(column.type, "i")
    same = {
        "f": pa.types.is_floating(field.type) or pa.types.is_decimal(field.type),
        "i": pa.types.is_integer(field.type) or pa.types.is_decimal(field.type),
        "U": pa.types.is_string(field.type) or pa.types.is_large_string(field.type),
        "b": pa.types.is_boolean(field.type),
    }
    return column if same[kind] else None


def unit_of(field: pa.Field) -> str | None:
    """Return the unit of a field: by its metadata, else by the lake's column of its name."""
    if field.metadata and b"unit" in field.metadata:
        return str(field.metadata[b"unit"].decode())
    column = lake_column(field)
    return column.unit if column else None


def as_json(value: Any, indent: int | None = None) -> str:
    """Convert a value to JSON; numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=indent, default=_plain_json, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return _plain_json(value) if value.is_finite() else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def _plain_json(value: Any) -> Any:
    if isinstance(value, Decimal):  # DuckDB's sum() of integers is one
        return float(value) if value.as_tuple().exponent else int(value)
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _flat(table: pa.Table) -> pa.Table:
    """Convert a table for CSV: lists and the like to JSON, other types to text.

    Values that begin like a formula stay unchanged: "-5.2" and "+22d00m52s" are values for programs, and a spreadsheet
    can import columns as text.
    """
    plain = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_decimal,
        pa.types.is_date,
        pa.types.is_time,
        pa.types.is_timestamp,
        pa.types.is_null,
    )
    for at, field in enumerate(table.schema):
        if any(is_plain(field.type) for is_plain in plain):
            continue
        values = [None if value is None else _cell_of_csv(value) for value in table[at].to_pylist()]
        table = table.set_column(at, field.name, pa.array(values, pa.string()))
    return table


def _cell_of_csv(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return as_json(value) if isinstance(value, list | dict) else str(value)


def _with_units(table: pa.Table) -> pa.Table:
    fields = [
        field.with_metadata({**(field.metadata or {}), b"unit": unit.encode()}) if (unit := unit_of(field)) else field
        for field in table.schema
    ]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields, table.schema.metadata))


def _check_names(table: pa.Table, form: Form) -> None:
    """Check that each column has a name of its own; FITS does not tell upper case from lower."""
    names = [name.lower() if form == "fits" else name for name in table.column_names]
    for name, times in Counter(names).items():
        if times > 1:
            raise ConfigurationError(
                f"{counted(times, 'column is', 'columns are')} called {name}, and a file of the form {form} keeps one",
                hint="give each a name of its own: SELECT ... AS name",
            )
        if form == "fits" and _NO_FITS_TEXT.search(name):
            raise _not_carried(name, "has a name that is not ASCII", "FITS")
        if form == "vot" and (bad := _control(name)):
            raise _not_carried(name, f"has the character {bad!a} in its name", "VOTable")


def _control(text: str) -> str | None:
    return next((one for one in text if not one.isprintable() and one != " "), None)


def _not_carried(name: str, what: str, form: str) -> ConfigurationError:
    return ConfigurationError(
        f"column {name} {what}, which {form} cannot carry", hint="write a .parquet file, or leave the column out"
    )


@dataclass(frozen=True)
class _Values:
    """A column as NumPy has it: `kind` is b, i1 ... u8, f4, f8 or U; text is an array of objects."""

    name: str
    kind: str
    data: np.ndarray[Any, Any]
    mask: np.ndarray[Any, Any]
    unit: str | None
    column: Column | None


def _values(table: pa.Table, form: str) -> list[_Values]:
    made = []
    for field, chunks in zip(table.schema, table.columns, strict=True):
        values = chunks.combine_chunks()
        if isinstance(values, pa.ChunkedArray):  # of no chunks
            values = pa.array([], field.type)
        mask = values.is_null().to_numpy(zero_copy_only=False)
        kind, data = _of_type(field.name, values, form)
        made.append(_Values(field.name, kind, data, mask, unit_of(field), lake_column(field)))
    return made


def _of_type(name: str, values: pa.Array, form: str) -> tuple[str, np.ndarray[Any, Any]]:
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _of_type(name, values.dictionary_decode(), form)
    if pa.types.is_decimal(kind):
        if kind.scale > 0:
            return _of_type(name, values.cast(pa.float64()), form)
        try:
            return _of_type(name, values.cast(pa.int64()), form)
        except pa.ArrowInvalid as error:
            raise _not_carried(name, "has integers of more than 64 bits", form) from error
    if pa.types.is_boolean(kind):
        return "b", values.fill_null(False).to_numpy(zero_copy_only=False)
    if pa.types.is_integer(kind):
        data = values.fill_null(0).to_numpy(zero_copy_only=False)
        return f"{data.dtype.kind}{data.dtype.itemsize}", data
    if pa.types.is_floating(kind):
        data = values.fill_null(math.nan).to_numpy(zero_copy_only=False)
        return ("f8", data) if data.dtype.itemsize == 8 else ("f4", data.astype("f4"))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        raise _not_carried(name, "holds bytes", form)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind):
        return "U", _times(values, form)
    data = np.array(["" if one is None else _cell_of_csv(one) for one in values.to_pylist()], dtype=object)
    return "U", data


def _times(values: pa.Array, form: str) -> np.ndarray[Any, Any]:
    """Write times as ISO 8601 with all their digits: in UTC if they have a zone, with a Z except in FITS."""
    zone = "Z" if pa.types.is_timestamp(values.type) and values.type.tz and form != "FITS" else ""
    if pa.types.is_timestamp(values.type):
        text = np.datetime_as_string(values.cast(pa.timestamp(values.type.unit)).to_numpy(zero_copy_only=False))
        told = [f"{one}{zone}" for one in text]
    else:
        told = [one.isoformat() if isinstance(one, datetime.date | datetime.time) else "" for one in values.to_pylist()]
    known = values.is_valid().to_pylist()
    return np.array([one if valid else "" for one, valid in zip(told, known, strict=True)], dtype=object)


def _narrowed(one: _Values, form: str) -> tuple[str, np.ndarray[Any, Any]]:
    """Return a type that VOTable and FITS have, and the values in it."""
    kind = _WIDER.get(one.kind, one.kind)
    if one.kind == "u8" and one.data.size and one.data.max() > np.iinfo("i8").max:
        raise _not_carried(one.name, "has integers above 2^63", form)
    return kind, one.data if kind in ("b", "U") else one.data.astype(kind)


def _write_votable(table: pa.Table, file: BinaryIO) -> None:
    from astropy.io.votable.tree import Field, Resource, TableElement, VOTableFile

    votable = VOTableFile(version="1.4")
    resource = Resource()
    votable.resources.append(resource)
    element = TableElement(votable)
    resource.tables.append(element)
    columns = []
    for one in _values(table, "VOTable"):
        kind, data = _narrowed(one, "VOTable")
        if kind == "U":
            if bad := next((text for text in data if any(ord(letter) > 0xFFFF for letter in text)), None):
                raise _not_carried(one.name, f"has the text {bad!a}", "VOTable")
            form = {"datatype": "char" if all(map(str.isascii, data)) else "unicodeChar", "arraysize": "*"}
        else:
            form = {"datatype": _VOT[kind]}
        field = Field(votable, name=one.name, ucd=one.column.ucd if one.column else None, **form)
        field.unit = vounit(one.unit)
        if one.column is not None and one.column.description:
            field.description = one.column.description
        element.fields.append(field)
        columns.append((data, one.mask))
    element.create_arrays(table.num_rows)
    for name, (data, mask) in zip(element.array.dtype.names or (), columns, strict=True):
        element.array[name] = data
        element.array.mask[name] = mask
    for field in element.fields:
        field.ID = None  # a name need not be an XML id, and needs none beside it
    votable.to_xml(file, tabledata_format="binary2")


def _write_fits(table: pa.Table, file: BinaryIO) -> None:
    from astropy.io import fits

    columns = []
    for one in _values(table, "FITS"):
        kind, data = _narrowed(one, "FITS")
        null = None
        if kind == "U":
            if bad := next((text for text in data if _NO_FITS_TEXT.search(text)), None):
                raise _not_carried(one.name, f"has the text {bad[:60]!a}", "FITS")
            form = f"{max((len(text) for text in data), default=0) or 1}A"
            data = data.astype("S") if data.size else np.array([], "S1")
        else:
            if kind == "b" and one.mask.any():
                kind, data = "u1", data.astype("u1")
            form = _FITS[kind]
            if kind[0] in "iu" and one.mask.any():
                null = _unused(data, one.mask)
                data = np.where(one.mask, data.dtype.type(null), data)
        columns.append(fits.Column(one.name, form, unit=one.unit, null=null, array=data))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(file)


def _unused(data: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> int:
    """Return a number that stands for a missing one: the type's lowest, or of bytes the highest, if no value has it."""
    limits = np.iinfo(data.dtype)
    used = set(np.unique(data[~mask]).tolist())
    order = range(limits.max, limits.min - 1, -1) if limits.min == 0 else range(limits.min, limits.max + 1)
    return next(number for number in order if number not in used)


def _breaks(text: str) -> bool:
    return len(f"{text}.".splitlines()) > 1 or "\0" in text


def _write_ecsv(table: pa.Table, file: BinaryIO) -> None:
    import io

    from astropy.table import MaskedColumn, Table

    made = Table(masked=True)
    for one in _values(table, "ECSV"):
        data = one.data.astype(str) if one.kind == "U" else one.data
        if one.kind == "U" and (bad := next((text for text in one.data if _breaks(text)), None)):
            raise _not_carried(one.name, f"has a line break in {bad[:60]!a}", "ECSV")
        column = MaskedColumn(data, name=one.name, mask=one.mask, unit=one.unit)
        if one.column is not None:
            column.description = one.column.description or None
            if one.column.ucd:
                column.info.meta = {"ucd": one.column.ucd}
        made[one.name] = column
    text = io.StringIO()
    made.write(text, format="ascii.ecsv", delimiter=",")
    head, schema, rows = text.getvalue().partition("# schema: astropy-2.0\n")
    # A cell at the beginning of a line must not look like a comment.
    file.write((head + schema + re.sub(r"^#[^,\n]*", r'"\g<0>"', rows, flags=re.MULTILINE)).encode())
