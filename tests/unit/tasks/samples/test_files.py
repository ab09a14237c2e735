"""Reading a user's list of targets: what is read, what is refused, and with which words."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import FK4, FK5, SkyCoord
from astropy.io import fits
from astropy.io.votable import from_table
from astropy.io.votable.tree import CooSys
from astropy.table import MaskedColumn, Table
from astropy.time import Time

from lake.errors import ConfigurationError
from tasks.samples.files import read_targets
from tasks.samples.target_file import TARGETS, TargetFile

CRAB = (83.63308, 22.0145)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows(read: TargetFile) -> list[dict[str, object]]:
    return read.targets.to_pylist()


def bad(read: TargetFile) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in read.bad_rows]


def separation(read: TargetFile, sky: SkyCoord) -> float:
    """Largest distance between what was read and what was written, deg."""
    found = SkyCoord(read.targets["ra"].to_numpy(), read.targets["dec"].to_numpy(), unit="deg")
    return float(found.separation(sky.icrs).deg.max())


def test_csv_gives_the_documented_columns(tmp_path: Path) -> None:
    file = write(
        tmp_path / "t.csv",
        "name,ra,dec,pmra,pmdec,ref_epoch,z,kind\nCrab,83.63308,22.0145,-14.7,2.0,2016.0,,pulsar\n"
        '"NGC 4151, core",182.6357,+39.4058,,n/a,2016.0,0.00333,agn\n',
    )
    read = read_targets(file, label_column="kind")
    assert read.targets.schema == TARGETS
    assert read.bad_rows == ()
    expected = [
        ("Crab", 83.63308, 22.0145, -14.7, 2.0, 2016.0, None, "pulsar", 1),
        ("NGC 4151, core", 182.6357, 39.4058, None, None, 2016.0, 0.00333, "agn", 2),
    ]
    assert rows(read) == [dict(zip(TARGETS.names, row, strict=True)) for row in expected]


def test_bad_rows_keep_their_line_and_leave_the_others_alone(tmp_path: Path) -> None:
    lines = [
        "# a comment",
        "name,ra,dec",
        "good,10.0,20.0",
        "",
        "# another",
        "nothing,,",
        "text,n/a,20",
        "wrong,12:61:00,20",
        "south,10,-90.5",
        "far,400,5",
        "endless,inf,5",
        "negative,-0.5,5",
        "short,10",
        "long,10,20,30",
        "good too,11.0,-20.0",
    ]
    read = read_targets(write(tmp_path / "t.csv", "\r\n".join(lines) + "\r\n"))
    assert [(r["name"], r["row_in_catalogue"]) for r in rows(read)] == [("good", 1), ("good too", 11)]
    assert bad(read) == [
        (6, "no right ascension; no declination"),
        (7, "no right ascension"),
        (8, "right ascension '12:61:00' counts 61 minutes and 0 seconds"),
        (9, "declination -90.5 is outside -90 to 90 deg"),
        (10, "right ascension 400 is outside 0 to 360 deg"),
        (11, "right ascension 'inf' is neither degrees nor sexagesimal"),
        (12, "right ascension -0.5 is outside 0 to 360 deg"),
        (13, "2 cells instead of 3"),
        (14, "4 cells instead of 3"),
    ]
    assert read.bad_rows[2].text == "wrong,12:61:00,20"


@pytest.mark.parametrize(
    ("ra", "dec", "expected"),
    [
        ("05:34:31.94", "+22:00:52.2", (83.6330833333, 22.0145)),
        ("05 34 31.94", "22 00 52.2", (83.6330833333, 22.0145)),
        ("5h34m31.94s", "22d00m52.2s", (83.6330833333, 22.0145)),
        ("05h 34m 31.94s", "+22° 00′ 52.2″", (83.6330833333, 22.0145)),
        ("83d37m59.1s", "22:00:52.2", (83.6330833333, 22.0145)),
        ("05:34.5", "-00:30", (83.625, -0.5)),
        ("5h34.5m", "-0d30m", (83.625, -0.5)),
        ("00:00:00", "-00:00:36", (0.0, -0.01)),
        ("24:00:00", "0", (0.0, 0.0)),
        ("360.0", "−12.5", (0.0, -12.5)),
        ("1.5e2", "+.5", (150.0, 0.5)),
    ],
)
def test_each_row_is_read_as_it_is_written(tmp_path: Path, ra: str, dec: str, expected: tuple[float, float]) -> None:
    read = read_targets(write(tmp_path / "t.csv", f"ra,dec\n1.25,2.5\n{ra},{dec}\n"))
    assert bad(read) == []
    assert rows(read)[0]["ra"] == 1.25
    np.testing.assert_allclose((rows(read)[1]["ra"], rows(read)[1]["dec"]), expected, atol=1e-9)


@pytest.mark.parametrize(
    "cell",
    ["12:34:60", "12:60:00", "12:34:56:78", "12.5:30:00", "1_0", "ten", "12,5", "10 m", "0x10", "(1, 2)", "25:00:00"],
)
def test_what_is_no_right_ascension_is_not_guessed(tmp_path: Path, cell: str) -> None:
    read = read_targets(write(tmp_path / "t.tsv", f"ra\tdec\n{cell}\t5\n10\t5\n"))
    assert [row.line for row in read.bad_rows] == [2]
    assert cell in read.bad_rows[0].reason or "outside" in read.bad_rows[0].reason
    assert read.targets.num_rows == 1


@pytest.mark.parametrize("text", ["ra dec name\n10 20 x\n", "ra\tdec\tname\n10\t20\tx\n", "ra;dec;name\n10;20;x\n"])
@pytest.mark.parametrize("name", ["t.txt", "t.csv", "t.dat", "t"])
def test_the_delimiter_is_found_whatever_the_file_is_called(tmp_path: Path, text: str, name: str) -> None:
    assert rows(read_targets(write(tmp_path / name, text)))[0]["name"] == "x"


def test_blanks_tabs_and_quotes_between_cells(tmp_path: Path) -> None:
    file = write(tmp_path / "t.txt", '# my sample\n#name   ra\tdec\n"NGC 1068"  40.67\t -0.01\n M31 10.68 41.27 \n')
    read = read_targets(file)
    assert [(r["name"], r["ra"]) for r in rows(read)] == [("NGC 1068", 40.67), ("M31", 10.68)]


def test_quotes_that_do_not_close_cost_one_row(tmp_path: Path) -> None:
    read = read_targets(
        write(tmp_path / "t.csv", 'name,ra,dec\n"open,1,2\nfine,3,4\n"two\nlines",5,6\n"a ""b""",7,8\n')
    )
    assert [r["name"] for r in rows(read)] == ["fine", 'a "b"']
    assert bad(read) == [
        (2, "its quotes do not match; a row is one line"),
        (4, "its quotes do not match; a row is one line"),
        (5, "it continues a quoted cell of a line above; a row is one line"),
    ]


