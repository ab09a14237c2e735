"""The numbers of docs/explanation/promises.md are those of the tests, and its commands name files that exist."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers.crash import STEPS
from helpers.faults import FAULTS

from benchmarks.damage import FLIPS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "promises.md").read_text()
WORDS = " ".join(PAGE.split())


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """A file of tests, imported under another name, without LIGHTLAKE_TEST_FULL or with it."""
    path, full = request.param
    monkeypatch.delenv("LIGHTLAKE_TEST_FULL", raising=False)
    if full:
        monkeypatch.setenv("LIGHTLAKE_TEST_FULL", "1")
    spec = importlib.util.spec_from_file_location(f"read_{path.replace('/', '_')}", ROOT / f"tests/{path}.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, found)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (
            ("integration/test_kill", False),
            ["| {KILLS}; 50 times on each", "same {GRANULES}; 100", "at {_SERVED} steps; all"],
        ),
        (("integration/test_kill", True), ["4; {KILLS} times on each", "same 6; {GRANULES} granules"]),
        (("integration/test_virac_kill", False), ["extract {TILES}; 500 tiles", "| {KILLS}; 10 times"]),
        (("integration/test_virac_kill", True), ["extract 24; {TILES} tiles", "2; {KILLS} times"]),
        (("integration/test_hst_kill", False), ["over {EXPOSURES}; 500 exposures", "random | {KILLS}; 5 times"]),
        (("integration/test_hst_kill", True), ["over 40; {EXPOSURES} exposures", "3; {KILLS} times"]),
        (("integration/test_lost_connections", False), ["fail, four writers | {FAULTS}; 200 times"]),
        (("integration/test_lost_connections", True), ["fail, four writers | 6; {FAULTS} times"]),
        (("integration/test_faults", False), ["{SERVICES} kinds of request", "| {CASES} |"]),
        (("integration/test_killed_service", False), ["completes within {PROMISED} s"]),
        (("mutations", False), ["So {FAULTS} faults"]),
    ],
    indirect=["module"],
    ids=lambda value: f"{value[0]}, full" if isinstance(value, tuple) and value[1] else None,
)
def test_numbers_are_those_of_the_tests(module: ModuleType, said: list[str]) -> None:
    def number(match: re.Match[str]) -> str:
        value = getattr(module, match[1])
        return str(value if isinstance(value, int) else len(value))

    expected = [re.sub(r"\{(\w+)\}", number, text) for text in said]
    assert [text for text in expected if text not in WORDS] == []


def test_steps_faults_and_flips_are_counted() -> None:
    assert f"at each of its {len(STEPS)} steps" in WORDS
    assert f"each with {len(FAULTS)} faults" in WORDS
    assert f"flipped, in a copy of a lake, {FLIPS} times" in WORDS


def test_commands_name_what_exists() -> None:
    paths = re.findall(r"\btests/[\w/.]+", PAGE)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []
    modules = re.findall(r"python -m (benchmarks\.\w+)", PAGE)
    assert all(importlib.util.find_spec(name) for name in modules)
