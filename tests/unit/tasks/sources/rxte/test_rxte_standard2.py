"""Rates from Standard-2 files: against a slow reading by astropy; sums, good times, PCUs that go off, broken files."""

from __future__ import annotations

import gzip
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st

from deployments.sandbox import rxte as sandbox
from lake.errors import ConfigurationError, GranuleRejected
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.cut import ChannelCut
from tasks.sources.rxte.fits import LightCurve, read_light_curve
from tasks.sources.rxte.standard2 import is_standard2, light_curve

START = 190_000_000  # a multiple of 16, of 2000-01-09, gain epoch 4
ZERO = 3.37843167
NAME = "FS4a_b532b80-b532c80"
CPIX = "0~4,5:53,(54~135;2),(136~237;3),(238~249;4),250~255"
ALL = ChannelCut("standard2", 0, 255)
SOME = st.sets(st.integers(0, 4), min_size=1)


def cut(chmin: int = 0, chmax: int = 255, **more: Any) -> ChannelCut:
    return ChannelCut("standard2", chmin, chmax, **more)


def spectra(n: int = 8, on: Sequence[int] = (0, 2, 3), seed: int = 1) -> np.ndarray:
    """Counts by sample, PCU, layer, half and channel; PCUs that are off have none."""
    counts = np.random.default_rng(seed).poisson(0.7, (n, 5, 3, 2, 129)).astype(">i2")
    counts[:, [pcu for pcu in range(5) if pcu not in on]] = 0
    return counts


