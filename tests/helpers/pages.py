"""A page of the documentation, run as a reader would: its blocks of shell and Python, and what they print.

Blocks run from the top to the bottom in one empty folder: those of `bash` in one shell, those of `python` in one
Python, which starts where the shell is by then. What they print goes to a terminal of 80 columns, and what commands
print differs there: tables are narrower than in a file. A block of `text` after one of them is what it prints; `...`
in it stands for anything, as in a doctest. A comment before a block says what is special about it:

    <!-- another terminal -->    a server: run beside the rest, until it prints the text that follows
    <!-- fails -->               ends with another exit code than 0
    <!-- not run: REASON -->     is not run
    <!-- not compared -->        the output is an example
    <!-- file: NAME -->          is not run, but written to a file of that name, where the shell is

A page that needs a server, or a clone of the project, says so by a comment of its own: see `helpers.page_needs`.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue

from helpers.begun import MAIN, program
from helpers.processes import child_environment

FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n+)?^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
NOTES = ("another terminal", "fails", "not run: ", "not compared", "file: ")
END = "=== end of a block:"
# Runs blocks of code from its standard input in one namespace.
PYTHON = f"""
import ast, sys, traceback
space = {{"__name__": "__main__"}}
text = ""
for line in sys.stdin:
    if not line.startswith({END!r}):
        text += line
        continue
    code = 0
    try:
        tree = ast.parse(text)
        for node in tree.body:
            kind = ast.Interactive if isinstance(node, ast.Expr) else ast.Module
            part = ast.Interactive([node]) if kind is ast.Interactive else ast.Module([node], [])
            exec(compile(part, "<page>", "single" if kind is ast.Interactive else "exec"), space)
    except BaseException:
        code = 1
        traceback.print_exc(file=sys.stdout)
    text = ""
    print(line.rstrip(), code, flush=True)
"""


@dataclass(frozen=True)
class Block:
    """A block of code, what is special about it, and what it prints, if the page says so."""

    line: int
    language: str
    code: str
    note: str = ""
    printed: str | None = None
    compared: bool = True


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that are run or written to a file."""
    text, found = page.read_text(), []
    last_end = -1
    for match in FENCE.finditer(text):
        note, language = match["note"] or "", match["language"]
        note = note if note.startswith(NOTES) else ""
        code = textwrap.dedent(match["code"])
        line = text.count("\n", 0, match.start("language")) + 1
        # What is printed stands right after its block.
        between = re.sub(r"<!-- .*? -->", "", text[last_end : match.start()]) if last_end >= 0 else "far"
        if language == "text" and found and not between.strip() and not note.startswith("file: "):
            one = found.pop()
            found.append(
                Block(one.line, one.language, one.code, one.note, code, note != "not compared" and one.compared)
            )
            last_end = -1
        elif language in ("bash", "python") or note.startswith("file: "):
            found.append(
                Block(line, language, code, "" if note == "not compared" else note, None, note != "not compared")
            )
            last_end = match.end()
        else:
            last_end = -1
    return found


def to_run(page: Path) -> list[Block]:
    """Return the blocks of a page that are run, or written to a file, here."""
    return [block for block in blocks(page) if not block.note.startswith("not run: ")]


def agrees(printed: str, expected: str) -> bool:
    """Whether output is what a page says.

    "..." stands for anything, alone in a line for any lines, or none. Spaces at the ends of lines do not count.
    """
    said, wanted = ([*(line.rstrip() for line in text.strip("\n").splitlines()), ""] for text in (printed, expected))
    lines = [".*?".join(map(re.escape, line.split("..."))) + "\n" for line in wanted[:-1]]
    pattern = "".join(r"(?:[^\n]*\n)*?" if line == ".*?\n" else line for line in lines)
    return re.fullmatch(pattern, "\n".join(said), re.DOTALL) is not None


