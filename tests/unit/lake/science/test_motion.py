"""Where targets were: against astropy, circles that hold whole paths, and matches by time against brute force."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import Distance, SkyCoord
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st

from lake.model.schema import TABLES
from lake.science.motion import Paths, Span, julian_year, positions_at
from lake.science.sky import hpx29, separation_arcsec

SPAN = Span(2009.4, 2026.5, "a test")
NUMBERS = {"ra": st.floats(0, 359.999), "dec": st.floats(-90, 90), "pm": st.floats(-10_000, 10_000)}


def targets(ra: Any, dec: Any, pm_ra: Any = None, pm_dec: Any = None, epoch: Any = None) -> pa.Table:
    ra, dec = np.atleast_1d(ra).astype(float), np.atleast_1d(dec).astype(float)
    more = {
        name: pa.array(list(np.atleast_1d(values)), pa.float64())
        for name, values in (("pm_ra", pm_ra), ("pm_dec", pm_dec), ("ref_epoch", epoch))
        if values is not None
    }
    pixel = hpx29(ra, dec)
    return TABLES["targets"].cast(pa.table({"target_id": pixel, "hpx29": pixel, "ra": ra, "dec": dec, **more}))


def test_barnards_star_is_where_gaia_and_hipparcos_saw_it() -> None:
    """From Gaia DR3's place in 2016.0 to that of Hipparcos in 1991.25 (I/311), and to astropy's at any epoch."""
    star = targets(269.44850252543836, 4.739420051112412, -801.551, 10362.394, 2016.0)
    ra, dec, known = positions_at(star, 1991.25)
    assert known.all()
    # Proper motion is known to 0.03 mas/yr; what is left is perspective acceleration, 1.3 mas/yr2.
    assert separation_arcsec(ra, dec, 269.45402305, 4.66828815)[0] < 0.45
    sky = SkyCoord(
        269.44850252543836 * u.deg,
        4.739420051112412 * u.deg,
        pm_ra_cosdec=-801.551 * u.mas / u.yr,
        pm_dec=10362.394 * u.mas / u.yr,
        distance=Distance(parallax=546.976 * u.mas),
        radial_velocity=0 * u.km / u.s,
        obstime=Time(2016.0, format="jyear", scale="tdb"),
    )
    for year in (1950.0, 1994.0, 2012.0, 2030.0):
        there = sky.apply_space_motion(Time(year, format="jyear", scale="tdb"))
        ra, dec, _ = positions_at(star, year)
        assert separation_arcsec(ra, dec, there.ra.deg, there.dec.deg)[0] < 1e-3
    assert julian_year(55927.0) == pytest.approx(Time(55927.0, format="mjd", scale="tt").jyear)


def test_what_is_not_known_whole_does_not_move() -> None:
    some = targets(
        [1.0, 2.0, 3.0, 4.0],
        [0.0, 0.0, 0.0, 0.0],
        [100.0, None, 100.0, 0.0],
        [0.0, 100.0, 0.0, 0.0],
        [2000.0, 2000.0, None, 2000.0],
    )
    paths = Paths(some, SPAN)
    assert paths.moves.tolist() == [True, False, False, False]
    assert positions_at(some, 2020.0)[2].tolist() == [True, False, False, True]
    assert np.asarray(paths.reach(1.0))[1:].tolist() == [1.0] * 3
    assert (paths.ra[1:].tolist(), paths.dec[1:].tolist()) == ([2.0, 3.0, 4.0], [0.0] * 3)
    still = Paths(targets([1.0, 2.0], [0.0, 0.0]), SPAN)
    assert still.reach(1.0) == 1.0
    assert [a.tolist() for a in still.match(np.array([2.0]), np.array([0.5 / 3600]), 1.0)[:2]] == [[1], [0]]
    assert Span(2018.2, None, "").years[1] > 2026


@given(ra=NUMBERS["ra"], dec=NUMBERS["dec"], pm_ra=NUMBERS["pm"], pm_dec=NUMBERS["pm"], seed=st.integers(0, 99))
def test_a_circle_holds_the_path_and_matches_are_those_of_the_time(
    ra: float, dec: float, pm_ra: float, pm_dec: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    paths = Paths(targets(ra, dec, pm_ra, pm_dec, 2016.0), SPAN)
    year = np.concatenate([np.linspace(2009.4, 2026.5, 11), random.uniform(2009.4, 2026.5, 30)])
    none = np.zeros(len(year), int)
    lon, lat = paths.at(none, year)
    reach = float(np.broadcast_to(paths.reach(0.0), 1)[0])
    assert (separation_arcsec(paths.ra[0], paths.dec[0], lon, lat) <= reach).all()
    assert (paths.closest(none, lon, lat) < 2e-3).all()
    # Sources on the path, some of other times than when it was there; one of no time at all.
    late = random.uniform(-0.5, 0.5, len(year)) * (np.arange(len(year)) % 3 > 0)
    source = np.concatenate([np.arange(len(year) - 1), np.arange(5)])
    times = np.concatenate([(year + late)[:-1], random.uniform(2009.4, 2026.5, 5)])
    each = separation_arcsec(*paths.at(np.zeros(len(times), int), times), lon[source], lat[source])
    least = np.full(len(year), np.inf)
    np.minimum.at(least, source, each)
    least[-1] = 0.0
    i, j, separation = paths.match(lon, lat, 1.0, (source, times))
    expected = np.flatnonzero(least <= 1.0)
    assert (set(j.tolist()), len(j), set(i.tolist())) == (set(expected.tolist()), len(expected), {0})
    assert separation == pytest.approx(least[j], abs=2e-3)
    assert (np.diff(separation) >= 0).all()