def written(
    name: str, columns: Mapping[str, np.ndarray], cards: Mapping[str, Any], primary: Mapping[str, Any]
) -> bytes:
    table = np.zeros(len(next(iter(columns.values()))), [(k, v.dtype, v.shape[1:]) for k, v in columns.items()])
    for key, values in columns.items():
        table[key] = values
    hdu, head, out = fits.BinTableHDU(table, name=name), fits.PrimaryHDU(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for header, given_ in ((hdu.header, cards), (head.header, primary)):
            for key, value in given_.items():
                if value is not None:
                    header[key] = value
    fits.HDUList([head, hdu]).writeto(out)
    return out.getvalue()


TIMING = {
    "TELESCOP": "XTE",
    "TIMESYS": "TT",
    "MJDREFI": 49353,
    "MJDREFF": rxte.MJDREFF,
    "TIMEZERO": ZERO,
    "TIMEDEL": 16.0,
    "TIMEPIXR": 0.0,
    "OBS_ID": "40001-01-01-00",
    "RA_PNT": 161.26,
    "DEC_PNT": -59.68,
    "OBJECT": "ETA_CAR",
}


def standard2(
    counts: np.ndarray | None = None,
    *,
    time: Any = None,
    columns: Mapping[str, np.ndarray | None] | None = None,
    primary: Mapping[str, Any] | None = None,
    extname: str = "XTE_SA",
    **header: Any,
) -> bytes:
    """Write a Standard-2 file; a column or keyword of None is left out."""
    counts = spectra() if counts is None else counts
    time = START + 16.0 * np.arange(len(counts)) if time is None else np.asarray(time, float)
    made: dict[str, np.ndarray | None] = {"Time": time}
    for pcu in range(5):
        for layer in range(3):
            for side in range(2):
                made[f"X{layer + 1}{'LR'[side]}SpecPcu{pcu}"] = counts[:, pcu, layer, side]
    made |= {
        "Spillage": np.zeros(len(counts), "u1"),
        "XeCntPcu0": np.full((len(counts), 129), 9, ">i2"),
        **(columns or {}),
    }
    kept = {key: values for key, values in made.items() if values is not None}
    return written(extname, kept, TIMING | {"DELTAT": 16.0} | header, primary or {})


def filter_file(
    n: int = 14, *, first: float = START - 48.0, columns: Mapping[str, Any] | None = None, **header: Any
) -> bytes:
    """Write a filter file with a row each 16 s, from three rows before the samples to three after them."""
    made: dict[str, Any] = {
        "Time": first + 16.0 * np.arange(n),
        "ELV": np.full(n, 30, ">f4"),
        "OFFSET": np.full(n, 0.01, ">f4"),
        "NUM_PCU_ON": np.full(n, 3, ">i2"),
        **{f"PCU{pcu}_ON": np.full(n, pcu in (0, 2, 3), ">i2") for pcu in range(5)},
    }
    made |= columns or {}
    return written("XTE_FF", {k: v for k, v in made.items() if v is not None}, TIMING | header, {})


def row(n: int, value: Any, usual: Any, at: Sequence[int], kind: str = ">f4") -> np.ndarray:
    values = np.full(n, usual, kind)
    values[list(at)] = value
    return values


def curve_of(
    body: bytes | None = None, what: ChannelCut = ALL, good: bytes | None = None, epoch: int = 4
) -> LightCurve:
    return light_curve({NAME: standard2() if body is None else body}, what, epoch, good)


def packing(cpix: str) -> list[range]:
    """Absolute channels of each Standard-2 channel, as a header says it."""
    ranges = []
    for part in cpix.split(","):
        ends, _, step = part.strip("()").partition(";")
        low, high = (int(end) for end in ends.replace(":", "~").split("~"))
        width = int(step or 0) or (1 if ":" in ends else high - low + 1)
        ranges += [range(at, at + width) for at in range(low, high + 1, width)]
    return ranges


def slowly(std2: Path, what: ChannelCut, good: Path | None) -> list[tuple[float, ...]]:
    """Rates, one sample, column and channel after another: start, rate, error, counts and fracexp of a bin."""
    channels = [n for n, inside in enumerate(packing(CPIX)) if set(inside) & set(range(what.chmin, what.chmax + 1))]
    rows = []
    if good is not None:
        with fits.open(good) as filters:
            zero, names = filters[1].header["TIMEZERO"], filters[1].data.names
            rows = [dict(zip(names, values, strict=True)) for values in filters[1].data.tolist()]
    with fits.open(std2) as file:
        data, zero2 = file["XTE_SA"].data, file["XTE_SA"].header["TIMEZERO"]
        samples = []
        for one in data:
            start, total, on = float(one["Time"]) + zero2, 0.0, 0
            # Rows of the filter file are on the same clock: those at the start and at the end of the sample.
            about = [r for r in rows if min(abs(r["Time"] + zero - start - end) for end in (0, 16)) < 0.1]
            fine = all(r["ELV"] > 4 and r["OFFSET"] < 0.1 and 0 < r["NUM_PCU_ON"] < 6 for r in about)
            assert len(about) == 2 * (good is not None)
            for pcu in what.pcus if fine else []:
                columns = [f"X{layer}{side}SpecPcu{pcu}" for layer in (1, 2, 3) for side in "LR"]
                is_on = all(r[f"PCU{pcu}_ON"] for r in about) if about else any(one[c].sum() for c in columns)
                on += is_on
                for column in columns if is_on else []:
                    if int(column[1]) in what.layers:
                        total += sum(int(one[column][n]) for n in channels)
            samples.append((start, total, on))
    bins: dict[int, list[tuple[float, float, int]]] = {}
    for start, total, on in samples:
        bins.setdefault(int((start - samples[0][0] + 1) // what.bin_s), []).append((start, total, on))
    out = []
    for number, inside in sorted(bins.items()):
        total, pcu_s = sum(one[1] for one in inside), 16.0 * sum(one[2] for one in inside)
        fracexp = 16.0 * sum(one[2] > 0 for one in inside) / what.bin_s
        begin = samples[0][0] + number * what.bin_s if what.bin_s > 16 else inside[0][0]
        rate, error, counts = (total / pcu_s, total**0.5 / pcu_s, total) if pcu_s else (np.nan,) * 3
        out.append((begin, rate, error if total else np.nan, counts, fracexp))
    return out


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path, dict[str, Any]]]:
    """Standard-2 files of the stand-in, their filter files, and what it says of their observations."""
    root = tmp_path_factory.mktemp("rxte")
    table: pa.Table = sandbox.write_mirror(
        root, n_obsids=16, seed=4, std2=0.3, bins=(20, 30), targets=sandbox.TARGETS[:2]
    )
    made = []
    for known in table.to_pylist():
        if known["std2"]:
            filters = list((root / known["folder"] / "stdprod").glob("x*.xfl.gz"))
            made += [(root / known["std2"], filters[0], known)] if filters else []
    assert len(made) >= 2
    return made


@pytest.mark.parametrize("with_filter", [True, False])
@pytest.mark.parametrize(
    "what",
    [
        cut(5, 10),
        cut(0, 255, bin_s=48),
        cut(54, 55, pcus=(2,), layers=(1,)),
        cut(130, 252, pcus=(0, 1, 2), layers=(2, 3), bin_s=96),
    ],
)
def test_it_agrees_with_a_slow_reading(
    mirror: list[tuple[Path, Path, dict[str, Any]]], what: ChannelCut, with_filter: bool
) -> None:
    for path, filters, known in mirror[:2]:
        good = filters if with_filter else None
        curve = light_curve({path.name: path}, what, known["epoch"], good)
        expected = np.array(slowly(path, what, good)).T
        assert np.isfinite(curve.rate).any() == np.isfinite(expected[1]).any()
        for name, values in zip(("seconds", "rate", "error", "counts", "fracexp"), expected, strict=True):
            ours = getattr(curve, name)
            assert ours.dtype == np.dtype("=f8"), "B.3: native byte order"
            np.testing.assert_allclose(ours, values, rtol=1e-12, err_msg=name)
        assert is_standard2(path.name)
        assert curve.mjd[0] == pytest.approx(
            Time(49353, rxte.MJDREFF + (expected[0][0] + what.bin_s / 2) / 86400, format="mjd", scale="tt").mjd,
            abs=1e-9,
        )


def test_the_real_light_curve_says_the_same_of_standard2(data_dir: Path) -> None:
    """A reality check: made by saextrct of three Standard-2 files."""
    path = data_dir / "rxte" / "std2_ao9_01_00.lc"
    curve = read_light_curve(path, rxte.PRODUCTS["pca_a_src"])
    header = fits.getheader(path, "RATE")
    assert all(is_standard2(header[f"FILEN{n}"]) for n in (1, 2, 3))
    assert header["CPIX"] == CPIX
    # Samples begin on a clock of 16 s, corrected by TIMEZERO: the first at the hexadecimal time of the file's name.
    assert np.abs((curve.seconds - 3.378430370) % 16).max() < 1e-6
    columns = {f"X{layer}{side}SpecPcu{pcu}" for layer in (1, 2, 3) for side in "LR" for pcu in (0, 2)}
    assert {header[f"ROWID{n}"] for n in range(1, 13)} == columns
    assert set(sandbox.LAYERS) > columns


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("FS4a_15699510-1569a540", True),
        ("pca/FS4a_15699510-1569a540.gz", True),
        ("FS4a_5a3b2c0-5a3b4f0.gz", True),
        ("FS46_15699510-1569a540.gz", False),
        ("FH5a_15699510-1569a540.gz", False),
        ("FS4a_15699510-1569a540_dt", False),
        ("FS4a_15699510-1569a540_bkg", False),
        ("FS4a_15699510-1569a540.lc", False),
        ("FS4f_15699510-1569a540.gz", False),
    ],
)
def test_standard2_files_are_known_by_name(name: str, expected: bool) -> None:
    assert is_standard2(name) is expected


