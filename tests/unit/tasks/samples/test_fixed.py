"""Tables whose header says where the cells stand: no cell shifts, whatever is empty or has blanks in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table

from lake.errors import ConfigurationError
from tasks.samples.files import read_targets
from tasks.samples.target_file import TargetFile

RULE = "-" * 80
DESCRIBED = f"""Title: A study
Authors: Nobody
================================================================================
Byte-by-byte Description of file: table1.dat
{RULE}
   Bytes Format Units   Label   Explanations
{RULE}
   1- 8  A8     ---     Name    Name of the source
  10-11  I2     h       RAh     Hour of right ascension (EQUINOX)
  13-14  I2     min     RAm     Minute of right ascension
  16-20  F5.2   s       RAs     Second of right ascension
      22 A1     ---     DE-     Sign of the declination
  23-24  I2     deg     DEd     Degree of declination
  26-27  I2     arcmin  DEm     Arcminute of declination
  29-32  F4.1   arcsec  DEs     Arcsecond of declination
  34-38  F5.2   ---     z       ? Redshift
  40-45  F6.2   arcsec/yr pmRA  ?=-99.0 Proper
                                motion
  47-52  F6.2   arcsec/yr pmDE  [-20/20]?=-99.0 Proper motion
{RULE}
Note (1): none.
{RULE}
NGC 1068 02 42 40.71 -00 00 47.8  0.01   1.00   2.00
M31      00 42 44.33 +41 16 07.5       -99.00 -99.00
"""
IPAC = """\\fixlen = T
\\EQUINOX = 'J2000.0'
|  designation     |    ra      |   dec    | pmra | pmdec|
|    char          |  double    |  double  |double|double|
|                  |   deg      |   deg    |mas/yr|mas/yr|
|    null          |   null     |   null   | null |  -99 |
  00424433+4116085   10.684737   41.269035    1.0   -99
  two words           null       41.269035    3.0    4.0
"""


def read(path: Path, text: str) -> TargetFile:
    path.write_text(text)
    return read_targets(path)


def test_machine_readable_tables(tmp_path: Path) -> None:
    found = read(tmp_path / "t.txt", DESCRIBED.replace("EQUINOX", "J2000"))
    assert found.bad_rows == ()
    first, second = found.targets.to_pylist()
    assert (first["name"], second["name"]) == ("NGC 1068", "M31")
    assert (first["ra"], first["dec"]) == (pytest.approx(40.669625), pytest.approx(-0.0132778, abs=1e-6))
    assert (second["ra"], second["dec"]) == (pytest.approx(10.6847083), pytest.approx(41.26875))
    assert (first["redshift"], second["redshift"]) == (0.01, None)
    assert (first["pm_ra"], first["pm_dec"], second["pm_ra"]) == (1000.0, 2000.0, None)


@pytest.mark.parametrize("equinox", ["B1950", "1950", "1950.0", "Equinox=B1950.0"])
def test_their_descriptions_say_the_frame(tmp_path: Path, equinox: str) -> None:
    without = "\n".join(line[:39] if line[:3] in ("NGC", "M31") else line for line in DESCRIBED.split("\n"))
    found = read(tmp_path / "t.txt", without.replace("EQUINOX", equinox))
    sky = SkyCoord("00 42 44.33 +41 16 07.5", unit=("hourangle", "deg"), frame="fk4").icrs
    assert (found.targets["ra"][1].as_py(), found.targets["dec"][1].as_py()) == pytest.approx((sky.ra.deg, sky.dec.deg))


def test_rows_between_the_columns_are_bad(tmp_path: Path) -> None:
    row = "NGC 10681 02 42 40.71 -00 00 47.8  0.01   1.00   2.00\n"
    assert [bad.line for bad in read(tmp_path / "t.txt", DESCRIBED + row).bad_rows] == [DESCRIBED.count("\n") + 1]
    row = "  a designation too long   10.68473   41.269035   1.0    2.0\n"
    assert [bad.line for bad in read(tmp_path / "t.tbl", IPAC + row).bad_rows] == [8, 9]


def test_ipac_tables(tmp_path: Path) -> None:
    found = read(tmp_path / "t.tbl", IPAC)
    assert [(bad.line, bad.reason) for bad in found.bad_rows] == [(8, "no right ascension")]
    assert found.targets.to_pylist()[0] == {
        "name": "00424433+4116085",
        "ra": 10.684737,
        "dec": 41.269035,
        "pm_ra": 1.0,
        "pm_dec": None,
        **dict.fromkeys(("ref_epoch", "redshift", "label")),
        "row_in_catalogue": 1,
    }
    with pytest.raises(ConfigurationError, match=r"no columns.*designation, x, dec"):
        read(tmp_path / "t.tbl", IPAC.replace("|    ra      ", "|    x       "))


@pytest.mark.parametrize("format", ["ascii.ipac", "ascii.mrt"])
def test_as_astropy_writes_them(tmp_path: Path, format: str) -> None:
    table = Table({"Name": ["NGC 1068", "M31"], "RAdeg": [40.6696, 10.5], "DEdeg": [-0.0133, 41.25]})
    table["z"] = MaskedColumn([0.0, 0.5], mask=[True, False])
    for name in ("RAdeg", "DEdeg"):
        table[name].unit = "deg"
    table.write(tmp_path / "t.txt", format=format)
    found = read_targets(tmp_path / "t.txt")
    assert found.bad_rows == ()
    assert found.targets.select(["name", "ra", "dec", "redshift"]).to_pylist() == [
        {"name": "NGC 1068", "ra": 40.6696, "dec": -0.0133, "redshift": None},
        {"name": "M31", "ra": 10.5, "dec": 41.25, "redshift": 0.5},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DESCRIBED.partition("Note")[0].rpartition(RULE)[0], "has none"),
        (DESCRIBED + DESCRIBED, "describes 2 tables"),
        ("|ra|dec|\n 1.0 2.0\n", "not below their names"),
        ("\\EQUINOX = 2000\n1 2\n", "header"),
    ],
)
def test_what_cannot_be_cut_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read(tmp_path / "t.txt", text)
