"""Convert light curves to the forms of other software."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from lake.errors import ConfigurationError
from lake.model.schema import TABLES

if TYPE_CHECKING:
    import pandas as pd

Form = Literal["arrow", "pandas", "astropy"]

_UNITS = {column.name: column.unit for table in TABLES.values() for column in table.columns if column.unit}


def convert(table: pa.Table, form: Form) -> Any:
    """Convert an Arrow table to a pandas DataFrame or an astropy Table (masked, with units), or leave it as Arrow.

    Raises
    ------
    ConfigurationError
        If the form is unknown.

    Examples
    --------
    >>> table = pa.table({"mjd": [58000.0, 58001.0], "flux": [1.5, None]})
    >>> convert(table, "astropy")["mjd"].unit
    Unit("d")
    """
    if form == "arrow":
        return table
    if form == "pandas":
        return table.to_pandas()
    if form == "astropy":
        return _astropy(table)
    raise ConfigurationError(f"cannot convert a table to {form!r}", hint="use arrow, pandas or astropy")


def _astropy(table: pa.Table) -> Any:
    from astropy.table import MaskedColumn, Table

    columns = []
    for name, values in zip(table.column_names, table.columns, strict=True):
        mask = values.is_null().to_numpy()
        if pa.types.is_timestamp(values.type):
            data = values.cast(pa.timestamp("us")).to_numpy()
        elif values.null_count and not pa.types.is_floating(values.type):
            blank = False if pa.types.is_boolean(values.type) else 0 if pa.types.is_integer(values.type) else ""
            data = values.fill_null(blank).to_numpy()
        else:
            data = values.to_numpy()
        if pa.types.is_string(values.type):
            data = data.astype(str)
        columns.append(MaskedColumn(data, name=name, mask=mask, unit=_UNITS.get(name)))
    return Table(columns, masked=True)


def fornax_multiindex(rows: pa.Table) -> pd.DataFrame:
    """Convert rows of view fornax to the collector's form: four index levels, columns flux and err."""
    frame: pd.DataFrame = rows.to_pandas()
    return frame.set_index(["objectid", "label", "band", "time"]).sort_index()[["flux", "err"]]
