"""The page about Fornax frames runs as it is written, on a lake filled from the simulated archives."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.table import Table
from cyclopts import App

from deployments.demo import TARGETS
from deployments.sandbox.server import Sandbox
from flows import local
from lake.commit.targets import add_targets
from lake.export.commands import export_fornax
from lake.query import Lake
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from tasks.pull import lake_at
from tasks.sources.protocol import Request

pytestmark = pytest.mark.long

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "from-fornax.md").read_text()
ARCHIVES = ("ztf", "wise", "panstarrs")
BANDS = ["W1", "W2", "panstarrs g", "panstarrs i", "panstarrs r", "panstarrs y", "panstarrs z", "zg", "zr"]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lake with the demo's targets and what the archives of the notebooks' bands have of them."""
    folder = tmp_path_factory.mktemp("fornax")
    url = str(folder / "lake")
    places = [(ra, dec) for _, ra, dec, _ in TARGETS]
    with (
        Sandbox.start(folder / "archives", archives=ARCHIVES, seed=20210126, scale=0.02, targets=places) as sandbox,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("LIGHTLAKE_CACHE_DIR", str(folder / "cache"))
        for name, endpoint in sandbox.endpoints.items():
            patch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", endpoint)
        catalog = Catalog(Storage.from_url(url), load_settings(url=url))
        catalog.create()
        name, ra, dec, label = zip(*TARGETS, strict=True)
        add_targets(catalog, pa.table({"name": name, "ra": ra, "dec": dec, "label": label}), "demo")
        some = pa.table({"ra": ra[::2], "dec": dec[::2]})
        add_targets(catalog, some, "twice", label="changing look")
        catalog.close()
        for archive in ARCHIVES:
            local.pull(url, Request(archive))
        lake_at.cache_clear()
    return url


@pytest.fixture(scope="module")
def executed(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Names after each block of Python; the file is in the working folder."""
    commands = App()
    commands.command(export_fornax, name="fornax")
    folder = tmp_path_factory.mktemp("work")
    names: dict[str, Any] = {}
    done = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LIGHTLAKE_URL", url)
        (line,) = (one for one in "".join(blocks("bash")).splitlines() if one.startswith("lightlake export "))
        assert commands(shlex.split(line)[2:], result_action="return_value", exit_on_error=False) == 0
        for number, code in enumerate(blocks("python")):
            exec(compile(code, f"docs/how-to/from-fornax.md, block {number}", "exec"), names)
            done.append(dict(names))
    return {"classifier": done[1], "zoo": done[2], "ids": {"path": folder / "light_curves_ids.ecsv"}}


def test_the_features_of_the_classifier(executed: dict[str, dict[str, Any]], url: str) -> None:
    features, grid = executed["classifier"]["features"], executed["classifier"]["grid"]
    assert features.index.names == ["objectid", "datetime"]
    assert list(features.columns) == ["label", *(f"flux_{band.replace(' ', '_')}" for band in sorted(BANDS))]
    assert not features.isna().any().any()
    assert set(features.label) == {"CLAGN", "SDSS"}
    count = features.index.get_level_values("objectid").nunique()
    assert count > 15
    assert len(features) == count * len(grid)
    assert features.groupby("objectid").flux_W1.max().to_numpy() == pytest.approx(1)
    # One value, from the lake itself: the three measurements nearest to a time, over the largest such mean of W1.
    ids = Table.read(executed["ids"]["path"], format="ascii.ecsv")
    assert ids["ra"].unit == "deg"
    objectid = features.index[0][0]
    target = int(ids["target_id"][ids["objectid"] == objectid][0])
    assert ids["label"][ids["target_id"] == target][0]
    query = "SELECT bands.fornax_band AS band, mjd, flux::DOUBLE AS flux FROM target_lightcurves JOIN bands "
    query += (
        "USING (archive, band) WHERE target_id = ? AND good AND detected AND bands.fornax_band IN ('WISE_W1', 'ztf_r')"
    )
    with Lake(url) as lake:
        found = lake.sql(query, [target], form="pandas")
    means = {}
    for band, rows in found[found.flux >= 1e-6].groupby("band"):
        nearest = np.argsort(np.abs(rows.mjd.to_numpy()[:, np.newaxis] - grid), axis=0, kind="stable")[:3]
        means[band] = rows.flux.to_numpy()[nearest].mean(axis=0)
    expected = means["ztf_r"] / means["WISE_W1"].max()
    assert features.loc[objectid, "flux_zr"].to_numpy() == pytest.approx(expected, rel=1e-9)


def test_the_features_of_the_zoo(executed: dict[str, dict[str, Any]]) -> None:
    names = executed["zoo"]
    table, labels, grid = names["table"], names["labels"], names["grid"]
    assert table.shape == (len(labels), 3 * len(grid))
    assert len(labels) > 3
    assert np.isfinite(table).all()
    assert np.median(table[:, len(grid) : 2 * len(grid)].max(axis=1)) == pytest.approx(1)
    # Labels of both samples, as bits.
    assert set(labels) <= {"1", "2", "4", "8", "9", "10", "12", "16", "24"}
    assert set(labels) & {"9", "10", "12", "24"}


def test_the_frame_is_the_collectors(executed: dict[str, dict[str, Any]], url: str) -> None:
    frame = pd.read_parquet(executed["ids"]["path"].with_name("light_curves.parquet"))
    assert frame.index.names == ["objectid", "label", "band", "time"]
    assert list(frame.columns) == ["flux", "err"]
    assert set(frame.index.get_level_values("band")) == {*BANDS, "zi"}
    with Lake(url) as lake:
        assert len(frame) == lake.sql("SELECT count(*) AS n FROM fornax")["n"][0].as_py()
