"""Time scales and the barycentre against published numbers, real archive times and astropy."""

import socket
import threading

import erfa
import numpy as np
import pytest
from astropy.coordinates import EarthLocation, SkyCoord, solar_system_ephemeris
from astropy.time import Time
from astropy.utils import iers

from lake.science.sky import apply_proper_motion, unit_vectors
from lake.science.times import (
    _EXACT_POSITIONS,
    _EXACT_TDB_TT,
    _POSITIONS,
    _TDB_TT,
    AU_LIGHT_S,
    BKJD_OFFSET,
    BTJD_OFFSET,
    DAY_S,
    MJD_OFFSET,
    REFERENCE_POSITIONS,
    SCALES,
    TT_MINUS_TAI_S,
    EarthTimes,
    Grid,
    _ephemeris,
    _positions,
    _tdb_tt,
    _to_tdb_s,
    met_to_mjd,
    to_bmjd_tdb,
)
from tasks.sources.gaia.epochs import EPOCH_MJD

# A float64 MJD near 60000 resolves 7.3e-12 d = 0.63 us, so two roundings differ by that at most.
ULP_S = 0.65e-6


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("lake.science.times reached for the network or an Earth-rotation table")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def _seconds(later, earlier):
    return (np.asarray(later) - np.asarray(earlier)) * DAY_S


# --- constants


def test_mission_offsets_are_the_published_epochs():
    def mjd(year, month, day, hour=0):
        return erfa.cal2jd(year, month, day)[1] + hour / 24

    # Gaia: 2010-01-01T00:00:00; TESS: JD 2457000.0, 2014-12-08T12; Kepler: JD 2454833.0, 2009-01-01T12.
    assert mjd(2010, 1, 1) == EPOCH_MJD == 55197.0
    assert mjd(2014, 12, 8, 12) == BTJD_OFFSET == 56999.5
    assert mjd(2009, 1, 1, 12) == BKJD_OFFSET == 54832.5
    assert MJD_OFFSET == 2400000.5
    assert TT_MINUS_TAI_S == 32.184
    # Astronomical Almanac: light time for 1 au, 499.00478384 s.
    assert pytest.approx(499.00478384, abs=5e-9) == AU_LIGHT_S


# --- scales


@pytest.mark.parametrize(
    ("mjd", "tt_utc"),
    # Leap seconds: IERS Bulletin C, and the ABC of XTE, Time Tutorial (60.184 s on 1994-01-01). None of these
    # is in a day that ends with one, which ERFA (and astropy) stretch to 86401 s.
    [
        (49353.0, 60.184),
        (50081.9, 61.184),
        (54832.5, 66.184),
        (56107.99, 66.184),
        (56109.01, 67.184),
        (57752.9, 68.184),
        (57754.0, 69.184),
        (62502.0, 69.184),  # 2030: no later leap second is known, and nothing warns
    ],
)
def test_utc_has_the_published_leap_seconds(mjd, tt_utc):
    utc, tt = (to_bmjd_tdb(mjd, 0, 0, scale=scale, frame="barycentre") for scale in ("utc", "tt"))
    assert _seconds(utc, tt) == pytest.approx(tt_utc, abs=ULP_S * 2)
    tai = to_bmjd_tdb(mjd, 0, 0, scale="tai", frame="barycentre")
    assert _seconds(tai, tt) == pytest.approx(32.184, abs=ULP_S * 2)


def test_tdb_agrees_with_the_sofa_test_values():
    # t_sofa_c: dtdb(2448939.5, 0.123, 0.76543, 5.0123, 5525.242, 3190.0) = -0.1280368005936998991e-2 s,
    # whose topocentric part is at most 2.1 us; tcbtdb(2453750.5, 0.893019599) = 0.8928551362746343397;
    # utctai(2453750.5, 0.892100694) = 0.8924826384444444444.
    assert _to_tdb_s(np.array([48939.123]), "tt")[0] == pytest.approx(-0.1280368005936999e-2, abs=2.2e-6)
    tdb = to_bmjd_tdb(53750.893019599, 0, 0, scale="tcb", frame="barycentre")
    assert _seconds(tdb, 53750.8928551362746343397) == pytest.approx(0, abs=ULP_S)
    utc, tai = (_to_tdb_s(np.array([53750.892]), scale)[0] for scale in ("utc", "tai"))
    assert utc - tai == pytest.approx((0.8924826384444444444 - 0.892100694) * DAY_S, abs=1e-7)


