"""The views in the form of the Fornax collector: what is in them once, what is as published, what has no flux."""

from __future__ import annotations

import pyarrow as pa
import pytest
from helpers.granules import hold, positions

from lake.commit.targets import add_targets
from lake.query import Lake


@pytest.fixture
def held(lake: Lake) -> Lake:
    ra, dec = positions([0])
    add_targets(lake.catalog, pa.table({"ra": ra, "dec": dec, "name": ["T0"]}), "agn", label="AGN")
    lake.catalog.cursor().execute(
        "INSERT INTO bands BY NAME SELECT 'gaia' AS archive, 'G' AS band, 'G' AS description, 'mJy' AS unit, "
        "0.1136777774 AS ab_minus_mag, 'Gaia_G' AS fornax_band"
    )
    events = [{"mjd": 55000.0 + n, "flux": 10.0 ** (3 + n / 10), "unit": "GeV"} for n in range(5)]
    hold(lake, "icecubepsc", "IceCube", events)
    hold(lake, "fermigtrig", "FERMIGTRIG", [{"mjd": 57818.586891}])
    hold(lake, "saxgrbmgrb", "SAXGRBMGRB", [{"mjd": 50335.861597, "flux": 2e-6, "unit": "erg.cm**-2"}])
    gaia = {"mjd": 57000.0, "flux": 0.1, "flux_err": 0.01, "unit": "mJy", "quality": 0}
    hold(
        lake,
        "gaia",
        "G",
        [
            gaia,
            {**gaia, "mjd": 57001.0, "quality": 1, "good": False},
            {**gaia, "mjd": 57002.0, "quality": 4, "good": False},
            {**gaia, "mjd": 57003.0, "flux": -0.01},
            {"mjd": 57004.0, "detected": False, "good": False, "quality": 0},
        ],
    )
    return lake


def rows(lake: Lake, view: str, band: str) -> list[tuple[float, float | None, float | None]]:
    asked = lake.sql(f"SELECT time, flux, err FROM {view} WHERE band = ? ORDER BY time", [band])
    return [tuple(row.values()) for row in asked.to_pylist()]


def test_triggers_have_no_flux_but_as_published(held: Lake) -> None:
    assert rows(held, "fornax", "FERMIGTRIG") == [(57818.586891, None, None)]
    assert rows(held, "fornax", "SAXGRBMGRB") == [(50335.861597, pytest.approx(2e-6, rel=1e-6), None)]
    # The times are those that the collector's notebook shows.
    assert rows(held, "fornax_as_published", "FERMIGTRIG") == [(57818.586891, 0.1, 0.1)]
    assert rows(held, "fornax_as_published", "SAXGRBMGRB") == [(50335.861597, 0.1, 0.1)]


def test_gaia_half_a_day_late_and_as_if_ab_but_only_as_published(held: Lake) -> None:
    assert rows(held, "fornax", "Gaia_G")[0] == (57000.0, pytest.approx(0.1), pytest.approx(0.01))
    assert [row[0] for row in rows(held, "fornax", "Gaia_G")] == [57000.0, 57003.0]
    published = rows(held, "fornax_as_published", "Gaia_G")
    assert [row[0] for row in published] == [57000.5, 57002.5], "it looks at rejected_by_photometry alone"
    factor = 10 ** (0.4 * 0.1136777774) * 3630.7805477 / 3631
    assert published[0][1:] == (pytest.approx(0.1 * factor, rel=1e-6), pytest.approx(0.01 * factor, rel=1e-6))


def test_neutrinos_come_once_from_either_archive(held: Lake) -> None:
    assert [row[1] for row in rows(held, "fornax", "IceCube")] == [3.0, 3.1, 3.2, 3.3, 3.4]
    assert [row[1:] for row in rows(held, "fornax_as_published", "IceCube")] == [(3.2, 0.0), (3.3, 0.0), (3.4, 0.0)]
    hold(held, "icecube", "IceCube", [{"mjd": 55000.0, "flux": 1000.0, "unit": "GeV"}])
    assert rows(held, "fornax", "IceCube") == [(55000.0, 3.0, None)]
    assert rows(held, "fornax_as_published", "IceCube") == [(55000.0, 3.0, 0.0)]
