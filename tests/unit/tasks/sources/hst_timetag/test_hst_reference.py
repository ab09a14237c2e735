"""Fluxes of COS through reference files, and what STIS tag files need: wavelengths, flat fields, bad pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from helpers.hst import cos_file, stis_file, table_hdu

from lake.errors import GranuleRejected
from tasks.sources.hst_timetag.events import Photons, open_events
from tasks.sources.hst_timetag.extract import Selection, extract
from tasks.sources.hst_timetag.reference import sensitivities, stis_bad_pixels, stis_flat
from tasks.sources.hst_timetag.stis import Order, orders, preparation, wavelengths

HEADER = {"FLUXTAB": "lref$x_phot.fits", "TDSTAB": "lref$x_tds.fits"}


def references(folder: Path, *, rows: int = 1, segment: str = "FUVA", header_time: bool = True) -> dict[str, str]:
    """Write a sensitivity of 2e12 at 1200 to 4e12 at 1600 Angstrom, which declines by 10 and 20 percent a year."""
    segments = segment.split() * rows
    rows = len(segments)
    keys = {"SEGMENT": segments, "OPT_ELEM": ["G140L"] * rows, "APERTURE": ["PSA"] * rows}
    phot = table_hdu(
        {**keys, "CENWAVE": [1105] * rows, "WAVELENGTH": [[1200, 1600]] * rows, "SENSITIVITY": [[2e12, 4e12]] * rows}
    )
    tds = table_hdu(
        {
            **keys,
            "NWL": [2] * rows,
            "NT": [2] * rows,
            # Times and wavelengths beyond NT and NWL mean nothing.
            "WAVELENGTH": [[1000, 2000, -1]] * rows,
            "TIME": [[55000.0, 57000.0, 0.0]] * rows,
            "SLOPE": [[0, 0, 9, -10, -20, 9, 9, 9, 9]] * rows,
            "INTERCEPT": [[1, 1, 9, 1, 1, 9, 9, 9, 9]] * rows,
            **({} if header_time else {"REF_TIME": [57000.0] * rows}),
        }
    )
    if header_time:
        tds.header["REF_TIME"] = 57000.0
    fits.HDUList([fits.PrimaryHDU(), phot]).writeto(folder / "x_phot.fits")
    fits.HDUList([fits.PrimaryHDU(), tds]).writeto(folder / "x_tds.fits")
    return {"lref": f"{folder}/"}


@pytest.mark.parametrize("header_time", [True, False])
def test_flux_has_the_response_and_its_decline(header_time: bool, tmp_path: Path) -> None:
    environment = references(tmp_path, header_time=header_time)
    # 4 source events and 2 of the background, one year after the reference time, all at 1400 Angstrom, pixels 0 to 9.
    path = cos_file(
        tmp_path / "l1_corrtag_a.fits",
        times=[0, 0, 1, 1, 1, 1, 2],
        x=[0, 9, 0, 9, 5, 5, 5],
        y=[500, 500, 500, 500, 100, 900, 100],
        wavelengths=1400.0,
        segment="FUVA",
        start_mjd=57000.0 + 365.25,
        boxes={"A": ((500, 20), (100, 20), (900, 20))},
        primary=HEADER,
    )
    with open_events(path) as tables:
        known = sensitivities(tables[0], environment)
        result = extract(tables, Selection(), known)
    row = result.table.to_pylist()[0]
    assert result.is_flux_calibrated
    # 3e12 at 1400; the decline there is 1 - (0.10 + 0.4 * 0.10).
    flux = (4 - 0.5 * 2) / (2.0 * 3e12 * 0.86 * 10)
    assert row["flux"] == pytest.approx(flux, rel=1e-6)
    assert row["flux_err"] == pytest.approx(np.sqrt(4 + 1) / 3 * flux, rel=1e-6)


def test_an_exposure_before_all_times_has_the_first_slopes(tmp_path: Path) -> None:
    environment = references(tmp_path)
    path = cos_file(tmp_path / "l1_corrtag_a.fits", times=[0, 4], segment="FUVA", start_mjd=54000.0, primary=HEADER)
    with open_events(path) as (table,):
        assert sensitivities(table, environment)["A"].decline(np.array([1400.0])) == pytest.approx([1.0])


@pytest.mark.parametrize("missing", ["environment", "file", "row", "keyword"])
def test_without_references_counts_are_right_and_flux_is_null(missing: str, tmp_path: Path) -> None:
    environment = references(tmp_path, segment="FUVB" if missing == "row" else "FUVA")
    if missing == "environment":
        environment = {}
    elif missing == "file":
        (tmp_path / "x_tds.fits").unlink()
    header = {"FLUXTAB": "N/A"} if missing == "keyword" else HEADER
    path = cos_file(tmp_path / "l1_corrtag_a.fits", times=[0, 1, 4], segment="FUVA", primary=header)
    with open_events(path) as tables:
        result = extract(tables, Selection(), sensitivities(tables[0], environment))
    assert not result.is_flux_calibrated
    assert result.table["gross"].to_pylist() == [2, 0]
    assert result.table["flux"].null_count == result.table["flux_err"].null_count == 2


def test_two_rows_that_fit_are_an_error(tmp_path: Path) -> None:
    environment = references(tmp_path, rows=2)
    path = cos_file(tmp_path / "l1_corrtag_a.fits", times=[0, 4], segment="FUVA", primary=HEADER)
    with open_events(path) as (table,), pytest.raises(GranuleRejected, match=r"x_phot\.fits has 2 rows"):
        sensitivities(table, environment)


def test_rows_of_each_setting_are_told_apart(tmp_path: Path) -> None:
    keys = {"SEGMENT": ["FUVA"] * 2, "OPT_ELEM": ["G140L"] * 2, "APERTURE": ["PSA"] * 2, "CENWAVE": [1105, 1105]}
    ends = [[1000, 2000]] * 2
    phot = table_hdu({**keys, "FPOFFSET": [0, 1], "WAVELENGTH": ends, "SENSITIVITY": [[1e12, 1e12], [2e12, 2e12]]})
    values = {"NWL": [2] * 2, "NT": [1] * 2, "WAVELENGTH": ends, "TIME": [[55000.0, 0.0]] * 2}
    values |= {"SLOPE": [[0.0] * 4] * 2, "INTERCEPT": [[1.0] * 4, [0.5] * 4], "REF_TIME": [55000.0] * 2}
    tds = table_hdu({**keys, "CENWAVE": [1280, 1105], **values})
    for name, hdu in (("x_phot", phot), ("x_tds", tds)):
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / f"{name}.fits")
    for fp_pos, response in ((3, 1e12), (4, 2e12)):
        path = cos_file(
            tmp_path / f"l{fp_pos}_corrtag_a.fits", times=[0, 4], segment="FUVA", primary={**HEADER, "FPPOS": fp_pos}
        )
        with open_events(path) as (table,):
            found = sensitivities(table, {"lref": str(tmp_path)})["A"]
        assert found.response(np.array([1400.0])) == pytest.approx([response])
        assert found.decline(np.array([1400.0])) == pytest.approx([0.5])


def test_stripes_of_nuv_have_rows_of_their_own(tmp_path: Path) -> None:
    environment = references(tmp_path, segment="NUVB")
    boxes = {name: ((place, 20), (100, 20), (900, 20)) for name, place in (("A", 300), ("B", 500), ("C", 700))}
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[0, 4], boxes=boxes, primary=HEADER)
    with open_events(path) as tables:
        known = sensitivities(tables[0], environment)
        assert list(known) == ["B"]
        # A flux of some stripes would be none of the spectrum.
        assert not extract(tables, Selection(), known).is_flux_calibrated


def test_a_flux_of_nuv_is_of_all_its_stripes(tmp_path: Path) -> None:
    environment = references(tmp_path, segment="NUVA NUVB NUVC")
    boxes = {name: ((place, 20), (100, 20), (900, 20)) for name, place in (("A", 300), ("B", 500), ("C", 700))}
    path = cos_file(tmp_path / "l1_corrtag.fits", times=[0, 4], boxes=boxes, primary=HEADER)
    with open_events(path) as tables:
        known = sensitivities(tables[0], environment)
        assert list(known) == ["A", "B", "C"]
        result = extract(tables, Selection(), known)
    assert result.is_flux_calibrated
    assert result.table["flux"].null_count == 0


def test_source_and_background_have_one_response(tmp_path: Path) -> None:
    environment = references(tmp_path)
    # The background is redder than the source, where the response is higher.
    path = cos_file(
        tmp_path / "l1_corrtag_a.fits",
        times=[0, 0, 1, 1, 1, 1, 2],
        x=[0, 9, 0, 9, 5, 5, 5],
        y=[500, 500, 500, 500, 100, 900, 100],
        wavelengths=[1400] * 4 + [1600] * 3,
        segment="FUVA",
        start_mjd=57000.0 + 365.25,
        boxes={"A": ((500, 20), (100, 20), (900, 20))},
        primary=HEADER,
    )
    with open_events(path) as tables:
        row = extract(tables, Selection(), sensitivities(tables[0], environment)).table.to_pylist()[0]
    assert row["flux"] == pytest.approx((4 / 0.86 - 0.5 * 2 / 0.84) / (2.0 * 3e12 * 10), rel=1e-6)


def test_a_stis_tag_file_has_its_times_and_its_exposures_names(tmp_path: Path) -> None:
    path = stis_file(tmp_path / "of9b05010_tag.fits", {"of9b05vdq": [0.5, 1.25, 7.000125], "of9b05vfq": [0.0, 2.0]})
    with open_events(path) as tables:
        assert [table.exposure_id for table in tables] == ["of9b05vdq", "of9b05vfq"]
        assert np.concatenate(list(tables[0].times())) == pytest.approx([0.5, 1.25, 7.000125], abs=1e-9)
        first = tables[0]
        assert (first.instrument, first.detector, first.grating, first.fp_pos) == ("STIS", "FUV-MAMA", "E140M", 0)
        assert first.calibration_version is None
        assert first.serious_dq == 31743
        assert (first.association, first.exposure_s) == ("of9b05010", pytest.approx(7.000125))
        assert [len(table.good_times) for table in tables if table.good_times is not None] == [1, 1]


def photons(x: Any, y: Any) -> Photons:
    n = len(np.atleast_1d(x))
    zero = np.zeros(n)
    return Photons(zero, np.atleast_1d(x).astype(float), np.broadcast_to(y, n).astype(float), zero, zero, zero)


def test_an_event_of_two_orders_belongs_to_the_nearer() -> None:
    solution = np.linspace(1200, 1300, 1024)
    found = [Order(solution, 100, 10), Order(solution + 500, 115, 10)]
    # Pixels of the spectrum are two fine ones wide.
    expected = solution[500]
    assert wavelengths(found, photons(1001, [101])).tolist() == [expected]
    assert wavelengths(found, photons([1001, 1001, 1001], [107, 109, 200])).tolist() == [expected, expected + 500, 0]
    assert wavelengths([Order(solution)], photons([1001], 2000)).tolist() == [expected]


def test_orders_of_an_echelle_are_shifted(tmp_path: Path) -> None:
    x1d = tmp_path / "of9b05010_x1d.fits"
    table = table_hdu({"WAVELENGTH": [[1.0] * 1024, [2.0] * 1024], "A2CENTER": [100.0, 200.0], "EXTRSIZE": [7.0, 7.0]})
    table.header["SHIFTA2"] = 3.5
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(x1d)
    path = stis_file(tmp_path / "of9b05010_tag.fits", {"of9b05vdq": [0.0, 2.0]})
    with open_events(path) as (events,):
        assert [(order.centre, order.half_height) for order in orders(events, x1d)] == [(103.5, 7), (203.5, 7)]
        assert set(orders(events, None)[0].wavelength) == {1425.0}


def test_weights_are_one_over_the_flat_and_bad_pixels_are_flagged(tmp_path: Path) -> None:
    flat = np.ones((1024, 1024))
    flat[10, 20] = 0.5
    for name, image in (("p", flat), ("l", np.full((512, 512), 0.8))):
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image, name="SCI")]).writeto(tmp_path / f"{name}.fits")
    bad = table_hdu({"PIX1": [21, 31], "PIX2": [11, 11], "LENGTH": [3, 2], "AXIS": [1, 2], "VALUE": [16, 4]})
    fits.HDUList([fits.PrimaryHDU(), bad]).writeto(tmp_path / "b.fits")
    environment = {"oref": str(tmp_path)}
    names = {"PFLTFILE": "oref$p.fits", "LFLTFILE": "oref$l.fits", "BPIXTAB": "oref$b.fits"}
    # Fine pixels count from 1: 41 and 42 are pixel 20.
    path = stis_file(
        tmp_path / "o1_tag.fits", {"o1": [0, 0, 1, 4]}, x=[41, 42, 43, 0], y=[21, 22, 21, 21], primary=names
    )
    with open_events(path) as (table,):
        measured, flags = stis_flat(table, environment), stis_bad_pixels(table, environment)
        assert measured is not None
        assert flags is not None
        assert measured[20, 40] == pytest.approx(0.4)
        assert np.argwhere(flags[::2, ::2]).tolist() == [[10, 20], [10, 21], [10, 22], [10, 30], [11, 30]]
        prepared, missing = preparation(table, None, environment)
        (events,) = table.chunks()
        done = prepared(table, events)
        assert missing == ["x1d"]
        assert done.weight == pytest.approx([2.5, 2.5, 1.25, 0.0])
        assert done.quality.tolist() == [16, 16, 16, 0]


def test_a_stis_curve_has_counts_and_neither_background_nor_flux(tmp_path: Path) -> None:
    path = stis_file(tmp_path / "o1_tag.fits", {"o1": np.arange(0, 10.01, 0.25)})
    with open_events(path) as tables:
        prepared, missing = preparation(tables[0], None, {})
        result = extract(tables, Selection(), prepared=prepared)
    assert missing == ["x1d", "flat fields", "bad pixels"]
    assert result.table["gross"].to_pylist() == [8] * 5
    assert result.table["counts"].to_pylist() == [8] * 5
    assert result.table["background"].null_count == result.table["flux"].null_count == 5
    assert not result.has_background
    assert result.limits.rows == {"": (0, 2048)}


@pytest.mark.parametrize("instrument", ["COS", "STIS"])
def test_images_are_binned_without_wavelengths(instrument: str, tmp_path: Path) -> None:
    times = np.arange(0, 10.01, 0.5)
    if instrument == "COS":
        path = cos_file(
            tmp_path / "l1_corrtag.fits", times=times, wavelengths=0.0, x=500.0, y=100.0, obstype="IMAGING", boxes={}
        )
    else:
        path = stis_file(tmp_path / "o1_tag.fits", {"o1": times}, primary={"OBSTYPE": "IMAGING"})
    with open_events(path) as tables:
        prepared = preparation(tables[0], None, {})[0] if instrument == "STIS" else (lambda table, found: found)
        result = extract(tables, Selection(wavelengths=(1200, 1300)), prepared=prepared)
        assert tables[0].cenwave == 0
    assert result.table["gross"].to_pylist() == [4] * 5
