"""The site is built from all pages, is strict, asks nobody else for anything, and fits its window."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from deployments.documentation import generated
from deployments.documentation.pages import Documentation

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]

TINY = {
    "index.md": "# Lake\n\n[First](tutorials/a.md#the-end)\n",
    "tutorials/index.md": "# Tutorials\n\n- [B](b.md)\n- [A](a.md)\n",
    "tutorials/a.md": "# A\n\n<!-- fails -->\n```bash\nfalse\n```\n\n## The end\n",
    "tutorials/b.md": "# B\n\n[Made](../reference/made.md#part)\n",
    "reference/index.md": "# Reference\n\n- [Made](made.md)\n",
    "images/logo.svg": "<svg/>",
    "notebook.ipynb": "{}",
}


def made_site(docs: Path, to: Path, *, strict: bool) -> Path:
    """Build the site as `mkdocs build` does, of other pages."""
    config = load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(to), strict=strict)
    config.plugins.on_startup(command="build", dirty=False)
    try:
        build(config)
    finally:
        config.plugins.on_shutdown()
    return to


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(generated, "PAGES", {"reference/made.md": lambda: "# Made by code\n\n## Part\n"})
    for path, text in TINY.items():
        (tmp_path / "docs" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / path).write_text(text)
    return tmp_path / "docs"


def test_pages_made_from_the_code_and_the_order_of_the_indexes(tiny: Path, tmp_path: Path) -> None:
    site = made_site(tiny, tmp_path / "site", strict=True)
    made = (site / "reference" / "made.html").read_text()
    assert "Made by code" in made
    first = (site / "tutorials" / "a.html").read_text()
    assert first.index("b.html") < first.index("a.html"), "in the navigation"
    assert "fails" not in first
    assert "https://unpkg" not in first


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("tutorials/a.md", "# A\n\n## The end\n\n[no such page](c.md)\n"),
        ("tutorials/a.md", "# A\n\n## The end\n\n[no such heading](b.md#nothing)\n"),
        ("tutorials/a.md", "# A\n\nThe heading that the first page links is gone.\n"),
        ("tutorials/a.md", "# A\n\n## The end\n\n![no such picture](../images/none.png)\n"),
        ("tutorials/c.md", "# No index links this\n"),
        ("explanation/a.md", "# A part without an index\n"),
        ("reference/index.md", "# Reference\n\nWithout the page that is made.\n"),
    ],
)
def test_what_is_wrong_with_a_page_stops_the_build(tiny: Path, tmp_path: Path, path: str, text: str) -> None:
    (tiny / path).parent.mkdir(exist_ok=True)
    (tiny / path).write_text(text)
    with pytest.raises(Abort):
        made_site(tiny, tmp_path / "site", strict=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site; .ci/run builds it strictly."""
    return made_site(ROOT / "docs", tmp_path_factory.mktemp("site"), strict=False)


@pytest.fixture
def server(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}/"
        served.shutdown()
        thread.join()


def watched(page: Page) -> tuple[list[str], list[str]]:
    """Return lists that get what the page asks for elsewhere, and what it complains of."""
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    return asked, said


def finds(page: Page, words: str, title: str) -> None:
    page.keyboard.press("f")
    page.locator(".md-search__input:focus").wait_for()
    page.keyboard.type(words)
    page.locator(".md-search-result__item", has_text=title).first.wait_for()


@pytest.mark.server
def test_every_page_fits_its_window_and_asks_nobody(page: Page, site: Path) -> None:
    asked, said = watched(page)
    pages = [path.removesuffix(".md") + ".html" for path in Documentation().paths]
    assert len(pages) > 10
    for name in pages:
        page.set_viewport_size({"width": 400, "height": 800})
        page.goto((site / name).as_uri(), wait_until="load")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, name
        page.set_viewport_size({"width": 1600, "height": 1000})
        assert page.evaluate("document.documentElement.scrollWidth") <= 1600, name
        assert page.locator(".md-content h1").count() == 1, name
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert said == []


@pytest.mark.server
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_from_a_disk_is_searched(page: Page, site: Path, scheme: str) -> None:
    asked, said = watched(page)
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto((site / "index.html").as_uri())
    assert page.locator("body").get_attribute("data-md-color-scheme") == {"light": "default", "dark": "slate"}[scheme]
    finds(page, "bmjd_tdb", "bmjd_tdb")
    page.locator(".md-search-result__link").first.click()
    page.locator(".md-content", has_text="bmjd_tdb").first.wait_for()
    assert not page.url.endswith("index.html")
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert said == []


@pytest.mark.server
def test_a_served_page_is_searched(page: Page, server: str) -> None:
    asked, said = watched(page)
    page.goto(server)
    finds(page, "exit codes", "Error messages")
    assert not [url for url in asked if not url.startswith((server, "data:", "blob:"))]
    assert said == []
