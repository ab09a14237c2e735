"""The documentation is complete and its commands exist: README.md and docs/ against the code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import pytest
from cyclopts import App, CycloptsError

from lake.cli import app
from lake.model.declared import declarations
from lake.model.views import view_statements
from lake.settings import Settings
from tasks.sources.registry import REGISTRY

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "deployments" / "cluster" / "README.md")
TEXT = "\n".join(page.read_text() for page in PAGES)
# Settings of the tests, and one of HEASARC's tables and endpoints each as an example.
OTHERS = re.compile(r"LIGHTLAKE_(?:TEST_\w+|TABLES__\w+|ENDPOINTS__\w+)")
STATEMENTS = view_statements(declarations())
VIEW = re.compile(r"CREATE OR REPLACE (?:VIEW|MACRO) (\w+)")


def undocumented(names: Iterable[str], text: str = TEXT) -> list[str]:
    """Return the names that a text does not have as whole words."""
    return [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![A-Za-z0-9]|_[A-Za-z0-9])", text)]


def commands(group: App, path: str = "lightlake") -> list[str]:
    """Return every command with its groups, such as "lightlake targets add"."""
    found = []
    for name in group:
        if not name.startswith("-"):
            inner = [one for one in group[name] if not one.startswith("-")]
            found += commands(group[name], f"{path} {name}") if inner else [f"{path} {name}"]
    return found


def settings() -> list[str]:
    return [f"LIGHTLAKE_{name.upper()}" for name in Settings.model_fields]


def views() -> list[str]:
    return [match[1] for statement in STATEMENTS for match in VIEW.finditer(statement)]


def examples() -> list[tuple[str, str]]:
    """Return the page and text of every `lightlake` command in a block of shell."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```bash\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                command = re.search(r"(?:^|&& )(?:[A-Z_]+=\S+ )*(lightlake .*)", line)
                if command:
                    found.append((page.relative_to(ROOT).as_posix(), command[1]))
    return found


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_command_is_documented() -> None:
    assert len(commands(app)) > 20
    assert undocumented(commands(app)) == []


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert undocumented(settings(), page) == []


def test_every_documented_setting_exists() -> None:
    named = {name.rstrip("_") for name in re.findall(r"LIGHTLAKE_\w+", TEXT) if not OTHERS.fullmatch(name)}
    assert named <= set(settings())


def test_every_view_and_macro_is_documented() -> None:
    page = (ROOT / "docs" / "queries.md").read_text()
    assert len(views()) == len(STATEMENTS)
    assert undocumented(views(), page) == []


def test_every_archive_and_its_release_are_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in REGISTRY if f"\n| `{name}` |" not in readme] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lightlake targets add", "lightlake targets address"),
        ("lightlake pull", "my-lightlake pull"),
        ("LIGHTLAKE_URL", "LIGHTLAKE_URLS and LIGHTLAKE_URL_2"),
        ("cone", "sources_in_cone"),
        ("virac", "virac_csv"),
    ],
)
def test_a_name_that_is_only_part_of_another_is_missed(name: str, text: str) -> None:
    assert undocumented([name], text) == [name]
    assert undocumented([name], f"`{name}`") == []


@pytest.mark.parametrize(("page", "command"), examples(), ids=lambda value: value)
def test_an_example_is_understood(page: str, command: str) -> None:
    tokens = shlex.split(re.split(r" [#|] ?", command)[0].rstrip(" \\"), posix=True)[1:]
    app.parse_args(tokens, exit_on_error=False, print_error=False)


def test_a_wrong_example_is_not() -> None:
    with pytest.raises(CycloptsError):
        app.parse_args(["pull", "gaia", "--samples", "quasars"], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not link.startswith("http"):
            file, _, anchor = link.partition("#")
            target = (page.parent / file) if file else page
            if (ROOT / "docs" / "reference") in target.resolve().parents and not target.exists():
                continue  # made from the code with the site, which checks these links
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "ARCHITECTURE.md", "README.md"])
def test_files_that_a_page_names_exist(name: str) -> None:
    named = re.findall(r"(?<![\w/])(?:tests|lake|tasks|deployments|benchmarks)/[\w/.]*\w", (ROOT / name).read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []
