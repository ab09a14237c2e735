"""Tables in a terminal of 80 columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lake.terminal import table_text


def wide(rows: int, columns: int = 40) -> pa.Table:
    return pa.table({f"column_{i}": [float(i)] * rows for i in range(columns)})


def test_many_rows_show_the_columns_that_fit_and_name_the_others() -> None:
    lines = table_text(wide(10), 80).splitlines()
    assert max(map(len, lines)) <= 80
    shown = lines[1].count("column_")
    assert shown >= 5
    told = next(line for line in lines if line.startswith("..."))
    assert told.startswith(f"... and {40 - shown} more ")
    assert f": column_{shown}, " in told
    assert lines[-1] == "10 rows"


def test_few_rows_are_listed_whole() -> None:
    lines = table_text(wide(2), 80).splitlines()
    assert sum(line.startswith("column_39") for line in lines) == 2
    assert lines[-1] == "2 rows"


def test_few_rows_are_a_table_if_the_columns_that_are_enough_fit() -> None:
    lines = table_text(wide(2), 80, enough=4).splitlines()
    assert lines[0].startswith("┏")
    assert all(f"column_{i}" in lines[1] for i in range(4))
    assert any(line.startswith("... and ") for line in lines)
    assert table_text(wide(2), 80, enough=30) == table_text(wide(2), 80)
    assert table_text(wide(2), 80, enough=4, expand=True) == table_text(wide(2), 80, expand=True)


def test_without_a_terminal_nothing_is_left_out() -> None:
    text = table_text(wide(10))
    assert all(f"column_{i}" in text for i in range(40))


def test_units_stand_below_names() -> None:
    head = table_text(pa.table({"mjd": [58000.123456], "ra": [10.5], "band": ["g"], "n": [1]}), 80).splitlines()
    assert [word for word in head[2].split() if word != "┃"] == ["(d)", "(deg)", "band", "n"]
    # x of the lake is a pixel's, and this one anything; a name that says its unit needs none; a field may have its own.
    seconds = pa.field("seconds", pa.float64(), metadata={"unit": "s"})
    other = table_text(pa.table({"x": [1.5], "exposure_s": [2.0]}), 80)
    other += table_text(pa.table({"seconds": [2.0]}, schema=pa.schema([seconds])), 80)
    assert "pixel" not in other
    assert "(s)" not in other
    rate = pa.schema([pa.field("rate", pa.float64(), metadata={"unit": "count/s"})])
    assert "(count/s)" in table_text(pa.table({"rate": [1.5]}, schema=rate), 80)


def test_a_value_has_the_digits_of_its_type() -> None:
    table = pa.table(
        {
            "f": pa.array([0.0009, 1.5, None], pa.float32()),
            "d": [0.1 + 0.2, 59000.12345678, 1e-30],
            "age_days": [0.04999, 12.34567, None],
            "id": [2**63 - 1, 0, None],
        }
    )
    for text in (table_text(table, 80), table_text(table, 80, expand=True)):
        words = text.split()
        for value in ("0.0009", "1.5", "0.3", "59000.12345678", "1e-30", "0.0", "12.3", str(2**63 - 1)):
            assert value in words
        assert "0.00089" not in text


def test_expanded_rows_are_a_column_a_line() -> None:
    long = "x" * 200 + "\n" + "é☉"
    table = pa.table({"name": ["M 87"] * 5, "ra": [187.70593] * 5, "note": [long] * 5, "none": pa.nulls(5)})
    lines = table_text(table, 80, expand=True).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[:2] == ["name      M 87", "ra (deg)  187.70593"]
    assert "".join(line.removeprefix("note").strip() for line in lines[2:6]).startswith("x" * 200 + r"\né☉")
    assert sum(line.startswith("─") for line in lines) == 5
    assert lines[-1] == "5 rows"


def test_no_rows_are_no_grid() -> None:
    for table in (wide(0), pa.table({})):
        assert table_text(table, 80) == table_text(table) == table_text(table, 80, expand=True) == "no rows"


@given(
    names=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=20, unique=True),
    value=st.one_of(st.text(max_size=200), st.floats(), st.integers(-(10**12), 10**12)),
    rows=st.sampled_from([1, 5]),
    width=st.integers(40, 200),
    expand=st.booleans(),
)
def test_any_table_fits(names: list[str], value: str | float, rows: int, width: int, expand: bool) -> None:
    table = pa.table({name: pa.array([value] * rows) for name in names})
    text = table_text(table, width, expand=expand)
    assert text.endswith("1 row" if rows == 1 else "5 rows")
    assert max(map(cell_len, text.splitlines())) <= width


def test_names_of_wide_letters_fit_where_they_are_counted() -> None:
    table = pa.table({f"{'光' * 25}{i}": [1.0] * 5 for i in range(9)})
    assert max(map(cell_len, table_text(table, 80).splitlines())) <= 80


def test_long_tables_are_cut_and_counted() -> None:
    assert table_text(pa.table({"n": np.arange(3000)}), 80).endswith("3000 rows, the first 1000 shown")
