"""Every command that shows a table: in a terminal of 80 columns, and in a file of each form."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from helpers.commands import commands, parameters
from helpers.granules import committed, positions
from helpers.processes import Run
from rich.cells import cell_len

from lake.commit.runs import Start, begin, end
from lake.commit.targets import add_targets
from lake.query import Lake
from lake.settings import load_settings
from lake.store.backup import backups
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from lake.upkeep.compaction import compact
from tasks.sources.registry import REGISTRY

FORMS = ("csv", "json", "parquet", "vot", "fits", "ecsv")
RUN = "refresh-261128-1200-abcd"

# Each command with a table, and the rows that it has in the lake below; None: more than none.
TABLES: dict[str, tuple[list[str], int | None]] = {
    "status": (["status"], 1),
    "status of an archive": (["status", "ztf"], 1),
    "status of a run": (["status", "--run", RUN], 0),
    "verify": (["verify", "--quick"], 0),
    "restore": (["restore", "--list"], 1),
    "sql": (["sql", "FROM target_lightcurves"], 18),
    "schema": (["schema"], None),
    "archives": (["archives"], 10),
    "archives NAME": (["archives", "gaia"], 1),
    "targets list": (["targets", "list", "--sample", "three"], 3),
    "samples": (["samples"], None),
    "refresh": (["refresh", "--plan"], 10),
    "run": (["run", "--dry-run", "--archives", "gaia,wise"], 2),
    "runs": (["runs"], 1),
    "runs RUN": (["runs", RUN], 1),
    "changes": (["changes", "--since", "2100-01-01"], 0),
    "doctor": (["doctor", "--offline"], None),
}


@pytest.fixture(scope="module")
def lake_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lake with targets, measurements, a run and a backup, for all tests."""
    storage = Storage.from_url(str(tmp_path_factory.mktemp("tables") / "lake"))
    catalog = Catalog(storage, load_settings(url=str(storage.root), catalog=None))
    catalog.create()
    ra, dec = positions(range(3))
    add_targets(catalog, pa.table({"name": ["M 87", "NGC 1", "z" * 80], "ra": ra, "dec": dec}), "three")
    committed(catalog, range(3), "g0")
    start = Start(RUN, "refresh", "here", 7, datetime.now(UTC))
    begin(catalog, start)
    end(catalog, start, "done", "everything that was asked for is here", 123.0)
    compact(catalog)
    catalog.close()
    return str(storage.root)


