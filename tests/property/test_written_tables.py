"""Tables come back from files as they were, or the writer says which column the form cannot carry."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import re
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import ConfigurationError
from lake.export.tables import Form, write_table

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
    st.sampled_from(["", "#x", '"', "a,b", "a\nb", "a\r\nb", "NaN", "null", "-5.2", "é☉", " lead", "tail ", "\\", "'"]),
)
TIMES = st.datetimes(dt.datetime(1677, 9, 22), dt.datetime(2262, 4, 11))  # noqa: DTZ001 - hypothesis wants none
KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "flag": (pa.bool_(), st.booleans()),
    "tiny": (pa.int8(), st.integers(-128, 127)),
    "byte": (pa.uint8(), st.integers(0, 255)),
    "word": (pa.uint32(), st.integers(0, 2**32 - 1)),
    "id": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "single": (pa.float32(), st.floats(width=32)),
    "double": (pa.float64(), st.floats()),
    "text": (pa.string(), TEXT),
    "moment": (pa.timestamp("us"), TIMES),
    "utc": (pa.timestamp("us", "UTC"), TIMES.map(lambda one: one.replace(tzinfo=dt.UTC))),
    "day": (pa.date32(), st.dates()),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    names = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, unique=True))
    rows = draw(st.integers(0, 5))
    return pa.table(
        {
            name: pa.array(draw(st.lists(st.none() | KINDS[name][1], min_size=rows, max_size=rows)), KINDS[name][0])
            for name in names
        }
    )


def written(table: pa.Table, form: Form) -> bytes | None:
    """The file, or None if the form cannot carry a text that no printable ASCII is, and the error says so."""
    file = io.BytesIO()
    odd = "text" in table.column_names and re.search(r"[^ -~]", "".join(filter(None, table["text"].to_pylist())))
    if odd and form in ("vot", "fits", "ecsv"):
        try:
            write_table(table, form, file)
        except ConfigurationError as error:
            refused = str(error)
        else:
            return file.getvalue()
        assert refused.startswith("column text has ")
        return None
    write_table(table, form, file)
    return file.getvalue()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and bool(one == other)


def check(table: pa.Table, read: dict[str, list[Any]], lost: Any = lambda _, value: value) -> None:
    assert list(read) == table.column_names
    for name in table.column_names:
        for was, got in zip(table[name].to_pylist(), read[name], strict=True):
            assert same(lost(name, was), got), (name, was, got)


@given(table=tables())
def test_parquet_is_the_table(table: pa.Table) -> None:
    assert pq.read_table(io.BytesIO(written(table, "parquet") or b"")).to_pydict().keys() == table.to_pydict().keys()
    check(table, pq.read_table(io.BytesIO(written(table, "parquet") or b"")).to_pydict())


@given(table=tables())
def test_csv_keeps_every_value(table: pa.Table) -> None:
    options = pcsv.ConvertOptions(
        column_types=table.schema, strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""]
    )
    content = io.BytesIO(written(table, "csv") or b"")
    if "text" in table.column_names and any("\0" in (one or "") for one in table["text"].to_pylist()):
        return  # pyarrow writes it, and reads no further
    read = pcsv.read_csv(
        content,
        convert_options=options,
        parse_options=pcsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
    )
    check(table, read.to_pydict())


@given(table=tables())
def test_json_keeps_what_json_has(table: pa.Table) -> None:
    rows = json.loads(written(table, "json") or b"", parse_constant=pytest.fail)
    assert [set(row) for row in rows] == [set(table.column_names)] * table.num_rows

    def lost(name: str, value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return str(value) if isinstance(value, dt.date) else value

    check(table, {name: [row[name] for row in rows] for name in table.column_names}, lost)


def read_by_astropy(content: bytes, form: str) -> dict[str, list[Any]]:
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of units and dates it would rather have otherwise
        read = Table.read(io.BytesIO(content), format=form)
    made = {}
    for column in read.itercols():
        values = [None if value is np.ma.masked else value for value in column]
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
        made[column.name] = [value.decode() if isinstance(value, bytes) else value for value in values]
    return made


def iso(value: Any) -> str:
    """A time as these files have it."""
    if not isinstance(value, dt.datetime):
        return str(value.isoformat())
    return f"{value.replace(tzinfo=None).isoformat(timespec='microseconds')}{'Z' if value.tzinfo else ''}"


@given(table=tables())
def test_votable_keeps_every_value_but_missing_text(table: pa.Table) -> None:
    if (content := written(table, "vot")) is None:
        return

    def lost(name: str, value: Any) -> Any:
        if value is None and name in ("text", "moment", "utc", "day"):
            return ""
        return iso(value) if isinstance(value, dt.date) else value

    read = read_by_astropy(content, "votable")
    for name in {"single", "double"} & set(read):
        read[name] = [None if value is None or math.isnan(value) else value for value in read[name]]
    check(table, read, lambda name, value: None if _is_nan(value) else lost(name, value))


@given(table=tables())
def test_fits_keeps_every_value_but_missing_text(table: pa.Table) -> None:
    if (content := written(table, "fits")) is None:
        return
    missing = {name for name in table.column_names if table[name].null_count}

    def lost(name: str, value: Any) -> Any:
        if isinstance(value, str):
            return value.rstrip(" ") or None
        if isinstance(value, bool) and name in missing:
            return int(value)
        return iso(value).rstrip("Z") if isinstance(value, dt.date) else None if _is_nan(value) else value

    check(table, read_by_astropy(content, "fits"), lost)


@given(table=tables())
def test_ecsv_keeps_every_value_but_spaces_around_text(table: pa.Table) -> None:
    if (content := written(table, "ecsv")) is None:
        return

    def lost(_: str, value: Any) -> Any:
        if isinstance(value, str):
            return value.strip(" \t") or None
        return iso(value) if isinstance(value, dt.date) else value

    check(table, read_by_astropy(content, "ascii.ecsv"), lost)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
