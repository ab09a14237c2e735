"""RXTE's standard products: times, bands, gaps, broken files, and what an observation gives to the lake."""

from __future__ import annotations

import gzip
import io
import json
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.time import Time

from lake.commit.commit import commit
from lake.commit.ledger import Attempt
from lake.commit.staging import stage
from lake.commit.validate import validate
from lake.errors import GranuleRejected
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from lake.store.catalog import Catalog
from lake.store.storage import decoded
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.fits import read_light_curve
from tasks.sources.rxte.mission import ORIGIN, PRODUCTS, Observation
from tasks.sources.rxte.products import barytime_difference, read_observation
from tasks.sources.rxte.rows import Reading, readings, tables_of

# Keyword DATE-OBS, or the same in the notation of before 2000.
STARTED = {
    "xp2003301_e3_n2a.lc": "1997-03-01T18:26:24",
    "xp5001101_e5_n2a.lc": "2000-05-13T00:12:32",
    "std2_ao9_01_00.lc": "2005-05-20T21:10:40",
}
NET = PRODUCTS["pca_a"]
START = 1.9e8  # 2000-01-09, gain epoch 4
OBSID = "40001-01-01-00"
FACTS = Observation(OBSID, "ETA_CAR", 161.265, -59.6845, 51552.0, 500.0, 4, "40001")
REAL = {"xp2003301_e3_n2a.lc": ("20033-01_e3", 3, 4965), "xp5001101_e5_n2a.lc": ("50011-01_e5", 5, 2400)}


