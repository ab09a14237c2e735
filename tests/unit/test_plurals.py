"""Messages count right: 1 row, 2 rows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from lake.text import counted

ROOT = Path(__file__).parents[2]
# What messages count. The stand-ins of archives speak as the archives do.
NOUNS = (
    "archives|batches|bins|bytes|cadences|cells|characters|channels|columns|composites|deployments|detections|epochs"
    "|errors|events|exposures|figures|files|folders|granules|keys|labels|matches|measurements|names|notes|objects"
    "|observations|papers|partitions|pawprints|points|positions|questions|requests|retries|rows|runs|samples|settings"
    "|sources|tables|targets|tiles|times|transits|values|workers"
)
COUNTED = re.compile(rf"^ (?:(?:new|more|good|bad|unknown|covered|small|other) )*(?:{NOUNS})\b(?!-)")


def faulty(source: str) -> Iterator[tuple[int, str]]:
    """Yield where a computed number stands before a plural that it does not change."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, text in zip(node.values, node.values[1:], strict=False):
            if not (isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant)):
                continue
            is_constant = isinstance(value.value, ast.Name) and value.value.id.lstrip("_").isupper()
            is_text = isinstance(value.value, ast.Name) and value.conversion != -1
            is_counted = isinstance(value.value, ast.Call) and ast.unparse(value.value.func) == "counted"
            if not (is_constant or is_text or is_counted) and COUNTED.match(text.value):
                yield node.lineno, f"{{{ast.unparse(value.value)}}}{text.value}"


def test_what_is_found() -> None:
    assert [text for _, text in faulty('f"{n} rows"; f"{len(x)} new targets of {y}"; f"{counted(n, 1)} of"')] == [
        "{n} rows",
        "{len(x)} new targets of ",
    ]
    assert not list(faulty('f"{MOST} files"; f"{text!r} names no bucket"; f"{n} rowsof"; f"a {n}-row"'))


def test_every_message_counts_right() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for package in ("lake", "tasks", "flows", "deployments")
        for file in sorted((ROOT / package).rglob("*.py"))
        if "sandbox" not in file.parts
        for line, text in faulty(file.read_text())
    ]
    assert found == []


def test_counted() -> None:
    assert counted(1, "row has", "rows have") == "1 row has"
    assert counted(0, "row has", "rows have") == "0 rows have"
