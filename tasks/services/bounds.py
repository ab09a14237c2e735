"""Limits of what comes from outside: bytes, unpacked bytes, declared sizes, and time.

Answers of archives and files of users are read through a `Budget`. It raises an error that names the setting as soon
as a limit is passed. Only what fits is handed to a parser.
"""

from __future__ import annotations

import gzip
import html
import io
import json
import lzma
import math
import re
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

from lake.errors import LightlakeError
from lake.settings import Settings, settings
from lake.store.leaving import leave_behind
from lake.text import as_size
from tasks.services.usage import counted
from tasks.services.votables import parsed_whole

if TYPE_CHECKING:
    from upath import UPath

_Result = TypeVar("_Result")

# Bytes that are unpacked at a time.
_PIECE = 1 << 20

# Python objects and arrays of what an answer says may be this many times larger than the answer.
_IN_MEMORY = 4

# A zip's list of members is read as a whole: a hundred thousand of them.
_LIST_OF_MEMBERS = 10_000_000


class Failed(Protocol):
    """Makes the error of a request that failed."""

    def __call__(self, message: str, *, transient: bool = False, retry_after_s: float | None = None) -> LightlakeError:
        """Return the error."""
        ...


@dataclass
class Budget:
    """The limits of one answer or file.

    Parameters
    ----------
    failed
        Makes errors. What is too large is final; what is too slow may be faster another time.
    most
        Bytes at most, as they come and once they are unpacked.
    setting
        Name of the setting of this limit, and its value.
    seconds
        Longest time for all of it, s; None where nothing is waited for.
    deadline
        When that time is over, by the clock.
    """

    failed: Failed
    most: int
    setting: str
    seconds: float | None = None
    deadline: float | None = None
    clock: Callable[[], float] = time.monotonic
    came: int = field(default=0, init=False)
    unpacked: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.deadline is None and self.seconds is not None:
            self.deadline = self.clock() + self.seconds

    def took(self, n: int) -> None:
        """Count bytes that came."""
        self.came += n
        if self.came > self.most:
            raise self._too_large("what comes")
        self.check_time()

    def made(self, n: int) -> None:
        """Count bytes that were unpacked."""
        self.unpacked += n
        if self.unpacked > self.most:
            raise self._too_large("what came, once unpacked,")

    def expects(self, n: float, what: str = "it") -> None:
        """Raise an error if a declared size is larger than allowed."""
        if n > self.most:
            raise self.failed(f"{what} says that it has {n / 1e6:,.0f} MB, and {self.setting} allows less")

    @property
    def is_over(self) -> bool:
        """Say whether the time is over."""
        return self.deadline is not None and self.clock() >= self.deadline

    def check_time(self) -> None:
        """Raise an error if the time is over."""
        if self.is_over:
            raise self.too_slow()

    def patience(self, timeout_s: float | None = None) -> float | None:
        """Return how long to wait for the next bytes, s: the longest silence, or what is left of the time."""
        self.check_time()
        left = None if self.deadline is None else self.deadline - self.clock()
        return min((s for s in (left, timeout_s) if s is not None), default=None)

    def too_slow(self) -> LightlakeError:
        """Return the error for the end of the time."""
        return self.failed(
            f"still not through after {self.seconds or 0:g} s (LIGHTLAKE_TASK_TIMEOUT_S): {as_size(self.came)} came",
            transient=True,
        )

    def _too_large(self, what: str) -> LightlakeError:
        return self.failed(f"{what} is larger than {self.setting} allows")


def in_memory(failed: Failed, given: Settings | None = None, *, deadline: float | None = None) -> Budget:
    """Return the budget of an answer or file that is held in memory."""
    given = given or settings()
    most = given.max_answer_mb
    return Budget(failed, int(most * 1e6), f"LIGHTLAKE_MAX_ANSWER_MB={most:g}", given.task_timeout_s, deadline=deadline)


def on_disk(failed: Failed, given: Settings | None = None) -> Budget:
    """Return the budget of a file that is written to a disk."""
    given = given or settings()
    most = given.max_file_gb
    return Budget(failed, int(most * 1e9), f"LIGHTLAKE_MAX_FILE_GB={most:g}", given.task_timeout_s)


def read_stream(stream: IO[bytes], budget: Budget) -> bytes:
    """Read a stream to its end, a piece at a time."""
    content = io.BytesIO()  # which gives its content away without a copy
    while piece := stream.read(_PIECE):
        budget.took(len(piece))
        content.write(piece)
    return content.getvalue()


