"""Lists that are a little odd: right positions and fields, or an error that names the column, never a wrong target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lake.errors import ConfigurationError
from tasks.samples.files import read_targets

RIGHT: dict[str, list[dict[str, Any]]] = {
    "epochkw.fits": [{"name": "a", "ra": 1.64073, "dec": 0.57834}, {"name": "b", "ra": 2.6408, "dec": 0.77818}],
    "eq_J2000_None.fits": [{"name": "a", "ra": 186.6, "dec": 2.3}],
    "spot.csv": [{"name": "3C273", "ra": 187.2777, "dec": 2.0523}],
    "vizier_gaia2_nomain.vot": [
        {"name": "4472832130942575872", "ra": 269.448503, "dec": 4.738009, "ref_epoch": 2015.5}
    ],
    "lum_b.csv": [{"ra": 10.68, "dec": 41.27}, {"ra": 20.1, "dec": -5.2}],
    "epoch_unit_d.ecsv": [{"ra": 311.2897, "dec": -31.3409, "pm_ra": 281.4, "ref_epoch": None}],
    "pm999.csv": [{"ra": 10.0, "dec": 41.0, "pm_ra": None, "pm_dec": None, "ref_epoch": 2000.0}],
    "pmarcsec.csv": [{"ra": 269.45, "pm_ra": -800.0, "pm_dec": 10360.0, "ref_epoch": 2000.0}],
    "ra_hours.csv": [{"name": "Sirius", "ra": 101.287215, "dec": -16.716116}],
    "z_J.csv": [{"ra": 10.0, "dec": 41.0, "redshift": None}],
    "fieldmeta.parquet": [{"name": "a", "ra": 68.7549354, "dec": -28.6478898}],
    "ztffloat.parquet": [{"name": "245101100000025", "ra": 1.0}, {"ra": 2.0}, {"name": None, "ra": 3.0}],
    "fixed.ecsv": [{"name": "1", "ra": 1.0, "dec": 3.0}, {"name": "2", "ra": 2.0, "dec": 4.0}],
    "topcat_param.vot": [{"name": "a", "ra": 10.0, "dec": 41.0}],
    "arr1.vot": [{"name": "a", "ra": 10.0, "dec": 41.0}],
}
REFUSED = {"gemini_nameonly.csv": "Name, B, L", "char1ra.vot": "ra, dec", "bigint.vot": r"\bid\b"}
REMARKS = {
    "epoch_unit_d.ecsv": "no epoch for 1 target with proper motion (pmra, pmdec)",
    "pm999.csv": "pmra",
    "z_J.csv": "redshift",
    "ztffloat.parquet": "objid",
}


@pytest.mark.parametrize("file", RIGHT)
def test_odd_lists(cases_dir: Path, file: str) -> None:
    read = read_targets(cases_dir / "targets" / file)
    assert read.bad_rows == ()
    assert read.targets.num_rows == len(RIGHT[file])
    for row, right in zip(read.targets.to_pylist(), RIGHT[file], strict=True):
        for name, value in right.items():
            assert row[name] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value), name
    assert REMARKS.get(file, "") in " ".join(read.remarks)


@pytest.mark.parametrize("file", REFUSED)
def test_odd_lists_are_refused_by_name(cases_dir: Path, file: str) -> None:
    with pytest.raises(ConfigurationError, match=REFUSED[file]):
        read_targets(cases_dir / "targets" / file)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id,RAh,RAm,RAs,DE-,DEd,DEm,DEs\nx,00,30,36.0,-,00,30,36\n", {"ra": 7.65, "dec": -0.51}),
        ("id\tRA_h\tRA_m\tRA_s\tDec_d\tDec_m\tDec_s\nx\t12\t0\t0\t-00\t30\t0\n", {"ra": 180.0, "dec": -0.5}),
        ("name,RA (hh:mm:ss),Dec (dd mm ss)\nx,12:00:00,-00 30 00\n", {"ra": 180.0, "dec": -0.5}),
        ("name,ra_rad,dec_rad\nx,1.2,-0.5\n", {"ra": 68.7549354, "dec": -28.6478898}),
        ("name,RA (B1950),Dec (B1950)\nx,186.638333,2.328611\n", {"ra": 187.2777, "dec": 2.0523}),
        ("ra,dec,frame\n186.638333,2.328611,FK4\n", {"ra": 187.2777, "dec": 2.0523}),
        ("# EQUINOX = B1950\nra,dec\n186.638333,2.328611\n", {"ra": 187.2777, "dec": 2.0523}),
        ("ra,dec,equinox\n1,2,J2000\n", {"ra": 1.0, "dec": 2.0}),
        ("ra,dec,pmRA_arcsec_yr,pmDE_arcsec_yr\n1,2,-0.8,1\n", {"pm_ra": -800.0, "pm_dec": 1000.0}),
        ('ra,dec,"pmra [arcsec yr^-1]","pmdec [arcsec yr^-1]"\n1,2,-0.8,1\n', {"pm_ra": -800.0, "pm_dec": 1000.0}),
        ("ra,dec,pmra,pmdec,redshift\n1,2,-999,5,-9.99\n", {"pm_ra": None, "pm_dec": None, "redshift": None}),
        ("ra,dec,epoch,period\n1,2,2041.28,3.5\n", {"ref_epoch": None}),
        ("ra,dec,ref_epoch\n1,2,J2016.0\n", {"ref_epoch": 2016.0}),
        ("ra,dec,zmag,z,jmag\n1,2,17,0.5,16\n", {"redshift": None}),
        ("objid,ra,dec\n245101100000025.0,1,2\n", {"name": "245101100000025"}),
    ],
)
def test_spellings(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    (tmp_path / "t.csv").write_text(text)
    read = read_targets(tmp_path / "t.csv")
    assert read.bad_rows == ()
    for name, value in expected.items():
        assert read.targets[name].to_pylist() == [pytest.approx(value, abs=1e-4) if value is not None else None], name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,L,B\nx,1.0,10\n", "name, L, B"),
        ("name,l,b,V,Teff\nx,1.0,10,3,5000\n", "name, l, b, V, Teff"),
        ("ra,dec,epoch\n1,2,B1950.0\n", "epoch"),
        ("ra,dec,pmra (km/s),pmdec (km/s)\n1,2,3,4\n", "pmra"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_targets(tmp_path / "t.csv")


@pytest.mark.parametrize(("file", "good", "bad"), [("hash.csv", ["M31"], [2]), ("fixedwidth.txt", ["M31"], [2])])
def test_odd_rows_are_bad_and_the_others_stay(cases_dir: Path, file: str, good: list[str], bad: list[int]) -> None:
    read = read_targets(cases_dir / "targets" / file)
    assert read.targets["name"].to_pylist() == good
    assert read.targets["row_in_catalogue"].to_pylist() == [2]
    assert [row.line for row in read.bad_rows] == bad


@pytest.mark.parametrize(
    ("text", "n_good", "bad"),
    [
        ("name,ra,dec\nM31,10.6,41\n# a comment\n# two, commas, here\n#M 2,1.5,2.5\n", 1, [5]),
        ("#name,ra,dec\n#1 Cnc,119.9,19.8\nM31,10.6,41\n", 1, [2]),
        ("name ra dec\nM31 10.6 41.2\n#1 Cnc 119.99 19.8\n# by hand 2000\n", 1, [3]),
        ("name ra dec mag\nNGC 1 10.5 41.2\nM31 10.68 41.27 3.4\n", 1, [2]),
        ("id    ra       dec     mag\nM33   23.46    30.66   5.7\nNGC 1 10.5     41.2\n", 1, [3]),
        ("name,ra,dec\nM31,10.6,41\n---,---,---\n", 1, [3]),
        ("ra,dec\n1,01h30m00s\n1,1h30m\n1,1.5\n", 1, [2, 3]),
        ("name          ra      dec\nM31        10.68    41.27\nM33        23.46    30.66\n", 2, []),
        ("name  ra  dec\nM31 10.68 41.27\nM33 23.46 30.66\n", 2, []),
    ],
)
def test_no_row_is_lost_or_shifted(tmp_path: Path, text: str, n_good: int, bad: list[int]) -> None:
    (tmp_path / "t.txt").write_text(text)
    read = read_targets(tmp_path / "t.txt")
    assert ([row.line for row in read.bad_rows], read.targets.num_rows) == (bad, n_good)


def test_epoch_is_of_rows_that_have_none(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ra,dec,pmra,pmdec,ref_epoch\n1,2,3,4,\n5,6,7,8,2000\n9,10,,,\n")
    read = read_targets(tmp_path / "t.csv")
    assert read.targets["ref_epoch"].to_pylist() == [None, 2000.0, None]
    assert ["1 target with proper motion (pmra, pmdec)" in one and "--epoch" in one for one in read.remarks] == [True]
    asked = read_targets(tmp_path / "t.csv", epoch=2016.0)
    assert (asked.targets["ref_epoch"].to_pylist(), asked.remarks) == ([2016.0, 2000.0, 2016.0], ())
    assert {one.epoch for one in asked.taken if one.quantity == "ra"} == {"ref_epoch, or 2016"}
    with pytest.raises(ConfigurationError, match="epoch cannot be 51544"):
        read_targets(tmp_path / "t.csv", epoch=51544.0)
