"""A program that runs in a forked child does to its reader what a Python of its own does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.begun import command, program
from helpers.processes import until

pytestmark = pytest.mark.docs

SCRIPT = """
import atexit, multiprocessing, os, sys, time

def doubled(n):
    return 2 * n

if __name__ == "__main__":
    atexit.register(print, "over", flush=True)
    print(sys.argv[1:], os.getcwd(), os.environ.get("MINE"), sys.stdin.read(), __file__ == sys.argv[0], flush=True)
    print("and here", file=sys.stderr)
    how = sys.argv[1]
    if how == "sleep":
        print(os.getpid(), flush=True)
        time.sleep(600)
    if how == "spawn":
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.map(doubled, [4]))
    if how == "raise":
        raise ValueError("wrong")
    sys.exit({"three": 3, "text": "said at the end"}.get(how))
"""


@pytest.fixture
def both(tmp_path: Path) -> list[list[str]]:
    """The script by its own Python, and as a child of the process that has begun."""
    script, asks = tmp_path / "script.py", tmp_path / "asks"
    script.write_text(SCRIPT)
    asks.write_text(program(script))
    asks.chmod(0o755)
    return [[sys.executable, str(script)], [str(asks)]]


@pytest.mark.parametrize("how", ["none", "three", "text", "raise", "spawn"])
def test_it_prints_and_ends_alike(both: list[list[str]], tmp_path: Path, how: str) -> None:
    wanted, got = (
        subprocess.run(
            [*one, how, "a b"],
            cwd=tmp_path,
            env={**os.environ, "MINE": "1"},
            input="asked",
            capture_output=True,
            text=True,
            check=False,
        )
        for one in both
    )
    assert (got.returncode, got.stdout) == (wanted.returncode, wanted.stdout)
    assert got.stderr.splitlines()[-1] == wanted.stderr.splitlines()[-1]
    assert wanted.stdout.endswith("over\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it(both: list[list[str]], tmp_path: Path, number: signal.Signals) -> None:
    for one in both:
        with subprocess.Popen(
            [*one, "sleep"], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            child = int(process.stdout.readline())
            process.send_signal(number)
            assert process.wait(30) == -number
            assert process.stdout.read() == ""  # who has the other end is over
        until(lambda child=child: not Path(f"/proc/{child}/cmdline").exists(), "it is there still", 30)


def test_the_command_is_this_projects(tmp_path: Path) -> None:
    made = subprocess.run([command(), "init", "lake"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, "")
    assert (tmp_path / "lake").is_dir()
    wrong = subprocess.run([command(), "nothing"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
