"""One model of options makes the form of a flow and a command."""

from __future__ import annotations

from inspect import signature
from typing import Annotated, Any

import pytest
from cyclopts import App
from prefect import flow
from pydantic import BeforeValidator, Field

from flows.pull import pull_archive
from flows.refresh import refresh
from flows.rxte import pull_rxte
from flows.virac import extract_virac
from lake.errors import ConfigurationError
from tasks.options import FormField, Options, from_json, spread


class Chosen(Options):
    """Options of a test."""

    where: Annotated[str, FormField("A place")]
    radius: Annotated[float, Field(gt=0, le=5), FormField("A radius")] = 0.1
    more: Annotated[
        dict[str, int] | None, BeforeValidator(from_json), FormField("As JSON", empty="none", is_json=True)
    ] = None
    hidden: Annotated[bool, FormField("Of the form alone", command=False)] = False
    again: Annotated[bool, FormField("Everything")] = False
    retry_failed: Annotated[bool, FormField("What failed")] = False


def test_the_form_has_a_field_for_each_option() -> None:
    @flow(name="chosen", validate_parameters=True)
    @spread(Chosen)
    def chosen(*, lake: str | None = None, options: Chosen) -> Chosen:
        """Choose."""
        return options

    properties = chosen.parameters.model_dump()["properties"]
    assert list(properties) == ["where", "lake", "radius", "more", "hidden", "again", "retry_failed"]
    assert properties["radius"]["description"] == "A radius"
    assert (properties["radius"]["default"], properties["radius"]["maximum"]) == (0.1, 5)
    assert chosen.parameters.required == ["where"]
    assert chosen.description == "Choose."
    # Called as a function it gets the model; a value that cannot be is refused in a line.
    assert chosen.fn("here", radius=2.0, hidden=True) == Chosen(where="here", radius=2.0, hidden=True)
    with pytest.raises(ConfigurationError, match="radius cannot be 6"):
        chosen.fn("here", radius=6.0)


def test_the_command_has_an_option_for_each_but_those_of_the_form(capsys: pytest.CaptureFixture[str]) -> None:
    app = App(name="chosen", result_action="return_value")

    @app.default
    @spread(Chosen, command=True, positional=["where"])
    def run(*names: str, options: Chosen, plan: bool = False) -> tuple[Any, ...]:
        """Choose."""
        return names, options, plan

    names, options, plan = app(["here", "a", "b", "--radius", "2", "--more", '{"n": 1}', "--plan"])
    assert (names, plan) == (("a", "b"), True)
    assert options == Chosen(where="here", radius=2.0, more={"n": 1})
    for wrong in ("[1]", "{"):
        with pytest.raises(ConfigurationError, match="not"):
            app(["here", "--more", wrong])
    app.help_print([])
    shown = capsys.readouterr().out
    assert "--radius FLOAT" in shown
    assert "A radius." in shown
    assert "As JSON; default: none." in shown
    assert "hidden" not in shown


def test_again_and_retry_failed_exclude_each_other() -> None:
    assert Chosen(where="x").select == "pending"
    assert Chosen(where="x", again=True).select == "all"
    assert Chosen(where="x", retry_failed=True).select == "failed"
    with pytest.raises(ConfigurationError, match="exclude each other"):
        _ = Chosen(where="x", again=True, retry_failed=True).select


@pytest.mark.parametrize("of", [pull_archive, refresh, extract_virac, pull_rxte], ids=lambda of: of.name)
def test_every_field_of_every_form_is_described(of: Any) -> None:
    properties = of.parameters.model_dump()["properties"]
    assert properties.keys() == signature(of.fn).parameters.keys()
    assert all(one["description"] for one in properties.values())
    assert list(properties).index("lake") == {"virac": 1}.get(of.name, 2), "as it was"
    assert "retry_failed" in properties
