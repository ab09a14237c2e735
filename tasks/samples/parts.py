"""Positions in parts, as the CDS and AAS print them: RAh RAm RAs DE- DEd DEm DEs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pyarrow as pa

from tasks.samples.columns import Column
from tasks.samples.positions import to_numbers, to_text

_PARTS = {
    "parts:ra": (
        ("rah", "ra_h", "rahr", "rahour", "ra_hour"),
        ("ram", "ra_m", "ramin", "ra_min"),
        ("ras", "ra_s", "rasec", "ra_sec"),
    ),
    "parts:dec": (
        ("ded", "de_d", "decd", "dec_d", "dedeg", "de_deg", "decdeg", "dec_deg"),
        ("dem", "de_m", "decm", "dec_m", "demin", "decmin", "dec_min", "dearcmin"),
        ("des", "de_s", "decs", "dec_s", "desec", "decsec", "dec_sec", "dearcsec"),
    ),
}
_SIGNS = ("de-", "de_", "dec-", "dec_", "de_sign", "dec_sign", "design", "decsign", "e_de-")


def put_together(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Put one column of sexagesimal text in the place of those that hold hours, minutes, seconds and the like."""
    plain = {c.name.strip().lower().replace(" ", "_"): c for c in columns}
    found = []
    for known_as, groups in _PARTS.items():
        parts = [next((plain[name] for name in names if name in plain), None) for names in groups]
        if parts[0] is None or parts[1] is None:
            return tuple(columns)
        sign = next((plain[name] for name in _SIGNS if name in plain), None) if known_as == "parts:dec" else None
        used = [c for c in (sign, *parts) if c is not None]
        names = tuple(c.name for c in used)
        numbers = [c.read for c in parts if c is not None]
        read = functools.partial(_joined, sign.read if sign else None, numbers)
        frame = parts[0].frame
        said = " ".join(dict.fromkeys(c.description for c in used))
        found.append(Column(" ".join(names), read, frame=frame, parts=names, known_as=known_as, description=said))
    taken = {name for column in found for name in column.parts}
    return (*(c for c in columns if c.name not in taken), *found)


def _joined(sign: Callable[[], pa.Array] | None, parts: Sequence[Callable[[], pa.Array]]) -> pa.Array:
    signs = to_text(sign()).to_pylist() if sign else None
    cells = [part() for part in parts]
    values = [to_numbers(column) for column in cells]
    first = to_text(cells[0]).to_pylist()
    texts: list[str | None] = []
    for row, whole in enumerate(first):
        if whole is None or values[1][row] != values[1][row]:
            texts.append(None)
            continue
        negative = whole.startswith(("-", "\u2212")) or (signs is not None and signs[row] in ("-", "\u2212", "-1"))
        # An integer has no -0: without a column of signs, whether 0 degrees are north or south is not known.
        lost = (
            sign is None
            and len(parts)
            and values[0][row] == 0
            and not pa.types.is_string(cells[0].type)
            and (values[0] < 0).any()
        )
        seconds = values[2][row] if len(values) > 2 and values[2][row] == values[2][row] else 0.0
        minutes = values[1][row]
        if minutes != int(minutes):  # a decimal of minutes, and no seconds
            minutes, seconds = int(minutes), seconds + (minutes - int(minutes)) * 60.0
        if lost or values[0][row] != values[0][row] or values[0][row] != int(values[0][row]):
            texts.append(f"{whole} without a sign" if lost else whole + "?")
            continue
        texts.append(f"{'-' if negative else ''}{abs(int(values[0][row])):02d}:{int(minutes):02d}:{seconds:.9f}")
    return pa.array(texts, pa.string())
