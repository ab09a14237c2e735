"""Measure time and memory so that sides are comparable: fresh processes, interleaved repeats, medians.

``python -m benchmarks.measure MODULE FUNCTION`` is the child process of `fresh`; it reads arguments from stdin.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Run:
    """Result and cost of a function in fresh processes.

    Parameters
    ----------
    value
        The last value that it returned.
    seconds
        Median time of the call.
    wall_s
        Median time of the whole process: start of Python, imports, the call, exit.
    peak_rss_mb
        Largest peak of resident memory, MB of 10^6 bytes.
    """

    value: Any
    seconds: float
    wall_s: float
    peak_rss_mb: float


def fresh(function: Callable[..., Any], *arguments: Any, processes: int = 1, python: str = sys.executable) -> Run:
    """Call a function of a module in fresh processes, one after the other.

    Parameters
    ----------
    function
        A function at the top level of its module; arguments and value go through JSON. The process imports that
        module, so imports that should be measured belong inside the function.
    processes
        Number of processes.
    python
        The Python that runs it. Another one has other libraries, but not Lightlake's.

    Raises
    ------
    RuntimeError
        If the function fails; the message has its stderr.
    """
    module = function.__module__
    if module == "__main__":
        spec = sys.modules["__main__"].__spec__
        module = spec.name if spec else module
    runs = []
    for _ in range(processes):
        started = time.perf_counter()
        done = subprocess.run(
            [python, "-m", "benchmarks.measure", module, function.__name__],
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            check=False,
        )
        wall_s = time.perf_counter() - started
        if done.returncode:
            raise RuntimeError(f"{module}.{function.__name__} failed:\n{done.stderr}")
        answer = json.loads(done.stdout.splitlines()[-1])
        runs.append(Run(answer["value"], answer["seconds"], wall_s, answer["peak_rss_mb"]))
    return Run(
        runs[-1].value,
        median(run.seconds for run in runs),
        median(run.wall_s for run in runs),
        max(run.peak_rss_mb for run in runs),
    )


def import_all() -> None:
    """Import what is imported at its first use: a process does it once, whatever it does then."""
    for name in ("erfa", "httpx", "lake.query", "pandas", "pyarrow.dataset", "scipy.spatial", "tasks.worker"):
        importlib.import_module(name)


Prepared = Callable[[], Any]


@dataclass(frozen=True)
class Race:
    """Results and cost of processes that ran at the same time.

    Parameters
    ----------
    values
        What each returned.
    seconds
        From the start of all to the end of the last.
    cpu_s
        Processor time of all together.
    peak_rss_mb
        The largest peak of resident memory, MB of 10^6 bytes.
    """

    values: list[Any]
    seconds: float
    cpu_s: float
    peak_rss_mb: float


def race(prepare: Callable[..., Prepared], *jobs: tuple[Any, ...]) -> Race:
    """Run each job in a fresh process, start all at once when they are prepared, and time them.

    Parameters
    ----------
    prepare
        Imports and rehearses; the function that it returns is timed.
    jobs
        Arguments of `prepare` for each process.

    Raises
    ------
    RuntimeError
        If a process fails; it says why on stderr.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for job in jobs:
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, prepare, job), daemon=True)
        process.start()
        there.close()
        pipes.append(here)
        processes.append(process)
    try:
        for pipe in pipes:
            pipe.recv()
        started = time.perf_counter()
        for pipe in pipes:
            pipe.send("go")
        answers = [pipe.recv() for pipe in pipes]
        seconds = time.perf_counter() - started
    except EOFError as error:
        raise RuntimeError(f"a process of {prepare.__name__} failed") from error
    finally:
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.kill()
    values, cpu, peaks = zip(*answers, strict=True)
    return Race(list(values), seconds, sum(cpu), max(peaks))


def _work(pipe: Connection, prepare: Callable[..., Prepared], job: tuple[Any, ...]) -> None:
    ready = prepare(*job)
    pipe.send("ready")
    pipe.recv()
    started = time.process_time()
    value = ready()
    pipe.send((value, time.process_time() - started, peak_rss_mb()))


def use_cores(n: int) -> None:
    """Restrict this process and its children to n cores, where the system supports it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n])


def peak_rss_mb() -> float:
    """Return the peak of this process's resident memory, MB of 10^6 bytes.

    On Linux a child inherits getrusage's maximum through fork and exec; VmHWM starts again with exec.
    """
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def interleaved(
    sides: Mapping[str, Callable[[Any], Any]],
    questions: Sequence[Any],
    check: Callable[[Any, Any, str], None],
    rare: Iterable[str] = (),
    rare_questions: int = 3,
) -> dict[str, float]:
    """Ask all sides each question in turn (A B A B ...) and return each side's median seconds.

    Parameters
    ----------
    sides
        Functions of a question, by name.
    questions
        The first one is a rehearsal and not timed.
    check
        Called with question, answer and side, outside the measured time; raises if the answer is wrong.
    rare
        Slow sides, which get only the first `rare_questions` questions after the rehearsal.
    """
    rare = set(rare)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn, question in enumerate(questions):
        for side, ask in sides.items():
            if side in rare and not 1 <= turn <= rare_questions:
                continue
            started = time.perf_counter()
            answer = ask(question)
            elapsed = time.perf_counter() - started
            check(question, answer, side)
            if turn:
                seconds[side].append(elapsed)
    return {side: median(times) for side, times in seconds.items()}


def ask_each(prepare: Callable[[], Callable[[Any], Any]], questions: Sequence[Any]) -> tuple[Any, dict[str, float]]:
    """Open one side and ask it each question.

    Parameters
    ----------
    prepare
        Imports and opens; returns the function that answers a question.
    questions
        At least two.

    Returns
    -------
    tuple
        The last answer, and the seconds of opening (`open_s`), of the first question (`first_s`), and the median of the
        others (`question_s`), also in processor time (`question_cpu_s`), which others on the machine change less.
    """
    started = time.perf_counter()
    ask = prepare()
    open_s = time.perf_counter() - started
    seconds, cpu = [], []
    for question in questions:
        started, cpu_started = time.perf_counter(), time.process_time()
        answer = ask(question)
        seconds.append(time.perf_counter() - started)
        cpu.append(time.process_time() - cpu_started)
    return answer, {
        "open_s": open_s,
        "first_s": seconds[0],
        "question_s": median(seconds[1:]),
        "question_cpu_s": median(cpu[1:]),
    }


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, first column left, the others right; floats to three digits, None as a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    print(f"\n{title}")
    for line in [list(columns), ["-" * width for width in widths], *cells]:
        first, *rest = line
        aligned = [first.ljust(widths[0])] + [c.rjust(w) for c, w in zip(rest, widths[1:], strict=True)]
        print("  ".join(aligned).rstrip())


def print_result(result: Mapping[str, Any]) -> None:
    """Print the result as one JSON object, which must be the last line of a benchmark."""
    print()
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in result.items()}))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _child(module: str, name: str) -> None:
    arguments = json.load(sys.stdin)
    function = getattr(importlib.import_module(module), name)
    started = time.perf_counter()
    value = function(*arguments)
    seconds = time.perf_counter() - started
    print()
    print(json.dumps({"value": value, "seconds": seconds, "peak_rss_mb": peak_rss_mb()}))


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2])
