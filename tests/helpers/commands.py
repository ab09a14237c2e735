"""All commands of the `lightlake` command, with those that pyproject.toml plugs in, installed or not."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path

from cyclopts import App, Argument

from lake.cli import app
from lake.commands import plug_in

ROOT = Path(__file__).parents[2]


@cache
def entries() -> dict[str, list[EntryPoint]]:
    """Return the commands and exports that pyproject.toml plugs in."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    return {
        group: [EntryPoint(name, value, group) for name, value in groups[group].items()]
        for group in ("lightlake.commands", "lightlake.exports")
    }


@cache
def whole_app() -> App:
    """Return the command, with all commands of the project."""
    for group, name in ((app, "lightlake.commands"), (app["export"], "lightlake.exports")):
        plug_in(group, [one for one in entries()[name] if one.name not in group])
    return app


def commands(group: App | None = None, path: str = "lightlake") -> Iterator[tuple[str, App]]:
    """Yield each group and command with its words, such as "lightlake targets add"."""
    group = whole_app() if group is None else group
    for name in group:
        if not name.startswith("-"):
            yield f"{path} {name}", group[name]
            yield from commands(group[name], f"{path} {name}")


def parameters(path: str) -> list[Argument]:
    """Return the parameters of a command with their help; none of a group that is no command."""
    words = path.split()[1:]
    command = whole_app()
    for word in words:
        command = command[word]
    if not command.default_command:
        return []
    with whole_app().app_stack(words):  # which brings the defaults of the whole
        found = command.assemble_argument_collection(parse_docstring=True)
    return [argument for argument in found if argument.show and argument.names != ("*",)]
