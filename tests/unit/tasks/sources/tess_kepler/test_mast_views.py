"""Views normalised and decimated, and what the Fornax collector made of TESS, Kepler and K2."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import mast
from helpers.granules import hold as hold_rows
from helpers.granules import positions
from helpers.mast_lake import hold, read, register

from lake.commit.targets import add_targets
from lake.query import Lake
from lake.settings import load_settings
from tasks.sources.tess_kepler.mast_fits import read_product
from tasks.sources.tess_kepler.mast_products import KEPLER_MASK, TESS_MASK, Product

REAL = {
    "TIC 25155310": "tess2018206045859-s0001-0000000025155310-0120-s_lc.fits",
    "KIC 2556081": "kplr002556081-2009259160929_llc.fits",
    "EPIC 211436265": "ktwo211436265-c05_llc.fits",
}
BAND_OF = {"TIC": ("tess_spoc_pdcsap", "TESS"), "KIC": ("kepler_pdcsap", "Kepler"), "EPIC": ("k2_pdcsap", "K2")}


def made(kind: str = "spoc", **changes: Any) -> Product:
    sequence, target = changes.get("sequence", 1), changes.get("target", 25155310)
    return read_product(mast.product(kind, **changes), mast.name_of(kind, target, sequence))


@pytest.fixture(scope="module")
def products(data_dir: Path) -> dict[str, Product]:
    return {name: read(data_dir / "kepler_k2_tess" / file) for name, file in REAL.items()}


@contextmanager
def filled(url: Path, template: Path, granules: list[list[Product]]) -> Iterator[Lake]:
    shutil.copytree(template, url)
    with Lake(url, load_settings(url=str(url)), writable=True) as lake:
        register(lake, [product for granule in granules for product in granule])
        for number, granule in enumerate(granules):
            hold(lake, granule, f"g{number}")
        yield lake


@pytest.fixture(scope="module")
def held(products: dict[str, Product], template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake of real files, that no test changes."""
    with filled(tmp_path_factory.mktemp("real") / "lake", template, [list(products.values())]) as lake:
        yield lake


