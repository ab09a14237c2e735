"""Rules of the house: which way imports run, how long modules are, that everything public is documented."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lake.model.declared import all_tables, declarations
from tasks.sources.registry import REGISTRY

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    [
        *(path for package in ("lake", "tasks", "flows", "deployments") for path in (ROOT / package).rglob("*.py")),
        ROOT / "lightlake.py",
    ]
)
LONGEST = 450
SOURCES = "tasks/sources/"
SURVEYS = (*(f"{SOURCES}{name}/" for name in ("hst_timetag", "rxte", "virac")), f"{SOURCES}observed.py")
# Both have the same events of the same telescope.
SAME_EVENTS = {"icecube": ("tasks/sources/heasarc.py",)}
TOO_LONG = {"lake/model/schema.py"}  # a table of columns


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def imports(path: Path) -> frozenset[str]:
    """Packages that a module imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return frozenset(found)


def test_imports_run_one_way() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
    assert "0 kept" not in done.stdout


def test_modules_are_documented_and_not_too_long() -> None:
    texts = {name_of(path): path.read_text() for path in MODULES}
    assert not [name for name, text in texts.items() if not ast.get_docstring(ast.parse(text))], "no docstring"
    lengths = {name: len(text.splitlines()) for name, text in texts.items() if name not in TOO_LONG}
    assert not {name: length for name, length in lengths.items() if length > LONGEST}


def test_archives_know_neither_prefect_nor_flows() -> None:
    archives = [path for path in MODULES if name_of(path).startswith(SOURCES) and not name_of(path).startswith(SURVEYS)]
    forbidden = re.compile(r"(prefect|flows|deployments)(\.|$)|tasks\.pull|lake\.commit\.commit|lake\.store\.catalog")
    assert len(archives) > 20
    assert not [(name_of(path), name) for path in archives for name in imports(path) if forbidden.match(name)]


def test_only_flows_and_events_import_prefect() -> None:
    users = {name_of(path) for path in MODULES if any(name.split(".")[0] == "prefect" for name in imports(path))}
    assert {name for name in users if not name.startswith(("flows/", "deployments/"))} == {"tasks/events.py"}


