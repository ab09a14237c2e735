"""The page of light curves in a real browser, which has no network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pytest
from helpers.granules import committed, hold, positions
from helpers.processes import Run
from helpers.reports import HOSTILE, half_failed

from deployments import demo
from lake.commit.targets import add_targets
from lake.query import Lake
from lake.store.catalog import Catalog
from lake.text import one_line
from tasks.analysis.figures.bands import styles
from tasks.analysis.figures.light_curve import About, light_curve
from tasks.analysis.figures.page import Packed, write_page
from tasks.analysis.figures.points import Look, points
from tasks.analysis.report.lake_page import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Page


SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("archive", "band", "unit", "mag_system")),
        *((name, pa.float64()) for name in ("mjd", "bmjd_tdb", "flux", "flux_err", "mag", "mag_err", "exposure_s")),
        *((name, pa.bool_()) for name in ("detected", "good")),
    ]
)
ONE: dict[str, Any] = {
    "archive": "ztf",
    "band": "ztf_g",
    "unit": "mJy",
    "flux_err": 0.1,
    "detected": True,
    "good": True,
}


# The lowest contrast of text in a page with what is behind it, and where: WCAG 2.2, section 1.4.3.
CONTRAST = """() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map(one => one / 255)
      .map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const clear = colour => colour === "transparent" || /, 0\\)$/.test(colour);
  let worst = [99, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; text = walker.nextNode();) {
    const one = text.parentElement;
    if (!text.textContent.trim() || one.closest("svg, script") || !one.getClientRects().length) continue;
    let behind = one;
    while (behind.parentElement && clear(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    const pair = [getComputedStyle(one).color, getComputedStyle(behind).backgroundColor].map(light);
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < worst[0]) worst = [ratio, `${one.outerHTML.slice(0, 120)} in ${behind.className}`];
  }
  return worst;
}"""


def is_in_its_window(page: Page, width: int, scheme: Literal["light", "dark"]) -> None:
    """Check that a page is no wider than its window, as light as it should be, and that its text can be read."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour)[:3])) > 384) == (scheme == "light")
    ratio, where = page.evaluate(CONTRAST)
    assert ratio >= 4.5, where


def a_figure(n: int, name: str = "M 87") -> Packed:
    rows = [{**ONE, "mjd": 58000.0 + i, "flux": 1.0 + i % 7} for i in range(n)]
    made = points(pa.Table.from_pylist(rows, SCHEMA), Look())
    place = "12h30m49.4s +12d23m28s (ICRS), z = 0.00428"
    about = About(name, place, ("Zwicky Transient Facility: 1 source.",), ("Thank ZTF.",))
    return Packed.of(light_curve(made, about, Look(), styles([("ztf", "ztf_g", 474.6)])))


@pytest.mark.server
def test_a_page_of_many_targets_is_searched(page: Page, tmp_path: Path) -> None:
    made = [a_figure(n, name) for n, name in ((40, "M 87"), (30, "3C 273"), (20, "NGC 4151"))]
    page.goto(write_page(made, "Three galaxies", tmp_path / "page.html").as_uri())
    marks = page.locator('#figure [aria-roledescription="point"][aria-label*="band"]')
    page.locator("#figure .marks").first.wait_for()
    assert page.locator("#name").inner_text() == "M 87"
    assert marks.count() == 2 * 40  # in the panel of all bands, and in the zoom
    assert "40 good" in page.locator("#caption").inner_text()
    assert not page.get_by_text("Thank ZTF.").is_visible()
    page.locator("#cite summary").click()
    assert page.get_by_text("Thank ZTF.").is_visible()
    page.locator("h1").click()
    page.keyboard.press("Tab")
    page.keyboard.type("ngc")
    page.keyboard.press("Enter")
    page.get_by_text("20 good").wait_for()
    assert (page.locator("#name").inner_text(), page.locator("#said").inner_text()) == ("NGC 4151", "3 of 3")
    page.get_by_role("button", name="next target").press("Enter")
    page.get_by_text("40 good").wait_for()
    page.locator("#search").fill("nobody")
    page.keyboard.press("Enter")
    page.get_by_text("no such target").wait_for()


