"""The page of the Python API: signatures and docstrings of what users call."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deployments.documentation.docstrings import Docstring, signature
from deployments.documentation.markdown import fenced, page

_HEAD = """
# Python

`import lightlake` is for scripts and notebooks; [Python](../how-to/python.md) shows how it is used. The functions run
in this process, without Prefect. What goes wrong is a `lightlake.LightlakeError`, whose text says what to do: see
[errors](errors.md). The examples use a lake `my-lake` with two quasars, A and B.
"""
_LAKE = """
A lake that is open, as `lightlake.open` and `lightlake.create` return it. It is closed by `close()`, or at the end of
`with`.
"""
_SCIENCE = """
Pure functions over numbers and NumPy arrays: `from lake.science import times, sky, photometry, periodogram`. NaN goes
in and out where a value is missing.
"""
# Modules whose functions users call with their own numbers.
SCIENCE = ("times", "sky", "photometry", "periodogram")
# Methods of a lake that its own modules need.
OURS = frozenset({"all_targets", "check_sql", "converted", "for_writing", "run", "snapshot"})


@dataclass(frozen=True)
class Entry:
    """A function, method or class of the API.

    Parameters
    ----------
    name
        As a user calls it.
    object
        What it is.
    """

    name: str
    object: Any

    @property
    def docstring(self) -> Docstring:
        """Return its docstring."""
        return Docstring.of(self.object.__doc__)

    @property
    def undocumented(self) -> list[str]:
        """Return which of its parameters nobody describes."""
        if inspect.isclass(self.object):
            return []
        said = self.docstring.of_parameters()
        return [name for name in inspect.signature(self.object).parameters if name != "self" and name not in said]

    @property
    def markdown(self) -> str:
        """Return its section."""
        head = "" if inspect.isclass(self.object) else fenced(signature(self.name, self.object), "python")
        return page(f"### {self.name}", head, self.docstring.markdown())


def functions() -> Iterator[Entry]:
    """Yield what `import lightlake` offers, but the class of a lake."""
    import lightlake

    for name in lightlake.__all__:
        found = getattr(lightlake, name)
        if inspect.isfunction(found):
            yield Entry(f"lightlake.{name}", found)
        elif not inspect.isclass(found):
            yield from _methods(type(found), f"lightlake.{name}", found)


def methods() -> Iterator[Entry]:
    """Yield the methods of a lake."""
    from flows.interactive import Targets
    from lake.query import Lake

    for entry in _methods(Lake, "lake"):
        yield entry
        if entry.name == "lake.targets":
            yield from _methods(Targets, "lake.targets")


def _methods(kind: type, name: str, of: object | None = None) -> Iterator[Entry]:
    for one, found in vars(kind).items():
        if inspect.isfunction(found) and not one.startswith("_") and one not in OURS:
            yield Entry(f"{name}.{one}", found if of is None else getattr(of, one))


def results() -> Iterator[Entry]:
    """Yield what the functions return."""
    from lake.commit.targets import Added
    from tasks.pull.refresh import Refreshed
    from tasks.pull.report import PullReport
    from tasks.samples.given import AddedTargets

    yield from (Entry(one.__name__, one) for one in (PullReport, Refreshed, Added, AddedTargets))


def science() -> Iterator[Entry]:
    """Yield the pure functions that users call."""
    for name in SCIENCE:
        module = importlib.import_module(f"lake.science.{name}")
        for one, found in vars(module).items():
            if inspect.isfunction(found) and found.__module__ == module.__name__ and not one.startswith("_"):
                yield Entry(f"{name}.{one}", found)


def entries() -> list[Entry]:
    """Return all of the API."""
    return [*functions(), *methods(), *results(), *science()]


def python_page() -> str:
    """Return the page of the API."""
    return page(
        _HEAD,
        "## lightlake",
        *(one.markdown for one in functions()),
        "## A lake",
        _LAKE,
        *(one.markdown for one in methods()),
        "## Results",
        *(one.markdown for one in results()),
        "## Science",
        _SCIENCE,
        *(one.markdown for one in science()),
    )
