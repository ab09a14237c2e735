"""How a lake's DuckDB is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_nothing_unsigned_is_loaded(template: Path) -> None:
    """By a process that is not of the tests, which spare themselves the check."""
    code = (
        "import sys, lake; opened = lake.open(sys.argv[1]); "
        "names = ('allow_unsigned_extensions', 'autoinstall_known_extensions', 'autoload_known_extensions'); "
        "print(*(opened.sql(f\"SELECT current_setting('{name}') AS s\")['s'][0].as_py() for name in names))"
    )
    done = subprocess.run([sys.executable, "-c", code, template], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3
