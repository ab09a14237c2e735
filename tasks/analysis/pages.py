"""What HTML pages with charts share: the script that draws, and how data become harmless text in a page."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache


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
