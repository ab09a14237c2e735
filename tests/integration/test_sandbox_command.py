"""`lightlake sandbox` serves simulated archives until it is told to end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from helpers.processes import Run, child_environment


def test_settings_lead_to_archives_that_answer(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from lake.cli import main; main()", "sandbox", tmp_path / "data"]
    more = ["--archive", "hcv", "--env", tmp_path / ".env"]
    with subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, text=True, env=child_environment(), cwd=tmp_path
    ) as process:
        try:
            assert process.stdout
            while (line := process.stdout.readline()) and "serving" not in line:
                pass
            name, _, url = (tmp_path / ".env").read_text().strip().partition("=")
            assert name == "LIGHTLAKE_ENDPOINTS__HCV"
            answer = httpx.get(f"{url}/hcv/metadata")
            assert (urlsplit(url).hostname, answer.status_code) == ("127.0.0.1", 200)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_an_unknown_archive_is_named(run: Run) -> None:
    done = run("sandbox", "--archive", "nobody")
    assert done.code == 2
    assert "no simulated nobody (there are: icecube, gaia" in done.err
