"""The frame of every HTML page: its style, light, dark and printed, its policy, and text that is harmless in it.

A policy in each page lets the browser run only the scripts that it names by their hash, and reach nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from lake.output import whole_file
from lake.text import one_line

# Pictures and charts are drawn for white paper: a dark page inverts their lightness, and keeps their hues.
_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --grey: #52606d; --line: #d9dee4; --paper: #f5f7fa; --card: #fff;
  --link: #005a8f; --hover: #f0f4f8; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --ink: #e6eaee; --grey: #a5b0bb; --line: #3a4450; --paper: #14181d; --card: #1b2128;
    --link: #7cc0ee; --hover: #232b34; }
  .drawn svg, .drawn canvas, img.drawn { filter: invert(0.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif; }
a { color: var(--link); text-decoration: none; }
a:hover, a:focus-visible { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 1px; }
header { background: var(--card); border-bottom: 1px solid var(--line); }
nav, main { max-width: 1200px; margin: 0 auto; padding: 0 clamp(10px, 3vw, 24px); }
nav { display: flex; flex-wrap: wrap; gap: 2px 18px; padding-top: 12px; padding-bottom: 12px; font-size: 14px; }
nav a[aria-current] { color: var(--ink); font-weight: 600; }
main { padding-bottom: 40px; }
h1 { font-size: 24px; line-height: 1.25; margin: 24px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 32px 0 10px; overflow-wrap: anywhere; }
p { margin: 0 0 14px; max-width: 75ch; color: var(--grey); overflow-wrap: anywhere; }
@media print {
  nav, form, details, .tool { display: none !important; }
  body { background: #fff; }
  main { max-width: none; padding: 0; }
}
"""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{header}<main>
<h1>{title}</h1>
{body}
</main>
{scripts}</body>
</html>
"""


def write_document(
    path: Path,
    title: str,
    body: str,
    *,
    style: str = "",
    header: str = "",
    scripts: Sequence[str] = (),
    beside: str | None = None,
    with_pictures: bool = False,
) -> Path:
    """Write a page, whole or not at all.

    Parameters
    ----------
    path
        The file; its folder is made if need be.
    title
        Plain text.
    body, header
        HTML of the page, and of what stands above it.
    style
        CSS, after that of all pages.
    scripts
        Scripts that the page carries and runs, in this order. No others run.
    beside
        URL of a script in the page's folder or above, which runs before them.
    with_pictures
        The page shows pictures of its folder.
    """
    sources = [script_hash(script) for script in scripts]
    if beside is not None:
        sources = ["'self'", "file:", *sources]  # of a folder on disk or a server: nothing else is named
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(sources) or chr(39) + 'none' + chr(39)}",
            "style-src 'unsafe-inline'",  # Vega sets its own
            "img-src 'self' file: data: blob:" if with_pictures else "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    parts = [] if beside is None else [f'<script src="{html.escape(beside)}"></script>\n']
    parts += [f"<script>{script}</script>\n" for script in scripts]
    text = _PAGE.format(
        policy=policy,
        title=escaped(title),
        style=_STYLE + style,
        header=f"<header>{header}</header>\n" if header else "",
        body=body,
        scripts="".join(parts),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(text.encode())
    return path


def escaped(text: str) -> str:
    """Return a text as HTML, in one line."""
    return html.escape(one_line(text))


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
