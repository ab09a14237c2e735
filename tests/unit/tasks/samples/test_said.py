"""What a list says in words, keywords, null values and units is taken as it is meant, or the list is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import FK4, SkyCoord
from astropy.io import fits
from astropy.table import Table

from lake.errors import ConfigurationError
from tasks.samples.files import read_targets
from tasks.samples.target_file import TargetFile

# 3C 273 in B1950, and where it is.
OLD, NEW = (186.638333, 2.328611), {"ra": 187.2777, "dec": 2.0523}
OLD_ROW = "186.638333,2.328611"


def read(tmp_path: Path, text: str | bytes, name: str = "t.csv") -> TargetFile:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_targets(tmp_path / name)


def check(found: TargetFile, *expected: dict[str, Any]) -> None:
    assert found.bad_rows == ()
    assert found.targets.num_rows == len(expected)
    for row, right in zip(found.targets.to_pylist(), expected, strict=True):
        for name, value in right.items():
            assert row[name] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value), name


def votable(fields: str, cells: list[object], before: str = "") -> str:
    row = "".join(f"<TD>{cell}</TD>" for cell in cells)
    return (
        f'<VOTABLE version="1.3"><RESOURCE>{before}<TABLE>{fields}'
        f"<DATA><TABLEDATA><TR>{row}</TR></TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    )


def field(name: str, unit: str = "deg", inside: str = "", kind: str = 'datatype="double"') -> str:
    return f'<FIELD name="{name}" {kind} unit="{unit}">{inside}</FIELD>'


def bintable(columns: list[fits.Column], keys: dict[str, Any]) -> bytes:
    """Write a table whose keywords say of the stored numbers what they like."""
    hdu, file = fits.BinTableHDU.from_columns(columns), io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file)
    written = fits.open(io.BytesIO(file.getvalue()))[1]
    header = written.header.copy()
    header.update(keys)
    data = file.getvalue()[written.fileinfo()["datLoc"] :]
    return fits.PrimaryHDU().header.tostring().encode() + header.tostring().encode() + data


RA, DEC = (fits.Column(name, "D", unit="deg", array=[value]) for name, value in zip(("RA", "DEC"), OLD, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        f"#Coosys\tB1950:\teq_FK4 B1950\nName\tRAdeg\tDEdeg\n\tdeg\tdeg\n---\t---\t---\na\t{OLD[0]}\t{OLD[1]}\n",
        f"#Column\tRAdeg\t(F9.5)\tRight ascension (B1950)\t[ucd=pos.eq.ra]\nRAdeg\tDEdeg\n{OLD[0]}\t{OLD[1]}\n",
    ],
)
def test_vizier_says_the_frame_above_the_rows(tmp_path: Path, text: str) -> None:
    check(read(tmp_path, text), NEW)


def test_vizier_says_the_epoch_in_words(tmp_path: Path) -> None:
    column = "#Column\tRA_ICRS\t(F15.11)\tRight ascension (ICRS) at Ep=2016.0\t[ucd=pos.eq.ra;meta.main]\n"
    found = read(tmp_path, column + "RA_ICRS\tDE_ICRS\tpmRA\tpmDE\n1\t2\t3\t4\n")
    check(found, {"ra": 1.0, "pm_ra": 3.0, "ref_epoch": 2016.0})
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("key", "value"), [("COORDSYS", "FK4"), ("TCOMM1", "Right ascension (B1950)"), ("COO_SYS", "fk4 B1950")]
)
def test_fits_says_the_frame(tmp_path: Path, key: str, value: str) -> None:
    check(read(tmp_path, bintable([RA, DEC], {key: value}), "t.fits"), NEW)


def test_descriptions_say_the_frame(tmp_path: Path) -> None:
    words = "<DESCRIPTION>Right ascension, equinox 1950.0</DESCRIPTION>"
    check(read(tmp_path, votable(field("ra", inside=words) + field("dec"), [*OLD]), "t.vot"), NEW)
    table = Table({"ra": [OLD[0]], "dec": [OLD[1]]})
    table["ra"].description = "in FK4"
    table.write(tmp_path / "t.ecsv")
    check(read_targets(tmp_path / "t.ecsv"), NEW)
    words = "<DESCRIPTION>Galactic longitude, of B1950 positions</DESCRIPTION>"
    check(
        read(tmp_path, votable(field("GLON", inside=words) + field("GLAT"), [289.95, 64.36]), "t.vot"), {"ra": 187.2775}
    )
    # What J2000 is in as well is how the positions were made.
    table["ra"].description = "J2000, precessed from B1950"
    table.write(tmp_path / "t.ecsv", overwrite=True)
    check(read_targets(tmp_path / "t.ecsv"), {"ra": OLD[0], "dec": OLD[1]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"# positions are B1950\nra,dec\n{OLD_ROW}\n", "B1950.*ra"),
        (f"# Equinox 1950.0\nra,dec\n{OLD_ROW}\n", "1950.*ra"),
        (f"# Coordinates: FK4\nra,dec\n{OLD_ROW}\n", "FK4.*ra"),
        ("ra_rad,dec\n1.2,-0.5\n", "ra_rad.*dec"),
        ("ra,dec [arcmin]\n1.2,-0.5\n", "dec.*ra"),
        ("name,ra_arcsec,dec_arcsec\nM31,0.1,0.2\n", "ra_arcsec"),
        ("ra,dec,pmra [arcsec/yr],pmdec\n1,2,-0.8,10.3\n", "pmra.*pmdec"),
        ("name,ra,dec\na,1,2\nname,l,b\nb,3,4\n", "line 3"),
        ("name\tRAJ2000\tDEJ2000\na\t1\t2\nn\tname\tRAB1950\tDEB1950\n1\tb\t3\t4\n", "line 3"),
        ('name,"ra\n(deg)",dec\nM31,1,2\n', 'line 1.*"ra'),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read(tmp_path, text)
    if text.startswith("#"):
        check(read_targets(tmp_path / "t.csv", frame="fk4"), NEW)


@pytest.mark.parametrize("comment", ["# PSR B1937+21 and others", "# of 1950 objects", "# by hand, 1975", "# J2000"])
def test_comments_about_other_things_are_no_frame(tmp_path: Path, comment: str) -> None:
    check(read(tmp_path, f"{comment}\nra,dec\n10.5,2.5\n"), {"ra": 10.5, "dec": 2.5})


def test_right_ascension_is_in_no_galactic_frame(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"RA is a right ascension.*GALACTIC"):
        read(tmp_path, bintable([RA, DEC], {"RADESYS": "GALACTIC"}), "t.fits")


@pytest.mark.parametrize("name", ["elon", "ecl_lon", "lambda", "SGL"])
def test_a_longitude_needs_a_frame(tmp_path: Path, name: str) -> None:
    (tmp_path / "t.csv").write_text(f"{name},other\n1,2\n")
    named = {"ra_column": name, "dec_column": "other"}
    with pytest.raises(ConfigurationError, match=name):
        read_targets(tmp_path / "t.csv", **named)
    check(read_targets(tmp_path / "t.csv", frame="ecliptic", **named), {"ra": 0.12157, "dec": 2.23268})


def test_numbers_below_24_may_be_hours(tmp_path: Path) -> None:
    rows = [(0.7, 41.0), (5.6, 22.0), (12.5, 2.0), (17.8, -29.0), (22.9, -29.6)]
    text = "".join(f"{ra},{dec}\n" for ra, dec in rows)
    for header, n_remarks in (("RA,Dec", 1), ("RA [deg],Dec", 0), ("RA_hours,Dec", 0)):
        found = read(tmp_path, f"{header}\n{text}")
        assert len(found.remarks) == n_remarks, header
        assert all("RA" in remark for remark in found.remarks)
    assert read(tmp_path, "RA,Dec\n" + text.replace("22.9,", "222.9,")).remarks == ()


def test_rows_without_an_equinox_among_others_are_bad(tmp_path: Path) -> None:
    found = read(tmp_path, f"ra,dec,equinox\n{OLD_ROW},1950\n1,2,\n3,4,2000\n")
    assert [row.line for row in found.bad_rows] == [3]
    assert found.targets["ra"].to_pylist() == [pytest.approx(NEW["ra"], abs=1e-4), 3.0]
    check(read(tmp_path, "ra,dec,equinox\n1,2,\n3,4,2000\n"), {"ra": 1.0}, {"ra": 3.0})


def test_fk4_has_the_epoch_that_somebody_said(tmp_path: Path) -> None:
    for obstime, epoch in ((None, None), ("J1983.5", 1983.5)):
        sky = SkyCoord([10.0], [20.0], unit="deg", frame=FK4(obstime=obstime) if obstime else FK4())
        Table({"coord": sky}).write(tmp_path / "t.ecsv", overwrite=True)
        check(read_targets(tmp_path / "t.ecsv"), {"ref_epoch": epoch})


def test_units_in_the_metadata_of_arrow_fields(tmp_path: Path) -> None:
    said = [pa.field("ra", pa.float64(), metadata={"votable.unit": "rad"}), pa.field("dec", pa.float64())]
    said[1] = said[1].with_metadata({"lsst:unit": "rad", "lsst:description": "Declination"})
    pq.write_table(pa.table([[1.2], [-0.5]], schema=pa.schema(said)), tmp_path / "t.parquet")
    check(read_targets(tmp_path / "t.parquet"), {"ra": 68.754935, "dec": -28.64789})


@pytest.mark.parametrize(
    "text",
    [
        "# name ra dec\n# [] [h] [deg]\nM31 12.0 41.2\n",
        "#name ra dec\n#-  h  deg\nM31 12.0 41.2\n",
        "# name, ra, dec\n# , hours, deg\nM31,12.0,41.2\n",
    ],
)
def test_units_below_a_header_that_is_a_comment(tmp_path: Path, text: str) -> None:
    check(read(tmp_path, text), {"name": "M31", "ra": 180.0, "dec": 41.2})


def test_two_words_before_another_column(tmp_path: Path) -> None:
    found = read(tmp_path, "name z ra dec\nNGC 1 10.68 41.27\nM33 0.001 23.46 30.66\n", "t.txt")
    assert [row.line for row in found.bad_rows] == [2]


def test_a_name_of_a_digit_and_a_number_may_be_two_words(tmp_path: Path) -> None:
    found = read(tmp_path, "name ra dec z\n3C 48 24.4 33.15\nM31 10.68 41.27 0.0\n", "t.txt")
    assert [row.line for row in found.bad_rows] == [2]


def test_null_values_of_fits_are_those_that_are_stored(tmp_path: Path) -> None:
    ids = fits.Column("ID", "J", array=[3, -(2**31)])
    ra, dec = (fits.Column(name, "J", unit="deg", array=[10_000_000, -999]) for name in ("RA", "DEC"))
    scaled = {"TSCAL2": 1e-6, "TZERO2": 180.0, "TNULL2": -999, "TSCAL3": 1e-6, "TNULL3": -999}
    found = read(tmp_path, bintable([ids, ra, dec], {"TZERO1": 2**31, "TNULL1": -(2**31), **scaled}), "t.fits")
    assert [row.line for row in found.bad_rows] == [2]
    assert found.bad_rows[0].text == "ID=None, RA=None, DEC=None"
    assert [(r["name"], r["ra"], r["dec"]) for r in found.targets.to_pylist()] == [("2147483651", 190.0, 10.0)]


def test_ascii_fits_tables_may_be_scaled(tmp_path: Path) -> None:
    hdu = fits.TableHDU.from_columns([fits.Column("RA", "I8", array=[15]), fits.Column("DEC", "F8.3", array=[2.5])])
    hdu.header["TSCAL1"], hdu.header["TZERO1"] = 0.5, 5.0
    hdu.writeto(tmp_path / "t.fits")
    check(read_targets(tmp_path / "t.fits"), {"ra": 12.5, "dec": 2.5})


def test_null_values_of_votable_texts(tmp_path: Path) -> None:
    text = field("name", "", '<VALUES null="none known"/>', 'datatype="char" arraysize="*"')
    positions = field("ra") + field("dec")
    check(read(tmp_path, votable(text + positions, ["none known", 1, 2]), "t.vot"), {"name": None, "ra": 1.0})


def test_what_a_service_says_of_its_answer(tmp_path: Path) -> None:
    positions = field("ra") + field("dec")
    found = read(tmp_path, votable(positions, [1, 2], '<INFO name="QUERY_STATUS" value="OVERFLOW"/>'), "t.vot")
    assert "OVERFLOW" in found.remarks[0]
    with pytest.raises(ConfigurationError, match="out of memory"):
        read(tmp_path, votable(positions, [1, 2], '<INFO name="QUERY_STATUS" value="ERROR">out of memory</INFO>'))


@pytest.mark.parametrize(("kind", "cell"), [("int", "10.5"), ("boolean", "maybe"), ("bit", "5"), ("floatComplex", "5")])
def test_no_cell_of_a_votable_moves_up(tmp_path: Path, kind: str, cell: str) -> None:
    fields = field("flag", "", kind=f'datatype="{kind}"') + field("ra") + field("dec") + field("other")
    with pytest.raises(ConfigurationError, match=f"flag|'{cell}'"):
        read(tmp_path, votable(fields, [cell, 10, 20, 30]), "t.vot")


def test_proper_motion_without_the_cosine(tmp_path: Path) -> None:
    words = "<DESCRIPTION>Proper motion in RA (not multiplied by cosDE)</DESCRIPTION>"
    fields = field("ra") + field("dec") + field("pmRA", "mas/yr", words) + field("pmDE", "mas/yr")
    found = read(tmp_path, votable(fields, [1, 60, 300, 40]), "t.vot")
    check(found, {"pm_ra": 150.0, "pm_dec": 40.0})
    assert "pmRA" in found.remarks[0]


def test_what_stands_in_an_empty_cell_is_nothing(tmp_path: Path) -> None:
    found = read(tmp_path, "ra,dec,redshift,pmra,pmdec\n1,2,–,~,…\n3,4,---,<NA>,\\N\n")
    check(found, *[{"redshift": None, "pm_ra": None}] * 2)
    assert found.remarks == ()


def test_pages_that_are_broken(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ra": [1.0] * 1000, "dec": [2.0] * 1000}), tmp_path / "t.parquet", use_dictionary=False)
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    content[4:60] = bytes(56)
    with pytest.raises(ConfigurationError, match="can't be read"):
        read(tmp_path, bytes(content), "t.parquet")


@pytest.mark.parametrize("names", ["pmRAcosDE,pmDE", "pmRA*cosDE (mas/yr),pmDE (mas/yr)", "sy_pmra,sy_pmdec"])
def test_names_of_proper_motion(tmp_path: Path, names: str) -> None:
    check(read(tmp_path, f"ra,dec,{names}\n1,60,-0.5,10.3\n"), {"pm_ra": -0.5, "pm_dec": 10.3})


@pytest.mark.parametrize(
    ("columns", "row", "remark"),
    [
        ("redshift", "0.5?", "redshift"),
        ("pmra,pmdec", "5*,6", "pmra"),
        ("ref_epoch", "about 2000", "ref_epoch"),
        ("z,modelmag_g", "11.3,12", "z"),
        ("z,gPSFMag", "11.3,12", "z"),
        ("Z,Teff", "0.02,5000", "Z"),
        ("Epoch,Period (days)", "2026.28,3.2", "Epoch"),
        ("Epoch,Per_d", "2026.28,3.2", "Epoch"),
        ("Epoch,Sector", "2041.28,27", "Epoch"),
        ("redshift", "9.999", "redshift"),
    ],
)
def test_what_is_left_out_is_said(tmp_path: Path, columns: str, row: str, remark: str) -> None:
    found = read(tmp_path, f"ra,dec,{columns}\n1,2,{row}\n")
    check(found, {"redshift": None, "pm_ra": None, "ref_epoch": None})
    assert any(remark in one for one in found.remarks)


def test_a_redshift_may_stand_beside_magnitudes(tmp_path: Path) -> None:
    check(read(tmp_path, "ra,dec,z,psfMag_u\n1,2,0.3,19\n"), {"redshift": 0.3})


@pytest.mark.parametrize(
    ("column", "cells", "names"),
    [
        ("name", ("null", "M31"), (None, "M31")),
        ("id", ("245101100000025.0", "12.0"), ("245101100000025", "12")),
        ("id", ("101.01", "102.0"), ("101.01", "102.0")),
        ("Source", ("4472832130942575872", "7"), ("4472832130942575872", "7")),
        ("source", ("SDSS", "SDSS"), (None, None)),
        ("name", ("b'M31'", "B'33"), ("M31", "B'33")),
        ("id", ('"=""4472832130942575872"""', "7"), ("4472832130942575872", "7")),
        ("ZTFID", ("ZTF18a", "ZTF18b"), ("ZTF18a", "ZTF18b")),
        ("ASAS-SN Name", ("J0", "J1"), ("J0", "J1")),
        ("Centroid", ("1", "2"), (None, None)),
    ],
)
def test_names(tmp_path: Path, column: str, cells: tuple[str, str], names: tuple[str, str]) -> None:
    found = read(tmp_path, f"{column},ra,dec\n{cells[0]},1,2\n{cells[1]},3,4\n")
    check(found, {"name": names[0]}, {"name": names[1]})


