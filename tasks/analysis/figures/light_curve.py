"""The figure of a target: all bands against time, a zoom on the densest survey, a panel for each unit."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lake.text import one_line
from tasks.analysis.figures.bands import Style
from tasks.analysis.figures.points import (
    ENERGY,
    EVENTS,
    FLUX,
    LIMIT,
    LIMIT_SIGMA,
    RELATIVE,
    UNSEEN,
    Look,
    Points,
    running_mean,
)

WIDTH, HEIGHT, ZOOM_HEIGHT, SMALL_HEIGHT = 860, 300, 150, 110

# Fewer measurements of a survey are not looked at closely.
_FEWEST_ZOOMED = 20

# More points than this in a panel are drawn small, so that they do not hide each other.
_FEW_POINTS = 600

# Dates at the ticks of an axis in MJD, which counts days from 1858-11-17; the Unix epoch is MJD 40587. Ticks within a
# day have their time, too, to a second where they are not at whole minutes.
_DATE = (
    "utcFormat(round((datum.value - 40587) * 86400000), datum.value % 1 === 0 ? '%Y-%m-%d' : "
    "abs(datum.value * 1440 - round(datum.value * 1440)) < 1e-3 ? '%Y-%m-%d %H:%M' : '%Y-%m-%d %H:%M:%S')"
)

# Zooming by the wheel alone would hold up a reader who scrolls.
_ZOOM = "wheel![event.shiftKey]"

_NOT_A_WORD = re.compile(r"\W")

# Rates have their exposures below them in place of a zoom: they are sums of short bins, thousands in a day.
_RATE = "count.s**-1"

_UNITS = {
    "electron.s**-1": "e⁻/s",
    _RATE: "counts/s",
    "erg.s**-1.cm**-2": "erg s⁻¹ cm⁻²",
    "erg.cm**-2.s**-1": "erg s⁻¹ cm⁻²",
}


@dataclass(frozen=True)
class About:
    """Words of a figure.

    Parameters
    ----------
    title
        The target's name.
    subtitle
        Its position and labels.
    sources
        A line for each archive that is drawn: title, release, paper.
    cite
        What a paper must say: see `lightlake cite`.
    """

    title: str
    subtitle: str = ""
    sources: tuple[str, ...] = ()
    cite: tuple[str, ...] = ()


def light_curve(made: Points, about: About, look: Look, styles: Mapping[tuple[str, str], Style]) -> dict[str, Any]:
    """Draw the light curves of a target.

    Parameters
    ----------
    made
        What is drawn.
    about
        Title, subtitle, and what the caption cites.
    look
        How it is drawn.
    styles
        Of all bands that are drawn, by archive and band.

    Returns
    -------
    dict
        A Vega-Lite specification. Its panels are called by what they show: `panel_mJy`, `zoom_ztf`; each has a
        dataset of that name. The caption is in `usermeta`, so that pages may set it in their own type.
    """
    legend = _legend(made.frame, styles)
    events = made.frame[made.frame.kind == "event"]
    ends = _ends(made.frame, look)
    data = {"events": events.assign(series=events.band)}
    panels: list[Any] = []
    for name in made.panels or [FLUX]:
        rows = made.frame[made.frame.panel == name].copy()
        data[_named("panel", name)] = rows
        if not panels:
            panels.append(
                _under_dates(_panel(name, rows, look, legend, ends, HEIGHT, has_events=len(events) > 0), ends, look)
            )
            if look.fold is None and name != _RATE and (zoomed := _densest(rows)):
                rows["zoomed"] = ((rows.archive == zoomed) & rows.kind.isin(("point", "bad"))).astype(float)
                part = rows[rows.zoomed == 1]
                data[_named("mean", zoomed)] = _means(part, look)
                panels.append(_zoom(zoomed, name, part, look, legend))
        else:
            panels.append(_panel(name, rows, look, legend, ends, SMALL_HEIGHT))
        if name == _RATE and rows.exposure_s.notna().any():
            panels.append(_exposures(name, legend, ends, look))
    subtitle = [one_line(about.subtitle)] if about.subtitle else []
    spec = alt.vconcat(*panels, spacing=14).to_dict(validate=False)
    # Altair would copy and check all that is drawn many times: for each of these, and the data with it.
    spec["resolve"] = {"scale": {"color": "shared", "shape": "shared"}}
    spec["title"] = {
        "text": one_line(about.title),
        "subtitle": subtitle,
        "anchor": "start",
        "fontSize": 17,
        "subtitleFontSize": 12,
    }
    spec["usermeta"] = {"caption": caption(made, about, look), "cite": list(about.cite)}
    spec["config"] = {
        "view": {**spec["config"]["view"], "stroke": "#999999"},
        "axis": {"gridColor": "#e4e4e4", "labelOverlap": True, "titleFontWeight": "normal"},
        "legend": {"orient": "bottom", "columns": 5, "symbolOpacity": 1, "labelLimit": 220, "title": None},
    }
    spec["datasets"] = {name: _records(rows) for name, rows in data.items() if len(rows)}
    return spec


def caption(made: Points, about: About, look: Look) -> list[str]:
    """Return the sentences below a figure: what is drawn, what is not and why, and where it is from."""
    if not made.total:
        return ["No measurements.", *about.sources]
    lines = [f"{made.total:,} {'measurement' if made.total == 1 else 'measurements'}. Drawn: {_counts(made.drawn)}."]
    if made.left_out:
        lines.append(f"Not drawn: {_counts(made.left_out)}.")
    if made.drawn[LIMIT]:
        lines.append(f"Arrows: limits, {LIMIT_SIGMA:g} standard deviations {_above(look)} what was measured.")
    if made.drawn[UNSEEN]:
        lines.append("Ticks at the edge: not detected, and the archive gives no limit.")
    if made.drawn[EVENTS]:
        lines.append("Vertical lines: events of Fermi, BeppoSAX or the like, at a position that fits the target's.")
    if made.factors:
        what = ", ".join(f"{band} × {factor:.3g}" for band, factor in made.factors.items())
        lines.append(f"Scaled to the median of the fluxes in mJy: {what}.")
    return [*lines, *about.sources]


def _counts(counts: Counter[str]) -> str:
    return "; ".join(f"{n:,} {what}" for what, n in counts.most_common()) or "none"


def with_caption(spec: Mapping[str, Any], width: int = WIDTH) -> dict[str, Any]:
    """Return a figure with its caption below it, for files that are no pages."""
    lines = [
        part
        for sentence in spec["usermeta"]["caption"]
        for part in textwrap.wrap(one_line(sentence), width=int(width / 5.6)) or [""]
    ]
    text = (
        alt.Chart(alt.InlineData(values=[{"text": lines}]))
        .mark_text(align="left", baseline="top", fontSize=11, lineHeight=15, color="#555555", x=0, y=0)
        .encode(text="text:N")
        .properties(width=width, height=15 * len(lines), name="caption", view=alt.ViewConfig(stroke=None))
    ).to_dict()
    below = {key: text[key] for key in ("data", "mark", "encoding", "width", "height", "name", "view")}
    return {**spec, "vconcat": [*spec["vconcat"], {**below, "data": {"values": [{"text": lines}]}}]}


def _above(look: Look) -> str:
    return "below" if look.axis == "magnitude" else "above"


def _legend(frame: pd.DataFrame, styles: Mapping[tuple[str, str], Style]) -> dict[str, Any]:
    """Return scales of colour and shape for all series, in the order of their wavelengths."""
    shown = frame[~frame.kind.isin(("event",))]
    counts = shown.groupby(["archive", "band", "series"]).size()
    order = sorted(counts.index, key=lambda one: (styles[one[:2]].wavelength_nm or np.inf, one))
    names = list(dict.fromkeys(series for _, _, series in order))
    first = {series: (archive, band) for archive, band, series in reversed(order)}
    return {
        "color": alt.Color(
            "series:N",
            scale=alt.Scale(domain=names, range=[styles[first[name]].colour for name in names]),
            legend=alt.Legend(title=None) if names else None,  # an empty one has no size
        ),
        "shape": alt.Shape(
            "series:N", scale=alt.Scale(domain=names, range=[styles[first[name]].shape for name in names])
        ),
    }


def _ends(frame: pd.DataFrame, look: Look) -> list[float]:
    if look.fold is not None:
        return [-0.5, 0.5]
    if not len(frame):
        return [51544.0, 60310.0]
    first, last = float(frame.x.min()), float(frame.x.max())
    margin = 0.02 * (last - first) or 0.02
    return [first - margin, last + margin]


def _x(ends: Sequence[float], look: Look, *, dates: bool = False) -> Any:
    if look.fold is not None:
        title = f"Phase: {look.fold.period_d:.10g} d from MJD {look.fold.epoch_mjd:.10g} (TDB)"
        return alt.X("x:Q", title=title, scale=alt.Scale(domain=list(ends), nice=False))
    axis = (
        alt.Axis(orient="top", labelExpr=_DATE, title=None, grid=False, tickCount=6)
        if dates
        else alt.Axis(format="f", tickCount=8, title="MJD")  # f has as many decimals as its ticks need
    )
    return alt.X("x:Q", axis=axis, scale=alt.Scale(domain=list(ends), nice=False, zero=False))


def _named(kind: str, name: str) -> str:
    """Return a name that Vega takes."""
    return f"{kind}_{_NOT_A_WORD.sub('_', name)}"


def _title(name: str, look: Look) -> str:
    if name == ENERGY:
        return "Energy (GeV)"
    if name == RELATIVE or look.axis == "magnitude":
        return f"Flux {name}" if name == RELATIVE else name
    return f"{'Rate' if name == _RATE else 'Flux'} ({_UNITS.get(name, name)})"


def _y(name: str, look: Look, drawn: pd.DataFrame) -> Any:
    title = _title(name, look)
    if name == ENERGY:
        return alt.Y("y:Q", title=title, axis=_powers(drawn.y), scale=alt.Scale(type="log", padding=8))
    if look.axis == "magnitude":
        return alt.Y("y:Q", title=title, scale=alt.Scale(zero=False, reverse=True, padding=8))
    if look.scale == "symlog":
        known = drawn.y.abs()
        constant = float(known.median()) if len(known) and known.median() > 0 else 1.0
        scale = alt.Scale(type="symlog", constant=constant, padding=8)
    else:
        scale = alt.Scale(type=look.scale, zero=False, padding=8)
    return alt.Y("y:Q", title=title, scale=scale)


def _powers(values: pd.Series) -> alt.Axis:
    """Return an axis with ticks at powers of ten, at each or at every other if there are many."""
    known = values[values > 0]
    if not len(known):
        return alt.Axis()
    first, last = int(np.floor(np.log10(known.min()))), int(np.ceil(np.log10(known.max())))
    return alt.Axis(values=[10.0**n for n in range(first, last + 1, 1 + (last - first) // 5)], format=",d")


def _panel(
    name: str,
    rows: pd.DataFrame,
    look: Look,
    legend: Mapping[str, Any],
    ends: Sequence[float],
    height: int,
    *,
    has_events: bool = False,
) -> Any:
    """Draw one panel: error bars, points, limits, and marks at its edges."""
    chart = alt.Chart(alt.NamedData(_named("panel", name)))
    x = _x(ends, look)
    layers = [*_marks(chart, name, rows, look, legend, x), *_at_edges(chart, rows, x, legend["color"], height)]
    if has_events:
        layers.append(_lines(x, height))
    move = alt.selection_interval(_named("axis_of", name), bind="scales", encodings=["x"], zoom=_ZOOM)
    return alt.layer(*layers).properties(width=WIDTH, height=height, name=_named("panel", name)).add_params(move)


def _marks(chart: Any, name: str, rows: pd.DataFrame, look: Look, legend: Mapping[str, Any], x: Any) -> list[Any]:
    """Draw what has a place on the axis."""
    drawn = rows[rows.kind.isin(("point", "bad", "limit"))]
    y, colour = _y(name, look, drawn), legend["color"]
    points = chart.transform_filter("datum.kind === 'point' || datum.kind === 'bad'")
    bars = points.transform_filter(f"datum.err > 0{' && datum.err < datum.y' if look.scale == 'log' else ''}")
    layers = []
    if (drawn.err > 0).any():
        layers.append(
            bars.transform_calculate(low="datum.y - datum.err", high="datum.y + datum.err")
            .mark_rule(opacity=0.45, clip=True)
            .encode(x=x, y=alt.Y("low:Q", title=_title(name, look)), y2="high:Q", color=colour)
        )
    layers.append(
        points.mark_point(filled=True, size=34 if len(drawn) <= _FEW_POINTS else 14, opacity=0.9, clip=True).encode(
            x=x,
            y=y,
            color=colour,
            shape=legend["shape"],
            fillOpacity=alt.condition("datum.kind === 'bad'", alt.value(0), alt.value(0.85)),
            tooltip=[
                alt.Tooltip("series:N", title="band"),
                alt.Tooltip("mjd:Q", title="MJD", format=".5f"),
                alt.Tooltip("y:Q", title=_title(name, look), format=".5g"),
                alt.Tooltip("err:Q", title="error", format=".2g"),
            ],
        )
    )
    if (rows.kind == "limit").any():
        limits = chart.transform_filter("datum.kind === 'limit'")
        angle = 180 if look.axis != "magnitude" else 0
        layers.append(limits.mark_point(shape="arrow", angle=angle, size=120, clip=True).encode(x=x, y=y, color=colour))
    return layers


def _under_dates(panel: Any, ends: Sequence[float], look: Look) -> Any:
    """Put an axis of dates above a panel; it moves with the panel's own."""
    if look.fold is not None:
        return panel
    axis = (
        alt.Chart(alt.InlineData(values=[{"x": float(ends[0])}]))
        .mark_point(opacity=0)
        .encode(x=_x(ends, look, dates=True))
        .properties(width=WIDTH, height=1, name="dates", view=alt.ViewConfig(stroke=None))
    )
    return alt.vconcat(axis, panel, spacing=0).resolve_scale(x="shared")


