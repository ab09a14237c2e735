"""Rules of the house: which way imports run, how long modules are, that everything public is documented."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from lake.model.declared import all_tables
from tasks.sources.registry import REGISTRY

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path for package in ("lake", "tasks", "flows", "deployments") for path in (ROOT / package).rglob("*.py")
)
LONGEST = 450
SOURCES, SURVEYS = "tasks/sources/", ("tasks/sources/rxte/", "tasks/sources/virac/")
# Of an archive that is not called as its folder is.
FOLDERS: dict[str, str] = {}
TOO_LONG = {"lake/model/schema.py"}  # a table of columns


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Packages that a module imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def test_imports_run_one_way() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
    assert "0 kept" not in done.stdout


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_documented_and_not_too_long(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    if name_of(path) not in TOO_LONG:
        assert len(text.splitlines()) <= LONGEST


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if name_of(path).startswith(SOURCES) and not name_of(path).startswith(SURVEYS)],
    ids=name_of,
)
def test_archives_know_neither_prefect_nor_flows(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0] in ("prefect", "flows", "deployments")]
    assert not [
        name for name in imports(path) if name.startswith(("tasks.pull", "lake.commit.commit", "lake.store.catalog"))
    ]


def test_only_flows_and_events_import_prefect() -> None:
    users = {name_of(path) for path in MODULES if any(name.split(".")[0] == "prefect" for name in imports(path))}
    assert {name for name in users if not name.startswith(("flows/", "deployments/"))} == {"tasks/events.py"}


def test_no_code_outside_its_module_names_an_archive() -> None:
    """A new archive is one module and one line in the registry; so is its stand-in in the sandbox."""
    texts = {
        name_of(path): {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        for path in MODULES
    }
    for archive in REGISTRY.values():
        naming = {name for name, constants in texts.items() if archive.name in constants}
        module = archive.service or archive.name
        stand_in = {f"deployments/sandbox/{module}.py", "deployments/sandbox/server.py"}
        folder = f"tasks/sources/{FOLDERS.get(module, module)}"
        others = {name for name in naming - stand_in if name != f"{folder}.py" and not name.startswith(f"{folder}/")}
        assert not others, archive.name


@pytest.mark.parametrize("table", all_tables().values(), ids=all_tables())
def test_every_table_and_column_is_described(table: object) -> None:
    assert table.row
    for column in table.columns:
        assert len(column.description) > 3, column.name
        assert not column.description.endswith("."), column.name


@pytest.mark.parametrize("archive", REGISTRY.values(), ids=REGISTRY)
def test_every_archive_says_who_it_is(archive: object) -> None:
    for name in ("title", "release", "endpoint", "time_scale", "time_frame", "licence", "acknowledgement", "bands"):
        assert getattr(archive, name), name
    assert archive.name.replace("_", "").isalnum()
    assert archive.name == archive.name.lower()
    assert all(band.description for band in archive.bands)


def test_every_command_is_described() -> None:
    from lake.cli import app

    def commands(app: object, path: str = "lightlake") -> list[str]:
        lacking = []
        for name in app:
            if name.startswith("-"):
                continue
            command = app[name]
            nested = [one for one in command if not one.startswith("-")]
            if not command.help:
                lacking.append(f"{path} {name}")
            lacking += commands(command, f"{path} {name}") if nested else []
        return lacking

    assert commands(app) == []
    assert {
        "init",
        "status",
        "verify",
        "compact",
        "sql",
        "attach",
        "schema",
        "archives",
        "targets",
        "pull",
        "refresh",
        "demo",
    } <= set(app)