@pytest.mark.parametrize(
    ("ra", "dec"),
    [
        ("12:00:00", "12:30:00 S"),
        ("12h00m00s", "\u221212°30’00”"),
        ("12ʰ00ᵐ00ˢ", "-12°30'00''"),
        ("12\u00a000\u00a000", "‐12\u00a030\u00a000"),
    ],
)
def test_marks_as_they_are_printed(tmp_path: Path, ra: str, dec: str) -> None:
    check(read(tmp_path, f"name\tra\tdec\na\t{ra}\t{dec}\n", "t.tsv"), {"ra": 180.0, "dec": -12.5})


def test_digits_without_marks_are_no_degrees(tmp_path: Path) -> None:
    found = read(tmp_path, "ra,dec\n000056.7,-000045\n0056.7,00.5\n")
    assert [row.line for row in found.bad_rows] == [2]
    assert found.targets["ra"].to_pylist() == [56.7]


def test_spreadsheets(tmp_path: Path) -> None:
    text = "name;ra;dec;redshift\nM31;10,68;-41,5;0\nM33;00:30:00,0;7;0,25\n"
    right = ({"ra": 10.68, "dec": -41.5, "redshift": 0.0}, {"name": "M33", "ra": 7.5, "dec": 7.0, "redshift": 0.25})
    check(read(tmp_path, text), *right)
    check(read(tmp_path, text.replace(";", "\t").replace(",", ".").encode("utf-16")), *right)
    check(read(tmp_path, "name;ra;dec\n1,5;10.5;2\n3C;4;5\n"), {"name": "1,5", "ra": 10.5}, {"ra": 4.0})


