"""README.md as a newcomer runs it, and the demo in it: in an empty folder, with no Prefect server and no settings."""

from __future__ import annotations

import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.pages import run_page
from helpers.processes import Run, lightlake
from PIL import Image

from deployments.demo import LISTED, OBSERVED, PAPER, QUESTIONS, TARGETS
from deployments.documentation.picture import screenshot
from tasks.sources.registry import REGISTRY

pytestmark = [pytest.mark.long, pytest.mark.docs, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "demo.png"


def check_picture(page: Path) -> None:
    """The picture of the README is that of this page; letters may be drawn a little differently."""
    if shutil.which("chromium") is None:
        assert "chromium" not in os.environ.get("LIGHTLAKE_TEST_REQUIRE", ""), "chromium is not installed"
        return
    shown, kept = (
        np.asarray(Image.open(io.BytesIO(png)).convert("L"), float) for png in (screenshot(page), PICTURE.read_bytes())
    )
    assert shown.shape == kept.shape
    assert np.mean(np.abs(shown - kept) > 64) < 0.006


def test_the_readme_runs_its_demo_fills_a_lake_and_the_second_run_has_nothing_to_do(tmp_path: Path, run: Run) -> None:
    first, *others = run_page(ROOT / "README.md", tmp_path / "reader", timeout_s=900, keep=True)
    assert (first.code, len(others)) == ("lightlake demo\n", 2)
    told = first.printed or ""
    for archive in REGISTRY:
        assert f"{archive}: {len(TARGETS)} of {len(TARGETS)} targets answered" in told
    assert "Traceback" not in told
    assert f"sample:   {PAPER}, {len(LISTED)} new labels" in told
    coverage, *answers = re.findall(r"^(\d+) rows$", told, re.M)
    # Archives, and the photons of HST.
    assert int(coverage) == len(REGISTRY) + 1
    assert len(answers) == len(QUESTIONS) == 4
    # A composite of two exposures of each.
    assert int(answers[-1]) == OBSERVED
    assert all(int(rows) > 0 for rows in answers)
    for question, _ in QUESTIONS:
        assert question in told
    assert "TXS 0506+056" in told

    work, home = tmp_path / "reader" / "work", tmp_path / "reader" / "home"
    folder = work / "lightlake-demo"
    page = folder / "light_curves.html"
    text = page.read_text()
    assert "TXS 0506+056" in text
    # Whatever the scripts inside are made of, the page itself loads nothing.
    page_itself = re.sub(r"<script\b[^>]*>.*?</script>", "", text, flags=re.S)
    assert not re.search(r"""\b(?:src|href)\s*=\s*["']?(?!data:|#)\S""", page_itself)
    assert not re.search(r"""<script\b[^>]*\bsrc\s*=\s*["']?https?:""", text)
    assert not re.search(r"""@import|url\(\s*["']?https?:""", page_itself)
    # Nothing of it went anywhere but into its folder.
    assert not list(home.rglob("*.zip"))
    assert {path.name for path in work.iterdir()} == {"lightlake-demo"}

    check_picture(page)

    stamp = page.stat().st_mtime_ns
    environment = {"PREFECT_HOME": str(home / "prefect"), "HOME": str(home)}
    second = lightlake("demo", cwd=work, environment=environment)
    assert second.returncode == 0, second.stderr
    assert "nothing to do: every archive has answered for every target" in second.stdout
    assert "hst_timetag: nothing to do" in second.stdout
    assert "0 new targets" in second.stdout
    assert f"sample:   {PAPER}, 0 new labels" in second.stdout
    assert page.stat().st_mtime_ns == stamp

    assert run("verify", "--lake", folder / "lake").code == 0
    asked = run("sql", "FROM fornax WHERE label = 'blazar' AND band = 'IceCube'", "--lake", folder / "lake")
    assert asked.code == 0
    assert "IceCube" in asked.out
