"""What goes into a file: rows that are kept in a Parquet file meanwhile, with units, bands, clocks and credits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from lake.errors import ConfigurationError
from lake.model.declared import all_tables
from lake.model.schema import TABLES
from lake.model.table import Column

# Rows that are in memory at a time.
AT_ONCE = 50_000

# What a table of a file is of, where a form takes several: one archive, release and band, in one unit.
_OF_A_TABLE = ("archive", "release", "band", "unit")


@dataclass(frozen=True)
class Part:
    """Rows of one band of one archive, or all rows.

    Parameters
    ----------
    key
        Values of archive, release, band and unit that all its rows have; empty for all rows.
    rows
        How many.
    batches
        Reads them, some at a time.
    """

    key: Mapping[str, str | None]
    rows: int
    batches: Callable[[], Iterator[pa.RecordBatch]]

    @property
    def title(self) -> str:
        """Return its archive and band, or nothing."""
        return " ".join(filter(None, (self.key.get("archive"), self.key.get("band"))))


@dataclass(frozen=True)
class Rows:
    """Rows for a file, and all that a form can say of them.

    Parameters
    ----------
    schema
        Of the rows; the metadata of its fields are unit, ucd and description.
    whole
        All rows.
    parts
        The same rows by archive, release, band and unit, where they have these.
    archives, bands
        Rows of tables archives, by archive, and bands, by archive and band.
    credits
        Lines on what is to be cited and acknowledged.
    title
        What it is.
    position
        Right ascension and declination, ICRS degrees, if it is of one target.
    facts
        Names and values for the file's metadata, such as the snapshot.
    """

    schema: pa.Schema
    whole: Part
    parts: Sequence[Part]
    archives: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bands: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    credits: Sequence[str] = ()
    title: str = "Light curves"
    position: tuple[float, float] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def clock(self, part: Part) -> tuple[str, str] | None:
        """Return time scale and reference position of column mjd, in the words of TIMESYS; None if unknown."""
        archive = self.archives.get(part.key.get("archive") or "")
        if archive is None:
            return None
        return archive["time_scale"].upper(), refposition(archive["time_frame"])

    def band(self, part: Part) -> Mapping[str, Any] | None:
        """Return the row of table bands; None if the part is not of a band that the lake knows."""
        return self.bands.get((part.key.get("archive") or "", part.key.get("band") or ""))


def refposition(frame: str) -> str:
    """Return IVOA's word for a time frame of table archives.

    Examples
    --------
    >>> refposition("heliocentre")
    'HELIOCENTER'
    """
    return frame.upper().replace("CENTRE", "CENTER")


def staged(batches: pa.RecordBatchReader, path: Path, known: Mapping[str, Column] | None = None) -> Rows:
    """Write rows to a Parquet file, and describe them; no more than some thousands are in memory.

    Parameters
    ----------
    batches
        The rows, in the order in which they are to be written.
    path
        Where to keep them; the caller removes it.
    known
        Columns of the lake by name; None: look them up.

    Raises
    ------
    ConfigurationError
        If there are fluxes without a unit.
    """
    schema = described(batches.schema, known)
    check_units(schema.names)
    keys = [name for name in _OF_A_TABLE if name in schema.names]
    counts = dict[tuple[str | None, ...], int]()
    with pq.ParquetWriter(path, batches.schema, compression="zstd") as writer:
        total = 0
        for batch in batches:
            writer.write_batch(batch, row_group_size=AT_ONCE)
            total += batch.num_rows
            if keys:
                found = pa.Table.from_batches([batch]).group_by(keys).aggregate([([], "count_all")])
                for row in found.to_pylist():
                    key = tuple(row[name] for name in keys)
                    counts[key] = counts.get(key, 0) + row["count_all"]
    whole = Part({}, total, lambda: _read(path, None))
    if not _is_split(schema.names):
        return Rows(schema, whole, [whole])
    parts = []
    for key in sorted(counts, key=lambda one: tuple(value or "" for value in one)):
        of_part = dict(zip(keys, key, strict=True))
        parts.append(Part(of_part, counts[key], _reader(path, of_part)))
    return Rows(schema, whole, parts or [whole])


def _is_split(names: Iterable[str]) -> bool:
    """Say whether rows of several clocks or units need tables of their own."""
    held = set(names)
    return ("archive" in held and "mjd" in held) or ("unit" in held and bool(held & of_unit()))


def _reader(path: Path, key: Mapping[str, str | None]) -> Callable[[], Iterator[pa.RecordBatch]]:
    condition = ds.scalar(True)
    for name, value in key.items():
        column = ds.field(name)
        condition = condition & (column.is_null() if value is None else column == value)
    return lambda: _read(path, condition)


def _read(path: Path, condition: ds.Expression | None) -> Iterator[pa.RecordBatch]:
    scanner = ds.dataset(path, format="parquet").scanner(
        filter=condition, batch_size=AT_ONCE, batch_readahead=1, fragment_readahead=1
    )
    yield from (batch for batch in scanner.to_batches() if batch.num_rows)


@cache
def columns_by_name() -> dict[str, Column]:
    """Return the lake's columns by name: those of light curves first, since a name stands for one quantity."""
    found = dict[str, Column]()
    for table in (TABLES["lightcurves"], TABLES["targets"], *all_tables().values()):
        for column in table.columns:
            found.setdefault(column.name, column)
    return found


