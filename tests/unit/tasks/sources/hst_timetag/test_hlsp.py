"""FITS files of light curves: names, keywords, columns, units, hostile names, whole files, readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.timeseries import TimeSeries
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import ConfigurationError
from tasks.sources.hst_timetag.hlsp import (
    COLUMNS,
    Product,
    composite_file_name,
    exposure_file_name,
    write_composite,
    write_exposure,
)

HOSTILE = "../../<b>Zoë</b>\n'; DROP_TABLE \x1b[2J" + 300 * "x"


def exposure(name: str = "ldfd01vnq", **more: Any) -> dict[str, Any]:
    return {
        "source_id": name,
        "product": "exposure",
        "association": "ldfd01010",
        "target_name": "SOME-STAR",
        "canonical_name": "V* AE Aqr",
        "instrument": "COS",
        "detector": "FUV",
        "grating": "G140L",
        "cenwave": 1105,
        "aperture": "PSA",
        "fp_pos": 3,
        "obstype": "SPECTROSCOPIC",
        "proposal": 14000,
        "calibration_version": None,
        "wavelength_min": 915.0,
        "wavelength_max": 1800.0,
        "x_min": 0.0,
        "x_max": 16384.0,
        "y_min_a": 460.5,
        "y_max_a": 511.5,
        "y_min_b": None,
        "y_max_b": None,
        "files": json.dumps({f"{name}_corrtag_a.fits": {"bytes": 1}}),
        "ra": 310.0,
        "dec": None,
        **more,
    }


def bins(names: tuple[str, ...] = ("ldfd01vnq",), n: int = 4) -> pa.Table:
    rows = [
        {
            "product": "exposure",
            "dataset": number,
            "exposure_id": name,
            "times_s": 2.0 * k,
            "mjd": 57000.0 + number + 2.0 * k / 86_400,
            "bin_s": 2.0,
            "exposure_fraction": 1.0,
            "gross": 2161.97 if k else 0.0,
            "background": 12.7314 if k else 0.0,
            "counts": 2149.2386 if k else 0.0,
            "net": 1074.6193 if k else 0.0,
            "flux": None,
            "flux_err": None,
            "error": 46.6337 if k else 0.0,
            "signal_to_noise": 46.3607 if k else None,
            "snr_net": None,
        }
        for number, name in enumerate(names, 1)
        for k in range(n)
    ]
    table = pa.Table.from_pylist(rows)
    for name in ("flux", "flux_err", "snr_net"):
        table = table.set_column(table.column_names.index(name), name, pa.nulls(len(rows), pa.float64()))
    return table


def checked(path: Path) -> fits.HDUList:
    """Open a file of which everything is verified; warnings are errors in tests."""
    with fits.open(path, checksum=True, memmap=False) as hdus:
        hdus.verify("exception")
        for hdu in hdus:
            assert {"CHECKSUM", "DATASUM"} <= set(hdu.header)
            assert hdu.verify_checksum() == hdu.verify_datasum() == 1
            _ = hdu.data
        return hdus


def test_an_exposure_has_its_columns_units_and_keywords(tmp_path: Path) -> None:
    path = write_exposure(tmp_path / "new", Product(bins(), [exposure()]))
    assert path == tmp_path / "new" / "ldfd01vnq_curve.fits"
    primary, curve = checked(path)
    assert [(column.name, column.unit) for column in curve.columns] == [(name, unit) for name, _, _, unit in COLUMNS]
    assert " ".join(curve.columns.names) == (
        "dataset times mjd bins gross background counts net flux error flux_error signal_to_noise"
    )
    assert curve.data["gross"].tolist() == [0, 2161.97, 2161.97, 2161.97]
    assert np.isnan(curve.data["flux"]).all()
    assert np.isnan(curve.data["signal_to_noise"][0])
    header = curve.header
    assert (header["STEPSIZE"], header["WMIN"], header["WMAX"], header["XMAX"]) == (2, 915, 1800, 16384)
    assert (header["YMIN_A"], header["YMAX_A"]) == (460.5, 511.5)
    assert "YMIN_B" not in header
    assert (header["EXPSTART"], header["EXPTIME"]) == (57001, 8)
    assert (header["EXPEND"] - header["EXPSTART"]) * 86_400 == pytest.approx(6, abs=1e-5)
    first = primary.header
    assert (first["STEPSIZE"], first["FILETYPE"], first["SRC00001"]) == (2, "LIGHTCURVE", "ldfd01vnq_corrtag_a.fits")
    assert {"GEN_DATE", "LC_VER", "AP_VER", "NP_VER", "SP_VER"} <= set(first)
    assert first["CAL_VER"] == fits.card.UNDEFINED or first["CAL_VER"] is None
    assert first["DATE-OBS"] == "2014-12-10T00:00:00.000"


@pytest.mark.parametrize("change", [{"instrument": "STIS", "detector": "FUV-MAMA"}, {"obstype": "IMAGING"}])
def test_a_whole_detector_has_one_range_of_rows(change: dict[str, Any], tmp_path: Path) -> None:
    path = write_exposure(tmp_path, Product(bins(), [exposure(**change, y_min_a=0.0, y_max_a=2048.0)]))
    header = checked(path)[1].header
    assert (header["YMIN"], header["YMAX"]) == (0, 2048)
    assert "YMIN_A" not in header


def test_a_composite_has_its_name_keywords_and_exposures(tmp_path: Path) -> None:
    names = ("ldfd01vnq", "ldfd01vpq")
    members = [exposure(names[0]), exposure(names[1], proposal=14001, target_name="OTHER-NAME", fp_pos=4)]
    table = bins(names)
    # The first bin of the second exposure has an event, that of the first has none.
    gross = [*table["gross"].to_pylist()[:4], *[5.0] * 4]
    table = table.set_column(table.column_names.index("gross"), "gross", [gross])
    product = Product(table, members, wavelengths=(1150.0, 1700.5), keywords={"a very long key": 7, "NOTE": "x"})
    path = write_composite(tmp_path, product)
    assert path.name == "hlsp_hstlc_hst_cos-fuv_v-ae-aqr_g140l_1105_psa_v1_sci.fits"
    primary, curve = checked(path)
    first = primary.header
    assert (first["EXTNAME"], curve.name) == ("PRIMARY", "LIGHTCURVE")
    expected = {
        "PROPOSID": 13902,
        "HLSPNAME": "The Lightcurve Legacy of COS and STIS",
        "HLSPACRN": "LLOCS",
        "CITATION": "",
        "RA_TARG": 310.0,
        "EQUINOX": 2000.0,
        "TARGNAME": "V* AE Aqr",
        "TELESCOP": "HST",
        "INSTRUME": "COS",
        "DETECTOR": "FUV",
        "FILTER": "G140L",
        "EXPSTART": 57001.0,
        "EXPTIME": 16.0,
        "A_VERY_LONG_KEY": 7,
        "NOTE": "x",
    }
    assert {name: first[name] for name in expected} == expected
    assert {"HLSPLEAD", "PR_INV_L", "PR_INV_F", "PR_INV_M", "DEC_TARG", "TARDESCR", "TARDESC2"} <= set(first)
    assert (curve.header["WMIN"], curve.header["WMAX"]) == (1150, 1700.5)
    assert curve.data["dataset"].tolist() == [1] * 4 + [2] * 4
    assert [curve.header[name] for name in ("ROOT0001", "ROOT0002")] == list(names)
    assert [curve.header[name] for name in ("EMPT0001", "EMPT0002")] == [True, False]


def test_a_row_of_a_composite_has_its_limits(tmp_path: Path) -> None:
    row = exposure("cos-fuv_x", product="composite", wavelength_min=1150.5, files=None)
    header = checked(write_composite(tmp_path, Product(bins(), [row])))[1].header
    assert (header["WMIN"], header["WMAX"]) == (1150.5, 1800)
    # An exposure has limits of its own, which are not common ones.
    header = checked(write_composite(tmp_path, Product(bins(), [exposure()]), overwrite=True))[1].header
    assert not isinstance(header["WMIN"], float)


def test_mixed_filters_are_multi_with_numbered_values(tmp_path: Path) -> None:
    members = [exposure(name, grating=grating) for name, grating in (("a", "G140L"), ("b", "G130M"), ("c", "G140L"))]
    header = checked(write_composite(tmp_path, Product(bins(("a", "b", "c")), members)))[0].header
    assert (header["FILTER"], header["FILTER01"], header["FILTER02"]) == ("MULTI", "G140L", "G130M")
    assert "FILTER03" not in header


def test_rows_are_in_order_of_dataset_and_time(tmp_path: Path) -> None:
    table = bins(("a", "b"))
    mixed = table.take([5, 2, 7, 0, 1, 6, 4, 3])
    curve = checked(write_composite(tmp_path, Product(mixed, [exposure("a"), exposure("b")])))[1]
    assert curve.data["times"].tolist() == [0, 2, 4, 6] * 2


def test_astropy_reads_tables_and_time_series(tmp_path: Path) -> None:
    path = write_composite(tmp_path, Product(bins(), [exposure()]))
    table = Table.read(path)
    assert table["net"].unit.to_string() == "ct / s"
    assert table["flux_error"].unit == table["flux"].unit
    assert table["flux"].mask.all()
    series = TimeSeries.read(path, format="fits", time_column="mjd", time_format="mjd")
    assert series.time.scale == "utc"
    assert series["gross"].sum().value == pytest.approx(3 * 2161.97)


def test_hostile_names_stay_in_the_folder_and_in_the_header(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    hostile = {"canonical_name": HOSTILE, "target_name": HOSTILE, "aperture": "a/b_c", "grating": "..", "files": None}
    composite = write_composite(folder, Product(bins(), [exposure(**hostile)], keywords={"naïve=key/'": HOSTILE}))
    alone = write_exposure(folder, Product(bins(("../x",)), [exposure("../x", **hostile)]))
    assert {path.parent for path in (composite, alone)} == {folder}
    assert sorted(tmp_path.rglob("*")) == sorted([folder, composite, alone])
    for path in (composite, alone):
        assert path.name.isascii()
        checked(path)
    assert checked(composite)[0].header["TARGNAME"].startswith("../../<b>Zo\\xeb</b> '; DROP_TABLE \\x1b[2Jxxx")


def test_the_folder_decides_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "filesystem" / "my_filesystem"
    assert write_exposure(folder, Product(bins(), [exposure()])) == folder / "ldfd01vnq_curve.fits"


def test_different_names_have_different_files() -> None:
    names = ["A B", "A/B", "A_B", "A;B", "", "***", "é", "è"]
    files = {composite_file_name("COS", "FUV", name, "G140L", 1105, "PSA") for name in names}
    assert len(files) == len(names)
    assert composite_file_name("STIS", "FUV-MAMA", "HD-1", "E140M", 1425, "0.2X0.2") == (
        "hlsp_hstlc_hst_stis-fuv-mama_hd-1_e140m_1425_0.2x0.2_v1_sci.fits"
    )


@given(st.text(max_size=400), st.text(max_size=400))
def test_any_name_makes_a_file_name(target: str, aperture: str) -> None:
    for name in (composite_file_name("COS", "FUV", target, "G140L", 1105, aperture), exposure_file_name(target)):
        assert len(name.encode()) <= 255
        assert Path(name).name == name
        assert not name.startswith((".", "-"))
        assert name.isascii()
        assert name.isprintable()
        assert " " not in name


def test_a_file_is_overwritten_on_request_alone(tmp_path: Path) -> None:
    path = write_exposure(tmp_path, Product(bins(), [exposure()]))
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="ldfd01vnq_curve"):
        write_exposure(tmp_path, Product(bins(n=9), [exposure()]))
    assert path.read_bytes() == before
    write_exposure(tmp_path, Product(bins(n=9), [exposure()]), overwrite=True)
    assert len(checked(path)[1].data) == 9


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_exposure(tmp_path, Product(bins(), [exposure()]))
    before = path.read_bytes()

    def stopped(self: Any, file: Any, **options: Any) -> None:
        file.write(before[:3000])
        raise KeyboardInterrupt

    monkeypatch.setattr(fits.HDUList, "writeto", stopped)
    for name in ("ldfd01vnq", "ldfd01vpq"):
        with pytest.raises(KeyboardInterrupt):
            write_exposure(tmp_path, Product(bins(), [exposure(name)]), overwrite=True)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_light_curve_without_bins_is_a_file_without_rows(tmp_path: Path) -> None:
    _, curve = checked(write_exposure(tmp_path, Product(bins().slice(0, 0), [exposure()])))
    assert len(curve.data) == 0
    assert curve.header["EXPTIME"] == 0


def test_numbers_that_are_none_have_no_value(tmp_path: Path) -> None:
    path = write_exposure(tmp_path, Product(bins(), [exposure(ra=float("nan"), x_min=float("inf"))]))
    primary, curve = checked(path)
    assert not isinstance(primary.header["RA_TARG"], float)
    assert not isinstance(curve.header["XMIN"], float)