BODY = standard2()
FILTERED = filter_file()
TOTAL = spectra().astype(float).sum(axis=(1, 2, 3, 4))


def test_all_channels_are_all_counts() -> None:
    for good in (None, FILTERED):
        curve = curve_of(BODY, ALL, good)
        np.testing.assert_array_equal(curve.counts, TOTAL)
        np.testing.assert_array_equal(curve.rate, TOTAL / 48)
        np.testing.assert_array_equal(curve.error, np.sqrt(TOTAL) / 48)
        assert (curve.pcus, curve.ontime_s, set(curve.fracexp)) == ((0, 2, 3), 128, {1})


@given(first=st.integers(0, 128), last=st.integers(0, 128), split=st.integers(0, 127))
def test_channels_add_up(first: int, last: int, split: int) -> None:
    ranges = packing(CPIX)
    first, last = sorted((first, last))
    split = min(max(split, first), last - 1)

    def counts(low: int, high: int) -> np.ndarray:
        return curve_of(BODY, cut(ranges[low][0], ranges[high][-1]), FILTERED).counts

    whole = counts(first, last)
    np.testing.assert_array_equal(whole, spectra()[..., first : last + 1].sum(axis=(1, 2, 3, 4)))
    if first < last:
        np.testing.assert_array_equal(counts(first, split) + counts(split + 1, last), whole)


@given(chmin=st.integers(0, 255), chmax=st.integers(0, 255))
def test_a_cut_within_a_packed_channel_has_all_of_it_and_says_so(chmin: int, chmax: int) -> None:
    chmin, chmax = sorted((chmin, chmax))
    touched = [n for n, inside in enumerate(packing(CPIX)) if inside[0] <= chmax and inside[-1] >= chmin]
    curve = curve_of(BODY, cut(chmin, chmax), FILTERED)
    np.testing.assert_array_equal(curve.counts, spectra()[..., touched].sum(axis=(1, 2, 3, 4)))
    whole = (packing(CPIX)[touched[0]][0], packing(CPIX)[touched[-1]][-1])
    assert curve.channels == whole
    assert curve.details["channels_asked"] == [chmin, chmax]
    assert [remark for remark in curve.remarks if "whole Standard-2 channels" in remark] == (
        [f"channels {(chmin, chmax)} lie within whole Standard-2 channels, {whole} are counted"]
        if whole != (chmin, chmax)
        else []
    )


@given(pcus=SOME, layers=st.sets(st.integers(1, 3), min_size=1), filtered=st.booleans())
def test_pcus_and_layers_add_up(pcus: set[int], layers: set[int], filtered: bool) -> None:
    good = FILTERED if filtered else None
    curve = curve_of(BODY, cut(pcus=tuple(pcus), layers=tuple(layers)), good)
    on = sorted(pcus & {0, 2, 3})
    assert curve.pcus == tuple(on)
    expected = spectra()[:, on][:, :, [layer - 1 for layer in sorted(layers)]].sum(axis=(1, 2, 3, 4))
    parts = [curve_of(BODY, cut(pcus=(pcu,), layers=(layer,)), good) for pcu in on for layer in layers]
    if on:
        np.testing.assert_array_equal(curve.counts, expected)
        np.testing.assert_array_equal(sum(part.counts for part in parts), expected)
        np.testing.assert_allclose(curve.rate * len(on), sum(part.rate for part in parts))
    else:
        assert np.isnan([curve.rate, curve.error, curve.counts]).all()
        assert set(curve.fracexp) == {0}
        assert "8 of 8 samples have no chosen PCU on" in curve.remarks