def read_file(path: Path | UPath, budget: Budget) -> bytes:
    """Read a file."""
    with path.open("rb") as file:
        return read_stream(file, budget)


def gunzipped(data: bytes, budget: Budget) -> bytes:
    """Unpack gzip.

    Raises
    ------
    EOFError, OSError, zlib.error
        If it is cut short or damaged.
    """
    # Most are one member, which zlib unpacks and checks in one go.
    member = zlib.decompressobj(wbits=31)
    whole = member.decompress(data, budget.most + 1)
    budget.made(len(whole))
    if not member.eof:
        raise EOFError("it is cut short")
    following = member.unused_data.lstrip(b"\0")
    if not following:
        return whole
    with gzip.GzipFile(fileobj=io.BytesIO(following)) as rest:
        pieces = [whole]
        while piece := rest.read(_PIECE):
            budget.made(len(piece))
            pieces.append(piece)
    return b"".join(pieces)


class Zip:
    """An open zip. Its members are unpacked in memory only, so their names do no harm."""

    def __init__(self, opened: zipfile.ZipFile, budget: Budget) -> None:
        self._opened, self._budget = opened, budget
        self.names = opened.namelist()

    def read(self, name: str) -> bytes:
        """Return the content of a member."""
        return b"".join(self._pieces(name))

    def damaged(self) -> str | None:
        """Return the name of the first member whose checksum is wrong; None if all are right."""
        for name in self.names:
            try:
                for _ in self._pieces(name):
                    pass
            except zipfile.BadZipFile:
                return name
        return None

    def _pieces(self, name: str) -> Iterator[bytes]:
        self._budget.expects(self._opened.getinfo(name).file_size, name)
        with self._opened.open(name) as member:
            while piece := member.read(_PIECE):
                self._budget.made(len(piece))
                self._budget.check_time()
                yield piece


@contextmanager
def open_zip(file: Path | IO[bytes], budget: Budget) -> Iterator[Zip]:
    """Open a zip.

    Raises
    ------
    zipfile.BadZipFile
        If it is not a zip, is damaged, or is packed in an unknown way.
    OSError
        If the file cannot be read.
    """
    try:
        with file.open("rb") if isinstance(file, Path) else file as opened:
            _check_list_of_members(opened)
            with zipfile.ZipFile(opened) as archive:
                yield Zip(archive, budget)
    except (zlib.error, lzma.LZMAError, EOFError, RuntimeError, struct.error, OverflowError) as error:
        raise zipfile.BadZipFile(str(error) or "it is cut short") from error


