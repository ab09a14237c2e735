"""ZTF, unWISE and Pan-STARRS as the published collector had them, out of the lake to 1e-6; and what else is there.

The archives are made from the collector's own values, turned back into what it must have read: magnitudes, Vega
nanomaggies and janskys, with the types that the archives keep them in; and with what it leaves out beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from helpers.oracle import rows_of, sample_of
from numpy.typing import NDArray
from test_panstarrs import catalogues, detections, objects
from test_wise import dataset
from test_wise import detections as wise_detections
from test_ztf import collection

from lake.commit.targets import add_targets
from lake.query import Lake
from tasks.pull import commit_batch, fetch_batch, lake_at, plan_batches
from tasks.register import register_archive
from tasks.sources.registry import find

pytestmark = pytest.mark.oracle

BANDS = {
    "zg": "ztf_g",
    "zr": "ztf_r",
    "zi": "ztf_i",
    "w1": "WISE_W1",
    "w2": "WISE_W2",
    **{f"panstarrs {letter}": f"Pan-STARRS {letter}" for letter in "grizy"},
}
NANOMAGGY_MJY = {"w1": 3.022734e-4, "w2": 1.676486e-4}
AB_MJY = 3630.7805477e3


@pytest.fixture(scope="module")
def oracle(data_dir: Path) -> pd.DataFrame:
    """The collector's rows, 14,681 of 15 objects."""
    table = rows_of(data_dir, BANDS)
    assert (len(table), table.objectid.nunique()) == (14681, 15)
    assert (table.flux > 0).all()
    return table


@pytest.fixture(scope="module")
def sample(data_dir: Path) -> pd.DataFrame:
    return sample_of(data_dir)


def ztf_rows(oracle: pd.DataFrame, sample: pd.DataFrame) -> pa.Table:
    """An object for each target and band, and another one 0.7 arcsec off; each has an epoch that is flagged as bad."""
    kept: list[dict[str, object]] = []
    for (number, band), light in oracle[oracle.band.isin(("zg", "zr", "zi"))].groupby(["objectid", "band"]):
        mag = (-2.5 * np.log10(light.flux / AB_MJY)).to_numpy("f4")
        # The error from the magnitude's: err = flux * sinh(0.4 ln(10) sigma).
        sigma = (np.arcsinh(light.err / light.flux) / (0.4 * np.log(10))).to_numpy("f4")
        place = sample.loc[sample.objectid == number].iloc[0]
        for copy, north in ((0, 0.1), (1, 0.7)):
            times = np.append(light.time.to_numpy() + copy, 58000.0)
            epochs = zip(times, np.append(mag, 12), np.append(sigma, 0.1), strict=True)
            kept.append(
                {
                    "objectid": len(kept) + 10**15,
                    "filterid": 1 + ("zg", "zr", "zi").index(str(band)),
                    "objra": place.ra,
                    "objdec": place.dec + north / 3600,
                    "lightcurve": [
                        {"hmjd": t, "mag": m, "magerr": s, "catflags": 32768 if t == 58000 else 2} for t, m, s in epochs
                    ],
                }
            )
    epoch = pa.struct({"hmjd": pa.float64(), "mag": pa.float32(), "magerr": pa.float32(), "catflags": pa.int32()})
    schema = pa.schema(
        {
            "objectid": pa.int64(),
            "filterid": pa.int8(),
            "objra": pa.float64(),
            "objdec": pa.float64(),
            "lightcurve": pa.list_(epoch),
        }
    )
    return pa.Table.from_pylist(kept, schema)


