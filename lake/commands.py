"""Commands that other packages plug in: found by name, imported when called, described without being imported."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from cyclopts import App


def plug_in(app: App, commands: Iterable[EntryPoint], *, described: bool = False) -> None:
    """Add commands to an app, which imports each when it is called: Prefect alone takes seconds.

    Parameters
    ----------
    described
        Give each its line of help, which is read from the command's file. It takes longer, so only help asks for it.
    """
    for command in commands:
        if described and command.name in app:
            del app[command.name]
        app.command(command.value, name=command.name, help=first_line(command.value) if described else None)


def first_line(command: str) -> str:
    """Return the first line of a command's help, from its file.

    Parameters
    ----------
    command
        Module and name, such as ``flows.cli:pull``: a function, or an App with its help or default command.

    Examples
    --------
    >>> first_line("lake.cli:attach")
    'Print the SQL that attaches this lake in a stock DuckDB client.'
    """
    module, _, name = command.partition(":")
    package, *below = module.split(".")
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        base = Path(folder, *below)
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return _words(ast.parse(file.read_bytes()), name).partition("\n")[0]
    return ""


def _words(module: ast.Module, name: str) -> str:
    found = ""
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Call(keywords=keywords)) if target == name:
                for keyword in keywords:
                    if keyword.arg == "help" and isinstance(keyword.value, ast.Constant):
                        return str(keyword.value.value)
            case ast.FunctionDef() if node.name == name or any(
                isinstance(one, ast.Attribute)
                and isinstance(one.value, ast.Name)
                and (one.value.id, one.attr) == (name, "default")
                for one in node.decorator_list
            ):
                found = ast.get_docstring(node) or ""
    return found