def test_it_says_what_it_is() -> None:
    curve = curve_of(BODY, cut(5, 10, pcus=(0, 2), layers=(1,)), FILTERED)
    told = json.loads(json.dumps(curve.details))
    assert {name: told[name] for name in ("method", "background", "deadtime", "per", "channels", "pcus", "layers")} == {
        "method": "standard2",
        "background": "included",
        "deadtime": "not corrected",
        "per": "pcu",
        "channels": [5, 10],
        "pcus": [0, 2],
        "layers": [1],
    }
    assert (told["std2_channels"], told["files"], told["object"]) == ([1, 6], [NAME], "ETA_CAR")
    assert told["gti"] == curve.product.gti
    assert told["pcus_on_by"] == {"0": "filter file", "2": "filter file"}
    assert (curve.product.band, curve.product.kind, curve.ra, curve.dec) == ("pca_ch5_10", "s", 161.26, -59.68)
    assert curve.remarks == ()


def test_without_a_filter_file_that_is_said() -> None:
    curve = curve_of(BODY, ALL)
    assert curve.remarks == ("no filter file: no good times applied, a PCU is taken to be on where it has counts",)
    assert (curve.details["gti"], curve.details["filter_file"]) == (None, False)
    assert set(curve.details["pcus_on_by"].values()) == {"counts"}


def test_no_counts_are_a_rate_of_zero_without_an_error() -> None:
    """The root of 0 would be an error of 0: a measurement of infinite weight."""
    counts = spectra()
    counts[2, ..., 1:7] = 0
    curve = curve_of(standard2(counts), cut(5, 10), FILTERED)
    assert (curve.rate[2], curve.counts[2], curve.fracexp[2]) == (0, 0, 1)
    assert np.isnan(curve.error).tolist() == [n == 2 for n in range(8)]


@pytest.mark.parametrize(
    ("header", "later_s"),
    [
        ({}, 8.0),
        ({"TIMEZERO": None}, 8.0 - ZERO),
        ({"TIMEZERO": None, "TIMEZERI": 3, "TIMEZERF": 0.5}, 11.5 - ZERO),
        ({"TIMEPIXR": 0.5}, 0.0),
        ({"TIMEPIXR": None}, 8.0),
        ({"TIMEDEL": None}, 8.0),
        ({"TIMEDEL": None, "DELTAT": None}, 8.0),
        ({"MJDREFI": None, "MJDREFF": None, "MJDREF": 49353.000696574074}, 8.0),
    ],
)
def test_times_are_of_the_middle_of_the_bin_in_tt(header: dict[str, Any], later_s: float) -> None:
    curve = curve_of(standard2(**header), ALL)
    since = Time("1994-01-01", scale="utc").tt
    expected = Time(since.jd1, since.jd2 + (START + ZERO + later_s) / 86400, format="jd", scale="tt").mjd
    assert curve.mjd[0] == pytest.approx(expected, abs=2e-6 / 86400)
    assert np.diff(curve.mjd) * 86400 == pytest.approx(16, abs=1e-5)
    assert (curve.mjd_stop - curve.mjd_start) * 86400 == pytest.approx(128, abs=1e-5)
    assert (curve.timepixr, curve.bin_s) == (0, 16)
    assumed = [name for name in ("TIMEPIXR",) if header.get(name, 0) is None]
    assumed += ["TIMEDEL"] if header.get("DELTAT", 0) is None else []
    assert sorted(curve.details["assumed"]) == sorted(assumed)
    assert all(any(remark.startswith(f"{name} is absent") for remark in curve.remarks) for name in assumed)


def bad_samples(columns: dict[str, Any], **header: Any) -> tuple[list[int], LightCurve]:
    curve = curve_of(BODY, ALL, filter_file(columns=columns, **header))
    assert np.array_equal(np.isnan(curve.rate), curve.fracexp == 0)
    assert np.array_equal(np.isnan(curve.rate), np.isnan(curve.counts))
    kept = ~np.isnan(curve.rate)
    np.testing.assert_array_equal(curve.counts[kept], TOTAL[kept])
    return np.flatnonzero(~kept).tolist(), curve


@pytest.mark.parametrize(
    "columns",
    [
        {"ELV": row(14, 4.0, 30, [6])},
        {"ELV": row(14, np.nan, 30, [6])},
        {"OFFSET": row(14, 0.1, 0.01, [6])},
        {"OFFSET": row(14, np.nan, 0.01, [6])},
        {"NUM_PCU_ON": row(14, 0, 3, [6], ">i2")},
        {"NUM_PCU_ON": row(14, 6, 3, [6], ">i2")},
        {"NUM_PCU_ON": row(14, 255, 3, [6], "u1")},
    ],
)
def test_a_sample_is_good_if_the_rows_about_it_are(columns: dict[str, Any]) -> None:
    """Row 6 is at the end of sample 2 and the start of sample 3. B.6 item 2: all of the recipe's terms count."""
    bad, curve = bad_samples(columns)
    assert bad == [2, 3]
    assert curve.remarks == ("2 of 8 samples lie outside the good times",)
    assert curve.ontime_s == 6 * 16
    assert len(curve.mjd) == 8


