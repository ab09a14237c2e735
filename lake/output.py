"""Print lines, and tables as text, CSV, JSON or Parquet."""

from __future__ import annotations

import json
import math
import os
import shutil
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
    """Print lines for the user, with control characters escaped."""
    sys.stdout.write(visible(text, keep="\n\t") + "\n")


def show(table: pa.Table, output: Output, to: Path | None = None) -> None:
    """Write a table to the terminal, or to a file.

    Raises
    ------
    ConfigurationError
        If Parquet is asked for without a file, or the file cannot be written.
    """
    import pyarrow.parquet

    if output == "parquet" and to is None:
        raise ConfigurationError("Parquet needs a file", hint="add: --to FILE.parquet")
    if to is None:
        text = _text(table, output)
        if output == "csv" and not sys.stdout.isatty():
            sys.stdout.write(text + "\n")  # another program wants unchanged values
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
    """Open a file of the user's, to write it completely or not at all; an existing file stays until then.

    An existing file keeps its mode, and its group and owner if permitted; a link still leads to the same file. Devices
    and pipes are written directly.

    Raises
    ------
    ConfigurationError
        If the file cannot be written; DiskFull if the disk is full.
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
                for owner in (-1, before.st_uid):  # one of the user's groups; root may set any owner
                    with suppress(OSError):
                        os.chown(part, owner, before.st_gid)
                part.chmod(stat.S_IMODE(before.st_mode))
            flush(part)
            part.replace(target)
    except BrokenPipeError:
        raise  # the reader has stopped
    except OSError as error:
        raise disk_full(error, target.parent) or ConfigurationError(
            f"cannot write {path}: {error.strerror or error}", hint="name a file in a folder that you may write to"
        ) from error
    finally:
        if part is not None:
            remove(part)


def _is_replaced(path: Path) -> bool:
    """Return whether a file can be written as another and renamed; else it must be written in place."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return True
    # A write-protected file must not be replaced, and in a closed folder only the content can change.
    if not may(path, os.W_OK) or not may(path.resolve().parent, os.W_OK | os.X_OK):
        return False
    return stat.S_ISREG(found.st_mode) and path.absolute().parts[1] not in ("dev", "proc")


def _text(table: pa.Table, output: Output) -> str:
    import pyarrow.csv

    if output == "json":
        # JSON escapes everything except ASCII, and all control characters except one.
        return _json(table.to_pylist(), indent=2).replace("\x7f", "\\u007f")
    if output == "csv":
        # Values that begin like a formula stay unchanged: "-5.2" and "+22d00m52s" are values for programs, and a
        # spreadsheet can import columns as text.
        sink = pa.BufferOutputStream()
        pyarrow.csv.write_csv(_flat(table), sink)
        return bytes(sink.getvalue().to_pybytes()).decode().rstrip("\n")
    from lake.terminal import table_text

    return table_text(table, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)


def _json(value: Any, indent: int | None = None) -> str:
    """Convert a value to JSON; numbers that are not finite become null."""
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
    """Convert a table for CSV: lists and the like to JSON, other types to text."""
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
    return _json(value) if isinstance(value, list | dict) else str(value)


def _as_json(value: Any) -> Any:
    if isinstance(value, Decimal):  # DuckDB's sum() of integers is one
        return float(value) if value.as_tuple().exponent else int(value)
    return str(value)