def test_vizier_tsv_with_units_and_dashes(tmp_path: Path) -> None:
    file = write(
        tmp_path / "asu.tsv",
        "#RESOURCE=yCat\n#Name: J/ApJ/1\n_RAJ2000\t_DEJ2000\tRAJ2000\tDEJ2000\tpmRA\n"
        'deg\tdeg\t"h:m:s"\t"d:m:s"\tmas/yr\n----------\t--------\t---\t---\t---\n'
        "83.63308\t+22.0145\t05 34 31.9\t+22 00 52\t-1\n",
    )
    assert (rows(read_targets(file))[0]["ra"], rows(read_targets(file))[0]["dec"]) == CRAB
    as_published = read_targets(file, ra_column="RAJ2000", dec_column="DEJ2000")
    assert rows(as_published)[0]["ra"] == pytest.approx(83.632917, abs=1e-6)


def test_headerless_columns_go_by_number(tmp_path: Path) -> None:
    file = write(tmp_path / "t.txt", "a 05:34:31.94 +22:00:52.2\nb 10.5 -5\n")
    with pytest.raises(ConfigurationError, match=r"no header line; it has: col1 \(a\), col2 \(05:34:31.94\)"):
        read_targets(file)
    read = read_targets(file, ra_column="col2", dec_column="col3", name_column="col1", label_column="col1")
    assert [(r["name"], r["label"], r["row_in_catalogue"]) for r in rows(read)] == [("a", "a", 1), ("b", "b", 2)]


def test_a_file_can_have_one_column(tmp_path: Path) -> None:
    for text in ("target\nSDSS J000116.00+141123.0\n", "J000116.00+141123.0\n"):
        names = ["target" if text.startswith("target") else "col1"] * 2
        read = read_targets(write(tmp_path / "t.txt", text), ra_column=names[0], dec_column=names[1])
        assert rows(read)[0]["dec"] == pytest.approx(14.18972222)


