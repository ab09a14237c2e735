"""Charts of light curves of photons: composites, their periods, and how many a survey has of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.analysis.figures.pictures import chart_png
from tasks.sources.hst_timetag.variability import Band, bands

# Points in one page: beyond this a browser becomes slow and the page large.
MOST_POINTS = 20_000

# Okabe and Ito's colours, which the colour-blind tell apart; the datasets of a composite have them in turn.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BLUE, VERMILION, GREEN = COLOURS[:3]
INK, GREY, LINE = "#1f2933", "#52606d", "#e4e7eb"
FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"

# What the panels of a dashboard show: column, title, unit.
PANELS = (
    ("gross", "Gross", "counts"),
    ("net", "Net", "counts / s"),
    ("flux", "Flux", "erg / s / cm² / Å"),
    ("error", "Error", "counts"),
    ("background", "Background", "counts"),
)
WIDTH, PANEL_HEIGHT = 900, 150
# Periods that are drawn of a band: of more, the highest of each few.
_MOST_PERIODS = 3_000
# By band: what a period is divided by, and the unit it is then in.
_PERIOD_UNITS = {"short": (1.0, "s"), "medium": (60.0, "min"), "long": (3_600.0, "h")}
# Slices of a ring that are too thin for a label of their own.
_THIN = 0.04


def themed(chart: Any) -> Any:
    """Give a chart the style of the pages, and return it; Altair would copy the whole chart for each setting."""
    chart.config = alt.Config(
        font=FONT,
        background="#ffffff",
        view=alt.ViewConfig(stroke=LINE),
        axis=alt.AxisConfig(
            gridColor=LINE,
            domainColor="#9aa5b1",
            tickColor="#9aa5b1",
            labelColor=GREY,
            labelFontSize=11,
            titleColor=INK,
            titleFontWeight="normal",
        ),
        title=alt.TitleConfig(anchor="start", color=INK, fontSize=14, fontWeight="bold", offset=8),
        legend=alt.LegendConfig(labelColor=GREY, titleColor=INK, titleFontWeight="normal", labelFontSize=11),
    )
    return chart


def drawable(bins: pa.Table) -> tuple[pd.DataFrame, int]:
    """Return the bins that a chart shows, in order of time, and the step: 3 if it shows every third."""
    bins = bins.sort_by([("mjd", "ascending")])
    every = -(-bins.num_rows // MOST_POINTS)
    if every > 1:
        bins = bins.take(np.arange(0, bins.num_rows, every))
    names = ["dataset", "exposure_id", "mjd", *(name for name, _, _ in PANELS)]
    frame = bins.select(names).to_pandas()
    for name, _, _ in PANELS:
        frame[name] = pd.to_numeric(frame[name]).astype(float).replace([np.inf, -np.inf], np.nan)
    frame["index"] = np.arange(len(frame)) * max(every, 1)
    labels = frame["dataset"].astype(str) + " · " + frame["exposure_id"].astype(str)
    return frame.assign(exposure=labels), max(every, 1)


def _colour(frame: pd.DataFrame, legend: Any = None) -> Any:
    """Return the colours of datasets, in their order."""
    order = frame[["dataset", "exposure"]].drop_duplicates().sort_values("dataset")["exposure"].tolist()
    scale = alt.Scale(domain=order, range=[COLOURS[place % len(COLOURS)] for place in range(len(order))])
    return alt.Color("exposure:N", scale=scale, sort=None, title="Dataset", legend=legend)


def _format(name: str) -> str:
    """Return how the axis of a column shows its numbers."""
    return ".3~g" if name == "flux" else ".3~r"


def _size(frame: pd.DataFrame) -> int:
    return 14 if len(frame) < 3_000 else 6


def figure_png(bins: pa.Table) -> bytes:
    """Return the picture of a composite: flux in order of time, without the gaps between exposures.

    Without a flux it has the net rate.
    """
    frame, _ = drawable(bins)
    name, title = ("flux", "Flux") if frame["flux"].notna().any() else ("net", "Net (counts/s)")
    chart = (
        alt.Chart(frame.loc[frame[name].notna(), ["index", "exposure", "dataset", name]])
        .mark_point(filled=True, size=_size(frame), opacity=0.9)
        .encode(
            x=alt.X("index:Q", title=None, axis=alt.Axis(grid=False, labels=False, ticks=False), scale=_tight(frame)),
            y=alt.Y(
                f"{name}:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=3, format=_format(name))
            ),
            color=_colour(frame),
        )
        .properties(width=900, height=84)
    )
    return chart_png(themed(chart))


def _tight(frame: pd.DataFrame) -> Any:
    return alt.Scale(domain=[0, max(1, int(frame["index"].max()) if len(frame) else 1)], nice=False, padding=4)


def dashboard(bins: pa.Table) -> Any:
    """Return the five panels of a composite over one time axis, to zoom and pan."""
    frame, _ = drawable(bins)
    legend = alt.Legend(symbolLimit=24, symbolOpacity=1, orient="right")
    chosen = alt.selection_point(fields=["exposure"], bind="legend")
    panels = []
    for place, (name, title, unit) in enumerate(PANELS):
        last = place == len(PANELS) - 1
        axis = alt.Axis(
            format=".12~g",
            tickCount=8,
            labelOverlap=True,
            labels=last,
            ticks=last,
            title="MJD (UTC)" if last else None,
            labelFlush=False,
        )
        x = alt.X("mjd:Q", scale=alt.Scale(zero=False, nice=False, padding=8), axis=axis)
        if not frame[name].notna().any():
            panels.append(_nothing(frame, title, x))
            continue
        zoom = alt.selection_interval(bind="scales", encodings=["x"], name=f"zoom_{name}")
        panels.append(
            alt.Chart()
            .mark_point(filled=True, size=_size(frame))
            .encode(
                x=x,
                y=alt.Y(
                    f"{name}:Q",
                    title=[title, f"({unit})"],
                    scale=alt.Scale(zero=False),
                    axis=alt.Axis(tickCount=5, minExtent=58, format=_format(name)),
                ),
                color=_colour(frame, legend),
                opacity=alt.condition(chosen, alt.value(0.9), alt.value(0.06)),
                tooltip=[
                    alt.Tooltip("exposure:N", title="dataset"),
                    alt.Tooltip("mjd:Q", format=".6f", title="MJD"),
                    *(alt.Tooltip(f"{other}:Q", format=".4~g") for other, _, _ in PANELS),
                ],
            )
            .properties(width=WIDTH, height=PANEL_HEIGHT)
            .add_params(zoom)
        )
    panels[0] = panels[0].add_params(chosen) if frame[PANELS[0][0]].notna().any() else panels[0]
    chart = alt.vconcat(*panels, data=frame.drop(columns="index"), spacing=10).resolve_scale(x="shared")
    return themed(chart)


def _nothing(frame: pd.DataFrame, title: str, x: Any) -> Any:
    """Return a panel that says that there is nothing to show."""
    text = "no reference files, no flux" if title == "Flux" else f"no {title.lower()}"
    place = pd.DataFrame({"mjd": [frame["mjd"].min(), frame["mjd"].max()]} if len(frame) else {"mjd": []})
    axes = alt.Chart(place).mark_point(opacity=0).encode(x=x)
    label = alt.Chart(pd.DataFrame({"one": [1]})).mark_text(color=GREY, fontSize=12, text=text, align="left")
    label = label.encode(x=alt.value(12), y=alt.value(PANEL_HEIGHT / 6))
    return alt.layer(axes, label).properties(width=WIDTH, height=PANEL_HEIGHT / 3, title=alt.Title(title, fontSize=11))


def periods(bins: pa.Table) -> dict[str, Band]:
    """Return the periodogram of a composite in each band, of the bins that were observed in full."""
    bins = bins.filter(pc.field("exposure_fraction") >= 1)
    known = bins.filter(pc.is_finite(pc.fill_null(bins["net"].cast(pa.float64()), float("nan")))).sort_by("mjd")
    return bands(known["net"].to_numpy(), known["mjd"].to_numpy(), with_peaks=False)


def periodogram_png(bins: pa.Table, found: Mapping[str, Band], title: str) -> bytes:
    """Return the picture of a composite's periods: net rate over time, and the power in each band.

    A solid line is the mean, a dashed one the threshold; dotted ones are the significant periods.
    """
    frame, _ = drawable(bins)
    curve = (
        alt.Chart(frame.loc[frame["net"].notna(), ["mjd", "net", "exposure", "dataset"]])
        .mark_point(filled=True, size=_size(frame), opacity=0.9)
        .encode(
            x=alt.X(
                "mjd:Q", title="MJD (UTC)", scale=alt.Scale(zero=False), axis=alt.Axis(format=".12~g", tickCount=8)
            ),
            y=alt.Y("net:Q", title=["Net", "(counts / s)"], scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
            color=_colour(frame),
        )
        .properties(width=WIDTH, height=PANEL_HEIGHT, title=title)
    )
    chart = alt.vconcat(curve, *(_band(name, band) for name, band in found.items()), spacing=14)
    return chart_png(themed(chart.resolve_scale(color="independent", strokeDash="independent")))


def _band(name: str, band: Band) -> Any:
    divisor, unit = _PERIOD_UNITS[name]
    shown = _highest_of_each(band.periods_s, band.powers)
    powers = pd.DataFrame({"period": band.periods_s[shown] / divisor, "power": band.powers[shown]})
    significant = pd.DataFrame({"period": band.periods_s[band.significant] / divisor})
    mean = float(band.powers.mean()) if len(band.powers) else 0.0
    lines = pd.DataFrame({"power": [mean, band.threshold], "what": ["mean", "threshold"]})
    x = alt.X("period:Q", title=f"Period, {name} ({unit})", scale=alt.Scale(zero=False, nice=False))
    y = alt.Y("power:Q", title="Power", axis=alt.Axis(tickCount=5, minExtent=58))
    what = alt.Scale(domain=["mean", "threshold"], range=[VERMILION, GREEN])
    dash = alt.Scale(domain=["mean", "threshold"], range=[[1, 0], [6, 3]])
    return alt.layer(
        alt.Chart(significant).mark_rule(color="#000000", strokeDash=[2, 3]).encode(x=x),
        alt.Chart(powers).mark_line(color=BLUE, strokeWidth=1.2).encode(x=x, y=y),
        alt.Chart(lines)
        .mark_rule(strokeWidth=1.5)
        .encode(
            y=y,
            color=alt.Color("what:N", scale=what, legend=_lines_legend(name)),
            strokeDash=alt.StrokeDash("what:N", scale=dash, legend=_lines_legend(name)),
        ),
    ).properties(width=WIDTH, height=PANEL_HEIGHT)


def _lines_legend(name: str) -> Any:
    """Return the legend of the lines, which stands beside the first band alone."""
    return alt.Legend(title=None, symbolSize=400, symbolStrokeWidth=2) if name == "short" else None


def _highest_of_each(periods_s: Any, powers: Any) -> Any:
    """Return the indices of the periods to draw: all, or the highest of each few, so that no peak is lost."""
    number = len(periods_s)
    if number <= _MOST_PERIODS:
        return np.arange(number)
    edges = np.linspace(0, number, _MOST_PERIODS + 1).astype(int)
    return np.array([first + int(np.argmax(powers[first:end])) for first, end in pairwise(edges)])


def exposure_times(seconds: Mapping[str, float], most: int = 30) -> Any:
    """Return bars of the targets with the longest exposure time."""
    longest = sorted(seconds.items(), key=lambda item: (-item[1], item[0]))[:most]
    frame = pd.DataFrame(longest, columns=["target", "seconds"])
    bars = (
        alt.Chart(frame)
        .mark_bar(color=BLUE, cornerRadiusEnd=2, height={"band": 0.72})
        .encode(
            x=alt.X("seconds:Q", title="Exposure time (s)", axis=alt.Axis(format="~s")),
            y=alt.Y("target:N", title=None, sort=None, axis=alt.Axis(labelLimit=220, ticks=False, domain=False)),
            tooltip=[alt.Tooltip("target:N"), alt.Tooltip("seconds:Q", format=",.0f", title="exposure time (s)")],
        )
        .properties(width=700, height=alt.Step(18))
    )
    return themed(bars)


def configurations(counts: Mapping[str, Mapping[str, int]]) -> Any:
    """Return a ring for each detector: how many composites there are of each grating and central wavelength.

    Parameters
    ----------
    counts
        By detector: numbers by configuration, such as G140L/1105. Those without any are left out.
    """
    rings = [_ring(detector, numbers) for detector, numbers in counts.items() if numbers]
    return themed(alt.concat(*rings, columns=2, spacing=40).resolve_scale(color="independent", theta="independent"))


def _ring(detector: str, numbers: Mapping[str, int]) -> Any:
    total = sum(numbers.values())
    rows = [
        {"configuration": f"{name}  ({number})", "short": name if number >= _THIN * total else "", "composites": number}
        for name, number in sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    ]
    order = [str(row["configuration"]) for row in rows]
    base = alt.Chart(pd.DataFrame(rows).assign(place=range(len(rows)))).encode(
        theta=alt.Theta("composites:Q", stack=True),
        order=alt.Order("place:Q"),
        tooltip=[alt.Tooltip("configuration:N"), alt.Tooltip("composites:Q")],
    )
    ring = base.mark_arc(innerRadius=60, outerRadius=104, stroke="#ffffff", strokeWidth=1.5).encode(
        color=alt.Color(
            "configuration:N",
            sort=order,
            scale=alt.Scale(domain=order, scheme="viridis") if len(order) > len(COLOURS) else _few(order),
            legend=alt.Legend(title="Grating / wavelength", symbolLimit=14, labelLimit=150),
        )
    )
    labels = base.mark_text(radius=146, fontSize=10, color=GREY).encode(text="short:N")
    middle = alt.Chart(pd.DataFrame({"text": [f"{total}"]})).mark_text(fontSize=22, fontWeight="bold", color=INK)
    return alt.layer(ring, labels, middle.encode(text="text:N")).properties(width=360, height=310, title=detector)


def _few(order: Sequence[str]) -> Any:
    return alt.Scale(domain=list(order), range=list(COLOURS[: len(order)]))


def optical_elements(counts: Mapping[tuple[str, str], int]) -> Any:
    """Return bars of how many exposures there are of each optical element, by instrument.

    Parameters
    ----------
    counts
        By instrument and optical element.
    """
    rows = [(instrument, element, number) for (instrument, element), number in counts.items()]
    frame = pd.DataFrame(rows, columns=["instrument", "element", "exposures"])
    order = frame.groupby("element")["exposures"].sum().sort_values(ascending=False, kind="stable").index.tolist()
    bars = (
        alt.Chart(frame)
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X("element:N", title="Optical element", sort=order, axis=alt.Axis(labelAngle=-40, domain=False)),
            y=alt.Y("exposures:Q", title="Exposures", axis=alt.Axis(tickMinStep=1, format="d")),
            color=alt.Color(
                "instrument:N", title=None, scale=alt.Scale(domain=["COS", "STIS"], range=[BLUE, COLOURS[4]])
            ),
            tooltip=[alt.Tooltip("instrument:N"), alt.Tooltip("element:N"), alt.Tooltip("exposures:Q")],
        )
        .properties(width=700, height=360)
    )
    return themed(bars)
