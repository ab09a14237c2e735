"""Plots of light curves."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import pyarrow as pa
import pyarrow.compute as pc

# Points in one page: beyond this a browser becomes slow and the page large.
MOST_POINTS = 20_000


def light_curve_page(rows: pa.Table, title: str, path: Path) -> Path:
    """Write one HTML page with the light curves of targets, to zoom, pan and choose from; it needs no network.

    Parameters
    ----------
    rows
        Columns name, archive, band, mjd, flux, unit, detected, good, separation_arcsec, as in view
        target_lightcurves. Rows without flux are left out; more than MOST_POINTS are thinned evenly.
    title
        Heading of the plot.
    path
        File to write.
    """
    rows = rows.filter(pc.and_(pc.is_valid(rows["flux"]), pc.greater(pc.fill_null(rows["flux"], 0), 0)))
    step = max(1, -(-rows.num_rows // MOST_POINTS))
    rows = rows.take(pa.array(range(0, rows.num_rows, step), pa.int64()))
    # mjd is days since 1858-11-17; 40587 of them to the epoch of Unix.
    milliseconds = pc.multiply(pc.subtract(rows["mjd"], 40587.0), 86_400_000.0)
    rows = rows.append_column("date", milliseconds.cast(pa.int64(), safe=False).cast(pa.timestamp("ms")))
    series = pc.binary_join_element_wise(rows["band"], pc.fill_null(rows["unit"], ""), ", ")
    frame = rows.append_column("series", series).to_pandas()
    names = sorted(frame["name"].dropna().unique())
    chosen = alt.param(
        "target", bind=alt.binding_select(options=names, name="Target "), value=names[0] if names else None
    )
    bands = alt.selection_point(fields=["series"], bind="legend")
    chart = (
        alt.Chart(frame)
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X("date:T", title="Date (UTC)", scale=alt.Scale(padding=20)),
            y=alt.Y("flux:Q", title="Flux, in the unit of the band", scale=alt.Scale(type="log", padding=20)),
            color=alt.Color("series:N", title="Band"),
            shape=alt.Shape("detected:N", title="Detected"),
            opacity=alt.condition(bands, alt.value(0.85), alt.value(0.08)),
            tooltip=[
                alt.Tooltip("band:N"),
                alt.Tooltip("mjd:Q", format=".5f", title="MJD"),
                alt.Tooltip("flux:Q", format=".4g"),
                alt.Tooltip("unit:N"),
                alt.Tooltip("separation_arcsec:Q", format=".1f", title="separation (arcsec)"),
            ],
        )
        .transform_filter("datum.name === target")
        .add_params(chosen, bands)
        .properties(title=title, width=860, height=420)
        .interactive(bind_y=False)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.save(path, format="html", inline=True)
    return path
