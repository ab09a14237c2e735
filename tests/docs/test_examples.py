"""Examples in docstrings run, and the functions that users call have one."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

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


def without_example(path: Path) -> list[str]:
    """Return the public functions of a module that have no example."""
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    public = [node for node in functions if not node.name.startswith("_")]
    return [node.name for node in public if ">>> " not in (ast.get_docstring(node) or "")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", SHOWN)
def test_public_functions_have_an_example(name: str) -> None:
    assert set(without_example(ROOT / name)) <= BESIDE


def test_a_function_without_an_example_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('def shown():\n    """Do.\n\n    >>> shown()\n    """\n\n\ndef bare():\n    """Do."""\n')
    assert without_example(module) == ["bare"]
