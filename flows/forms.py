"""What the UI's form of a flow shows: descriptions, and what there is to choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tasks.sources.registry import known

# What the tabs of a parameter that may be left out are called, else "str", "list", "float", ...
_TABS = {"string": "text", "array": "list", "integer": "number", "number": "number"}


@dataclass(frozen=True)
class FormField:
    """What the form shows of a parameter, in its annotation. Prefect drops what pydantic's Field says of it there.

    Parameters
    ----------
    description
        One line.
    choices
        Gives the values there are to choose from, when the form is made.
    empty
        What None means: the form has a tab of this name for it.
    """

    description: str | None = None
    choices: Callable[[], Sequence[str]] | None = None
    empty: str | None = None

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add to the parameter's schema."""
        schema = dict(handler(core_schema))
        if self.description is not None:
            schema["description"] = self.description
        if self.choices is not None:
            schema["enum"] = list(self.choices())
        if "anyOf" in schema:
            kinds = schema["anyOf"]
            if any(kind.get("type") == "object" for kind in kinds):
                # The form of a dictionary has nothing to fill in. Of no type at all it is a box for JSON, checked by
                # the flow.
                del schema["anyOf"]
            else:
                schema["anyOf"] = [{**kind, "title": self._tab(kind)} for kind in kinds]
        return schema

    def _tab(self, kind: dict[str, Any]) -> str:
        if kind.get("type") == "null":
            return self.empty or "none"
        return "choice" if "enum" in kind else _TABS.get(kind.get("type", ""), "value")


def archives() -> list[str]:
    """Return the names of all archives."""
    return sorted(known())


def archives_and_services() -> list[str]:
    """Return the names of all archives, and of services that stand for several."""
    services = {archive.service for archive in known().values() if archive.service}
    return sorted({*known(), *services})
