"""The reference is complete: whatever users see has its words, and pages name only what exists."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import markdown
import pytest
import yaml
from cyclopts import App, CycloptsError
from pydantic import BaseModel

from deployments.documentation.commands import commands
from deployments.documentation.generated import PAGES
from deployments.documentation.python import Entry, entries
from deployments.documentation.tables import described
from lake.cli import app
from lake.model.declared import Declaration, ViewNote, Views, all_tables, declarations
from lake.model.table import Column, Table
from lake.model.views import views
from lake.query import Lake
from lake.settings import Settings
from tasks.doctor import endpoints
from tasks.sources.base import Origin
from tasks.sources.declared import origins
from tasks.sources.event_table import EventTable
from tasks.sources.registry import REGISTRY, SURVEYS

ROOT = Path(__file__).parents[2]
AT_ROOT = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
PARTS = ("tutorials", "how-to", "reference", "explanation")
# Files of the repository, not of the site.
WRITTEN = [*AT_ROOT, *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
GENERATED = [f"docs/{path}" for path in PAGES]


@cache
def text_of(page: str) -> str:
    return PAGES[page.removeprefix("docs/")]() if page in GENERATED else (ROOT / page).read_text()


# --- whatever users see has its words ---


def silent_commands(of: App) -> list[str]:
    """Return commands, and options of commands, of which nothing is said."""
    found = list(commands(of))
    lacking = [one.name for one in found if not one.text]
    return lacking + [f"{one.name} {option.names[0]}" for one in found for option in one.options if not option.text]


def silent_fields(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if not field.description]


def silent_columns(tables: Mapping[str, Table]) -> list[str]:
    lacking = [name for name, table in tables.items() if not table.row]
    return lacking + [
        f"{name}.{one.name}" for name, table in tables.items() for one in table.columns if not one.description
    ]


def silent_views(declared: Sequence[Declaration]) -> list[str]:
    """Return views, arguments of macros and columns of either, of which nothing is said."""
    lacking = []
    for one in described(declared):
        name, note = one.view.name, one.view.note
        arguments = [argument.split()[0] for argument in one.view.arguments or ()]
        lacking += [name] if not note.text or not note.example else []
        lacking += [f"{name}({argument})" for argument in arguments if not note.arguments.get(argument)]
        lacking += [f"{name}.{column.name}" for column in one.own if not column.description]
    return lacking


def silent_origins(origins: Sequence[Origin]) -> list[str]:
    facts = ("title", "release", "endpoint", "time_scale", "time_frame", "licence", "acknowledgement", "bands")
    words = ("access", "matching", "quality", "corrections")
    lacking = [f"{one.name}.{name}" for one in origins for name in (*facts, *words) if not getattr(one, name)]
    return lacking + [f"{one.name}.{band.band}" for one in origins for band in one.bands if not band.description]


def silent_functions(found: Sequence[Entry]) -> list[str]:
    lacking = [one.name for one in found if not one.docstring.text]
    return lacking + [f"{one.name}({parameter})" for one in found for parameter in one.undocumented]


def test_every_command_and_option_has_its_words() -> None:
    assert {
        f"lightlake {name}" for name in ("init", "sql", "targets add", "pull", "hst pages", "demo", "export fits")
    } <= {one.name for one in commands(app)}
    assert silent_commands(app) == []


def test_a_command_without_words_is_found() -> None:
    planted = App(name="lightlake")

    @planted.command
    def bare(depth: int = 3) -> None: ...

    @planted.command
    def told(*, depth: int = 3, width: int = 4) -> None:
        """Dig.

        Parameters
        ----------
        depth
            How deep.
        """

    assert silent_commands(planted) == ["lightlake bare", "lightlake bare DEPTH", "lightlake told --width"]


def test_every_setting_has_its_words() -> None:
    assert [name for model in (Settings, EventTable) for name in silent_fields(model)] == []


def test_a_setting_without_words_is_found() -> None:
    class Planted(Settings):
        depth: int = 3

    assert silent_fields(Planted) == ["depth"]


def test_every_table_and_column_has_its_words() -> None:
    assert silent_columns(all_tables()) == []


def test_every_view_and_its_columns_have_their_words() -> None:
    assert silent_views(declarations()) == []


def test_a_column_or_a_view_without_words_is_found() -> None:
    table = Table("lamps", "a lamp", (Column("name", "VARCHAR", "Its name"), Column("watt", "DOUBLE", "")), ())
    assert silent_columns({"lamps": table}) == ["lamps.watt"]
    statements = (
        "CREATE OR REPLACE VIEW lamp AS SELECT mjd, flux, 2 * flux AS twice FROM lightcurves",
        "CREATE OR REPLACE MACRO dim(how) AS TABLE SELECT mjd FROM lightcurves WHERE flux < how",
        "CREATE OR REPLACE VIEW dark AS SELECT mjd FROM lightcurves",
    )
    notes = {name: ViewNote(text="Lamps.", example=f"FROM {name}") for name in ("lamp", "dim")}
    planted = Declaration(archive="lamp", views=Views(statements=statements, notes=notes))
    assert silent_views([*declarations(), planted]) == ["lamp.twice", "dim(how)", "dark"]


def test_every_archive_and_survey_has_its_words() -> None:
    assert silent_origins([*REGISTRY.values(), *(survey.origin for survey in SURVEYS.values())]) == []


@pytest.mark.parametrize("word", ["licence", "matching", "quality", "corrections", "access"])
def test_an_archive_without_words_is_found(word: str) -> None:
    archive = next(iter(REGISTRY.values()))
    assert silent_origins([replace(archive, **{word: ""})]) == [f"{archive.name}.{word}"]


def test_every_function_has_its_words() -> None:
    names = [one.name for one in entries()]
    assert {"lightlake.pull", "lightlake.samples.add", "lake.light_curve", "lake.targets.add", "sky.match"} <= set(
        names
    )
    assert silent_functions(entries()) == []


def test_a_function_without_words_is_found() -> None:
    def bare(depth: int) -> None: ...

    def told(depth: int, width: int) -> None:
        """Dig.

        Parameters
        ----------
        depth
            How deep.
        """

    assert silent_functions([Entry("bare", bare), Entry("told", told)]) == ["bare", "bare(depth)", "told(width)"]


def test_examples_of_views_run(lake: Lake) -> None:
    assert len(views(declarations())) > 20
    for view in views(declarations()):
        lake.sql(view.note.example)


def test_every_archive_and_its_release_are_in_the_readme() -> None:
    readme = text_of("README.md")
    assert [name for name in REGISTRY if f"\n| `{name}` |" not in readme] == []


# --- links ---


class Rendered(HTMLParser):
    """The links and anchors of a page, as the site renders it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links = list[str]()
        self.anchors = set[str]()
        self.feed(converted(text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" and value:
                self.anchors.add(value)


def converted(text: str) -> str:
    """Return a page's HTML, by the extensions that mkdocs.yml names."""
    listed = yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.BaseLoader)["markdown_extensions"]
    named = [one if isinstance(one, dict) else {one: {}} for one in listed]
    configs = {name: config or {} for one in named for name, config in one.items()}
    configs["toc"] = {}  # its links at headings are of the theme
    extensions = [*configs, *(one for one in ("fenced_code", "tables") if one not in configs)]
    return markdown.markdown(text, extensions=extensions, extension_configs=configs)


@cache
def rendered(page: str) -> Rendered:
    return Rendered(text_of(page))


def on_github(text: str) -> set[str]:
    """Return the anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: str, links: Sequence[str]) -> list[str]:
    """Return the links of a page that lead nowhere: pages of docs/ on the site, others in the repository."""
    dead = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), file)) if file else page
        at_root = page in AT_ROOT
        is_page = target in WRITTEN or (target in GENERATED and not at_root)
        if not (is_page or (ROOT / target).exists()) or not (at_root or target.startswith("docs/")):
            dead.append(link)
        elif anchor and is_page:
            anchors = on_github(text_of(target)) if target in AT_ROOT else rendered(target).anchors
            dead += [] if anchor in anchors else [link]
    return dead


@pytest.mark.parametrize("path", [*WRITTEN, *GENERATED])
def test_links_lead_somewhere(path: str) -> None:
    assert dead_links(path, rendered(path).links) == []


def test_a_dead_link_is_found() -> None:
    good = ["commands.md#lightlake-targets-add", "pulls.md#proper-motion", "https://example.org/x", "#nowhere"]
    wrong = ["commands.md#lightlake-targets-ad", "settings", "../../README.md", "tables.md#lightcurve"]
    assert dead_links("docs/reference/archives.md", [*good, *wrong]) == ["#nowhere", *wrong]
    # What is made from the code is not in the repository.
    assert dead_links("README.md", ["docs/reference/settings.md", "docs/reference/pulls.md#odd-numbers", "lake"]) == [
        "docs/reference/settings.md"
    ]


@pytest.mark.parametrize("part", [part for part in PARTS if (ROOT / "docs" / part).is_dir()])
def test_a_part_lists_its_pages(part: str) -> None:
    links = {link.partition("#")[0] for link in rendered(f"docs/{part}/index.md").links}
    pages = {Path(page).name for page in [*WRITTEN, *GENERATED] if page.startswith(f"docs/{part}/")}
    assert pages - {"index.md"} - links == set()


# --- what pages name exists ---


def bash_of(text: str) -> Iterator[list[str]]:
    """Yield the words of every command in a page's blocks of shell."""
    for block in re.findall(r"^```bash[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        code = re.sub(r"<<-?\s*(['\"]?)(\w+)\1(.*?)\n.*?\n\2$", r"\3", block, flags=re.MULTILINE | re.DOTALL)
        lexer = shlex.shlex(_without_comments(code.replace("\\\n", " ")), posix=True, punctuation_chars="();<>|&\n")
        lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
        words = list[str]()
        for word in (*lexer, ";"):
            if word.strip("();<>|&\n"):
                words.append(word)
            elif words:
                yield words
                words = []


def _without_comments(code: str) -> str:
    """Leave out comments; a # in quotes is none."""
    return re.sub(r"('[^']*'|\"(?:\\.|[^\"\\])*\")|(?:^|(?<=\s))#[^\n]*", lambda one: one[1] or "", code)


def examples_of(text: str) -> list[list[str]]:
    """Return the arguments of every `lightlake` command in a page's blocks of shell."""
    found = []
    for words in bash_of(text):
        while words and re.fullmatch(r"\w+=.*|export|time|!", words[0], re.DOTALL):
            words = words[1:]
        if words[:1] == ["lightlake"]:
            found.append(words[1:])
    return found


def unknown_commands(text: str) -> list[str]:
    """Return the commands that a page names in its sentences and that do not exist."""
    wrong = []
    for named in re.findall(r"`lightlake ([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)):
        at: App = app
        for word in named.split():
            if not list(at) or word.isupper() or word.startswith(("-", "[", "...")):
                break
            if word not in at:
                wrong += [] if at.default_command else [named]
                break
            at = at[word]
    return wrong


def unknown_settings(text: str) -> list[str]:
    """Return the settings that a page names and that do not exist."""
    fields = {name.upper() for name in Settings.model_fields}
    services = {one.name.upper() for one in endpoints(Settings.model_construct())}
    services |= {name.upper() for origin in origins() for name in origin.extra_endpoints}
    services |= {"NAME", "TINY"}  # any, and that of the archive that a page makes
    wrong = []
    for named in re.findall(r"\bLIGHTLAKE_(\w+)", text):
        name, _, nested = named.partition("__")
        known = name in fields and (name != "ENDPOINTS" or not nested or nested in services)
        if not known and not named.startswith("TEST_") and named.rstrip("_") not in fields:
            wrong.append(f"LIGHTLAKE_{named}")
    return wrong


@pytest.mark.parametrize("path", [*WRITTEN, *GENERATED])
def test_what_a_page_names_exists(path: str) -> None:
    text = text_of(path)
    assert unknown_commands(text) == []
    assert unknown_settings(text) == []
    for arguments in examples_of(text):
        try:
            app.parse_args(arguments, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            pytest.fail(f"lightlake {shlex.join(arguments)}: {error}")


def test_what_does_not_exist_is_found() -> None:
    assert unknown_commands("`lightlake pull gaia`, `lightlake targets ad x`, `lightlake COMMAND`") == ["targets ad x"]
    assert unknown_settings("LIGHTLAKE_URL, LIGHTLAKE_URLS, LIGHTLAKE_ENDPOINTS__GAJA, LIGHTLAKE_TABLES__XMM") == [
        "LIGHTLAKE_URLS",
        "LIGHTLAKE_ENDPOINTS__GAJA",
    ]
    block = """```bash
X=1 lightlake pull gaia --sample 'a # b' \\
  --again  # all
cat > file.csv <<'END' && lightlake sql "SELECT 1" | head
it's
END
lightlake sql "SELECT
2" > rows.txt
```"""
    assert examples_of(block) == [
        ["pull", "gaia", "--sample", "a # b", "--again"],
        ["sql", "SELECT 1"],
        ["sql", "SELECT\n2"],
    ]
    with pytest.raises(CycloptsError):
        app.parse_args(["pull", "gaia", "--samples", "quasars"], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("name", AT_ROOT)
def test_files_that_a_page_names_exist(name: str) -> None:
    named = re.findall(r"(?<![\w/])(?:tests|lake|tasks|deployments|benchmarks)/[\w/.]*\w", text_of(name))
    assert [path for path in named if not (ROOT / path).exists()] == []
