"""The pages of the documentation: where they are, their order, titles and sections."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from deployments.documentation.generated import PAGES
from lake.errors import ConfigurationError

# Folders of docs/, in the order in which they are shown, with their titles.
PARTS = {"tutorials": "Tutorials", "how-to": "How-to", "reference": "Reference", "explanation": "Explanation"}
_INDEX = "index.md"

# A link to a page of the same folder: its words, and the page.
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([\w.-]+\.md)(?:#[\w-]*)?\)")
_COMMENT = re.compile(r"^[ \t]*<!--.*?-->[ \t]*\n(?:[ \t]*\n)?|<!--.*?-->", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r"^ *(```+|~~~+)")
_HEADING = re.compile(r"^(#{1,6}) +(.*?) *#*(?: *\{[^{}]*\})?$")
_MOST_NEAR = 3


@dataclass(frozen=True)
class Page:
    """A page: its path below docs/, and its title."""

    path: str
    title: str

    @property
    def topic(self) -> str:
        """Return what `lightlake help` calls the page.

        Examples
        --------
        >>> Page("how-to/s3.md", "A lake on S3").topic, Page("how-to/index.md", "How-to").topic
        ('how-to/s3', 'how-to')
        """
        return self.path.removesuffix(".md").removesuffix("/index")


def folder() -> Path:
    """Return the folder of the pages that are files: that of an installed package, or docs/ of a checkout.

    Raises
    ------
    ConfigurationError
        If there is neither.
    """
    for found in (Path(__file__).parent / "pages", Path(__file__).parents[2] / "docs"):
        if found.is_dir():
            return found
    raise ConfigurationError("the documentation is not installed", hint="install lightlake again, from its wheel")


@dataclass(frozen=True)
class Documentation:
    """All pages: the files of a folder, and those that are made from the code.

    Parameters
    ----------
    root
        The folder.
    generated
        Path of each page that is made, and the function that makes it.
    """

    root: Path = field(default_factory=folder)
    generated: Mapping[str, Callable[[], str]] = field(default_factory=lambda: PAGES)

    @cached_property
    def paths(self) -> list[str]:
        """Return the paths of all pages."""
        files = {path.relative_to(self.root).as_posix() for path in self.root.rglob("*.md")}
        return sorted(files | self.generated.keys())

    def text(self, path: str) -> str:
        """Return the Markdown of a page."""
        if path in self.generated:
            return self.generated[path]()
        return (self.root / path).read_text(encoding="utf-8")

    def links(self, part: str) -> dict[str, str]:
        """Return the pages that the index of a part links, in its order, with the words of the first link to each."""
        index = f"{part}/{_INDEX}"
        found: dict[str, str] = {}
        for words, name in _LINK.findall(self.text(index)) if index in self.paths else ():
            if (path := f"{part}/{name}") in self.paths:
                found.setdefault(path, words)
        return found

    @cached_property
    def parts(self) -> dict[str, list[Page]]:
        """Return each part's title and pages: the index, the pages that it links, in its order, then others.

        Pages outside of the four parts come last.
        """
        found: dict[str, list[Page]] = {}
        for part, title in PARTS.items():
            links = self.links(part)
            own = [path for path in self.paths if path.startswith(f"{part}/")]
            ordered = [path for path in (f"{part}/{_INDEX}", *links, *own) if path in own]
            found[title] = [Page(path, self._title(path, links)) for path in dict.fromkeys(ordered)]
        others = [path for path in self.paths if path.partition("/")[0] not in PARTS and path != _INDEX]
        found["Others"] = [Page(path, self._title(path, {})) for path in others]
        return {title: pages for title, pages in found.items() if pages}

    def _title(self, path: str, links: Mapping[str, str]) -> str:
        """Return a page's first heading; of one that would have to be made for it, the words of the link to it."""
        if path in self.generated:
            return links.get(path) or _from_name(path)
        return self.title(path)

    def title(self, path: str) -> str:
        """Return the first heading of a page, or what its name says if it has none."""
        text = self.text(path) if path in self.paths else ""
        return next((title for _, _, title in headings(text)), _from_name(path))

    def find(self, topic: str) -> Page:
        """Return the page of a topic: its path without .md, or the last part of it if only one page has that.

        Raises
        ------
        ConfigurationError
            If there is no such page, or several have that name.
        """
        asked = topic.strip().strip("/").removeprefix("docs/").removesuffix(".md").lower()
        pages = {page.topic: page for part in self.parts.values() for page in part}
        if _INDEX in self.paths:
            pages["index"] = Page(_INDEX, self._title(_INDEX, {}))
        short: dict[str, list[Page]] = {}
        for page in pages.values():
            short.setdefault(Path(page.topic).name, []).append(page)
        if asked in pages:
            return pages[asked]
        named = short.get(asked, [])
        if len(named) == 1:
            return named[0]
        if named:
            several = " or ".join(f"lightlake help {page.topic}" for page in named)
            raise ConfigurationError(f"several pages are called {asked}", hint=several)
        near = {
            page.topic: None for name in difflib.get_close_matches(asked, short, _MOST_NEAR) for page in short[name]
        }
        near |= dict.fromkeys(difflib.get_close_matches(asked, pages, _MOST_NEAR))
        meant = f"did you mean {', '.join(list(near)[:_MOST_NEAR])}? " if near else ""
        raise ConfigurationError(f"no page is called {topic!r}", hint=f"{meant}all pages: lightlake help")


