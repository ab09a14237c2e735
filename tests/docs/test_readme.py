"""README.md: its tables are those of the registry, and it stays short. integration/test_demo.py runs it."""

from __future__ import annotations

import re
from pathlib import Path

from lake.model.declared import declarations
from tasks.sources.registry import REGISTRY, SURVEYS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TEXT = README.read_text()


def rows(heading: str) -> dict[str, list[str]]:
    """Return the rows of a table of the section Archives, by name; `heading` is that of its last column."""
    section = TEXT.split("\n## Archives\n")[1].split("\n## ")[0]
    lines = section.split(f"| {heading} |\n", 1)[1].split("\n\n")[0].splitlines()[1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.strip("`"): others for name, *others in cells}


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_its_archives_are_those_of_the_registry() -> None:
    table = rows("asked")
    assert set(table) == set(REGISTRY)
    for name, (_, bands, times, asked) in table.items():
        archive = REGISTRY[name]
        known = {band.band for band in archive.bands}
        named = set(re.findall(r"`(\w+)`", bands)) - {"_ap"}
        assert named, name
        assert named <= known, name
        assert ("_ap" in bands) == any(band.endswith("_ap") for band in known), name
        assert f"({archive.time_scale})" in times, name
        assert times.endswith("centre") == (archive.time_frame in ("heliocentre", "barycentre")), name
        live = f"every {archive.max_age_days or 0:g} days"
        assert asked == (live if archive.cadence == "live" else "once"), name


def test_the_units_of_its_archives_are_theirs() -> None:
    for name, (_, bands, *_) in rows("asked").items():
        units = {band.unit for band in REGISTRY[name].bands} - {None}
        if "over the median" not in bands:
            assert all(unit in bands for unit in units), (name, units)


def test_its_releases_are_those_that_are_pulled() -> None:
    for name, (what, *_) in rows("asked").items():
        release = REGISTRY[name].release
        assert release in what or release in ("MAST", "HEASARC"), name


def test_its_surveys_are_those_of_the_registry() -> None:
    table = rows("command")
    assert set(table) == {archive for archive in table if any(
        archive == one.archive for survey in SURVEYS.values() for one in survey.declarations
    )}  # fmt: skip
    commands = {re.findall(r"`lightlake (\w+)`", command)[0] for _, command in table.values()}
    assert commands == {name.removesuffix("_timetag") for name in SURVEYS}
    assert {one.archive for one in declarations()} >= set(table)


def test_its_picture_is_small_and_has_words() -> None:
    (words, link), *more = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", TEXT)
    assert not more
    assert len(words) > 80
    picture = (ROOT / link).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 150_000
