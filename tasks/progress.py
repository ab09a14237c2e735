"""Show the progress of a run on the terminal or in a notebook: a line for each source."""

from __future__ import annotations

import sys
import threading
import time
from html import escape
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lake.text import one_line

# A notebook shows news this often, s: each is a message to the browser.
_NEWS_S = 0.2


def in_notebook() -> bool:
    """Say whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class Bars:
    """Progress bars: in a notebook below the cell, else on standard error, if that is a terminal that can redraw."""

    def __init__(self) -> None:
        self._cell = _Cell() if in_notebook() else None
        # In a notebook rich would ask for widgets.
        console = Console(stderr=True, force_jupyter=False)
        can_redraw = sys.stderr.isatty() and not console.is_dumb_terminal
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=self._cell is not None or not can_redraw,
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
        self._show(at_once=True)

    def begin(self, source: str, total: int, what: str = "targets") -> None:
        """Show that a source begins; a source that was shown before starts again."""
        with self._lock:
            if source in self._lines:
                self._bar.reset(self._lines[source], total=total)
            else:
                self._lines[source] = self._bar.add_task(source, total=total)
        self._show(at_once=True)

    def advance(self, source: str, done: int) -> None:
        """Show that some of its targets are done."""
        self._bar.advance(self._lines[source], done)
        self._show()

    def _show(self, *, at_once: bool = False) -> None:
        if self._cell is not None:
            with self._lock:
                self._cell.show(
                    [(task.description, task.completed, task.total or 0) for task in self._bar.tasks], at_once
                )


class _Cell:
    """The output of a notebook's cell; no widgets, so that every notebook shows it, and keeps it."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown_at = float("-inf")

    def show(self, lines: list[tuple[str, float, float]], at_once: bool) -> None:
        """Show the bars, unless they were shown just now."""
        now = time.monotonic()
        if not lines or (now - self._shown_at < _NEWS_S and not at_once):
            return
        self._shown_at = now
        from IPython.display import HTML, display

        made = HTML(bars_html(lines))
        if self._handle is None:
            self._handle = display(made, display_id=True)
        else:
            self._handle.update(made)


def bars_html(lines: list[tuple[str, float, float]]) -> str:
    """Return bars as HTML: name, what is done, and how many there are.

    Examples
    --------
    >>> print(bars_html([("<b>", 3, 7)]))
    <table><tr><td>&lt;b&gt;</td><td><progress value="3" max="7"></progress></td><td>3/7</td></tr></table>
    """
    rows = (
        f"<tr><td>{escape(one_line(name))}</td>"
        f'<td><progress value="{done:g}" max="{total:g}"></progress></td><td>{done:.0f}/{total:.0f}</td></tr>'
        for name, done, total in lines
    )
    return f"<table>{''.join(rows)}</table>"