def test_the_edge_of_good_is_as_the_recipe_has_it() -> None:
    assert bad_samples({"ELV": row(14, 4.001, 30, [6]), "OFFSET": row(14, 0.0999, 0.01, [6])})[0] == []


def test_the_filter_files_own_clock_counts() -> None:
    """Its TIMEZERO and MJDREF: rows at the same moments are the same rows."""
    elv = {"ELV": row(14, 0, 30, [6])}
    made = 16.0 * np.arange(14) + START - 48
    assert bad_samples(elv)[0] == [2, 3]
    assert bad_samples({**elv, "Time": made + ZERO}, TIMEZERO=None)[0] == [2, 3]
    assert bad_samples({**elv, "Time": made + ZERO - 2}, TIMEZERO=None, TIMEZERI=2, TIMEZERF=0.0)[0] == [2, 3]
    assert bad_samples({**elv, "Time": made + 86400}, MJDREFI=49352)[0] == [2, 3]
    # Between the rows: the bad one is within sample 3 alone, but its neighbours see it on their other side.
    assert bad_samples({**elv, "Time": made + 5})[0] == [2, 3, 4]


def test_what_the_filter_file_does_not_reach_is_not_good() -> None:
    few = {"Time": START - 48 + 16.0 * np.r_[0:6, 9:17]}
    bad, curve = bad_samples(few)
    # Rows at -48 to 32 s, and from 96 s on.
    assert bad == [2, 3, 4, 5]
    assert curve.remarks == ("4 of 8 samples lie outside the good times",)
    late = filter_file(first=START + 48.0)
    assert np.flatnonzero(np.isnan(curve_of(BODY, ALL, late).rate)).tolist() == [0, 1]
    shuffled = np.random.default_rng(0).permutation(14)
    again = {"Time": (START - 48 + 16.0 * np.arange(14))[shuffled], "ELV": row(14, 0, 30, [6])[shuffled]}
    assert bad_samples(again)[0] == [2, 3]


def test_a_pcu_that_goes_off_is_not_divided_by() -> None:
    counts = spectra()
    counts[4:, 3] = 0
    off = row(14, 0, 1, range(7, 14), ">i2")
    curve = curve_of(standard2(counts), ALL, filter_file(columns={"PCU3_ON": off}))
    total = counts.sum(axis=(1, 2, 3, 4)).astype(float)
    n_on = np.array([3, 3, 3, np.nan, 2, 2, 2, 2])  # in sample 3 it is turned off: at its start on, at its end not
    np.testing.assert_array_equal(curve.rate, total / 16 / n_on)
    assert curve.remarks == ("1 of 8 samples have a PCU turned on or off, or of unknown state",)
    assert curve.pcus == (0, 2, 3)
    by_counts = curve_of(standard2(counts), ALL)
    np.testing.assert_array_equal(by_counts.rate, total / 16 / [3, 3, 3, 3, 2, 2, 2, 2])
    # A PCU that is not chosen may do what it likes.
    others = curve_of(standard2(counts), cut(pcus=(0, 2)), filter_file(columns={"PCU3_ON": off}))
    assert not np.isnan(others.rate).any()


def test_counts_of_a_pcu_that_is_said_to_be_off_do_not_count() -> None:
    curve = curve_of(BODY, ALL, filter_file(columns={"PCU3_ON": np.zeros(14, ">i2")}))
    np.testing.assert_array_equal(curve.counts, spectra()[:, [0, 2]].sum(axis=(1, 2, 3, 4)))
    np.testing.assert_array_equal(curve.rate, curve.counts / 32)


def test_states_that_the_filter_file_lacks_are_told_by_counts() -> None:
    curve = curve_of(BODY, ALL, filter_file(columns={"PCU3_ON": None, "PCU4_ON": None}))
    np.testing.assert_array_equal(curve.rate, TOTAL / 48)
    assert curve.remarks == ("the filter file lacks the states of PCUs [3, 4]: taken to be on where they have counts",)
    # In any channel and layer, not only those of the cut.
    counts = spectra()
    counts[:, 0, 0] = 0
    alone = curve_of(standard2(counts), cut(5, 5, layers=(1,), pcus=(0, 2)))
    np.testing.assert_array_equal(alone.rate, counts[:, 2, 0, :, 1].sum(axis=1) / 32)


