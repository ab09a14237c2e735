"""Escape text for Markdown: Prefect's UI reads cells and descriptions of artifacts as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lake.text import one_line

# What may begin a span, a link (bare ones too, as GitHub's Markdown has them), an entity, a cell; and, where a line
# begins, a block. A _ within a word is one.
_MARKS = re.compile(
    r"[\\`*\[\]<>&|~#@!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.|^[-+=]|(?:^\d+)[.)]", re.IGNORECASE
)

_PLAIN = re.compile(r"[\w.:-]+")


def text(value: str) -> str:
    """Escape a text as one line of Markdown, for a paragraph, an entry of a list or a cell."""
    return _MARKS.sub(lambda mark: f"{mark[0][:-1]}\\{mark[0][-1]}", one_line(value))


def code(value: str) -> str:
    """Return an id as code if it has only plain characters, else as text."""
    return f"`{value}`" if _PLAIN.fullmatch(value) else text(value)


def row(*values: Any) -> str:
    """Return a row of a table, of numbers and of what `text` and `code` return."""
    return f"| {' | '.join('' if value is None else str(value) for value in values)} |"


def cells(values: Mapping[str, Any]) -> dict[str, Any]:
    """Escape the texts in a row of a table artifact."""
    return {name: text(value) if isinstance(value, str) else value for name, value in values.items()}
