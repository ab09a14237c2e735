"""Any text is text in Markdown, of one cell, whatever it is made of."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from flows.markdown import cells, code, row, text
from lake.text import one_line

_GITHUB = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

ANY = st.one_of(st.text(max_size=60), st.text("\\`*_[]()<>&|~#!-+=.:;/@ \n\r\t1ahtpsw\x1b\u202e", max_size=60))


def shown(markdown: str) -> tuple[list[str], list[str]]:
    """Kinds of blocks of a text in Markdown, and what a reader sees in each line or cell."""
    tokens = _GITHUB.parse(markdown)
    lines = []
    for token in tokens:
        if token.type == "inline":
            assert {child.type for child in token.children or ()} <= {"text", "text_special"}, token.children
            lines.append("".join(child.content for child in token.children or ()))
    return [token.type for token in tokens], lines


@given(ANY, ANY)
@example("[x](javascript:alert(1))", "![x](https://example.org/x.png)")
@example("a\\|b", "\\")
@example("<script>alert(1)</script>", "&lt;b&gt; &#60;")
@example("1. # -", "12) x")
@example("\x1b]0;x\x07", "\u202egnp.exe")
def test_any_text_is_the_text_of_one_cell(one: str, other: str) -> None:
    kinds, lines = shown("\n".join(["| a | b | n |", "|---|---|---:|", row(text(one), text(other), 7)]))
    assert lines == ["a", "b", "n", one_line(one), one_line(other), "7"]
    assert kinds.count("td_open") == 3


@given(ANY.filter(lambda one: one_line(one) != ""))
@example("===")
@example("- [ ] x")
@example("+ x")
@example("    x")
@example("| a |\n|---|")
def test_any_text_is_one_paragraph_and_one_entry(one: str) -> None:
    assert shown(text(one)) == (["paragraph_open", "inline", "paragraph_close"], [one_line(one)])
    kinds, lines = shown(f"before\n\n- {text(one)}\n- {text(one)}")
    assert lines == ["before", one_line(one), one_line(one)]
    assert kinds.count("list_item_open") == 2
    assert "heading_open" not in kinds


@pytest.mark.parametrize("one", ["see http://x.org", "ftp://x", "www.x.org", "WWW.x.org", "me@x.org"])
def test_bare_addresses_are_no_links(one: str) -> None:
    # As GitHub's Markdown and Prefect's UI would make of them, which markdown-it leaves alone.
    assert one not in text(one)
    assert text(one).replace("\\", "") == one


def test_ids_and_rows_of_table_artifacts() -> None:
    assert code("ztf-0a1b") == "`ztf-0a1b`"
    assert code("a`|b") == "a\\`\\|b"
    assert cells({"n": 1, "none": None, "x": "a|b"}) == {"n": 1, "none": None, "x": "a\\|b"}
