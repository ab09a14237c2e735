"""Every page is a topic of `lightlake help`, is found by its short name, and fits a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from helpers.commands import whole_app
from helpers.processes import Run, run  # noqa: F401
from rich.cells import cell_len

from deployments.documentation import help as help_command
from deployments.documentation.pages import Documentation, Page, folder, section, without_comments
from deployments.documentation.shown import console, show
from lake.errors import ConfigurationError

PAGES = Documentation()

SMALL = {
    "index.md": "# A lake\n",
    "notes.md": "Without a heading.\n",
    "tutorials/index.md": "# Tutorials\n\n- [Second](b.md): two\n- [First](a.md#part): one\n- [Gone](gone.md)\n",
    "tutorials/a.md": "# The first\n\n<!-- not run: no server -->\n```bash\nls # <!-- kept -->\n```\n",
    "tutorials/b.md": "# The second\n",
    "tutorials/c.md": "# Not linked\n",
    "how-to/python.md": "# From Python\n\nSee [the names](../reference/python.md#names) and ![a curve](x.png).\n",
    "reference/index.md": "# Reference\n\n- [Everything in Python](python.md)\n",
}


@pytest.fixture
def small(tmp_path: Path) -> Documentation:
    for path, text in SMALL.items():
        (tmp_path / "docs" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / path).write_text(text)
    made = {"reference/python.md": lambda: "# Python\n\n## Names\n\n`open`\n"}
    return Documentation(tmp_path / "docs", made)


def drawn(text: str, path: str, width: int = 80) -> str:
    to = io.StringIO()
    show(text, path, console(to, width))
    return to.getvalue()


def test_every_page_is_listed_and_shown(run: Run) -> None:  # noqa: F811
    whole_app()
    listed = run("help")
    assert listed.code == 0
    files = {path.relative_to(folder()).as_posix() for path in folder().rglob("*.md")}
    assert len(PAGES.paths) >= max(len(files), 10)
    assert files <= set(PAGES.paths)
    for path in PAGES.paths:
        topic = path.removesuffix(".md").removesuffix("/index")
        assert PAGES.find(topic).path == path
        assert path.endswith("index.md") or re.search(rf"^  {re.escape(topic)} +\S", listed.out, re.MULTILINE), topic
    one = next(path for path in PAGES.paths if path not in PAGES.generated)
    shown = run("help", one)
    assert shown.code == 0
    assert shown.out == without_comments(PAGES.text(one)).rstrip("\n") + "\n", "Markdown, where no terminal is"


@pytest.mark.parametrize("path", PAGES.paths)
def test_a_page_fits_a_terminal(path: str) -> None:
    text = PAGES.text(path)
    lines = drawn(text, path).splitlines()
    assert max(map(cell_len, lines)) <= 80
    words = set(re.findall(r"\w{4,}", " ".join(lines)))
    said = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|<[^>]*>|\{[^}]*\}|https?:\S+", " ", text, flags=re.DOTALL)
    lost = set(re.findall(r"\b[a-z]{5,12}\b", re.sub(r"^\|.*|^    .*|^ *[!?]{3}.*", " ", said, flags=re.MULTILINE)))
    assert len(lost - words) <= 0.02 * len(lost) + 1, lost - words


def test_pages_are_in_the_order_of_their_index(small: Documentation) -> None:
    assert {part: [page.path for page in pages] for part, pages in small.parts.items()} == {
        "Tutorials": [f"tutorials/{name}.md" for name in ("index", "b", "a", "c")],
        "How-to": ["how-to/python.md"],
        "Reference": ["reference/index.md", "reference/python.md"],
        "Others": ["notes.md"],
    }
    titles = {page.path: page.title for pages in small.parts.values() for page in pages}
    assert titles["tutorials/a.md"] == "The first"
    assert titles["reference/python.md"] == "Everything in Python", "the link says it, before the page is made"
    assert titles["notes.md"] == "Notes"


def test_a_page_is_found_by_what_one_may_type(small: Documentation) -> None:
    for asked in ("tutorials/a", "a", "A", "docs/tutorials/a.md", " a.md"):
        assert small.find(asked).path == "tutorials/a.md"
    assert small.find("tutorials") == Page("tutorials/index.md", "Tutorials")
    assert small.find("index").path == "index.md"
    with pytest.raises(ConfigurationError, match=r"several .*help how-to/python or lightlake help reference/python"):
        small.find("python")
    with pytest.raises(ConfigurationError, match=r"did you mean how-to/python, reference/python\?") as error:
        small.find("pyhton")
    assert "lightlake help" in str(error.value.hint)
    with pytest.raises(ConfigurationError) as error:
        small.find("qqqq")
    assert "did you mean" not in str(error.value)


def test_what_is_asked_for_is_not_there(run: Run) -> None:  # noqa: F811
    whole_app()
    done = run("help", "pull")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "lightlake pull --help" in done.err
    assert run("help", "no/such/page").code == 2


def test_links_pictures_boxes_and_comments_in_a_terminal(small: Documentation) -> None:
    text = drawn(small.text("how-to/python.md"), "how-to/python.md")
    assert "the names (reference/python#names) and [picture: a curve]." in text
    assert text.splitlines()[-1].endswith("lightlake help PAGE")
    box = (
        '!!! note "Mind"\n\n    This [one](#here), <https://a.org> and [b](https://b.org).\n\n    And more.\n\nAfter '
        "[a file](../../lake/cli.py){ .button }.\n<!-- left\nout -->\n"
    )
    lines = [line.rstrip() for line in drawn(box, "how-to/python.md").splitlines() if line.strip("▌ ")]
    assert lines == ["▌ Mind", "▌ This one, https://a.org and b (https://b.org).", "▌ And more.", "After a file."]
    assert "<!-- kept -->" in drawn(small.text("tutorials/a.md"), "tutorials/a.md")
    assert "not run" not in drawn(small.text("tutorials/a.md"), "tutorials/a.md")


def test_a_line_of_80_characters_in_a_block_of_code_stays_one() -> None:
    line = "x" * 80
    assert [one.strip() for one in drawn(f"```text\n{line}\n```\n", "a.md").splitlines() if one.strip()] == [line]


def test_a_section(small: Documentation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(help_command, "Documentation", lambda: small)
    assert help_command.show_help("reference/python#names") == 0
    assert capsys.readouterr().out == "## Names\n\n`open`\n"
    with pytest.raises(ConfigurationError, match="its headings: python, names"):
        section(small.text("reference/python.md"), "nothing")


def test_a_terminal_gets_no_markdown(
    small: Documentation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(help_command, "Documentation", lambda: small)
    monkeypatch.setattr(help_command, "terminal_width", lambda: 40)
    assert help_command.show_help("a") == 0
    out = capsys.readouterr().out
    assert "The first\n━━━━━━━━━" in out
    assert "```" not in out
    assert help_command.show_help() == 0
    assert max(map(len, capsys.readouterr().out.splitlines()[1:])) <= 40


def test_documentation_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from deployments.documentation import pages

    monkeypatch.setattr(pages, "__file__", str(tmp_path / "deployments" / "documentation" / "pages.py"))
    with pytest.raises(ConfigurationError, match="not installed"):
        folder()
