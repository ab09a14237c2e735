"""Whatever positions are written, in whatever format and frame, come back, in order, and none gets lost."""

from __future__ import annotations

import csv
import tempfile
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import FK4, FK5, SkyCoord
from astropy.table import Table
from hypothesis import example, given
from hypothesis import strategies as st

from lake.errors import ConfigurationError
from tasks.samples.files import read_targets
from tasks.samples.target_file import TargetFile

POSITIONS = st.lists(
    st.tuples(
        st.floats(0.0, 360.0, exclude_max=True, allow_subnormal=False), st.floats(-90.0, 90.0, allow_subnormal=False)
    ),
    min_size=1,
    max_size=20,
)
# Names may hold anything but what ends a line or begins a comment.
NAMES = st.text(st.characters(categories=("L", "N", "P", "S"), exclude_characters="#"), min_size=1, max_size=8)
# What papers, spreadsheets and programs write where there is no value: a name like this is no name.
NO_VALUE = {"nan", "null", "none", "n/a", "na", "-", "--", "---", "–", "—", "−", "...", "…", "~", "<na>", "\\n"}


def write_and_read(table: Table, name: str, **kwargs: object) -> TargetFile:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        table.write(file, **kwargs)
        return read_targets(file)


def check(read: TargetFile, sky: SkyCoord, within: float = 1e-9) -> None:
    assert read.bad_rows == ()
    assert read.targets["row_in_catalogue"].to_pylist() == list(range(1, len(sky) + 1))
    ra, dec = read.targets["ra"].to_numpy(), read.targets["dec"].to_numpy()
    assert ((ra >= 0.0) & (ra < 360.0)).all()
    assert SkyCoord(ra, dec, unit="deg").separation(sky.icrs).deg.max() < within


def sky_of(positions: list[tuple[float, float]]) -> SkyCoord:
    ra, dec = np.array(positions).T
    return SkyCoord(ra, dec, unit="deg")


@given(positions=POSITIONS)
@pytest.mark.parametrize(
    ("name", "format"),
    [("t.csv", "ascii.csv"), ("t.txt", "ascii"), ("t.vot", "votable"), ("t.fits", "fits"), ("t.parquet", "parquet")],
)
def test_degrees_come_back(name: str, format: str, positions: list[tuple[float, float]]) -> None:
    ra, dec = np.array(positions).T
    read = write_and_read(Table({"ra": ra, "dec": dec}), name, format=format)
    check(read, sky_of(positions))
    np.testing.assert_array_equal(read.targets["ra"].to_numpy(), ra)
    np.testing.assert_array_equal(read.targets["dec"].to_numpy(), dec)


@given(positions=POSITIONS, separator=st.sampled_from([":", " ", "fromunit"]))
def test_sexagesimal_comes_back(positions: list[tuple[float, float]], separator: str) -> None:
    sky = sky_of(positions)
    kind = {"sep": separator, "precision": 9}
    table = Table({"ra": sky.ra.to_string("hour", **kind), "dec": sky.dec.to_string("deg", **kind, alwayssign=True)})
    check(write_and_read(table, "t.csv", format="ascii.csv"), sky)


@given(
    positions=POSITIONS,
    frame=st.sampled_from(["icrs", "fk5", "galactic"]),
    suffix=st.sampled_from(["ecsv", "fits", "parquet"]),
)
def test_skycoord_comes_back(positions: list[tuple[float, float]], frame: str, suffix: str) -> None:
    sky = sky_of(positions)
    check(write_and_read(Table({"coord": sky.transform_to(frame)}), f"t.{suffix}"), sky)