def test_long_bins_are_sums_of_whole_samples_that_are_good() -> None:
    """Eight samples in bins of three: the last has two. Sample 2 and 3 are not good."""
    curve = curve_of(BODY, cut(bin_s=48), filter_file(columns={"ELV": row(14, 0, 30, [6])}))
    assert curve.fracexp.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    assert curve.counts.tolist() == [TOTAL[:2].sum(), TOTAL[4:6].sum(), TOTAL[6:].sum()]
    np.testing.assert_allclose(curve.rate, curve.counts / (2 * 3 * 16))
    np.testing.assert_allclose(curve.error, np.sqrt(curve.counts) / (2 * 3 * 16))
    assert (curve.seconds - START - ZERO).round(6).tolist() == [0, 48, 96]
    assert curve.bin_s == 48
    none = curve_of(BODY, cut(bin_s=48), filter_file(columns={"ELV": row(14, 0, 30, [3, 4, 5, 6])}))
    assert none.fracexp.tolist() == pytest.approx([0, 2 / 3, 2 / 3])
    assert np.isnan(none.rate).tolist() == [True, False, False]


def test_long_bins_stay_aligned_across_a_gap_and_weigh_pcus() -> None:
    counts = spectra()
    counts[1, 3] = 0
    time = START + 16.0 * np.array([0, 1, 2, 3, 10, 11, 12, 13])
    curve = curve_of(standard2(counts, time=time + 1e-3 * np.sin(time)), cut(bin_s=32))
    assert (curve.seconds - curve.seconds[0]).round(6).tolist() == [0, 32, 160, 192]
    assert curve.rate[0] == counts[:2].sum() / (16 * (3 + 2))
    assert set(curve.fracexp) == {1}


def test_short_samples_of_a_bright_source_are_summed() -> None:
    body = standard2(spectra(20), time=START + 2.0 * np.arange(20), TIMEDEL=2.0, DELTAT=2.0)
    curve = curve_of(body, ALL)
    totals = spectra(20).sum(axis=(1, 2, 3, 4))
    assert curve.counts.tolist() == [totals[:8].sum(), totals[8:16].sum(), totals[16:].sum()]
    assert curve.fracexp.tolist() == [1, 1, 0.5]
    np.testing.assert_array_equal(curve.rate, curve.counts / 3 / [16, 16, 8])


def test_files_of_one_observation_are_joined_in_order_each_sample_once() -> None:
    counts = spectra()
    time = START + 16.0 * np.arange(8)
    # The clock's correction differs by some ms from one file to the next, and one says it with another reference.
    later = standard2(counts[4:], time=time[4:] - 86400, TIMEZERO=ZERO + 0.002, MJDREFI=49354)
    files = {"FS4a_b-c": standard2(counts[:6], time=time[:6]), "FS4a_a-b": gzip.compress(later)}
    curve = light_curve(files, ALL, 4, FILTERED)
    assert curve.counts.tolist() == TOTAL.tolist()
    assert (curve.seconds - curve.seconds[0]).round(2).tolist() == (16.0 * np.arange(8)).tolist()
    assert curve.mjd == pytest.approx(curve_of(BODY).mjd, abs=0.003 / 86400)
    assert curve.details["files"] == sorted(files)
    assert curve.remarks == ()
    backwards = standard2(counts[::-1], time=time[::-1])
    assert curve_of(backwards, ALL, FILTERED).counts.tolist() == TOTAL.tolist()


def test_samples_that_differ_or_overlap_in_part() -> None:
    files = {"FS4a_1-2": BODY, "FS4a_2-3": standard2(spectra(seed=2), time=START + 112 + 16.0 * np.arange(8))}
    with pytest.raises(GranuleRejected, match=r"FS4a_2-3: the sample at 1900001\d\d\.\d+ s comes twice.*FS4a_1-2"):
        light_curve(files, ALL, 4)
    files["FS4a_2-3"] = standard2(spectra(seed=2), time=START + 120 + 16.0 * np.arange(8))
    curve = light_curve(files, ALL, 4)
    assert len(curve.mjd) == 15
    assert "1 sample that overlaps others left out" in curve.remarks
    files["FS4a_2-3"] = standard2(time=START + 128 + 2.0 * np.arange(8), TIMEDEL=2.0, DELTAT=2.0)
    with pytest.raises(GranuleRejected, match="FS4a_2-3: its samples are 2 s long, those of FS4a_1-2 16 s"):
        light_curve(files, ALL, 4)
    files["FS4a_2-3"] = standard2(time=START + 128 + 16.0 * np.arange(8), OBS_ID="40001-01-01-01")
    with pytest.raises(GranuleRejected, match="FS4a_2-3: it is of another observation than FS4a_1-2"):
        light_curve(files, ALL, 4)


def scaled(body: bytes, column: str, **cards: str) -> bytes:
    """Put keywords into the header as they are: astropy would scale what it writes."""
    number = next(n for n in range(1, 34) if f"TTYPE{n:<3}= '{column}".encode() in body)
    for place, (key, value) in enumerate(cards.items()):
        card = f"{f'{key}{number}':<8}= {value:>20}".ljust(80).encode()
        body = body.replace(f"SPARE{place:<3}".encode() + body.split(f"SPARE{place:<3}".encode())[1][:72], card)
    return body


