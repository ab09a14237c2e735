"""A real browser, which has no network but loopback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Nothing is told to anyone, and no name but loopback's has an address.
_ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of the system's own Chromium, driven by playwright.

    For one test only: while playwright is there, its event loop keeps others out of the thread.
    """
    browser = shutil.which("chromium")
    if browser is None:
        required = "chromium" in os.environ.get("LIGHTLAKE_TEST_REQUIRE", "")
        (pytest.fail if required else pytest.skip)("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=_ARGUMENTS, timeout=120_000)
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        chromium.close()
