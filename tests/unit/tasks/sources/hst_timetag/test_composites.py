"""Composites: common wavelengths, order, images, members without events, empty bins, files open one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from astropy.io import fits
from helpers.hst import corrtag_of, cos_file, stis_file

from lake.errors import GranuleRejected
from tasks.sources.hst_timetag.composites import (
    NO_BINS,
    NO_VALID_EVENTS,
    Composite,
    Group,
    Member,
    composite,
    wavelength_range,
)
from tasks.sources.hst_timetag.events import open_events
from tasks.sources.hst_timetag.exposure import Exposure, open_exposure
from tasks.sources.hst_timetag.extract import AIRGLOW, Selection, extract
from tasks.sources.hst_timetag.products import bin_rows
from tasks.sources.hst_timetag.tables import band_of

Made = Callable[..., Member]


def rows_of(result: Composite) -> pa.Table:
    """All bins of a composite."""
    return bin_rows(result.curves, "composite")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Return what writes an exposure, of 5 bins of 2 s with two events each at the ends of its wavelengths."""

    def make(name: str, wavelengths: Any = (1300.0, 1500.0), times: Any = None, **more: Any) -> Member:
        times = np.repeat(np.arange(0, 10.1, 2), 2) if times is None else np.asarray(times, float)
        path = cos_file(
            tmp_path / f"{name}_corrtag_a.fits",
            times=times,
            wavelengths=np.resize(wavelengths, len(times)),
            **{"segment": "FUVA", **more},
        )
        return Member(name, lambda: open_exposure([path], name))

    return make


def test_exposures_are_cut_to_common_wavelengths_in_order_of_time(made: Made) -> None:
    later = made("late", (1320, 1400, 1460, 1600), start_mjd=57940.0)
    early = made("early", (1250, 1319, 1400, 1450), start_mjd=57930.0)
    result = composite([later, early])
    assert result.wavelengths == (1320, 1450)
    assert result.members["exposure_id"].to_pylist() == ["early", "late"]
    assert result.members["dataset"].to_pylist() == [1, 2]
    assert result.members["wavelength_min"].to_pylist() == [1250, 1320]
    rows = rows_of(result).to_pylist()
    assert [row["dataset"] for row in rows] == [1] * 5 + [2] * 5
    assert {(row["product"], row["exposure_id"], row["bin_s"]) for row in rows} == {
        ("composite", "early", 2.0),
        ("composite", "late", 2.0),
    }
    # Both ends of the common range are excluded: 1400 of each exposure is left, every second bin.
    assert [row["gross"] for row in rows] == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert rows[5]["mjd"] == 57940.0


def test_an_exposure_with_an_empty_bin_is_kept_and_marked(made: Made) -> None:
    full = made("full", start_mjd=57931.0, wavelengths=[1300, 1400, 1400, 1500], times=np.repeat(np.arange(0, 10.1), 4))
    eclipsed = made("eclipsed", start_mjd=57932.0, wavelengths=[1300, 1400, 1500], times=[0, 0, 0, 10, 10, 10])
    result = composite([full, eclipsed])
    assert result.members["has_empty_bin"].to_pylist() == [False, True]
    assert rows_of(result)["dataset"].to_pylist() == [1] * 5 + [2] * 5
    assert rows_of(result)["gross"].to_pylist()[5:] == [1, 0, 0, 0, 0]


def test_a_gap_is_no_empty_bin(made: Made) -> None:
    times = [0, 0, 0, 2, 2, 2, 8, 8, 8, 10, 10, 10]
    gap = made("gap", wavelengths=[1300, 1400, 1500], times=times, good_times=[(0, 4), (8, 10)])
    result = composite([gap])
    assert result.members["has_empty_bin"].to_pylist() == [False]
    assert rows_of(result)["gross"].to_pylist() == [1, 1, None, None, 1]