def light_curve(
    *,
    rate: Any = (5.0, np.nan, -0.5, 0.0),
    columns: dict[str, Any] | None = None,
    units: dict[str, str] | None = None,
    primary: dict[str, Any] | None = None,
    extname: str = "RATE",
    first: list[fits.BinTableHDU] | None = None,
    **header: Any,
) -> bytes:
    """Write a product as HEASARC does; a keyword of None is left out."""
    rate = np.asarray(rate, np.float32)
    given: dict[str, Any] = {
        "TIME": START + 16.0 * np.arange(len(rate)),
        "RATE": rate,
        "ERROR": np.full(len(rate), 0.1, np.float32),
        "FRACEXP": np.resize(np.float32([1, 1, 0.5, 1]), len(rate)),
    }
    given |= columns or {}
    units = {"TIME": "s", "RATE": "count/s", "ERROR": "count/s"} | (units or {})
    formats = {"f8": "D", "f4": "E", "i4": "J", "i2": "I", "i8": "K"}
    made = [
        fits.Column(name, formats[np.asarray(v).dtype.str[1:]], units.get(name), array=np.asarray(v))
        for name, v in given.items()
        if v is not None
    ]
    table = fits.BinTableHDU.from_columns(made, name=extname)
    keywords = {
        "TELESCOP": "XTE",
        "INSTRUME": "PCA",
        "TIMESYS": "TT",
        "MJDREFI": 49353,
        "MJDREFF": rxte.MJDREFF,
        "TIMEDEL": 16.0,
        "TIMEPIXR": 0.0,
        "TIMEZERI": 0,
        "TIMEZERF": 0.0,
        "TSTARTI": int(START),
        "TSTARTF": 0.25,
        "TSTOPI": int(START) + 64,
        "TSTOPF": 0.0,
        "HDUCLAS2": "NET",
        "OBJECT": "ETA_CAR",
        "RA_PNT": 161.26,
        "DEC_PNT": -59.68,
        "ONTIME": 48.0,
        "ROWID1": "X1LSpecPcu0",
        "ROWID2": "X1LSpecPcu2",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in (keywords | header).items():
            if value is not None:
                table.header[name] = value
        table.header["COMMENT"] = "CHMIN for filtering was                    5"
        table.header["COMMENT"] = "CHMAX for filtering was                   10"
        head = fits.PrimaryHDU()
        for name, value in (primary or {}).items():
            head.header[name] = value
        out = io.BytesIO()
        fits.HDUList([head, *(first or []), table]).writeto(out)
    return out.getvalue()


def stem(kind: str = "n2a", obsid: str = OBSID) -> str:
    return f"x{'p' if kind[1] == '2' else 'h'}{obsid.replace('-', '')}_{kind}.lc.gz"


def cast(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """What staging makes of them, as far as the lake's rules go."""
    done = {name: TABLES[name].cast(table) for name, table in tables.items()}
    validate(rxte.NAME, rxte.RELEASE, done, ORIGIN.band_units)
    return done


def read(files: dict[str, Any], facts: Observation = FACTS) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    (whole,) = readings([read_observation(files, facts, "rxte-1")])
    assert isinstance(whole, Reading)
    tables = cast(whole.tables)
    return tables, json.loads(tables["exposures"]["details"][0].as_py())


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_in_the_lake_with_the_right_times(data_dir: Path, name: str) -> None:
    """The issue's test: BARYTIME within 0.1 s. What is left is the satellite's place in its orbit, 23 ms."""
    obsid, epoch, n = REAL[name]
    path = data_dir / "rxte" / name
    curve = read_light_curve(path, NET)
    difference = barytime_difference(curve)
    assert np.abs(difference).max() < 0.0235
    assert abs(difference.mean()) < 0.012

    tables, details = read({name: path}, Observation(obsid))
    rows = tables["lightcurves"]
    assert rows.num_rows == n
    assert set(rows["band"].to_pylist()) == {"pca_a"}
    assert set(rows["unit"].to_pylist()) == {"count.s**-1"}
    assert (details["epoch"], details["epochs"]) == (epoch, [epoch])
    # Half a bin of BARYTIME's and ours, which are of the start and the middle.
    barytime = fits.getdata(path, "RATE")["BARYTIME"].astype(float)
    theirs = Time(49353, rxte.MJDREFF + (barytime + 8) / 86400, format="mjd", scale="tdb").mjd
    assert np.abs(rows["bmjd_tdb"].to_numpy() - theirs).max() * 86400 < 0.0235
    # The corrections themselves are minutes: a time that is not corrected is off by that.
    assert np.abs(rows["mjd"].to_numpy() - theirs).max() * 86400 > 100


@pytest.mark.parametrize("name", [*REAL, "std2_ao9_01_00.lc"])
def test_the_reader_agrees_with_astropy_on_real_files(data_dir: Path, name: str) -> None:
    path = data_dir / "rxte" / name
    curve = read_light_curve(path, PRODUCTS["pca_a_src"] if "std2" in name else NET)
    with fits.open(path) as opened:
        data, header = opened["RATE"].data, opened["RATE"].header
        for ours, theirs in (("seconds", "TIME"), ("rate", "RATE"), ("error", "ERROR"), ("fracexp", "FRACEXP")):
            values = getattr(curve, ours)
            np.testing.assert_array_equal(values, data[theirs])
            assert values.dtype == np.dtype("=f8")  # B.6 item 4: native byte order
            values[:1] = -1  # B.6 item 6: a copy, and nothing of the file is held on to
        assert curve.bin_s == header["TIMEDEL"]
    # DATE-OBS is TT (TIMESYS), rounded up to the second, of the first bin of all, of which some were not used.
    later = (Time(curve.mjd_start, format="mjd", scale="tt") - Time(STARTED[name], scale="tt")).sec
    assert -0.5 < later < 10 * 16
    assert (later + 0.44) % 16 == pytest.approx(0, abs=0.01)


def test_energies_pcus_and_scaling_of_real_files(data_dir: Path) -> None:
    e3, e5, std2 = (
        read_light_curve(data_dir / "rxte" / name, PRODUCTS["pca_a_src" if "std2" in name else "pca_a"])
        for name in (*REAL, "std2_ao9_01_00.lc")
    )
    assert (e3.channels, e3.energies(3)["emin_kev"], e3.energies(3)["emax_kev"]) == ((5, 24), 1.94, 9.03)
    assert (e5.channels, e5.energies(5)["emin_kev"], e5.energies(5)["emax_kev"]) == ((5, 21), 2.06, 8.98)
    assert (std2.channels, std2.energies(5)["emax_kev"]) == ((0, 255), 117.86)  # CHMAX 2047 there
    assert (e3.pcus, e5.pcus, std2.pcus) == ((0, 1, 2), (1, 2, 4), (0, 2))
    assert (e3.ra, e3.dec, e3.details["object"]) == (325.676208, 43.5856018, "SS_CYG")
    assert barytime_difference(std2) is None


def test_net_and_total_are_never_mixed(data_dir: Path) -> None:
    with pytest.raises(GranuleRejected, match=r"std2_ao9_01_00\.lc: it is called pca_a, but its HDUCLAS2 is TOTAL"):
        read_light_curve(data_dir / "rxte" / "std2_ao9_01_00.lc", NET)
    with pytest.raises(GranuleRejected, match="called pca_a_src, but its HDUCLAS2 is NET"):
        read_light_curve(light_curve(), PRODUCTS["pca_a_src"])
    files = {
        stem("n2a"): light_curve(rate=[1.0]),
        stem("s2a"): light_curve(rate=[3.0], HDUCLAS2="TOTAL"),
        stem("b2a"): light_curve(rate=[2.0], HDUCLAS2=None),
        stem("n0b"): light_curve(rate=[4.0], TIMEDEL=128.0),
    }
    rows = read(files)[0]["lightcurves"]
    assert dict(zip(rows["band"].to_pylist(), rows["flux"].to_pylist(), strict=True)) == {
        "hexte0_b": 4.0,
        "pca_a": 1.0,
        "pca_a_bkg": 2.0,
        "pca_a_src": 3.0,
    }


def test_a_nan_bin_is_a_row_without_a_rate() -> None:
    """B.6 items 13 and 16: NaN rates are kept and flagged, and the exposed part of a bin is known."""
    rows = read({stem(): light_curve()})[0]["lightcurves"]
    assert rows["flux"].to_pylist() == [5.0, None, -0.5, 0.0]
    assert rows["flux_err"].to_pylist()[1] is None
    assert rows["detected"].to_pylist() == rows["good"].to_pylist() == [True, False, True, True]
    assert rows["quality"].to_pylist() == [0, rxte.NO_RATE, rxte.PARTIAL, 0]
    assert rows["exposure_s"].to_pylist() == [16, 16, 8, 16]
    assert rows["counts"].null_count == 4
    assert set(rows["exposure_id"].to_pylist()) == set(rows["source_id"].to_pylist()) == {OBSID}  # B.6 item 8


def test_what_a_file_lacks_is_null_and_never_zero() -> None:
    """B.6 items 4 and 16."""
    body = light_curve(columns={"ERROR": None, "FRACEXP": None}, ONTIME=None)
    tables, details = read({stem(): body}, Observation(OBSID))
    rows = tables["lightcurves"]
    assert rows["flux_err"].null_count == rows["exposure_s"].null_count == 4
    assert rows["good"].to_pylist() == [True, False, True, True]
    assert rows["quality"].to_pylist() == [0, rxte.NO_RATE, 0, 0]
    assert tables["exposures"]["exposure_s"].to_pylist() == [None]
    assert details["exposure_from"] is None


def test_a_bin_without_exposure_is_not_good() -> None:
    rows = read({stem(): light_curve(rate=[0.0], columns={"FRACEXP": np.zeros(1, np.float32)})})[0]["lightcurves"]
    assert (rows["good"].to_pylist(), rows["exposure_s"].to_pylist()) == ([False], [0.0])


def test_counts_are_made_rates_by_their_exposure() -> None:
    body = light_curve(
        columns={"RATE": None, "COUNTS": np.array([160, 0, 80, 16], np.int32), "ERROR": np.full(4, 8, np.float32)},
        units={"COUNTS": "count", "ERROR": "count"},
    )
    rows = read({stem(): body})[0]["lightcurves"]
    assert rows["flux"].to_pylist() == [10, 0, 10, 1]
    assert rows["counts"].to_pylist() == [160, 0, 80, 16]
    assert rows["flux_err"].to_pylist() == [0.5, 0.5, 1, 0.5]


@pytest.mark.parametrize("unit", ["count/s", "counts/s", "ct/s", "COUNT/S ", None])
def test_a_rate_has_one_unit_however_it_is_spelt(unit: str | None) -> None:
    rows = read({stem(): light_curve(units={"RATE": unit or ""})})[0]["lightcurves"]
    assert set(rows["unit"].to_pylist()) == {"count.s**-1"}


@pytest.mark.parametrize(
    ("header", "later_s"),
    [
        ({}, 8.0),
        ({"TIMEPIXR": 0.5}, 0.0),
        ({"TIMEPIXR": 1.0}, -8.0),
        ({"TIMEPIXR": None}, 8.0),
        ({"TIMEZERI": None, "TIMEZERF": None}, 8.0),
        ({"TIMEZERI": 3, "TIMEZERF": 0.378}, 11.378),
        ({"TIMEZERI": None, "TIMEZERF": None, "TIMEZERO": 3.378}, 11.378),
        ({"TIMEDEL": 1.0}, 0.5),
        ({"MJDREFI": None, "MJDREFF": None, "MJDREF": 49353.000696574074}, 8.0),
    ],
)
def test_times_are_of_the_middle_of_the_bin_in_tt(header: dict[str, Any], later_s: float) -> None:
    """B.6 item 12: MJDREF, TIMEZERO and the scale are seen to; the reference is 1994.0 UTC, 60.184 s later in TT."""
    rows = read({stem(): light_curve(**header)})[0]["lightcurves"]
    since = Time("1994-01-01", scale="utc").tt
    expected = Time(since.jd1, since.jd2 + (START + later_s) / 86400, format="jd", scale="tt").mjd
    assert rows["mjd"][0].as_py() == pytest.approx(expected, abs=2e-6 / 86400)


def test_an_assumed_timepixr_is_flagged_and_told() -> None:
    tables = read_observation({stem(): light_curve(TIMEPIXR=None), stem("n2b"): light_curve()}, FACTS, "g")
    assert tables.remark == "TIMEPIXR is absent, 0 assumed (pca_a)"
    rows = cast(tables_of([tables]))["lightcurves"]
    flagged = {row["band"] for row in rows.to_pylist() if row["quality"] & rxte.TIMEPIXR_ASSUMED}
    assert flagged == {"pca_a"}
    assert read_observation({stem(): light_curve()}, FACTS, "g").remark is None


def test_tstart_comes_whole_or_in_two_and_the_tables_own_wins() -> None:
    days = rxte.MJDREFI + rxte.MJDREFF
    both = light_curve(primary={"TSTART": 1.0, "TSTOP": 2.0, "MJDREFI": 1})
    whole = light_curve(TSTARTI=None, TSTARTF=None, TSTART=START + 0.25, TSTOPI=None, TSTOPF=None, TSTOP=START + 64)
    only_primary = light_curve(TSTARTI=None, TSTARTF=None, primary={"TSTART": START + 0.25})
    for body in (both, whole, only_primary):
        exposure = read({stem(): body})[0]["exposures"].to_pylist()[0]
        assert exposure["mjd_start"] == pytest.approx(days + (START + 0.25) / 86400, abs=1e-10)
        assert exposure["mjd_stop"] == pytest.approx(days + (START + 64) / 86400, abs=1e-10)


def test_without_tstart_the_bins_say_when_it_began() -> None:
    odd = read_light_curve(light_curve(TSTARTI=0, TSTOPF=1e10), NET)
    assert odd.remarks == ("TSTART is none of the mission", "TSTOP is none of the mission")
    body = light_curve(**dict.fromkeys(("TSTARTI", "TSTARTF", "TSTOPI", "TSTOPF")))
    assert (odd.mjd_start, odd.mjd_stop) == (
        read_light_curve(body, NET).mjd_start,
        read_light_curve(body, NET).mjd_stop,
    )
    exposure = read({stem(): body})[0]["exposures"].to_pylist()[0]
    days = rxte.MJDREFI + rxte.MJDREFF
    assert exposure["mjd_start"] == pytest.approx(days + START / 86400, abs=1e-10)
    assert exposure["mjd_stop"] == pytest.approx(days + (START + 64) / 86400, abs=1e-10)


def test_the_table_is_found_by_name_or_by_its_columns() -> None:
    gti = fits.BinTableHDU.from_columns(
        [fits.Column("START", "D", array=[1.0]), fits.Column("STOP", "D", array=[2.0])], name="STDGTI"
    )
    assert len(read_light_curve(light_curve(first=[gti]), NET).rate) == 4  # B.6: not hdul[1]
    unnamed = read_light_curve(light_curve(first=[gti], extname="LC"), NET)
    assert (len(unnamed.rate), unnamed.details["extname"]) == (4, "LC")
    assert unnamed.details["columns"] == ["TIME", "RATE", "ERROR", "FRACEXP"]
    renamed = light_curve(columns={"ERROR": None, "rate_err": np.full(4, 0.2)})
    assert read_light_curve(renamed, NET).error.tolist() == [0.2] * 4


def test_columns_may_be_scaled_integers_with_nulls_among_arrays() -> None:
    columns = [
        fits.Column("PHASE", "3E", array=np.zeros((2, 3))),
        fits.Column("OK", "11X", array=np.zeros((2, 11), bool)),
        fits.Column("TIME", "D", "s", array=[START, START + 16]),
        fits.Column("RATE", "I", "count/s", array=np.array([3, 4], np.int16)),
        fits.Column("ERROR", "J", "count/s", null=-99, array=np.array([1, -99], np.int32)),
    ]
    donor = fits.open(io.BytesIO(light_curve()))[1].header
    table = fits.BinTableHDU.from_columns(columns, name="RATE")
    for name in ("TELESCOP", "TIMESYS", "MJDREFI", "MJDREFF", "TIMEDEL", "TIMEPIXR", "HDUCLAS2"):
        table.header[name] = donor[name]
    # astropy scales what it writes: so the scale comes in afterwards.
    cards = {"COMMENT scale": "TSCAL4  =                  0.5", "COMMENT zero": "TZERO4  =                1.0D0"}
    for card in cards:
        table.header["COMMENT"] = card.removeprefix("COMMENT ")
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(out)
    body = out.getvalue()
    for card, scale in cards.items():
        body = body.replace(card.ljust(30).encode(), scale.encode())
    assert fits.getdata(io.BytesIO(body), "RATE")["RATE"].tolist() == [2.5, 3.0]
    curve = read_light_curve(body, NET)
    assert curve.rate.tolist() == [2.5, 3.0]
    np.testing.assert_array_equal(curve.error, [1, np.nan])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "it is empty"),
        (b"<html>503</html>", "it is no FITS file"),
        (gzip.compress(light_curve())[:-200], "gzip: "),
        (gzip.compress(light_curve())[:300] + b"\0" * 50, "gzip: "),
        (gzip.compress(b"", mtime=0), "it is empty"),
        (light_curve()[:4000], "a header does not end"),
        (light_curve(rate=np.ones(900))[:-4000], "cut short: .* bytes of its table"),
        (light_curve() + b"XTENSION= 'BINTABLE'", "cut short: .* not whole blocks"),
        (light_curve()[:2880], "no table RATE of TIME and RATE, but no table at all"),
        (light_curve(columns={"RATE": None}), "no table RATE of TIME and RATE, but TIME, ERROR, FRACEXP"),
        (light_curve(columns={"RATE": None, "LAG": np.ones(4)}, extname="LC"), "but TIME, ERROR, FRACEXP, LAG"),
        (light_curve(units={"RATE": "mJy"}), "the unit of RATE is 'mjy'"),
        (light_curve(units={"TIME": "d"}), "the unit of TIME is 'd'"),
        (light_curve(TIMESYS="TDB"), "TIMESYS is TDB, not TT"),
        (light_curve(TIMESYS=None), "TIMESYS is absent, not TT"),
        (light_curve(TELESCOP="ASCA"), "TELESCOP is ASCA, not XTE"),
        (light_curve(MJDREFI=None, MJDREFF=None), "it has no MJDREF"),
        (light_curve(MJDREFI=40587), "is not of RXTE's life"),
        (light_curve(TIMEDEL=0.0), "TIMEDEL is 0"),
        (light_curve(columns={"TIME": START + np.array([0.0, 0.0, 16.0, 32.0])}), "comes twice, and differs"),
    ],
)
def test_a_broken_file_is_rejected_by_name_and_reason(body: bytes, told: str, tmp_path: Path) -> None:
    """B.6 items 3 and 7: no error is swallowed."""
    path = tmp_path / stem()
    path.write_bytes(body)
    with pytest.raises(GranuleRejected, match=told) as caught:
        read_observation({path.name: path}, FACTS, "g")
    assert caught.value.reason.startswith(f"{path.name}: ")
    assert "\n" not in caught.value.reason


