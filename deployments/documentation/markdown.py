"""Write Markdown: tables whose cells are safe, paragraphs of docstrings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

# What would begin a span, a link, a tag, an entity or a list of attributes. A _ within a word is only one.
_MARKS = re.compile(r"[\\*\[\]<{}]|&(?=[#\w]+;)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_CODE = re.compile(r"(``.+?``|`[^`]+`)")


def prose(text: str) -> str:
    r"""Escape a text for Markdown, except what is code in it.

    Examples
    --------
    >>> prose("a column *.x, such as `a*b`")
    'a column \\*.x, such as `a*b`'
    """
    parts = _CODE.split(text)
    return "".join(part if number % 2 else _MARKS.sub(_escaped, part) for number, part in enumerate(parts))


def _escaped(mark: re.Match[str]) -> str:
    return {"<": "&lt;", "&": "&amp;"}.get(mark[0], f"\\{mark[0]}")


def cell(value: Any) -> str:
    """Return a value as a cell: on one line, without a bar that would end it."""
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; columns that are empty in all rows are left out."""
    cells = [[cell(value) for value in row] for row in rows]
    kept = [at for at, _ in enumerate(head) if any(row[at] for row in cells)]
    lines = [[head[at] for at in kept], ["---" for _ in kept], *([row[at] for at in kept] for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(value: Any) -> str:
    """Return a value as code; nothing, if there is none."""
    return "" if value is None or value == "" else f"`{value}`"


def fenced(text: str, language: str = "text") -> str:
    """Return a block of code."""
    return f"```{language}\n{text}\n```"


def page(*parts: str) -> str:
    """Join the parts of a page, with a line between them; empty ones are left out."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"
