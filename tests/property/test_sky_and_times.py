"""What holds for every position and every time."""

import hpgeom
import numpy as np
from helpers.profiles import examples
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lake.science.sky import (
    SkyIndex,
    apply_proper_motion,
    cone_ranges,
    hpx29,
    hpx29_to_radec,
    match,
    ranks,
    separation_arcsec,
    unit_vectors,
)
from lake.science.times import DAY_S, SCALES, to_bmjd_tdb

# Poles, equator, wrap and edges of base pixels more often than chance would have them.
RA = st.one_of(st.floats(0, 360, exclude_max=True), st.sampled_from([0.0, 1e-9, 45.0, 90.0, 180.0, 270.0, 360 - 1e-9]))
DEC = st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, -90 + 1e-9, -41.8103149, 0.0, 41.8103149, 90 - 1e-9, 90.0]))
RADIUS = st.one_of(
    st.floats(0, 648000),
    st.floats(-4, np.log10(648000.0)).map(lambda power: 10.0**power),
    st.sampled_from([0.0, 1e-3, 90 * 3600.0, 135 * 3600.0, 179.9 * 3600, 648000.0]),
)
# A float64 right ascension near 360 resolves 2e-10 arcsec.
ROUNDING_ARCSEC = 1e-9


def _turned(ra, dec, theta_deg, phi):
    """Positions at angles from a centre, in directions about it."""
    theta, tilt = np.radians(theta_deg), np.radians(90 - dec)
    x, y, z = np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)
    x, z = x * np.cos(tilt) + z * np.sin(tilt), z * np.cos(tilt) - x * np.sin(tilt)
    lon = (np.degrees(np.arctan2(y, x)) + ra) % 360
    return np.where(lon < 360, lon, 0.0), np.degrees(np.arctan2(z, np.hypot(x, y)))


@given(RA, DEC)
def test_a_pixel_is_where_its_positions_are(ra, dec):
    pixel = hpx29(ra, dec)
    # A pixel's furthest corner is 0.62 mas from its centre at most (hpgeom.max_pixel_radius at order 29).
    assert separation_arcsec(ra, dec, *hpx29_to_radec(pixel)) < 0.7e-3
    assert hpx29(*hpx29_to_radec(pixel)) == pixel


@given(RA, DEC, st.integers(0, 28))
def test_a_parent_pixel_contains_its_children(ra, dec, order):
    assert hpgeom.angle_to_pixel(2**order, ra, dec) == hpx29(ra, dec) >> 2 * (29 - order)


@given(RA, DEC, RA, DEC, RA, DEC)
def test_separation_is_a_metric(ra1, dec1, ra2, dec2, ra3, dec3):
    direct = separation_arcsec(ra1, dec1, ra2, dec2)
    assert 0 <= direct <= 648000
    assert direct == separation_arcsec(ra2, dec2, ra1, dec1)
    around = separation_arcsec(ra1, dec1, ra3, dec3) + separation_arcsec(ra3, dec3, ra2, dec2)
    assert direct <= around + ROUNDING_ARCSEC
    length = np.linalg.norm(unit_vectors(ra1, dec1) - unit_vectors(ra2, dec2))
    assert abs(2 * np.sin(np.radians(direct / 7200)) - length) < 2e-15


@settings(max_examples=examples(100))
@given(RA, DEC, RADIUS, st.integers(1, 16), st.integers(0, 2**32 - 1))
@example(0.0, 0.0, 179.9 * 3600, 8, 1)  # hpgeom's query_circle alone loses a base pixel here
@example(0.0, 90.0, 0.0, 8, 1)
def test_a_cone_never_misses_a_point(ra, dec, radius, most, seed):
    rng = np.random.default_rng(seed)
    share = np.concatenate([rng.uniform(0, 1, 60), np.ones(60), [0.0]])
    lon, lat = _turned(ra, dec, radius / 3600 * share, rng.uniform(0, 2 * np.pi, 121))
    inside = separation_arcsec(ra, dec, lon, lat) <= radius
    index = hpx29(np.append(lon[inside], ra), np.append(lat[inside], dec))
    ranges = np.array(cone_ranges(ra, dec, radius, most))
    assert len(ranges) <= most
    assert np.all(ranges[:, 0] <= ranges[:, 1])
    assert np.all(ranges[1:, 0] > ranges[:-1, 1] + 1)
    held = (index[:, None] >= ranges[:, 0]) & (index[:, None] <= ranges[:, 1])
    assert held.any(axis=1).all()


