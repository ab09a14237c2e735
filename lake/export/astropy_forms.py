"""Convert answers of a lake to astropy's QTable and TimeSeries: units, clocks, descriptions and UCDs go with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy import units as u
from astropy.coordinates import EarthLocation
from astropy.table import Column, MaskedColumn, QTable
from astropy.time import Time
from astropy.timeseries import TimeSeries
from astropy.utils.masked import Masked

from lake.errors import ConfigurationError
from lake.export.context import CLOCK_COLUMNS, Context, archives_where_exposures_are_curves
from lake.export.units import column_of, single_unit, unit_column

# The page that helps with errors from here.
HELP_TOPIC = "how-to/python"

# What is the same in all rows of a light curve, and identifies it.
_OF_A_CURVE = ("centre", "target_id", "name", "archive", "release", "source_id", "hpx29", "band")

_BLANKS = ((pa.types.is_boolean, False), (pa.types.is_integer, 0), (pa.types.is_string, ""))


def qtable(table: pa.Table, context: Context) -> QTable:
    """Convert an answer to a QTable; column `time` is added if the answer has the times of the context's clock.

    Fluxes of several units are numbers without a unit, and column unit has that of each.
    """
    columns: dict[str, Any] = {}
    clock = CLOCK_COLUMNS[context.clock]
    if has_times(table, context) and "time" not in table.column_names:
        columns["time"] = times(table, context)
    columns |= {name: _column(table, name) for name in table.column_names}
    made = QTable(columns, copy=False)
    for name in made.colnames:
        source = clock if name == "time" and name not in table.column_names else name
        if (known := column_of(source, table.schema.field(source).type)) is not None:
            made[name].info.description = known.description
            if known.ucd:
                made[name].info.meta = {"ucd": known.ucd}
    made.meta |= _meta(table, context, timed="time" in columns and "time" not in table.column_names)
    return made


def has_times(table: pa.Table, context: Context) -> bool:
    """Say whether an answer has times of the context's clock."""
    name = CLOCK_COLUMNS[context.clock]
    if name not in table.column_names or not pa.types.is_floating(table.schema.field(name).type):
        return False
    return context.clock == "barycentre" or "archive" in table.column_names


def times(table: pa.Table, context: Context) -> Time:
    """Return the times of an answer, with scale, and location where the frame has one; a missing one is masked.

    Raises
    ------
    ConfigurationError
        If the archives have several clocks, and theirs is asked for.
    """
    values = table[CLOCK_COLUMNS[context.clock]]
    archives = _distinct(table, "archive") if "archive" in table.column_names else []
    scale, frame = context.time_system(archives)
    place = EarthLocation.from_geocentric(0, 0, 0, unit=u.m) if frame == "geocentre" else None
    made = Time(values.fill_null(0.0).to_numpy(), format="mjd", scale=scale, location=place)
    if values.null_count:
        made[values.is_null().to_numpy()] = np.ma.masked
    return made


def time_series(table: pa.Table, context: Context) -> TimeSeries:
    """Convert measurements to one TimeSeries, in order of time; its columns say target, archive and band."""
    return _series(table, context, drop=())


def time_series_of_bands(table: pa.Table, context: Context) -> list[TimeSeries]:
    """Convert measurements to a TimeSeries for each light curve: of a target, source and band.

    An exposure is a light curve of its own where its archive says so: a sector of a mission. What is the same in all
    its rows is in its `meta`.
    """
    made = []
    for rows, about in curves(table):
        series = _series(rows, context, drop=tuple(about))
        series.meta |= about
        made.append(series)
    return made


def curves(table: pa.Table) -> Iterator[tuple[pa.Table, dict[str, Any]]]:
    """Split measurements into light curves; each comes with what identifies it, and its rows are in order of time.

    Raises
    ------
    ConfigurationError
        If the table has no columns that tell light curves apart.
    """
    needed = ("archive", "source_id", "band")
    if lacking := [name for name in needed if name not in table.column_names]:
        raise ConfigurationError(
            f"light curves cannot be told apart without columns {', '.join(lacking)}",
            hint="add them to the SQL, or to columns; light_curve() and cone() have them",
        )
    keys = [name for name in _OF_A_CURVE if name in table.column_names]
    by_exposure = archives_where_exposures_are_curves()
    own = pc.is_in(table["archive"], pa.array(sorted(by_exposure), pa.string()))
    if "exposure_id" in table.column_names and pc.any(own).as_py():
        exposure = pc.if_else(own, table["exposure_id"], pa.scalar(None, pa.string()))
        table = table.append_column("_exposure", exposure)
        keys.append("_exposure")
    codes = np.stack([_codes(table[name]) for name in keys])
    order = np.lexsort(codes[::-1])
    ends = np.flatnonzero((np.diff(codes[:, order], axis=1) != 0).any(axis=0)) + 1
    firsts = sorted((order[start:end].tolist() for start, end in pairwise([0, *ends.tolist(), len(order)])), key=min)
    for numbers in firsts if table.num_rows else ():
        rows = table.take(pa.array(sorted(numbers)))
        about = {name: rows[name][0].as_py() for name in keys}
        if (exposure_id := about.pop("_exposure", None)) is not None:
            about["exposure_id"] = exposure_id
        yield rows.drop_columns(["_exposure"]) if "_exposure" in rows.column_names else rows, about