@pytest.mark.parametrize("place", [0, 1])
def test_an_exposure_without_a_good_event_is_left_out_wherever_it_stands(place: int, made: Made) -> None:
    bad = made("bad", flags=8, serious=8, start_mjd=57931.0 + 10 * place)
    good = made("good", start_mjd=57935.0)
    result = composite([bad, good])
    members = {row["exposure_id"]: row for row in result.members.to_pylist()}
    assert (members["bad"]["reason"], members["bad"]["dataset"]) == (NO_VALID_EVENTS, None)
    assert (members["good"]["reason"], members["good"]["dataset"]) == (None, 1)
    assert set(rows_of(result)["exposure_id"].to_pylist()) == {"good"}


def test_an_exposure_of_less_than_a_bin_is_left_out(made: Made) -> None:
    result = composite([made("short", times=[0.0, 1.0]), made("long")])
    assert {row["exposure_id"]: row["reason"] for row in result.members.to_pylist()} == {"short": NO_BINS, "long": None}
    assert set(rows_of(result)["dataset"].to_pylist()) == {1}


def test_nothing_usable_is_a_reason(made: Made, tmp_path: Path) -> None:
    (tmp_path / "cut_tag.fits").write_bytes(b"SIMPLE")
    cut = Member("cut", lambda: open_exposure([tmp_path / "cut_tag.fits"], "cut"))
    with pytest.raises(GranuleRejected, match=NO_VALID_EVENTS) as raised:
        composite([made("bad", flags=512), cut])
    assert "cut_tag.fits" in str(raised.value)
    with pytest.raises(GranuleRejected, match=NO_BINS):
        composite([made("short", times=[0.0, 1.0])])


def test_one_broken_file_does_not_stop_the_others(made: Made, tmp_path: Path) -> None:
    (tmp_path / "cut_tag.fits").write_bytes(b"SIMPLE")
    result = composite([Member("cut", lambda: open_exposure([tmp_path / "cut_tag.fits"], "cut")), made("good")])
    assert result.members["exposure_id"].to_pylist() == ["good", "cut"]
    assert "cut_tag.fits" in result.members["reason"].to_pylist()[1]


def test_wavelengths_without_anything_in_common_are_a_reason(made: Made) -> None:
    with pytest.raises(GranuleRejected, match="no wavelength in common") as raised:
        composite([made("blue", (1000, 1200)), made("red", (1400, 1700))])
    assert "blue 1000.0 to 1200.0" in str(raised.value)


def test_images_have_a_composite(made: Made) -> None:
    image = {"obstype": "IMAGING", "segment": "N/A", "x": 500.0, "y": 100.0, "wavelengths": 0.0}
    result = composite([made("one", **image, start_mjd=57931.0), made("two", **image, start_mjd=57932.0)])
    assert result.wavelengths is None
    assert rows_of(result)["gross"].to_pylist() == [2.0] * 10
    assert result.members["wavelength_min"].to_pylist() == [None, None]


def test_both_segments_are_pooled(tmp_path: Path) -> None:
    paths = [
        cos_file(
            tmp_path / f"both_corrtag_{letter}.fits",
            times=np.repeat(np.arange(0, 10.1), 2),
            wavelengths=np.resize(wavelengths, 22),
            segment=f"FUV{letter.upper()}",
            flags=flag,
            serious=serious,
        )
        # Events of B are flagged 4, which only the header of A names.
        for letter, wavelengths, flag, serious in (("a", (1400, 1700), 0, 4), ("b", (1000, 1200), 16, 8))
    ]
    with open_exposure(paths, "both") as opened:
        assert wavelength_range(opened) == (1000, 1700)


def test_flags_are_those_of_all_segments_and_hard_limits_hold(made: Made, tmp_path: Path) -> None:
    a = cos_file(
        tmp_path / "l_corrtag_a.fits", times=[0, 1, 2], wavelengths=[911, 950, 1801], segment="FUVA", serious=4
    )
    b = cos_file(
        tmp_path / "l_corrtag_b.fits", times=[0, 1], wavelengths=[930, 940], segment="FUVB", flags=4, serious=8
    )
    with open_exposure([a, b], "l") as opened:
        assert wavelength_range(opened) == (950, 950)


