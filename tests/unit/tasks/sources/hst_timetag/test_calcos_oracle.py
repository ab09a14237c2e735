"""What calcos makes of the same reference files and events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from helpers.hst import corrtag_of, cos_file, table_hdu

from tasks.sources.hst_timetag.events import open_events
from tasks.sources.hst_timetag.extract import Selection, extract
from tasks.sources.hst_timetag.reference import sensitivities

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("calcos")]

NT, NWL = 4, 5
TIMES = (55_000.0, 56_000.0, 57_500.0, 59_000.0)


@pytest.fixture(scope="module")
def calcos() -> Any:
    """Import it here, and not in each process that only collects tests."""
    return pytest.importorskip("calcos.extract", reason="calcos is not installed", exc_type=ImportError)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start_mjd", [54_500.0, 55_000.5, 56_700.0, 57_499.0, 60_500.0])
def test_the_sensitivity_declines_as_in_calcos(start_mjd: float, tmp_path: Path, calcos: Any) -> None:
    random = np.random.default_rng(7)
    wavelengths = [1000.0, 1200.0, 1250.0, 1500.0, 1900.0]
    keys = {"SEGMENT": ["FUVA"], "OPT_ELEM": ["G140L"], "APERTURE": ["PSA"], "CENWAVE": [1105]}
    # Arrays are longer than NT and NWL say.
    tds = table_hdu(
        {
            **keys,
            "NWL": [NWL],
            "NT": [NT],
            "WAVELENGTH": [[*wavelengths, -1.0]],
            "TIME": [[*TIMES, 0.0]],
            "SLOPE": random.uniform(-8, 2, (1, (NT + 1) * (NWL + 1))),
            "INTERCEPT": random.uniform(0.8, 1.1, (1, (NT + 1) * (NWL + 1))),
        }
    )
    tds.header["REF_TIME"] = 54_952.0
    phot = table_hdu({**keys, "WAVELENGTH": [[900.0, 2000.0]], "SENSITIVITY": [[1e12, 3e12]]})
    for name, hdu in (("x_phot", phot), ("x_tds", tds)):
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / f"{name}.fits")
    header = {"FLUXTAB": "lref$x_phot.fits", "TDSTAB": "lref$x_tds.fits"}
    path = cos_file(tmp_path / "l1_corrtag_a.fits", times=[0, 4], segment="FUVA", start_mjd=start_mjd, primary=header)
    with open_events(path) as (table,):
        mine = sensitivities(table, {"lref": str(tmp_path)})["A"].decline
    known = {"opt_elem": "G140L", "aperture": "PSA", "cenwave": 1105, "segment": "FUVA"}
    at, factors, _ = calcos.getTdsFactors(str(tmp_path / "x_tds.fits"), known, start_mjd)
    assert mine(np.asarray(at, float)) == pytest.approx(np.asarray(factors, float), rel=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rootname", ["ldfd01vnq", "ldfd01vpq"])
def test_real_events_in_the_source_box_are_those_of_calcos_image(rootname: str, data_dir: Path, tmp_path: Path) -> None:
    from calcos import ccos

    folder = data_dir / "hst_cos_stis"
    raw, x1d = (folder / f"{rootname}_{name}.fits.gz" for name in ("rawtag_a", "x1d"))
    with open_events(corrtag_of(raw, x1d, tmp_path / f"{rootname}_corrtag_a.fits")) as (table,):
        (boxes,) = table.boxes
        curve = extract([table], Selection(wavelengths=(-1e9, 1e9), without_airglow=False))
        (every,) = table.chunks(table.rows)
        timely = every.take(np.flatnonzero(every.time < curve.bins.start_s + curve.bins.step_s * curve.bins.number))
    image = np.zeros((1024, 16_384), np.float32)
    x, y, weight = (np.ascontiguousarray(one, np.float32) for one in (timely.x, timely.y, timely.weight))
    ccos.binevents(x, y, image, 0, timely.quality.astype(np.int16), table.serious_dq, weight)
    # An image has whole rows, by the nearest; the box has its own edges.
    rows = slice(round(boxes.source.low), round(boxes.source.high))
    assert sum(curve.table["gross"].to_pylist()) == pytest.approx(float(image[rows].sum()), rel=0.01)