def test_tdb_and_tcb_drift_as_published():
    mjd = np.arange(50000.0, 60000.0, 1.0)
    # Fairhead & Bretagnon 1990, A&A 229, 240: TDB - TT stays below 2 ms; the main term is 1.657 ms.
    tdb_tt = _to_tdb_s(mjd, "tt")
    assert 1.6e-3 < np.abs(tdb_tt).max() < 1.75e-3
    # IAU 2006 B3: TCB - TDB = 1.550519768e-8 (JD - 2443144.5003725) 86400 + 6.55e-5 s.
    expected = 1.550519768e-8 * (EPOCH_MJD - 43144.0003725) * DAY_S + 6.55e-5
    assert -_to_tdb_s(np.array([EPOCH_MJD]), "tcb")[0] == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(16.147, abs=1e-3)


# --- light travel time


def test_light_travel_time_is_earths_sofa_position():
    # t_sofa_c: epv00(2400000.5, 53411.52501161): the Earth from the barycentre and from the Sun, au.
    bary = np.array([-0.7714104440491111971, 0.5598412061824171323, 0.2425996277722452400])
    helio = np.array([-0.7757238809297706813, 0.5598052241363340596, 0.2426998466481686993])
    ra, dec = np.array([0.0, 90.0, 0.0]), np.array([0.0, 0.0, 90.0])
    tdb = 53411.52501161
    earth = _seconds(to_bmjd_tdb(tdb, ra, dec, scale="tdb", frame="geocentre"), tdb)
    np.testing.assert_allclose(earth, bary * AU_LIGHT_S, atol=ULP_S)
    heliocentric = tdb + helio * AU_LIGHT_S / DAY_S
    from_helio = _seconds(to_bmjd_tdb(heliocentric, ra, dec, scale="tdb", frame="heliocentre"), tdb)
    np.testing.assert_allclose(from_helio, bary * AU_LIGHT_S, atol=1.5 * ULP_S)


def test_light_travel_time_has_the_known_extremes():
    mjd = np.arange(44000.0, 63000.0, 5.0)[:, None]
    ecliptic, tilt = np.radians(np.arange(0, 360, 5)), np.radians(23.4392911)
    ra = np.degrees(np.arctan2(np.sin(ecliptic) * np.cos(tilt), np.cos(ecliptic)))
    dec = np.degrees(np.arcsin(np.sin(ecliptic) * np.sin(tilt)))
    # Eastman et al. 2010, PASP 122, 935: the Roemer delay is up to 8.3 min (499 s at 1 au, and the orbit's
    # eccentricity and the Sun's own motion make 510 s of it); HJD and BJD differ by up to 4 s, in their years.
    earth = _seconds(to_bmjd_tdb(mjd, ra, dec, scale="tdb", frame="geocentre"), mjd)
    assert 499 < np.abs(earth).max() < 499 * 1.0167 + 5
    assert np.median(np.abs(earth).max(axis=1)) == pytest.approx(498, abs=4)
    sun = _seconds(to_bmjd_tdb(mjd, ra, dec, scale="tdb", frame="heliocentre"), mjd)
    assert 4 < np.abs(sun).max() < 5


def test_ztf_mjd_and_hjd_of_one_exposure_are_one_instant():
    # Source: IRSA's ZTF light-curve API, oid 686103400034440 and 686103400106565, in ivoa/dm-usecases at
    # 479575b101. IRSA corrects to the Sun from Palomar, so the geocentre is right to the Earth's radius.
    mjd = np.array([58204.5139005, 58284.3928935, 58313.3592245, 58469.1194907])
    hjd = np.array([2458205.0119003966, 2458284.895586573, 2458313.862858302, 2458469.616843675])
    ra = np.array([298.0025212, 298.0025303, 298.0025287, 298.0037338])
    dec = np.array([29.8714918, 29.8714657, 29.8714616, 29.8706331])
    from_earth = to_bmjd_tdb(mjd, ra, dec, scale="utc", frame="topocentre")
    from_sun = to_bmjd_tdb(hjd - MJD_OFFSET, ra, dec, scale="utc", frame="heliocentre")
    assert np.abs(_seconds(from_sun, from_earth)).max() < 0.0213
    # Nothing here is small enough to be missed by that.
    assert np.abs(_seconds(from_earth, mjd)).min() > 60
    assert np.abs(_seconds(from_sun, hjd - MJD_OFFSET) - 69.184).max() > 1