def test_files_are_open_one_at_a_time(made: Made) -> None:
    now: list[str] = []
    most = 0

    def watched(member: Member) -> Member:
        @contextmanager
        def opened() -> Iterator[Exposure]:
            nonlocal most
            with member.open() as found:
                now.append(member.exposure_id)
                most = max(most, len(now))
                yield found
                now.remove(member.exposure_id)

        return Member(member.exposure_id, opened)

    result = composite([watched(made(f"e{n}", start_mjd=57930.0 + n)) for n in range(5)])
    assert most == 1
    assert result.members["dataset"].to_pylist() == [1, 2, 3, 4, 5]


def test_a_spectrum_is_no_need_of_stis(tmp_path: Path) -> None:
    # Without it all events have the central wavelength, which is no range.
    path = stis_file(tmp_path / "of9b05010_tag.fits", {"OF9B05VDQ": np.arange(0, 6.1, 0.5), "OF9B05VEQ": [0.0, 4.0]})
    member = Member("of9b05vdq", lambda: open_exposure([path], "of9b05vdq", environment={}))
    result = composite([member])
    assert result.wavelengths is None
    assert rows_of(result)["gross"].to_pylist() == [4, 4, 4]
    with pytest.raises(GranuleRejected, match="of9b05vxq"), open_exposure([path], "of9b05vxq", environment={}):
        pass


def test_a_composite_of_one_is_its_exposure_over_its_own_wavelengths(made: Made) -> None:
    member = made("one", (1300, 1400, 1500))
    result = composite([member], Selection(step_s=1.0))
    with member.open() as opened:
        alone = extract(opened.tables, Selection(wavelengths=(1300, 1500), step_s=1.0))
    assert rows_of(result).select(alone.table.column_names).equals(alone.table)


def test_names_of_groups(tmp_path: Path) -> None:
    with open_events(stis_file(tmp_path / "of9b05010_tag.fits", {"OF9B05VDQ": [0.0, 4.0]})) as (table,):
        group = Group.of(table, "V* AE Aqr")
    assert group.source_id == "stis-fuv-mama_v* ae aqr_e140m_1425_0.2x0.2"
    assert band_of(group.instrument, group.detector, group.grating) == "stis_fuvmama_e140m"


def test_real_exposures_have_the_events_within_their_common_wavelengths(data_dir: Path, tmp_path: Path) -> None:
    names, folder = ("ldfd01vnq", "ldfd01vpq"), data_dir / "hst_cos_stis"
    paths = {
        name: corrtag_of(
            folder / f"{name}_rawtag_a.fits.gz", folder / f"{name}_x1d.fits.gz", tmp_path / f"{name}_corrtag_a.fits"
        )
        for name in names
    }
    result = composite([Member(name, partial(open_exposure, [paths[name]], name)) for name in reversed(names)])
    assert result.members["exposure_id"].to_pylist() == list(names)
    assert result.wavelengths is not None
    low, high = result.wavelengths
    assert (low, high) == pytest.approx((1027.02, 1799.93), abs=0.01)
    for name, curve in result.curves:
        with fits.open(paths[name]) as hdus:
            events, header = hdus["EVENTS"].data, hdus["EVENTS"].header
            wavelength = events["WAVELENGTH"]
            good = (events["DQ"] == 0) & (np.abs(events["YCORR"] - header["SP_LOC_A"]) < header["SP_HGT_A"] / 2)
            good &= (wavelength > low) & (wavelength < high) & (events["TIME"] < 2.0 * 558)
            for first, last in AIRGLOW:
                good &= (wavelength < first) | (wavelength > last)
            assert pc.sum(curve.table["gross"]).as_py() == good.sum()
