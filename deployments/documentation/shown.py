"""Show a page of Markdown in a terminal."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import TextIO

from markdown_it.token import Token
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text
from rich.theme import Theme

from deployments.documentation.pages import without_comments

# Longer lines are hard to read.
WIDEST = 100
_INDENT = 2

# A box of the site: its kind, its title, and the indented lines below.
_BOX = re.compile(r'^(?:!!!|\?\?\?\+?) +(\w+)(?: +"([^"\n]*)")?[^\n]*\n((?:(?: {4}[^\n]*)?\n)+)', re.MULTILINE)
# What only the site needs: classes of links, buttons and pictures.
_CLASSES = re.compile(r"(?<=[)\]`])\{[^{}\n]*[.#:=][^{}\n]*\}")


def console(stream: TextIO, width: int | None = None) -> Console:
    """Return a terminal's console, with colours that light and dark terminals show."""
    return Console(file=stream, width=width, theme=Theme({"markdown.code": "bold cyan", "markdown.link": "none"}))


def show(text: str, path: str, console: Console) -> None:
    """Show a page as wide as the terminal, with the topics that its links lead to.

    Parameters
    ----------
    text
        The Markdown of the page.
    path
        The path of the page below docs/, from which links are followed.
    """
    page = _Shown(_with_quotes(without_comments(text)), posixpath.dirname(path))
    console.print(page, width=min(console.width, WIDEST))
    if page.leads_on:
        console.print(Text("\nWhat follows a link in brackets is a page, too: lightlake help PAGE", style="dim"))


def _with_quotes(text: str) -> str:
    """Turn the boxes of the site into quotes."""

    def quoted(match: re.Match[str]) -> str:
        kind, title, body = match.groups()
        lines = [f"**{title or kind.capitalize()}**", "", *(line[4:] for line in body.strip("\n").split("\n"))]
        return "".join(f"> {line}\n" for line in lines) + "\n"

    return _CLASSES.sub("", _BOX.sub(quoted, text))


class _Heading(Heading):
    """A heading at the left, those of the first two levels with a line below."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = {"h1": "━", "h2": "─"}.get(self.tag)
        yield Text(self.text.plain, style="bold")
        if line:
            yield Text(line * min(cell_len(self.text.plain), options.max_width), style="bold")


class _CodeBlock(CodeBlock):
    """A block of code in the terminal's own colours, indented if there is room."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        longest = max((cell_len(line) for line in code.split("\n")), default=0)
        indent = max(0, min(_INDENT, options.max_width - longest))
        yield Padding(
            Syntax(code, self.lexer_name, theme="ansi_dark", background_color="default", word_wrap=True),
            (0, 0, 0, indent),
        )


class _Shown(Markdown):
    """A page whose links name topics and addresses, and whose pictures are their descriptions."""

    elements = {**Markdown.elements, "heading_open": _Heading, "fence": _CodeBlock, "code_block": _CodeBlock}  # noqa: RUF012

    def __init__(self, text: str, folder: str) -> None:
        super().__init__(text, hyperlinks=False)
        self.parsed = list(_readable(self.parsed, folder))
        links = [one for token in self.parsed for one in token.children or () if one.type == "link_open"]
        self.leads_on = any(":" not in str(link.attrs["href"]) for link in links)


def _readable(tokens: Iterable[Token], folder: str) -> Iterator[Token]:
    """Yield tokens with topics and addresses as the targets of links, without links that a terminal cannot follow."""
    kept: list[bool] = []
    for token in tokens:
        if token.type == "image":
            yield Token("text", "", 0, content=f"[picture: {token.content}]")
            continue
        if token.children:
            token.children = list(_readable(token.children, folder))
        if token.type == "link_open":
            target = _target(str(token.attrs.get("href", "")), folder)
            token.attrs["href"] = target
            kept.append(bool(target) and token.info != "auto")
        if token.type in ("link_open", "link_close"):
            leads = kept[-1] if token.type == "link_open" else kept.pop()
            if not leads:
                continue
        yield token


def _target(href: str, folder: str) -> str:
    """Return the topic or address of a link; nothing for files that are no pages, and within a page."""
    if re.match(r"\w+:", href):
        return href
    path, _, anchor = href.partition("#")
    if not path.endswith(".md"):
        return ""
    full = posixpath.normpath(posixpath.join(folder, path))
    if full.startswith("../"):  # a file of the project, not of its documentation
        return ""
    topic = full.removesuffix(".md").removesuffix("/index")
    return f"{topic}#{anchor}" if anchor else topic