@pytest.mark.server
@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_figure_is_as_wide_as_its_page(
    page: Page, tmp_path: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    path = write_page([a_figure(60)], "M 87", tmp_path / "page.html")
    assert path.stat().st_size < 3_000_000
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(path.as_uri())
    page.locator("#figure .marks").first.wait_for()
    is_in_its_window(page, width, scheme)
    drawn = page.locator("#figure svg.marks").bounding_box()
    room = page.locator("main").bounding_box()
    assert drawn
    assert room
    assert 0.85 * room["width"] <= drawn["width"] <= room["width"] + 1
    assert "Javascript Error" not in page.locator("#figure").inner_text()


@pytest.mark.server
def test_names_are_text_and_never_scripts(page: Page, catalog: Catalog, lake: Lake, run: Run, tmp_path: Path) -> None:
    breaks = HOSTILE
    names = [f"{breaks}<!--<script>&lt;\u2028", "M 87\x1b]0;x\x07 ${globalThis.ran = 1} {{7*7}}"]
    ra, dec = positions([0, 1])
    add_targets(catalog, pa.table({"name": names, "ra": ra, "dec": dec}), "s")
    committed(catalog, [1], "g1")
    flux = [{"mjd": 58000.0 + day, "flux": 1.0 + day, "unit": f"mJy{breaks}"} for day in range(3)]
    hold(lake, "wise", f"<b>W1{breaks}", flux)
    done = run("plot", names[0], "--to", tmp_path / "plot.html", "--lake", catalog.storage.root)
    assert done.code == 0, done
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: told.append(dialog.message))
    demo.write_page(lake, tmp_path / "demo.html")
    for name, title in (("demo", "Light curves of the demo's targets"), ("plot", names[0])):
        page.goto((tmp_path / f"{name}.html").as_uri())
        page.locator("#figure .marks").first.wait_for()
        assert page.locator('#figure [aria-roledescription="point"][aria-label*="band"]').count() == 3
        assert page.evaluate("globalThis.ran") is None
        assert page.title() == " ".join(title.split())
        options = [one.get_attribute("value") for one in page.locator("option").all()]
        assert options == (sorted(map(one_line, names)) if name == "demo" else [])
        assert page.locator("#figure text", has_text=breaks[:20]).count() > 0, "in the legend, as text"
        assert page.locator("img").count() == 0
        page.locator('#figure [aria-roledescription="point"][aria-label*="band"]').first.hover()
        page.locator("#vg-tooltip-element.visible").wait_for()
        assert page.locator("#vg-tooltip-element script, #vg-tooltip-element b, #vg-tooltip-element img").count() == 0
        # Whoever got a script in all the same could not run it, nor reach anyone.
        page.evaluate(
            "const s = document.createElement('script'); s.textContent = 'globalThis.ran = 1'; document.body.append(s)"
        )
        assert page.evaluate("globalThis.ran") is None
        assert [one for one in told if "Content Security Policy" not in one] == []
        assert len(told) == 1, told
        told.clear()


@pytest.mark.server
def test_a_report_fits_reads_and_leads_to_its_queries(page: Page, catalog: Catalog, lake: Lake, tmp_path: Path) -> None:
    half_failed(catalog)
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    url = write_report(lake, tmp_path / "report.html").path.as_uri()
    for scheme in ("light", "dark"):
        for width in (400, 1600):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(url)
            is_in_its_window(page, width, scheme)
    assert page.locator("svg.sky circle").count() == 40
    page.locator(".facts a").first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector(':target').id") == "query-totals"
    page.get_by_role("button", name="copy").first.press("Enter")
    page.get_by_role("button", name=re.compile("copied|selected")).wait_for()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("nav").is_hidden()
    assert page.locator("button:visible").count() == 0
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 41, 51)", "dark ink on paper"
    assert page.evaluate("globalThis.ran") is None
    assert told == []


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    text = write_page([a_figure(10)], "M 87", tmp_path / "page.html").read_text()
    assert "<script src=" not in text
    assert "<link " not in text


def test_an_empty_lake_has_an_empty_page(tmp_path: Path) -> None:
    assert "no light curves" in write_page([], "Nothing", tmp_path / "page.html").read_text()
