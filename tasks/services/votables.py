"""Parse VOTables so that nothing is cut on the way: astropy clips what does not fit, and only warns of it."""

from __future__ import annotations

import io
import math
import re
import warnings
from threading import Lock
from typing import Any

# W46: a text longer than its field. W51: an integer out of range.
_CUT = re.compile(r":(?P<line>[\d?]+):(?P<column>[\d?]+): (?:W46|W51): (?P<what>.*)", flags=re.DOTALL)
_TAG = re.compile(rb"""<(?:[\w.-]+:)?(?:FIELD|PARAM)\b(?:[^>"']|"[^"]*"|'[^']*')*""")
_MATRIX = re.compile(rb"""(?<=\s)arraysize\s*=\s*["']\s*(\d+(?:x\d+)*)x(\d*\*|\d+)\s*["']""")
_IS_TEXT = re.compile(rb"""\sdatatype\s*=\s*["'](?:char|unicodeChar)["']""")

# Before version 1.3 an empty cell of integers would be 0.
_OLD = re.compile(rb"""(<(?:[\w.-]+:)?VOTABLE\b(?:[^>"']|"[^"]*"|'[^']*')*?\sversion\s*=\s*["'])v?1\.[0-2](?=["'])""")

# Filters of warnings belong to the process.
_recording = Lock()


class Clipped(ValueError):
    """Values of a VOTable do not fit into the fields that it declares for them."""


def parsed_whole(body: bytes, **more: Any) -> Any:
    """Parse a VOTable; values that do not fit into their field are an error that names the field.

    Returns
    -------
    astropy.io.votable.tree.VOTableFile

    Raises
    ------
    Clipped
        If a value is longer, or larger, than its field.
    """
    from astropy.io.votable import parse
    from astropy.io.votable.exceptions import W46, W51

    body = _OLD.sub(rb"\g<1>1.3", _TAG.sub(_flat, body), count=1)
    with _recording, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        for kind in (W46, W51):
            warnings.simplefilter("always", kind)
        document = parse(io.BytesIO(body), **{**more, "verify": "warn"})
    cut: dict[str, str] = {}
    for warning in said:
        if found := _CUT.search(str(warning.message)):
            for name in _fields(document, body, found):
                cut.setdefault(name, re.sub(r" \(suppressing.*", "", found["what"]))
    if cut:
        names = ", ".join(cut)
        raise Clipped(f"values would be cut in {names}: {next(iter(cut.values()))}")
    return document


def _flat(tag: re.Match[bytes]) -> bytes:
    """Join an array of texts into one text: astropy refuses such arrays, even in parameters that nobody needs."""
    if not _IS_TEXT.search(tag[0]):
        return tag[0]

    def size(found: re.Match[bytes]) -> bytes:
        if found[2].endswith(b"*"):
            return b'arraysize="*"'
        return b'arraysize="%d"' % math.prod(int(n) for n in (*found[1].split(b"x"), found[2]))

    return _MATRIX.sub(size, tag[0])


def _fields(document: Any, body: bytes, found: re.Match[str]) -> list[str]:
    """Name the field that a warning is about, by where in the file it was; none if it is about a parameter."""
    kinds = ("char", "unicodeChar") if "too long" in found["what"] else ("unsignedByte", "short", "int", "long")
    tables = list(document.iter_tables())
    if found["line"] != "?":
        lines = body.split(b"\n", int(found["line"]))
        at = sum(len(line) + 1 for line in lines[: int(found["line"]) - 1]) + int(found["column"])
        row = max((m.start() for m in re.finditer(rb"<(?:[\w.-]+:)?TR\b", body[:at])), default=None)
        if row is None or re.search(rb"</(?:[\w.-]+:)?TR\b", body[row:at]):
            return []
        cell = len(re.findall(rb"<(?:[\w.-]+:)?TD\b", body[row:at])) - 1
        number = len(re.findall(rb"<(?:[\w.-]+:)?TABLE\b", body[:at])) - 1
        if 0 <= number < len(tables) and 0 <= cell < len(tables[number].fields):
            field = tables[number].fields[cell]
            if field.datatype in kinds:
                return [str(field.name or field.ID)]
    return [str(f.name or f.ID) for table in tables for f in table.fields if f.datatype in kinds and f.arraysize != "*"]
