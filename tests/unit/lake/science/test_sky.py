"""Positions against published numbers, astropy and brute force."""

import resource
from itertools import pairwise

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord, angular_separation
from astropy.time import Time

from lake.science.sky import (
    ARCSEC_PER_RAD,
    HPX_NSIDE,
    HPX_PIXELS,
    SkyIndex,
    apply_proper_motion,
    chord,
    cone_ranges,
    hpx29,
    hpx29_to_radec,
    match,
    ranks,
    separation_arcsec,
    unit_vectors,
)

# Barnard's star: Gaia DR3 4472832130942575872 at J2016.0, and SIMBAD's J2000 position derived from it.
BARNARD_2016 = (269.44850252543836, 4.739420051112412)
BARNARD_PM = (-801.5509783684709, 10362.394206546573)
BARNARD_2000 = (269.4520769586187, 4.693364966576667)


def _sky(rng, n):
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


# --- HEALPix


def test_hpx29_gives_the_indices_that_a_hats_catalogue_has():
    # Source: ZTF objects of hats-import, tests/data/test_formats/lightcurve.parquet at 770ff96b30.
    ra = [44.042022705078125, 44.006324768066406, 44.68596267700195, 44.277557373046875, 44.494117736816406]
    dec = [1.2641617059707642, 1.2636394500732422, 1.2656972408294678, 1.2637290954589844, 1.264647126197815]
    published = [184342612410390, 189475338943485, 171958220169309, 194147107266604, 170852867104507]
    index = hpx29(ra, dec)
    assert index.dtype == np.int64
    assert index.tolist() == published


