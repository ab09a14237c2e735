"""Show a lake and its answers in notebooks: tables with units, and a small figure of light curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.export.units import single_unit
from lake.text import counted, one_line

# A table shows so many rows from its beginning, and as many from its end.
_ROWS = 10
_COLUMNS = 40
_TEXT = 80

# Of the figure: pixels, marks at most, and bands that the legend names.
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 560, 200, 64, 34, 8
_MARKS, _LEGEND = 1500, 8
# Colours that people with any colour vision can tell apart: Okabe and Ito 2008, Color Universal Design.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a400")


def table_html(table: pa.Table) -> str:
    """Return a table as HTML: units below the names, first and last rows, and a figure if it has light curves.

    Examples
    --------
    >>> made = table_html(pa.table({"mjd": [58000.0], "name": ["<b>"]}))
    >>> "<th>mjd</th>" in made, "<th>d</th>" in made, "&lt;b&gt;" in made
    (True, True, True)
    """
    n = table.num_rows
    names = table.column_names[:_COLUMNS]
    units = [single_unit(table, name) or "" for name in names]
    shown = table.select(names)
    if n > 2 * _ROWS:
        rows = [*shown.slice(0, _ROWS).to_pylist(), None, *shown.slice(n - _ROWS).to_pylist()]
    else:
        rows = shown.to_pylist()
    left_out = table.num_columns - len(names)
    size = f"{counted(n, 'row')}, {counted(table.num_columns, 'column')}"
    if left_out:
        size += f", the last {left_out} are not shown"
    return "".join(
        (
            "<div>",
            figure_svg(table),
            "<table><thead>",
            _row("th", names),
            _row("th", units) if any(units) else "",
            "</thead><tbody>",
            *(_row("td", ["..."] * len(names) if row is None else list(row.values())) for row in rows),
            f"</tbody></table><p>{escape(size)}</p></div>",
        )
    )


def _row(tag: str, cells: Sequence[Any]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_cell(cell)}</{tag}>' for cell in cells)}</tr>"


def _cell(value: Any) -> str:
    """Return a value as text that means nothing to a browser."""
    if value is None:
        return "&ndash;"
    if isinstance(value, float):
        return escape(f"{value:.10g}")
    if isinstance(value, datetime):
        return escape(f"{value:%Y-%m-%d %H:%M:%S}")
    text = one_line(str(value))
    return escape(text if len(text) <= _TEXT else f"{text[: _TEXT - 3]}...")


def figure_svg(table: pa.Table) -> str:
    """Return a small figure of the fluxes in a table against time, by band; an empty text if it has none.

    Only the unit with most measurements is drawn.
    """
    names = table.column_names
    time = next((name for name in ("bmjd_tdb", "mjd") if name in names), None)
    if time is None or not {"flux", "band"} <= set(names) or table.num_rows == 0:
        return ""
    if not all(pa.types.is_floating(table.schema.field(name).type) for name in (time, "flux")):
        return ""
    table = table.filter(pc.and_(pc.is_finite(table[time]), pc.is_finite(table["flux"])))
    unit = None
    if "unit" in names and table.num_rows:
        counts = sorted(pc.value_counts(table["unit"]).to_pylist(), key=lambda one: -one["counts"])
        unit = counts[0]["values"]
        same = pc.is_null(table["unit"]) if unit is None else pc.equal(table["unit"], unit)
        table = table.filter(same)
    if table.num_rows == 0:
        return ""
    table = table.take(np.unique(np.linspace(0, table.num_rows - 1, min(table.num_rows, _MARKS)).astype(int)))
    return _drawn(table[time].to_numpy(), table["flux"].to_numpy().astype(float), table["band"].to_pylist(), time, unit)


def _drawn(time: Any, flux: Any, band: list[Any], time_name: str, unit: str | None) -> str:
    x, (first, last) = _scaled(time, _LEFT, _WIDTH - 8)
    y, (low, high) = _scaled(flux, _HEIGHT - _BOTTOM, _TOP)
    bands = list(dict.fromkeys(map(str, band)))
    colour = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(bands)}
    marks = "".join(
        f'<circle cx="{px:.1f}" cy="{py:.1f}" r="1.8" fill="{colour[str(name)]}"/>'
        for px, py, name in zip(x, y, band, strict=True)
    )
    legend = "".join(f'<tspan fill="{colour[name]}" dx="8">&#9679; {_cell(name)}</tspan>' for name in bands[:_LEGEND])
    if len(bands) > _LEGEND:
        legend += f'<tspan dx="8">and {len(bands) - _LEGEND} more</tspan>'
    base = _HEIGHT - _BOTTOM
    label = f"flux{'' if unit is None else f' ({_cell(unit)})'}" if unit != "" else "flux, relative"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT + 18}" font-size="11" '
        f'font-family="sans-serif" role="img" aria-label="light curves"><rect width="100%" height="100%" fill="#fff"/>'
        f'<path d="M{_LEFT} {_TOP}V{base}H{_WIDTH - 8}" fill="none" stroke="#888"/>{marks}'
        f'<g fill="#333"><text x="{_LEFT - 4}" y="{base}" text-anchor="end">{low:.4g}</text>'
        f'<text x="{_LEFT - 4}" y="{_TOP + 10}" text-anchor="end">{high:.4g}</text>'
        f'<text x="12" y="{(_TOP + base) / 2}" transform="rotate(-90 12 {(_TOP + base) / 2})" text-anchor="middle">'
        f'{label}</text><text x="{_LEFT}" y="{base + 14}">{first:.2f}</text>'
        f'<text x="{_WIDTH - 8}" y="{base + 14}" text-anchor="end">{last:.2f}</text>'
        f'<text x="{(_LEFT + _WIDTH) / 2}" y="{base + 14}" text-anchor="middle">{time_name} (d)</text>'
        f'<text x="{_LEFT - 8}" y="{_HEIGHT + 10}">{legend}</text></g></svg>'
    )


def _scaled(values: Any, start: float, end: float) -> tuple[Any, tuple[float, float]]:
    """Return where values are on an axis, and the values at its ends."""
    low, high = float(values.min()), float(values.max())
    span = high - low
    place = (values - low) / span if span > 0 else np.full(len(values), 0.5)
    return start + place * (end - start), (low, high)


_HELD = """
SELECT archive, any_value(archives.title) AS title, count(*) FILTER (status = 'found') AS found,
    count(*) FILTER (status = 'empty') AS empty, count(*) FILTER (status IN ('failed', 'rejected')) AS missing,
    sum(n_rows)::BIGINT AS measurements
