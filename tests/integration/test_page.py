"""The page of light curves in a real browser, which has no network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.plots import MOST_POINTS, light_curve_page


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
def test_the_page_draws_without_a_network(tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        required = "chromium" in os.environ.get("LIGHTLAKE_TEST_REQUIRE", "")
        (pytest.fail if required else pytest.skip)("chromium is not installed")
    page = light_curve_page(rows(40), "Two quasars", tmp_path / "page.html")
    dom = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=15000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    drawn = dom[dom.rindex('id="vis"') :]
    assert 'class="marks"' in drawn
    assert drawn.count('aria-roledescription="point"') == 20  # of the target shown first
    assert "Javascript Error" not in drawn
    assert '<option value="M 87"' in drawn
    assert '<option value="3C 273"' in drawn


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    text = light_curve_page(rows(10), "Two quasars", tmp_path / "page.html").read_text()
    assert "<script src=" not in text
    assert "<link " not in text


def test_many_points_are_thinned_evenly(tmp_path: Path) -> None:
    text = light_curve_page(rows(3 * MOST_POINTS, ("M 87",)), "One", tmp_path / "page.html").read_text()
    assert text.count('"band":') <= MOST_POINTS + 100


def test_an_empty_lake_has_an_empty_page(tmp_path: Path) -> None:
    assert light_curve_page(rows(0), "Nothing", tmp_path / "page.html").stat().st_size > 0
