"""What pages are made of: cells that show any text, signatures, docstrings, options as a user types them."""

from __future__ import annotations

import html
import re
from typing import Annotated

import markdown
import pytest
from cyclopts import App, Parameter
from hypothesis import given
from hypothesis import strategies as st

from deployments.documentation.commands import commands
from deployments.documentation.docstrings import Docstring, signature
from deployments.documentation.markdown import prose, table
from deployments.documentation.settings import kind_of
from deployments.documentation.tables import described
from lake.model.declared import declarations

PRINTED = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="`"), min_size=1, max_size=12)


def cells_of(text: str) -> list[str]:
    """Return the texts of the cells of a table, as the site renders it."""
    rendered = markdown.markdown(text, extensions=["tables", "attr_list"])
    return [html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<td>(.*?)</td>", rendered)]


@given(st.lists(PRINTED, min_size=1, max_size=4).map(" ".join))
def test_any_text_is_shown_in_a_cell_as_it_is(text: str) -> None:
    assert cells_of(table(("a", "b"), [(prose(text), "x")])) == [text, "x"]


def test_columns_that_are_empty_are_left_out() -> None:
    assert table(("a", "b"), [("1", None), ("2", "")]).splitlines()[0] == "| a |"


def test_a_signature_is_short_enough_to_read() -> None:
    def short(a: int, *, b: str = "x") -> int: ...

    def long(
        first: int, *rest: str, second: dict[str, str] | None = None, third: bool = False, **more: float
    ) -> int: ...

    assert signature("short", short) == "short(a: int, *, b: str = 'x') -> int"
    lines = signature("long", long).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:-1]] == ["first", "*rest", "second", "third", "**more"]
    assert (lines[0], lines[-1]) == ("long(", ") -> int")


def test_a_docstring_is_read_in_parts() -> None:
    read = Docstring.of("""Do.

        More.

        Parameters
        ----------
        a, b
            Two
            numbers.
        **more
            Others.

        Examples
        --------
        >>> do()
        1
        """)
    assert read.text == "Do.\n\nMore."
    assert read.of_parameters() == {"a": "Two numbers.", "b": "Two numbers.", "more": "Others."}
    assert "```pycon\n>>> do()\n1\n```" in read.markdown()


def test_options_are_as_a_user_types_them() -> None:
    app = App(name="lightlake")

    @app.command
    def dig(where: str, *tools: str, deep: Annotated[bool, Parameter(negative=())] = False, times: int = 2) -> None:
        """Dig."""

    (found,) = commands(app)
    assert [one.names for one in found.options] == [("WHERE",), ("TOOLS...",), ("--deep",), ("--times",)]
    assert [one.default for one in found.options] == [None, None, None, "2"]
    assert found.usage == "lightlake dig WHERE [TOOLS...] [OPTIONS]"


@pytest.mark.parametrize(
    ("annotation", "words"), [(str | None, "text"), (Annotated[float, 1], "number"), (dict[str, str], "JSON object")]
)
def test_kinds_of_settings(annotation: object, words: str) -> None:
    assert kind_of(annotation) == words


def test_columns_of_views_are_those_that_duckdb_has() -> None:
    found = {one.view.call: one for one in described(declarations())}
    median = next(column for column in found["normalised"].own if column.name == "flux_median")
    assert (median.type, median.unit) == ("DOUBLE", None)
    assert found["target_lightcurves"].others["targets"] == ["name", "ra", "dec"]
    assert [one.name for one in found["cone(ra0, dec0, radius_arcsec)"].own] == ["ra", "dec", "separation_arcsec"]
    assert not found["separation_arcsec(ra1, dec1, ra2, dec2)"].own
