"""Read keywords and small tables of FITS headers that may have anything in them."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lake.text import counted

Array = NDArray[Any]

# Errors of files that are none, or are damaged.
UNREADABLE = (OSError, EOFError, zlib.error, LookupError, ValueError, TypeError)

_INT32, _CHUNK = 1 << 31, 1 << 20


def check_whole(path: Path, hdus: Any) -> None:
    """See that a FITS file has all of its last extension, and nothing after it.

    A file that was cut off is a warning to astropy: its last events would be made up, or its good times missing. Packed
    files are read to their end, where their checksum is.

    Raises
    ------
    OSError, EOFError, zlib.error
        If it is not whole.
    """
    last = hdus[-1].fileinfo()
    end, size, rest = last["datLoc"] + last["datSpan"], 0, b""
    packed = path.name.lower().endswith(".gz")
    with gzip.open(path) if packed else path.open("rb") as file:
        if not packed:
            size = path.stat().st_size
            file.seek(end)
            rest = file.read(_CHUNK)
        else:
            while chunk := file.read(_CHUNK):
                rest += chunk[max(end - size, 0) :][: _CHUNK - len(rest)]
                size += len(chunk)
    if size < end:
        raise OSError(f"it is cut off: {size} of {counted(end, 'byte')}")
    if rest.strip(b"\0 "):
        raise OSError(f"it is cut off, or damaged: {counted(size - end, 'byte')} after its last extension are none")


def first_of(header: Any, primary: Any, *names: str) -> Any:
    """Return the first keyword that is there: a STIS `tag` file has some in its primary header, by other names.

    Raises
    ------
    KeyError
        If there is none.
    """
    for name in names:
        for where in (header, primary):
            if where.get(name) not in (None, ""):
                return where[name]
    raise KeyError(f"no keyword {' or '.join(names)}")


def text(header: Any, name: str) -> str | None:
    """Return a keyword without the blanks that pad it; None if it is blank or not there."""
    value = header.get(name)
    return str(value).strip() or None if value is not None else None


def lower(text: str | None) -> str | None:
    """Return a text in small letters; None for NONE."""
    return None if text is None or text.upper() == "NONE" else text.lower()


def upper(text: str | None) -> str | None:
    """Return a text in capital letters; None for N/A."""
    return None if text is None or text.upper() == "N/A" else text.upper()


def number(value: Any) -> float | None:
    """Return a finite number; None for all else.

    Examples
    --------
    >>> number("12.5"), number("x"), number(float("nan"))
    (12.5, None, None)
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) else None


def whole(header: Any, name: str) -> int | None:
    """Return a keyword as a whole number of 32 bits; None if it is blank or not there.

    Raises
    ------
    ValueError
        If it is no such number.
    """
    value = header.get(name)
    if value in (None, ""):
        return None
    found = int(value)
    if not -_INT32 <= found < _INT32:
        raise ValueError(f"{name} is {found}")
    return found


def pairs(hdu: Any, first: str, second: str) -> Array | None:
    """Return two columns of a table, shape (n, 2); None if it has not got them."""
    if hdu is None or hdu.data is None or {first, second} - {name.upper() for name in hdu.columns.names}:
        return None
    return np.column_stack([np.asarray(hdu.data[name]).astype(np.float64) for name in (first, second)])


def merged(intervals: Array) -> Array:
    """Return intervals in order of time and without overlaps; those without length are left out.

    Parameters
    ----------
    intervals
        Start and stop of each, shape (n, 2), in any order.

    Examples
    --------
    >>> merged(np.array([[40.0, 50.0], [0.0, 10.0], [5.0, 20.0], [30.0, 25.0], [np.nan, 60.0]])).tolist()
    [[0.0, 20.0], [40.0, 50.0]]
    """
    valid = np.isfinite(intervals).all(axis=1) & (intervals[:, 0] < intervals[:, 1])
    found = intervals[valid][np.argsort(intervals[valid, 0], kind="stable")]
    if not len(found):
        return found
    reached = np.maximum.accumulate(found[:, 1])
    begins = np.concatenate([[True], found[1:, 0] > reached[:-1]])
    ends = np.concatenate([begins[1:], [True]])
    return np.column_stack([found[begins, 0], reached[ends]])
