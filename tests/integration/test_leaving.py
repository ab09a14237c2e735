"""The commands about what leaves a lake: export, cite and changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from helpers.every_archive import fill
from helpers.granules import committed
from helpers.processes import Run

from lake.store.catalog import Catalog


@pytest.fixture
def url(prepared: Callable[[Callable[[Catalog], None]], Catalog]) -> str:
    return str(prepared(fill).storage.root)


def test_files_citations_and_changes(url: str, catalog: Catalog, run: Run, tmp_path: Path) -> None:
    for form in ("votable", "fits", "ecsv", "csv", "parquet"):
        done = run("export", form, "--target", "T0", "--archive", "ztf", "--to", tmp_path / form, "--lake", url)
        assert (done.code, done.out.split(": ")[1][:6]) == (0, "5 rows")
    assert pq.read_metadata(tmp_path / "parquet").num_rows == 5
    with fits.open(tmp_path / "fits") as file:
        assert [len(one.data) for one in file[1:]] == [5]
    query = "SELECT mjd, flux, unit FROM lightcurves WHERE archive = 'ztf' AND good"
    assert run("export", "csv", query, "--to", tmp_path / "query", "--lake", url).code == 0
    lines = (tmp_path / "query").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) == 1 + 3

    done = run("cite", "--target", "T0", "--lake", url)
    assert done.code == 0
    assert "@article{2019PASP..131a8003M," in done.out
    assert run("cite", query, "--to", tmp_path / "x.bib", "--lake", url).out.endswith("1 archive, 1 paper\n")
    assert "AST-1440341" in (tmp_path / "x.bib").read_text()

    committed(catalog, [1], "g1", archive="wise", release="1")
    done = run("changes", "--since", "2001-01-01", "--output", "json", "--lake", url)
    rows = {(row["name"], row["archive"]): row["new_points"] for row in json.loads(done.out)}
    assert rows[("T1", "wise")] == 6
    assert rows[("T0", "ztf")] == 5
    last = catalog.cursor().execute("FROM ducklake_current_snapshot('lake')").fetchall()[0][0]
    done = run("changes", "--since", last, "--lake", url)
    assert done.out.splitlines()[-1].startswith("new points: 0; changed: 0; gone: 0")
    done = run("changes", "--since", last - 1, "--lake", url)
    assert done.out.splitlines()[-1].startswith("new points: 6; changed: 0; gone: 0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "csv", "--to", "x"], "it is not clear what to take"),
        (["export", "csv", "--target", "T0", "--sample", "test", "--to", "x"], "more than one thing"),
        (["export", "csv", "SELECT flux FROM lightcurves", "--to", "x"], "add it to the query: SELECT ..., unit"),
        (["export", "csv", "SELECT 9223372036854775808 AS n", "--to", "x"], "column n has a number"),
        (["export", "fits", "--target", "T1", "--to", "x"], "no measurements of T1"),
        (["export", "votable", "--target", "M 87", "--to", "x"], "no target is named 'M 87'"),
        (["export", "votable", "--target", "T0", "--band", "nothing", "--to", "x"], "unknown band 'nothing'"),
        (["export", "parquet", "FROM targets", "--to", "no/where/x"], "cannot write no/where/x"),
        (["cite"], "it is not clear what is to be cited"),
        (["cite", "FROM nothing"], "the SQL failed"),
        (["changes", "--since", "soon"], "'soon' is neither a snapshot nor a date"),
    ],
)
def test_what_cannot_be_is_one_line_and_the_file_stays(url: str, run: Run, arguments: list[str], message: str) -> None:
    Path("x").write_text("what was there")
    done = run(*arguments, "--lake", url)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["x"]
    assert Path("x").read_text() == "what was there"
