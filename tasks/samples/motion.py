"""Proper motion, epoch and redshift of a list, as they are stored; sentinels and impossible values are none."""

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
from tasks.samples.columns import Column, Position, find_epoch, find_proper_motion, find_redshift
from tasks.samples.habits import motion_unit
from tasks.samples.positions import Floats, is_missing, to_numbers, to_text

# Barnard's star moves by 10.4 arcsec a year, and nothing by more.
_FASTEST = 11_000.0
# Years of observed positions.
FIRST_YEAR, LAST_YEAR = 1800.0, 2200.0

_WITHOUT_COSINE = re.compile(r"\b(?:no|not|without|w/o)\b[^.;]{0,40}\bcos|no_?cos", re.IGNORECASE)
_SENTINELS = (-99.0, -999.0, -9999.0, -99999.0, -99.9, -99.99, -999.9, -999.99, -999.999, 9999.0, 99999.0, 999999.0)


def proper_motion(
    columns: Sequence[Column], position: Position, lat: Floats, remarks: list[str]
) -> tuple[Floats, Floats, list[Column]]:
    """Get proper motions in mas/yr, and the columns that they come from, if there are any."""
    found = find_proper_motion(columns, position)
    taken = list(found or ())
    for column in columns:
        if re.match(r"pm_?(ra|de|l|b)|mu_?(ra|de|alpha|delta)", column.habit) and column not in taken and found is None:
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
    if any(_WITHOUT_COSINE.search(text) for text in (found[0].description, found[0].name)):
        if not position.is_equatorial:
            raise ConfigurationError(f"{found[0].name} is without the cosine", hint="multiply it by cos(declination)")
        values[0] = values[0] * np.cos(np.radians(lat))
        remarks.append(f"{found[0].name} is multiplied by the cosine of the declination, as it says that it is without")
    with np.errstate(invalid="ignore"):
        wrong = np.hypot(*values) > _FASTEST
    given = [_is_given(c.read()) for c in found]
    lost = given[0] & given[1] & (wrong | np.isnan(values[0]) | np.isnan(values[1]))
    for numbers in values:
        numbers[lost] = np.nan
    if lost.any():
        remarks.append(
            f"{int(lost.sum())} proper motions in {found[0].name}, {found[1].name} cannot be, and are left out"
        )
    return values[0], values[1], taken


def _mas_per_year(column: Column) -> float:
    """Get the factor that turns a proper motion into mas/yr; 1 if it says no unit."""
    if not (said := column.declared_unit):
        return 1
    unit = motion_unit(said)
    if unit is None:
        raise ConfigurationError(
            f"the proper motion {column.name} is in '{said}', and that is no unit for it",
            hint="convert the column to mas/yr and declare that, or leave the unit out",
        )
    factor = float(unit.to(u.mas / u.yr))
    # Astropy's own factor of arcsec is off in the last digit.
    return round(factor) if np.isclose(factor, round(factor), rtol=1e-12, atol=0.0) else factor


def _is_given(cells: pa.Array) -> Any:
    return pc.invert(is_missing(to_text(cells))).to_numpy(zero_copy_only=False)


def epochs(columns: Sequence[Column], position: Position, remarks: list[str]) -> tuple[Floats, Column | None]:
    """Get the epochs of the positions, Julian years: a column, or else what the file declares."""
    column, reason = find_epoch(columns, position)
    if reason:
        remarks.append(reason)
    n = len(position.lon.read())
    if column is None:
        return np.full(n, np.nan if position.epoch is None else position.epoch), None
    years = to_numbers(column.read())
    if np.isnan(years).any() and not pa.types.is_floating(column.read().type):
        _read_years(column.read(), years)
    if column.habit == "epoch" and position.said != "asked for":
        _refuse_equinox(column, years)
    if column.habit == "epoch" and len(odd := years[((years > 1000) & (years < FIRST_YEAR)) | _is_future(years)]):
        # Days of TESS run through the years: BTJD 2016 is of 2020.
        remarks.append(f"{column.name} is not taken as the epoch of the positions: it holds {odd[0]:g}")
        return np.full(n, np.nan), None
    # Columns called epoch count many things; only years of observed positions are taken.
    with np.errstate(invalid="ignore"):
        wrong = _is_given(column.read()) & ~((years > FIRST_YEAR) & (years < LAST_YEAR))
    years[wrong] = np.nan
    if wrong.any():
        remarks.append(f"{int(wrong.sum())} values of {column.name} are no years, and are left out")
    return years, column


def _is_future(years: Floats) -> Any:
    with np.errstate(invalid="ignore"):
        return (years > 2035.0) & (years < 9000.0)


def _refuse_equinox(column: Column, years: Floats) -> None:
    """Raise an error if what is called epoch may be the equinox, as it once was: B1950, or 1950.0."""
    old = pc.any(pc.match_substring_regex(to_text(column.read()), r"^[Bb]\s*1[89]\d\d(\.\d*)?$")).as_py()
    known = years[~np.isnan(years)]
    if old or (len(known) and np.isin(known, (1855.0, 1875.0, 1900.0, 1925.0, 1950.0, 1975.0)).all()):
        raise ConfigurationError(
            f"column {column.name} may be the equinox of the positions or their time",
            hint="call it equinox or ref_epoch, or say what the frame is with frame",
        )


def _read_years(cells: pa.Array, years: Floats) -> None:
    """Read what is written as J2016.0 or as a date."""
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
    """Get redshifts; None if there are none."""
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
        remarks.append(f"{int(wrong.sum())} values of {column.name} are no redshifts, and are left out")
    return values, column
