"""Light curves in files: every form gives back the same values, units and times, of every archive."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse
from astropy.io.votable.ucd import check_ucd
from astropy.table import QTable, Table
from astropy.time import Time
from astropy.units import Unit, UnitsWarning
from helpers.every_archive import every_origin, filled_lake
from helpers.profiles import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.errors import ConfigurationError, ReadOnly
from lake.export.files import WRITERS, Selection, export
from lake.export.rows import refposition, staged
from lake.query import Lake

# A microsecond.
TIME_D = 1e-6 / 86400
Row = dict[str, Any]


@pytest.fixture(scope="module")
def lake(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake with every archive, open for reading, for all tests."""
    with filled_lake(template, tmp_path_factory.mktemp("files") / "lake") as opened:
        yield opened


def value_of(value: Any) -> Any:
    """Return a value as Python has it; what is masked or NaN is None."""
    if getattr(value, "mask", False) is not False and bool(getattr(value, "mask", False)):
        return None
    value = getattr(value, "value", value)
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


def rows_of(table: Table) -> list[Row]:
    """Return the rows of an astropy table; empty text is NULL in every form of astropy's."""
    columns = {}
    for name in table.colnames:
        values = table[name]
        if isinstance(values, Time):
            values = values.mjd
        columns[name.lower()] = [None if one == "" else one for one in map(value_of, values)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def read_votable(path: Path) -> list[Row]:
    tables = [one.to_table(use_names_over_ids=True) for one in parse(path, verify="exception").iter_tables()]
    return [row for table in tables for row in rows_of(table)]


def read_fits(path: Path) -> list[Row]:
    with fits.open(path) as file:
        file.verify("exception")
        tables = [Table.read(file, hdu=number) for number in range(1, len(file))]
    rows = [row for table in tables for row in rows_of(table)]
    return [{"bmjd_tdb" if name == "time" else name: value for name, value in row.items()} for row in rows]


def read_ecsv(path: Path) -> list[Row]:
    return rows_of(QTable.read(path, format="ascii.ecsv"))


def read_csv(path: Path) -> list[Row]:
    text = "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("#"))
    options = pyarrow.csv.ConvertOptions(
        strings_can_be_null=True, quoted_strings_can_be_null=False, column_types={"quality": pa.int64()}
    )
    parse_options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    rows = pyarrow.csv.read_csv(io.BytesIO(text.encode()), parse_options=parse_options, convert_options=options)
    return rows.to_pylist()


def read_parquet(path: Path) -> list[Row]:
    return pq.read_table(path).to_pylist()


READERS: dict[str, Callable[[Path], list[Row]]] = {
    "votable": read_votable,
    "fits": read_fits,
    "ecsv": read_ecsv,
    "csv": read_csv,
    "parquet": read_parquet,
}


def same(form: str, name: str, held: Any, written: Any) -> bool:
    """Say whether a value came back: text of FITS in ASCII, numbers of CSV by their shortest text."""
    if held == "" and form not in ("csv", "parquet"):
        return written is None  # astropy takes the empty text for NULL
    if isinstance(held, str) and form == "fits":
        held = held.encode("ascii", "backslashreplace").decode()
    if isinstance(held, float) and isinstance(written, float):
        return written == held or (name in ("mjd", "bmjd_tdb") and abs(written - held) < TIME_D)
    if form == "csv" and isinstance(held, str) and not isinstance(written, str):
        return str(written) == held  # a column of digits: CSV has no types
    return bool(written == held)


@pytest.mark.parametrize("form", READERS)
def test_every_value_of_every_archive_comes_back(lake: Lake, tmp_path: Path, form: str) -> None:
    export(lake, tmp_path / "file", form, Selection(sample="test"))  # type: ignore[arg-type]
    held = lake.sql("FROM target_lightcurves").to_pylist()
    assert {row["archive"] for row in held} == {origin.name for origin in every_origin()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitsWarning)  # astropy's FITS knows no electrons, VOUnit advises against erg
        found = READERS[form](tmp_path / "file")
    assert len(found) == len(held)
    by_key = {(row["archive"], row["band"], round(row["mjd"], 6)): row for row in found}
    for row in held:
        written = by_key[(row["archive"], row["band"], round(row["mjd"], 6))]
        wrong = {name: (v, written[name]) for name, v in row.items() if not same(form, name, v, written[name])}
        # Narrow floats of CSV are read as wide ones.
        wrong = {
            name: pair
            for name, pair in wrong.items()
            if form != "csv" or pa.scalar(pair[1], pa.float32()).as_py() != pair[0]
        }
        assert not wrong


def test_a_votable_has_units_clocks_frames_and_calibration(lake: Lake, tmp_path: Path) -> None:
    export(lake, tmp_path / "x.vot", "votable", Selection(target="T0"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitsWarning)  # VOUnit advises against erg
        file = parse(tmp_path / "x.vot", verify="exception")
        for one in ElementTree.parse(tmp_path / "x.vot").iter():
            assert Unit(one.get("unit", ""), format="vounit", parse_strict="raise") is not None
    clocks = {one.ID: one for one in file.iter_timesys()}
    assert (clocks["barycentre"].timescale, clocks["barycentre"].refposition) == ("TDB", "BARYCENTER")
    assert {one.timeorigin for one in clocks.values()} == {2400000.5}
    groups = {group.ID: group for one in file.resources[0].resources for group in one.groups}
    origins = {origin.name: origin for origin in every_origin()}
    seen = set()
    for table in file.iter_tables():
        columns = {one.name: one for one in table.fields}
        row = table.to_table(use_names_over_ids=True)[0]
        origin = origins[str(row["archive"])]
        (band,) = [one for one in origin.bands if one.band == str(row["band"])]
        seen.add((origin.name, band.unit))
        for column in table.fields:
            assert column.ucd is None or check_ucd(column.ucd, check_controlled_vocabulary=True), column.ucd
        assert str(columns["flux"].unit or "") == (str(Unit(band.unit)) if band.unit else "")
        assert columns["bmjd_tdb"].ref == "barycentre"
        clock = clocks[columns["mjd"].ref]
        assert (clock.timescale, clock.refposition) == (origin.time_scale, refposition(origin.time_frame))
        photcal = {one.name: one.value for one in groups[columns["flux"].ref].entries}
        assert columns["mag"].ref == columns["flux"].ref
        assert photcal.get("zeroPointFlux") == band.zero_point_jy
        assert photcal.get("magnitudeSystem") == band.mag_system
        assert photcal.get("effectiveWavelength") == band.wavelength_nm
        assert columns["ra"].ref == "icrs"
    assert seen == {(origin.name, band.unit) for origin in origins.values() for band in origin.bands}
    assert "DR3" not in str(file.description)
    assert origins["gaia"].acknowledgement in next(iter(file.resources)).description


def test_a_fits_file_has_clocks_that_astropy_reads(lake: Lake, tmp_path: Path) -> None:
    export(lake, tmp_path / "x.fits", "fits", Selection(target="T0", archive="ztf"))
    with fits.open(tmp_path / "x.fits") as file:
        header = file[1].header
        about = str(file[0].header["COMMENT"])
    assert (header["TIMESYS"], header["TREFPOS"], header["MJDREF"], header["TIMEUNIT"]) == ("TDB", "BARYCENTER", 0, "d")
    assert (header["ARCHIVE"], header["MAGSYS"], header["ZEROPNT"]) == ("ztf", "AB", pytest.approx(3631, abs=1))
    assert "AST-1440341" in "".join(about.split("\n"))
    table = QTable.read(tmp_path / "x.fits", hdu=1, astropy_native=True)
    (first, *_) = lake.sql("FROM target_lightcurves WHERE archive = 'ztf' ORDER BY mjd").to_pylist()
    assert (table["TIME"].scale, table["MJD"].scale) == ("tdb", "utc")
    assert abs(table["TIME"][0].mjd - first["bmjd_tdb"]) < TIME_D
    assert str(table["FLUX"].unit) == "mJy"


def test_an_ecsv_file_has_times_units_and_ucds(lake: Lake, tmp_path: Path) -> None:
    export(lake, tmp_path / "x.ecsv", "ecsv", Selection(target="T0"))
    table = QTable.read(tmp_path / "x.ecsv")
    assert (type(table["bmjd_tdb"]), table["bmjd_tdb"].scale) == (Time, "tdb")
    assert (str(table["mag"].unit), table["mag"].info.meta["ucd"]) == ("mag", "phot.mag")
    clocks = {(str(row["archive"]), str(row["time_scale"]), str(row["time_frame"])) for row in table}
    assert clocks == {(origin.name, origin.time_scale, origin.time_frame) for origin in every_origin()}
    assert any("AST-1440341" in line for line in table.meta["credits"])


def test_a_parquet_file_is_a_voparquet_file(lake: Lake, tmp_path: Path) -> None:
    export(lake, tmp_path / "x.parquet", "parquet", Selection(target="T0"))
    schema = pq.read_schema(tmp_path / "x.parquet")
    assert schema.field("mag").metadata == {
        b"unit": b"mag", b"ucd": b"phot.mag", b"description": b"Magnitude as reported; system in table bands",
    }  # fmt: skip
    assert b"AST-1440341" in schema.metadata[b"lightlake.credits"]
    table = Table.read(tmp_path / "x.parquet", format="parquet.votable")
    assert (str(table["mjd"].unit), len(table)) == ("d", pq.read_metadata(tmp_path / "x.parquet").num_rows)


def test_a_csv_file_says_units_in_its_first_lines(lake: Lake, tmp_path: Path) -> None:
    export(lake, tmp_path / "x.csv", "csv", Selection(target="T0", archive="ztf"))
    lines = [line for line in (tmp_path / "x.csv").read_text().splitlines() if line.startswith("#")]
    assert any(line.startswith("# mag [float; unit=mag; ucd=phot.mag]") for line in lines)
    assert "# mjd of ztf is UTC, heliocentre; bmjd_tdb is TDB, barycentre" in lines


def test_what_a_form_cannot_carry_is_an_error(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="flux has no unit"):
        export(lake, tmp_path / "x", "csv", Selection("SELECT mjd, flux FROM lightcurves"))
    with pytest.raises(ConfigurationError, match="64 bits"):
        export(lake, tmp_path / "x", "csv", Selection("SELECT 9223372036854775808 AS big"))
    with pytest.raises(ConfigurationError, match="for one"):
        export(lake, tmp_path / "x", "fits", Selection("SELECT 1 AS time, mjd AS bmjd_tdb FROM lightcurves"))
    with pytest.raises(ConfigurationError, match="no measurements of T1"):
        export(lake, tmp_path / "x", "csv", Selection(target="T1"))
    with pytest.raises(ConfigurationError, match="the SQL failed"):
        export(lake, tmp_path / "x", "csv", Selection("SELECT nothing"))
    with pytest.raises(ReadOnly):
        export(lake, tmp_path / "x", "csv", Selection("CHECKPOINT"))
    for wrong in ({}, {"target": "T0", "sample": "test"}, {"query": "FROM targets", "good": True}):
        with pytest.raises(ConfigurationError):
            Selection(**wrong)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("*x*"))


def test_rows_of_any_query_are_written(lake: Lake, tmp_path: Path) -> None:
    query = "SELECT DISTINCT ON (archive) archive, band, [1, 2] AS list, DATE '2020-01-02' AS day FROM lightcurves;"
    for form in WRITERS:
        done = export(lake, tmp_path / form, form, Selection(query))  # type: ignore[arg-type]
        assert (done.whole.rows, len(done.parts)) == (len(every_origin()), 1)
        (row, *_) = READERS[form](tmp_path / form)
        assert str(row["list"]) == "[1, 2]"
        assert str(row["day"]) == "2020-01-02"


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Zs", "Zl", "Zp", "Cf"]), max_size=5)
SMALLEST = -(2**63) + 1  # FITS has one value less, which stands for NULL
VALUES = st.fixed_dictionaries(
    {
        "archive": st.sampled_from(["a", "b"]),
        "band": st.sampled_from(["g", "r"]),
        "unit": st.sampled_from(["mJy", "electron.s**-1", None]),
        "mjd": st.floats(40000, 80000),
        "flux": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
        "quality": st.none() | st.integers(SMALLEST, 2**63 - 1),
        "detected": st.booleans(),
        "source_id": st.none() | TEXT.filter(bool),
    }
)
SCHEMA = pa.schema(
    {
        "archive": pa.string(), "band": pa.string(), "unit": pa.string(), "mjd": pa.float64(), "flux": pa.float32(),
        "quality": pa.int64(), "detected": pa.bool_(), "source_id": pa.string(),
    }
)  # fmt: skip


@pytest.mark.parametrize("form", ["votable", "fits", "ecsv", "parquet"])
@settings(max_examples=examples(12))
@given(rows=st.lists(VALUES, min_size=1, max_size=8))
def test_any_values_come_back(form: str, tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    folder = tmp_path_factory.mktemp("any")
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    made = staged(table.to_reader(), folder / "rows.parquet")
    assert sum(part.rows for part in made.parts) == made.whole.rows == len(rows)
    with (folder / "file").open("wb") as file:
        WRITERS[form](made, file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitsWarning)
        found = READERS[form](folder / "file")
    order = [(name, "ascending") for name in ("archive", "band", "mjd")]
    held = table.to_pylist() if form in ("ecsv", "parquet") else _grouped(table, order)
    assert len(found) == len(held)
    for one, other in zip(held, found, strict=True):
        assert not {n: (v, other[n]) for n, v in one.items() if not same(form, n, v, other[n])}


def _grouped(table: pa.Table, order: Any) -> list[Row]:
    """Return rows in the order of a file with a table for each archive, band and unit."""
    rows = table.to_pylist()
    return sorted(rows, key=lambda row: (row["archive"], row["band"], row["unit"] or ""))


def test_text_that_xml_has_no_place_for(tmp_path: Path) -> None:
    table = pa.table({"name": ["a\x07b", "c\rd", "<>&", " x "], "n": pa.array([1, None, 2, 3], pa.int32())})
    made = staged(table.to_reader(), tmp_path / "rows.parquet")
    with (tmp_path / "x.vot").open("wb") as file:
        WRITERS["votable"](made, file)
    rows = read_votable(tmp_path / "x.vot")
    assert [row["name"].strip() for row in rows] == ["a\ufffdb", "c\rd", "<>&", "x"]
    assert pc.sum(pa.array([row["n"] for row in rows])).as_py() == 6
