"""Join positions in parts, as the CDS and AAS print them: RAh RAm RAs DE- DEd DEm DEs."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from lake.errors import ConfigurationError
from tasks.samples.cells import to_numbers, to_text
from tasks.samples.columns import Column

# Blanks, underscores and dots within these names don't count.
_PARTS = {
    "parts:ra": (
        ("rah", "rahh", "rahr", "rahrs", "rahour", "rahours"),
        ("ram", "ramm", "ramin", "ramins", "raminute", "raminutes"),
        ("ras", "rass", "rasec", "rasecs", "rasecond", "raseconds"),
    ),
    "parts:dec": (
        ("ded", "dedd", "decd", "decdd", "dedeg", "decdeg", "decldeg", "dedegree", "decdegree", "decdegrees"),
        ("dem", "decm", "decmm", "demin", "decmin", "deminute", "decminute", "decminutes", "dearcmin", "decarcmin"),
        ("des", "decs", "decss", "desec", "decsec", "desecond", "decsecond", "decseconds", "dearcsec", "decarcsec"),
    ),
}
_SIGNS = ("de-", "dec-", "design", "decsign", "e_de-", "sign", "signdec", "signde")

_POSITIVE = {"+", "1", "+1", "1.0", "n", "north"}
_NEGATIVE = {"-", "-1", "-1.0", "s", "south", "\u2212", "–", "—", "‐"}


def _plain(name: str) -> str:
    return re.sub(r"(?<!^e)[\s_.]", "", name.strip().lower())


def put_together(columns: Sequence[Column], *, strict: bool = True) -> tuple[Column, ...]:
    """Replace columns of hours, minutes, seconds and the like by one column of sexagesimal text.

    Parameters
    ----------
    columns
        All columns of a table.
    strict
        False if other columns hold the positions, so that unpaired minutes do not matter.

    Raises
    ------
    ConfigurationError
        If minutes can't be joined with anything: without them, hours or degrees are wrong.
    """
    plain = {_plain(c.name): c for c in columns}
    found = []
    for known_as, groups in _PARTS.items():
        parts = [next((plain[name] for name in names if name in plain), None) for names in groups]
        # With ra_max, ra_min is the edge of a field.
        if parts[0] is None or parts[1] is None or f"{known_as.removeprefix('parts:')}max" in plain:
            if strict:
                _refuse_minutes(plain)
            return tuple(columns)
        sign = next((plain[name] for name in _SIGNS if name in plain), None) if known_as == "parts:dec" else None
        used = [c for c in (sign, *parts) if c is not None]
        names = tuple(c.name for c in used)
        numbers = [c.read for c in parts if c is not None]
        read = functools.partial(_joined, sign.read if sign else None, numbers)
        frame = parts[0].frame
        description = " ".join(dict.fromkeys(c.description for c in used))
        found.append(
            Column(" ".join(names), read, frame=frame, parts=names, known_as=known_as, description=description)
        )
    taken = {name for column in found for name in column.parts}
    return (*(c for c in columns if c.name not in taken), *found)


def _refuse_minutes(columns: Mapping[str, Column]) -> None:
    for of, known in (("ra", "parts:ra"), ("dec", "parts:dec")):
        lonely = [columns[name].name for name in _PARTS[known][1] if name in columns]
        if lonely and f"{of}max" not in columns and any(name in columns for name in _PARTS[known][0]):
            raise ConfigurationError(
                f"{', '.join(lonely)}: these minutes go with columns that are not understood",
                hint="call them RAh RAm RAs DE- DEd DEm DEs, or give degrees",
            )


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
        sign_of_row = (signs[row] or "+") if signs else "+"
        if sign_of_row.lower() not in _POSITIVE | _NEGATIVE:
            texts.append(f"{whole} with the sign {sign_of_row}")
            continue
        negative = whole.startswith(("-", "\u2212")) or sign_of_row.lower() in _NEGATIVE
        # An integer has no -0: without a column of signs, 0 degrees may be north or south.
        unsigned = (
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
        if unsigned or values[0][row] != values[0][row] or values[0][row] != int(values[0][row]):
            texts.append(f"{whole} without a sign" if unsigned else whole + "?")
            continue
        texts.append(f"{'-' if negative else ''}{abs(int(values[0][row])):02d}:{int(minutes):02d}:{seconds:.9f}")
    return pa.array(texts, pa.string())
