"""The sides of `benchmarks.peers` give the same answers, and others are noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import peers_sides
from benchmarks.lake_rows import ROWS, SOURCES, commit_all, register, stage_some
from benchmarks.match import write_catalogues
from benchmarks.measure import Run
from benchmarks.peers import Pattern, Size, Timed, ask_all, canonical, check_same, patterns, ratios
from lake.science.sky import match

SIZE = Size(granules=1, by_id=(1, 20, 60), positions=2_000, turns=1)
NAMES = {"by_id_1", "by_id_20", "by_id_60", "crossmatch", "per_night", "brightened"}


def here(function: Callable[..., Any], *arguments: Any, **_: Any) -> Run:
    """Call a function in this process, which has all imports."""
    return Run(function(*arguments), 0.1, 1.1, 100.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Data as the benchmark makes it; granules are staged in this process."""
    made = str(tmp_path_factory.mktemp("peers"))
    url = peers_sides.lake_url(made)
    register(url, SIZE.granules)
    stage_some(url, SIZE.granules, 0, 1)
    commit_all(url, SIZE.granules)
    write_catalogues(made, SIZE.positions)
    return made


def test_all_sides_agree(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both ways in which ids are given.
    monkeypatch.setattr(peers_sides, "LONGEST_LIST", 50)
    asked = patterns(folder, SIZE)
    assert set(asked) == NAMES
    timed = {name: ask_all(folder, name, pattern, here, None) for name, pattern in asked.items()}
    for name, sides in timed.items():
        assert set(sides) == {"lake", "duckdb", "pandas"} | ({"lake_sql"} if name.startswith("by_id") else set())
    rows = {name: pq.read_metadata(f"{folder}/answer-{name}-lake.parquet").num_rows for name in NAMES}
    of_object = ROWS // SOURCES
    assert [rows[f"by_id_{n}"] for n in SIZE.by_id] == [n * of_object for n in SIZE.by_id]
    nights = pq.read_table(f"{folder}/answer-per_night-lake.parquet")
    assert sum(nights["n"].to_pylist()) == SIZE.granules * ROWS
    assert 0 < rows["brightened"] < 2 * SIZE.granules * SOURCES
    assert 0.98 * SIZE.positions < rows["crossmatch"] < SIZE.positions

    result = ratios(timed)
    for name in NAMES:
        assert {f"{name}_s", f"{name}_scratch_s"} <= set(result)
        for of in (f"{name}_vs", f"{name}_cpu_vs", f"{name}_scratch_vs"):
            assert all(result[f"{of}_{peer}"] is not None for peer in ("duckdb", "pandas"))
            assert result[f"{of}_lsdb"] is None


def test_a_ratio_is_the_peers_time_over_the_lakes() -> None:
    sides = {"lake": Timed(2.0, 1.0, 4.0, 0.5, 100), "lsdb": Timed(3.0, 4.0, 20.0, 0.2, 100)}
    result = ratios({"per_night": sides})
    assert [result[f"per_night_{of}vs_lsdb"] for of in ("", "cpu_", "scratch_")] == [1.5, 4.0, 5.0]
    assert result["per_night_vs_duckdb"] is None
    assert "per_night_vs_lake_sql" not in result


def test_another_answer_is_noticed(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_sides, "BRIGHTENED", peers_sides.BRIGHTENED.replace("WHERE good", ""))
    asked = patterns(folder, SIZE)["brightened"]
    with pytest.raises(RuntimeError, match="pandas"):
        ask_all(folder, "brightened", asked, here, None)
    nothing = Pattern(asked.kind, asked.title, [{**asked.questions[0], "factor": 1e9}] * 2)
    with pytest.raises(RuntimeError, match="lake"):
        ask_all(folder, "brightened", nothing, here, None)


def test_means_may_be_summed_in_another_order() -> None:
    table = pa.table({"night": [2, 1], "band": ["g", "r"], "n": [3, 4], "flux": [1.0, 2.0]})
    expected = canonical("per_night", table)
    assert expected["night"].to_pylist() == [1, 2]
    near = table.set_column(3, "flux", pa.array([1.0 + 1e-13, 2.0]))
    check_same("near", expected, canonical("per_night", near), 2)
    for column, name in ((3, "flux"), (2, "n")):
        other = table.set_column(column, name, pa.array([1.0 if name == "flux" else 5, 2.1 if name == "flux" else 4]))
        with pytest.raises(RuntimeError, match=name):
            check_same("other", expected, canonical("per_night", other), 2)


@pytest.mark.parametrize("radius_arcsec", [0.1, 1.0, 100.0])
def test_duckdb_finds_pairs_over_the_poles_and_ra_0(tmp_path: Path, radius_arcsec: float) -> None:
    rng = np.random.default_rng(3)
    n = 400
    scale = 2 * radius_arcsec / 3600
    polar = [np.array([89.9999999, -90.0, 90.0]), np.array([89.99, -89.9, 45.0])]
    dec = np.concatenate(
        [90 - rng.uniform(0, scale, n), rng.uniform(0, scale, n) - 90, rng.normal(0, scale, n), *polar]
    )
    ra = np.concatenate([rng.uniform(0, 360, 2 * n), rng.normal(0, scale, n) % 360, np.zeros(6)])
    moved = np.clip(dec + rng.normal(0, scale / 4, len(dec)), -90, 90)
    for name, declination in (("first", dec), ("second", moved)):
        table = pa.table({"row": np.arange(len(dec)), "ra": ra, "dec": declination})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    found = peers_sides.duckdb_crossmatch(str(tmp_path))({"radius_arcsec": radius_arcsec})
    i, j, _ = match(ra, dec, ra, moved, radius_arcsec)
    pairs = sorted(zip(found["first"].to_pylist(), found["second"].to_pylist(), strict=True))
    assert len(pairs) > 1_000
    assert pairs == sorted(zip(i.tolist(), j.tolist(), strict=True))
