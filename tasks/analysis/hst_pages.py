"""Pages of light curves of photons: dashboards, periodograms, tables that sort, and charts of the survey.

One folder has them all. Links are relative, and no page needs a network.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lake.output import whole_file
from lake.query import Lake
from lake.text import counted, one_line
from tasks.analysis import hst_charts as charts
from tasks.analysis.hst_tables import Drawn, class_of, element, write_periodograms, write_tables
from tasks.analysis.html_pages import PAGES, Markup, Page, link, thumbnail, write_library
from tasks.sources.hst_timetag.hlsp import composite_file_name
from tasks.sources.hst_timetag.hlsp_export import bins_of
from tasks.sources.hst_timetag.variability import BANDS, Band, is_periodic

Row = Mapping[str, Any]

# The list of composites with pages here, and the names that they may have: see composite_file_name.
WRITTEN = "composites.json"
_NAME = re.compile(r"hlsp_hstlc_hst_[a-z0-9_.+-]+_v1_sci")

# A light curve is interesting from this Poisson factor on.
THRESHOLD = 1.2
# Detectors, and what they are called.
DETECTORS = {
    ("COS", "FUV"): "COS FUV",
    ("COS", "NUV"): "COS NUV",
    ("STIS", "FUV-MAMA"): "STIS FUV-MAMA",
    ("STIS", "NUV-MAMA"): "STIS NUV-MAMA",
}


@dataclass(frozen=True)
class Pages:
    """What was written.

    Parameters
    ----------
    start
        The start page.
    composites
        How many composites have a dashboard.
    without_bins
        Composites that have statistics but no bins, and so no dashboard.
    """

    start: Path
    composites: int
    without_bins: int


def write_pages(
    folder: Path,
    statistics: pa.Table,
    exposures: pa.Table,
    bins: Callable[[str], pa.Table],
    *,
    threshold: float = THRESHOLD,
    unchanged: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Pages:
    """Write all pages. Those that exist are overwritten; those of composites that are no more are removed.

    Parameters
    ----------
    folder
        Where to; made if need be.
    statistics
        Rows of table hst_statistics; those of composites are used.
    exposures
        Rows of table hst_exposures, of exposures and of composites.
    bins
        Returns a composite's rows of table hst_bins, by its source_id. One composite is in memory at a time.
    threshold
        Light curves from this Poisson factor on are interesting.
    unchanged
        Composites, by source_id, whose pictures and dashboards are kept if they exist. Their bins are not read.
    progress
        Called after each composite: how many are done, of how many.

    Returns
    -------
    Pages
        What was written.
    """
    write_library(folder)
    known = {str(row["source_id"]): row for row in exposures.to_pylist()}
    single = [row for row in known.values() if row["product"] == "exposure"]
    rows = sorted(
        (row for row in statistics.to_pylist() if row["product"] == "composite"), key=lambda row: str(row["source_id"])
    )
    composites = []
    for done, row in enumerate(rows, 1):
        if (found := _composite(folder, row, bins, known, unchanged)) is not None:
            composites.append(found)
        if progress is not None:
            progress(done, len(rows))
    _forget_vanished(folder, composites)
    write_tables(folder, composites, threshold)
    write_periodograms(folder, composites)
    _exposure_times(folder, composites)
    _configurations(folder, composites)
    _optical_elements(folder, single)
    start = _start(folder, composites, len(single), threshold)
    return Pages(start, len(composites), len(rows) - len(composites))


def write_pages_of(
    lake: Lake, folder: Path, *, threshold: float = THRESHOLD, progress: Callable[[int, int], None] | None = None
) -> Pages:
    """Write the pages of all composites of a lake: see `write_pages`."""
    statistics = lake.sql("SELECT * FROM hst_statistics")
    exposures = lake.sql(
        "SELECT *, source_id AS exposure_id FROM hst_exposures WHERE product = 'exposure' ORDER BY source_id"
    )
    return write_pages(
        folder, statistics, exposures, lambda source: bins_of(lake, source), threshold=threshold, progress=progress
    )


def from_table(bins: pa.Table) -> Callable[[str], pa.Table]:
    """Return a function that takes a composite's rows out of a table of all bins."""

    def picked(source_id: str) -> pa.Table:
        return bins.filter((pc.field("source_id") == source_id) & (pc.field("product") == "composite"))

    return picked


