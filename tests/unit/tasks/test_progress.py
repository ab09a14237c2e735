"""Bars of progress are drawn where a terminal can draw them again, and nowhere else."""

from __future__ import annotations

import io

import pytest

from tasks.progress import Bars


class Terminal(io.StringIO):
    """A text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("kind", "drawn"), [("xterm", True), ("dumb", False)])
def test_a_terminal_that_cannot_redraw_shows_no_bars(kind: str, drawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", kind)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Bars() as bars:
        bars.begin("gaia", 3)
        bars.advance("gaia", 3)
    assert ("3/3" in terminal.getvalue()) == drawn
    assert drawn or not terminal.getvalue()