@pytest.fixture(scope="module")
def scattered(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake of six targets in as many files, that no test changes."""
    granules = [[made(target=1 + n, seed=n)] for n in range(6)]
    with filled(tmp_path_factory.mktemp("scattered") / "lake", template, granules) as lake:
        yield lake


def one(lake: Lake, query: str, *parameters: Any) -> tuple[Any, ...]:
    return tuple(lake.sql(query, list(parameters)).to_pylist()[0].values())


@pytest.mark.parametrize("name", REAL)
def test_normalised_is_flux_over_the_median_of_good_fluxes(held: Lake, products: dict[str, Product], name: str) -> None:
    product, (band, _) = products[name], BAND_OF[name.split()[0]]
    flux = product.curves[band].flux
    median = np.median(flux[product.is_good & ~np.isnan(flux)])
    rows = held.sql("FROM normalised WHERE name = ? AND band = ? ORDER BY mjd", [name, band])
    assert rows["mjd"].to_pylist() == product.mjd.tolist()
    assert set(rows["flux_median"].to_pylist()) == {median}
    ours = rows["flux"].to_numpy()
    np.testing.assert_array_equal(ours, flux / median)
    np.testing.assert_array_equal(rows["flux_err"].to_numpy(), product.curves[band].error / median)
    assert np.nanmedian(ours[rows["good"].to_numpy()]) == pytest.approx(1, abs=1e-12)
    assert set(rows["unit"].to_pylist()) == {""}
    assert set(rows["flux_median_unit"].to_pylist()) == {"electron.s**-1"}


def test_each_sector_cadence_and_band_has_its_own_median(lake: Lake) -> None:
    curves = [
        made(sequence=1, seed=1, n=80),
        made(sequence=2, seed=2, n=81),
        made(sequence=2, seed=3, n=82, TIMEDEL=20 / 86400),
    ]
    register(lake, curves[:1])
    hold(lake, curves)
    rows = lake.sql(
        "SELECT exposure_id, band, median(flux) FILTER (WHERE good AND detected) AS level, any_value(flux_median) AS m "
        "FROM normalised GROUP BY ALL"
    ).to_pylist()
    assert len(rows) == 6
    assert all(row["level"] == pytest.approx(1, abs=1e-12) for row in rows)
    assert len({row["m"] for row in rows}) == 6


def test_elsewhere_the_whole_light_curve_has_one_median(lake: Lake) -> None:
    """Gaia's exposure is a transit, and a single measurement over itself would be 1 for ever."""
    ra, dec = positions([0])
    add_targets(lake.catalog, pa.table({"ra": ra, "dec": dec, "name": ["T0"]}), "agn")
    hold_rows(
        lake,
        "gaia",
        "G",
        [
            {"mjd": 57000.0 + n, "flux": flux, "flux_err": 0.5, "unit": "mJy", "exposure_id": str(n), "good": flux < 9}
            for n, flux in enumerate((1.0, 2.0, 4.0, 100.0))
        ],
    )
    hold_rows(lake, "wise", "W1", [{"mjd": 57000.0, "flux": 3.0, "good": False, "unit": "mJy"}])
    hold_rows(lake, "ztf", "g", [{"mjd": 57000.0 + n, "flux": n - 9.0, "flux_err": 1.0} for n in range(3)])
    hold_rows(lake, "fermigtrig", "FERMIGTRIG", [{"mjd": 57818.5}])
    rows = lake.sql("SELECT archive, flux, flux_err, flux_median FROM normalised ORDER BY archive, mjd").to_pylist()
    told = {}
    for row in rows:
        told.setdefault(row["archive"], []).append((row["flux"], row["flux_err"], row["flux_median"]))
    assert told == {
        "gaia": [(0.5, 0.25, 2.0), (1.0, 0.25, 2.0), (2.0, 0.25, 2.0), (50.0, 0.25, 2.0)],
        "wise": [(None, None, None)],  # nothing good
        "ztf": [(None, None, -8.0)] * 3,  # a light curve without light
        "fermigtrig": [(None, None, None)],
    }
    assert lake.sql("FROM decimated").num_rows == 9, "what is not of cadences is not thinned"


def scans(plan: Any) -> dict[str, tuple[int, int]]:
    """Rows that were read of each table, and of how many files."""
    found: dict[str, tuple[int, int]] = {}
    for node in plan if isinstance(plan, list) else [plan]:
        told = node.get("extra_info") or {}
        if isinstance(told, dict) and "Table" in told:
            found[told["Table"]] = (node["operator_cardinality"], int(told.get("Total Files Read", 0)))
        for table, seen in scans(node.get("children", [])).items():
            rows, files = found.get(table, (0, 0))
            found[table] = (rows + seen[0], files + seen[1])
    return found


@pytest.mark.parametrize("view", ["normalised", "decimated", "fornax_as_published"])
@pytest.mark.parametrize("by", ["name", "target_id", "source_id", "hpx29"])
def test_a_target_is_found_without_reading_the_others(scattered: Lake, view: str, by: str) -> None:
    target = scattered.sql("SELECT target_id, name, source_id, hpx29 FROM target_lightcurves WHERE name = 'TIC 4'")
    value, mine = target[by][0].as_py(), target.num_rows
    if view == "fornax_as_published":
        by, value = "objectid", target["target_id"][0].as_py()
    written = f"'{value}'" if isinstance(value, str) else value
    plan = scattered.sql(f"EXPLAIN (ANALYZE, FORMAT json) SELECT * FROM {view} WHERE {by} = {written}").to_pylist()[0]
    rows, files = scans(json.loads(plan["explain_value"]))["lightcurves"]
    branches = {"normalised": 1, "decimated": 2, "fornax_as_published": 8}[view]
    assert 0 < rows <= mine * branches
    assert 0 < files <= branches


@pytest.mark.parametrize("name", REAL)
def test_decimated_keeps_every_thirtieth_good_cadence(held: Lake, name: str) -> None:
    band, _ = BAND_OF[name.split()[0]]
    query = "SELECT * EXCLUDE (granule) FROM {} WHERE name = ? AND band = ? AND {} ORDER BY mjd"
    for kind in ("good", "NOT good AND detected", "NOT detected"):  # Kepler's have no flux where they are not good
        every = held.sql(query.format("target_lightcurves", kind), [name, band])
        few = held.sql(query.format("decimated", kind), [name, band])
        assert every.num_rows or kind != "good"
        assert few.equals(every.take(pa.array(range(0, every.num_rows, 30), pa.int64())))
    assert held.sql("FROM decimated LIMIT 0").column_names == held.sql("FROM target_lightcurves LIMIT 0").column_names


def collected(time: Any, flux: Any, error: Any, is_tess: bool) -> list[tuple[float, float | None, float | None]]:
    """What the collector keeps of a light curve that lightkurve read: section 1.6 of the specification."""
    kept = [i for i in range(0, len(time), 30) if not is_tess or flux[i] > 0]
    number = lambda value: None if np.isnan(value) else float(value)  # noqa: E731
    return [(time[i] + 2457000 - 2400000.5, number(flux[i]), number(error[i])) for i in kept]


def published(lake: Lake, band: str, label: str) -> list[tuple[float, float | None, float | None]]:
    rows = lake.sql(
        "SELECT time, flux, err FROM fornax_as_published JOIN targets ON target_id = objectid "
        "WHERE name = ? AND band = ? ORDER BY time",
        [label, band],
    )
    return [tuple(row.values()) for row in rows.to_pylist()]


def same(ours: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]]) -> None:
    assert [row[1:] for row in ours] == [row[1:] for row in theirs]
    # A Julian date has steps of 4.7e-10 d.
    np.testing.assert_allclose([row[0] for row in ours], [row[0] for row in theirs], rtol=0, atol=5e-10)