def test_one_column_can_hold_the_whole_position(tmp_path: Path) -> None:
    file = write(
        tmp_path / "t.csv",
        "source,type\nSDSS J000116.00+141123.0,x\n05 34 31.94 +22 00 52.2,x\n83.5 -5,x\nB1225+0200,x\nJ1225+0200,x\n",
    )
    read = read_targets(file, ra_column="source", dec_column="source")
    np.testing.assert_allclose(read.targets["ra"].to_numpy(), [0.31666667, 83.63308333, 83.5], atol=1e-8)
    np.testing.assert_allclose(read.targets["dec"].to_numpy(), [14.18972222, 22.0145, -5.0], atol=1e-8)
    assert rows(read)[0]["name"] == "SDSS J000116.00+141123.0"
    assert [row.line for row in read.bad_rows] == [5, 6]


@pytest.mark.parametrize(
    ("names", "frame"),
    [
        (("l", "b"), None),
        (("GLON", "GLAT"), None),
        (("lon", "lat"), "galactic"),
        (("RA2000", "Dec2000"), "fk5"),
        (("RA", "DE"), "fk5 J1975"),
        (("RAB1950", "DEB1950"), None),
        (("lon", "lat"), "barycentricmeanecliptic"),
    ],
)
def test_frames_by_name_or_option(tmp_path: Path, names: tuple[str, str], frame: str | None) -> None:
    sky = SkyCoord([10.0, 250.0] * u.deg, [-30.0, 5.0] * u.deg)
    if names == ("lon", "lat") and frame != "galactic":
        there, lon, lat = sky.transform_to(frame), "lon", "lat"
    elif frame and frame.startswith("fk5"):
        there, lon, lat = sky.transform_to(FK5(equinox=frame[4:] or "J2000")), "ra", "dec"
    elif "1950" in names[0]:
        there, lon, lat = sky.transform_to(FK4(equinox="B1950")), "ra", "dec"
    else:
        there, lon, lat = sky.galactic, "l", "b"
    cells = zip(getattr(there, lon).deg.tolist(), getattr(there, lat).deg.tolist(), strict=True)
    file = write(tmp_path / "t.csv", ",".join(names) + "\n" + "".join(f"{x!r},{y!r}\n" for x, y in cells))
    explicit = dict(zip(("ra_column", "dec_column"), names, strict=True)) if names == ("lon", "lat") else {}
    assert separation(read_targets(file, frame=frame, **explicit), sky) < 1e-9


def test_galactic_longitude_may_be_negative(tmp_path: Path) -> None:
    read = read_targets(write(tmp_path / "t.csv", "l,b\n-5,1\n355,1\n-181,1\n"))
    assert rows(read)[0]["ra"] == pytest.approx(rows(read)[1]["ra"], abs=1e-10)
    assert bad(read) == [(4, "longitude -181 is outside -180 to 360 deg")]


def test_proper_motion_turns_with_the_frame(tmp_path: Path) -> None:
    sky = SkyCoord(10 * u.deg, 20 * u.deg, pm_ra_cosdec=30 * u.mas / u.yr, pm_dec=-40 * u.mas / u.yr)
    there = sky.galactic
    motion = {"pm_l_cosb": [there.pm_l_cosb], "pm_b": [there.pm_b], "obstime": Time("J2016")}
    table = Table({"coord": SkyCoord([there.l], [there.b], frame="galactic", **motion)})
    for name in ("t.ecsv", "t.fits", "t.parquet"):
        table.write(tmp_path / name)
        found = rows(read_targets(tmp_path / name))[0]
        assert (found["pm_ra"], found["pm_dec"]) == pytest.approx((30.0, -40.0), abs=1e-6)
        assert found["ref_epoch"] == pytest.approx(2016.0)
    # pmra beside l and b is in right ascension all the same
    found = rows(read_targets(write(tmp_path / "t.csv", "l,b,pmra,pmdec\n120,30,3,4\n")))[0]
    assert (found["pm_ra"], found["pm_dec"]) == (3.0, 4.0)
    with pytest.raises(ConfigurationError, match="FK4"):
        read_targets(write(tmp_path / "b.csv", "ra,dec,pmra,pmdec\n120,30,3,4\n"), frame="fk4")


def test_units_are_honoured(tmp_path: Path) -> None:
    table = Table({"ra": [1.0, 12.0], "dec": [0.1, 0.2], "pmra": [0.5, np.nan], "pmdec": [0.25, 1.0]})
    for column, unit in (("ra", "hourangle"), ("dec", "rad"), ("pmra", "arcsec / yr"), ("pmdec", "mas / yr")):
        table[column].unit = unit
    for name in ("t.ecsv", "t.parquet"):
        table.write(tmp_path / name)
        first, second = rows(read_targets(tmp_path / name))
        assert (first["ra"], first["dec"]) == pytest.approx((15.0, np.degrees(0.1)), abs=1e-12)
        assert (first["pm_ra"], first["pm_dec"], second["pm_ra"]) == pytest.approx((500.0, 0.25, None))
    table["ra"].unit = "kg"
    table.write(tmp_path / "kg.ecsv")
    with pytest.raises(ConfigurationError, match="right ascension is in 'kg'"):
        read_targets(tmp_path / "kg.ecsv")
    hours = read_targets(write(tmp_path / "h.csv", "RA [h],Dec (deg)\n1,20\n"))
    assert rows(hours)[0]["ra"] == 15.0


