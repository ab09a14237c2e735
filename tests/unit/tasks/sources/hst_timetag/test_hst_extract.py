"""Light curves of photons: real COS exposures, formulas, boxes, gaps, the Sun, weights, and what was wrong before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from helpers.hst import corrtag_of, cos_file

from lake.errors import GranuleRejected
from tasks.sources.hst_timetag.bins import Bins, bins, exposure_fraction, inside, intersection
from tasks.sources.hst_timetag.events import open_events
from tasks.sources.hst_timetag.extract import Curve, Selection, extract
from tasks.sources.hst_timetag.quality import REASONS, reasons

EVERYTHING = Selection(wavelengths=(-1e9, 1e9), without_airglow=False)


def curve(*paths: Path, selection: Selection = EVERYTHING, **more: Any) -> Curve:
    tables = []
    for path in paths:
        with open_events(path) as found:
            tables += found
            if len(paths) == 1:
                return extract(tables, selection, **more)
    return extract(tables, selection, **more)


def column(result: Curve, name: str) -> np.ndarray:
    return result.table[name].to_numpy(zero_copy_only=False).astype(float)


@pytest.mark.parametrize(
    ("rootname", "counts", "poisson_factor"), [("ldfd01vnq", 344_124, 3.30), ("ldfd01vpq", 283_504, 1.70)]
)
def test_real_exposures_have_the_counts_of_their_spectra(
    rootname: str, counts: int, poisson_factor: float, data_dir: Path, tmp_path: Path
) -> None:
    folder = data_dir / "hst_cos_stis"
    spectrum = folder / f"{rootname}_x1d.fits.gz"
    path = corrtag_of(folder / f"{rootname}_rawtag_a.fits.gz", spectrum, tmp_path / f"{rootname}_corrtag_a.fits")
    result = curve(path)
    gross = column(result, "gross")
    with fits.open(path) as hdus, fits.open(spectrum) as extracted:
        events = hdus["EVENTS"].data
        last = result.bins.start_s + result.bins.step_s * result.bins.number
        box = np.abs(events["YCORR"] - hdus["EVENTS"].header["SP_LOC_A"]) < hdus["EVENTS"].header["SP_HGT_A"] / 2
        after = box & (events["DQ"] == 0) & (events["TIME"] >= last)
        assert gross.sum() + after.sum() == counts
        assert 1.013 < counts / extracted["SCI"].data["GCOUNTS"].sum() < 1.031
    assert result.bins.number == 558
    without_last = gross[:-1]
    assert without_last.std() / np.sqrt(without_last.mean()) == pytest.approx(poisson_factor, abs=0.005)


def test_the_published_row_comes_back_from_its_gross_and_background(tmp_path: Path) -> None:
    # One bin of weights that sum up to the published gross 2161.97 and background 12.7314.
    path = cos_file(
        tmp_path / "l1_corrtag.fits",
        times=[0.0, 0.5, 2.0],
        y=[500.0, 100.0, 500.0],
        weights=[2161.97, 12.7314 * 2, 1.0],
        detector="NUV",
        boxes={"A": ((500, 20), (100, 20), (900, 20))},
    )
    row = curve(path).table.to_pylist()[0]
    assert row["counts"] == pytest.approx(2149.24, abs=0.005)
    assert row["error"] == pytest.approx(46.6337, abs=5e-5)
    assert row["signal_to_noise"] == pytest.approx(46.3607, abs=5e-5)
    assert row["net"] == pytest.approx(2149.24 / 2, abs=0.005)
    assert row["flux"] is None
    assert row["flux_err"] is None


def test_the_background_is_scaled_by_the_rows_of_both_regions(tmp_path: Path) -> None:
    # Regions of 10 and 30 rows, a source of 20: half of what both have, where the second alone would give 3/4 of it.
    path = cos_file(
        tmp_path / "l1_corrtag.fits",
        times=[0.0, 0.0, 0.0, 0.0, 0.0, 4.0],
        y=[500, 100, 100, 900, 900, 500],
        detector="NUV",
        boxes={"A": ((500, 20), (100, 10), (900, 30))},
    )
    assert column(curve(path), "background")[0] == pytest.approx(2.0)


def test_an_odd_height_keeps_its_outer_row(tmp_path: Path) -> None:
    path = cos_file(
        tmp_path / "l1_corrtag.fits",
        times=[0.0, 0.0, 0.0, 0.0, 4.0],
        y=[474.6, 525.4, 474.4, 525.6, 500],
        detector="NUV",
        boxes={"A": ((500, 51), (100, 10), (900, 10))},
    )
    assert column(curve(path), "gross")[0] == 2


def test_gaps_are_no_zeros_and_the_time_after_them_is_not_lost(tmp_path: Path) -> None:
    # 12 s with a gap from 4 to 7: EXPTIME is 9 s, and would cut off the last 3 s.
    times = np.arange(0, 12.01, 0.5)
    path = cos_file(tmp_path / "l1_corrtag.fits", times=times, good_times=[(0, 4), (7, 12)], exposure_s=9.0)
    result = curve(path)
    assert result.bins.number == 6
    assert column(result, "exposure_fraction") == pytest.approx([1, 1, 0, 0.5, 1, 1])
    assert result.table["gross"].to_pylist()[2] is None
    # Events in a gap are none of the exposure: 7.0 and 7.5 are left of the fourth bin.
    assert result.table["gross"].to_pylist()[3] == 2


def test_times_with_the_sun_up_are_left_out_row_by_row(tmp_path: Path) -> None:
    times = np.arange(0, 10.01, 0.5)
    altitude = [(second, 30.0 if 3 <= second < 5 or second == 7 else -20.0) for second in range(11)]
    path = cos_file(tmp_path / "l1_corrtag.fits", times=times, sun=altitude)
    selection = Selection(wavelengths=(-1e9, 1e9), without_airglow=False, sun_below_deg=0.0)
    assert column(curve(path, selection=selection), "exposure_fraction") == pytest.approx([1, 0.5, 0.5, 0.5, 1])
    assert column(curve(path), "exposure_fraction") == pytest.approx([1, 1, 1, 1, 1])


def test_airglow_is_left_out_and_wavelengths_have_limits(tmp_path: Path) -> None:
    wavelengths = [914, 916, 1207.9, 1208.0, 1216, 1225.0, 1225.1, 1297.9, 1304, 1312.1, 1799, 1801]
    times = [0.0] * len(wavelengths) + [2.0]
    path = cos_file(tmp_path / "l1_corrtag_a.fits", times=times, wavelengths=[*wavelengths, 1400], segment="FUVA")
    kept = curve(path, selection=Selection())
    assert column(kept, "gross")[0] == 6
    assert column(curve(path, selection=Selection(without_airglow=False)), "gross")[0] == 10
    assert kept.limits.wavelengths == (915, 1800)


@pytest.mark.parametrize(("flag", "kept"), [(0, True), (4, True), (64, False), (512, False), (2048, False), (8, False)])
def test_flags_that_screening_sets_are_serious_whatever_the_header_says(flag: int, kept: bool, tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[0.0, 2.0], flags=[flag, 0], serious=8)
    assert column(curve(path), "gross")[0] == (1 if kept else 0)


def test_both_segments_are_summed_over_the_time_that_both_have(tmp_path: Path) -> None:
    a = cos_file(tmp_path / "l1_corrtag_a.fits", times=np.arange(0, 9, 0.5), segment="FUVA")
    b = cos_file(tmp_path / "l1_corrtag_b.fits", times=np.arange(1, 10.1, 1.0), segment="FUVB")
    with open_events(a) as one, open_events(b) as other:
        result = extract([*one, *other], EVERYTHING)
    assert (result.bins.start_s, result.bins.number) == (1.0, 4)
    assert column(result, "gross").tolist() == [6, 6, 6, 6]


def test_times_are_exact_to_a_microsecond_after_hours(tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[0.0, 10_000.0], start_mjd=57934.0)
    mjd = column(curve(path), "mjd")
    assert (mjd[-1] - 57934.0) * 86_400 == pytest.approx(9998.0, abs=1e-3)


def test_quotients_by_nothing_are_null(tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[0.0, 5.0])
    second = curve(path).table.to_pylist()[1]
    assert second["gross"] == 0
    assert second["counts"] == 0
    assert second["signal_to_noise"] is None
    assert second["snr_net"] is None


def test_a_spectrum_without_a_box_is_rejected(tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[0.0, 5.0], boxes={})
    with pytest.raises(GranuleRejected, match="extraction box"):
        curve(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"expflag": "INTERRUPTED"}, ["Bad EXPFLAG"]),
        ({"expflag": "NORMAL       "}, []),
        ({"times": []}, ["No events"]),
        ({"times": [0.0, 3.0, 2.0]}, ["Non-linear time"]),
        ({"times": [0.0, np.nan, 2.0]}, ["Non-linear time"]),
        ({"times": [1.0, 1.0]}, ["Singular event"]),
        ({"times": [1.0]}, ["Singular event"]),
        ({"exposure_s": 0.9}, ["Short Exposure"]),
        ({"exposure_s": 0.5, "times": [], "expflag": "INCOMPLETE"}, ["Bad EXPFLAG", "No events", "Short Exposure"]),
    ],
)
def test_quality_has_every_reason_in_order(change: dict[str, Any], expected: list[str], tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", **{"times": [0.0, 1.0, 2.0], **change})
    with open_events(path) as tables:
        assert reasons(tables) == expected
        assert reasons(tables, frozenset({13902})) == [
            reason for reason in REASONS if reason in {*expected, "Bad Proposal"}
        ]


def test_what_is_wrong_with_segment_b_is_wrong_with_the_exposure(tmp_path: Path) -> None:
    a = cos_file(tmp_path / "l1_corrtag_a.fits", times=[0.0, 1.0], segment="FUVA")
    b = cos_file(tmp_path / "l1_corrtag_b.fits", times=[], segment="FUVB")
    with open_events(a) as one, open_events(b) as other:
        assert reasons([*one, *other]) == ["No events"]


def test_order_is_looked_at_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[0.0, 1.0, 0.5, 2.0])
    with open_events(path) as (table,):
        monkeypatch.setattr(type(table), "times", lambda self: iter([np.array([0.0, 1.0]), np.array([0.5, 2.0])]))
        assert reasons([table]) == ["Non-linear time"]


def test_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    times = np.sort(random.uniform(0, 60, 5000))
    path = cos_file(tmp_path / "l1_corrtag.fits", times=times, y=random.uniform(0, 1024, 5000))
    whole = curve(path)
    monkeypatch.setattr("tasks.sources.hst_timetag.events.CHUNK", 100)
    with open_events(path) as tables:
        (table,) = tables
        chunks = list(table.chunks(100))
        assert len(chunks) == 50
        assert sum(map(len, chunks)) == 5000
        monkeypatch.setattr(type(table), "chunks", lambda self: iter(chunks))
        assert extract(tables, EVERYTHING).table.equals(whole.table)


def test_columns_that_calibration_adds_are_no_obstacle(tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[0.0, 4.0], added={"NEW": [1.0, 2.0]})
    assert column(curve(path), "gross").tolist() == [1, 0]


@pytest.mark.parametrize("damage", ["empty", "cut", "no events", "other columns"])
def test_a_damaged_file_is_rejected_in_one_line(damage: str, tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=np.arange(0, 3000.0))
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-20_000])
    elif damage == "no events":
        fits.PrimaryHDU().writeto(path, overwrite=True)
    else:
        path = cos_file(tmp_path / "l2_corrtag.fits", times=[0.0, 1.0], without=["WAVELENGTH"])
    with pytest.raises(GranuleRejected) as raised:
        curve(path)
    assert path.name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_intervals() -> None:
    good = np.array([[0.0, 4.0], [7.0, 12.0]])
    assert inside(np.array([-0.1, 0.0, 4.0, 4.1, 7.0, 12.0, 12.1]), good).tolist() == [
        False, True, True, False, True, True, False,
    ]  # fmt: skip
    assert not inside(np.array([1.0]), np.zeros((0, 2))).any()
    assert intersection(good, np.array([[3.0, 8.0]])).tolist() == [[3, 4], [7, 8]]
    assert exposure_fraction(Bins(0.0, 2.0, 3), np.array([[1.0, 5.0]])).tolist() == [0.5, 1, 0.5]
    assert exposure_fraction(Bins(0.0, 2.0, 3), None).tolist() == [1, 1, 1]


@pytest.mark.parametrize(("end", "number"), [(8.0, 4), (7.99, 3), (1.0, 0)])
def test_the_last_bin_is_left_out_if_the_exposure_ends_in_it(end: float, number: int, tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[0.0, end], exposure_s=end, good_times=[(0.0, end)])
    with open_events(path) as tables:
        assert bins(tables, 2.0).number == number
