"""What the UI's form of a flow shows: descriptions, and what there is to choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tasks.archives import known


@dataclass(frozen=True)
class Shown:
    """What the form shows of a parameter, in its annotation. Prefect drops what pydantic's Field says of it there.

    Parameters
    ----------
    description
        One line.
    choices
        Gives the values there are to choose from, when the form is made.
    """

    description: str | None = None
    choices: Callable[[], Sequence[str]] | None = None

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add to the parameter's schema."""
        schema = dict(handler(core_schema))
        if self.description is not None:
            schema["description"] = self.description
        if self.choices is not None:
            schema["enum"] = list(self.choices())
        return schema


def archives() -> list[str]:
    """Return the names of all archives."""
    return sorted(known())


def archives_and_services() -> list[str]:
    """Return the names of all archives, and of services that stand for several."""
    services = {archive.service for archive in known().values() if archive.service}
    return sorted({*known(), *services})