def test_columns_may_be_scaled_with_nulls() -> None:
    counts = spectra()
    stored = counts[:, 2, 0, 0].copy()
    stored[5, 3] = -99
    body = standard2(counts, columns={"X1LSpecPcu2": stored - 7}, SPARE0=1, SPARE1=1, SPARE2=1)
    body = scaled(body, "X1LSpecPcu2", TSCAL="2.0", TZERO="14.0", TNULL="-106")
    what = cut(pcus=(2,), layers=(1,))
    expected = 2.0 * counts[:, 2, 0, 0].sum(axis=1) + counts[:, 2, 0, 1].sum(axis=1)
    expected[5] = np.nan
    curve = curve_of(body, what, FILTERED)
    np.testing.assert_array_equal(curve.counts, expected)
    assert curve.remarks == ("1 of 8 samples lack counts",)
    # What is missing of a PCU that is off, or of channels that are not counted, does not matter.
    assert not np.isnan(curve_of(body, cut(9, 9), FILTERED).rate).any()
    off = filter_file(columns={"PCU2_ON": np.zeros(14, ">i2")})
    assert not np.isnan(curve_of(body, ALL, off).rate).any()


def test_samples_without_a_time_are_left_out_and_counted() -> None:
    time = START + 16.0 * np.arange(8)
    time[3] = np.nan
    curve = curve_of(standard2(time=time), ALL, FILTERED)
    assert curve.counts.tolist() == np.delete(TOTAL, 3).tolist()
    assert curve.remarks == ("1 sample without TIME left out",)
    for odd in (np.inf, -999.0, 1e10):
        time[3] = odd
        assert curve_of(standard2(time=time), ALL, FILTERED).counts.tolist() == curve.counts.tolist()
        rows = START - 48.0 + 16.0 * np.arange(14)
        rows[13] = odd
        assert curve_of(BODY, ALL, filter_file(columns={"Time": rows})).counts.tolist() == TOTAL.tolist()


def test_one_odd_count_is_missing_and_told() -> None:
    counts = spectra().astype(">f4")
    for odd in (-3.0, np.inf):
        counts[5, 2, 1, 0, 40] = odd
        curve = curve_of(standard2(counts), ALL, FILTERED)
        expected = TOTAL.astype(float)
        expected[5] = np.nan
        np.testing.assert_array_equal(curve.counts, expected)
        assert "impossible counts taken for missing: 1" in curve.remarks


def test_energies_are_of_the_epoch_and_the_pcus() -> None:
    """B.4: the same channels have other energies in each epoch, and channels follow from energies by the epoch."""
    curve = curve_of(BODY, cut(5, 10), FILTERED)
    assert curve.energies(4) == {"channels": [5, 10], "emin_kev": 2.13, "emax_kev": 4.63}
    kev = ChannelCut("standard2", emin_kev=2, emax_kev=10)
    for epoch in (1, 2, 3, 4, 5):
        made = curve_of(BODY, kev, FILTERED, epoch)
        assert made.channels == kev.channels(epoch)
        told = made.energies(epoch)
        assert (told["nominal_kev"], told["channels"]) == ([2, 10], list(kev.channels(epoch)))
        assert abs(told["emin_kev"] - 2) + abs(told["emax_kev"] - 10) < 0.6
        wrong_epoch = [f"samples of gain epochs [4] have the channels of epoch {epoch}"] if epoch != 4 else []
        assert list(made.remarks) == wrong_epoch
    alone = curve_of(BODY, cut(5, 10, pcus=(0,)), FILTERED)
    assert (alone.energies(5)["emin_kev"], curve.energies(5)["emin_kev"]) == (1.95, 2.06)
    with pytest.raises(GranuleRejected, match="80 to 100 keV lie beyond"):
        curve_of(BODY, ChannelCut("standard2", emin_kev=80, emax_kev=100), FILTERED, 1)


def test_a_cut_that_a_file_says_no_channels_of_has_those_asked_for() -> None:
    made = curve_of(BODY, cut(5, 10), FILTERED)
    bare = LightCurve(**{**vars(made), "channels": None, "product": ChannelCut("heasoft", emin_kev=2, emax_kev=10)})
    assert bare.energies(3)["channels"] == list(ChannelCut("heasoft", emin_kev=2, emax_kev=10).channels(3))


def test_what_it_cannot_do_is_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigurationError, match="method heasoft evaluates expressions"):
        curve_of(BODY, cut(gti="ELV > 10"), FILTERED)
    with pytest.raises(ConfigurationError, match="method heasoft"):
        curve_of(BODY, ChannelCut("heasoft", 5, 10), FILTERED)
    spaced = "(ELV>4)&&(OFFSET<0.1)&&(NUM_PCU_ON>0)&&(NUM_PCU_ON<6)&&!ISNULL(ELV)"
    assert len(curve_of(BODY, cut(gti=spaced), FILTERED).mjd) == 8