def _check_list_of_members(file: IO[bytes]) -> None:
    """Raise BadZipFile if the list of members, which zipfile reads as a whole, is too long: APPNOTE 4.3.16."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 66_000))
    tail = file.read()
    file.seek(0)
    for found in re.finditer(rb"PK\x05\x06.{8}(.{4})", tail, re.S):
        if int.from_bytes(found[1], "little") > _LIST_OF_MEMBERS:
            raise zipfile.BadZipFile("it has more than a hundred thousand members")


def parsed_json(body: bytes, budget: Budget) -> Any:
    """Parse JSON.

    Raises
    ------
    ValueError
        If it is not JSON, or is nested too deeply.
    """
    # An empty list takes three bytes of text, and 64 in memory.
    budget.expects(64 * sum(body.count(sign) for sign in (b",", b"[", b"{")) / _IN_MEMORY, "the answer, in memory,")
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parsed_votable(body: bytes, budget: Budget, **more: Any) -> Any:
    """Parse a VOTable, unless it refers to data elsewhere or declares more than fits into memory.

    Returns
    -------
    astropy.io.votable.tree.VOTableFile

    Raises
    ------
    ValueError
        If it is not a VOTable, or astropy would cut its values; and whatever astropy's parser raises.
    """
    if body.startswith(b"\x1f\x8b"):
        try:
            body = gunzipped(body, budget)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"gzip: {error}") from error
    # No other packing, and no encoding that hides what is searched for here.
    if not body[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<") or b"\0" in body[:64]:
        raise ValueError("it is no XML")
    if b"<!ENTITY" in body:
        raise ValueError("it defines entities")
    if any(b"href" in stream for stream in _tags(b"STREAM", body)):
        raise ValueError("its data are elsewhere: STREAM has href")
    budget.expects(_votable_bytes(body) / _IN_MEMORY, "a table of the answer, in memory,")
    return parsed_whole(body, **more)


def _tags(name: bytes, body: bytes) -> Iterator[bytes]:
    """Yield the start tags of that name."""
    for found in re.finditer(rb"<(?:[\w.-]+:)?" + name + rb"""\b(?:[^>"']|"[^"]*"|'[^']*')*""", body):
        yield found[0]


def _attribute(tag: bytes, name: str) -> str:
    found = re.search(rf"""\s{name}\s*=\s*(?:"([^"]*)"|'([^']*)')""", tag.decode("latin-1"))
    return html.unescape(found[1] or found[2] or "").strip() if found else ""


# Bytes of a value in an array of numpy; text is four bytes a character there.
_VALUE_BYTES = {
    "short": 2,
    "int": 4,
    "long": 8,
    "char": 4,
    "unicodeChar": 4,
    "float": 4,
    "double": 8,
    "floatComplex": 8,
    "doubleComplex": 16,
}

# Of a text and of an array of any length, which are objects of their own.
_TEXT_BYTES, _ARRAY_BYTES = 60, 600

# astropy begins with so many rows, whatever comes.
_FIRST_ROWS = 512


def _votable_bytes(body: bytes) -> float:
    """Estimate how many bytes astropy needs for the tables of a VOTable, at most; infinite for rows without bytes."""
    total = 0.0
    starts = [found.start() for found in re.finditer(rb"<(?:[\w.-]+:)?TABLE\b", body)]
    for start, stop in pairwise([*starts, len(body)]):
        begin = re.search(rb"<(?:[\w.-]+:)?DATA\b", part := memoryview(body)[start:stop])
        head = bytes(part[: begin.start() if begin else None])
        each = [_cell_bytes(tag) for tag in _tags(b"FIELD", head)]
        stated = _attribute(next(_tags(b"TABLE", head), b""), "nrows")
        rows = max(_FIRST_ROWS, _number(stated), sum(body.count(sign, start, stop) for sign in (b"<TR", b":TR")))
        if begin and re.search(rb"<(?:[\w.-]+:)?BINARY2?\b", part[begin.start() : begin.start() + 10_000]):
            least = sum(least for _, least in each)
            if not least:
                return math.inf
            rows = max(rows, (stop - start) / least)
        total += rows * sum(held for held, _ in each)
    # What is neither cell nor row is an object of some hundred bytes.
    cells = 2 * (body.count(b"<TD") + body.count(b"<TR")) + body.count(b":TD>") + body.count(b":TR>")
    return total + 500 * max(0, body.count(b"<") - cells)


def _cell_bytes(tag: bytes) -> tuple[float, float]:
    """Return the bytes that a cell of a FIELD takes in memory, and the least it has in a binary table."""
    kind, shape = _attribute(tag, "datatype"), _attribute(tag, "arraysize")
    if "*" in shape:
        return (_TEXT_BYTES if kind in ("char", "unicodeChar") else _ARRAY_BYTES), 4
    n = math.prod(map(_number, shape.split("x"))) if shape else 1
    each = _VALUE_BYTES.get(kind, 1)
    # A mask has a byte for each value.
    return n * (each + 1), n * (each if kind not in ("char", "bit") else each / 32)


def _number(text: str) -> float:
    return float(text) if re.fullmatch(r"\s*[0-9]{1,300}\s*", text) else 0.0


def in_time(work: Callable[[], _Result], budget: Budget) -> _Result:
    """Run work that cannot be interrupted, such as Arrow's reading from S3, and abandon it when the time is over.

    Arrow's client limits each silence, but a server that sends a byte a second is never silent. Abandoned work
    ends with the process.
    """
    outcome: list[Callable[[], _Result]] = []

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  # it is raised in the caller's thread
            outcome.append(lambda error=error: _raise(error))  # type: ignore[misc]
        else:
            outcome.append(lambda: result)

    thread = Thread(target=copy_context().run, args=(counted, run), name="lightlake-bounded", daemon=True)
    thread.start()
    thread.join(budget.patience())
    if not outcome:
        leave_behind(thread)
        raise budget.too_slow()
    return outcome[0]()


def _raise(error: BaseException) -> Any:
    raise error
