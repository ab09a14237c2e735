"""A command that is ended, by whatever signal, leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from helpers.granules import register
from helpers.processes import child_environment, lightlake, marked, until

from deployments.sandbox.server import Sandbox
from lake.store.catalog import Catalog

Rows = Callable[..., list[dict[str, Any]]]

pytestmark = pytest.mark.crash

# What a command may have in hand: Prefect's server, still starting; a worker process with a tool of its own; a thread
# that waits for an archive. Workers import this file, and start nothing then.
BUSY = """
import signal, subprocess, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import tasks.endings
from tasks.endings import end_with_parent, ending_together

def run_a_tool():
    subprocess.run([sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"],
                   start_new_session=True)

if __name__ == "__main__":
    from flows.temporary_server import TemporaryServer

    signal.signal(signal.SIGINT, signal.default_int_handler)  # those who run tests in the background ignore it
    tasks.endings.GRACE_S = 0.5
    with ending_together():
        server = TemporaryServer()
        server.port = server.find_available_port()
        server.server_process = server._run_uvicorn_command()
        threading.Thread(target=time.sleep, args=(600,)).start()
        pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent)
        pool.submit(run_a_tool).result()
"""


# SIGHUP takes the way of SIGTERM, which ends the pull below.
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGHUP, {-signal.SIGTERM, 143}), (signal.SIGINT, {130}), (signal.SIGKILL, {-signal.SIGKILL})],
)
def test_nothing_of_a_busy_command_is_left(tmp_path: Path, number: signal.Signals, status: set[int]) -> None:
    marker = uuid4().hex
    (tmp_path / "busy.py").write_text(BUSY)
    with subprocess.Popen(
        [sys.executable, "busy.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=child_environment(MARKER=marker, PREFECT_HOME=str(tmp_path), PYTHONPATH=os.pathsep.join(sys.path)),
    ) as command:
        try:
            assert command.stdout is not None
            assert command.stdout.readline() == "ready\n"
            # The command itself, its server, its worker, multiprocessing's resource tracker, the worker's tool.
            assert len(marked(marker)) == 5
            command.send_signal(number)
            assert command.wait(60) in status
        finally:
            command.kill()
    until(lambda: not marked(marker), lambda: f"left: {marked(marker)}", 60)


@pytest.mark.parametrize("runner", ["--local", "--prefect"])
def test_nothing_of_a_pull_that_an_archive_keeps_waiting_is_left(catalog: Catalog, tmp_path: Path, runner: str) -> None:
    register(catalog, range(3))
    marker = uuid4().hex
    code = "import tasks.endings; tasks.endings.GRACE_S = 1.0; from lake.cli import main; main()"
    with Sandbox() as box:
        box.fault("/icecube.zip", "hang")
        here = child_environment(
            MARKER=marker,
            PREFECT_HOME=str(tmp_path / "prefect"),
            LIGHTLAKE_URL=str(catalog.storage.root),
            LIGHTLAKE_ENDPOINTS__ICECUBE=box.url("/icecube.zip"),
            LIGHTLAKE_CACHE_DIR=str(tmp_path / "cache"),
            PYTHONPATH=os.pathsep.join(sys.path),
        )
        command = subprocess.Popen(
            [sys.executable, "-c", code, "pull", "icecube", runner],
            cwd=tmp_path,
            env=here,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: box.requests or command.poll() is not None, "no request")
            server = any("prefect.server.api.server:create_app" in one for one in marked(marker))
            assert server == (runner == "--prefect")
            command.send_signal(signal.SIGTERM)
            assert command.wait(60) in (143, -signal.SIGTERM)
        finally:
            command.kill()
            command.wait()
    until(lambda: not marked(marker), lambda: f"left: {marked(marker)}", 60)


# A query in the place of one that takes as long: DuckDB meets the signal inside it.
LONG = "SELECT count(*) FROM range(1000000000000) AS n (i) WHERE i % 7 = 1"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_within_a_commit_is_no_failure(
    catalog: Catalog, rows: Rows, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    register(catalog, range(3))
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path; from lake.commit import commit; from lake.cli import main\n"
        "true = commit._Merge.run\n"
        "def run(merge, numbers):\n"
        "    commit._Merge.run = true; Path('there').touch()\n"
        f"    merge.cursor.execute({LONG!r})\n"
        "commit._Merge.run = run; main()"
    )
    with Sandbox.start(tmp_path / "sandbox", archives=("icecube",), targets=[(10.0, 20.0)]) as box:
        here = child_environment(
            LIGHTLAKE_URL=str(catalog.storage.root),
            LIGHTLAKE_ENDPOINTS__ICECUBE=box.endpoints["icecube"],
            LIGHTLAKE_CACHE_DIR=str(tmp_path / "cache"),
            PYTHONPATH=os.pathsep.join(sys.path),
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, "pull", "icecube", "--local"],
            cwd=tmp_path,
            env=here,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as command:
            try:
                until(lambda: (tmp_path / "there").exists() or command.poll() is not None, "no commit")
                command.send_signal(number)
                command.communicate(timeout=60)
            finally:
                command.kill()
        assert command.returncode == status
        assert rows("SELECT * FROM ledger") == []
        assert lightlake("pull", "icecube", "--local", cwd=tmp_path, environment=here).returncode == 0
    assert rows("SELECT status, attempt FROM ledger") == [{"status": "done", "attempt": 1}]


def test_a_signal_ends_a_query(catalog: Catalog, tmp_path: Path) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import threading, time; from lake.cli import main; from lake.query import Lake\n"
        "true = Lake._limited\n"
        "def limited(*of): threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start(); return true(*of)\n"
        "Lake._limited = limited; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "sql", LONG, "--lake", str(catalog.storage.root)],
        cwd=tmp_path,
        env=child_environment(PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "lightlake: stopped\n")
