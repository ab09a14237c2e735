"""Convert measurements to rows of view fornax, by the SQL of that view."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from lake.errors import ConfigurationError
from lake.model import fornax
from lake.model.declared import declarations

# The page that helps with errors from here.
HELP_TOPIC = "how-to/from-fornax"


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
    return ask(fornax.fornax_rows(declarations(), rows="curve_rows"), None, curve_rows=rows)