def test_what_the_disk_does_is_not_the_files_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_observation({stem(): tmp_path / stem()}, FACTS, "g")
    with pytest.raises(IsADirectoryError):
        read_observation({stem(): tmp_path}, FACTS, "g")


def test_whatever_bytes_come_they_are_read_or_rejected() -> None:
    whole = light_curve()
    rng = np.random.default_rng(6)
    rejected = 0
    for _ in range(300):
        body = bytearray(whole)
        for at in rng.integers(0, len(body), 40):
            body[at] = rng.integers(32, 127) if at < len(body) - 2880 else rng.integers(0, 256)
        try:
            read_light_curve(bytes(body), NET)
        except GranuleRejected:
            rejected += 1
    assert 0 < rejected < 300


def test_bins_that_come_twice_are_once_and_in_order() -> None:
    """B.6 item 5."""
    body = light_curve(
        rate=[1.0, 2.0, 1.0, 3.0],
        columns={"TIME": START + np.array([32.0, 0.0, 32.0, 16.0]), "FRACEXP": np.ones(4, np.float32)},
    )
    reading = read_observation({stem(): body}, FACTS, "g")
    rows = cast(tables_of([reading]))["lightcurves"]
    assert rows["flux"].to_pylist() == [2.0, 3.0, 1.0]
    assert reading.remark == "1 bin came twice (pca_a)"


