"""Pages of the documentation that are made from the code: one function each."""

from __future__ import annotations

from collections.abc import Callable

# Path below docs/, and what returns the page's Markdown.
PAGES: dict[str, Callable[[], str]] = {}