def _at_edges(chart: Any, rows: pd.DataFrame, x: Any, colour: Any, height: int) -> list[Any]:
    """Draw what has a time and no place on the axis: not detected, at the bottom; clipped, at the edge it is beyond."""
    found = []
    for kind, shape, at in (
        ("unseen", "stroke", height - 4),
        ("above", "triangle-up", 5),
        ("below", "triangle-down", height - 5),
    ):
        if (rows.kind == kind).any():
            marks = chart.transform_filter(f"datum.kind === '{kind}'").mark_point(
                shape=shape, angle=90 if kind == "unseen" else 0, size=40, filled=kind != "unseen", opacity=0.7
            )
            tooltip = [alt.Tooltip("series:N", title="band"), alt.Tooltip("mjd:Q", title="MJD", format=".5f")]
            found.append(marks.encode(x=x, y=alt.value(at), color=colour, tooltip=tooltip))
    return found


def _lines(x: Any, height: int) -> Any:
    """Draw events as vertical lines over the whole height."""
    tooltip = [alt.Tooltip("series:N", title="event"), alt.Tooltip("mjd:Q", title="MJD", format=".5f")]
    lines = alt.Chart(alt.NamedData("events")).mark_rule(strokeDash=[5, 3], color="#777777", opacity=0.9)
    return lines.encode(x=x, y=alt.value(0), y2=alt.value(height), tooltip=tooltip)