def test_sexagesimal_in_a_column_of_degrees_is_a_contradiction(tmp_path: Path) -> None:
    table = Table({"ra": ["12:30:00", "12h30m00s", "10.5"], "dec": ["1", "2", "3"]})
    table["ra"].unit = "deg"
    table.write(tmp_path / "t.ecsv")
    read = read_targets(tmp_path / "t.ecsv")
    assert [r["ra"] for r in rows(read)] == [187.5, 10.5]
    assert read.bad_rows[0].reason == "right ascension '12:30:00' is sexagesimal in a column declared in degrees"


def test_columns_by_ucd_go_before_names(tmp_path: Path) -> None:
    table = Table({"ra": [1.0], "dec": [2.0], "alpha_pub": [10.0], "delta_pub": [20.0], "who": ["x"], "zz": [0.5]})
    for column, ucd in (
        ("ra", "pos.eq.ra"),
        ("dec", "pos.eq.dec"),
        ("alpha_pub", "pos.eq.ra;meta.main"),
        ("delta_pub", "POS_EQ_DEC_MAIN"),
        ("who", "ID_MAIN"),
        ("zz", "src.redshift"),
    ):
        table[column].meta["ucd"] = ucd
    table.write(tmp_path / "t.vot", format="votable")
    table.write(tmp_path / "t.ecsv")
    said = {c: {"unit": "", "ucd": table[c].meta["ucd"], "utype": ""} for c in table.colnames}
    table.write(tmp_path / "voparquet.parquet", format="parquet.votable", metadata=said)
    for name in ("t.vot", "t.ecsv", "voparquet.parquet"):
        found = rows(read_targets(tmp_path / name))[0]
        assert (found["ra"], found["dec"], found["name"], found["redshift"]) == (10.0, 20.0, "x", 0.5), name


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("x,y", r"no columns that are known to hold positions; it has: x, y \(say which ones do with --ra and --dec"),
        ("ra,RA,dec", "positions in more than one place: ra with dec, RA with dec"),
        ("ra,dec,ra_deg,dec_deg", "more than one place: ra with dec, ra_deg with dec_deg"),
    ],
)
def test_absent_or_ambiguous_columns_are_an_error(tmp_path: Path, header: str, message: str) -> None:
    file = write(tmp_path / "t.csv", header + "\n" + ",".join("1" for _ in header.split(",")) + "\n")
    with pytest.raises(ConfigurationError, match=message):
        read_targets(file)


def test_named_columns(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "RA_mean,Dec_mean,ra,dec,kind\n1,2,3,4,x\n")
    assert rows(read_targets(file))[0]["ra"] == 3.0
    assert rows(read_targets(file, ra_column="ra_mean", dec_column="DEC_MEAN"))[0]["ra"] == 1.0
    with pytest.raises(ConfigurationError, match=r"column sort not in t.csv; it has: RA_mean, Dec_mean, ra, dec, kind"):
        read_targets(file, label_column="sort")
    with pytest.raises(ConfigurationError, match=r"column raa not in t\.csv"):
        read_targets(file, ra_column="raa", dec_column="dec")
    with pytest.raises(ConfigurationError, match="go together"):
        read_targets(file, ra_column="ra")
    with pytest.raises(ConfigurationError, match="no frame is called 'fk6'"):
        read_targets(file, frame="fk6")
    with pytest.raises(ConfigurationError, match="'Jx' is not an equinox"):
        read_targets(file, frame="fk5 Jx")
    for frame in ("altaz", "itrs"):
        with pytest.raises(ConfigurationError, match=f"in the frame {frame} can't be turned into ICRS"):
            read_targets(file, ra_column="ra", dec_column="dec", frame=frame)


def test_z_beside_other_bands_is_a_magnitude(tmp_path: Path) -> None:
    assert rows(read_targets(write(tmp_path / "z.csv", "ra,dec,z\n1,2,0.5\n")))[0]["redshift"] == 0.5
    assert rows(read_targets(write(tmp_path / "m.csv", "ra,dec,g,r,i,z\n1,2,1,1,1,19.5\n")))[0]["redshift"] is None


