"""Convert light curves and other answers to the forms of other software."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import ConfigurationError
from lake.export.context import Context
from lake.export.units import units_of, with_metadata

if TYPE_CHECKING:
    import pandas as pd

# The page that helps with errors from here.
HELP_TOPIC = "how-to/python"

Form = Literal["arrow", "pandas", "polars", "astropy", "timeseries", "timeseries_bands", "lightkurve", "fornax"]

# Forms that go through one curve at a time, and say whose it is.
FORMS_OF_CURVES = ("timeseries", "timeseries_bands", "lightkurve", "fornax")

FORNAX_INDEX = ["objectid", "label", "band", "time"]
# The unit of the collector's fluxes.
_FORNAX_UNIT = "mJy"


def convert(table: pa.Table, form: Form, context: Context | None = None) -> Any:
    """Convert an Arrow table to the form of other software.

    Parameters
    ----------
    table
        An answer of the lake.
    form
        arrow: a pyarrow Table, with unit, ucd and description in the metadata of its fields.
        pandas: a DataFrame; its `attrs` have the units.
        polars: a DataFrame.
        astropy: a QTable with units, descriptions and UCDs, and with a Time column if it has times.
        timeseries: one astropy TimeSeries with columns that say the band.
        timeseries_bands: a list of TimeSeries, one for each light curve.
        lightkurve: a LightCurveCollection, one light curve of a class of lightkurve for each.
        fornax: the DataFrame of the Fornax light-curve collector, for rows of view fornax.
    context
        What the lake knows of archives and bands.

    Raises
    ------
    ConfigurationError
        If the form is unknown, its library is not installed, or the table lacks what it needs.

    Examples
    --------
    >>> table = pa.table({"mjd": [58000.0, 58001.0], "flux": [1.5, None]})
    >>> convert(table, "astropy")["mjd"].unit
    Unit("d")
    """
    if form not in _CONVERTERS:
        raise ConfigurationError(
            f"cannot convert a table to {form!r}", hint=f"use {', '.join(get_args(Form)[:-1])} or {get_args(Form)[-1]}"
        )
    twice = [name for name, times in Counter(table.column_names).items() if times > 1]
    if twice and form not in ("arrow", "pandas"):
        raise ConfigurationError(
            f"{form} takes one column of a name, and not {' and '.join(twice)} twice",
            hint="rename one in the query: SELECT ... AS name",
        )
    return _CONVERTERS[form](table, context or Context())


def _arrow(table: pa.Table, context: Context) -> pa.Table:
    return with_metadata(table)


def _pandas(table: pa.Table, context: Context) -> pd.DataFrame:
    import pandas as pd

    frame: pd.DataFrame = table.to_pandas()
    for number, values in enumerate(table.columns):
        if values.null_count and pa.types.is_integer(values.type):
            # As float64, ids and flags beyond 2^53 would be others.
            frame.isetitem(number, pd.array(values.to_pylist(), dtype="Int64"))
    frame.attrs["units"] = units_of(table)
    return frame


def _polars(table: pa.Table, context: Context) -> Any:
    try:
        import polars
    except ImportError:
        raise ConfigurationError("polars is not installed", hint="run: pip install polars") from None
    return polars.from_arrow(table)


def _astropy(table: pa.Table, context: Context) -> Any:
    from lake.export.astropy_forms import qtable

    return qtable(table, context)


def _timeseries(table: pa.Table, context: Context) -> Any:
    from lake.export.astropy_forms import time_series

    return time_series(table, context)


def _timeseries_bands(table: pa.Table, context: Context) -> Any:
    from lake.export.astropy_forms import time_series_of_bands

    return time_series_of_bands(table, context)


def _lightkurve(table: pa.Table, context: Context) -> Any:
    from lake.export.lightkurve_form import collection

    return collection(table, context)


def _fornax(table: pa.Table, context: Context) -> Any:
    return fornax_multiindex(table)


_CONVERTERS: dict[str, Callable[[pa.Table, Context], Any]] = {
    "arrow": _arrow,
    "pandas": _pandas,
    "polars": _polars,
    "astropy": _astropy,
    "timeseries": _timeseries,
    "timeseries_bands": _timeseries_bands,
    "lightkurve": _lightkurve,
    "fornax": _fornax,
}


def fornax_multiindex(rows: pa.Table) -> pd.DataFrame:
    """Convert rows of view fornax to the collector's form: four index levels, columns flux and err.

    Where the rows have units, and one of them is not the collector's mJy, column unit stays beside these.

    Raises
    ------
    ConfigurationError
        If the rows are not of that view.
    """
    needed = [*FORNAX_INDEX, "flux", "err"]
    if lacking := [name for name in needed if name not in rows.column_names]:
        raise ConfigurationError(
            f"the form of the Fornax collector needs columns {', '.join(lacking)}",
            hint="ask view fornax, or use light_curve(targets, form='fornax')",
        )
    values = ["flux", "err"]
    if "unit" in rows.column_names and pc.unique(rows["unit"]).to_pylist() not in ([], [_FORNAX_UNIT]):
        values.append("unit")
    frame: pd.DataFrame = rows.to_pandas()
    return frame.set_index(FORNAX_INDEX).sort_index()[values]
