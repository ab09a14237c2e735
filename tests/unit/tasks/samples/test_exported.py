"""Targets that are written as a list, and read back, are the same to the last bit."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io.votable import parse_single_table
from astropy.table import Table

from lake.commit.target_changes import rename_target
from lake.commit.targets import add_targets
from lake.errors import ConfigurationError
from lake.query import Lake
from lake.settings import load_settings
from tasks.samples.exported import COLUMNS, export_targets
from tasks.samples.files import read_targets

FORMATS = ("t.ecsv", "t.vot", "t.csv", "t.parquet")
# What all formats hold, and what some of them cannot.
PRINTED = (
    '[red]o\'"<b>&amp;"',
    "a, b; c|d",
    "# 5",
    "=1+1",
    "nil",
    "nano",
    "-x-",
    "Ångström \U0001f52d",
    "12345.0",
    "1e5",
)
ODD = ("line\nbreak", "\x1b[2J", "a\u2028b\u202e", "\x01")
REFUSED = {"t.ecsv": (ODD[0], ODD[3]), "t.vot": (ODD[1], ODD[3]), "t.csv": (ODD[0], ODD[3]), "t.parquet": ()}
N = 60


def _targets(names: Sequence[str] = PRINTED) -> pa.Table:
    """Numbers with all their digits, some of them missing, and two names or labels of some targets."""
    generator = np.random.default_rng(17)
    ra, dec = generator.uniform(0, 360, N), np.degrees(np.arcsin(generator.uniform(-1, 1, N)))
    dec[:3] = (-90.0, 90.0, -1e-9)
    moving, dated = generator.random(N) < 0.5, generator.random(N) < 0.5

    def some(values: np.ndarray, there: np.ndarray) -> pa.Array:
        return pa.array(values, mask=~there)

    table = pa.table(
        {
            "name": pa.array([*names, *(None if n % 7 == 0 else f"T {n}" for n in range(N - len(names)))]),
            "ra": ra,
            "dec": dec,
            "pm_ra": some(generator.normal(0, 100, N), moving),
            "pm_dec": some(generator.normal(0, 100, N), moving),
            "ref_epoch": some(generator.uniform(1900, 2020, N), moving | dated),
            "redshift": some(generator.uniform(0, 3, N), dated),
            "label": pa.array([None if n % 5 == 0 else f"label {n % 3}" for n in range(N)], pa.string()),
        }
    )
    again = table.slice(10, 8).set_column(0, "name", pa.array([f"second {n}" for n in range(8)]))
    return pa.concat_tables([table, again.set_column(7, "label", pa.array(["other"] * 8))])


def _held(lake: Lake, sample: str) -> list[dict[str, Any]]:
    """What a lake has of a sample, but for when and from where."""
    columns = "target_id, targets.name, ra, dec, hpx29, pm_ra, pm_dec, ref_epoch, redshift"
    query = f"""
        SELECT {columns}, list(DISTINCT label ORDER BY label) AS labels,
            (SELECT list(n.name ORDER BY n.name) FROM target_names AS n WHERE n.target_id = targets.target_id) AS names
        FROM targets JOIN labels USING (target_id) WHERE sample = ? GROUP BY ALL ORDER BY target_id
    """
    rows: list[dict[str, Any]] = lake.sql(query, [sample]).to_pylist()
    return rows


@pytest.fixture
def other(template: Path, tmp_path: Path) -> Iterator[Lake]:
    """Another lake."""
    url = tmp_path / "other"
    shutil.copytree(template, url)
    with Lake(url, load_settings(url=str(url), catalog=None), writable=True) as opened:
        yield opened


@pytest.mark.parametrize(
    "file", [pytest.param(one, marks=() if one in FORMATS[::3] else pytest.mark.long) for one in FORMATS]
)
def test_a_list_brings_the_same_targets_back(lake: Lake, other: Lake, tmp_path: Path, file: str) -> None:
    names = [name for name in PRINTED + ODD if name not in REFUSED[file]]
    add_targets(lake.catalog, _targets(names), "s", catalogue="s.csv")
    renamed = lake.sql("SELECT target_id FROM targets WHERE name = 'T 20'")["target_id"][0].as_py()
    rename_target(lake.catalog, renamed, "New name")
    add_targets(lake.catalog, pa.table({"ra": [5.0], "dec": [6.0], "name": ["elsewhere"]}), "another")
    before = _held(lake, "s")
    done = export_targets(lake, tmp_path / file, sample="s")
    assert (done.targets, done.notes) == (N, ())
    assert done.rows == N + 8 + 1
    read = read_targets(tmp_path / file, label_column="label")
    assert (read.bad_rows, read.remarks) == ((), ())
    assert {one.quantity: one.column for one in read.taken} == {
        name: name for name in ("name", "ra", "dec", "pm_ra", "pm_dec", "ref_epoch", "redshift", "label")
    }
    add_targets(other.catalog, read.targets, "s")
    assert _held(other, "s") == before
    # All samples, and once more the same.
    everything = export_targets(lake, tmp_path / f"all-{file}")
    assert everything.targets == N + 1
    export_targets(other, tmp_path / f"again-{file}")
    twice = [read_targets(tmp_path / one, label_column="label").targets for one in (file, f"again-{file}")]
    assert twice[0].equals(twice[1])


def test_units_ucds_and_descriptions_go_with_it(lake: Lake, tmp_path: Path) -> None:
    add_targets(lake.catalog, _targets(), "s")
    for file in FORMATS:
        export_targets(lake, tmp_path / file)
    ecsv = Table.read(tmp_path / "t.ecsv")
    fields = {field.name: field for field in parse_single_table(tmp_path / "t.vot").fields}
    schema = pq.read_schema(tmp_path / "t.parquet")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert [*ecsv.colnames] == [*fields] == schema.names == [*rows[0]] == [column.name for column in COLUMNS]
    for column in COLUMNS:
        told = schema.field(column.name).metadata
        field, unit = fields[column.name], u.Unit(column.unit or "", format="vounit") if column.unit else None
        assert (ecsv[column.name].unit, field.unit) == (unit, unit)
        assert told.get(b"unit", b"").decode() == (column.unit or "")
        assert ecsv[column.name].meta["ucd"] == field.ucd == told[b"ucd"].decode() == column.ucd
        assert ecsv[column.name].description == field.description == told[b"description"].decode() == column.description
    assert (ecsv.meta["RADESYS"], schema.metadata[b"RADESYS"]) == ("ICRS", b"ICRS")
    assert {name for name, field in fields.items() if field.ref == "icrs"} == {"ra", "dec", "pm_ra", "pm_dec"}
    assert len(ecsv) == len(rows) == N + 8
    for name in ("ra", "pm_ra", "name", "label"):
        told = [None if one is np.ma.masked else one for one in ecsv[name]]
        assert told == pq.read_table(tmp_path / "t.parquet")[name].to_pylist(), name
    assert {row["target_id"] for row in rows} == {str(one) for one in ecsv["target_id"]}


@pytest.mark.parametrize(
    ("file", "odd"),
    # A cell that says null or nan is one without a name, in lists that are text.
    [*((file, odd) for file, names in REFUSED.items() for odd in names), ("t.csv", "null"), ("t.vot", "nan")],
)
def test_a_name_that_a_format_cannot_hold_is_no_broken_file(lake: Lake, tmp_path: Path, file: str, odd: str) -> None:
    add_targets(lake.catalog, pa.table({"ra": [1.0, 2.0], "dec": [0.0, 0.0], "name": ["plain", odd]}), "s")
    with pytest.raises(ConfigurationError, match="could not be read back") as error:
        export_targets(lake, tmp_path / file)
    assert repr(odd) in str(error.value)
    assert "Parquet" in error.value.hint
    assert list(tmp_path.glob("t.*")) == []


def test_a_file_that_is_there_stays(lake: Lake, tmp_path: Path) -> None:
    add_targets(lake.catalog, _targets(), "s")
    file = tmp_path / "t.csv"
    file.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"t\.csv is there already") as error:
        export_targets(lake, file)
    assert "--overwrite" in error.value.hint
    assert file.read_text() == "mine"
    export_targets(lake, file, overwrite=True)
    assert file.read_text().startswith("target_id,name,ra,dec,")


@pytest.mark.parametrize(
    ("file", "sample", "message", "hint"),
    [
        ("t.docx", None, r"'\.docx'", r".ecsv, .vot, .votable, .xml, .csv, .parquet"),
        ("t", None, "'t'", ".ecsv"),
        ("t.fits", None, r"'\.fits'", ".ecsv"),
        ("t.csv", "z", "unknown sample 'z'", "known: s"),
        ("nowhere/t.csv", "s", "cannot write", "folder"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    lake: Lake, tmp_path: Path, file: str, sample: str | None, message: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError, match="has no targets"):
        export_targets(lake, tmp_path / "t.csv")
    add_targets(lake.catalog, _targets(), "s")
    with pytest.raises(ConfigurationError, match=message) as error:
        export_targets(lake, tmp_path / file, sample=sample)
    assert hint in error.value.hint


def test_targets_that_would_be_one_are_told(lake: Lake, tmp_path: Path) -> None:
    near = pa.table({"ra": [10.0, 10.0, 20.0], "dec": [0.0, 0.5 / 3600, 0.0], "name": ["A", "B", "C"]})
    add_targets(lake.catalog, near, "near", radius_arcsec=0.1)
    (note,) = export_targets(lake, tmp_path / "near.csv").notes
    assert note.startswith("2 targets within 1 arcsec of another")
    assert add_targets(lake.catalog, read_targets(tmp_path / "near.csv").targets, "again", radius_arcsec=0.1).new == 0
    add_targets(lake.catalog, near.slice(2), "own", radius_arcsec=0)
    assert export_targets(lake, tmp_path / "own.csv", sample="own").notes == ()
    (note,) = export_targets(lake, tmp_path / "all.csv").notes
    assert note.startswith("1 target at the position of another")
