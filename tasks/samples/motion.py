"""Read proper motions, epochs and redshifts of a list; sentinels and impossible values are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.time import Time

from lake.errors import ConfigurationError
from lake.text import counted
from tasks.samples.cells import Floats, is_missing, to_numbers, to_text
from tasks.samples.column_names import motion_unit
from tasks.samples.columns import Column, Position, find_epoch, find_proper_motion, find_redshift

# Barnard's star moves by 10.4 arcsec a year, more than any other star.
_FASTEST = 11_000.0
# Positions were observed within these years.
FIRST_YEAR, LAST_YEAR = 1800.0, 2200.0

_WITHOUT_COSINE = re.compile(r"\b(?:no|not|without|w/o)\b[^.;]{0,40}\bcos|no_?cos", re.IGNORECASE)
_SENTINELS = (-99.0, -999.0, -9999.0, -99999.0, -99.9, -99.99, -999.9, -999.99, -999.999, 9999.0, 99999.0, 999999.0)


def proper_motion(
    columns: Sequence[Column], position: Position, lat: Floats, remarks: list[str]
) -> tuple[Floats, Floats, list[Column]]:
    """Get proper motions in mas/yr, and their columns, if there are any."""
    found = find_proper_motion(columns, position)
    taken = list(found or ())
    for column in columns:
        if (
            re.match(r"pm_?(ra|de|l|b)|mu_?(ra|de|alpha|delta)", column.plain_name)
            and column not in taken
            and found is None
        ):
            remarks.append(f"{column.name} is not understood: proper motion is pmra with pmdec")
    n = len(position.lon.read())
    if found is None:
        none = np.full(n, np.nan)
        return none, none, []
    values, factors = [], [_mas_per_year(column) for column in found]
    for column, other, factor in zip(found, found[::-1], factors, strict=True):
        if not column.declared_unit and factors[found.index(other)] != 1:
            raise ConfigurationError(
                f"the proper motion {other.name} is in '{other.declared_unit}', and {column.name} says no unit",
                hint="say the units of both, or of none if they are mas/yr",
            )
        numbers = to_numbers(column.read())
        numbers[np.isin(numbers, _SENTINELS)] = np.nan
        values.append(numbers * factor)
    if any(_WITHOUT_COSINE.search(words) for words in (found[0].description, found[0].name)):
        if not position.is_equatorial:
            raise ConfigurationError(f"{found[0].name} is without the cosine", hint="multiply it by cos(declination)")
        values[0] = values[0] * np.cos(np.radians(lat))
        remarks.append(
            f"{found[0].name} is multiplied by the cosine of the declination, which it lacks by its description"
        )
    with np.errstate(invalid="ignore"):
        wrong = np.hypot(*values) > _FASTEST
    given = [_is_given(c.read()) for c in found]
    impossible = given[0] & given[1] & (wrong | np.isnan(values[0]) | np.isnan(values[1]))
    for numbers in values:
        numbers[impossible] = np.nan
    if impossible.any():
        remarks.append(
            f"{counted(int(impossible.sum()), 'proper motion')} of {found[0].name}, {found[1].name} left out: unusable"
        )
    return values[0], values[1], taken


def _mas_per_year(column: Column) -> float:
    """Get the factor from a column's unit to mas/yr; 1 if it has no unit."""
    if not (text := column.declared_unit):
        return 1
    unit = motion_unit(text)
    if unit is None:
        raise ConfigurationError(
            f"the proper motion {column.name} is in '{text}', and that is no unit for it",
            hint="convert the column to mas/yr and declare that, or leave the unit out",
        )
    factor = float(unit.to(u.mas / u.yr))
    # Astropy's factor for arcsec is off in the last digit.
    return round(factor) if np.isclose(factor, round(factor), rtol=1e-12, atol=0.0) else factor


def _is_given(cells: pa.Array) -> Any:
    return pc.invert(is_missing(to_text(cells))).to_numpy(zero_copy_only=False)


def epochs(columns: Sequence[Column], position: Position, remarks: list[str]) -> tuple[Floats, Column | None]:
    """Get the epochs of the positions in Julian years, from a column, or else from the file's declaration."""
    column, reason = find_epoch(columns, position)
    if reason:
        remarks.append(reason)
    n = len(position.lon.read())
    if column is None:
        return np.full(n, np.nan if position.epoch is None else position.epoch), None
    years = to_numbers(column.read())
    if np.isnan(years).any() and not pa.types.is_floating(column.read().type):
        _read_years(column.read(), years)
    if column.plain_name == "epoch" and position.frame_from != "asked for":
        _refuse_equinox(column, years)
    if column.plain_name == "epoch" and len(odd := years[((years > 1000) & (years < FIRST_YEAR)) | _is_future(years)]):
        # TESS's days look like years: BTJD 2016 is in 2020.
        remarks.append(f"{column.name} is not taken as the epoch of the positions: it holds {odd[0]:g}")
        return np.full(n, np.nan), None
    # Columns called epoch hold many things; only years of observed positions are used.
    with np.errstate(invalid="ignore"):
        wrong = _is_given(column.read()) & ~((years > FIRST_YEAR) & (years < LAST_YEAR))
    years[wrong] = np.nan
    if wrong.any():
        remarks.append(f"{counted(int(wrong.sum()), 'value')} of {column.name} left out: no year")
    return years, column


def _is_future(years: Floats) -> Any:
    with np.errstate(invalid="ignore"):
        return (years > 2035.0) & (years < 9000.0)


def _refuse_equinox(column: Column, years: Floats) -> None:
    """Raise an error if a column called epoch may hold the equinox, as in old lists: B1950, or 1950.0."""
    old = pc.any(pc.match_substring_regex(to_text(column.read()), r"^[Bb]\s*1[89]\d\d(\.\d*)?$")).as_py()
    known = years[~np.isnan(years)]
    if old or (len(known) and np.isin(known, (1855.0, 1875.0, 1900.0, 1925.0, 1950.0, 1975.0)).all()):
        raise ConfigurationError(
            f"column {column.name} may be the equinox of the positions or their time",
            hint="call it equinox or ref_epoch, or say what the frame is with frame",
        )


def _read_years(cells: pa.Array, years: Floats) -> None:
    """Convert cells such as J2016.0, or dates."""
    for row, cell in enumerate(to_text(cells).to_pylist()):
        if not np.isnan(years[row]) or cell is None:
            continue
        if match := re.fullmatch(r"[Jj]\s*(\d{4}(?:\.\d*)?)", cell):
            years[row] = float(match[1])
        elif match := re.fullmatch(r"(\d{4}-\d\d-\d\d)(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d*)?)?Z?)?", cell):
            try:
                years[row] = Time(match[1]).jyear
            except ValueError:
                continue


def redshifts(columns: Sequence[Column], remarks: list[str]) -> tuple[Any, Column | None]:
    """Get redshifts and their column; None if there are none."""
    column, reason = find_redshift(columns)
    if reason:
        remarks.append(reason)
    if column is None:
        return None, None
    values = to_numbers(column.read())
    with np.errstate(invalid="ignore"):
        wrong = _is_given(column.read()) & ~((values > -0.1) & (values < 20.0) & ~np.isin(values, (9.99, 9.999)))
    values[wrong] = np.nan
    if wrong.any():
        remarks.append(f"{counted(int(wrong.sum()), 'value')} of {column.name} left out: no redshift")
    return values, column