def test_only_years_are_epochs(tmp_path: Path) -> None:
    read = read_targets(write(tmp_path / "t.csv", "ra,dec,epoch\n1,2,2015.5\n1,2,57388\n1,2,\n"))
    assert read.targets["ref_epoch"].to_pylist() == [2015.5, None, None]


@pytest.mark.parametrize("frame", ["icrs", "fk5", "galactic", FK5(equinox="J1975"), FK4(equinox="B1950")])
@pytest.mark.parametrize("suffix", ["ecsv", "fits", "parquet"])
def test_skycoord_columns(tmp_path: Path, frame: object, suffix: str) -> None:
    sky = SkyCoord([10.0, 359.9999] * u.deg, [-30.0, 89.5] * u.deg)
    table = Table({"objectid": [7, 8], "coord": sky.transform_to(frame), "label": ["a", "b c"]})
    file = tmp_path / f"sample.{suffix}"
    table.write(file)
    read = read_targets(file, label_column="label")
    assert separation(read, sky) < 1e-9
    assert [(r["name"], r["label"]) for r in rows(read)] == [("7", "a"), ("8", "b c")]


def test_flat_coord_columns(tmp_path: Path) -> None:
    sky = SkyCoord([10.0] * u.deg, [-30.0] * u.deg)
    Table({"objectid": [1], "coord": sky}).write(tmp_path / "mixin.ecsv")
    named = read_targets(tmp_path / "mixin.ecsv", ra_column="coord.ra", dec_column="coord.dec")
    flat = read_targets(write(tmp_path / "flat.csv", "objectid,coord.ra,coord.dec,label\n1,10.0,-30.0,x\n"))
    Table({"coord.ra": [10.0], "coord.dec": [-30.0]}).write(tmp_path / "flat.parquet")
    for read in (named, flat, read_targets(tmp_path / "flat.parquet")):
        assert (rows(read)[0]["ra"], rows(read)[0]["dec"]) == (10.0, -30.0)


def test_ecsv_survives_a_cell_that_is_no_number(tmp_path: Path) -> None:
    Table({"name": ["a", "b", "c"], "ra": [1.0, 2.0, 3.0], "dec": [4.0, 5.0, 6.0]}).write(tmp_path / "t.ecsv")
    text = (tmp_path / "t.ecsv").read_text()
    n_header = text.index("name ra dec\n")
    write(tmp_path / "t.ecsv", text.replace("b 2.0", "b unknown") + "# a note\n")
    read = read_targets(tmp_path / "t.ecsv")
    assert [r["name"] for r in rows(read)] == ["a", "c"]
    assert bad(read) == [
        (text[:n_header].count("\n") + 3, "right ascension 'unknown' is neither degrees nor sexagesimal")
    ]


@pytest.mark.parametrize("suffix", ["ecsv", "csv", "fits", "parquet", "vot"])
def test_masked_cells_have_no_position(tmp_path: Path, suffix: str) -> None:
    table = Table(
        {
            "name": ["a", "b", "c"],
            "ra": MaskedColumn([1.0, 2.0, 3.0], mask=[False, True, False]),
            "dec": [4.0, 5.0, np.nan],
            "redshift": MaskedColumn([0.1, 0.2, 0.3], mask=[True, False, False]),
        }
    )
    file = tmp_path / f"t.{suffix}"
    table.write(file, format={"vot": "votable", "csv": "ascii.csv", "ecsv": "ascii.ecsv"}.get(suffix, suffix))
    read = read_targets(file)
    assert [(r["name"], r["redshift"], r["row_in_catalogue"]) for r in rows(read)] == [("a", None, 1)]
    assert [row.reason for row in read.bad_rows] == ["no right ascension", "no declination"]
    if suffix in ("fits", "parquet", "vot"):
        assert [(row.line, row.text[:7]) for row in read.bad_rows] == [(2, "name=b,"), (3, "name=c,")]


def votable_with(path: Path, systems: list[CooSys], ref: str | None, lon: float, lat: float) -> Path:
    document = from_table(Table({"ra": [lon], "dec": [lat]}))
    document.coordinate_systems.extend(systems)
    for field in document.get_first_table().fields:
        field.ref = ref
    document.to_xml(str(path))
    return path