def test_bins_without_a_time_cannot_be_kept_and_are_counted() -> None:
    body = light_curve(columns={"TIME": np.array([START, np.nan, START + 32, START + 48])})
    reading = read_observation({stem(): body}, FACTS, "g")
    assert cast(tables_of([reading]))["lightcurves"].num_rows == 3
    assert reading.remark == "1 bin without TIME left out (pca_a)"


@pytest.mark.parametrize(("piece", "bit"), [("A", rxte.SLEW), ("Z", rxte.SLEW), ("S", rxte.SCAN), ("R", rxte.SCAN)])
def test_slews_and_scans_are_kept_and_are_not_good(piece: str, bit: int) -> None:
    """B.6 item 13."""
    facts = Observation(OBSID + piece, None, 161.265, -59.6845)
    tables, details = read({stem("n2a", facts.obsid): light_curve(rate=[1.0])}, facts)
    row = tables["lightcurves"].to_pylist()[0]
    assert (row["detected"], row["good"], row["quality"], row["flux"]) == (True, False, bit, 1.0)
    assert (details["is_slew"], details["is_scan"]) == (bit == rxte.SLEW, bit == rxte.SCAN)


def test_an_observation_across_an_edge_has_both_epochs() -> None:
    """B.6 item 13."""
    edge = (51677.0 - 49353) * 86400 + 4  # four leap seconds since 1994
    body = light_curve(rate=[1.0] * 4, columns={"TIME": edge + np.array([-40.0, -24.0, 8.0, 24.0])})
    tables, details = read({stem(): body})
    assert details["epochs"] == [4, 5]
    assert all(q & rxte.EPOCH_EDGE for q in tables["lightcurves"]["quality"].to_pylist())
    assert tables["lightcurves"]["good"].to_pylist() == [True] * 4


