"""What commands print: lines, and tables as a drawing, CSV, JSON or Parquet."""

from __future__ import annotations

import json
import math
import os
import stat
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa

from lake.errors import ConfigurationError
from lake.store.access import may
from lake.store.failures import disk_full
from lake.store.storage import PARTIAL, flush, remove
from lake.text import visible

Output = Literal["table", "csv", "json", "parquet"]


def say(text: str) -> None:
    """Print lines for the user; control characters in them are shown, and do nothing."""
    sys.stdout.write(visible(text, keep="\n\t") + "\n")


def show(table: pa.Table, output: Output, to: Path | None = None) -> None:
    """Write a table for the user: on the terminal, or into a file.

    Raises
    ------
    ConfigurationError
        If Parquet has no file to go to, or the file cannot be written.
    """
    import pyarrow.parquet

    if output == "parquet" and to is None:
        raise ConfigurationError("Parquet needs a file", hint="add: --to FILE.parquet")
    if to is None:
        text = _text(table, output)
        if output == "csv" and not sys.stdout.isatty():
            sys.stdout.write(text + "\n")  # for another program, which wants the values as they are
        else:
            say(text)
        return
    with whole_file(to) as file:
        if output == "parquet":
            pyarrow.parquet.write_table(table, file)
        else:
            file.write((_text(table, output) + "\n").encode())


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that the user has named, to write it whole or not at all: what is there stays until then.

    A file keeps its mode, and group and owner as far as one may give them; a link leads to where it led. Devices and
    pipes are written straight.

    Raises
    ------
    ConfigurationError
        If it cannot be written; DiskFull, if that is for want of room.
    """
    target, part = path, None
    try:
        if _is_replaced(path):
            target = path.resolve()
            part = target.with_name(f".lightlake-{uuid.uuid4().hex[:12]}{PARTIAL}")
        with (part or path).open("wb") as file:
            yield file
        if part is not None:
            if target.exists():
                before = target.stat()
                for owner in (-1, before.st_uid):  # a group that one is in, and for root whoever it is
                    with suppress(OSError):
                        os.chown(part, owner, before.st_gid)
                part.chmod(stat.S_IMODE(before.st_mode))
            flush(part)
            part.replace(target)
    except BrokenPipeError:
        raise  # whoever reads it wants no more
    except OSError as error:
        raise disk_full(error, target.parent) or ConfigurationError(
            f"cannot write {path}: {error.strerror or error}", hint="name a file in a folder that you may write to"
        ) from error
    finally:
        if part is not None:
            remove(part)


def _is_replaced(path: Path) -> bool:
    """Say whether a file can be written beside its place and put there, or has to be written where it is."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return True
    # What may not be written is not replaced either, and in a folder that is closed only the content can be changed.
    if not may(path, os.W_OK) or not may(path.resolve().parent, os.W_OK | os.X_OK):
        return False
    return stat.S_ISREG(found.st_mode) and path.absolute().parts[1] not in ("dev", "proc")


def _text(table: pa.Table, output: Output) -> str:
    import pyarrow.csv

    if output == "json":
        # All but ASCII is escaped in it, and of that all control characters but one.
        return _json(table.to_pylist(), indent=2).replace("\x7f", "\\u007f")
    if output == "csv":
        # A value that begins as a formula does stays as it is, here too: "-5.2" and "+22d00m52s" are values, programs
        # that read the file would have them changed, and who opens it in a spreadsheet can have columns read as text.
        sink = pa.BufferOutputStream()
        pyarrow.csv.write_csv(_flat(table), sink)
        return bytes(sink.getvalue().to_pybytes()).decode().rstrip("\n")
    return _drawn(table)


def _json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON, which has no number that is not finite: those are null."""
    return json.dumps(_finite(value), indent=indent, default=_as_json, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return _as_json(value) if value.is_finite() else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def _flat(table: pa.Table) -> pa.Table:
    """Return a table of what CSV has: lists and the like as JSON, other types that are none of text as text."""
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
    for place, field in enumerate(table.schema):
        if any(is_plain(field.type) for is_plain in plain):
            continue
        values = [None if value is None else _cell_of_csv(value) for value in table[place].to_pylist()]
        table = table.set_column(place, field.name, pa.array(values, pa.string()))
    return table


def _cell_of_csv(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return _json(value) if isinstance(value, list | dict) else str(value)


def _as_json(value: Any) -> Any:
    if isinstance(value, Decimal):  # also what DuckDB's sum() of integers comes as
        return float(value) if value.as_tuple().exponent else int(value)
    return str(value)


def _drawn(table: pa.Table, longest: int = 1000) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table()
    for field in table.schema:
        number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        drawn.add_column(Text(visible(field.name)), justify="right" if number else "left", overflow="fold")
    for row in table.slice(0, longest).to_pylist():
        # Text, not str: in that rich would look for markup of its own, such as [red].
        drawn.add_row(*(Text(visible(_cell(value))) for value in row.values()))
    console = Console(width=None if sys.stdout.isatty() else 200)
    with console.capture() as capture:
        console.print(drawn)
    rows = f"{table.num_rows} rows" + (f", the first {longest} shown" if table.num_rows > longest else "")
    return capture.get() + rows


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)
