"""Write light curves as ECSV or CSV: one table, with units said."""

from __future__ import annotations

import json
from collections.abc import Iterable
from io import StringIO
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from lake.errors import ConfigurationError
from lake.export.rows import Rows, noted, plain, plain_schema
from lake.text import one_line

_ECSV_TYPES = {pa.bool_(): "bool", pa.float32(): "float32", pa.float64(): "float64", pa.string(): "str"}


def write_ecsv(rows: Rows, file: BinaryIO) -> None:
    """Write an ECSV file; astropy reads bmjd_tdb back as Time, and the other columns with unit, UCD and description.

    Empty text and NULL are one in ECSV.

    Parameters
    ----------
    rows
        What to write.
    file
        Where to.
    """
    schema = plain_schema(rows.schema)
    file.write(_ecsv_head(rows, schema).encode())
    _write_lines(rows, schema, file, truth=("True", "False"))


def write_csv(rows: Rows, file: BinaryIO) -> None:
    """Write a CSV file. Its first lines begin with # and say what the columns are, and what to cite.

    Parameters
    ----------
    rows
        What to write.
    file
        Where to.
    """
    schema = plain_schema(rows.schema)
    lines = [rows.title, *(f"{name}: {value}" for name, value in rows.facts.items()), *rows.credits]
    lines += [
        f"mjd of {one['archive']} is {one['time_scale']}, {one['time_frame']}; bmjd_tdb is TDB, barycentre"
        for one in rows.archives.values()
        if {"mjd", "bmjd_tdb"} & set(schema.names)
    ]
    lines.append("columns:")
    lines += [_about(one) for one in schema]
    for line in lines:
        for piece in line.splitlines():
            file.write(f"# {one_line(piece)}\n".encode())
    _write_lines(rows, schema, file, truth=("true", "false"))


def _about(one: pa.Field) -> str:
    notes = [f"{name}={noted(one, name)}" for name in ("unit", "ucd") if noted(one, name)]
    return f"{one.name} [{'; '.join([str(one.type), *notes])}] {noted(one, 'description') or ''}"


def _write_lines(rows: Rows, schema: pa.Schema, file: BinaryIO, truth: tuple[str, str]) -> None:
    kinds = {one.name: pa.string() if one.type == pa.bool_() else one.type for one in schema}
    shown = pa.schema([pa.field(name, kind) for name, kind in kinds.items()])
    # Text is in quotes, and NULL is nothing: so the empty text is no NULL.
    with pyarrow.csv.CSVWriter(file, shown) as writer:
        for batch in rows.whole.batches():
            columns = [
                pc.if_else(values, *truth) if values.type == pa.bool_() else values for values in plain(batch).columns
            ]
            writer.write_batch(pa.record_batch(columns, schema=shown))


def _ecsv_head(rows: Rows, schema: pa.Schema) -> str:
    """Return the header, made by astropy from a table without rows."""
    import numpy as np
    from astropy.table import Column, Table
    from astropy.time import Time

    table = Table()
    for one in schema:
        kind = _ECSV_TYPES.get(one.type, str(one.type))
        about, ucd = noted(one, "description"), noted(one, "ucd")
        column: Any
        if one.name == "bmjd_tdb":
            column = Time(np.zeros(0), format="mjd", scale="tdb")
        else:
            column = Column(np.zeros(0, kind), unit=_astropy_unit(noted(one, "unit")))
        table[one.name] = column
        table[one.name].info.description = about
        if ucd:
            table[one.name].info.meta = {"ucd": ucd}
    table.meta = {"title": rows.title, **rows.facts, "credits": list(rows.credits), "archives": _archives(rows)}
    text = StringIO()
    table.write(text, format="ascii.ecsv", delimiter=",")
    head, _, names = text.getvalue().rstrip("\n").rpartition("\n")
    if not names or names.startswith("#"):
        raise ConfigurationError("there is no column to write", hint="select some")
    return head + "\n"


def _astropy_unit(unit: str | None) -> Any:
    if not unit:
        return None
    import astropy.units

    return astropy.units.Unit(unit)


def _archives(rows: Rows) -> list[dict[str, Any]]:
    names = ("archive", "release", "title", "time_scale", "time_frame")
    return [{name: row[name] for name in names} for row in rows.archives.values()]


def facts_json(rows: Rows) -> dict[str, str]:
    """Return what a file says besides its rows, as JSON by name: for metadata that is text."""
    return {
        **rows.facts,
        "title": rows.title,
        "credits": "\n".join(rows.credits),
        "archives": json.dumps(list(rows.archives.values()), default=str),
        "bands": json.dumps(list(rows.bands.values()), default=str),
    }


def widths_of(batches: Iterable[pa.RecordBatch]) -> dict[str, int]:
    """Return the letters of the longest text in each column of text."""
    widths = dict[str, int]()
    for batch in batches:
        for one, values in zip(batch.schema, batch.columns, strict=True):
            if pa.types.is_string(one.type) and batch.num_rows:
                widths[one.name] = max(widths.get(one.name, 1), pc.max(pc.utf8_length(values)).as_py() or 1)
    return widths
