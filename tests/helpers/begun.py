"""A Python that has imported what `lightlake` takes longest for, and forks: each child is a command that has begun.

Tests, and pages of the documentation most of all, start the command hundreds of times, and importing other people's
packages is more than half of what it does. So `lightlake` of theirs only asks this process, which forks: the child has
the terminal, folder, environment and arguments of who asked, and runs the command's own code from its first line on.
What asked passes signals on, and ends as the child ends. Nothing of the project is imported here.
"""

from __future__ import annotations

import array
import atexit
import builtins
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

# Of these, nothing depends on the environment or starts a thread when it is imported; astropy makes a folder at home.
MODULES = (
    "numpy",
    "pandas",
    "pyarrow",
    "pyarrow.compute",
    "pyarrow.parquet",
    "duckdb",
    "cyclopts",
    "rich.console",
    "rich.table",
    "pydantic_settings",
    "yaml",
    "filelock",
    "tenacity",
    "scipy.special",
    "httpx",
    "fsspec",
    "upath",
    "h5py",
    "hpgeom",
    "psutil",
    "altair",
    "astropy.units",
    "astropy.table",
    "astropy.time",
    "astropy.coordinates",
    "astropy.timeseries",
    "astropy.io.fits",
    "astropy.io.votable",
)

# The command, as pip makes it.
MAIN = 'from lake.cli import main\n\nif __name__ == "__main__":\n    main()\n'

# What asks: it needs little of Python, and begins the command itself where nobody answers.
ASK = """\
#!{python} -IS
import array, json, os, signal, socket, sys

def begin():
    os.execv({python!r}, [{python!r}, {script!r}, *sys.argv[1:]])

link = socket.socket(socket.AF_UNIX)
try:
    link.connect({path!r})
except OSError:
    begin()
asked = {{"script": {script!r}, "arguments": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ)}}
text = json.dumps(asked).encode()
link.sendmsg([len(text).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
link.sendall(text)
child = int.from_bytes(link.recv(4, socket.MSG_WAITALL), "big")
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(child, number))
status = int.from_bytes(link.recv(4, socket.MSG_WAITALL) or bytes([0, 0, 0, 9]), "big")
if os.WIFSIGNALED(status):
    number = os.WTERMSIG(status)
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
os._exit(os.WEXITSTATUS(status))
"""


@cache
def serving() -> str:
    """Start the process, once, and return the path of its socket; it ends with this one."""
    folder = tempfile.mkdtemp(prefix="begun-")
    path = str(Path(folder) / "socket")
    command = [sys.executable, __file__, path]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "HOME": folder},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(process.communicate)  # ends it
    assert process.stdout.readline() == b"ready\n"
    return path


def program(script: Path) -> str:
    """Return a program that runs a script of Python in a child of the process."""
    return ASK.format(python=sys.executable, script=str(script), path=serving())


@cache
def command() -> str:
    """Return the path of a program that is the command `lightlake`."""
    folder = Path(serving()).parent
    script, asks = folder / "lightlake.py", folder / "lightlake"
    script.write_text(MAIN)
    asks.write_text(program(script))
    asks.chmod(0o755)
    return str(asks)


def _serve(path: str) -> None:
    """Answer until stdin ends."""
    sys.path.pop(0)  # these helpers are not for others to import
    for module in MODULES:
        importlib.import_module(module)
    children: dict[int, socket.socket] = {}
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        listener.listen(64)
        for one in (listener, sys.stdin, woken):
            selector.register(one, selectors.EVENT_READ)
        os.write(1, b"ready\n")
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is listener:
                    link, _ = listener.accept()
                    if child := _begun(link, [listener, selector, *children.values()], (woken, wakes)):
                        children[child] = link
                        selector.register(link, selectors.EVENT_READ, child)
                elif key.fileobj == woken:
                    os.read(woken, 4096)
                    _tell(children, selector)
                elif key.data in children:  # who asked was killed
                    with suppress(ProcessLookupError):
                        os.killpg(key.data, signal.SIGKILL)
                    selector.unregister(key.fileobj)


def _tell(children: dict[int, socket.socket], selector: Any) -> None:
    """Tell those who asked how their commands ended."""
    for child in list(children):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            with children.pop(child) as link, suppress(OSError):
                with suppress(KeyError):
                    selector.unregister(link)
                link.sendall(status.to_bytes(4, "big"))


def _begun(link: socket.socket, ours: list[Any], pipe: tuple[int, int]) -> int:
    """Fork; return the child's process id. The child does not come back."""
    size, ancillary, _, _ = link.recvmsg(4, socket.CMSG_SPACE(12))
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    text = b""
    while len(text) < int.from_bytes(size, "big") and (part := link.recv(65536)):
        text += part
    child = os.fork() if len(descriptors) == 3 else 0
    if child == 0 and len(descriptors) != 3:
        return 0  # who asked is gone
    if child:
        for one in descriptors:
            os.close(one)
        with suppress(OSError):
            link.sendall(child.to_bytes(4, "big"))
        return child
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for one in ours:
        one.close()
    link.close()
    for one in pipe:
        os.close(one)
    for number, one in enumerate(descriptors):
        os.dup2(one, number)
        os.close(one)
    os._exit(_run(json.loads(text)))


def _run(asked: dict[str, Any]) -> int:
    """Run a script as Python does, and return its exit code."""
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    script = asked["script"]
    sys.argv[:] = [script, *asked["arguments"]]
    added = [path for path in asked["environment"].get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [str(Path(script).parent), *added]
    main = types.ModuleType("__main__")
    main.__file__, main.__builtins__ = script, builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = main
    code = 0
    try:
        exec(compile(Path(script).read_text(), script, "exec"), vars(main))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as Python itself does at the end
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return code & 255


if __name__ == "__main__":
    _serve(sys.argv[1])
