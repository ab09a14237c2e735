"""Each command and option has words, and each hint names commands and options that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
from cyclopts import App
from helpers.commands import ROOT, commands, entries, parameters

from lake.commands import first_line, plug_in

COMMANDS = dict(commands())


def options(path: str) -> set[str]:
    """Return the names of a command's options."""
    names = {name for argument in parameters(path) for name in argument.names}
    return names | {"--help", "-h", "--version", "--debug", "--install-completion"}


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_and_its_options_have_words(path: str) -> None:
    command = COMMANDS[path]
    first = (command.help or "").partition("\n")[0]
    assert first.endswith("."), path
    assert len(first) <= 120
    for argument in parameters(path):
        told = (argument.parameter.help or "").strip()
        assert told.endswith("."), f"{path} {argument.name} has no help: {told!r}"
        # Those that cyclopts makes by itself; a command may name one, such as --local.
        made = [name for name in argument.negatives if re.match(r"--(no|empty)-", name)]
        assert not made, f"{path} {made}"


@pytest.mark.parametrize("entry", [one for group in entries().values() for one in group], ids=lambda one: one.name)
def test_the_line_in_the_help_is_read_without_import(entry: EntryPoint) -> None:
    path = f"lightlake {'export ' if entry.group == 'lightlake.exports' else ''}{entry.name}"
    assert first_line(entry.value) == COMMANDS[path].help.partition("\n")[0]


def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown = App(name="lightlake", help="Help.")
    plug_in(shown, entries()["lightlake.commands"], described=True)
    shown("--help", result_action="return_value")
    lines = capsys.readouterr().out.splitlines()
    for entry in entries()["lightlake.commands"]:
        (line,) = (line for line in lines if re.match(rf"\W+{entry.name}\s", line))
        told = line.strip("│ ").removeprefix(entry.name).strip()
        assert told
        assert first_line(entry.value).startswith(told)


def hints() -> Iterator[tuple[str, str]]:
    """Yield where each hint is, and its text; what is computed in it is a word that is no option."""
    for package in ("lake", "tasks", "flows", "deployments"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "hint":
                    for text in texts(node.value):
                        yield f"{file.relative_to(ROOT)}:{node.value.lineno}", text


def texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from (*texts(node.body), *texts(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(one.value) if isinstance(one, ast.Constant) else "COMPUTED" for one in node.values)


HINTS = list(hints())
EVERY_OPTION = set().union(*map(options, COMMANDS))
# Options of other programs that hints name.
OTHERS = {"--schema", "--prefect-file", "--all", "--upgrade"}


def test_hints_name_commands_and_options_that_exist() -> None:
    assert len(HINTS) > 150
    seen = 0
    for where, text in HINTS:
        for words in re.findall(r"\blightlake ((?:[a-z]+[ -]?)+)(.*)", text):
            path = "lightlake"
            for word in words[0].split():
                if f"{path} {word}" not in COMMANDS:
                    break
                path += f" {word}"
            assert path != "lightlake", f"{where}: {text}"
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", words[1].partition(";")[0]):
                assert option in options(path), f"{where}: {path} has no {option}: {text}"
            seen += 1
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text):
            assert option in EVERY_OPTION | OTHERS, f"{where}: no command has {option}: {text}"
    assert seen > 30