def _composite(
    folder: Path, row: Row, bins: Callable[[str], pa.Table], known: Mapping[str, Row], unchanged: Collection[str]
) -> Drawn | None:
    """Write figure, dashboard and periodogram of a composite, unless it has them; None if it has no bins."""
    source_id = str(row["source_id"])
    first = known.get(source_id)
    if first is not None and source_id in unchanged:
        kept = _described(row, first, first["exposure_s"], {})
        if all(path.exists() for path in _files(folder, kept.name)):
            return kept
    rows = bins(source_id)
    if not rows.num_rows:
        return None
    if first is None:
        first = known.get(str(rows["exposure_id"][0].as_py()), {})
    found = charts.periods(rows)
    drawn = _described(row, first, float(pc.sum(rows["bin_s"]).as_py()), found)
    figure, periodogram, _ = _files(folder, drawn.name)
    _write(figure, charts.figure_png(rows))
    _write(periodogram, charts.periodogram_png(rows, found, one_line(drawn.title)))
    _dashboard(folder, drawn, rows)
    return drawn


def _files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Return the files of a composite: figure, periodogram, dashboard."""
    return (
        folder / "composite" / f"{name}.png",
        folder / "periodograms" / f"{name}_periodogram.png",
        folder / "composite" / f"{name}.html",
    )


def _forget_vanished(folder: Path, composites: Sequence[Drawn]) -> None:
    """Remove the files of composites that an earlier run wrote and this one did not; remember those of this one."""
    listed = folder / WRITTEN
    try:
        before = json.loads(listed.read_text())
    except (OSError, ValueError):
        before = []
    names = sorted({one.name for one in composites})
    # The list may be anybody's: only files with names as they are given here, where they belong.
    vanished = {str(name) for name in before if isinstance(name, str)} if isinstance(before, list) else set()
    for name in sorted(vanished - set(names)):
        if _NAME.fullmatch(name):
            for path in _files(folder, name):
                path.unlink(missing_ok=True)
    with whole_file(listed) as file:
        file.write(json.dumps(names, indent=0).encode())


def _described(row: Row, first: Row, exposure_s: float, found: Mapping[str, Band]) -> Drawn:
    """Return the values of a composite in tables: of its statistics, and where they have no periods, of those found."""
    instrument, detector, grating, aperture = (
        str(first.get(name) or "") for name in ("instrument", "detector", "grating", "aperture")
    )
    target = str(first.get("canonical_name") or first.get("target_name") or row["source_id"])
    cenwave = int(first.get("cenwave") or 0)
    file = composite_file_name(instrument, detector, target, grating, cenwave, aperture)
    values = {
        "target": target,
        "instrument": instrument,
        "grating": grating,
        "cenwave": cenwave or None,
        "aperture": aperture,
        "exptime": exposure_s,
        "total": row["total"],
        "file": file,
        **{key: _finite(row.get(key)) for key in ("mean", "poisson_factor", "pearson_r", "pearson_p")},
    }
    for band in BANDS:
        highest = _highest(found[band]) if band in found else {}
        values |= {f"{key}_{band}": row.get(f"{key}_{band}", highest.get(key)) for key in ("period_s", "power")}
    periodic = is_periodic(found) if row.get("periodogram") is None else bool(row["periodogram"])
    return Drawn(file.removesuffix(".fits"), detector, values, periodic)


def _dashboard(folder: Path, composite: Drawn, bins: pa.Table) -> None:
    values, page = composite.values, Page(composite.title)
    exposures = len(set(bins["exposure_id"].to_pylist()))
    page.facts(
        {
            "exposures": exposures,
            "exposure time (s)": f"{values['exptime']:,.0f}",
            "counts": values["total"],
            "Poisson factor": None if values["poisson_factor"] is None else f"{values['poisson_factor']:.2f}",
        }
    )
    _, every = charts.drawable(bins)
    page.chart(charts.dashboard(bins), beside=240)
    if every > 1:
        page.text(f"Of {counted(bins.num_rows, 'bin')} one in {every} is shown.")
    page.text(
        "Drag to move along the time axis, use the wheel to zoom, and double-click to see all. "
        "Click on a dataset in the legend to see it alone."
    )
    page.markup(Markup("<h2>Periodogram</h2>"))
    url = f"../periodograms/{composite.name}_periodogram.png"
    page.markup(Markup(f'<div class="card"><img class="figure drawn" src="{url}" alt="Periodogram"></div>'))
    page.text(f"Product: {values['file']}")
    page.write(folder, f"composite/{composite.name}.html")


def _highest(band: Band) -> dict[str, float | None]:
    """Return the significant period of a band that has the highest power."""
    if band.highest is None:
        return {"period_s": None, "power": None}
    place = int((band.powers * band.significant).argmax())
    return {"period_s": float(band.periods_s[place]), "power": float(band.powers[place])}


def _exposure_times(folder: Path, composites: Sequence[Drawn]) -> None:
    seconds: Counter[str] = Counter()
    for one in composites:
        seconds[one_line(one.values["target"])] += one.values["exptime"]
    page = Page("Exposure times")
    page.text("Exposure time of the composites of a target, for the 30 targets that have most.")
    _chart_or_none(page, charts.exposure_times(seconds) if seconds else None, beside=300)
    page.write(folder, "exptime_histogram.html")


def _configurations(folder: Path, composites: Sequence[Drawn]) -> None:
    counts: dict[str, Counter[str]] = {title: Counter() for title in DETECTORS.values()}
    for one in composites:
        values = one.values
        title = DETECTORS.get((values["instrument"], one.detector))
        if title is not None:
            counts[title][one_line(element(values))] += 1
    page = Page("Configurations")
    page.text("Composites of each detector by grating and central wavelength (Angstrom). Images have none.")
    _chart_or_none(page, charts.configurations(counts) if any(counts.values()) else None, beside=0)
    page.write(folder, "pie_config.html")


def _optical_elements(folder: Path, exposures: Sequence[Row]) -> None:
    counts = Counter((str(row["instrument"]), one_line(str(row["grating"]))) for row in exposures)
    page = Page("Optical elements")
    page.text("Exposures of each grating, mirror or filter.")
    _chart_or_none(page, charts.optical_elements(counts) if counts else None, beside=170)
    page.write(folder, "opt_elem.html")


def _chart_or_none(page: Page, chart: Any, beside: int) -> None:
    if chart is None:
        page.markup(Markup('<div class="card">There are none.</div>'))
    else:
        page.chart(chart, beside)


def _start(folder: Path, composites: Sequence[Drawn], exposures: int, threshold: float) -> Path:
    classes = Counter(class_of(one.values["poisson_factor"], threshold) for one in composites)
    periodic = sum(one.is_periodic for one in composites)
    hours = sum(one.values["exptime"] for one in composites) / 3600
    page = Page("HST COS and STIS light curves of photons")
    page.text("Light curves of TIME-TAG exposures, put together by target and configuration.")
    page.facts(
        {
            "composites": len(composites),
            "targets": len({one.values["target"] for one in composites}),
            "exposures": exposures,
            "hours": f"{hours:,.1f}",
        }
    )
    about = {
        "interesting_hstlc.html": f"{classes['interesting_hstlc.html']:,} with a Poisson factor from {threshold:g} on",
        "boring_hstlc.html": f"{classes['boring_hstlc.html']:,} with a lower one",
        "null_hstlc.html": f"{classes['null_hstlc.html']:,} without counts",
        "periodograms.html": f"of all {len(composites):,}",
        "periodogram_subset.html": f"{periodic:,} with a significant period",
        "exptime_histogram.html": "the 30 targets that have most",
        "pie_config.html": "gratings and wavelengths of four detectors",
        "opt_elem.html": "exposures of each",
    }
    titles = {**PAGES, "periodogram_subset.html": "Periods"}
    links = "".join(f'<a href="{url}">{titles[url]}<span>{text}</span></a>' for url, text in about.items())
    page.markup(Markup(f'<div class="links">{links}</div>'))
    shown = sorted(composites, key=lambda one: (-(one.values["poisson_factor"] or 0.0), one.name))[:6]
    if shown:
        page.markup(Markup("<h2>Most variable</h2>"))
    for one in shown:
        url = f"composite/{one.name}.html"
        picture = thumbnail(url, f"composite/{one.name}.png", one.title).html.replace(
            'class="drawn"', 'class="figure drawn"'
        )
        page.markup(Markup(f'<div class="card">{link(url, one.title).html}{picture}</div>'))
    return page.write(folder, "index.html")


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(data)
