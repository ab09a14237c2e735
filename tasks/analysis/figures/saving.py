"""Write a figure as a page, a picture or its specification: the file's extension says which."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lake.errors import ConfigurationError
from lake.output import whole_file
from tasks.analysis.figures.light_curve import with_caption
from tasks.analysis.figures.pictures import packed_png

FORMATS = ("html", "png", "svg", "pdf", "json")
# Pixels of a PNG for one of the figure.
_SCALE = 2.0


def format_of(path: Path) -> str:
    """Return the format that a file's extension says.

    Raises
    ------
    ConfigurationError
        If it says none.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ConfigurationError(
            f"{path.name} does not say what kind of figure it is to be",
            hint=f"end it in {', '.join(f'.{one}' for one in FORMATS[:-1])} or .{FORMATS[-1]}",
        )
    return kind


def encoded(spec: Mapping[str, Any], kind: str) -> bytes:
    """Return a figure as the content of a file of that kind, its caption below it; a page is `pages.page`'s."""
    import vl_convert

    text = json.dumps(with_caption(spec), separators=(",", ":"))
    if kind == "json":
        return text.encode()
    if kind == "svg":
        return str(vl_convert.vegalite_to_svg(text)).encode()
    if kind == "pdf":
        return bytes(vl_convert.vegalite_to_pdf(text))
    return packed_png(vl_convert.vegalite_to_png(text, scale=_SCALE))


def save(content: bytes, path: Path) -> Path:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(content)
    return path
