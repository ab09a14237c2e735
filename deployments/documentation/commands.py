"""The page of commands: every command and option, from the app that runs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cyclopts import App, Parameter

from deployments.documentation.docstrings import Docstring
from deployments.documentation.markdown import code, fenced, page, prose, table

_HEAD = """
# Commands

`lightlake COMMAND --help` prints the same of one command. `--version` prints the version. `--debug`, with any command,
shows where an error came from. `lightlake --install-completion` installs completion for your shell.

Every command ends with an [exit code](errors.md). Options may stand in any order, and `--option=value` is the same as
`--option value`. A lake is named by `--lake`, or once for all by [LIGHTLAKE_URL](settings.md#lightlake_url).
"""


@dataclass(frozen=True)
class Option:
    """A parameter of a command, as a user sees it."""

    names: tuple[str, ...]
    is_positional: bool
    is_required: bool
    default: str | None
    choices: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Command:
    """A command, or a group of commands if it has no options of its own."""

    name: str
    text: str
    options: tuple[Option, ...]
    is_group: bool

    @property
    def usage(self) -> str:
        """Return how it is called."""
        words = [self.name]
        for one in self.options:
            if one.is_positional:
                words.append(one.names[0] if one.is_required else f"[{one.names[0]}]")
            elif one.is_required:
                words.append(f"{one.names[0]} {one.names[0].lstrip('-').upper().replace('-', '_')}")
        optional = any(not (one.is_positional or one.is_required) for one in self.options)
        return " ".join(words + (["[OPTIONS]"] if optional else []))


def commands(app: App, name: str = "lightlake", shared: Parameter | None = None) -> Iterator[Command]:
    """Yield an app's commands and groups, each group before what is in it.

    Parameters
    ----------
    app
        The app, or a group.
    name
        What it is called.
    shared
        What all parameters share; None: what the app says.
    """
    shared = shared or app.default_parameter
    for word in sorted(one for one in app if not one.startswith("-")):
        one, path = app[word], f"{name} {word}"
        inner = [found for found in one if not found.startswith("-")]
        told = Docstring.of(one.help)
        options = tuple(_options(one, shared)) if one.default_command else ()
        yield Command(path, told.text, options, bool(inner) and not options)
        if inner:
            yield from commands(one, path, shared)


def _options(command: App, shared: Parameter | None) -> Iterator[Option]:
    for one in command.assemble_argument_collection(default_parameter=shared, parse_docstring=True):
        if one.show:
            kind = one.field_info.kind
            positional = kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD, kind.VAR_POSITIONAL)
            name = one.names[0].lstrip("-").upper()
            yield Option(
                names=(f"{name}..." if kind is kind.VAR_POSITIONAL else name,) if positional else tuple(one.names),
                is_positional=positional,
                is_required=one.required,
                default=_default(one.field_info.default),
                choices=tuple(one.get_choices() or ()),
                text=" ".join((one.parameter.help or "").split()),
            )


def _default(value: Any) -> str | None:
    if value is None or value is False or value == () or isinstance(value, type):
        return None
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _described(command: Command) -> str:
    level = "#" * command.name.count(" ")
    rows = []
    for one in command.options:
        names = ", ".join(map(code, one.names)) + (" (required)" if one.is_required else "")
        choices = f" One of {', '.join(map(code, one.choices))}." if one.choices else ""
        default = f" Default: {code(one.default)}." if one.default else ""
        rows.append((names, f"{prose(one.text)}{choices}{default}"))
    return page(
        f"#{level} {command.name}",
        prose(command.text),
        "" if command.is_group else fenced(command.usage),
        table(("option", "what it is"), rows) if rows else "",
    )


def commands_page() -> str:
    """Return the page of all commands."""
    from lake.cli import app

    return page(_HEAD, *map(_described, commands(app)))