@example(cells=[(":", "D", ""), ("A", "1.0", "2.0")])  # no line of units
@given(
    cells=st.lists(
        st.tuples(
            st.one_of(NAMES, st.sampled_from(["NA", "None", "--"])),
            st.one_of(st.floats(-10.0, 370.0).map(repr), st.sampled_from(["", "n/a", "12:61:00", "nan"]), NAMES),
            st.one_of(st.floats(-95.0, 95.0).map(repr), st.sampled_from(["", "-00:30:00"])),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_no_row_is_lost(cells: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([("name", "ra", "dec"), *cells])
        read = read_targets(file)
    good = read.targets["row_in_catalogue"].to_pylist()
    assert sorted([*good, *(bad.line - 1 for bad in read.bad_rows)]) == list(range(1, len(cells) + 1))
    names = [cells[row - 1][0] for row in good]
    assert read.targets["name"].to_pylist() == [None if name.lower() in NO_VALUE else name for name in names]
    assert u.allclose(read.targets["dec"].to_numpy().clip(-90.0, 90.0), read.targets["dec"].to_numpy())


# Ways to write right ascension and declination; units in names, as the file declares them, and what they make of 1 deg.
SPELLINGS = (
    ("RA{}", "Dec{}"),
    ("ra{}", "de{}"),
    ("RAJ2000{}", "DEJ2000{}"),
    ("TARGET_RA{}", "TARGET_DEC{}"),
    ("right ascension{}", "declination{}"),
    ("my_lon{}", "my_lat{}"),
)
UNITS = (
    ("", "", 1.0),
    (" (deg)", "deg", 1.0),
    ("_deg", "deg", 1.0),
    (" [rad]", "rad", np.pi / 180),
    ("_rad", "rad", np.pi / 180),
    (" (hours)", "hourangle", 1 / 15),
    ("_hours", "hourangle", 1 / 15),
)


@given(
    positions=POSITIONS,
    names=st.sampled_from(SPELLINGS),
    lon_unit=st.sampled_from(UNITS),
    lat_unit=st.sampled_from(UNITS[:5]),
    declared=st.booleans(),
    equinox=st.sampled_from([None, "J2000", "2000.0", "B1950", "B1950.0", "J1975"]),
    said=st.sampled_from(["column", "keyword"]),
    suffix=st.sampled_from(["csv", "ecsv", "fits", "vot", "parquet"]),
)
def test_spellings_come_back_or_are_refused_by_name(
    positions: list[tuple[float, float]],
    names: tuple[str, str],
    lon_unit: tuple[str, str, float],
    lat_unit: tuple[str, str, float],
    declared: bool,
    equinox: str | None,
    said: str,
    suffix: str,
) -> None:
    sky = sky_of(positions)
    year = (equinox or "J2000").lstrip("BJ")
    there = (
        sky
        if float(year) == 2000.0
        else sky.transform_to(FK4(equinox=equinox) if "B" in equinox else FK5(equinox=equinox))
    )
    in_names = suffix == "csv" or not declared
    called = [name.format(unit[0] if in_names else "") for name, unit in zip(names, (lon_unit, lat_unit), strict=True)]
    table = Table({called[0]: there.ra.deg * lon_unit[2], called[1]: there.dec.deg * lat_unit[2]})
    if not in_names:
        for name, (_, unit, _) in zip(called, (lon_unit, lat_unit), strict=True):
            table[name].unit = "h" if unit == "hourangle" else unit or "deg"  # FITS has no hourangle
    if equinox and (said == "column" or suffix in ("csv", "vot")):
        table["Equinox"] = [equinox] * len(table)
    elif equinox:
        table.meta["EQUINOX"] = equinox
    format = {"vot": "votable", "csv": "ascii.csv", "ecsv": "ascii.ecsv"}.get(suffix, suffix)
    said_so = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that are no XML ids, and the like
            read = write_and_read(table, f"t.{suffix}", format=format)
    except ConfigurationError as refused:
        said_so = str(refused)
    if said_so:
        assert called[0] in said_so or "Equinox" in said_so
        return
    if "2000" in called[0] and float(year) != 2000.0:
        # The name says J2000, and goes before a column.
        return
    known = np.isin(np.arange(1, len(sky) + 1), read.targets["row_in_catalogue"].to_numpy())
    found = SkyCoord(read.targets["ra"].to_numpy(), read.targets["dec"].to_numpy(), unit="deg")
    assert (found.separation(sky[known]).arcsec < 1e-3).all()
    assert len(read.bad_rows) + read.targets.num_rows == len(sky)
    assert read.bad_rows == () or "Equinox" in read.bad_rows[0].reason or "outside" in read.bad_rows[0].reason
