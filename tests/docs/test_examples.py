"""Examples in docstrings run, and the functions that users call have one."""

from __future__ import annotations

import ast
import doctest
import importlib
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.granules import committed, positions

import lake
from lake.commit.targets import add_targets
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for package in ("lake", "tasks", "flows", "deployments")
    for path in (ROOT / package).rglob("*.py")
    if ">>> " in path.read_text()
)
# Modules whose public functions all have an example, except those that stand beside a better one.
SHOWN = ("lake/science/photometry.py", "lake/science/sky.py", "lake/science/times.py", "lake/text.py", "lake/redact.py")
BESIDE = {"hpx29_to_radec", "unit_vectors", "chord", "ranks", "safe_line", "safe_text", "one_line"}


def without_example(path: Path, of_class: str | None = None) -> list[str]:
    """Return the public functions of a module, or methods of a class in it, that have no example."""
    body = ast.parse(path.read_text()).body
    if of_class is not None:
        body = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == of_class).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    public = [node for node in functions if not node.name.startswith("_")]
    return [node.name for node in public if ">>> " not in (ast.get_docstring(node) or "")]


@pytest.fixture(scope="module")
def filled(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake of the examples: two quasars, with light curves of one archive."""
    root = tmp_path_factory.mktemp("examples") / "my-lake"
    shutil.copytree(template, root)
    catalog = Catalog(Storage(root), load_settings(url=str(root)))
    ra, dec = positions([0, 1])
    add_targets(catalog, pa.table({"ra": ra, "dec": dec, "name": ["A", "B"], "label": ["QSO", "QSO"]}), "quasars")
    committed(catalog, [0, 1])
    catalog.close()
    return root


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(filled, tmp_path / "my-lake")
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), extraglobs={"lake": lake})
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", SHOWN)
def test_public_functions_have_an_example(name: str) -> None:
    assert set(without_example(ROOT / name)) <= BESIDE


def test_methods_of_a_lake_have_an_example() -> None:
    assert set(without_example(ROOT / "lake/query.py", "Lake")) <= {
        "close",
        "run",
        "snapshot",
        "attach_snippet",
        "check_sql",
        "converted",
    }


def test_a_function_without_an_example_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('def shown():\n    """Do.\n\n    >>> shown()\n    """\n\n\ndef bare():\n    """Do."""\n')
    assert without_example(module) == ["bare"]
