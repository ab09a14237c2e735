"""Pictures that a run leaves in Prefect's UI."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lake.query import Lake
from lake.text import one_line

# Light curves in a run's picture, and points of each.
_CURVES, _CURVE_POINTS = 3, 250


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


def light_curve_png(rows: pa.Table, title: str) -> bytes:
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
        .properties(title=_title(title))
    )
    return chart_png(chart)


def answers_png(answers: Sequence[tuple[str, str, int]], title: str) -> bytes:
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
        .properties(width=560, title=_title(title))
    )
    return chart_png(chart)


def _title(text: str) -> alt.TitleParams:
    return alt.TitleParams(one_line(text), anchor="start", fontSize=14)


def chart_png(chart: Any) -> bytes:
    """Return a picture of a chart."""
    import vl_convert

    with alt.data_transformers.disable_max_rows():
        spec = chart.to_json(validate=False)  # as tests do
    return packed_png(vl_convert.vegalite_to_png(spec))


def packed_png(png: bytes) -> bytes:
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
