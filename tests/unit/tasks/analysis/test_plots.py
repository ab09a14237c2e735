"""What a page of light curves draws: scales, phases, and which points when there are too many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks.analysis.plots
from tasks.analysis.plots import Fold, light_curve_page


def rows(flux: Any, name: str = "T0", band: str = "g", unit: str | None = "mJy", bmjd_tdb: Any = None) -> pa.Table:
    n = len(flux)
    mjd = 58000.0 + np.arange(n)
    return pa.table(
        {
            "name": [name] * n,
            "archive": ["ztf"] * n,
            "band": [band] * n,
            "mjd": mjd,
            "bmjd_tdb": pa.array(mjd if bmjd_tdb is None else bmjd_tdb, pa.float64()),
            "flux": pa.array(flux, pa.float64()),
            "unit": pa.array([unit] * n, pa.string()),
            "detected": [True] * n,
            "good": [True] * n,
            "separation_arcsec": [0.1] * n,
        }
    )


def drawn(table: pa.Table, path: Path, **how: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Encoding and data of a page."""
    text = light_curve_page(table, "One", path / "page.html", **how).read_text()
    spec = json.loads(text.partition('<script type="application/json" id="spec">')[2].partition("</script>")[0])
    return spec["encoding"], next(iter(spec.get("datasets", {}).values()), [])


@pytest.mark.parametrize(
    ("flux", "kind"), [([0.99, 1.0, 1.01], None), ([1.0, 10.0], None), ([1.0, 11.0], "log"), ([], "log")]
)
def test_a_narrow_range_has_a_linear_scale(tmp_path: Path, flux: list[float], kind: str | None) -> None:
    scale = drawn(rows([*flux, -5.0, 0.0]), tmp_path)[0]["y"]["scale"]
    assert scale.get("type") == kind
    assert scale.get("zero") is (None if kind else False), "else a transit is flat above an axis from 0"


def test_phases_are_of_times_at_the_barycentre(tmp_path: Path) -> None:
    times = [100.0, 100.5, 101.0, 101.9, 98.1, 107.0, None]
    encoding, data = drawn(rows([1.0] * 7, bmjd_tdb=times), tmp_path, fold=Fold(2.0, 100.0))
    assert [point["phase"] for point in data] == pytest.approx([0, 0.25, -0.5, -0.05, 0.05, -0.5])
    assert encoding["x"]["field"] == "phase"
    assert "2 d from MJD 100" in encoding["x"]["title"]


def test_series_are_called_by_band_and_unit(tmp_path: Path) -> None:
    table = pa.concat_tables([rows([1.0], unit=unit, band=str(unit)) for unit in ("mJy", "", None)])
    assert [point["series"] for point in drawn(table, tmp_path)[1]] == ["mJy, mJy", ", relative", "None, "]


@given(st.lists(st.integers(1, 600), min_size=1, max_size=12))
def test_short_light_curves_stay_whole_beside_long_ones(counts: list[int]) -> None:
    series = pa.array(np.repeat([str(i) for i in range(len(counts))], counts))
    table = pa.table({"name": pa.repeat("T0", len(series)), "series": series})
    most = 200
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.analysis.plots, "MOST_POINTS", most)
        thinned = tasks.analysis.plots._thinned(table)["series"].to_pylist()
    kept = [thinned.count(str(i)) for i in range(len(counts))]
    assert sum(kept) <= most
    for few, count in zip(kept, counts, strict=True):
        assert few == count if sum(counts) <= most else few >= min(count, most // len(counts)) / 2
