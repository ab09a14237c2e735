"""What notebooks show of a lake and of its answers: values, units, a figure, and no markup of anybody's."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from helpers.granules import committed, positions, register

from lake.commit.targets import add_targets
from lake.export.html import figure_svg, table_html
from lake.query import Lake

HOSTILE = "<script>alert(1)</script>\"'&\x1b[2J\u202e"


@pytest.fixture
def held(lake: Lake) -> Lake:
    register(lake.catalog, range(3))
    committed(lake.catalog, range(3), "g0")
    return lake


def cells(html: str) -> list[list[str]]:
    """Rows of the table in some HTML, which must be well-formed."""
    tree = ElementTree.fromstring(html.replace("&ndash;", "-"))
    return [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]


def test_a_light_curve_is_a_table_with_units_and_a_figure(held: Lake) -> None:
    curve = held.light_curve("T1")
    html = table_html(curve)
    names, units, *rows = cells(html)
    assert names == curve.column_names
    said = dict(zip(names, units, strict=True))
    assert (said["mjd"], said["flux"], said["mag"], said["band"]) == ("d", "mJy", "mag", "")
    assert [row[names.index("flux")] for row in rows] == [f"{flux:.10g}" for flux in curve["flux"].to_pylist()]
    assert {row[names.index("mag")] for row in rows} == {"-"}
    svg = ElementTree.fromstring(figure_svg(curve))
    assert len([one for one in svg.iter() if one.tag.endswith("circle")]) == curve.num_rows
    assert "flux (mJy)" in "".join(svg.itertext())


def test_long_and_wide_tables_say_what_is_not_shown() -> None:
    html = table_html(pa.table({f"c{n}": np.arange(1000) for n in range(50)}))
    rows = cells(html)
    assert len(rows) == 1 + 21
    assert rows[-1][0] == "999"
    assert "1000 rows, 50 columns, the last 10 are not shown" in html


def test_a_figure_has_the_unit_with_most_rows_and_not_too_many_marks() -> None:
    n = 5000
    table = pa.table(
        {
            "mjd": np.linspace(58000, 59000, n),
            "flux": np.r_[np.ones(n - 100), np.full(100, 1e9)],
            "unit": ["mJy"] * (n - 100) + ["GeV"] * 100,
            "band": ["g"] * n,
        }
    )
    svg = figure_svg(table)
    assert 100 < svg.count("<circle") <= 1500
    assert "1e+09" not in svg
    assert figure_svg(table.slice(0, 0)) == figure_svg(table.drop_columns(["flux"])) == ""
    missing = table.slice(0, 3).set_column(1, "flux", pa.array([None, float("nan"), None], pa.float64()))
    assert figure_svg(missing) == ""


def test_names_are_text(held: Lake) -> None:
    ra, dec = positions([7])
    add_targets(held.catalog, pa.table({"ra": ra, "dec": dec, "name": [HOSTILE]}), HOSTILE)
    hostile = pa.table({HOSTILE: [HOSTILE], "mjd": [58000.0], "flux": [1.0], "band": [HOSTILE], "unit": [HOSTILE]})
    for html in (held._repr_html_(), table_html(held.targets()), table_html(hostile), figure_svg(hostile)):
        assert "<script" not in html
        assert "\x1b" not in html
        assert "\u202e" not in html
        assert "&lt;script&gt;" in html
        ElementTree.fromstring(html.replace("&ndash;", "-"))


def test_a_lake_says_what_it_holds(held: Lake) -> None:
    rows = cells(held._repr_html_())
    assert rows[0] == ["archive", "title", "found", "empty", "failed or rejected", "measurements"]
    assert next(row for row in rows if row[0] == "ztf")[2:] == ["3", "0", "0", "18"]
    assert "3 targets in samples test (3)" in held._repr_html_()
