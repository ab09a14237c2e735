"""The server that Prefect starts for one command, where no other is configured."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import prefect
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, get_current_settings

# The server reads from a pipe that is never written to; the read ends when the process with the other end ends.
_SERVER = """
import os, runpy, signal, sys, threading, time

def end_with_parent(pipe):
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os._exit(1)

threading.Thread(target=end_with_parent, args=(int(sys.argv.pop(1)),), daemon=True).start()
runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)
"""


class TemporaryServer(SubprocessASGIServer):
    """Prefect's own server, which also ends when the process that made it is killed.

    Prefect starts this one instead of its own, once it exists.
    """

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        pipe, self._kept_open = os.pipe()
        # As in Prefect 3.8.8's own method, except for the pipe.
        options = {
            "--app-dir": str(prefect.__module_path__.parent),
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--log-level": "error",
            "--lifespan": "on",
        }
        arguments = [str(pipe), "--factory", "prefect.server.api.server:create_app"]
        try:
            return subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", _SERVER, *arguments, *(text for pair in options.items() for text in pair)],
                env={
                    **os.environ,
                    "PREFECT_UI_ENABLED": "0",
                    "PREFECT__SERVER_EPHEMERAL": "1",
                    "PREFECT__SERVER_FINAL": "1",
                    **get_current_settings().to_environment_variables(exclude_unset=True),
                },
                pass_fds=(pipe,),
            )
        finally:
            os.close(pipe)


def dask_setup(worker: object) -> None:
    """Prepare a Dask worker that loads this module first: a server that Prefect starts there ends with it."""
    if not PREFECT_API_URL.value():
        TemporaryServer()