PACKED = gzip.compress(BODY)
FEWER = np.zeros((8, 64), ">i2")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "it is empty"),
        (b"<html>503</html>", "it is no FITS file"),
        (PACKED[:-200], "gzip: "),
        (PACKED[: len(PACKED) // 2], "gzip: "),
        (BODY[:4000], "a header does not end"),
        (BODY[:-2880], "cut short: .* bytes of its table"),
        (BODY[:2880], "no table of TIME and spectra of Standard 2, but no table at all"),
        (FILTERED, "no table of TIME and spectra of Standard 2, but TIME, ELV"),
        (standard2(TELESCOP="ASCA"), "TELESCOP is ASCA, not XTE"),
        (standard2(TIMESYS=None), "TIMESYS is absent, not TT"),
        (standard2(TIMESYS="TDB"), "TIMESYS is TDB, not TT"),
        (standard2(MJDREFI=None, MJDREFF=None), "it has no MJDREF"),
        (standard2(MJDREFI=40587), "is not of RXTE's life"),
        (standard2(TIMEDEL=0.0), "TIMEDEL is 0"),
        (standard2(DELTAT=2.0), "TIMEDEL is 16, but DELTAT 2"),
        (standard2(TIMEDEL=32.0, DELTAT=32.0), "bins of 16 s are no whole number of samples of 32 s"),
        (standard2(columns={"X2RSpecPcu3": None}), "it lacks X2RSPECPCU3, which the cut takes"),
        (standard2(columns={"X2RSpecPcu3": FEWER}), "X2RSPECPCU3 has 64 channels, not 129"),
        (standard2(columns={"X2RSpecPcu3": FEWER[:, 0]}), "X2RSPECPCU3 has 1 channel, not 129"),
        (standard2(columns={"X2RSpecPcu3": np.full((8, 129), -3, ">i2")}), "X2RSPECPCU3 has -3 counts"),
        (standard2(columns={"Time": np.full((8, 2), START, ">f8")}), "its column TIME is no number"),
        (standard2(time=np.full(8, np.nan)), "no samples"),
    ],
)
def test_a_broken_file_is_rejected_by_name_and_reason(body: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(body)
    with pytest.raises(GranuleRejected, match=told) as caught:
        light_curve({NAME: path}, ALL, 4)
    assert NAME in caught.value.reason or "bins of 16 s" in caught.value.reason
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (gzip.compress(FILTERED)[:-200], "gzip: "),
        (BODY, "no table of ELV, NUM_PCU_ON, OFFSET, TIME, but TIME, X1LSPECPCU0"),
        (filter_file(columns={"ELV": None}), "no table of ELV"),
        (filter_file(columns={"ELV": np.zeros((14, 2))}), "ELV are no numbers"),
        (filter_file(TIMESYS="UTC"), "TIMESYS is UTC"),
        (filter_file(columns={"Time": np.full(14, np.nan)}), "it has no rows"),
    ],
)
def test_a_broken_filter_file_is_rejected_by_name_and_reason(body: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "x40001010100.xfl.gz"
    path.write_bytes(body)
    with pytest.raises(GranuleRejected, match=rf"x40001010100\.xfl\.gz: .*{told}"):
        curve_of(BODY, ALL, path)
    with pytest.raises(GranuleRejected, match="filter file: "):
        curve_of(BODY, ALL, body)


def test_columns_that_are_not_taken_may_be_absent() -> None:
    body = standard2(
        columns={f"X3{side}SpecPcu{pcu}": None for side in "LR" for pcu in range(5)} | {"X1LSpecPcu4": FEWER}
    )
    curve = curve_of(body, cut(layers=(1, 2), pcus=(0, 2, 3)))
    np.testing.assert_array_equal(curve.counts, spectra()[:, :, :2].sum(axis=(1, 2, 3, 4)))


def test_no_file_is_no_light_curve() -> None:
    with pytest.raises(GranuleRejected, match="there is no Standard-2 file"):
        light_curve({}, ALL, 4)
    with pytest.raises(FileNotFoundError):
        light_curve({NAME: Path("/nonexistent") / NAME}, ALL, 4)


def test_whatever_bytes_come_they_are_read_or_rejected() -> None:
    rng = np.random.default_rng(6)
    rejected = 0
    ends = [body.index(b"END" + b" " * 77) for body in (BODY[2880:], FILTERED[2880:])]
    for number in range(120):
        bodies = [bytearray(BODY), bytearray(FILTERED)]
        body = bodies[number % 2]
        for at in rng.integers(0, 2880 + ends[number % 2], 6):
            body[at] = rng.integers(32, 127)
        for at in rng.integers(len(body) - 2880, len(body), 3):
            body[at] = rng.integers(0, 256)
        try:
            curve_of(bytes(bodies[0]), ALL, bytes(bodies[1]))
        except GranuleRejected:
            rejected += 1
    assert 0 < rejected < 120