def test_the_exposure_tells_what_there_was() -> None:
    files = {
        stem("n2a"): gzip.compress(light_curve()),
        stem("n2e"): light_curve(),
        f"x{OBSID.replace('-', '')}.gti.gz": b"",
    }
    tables, details = read(files)
    exposure = tables["exposures"].to_pylist()[0]
    assert (exposure["exposure_id"], exposure["exposure_s"], exposure["ra"], exposure["dec"]) == (
        OBSID,
        500,
        161.26,
        -59.68,
    )
    assert details["found"] == ["pca_a", "pca_e"]
    assert set(details["found"]) | set(details["absent"]) == set(PRODUCTS)
    assert details["not_read"] == ["x40001010100.gti.gz"]
    assert (details["epoch"], details["pcus"], details["pcu_count"]) == (4, [0, 2], 2)
    assert details["energies"]["pca_a"] == {
        "nominal_kev": [2.0, 9.0],
        "channels": [5, 10],
        "emin_kev": 2.13,
        "emax_kev": 4.63,
    }
    assert details["path"] == "xte/data/archive/AO4/P40001/40001-01-01-00/"
    assert details["exposure_from"] == "xtemaster"
    assert details["offset_arcsec"] == pytest.approx(18.57, abs=0.1)
    source = tables["sources"].to_pylist()[0]
    assert (source["source_id"], source["ra"], source["dec"], source["left_out"]) == (OBSID, 161.265, -59.6845, None)
    assert source["hpx29"] == int(hpx29(161.265, -59.6845))


