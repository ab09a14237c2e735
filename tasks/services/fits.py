"""FITS, read robustly: headers card by card, binary tables in whole columns, and nothing made up.

It is read here, and not by astropy, since an observation may have dozens of small files and astropy takes ten times as
long for one. What is not whole or contradicts itself is a GranuleRejected that says what. Source: FITS Standard 4.0,
sections 4 and 7.3, appendix J.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lake.errors import GranuleRejected
from lake.text import counted
from tasks.services.bounds import gunzipped, in_memory, read_file

if TYPE_CHECKING:
    from upath import UPath

Floats = NDArray[np.float64]
Data: TypeAlias = "bytes | Path | UPath"

# Keywords that come whole or as an integer and a fraction, as real files have them.
_FORMS = [(name, f"{name[:7]}I", f"{name[:7]}F") for name in ("MJDREF", "TIMEZERO", "TSTART", "TSTOP")]

BLOCK, _CARD = 2880, 80
_PLACES = range(0, BLOCK, _CARD)
_NOTES = ("COMMENT", "HISTORY")
_NOTHING = object()  # a card without a value, which is not a value of None
_VALUE = re.compile(r"= *(?:'((?:[^']|'')*)'|([^/]*))")
_FORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])")
_WIDTH = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_DTYPE = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}


@dataclass
class Header:
    """The keywords of an HDU."""

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def number(self, name: str) -> float | None:
        """Return a number, from one keyword or from two, NAMEI and NAMEF; None if there is none."""
        value, rest = self.values.get(name), 0.0
        if value is None:
            value, rest = self.values.get(f"{name[:7]}I"), self.values.get(f"{name[:7]}F") or 0.0
        return float(value) + float(rest) if isinstance(value, int | float) else None

    def text(self, name: str) -> str:
        """Return a text, in capitals; empty if there is none."""
        return str(self.values.get(name, "")).strip().upper()


@dataclass(frozen=True)
class Table:
    """A table: its keywords and the primary header's, columns' names in capitals, bytes, how many there should be."""

    header: Header
    names: list[str]
    data: bytes
    size: int

    @cached_property
    def _fields(self) -> Mapping[str, tuple[int, str, int, int]]:
        """Number, type, values in a row, and offset in it of each numeric column."""
        if len(self.data) < self.size:
            raise GranuleRejected(f"it is cut short: {len(self.data)} of {counted(self.size, 'byte')} of its table")
        length = int(self.header.values.get("NAXIS1", 0))
        forms = [self.header.text(f"TFORM{number + 1}") for number in range(len(self.names))]
        fields, at = _layout(tuple(self.names), tuple(forms))
        rows = int(self.header.values.get("NAXIS2", 0))
        if at != length or len(self.data) < rows * length or (rows and not length):
            raise GranuleRejected(f"rows of {counted(length, 'byte does not', 'bytes do not')} hold columns of {at}")
        return fields

    @property
    def widths(self) -> dict[str, int]:
        """Return how many values a row has in each numeric column; GranuleRejected if it is not whole."""
        return {name: repeat for name, (_, _, repeat, _) in self._fields.items()}

    def column(self, name: str, part: slice = slice(None)) -> Floats:
        """Return one of `widths`, scaled, native, NaN for nulls: shape (rows,), or (rows, values of `part`)."""
        number, form, repeat, offset = self._fields[name]
        values = self.header.values
        length, n = (int(values.get(axis, 0)) for axis in ("NAXIS1", "NAXIS2"))
        raw = np.frombuffer(self.data, _one_column(form, repeat, offset, length), n)["x"]
        raw = raw if repeat == 1 else raw[:, part]
        scale, zero = values.get(f"TSCAL{number}", 1), values.get(f"TZERO{number}", 0)
        column: Floats = raw.astype(np.float64)
        column = column + zero if isinstance(scale, int) and scale == 1 else column * scale + zero
        if form in "BIJK" and f"TNULL{number}" in values:
            column[raw == values[f"TNULL{number}"]] = np.nan
        return column


class Hdu(NamedTuple):
    """Header and data of an HDU, the size its data should have, and where it starts and ends in the file, bytes."""

    header: Header
    data: bytes
    size: int
    start: int
    stop: int


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Add the file's name to a GranuleRejected, and raise one if a header makes no sense."""
    try:
        yield
    except GranuleRejected as error:
        raise GranuleRejected(f"{name}: {error.reason}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise GranuleRejected(f"{name}: its header makes no sense: {error}") from error


def unpacked(data: Data) -> bytes:
    """Return the bytes of a file that may be packed by gzip; GranuleRejected if it is too large, cut or damaged."""
    budget = in_memory(lambda message, **_: GranuleRejected(message))
    body = data if isinstance(data, bytes) else read_file(data, budget)
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        return gunzipped(body, budget)
    except (EOFError, OSError, zlib.error) as error:
        raise GranuleRejected(f"gzip: {error}") from error


def read_tables(body: bytes) -> Iterator[Table]:
    """Yield the binary tables of a file in order; GranuleRejected if it is no FITS or a header is broken."""
    primary = Header()
    for header, data, size, *_ in hdus(body):
        if header.text("XTENSION") == "BINTABLE":
            names = [header.text(f"TTYPE{n + 1}") for n in range(_count(header, "TFIELDS", 0))]
            values = {**primary.values, **header.values}
            # The table's own TSTART is of all its rows, in whatever form; the primary header's may not be.
            for forms in (("EXTNAME",), *(forms for forms in _FORMS if not header.values.keys().isdisjoint(forms))):
                for form in forms:
                    if form not in header.values:
                        values.pop(form, None)
            yield Table(Header(values, header.notes), names, data, size)
        elif "SIMPLE" in header.values:
            primary = header


def hdus(body: bytes) -> Iterator[Hdu]:
    """Yield the HDUs of a file; GranuleRejected if it is no FITS or a header is broken."""
    if not body.startswith(b"SIMPLE  ="):
        raise GranuleRejected("it is empty" if not body else "it is no FITS file")
    at = 0
    while at < len(body) and (at == 0 or body[at : at + 8] == b"XTENSION"):
        header, start = Header(), at
        ended = False
        while not ended:
            block = body[at : at + BLOCK].decode("latin-1")
            if len(block) < BLOCK:
                raise GranuleRejected("it is cut short: a header does not end")
            at += BLOCK
            values, notes, ended = _cards(block)
            for key, value in values.items():
                header.values.setdefault(key, value)
            header.notes += notes
        values = header.values
        try:
            axes = [int(values[f"NAXIS{n + 1}"]) for n in range(_count(header, "NAXIS"))]
            each = abs(int(values["BITPIX"])) // 8 * int(values.get("GCOUNT", 1))
        except KeyError as error:
            raise GranuleRejected(f"a header has no {error}") from error
        size = each * (math.prod(axes) + int(values.get("PCOUNT", 0))) if axes else 0
        if size < 0:
            raise GranuleRejected(f"a header speaks of {counted(size, 'byte')}")
        stop = at + -(-size // BLOCK) * BLOCK
        yield Hdu(header, body[at : at + size], size, start, stop)
        at = stop


def check_sums(body: bytes, parts: Sequence[Hdu]) -> None:
    """Raise GranuleRejected if an HDU does not have the CHECKSUM that it states: FITS 4.0, appendix J."""
    for number, part in enumerate(parts):
        if "CHECKSUM" in part.header.values:
            whole = body[part.start : part.stop].ljust(part.stop - part.start, b"\0")
            total = int(np.frombuffer(whole, ">u4").sum(dtype=np.uint64))
            while total >> 32:
                total = (total & 0xFFFFFFFF) + (total >> 32)
            if total not in (0, 0xFFFFFFFF):
                raise GranuleRejected(f"it is damaged: HDU {number} has not the CHECKSUM it states")


@lru_cache(maxsize=1 << 8)
def _layout(names: tuple[str, ...], forms: tuple[str, ...]) -> tuple[Mapping[str, tuple[int, str, int, int]], int]:
    """Return the numeric columns as `Table._fields` has them, and the length of a row; many files have the same."""
    fields: dict[str, tuple[int, str, int, int]] = {}
    at = 0
    for number, (name, text) in enumerate(zip(names, forms, strict=True), 1):
        form = _FORM.match(text)
        if form is None:
            raise GranuleRejected(f"column {name} has the form {text!r}")
        repeat = int(form[1] or 1)
        if form[2] in _DTYPE:
            fields.setdefault(name, (number, form[2], repeat, at))
        at += -(-repeat // 8) if form[2] == "X" else repeat * _WIDTH[form[2]]
    return fields, at


@lru_cache(maxsize=1 << 10)
def _one_column(form: str, repeat: int, offset: int, length: int) -> np.dtype[Any]:
    """Return the type of a row of which only one column, x, is read."""
    kind = (_DTYPE[form], (repeat,) if repeat != 1 else ())
    return np.dtype({"names": ["x"], "formats": [kind], "offsets": [offset], "itemsize": length})


def _count(header: Header, name: str, default: int | None = None) -> int:
    """Return a number of axes or columns; FITS 4.0, sections 4.4.1 and 7.3.1: at most 999."""
    number = int(header.values[name] if default is None else header.values.get(name, default))
    if not 0 <= number <= 999:
        raise GranuleRejected(f"a header speaks of {name} {number}")
    return number


@lru_cache(maxsize=1 << 8)
def _cards(block: str) -> tuple[Mapping[str, Any], Sequence[str], bool]:
    """Return the keywords and notes of a block, and whether a header ends in it.

    Blocks of files that were made together are often the same, such as their primary headers.
    """
    values: dict[str, Any] = {}
    notes: list[str] = []
    for key, value in map(_card, [block[place : place + _CARD] for place in _PLACES]):
        if value is _NOTHING:
            if key == "END":
                return values, notes, True
        elif key in _NOTES:
            notes.append(value)
        else:
            values.setdefault(key, value)
    return values, notes, False


@lru_cache(maxsize=1 << 14)
def _card(card: str) -> tuple[str, Any]:
    """Return the keyword and value of a card; cards of one archive's files are nearly all the same."""
    key, text = card[:8].rstrip(), card[8:]
    if key in _NOTES:
        return key, text.strip()
    found = None if key == "END" else _VALUE.match(text)
    return key, _value(found) if found else _NOTHING


def _value(found: re.Match[str]) -> Any:
    if found[1] is not None:
        return found[1].replace("''", "'").rstrip()
    text = found[2].strip()
    if text in ("T", "F"):
        return text == "T"
    try:
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text.replace("D", "E"))
    except ValueError:
        return None