FROM coverage LEFT JOIN archives USING (archive) GROUP BY archive ORDER BY archive
"""
_SAMPLES = "SELECT sample, count(DISTINCT target_id) AS targets FROM labels GROUP BY sample ORDER BY sample"


def lake_html(where: str, ask: Callable[[str], pa.Table]) -> str:
    """Return what a lake holds as HTML: targets by sample, and what each archive answered.

    Parameters
    ----------
    where
        Its address.
    ask
        Runs SQL in it.
    """
    (targets,) = ask("SELECT count(*) AS n FROM targets")["n"].to_pylist()
    samples = ask(_SAMPLES).to_pylist()
    named = ", ".join(f"{row['sample']} ({row['targets']})" for row in samples[:_ROWS])
    more = f" and {len(samples) - _ROWS} more" if len(samples) > _ROWS else ""
    text = f"{counted(targets, 'target')}{f' in samples {named}{more}' if samples else ''}"
    held = ask(_HELD)
    return (
        f"<div><p><b>Lake</b> {escape(one_line(where))}<br/>{escape(one_line(text))}</p><table><thead>"
        f"{_row('th', ['archive', 'title', 'found', 'empty', 'failed or rejected', 'measurements'])}</thead><tbody>"
        f"{''.join(_row('td', list(row.values())) for row in held.to_pylist())}</tbody></table></div>"
    )