@pytest.mark.oracle
@pytest.mark.parametrize("name", REAL)
def test_as_published_is_what_the_collector_makes_of_lightkurve(held: Lake, data_dir: Path, name: str) -> None:
    lightkurve = pytest.importorskip("lightkurve", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        curve = lightkurve.read(str(data_dir / "kepler_k2_tess" / REAL[name]))
    flux, error = (np.asarray(getattr(c.value, "unmasked", c.value)) for c in (curve.flux, curve.flux_err))
    band = BAND_OF[name.split()[0]][1]
    theirs = collected(curve.time.value, flux, error, band == "TESS")
    assert len(theirs) > 100
    same(published(held, band, name), theirs)


def test_as_published_is_six_years_late_but_for_tess(held: Lake) -> None:
    """The first cadences are of 2018-07-25, 2009-06-20 and 2015-04-27."""
    bands = ("TESS", "Kepler", "K2")
    first, first_published = (
        {band: one(held, f"SELECT min(time) FROM {view} WHERE band = ?", band)[0] for band in bands}
        for view in ("fornax", "fornax_as_published")
    )
    late = {band: first_published[band] - first[band] for band in bands}
    assert {band: int(mjd) for band, mjd in first.items()} == {"TESS": 58324, "Kepler": 55002, "K2": 57139}
    assert late["TESS"] == pytest.approx(0, abs=1)
    assert late["Kepler"] == pytest.approx(2167, abs=1)
    assert late["K2"] == pytest.approx(2167, abs=1)


def test_fornax_has_the_corrected_flux_at_all_good_cadences(held: Lake, products: dict[str, Product]) -> None:
    bands = held.sql("SELECT DISTINCT band FROM fornax ORDER BY band")["band"].to_pylist()
    assert bands == ["K2", "Kepler", "TESS"], "aperture fluxes beside them are not the collector's"
    for name, product in products.items():
        band, theirs = BAND_OF[name.split()[0]]
        good = int((product.is_good & ~np.isnan(product.curves[band].flux)).sum())
        assert one(held, "SELECT count(*) FROM fornax WHERE band = ?", theirs) == (good,)


def test_positions_count_what_lightkurve_keeps_and_nothing_else(lake: Lake) -> None:
    """Whatever cadences lack a time, a flux, or a clean flag word."""
    lengths = (2, 29, 30, 31, 32, 59, 61, 90, 91, 95, 120, 155)
    kinds = ("spoc", "kepler", "k2")
    curves = [made(kinds[i % 3], n=n, seed=i, target=1 + i) for i, n in enumerate(lengths)]
    register(lake, curves)
    hold(lake, curves)
    every = lake.sql(
        "SELECT name, time, flux, err FROM fornax_as_published JOIN targets ON target_id = objectid "
        "WHERE band IN ('TESS', 'Kepler', 'K2') ORDER BY time"
    ).to_pylist()
    for product in curves:
        catalogue = product.source_id.split()[0]
        band, _ = BAND_OF[catalogue]
        kept = product.quality.astype(int) & (TESS_MASK if catalogue == "TIC" else KEPLER_MASK) == 0
        curve = product.curves[band]
        expected = collected(product.time[kept], curve.flux[kept], curve.error[kept], catalogue == "TIC")
        ours = [tuple(row.values())[1:] for row in every if row["name"] == product.source_id]
        same(ours, expected)