def test_hpx29_covers_the_sphere_with_12_nside_squared_pixels():
    # Gorski et al. 2005, ApJ 622, 759, eq. 4 ff.: 12 nside^2 pixels; the first four base pixels are polar.
    assert HPX_PIXELS == 3458764513820540928
    assert HPX_NSIDE == 536870912
    assert (hpx29([45.0, 135.0, 225.0, 315.0], 89.9) // 4**29).tolist() == [0, 1, 2, 3]
    assert (hpx29([0.0, 90.0, 180.0, 270.0], 0.0) // 4**29).tolist() == [4, 5, 6, 7]
    assert (hpx29([45.0, 135.0, 225.0, 315.0], -89.9) // 4**29).tolist() == [8, 9, 10, 11]


def test_hpx29_takes_right_ascension_modulo_360():
    assert hpx29([-10.0, 350.0, 710.0], 5.0).tolist() == [hpx29(350.0, 5.0)] * 3
    assert hpx29(-1e-20, 5.0) == hpx29(360.0, 5.0) == hpx29(0.0, 5.0)
    assert hpx29([], []).shape == (0,)
    assert hpx29([], []).dtype == np.int64


@pytest.mark.parametrize(
    ("ra", "dec", "named"),
    [
        ([1.0, np.nan], [2.0, 3.0], "ra=nan, dec=3.0 at index 1"),
        ([1.0, np.inf], 3.0, "ra=inf, dec=3.0 at index 1"),
        (1.0, [0.0, -90.001, 95.0], "ra=1.0, dec=-90.001 at index 1"),
        (1.0, np.nan, "dec=nan at index 0"),
    ],
)
def test_hpx29_names_the_first_bad_position(ra, dec, named):
    with pytest.raises(ValueError, match=named):
        hpx29(ra, dec)


def test_pixel_centres_are_within_a_pixel():
    ra, dec = _sky(np.random.default_rng(1), 1000)
    back = hpx29_to_radec(hpx29(ra, dec))
    assert separation_arcsec(ra, dec, *back).max() < 4e-4
    for bad in (-1, HPX_PIXELS):
        with pytest.raises(ValueError, match=f"{bad} at index 1"):
            hpx29_to_radec([0, bad])


# --- separations


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 1.0, 3600.0, 90 * 3600.0, 179 * 3600.0, 180 * 3600 - 1e-3, 648000.0])
def test_separation_along_a_meridian_is_the_angle(angle):
    for dec in (-90.0, -60.0, 0.0):
        # What the second declination really is, after rounding to a double.
        second = dec + angle / 3600
        if second <= 90:
            assert separation_arcsec(10.0, dec, 10.0, second) == pytest.approx((second - dec) * 3600, rel=3e-15)


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("dec", [0.0, 45.0, -80.0, 89.9])
def test_separation_along_a_parallel_is_the_angle_times_cos_dec(angle, dec):
    second = 10.0 + angle / 3600
    expected = (second - 10.0) * 3600 * np.cos(np.radians(dec))
    assert separation_arcsec(10.0, dec, second, dec) == pytest.approx(expected, rel=1e-9)


def test_separation_of_two_stars_is_the_published_one():
    # Meeus, Astronomical Algorithms (2nd ed. 1998), example 17.a: Arcturus and Spica, 32.7930 degrees.
    assert separation_arcsec(213.9154, 19.1825, 201.2983, -11.1614) / 3600 == pytest.approx(32.7930, abs=5e-5)


def test_separation_across_the_wrap_the_poles_and_the_globe():
    assert separation_arcsec(359.9999, 0.0, 0.0001, 0.0) == pytest.approx(0.72, rel=1e-9)
    assert separation_arcsec(0.0, 89.9999, 180.0, 89.9999) == pytest.approx(0.72, rel=1e-9)
    assert separation_arcsec(12.0, 34.0, 192.0, -34.0) == pytest.approx(648000.0, rel=1e-15)
    assert separation_arcsec(12.0, 34.0, 12.0, 34.0) == 0
    assert np.isnan(separation_arcsec(np.nan, 0.0, 1.0, 0.0))


def test_separation_agrees_with_astropy_and_is_symmetric():
    rng = np.random.default_rng(2)
    ra1, dec1 = _sky(rng, 1000)
    ra2, dec2 = _sky(rng, 1000)
    theirs = angular_separation(*(np.radians(a) for a in (ra1, dec1, ra2, dec2))) * ARCSEC_PER_RAD
    ours = separation_arcsec(ra1, dec1, ra2, dec2)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    assert np.array_equal(ours, separation_arcsec(ra2, dec2, ra1, dec1))
    assert separation_arcsec(ra1[:, None], dec1[:, None], ra2[:3], dec2[:3]).shape == (1000, 3)


def test_unit_vectors_and_chords():
    # 206264.806 arcsec a radian: Allen's Astrophysical Quantities (4th ed. 2000).
    assert pytest.approx(206264.80624709636, rel=1e-15) == ARCSEC_PER_RAD
    np.testing.assert_allclose(unit_vectors([0, 90, 0], [0, 0, 90]), np.eye(3), atol=1e-15)
    assert chord(60 * 3600.0) == pytest.approx(1.0, rel=1e-15)
    assert chord(648000.0) == 2.0
    assert chord(0.0) == 0.0
    assert chord(1e-6) == pytest.approx(1e-6 / 206264.80624709636, rel=1e-15)
    for bad in (-1.0, 648001.0, np.nan):
        with pytest.raises(ValueError, match="180 degrees"):
            chord(bad)


# --- cones


def test_a_cone_of_the_whole_sky_is_one_range():
    assert cone_ranges(10.0, 20.0, 648000.0) == [(0, HPX_PIXELS - 1)]


@pytest.mark.parametrize(
    ("ra", "dec"), [(0.0, 90.0), (77.0, -90.0), (0.0, 0.0), (360.0, 41.8103), (45.0, 0.0), (-5.0, 60.0)]
)
@pytest.mark.parametrize("radius", [0.0, 0.4e-3, 0.01, 1.0, 60.0, 36000.0, 90 * 3600.0, 179.9 * 3600])
def test_cone_ranges_are_few_sorted_and_hold_the_cone(ra, dec, radius):
    rng = np.random.default_rng(3)
    # Points at any distance up to the radius, and many right at it, by turning a cone about the pole.
    theta = np.radians(np.concatenate([rng.uniform(0, radius, 2000), np.full(2000, radius)]) / 3600)
    phi = rng.uniform(0, 2 * np.pi, theta.size)
    tilt, turn = np.radians(90 - dec), np.radians(ra)
    x, y, z = np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)
    x, z = x * np.cos(tilt) + z * np.sin(tilt), z * np.cos(tilt) - x * np.sin(tilt)
    lon = np.degrees(np.arctan2(y, x) + turn)
    lat = np.degrees(np.arctan2(z, np.hypot(x, y)))
    inside = separation_arcsec(ra, dec, lon, lat) <= radius
    index = hpx29(np.append(lon[inside], ra), np.append(lat[inside], dec))
    for most in (1, 3, 8):
        ranges = cone_ranges(ra, dec, radius, most)
        assert 1 <= len(ranges) <= most
        edges = [edge for pair in ranges for edge in pair]
        assert edges == sorted(edges)
        assert all(low - high > 1 for (_, high), (low, _) in pairwise(ranges))
        held = np.zeros(index.size, dtype=bool)
        for low, high in ranges:
            held |= (index >= low) & (index <= high)
        assert held.all()


