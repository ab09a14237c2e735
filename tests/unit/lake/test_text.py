"""Text of others is shown as it is, and does nothing."""

from __future__ import annotations

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from lake.text import file_name, one_line, visible

ANY = st.text(st.characters(exclude_categories=()), max_size=40)


@given(ANY)
@example("\x1b[2J\x1b]0;x\x07\x9b31m")
@example("\u202etxt.exe\u2066\u200b\ufeff\u2028\u2029\x85")
@example("\ud800")
def test_nothing_that_acts_is_left(text: str) -> None:
    shown = visible(text)
    assert not {unicodedata.category(one) for one in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()
    assert visible(shown) == shown
    assert "\n" not in one_line(text)


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Mn")), max_size=40))
@example("η Car, Sgr A*, [red] M 87, +22°00′52″, 天狼")
def test_what_can_be_read_stays(text: str) -> None:
    assert visible(text) == text


def test_lines_of_ones_own_stay() -> None:
    assert visible("a\n\tb\r\x1b", keep="\n\t") == "a\n\tb\\r\\x1b"
    assert one_line(" a \n\t b\x1b\u202e ") == "a b\\x1b\\u202e"


@given(st.text(min_size=1, max_size=400), st.text(min_size=1, max_size=400))
@example("x" * 160, "x" * 161)
@example("天" * 200, "天" * 200 + "x")
def test_a_name_of_a_file_is_short_and_tells_ids_apart(one: str, other: str) -> None:
    names = [file_name(text) for text in (one, other)]
    assert (names[0] == names[1]) == (one == other)
    for text, name in zip((one, other), names, strict=True):
        data = name.encode("utf-8", "surrogateescape")
        assert len(data) <= 160
        assert name == text or text.startswith(name[:-17])