@pytest.mark.parametrize(
    "header",
    [
        "RAHour,RAMinute,RASecond,DecSign,DecDeg,DecMin,DecSec",
        "RA hr,RA min,RA sec,Sign,Dec deg,Dec min,Dec sec",
        "RA.h,RA.m,RA.s,DE.sign,DE.d,DE.m,DE.s",
    ],
)
@pytest.mark.parametrize("sign", ["-", "–", "−", "S", "-1"])
def test_parts_by_other_names(tmp_path: Path, header: str, sign: str) -> None:
    check(read(tmp_path, f"{header}\n6,45,36,{sign},16,30,36\n"), {"ra": 101.4, "dec": -16.51})


def test_a_sign_that_is_none(tmp_path: Path) -> None:
    found = read(tmp_path, "RAh,RAm,RAs,DE-,DEd,DEm,DEs\n6,45,36,?,16,30,36\n6,45,36,N,16,30,36\n6,45,36,,16,30,36\n")
    assert [row.line for row in found.bad_rows] == [2]
    assert found.targets["dec"].to_pylist() == [pytest.approx(16.51)] * 2


@pytest.mark.parametrize(
    ("header", "minutes"),
    [
        ("RA_h,RA_m,RA_s,Dec_deg", "RA_m"),
        ("RA_hours,Dec_deg,Dec_min,Dec_sec", "Dec_min"),
        ("RAd,RAm,RAs,DEd,DEm,DEs", "DEm"),
    ],
)
def test_minutes_that_go_with_nothing(tmp_path: Path, header: str, minutes: str) -> None:
    text = f"{header},x,y\n" + ",".join("6" for _ in header.split(",")) + ",10.5,20.5\n"
    with pytest.raises(ConfigurationError, match=minutes):
        read(tmp_path, text)
    check(read_targets(tmp_path / "t.csv", ra_column="x", dec_column="y"), {"ra": 10.5, "dec": 20.5})


