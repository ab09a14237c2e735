"""Print lines, and tables as text; write tables into files of the forms that `lake.export.tables` has."""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

from cyclopts import Parameter, Token, convert

from lake.errors import ConfigurationError
from lake.export.extensions import KNOWN, TEXT_FORMS, form_of
from lake.text import counted, visible

# Every command loads this module, and few show a table.
if TYPE_CHECKING:
    import pyarrow as pa

Output = Literal["table", "csv", "json", "parquet", "vot", "fits", "ecsv"]
_STANDARD_OUTPUT = Path("-")


def _read_output(kind: Any, tokens: Sequence[Token]) -> Any:
    """Read a form; "text" is what some commands called their table."""
    return "table" if tokens[0].value == "text" else convert(kind, tokens)


@Parameter(name="*")
@dataclass(frozen=True)
class TableOptions:
    """Options of each command that shows a table: its form, the file that it goes to.

    Parameters
    ----------
    output
        The form; None: what the extension of `to` says, else a table in the terminal.
    to
        The file to write; None and "-" print.
    expand
        Print a column a line.

    Raises
    ------
    ConfigurationError
        If the extension of the file says no form, or another one.

    Examples
    --------
    >>> TableOptions(to=Path("rows.fits")).form
    'fits'
    """

    output: Annotated[
        Output | None,
        Parameter(
            converter=_read_output,
            help="Form of the table; default: what the extension of --to says, else a table for reading.",
        ),
    ] = None
    to: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,  # for "-"
            help="File to write instead of printing; its extension sets the form: .csv, .json, .parquet, .vot, .fits "
            "or .ecsv.",
        ),
    ] = None
    expand: Annotated[bool, Parameter(negative=(), help="Print each row below the one before, a column a line.")] = (
        False
    )

    def __post_init__(self) -> None:
        if self.to is not None and str(self.to).startswith("--"):
            raise ConfigurationError(f"--to has no file before {self.to}", hint="give one: --to FILE.csv")
        _ = self.form  # an option that cannot be is reported before anything is read

    @property
    def file(self) -> Path | None:
        """Return the file to write, if any."""
        return None if self.to is None or self.to == _STANDARD_OUTPUT else self.to

    @property
    def form(self) -> Output:
        """Return the form of the table."""
        if self.file is None:
            if self.output is not None and self.output != "table" and self.output not in TEXT_FORMS:
                raise ConfigurationError(
                    f"{self.output} is not printed", hint=f"give it a file: --to FILE.{self.output}"
                )
            return self.output or "table"
        if self.output is None:
            return form_of(self.file)
        if self.file.suffix.lower() in KNOWN and (said := form_of(self.file)) != self.output:
            raise ConfigurationError(
                f"{self.file.name} says {said}, and --output says {self.output}", hint="leave out --output"
            )
        return self.output

    @property
    def is_text(self) -> bool:
        """Return whether a command may print lines of its own instead of the table."""
        return self.form == "table" and self.file is None and not self.expand

    def show(self, table: pa.Table, first: Sequence[str] = ()) -> None:
        """Print the table, or write the file and say how many rows it has.

        Parameters
        ----------
        first
            Columns that a table for reading begins with, since a terminal may not have room for all.
        """
        if self.form == "table" and first:
            table = table.select([*first, *(name for name in table.column_names if name not in first)])
        show(table, self.form, self.file, expand=self.expand, enough=len(first))
        if self.file is not None and self.file.is_file():
            say(f"{self.file}: {counted(table.num_rows, 'row')}")


TABLE = TableOptions()


def say(text: str) -> None:
    """Print lines for the user at once, into a file, too; with control characters escaped."""
    sys.stdout.write(visible(text, keep="\n\t") + "\n")
    sys.stdout.flush()


def put(text: str, to: Path | None = None) -> None:
    """Print a text, or write it into a file and say so; "-" prints."""
    if to is None or to == _STANDARD_OUTPUT:
        say(text)
        return
    with whole_file(to) as file:
        file.write(f"{text}\n".encode())
    say(str(to))


def show(table: pa.Table, output: Output, to: Path | None = None, *, expand: bool = False, enough: int = 0) -> None:
    """Write a table to the terminal, or to a file.

    So many first columns are enough for a reader.

    Raises
    ------
    ConfigurationError
        If the form cannot be printed, or cannot carry a column, or the file cannot be written.
    """
    from lake.export.tables import write_table

    if to is not None:
        with whole_file(to) as file:
            if output == "table":
                file.write((_as_text(table, expand, enough) + "\n").encode())
            else:
                write_table(table, output, file)
        return
    if output == "table":
        say(_as_text(table, expand, enough))
        return
    if output not in TEXT_FORMS:
        raise ConfigurationError(f"{output} is not printed", hint=f"give it a file: --to FILE.{output}")
    sink = io.BytesIO()
    write_table(table, output, sink)
    text = sink.getvalue().decode().removesuffix("\n")
    if sys.stdout.isatty():
        say(text)
    else:
        sys.stdout.write(text + "\n")  # another program wants unchanged values


def _as_text(table: pa.Table, expand: bool, enough: int) -> str:
    from lake.terminal import table_text

    return table_text(table, terminal_width(), expand=expand, enough=enough)


def terminal_width() -> int | None:
    """Return the characters of a line of the terminal; None if what is printed goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


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
    from lake.store.failures import disk_full
    from lake.store.storage import PARTIAL, flush, remove

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
    from lake.store.access import may

    try:
        found = path.stat()
    except FileNotFoundError:
        return True
    # A write-protected file must not be replaced, and in a closed folder only the content can change.
    if not may(path, os.W_OK) or not may(path.resolve().parent, os.W_OK | os.X_OK):
        return False
    return stat.S_ISREG(found.st_mode) and path.absolute().parts[1] not in ("dev", "proc")