def test_votable_frames(tmp_path: Path) -> None:
    sky = SkyCoord(10 * u.deg, 20 * u.deg)
    b1950 = sky.transform_to(FK4(equinox="B1950"))
    position = (b1950.ra.deg, b1950.dec.deg)
    fk4 = CooSys(ID="old", equinox="B1950", system="eq_FK4", epoch="J1983.5")
    fk5 = CooSys(ID="new", equinox="J2000", system="eq_FK5")
    xy = CooSys(ID="chip", system="xy")
    referred = read_targets(votable_with(tmp_path / "a.vot", [fk5, fk4, xy], "old", *position))
    assert separation(referred, sky) < 1e-9
    assert rows(referred)[0]["ref_epoch"] == 1983.5
    alone = read_targets(votable_with(tmp_path / "b.vot", [fk4], None, *position))
    assert separation(alone, sky) < 1e-9
    unclear = votable_with(tmp_path / "c.vot", [fk4, fk5], None, *position)
    with pytest.raises(ConfigurationError, match="declares several frames"):
        read_targets(unclear)
    assert separation(read_targets(unclear, frame="fk4 B1950"), sky) < 1e-9
    with pytest.raises(ConfigurationError, match="no frame is called 'xy'"):
        read_targets(votable_with(tmp_path / "d.vot", [xy], "chip", 1.0, 2.0))


def test_votable_cell_that_is_no_number(tmp_path: Path) -> None:
    file = votable_with(tmp_path / "t.vot", [], None, 12.5, 2.0)
    text = file.read_text()
    row = text[text.index("<TR>") : text.index("</TR>") + 5]
    write(file, text.replace(row, row.replace("12.5", "unknown") + row))
    read = read_targets(file)
    assert (read.targets.num_rows, bad(read)) == (1, [(1, "no right ascension")])


def test_fits_tables(tmp_path: Path) -> None:
    sky = SkyCoord(10 * u.deg, 20 * u.deg)
    b1950 = sky.transform_to(FK4(equinox="B1950"))
    positions = fits.BinTableHDU.from_columns(
        [
            fits.Column("RA", "D", unit="degrees", array=[b1950.ra.deg]),
            fits.Column("DEC", "D", array=[b1950.dec.deg]),
            fits.Column("NAME", "10A", array=["x"]),
            fits.Column("SPEC", "3E", array=[[1.0, 2.0, 3.0]]),
        ],
        name="SOURCES",
    )
    positions.header["RADECSYS"], positions.header["EQUINOX"] = "FK4", 1950.0
    gti = fits.BinTableHDU.from_columns([fits.Column("START", "D", array=[1.0])], name="GTI")
    fits.HDUList([fits.PrimaryHDU(), gti, positions]).writeto(tmp_path / "t.fits")
    read = read_targets(tmp_path / "t.fits")
    assert separation(read, sky) < 1e-9
    assert rows(read)[0]["name"] == "x"
    fits.HDUList([fits.PrimaryHDU(), positions, positions.copy()]).writeto(tmp_path / "two.fits")
    with pytest.raises(ConfigurationError, match="2 tables with positions: SOURCES, SOURCES"):
        read_targets(tmp_path / "two.fits")
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "image.fits")
    with pytest.raises(ConfigurationError, match="images, but no table"):
        read_targets(tmp_path / "image.fits")
    (tmp_path / "cut.fits").write_bytes((tmp_path / "t.fits").read_bytes()[:-2880])
    with pytest.raises(ConfigurationError, match=r"cut\.fits can't be read as fits"):
        read_targets(tmp_path / "cut.fits")


def test_blank_in_an_ascii_fits_table_is_no_zero(tmp_path: Path) -> None:
    columns = [fits.Column("RA", "F8.4", array=[1.5, 2.5]), fits.Column("DEC", "D16.8", array=[3.5, 4.5])]
    fits.TableHDU.from_columns(columns).writeto(tmp_path / "t.fits")
    content = (tmp_path / "t.fits").read_bytes().replace(b"2.5000", b"      ").replace(b"4.50000000D+00", b" " * 14)
    (tmp_path / "t.fits").write_bytes(content)
    read = read_targets(tmp_path / "t.fits")
    assert [(r["ra"], r["dec"]) for r in rows(read)] == [(1.5, 3.5)]
    assert bad(read) == [(2, "no right ascension; no declination")]


def test_integer_null_of_a_fits_table(tmp_path: Path) -> None:
    columns = [fits.Column("ra", "J", null=-99, array=[10, -99]), fits.Column("dec", "E", array=[1.5, 2.0])]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "t.fits")
    read = read_targets(tmp_path / "t.fits")
    assert [r["ra"] for r in rows(read)] == [10.0]
    assert [(b.line, b.reason, b.text) for b in read.bad_rows] == [(2, "no right ascension", "ra=None, dec=2.0")]