def _densest(rows: pd.DataFrame) -> str | None:
    """Return the archive with most points, if it has enough of them."""
    counts = rows[rows.kind == "point"].archive.value_counts()
    if not len(counts) or counts.iloc[0] < _FEWEST_ZOOMED:
        return None
    return str(counts.index[0])


def _means(points: pd.DataFrame, look: Look) -> pd.DataFrame:
    """Return the running means of an archive's bands."""
    curves = []
    for series, one in points[points.kind == "point"].sort_values("x").groupby("series"):
        times, mean = running_mean(one.x.to_numpy(), one.y.to_numpy(), one.err.to_numpy(), look.mean_width_d)
        curves.append(pd.DataFrame({"kind": "mean", "series": series, "x": times, "y": mean}))
    return pd.concat(curves)


def _zoom(archive: str, panel: str, points: pd.DataFrame, look: Look, legend: Mapping[str, Any]) -> Any:
    """Draw one archive by itself, with a running mean of each of its bands."""
    ends = _ends(points, look)
    x = _x(ends, look)
    # By a number: names in an expression may be no valid JavaScript.
    chart = alt.Chart(alt.NamedData(_named("panel", panel))).transform_filter("datum.zoomed === 1")
    means = alt.Chart(alt.NamedData(_named("mean", archive))).mark_line(strokeWidth=2, opacity=0.9, clip=True)
    lines = means.encode(x=x, y=alt.Y("y:Q", title=_title(panel, look)), color=legend["color"])
    title = f"{archive} alone; lines: mean over {look.mean_width_d:g} d, weighted by 1/error²"
    move = alt.selection_interval(_named("zoom_of", archive), bind="scales", encodings=["x"], zoom=_ZOOM)
    return (
        alt.layer(*_marks(chart, panel, points, look, legend, x), lines)
        .properties(
            width=WIDTH,
            height=ZOOM_HEIGHT,
            name=_named("zoom", archive),
            title=alt.TitleParams(title, anchor="start", fontSize=12, fontWeight="normal"),
        )
        .add_params(move)
    )


