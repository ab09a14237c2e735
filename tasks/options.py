"""Options of a source as one pydantic model: the form of its flow and its command are made from the model's fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Self, TypeVar, get_type_hints

import cyclopts
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from lake.commit.ledger import Select
from lake.errors import ConfigurationError

# The page that helps with errors from here.
HELP_TOPIC = "how-to/runs"

R = TypeVar("R")

# Names of the tabs of a parameter that may be left out, instead of "str", "list", "float", ...
_TABS = {"string": "text", "array": "list", "integer": "number", "number": "number"}


@dataclass(frozen=True)
class FormField:
    """What the form, and the help of the command, show of a parameter. Prefect drops what pydantic's Field says of it.

    Parameters
    ----------
    description
        One line.
    choices
        Returns the values to choose from, when the form is made.
    empty
        What None means: the form has a tab of this name for it.
    command
        False: the command has no such option. Else how cyclopts is to treat it.
    is_json
        The command takes it as JSON.
    """

    description: str | None = None
    choices: Callable[[], Sequence[str]] | None = None
    empty: str | None = None
    command: cyclopts.Parameter | bool = True
    is_json: bool = False

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
                # The form of a dictionary has nothing to fill in. Without any type it is a box for JSON, which the
                # flow checks.
                del schema["anyOf"]
            else:
                schema["anyOf"] = [{**kind, "title": self._tab(kind)} for kind in kinds]
        return schema

    def _tab(self, kind: dict[str, Any]) -> str:
        if kind.get("type") == "null":
            return self.empty or "none"
        return "choice" if "enum" in kind else _TABS.get(kind.get("type", ""), "value")


class Options(BaseModel):
    """Options of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Make it from values that a person gave.

        Raises
        ------
        ConfigurationError
            If one of them cannot be.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise ConfigurationError(f"{name} cannot be {first['input']!r}", hint=first["msg"]) from error

    @property
    def select(self) -> Select:
        """Return what the run asks for, by the switches `again` and `retry_failed`.

        Raises
        ------
        ConfigurationError
            If both are given.
        """
        again, retry_failed = getattr(self, "again", False), getattr(self, "retry_failed", False)
        if again and retry_failed:
            raise ConfigurationError("again and retry_failed exclude each other", hint="again asks for everything")
        return "all" if again else "failed" if retry_failed else "pending"


def from_json(value: Any) -> Any:
    """Read parameters that a command gives as JSON.

    Raises
    ------
    ConfigurationError
        If they are no JSON object.
    """
    if not isinstance(value, str):
        return value
    try:
        parameters = json.loads(value)
    except ValueError as error:
        raise ConfigurationError(f"--parameters is not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise ConfigurationError("--parameters is not a JSON object", hint='such as {"max_search_radius_deg": 1.0}')
    return parameters


def spread(
    model: type[Options], *, command: bool = False, positional: Sequence[str] = ()
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Replace the parameter `options` of a function by the fields of its model, unless it has one of the same name.

    Parameters
    ----------
    command
        The function is a command of cyclopts; else it is a flow, whose form Prefect makes.
    positional
        Fields that come first: the command takes them by position.
    """

    def spread_out(function: Callable[..., R]) -> Callable[..., R]:
        hints = get_type_hints(function, include_extras=True)
        own = [one.replace(annotation=hints[name]) for name, one in signature(function).parameters.items()]
        if not command:  # a keyword of the function need not be one of the flow
            own = [one.replace(kind=Parameter.POSITIONAL_OR_KEYWORD) for one in own]
        mine = {one.name for one in own}
        fields = [one for one in _parameters(model, command, positional) if one.name not in mine]
        first = [one for one in fields if one.default is Parameter.empty or one.name in positional]
        at = next(number for number, one in enumerate(own) if one.name == "options")
        parameters = [*first, *own[:at], *(one for one in fields if one not in first), *own[at + 1 :]]
        # Those by position come first, and `*args` before all others.
        parameters.sort(key=lambda one: one.kind)
        shape = Signature(parameters, return_annotation=hints.get("return", Parameter.empty))

        def called(*args: Any, **kwargs: Any) -> R:
            bound = shape.bind(*args, **kwargs)
            bound.apply_defaults()
            given = {one.name: bound.arguments.pop(one.name) for one in fields}
            rest = {one.name: bound.arguments[one.name] for one in own if one.name != "options"}
            variable = [name for name in rest if shape.parameters[name].kind is Parameter.VAR_POSITIONAL]
            positions = [value for name in variable for value in rest.pop(name)]
            return function(*positions, options=model.of(**given), **rest)

        for name in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(called, name, getattr(function, name))
        called.__signature__ = shape  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": hints.get("return")}
        return called

    return spread_out


def _parameters(model: type[Options], command: bool, positional: Sequence[str]) -> list[Parameter]:
    """Return the fields of a model as parameters of a flow or a command."""
    made = []
    for name, hint in get_type_hints(model, include_extras=True).items():
        if name not in model.model_fields:
            continue
        field = model.model_fields[name]
        kind: Any = Parameter.POSITIONAL_OR_KEYWORD
        if command:
            shown = next(one for one in field.metadata if isinstance(one, FormField))
            if shown.command is False:
                continue
            more = [shown.command] if isinstance(shown.command, cyclopts.Parameter) else []
            meaning = "" if shown.empty is None else f"; default: {shown.empty}"
            kept = str | None if shown.is_json else field.annotation
            hint = Annotated[kept, cyclopts.Parameter(help=f"{shown.description}{meaning}.", negative=()), *more]
            kind = kind if name in positional else Parameter.KEYWORD_ONLY
        default = Parameter.empty if field.is_required() else field.default
        made.append(Parameter(name, kind, default=default, annotation=hint))
    return made
