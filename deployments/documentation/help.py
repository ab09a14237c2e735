"""The command `lightlake help`: pages of the documentation in the terminal, without a network."""

from __future__ import annotations

import sys
import textwrap

from cyclopts import App

from deployments.documentation.pages import Documentation, section, without_comments
from lake.cli import app
from lake.errors import ConfigurationError
from lake.output import say, terminal_width

_INDENT = "  "


def show_help(topic: str | None = None) -> int:
    """Show a page of the documentation, or list all pages.

    It needs no network. For the options of a command: lightlake COMMAND --help.

    Parameters
    ----------
    topic
        The page: how-to/s3, or s3 if only one page is called so; how-to/s3#HEADING shows one of its sections. Default:
        list all pages.
    """
    pages = Documentation()
    if topic is None:
        say(_listed(pages, terminal_width()))
        return 0
    name, _, anchor = topic.partition("#")
    try:
        page = pages.find(name)
    except ConfigurationError as error:
        if name not in _commands(app):
            raise
        raise ConfigurationError(error.message, hint=f"it is a command: lightlake {name} --help") from None
    text = pages.text(page.path)
    if anchor:
        text = section(text, anchor)
    if terminal_width() is None:
        say(without_comments(text).rstrip("\n"))
        return 0
    from deployments.documentation.shown import console, show

    show(text, page.path, console(sys.stdout))
    return 0


def _commands(group: App) -> set[str]:
    return {name for name in group if not name.startswith("-")}


def _listed(pages: Documentation, width: int | None) -> str:
    """Return the topics and titles of all pages, by part."""
    room = max((len(page.topic) for part in pages.parts.values() for page in part), default=0)
    lines = ["Pages of the documentation. Show one: lightlake help TOPIC"]
    for part, found in pages.parts.items():
        lines += ["", part]
        for page in found:
            if page.path.endswith("index.md"):
                continue
            begin = f"{_INDENT}{page.topic:{room}}{_INDENT}"
            lines += textwrap.wrap(page.title, width or 1000, initial_indent=begin, subsequent_indent=" " * len(begin))
    return "\n".join(lines)