def test_parquet_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "source_id": pa.array([4583627001381815936, None]),
            "ra": pa.array([1.5, 2.5], pa.float32()),
            "dec": pa.array(["+01:30:00", "bad"]).dictionary_encode(),
            "cutout": pa.array([[1.0], [2.0]]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    read = read_targets(tmp_path / "t.parquet")
    assert rows(read)[0]["name"] == "4583627001381815936"
    assert (rows(read)[0]["ra"], rows(read)[0]["dec"]) == (1.5, 1.5)
    assert bad(read) == [(2, "declination 'bad' is neither degrees nor sexagesimal")]


def test_what_the_file_holds_goes_before_its_name(tmp_path: Path) -> None:
    buffer = io.StringIO()
    Table({"coord": SkyCoord([1.0] * u.deg, [2.0] * u.deg).galactic}).write(buffer, format="ascii.ecsv")
    read = read_targets(write(tmp_path / "really_ecsv.csv", buffer.getvalue()))
    assert rows(read)[0]["ra"] == pytest.approx(1.0, abs=1e-9)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress("\ufeffname;ra;dec\nñ;1;2\n".encode()))
    assert rows(read_targets(tmp_path / "t.csv.gz"))[0]["name"] == "ñ"
    (tmp_path / "latin.csv").write_bytes("name,ra,dec\nñ,1,2\n".encode("latin-1"))
    assert rows(read_targets(tmp_path / "latin.csv"))[0]["name"] == "ñ"
    commas = write(tmp_path / "t.dat", "ra dec note\n1 2 a,b\n")
    assert rows(read_targets(commas, format="ascii", label_column="note"))[0]["label"] == "a,b"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "t.csv is empty"),
        ("t.csv", b"\n  \n", "t.csv is empty"),
        ("t.csv", b"# only comments\n", "t.csv has no rows"),
        ("t.csv", b"ra,dec\n", "t.csv has no rows"),
        ("t.csv", bytes(range(256)) * 4, "t.csv can't be read as csv"),
        ("t.fits", b"garbage", "t.fits can't be read as fits"),
        ("t.parquet", b"PAR1garbage", "t.parquet can't be read as parquet"),
        ("t.vot", b"<VOTABLE><RESOURCE", "t.vot can't be read as votable"),
        ("t.xml", b"<?xml version='1.0'?><VOTABLE version='1.3'></VOTABLE>", "it holds no table"),
        ("t.ecsv", b"ra dec\n1 2\n", "t.ecsv can't be read as ecsv"),
        ("t.ecsv", b"# %ECSV 1.0\n# ---\n# datatype: [\nra dec\n1 2\n", "t.ecsv can't be read as ecsv"),
        ("t.csv", b"<!DOCTYPE html><html></html>", "is a web page"),
        ("t.tbl", b"|ra|dec|\n|double|double|\n 1.0 2.0\n", "is an IPAC table"),
        ("t.csv.gz", b"\x1f\x8bnonsense", "t.csv.gz can't be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_targets(tmp_path / name)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_no_file_no_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nope.csv does not exist \(give the path"):
        read_targets(tmp_path / "nope.csv")
    with pytest.raises(ConfigurationError, match="is a folder"):
        read_targets(tmp_path)
    with pytest.raises(ConfigurationError, match="formats are ecsv, csv"):
        read_targets(write(tmp_path / "t.csv", "ra,dec\n1,2\n"), format="xlsx")


def test_all_rows_bad_is_for_the_caller_to_judge(tmp_path: Path) -> None:
    read = read_targets(write(tmp_path / "t.csv", "ra,dec\n,\n,\n"))
    assert (read.targets.num_rows, read.targets.schema, len(read.bad_rows)) == (0, TARGETS, 2)


# Real files


def test_yang_2018_has_no_header(data_dir: Path) -> None:
    file = data_dir / "literature_samples/yang2018_yangg.cat"
    with pytest.raises(ConfigurationError, match=r"col2 \(08:31:32.25\), col3 \(\+36:46:17.2\)"):
        read_targets(file)
    read = read_targets(file, ra_column="col2", dec_column="col3", name_column="col1", label_column="col5")
    assert (read.targets.num_rows, read.bad_rows) == (26, ())
    first = rows(read)[0]
    assert (first["name"], first["label"]) == ("J0831+3646", "Turn-on")
    expected = SkyCoord("08:31:32.25 +36:46:17.2", unit=("hourangle", "deg"))
    assert (first["ra"], first["dec"]) == pytest.approx((expected.ra.deg, expected.dec.deg), abs=1e-10)
    assert rows(read)[7]["dec"] == pytest.approx(-(3 / 60 + 34 / 3600), abs=1e-10)  # -00:03:34.0


