"""Pages of HST light curves in a real browser, which has no network: they draw, sort, link and run nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.hst_survey import HOSTILE, Survey

from tasks.analysis.hst_pages import from_table, write_pages
from tasks.analysis.html_pages import PAGES

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of a few composites, in a folder whose name has to be quoted."""
    survey, folder = Survey(), tmp_path_factory.mktemp("pages") / "a folder #1 %20"
    survey.add("B", factor=2.0, bins=20)
    survey.add("a 10", factor=11.0, bins=20, flux=None, configuration=("COS", "NUV", "MIRRORA", 0, "PSA"))
    survey.add("a 9", factor=3.0, bins=20, configuration=("STIS", "FUV-MAMA", "E140M", 1425, "0.2X0.2"))
    survey.add(HOSTILE, factor=1.3, bins=20)
    statistics, exposures, bins = survey.tables()
    write_pages(folder, statistics, exposures, from_table(bins))
    return folder


def watched(page: Page) -> tuple[list[str], list[str]]:
    """Return what goes wrong in a page, and what it asks for, from now on."""
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    return errors, asked


def targets(page: Page) -> list[str]:
    return [text for text in page.locator("tbody tr td:first-child").all_inner_texts() if "script" not in text]


def test_pages_draw_and_ask_for_nothing_outside(page: Page, folder: Path) -> None:
    errors, asked = watched(page)
    charts = {"exptime_histogram.html", "pie_config.html", "opt_elem.html"}
    dashboards = [f"composite/{path.name}" for path in (folder / "composite").glob("*.html")]
    for name in [*PAGES, "periodogram_subset.html", *dashboards]:
        for width in (1200, 800):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto((folder / name).as_uri())
            if name in charts or name in dashboards:
                page.locator("[data-chart] canvas").first.wait_for()
            # Pages are no wider than the window: what is, scrolls in its card.
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        broken = "[...document.images].filter(one => one.loading !== 'lazy' && !one.naturalWidth).length"
        assert page.evaluate(broken) == 0
        assert page.evaluate("globalThis.ran") is None
    assert not errors
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}


def test_tables_sort_by_any_heading(page: Page, folder: Path) -> None:
    page.goto((folder / "interesting_hstlc.html").as_uri())
    assert targets(page) == ["a 10", "a 9", "B"]
    head = page.get_by_role("columnheader", name="Target")
    head.get_by_role("button").click()
    assert targets(page) == ["a 9", "a 10", "B"], "numbers within names count as numbers"
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert targets(page) == ["B", "a 10", "a 9"]
    wavelength = page.get_by_role("columnheader", name="Cenwave")
    wavelength.get_by_role("button").click()
    assert wavelength.get_attribute("aria-sort") == "descending"
    assert head.get_attribute("aria-sort") is None
    assert targets(page) == ["a 9", "B", "a 10"], "the highest is first, and what has none is last"
    wavelength.get_by_role("button").click()
    assert targets(page) == ["B", "a 9", "a 10"]
    wavelength.get_by_role("button").click()
    assert targets(page) == ["a 9", "B", "a 10"]


def test_thumbnails_lead_to_dashboards_and_back(page: Page, folder: Path) -> None:
    page.goto((folder / "index.html").as_uri())
    page.get_by_role("link", name="Interesting").first.click()
    page.locator("td.plot a").first.click()
    page.locator("[data-chart] canvas").first.wait_for()
    assert page.locator("h1").inner_text() == "a 10 · COS/NUV MIRRORA PSA"
    page.get_by_role("link", name="Start").click()
    assert page.url.endswith("index.html")
