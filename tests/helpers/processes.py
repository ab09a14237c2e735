"""The command in tests, here or in a child process: nothing of the user's lake or Prefect profile reaches it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers.begun import command
from lake.cli import main

CLUSTER = Path(__file__).parents[2] / "deployments" / "cluster"


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
    *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None, timeout_s: float = 500
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [command(), *map(str, arguments)],
        cwd=cwd,
        env=child_environment(**(environment or {})),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@dataclass
class Done:
    """What a command did."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command in this process, in an empty folder: what a child process takes longest for is its imports."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def run(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(int(exit_.value.code or 0), captured.out, captured.err)

    return run


def shipped_environment(name: str, **ours: str) -> dict[str, str]:
    """Variables of a file of deployments/cluster, as a shell reads it; what only a site knows is replaced by ours."""
    command = ["env", "-i", "sh", "-c", 'set -a; . "$1"; env -0', "sh", str(CLUSTER / name)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    given = dict(line.split("=", 1) for line in lines if line)
    assert ours.keys() <= given.keys(), f"not in {name}: {sorted(ours.keys() - given.keys())}"
    here = {key: value for key, value in {**given, **ours}.items() if key not in ("PWD", "OLDPWD", "SHLVL", "_")}
    assert not [value for value in here.values() if "example.org" in value], "what a site has to replace"
    return here


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
    # The others are not ours to wait for, and hold their locks until they are over.
    until(lambda: all(map(_is_over, doomed)), lambda: f"{doomed} were killed, and one is there")
    return len(doomed)


def _is_over(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def marked(marker: str) -> list[str]:
    """Commands of all processes that have a marker in their environment, however they are related."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if marker.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    # What ended, and was not waited for, has no environment and no command.
    return [command for command in found if command]


def until(true: Callable[[], Any], what: str | Callable[[], str], patience_s: float = 240) -> Any:
    """Wait for something that comes by itself, and return it; `what` is told if it does not come."""
    end = time.monotonic() + patience_s
    while not (found := true()):
        if time.monotonic() > end:
            pytest.fail(f"not in {patience_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.2)
    return found
