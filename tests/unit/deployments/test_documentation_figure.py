"""Figures of the documentation are pictures that a command makes, and small."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from deployments.documentation import figure

IMAGES = Path(__file__).parents[3] / "docs" / "images"


def test_a_figure_becomes_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {
        "data": {"values": [{"x": n, "y": n % 3} for n in range(20)]},
        "mark": "point",
        "encoding": {name: {"field": name, "type": "quantitative"} for name in "xy"},
        "width": 300,
    }
    (tmp_path / "one.json").write_text(json.dumps(spec))
    monkeypatch.setattr(sys, "argv", ["figure", str(tmp_path / "one.json"), str(tmp_path / "one.png")])
    figure.main()
    picture = (tmp_path / "one.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    # The width in pixels of the file, of an axis and its numbers, too.
    assert 300 * figure.SCALE < int.from_bytes(picture[16:20]) < 400 * figure.SCALE


def test_pictures_are_small_and_shown() -> None:
    pages = "".join(page.read_text() for page in IMAGES.parent.rglob("*.md"))
    pages += (IMAGES.parents[1] / "README.md").read_text()
    shown = set(re.findall(r"images/([\w.-]+)", pages + (IMAGES.parents[1] / "mkdocs.yml").read_text()))
    for picture in IMAGES.iterdir():
        assert picture.stat().st_size < 150_000, picture.name
        assert picture.name in shown