@cache
def of_unit() -> frozenset[str]:
    """Return the columns whose unit is in column unit: fluxes."""
    names = set[str]()
    for table in all_tables().values():
        if "unit" in table.names:
            names |= {c.name for c in table.columns if not c.unit and (c.ucd or "").endswith("phot.flux")}
            names |= {c.name for c in table.columns if not c.unit and (c.ucd or "").startswith("phot.flux;")}
            names |= {"background"} & set(table.names)
    return frozenset(names)


def check_units(names: Sequence[str]) -> None:
    """Refuse fluxes without column unit: lakes hold mJy, counts, energies and more.

    Raises
    ------
    ConfigurationError
        If there are some.
    """
    missing = sorted(set(names) & of_unit())
    if missing and "unit" not in names:
        raise ConfigurationError(
            f"column {missing[0]} has no unit without column unit", hint="add it to the query: SELECT ..., unit"
        )


def described(schema: pa.Schema, known: Mapping[str, Column] | None = None) -> pa.Schema:
    """Return a schema with unit, UCD and description of the columns that the lake knows by name."""
    columns = columns_by_name() if known is None else known
    fields = []
    for one in schema:
        column = columns.get(one.name)
        notes = dict[str, str]()
        if column is not None:
            notes = {"unit": column.unit or "", "ucd": column.ucd or "", "description": column.description}
            notes = {name: value for name, value in notes.items() if value}
        fields.append(one.with_metadata({**{k: v.encode() for k, v in notes.items()}, **(one.metadata or {})}))
    return pa.schema(fields)


def noted(one: pa.Field, name: str) -> str | None:
    """Return the unit, ucd or description of a field."""
    value = (one.metadata or {}).get(name.encode())
    return value.decode() if value else None


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema that rows have as booleans, numbers and text: what every form takes."""
    return pa.schema([one.with_type(_plain_type(one.type)) for one in schema])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_boolean(kind) or kind in (pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()):
        return kind
    if kind in (pa.int8(), pa.uint8()):
        return pa.int16()
    if kind == pa.uint16():
        return pa.int32()
    if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
        return pa.int64()
    if pa.types.is_decimal(kind) or kind == pa.float16():
        return pa.float64()
    return pa.string()


def plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Convert rows to booleans, numbers and text; lists become JSON, times ISO 8601 in UTC.

    Raises
    ------
    ConfigurationError
        If a number does not fit into 64 bits.
    """
    arrays = []
    for one in batch.schema:
        values, kind = batch[one.name], _plain_type(one.type)
        try:
            arrays.append(_plain_values(values, kind))
        except pa.ArrowInvalid as error:
            raise ConfigurationError(
                f"column {one.name} has a number that does not fit into 64 bits: {error}",
                hint=f"convert it in the query: {one.name}::VARCHAR",
            ) from error
    return pa.record_batch(arrays, schema=plain_schema(batch.schema))


def _plain_values(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        return _plain_values(values.dictionary_decode(), kind)
    if kind != pa.string() or pa.types.is_large_string(values.type) or values.type == kind:
        return values.cast(kind)
    if pa.types.is_timestamp(values.type):
        zone = "Z" if values.type.tz else ""
        utc = values.cast(pa.timestamp("us", "UTC")) if values.type.tz else values.cast(pa.timestamp("us"))
        return pc.strftime(utc, format=f"%Y-%m-%dT%H:%M:%S{zone}")
    if pa.types.is_date(values.type) or pa.types.is_time(values.type):
        return values.cast(pa.string())
    return pa.array([None if one is None else as_text(one) for one in values.to_pylist()], pa.string())


def as_text(value: Any) -> str:
    """Return a value that is no number as text: lists and structures as JSON."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)