def test_edges_are_no_minutes(tmp_path: Path) -> None:
    text = "ra_hours,dec_deg,ra_min,ra_max,dec_min,dec_max\n6.5,-16,6.4,6.6,-17,-15\n"
    check(read(tmp_path, text), {"ra": 97.5, "dec": -16.0})


NED = """Results from query to NASA/IPAC Extragalactic Database (NED),
which is operated by the Jet Propulsion Laboratory, California Institute of Technology

2 objects found, equinox B1950 was asked for.

No.|Object Name|RA(deg)|DEC(deg)|Type|Redshift
1|MESSIER 031|10.68479|41.26906|G|-0.001001
2|MESSIER 033|23.46204|30.66017|G|
"""


def test_text_above_the_header(tmp_path: Path) -> None:
    right = {"name": "MESSIER 031", "ra": 10.68479, "dec": 41.26906, "redshift": -0.001001}
    check(read(tmp_path, NED.replace("B1950", "J2000"), "t.txt"), right, {"name": "MESSIER 033", "redshift": None})
    with pytest.raises(ConfigurationError, match="B1950"):
        read(tmp_path, NED, "t.txt")
    check(read(tmp_path, ",Position,Position\nname,ra,dec\na,1,2\n"), {"name": "a", "ra": 1.0})
    # What may be a row is none.
    with pytest.raises(ConfigurationError, match="line 2"):
        read(tmp_path, "a,10.5,20.5\nname,ra,dec\nb,1,2\n")


