"""The page of light curves in a real browser, which has no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from tasks.plots import MOST_POINTS, light_curve_page

if TYPE_CHECKING:
    from playwright.sync_api import Page


def rows(n: int, names: tuple[str, ...] = ("M 87", "3C 273")) -> pa.Table:
    return pa.table(
        {
            "name": [names[i % len(names)] for i in range(n)],
            "archive": ["ztf"] * n,
            "band": ["ztf_g"] * n,
            "mjd": [58000.0 + i for i in range(n)],
            "flux": pa.array([1.0 + i % 7 for i in range(n)], pa.float32()),
            "unit": ["mJy"] * n,
            "detected": [True] * n,
            "good": [True] * n,
            "separation_arcsec": [0.1] * n,
        },
        schema=pa.schema(
            [("name", "string"), ("archive", "string"), ("band", "string"), ("mjd", "float64"), ("flux", "float32"),
             ("unit", "string"), ("detected", "bool"), ("good", "bool"), ("separation_arcsec", "float64")]
        ),
    )  # fmt: skip


@pytest.mark.server
def test_the_page_draws_without_a_network(page: Page, tmp_path: Path) -> None:
    page.goto(light_curve_page(rows(40), "Two quasars", tmp_path / "page.html").as_uri())
    drawn = page.locator("#vis")
    drawn.locator(".marks").first.wait_for()
    assert drawn.locator('[aria-roledescription="point"]').count() == 20  # of the target shown first
    assert "Javascript Error" not in drawn.inner_text()
    assert drawn.locator("option").all_inner_texts() == ["3C 273", "M 87"]


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    text = light_curve_page(rows(10), "Two quasars", tmp_path / "page.html").read_text()
    assert "<script src=" not in text
    assert "<link " not in text


def test_many_points_are_thinned_evenly(tmp_path: Path) -> None:
    text = light_curve_page(rows(3 * MOST_POINTS, ("M 87",)), "One", tmp_path / "page.html").read_text()
    assert text.count('"band":') <= MOST_POINTS + 100


def test_an_empty_lake_has_an_empty_page(tmp_path: Path) -> None:
    assert light_curve_page(rows(0), "Nothing", tmp_path / "page.html").stat().st_size > 0