def test_tau_ceti_agrees_with_barycorrpy():
    # Source: barycorrpy (Kanodia & Wright 2018, RNAAS 2, 4), tests/test_barycorrpy.py: tau Ceti from CTIO,
    # JD(UTC) 2458000, with DE430 and Hipparcos: BJD(TDB) 2458000.00505211. The geocentre is 21.3 ms at most.
    ra, dec = apply_proper_motion(26.0213645867, -15.9395557246, -1721.05, 854.16, 1991.25, 2017.6756)
    ours = to_bmjd_tdb([57999.5, 57999.50001], ra, dec, scale="utc", frame="topocentre")
    assert np.abs(_seconds(ours, [57999.50505211, 57999.50506211])).max() < 0.0213 + 1e-3


def test_ss_cygni_agrees_with_rxtes_barycentre_correction():
    # Source: RXTE standard products xp2003301_e3_n2a.lc and xp5001101_e5_n2a.lc, columns TIME (TT) and
    # BARYTIME (TDB, fxbary 5.0.2 with JPL's DE200): the satellite is 23 ms from the geocentre at most, and
    # the position it was pointed at, and DE200, make the rest.
    time_s = np.array([99858323.37843166, 105322659.37843166, 110492387.37843132, 200794307.37843037])
    bary_s = np.array([99858025.09573305, 105322474.13458014, 110492493.06012785, 200794162.58721092])
    met = met_to_mjd(time_s, 49353, 0.000696574074)
    ours = to_bmjd_tdb(met, 325.678347, 43.586073, scale="tt", frame="topocentre")
    assert np.abs(_seconds(ours, met_to_mjd(bary_s, 49353, 0.000696574074))).max() < 0.05


@pytest.mark.parametrize("scale", SCALES)
def test_every_frame_agrees_with_astropy(scale):
    rng = np.random.default_rng(1)
    mjd = rng.uniform(48000, 60000, 40)
    ra, dec = rng.uniform(0, 360, 40), np.degrees(np.arcsin(rng.uniform(-1, 1, 40)))
    star = SkyCoord(ra, dec, unit="deg")
    centre = EarthLocation.from_geocentric(0, 0, 0, unit="m")
    with iers.conf.set_temp("auto_download", False), solar_system_ephemeris.set("builtin"):
        # astropy takes light travel in TDB; it is added to the time in its own scale only to make an HMJD.
        at_earth = Time(mjd, format="mjd", scale=scale, location=centre)
        expected = at_earth.tdb + at_earth.light_travel_time(star, "barycentric")
        helio = at_earth.light_travel_time(star, "heliocentric")
    days = Time(expected, format="mjd").mjd
    for frame in ("geocentre", "topocentre"):
        ours = to_bmjd_tdb(mjd, ra, dec, scale=scale, frame=frame)
        assert np.abs(_seconds(ours, days)).max() <= 1e-6
    ours = to_bmjd_tdb(mjd + helio.to_value("day"), ra, dec, scale=scale, frame="heliocentre")
    assert np.abs(_seconds(ours, days)).max() <= 1.3e-6  # one rounding more, of the heliocentric time
    ours = to_bmjd_tdb(mjd, ra, dec, scale=scale, frame="barycentre")
    assert np.abs(_seconds(ours, Time(mjd, format="mjd", scale=scale).tdb.mjd)).max() <= 1e-6


def test_a_heliocentric_utc_has_the_leap_second_of_the_earth():
    # 100 s before the leap second that ended 2016; the Sun's clock, hundreds of seconds ahead, reads 2017.
    at_earth = np.array([57754 - 100 / 86401])
    ra, dec = 100.0, 23.0
    earth, sun, _ = _ephemeris(at_earth + _to_tdb_s(at_earth, "utc") / DAY_S)
    at_sun = at_earth + (earth - sun) @ unit_vectors(ra, dec) / DAY_S
    assert at_sun > 57754
    from_sun = to_bmjd_tdb(at_sun, ra, dec, scale="utc", frame="heliocentre")
    from_earth = to_bmjd_tdb(at_earth, ra, dec, scale="utc", frame="geocentre")
    assert np.abs(_seconds(from_sun, from_earth)).max() < 2 * ULP_S


