"""A report of a lake: its numbers are those that its queries give."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.granules import ASKED, committed, positions, register, rows_of
from helpers.reports import HOSTILE, Read, half_failed

from lake.errors import ConfigurationError
from lake.query import Lake
from lake.store.catalog import Catalog
from lake.text import one_line
from tasks.analysis.cli import report
from tasks.analysis.report import queries
from tasks.analysis.report.lake_page import write_report
from tasks.analysis.report.sky import mollweide, sky_png, sky_svg

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)


def written(lake: Lake, folder: Path, known: tuple[str, ...] = ()) -> Read:
    return Read.of(write_report(lake, folder / "report.html", known, NOW).path)


def asked(lake: Lake, page: Read, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lake.sql(page.sql(name)).to_pylist()
    return found


def test_every_number_is_its_querys(catalog: Catalog, lake: Lake, tmp_path: Path) -> None:
    half_failed(catalog)
    page = written(lake, tmp_path)

    (totals,) = asked(lake, page, "totals")
    facts = page.facts()
    assert totals["measurements"] == sum(len(rows_of(s, 1)) for s in (*range(20), *range(10)))
    assert facts["points"] == str(totals["measurements"])
    assert [facts[one] for one in ("targets", "samples", "archives asked", "failed or rejected")] == [
        "40",
        "2",
        "2",
        "23",
    ]

    answers = asked(lake, page, "answers")
    kinds = {
        "Found": "found",
        "Empty": "empty",
        "Failed": "failed",
        "Rejected": "rejected",
        "Never asked": "never_asked",
    }
    assert [{**{head: row[head] for head in ("Archive", *kinds)}} for row in page.table("answers")] == [
        {"Archive": row["archive"], **{head: str(row[key]) for head, key in kinds.items()}} for row in answers
    ]
    assert {row["archive"]: [row[key] for key in kinds.values()] for row in answers} == {
        "wise": [10, 2, 0, 13, 15],
        "ztf": [20, 10, 10, 0, 0],
    }

    cells = asked(lake, page, "coverage")
    shown = page.grid("coverage")
    assert len(shown) == 40
    for row in cells:
        value = row["measurements"] if row["status"] == "found" else row["status"]
        assert shown[one_line(row["name"])][row["archive"]] == str(value)
    assert Counter(one for row in shown.values() for one in row.values()) == {
        "failed": 10,
        "rejected": 13,
        "never asked": 15,
        "empty": 12,
        "6": 30,
    }
    assert [row["status"] for row in cells[:20]] == ["never asked", "failed"] * 10, "the worst first"

    years = {(row["year"], row["archive"]): row["measurements"] for row in asked(lake, page, "years")}
    assert sum(years.values()) == totals["measurements"]
    assert {(int(year), name): int(n) for year, row in page.grid("years").items() for name, n in row.items()} == years

    samples = {(row["sample"], row["archive"]): row for row in asked(lake, page, "samples")}
    assert {key: row["found"] for key, row in samples.items() if key[0] == "few"} == {
        ("few", "wise"): 7,
        ("few", "ztf"): 7,
    }
    assert page.grid("samples")[f"s{HOSTILE} (40)"] == {
        name: str(samples[f"s{HOSTILE}", name]["found"]) for name in ("wise", "ztf")
    }
    assert samples[f"s{HOSTILE}", "wise"]["never_asked"] == 15

    missing = {row["archive"]: (row["status"], row["granules"], row["targets"]) for row in asked(lake, page, "missing")}
    assert missing == {"wise": ("rejected", 1, 13), "ztf": ("failed", 1, 10), "virac": ("failed", 1, 0)}
    assert {
        row["Archive"]: (row["Status"], int(row["Granules"]), int(row["Targets"])) for row in page.table("missing")
    } == missing

    changed = {row["archive"]: (row["new_points"], row["gone_points"]) for row in asked(lake, page, "changes")}
    assert changed == {
        name: (sum(n for (_, archive), n in years.items() if archive == name), 0) for name in ("wise", "ztf")
    }
    assert {row["Archive"]: (int(row["New points"]), int(row["Gone"])) for row in page.table("changes")} == changed

    dots = asked(lake, page, "sky")
    assert sorted(page.dots()) == sorted((row["targets"], row["measurements"]) for row in dots)
    assert sum(targets for targets, _ in page.dots()) == 40

    sizes: dict[str, dict[str, int]] = defaultdict(dict)
    for row in asked(lake, page, "sizes"):
        sizes[row["table_name"]][row["archive"] or "(no archive)"] = row["bytes"]
    drawn = page.grid("sizes")
    assert {
        table: {name: int(n) for name, n in row.items() if int(n) and name != "in all"}
        for table, row in drawn.items()
        if table != "all"
    } == sizes
    assert int(drawn["all"]["in all"]) == totals["bytes"] == sum(sum(row.values()) for row in sizes.values())


def test_ages_are_counted_to_the_time_of_the_report(catalog: Catalog, lake: Lake, tmp_path: Path) -> None:
    register(catalog, range(6))
    committed(catalog, range(6), "g1")
    page = written(lake, tmp_path)
    (row,) = asked(lake, page, "ages")
    assert row["oldest"] == ASKED
    assert row["to_90_d"] == 6, "asked a month before"
    shown = page.grid("ages")["ztf"]
    assert shown == {
        "< 1 d": "0",
        "< 7 d": "0",
        "< 30 d": "0",
        "< 90 d": "6",
        "< 365 d": "0",
        "≥ 365 d": "0",
        "oldest": "2024-05-01 00:00",
    }


def test_an_empty_lake_has_a_report(catalog: Catalog, lake: Lake, tmp_path: Path) -> None:
    page = written(lake, tmp_path, ("gaia", "ztf"))
    assert page.facts()["targets"] == page.facts()["points"] == "0"
    assert not page.dots()
    for name in ("answers", "coverage", "samples", "years", "ages", "missing", "runs"):
        assert not lake.sql(page.sql(name)).num_rows
        assert page.text(name)
    assert "gaia, ztf" in page.soup.text, "archives that were never asked"


def test_names_are_text(catalog: Catalog, lake: Lake, tmp_path: Path) -> None:
    half_failed(catalog)
    page = written(lake, tmp_path)
    assert [one.get("id") for one in page.soup.select("script")] == [None], "its own, that copies"
    assert not page.soup.select("img")
    assert sum(HOSTILE[:9] in name for name in page.grid("coverage")) == 8


def test_a_page_is_no_longer_for_more_targets(
    catalog: Catalog, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MOST_DOTS", 12)
    register(catalog, range(300))
    committed(catalog, range(300), "g1")
    page = written(lake, tmp_path)
    assert len(page.grid("coverage")) == queries.MOST_TARGETS
    assert str(queries.MOST_TARGETS) in page.text("coverage")
    assert page.facts()["targets"] == "300"
    dots = page.dots()
    assert 1 < len(dots) < 60
    assert sum(targets for targets, _ in dots) == 300
    assert sum(points for _, points in dots) == 300 * len(rows_of(0, 1))


def test_the_command_writes_a_page_and_a_line(
    catalog: Catalog, lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half_failed(catalog)
    to = tmp_path / "new" / "all.html"
    assert report(to=to, lake=str(catalog.storage.root)) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert str(to) in line
    assert "40 targets" in line
    assert "23 answers" in line
    assert to.stat().st_size < 3_000_000
    with pytest.raises(ConfigurationError, match=r"all\.png"):
        report(to=tmp_path / "all.png", lake=str(catalog.storage.root))


def test_the_map_keeps_areas_and_the_ends_of_the_sky() -> None:
    x, y = mollweide([180, 0, 360, 123, 45], [0, 0, 0, 90, -90])
    assert np.allclose(x, [0, 2, -2, 0, 0], atol=1e-6), "east is left"
    assert np.allclose(y, [0, 0, 0, 1, -1], atol=1e-6)
    low, high = np.sort(mollweide([180, 180], [10.0, 40.0])[1])
    width = 4 * np.sqrt(1 - np.linspace(low, high, 10_001) ** 2)
    area = np.trapezoid(width, np.linspace(low, high, 10_001)) / (2 * np.pi)
    assert area == pytest.approx((np.sin(np.radians(40)) - np.sin(np.radians(10))) / 2, rel=1e-5)


def test_a_map_is_a_picture_too() -> None:
    ra, dec = positions([1, 2])
    dots = [
        {"ra": a, "dec": b, "targets": n, "measurements": 10 * n, "name": None, "hpx_order": 4}
        for a, b, n in zip(ra, dec, (1, 3), strict=True)
    ]
    assert sky_svg(dots).count("<circle") == 2
    assert sky_png(dots)[:8] == b"\x89PNG\r\n\x1a\n"
    assert sky_png(dots) != sky_png([])
