"""`lightlake sandbox` serves simulated archives until it is told to end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
from helpers.processes import Run, child_environment


def test_settings_lead_to_archives_that_answer(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from lake.cli import main; main()", "sandbox", tmp_path / "data"]
    more = ["--archive", "hcv", "--env", tmp_path / ".env"]
    with subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, text=True, env=child_environment(), cwd=tmp_path
    ) as process:
        assert process.stdout
        lines = []
        while (line := process.stdout.readline()) and "serving" not in line:
            lines.append(line)
        name, _, url = (tmp_path / ".env").read_text().strip().partition("=")
        assert name == "LIGHTLAKE_ENDPOINTS__HCV"
        assert url.startswith("http://127.0.0.1:")
        answer = httpx.get(f"{url}/v3/summary/magaper2.csv", params={"ra": 77.3582, "dec": 5.6931, "radius": 0.01})
        assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_an_unknown_archive_is_named(run: Run) -> None:
    done = run("sandbox", "--archive", "nobody")
    assert done.code == 2
    assert "no simulated nobody (there are: icecube, gaia" in done.err
