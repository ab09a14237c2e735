"""Exposures of the files that they consist of: segments together, one without the other, several in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.hst import cos_file, stis_file

from lake.errors import GranuleRejected
from tasks.sources.hst_timetag.exposure import open_exposures, split_name
from tasks.sources.hst_timetag.extract import Selection

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
