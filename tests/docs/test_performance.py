"""docs/explanation/performance.md names every benchmark, and only those that exist."""

from __future__ import annotations

import re
from pathlib import Path

import benchmarks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "performance.md").read_text()
# virac_per_source is the extractor that virac is compared with.
COMMANDS = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\ndef main(" in path.read_text()} - {
    "virac_per_source"
}


def test_every_benchmark_has_a_row_on_the_page() -> None:
    rows = PAGE.partition("## All benchmarks")[2]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE)))) == COMMANDS
    assert {"lake", "match", "peers"} <= COMMANDS


def test_the_page_names_benchmarks_that_exist() -> None:
    assert set(re.findall(r"benchmarks\.(\w+)", PAGE)) <= COMMANDS


def test_the_package_lists_them_too() -> None:
    assert benchmarks.__doc__
    table = benchmarks.__doc__.split("=\n")[1]
    listed = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line[:20])}
    assert listed == COMMANDS
