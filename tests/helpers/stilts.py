"""STILTS: the reader of TOPCAT, and the checker of VOTables."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

Stilts = Callable[..., str]


@pytest.fixture(scope="session")
def stilts() -> Stilts:
    """Run a task of STILTS, and return all that it prints; where it is not installed, the tests are skipped."""
    program = shutil.which("stilts")
    if program is None:
        required = "stilts" in os.environ.get("LIGHTLAKE_TEST_REQUIRE", "")
        (pytest.fail if required else pytest.skip)("stilts is not installed")

    def run(*arguments: object) -> str:
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
