"""HTML of pages with tables and charts: one style, tables that sort, charts with a script beside the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import altair as alt

from lake.output import whole_file
from tasks.analysis.pages import escaped, json_in_page, vega_library, write_document

# The pages of a folder, and what links call them.
PAGES = {
    "index.html": "Start",
    "interesting_hstlc.html": "Interesting",
    "boring_hstlc.html": "Boring",
    "null_hstlc.html": "No statistics",
    "periodograms.html": "Periodograms",
    "exptime_histogram.html": "Exposure times",
    "pie_config.html": "Configurations",
    "opt_elem.html": "Optical elements",
}
LIBRARY = "vega.js"

_STYLE = """
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 18px; margin: 16px 0 24px;
  overflow-x: auto; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 16px 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
.facts b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.facts span { color: var(--grey); font-size: 13px; }
.links { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 12px; }
.links a { display: block; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 14px 16px; font-weight: 600; }
.links a:hover { border-color: var(--link); text-decoration: none; }
.links span { display: block; color: var(--grey); font-weight: 400; font-size: 13px; }
.table { padding: 0; max-height: calc(100vh - 60px); overflow: auto; }
table { border-collapse: collapse; width: 100%; font-size: 12.5px; }
thead th { padding: 8px 6px 14px; vertical-align: top; }
th, td { padding: 6px; text-align: left; vertical-align: middle; border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: var(--card); z-index: 1; line-height: 1.25;
  box-shadow: inset 0 -1px var(--line); }
th button { all: unset; cursor: pointer; font-weight: 600; position: relative; display: inline-block;
  max-width: 7em; }
