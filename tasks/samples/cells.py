"""Cells of a target list as text, names and numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
MISSING = (
    "",
    "nan",
    "null",
    "none",
    "n/a",
    "na",
    "-",
    "--",
    "---",
    "–",
    "—",
    "−",
    "...",
    "…",
    "~",
    "<na>",
    "#n/a",
    "\\n",
)
# Minus signs, blanks and marks as papers, web pages and word processors print them.
_PRINTED = (
    ("[−–‐‑—﹣－]", "-"),
    ("[’´]", "'"),
    ("[“”]|''", '"'),
    ("[\u00a0\u2009\u202f]", " "),
    ("ʰ", "h"),
    ("ᵐ", "m"),
    ("ˢ", "s"),
)


def to_text(cells: pa.Array) -> pa.Array:
    """Convert cells of any type to trimmed text; empty cells become null."""
    text = pc.utf8_trim_whitespace(pc.cast(cells, pa.string()))
    return pc.if_else(pc.equal(text, ""), None, text)


def to_names(cells: pa.Array) -> tuple[pa.Array, bool]:
    """Convert names and ids to text, whole numbers without a point; also return whether digits of them are lost."""
    if not pa.types.is_floating(cells.type):
        # Bytes of HDF5 that pandas wrote, and ids that are protected from a spreadsheet's rounding.
        text = pc.replace_substring_regex(to_text(cells), r"""^(?:b'(.*)'|="(.*)")$""", r"\1\2")
        # Programs without a missing integer write 245101100000025.0, spreadsheets 2.45E+14.
        long = pc.any(pc.match_substring_regex(text, r"^[0-9]{5,}\.0$")).as_py()
        if long and pc.all(pc.match_substring_regex(text, r"^[0-9]+\.0$")).as_py():
            text = pc.replace_substring_regex(text, r"\.0$", "")
        rounded = pc.any(pc.match_substring_regex(text, r"^[0-9](\.[0-9]+)?[eE]\+?[0-9]{2}$"))
        return text, bool(rounded.as_py())
    numbers = to_numbers(cells)
    known = numbers[np.isfinite(numbers)]
    if not (np.abs(known) < 2.0**63).all() or not (known == np.round(known)).all():
        return to_text(cells), False
    whole = pa.array(np.where(np.isfinite(numbers), numbers, 0.0).astype(np.int64), mask=~np.isfinite(numbers))
    digits = np.finfo(cells.type.to_pandas_dtype()).nmant + 1
    return pc.cast(whole, pa.string()), bool((np.abs(known) >= 2.0**digits).any())


def is_missing(text: pa.Array) -> pa.Array:
    """Return which cells of text are empty, or hold a usual mark for a missing value."""
    plain = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    return pc.or_(pc.is_null(text), pc.is_in(plain, value_set=pa.array(MISSING)))


def to_numbers(cells: pa.Array) -> Floats:
    """Convert cells of any type to numbers; NaN where a cell is no number."""
    kind = cells.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        numbers = pc.cast(cells, pa.float64(), safe=False)
    else:
        text = plain_text(cells)
        is_number = pc.match_substring_regex(text, f"^{NUMBER}$")
        # Arrow does not read a leading plus, which most declinations have.
        numbers = pc.cast(pc.utf8_ltrim(pc.if_else(is_number, text, None), "+"), pa.float64())
    values: Floats = np.array(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)
    return values


def plain_text(cells: pa.Array) -> pa.Array:
    """Write cells as trimmed text with ASCII signs."""
    text = pc.cast(cells, pa.string())
    if not pc.all(pc.string_is_ascii(text)).as_py() or pc.any(pc.match_substring(text, "''")).as_py():
        for printed, plain in _PRINTED:
            text = pc.replace_substring_regex(text, printed, plain)
    return pc.utf8_trim_whitespace(text)
