"""The page of errors has every kind of error and every message, and each names a page that is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from helpers.commands import ROOT, commands, parameters
from helpers.processes import Run, run  # noqa: F401

from deployments.documentation.errors import COMPUTED, errors_page, kinds, messages, undescribed
from deployments.documentation.pages import Documentation
from lake.errors import EXIT_CODES, ArchiveError, ConfigurationError, LightlakeError, NoLake, topic_of, with_topic
from tasks.pull.recording import STOPPED


@cache  # not at import: every process of the tests imports this
def trees() -> dict[Path, ast.Module]:
    files = [file for package in ("lake", "tasks", "flows", "deployments") for file in (ROOT / package).rglob("*.py")]
    return {file: ast.parse(file.read_text()) for file in files}


@cache
def page() -> str:
    return errors_page()


def all_kinds(kind: type[LightlakeError] = LightlakeError) -> list[type[LightlakeError]]:
    return [kind, *(one for below in kind.__subclasses__() for one in all_kinds(below))]


def topics() -> dict[str, str]:
    """Every page that code names for its errors, and where."""
    found = {kind.topic: kind.__name__ for kind in kinds().values() if kind.topic}
    for file, tree in trees().items():
        for node in ast.walk(tree):
            value = None
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = node.value if node.targets[0].id in ("HELP_TOPIC", "_UPKEEP") else None
            elif isinstance(node, ast.keyword) and node.arg == "topic":
                value = node.value
            if isinstance(value, ast.Constant) and value.value:
                found[value.value] = str(file.relative_to(ROOT))
            for text in re.findall(r"lightlake help ([a-z]+/[a-z-]+)", str(getattr(node, "value", ""))):
                found[text] = str(file.relative_to(ROOT))
    return found


@pytest.mark.long
def test_a_page_that_an_error_names_is_there() -> None:
    pages = Documentation().paths
    named = topics()
    assert len(named) > 15
    assert not {topic: where for topic, where in named.items() if f"{topic}.md" not in pages}


def test_every_kind_of_error_has_its_words() -> None:
    named = set(kinds().values())  # which imports them
    assert set(all_kinds()) == named
    assert list(undescribed(kinds().values())) == []
    for name in kinds().keys() - {"LightlakeError"}:
        assert f"| `{name}` |" in page()

    class Nameless(ConfigurationError):
        pass

    assert list(undescribed([Nameless])) == ["Nameless"]


def test_options_of_the_advice_exist() -> None:
    known = {name for path, _ in commands() for argument in parameters(path) for name in argument.names}
    seen = 0
    for kind in kinds().values():
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", kind.advice):
            assert option in known, kind
            seen += 1
    assert seen > 3


def test_every_message_is_on_the_page() -> None:
    """Each text that begins with words of its own, as the code has it."""
    seen = 0
    plain = page().replace("\\", "").replace("&lt;", "<")
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds() and node.args:
                text = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
                if isinstance(text, ast.Constant) and isinstance(text.value, str) and len(text.value) > 8:
                    assert " ".join(text.value.split()).replace("\\", "") in plain
                    seen += 1
    assert seen > 250
    every = messages()
    assert len(every) > 350
    assert all(one.hint for one in every if one.kind == "NoLake")


def test_tables_of_the_page_have_whole_rows() -> None:
    rows = [line for line in page().splitlines() if line.startswith("|")]
    assert len(rows) > 250
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3, 5}
    assert not [row for row in rows if row.startswith(f"| {COMPUTED} |")]


def test_exit_codes_are_those_of_the_code() -> None:
    used = {STOPPED}
    for file, tree in trees().items():
        if file.stem == "cli" or file.stem.endswith("_cli"):
            for node in ast.walk(tree):
                value = node.value if isinstance(node, ast.Return) else None
                value = node.args[1] if isinstance(node, ast.Call) and len(node.args) == 2 else value
                called = getattr(getattr(node, "func", None), "id", "_failed") == "_failed"
                if called and isinstance(value, ast.Constant) and type(value.value) is int:
                    used.add(value.value)
    assert {0, 3, 70, 130} <= used
    assert used <= EXIT_CODES.keys()
    assert all(f"| {code} |" in page() for code in EXIT_CODES)


def test_the_module_that_raises_an_error_names_its_page() -> None:
    from lake.store.storage import Storage
    from tasks.samples.positions import frame_of

    def raised(call: object, *arguments: object) -> LightlakeError:
        with pytest.raises(LightlakeError) as error:
            call(*arguments)  # type: ignore[operator]
        return error.value

    assert topic_of(raised(frame_of, "nowhere")) == "how-to/target-lists", "of the package tasks.samples"
    assert topic_of(raised(Storage.from_url, "ftp://x")) == "how-to/keep-a-lake"
    assert topic_of(ConfigurationError("made, and not raised")) is None


def test_the_line_of_an_error_ends_with_the_page(run: Run) -> None:  # noqa: F811
    for arguments, topic in (
        (["status", "--lake", "nowhere"], "tutorials/first-lake"),
        (["init", "s3://"], "how-to/keep-a-lake"),
        (["status", "--watch"], None),
    ):
        done = run(*arguments)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert re.findall(r"\); see: lightlake help (\S+)\n$", done.err) == ([topic] if topic else [])
    assert with_topic(NoLake("no lake", hint="make one")) == "no lake (make one); see: lightlake help " + str(
        NoLake.topic
    )
    assert with_topic(ConfigurationError("no", hint="do")) == "no (do)"
    assert with_topic(ConfigurationError("no", topic="how-to/s3")) == "no; see: lightlake help how-to/s3"
    assert "lightlake help" not in str(ArchiveError("busy", archive="a", endpoint="http://x")), "nor in the ledger"
