"""Figures as a page carries them."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any


def figure(page: Path, number: int = 0) -> dict[str, Any]:
    """Return the Vega-Lite specification of a figure on a page."""
    packed = re.search(rf'id="figure-{number}">([^<]*)<', page.read_text())
    assert packed, f"no figure {number} on {page}"
    spec: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    return spec
