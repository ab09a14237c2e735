"""Write HTML pages: a chart with all that it needs, safe for any names in it.

Values from a lake are escaped text, or JSON that no browser runs. A policy in the page lets the browser run only the
two scripts that it names by their hash, and reach nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
from functools import lru_cache
from pathlib import Path

import altair as alt

from lake.output import whole_file
from lake.text import one_line

# Vega's interpreter (`ast`) needs no eval, which the policy forbids. Vega's menu keeps only the export: the view of the
# source is a page of unescaped JSON, and the editor is on the web.
_START = """
  const place = document.getElementById("vis");
  const options = {mode: "vega-lite", ast: true, actions: {export: true, source: false, \
compiled: false, editor: false}};
  vegaEmbed(place, JSON.parse(document.getElementById("spec").textContent), options).catch(error => {
    place.textContent = "Javascript Error: " + error.message;
    console.error(error);
  });
"""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>#vis.vega-embed {{ width: 100%; display: flex; }}</style>
<script>{library}</script>
</head>
<body>
<div id="vis"></div>
<script type="application/json" id="spec">{spec}</script>
<script>{start}</script>
</body>
</html>
"""


def write_chart_page(chart: alt.Chart | alt.VConcatChart, title: str, path: Path) -> Path:
    """Write a page with a chart that needs no network and no other file; the title is plain text."""
    library = vega_library()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {script_hash(library)} {script_hash(_START)}",
            "style-src 'unsafe-inline'",  # Vega sets its own
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    with alt.data_transformers.disable_max_rows():
        spec = json_in_page(chart.to_json(indent=None))
    text = _PAGE.format(policy=policy, title=html.escape(one_line(title)), library=library, spec=spec, start=_START)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(text.encode())
    return path


@lru_cache(maxsize=1)
def vega_library() -> str:
    """Return the script that draws: Vega, Vega-Lite and vega-embed, as `window.vegaEmbed`."""
    import vl_convert

    library: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return library


def script_hash(script: str) -> str:
    """Return what a content security policy calls a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def json_in_page(text: str) -> str:
    r"""Escape JSON so that nothing in it can end or begin a script. Non-ASCII is \u.... in it already."""
    return text.translate({ord(one): f"\\u{ord(one):04x}" for one in "<>&"})
