"""Show the progress of a run on the terminal: a line for each source."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Bars:
    """Progress bars on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._lines: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Start to show the bars."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Leave the bars as they are."""
        self._bar.stop()

    def begin(self, source: str, total: int, what: str = "targets") -> None:
        """Show that a source begins; a source that was shown before starts again."""
        with self._lock:
            if source in self._lines:
                self._bar.reset(self._lines[source], total=total)
            else:
                self._lines[source] = self._bar.add_task(source, total=total)

    def advance(self, source: str, done: int) -> None:
        """Show that some of its targets are done."""
        self._bar.advance(self._lines[source], done)