th button:hover { text-decoration: underline; }
th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort] button { color: var(--link); }
th[aria-sort] button::after { position: absolute; top: 100%; left: 0; font-size: 11px; line-height: 1; }
th.number[aria-sort] button::after { left: auto; right: 0; }
th[aria-sort=ascending] button::after { content: "\\25b2"; }
th[aria-sort=descending] button::after { content: "\\25bc"; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.name { font-weight: 600; min-width: 90px; max-width: 200px; overflow-wrap: anywhere; }
td.plot { width: 400px; min-width: 240px; padding: 8px 8px 6px; }
td.plot img { display: block; width: 100%; max-width: 400px; height: auto; min-height: 24px; }
td.plot small { display: block; font: 10.5px/1.35 ui-monospace, "DejaVu Sans Mono", monospace; color: var(--grey);
  overflow-wrap: anywhere; }
tbody tr:hover { background: var(--hover); }
.figure { display: block; max-width: 100%; height: auto; }
.vega-embed { display: block; }
.vega-embed .vega-bindings { font-size: 13px; }
"""

_SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  for (const head of table.tHead.rows[0].cells) {
    head.querySelector("button")?.addEventListener("click", () => {
      const [first, second] = head.dataset.first === "down" ? ["descending", "ascending"] : ["ascending", "descending"];
      const direction = head.getAttribute("aria-sort") === first ? second : first;
      const isNumber = head.classList.contains("number");
      const value = row => row.cells[head.cellIndex].dataset.v;
      const rows = [...body.rows].sort((one, other) => {
        const a = value(one), b = value(other);
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = isNumber ? a - b : a.localeCompare(b, "en", {numeric: true});
        return direction === "ascending" ? order : -order;
      });
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", direction);
      body.append(...rows);
    });
  }
}
"""

# Views that have a number for a width are made as wide as there is room for.
_DRAW = """
for (const place of document.querySelectorAll("[data-chart]")) {
  const spec = JSON.parse(document.getElementById(place.dataset.chart).textContent);
  const room = place.clientWidth - Number(place.dataset.beside);
  for (const view of [spec, ...(spec.vconcat ?? [])])
    if (typeof view.width === "number") view.width = Math.max(300, Math.min(view.width, room));
  if (spec.columns && room < 900) spec.columns = 1;
  const options = {mode: "vega-lite", ast: true, renderer: "canvas", actions: {export: true, source: false, \
compiled: false, editor: false}};
  vegaEmbed(place, spec, options).catch(error => {
    place.textContent = "The chart cannot be drawn: " + error.message;
    console.error(error);
  });
}
"""


@dataclass(frozen=True)
class Markup:
    """HTML that is put into a page as it is."""

    html: str


@dataclass
class Page:
    """A page that is being written, from top to bottom."""

    title: str
    links: Mapping[str, str] = field(default_factory=lambda: PAGES)
    body: list[str] = field(default_factory=list)
    specs: list[str] = field(default_factory=list)
    has_table: bool = False
    style: str = ""
    scripts: list[str] = field(default_factory=list)

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self.body.append(f"<p>{escaped(text)}</p>")

    def markup(self, markup: Markup) -> None:
        """Add HTML."""
        self.body.append(markup.html)

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Add a row of facts, by name."""
        cells = "".join(
            f"<div><b>{value.html if isinstance(value, Markup) else escaped(shown(value))}</b>"
            f"<span>{escaped(name)}</span></div>"
            for name, value in facts.items()
        )
        self.body.append(f'<div class="facts">{cells}</div>')

    def chart(self, chart: Any, beside: int) -> None:
        """Add a chart; `beside` is how many pixels its axes and legends take."""
        name = f"chart{len(self.specs)}"
        with alt.data_transformers.disable_max_rows():
            self.specs.append(json_in_page(chart.to_json(indent=None, validate=False)))
        self.body.append(f'<div class="card drawn"><div data-chart="{name}" data-beside="{beside}"></div></div>')

    def table(self, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> None:
        """Add a table that sorts."""
        self.has_table = True
        heads = "".join(column.head() for column in columns)
        lines = "\n".join(f"<tr>{''.join(column.cell(row) for column in columns)}</tr>" for row in rows)
        self.body.append(
            f'<div class="card table"><table class="sortable"><thead><tr>{heads}</tr></thead>\n'
            f"<tbody>{lines}</tbody></table></div>"
        )

    def write(self, folder: Path, name: str) -> Path:
        """Write the page under a name in a folder, or in a folder of that."""
        up = "../" * name.count("/")
        data = "".join(
            f'<script type="application/json" id="chart{place}">{spec}</script>\n'
            for place, spec in enumerate(self.specs)
        )
        links = "".join(
            f'<a href="{up}{page}"{" aria-current=page" if page == name else ""}>{escaped(label)}</a>'
            for page, label in self.links.items()
        )
        return write_document(
            folder / name,
            self.title,
            "\n".join([*self.body, data]),
            style=_STYLE + self.style,
            header=f"<nav>{links}</nav>" if links else "",
            scripts=[*([_DRAW] if self.specs else []), *([_SORT] if self.has_table else []), *self.scripts],
            beside=f"{up}{LIBRARY}" if self.specs else None,
            with_pictures=True,
        )


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    key
        Of a row, which may hold `Markup`.
    title
        Its heading.
    form
        Format of its numbers; None for text.
    kind
        Its style.
    is_sortable
        Its heading sorts; numbers from the highest at first.
    """

    key: str
    title: str
    form: str | None = None
    kind: str = ""
    is_sortable: bool = True

    def head(self) -> str:
        """Return its heading."""
        style, first = self._style(), ' data-first="down"' if self.form else ""
        title = f"<button>{escaped(self.title)}</button>" if self.is_sortable else escaped(self.title)
        return f'<th scope="col"{style}{first}>{title}</th>'

    def cell(self, row: Mapping[str, Any]) -> str:
        """Return its cell of a row."""
        value = row.get(self.key)
        inner = value.html if isinstance(value, Markup) else escaped(shown(value, self.form))
        known = "" if value is None or isinstance(value, Markup) else escaped(str(value))
        known = escaped(str(row[f"{self.key}_sorted"])) if f"{self.key}_sorted" in row else known
        return f'<td{self._style()} data-v="{known}">{inner}</td>'

    def _style(self) -> str:
        name = self.kind or ("number" if self.form else "")
        return f' class="{name}"' if name else ""


def shown(value: Any, form: str | None = None) -> str:
    """Return a value as text; an unknown one is a dash."""
    if value is None:
        return "–"
    if form is not None:
        return format(value, form).replace("-", "−") if not isinstance(value, str) else value
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def link(url: str, text: str) -> Markup:
    """Return a link to a file of the folder."""
    return Markup(f'<a href="{quote(url)}">{escaped(text)}</a>')


def thumbnail(url: str, picture: str, about: str, below: str = "") -> Markup:
    """Return a picture that links to a page, with a name of a file below it."""
    shown = f'<img class="drawn" src="{quote(picture)}" loading="lazy" alt="{escaped(about)}">'
    return Markup(f'<a href="{quote(url)}">{shown}</a>' + (f"<small>{escaped(below)}</small>" if below else ""))


def write_library(folder: Path) -> None:
    """Write the script that all charts need, once for all pages."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / LIBRARY) as file:
        file.write(vega_library().encode())