class Session:
    """A shell or a Python that runs blocks one after the other and tells what each printed."""

    def __init__(self, command: list[str], cwd: Path, environment: dict[str, str]) -> None:
        ours, theirs = _terminal()
        self.output = os.fdopen(ours, "rb", buffering=0)
        try:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=theirs,
                stderr=theirs,
                text=True,
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        self.lines: Queue[str | None] = Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        rest = b""
        with suppress(OSError):  # a terminal that nobody has any more
            while more := self.output.read(65536):
                *whole, rest = (rest + more).split(b"\n")
                for line in whole:
                    self.lines.put(f"{line.decode(errors='replace')}\n")
        if rest:
            self.lines.put(rest.decode(errors="replace"))
        self.lines.put(None)

    def send(self, text: str) -> None:
        """Write to its standard input."""
        assert self.process.stdin
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def read_until(self, end: str, timeout_s: float) -> tuple[str, str]:
        """Return what it printed before a line that begins with a text, and that line."""
        said: list[str] = []
        ends_at = time.monotonic() + timeout_s
        while True:
            try:
                line = self.lines.get(timeout=max(ends_at - time.monotonic(), 0.01))
            except Empty:
                raise AssertionError(f"no end after {timeout_s:.0f} s:\n{''.join(said)}") from None
            if line is None:
                raise AssertionError(f"ended:\n{''.join(said)}")
            if end in line:
                before, _, rest = line.partition(end)
                return "".join(said) + before, rest.strip()
            said.append(line)

    def stop(self, signal_: int = signal.SIGTERM) -> None:
        """End it with all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal_)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join(30)
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        if not self.reader.is_alive():  # what escaped from the group has the terminal still, and is read until it ends
            self.output.close()


def _terminal() -> tuple[int, int]:
    """Return both ends of a terminal of 80 columns that leaves ends of lines as they are."""
    ours, theirs = pty.openpty()
    modes = termios.tcgetattr(theirs)
    modes[1] &= ~termios.OPOST
    termios.tcsetattr(theirs, termios.TCSANOW, modes)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
    return ours, theirs


def terminal(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a reader: a home of their own, 80 columns, `lightlake` and `python` on the path."""
    home, programs = folder / "home", folder / "bin"
    home.mkdir()
    programs.mkdir()
    # A file, as pip makes it: DuckDB takes `python -c` for somebody at a prompt, and draws bars of progress.
    script = folder / "installed" / "lightlake"
    script.parent.mkdir()
    script.write_text(MAIN)
    start = {"lightlake": program(script), "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n'}
    for name, text in start.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    root = str(Path(__file__).parents[2])
    given = {"HOME": str(home), "PATH": path, "COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1", "PYTHONPATH": root}
    # A service asks each other second what is to run, instead of every ten.
    given |= {"PREFECT_HOME": str(home / "prefect"), "PREFECT_RUNNER_POLL_FREQUENCY": "2"}
    return child_environment(**{**given, **more})


class Reader:
    """Who runs the blocks of a page: one shell, one Python, and servers in other terminals."""

    def __init__(self, work: Path, environment: dict[str, str], timeout_s: float, stack: ExitStack) -> None:
        self.environment, self.timeout_s, self.stack = environment, timeout_s, stack
        self.shell = self._started(["bash", "--norc"], work, environment)
        self.python: Session | None = None

    def _started(self, command: list[str], cwd: Path, environment: dict[str, str]) -> Session:
        session = Session(command, cwd, environment)
        self.stack.callback(session.stop)
        return session

    def _here(self) -> Path:
        self.shell.send(f"pwd; echo '{END}' 0\n")
        return Path(self.shell.read_until(END, 30)[0].strip())

    def _variables(self) -> dict[str, str]:
        self.shell.send(f"env -0 | tr '\\n\\0' ' \\n'; echo '{END}' 0\n")
        said = self.shell.read_until(END, 30)[0]
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    def run(self, block: Block) -> str:
        """Run a block, and return what it printed; AssertionError if it does otherwise than the page says."""
        said = ""
        if block.note.startswith("file: "):
            (self._here() / block.note.removeprefix("file: ")).write_text(block.code)
        elif block.note == "another terminal":
            self._serve(block)
        else:
            said, code = self._ran(block)
            assert (code != "0") == (block.note == "fails"), f"exit code {code}\n{said}"
            if block.printed is not None and block.compared:
                assert agrees(said, block.printed), f"printed\n{said}\ninstead of\n{block.printed}"
        return said

    def _serve(self, block: Block) -> None:
        assert block.printed, "the page does not say what it prints when it is ready"
        beside = self._started(["bash", "--norc", "-c", block.code], self._here(), self.environment)
        ready = next(part for part in block.printed.strip().splitlines()[-1].split("...") if part.strip())
        said, rest = beside.read_until(ready, self.timeout_s)
        assert agrees(said + ready + rest, block.printed), f"printed\n{said}{ready}{rest}"

    def _ran(self, block: Block) -> tuple[str, str]:
        if block.language == "bash":
            self.shell.send(f"{block.code.strip()}\necho '{END}' $?\n")
            return self.shell.read_until(END, self.timeout_s)
        if self.python is None:
            self.python = self._started([sys.executable, "-u", "-c", PYTHON], self._here(), self._variables())
        self.python.send(f"{block.code.rstrip()}\n{END}\n")
        return self.python.read_until(END, self.timeout_s)


def run_page(
    page: Path, folder: Path, timeout_s: float = 240, *, keep: bool = False, **environment: str
) -> list[Block]:
    """Run a page's blocks in a folder, and return those that ran, with what they printed.

    Parameters
    ----------
    page
        A file of Markdown.
    folder
        A folder of its own; the blocks run in `work` in it, which is made unless it is there.
    timeout_s
        For each block.
    keep
        Leave the folder as it is then.
    environment
        More variables.

    Raises
    ------
    AssertionError
        A block does otherwise than the page says; the message has its line.
    """
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    ran = []
    with ExitStack() as stack:
        reader = Reader(work, terminal(folder, **environment), timeout_s, stack)
        for block in to_run(page):
            try:
                ran.append(replace(block, printed=reader.run(block)))
            except AssertionError as error:
                raise AssertionError(f"{page.name}, line {block.line}: {error}") from None
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return ran