def test_cone_ranges_are_tight():
    rng = np.random.default_rng(4)
    for radius in (1.0, 30.0, 3600.0, 72000.0):
        cap = np.sin(radius / ARCSEC_PER_RAD / 2) ** 2 * HPX_PIXELS
        ratios = [
            sum(high - low + 1 for low, high in cone_ranges(ra, dec, radius)) / cap
            for ra, dec in zip(*_sky(rng, 100), strict=True)
        ]
        assert np.median(ratios) < 1.7
        assert max(ratios) < 2.5


def test_cone_ranges_refuse_nonsense():
    for arguments, said in [
        ((np.nan, 0.0, 1.0), "not a position"),
        ((0.0, 91.0, 1.0), "not a position"),
        ((0.0, 0.0, -1.0), "180 degrees"),
        ((0.0, 0.0, np.nan), "180 degrees"),
        ((0.0, 0.0, 1.0, 0), "max_ranges"),
    ]:
        with pytest.raises(ValueError, match=said):
            cone_ranges(*arguments)


# --- matching


def test_match_includes_the_radius_unless_strict():
    # 2 arcsec along the equator, and 1 arcsec: exact in neither case, so the separation itself is the radius.
    ra2 = np.array([2.0, 1.0]) / 3600
    edge = float(separation_arcsec(0.0, 0.0, ra2[0], 0.0))
    i, j, separation = match([0.0], [0.0], ra2, [0.0, 0.0], edge)
    assert (i.tolist(), j.tolist(), separation.tolist()) == ([0, 0], [1, 0], [pytest.approx(1.0), edge])
    assert match([0.0], [0.0], ra2, [0.0, 0.0], edge, strict=True)[1].tolist() == [1]
    assert match([0.0], [0.0], ra2, [0.0, 0.0], [edge, 0.1])[1].tolist() == [0]
    assert match([0.0], [0.0], ra2, [0.0, 0.0], [edge, 0.1], strict=True)[1].tolist() == []
    assert match([0.0], [0.0], [0.0], [0.0], 0.0)[2].tolist() == [0.0]


def test_match_reaches_over_the_wrap_and_the_poles():
    i, j, _ = match([359.9999, 0.0, 5.0], [0.0, 89.9999, -90.0], [0.0001, 180.0, 200.0], [0.0, 89.9999, -90.0], 1.0)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 0), (1, 1), (2, 2)]
    assert len(match([10.0], [20.0], [190.0], [-20.0], 648000.0)[0]) == 1


def test_a_missing_position_or_radius_matches_nothing():
    # saxgrbmgrb has 245 of 1082 rows without a position.
    nan = np.nan
    i, j, _ = match([nan, 1.0, 1.0], [1.0, nan, 1.0], [1.0, nan, 1.0], [nan, 1.0, 1.0], 648000.0)
    assert (i.tolist(), j.tolist()) == ([2], [2])
    i, j, _ = match([1.0, 1.0], [1.0, nan], [1.0, 1.0, nan], [1.0, 1.0, 1.0], [nan, 5.0, 5.0])
    assert (i.tolist(), j.tolist()) == ([0], [1])
    assert [a.dtype for a in match([], [], [nan], [nan], 1.0)] == [np.int64, np.int64, np.float64]
    assert len(match([1.0], [1.0], [], [], 1.0)[0]) == 0


@pytest.mark.parametrize("bad", [(np.inf, 0.0, 1.0), (0.0, 91.0, 1.0), (0.0, 0.0, -1.0), (0.0, 0.0, np.inf)])
def test_match_refuses_what_is_not_on_the_sky(bad):
    ra, dec, radius = bad
    with pytest.raises(ValueError, match="at index 0 is not"):
        match([ra], [dec], [0.0], [0.0], radius)
    with pytest.raises(ValueError, match="broadcast"):
        match([0.0], [0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 1.0, 1.0])