@pytest.fixture
def url(lake_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LIGHTLAKE_URL", lake_url)
    monkeypatch.delenv("LIGHTLAKE_CATALOG", raising=False)
    return lake_url


def test_all_commands_with_tables_are_here() -> None:
    """Those that have --expand have tables."""
    with_table = {path for path, _ in commands() if any("--expand" in one.names for one in parameters(path))}
    assert with_table == {
        next(path for path in with_table if f"lightlake {' '.join(words)} ".startswith(f"{path} "))
        for words, _ in TABLES.values()
    }


def test_tables_fit_into_a_terminal(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of words go on by themselves where a terminal ends; a table does not."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for what, (words, _) in TABLES.items():
        for more in ([], ["--expand"]):
            monkeypatch.setenv("COLUMNS", "80")
            told = run(*words, *more).out
            drawn = told.splitlines()
            if what in ("verify", "status of an archive", "status of a run", "doctor", "runs RUN", "restore"):
                drawn = [line for line in drawn if line[:1] in "┏┃┡│└─"]
            assert [line for line in drawn if cell_len(line) > 80] == [], (what, more)
            assert told.strip()
            assert "┡" not in told or "│" in told, f"{what}: an empty grid"
    assert len(run("archives").out.splitlines()) < 24
    monkeypatch.setenv("COLUMNS", "40")
    for words in (["archives"], ["sql", "FROM target_lightcurves"], ["status"]):
        assert max(map(cell_len, run(*words).out.splitlines())) <= 40
    lines = run("archives").out.splitlines()
    assert len(lines) < 24
    assert [line.split()[0] for line in lines[1:11]] == sorted(REGISTRY)


def rows_in(path: Path) -> int:
    form = path.suffix[1:]
    if form == "csv":
        options = pyarrow.csv.ParseOptions(newlines_in_values=True)
        return int(pyarrow.csv.read_csv(path, parse_options=options).num_rows)
    if form == "json":
        content = json.loads(path.read_bytes())
        return len(content) if isinstance(content, list) else sum(len(one["columns"]) for one in content["tables"])
    if form == "parquet":
        return int(pq.read_table(path).num_rows)
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return len(Table.read(path, format={"vot": "votable", "ecsv": "ascii.ecsv"}.get(form, form)))


def test_the_extension_decides_in_every_command(url: str, run: Run, tmp_path: Path) -> None:
    """Each command in a form, so that all forms are seen twice, and what is printed is what is written."""
    for number, (what, (words, rows)) in enumerate(TABLES.items()):
        for form in FORMS if what == "sql" else (FORMS[number % 6],):
            path = tmp_path / f"{number}.{form}"
            done = run(*words, "--to", path)
            assert done.code in (0, 1), (what, done)
            found = rows_in(path)
            assert found == rows if rows is not None else found > 0, (what, form, found)
            if what in ("sql", "archives", "schema", "samples") and form not in ("parquet", "fits"):
                assert run(*words, "--output", form).out == path.read_text(), (what, form)


def test_units_go_with_the_columns(url: str, run: Run, tmp_path: Path) -> None:
    from astropy.table import Table

    query = "SELECT mjd, ra, dec, exposure_s, hpx29, good, archive FROM target_lightcurves"
    for form in ("vot", "fits", "ecsv", "parquet"):
        assert run("sql", query, "--to", tmp_path / f"x.{form}").code == 0
    for form, kind in (("vot", "votable"), ("fits", "fits"), ("ecsv", "ascii.ecsv")):
        table = Table.read(tmp_path / f"x.{form}", format=kind)
        units = {name: str(table[name].unit) for name in ("mjd", "ra", "exposure_s")}
        assert units == {"mjd": "d", "ra": "deg", "exposure_s": "s"}, form
        assert table["hpx29"].dtype.itemsize == 8
        assert table["archive"].tolist()[0] in ("ztf", b"ztf")
    assert pq.read_schema(tmp_path / "x.parquet").field("mjd").metadata[b"unit"] == b"d"
    # A name that tables use for several things says nothing but its unit; nor does one with values of another kind.
    assert run("sql", "SELECT ra, name, 'x' AS mjd FROM targets", "--to", tmp_path / "y.ecsv").code == 0
    table = Table.read(tmp_path / "y.ecsv")
    assert (str(table["ra"].unit), table["ra"].description, table["name"].description) == ("deg", None, None)
    assert table["mjd"].unit is None


def test_what_cannot_be_written_is_one_line(url: str, run: Run) -> None:
    for arguments, message in (
        (["--to", "x.docx"], "x.docx does not say what form of table it is to be (extensions are .csv, .json, "),
        (["--to", "x"], "x does not say"),
        (["--to", "x.csv", "--output", "json"], "x.csv says csv, and --output says json"),
        (["--output", "fits"], "fits is not printed (give it a file: --to FILE.fits)"),
        (["--to", "-", "--output", "parquet"], "parquet is not printed"),
        (["--to", "--expand"], "--to has no file before --expand"),
        (["--output", "xls"], "xls"),
        (["--to", "no/such/x.csv"], "cannot write no/such/x.csv: No such file"),
    ):
        # The query is not even read before the options are sound.
        done = run("sql", "SELECT 1 AS n" if "no/such" in arguments[-1] else "SELECT nonsense", *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert message in done.err
        assert list(Path().iterdir()) == []


def test_a_column_that_a_form_cannot_carry_is_named_and_nothing_is_left(url: str, run: Run) -> None:
    for query, form, column in (
        ("SELECT 1 AS n, 'é' AS name", "fits", "name"),
        ("SELECT 'x'::BLOB AS b", "vot", "b"),
        ("SELECT 'a' || chr(10) || 'b' AS t", "ecsv", "t"),
        ("SELECT 1 AS a, 2 AS A_, 3 AS a", "json", "a"),
        ('SELECT 1 AS a, 2 AS "A"', "fits", "a"),
        ("SELECT 99999999999999999999::HUGEINT AS h", "vot", "h"),
    ):
        done = run("sql", query, "--to", f"x.{form}")
        assert (done.code, done.err.count("\n")) == (2, 1), done
        assert f"called {column}, " in done.err or f"column {column} " in done.err, done.err
        assert list(Path().iterdir()) == []


def test_a_known_form_may_go_into_any_file_and_text_is_a_table(url: str, run: Run) -> None:
    assert run("sql", "SELECT 1 AS n", "--output", "csv", "--to", "x.dat").out == "x.dat: 1 row\n"
    assert Path("x.dat").read_text() == '"n"\n1\n'
    assert run("sql", "SELECT 1 AS n", "--output", "table", "--to", "x.txt").code == 0
    assert "┃ n ┃" in Path("x.txt").read_text()
    assert run("verify", "--output", "text").code == run("schema", "--output", "text").code == 0
    assert run("sql", "SELECT 1 AS n", "--to", "-", "--output", "csv").out == '"n"\n1\n'
    assert run("schema", "--to", "x.md").code == 0
    assert Path("x.md").read_text().startswith("# The tables of a lake")


def test_nothing_is_said_in_words(run: Run, catalog: Catalog) -> None:
    url = str(catalog.storage.root)
    for words in (["status"], ["targets", "list"], ["sql", "FROM targets"], ["status", "--expand"]):
        assert run(*words, "--lake", url).out == "no rows\n"
    assert "no runs" in run("runs", "--lake", url).out
    assert not backups(catalog.storage)
    assert "no backups" in run("restore", "--list", "--lake", url).out
    with Lake(url) as opened:
        assert opened.sql("FROM targets").num_rows == 0