def places_of(light: pd.DataFrame, sample: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    at = sample.set_index("objectid").loc[light.objectid]
    return at.ra.to_numpy(), at.dec.to_numpy()


def wise_rows(oracle: pd.DataFrame, sample: pd.DataFrame) -> pa.Table:
    """The detections; each a second time below zero, as not primary, and as of a star 3 arcsec off."""
    light = oracle[oracle.band.isin(NANOMAGGY_MJY)]
    ra, dec = places_of(light, sample)
    unit = light.band.map(NANOMAGGY_MJY).to_numpy()
    flux, error = (light.flux / unit).to_numpy("f4"), pa.array((light.err / unit).to_numpy("f4"))
    band, time = light.band.str[1].astype(int).to_numpy(), light.time.to_numpy()
    parts = (
        wise_detections(ra, dec, time, band, flux, dflux=error),
        wise_detections(ra, dec, time + 1, band, -flux, dflux=error),
        wise_detections(ra, dec, time + 2, band, flux, dflux=error, primary=np.zeros(len(ra), "i2")),
        wise_detections(ra, dec + 3 / 3600, time, band, flux, dflux=error),
    )
    return pa.concat_tables(parts)


def panstarrs_rows(oracle: pd.DataFrame, sample: pd.DataFrame) -> tuple[pa.Table, pa.Table]:
    """Two objects a target, the second 0.8 arcsec off; and an epoch of each that was not measured."""
    light = oracle[oracle.band.str.startswith("panstarrs")]
    ra, dec = places_of(light, sample)
    number, filterid = light.objectid.to_numpy(), light.band.str[-1].map("grizy".index).to_numpy("i2") + 1
    flux, error = light.flux.to_numpy() / 1e3, light.err.to_numpy() / 1e3
    more = {"filterID": filterid, "obsTime": light.time.to_numpy(), "psfFluxErr": error}
    missing = np.full(len(light), -999.0)
    parts = (
        detections(number + 10, ra, dec, psfFlux=flux, **more),
        detections(number + 10, ra, dec, psfFlux=missing, **{**more, "obsTime": light.time.to_numpy() + 0.3}),
        detections(number + 1000, ra, dec + 0.8 / 3600, psfFlux=flux, **more),
    )
    at = sample[sample.objectid.isin(set(number))]
    ids, ra, dec = at.objectid.to_numpy(), at.ra.to_numpy(), at.dec.to_numpy()
    both = (objects(ids + 10, ra, dec), objects(ids + 1000, ra, dec + 0.8 / 3600))
    return pa.concat_tables(both), pa.concat_tables(parts)


@pytest.fixture(scope="module")
def archives(oracle: pd.DataFrame, sample: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    collection(folder / "ztf", ztf_rows(oracle, sample))
    dataset(folder / "wise", wise_rows(oracle, sample))
    catalogues(folder / "panstarrs", *panstarrs_rows(oracle, sample))
    return folder


@pytest.fixture
def pulled(archives: Path, sample: pd.DataFrame, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    add_targets(lake.catalog, pa.Table.from_pandas(sample[["name", "ra", "dec"]]), "yang18", label="Yang 18")
    for name in ("ztf", "wise", "panstarrs"):
        monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", str(archives / name))
        archive = find(name)
        register_archive(lake, archive)
        for batch in plan_batches(lake, archive, archive.with_defaults({}), None, lake.storage.staging / name):
            commit_batch(str(lake.storage.root), fetch_batch(batch))
    yield lake
    lake_at.cache_clear()


def by_time(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(["objectid", "band", "time", "flux"]).reset_index(drop=True)


def test_the_published_values_come_out_of_a_lake_that_has_more(pulled: Lake, oracle: pd.DataFrame) -> None:
    ours = by_time(
        pulled.sql(
            "SELECT right(name, -1)::INT AS objectid, f.label, f.band, f.time, f.flux, f.err "
            "FROM fornax_as_published AS f JOIN targets ON target_id = f.objectid"
        ).to_pandas()
    )
    theirs = by_time(oracle.assign(band=oracle.band.map(BANDS)))
    assert ours.groupby(["objectid", "band"]).size().to_dict() == theirs.groupby(["objectid", "band"]).size().to_dict()
    assert set(ours.label) == {"Yang 18"}
    assert np.abs(ours.time - theirs.time).max() < 1e-9
    assert np.abs(ours.flux / theirs.flux - 1).max() < 1e-6
    assert np.abs(ours.err / theirs.err - 1).max() < 1e-6

    # The lake has more, and says what it is.
    counts = oracle.assign(archive=oracle.band.str[0].map({"z": "ztf", "w": "wise", "p": "panstarrs"}))
    published = counts.groupby("archive").size()
    rows = (
        pulled.sql(
            "SELECT archive, count(*) AS n, count(*) FILTER (good) AS good, count(flux) AS measured, "
            "count(*) FILTER (flux < 0) AS negative, count(*) FILTER (rank = 1) AS nearest "
            "FROM target_lightcurves WHERE band NOT LIKE '%_ap' GROUP BY archive"
        )
        .to_pandas()
        .set_index("archive")
    )
    curves = oracle[oracle.band.isin(("zg", "zr", "zi"))].groupby(["objectid", "band"]).ngroups
    assert rows.loc["ztf", "n"] == 2 * (published["ztf"] + curves)
    assert rows.loc["ztf", "good"] == 2 * published["ztf"], "both objects of a star"
    assert rows.loc["wise", "n"] == 2 * published["wise"]
    assert rows.loc["wise", "negative"] == published["wise"]
    assert rows.loc["wise", "good"] == rows.loc["wise", "n"], "of either sign"
    assert rows.loc["panstarrs", "n"] == 3 * published["panstarrs"]
    assert rows.loc["panstarrs", "measured"] == 2 * published["panstarrs"], "-999 is no flux"
    assert rows.loc["panstarrs", "nearest"] == 2 * published["panstarrs"]
