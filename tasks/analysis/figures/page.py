"""One HTML page with figures, a search among them if there are many, and nothing that it would have to load.

Names and values are escaped text, or data that no browser runs: see `tasks.analysis.pages`.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lake.text import one_line
from tasks.analysis.figures.light_curve import WIDTH
from tasks.analysis.pages import json_in_page, vega_library, write_document

# More marks than this are painted, not made elements of the page.
_MOST_ELEMENTS = 4_000

_STYLE = """
main { max-width: 1500px; }
h2 { margin: 14px 0 0; }
main p { margin: 0 0 8px; max-width: none; }
form { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin: 10px 0; }
input, button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; padding: 5px 10px; }
input { flex: 1 1 220px; max-width: 420px; }
figure { margin: 12px 0; min-width: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: clamp(4px, 1.2vw, 16px); }
#figure { width: 100%; overflow-x: auto; }
figcaption { color: var(--grey); font-size: 13px; max-width: 110ch; overflow-wrap: anywhere; }
figcaption p, #cite p { margin: 0 0 3px; max-width: none; }
#cite { color: var(--grey); font-size: 13px; max-width: 110ch; overflow-wrap: anywhere; }
.help { font-size: 13px; }
#figure.vega-embed details { position: absolute; right: 0; }
#figure { position: relative; }
@media (max-width: 640px) {
  figure { padding: 0; border: 0; }
  figcaption { padding: 6px; }
}
@media print {
  .help { display: none; }
  #figure svg, #figure canvas { max-width: 100%; height: auto !important; }
}
"""

# The figures are drawn as wide as the window is. Vega's interpreter (`ast`) needs no eval, which the policy forbids.
# Its menu keeps only the export: the view of the source is a page of unescaped JSON, and the editor is on the web.
_START = """
  const place = document.getElementById("figure");
  const about = JSON.parse(document.getElementById("about").textContent);
  const search = document.getElementById("search");
  const said = document.getElementById("said");
  let shown = 0, width = 0, drawing = Promise.resolve();

  async function unpacked(number) {
    const packed = atob(document.getElementById("figure-" + number).textContent);
    const bytes = Uint8Array.from(packed, one => one.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  }
  function fit(part, own, to) {
    if (!part || typeof part !== "object") return;
    for (const [key, value] of Object.entries(part)) {
      if (key === "width" && value === own) part[key] = to;
      else if (key !== "datasets") fit(value, own, to);
    }
  }
  async function draw() {
    const one = about.figures[shown];
    document.getElementById("name").textContent = one.title;
    document.getElementById("position").textContent = one.subtitle;
    const lines = texts => texts.map(text => {
      const line = document.createElement("p");
      line.textContent = text;
      return line;
    });
    document.getElementById("caption").replaceChildren(...lines(one.caption));
    const cite = document.getElementById("cite");
    cite.replaceChildren(cite.firstElementChild, ...lines(one.cite));
    cite.hidden = !one.cite.length;
    const spec = await unpacked(shown);
    document.querySelector(".help").hidden = !spec.params?.length;
    width = place.clientWidth;
    const inner = Math.max(220, width - 75);
    fit(spec, about.width, inner);
    (spec.config.legend ??= {}).columns = Math.max(1, Math.floor(inner / 130));
    await vegaEmbed(place, spec, {mode: "vega-lite", ast: true, renderer: one.painted ? "canvas" : "svg",
      actions: {export: true, source: false, compiled: false, editor: false}});
  }
  function again() {
    drawing = drawing.then(draw).catch(error => {
      place.textContent = "Javascript Error: " + error.message;
      console.error(error);
    });
  }
  function show(number) {
    shown = (number + about.figures.length) % about.figures.length;
    if (search) search.value = about.figures[shown].title;
    said.textContent = about.figures.length > 1 ? `${shown + 1} of ${about.figures.length}` : "";
    again();
  }
  if (search) {
    const names = about.figures.map(one => one.title.toLowerCase());
    const find = () => {
      const text = search.value.trim().toLowerCase();
      const exact = names.indexOf(text);
      const found = exact >= 0 ? exact : names.findIndex(name => text && name.includes(text));
      if (found >= 0) show(found); else said.textContent = "no such target";
    };
    search.addEventListener("change", find);
    search.addEventListener("focus", () => search.select());
    document.getElementById("choice").addEventListener("submit", event => { event.preventDefault(); find(); });
    document.getElementById("before").addEventListener("click", () => show(shown - 1));
    document.getElementById("after").addEventListener("click", () => show(shown + 1));
  }
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (place.clientWidth !== width) again(); }, 150);
  });
  if (about.figures.length) show(0); else said.textContent = "no light curves";
"""

_SEARCH = """<form id="choice" role="search"><label for="search">Target</label>
<input id="search" type="search" list="targets" autocomplete="off"><datalist id="targets">{options}</datalist>
<button type="button" id="before" aria-label="previous target">&larr;</button>
<button type="button" id="after" aria-label="next target">&rarr;</button></form>
"""

_BODY = """\
{search}<p id="said" aria-live="polite"></p>
<h2 id="name"{hidden}></h2>
<p id="position"></p>
<figure><div id="figure" class="drawn" role="img" aria-labelledby="name" aria-describedby="caption"></div>
<figcaption id="caption"></figcaption></figure>
<details id="cite"><summary>To cite and acknowledge</summary></details>
<p class="help">Drag to move along the axis of time, turn the wheel with Shift to zoom, click twice to go back.</p>
<script type="application/json" id="about">{about}</script>
{figures}"""


@dataclass(frozen=True)
class Packed:
    """A figure as a page carries it: words, and its specification compressed."""

    title: str
    subtitle: str
    caption: tuple[str, ...]
    cite: tuple[str, ...]
    painted: bool
    content: str

    @classmethod
    def of(cls, figure: Mapping[str, Any]) -> Packed:
        """Pack a figure that `light_curve` drew."""
        spec = dict(figure)
        title = spec.pop("title", {})
        words = spec.pop("usermeta", {})
        caption, cite = (tuple(one_line(text) for text in words.get(name, ())) for name in ("caption", "cite"))
        marks = sum(len(rows) for rows in spec.get("datasets", {}).values())
        text = json.dumps(spec, separators=(",", ":"))
        packed = base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
        subtitle = " ".join(title.get("subtitle", ()))
        return cls(one_line(title.get("text", "")), one_line(subtitle), caption, cite, marks > _MOST_ELEMENTS, packed)


def write_page(figures: Iterable[Packed], title: str, path: Path) -> Path:
    """Write a page with figures that needs no network and no other file; the title is plain text."""
    made = list(figures)
    about = {
        "width": WIDTH,
        "figures": [
            {name: getattr(one, name) for name in ("title", "subtitle", "caption", "cite", "painted")} for one in made
        ],
    }
    options = "".join(f'<option value="{html.escape(one.title)}"></option>' for one in made)
    body = _BODY.format(
        search=_SEARCH.format(options=options) if len(made) > 1 else "",
        hidden=" hidden" if len(made) == 1 and made[0].title == one_line(title) else "",
        about=json_in_page(json.dumps(about)),
        figures="\n".join(
            f'<script type="application/gzip" id="figure-{number}">{one.content}</script>'
            for number, one in enumerate(made)
        ),
    )
    return write_document(path, title, body, style=_STYLE, scripts=[vega_library(), _START])
