"""Exposures of the files that they consist of: segments together, one without the other, several in a file."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from helpers.hst import cos_file, stis_file, table_hdu

from lake.errors import GranuleRejected
from tasks.sources.hst_timetag.exposure import open_exposures, split_name
from tasks.sources.hst_timetag.extract import Selection
from tasks.sources.hst_timetag.products import Made, tables_of

TIMES = np.arange(0, 10.01, 0.5)


def segments(folder: Path) -> list[Path]:
    return [
        cos_file(folder / f"l1_corrtag_{letter}.fits", times=TIMES, segment=f"FUV{letter.upper()}") for letter in "ab"
    ]


def test_segments_are_one_exposure_and_either_is_one_alone(tmp_path: Path) -> None:
    both = segments(tmp_path)
    gross = []
    for files in (both, both[::-1], both[:1], both[1:]):
        with open_exposures(files) as (exposure,):
            exposure.check()
            assert exposure.exposure_id == "l1"
            gross.append(sum(exposure.curve(Selection()).table["gross"].to_pylist()))
    assert gross == [40, 40, 20, 20]


def test_a_file_of_two_exposures_is_two(tmp_path: Path) -> None:
    path = stis_file(tmp_path / "o1_tag.fits", {"o1a": TIMES, "o1b": [0.0, 0.5]})
    with open_exposures([path]) as exposures:
        assert [exposure.exposure_id for exposure in exposures] == ["o1a", "o1b"]
        assert exposures[0].curve(Selection()).bins.number == 5
        with pytest.raises(GranuleRejected, match="Short Exposure"):
            exposures[1].curve(Selection())


def test_all_reasons_are_in_the_message_the_first_first(tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[], exposure_s=0.0, expflag="INTERRUPTED")
    with open_exposures([path]) as (exposure,), pytest.raises(GranuleRejected) as raised:
        exposure.check()
    assert str(raised.value).split("; ") == ["Bad EXPFLAG", "No events", "Short Exposure"]


def test_files_that_do_not_belong_together_are_no_exposure(tmp_path: Path) -> None:
    one, other = segments(tmp_path)
    for number, (what, more) in enumerate(
        {
            "same segment": {"segment": "FUVA"},
            "different times": {"segment": "FUVB", "start_mjd": 57934.3},
            "cenwave": {"segment": "FUVB", "primary": {"CENWAVE": 1280}},
        }.items()
    ):
        wrong = cos_file(tmp_path / f"w{number}_corrtag_b.fits", times=TIMES, **more)  # type: ignore[arg-type]
        with pytest.raises(GranuleRejected, match=what), open_exposures([one, wrong]):
            pass
    with open_exposures([one, other]) as (exposure,):
        assert len(exposure.tables) == 2


@pytest.mark.parametrize("good", [[], [(5.0, 1.0)], [(3.0, 3.0)], [(100.0, 110.0)], [(np.nan, 4.0)]])
def test_without_good_time_there_is_no_light_curve(good: list[tuple[float, float]], tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=TIMES, good_times=good)
    with open_exposures([path]) as (exposure,), pytest.raises(GranuleRejected, match="Short Exposure: GTI"):
        exposure.curve(Selection())


def test_good_times_in_any_order_and_twice_count_once(tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=TIMES, good_times=[(5.0, 10.0), (0.0, 2.0), (1.0, 3.0)])
    with open_exposures([path]) as (exposure,):
        table = exposure.curve(Selection()).table
    assert table["exposure_fraction"].to_pylist() == [1.0, 0.5, 0.5, 1.0, 1.0]
    assert table["gross"].to_pylist() == [4, 3, 2, 4, 4]


@pytest.mark.parametrize(
    ("primary", "reason"),
    [
        ({"PROPOSID": 10**12}, "PROPOSID"),
        ({"CENWAVE": "abc"}, "cannot be read"),
        ({"RA_TARG": 400.0}, "no position"),
        ({"DEC_TARG": 95.0}, "no position"),
    ],
)
def test_headers_that_cannot_be_are_rejected_by_name(primary: dict[str, object], reason: str, tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=TIMES, primary=primary)
    with pytest.raises(GranuleRejected, match=reason) as raised, open_exposures([path]) as (exposure,):
        tables_of(Made("l1", "exposure", exposure.first, "x", [("l1", exposure.curve(Selection()))]), "g")
    assert path.name in str(raised.value)


@pytest.mark.parametrize("start_mjd", [0.0, 1e9, np.inf])
def test_a_start_that_is_no_day_of_hst_is_rejected(start_mjd: float, tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=TIMES)
    fits.setval(path, "EXPSTART", value=start_mjd if np.isfinite(start_mjd) else "inf", ext=1)
    with pytest.raises(GranuleRejected, match="EXPSTART"), open_exposures([path]):
        pass


def test_times_without_end_are_in_no_order(tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[*TIMES, np.inf], exposure_s=10.0, good_times=[(0.0, 10.0)])
    with open_exposures([path]) as (exposure,), pytest.raises(GranuleRejected, match="Non-linear time"):
        exposure.check()


def test_events_without_a_weight_do_not_count(tmp_path: Path) -> None:
    weights = np.ones(len(TIMES))
    weights[[1, 3, 5]] = np.nan, np.inf, -2.0
    path = cos_file(tmp_path / "l1_corrtag.fits", times=TIMES, weights=weights)
    with open_exposures([path]) as (exposure,):
        assert exposure.curve(Selection()).table["gross"].to_pylist() == [2, 3, 4, 4, 4]


def test_bins_without_end_are_refused(tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=TIMES)
    with open_exposures([path]) as (exposure,), pytest.raises(GranuleRejected, match="bins must be longer"):
        exposure.curve(Selection(step_s=1e-6))


@pytest.mark.parametrize("content", [b"", b"x" * 5000, None])
def test_a_spectrum_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    path, x1d = stis_file(tmp_path / "o1_tag.fits", {"o1a": TIMES}), tmp_path / "o1_x1d.fits"
    if content is None:
        fits.HDUList([fits.PrimaryHDU(), table_hdu({"WAVELENGTH": np.full((1, 1024), np.nan)})]).writeto(x1d)
        fits.setval(path, "OPT_ELEM", value="G140L", ext=0)
    else:
        x1d.write_bytes(content)
    with open_exposures([path, x1d]) as (exposure,), pytest.raises(GranuleRejected, match="o1_x1d"):
        exposure.curve(Selection())


def test_files_that_were_cut_off_or_damaged_are_rejected_in_any_thread(tmp_path: Path) -> None:
    whole = cos_file(tmp_path / "l1_corrtag.fits", times=np.arange(0, 600, 0.01)).read_bytes()
    packed = gzip.compress(whole)
    # In the middle of the events, of the header of the good times, and of these.
    headers = whole.index(b"GTI     ")
    broken = {f"l{end}_corrtag.fits": whole[:end] for end in (len(whole) // 2, headers, len(whole) - 100)}
    middle = len(packed) // 2
    broken["lcut_corrtag.fits.gz"] = packed[:-20]
    broken["lflip_corrtag.fits.gz"] = packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :]
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        # As another thread may leave it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(GranuleRejected, match=name), open_exposures([tmp_path / name]):
                pass
    for name, content in (("l2_corrtag.fits.gz", packed), ("l3_corrtag.fits", whole + b"\0" * 2880)):
        (tmp_path / name).write_bytes(content)
        with open_exposures([tmp_path / name]) as (exposure,):
            assert exposure.curve(Selection()).bins.number == 299


@pytest.mark.parametrize("name", ["DARK", "ANY", "wave"])
def test_names_that_are_no_objects_are_no_science(name: str, tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=TIMES, primary={"TARGNAME": name})
    with open_exposures([path]) as (exposure,):
        assert not exposure.is_science


@pytest.mark.parametrize("exptype", ["EXTERNAL/SCI", "WAVECAL", "EXTERNAL/CAL"])
def test_lamps_and_calibrations_are_told_from_science(exptype: str, tmp_path: Path) -> None:
    path = cos_file(tmp_path / "l1_corrtag.fits", times=TIMES, primary={"EXPTYPE": exptype})
    with open_exposures([path]) as (exposure,):
        assert exposure.is_science is (exptype == "EXTERNAL/SCI")


def test_a_spectrum_alone_is_no_exposure(tmp_path: Path) -> None:
    with pytest.raises(GranuleRejected, match="no event file"), open_exposures([tmp_path / "l1_x1d.fits"]):
        pass


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ldfd01vnq_corrtag_a.fits", ("ldfd01vnq", "corrtag_a")),
        ("OF9B05010_TAG.FITS", ("of9b05010", "tag")),
        ("of9b05010_tag.fits.gz", ("of9b05010", "tag")),
        ("ldfd01010_x1dsum.fits", None),
        ("ldfd01vnq_rawtag_a.fits", None),
        ("../x_tag.fits", None),
    ],
)
def test_names_of_files(name: str, expected: tuple[str, str] | None) -> None:
    assert split_name(name) == expected
