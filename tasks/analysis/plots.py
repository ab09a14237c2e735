"""Draw light curves."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lake.query import Lake
from tasks.analysis.pages import write_chart_page

# Points in one page: beyond this a browser becomes slow and the page large.
MOST_POINTS = 20_000

# More points than this are drawn small, so that they do not hide each other.
_FEW_POINTS = 2_000

# Light curves in a run's picture, and points of each.
_CURVES, _CURVE_POINTS = 3, 250

# Fluxes within this factor get a linear scale, so that a transit is visible.
_LINEAR_WITHIN = 10.0


@dataclass(frozen=True)
class Fold:
    """A period in days and a time of phase 0, MJD(TDB) at the barycentre, to fold times by."""

    period_d: float
    epoch_mjd: float


def light_curve_page(rows: pa.Table, title: str, path: Path, *, fold: Fold | None = None) -> Path:
    """Write one HTML page with light curves of targets, with zoom and a choice of target; it needs no network.

    Parameters
    ----------
    rows
        Columns name, archive, band, mjd, flux, unit, detected, good, separation_arcsec, as in views
        target_lightcurves and normalised; to fold, also bmjd_tdb. Rows without positive flux are left out. With more
        than MOST_POINTS rows, the longest light curves are thinned, each evenly.
    title
        Heading of the plot.
    path
        File to write.
    fold
        Draw phases from -0.5 to 0.5 instead of dates; rows without bmjd_tdb are left out.
    """
    rows = rows.filter(pc.and_(pc.is_valid(rows["flux"]), pc.greater(pc.fill_null(rows["flux"], 0), 0)))
    if fold is not None:
        rows = rows.filter(pc.is_valid(rows["bmjd_tdb"]))
    unit = pc.fill_null(pc.if_else(pc.equal(rows["unit"], ""), "relative", rows["unit"]), "")
    rows = rows.append_column("series", pc.binary_join_element_wise(rows["band"], unit, ", "))
    rows = _thinned(rows)
    if fold is None:
        rows = _dated(rows)
        x = alt.X("date:T", title="Date (UTC)", scale=alt.Scale(padding=20))
    else:
        cycles = (rows["bmjd_tdb"].to_numpy() - fold.epoch_mjd) / fold.period_d
        rows = rows.append_column("phase", pa.array(cycles - np.floor(cycles + 0.5)))
        title_of_x = f"Phase: {fold.period_d:.10g} d from MJD {fold.epoch_mjd:.10g} (TDB)"
        x = alt.X("phase:Q", title=title_of_x, scale=alt.Scale(domain=[-0.5, 0.5]))
    frame = rows.to_pandas()
    names = sorted(frame["name"].dropna().unique())
    chosen = alt.param(
        "target", bind=alt.binding_select(options=names, name="Target "), value=names[0] if names else None
    )
    bands = alt.selection_point(fields=["series"], bind="legend")
    chart = (
        alt.Chart(frame)
        .mark_point(filled=True, size=60 if rows.num_rows <= _FEW_POINTS else 6)
        .encode(
            x=x,
            y=alt.Y("flux:Q", title="Flux, in the unit of the band", scale=_scale(rows["flux"])),
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
    return write_chart_page(chart, title, path)


def longest_light_curves(lake: Lake, archive: str, release: str, granule: str) -> pa.Table:
    """Return a granule's light curves with most measurements, each evenly thinned.

    Returns
    -------
    pa.Table
        Columns source_id, band, mjd, flux, unit; no rows if nothing has a flux.
    """
    scope = {"archive": archive, "release": release}
    longest = lake.sql(
        "SELECT source_id, hpx29 FROM statistics WHERE archive = $archive AND release = $release "
        "AND granule = $granule GROUP BY ALL ORDER BY sum(n) DESC, source_id LIMIT $most",
        {**scope, "granule": granule, "most": _CURVES},
    ).to_pylist()
    parts = [
        lake.sql(
            "SELECT source_id, band, mjd, flux, unit FROM lightcurves WHERE archive = $archive "
            "AND release = $release AND hpx29 = $hpx29 AND source_id = $source_id AND flux IS NOT NULL "
            "QUALIFY row_number() OVER (ORDER BY mjd, band) % ceil(count(*) OVER () / $most)::BIGINT = 0",
            {**scope, **source, "most": float(_CURVE_POINTS)},
        )
        for source in longest
    ]
    if not parts:
        return pa.table({name: [] for name in ("source_id", "band", "mjd", "flux", "unit")})
    return pa.concat_tables(parts)


def light_curve_png(rows: pa.Table) -> bytes:
    """Draw light curves one below the other as a small PNG: columns as of `longest_light_curves`."""
    units = ", ".join(sorted({unit or "relative" for unit in rows["unit"].to_pylist()}))
    chart = (
        alt.Chart(_dated(rows).to_pandas())
        .mark_point(filled=True, size=9, opacity=0.8)
        .encode(
            x=alt.X("date:T", title="Date (UTC)", axis=alt.Axis(format="%Y-%m-%d", tickCount=5)),
            y=alt.Y("flux:Q", title=f"Flux ({units})", scale=alt.Scale(zero=False)),
            color=alt.Color("band:N", title="Band"),
        )
        .properties(width=560, height=110)
        .facet(row=alt.Row("source_id:N", title=None, header=alt.Header(labelOrient="top", labelAnchor="start")))
        .resolve_scale(y="independent")
    )
    return chart_png(chart)


def answers_png(answers: Sequence[tuple[str, str, int]]) -> bytes:
    """Draw how many targets got which answer as a small PNG: archive, answer, number."""
    frame = pd.DataFrame(answers, columns=["archive", "answer", "targets"])
    chart = (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            x=alt.X("targets:Q", title="Targets", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("archive:N", title=None),
            color=alt.Color(
                "answer:N",
                title=None,
                scale=alt.Scale(
                    domain=["found", "empty", "failed", "rejected"], range=["#4c78a8", "#bab0ac", "#e45756", "#b279a2"]
                ),
            ),
        )
        .properties(width=560)
    )
    return chart_png(chart)


def chart_png(chart: Any) -> bytes:
    """Return a picture of a chart."""
    import vl_convert

    with alt.data_transformers.disable_max_rows():
        spec = chart.to_json()
    return _packed(vl_convert.vegalite_to_png(spec))


def _packed(png: bytes) -> bytes:
    """Compress a picture to a third of its bytes; the renderer hardly compresses."""
    at, kept, data = 8, [], b""
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : end - 4]
        else:
            kept.append(png[at:end])
        at = end
    data = b"IDAT" + zlib.compress(zlib.decompress(data), 9)
    pixels = (len(data) - 4).to_bytes(4) + data + zlib.crc32(data).to_bytes(4)
    return b"".join([png[:8], *kept[:-1], pixels, kept[-1]])


def _dated(rows: pa.Table) -> pa.Table:
    # MJD counts days from 1858-11-17; the Unix epoch is MJD 40587.
    milliseconds = pc.multiply(pc.subtract(rows["mjd"], 40587.0), 86_400_000.0)
    return rows.append_column("date", milliseconds.cast(pa.int64(), safe=False).cast(pa.timestamp("ms")))


def _scale(flux: pa.ChunkedArray) -> Any:
    ends = pc.min_max(flux).as_py()
    if ends["min"] is not None and ends["max"] <= _LINEAR_WITHIN * ends["min"]:
        return alt.Scale(zero=False, padding=20)
    return alt.Scale(type="log", padding=20)


def _thinned(rows: pa.Table) -> pa.Table:
    """Return at most MOST_POINTS rows: short light curves whole, the others thinned to one length."""
    if rows.num_rows <= MOST_POINTS:
        return rows
    groups = rows.select(["name", "series"]).to_pandas().groupby(["name", "series"], dropna=False)
    counts = groups["series"].transform("size").to_numpy()
    most, left, series = 1, MOST_POINTS, groups.ngroups
    for count in np.sort(groups.size().to_numpy()):
        most = max(1, left // series)
        if count > most:
            break
        left, series = left - int(count), series - 1
    steps = -(-counts // most)
    return rows.filter(pa.array(groups.cumcount().to_numpy() % steps == 0))
