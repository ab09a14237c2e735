"""The command, as a user types it: what it prints, what it exits with, what it says about bad input."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from helpers.archives import register
from helpers.processes import Done, Run, child_environment, lightlake
from helpers.servers import PrefectServer

from lake.cli import app, main
from lake.model.declared import all_tables
from lake.model.schema import SCHEMA_VERSION
from lake.store.catalog import Catalog
from lake.store.connection import extension_file
from tasks.sources.registry import REGISTRY, SURVEYS


def refused(done: Done, pattern: str) -> None:
    """Check that the command ended with one clear line."""
    assert done.code == 2, done
    assert re.fullmatch(r"lightlake: .+\n", done.err), done.err
    assert re.search(pattern, done.err), done.err


@pytest.fixture
def here(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake that needs no --lake."""
    root = catalog.storage.root
    monkeypatch.setenv("LIGHTLAKE_URL", str(root))
    return root


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    path = tmp_path / "agn.csv"
    path.write_text("name,ra,dec,class\nNGC 1068,40.6696,-0.0133,Sy2\nM 87,12:30:49.4,+12:23:28,LINER\n")
    return path


# --- a lake ---


def test_a_folder_with_other_files_becomes_no_lake(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "papers"
    folder.mkdir()
    for name in ("draft.tex", "figures"):
        (folder / name).write_text("")
    refused(run("init", folder), r"papers is no lake, and is not empty: it has draft.tex and 1 other.*init FOLDER")
    assert sorted(one.name for one in folder.iterdir()) == ["draft.tex", "figures"]
    for name in ("draft.tex", "figures"):
        (folder / name).rename(folder / f".{name}")
    assert run("init", folder).code == 0
    assert run("init", folder).code == 0, "a lake is one of its own"


def test_init_is_idempotent(run: Run, tmp_path: Path) -> None:
    first = run("init", tmp_path / "new")
    assert (first.code, first.out) == (0, f"made the lake at {tmp_path / 'new'}\n")
    before = (tmp_path / "new" / "catalog.sqlite").read_bytes()
    second = run("init", tmp_path / "new")
    assert (second.code, second.out.startswith("nothing to do:")) == (0, True)
    assert (tmp_path / "new" / "catalog.sqlite").read_bytes() == before
    assert run("verify", "--lake", tmp_path / "new").out.endswith("0 errors, 0 notes\n")
    assert run("status", "-l", tmp_path / "new").code == 0
    assert run("init").out.startswith(f"made the lake at {Path.cwd() / 'lightlake'}")


def test_archives(run: Run) -> None:
    lines = run("archives").out.splitlines()
    for archive, line in zip(sorted(REGISTRY), lines[1:], strict=False):
        assert line.split()[:2] == [archive, REGISTRY[archive].release]
        assert line.endswith(REGISTRY[archive].title)
    for archive in (*REGISTRY.values(), *(survey.origin for survey in SURVEYS.values())):
        told = run("archives", archive.name)
        assert told.code == 0
        words = [archive.title, archive.release, archive.public_url, archive.licence, archive.bibcode]
        words += archive.words.values()
        for text in (*words, archive.time_scale, archive.acknowledgement, *(band.band for band in archive.bands)):
            assert text is None or text in told.out
    (band,) = (row for row in json.loads(run("archives", "gaia", "--json").out)[0]["bands"] if row["band"] == "G")
    assert f"{band['zero_point_jy']:.15g}" in run("archives", "gaia").out
    refused(run("archives", "gaja"), "unknown archive 'gaja'.*gaia")
    rows = json.loads(run("archives", "--json").out)
    assert [row["archive"] for row in rows] == sorted(REGISTRY)
    (icecube,) = (row for row in rows if row["archive"] == "icecube")
    assert icecube["cadence"] == "frozen"
    assert icecube["endpoint"] == icecube["public_endpoint"] == REGISTRY["icecube"].endpoint
    assert [band["unit"] for band in icecube["bands"]] == ["GeV"]
    assert icecube["parameters"]["max_search_radius_deg"] == 2.0
    assert icecube["matching"] == REGISTRY["icecube"].matching
    (virac,) = json.loads(run("archives", "virac", "--json").out)
    assert (virac["archive"], virac["quality"]) == ("virac", SURVEYS["virac"].origin.quality)


def test_archives_says_where_it_would_really_ask(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ICECUBE", "/data/icecube")
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__HEASARC", "http://mirror.invalid/tap")
    monkeypatch.setenv("LIGHTLAKE_TABLES__SWIFTGRB", '{"radius_arcsec": 60, "error_column": null}')
    where = {row["archive"]: row["endpoint"] for row in json.loads(run("archives", "--json").out)}
    assert where["icecube"] == "/data/icecube"
    assert where["fermigtrig"] == where["swiftgrb"] == "http://mirror.invalid/tap"
    assert where["gaia"] == REGISTRY["gaia"].endpoint


def test_targets(run: Run, here: Path, listing: Path) -> None:
    done = run("targets", "add", listing, "--sample", "agn", "--label", "class")
    assert done.code == 0
    assert "ra: column " in done.out
    assert done.out.splitlines()[-1] == "2 rows of agn.csv: 2 new targets, 0 known, 2 new labels"
    done = run("targets", "add", listing, "--sample", "again")
    assert done.out.splitlines()[-1] == "2 rows of agn.csv: 0 new targets, 2 known, 2 new labels"
    rows = json.loads(run("targets", "list", "--sample", "agn", "--output", "json").out)
    assert [(row["name"], sorted(row["labels"])) for row in rows] == [
        ("NGC 1068", ["Sy2", "again"]),
        ("M 87", ["LINER", "again"]),
    ]
    assert rows[1]["ra"] == pytest.approx(187.7058, abs=1e-3)
    assert "M 87" in run("targets", "list").out
    refused(run("targets", "list", "--sample", "none"), "unknown sample 'none' in .*known: again, agn\\)")


def test_targets_are_renamed_removed_and_exported(run: Run, here: Path, listing: Path, catalog: Catalog) -> None:
    run("targets", "add", listing, "--sample", "agn", "--label", "class")
    shown = run("targets", "rename", "m 87", "Virgo\n[A]")
    assert re.fullmatch(r"target \d+ is Virgo \[A\] now, which was M 87\n", shown.out), shown
    (row,) = (row for row in json.loads(run("targets", "list", "--output", "json").out) if row["other_names"])
    assert (row["name"], row["other_names"]) == ("Virgo\n[A]", ["M 87"])
    done = run("targets", "export", "agn.vot", "--sample", "agn")
    assert (done.code, done.out) == (0, "agn.vot: 2 targets in 3 rows\n")
    refused(run("targets", "export", "agn.vot"), "agn.vot is there already .*--overwrite")
    assert run("targets", "export", "agn.vot", "--overwrite").code == 0
    refused(run("targets", "export", "agn.csv"), r"could not be read back.*'Virgo\\n\[A\]'")
    committed = run("targets", "remove", "M 87", "--dry-run")
    assert committed.out == "would remove 1 target, 1 label, 0 matches and 0 rows of coverage\n"
    assert run("targets", "remove", "M 87").out == committed.out.replace("would remove", "removed")
    refused(run("plot", "M 87", "--to", "x.html"), "no target is named 'M 87'")
    done = run("targets", "add", "agn.vot", "--sample", "agn", "--label", "label")
    assert done.out.splitlines()[-1] == "3 rows of agn.vot: 1 new target, 1 known, 3 new labels"
    assert run("targets", "remove", row["target_id"], "--sample", "agn").code == 0
    assert run("targets", "remove", "--sample", "agn").out.startswith("removed 1 target, 2 labels, ")
    assert json.loads(run("targets", "list", "--output", "json").out) == []
    assert "0 errors" in run("verify").out


def test_bad_rows_are_listed_and_nothing_is_added(run: Run, here: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("name,ra,dec\na,10,20\nb,10,120\nc,x,20\nd,30,40\n")
    done = run("targets", "add", path, "--sample", "s")
    refused(done, r"2 of 4 rows of .*bad\.csv are bad; nothing was added")
    assert [line.split(": ")[0] for line in done.out.splitlines()] == [f"{path}:3", f"{path}:4"]
    assert json.loads(run("targets", "list", "--output", "json").out) == []
    tried = run("targets", "add", path, "--sample", "s", "--dry-run", "--epoch", "2016.0")
    assert tried.code == 1
    assert "epoch 2016\n" in tried.out
    assert "2 rows of bad.csv are sound, 2 are bad; nothing was added" in tried.out
    assert json.loads(run("targets", "list", "--output", "json").out) == []
    assert run("targets", "add", path, "--sample", "s", "--skip-bad").code == 0
    assert len(json.loads(run("targets", "list", "--output", "json").out)) == 2
    with (tmp_path / "bad.csv.bad.csv").open(newline="") as file:
        assert [(row["line"], row["text"]) for row in csv.DictReader(file)] == [("3", "b,10,120"), ("4", "c,x,20")]


def test_sql_in_every_form(run: Run, here: Path, tmp_path: Path) -> None:
    query = "SELECT sum(42) AS n, 1.5 AS x, 'a,b' AS s, NULL AS nothing"
    assert "42" in run("sql", query).out
    assert "1 row" in run("sql", query).out
    assert list(csv.DictReader(io.StringIO(run("sql", query, "--output", "csv").out))) == [
        {"n": "42", "x": "1.5", "s": "a,b", "nothing": ""}
    ]
    assert json.loads(run("sql", query, "--output", "json").out) == [{"n": 42, "x": 1.5, "s": "a,b", "nothing": None}]
    to = tmp_path / "answer.parquet"
    assert run("sql", query, "--output", "parquet", "--to", to).code == 0
    assert pq.read_table(to).to_pylist()[0]["n"] == 42
    assert run("sql", query, "--to", tmp_path / "answer.csv").out == f"{tmp_path / 'answer.csv'}: 1 row\n"
    assert (tmp_path / "answer.csv").read_text().startswith('"n"')


@pytest.mark.usefixtures("on_disk")
def test_attach_serves_a_stock_duckdb(run: Run, here: Path, catalog: Catalog) -> None:
    register(catalog, range(3))
    snippet = run("attach").out
    assert "INSTALL ducklake" in snippet
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as client:
        for name in ("ducklake", "sqlite_scanner"):
            client.execute(f"LOAD '{extension_file(name)}'")
        client.execute("\n".join(line for line in snippet.splitlines() if not line.startswith("INSTALL")))
        assert client.execute("SELECT count(*) FROM targets").fetchall() == [(3,)]
        assert client.execute("SELECT count(*) FROM targets_in_cone(7.0, -75.0, 10)").fetchall() == [(1,)]


def test_schema_in_every_form(run: Run) -> None:
    text, markdown = run("schema").out, run("schema", "--output", "markdown").out
    tables = {table["name"]: table for table in json.loads(run("schema", "--output", "json").out)["tables"]}
    assert tables.keys() == all_tables().keys()
    for table in all_tables().values():
        assert f"{table.name}: one row per {table.row.removeprefix('a ').removeprefix('an ')}" in text
        assert table.name in markdown
        assert [column["name"] for column in tables[table.name]["columns"]] == table.names
        for column in table.columns:
            assert column.description in text
            assert f"{column.name}" in markdown


@pytest.mark.usefixtures("on_disk")
def test_verify_and_compact(run: Run, here: Path, catalog: Catalog) -> None:
    register(catalog, range(3), "a")
    register(catalog, range(3, 6), "b")
    assert run("verify").code == 0
    stray = catalog.storage.table_folder("targets") / "stray.parquet"
    shutil.copy(next(catalog.storage.table_files("targets")), stray)
    done = run("verify")
    assert done.code == 1
    assert "error: orphans: targets/stray.parquet" in done.out
    assert "1 error, 0 notes" in done.out
    (finding,) = json.loads(run("verify", "--quick", "--output", "json").out)
    assert (finding["level"], finding["check"]) == ("error", "orphans")
    done = run("compact")
    assert done.code == 0
    assert "1 unknown file moved to the quarantine" in done.out
    assert not stray.exists()
    assert run("verify").code == 0
    assert run("sql", "SELECT count(*) AS n FROM targets", "--output", "csv").out == '"n"\n6\n'


@pytest.mark.usefixtures("pull_settings")
def test_a_pull_says_that_a_lake_has_no_targets_yet(run: Run, catalog: Catalog) -> None:
    (note, _) = run("pull", "icecube", "--local").out.splitlines()
    assert "no targets yet" in note
    register(catalog, range(1))
    (line,) = run("pull", "icecube", "--local").out.splitlines()
    assert "1 of 1 target answered" in line
    # Where not only the files say which targets there are.
    catalog.cursor().execute("DELETE FROM targets")
    (note, _) = run("pull", "icecube", "--local").out.splitlines()
    assert "no targets yet" in note


def test_pull_and_status(
    run: Run,
    here: Path,
    catalog: Catalog,
    prefect_server: PrefectServer,
    pull_settings: dict[str, str],
    sandbox: object,
) -> None:
    register(catalog, range(5))
    done = run("pull", "icecube", "--sample", "test")
    assert done.code == 0
    assert "icecube: 5 of 5 targets answered" in done.out
    (row,) = json.loads(run("status", "--output", "json").out)
    assert (row["archive"], row["asked"], row["failed"]) == ("icecube", 5, 0)
    assert row["found"] + row["empty"] == 5
    register(catalog, range(5, 7), "more")
    (ahead,) = json.loads(run("refresh", "icecube", "--plan", "--output", "json").out)
    assert {name: ahead[name] for name in ("targets", "new", "old", "failed_before", "estimated_from")} == {
        "targets": 2,
        "new": 2,
        "old": 0,
        "failed_before": 0,
        "estimated_from": 5,
    }
    assert ahead["fetch_s"] > 0
    done = run("refresh", "icecube", "--sample", "test")
    assert (done.code, done.out) == (0, "icecube: nothing to do, every target has its answer\n")
    done = run("pull", "icecube", "--retry-failed")
    assert (done.code, done.out) == (0, "icecube: nothing to do, no targets failed or were rejected before\n")
    (ahead,) = json.loads(run("refresh", "icecube", "--retry-failed", "--plan", "--output", "json").out)
    assert (ahead["targets"], ahead["rejected_before"]) == (0, 0)
    assert run("refresh", "icecube", "--retry-failed", "--again").code == 2
    changed = '{"icecube": {"max_search_radius_deg": 0.1}}'
    done = run("refresh", "icecube", "--sample", "test", "--parameters", changed)
    assert (done.code, done.out.startswith("icecube: 5 of 5 targets answered")) == (0, True)
    done = run("pull", "heasarc", "--sample", "test")
    assert (done.code, [line.partition(" targets")[0] for line in done.out.splitlines()]) == (
        0,
        ["fermigtrig: 5 of 5", "icecubepsc: 5 of 5", "saxgrbmgrb: 5 of 5"],
    )
    sandbox.fault("/", "status:404")
    shutil.rmtree(pull_settings["LIGHTLAKE_CACHE_DIR"])
    done = run("pull", "icecube", "--again", "--sample", "test")
    assert done.code == 1
    assert "icecube: 5 of 5 targets FAILED" in done.out


# --- bad input ---


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["nonsense"], "nonsense"),
        (["status", "--nonsense"], "--nonsense"),
        (["status", "--output", "xml"], "xml"),
        (["sql"], r"sql: QUERY is missing \(see: lightlake sql --help"),
        (["pull"], "pull: ARCHIVE is missing"),
        (["pull", "gaia", "ztf"], "pull: one argument too many: ztf"),
        (["plot", "M 87"], "plot: --to is missing"),
        (["status", "--lake", "nowhere"], r"no lake at \S+/nowhere \(make one with: lightlake init"),
        (["init", "ftp://host/lake"], r"cannot keep a lake at 'ftp://host/lake'"),
        (["status", "--lake", "ftp://host/lake"], "ftp://"),
        (["status", "--lake", ""], "empty"),
        (["pull", "icecub"], r"unknown archive 'icecub' \(did you mean icecube"),
        (["refresh", "nowhere"], "unknown archive 'nowhere'"),
        (["pull", "icecube", "--parameters", "{"], "not JSON"),
        (["pull", "icecube", "--parameters", "[]"], "not a JSON object"),
        (["pull", "icecube", "--parameters", '{"radius": 1}'], "no parameter radius"),
        (["pull", "icecube", "--lake", "nowhere"], "no lake at"),
        (["sql", "SELEC 1"], r'the SQL failed: Parser Error: syntax error at or near "SELEC" \('),
        (["sql", "SELECT fluxx FROM lightcurves"], 'Referenced column "fluxx" not found.*Candidate.*flux'),
        (["sql", "FROM lightcurve"], "lightcurve"),
        (["sql", "SELECT 1", "--output", "parquet"], "parquet is not printed"),
        (["sql", "SELECT 1", "--output", "csv", "--to", "no/such/folder.csv"], "cannot write no/such/folder.csv"),
        (["targets", "add", "nowhere.csv", "--sample", "s"], "nowhere.csv does not exist"),
        (["targets", "add", "nowhere.xlsx", "--sample", "s"], "nowhere.xlsx does not exist"),
        (["targets", "add", "LISTING", "--sample", "s", "--label", "klass"], r"klass.*class"),
        (["targets", "add", "LISTING", "--sample", "s", "--ra", "alpha", "--dec", "dec"], "alpha"),
        (["targets", "add", "LISTING", "--sample", "s", "--ra", "ra"], "go together"),
        (["targets", "add", "LISTING", "--sample", "s", "--frame", "nonsense"], "nonsense"),
        (["targets", "remove"], "remove which target"),
        (["targets", "remove", "M 88"], "no target is named 'M 88'"),
        (["targets", "remove", "--sample", "agn", "--dry-run"], "unknown sample 'agn'"),
        (["targets", "rename", "M 88", "M 89"], "no target is named 'M 88'"),
        (["targets", "export", "agn.docx"], r"'\.docx' \(extensions are \.ecsv"),
        (["targets", "add", "LISTING", "--sample", "s", "--match-radius", "-1"], "--match-radius cannot be -1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_clear_line(
    run: Run, here: Path, listing: Path, arguments: list[str], pattern: str, request: pytest.FixtureRequest
) -> None:
    if "--lake" in arguments and "nowhere" in arguments:
        request.getfixturevalue("on_disk")
    refused(run(*(str(listing) if argument == "LISTING" else argument for argument in arguments)), pattern)


def test_unknown_and_empty_names_get_one_clear_line(run: Run, here: Path, listing: Path, catalog: Catalog) -> None:
    register(catalog, range(1), "agns")
    for arguments, pattern in (
        (["pull", "icecube", "--sample", "angs"], r"unknown sample 'angs' in .*known: agns\)"),
        (["pull", "icecube", "--sample", ""], "the sample has no name"),
        (["refresh", "--sample", "none"], "unknown sample 'none'"),
        (["refresh", "--plan", "--sample", " "], "the sample has no name"),
        (["refresh", "--plan", "--sample", "none"], "unknown sample 'none'"),
        (["refresh", "ztf", "--parameters", '{"zft": {}}'], r"unknown archive 'zft' .*did you mean ztf"),
        (["rxte", "--sample", "none"], "unknown sample 'none'"),
        (["status", "zft"], r"unknown archive 'zft' \(did you mean ztf"),
        (["plot", "T000", "--to", "x.html", "--archive", "zft"], "unknown archive 'zft'"),
        (["plot", "T000", "--to", "x.html", "--band", "ztf_x"], "unknown band 'ztf_x'"),
        (["targets", "add", str(listing), "--sample", ""], "the sample has no name"),
        (["targets", "add", str(listing), "--sample", "s", "--label", " "], "the label has no name"),
    ):
        refused(run(*arguments), pattern)


def test_a_bad_setting(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_WORKERS", "many")
    refused(run("status"), "LIGHTLAKE_WORKERS='many' is not valid")
    monkeypatch.delenv("LIGHTLAKE_WORKERS")
    monkeypatch.setenv("LIGHTLAKE_CATALOG", "mysql:host=x password=secret")
    done = run("status")
    refused(done, "LIGHTLAKE_CATALOG=")
    assert "secret" not in done.err


@pytest.mark.usefixtures("on_disk")
def test_a_corrupt_catalogue(run: Run, here: Path, catalog: Catalog) -> None:
    catalog.close()
    (here / "catalog.sqlite").write_bytes(b"this is not a database " * 100)
    refused(run("status"), r"cannot read the catalogue .*lightlake restore")
    refused(run("init", here), "cannot read the catalogue")
    (here / "catalog.sqlite").write_bytes(b"")
    refused(run("status"), "catalog.sqlite")


def test_a_newer_lake(run: Run, here: Path, catalog: Catalog) -> None:
    cursor = catalog.cursor()
    cursor.execute(
        "INSERT INTO schema_version VALUES (?, 'lightlake 99', ?, 'x', NULL)", [SCHEMA_VERSION + 1, datetime.now(UTC)]
    )
    catalog.close()
    for command in ("status", "verify", "init"):
        refused(run(command), f"schema version {SCHEMA_VERSION + 1}, newer than this software's {SCHEMA_VERSION}")


def test_debug_shows_the_traceback(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lake.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match="SELEC"):
        main(["sql", "SELEC 1", "--debug"])


NOBODY = """
import os, sys
from lake.cli import main

def run(lake):
    for arguments in (
        ["init", lake + "/other"], ["targets", "add", sys.argv[3], "--sample", "s", "--lake", lake],
        ["compact", "--lake", lake], ["status", "--lake", lake],
    ):
        try:
            main(arguments)
        except SystemExit as error:
            print("exit", error.code, flush=True)

run(sys.argv[1])  # as root: nobody else can import a Python below /root
sys.stdout.write("nobody\\n")
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
run(sys.argv[2])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.usefixtures("on_disk")
def test_no_permission(here: Path, catalog: Catalog, template: Path, tmp_path: Path) -> None:
    """As a user who may read the lake but not write to it."""
    catalog.close()
    shutil.copytree(template, tmp_path / "ours")
    listing = tmp_path / "one.csv"
    listing.write_text("ra,dec\n1,2\n")
    for folder in tmp_path.relative_to("/").parents:
        Path("/", folder).chmod(Path("/", folder).stat().st_mode | 0o055) if "pytest" in folder.name else None
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, str(tmp_path / "ours"), str(here), str(listing)],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(HOME="/nonexistent"),
    )
    exits = [line for line in done.stdout.partition("nobody\n")[2].splitlines() if line.startswith("exit")]
    assert exits[:3] == ["exit 2"] * 3, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == exits.count("exit 2"), done.stderr
    assert all(line.startswith("lightlake: ") for line in lines), done.stderr
    assert all("ermission" in line or "readonly" in line for line in lines), done.stderr


# --- help ---


def test_help_comes_without_prefect(tmp_path: Path) -> None:
    """It takes Prefect seconds to be imported; help and every plain command do without it."""
    code = """
import sys
from lake.cli import main
for arguments in (["--help"], ["init", "lake"], ["status", "--lake", "lake"], ["archives"], ["pull", "--help"]):
    try:
        main(arguments)
    except SystemExit as error:
        assert not error.code, arguments
print(sorted(name for name in ("prefect", "fastapi", "altair", "matplotlib") if name in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, env=child_environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("archives", "attach", "compact", "demo", "init", "pull", "refresh", "schema", "sql", "status"):
        assert f"│ {command} " in done.stdout


def test_the_script_is_installed(tmp_path: Path) -> None:
    done = lightlake("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{app.version}\n")