# --- interpolation, speed, shapes, refusals


@pytest.mark.oracle
def test_interpolation_is_far_below_a_microsecond():
    rng = np.random.default_rng(2)
    tdb = rng.uniform(15020, 88069, 3000)
    from_sun, from_bary = erfa.epv00(MJD_OFFSET, tdb)
    earth, sun, speed = _ephemeris(tdb)
    assert np.abs(earth - from_bary["p"] * AU_LIGHT_S).max() < 5e-8
    assert np.abs(sun - (from_bary["p"] - from_sun["p"]) * AU_LIGHT_S).max() < 5e-8
    np.testing.assert_allclose(speed, (from_bary["v"] - from_sun["v"]) * AU_LIGHT_S / DAY_S, atol=1e-9)
    assert np.abs(_to_tdb_s(tdb, "tt") - erfa.dtdb(MJD_OFFSET, tdb, 0, 0, 0, 0)).max() < 5e-8
    # Beside each other, with a node in common, far off, and at both ends.
    times = np.array([20000.0, 20000.5, 20000.4999, 20031.9, 20032.0, 60640.25, 15020.0, 88069.0])
    left, part, (nodes,) = Grid(lambda mjd: (mjd,)).around(times)
    np.testing.assert_allclose(nodes[left] + part * (nodes[left + 1] - nodes[left]), times, atol=1e-12)
    assert (nodes[left + 1] - nodes[left] == 0.5).all()
    assert part[2] == pytest.approx(0.9998)


def test_a_result_does_not_depend_on_its_company():
    rng = np.random.default_rng(3)
    mjd, ra = rng.uniform(50000, 60000, 500), rng.uniform(0, 360, 500)
    for frame in REFERENCE_POSITIONS:
        together = to_bmjd_tdb(mjd, ra, 10.0, scale="utc", frame=frame)
        alone = [float(to_bmjd_tdb(m, a, 10.0, scale="utc", frame=frame)) for m, a in zip(mjd, ra, strict=True)]
        assert together.tolist() == alone


def test_the_earth_is_computed_once_a_node_and_only_where_there_are_times():
    rng = np.random.default_rng(4)
    mjd, ra, dec = rng.uniform(56000, 60000, 200_000), rng.uniform(0, 360, 200_000), rng.uniform(-90, 90, 200_000)
    nodes, exact = (_POSITIONS, _TDB_TT), (_EXACT_POSITIONS, _EXACT_TDB_TT)
    for grid in (*nodes, *exact):
        grid.clear()
    to_bmjd_tdb(mjd, ra, dec, scale="utc", frame="heliocentre")
    for grid in nodes:
        assert 7_900 < np.count_nonzero(grid.known) < 8_010  # each of half a day
    for grid in exact:
        assert 1_990 < np.count_nonzero(grid.known) < 2_010  # each of two days
    for grid in (*nodes, *exact):
        grid.clear()
    to_bmjd_tdb([50100.1, 51000.3, 55900.8], 10.0, 20.0, scale="tt", frame="geocentre")
    for grid in nodes:
        assert np.count_nonzero(grid.known) == 6
    for grid in exact:
        assert np.count_nonzero(grid.known) == 12  # neighbours on the grid need the same four


def test_nodes_of_the_grid_are_as_exact_as_it_needs():
    mjd = np.arange(30000.0, 70000.0, 13.5)
    from_sun, from_bary = erfa.epv00(MJD_OFFSET, mjd)
    earth, speed, sun, sun_speed = _positions(mjd)
    assert np.abs(earth - from_bary["p"]).max() * AU_LIGHT_S < 1.5e-8
    assert np.abs(sun - (from_bary["p"] - from_sun["p"])).max() * AU_LIGHT_S < 1e-10
    assert np.abs(speed - from_bary["v"] / 2).max() * AU_LIGHT_S < 1.5e-8  # in half a day
    assert np.abs(sun_speed - (from_bary["v"] - from_sun["v"]) / 2).max() * AU_LIGHT_S < 1e-10
    (tdb_tt,) = _tdb_tt(mjd)
    assert np.abs(tdb_tt - erfa.dtdb(MJD_OFFSET, mjd, 0, 0, 0, 0)).max() < 5e-9


