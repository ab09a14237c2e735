"""A process that has imported what scripts of tests need, and calls functions for them: forked, as if it were they.

Scripts that stand in for other software are started hundreds of times, and most of what they take is the import of
astropy. So a script only asks this process, which forks: the child goes to the folder and takes the environment and the
arguments of the script, and calls a function there.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any


def call(path: str, module: str, function: str, *arguments: Any) -> Any:
    """Call a function in the process behind a socket; print what it prints, and return what it returns.

    Raises
    ------
    RuntimeError
        With the type and the text of what the function raised.
    """
    asked = {
        "module": module,
        "function": function,
        "arguments": arguments,
        "cwd": os.getcwd(),  # noqa: PTH109 - less to import
        "environment": dict(os.environ),
        "argv": sys.argv,
    }
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        link.sendall(json.dumps(asked).encode())
        link.shutdown(socket.SHUT_WR)
        answer = json.loads(_whole(link))
    sys.stdout.write(answer["printed"])
    if "raised" in answer:
        raise RuntimeError(*answer["raised"])
    return answer["returned"]


def _whole(link: socket.socket) -> bytes:
    parts = []
    while part := link.recv(65536):
        parts.append(part)
    return b"".join(parts)


def serve(path: str, *modules: str) -> None:
    """Import modules, say so, and answer until stdin ends."""
    import importlib
    import select
    import signal

    for module in modules:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            link, _ = listener.accept()
            with link:
                if os.fork() == 0:
                    _answer(link)


def _answer(link: socket.socket) -> None:
    import importlib
    import io
    from contextlib import redirect_stdout

    try:
        asked = json.loads(_whole(link))
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv[:] = asked["argv"]
        printed = io.StringIO()
        answer = {}
        with redirect_stdout(printed):
            try:
                function = getattr(importlib.import_module(asked["module"]), asked["function"])
                answer["returned"] = function(*asked["arguments"])
            except Exception as error:  # noqa: BLE001 - it is raised at the other end
                answer["raised"] = [type(error).__name__, str(error)]
        link.sendall(json.dumps({**answer, "printed": printed.getvalue()}).encode())
    finally:
        os._exit(0)