@settings(max_examples=examples(50))
@given(st.data(), RA, DEC, RADIUS, st.booleans(), st.booleans())
def test_match_is_brute_force(data, ra, dec, radius, own, strict):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, m = data.draw(st.integers(0, 12)), data.draw(st.integers(0, 12))
    scale = min(radius * 2, 648000.0) / 3600
    ra1, dec1 = _turned(ra, dec, rng.uniform(0, scale, n), rng.uniform(0, 7, n))
    ra2, dec2 = _turned(ra, dec, rng.uniform(0, scale, m), rng.uniform(0, 7, m))
    if n and m:
        # The same position in both, and one without any.
        ra2[0], dec2[0] = ra1[0], dec1[0]
        ra1[-1] = data.draw(st.sampled_from([ra1[-1], np.nan]))
    radii = rng.uniform(0, radius, m) if own else np.full(m, radius)
    apart = separation_arcsec(ra1[:, None], dec1[:, None], ra2, dec2)
    if n and m and data.draw(st.booleans()):
        # A radius that is exactly a separation.
        radii[:] = np.nan_to_num(apart[0, -1])
    given_radius = radii if own else (radii[0] if m else radius)
    i, j, separation = match(ra1, dec1, ra2, dec2, given_radius, strict=strict, chunk=5)
    expected = np.argwhere(apart < radii if strict else apart <= radii)
    assert {(int(a), int(b)) for a, b in expected} == set(zip(i.tolist(), j.tolist(), strict=True))
    assert i.size == len(expected)
    assert np.array_equal(separation, apart[i, j])
    keys = list(zip(i.tolist(), separation.tolist(), j.tolist(), strict=True))
    assert keys == sorted(keys)
    assert np.all(ranks(i)[np.unique(i, return_index=True)[1]] == 1)


@settings(max_examples=examples(50))
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0.0, 90.0), (77.0, -90.0), (0.0, 0.0), (359.9999, 60.0), (180.0, 89.9), (0.0, -89.99)]),
    st.sampled_from([0.0, 1e-6, 0.1, 30.0, 3600.0, 90 * 3600.0, 647999.0, 648000.0]),
    st.sampled_from([0.0, 1e-3, 1.0, 100.0]),
    st.booleans(),
)
@example(1, (0.0, 90.0), 0.0, 0.0, False)
@example(1, (0.0, 0.0), 30.0, 1.0, True)
def test_match_is_brute_force_in_crowds_and_at_the_seams(seed, centre, radius, spread, own):
    rng = np.random.default_rng(seed)
    # A crowd, of which some rows are the same position, both ends of the sky, and rows far from all others.
    scale = min(max(radius, 1e-3) * spread, 648000.0) / 3600
    sides = []
    for n in (60, 80):
        ra, dec = _turned(*centre, rng.uniform(0, scale, n), rng.uniform(0, 7, n))
        far_ra, far_dec = rng.uniform(0, 360, 10), np.degrees(np.arcsin(rng.uniform(-1, 1, 10)))
        ends = ([0.0, 359.9999999, 12.0, 200.0, (centre[0] + 180) % 360], [0.0, 0.0, 90.0, -90.0, -centre[1]])
        sides.append((np.concatenate([ra, ra[:5], far_ra, ends[0]]), np.concatenate([dec, dec[:5], far_dec, ends[1]])))
    (ra1, dec1), (ra2, dec2) = sides
    ra2[:10], dec2[:10] = ra1[:10], dec1[:10]
    # Each row's own radius, from far less to all of it.
    radii = radius * 10.0 ** rng.uniform(-4, 0, ra2.size) if own else np.full(ra2.size, radius)
    apart = separation_arcsec(ra1[:, None], dec1[:, None], ra2, dec2)
    i, j, separation = match(ra1, dec1, ra2, dec2, radii if own else radius, chunk=17)
    row, other = np.nonzero(apart <= radii)
    order = np.lexsort((other, apart[row, other], row))
    assert np.array_equal(i, row[order])
    assert np.array_equal(j, other[order])
    assert np.array_equal(separation, apart[i, j])


