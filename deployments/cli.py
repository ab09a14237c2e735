"""Commands that bring everything together: the doctor and the demo."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pyarrow as pa
from cyclopts import App

from lake.cli import LakeURL, Output, say, show
from lake.errors import ConfigurationError

doctor = App(name="doctor")
demo = App(name="demo")

_CHECKS = pa.schema([(name, pa.string()) for name in ("status", "name", "found", "hint")])


@doctor.default
def run_doctor(
    *,
    lake: LakeURL = None,
    offline: bool = False,
    timeout_s: float = 5.0,
    output: Output = "table",
    to: Path | None = None,
) -> int:
    """Check all that Lightlake needs, and say what to do about what is wrong; exit with 1 if anything fails.

    Parameters
    ----------
    offline
        Do not look whether archives can be reached.
    timeout_s
        Longest wait for a connection, and for an answer.
    to
        File to write to; Parquet needs one.
    """
    from deployments.doctor import examine

    if not 0 < timeout_s < math.inf:
        raise ConfigurationError(f"--timeout-s cannot be {timeout_s:g}", hint="give seconds, more than 0")
    checks = examine(lake, offline=offline, patience_s=timeout_s)
    rows = [{name: getattr(check, name) for name in _CHECKS.names} for check in checks]
    show(pa.Table.from_pylist(rows, schema=_CHECKS), output, to)
    count = Counter(check.status for check in checks)
    if output == "table":
        say(", ".join(f"{count[status]} {status}" for status in ("ok", "warn", "fail")))
    return 1 if count["fail"] else 0


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
