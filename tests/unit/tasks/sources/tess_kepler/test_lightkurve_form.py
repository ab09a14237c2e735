"""Light curves of missions as lightkurve's own classes: the values of the file, and what lightkurve does with them."""

from __future__ import annotations

import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from helpers.mast_lake import hold, read, register

from lake.query import Lake

FILES = {
    "tess_spoc_pdcsap": "tess2018206045859-s0001-0000000025155310-0120-s_lc.fits",
    "kepler_pdcsap": "kplr002556081-2009259160929_llc.fits",
    "k2_pdcsap": "ktwo211436265-c05_llc.fits",
}
# Class, keyword and number of the part of the mission, format of times, mission.
SAID = {
    "tess_spoc_pdcsap": ("TessLightCurve", "sector", 1, "btjd", "TESS", 25155310),
    "kepler_pdcsap": ("KeplerLightCurve", "quarter", 2, "bkjd", "Kepler", 2556081),
    "k2_pdcsap": ("KeplerLightCurve", "campaign", 5, "bkjd", "K2", 211436265),
}
MICROSECOND_D = 1e-6 / 86400


@pytest.fixture
def held(lake: Lake, data_dir: Path) -> Lake:
    """A lake with a light curve of each mission."""
    products = [read(data_dir / "kepler_k2_tess" / name) for name in FILES.values()]
    register(lake, products)
    hold(lake, products)
    return lake


@pytest.mark.long
def test_missions_have_their_classes_and_the_values_of_their_files(held: Lake, data_dir: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightkurve

    for band, file in FILES.items():
        (name,) = held.sql("SELECT DISTINCT name FROM target_lightcurves WHERE band = ?", [band])["name"].to_pylist()
        (curve,) = held.light_curve(name, band=band, form="lightkurve")
        kind, part, number, form, mission, target = SAID[band]
        assert type(curve).__name__ == kind
        assert (curve.meta[part.upper()], getattr(curve, part)) == (number, number)
        assert (curve.time.format, curve.time.scale, curve.mission, curve.targetid) == (form, "tdb", mission, target)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = lightkurve.read(data_dir / "kepler_k2_tess" / file, quality_bitmask="none")
        theirs = theirs[np.isfinite(theirs.time.value)]
        assert len(curve) == len(theirs)
        assert np.abs(curve.time.mjd - theirs.time.mjd).max() < MICROSECOND_D
        assert curve.flux.unit == theirs.flux.unit == u.electron / u.s
        assert np.array_equal(curve.flux.value, np.ma.filled(theirs.flux.value, np.nan), equal_nan=True)
        assert curve["quality"].tolist() == theirs["quality"].tolist()


@pytest.mark.long
def test_fold_flatten_and_periodogram_work(held: Lake) -> None:
    """The transits of WASP-126 b: Maxted et al. 2016, A&A 591, A55."""
    (curve,) = held.light_curve("TIC 25155310", band="tess_spoc_pdcsap", good=True, form="lightkurve")
    curve = curve.remove_nans().normalize()
    periods = np.linspace(3.0, 3.6, 2000)
    found = curve.to_periodogram(method="bls", period=periods, duration=0.12)
    assert abs(found.period_at_max_power.to_value(u.d) - 3.2888) < 0.003
    folded = curve.fold(period=found.period_at_max_power, epoch_time=found.transit_time_at_max_power)
    inside = np.abs(folded.time.value) < 0.04
    assert abs(1 - np.nanmedian(folded.flux[inside]).value - 0.0067) < 0.0005
    flat = curve.flatten(window_length=401)
    assert len(flat) == len(curve)
    assert np.nanstd(flat.flux) < np.nanstd(curve.flux)


def test_each_sector_is_a_light_curve(held: Lake, data_dir: Path) -> None:
    collection = held.light_curve(["TIC 25155310", "KIC 2556081"], band=list(FILES), form="lightkurve")
    assert [type(one).__name__ for one in collection] == ["TessLightCurve", "KeplerLightCurve"]
    series = held.light_curve("TIC 25155310", band="tess_spoc_pdcsap", form="timeseries_bands")
    assert len(series) == 1
    assert series[0].meta["exposure_id"].startswith("tess-s0001-")