def test_a_node_is_computed_once():
    asked = []
    grid = Grid(lambda mjd: (asked.extend(mjd.tolist()) or mjd,))
    asked.clear()
    for times in ([50000.1, 50000.2, 50000.6], [50000.7, 50001.1], [50000.1]):
        grid.around(np.array(times))
    assert asked == [50000.0, 50000.5, 50001.0, 50001.5]


def test_threads_share_the_nodes_that_they_need():
    times = np.arange(50_000.0, 51_000.0)
    asked: list[float] = []
    begun = threading.Lock()

    def compute(mjd: np.ndarray) -> tuple[np.ndarray]:
        asked.extend(mjd.tolist())
        if len(mjd) > 1 and begun.acquire(blocking=False):
            # While the first thread is at its first part, another does them all.
            other = threading.Thread(target=grid.around, args=(times,))
            other.start()
            other.join()
        return (mjd,)

    grid = Grid(compute)
    left, _, (nodes,) = grid.around(times)
    assert np.array_equal(nodes[left], times)
    assert len(asked) - len(set(asked)) < 150
    assert len(asked) > 2000


def test_missing_stays_missing_and_shapes_broadcast():
    nan = np.nan
    for frame in ("geocentre", "heliocentre"):
        result = to_bmjd_tdb([nan, 58000.0, 58000.0], [10.0, nan, 10.0], 20.0, scale="utc", frame=frame)
        assert np.isnan(result).tolist() == [True, True, False]
    result = to_bmjd_tdb([nan, 58000.0], nan, nan, scale="tdb", frame="barycentre")
    assert np.isnan(result).tolist() == [True, False]
    assert result[1] == 58000.0
    for frame in REFERENCE_POSITIONS:
        assert to_bmjd_tdb([], [], [], scale="utc", frame=frame).shape == (0,)
        assert to_bmjd_tdb(np.full((2, 1), 58000.0), [1.0, 2.0, 3.0], 4.0, scale="tt", frame=frame).shape == (2, 3)
        assert to_bmjd_tdb(58000.0, 1.0, 2.0, scale="tt", frame=frame).dtype == np.float64


@pytest.mark.parametrize(
    ("mjd", "scale", "frame", "said"),
    [
        ([58000.0, 2458000.5], "utc", "geocentre", "2458000.5 at index 1 is not an MJD"),
        ([1683.5], "tdb", "barycentre", "1683.5 at index 0"),
        ([30000.0], "utc", "geocentre", "30000.0 at index 0 is not an MJD.utc. of 36934"),
        ([np.inf], "tt", "geocentre", "inf at index 0"),
        ([58000.0], "ut1", "geocentre", "unknown time scale 'ut1'"),
        ([58000.0], "UTC", "geocentre", "unknown time scale 'UTC'"),
        ([58000.0], "utc", "geocenter", "unknown time frame 'geocenter'"),
    ],
)
def test_what_is_no_time_is_refused(mjd, scale, frame, said):
    with pytest.raises(ValueError, match=said):
        to_bmjd_tdb(mjd, 0.0, 0.0, scale=scale, frame=frame)
    assert to_bmjd_tdb(30000.0, 0.0, 0.0, scale="tt", frame="geocentre") > 29999


# --- times that many sources share


@pytest.mark.parametrize("scale", SCALES)
def test_shared_times_give_what_single_ones_do(scale):
    rng = np.random.default_rng(11)
    mjd = np.concatenate([rng.uniform(37000, 88000, 300), [57204.0, 57753.99999, 57754.0, 58000.25, 58000.25]])
    ra = np.append(rng.uniform(0, 360, 50), [0.0, 360.0, 17.0])
    dec = np.append(np.degrees(np.arcsin(rng.uniform(-1, 1, 50))), [90.0, -90.0, 0.0])
    row, source = rng.integers(0, len(mjd), 5000), rng.integers(0, len(ra), 5000)
    row[: len(mjd)] = np.arange(len(mjd))
    clock = EarthTimes(mjd, scale)
    found = clock.to_bmjd_tdb(row, ra, dec, source)
    for frame in ("geocentre", "topocentre"):
        wanted = to_bmjd_tdb(mjd[row], ra[source], dec[source], scale=scale, frame=frame)
        assert np.abs(found - wanted).max() <= 1.5e-11  # two roundings; 1e-9 d would do
        assert (found == wanted).mean() > 0.99
    assert found.dtype == np.float64
    again = clock.to_bmjd_tdb(row.astype(np.int32), ra, dec, source.astype(np.int16))
    assert again.tobytes() == found.tobytes(), "nothing that is kept was changed"


