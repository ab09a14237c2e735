"""Tutorials run as they stand, against simulated archives, and print what they say: see test_pages.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.page_needs import provide
from helpers.pages import run_page, to_run

TUTORIALS = [page for page in sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.md")) if to_run(page)]


@pytest.mark.docs
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = tmp_path / "reader"
    environment = provide(page, folder / "work", request.getfixturevalue)
    assert run_page(page, folder, **environment)
