"""Convert measurements to rows of view fornax, by the SQL of that view."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import ConfigurationError
from lake.model.declared import declarations
from lake.model.table import quoted
from lake.model.views import fornax_select

# The collector has energies as logarithms.
_SHOWN_UNITS = {"GeV": "log(GeV)"}


def fornax_rows(rows: pa.Table, ask: Callable[..., pa.Table]) -> pa.Table:
    """Return what view fornax has of some measurements of targets, with the unit of each flux.

    Parameters
    ----------
    rows
        With target_id; registered as `curve_rows` for the SQL.
    ask
        Runs SQL in the lake, with tables by name.

    Raises
    ------
    ConfigurationError
        If the rows are not of targets.
    """
    if "target_id" not in rows.column_names:
        raise ConfigurationError(
            "the form of the Fornax collector is of targets", hint="use light_curve(targets, form='fornax')"
        )
    parts = []
    for unit in pc.unique(rows["unit"]).to_pylist() or [None]:
        of_unit = (
            f"(SELECT * FROM curve_rows WHERE unit IS NOT DISTINCT FROM {'NULL' if unit is None else quoted(unit)})"
        )
        shown = "NULL::VARCHAR" if unit is None else quoted(_SHOWN_UNITS.get(unit, unit))
        selected = fornax_select(declarations(), of_unit)
        parts.append(f"SELECT objectid, label, band, time, flux, err, {shown} AS unit FROM ({selected})")
    return ask(" UNION ALL ".join(parts), None, curve_rows=rows)
