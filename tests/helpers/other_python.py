"""An environment with lsdb, whose Python LIGHTLAKE_TEST_LSDB names: .ci/run makes one beside that of the tests."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

READER = Path(__file__).with_name("lsdb_reader.py")


def python() -> str:
    """Return the Python that has lsdb; without one, the test is skipped, or fails where it is required."""
    found = os.environ.get("LIGHTLAKE_TEST_LSDB")
    if not found or not Path(found).exists():
        reason = "no environment with lsdb: name its Python in LIGHTLAKE_TEST_LSDB"
        if "lsdb" in os.environ.get("LIGHTLAKE_TEST_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def run(*arguments: object, given: str = "", cwd: Path | None = None) -> str:
    """Run that Python; return what it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LIGHTLAKE_"))}
    done = subprocess.run(
        [python(), *map(str, arguments)], input=given, capture_output=True, text=True, check=False, cwd=cwd, env=clean
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ask(collection: Path, questions: dict[str, Any]) -> dict[str, Any]:
    """Ask lsdb about a collection: see lsdb_reader.py; -P, since helpers have names of its modules."""
    answers: dict[str, Any] = json.loads(run("-P", READER, collection, given=json.dumps(questions)).splitlines()[-1])
    return answers