def test_macleod_2019_has_positions_in_its_names(data_dir: Path) -> None:
    file = data_dir / "literature_samples/macleod2019_table2.dat"
    read = read_targets(file, ra_column="col1", dec_column="col1")
    assert (read.targets.num_rows, read.bad_rows) == (262, ())
    last = file.read_text().splitlines()[-1].split()[0]
    assert rows(read)[-1]["name"] == last
    sign = -1 if last[9] == "-" else 1
    assert rows(read)[-1]["dec"] == pytest.approx(
        sign * (int(last[10:12]) + int(last[12:14]) / 60 + float(last[14:]) / 3600)
    )


@pytest.mark.parametrize(
    ("path", "ra", "dec", "without"),
    [
        ("literature_samples/wise_mir_variable_agn_ps1_sdss.csv", "WISE_RA", "WISE_Dec", 0),
        ("heasarc/saxgrbmgrb.csv", "ra", "dec", 123),
        ("heasarc/fermigbrst.csv", "ra", "dec", 0),
        ("wise/timewise_test_sample.csv", "ra", "dec", 0),
        ("virac_vvv/primvs_tess_targets.csv", "ra", "dec", 0),
    ],
)
def test_real_csv_files(data_dir: Path, path: str, ra: str, dec: str, without: int) -> None:
    with (data_dir / path).open(newline="", encoding="utf-8") as file:
        original = list(csv.DictReader(file))
    read = read_targets(data_dir / path)
    good = [(n, r) for n, r in enumerate(original, 1) if r[ra] and r[dec]]
    assert read.targets["row_in_catalogue"].to_pylist() == [n for n, _ in good]
    assert read.targets["ra"].to_pylist() == [float(r[ra]) for _, r in good]
    assert read.targets["dec"].to_pylist() == [float(r[dec]) for _, r in good]
    # These files hold no comments, so row n is on line n + 1.
    assert [b.line for b in read.bad_rows] == [n + 1 for n, r in enumerate(original, 1) if not r[ra]]
    assert len(read.bad_rows) == without


def test_real_names_and_redshifts(data_dir: Path) -> None:
    wise = read_targets(data_dir / "literature_samples/wise_mir_variable_agn_ps1_sdss.csv")
    assert (rows(wise)[0]["name"], rows(wise)[0]["redshift"]) == ("J031621.68+000122.5", 1.5489)
    timewise = read_targets(data_dir / "wise/timewise_test_sample.csv", label_column="class")
    assert [r["label"] for r in rows(timewise)[:2]] == ["TDE", "TDE?"]
    assert rows(timewise)[-5]["redshift"] is None or isinstance(rows(timewise)[-5]["redshift"], float)


def test_ned_says_degrees_and_fk5(data_dir: Path) -> None:
    read = read_targets(data_dir / "literature_samples/ned_query_refcode.xml")
    original = Table.read(data_dir / "literature_samples/ned_query_refcode.xml", format="votable")
    fk5 = SkyCoord(original["main_col3"].data * u.deg, original["main_col4"].data * u.deg, frame="fk5")
    assert (read.targets.num_rows, read.bad_rows) == (36, ())
    assert separation(read, fk5) < 1e-9
    assert rows(read)[0]["name"] == "NGC 0262"
    assert rows(read)[0]["redshift"] == pytest.approx(0.015034)
    assert read.targets["redshift"].null_count == int(original["main_col7"].mask.sum())


def test_other_archives(data_dir: Path) -> None:
    irsa = read_targets(data_dir / "literature_samples/irsa_Cone.xml")
    assert rows(irsa)[0]["ra"] == pytest.approx(10.684737, abs=2e-5)
    gaia = read_targets(data_dir / "gaia/1710099405832VAL-result.vot")
    first = rows(gaia)[0]
    assert (gaia.targets.num_rows, first["name"], first["ra"]) == (2, "Gaia DR3 4583627001381815936", 268.0676646661466)
    assert (first["pm_ra"], first["ref_epoch"]) == (-8.5440331309214, 2016.0)
    for name, n_rows, without_name in (("rosmaster.vot", 1000, 57), ("rosmaster.fits", 83, 0)):
        rosat = read_targets(data_dir / "heasarc" / name)
        assert rosat.targets.num_rows + len(rosat.bad_rows) == n_rows
        assert rosat.targets["name"].null_count == without_name
    assert read_targets(data_dir / "icecube/events/IC40_exp.csv").targets.num_rows > 0


def test_a_file_of_many_tables_is_not_chosen_from(data_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"231 tables with positions: .*I/34/greenw2a.* \(save the one"):
        read_targets(data_dir / "literature_samples/vizier_viz.xml")
    with pytest.raises(ConfigurationError, match="has no rows"):
        read_targets(data_dir / "literature_samples/vizier_find_kangapj70683.xml")
