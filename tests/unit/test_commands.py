"""Each command and option has words, and each hint names commands and options that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
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
        (line,) = (line for line in lines if re.match(rf"[^\w-]+{entry.name}\s", line))
        told = line.strip("│ ").removeprefix(entry.name).strip()
        assert told
        assert first_line(entry.value).startswith(told)


@cache  # not at import: every process of the tests imports this
def texts() -> list[tuple[str, str, bool]]:
    """Return where each string of the code is, its text, and whether it is a hint; what is computed in it is a word."""
    found = []
    for package in ("lake", "tasks", "flows", "deployments"):
        for file in (ROOT / package).rglob("*.py"):
            tree = ast.parse(file.read_text())
            nodes = list(ast.walk(tree))
            hints = {
                id(inner)
                for node in nodes
                if isinstance(node, ast.keyword) and node.arg == "hint"
                for inner in ast.walk(node.value)
            }
            words = {id(one) for node in nodes if isinstance(node, ast.JoinedStr) for one in node.values}
            words |= {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # docstrings
            for node in nodes:
                if id(node) in words or not isinstance(node, ast.JoinedStr | ast.Constant):
                    continue
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                text = "".join(str(one.value) if isinstance(one, ast.Constant) else "COMPUTED" for one in parts)
                found.append((f"{file.relative_to(ROOT)}:{node.lineno}", text, id(node) in hints))
    return found


# Options of other programs that hints name.
OTHERS = {"--schema", "--prefect-file", "--all", "--upgrade"}


def test_hints_name_options_that_exist() -> None:
    seen = 0
    known = OTHERS.union(*map(options, COMMANDS))
    for where, text, is_hint in texts():
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text if is_hint else ""):
            assert option in known, f"{where}: no command has {option}: {text}"
            seen += 1
    assert seen > 25


def test_messages_name_commands_that_exist_with_their_options() -> None:
    seen = 0
    for where, text, _ in texts():
        for first, rest in re.findall(r"(?:(?<=: )|(?<=`)|(?<=&& )|(?<=  ))lightlake ([a-z]+)([^;`\n]*)", text):
            assert f"lightlake {first}" in COMMANDS, f"{where}: {text}"
            path = f"lightlake {first}"
            for word in rest.split():
                if f"{path} {word}" not in COMMANDS:
                    break
                path += f" {word}"
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest.partition("lightlake")[0]):
                assert option in options(path), f"{where}: {path} has no {option}: {text}"
            seen += 1
    assert seen > 40
