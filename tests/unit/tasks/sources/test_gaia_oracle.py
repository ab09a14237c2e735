"""Gaia as the published collector had it, out of the lake to 1e-6; and what is right, in the lake."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from helpers.oracle import rows_of, sample_of

from deployments.sandbox.server import Request, Response, Sandbox
from deployments.sandbox.tap import TapService, votable
from lake.commit.targets import add_targets
from lake.query import Lake
from tasks.pull import commit_batch, fetch_batch, lake_at, plan_batches
from tasks.register import register_archive
from tasks.sources.gaia import archive as gaia
from tasks.sources.gaia.epochs import ZERO_POINTS

pytestmark = pytest.mark.oracle

BANDS = {"Gaia g": "G", "Gaia bp": "BP", "Gaia rp": "RP"}


@pytest.fixture(scope="module")
def oracle(data_dir: Path) -> pd.DataFrame:
    """The collector's rows of Gaia: 516 of 13 objects; mJy, and MJD half a day late."""
    table = rows_of(data_dir, BANDS)
    assert (len(table), table.objectid.nunique()) == (516, 13)
    return table.assign(gaia_band=table.band.map(BANDS))


@pytest.fixture(scope="module")
def sample(data_dir: Path) -> pd.DataFrame:
    """The targets, with the sources that they are at."""
    return sample_of(data_dir).assign(source_id=lambda rows: 4295806720 + rows.objectid)


@pytest.fixture
def pulled(oracle: pd.DataFrame, sample: pd.DataFrame, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """A lake with all that an archive has which holds exactly what the collector must have been given."""
    mag = 23.9 - 2.5 * np.log10(oracle.flux * 1000)
    rate = 10 ** (-0.4 * (mag - oracle.gaia_band.map(lambda band: ZERO_POINTS[band].vega)))
    n = len(oracle)
    held = {
        "source_id": 4295806720 + oracle.objectid.to_numpy(),
        "transit_id": np.arange(n),
        "band": oracle.gaia_band,
        "time": oracle.time - 55197.5,
        "mag": mag,
        "flux": rate,
        "flux_error": rate * oracle.err / oracle.flux,
        "rejected_by_photometry": np.zeros(n, bool),
        "rejected_by_variability": np.arange(n) % 9 == 0,
        "other_flags": np.zeros(n, np.int64),
    }
    # What the photometry rejected, the collector leaves out, and the lake does not.
    rejected = {name: values[:3] for name, values in held.items()} | {"rejected_by_photometry": np.ones(3, bool)}
    rejected["time"] = rejected["time"] + 0.1
    rows = pa.concat_tables(
        [pa.table({k: pa.array(np.asarray(v)) for k, v in part.items()}) for part in (held, rejected)]
    )
    sources = pa.table(
        {
            "source_id": sample.source_id.to_numpy(),
            "random_index": np.arange(len(sample)),
            "ra": sample.ra.to_numpy(),
            "dec": sample.dec.to_numpy(),
            **{
                name: np.full(len(sample), value)
                for name, value in (
                    ("ra_error", 0.1),
                    ("dec_error", 0.1),
                    ("pmra", 0.0),
                    ("pmdec", 0.0),
                    ("ref_epoch", 2016.0),
                )
            },
            "has_epoch_photometry": sample.objectid.isin(oracle.objectid).to_numpy(),
        }
    )

    def datalink(request: Request) -> Response:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("EPOCH_PHOTOMETRY_COMBINED.xml", votable(rows))
        return Response(content.getvalue())

    with Sandbox() as box:
        service = TapService(box, "/tap", {"gaiadr3.gaia_source": sources})
        box.mount("/data", datalink)
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__GAIA", service.url)
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__GAIA_DATALINK", box.url("/data"))
        table = pa.Table.from_pandas(sample[["name", "ra", "dec"]], preserve_index=False)
        add_targets(lake.catalog, table, "yang18", label="Yang 18")
        register_archive(lake, gaia.ARCHIVE)
        asked = gaia.ARCHIVE.with_defaults({"data_structure": "COMBINED"})
        for batch in plan_batches(lake, gaia.ARCHIVE, asked, None, lake.storage.staging / "pull"):
            commit_batch(str(lake.storage.root), fetch_batch(batch))
        service.close()
    yield lake
    lake_at.cache_clear()


def sorted_by_time(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(["objectid", "band", "time"]).reset_index(drop=True)


def test_the_published_values_come_out_of_the_lake(pulled: Lake, oracle: pd.DataFrame) -> None:
    published = pulled.sql(
        "SELECT right(name, -1)::INT AS objectid, f.label, f.band, f.time, f.flux, f.err "
        "FROM fornax_as_published AS f JOIN targets ON target_id = f.objectid"
    ).to_pandas()
    ours = sorted_by_time(published)
    theirs = sorted_by_time(oracle.assign(band="Gaia_" + oracle.gaia_band))
    assert len(ours) == len(theirs) == 516
    assert ours.objectid.tolist() == theirs.objectid.tolist()
    assert ours.band.tolist() == theirs.band.tolist()
    assert set(ours.label) == {"Yang 18"}
    assert np.abs(ours.time - theirs.time).max() < 1e-9
    assert np.abs(ours.flux / theirs.flux - 1).max() < 1e-6
    assert np.abs(ours.err / theirs.err - 1).max() < 1e-6


def test_the_right_values_are_in_the_lake(pulled: Lake, oracle: pd.DataFrame) -> None:
    rows = pulled.sql(
        "SELECT right(name, -1)::INT AS objectid, band, mjd AS time, flux, mag, good, quality, mag_system, unit "
        "FROM target_lightcurves"
    ).to_pandas()
    assert len(rows) == 519, "rejected transits are there"
    assert (~rows.good).sum() == np.count_nonzero(np.arange(516) % 9 == 0) + 3
    assert set(rows[~rows.good].quality) == {1, 2, 3}
    kept = sorted_by_time(rows[rows.quality % 2 == 0])
    theirs = sorted_by_time(oracle.assign(band=oracle.gaia_band))
    assert np.abs(theirs.time - 0.5 - kept.time).max() < 1e-9
    for band, factor in (("G", 1.110), ("BP", 1.014), ("RP", 1.388)):
        there = kept.band == band
        assert (theirs.flux[there] / kept.flux[there]).to_numpy() == pytest.approx(factor, rel=1e-3)
    assert set(rows.mag_system) == {"Vega"}
    assert set(rows.unit) == {"mJy"}


def test_every_target_has_its_answer(pulled: Lake) -> None:
    coverage = pulled.sql("SELECT status, n_rows > 0 AS lit, count(*) AS n FROM coverage GROUP BY ALL ORDER BY ALL")
    assert coverage.to_pylist() == [
        {"status": "found", "lit": False, "n": 18},
        {"status": "found", "lit": True, "n": 13},
    ]


def test_good_rows_only_in_the_view_with_right_values(pulled: Lake) -> None:
    view = pulled.sql("FROM fornax ORDER BY ALL").to_pandas()
    good = pulled.sql("SELECT mjd, flux FROM lightcurves WHERE good").to_pandas()
    assert sorted(view.time) == sorted(good.mjd)
    assert sorted(view.flux) == sorted(good.flux)
