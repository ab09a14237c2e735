"""Child processes of tests: nothing of the user's lake or Prefect profile reaches them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def child_environment(**more: str) -> dict[str, str]:
    """Environment of a child process, with no phoning home."""
    ours = ("LIGHTLAKE_", "PREFECT_")
    # A lake on S3 has its catalogue elsewhere: see conftest.py.
    kept = ("LIGHTLAKE_CATALOG",)
    environment = {name: value for name, value in os.environ.items() if name in kept or not name.startswith(ours)}
    return {
        **environment,
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        **more,
    }


def lightlake(
    *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None, timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run the command in a child process."""
    return subprocess.run(
        [sys.executable, "-c", "from lake.cli import main; main()", *map(str, arguments)],
        cwd=cwd, env=child_environment(**(environment or {})), capture_output=True, text=True, timeout=timeout_s,
        check=False,
    )  # fmt: skip


def kill_tree(process: subprocess.Popen[bytes]) -> int:
    """Kill a process and all below it, so that none has time to say a word; return how many there were."""
    doomed = [process.pid]
    for pid in doomed:  # which grows
        os.kill(pid, signal.SIGSTOP)
        for task in Path(f"/proc/{pid}/task").iterdir():
            doomed += map(int, (task / "children").read_text().split())
    for pid in doomed:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    return len(doomed)