def test_absence_of_all_products_is_recorded_and_no_error() -> None:
    reading = read_observation({}, FACTS, "g")
    tables = cast(tables_of([reading]))
    assert reading.remark == "no standard products"
    assert (tables["lightcurves"].num_rows, tables["sources"]["left_out"].to_pylist()) == (0, ["no_standard_products"])
    details = json.loads(tables["exposures"]["details"][0].as_py())
    assert (details["found"], details["absent"], details["epoch"]) == ([], list(PRODUCTS), 4)
    utc = Time(51552.0, format="mjd", scale="utc")
    assert tables["exposures"]["mjd_start"][0].as_py() == pytest.approx(utc.tt.mjd, abs=3e-8)


def test_a_file_of_another_observation_or_without_a_place_is_rejected() -> None:
    with pytest.raises(GranuleRejected, match="is not of observation 40001-01-01-00"):
        read_observation({stem("n2a", "40001-01-01-01"): light_curve()}, FACTS, "g")
    with pytest.raises(GranuleRejected, match="says where"):
        read_observation({stem(): light_curve(RA_PNT=None, DEC_PNT=None)}, Observation(OBSID), "g")


def test_a_header_has_its_place_under_several_names() -> None:
    body = light_curve(RA_PNT=None, DEC_PNT=None, RA_OBJ=10.5, DEC_OBJ=-3.5)
    assert read({stem(): body}, Observation(OBSID))[0]["sources"].select(["ra", "dec"]).to_pylist() == [
        {"ra": 10.5, "dec": -3.5}
    ]


