"""Pages of the documentation that are made from the code: one function each."""

from __future__ import annotations

from collections.abc import Callable

from deployments.documentation.archives import archives_page
from deployments.documentation.commands import commands_page
from deployments.documentation.errors import errors_page
from deployments.documentation.python import python_page
from deployments.documentation.settings import settings_page
from deployments.documentation.tables import tables_page

# Path below docs/, and what returns the page's Markdown.
PAGES: dict[str, Callable[[], str]] = {
    "reference/archives.md": archives_page,
    "reference/commands.md": commands_page,
    "reference/errors.md": errors_page,
    "reference/python.md": python_page,
    "reference/settings.md": settings_page,
    "reference/tables.md": tables_page,
}
