"""Pages of the documentation that are made from the code: one function each."""

from __future__ import annotations

from collections.abc import Callable

from deployments.documentation.errors import errors_page

# Path below docs/, and what returns the page's Markdown.
PAGES: dict[str, Callable[[], str]] = {"reference/errors.md": errors_page}