def test_index_is_reusable_and_chunks_change_nothing():
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(358, 362, 300), rng.uniform(-1, 1, 300)
    index = SkyIndex(ra, dec)
    whole = index.within(ra, dec, 900.0)
    for again in (index.within(ra, dec, 900.0, chunk=7), match(ra, dec, ra, dec, np.full(300, 900.0), chunk=11)):
        for ours, theirs in zip(again, whole, strict=True):
            assert np.array_equal(ours, theirs)
    assert np.array_equal(np.lexsort((whole[1], whole[2], whole[0])), np.arange(whole[0].size))
    # A query's own radius.
    wide = index.within(ra[:2], dec[:2], [0.0, 900.0])
    assert wide[0].tolist() == [0] + [1] * int((whole[0] == 1).sum())


def test_ranks_count_from_the_nearest():
    assert ranks([0, 0, 0, 4, 5, 5]).tolist() == [1, 2, 3, 1, 1, 2]
    assert ranks([]).dtype == np.int32
    with pytest.raises(ValueError, match="sorted"):
        ranks([1, 0])


@pytest.mark.long
def test_match_of_half_a_million_with_a_million_is_bounded():
    rng = np.random.default_rng(6)
    ra, dec = _sky(rng, 1_000_000)
    ra[0], dec[0] = 0.0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    i, j, _ = match(ra[:500_000], dec[:500_000], ra, dec, 0.1)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert np.all(np.isin(np.arange(500_000), i[i == j]))
    assert i.size < 500_100
    assert grown_mb < 400


# --- proper motion


def test_barnards_star_goes_from_gaias_epoch_to_simbads():
    moved = apply_proper_motion(*BARNARD_2016, *BARNARD_PM, 2016.0, 2000.0)
    assert separation_arcsec(*moved, *BARNARD_2000) < 1e-6
    # Its published motion is 10393.349 mas/yr (SIMBAD).
    moved = apply_proper_motion(*BARNARD_2016, *BARNARD_PM, 2016.0, 2017.0)
    assert separation_arcsec(*moved, *BARNARD_2016) == pytest.approx(10.393349, abs=2e-6)


@pytest.mark.parametrize("years", [100.0, -100.0, 16.0])
def test_proper_motion_agrees_with_astropys(years):
    start = Time(2016.0, format="jyear", scale="tdb")
    star = SkyCoord(
        *BARNARD_2016 * u.deg,
        distance=1.8282 * u.pc,
        pm_ra_cosdec=BARNARD_PM[0] * u.mas / u.yr,
        pm_dec=BARNARD_PM[1] * u.mas / u.yr,
        obstime=start,
    )
    theirs = star.apply_space_motion(new_obstime=start + years * u.yr)
    ra, dec = apply_proper_motion(*BARNARD_2016, *BARNARD_PM, 2016.0, 2016.0 + years)
    assert separation_arcsec(ra, dec, theirs.ra.deg, theirs.dec.deg) < 1e-7


def test_proper_motion_passes_the_pole_and_the_wrap():
    ra, dec = apply_proper_motion(30.0, 89.9999, 0.0, 720.0, 2000.0, 2001.0)
    assert (ra, dec) == (pytest.approx(210.0), pytest.approx(89.9999, abs=1e-9))
    ra, dec = apply_proper_motion([0.0001, 359.9999], 0.0, [-720.0, 720.0], 0.0, 2000.0, 2001.0)
    np.testing.assert_allclose(ra, [359.9999, 0.0001], atol=1e-9)


def test_no_proper_motion_is_no_motion():
    ra, dec = apply_proper_motion([10.1, 370.1], 20.2, np.nan, [np.nan, 0.0], np.nan, 2016.0)
    assert (ra.tolist(), dec.tolist()) == ([10.1, pytest.approx(10.1)], [20.2, 20.2])
    ra, dec = apply_proper_motion(10.0, 0.0, np.nan, 1000.0, 2000.0, 2001.0)
    assert (ra, dec) == (10.0, pytest.approx(1 / 3600, rel=1e-9))
    assert np.isnan(apply_proper_motion(10.0, 0.0, 5.0, 5.0, np.nan, 2001.0)[0])