@settings(max_examples=examples(25))
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0.0, 90.0), (77.0, -90.0), (0.0, 0.0), (359.9999, 60.0), (0.0, -89.99)]),
    st.sampled_from([1.0, 3600.0, 5 * 3600.0, 90 * 3600.0]),
    st.booleans(),
)
def test_rows_with_limits_of_their_own_are_found_by_brute_force(seed, centre, radius, crowded):
    rng = np.random.default_rng(seed)
    n = 20_000 if crowded else 100  # so many rows have lower zones
    ra, dec = _turned(*centre, rng.uniform(0, 4 * radius / 3600, n) % 180, rng.uniform(0, 7, n))
    lon, lat = np.append(ra[:20], centre[0]), np.append(dec[:20], centre[1])
    apart = separation_arcsec(lon[:, None], lat[:, None], ra, dec)
    # Some limits are a separation to the last bit, which does not count, and some just above one, which does.
    limits = radius * 10.0 ** rng.uniform(-3, 0.5, n)
    limits[: n // 4] = apart[0, : n // 4]
    limits[n // 4 : n // 2] = np.nextafter(apart[20, n // 4 : n // 2], np.inf)
    i, j, separation = SkyIndex(ra, dec).within(lon, lat, radius, closer_arcsec=limits)
    row, other = np.nonzero((apart <= radius) & (apart < limits))
    order = np.lexsort((other, apart[row, other], row))
    assert np.array_equal(i, row[order])
    assert np.array_equal(j, other[order])
    assert np.array_equal(separation, apart[i, j])


@given(RA, DEC, st.floats(-10000, 10000), st.floats(-10000, 10000), st.floats(-100, 100))
def test_proper_motion_goes_and_comes_back(ra, dec, pm_ra, pm_dec, years):
    there = apply_proper_motion(ra, dec, pm_ra, pm_dec, 2000.0, 2000.0 + years)
    moved = np.hypot(pm_ra, pm_dec) * abs(years) / 1000
    # Along the tangent plane: the angle is the arctangent of the motion.
    expected = np.degrees(np.arctan(np.radians(moved / 3600))) * 3600
    assert abs(separation_arcsec(ra, dec, *there) - expected) < ROUNDING_ARCSEC
    assert 0 <= there[0] < 360
    assert -90 <= there[1] <= 90
    # North turns along the way, by at most this much of a turn: away from the poles the way back is the same.
    assume(abs(dec) < 80)
    back = apply_proper_motion(*there, pm_ra, pm_dec, 2000.0 + years, 2000.0)
    turn = np.radians(moved / 3600) * (1 + np.tan(np.radians(85)))
    assert separation_arcsec(ra, dec, *back) <= moved * turn + ROUNDING_ARCSEC


@given(
    st.lists(st.floats(40000, 65000), min_size=2, max_size=20, unique=True),
    RA,
    DEC,
    st.sampled_from(SCALES),
    st.sampled_from(["geocentre", "heliocentre", "barycentre"]),
)
def test_barycentric_time_is_bounded_and_keeps_order(mjd, ra, dec, scale, frame):
    mjd = np.sort(mjd)
    # Leap seconds do go back by one in UTC; 10 s is more than that and the Earth's speed over c make.
    mjd = mjd[np.append(True, np.diff(mjd) > 10 / DAY_S)]
    bmjd = to_bmjd_tdb(mjd, ra, dec, scale=scale, frame=frame)
    offset = {"utc": 71.0, "tai": 32.2, "tt": 0.002, "tdb": 0.0, "tcb": 30.0}[scale]
    travel = {"geocentre": 515.0, "heliocentre": 5.5, "barycentre": 0.0}[frame]
    assert np.abs(bmjd - mjd).max() * DAY_S <= travel + offset + 1e-6
    assert np.all(np.diff(bmjd) > 0)


@given(st.floats(40000, 65000), RA, DEC, st.sampled_from(["geocentre", "heliocentre"]))
def test_barycentric_time_round_trips(tdb, ra, dec, frame):
    # The Earth's time is the fixed point of t -> bmjd - (light travel at t), which closes in by v/c = 1e-4.
    bmjd = to_bmjd_tdb(tdb, ra, dec, scale="tdb", frame=frame)
    back = bmjd
    for _ in range(4):
        back = bmjd - (to_bmjd_tdb(back, ra, dec, scale="tdb", frame=frame) - back)
    assert abs(back - tdb) * DAY_S < 2e-6
    # And opposite directions have opposite light travel times.
    other = to_bmjd_tdb(tdb, ra + 180, -dec, scale="tdb", frame=frame)
    assert abs((bmjd - tdb) + (other - tdb)) * DAY_S < (2e-6 if frame == "geocentre" else 1e-4)