def test_whoever_opens_a_lake_does_not_wait_for_large_packages() -> None:
    """Declarations of all sources are loaded then."""
    code = (
        "import sys, lake.cli, tasks.sources.declared as declared; declared.declarations(); "
        "print({'astropy', 'pandas', 'scipy', 'altair', 'prefect'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# What a new source touches, beside its tests: its module or folder, the registry and the declarations, its stand-in and
# the list of stand-ins.
STAND_INS = "deployments/sandbox/"
OF_SOURCES = (SOURCES, STAND_INS)
# A survey is pulled by a flow of its own, which is a form, and a command.
FORMS = {
    "flows/cli.py": {"hst", "hst_timetag", "rxte", "virac"},
    "flows/hst.py": {"hst", "hst_timetag"},
    "flows/hst_artifacts.py": {"hst_timetag"},
    "flows/hst_cli.py": {"hst_timetag"},
    "flows/living.py": {"hst", "rxte", "virac"},
    "flows/rxte.py": {"rxte", "pca_a", "heasarc"},
    "flows/virac.py": {"virac"},
    "deployments/deployed.py": {"hst", "hst_timetag", "rxte", "virac"},
    "tasks/analysis/hst_charts.py": {"hst_timetag"},
    "tasks/analysis/hst_pages.py": {"hst_timetag"},
    "tasks/analysis/hst_tables.py": {"hst_timetag"},
    # The package of that name, after which an archive was called once.
    **{f"lake/export/{name}.py": {"lightkurve"} for name in ("forms", "lightkurve_form")},
    "tasks/doctor.py": {"rxte"},  # which alone needs other software
    # Targets may be got by the names that a survey gives them.
    **{f"tasks/samples/{name}.py": {"ztf"} for name in ("cli", "collect", "options", "services", "ztf_names")},
}
# Target lists that people have: the names that catalogues give their columns; and the demo's three questions.
ABOUT_DATA = {"tasks/samples/column_names.py", "deployments/demo.py"}
# Shorter names, such as band G, are also words of other things.
SHORTEST = 3
# Names of other libraries.
NOT_OURS = {"binary_join_element_wise"}
# Attributes of httpx's client, which has no parameter for where bytes leave the socket.
OF_HTTPX = {"_mounts", "_pool"}


def source_names() -> set[str]:
    """Names of archives, surveys, services, endpoints and bands, in small letters."""
    found = {endpoint for archive in REGISTRY.values() for endpoint in archive.extra_endpoints}
    found |= {archive.service for archive in REGISTRY.values() if archive.service}
    for declared in declarations():
        found |= {declared.archive, *declared.former_names, *declared.bands}
    return {name.lower() for name in found if len(name) >= SHORTEST}


@cache
def words_of(text: str) -> tuple[tuple[int, str], ...]:
    """Line and text of each name and string of a module; docstrings are prose."""
    return tuple(_words_of(text))


def _words_of(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of each name and string of a module; docstrings are prose."""
    tree = ast.parse(text)
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        words: list[str | None] = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            words = [node.value]
        elif isinstance(node, ast.Name):
            words = [node.id]
        elif isinstance(node, ast.Attribute):
            words = [node.attr]
        elif isinstance(node, ast.arg | ast.keyword):
            words = [node.arg]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            words = [node.name]
        elif isinstance(node, ast.alias):
            words = [node.name, node.asname]
        elif isinstance(node, ast.ImportFrom):
            words = [node.module]
        for word in words:
            if word is not None and word not in NOT_OURS:
                yield getattr(node, "lineno", 0), word


def named_sources(text: str, names: set[str]) -> list[tuple[int, str]]:
    """Lines of a module that name a source, and which: as a word of its own or as a part of a name."""
    listed = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    pattern = re.compile(rf"(?<![a-z0-9])({listed})(?![a-z0-9])")
    return [(line, name) for line, word in words_of(text) for name in pattern.findall(word.lower())]


def test_no_code_outside_its_folder_names_a_source() -> None:
    """The core, the engine, services, flows and deployments know sources through the registry alone."""
    known = source_names()
    asked = [path for path in MODULES if not name_of(path).startswith(OF_SOURCES) and name_of(path) not in ABOUT_DATA]
    assert len(asked) > 100
    wrong = [
        (name_of(path), found)
        for path in asked
        for found in named_sources(path.read_text(), known)
        if found[1] not in FORMS.get(name_of(path), set())
    ]
    assert not wrong


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_no_other_source_names_an_archive(name: str) -> None:
    """A new archive is its module or folder, its line in the registry, its stand-in and that one's line in a list."""
    module = REGISTRY[name].service or name
    own = (f"tasks/sources/{module}.py", f"tasks/sources/{module}/", f"deployments/sandbox/{module}.py")
    shared = {"deployments/sandbox/server.py", "tasks/sources/registry.py", *SAME_EVENTS.get(name, ())}
    naming = {
        name_of(path)
        for path in MODULES
        if name_of(path).startswith(OF_SOURCES)
        and any(word == name for _, word in words_of(path.read_text()))
        and not name_of(path).startswith(own)
    }
    assert naming <= shared


@pytest.mark.parametrize(
    "planted",
    [
        "MINE = 'ztf'",
        "def pull_gaia(): ...",
        "QUERY = 'SELECT archive = $$wise$$ FROM lightcurves'",
        "from tasks.sources import hcv",
        "hint('such as HEASARC')",
        "BANDS = ('PS1_g',)",
        "run(icecube=True)",
        "settings.endpoints['gaia_datalink']",
    ],
)
def test_a_planted_name_is_found(planted: str) -> None:
    assert named_sources(planted, source_names())


def test_words_that_are_no_sources_are_not_found() -> None:
    assert not named_sources('"""Of Gaia."""\nlikewise = otherwise = "a bandwidth"', source_names())


def private_names(tree: ast.Module) -> set[str]:
    """Names with an underscore that a module defines: functions, classes, constants, attributes of its objects."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return {name for name in found if is_private(name)}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_of_self(node: ast.Attribute) -> bool:
    """Whether it is an attribute of the module's own object, which may have it from its parent."""
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def test_no_module_uses_what_another_keeps_to_itself() -> None:
    """A name that begins with an underscore belongs to the module that defines it; other libraries have theirs."""
    trees = {name_of(path): ast.parse(path.read_text()) for path in MODULES if not name_of(path).startswith(STAND_INS)}
    own = {name: private_names(tree) for name, tree in trees.items()}
    ours = set().union(*own.values())
    wrong = []
    for name, tree in trees.items():
        others = ours - own[name] - OF_HTTPX
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                wrong += [f"{name}:{node.lineno}: {one.name}" for one in node.names if is_private(one.name)]
            elif isinstance(node, ast.Attribute) and node.attr in others and not is_of_self(node):
                wrong.append(f"{name}:{node.lineno}: {node.attr}")
    assert not wrong


def test_every_table_and_column_is_described() -> None:
    for name, table in all_tables().items():
        assert table.row, name
        for column in table.columns:
            assert len(column.description) > 3, (name, column.name)
            assert not column.description.endswith("."), (name, column.name)


@pytest.mark.parametrize("archive", REGISTRY.values(), ids=REGISTRY)
def test_every_archive_says_who_it_is(archive: object) -> None:
    for name in ("title", "release", "endpoint", "time_scale", "time_frame", "licence", "acknowledgement", "bands"):
        assert getattr(archive, name), name
    assert archive.name.replace("_", "").isalnum()
    assert archive.name == archive.name.lower()
    assert all(band.description for band in archive.bands)