def _series(table: pa.Table, context: Context, drop: Iterable[str]) -> TimeSeries:
    if not has_times(table, context):
        raise ConfigurationError(
            f"a time series needs column {CLOCK_COLUMNS[context.clock]}, and archive for an archive's own clock",
            hint="add it to the SQL, or to columns; light_curve() and cone() have it",
        )
    table = table.sort_by([(CLOCK_COLUMNS[context.clock], "ascending")])
    made = qtable(table.drop_columns([name for name in drop if name in table.column_names]), context)
    if "archive" in drop:  # what the clock follows from
        made["time"] = times(table, context)
        made.meta |= _meta(table, context, timed=True)
    time = made["time"]
    made.remove_column("time")
    series = TimeSeries(data=made, time=time)
    series["time"].info.description = time.info.description
    series.meta |= made.meta
    return series


def _codes(values: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Give the distinct values of a column numbers, in order of their first row; NULL is -1."""
    indices = values.combine_chunks().dictionary_encode().indices
    return np.asarray(indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)


def _distinct(table: pa.Table, name: str) -> list[str]:
    return [value for value in pc.unique(table[name]).to_pylist() if value is not None]


def _column(table: pa.Table, name: str) -> Any:
    values = table[name]
    mask = values.is_null().to_numpy()
    if pa.types.is_timestamp(values.type):
        data = values.cast(pa.timestamp("us")).to_numpy()
    elif values.null_count and not pa.types.is_floating(values.type):
        blank = next((blank for fits, blank in _BLANKS if fits(values.type)), None)
        data = (values if blank is None else values.fill_null(blank)).to_numpy()
    elif pa.types.is_floating(values.type):
        data = values.fill_null(np.nan).to_numpy()
    else:
        data = values.to_numpy()
    if pa.types.is_string(values.type):
        data = data.astype(str)
    unit = parsed(single_unit(table, name)) if data.dtype.kind in "fiu" else None
    if unit is not None:
        return Masked(u.Quantity(data, unit), mask=mask) if mask.any() else u.Quantity(data, unit)
    return MaskedColumn(data, name=name, mask=mask) if mask.any() else Column(data, name=name)


def parsed(unit: str | None) -> u.UnitBase | None:
    """Return a unit of the lake as astropy's; None if there is none, or astropy does not know it.

    Examples
    --------
    >>> parsed("erg.cm**-2.s**-1"), parsed("mJy"), parsed(None)
    (Unit("erg / (s cm2)"), Unit("mJy"), None)
    """
    if unit is None:
        return None
    try:
        return u.Unit(unit)
    except ValueError:
        return None


def _meta(table: pa.Table, context: Context, *, timed: bool) -> dict[str, Any]:
    """Return what goes with a table: clocks, archives and bands, in plain values."""
    meta: dict[str, Any] = {}
    archives = _distinct(table, "archive") if "archive" in table.column_names else []
    if timed:
        meta["time_scale"], meta["time_frame"] = context.time_system(archives)
    known = [context.archives[name] for name in archives if name in context.archives]
    if known:
        names = ("title", "release", "time_scale", "time_frame", "bibcode", "licence", "acknowledgement")
        meta["archives"] = {row["archive"]: {name: row[name] for name in names} for row in known}
    if archives and "band" in table.column_names:
        wanted = table.select(["archive", "band"]).group_by(["archive", "band"]).aggregate([]).to_pylist()
        pairs = [(row["archive"], row["band"]) for row in wanted]
        bands = [context.bands[pair] for pair in pairs if pair in context.bands]
        if bands:
            meta["bands"] = [{name: value for name, value in row.items() if value is not None} for row in bands]
    return meta


def units_beside(table: pa.Table) -> list[str]:
    """Return the columns whose unit is not the same in all rows, and is in a column beside them."""
    names = table.column_names
    return [name for name in names if unit_column(name, names) and parsed(single_unit(table, name)) is None]
