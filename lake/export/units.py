"""Units and UCDs: which a column of an answer has, and how forms spell them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lake.model.declared import all_tables
from lake.model.schema import TABLES
from lake.model.table import Column

# What VOUnit 1.1 does not know must be quoted.
_UNKNOWN_TO_VOUNIT = re.compile(r"\b(electron|DN)\b")

# Wavelengths in nm, up to which light is of a part of the spectrum in UCD1+.
_PARTS = ((300.0, "em.UV"), (1000.0, "em.opt"), (100_000.0, "em.IR"))

# Columns in the unit that another column names.
_IN_UNIT = ("flux", "flux_err", "background", "flux_median", "flux_mean", "flux_std")
_OWN_UNIT = {"flux_median": "flux_median_unit"}
# Columns of the core that tables of sources have in units of their own.
OTHER_UNITS = ("flux", "flux_err", "background")


def vounit(unit: str | None) -> str | None:
    """Return a unit as VOUnit 1.1 wants it.

    Examples
    --------
    >>> vounit("electron.s**-1"), vounit("mJy")
    ("'electron'.s**-1", 'mJy')
    """
    return _UNKNOWN_TO_VOUNIT.sub(r"'\1'", unit) if unit else None


def fits_unit(unit: str | None) -> str | None:
    """Return a unit as FITS 4.0 wants it; one that FITS does not know stays as it is.

    Examples
    --------
    >>> fits_unit("mas.yr**-1"), fits_unit("electron.s**-1")
    ('mas yr-1', 'electron.s**-1')
    """
    if not unit:
        return None
    import astropy.units

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", astropy.units.UnitsWarning)  # VOUnit prefers other units than erg
        try:
            return str(astropy.units.Unit(unit).to_string("fits"))
        except ValueError:
            return unit


def flux_ucd(ucd: str, unit: str | None, band: Mapping[str, Any] | None) -> str:
    """Return the UCD of a flux in a unit: a density, counts or an energy, and where in the spectrum.

    Examples
    --------
    >>> flux_ucd("stat.error;phot.flux", "mJy", {"wavelength_nm": 3352.6})
    'stat.error;phot.flux.density;em.IR'
    >>> flux_ucd("phot.flux", "GeV", None)
    'phys.energy'
    """
    if not ucd.endswith("phot.flux") or unit is None:
        return ucd
    if unit.endswith("Jy"):
        wavelength = (band or {}).get("wavelength_nm")
        where = next((part for upto, part in _PARTS if wavelength and wavelength <= upto), None)
        return ucd.replace("phot.flux", "phot.flux.density") + (f";{where}" if where else "")
    if unit.endswith("eV"):
        return ucd.replace("phot.flux", "phys.energy")
    if unit.startswith(("count", "electron", "ct", "adu")):
        return ucd.replace("phot.flux", "phot.count")
    return ucd


@cache
def _columns(*, declared: bool) -> dict[str, list[tuple[Column, pa.DataType]]]:
    known: dict[str, list[tuple[Column, pa.DataType]]] = {}
    for table in (all_tables() if declared else TABLES).values():
        for column, field in zip(table.columns, table.arrow, strict=True):
            known.setdefault(column.name, []).append((column, field.type))
    return known


@lru_cache
def column_of(name: str, kind: pa.DataType) -> Column | None:
    """Return the schema's column of that name and kind; None if an answer's column is something else.

    Units that differ among tables are none.

    Examples
    --------
    >>> column_of("mjd", pa.float64()).unit, column_of("x", pa.int32())
    ('d', None)
    """
    # Loading the sources takes longer than many a query, and no column is called count_star() or 1.
    if name in OTHER_UNITS or not name.isidentifier():
        return None
    known = _columns(declared=False).get(name) or _columns(declared=True).get(name, [])
    floating = pa.types.is_floating(kind)
    fitting = [column for column, own in known if own == kind or (floating and pa.types.is_floating(own))]
    return fitting[0] if fitting and len({column.unit for column in fitting}) == 1 else None


def unit_column(name: str, columns: list[str]) -> str | None:
    """Return the column that names the unit of another; None if that has none, or its unit is in the schema."""
    if name not in _IN_UNIT:
        return None
    own = _OWN_UNIT.get(name)
    return own if own in columns else "unit" if "unit" in columns else None


def single_unit(table: pa.Table, name: str) -> str | None:
    """Return the unit of all values of a column, as a VOUnit; None if there is none, or are several.

    Examples
    --------
    >>> one = pa.table({"flux": [1.5, 2.5, None], "unit": ["mJy", "mJy", None], "mjd": [58000.0, 58001.0, 58002.0]})
    >>> single_unit(one, "flux"), single_unit(one, "mjd"), single_unit(one, "unit")
    ('mJy', 'd', None)
    """
    return _unit_at(table, table.column_names.index(name))


def _unit_at(table: pa.Table, number: int, units: dict[str, list[Any]] | None = None) -> str | None:
    """Return the unit of a column by number, since two columns of an answer may have one name.

    Parameters
    ----------
    units
        What columns of units have, by name, as far as it is known; more is added.
    """
    names, values = table.column_names, table.column(number)
    beside = unit_column(names[number], names)
    if beside is not None:
        units = {} if units is None else units
        if beside not in units:
            units[beside] = pc.unique(table.column(names.index(beside))).to_pylist()
        named = units[beside]
        if len(named) > 1:  # those of values
            named = pc.unique(table.column(names.index(beside)).filter(values.is_valid())).to_pylist()
        return named[0] if len(named) == 1 else None
    column = column_of(names[number], values.type)
    return column.unit if column is not None else None


def with_metadata(table: pa.Table) -> pa.Table:
    """Return a table whose fields say unit, ucd and description in their metadata, as far as they are known."""
    names, fields = table.column_names, list(table.schema)
    units: dict[str, list[Any]] = {}
    said = list(_known(tuple((field.name, field.type) for field in fields)))
    for number, name in enumerate(names):
        if unit_column(name, names) is not None:
            unit = _unit_at(table, number, units)
            said[number] = ({"unit": unit} if unit else {}) | _said(column_of(name, fields[number].type))
    fields = [field.with_metadata(one) if one else field for field, one in zip(fields, said, strict=True)]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields)) if fields else table


@lru_cache
def _known(fields: tuple[tuple[str, pa.DataType], ...]) -> list[dict[str, str]]:
    """Return what is known of fields by name and type alone."""
    columns = [column_of(name, kind) for name, kind in fields]
    return [({"unit": one.unit} if one is not None and one.unit else {}) | _said(one) for one in columns]


def _said(column: Column | None) -> dict[str, str]:
    """Return what a column says of itself, but for its unit."""
    said = {} if column is None else {"ucd": column.ucd, "description": column.description}
    return {key: value for key, value in said.items() if value}


def units_of(table: pa.Table) -> dict[str, str]:
    """Return the units of a table's columns that have one."""
    units = {name: single_unit(table, name) for name in table.column_names}
    return {name: unit for name, unit in units.items() if unit}