def _from_name(path: str) -> str:
    return Path(path).stem.replace("-", " ").capitalize()


def without_comments(text: str) -> str:
    r"""Leave out HTML's comments, except in blocks of code.

    Examples
    --------
    >>> without_comments("a\n\n<!-- not run: no server -->\n```bash\nls <!-- -->\n```\n")
    'a\n\n```bash\nls <!-- -->\n```\n'
    """
    kept, prose = list[str](), list[str]()

    def comments_out() -> str:
        left = _COMMENT.sub("", "".join(prose))
        prose.clear()
        return left

    for line, is_code in _lines(text):
        if is_code:
            kept += [comments_out(), line]
        else:
            prose.append(line)
    return "".join([*kept, comments_out()])


def headings(text: str) -> list[tuple[int, int, str]]:
    r"""Return the line, level and title of each heading of a page.

    Examples
    --------
    >>> headings("# A\n\n## B c\n")
    [(0, 1, 'A'), (2, 2, 'B c')]
    """
    found = []
    for number, (line, is_code) in enumerate(_lines(text)):
        if not is_code and (match := _HEADING.match(line.rstrip("\n"))):
            found.append((number, len(match[1]), match[2]))
    return found


def section(text: str, anchor: str) -> str:
    r"""Return the part of a page below one of its headings.

    Parameters
    ----------
    anchor
        The heading as links name it: in small letters, with hyphens.

    Raises
    ------
    ConfigurationError
        If the page has no such heading.

    Examples
    --------
    >>> section("# A\n## B c\nbc\n### D\n## E\n", "b-c")
    '## B c\nbc\n### D\n'
    """
    found = headings(text)
    for at, (start, level, title) in enumerate(found):
        if anchor_of(title) == anchor.lower():
            end = next((line for line, other, _ in found[at + 1 :] if other <= level), None)
            return "".join(text.splitlines(keepends=True)[start:end])
    known = ", ".join(anchor_of(title) for _, _, title in found)
    raise ConfigurationError(f"the page has no heading {anchor!r}", hint=f"its headings: {known or 'none'}")


def anchor_of(title: str) -> str:
    """Return how links name a heading, as the site does.

    Examples
    --------
    >>> anchor_of("`lightlake pull`: one archive")
    'lightlake-pull-one-archive'
    """
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each line with its end, and whether it belongs to a block of code."""
    fence = ""
    for line in text.splitlines(keepends=True):
        match = _FENCE.match(line)
        if fence:
            yield line, True
            if match and match[1].startswith(fence) and not line.strip().strip("`~"):
                fence = ""
        else:
            fence = match[1] if match else ""
            yield line, bool(match)
