"""Files of light curves as STILTS and TOPCAT take them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.every_archive import fill
from helpers.stilts import Stilts, stilts  # noqa: F401

from lake.export.files import Selection, export
from lake.query import Lake
from lake.store.catalog import Catalog

pytestmark = pytest.mark.server


@pytest.mark.usefixtures("on_disk")
def test_votlint_finds_nothing_and_topcat_reads_every_table(
    prepared: Callable[[Callable[[Catalog], None]], Catalog],
    tmp_path: Path,
    stilts: Stilts,  # noqa: F811
) -> None:
    catalog = prepared(fill)
    with Lake(str(catalog.storage.root), catalog.settings) as lake:
        done = export(lake, tmp_path / "x.vot", "votable", Selection(sample="test"))
        export(lake, tmp_path / "x.fits", "fits", Selection(sample="test"))
        export(lake, tmp_path / "query.vot", "votable", Selection("FROM targets"))
        held = lake.sql("SELECT * FROM target_lightcurves ORDER BY archive, release, band, unit, mjd").to_pylist()
    for name in ("x.vot", "query.vot"):
        assert stilts("votlint", "ucd=true", "unit=true", tmp_path / name) == ""
    for form in ("votable", "fits"):
        file = tmp_path / f"x.{'vot' if form == 'votable' else 'fits'}"
        read = tmp_path / "read.csv"
        inputs = [one for at in range(1, len(done.parts) + 1) for one in (f"ifmt{at}={form}",
                  f"in{at}={file}#{at if form == 'fits' else at - 1}")]  # fmt: skip
        columns = "keepcols 'target_id archive band mjd flux quality exposure_id'"
        each = [f"icmd{at}={columns}" for at in range(1, len(done.parts) + 1)]
        stilts("tcatn", f"nin={len(done.parts)}", *inputs, *each, f"out={read}", "ofmt=csv")
        with read.open() as lines:
            found = list(csv.DictReader(lines))
        assert len(found) == len(held)
        for one, row in zip(held, found, strict=True):
            row = {name.lower(): value for name, value in row.items()}
            assert (int(row["target_id"]), row["archive"], row["band"]) == (
                one["target_id"],
                one["archive"],
                one["band"],
            )
            assert abs(float(row["mjd"]) - one["mjd"]) < 1e-6 / 86400
            assert row["quality"] == ("" if one["quality"] is None else str(one["quality"]))
            assert row["flux"] == "" if one["flux"] is None else float(row["flux"]) == pytest.approx(one["flux"], 1e-6)
            if form == "votable":
                assert row["exposure_id"] == (one["exposure_id"] or "")
    described = stilts("tpipe", f"in={tmp_path / 'x.vot'}#1", "omode=meta")
    assert "zeroPointFlux" in described
    assert "AB" in described or "Vega" in described