def test_bands_may_be_named_and_a_second_copy_is_left_alone() -> None:
    assert read({"pca_a": light_curve()})[0]["lightcurves"].num_rows == 4
    both = {stem(): light_curve(), stem().removesuffix(".gz"): light_curve()}
    tables, details = read(both)
    assert tables["lightcurves"].num_rows == 4
    assert details["not_read"] == [stem()]


def pull(catalog: Catalog, obsid: str, files: dict[str, Any], parameters: str = "{}") -> None:
    facts = Observation(obsid, "ETA_CAR", 161.265, -59.6845)
    attempt = Attempt(
        rxte.NAME, rxte.RELEASE, f"rxte-{obsid}", "done", started_at=datetime.now(UTC), parameters=parameters
    )
    tables = tables_of([read_observation(files, facts, attempt.granule)])
    commit(catalog, stage(catalog.storage.staging / attempt.granule, attempt, tables, ORIGIN.band_units))


def test_observations_of_one_target_are_side_by_side_in_the_lake(catalog: Catalog) -> None:
    """Each is a source of its own: pulling one, or pulling it again, leaves the others."""
    pull(catalog, OBSID, {"pca_a": light_curve(rate=[1.0])})
    pull(catalog, "40001-01-02-00", {"pca_a": light_curve(rate=[2.0])})
    pull(catalog, "40001-01-03-00", {})
    pull(catalog, OBSID, {"pca_a": light_curve(rate=[3.0])}, '{"again": true}')
    rows = catalog.cursor().execute("SELECT exposure_id, flux FROM lightcurves ORDER BY 1").fetchall()
    assert rows == [(OBSID, 3.0), ("40001-01-02-00", 2.0)]
    sources = catalog.cursor().execute("SELECT source_id, left_out FROM sources ORDER BY 1").fetchall()
    assert sources == [(OBSID, None), ("40001-01-02-00", None), ("40001-01-03-00", "no_standard_products")]
    assert catalog.cursor().execute("SELECT count(*) FROM exposures").fetchall() == [(3,)]


