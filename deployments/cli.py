"""Commands that bring everything together: the demo."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

demo = App(name="demo")


@demo.default
def run_demo(folder: Path = Path("lightlake-demo")) -> int:
    """Fill a small lake from archive stand-ins on this machine, ask it three questions, plot it.

    Parameters
    ----------
    folder
        Where the demo keeps its lake, its archives and its page.
    """
    from deployments.demo import run

    folder.mkdir(parents=True, exist_ok=True)
    return run(folder.absolute())