def test_cells_that_are_called_like_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y,type,class\n10.5,20.5,L,B\n1.5,2.5,l,b\n3,4,l,b,\n5,6,l,b,7\n")
    found = read_targets(tmp_path / "t.csv", ra_column="x", dec_column="y")
    assert [row.line for row in found.bad_rows] == [5]
    assert found.targets["ra"].to_pylist() == [10.5, 1.5, 3.0]


@pytest.mark.parametrize("rule", ["", "|---|---|---|\n", "# from Browse\n"])
def test_bars_at_both_ends(tmp_path: Path, rule: str) -> None:
    text = f"| name | ra | dec |\n{rule}| M31 | 00 42 44.3 | +41 16 09 |\n| M 33 | 23.46 | 30.66 |\n"
    check(read(tmp_path, text, "t.txt"), {"name": "M31", "ra": 10.6846, "dec": 41.26917}, {"name": "M 33", "ra": 23.46})


def test_a_row_with_units_is_a_row(tmp_path: Path) -> None:
    assert [row.line for row in read(tmp_path, "name,ra,dec\nd,,\nb,10,5\n").bad_rows] == [2]
    check(read(tmp_path, "name,ra,dec,type\nd,12h0.0m,5d30.0m,h\n"), {"name": "d", "ra": 180.0, "dec": 5.5})
    check(read(tmp_path, "name,ra,dec\na,10.5°,5.5°\nb,10d,5d\n"), {"ra": 10.5, "dec": 5.5}, {"ra": 10.0})


@pytest.mark.parametrize(("units", "ra"), [("h,deg", 180.0), ("[deg],[deg]", 12.0), ("hms,dms", 180.0)])
def test_a_line_of_units(tmp_path: Path, units: str, ra: float) -> None:
    check(read(tmp_path, f"name,ra,dec\n,{units}\nM31,12,-5\n"), {"name": "M31", "ra": ra, "dec": -5.0})
