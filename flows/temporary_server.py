"""The server that Prefect starts for the length of a command, where it is told of no other."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import prefect
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

# The server reads from a pipe that nobody writes to: what it gets is its end, with the process that has the other end.
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
    """Prefect's own, but that it ends with the process that made it, however that ends.

    Prefect starts one of these, once there is one.
    """

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        pipe, self._kept_open = os.pipe()
        # As Prefect 3.8.8's own method does, but for the pipe.
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