def _exposures(panel: str, legend: Mapping[str, Any], ends: Sequence[float], look: Look) -> Any:
    """Draw exposure times below count rates."""
    y = alt.Y("exposure_s:Q", title="Exposure (s)", axis=alt.Axis(tickCount=4), scale=alt.Scale(zero=True, padding=8))
    tooltip = [
        alt.Tooltip("series:N", title="band"),
        alt.Tooltip("mjd:Q", title="MJD", format=".5f"),
        alt.Tooltip("exposure_s:Q", title="exposure (s)", format=".5g"),
    ]
    return (
        alt.Chart(alt.NamedData(_named("panel", panel)))
        .mark_point(filled=True, size=14, opacity=0.9, clip=True)
        .encode(x=_x(ends, look), y=y, color=legend["color"], shape=legend["shape"], tooltip=tooltip)
        .properties(width=WIDTH, height=80, name="exposures")
        .add_params(alt.selection_interval("axis_of_exposures", bind="scales", encodings=["x"], zoom=_ZOOM))
    )


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the values that a browser needs, with the digits that a figure can show."""
    columns: dict[str, list[Any]] = {"kind": rows["kind"].tolist(), "series": rows["series"].tolist()}
    for name, digits in (("y", 6), ("err", 3), ("exposure_s", 5)):
        if name in rows and rows[name].notna().any():
            columns[name] = _rounded(rows[name].to_numpy(float), digits).tolist()
    if "zoomed" in rows:
        columns["zoomed"] = rows["zoomed"].astype(int).tolist()
    for name in ("x", "mjd"):
        if name in rows:
            columns[name] = rows[name].round(6).tolist()
    names = list(columns)
    return [
        {name: None if value != value else value for name, value in zip(names, values, strict=True)}
        for values in zip(*columns.values(), strict=True)
    ]


def _rounded(values: np.ndarray, digits: int) -> np.ndarray:
    """Round to significant digits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(np.isfinite(values) & (values != 0), np.floor(np.log10(np.abs(values))), 0.0)
        power = 10.0 ** (digits - 1 - size)
        return np.asarray(np.round(values * power) / power)