def test_rows_come_sorted_as_the_table_is() -> None:
    """B.6 item 8: not in the order in which files were read."""
    files = {stem(kind): light_curve() for kind in ("n2e", "n2a", "n2c")}
    rows = cast(tables_of([read_observation(files, FACTS, "g")]))["lightcurves"]
    keys = list(zip(rows["band"].to_pylist(), rows["mjd"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    again = cast(tables_of([read_observation(dict(reversed(files.items())), FACTS, "g")]))["lightcurves"]
    assert again.equals(rows)


def test_many_observations_are_read_as_each_alone() -> None:
    """Observations with odd values have remarks of their own; the others are as if read alone."""
    kinds: list[dict[str, Any]] = [
        {stem("n2a"): light_curve(), stem("n2b"): light_curve(rate=[1.0, np.nan])},
        {},
        {stem("n2a"): light_curve(rate=[1.0, np.inf, 2.0]), stem("n2c"): light_curve(rate=[3.0], TIMEPIXR=None)},
        {stem("n2d"): light_curve(rate=[])},
        {stem("s2a"): light_curve(rate=[4.0, 5.0], HDUCLAS2="TOTAL")},
        {stem("n2a"): light_curve(columns={"ERROR": np.float32([-1.0, 0.1, 0.1, 0.1])})},
    ]
    many = []
    for number in range(40):
        one = Observation(f"40001-01-{number:02d}-00{'A' * (number % 7 == 3)}", "X", 10.0 + number / 9, -20.0, 51552.0)
        files = {name.replace("40001010100", one.id.stem): body for name, body in kinds[number % len(kinds)].items()}
        many.append(read_observation(files, one, f"g{number}"))
    together, alone = readings(many), [readings([one])[0] for one in many]
    for here, there in zip(together, alone, strict=True):
        assert isinstance(here, Reading)
        assert isinstance(there, Reading)
        assert here.remark == there.remark
        for name, table in here.tables.items():
            ours, theirs = (TABLES[name].cast(decoded(one)) for one in (table, there.tables[name]))
            assert ours.combine_chunks().equals(theirs.combine_chunks()), name
    remarks = [one.remark for one in together if isinstance(one, Reading)]
    assert sum("infinite values" in str(one) for one in remarks) == 7
    assert sum("lightcurves.flux_err" in str(one) for one in remarks) == 6


@pytest.mark.parametrize(
    "card", ["TFIELDS =          99999999999", "NAXIS   =          99999999999", "TFIELDS =     -1"]
)
def test_a_header_that_speaks_of_endless_columns_is_refused(card: str) -> None:
    whole = light_curve()
    at = whole.index(card[:8].encode("ascii"), 2880)
    broken = whole[:at] + card.ljust(80).encode("ascii") + whole[at + 80 :]
    with pytest.raises(GranuleRejected, match=card[:8].strip()):
        read_light_curve(broken, NET)