def test_shared_times_in_any_order_or_none():
    clock = EarthTimes([58000.0, 55000.0], "utc")
    two = clock.to_bmjd_tdb(np.array([1, 0, 1]), [10.0, 20.0], [5.0, -5.0], np.array([0, 1, 1]))
    for value, mjd, ra, dec in zip(two, (55000, 58000, 55000), (10, 20, 20), (5, -5, -5), strict=True):
        assert value == pytest.approx(to_bmjd_tdb(mjd, ra, dec, scale="utc", frame="geocentre"), abs=1.5e-11)
    none = np.empty(0, np.int64)
    assert clock.to_bmjd_tdb(none, [10.0], [5.0], none).shape == (0,)
    assert EarthTimes([], "utc").to_bmjd_tdb(none, [], [], none).shape == (0,)
    assert np.isnan(clock.to_bmjd_tdb(np.array([0]), [np.nan], [5.0], np.array([0]))).all()


def test_a_time_that_is_not_known_harms_no_other():
    zero = np.zeros(3, np.int64)
    known, unknown, other = EarthTimes([58000.0, np.nan, 55000.0], "tt").to_bmjd_tdb(np.arange(3), [10.0], [5.0], zero)
    assert np.isnan(unknown)
    alone = EarthTimes([58000.0, 55000.0], "tt").to_bmjd_tdb(np.arange(2), [10.0], [5.0], zero[:2])
    assert alone.tolist() == [known, other]


@pytest.mark.parametrize(
    ("mjd", "scale", "said"),
    [
        ([58000.0, 2458000.5], "utc", "2458000.5 at index 1 is not an MJD"),
        ([30000.0], "utc", "30000.0 at index 0 is not an MJD.utc. of 36934"),
        ([0.0], "tt", "0.0 at index 0"),
        ([np.inf], "tdb", "inf at index 0"),
        ([58000.0], "UTC", "unknown time scale 'UTC'"),
    ],
)
def test_shared_times_that_are_none_are_refused(mjd, scale, said):
    with pytest.raises(ValueError, match=said):
        EarthTimes(mjd, scale)


# --- mission elapsed time


def test_rxte_time_is_the_published_one():
    # Source: HEASARC, the ABC of XTE, Time Tutorial: MET 0 is MJD 49353.0 (UTC) = 49353.000696574074 (TT).
    zero = met_to_mjd(0.0, 49353, 0.000696574074)
    assert zero == 49353.000696574074
    tt = to_bmjd_tdb(zero, 0, 0, scale="tt", frame="barycentre")
    assert _seconds(tt, to_bmjd_tdb(49353.0, 0, 0, scale="utc", frame="barycentre")) == pytest.approx(0, abs=ULP_S)
    # Source: astro-gdt-rxte documentation: MET 114264420 with TIMEZERO 3.37843167 s is 1997-08-15 12:08:03.562.
    day = erfa.cal2jd(1997, 8, 15)[1]
    published = day + (12 * 3600 + 8 * 60 + 3.562) / DAY_S
    assert _seconds(met_to_mjd(114264420, 49353, 0.000696574074, 3.37843167), published) == pytest.approx(0, abs=6e-4)


def test_mission_time_rounds_once():
    # 0.25 us apart, at the end of the mission: the difference survives until the MJD itself rounds.
    met = np.array([568339205.9999999, 568339206.0, np.nan])
    mjd = met_to_mjd(met, 49353, 0.000696574074)
    exact = 49353 + 6578 + (6.0 + 60.1839999936) / DAY_S
    assert mjd[1] == exact
    assert mjd[0] <= mjd[1]
    assert np.isnan(mjd[2])
    assert met_to_mjd(568339206.0 - 3.5, 49353, 0.000696574074, 3.5) == exact
