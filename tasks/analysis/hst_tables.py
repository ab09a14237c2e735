"""Tables of light curves of photons, which sort: interesting, boring and null ones, and their periods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.analysis.html_pages import Column, Markup, Page, link, thumbnail
from tasks.sources.hst_timetag.variability import INTERESTING_POWER

_COLUMNS = (
    Column("target", "Target", kind="name"),
    Column("plot", "Light curve, file", kind="plot", is_sortable=False),
    Column("instrument", "Instrument"),
    Column("grating", "Grating"),
    Column("cenwave", "Cenwave", "d"),
    Column("aperture", "Aperture"),
    Column("exptime", "Exptime (s)", ",.0f"),
    Column("total", "Total", ",d"),
    Column("mean", "Mean", ",.2f"),
    Column("poisson_factor", "Poisson f.", ".2f"),
    Column("pearson_r", "Pearson r", ".3f"),
    Column("pearson_p", "Pearson p", ".2g"),
)
_PERIODS = (
    Column("target", "Target", kind="name"),
    Column("plot", "Periodogram", kind="plot", is_sortable=False),
    Column("instrument", "Instrument"),
    Column("grating", "Grating"),
    Column("cenwave", "Cenwave", "d"),
    *(
        Column(f"{key}_{band}", f"{title}, {band}", form)
        for band in ("short", "medium", "long")
        for key, title, form in (("period_s", "Period (s)", ",.1f"), ("power", "Power", ".3f"))
    ),
)


@dataclass(frozen=True)
class Drawn:
    """A composite with its dashboard: the values of tables, and its name in files."""

    name: str
    detector: str
    values: dict[str, Any]
    is_periodic: bool

    @property
    def title(self) -> str:
        """Return what it is called."""
        return f"{self.values['target']} · {configured(self.values, self.detector)}"


def write_tables(folder: Path, composites: Sequence[Drawn], threshold: float) -> None:
    """Write the pages of interesting, boring and null light curves, by their Poisson factor."""
    factor = {one.name: one.values["poisson_factor"] for one in composites}
    for page, what, about in (
        ("interesting_hstlc.html", "Interesting light curves", f"Their Poisson factor is {threshold:g} or more."),
        ("boring_hstlc.html", "Boring light curves", f"Their Poisson factor is less than {threshold:g}."),
        ("null_hstlc.html", "Light curves without statistics", "They have no Poisson factor: no counts are left."),
    ):
        chosen = [one for one in composites if class_of(factor[one.name], threshold) == page]
        chosen.sort(key=lambda one: (-(factor[one.name] or 0.0), one.name))
        rows = [
            one.values
            | {
                "target": link(f"composite/{one.name}.html", one.values["target"]),
                "target_sorted": one.values["target"],
                "instrument": f"{one.values['instrument']}/{one.detector}",
                "plot": thumbnail(
                    f"composite/{one.name}.html", f"composite/{one.name}.png", one.title, one.values["file"]
                ),
            }
            for one in chosen
        ]
        _table_page(folder, page, what, f"{_counted(len(rows))}. {about}", _COLUMNS, rows)


def class_of(factor: float | None, threshold: float) -> str:
    """Return the page of light curves with a Poisson factor."""
    if factor is None:
        return "null_hstlc.html"
    return "interesting_hstlc.html" if factor >= threshold else "boring_hstlc.html"


def write_periodograms(folder: Path, composites: Sequence[Drawn]) -> None:
    """Write the pages of all periodograms, and of those with a significant period."""
    all_of_them = sorted(composites, key=lambda one: (not one.is_periodic, -_power(one), one.name))
    subset = [one for one in all_of_them if one.is_periodic]
    about = f"a significant period has a power of {INTERESTING_POWER:g} or more"
    for page, title, chosen, text, other in (
        (
            "periodograms.html",
            "Periodograms of all light curves",
            all_of_them,
            f"{_counted(len(all_of_them))}. Of each band the highest significant period is listed.",
            link("periodogram_subset.html", f"Only those with a period ({len(subset)}): {about}"),
        ),
        (
            "periodogram_subset.html",
            "Light curves with a period",
            subset,
            f"{_counted(len(subset))}: {about}.",
            link("periodograms.html", f"Periodograms of all light curves ({len(all_of_them)})"),
        ),
    ):
        rows = [
            one.values
            | {
                "target": link(f"composite/{one.name}.html", one.values["target"]),
                "target_sorted": one.values["target"],
                "instrument": f"{one.values['instrument']}/{one.detector}",
                "plot": thumbnail(picture := f"periodograms/{one.name}_periodogram.png", picture, one.title),
            }
            for one in chosen
        ]
        _table_page(folder, page, title, text, _PERIODS, rows, other)


def _power(one: Drawn) -> float:
    return max(one.values[f"power_{band}"] or 0.0 for band in ("short", "medium", "long"))


def _table_page(
    folder: Path,
    name: str,
    title: str,
    text: str,
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    other: Markup | None = None,
) -> None:
    page = Page(title)
    page.text(text)
    if other is not None:
        page.markup(Markup(f"<p>{other.html}</p>"))
    if rows:
        page.text("Click on a heading to sort.")
        page.table(columns, rows)
    else:
        page.markup(Markup('<div class="card">There are none.</div>'))
    page.write(folder, name)


def configured(values: Mapping[str, Any], detector: str) -> str:
    """Return instrument, detector, grating, wavelength and aperture."""
    return f"{values['instrument']}/{detector} {element(values)} {values['aperture']}"


def element(values: Mapping[str, Any]) -> str:
    """Return the grating with its central wavelength, which images do not have."""
    return f"{values['grating']}/{values['cenwave']}" if values["cenwave"] else str(values["grating"])


def _counted(number: int) -> str:
    return f"{number:,} light curve{'' if number == 1 else 's'}"
