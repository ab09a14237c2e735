"""Tables in a terminal of 80 columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lake.terminal import table_text


def wide(rows: int, columns: int = 40) -> pa.Table:
    return pa.table({f"column_{i}": [float(i)] * rows for i in range(columns)})


def test_many_rows_show_the_columns_that_fit_and_name_the_others() -> None:
    lines = table_text(wide(10), 80).splitlines()
    assert max(map(len, lines)) <= 80
    shown = lines[1].count("column_")
    assert shown >= 5
    told = next(line for line in lines if line.startswith("..."))
    assert told.startswith(f"... and {40 - shown} more columns ")
    assert f": column_{shown}, " in told
    assert lines[-1] == "10 rows"


def test_few_rows_are_listed_whole() -> None:
    lines = table_text(wide(2), 80).splitlines()
    assert sum(line.startswith("column_39") for line in lines) == 2
    assert lines[-1] == "2 rows"


def test_without_a_terminal_nothing_is_left_out() -> None:
    text = table_text(wide(10))
    assert all(f"column_{i}" in text for i in range(40))


def test_units_stand_below_names() -> None:
    head = table_text(pa.table({"mjd": [58000.123456], "ra": [10.5], "band": ["g"], "n": [1]}), 80).splitlines()
    assert [word for word in head[2].split() if word != "┃"] == ["(d)", "(deg)", "band", "n"] or "(deg)" in head[2]
    assert "(n)" not in "".join(head)


def test_a_value_has_the_digits_of_its_type() -> None:
    table = pa.table({"f": pa.array([0.0009, 1.5, None], pa.float32()), "d": [0.1234567890123, 59000.123456, 1e-30]})
    text = table_text(table, 80)
    for value in ("0.0009 ", " 1.5 ", "0.123456789 ", "59000.12346", "1e-30"):
        assert value in text
    assert "0.00089" not in text


def test_no_rows_are_no_grid() -> None:
    assert table_text(wide(0), 80) == "0 rows"
    assert table_text(pa.table({}), 80) == "0 rows"


@given(
    names=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=20, unique=True),
    value=st.one_of(st.text(max_size=200), st.floats(), st.integers(-(10**12), 10**12)),
    rows=st.sampled_from([1, 5]),
    width=st.integers(40, 200),
)
def test_any_table_can_be_shown(names: list[str], value: str | float, rows: int, width: int) -> None:
    table = pa.table({name: pa.array([value] * rows) for name in names})
    assert table_text(table, width).endswith("1 row" if rows == 1 else "5 rows")


def test_long_tables_are_cut_and_counted() -> None:
    assert table_text(pa.table({"n": np.arange(3000)}), 80).endswith("3000 rows, the first 1,000 shown")
