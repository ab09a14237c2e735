"""The README's first steps as they stand there: a sandbox, its settings in a shell, a lake, a query, a file, a figure."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from astropy.table import Table
from helpers.processes import Run, child_environment

README = Path(__file__).parents[2] / "README.md"


def blocks() -> list[list[str]]:
    """Lines of the section's code blocks, without comments."""
    section = README.read_text().split("\n## First steps\n")[1].split("\n## ")[0]
    found = re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [[re.sub(r"\s+# .*", "", line) for line in block.splitlines()] for block in found]


def shell(line: str) -> dict[str, str]:
    """Variables of a shell after a line."""
    said = subprocess.run(["sh", "-c", f"{line}\nenv -0"], capture_output=True, text=True, check=True).stdout
    return dict(one.split("=", 1) for one in said.split("\0") if one)


def test_the_first_steps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (start,), steps = blocks()
    command = [sys.executable, "-c", "from lake.cli import main; main()", *shlex.split(start)[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment()) as sandbox:
        try:
            assert sandbox.stdout
            while (line := sandbox.stdout.readline()) and "serving" not in line:
                pass
            said = {}
            monkeypatch.setenv("COLUMNS", "80")
            for step in steps:
                if step.startswith("lightlake "):
                    said[step] = run(*shlex.split(step)[1:])
                    assert said[step].code == 0, (step, said[step])
                else:
                    for name, value in shell(step).items():
                        if name.startswith("LIGHTLAKE_"):
                            monkeypatch.setenv(name, value)
            assert "127.0.0.1" in os.environ["LIGHTLAKE_ENDPOINTS__GAIA"]
        finally:
            sandbox.send_signal(signal.SIGTERM)
            assert sandbox.wait(60) == 0
    (first,) = (done.out for step, done in said.items() if "ORDER BY mjd" in step)
    assert first.endswith("5 rows\n")
    assert max(map(len, first.splitlines())) <= 80
    assert {"mJy", "TXS", "Mrk"} & set(first.split())
    written = Table.read("blazars.fits")
    assert set(written["label"]) == {"blazars"}
    assert len(written) > 10
    assert "Mrk 421" in Path("mrk421.html").read_text()
