"""The page of light curves in a real browser, which has no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from helpers.granules import committed, hold, positions
from helpers.processes import Run

from deployments.demo import write_page
from lake.commit.targets import add_targets
from lake.query import Lake
from lake.store.catalog import Catalog
from tasks.analysis.plots import MOST_POINTS, light_curve_page

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
            [
                ("name", "string"),
                ("archive", "string"),
                ("band", "string"),
                ("mjd", "float64"),
                ("flux", "float32"),
                ("unit", "string"),
                ("detected", "bool"),
                ("good", "bool"),
                ("separation_arcsec", "float64"),
            ]
        ),
    )


@pytest.mark.server
def test_the_page_draws_without_a_network(page: Page, tmp_path: Path) -> None:
    page.goto(light_curve_page(rows(40), "Two quasars", tmp_path / "page.html").as_uri())
    drawn = page.locator("#vis")
    drawn.locator(".marks").first.wait_for()
    assert drawn.locator('[aria-roledescription="point"]').count() == 20  # of the target shown first
    assert "Javascript Error" not in drawn.inner_text()
    assert drawn.locator("option").all_inner_texts() == ["3C 273", "M 87"]


@pytest.mark.server
def test_names_are_text_and_never_scripts(page: Page, catalog: Catalog, lake: Lake, run: Run, tmp_path: Path) -> None:
    breaks = "</script></title><script>globalThis.ran = 1</script><img src=x onerror='globalThis.ran = 1'>"
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
    write_page(lake, tmp_path / "demo.html")
    for name, title in (("demo", "Light curves of the demo's targets"), ("plot", names[0])):
        page.goto((tmp_path / f"{name}.html").as_uri())
        page.locator("#vis .marks").first.wait_for()
        assert page.locator('[aria-roledescription="point"]').count() == 3
        assert page.evaluate("globalThis.ran") is None
        assert page.title() == " ".join(title.split())
        options = page.locator("option")
        assert set(options.all_text_contents()) == set(names if name == "demo" else names[:1])
        assert page.locator("#vis text", has_text=breaks[:20]).count() > 0, "in the legend, as text"
        assert page.locator("img").count() == 0
        page.locator('[aria-roledescription="point"]').first.hover()
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


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    text = light_curve_page(rows(10), "Two quasars", tmp_path / "page.html").read_text()
    assert "<script src=" not in text
    assert "<link " not in text


def test_many_points_are_thinned_evenly(tmp_path: Path) -> None:
    text = light_curve_page(rows(3 * MOST_POINTS, ("M 87",)), "One", tmp_path / "page.html").read_text()
    assert text.count('"band":') <= MOST_POINTS + 100


def test_an_empty_lake_has_an_empty_page(tmp_path: Path) -> None:
    assert light_curve_page(rows(0), "Nothing", tmp_path / "page.html").stat().st_size > 0
