"""Whatever is wrong with the place a command is run in, it says so in one line, at once."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.granules import register
from helpers.names import Services
from helpers.processes import Done, Run, child_environment

import lake.upkeep.maintenance
from lake.cli import main
from lake.settings import Settings
from lake.store.catalog import Catalog

# All commands that a lake is needed for.
COMMANDS = (
    ["status"],
    ["status", "virac"],
    ["verify"],
    ["compact"],
    ["sql", "FROM targets"],
    ["attach"],
    ["export", "virac-csv", "--to", "csv"],
    ["targets", "list"],
    ["targets", "add", "list.csv", "--sample", "s"],
    ["targets", "remove", "T1"],
    ["targets", "rename", "T1", "A"],
    ["targets", "export", "t.csv"],
    ["plot", "T1", "--to", "plot.html"],
    ["report", "--to", "report.html"],
    ["pull", "gaia"],
    ["refresh"],
    ["refresh", "--plan"],
    ["virac", "."],
    ["rxte"],
    ["serve"],
)


def one_line(done: Done, pattern: str, code: int = 2) -> None:
    assert done.code == code, done
    assert re.fullmatch(r"lightlake: .+\n", done.err), done.err
    assert re.search(pattern, done.err), done.err


@pytest.fixture
def here(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = catalog.storage.root
    monkeypatch.setenv("LIGHTLAKE_URL", str(root))
    return root


@pytest.fixture
def env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_lake_that_is_not_there_or_no_lake(run: Run, arguments: list[str], catalog: Catalog) -> None:
    Path("list.csv").write_text("name,ra,dec\nA,1,2\n")
    Path("empty").mkdir()
    for place in ("nowhere", "list.csv", "list.csv/lake", "empty"):
        one_line(run(*arguments, "--lake", place), f"no lake at .*{place}|Not a directory")


def test_a_lake_in_place_of_a_file(run: Run) -> None:
    Path("file").write_text("")
    one_line(run("init", "file"), "cannot make a lake at .*/file: Not a directory")
    one_line(run("demo", "file"), "file is no folder")
    one_line(run("deployments", "--to", "no/such.yaml"), "no/such.yaml: No such file")


@pytest.mark.parametrize("arguments", [["status"], ["archives"], ["deployments"], ["doctor", "--offline"], ["notify"]])
def test_a_latin_1_env_file(run: Run, env_file: None, arguments: list[str]) -> None:
    Path(".env").write_bytes(b"# one\nLIGHTLAKE_URL=caf\xe9\n")
    one_line(run(*arguments), r"/\.env is not UTF-8: see line 2")


@pytest.mark.long
def test_what_a_flow_needs_is_missed_before_prefect_starts(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, services: Services
) -> None:
    """Each of these took Prefect a minute, and ended in a traceback."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    for arguments, pattern in (
        (["rxte", "No Such"], "no target is named 'No Such'"),
        (["rxte", "400 20"], "'400 20' is no position"),
        (["virac", "no/folder"], "there is no folder .*no/folder"),
        (["virac", ".", "--min-ks", "-1"], "min_ks cannot be -1"),
        (["virac", ".", "--bands", "Q"], 'Invalid value "Q" for --bands'),
        (["virac", ".", "--shard", "3/3"], "no shard 3/3"),
        (["virac", ".", "--shard", "x"], "'x' is no shard"),
    ):
        one_line(run(*arguments), pattern)
    flows = (["pull", "gaia"], ["refresh"], ["virac", "."], ["rxte"])
    (tmp_path / "file").write_text("")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        for arguments in flows:
            one_line(run(*arguments), "Prefect cannot run anything: http://127.0.0.1:9/api does not answer")
    with temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: tmp_path / "file" / "home"}):
        for arguments in flows[:2]:
            one_line(run(*arguments, "--prefect"), "Prefect cannot run anything: cannot write to .*PREFECT_HOME")


def test_csv_and_json_take_any_value(run: Run, here: Path) -> None:
    query = (
        "SELECT [1, 2] AS a, {'b': 'x'} AS b, 'nan'::DOUBLE AS c, ['inf'::FLOAT, 1.5] AS d, MAP {'k': [0.5]} AS e, "
        "INTERVAL 1 DAY AS f, 'x'::BLOB AS g, 'é' AS h, NULL::INTEGER[] AS i, 1.5::DECIMAL(4, 2) AS j"
    )
    csv = run("sql", query, "--output", "csv")
    assert csv.code == 0
    assert csv.out.splitlines()[1].startswith('"[1, 2]","{""b"": ""x""}",nan,"[null, 1.5]",')
    (row,) = json.loads(run("sql", query, "--output", "json").out, parse_constant=pytest.fail)
    assert [row[name] for name in "abcdhij"] == [[1, 2], {"b": "x"}, None, [None, 1.5], "é", None, 1.5]


def test_a_mistake_of_the_program_is_one_line(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a\nkey")

    monkeypatch.setattr(lake.upkeep.maintenance, "status", broken)
    one_line(run("status"), "this is a bug, please report it: KeyError: .*--debug shows where", code=70)
    with pytest.raises(KeyError):
        main(["status", "--debug"])


CHILD = [sys.executable, "-c", "from lake.cli import main; main()"]


@pytest.mark.usefixtures("on_disk")
def test_places_to_write_to(here: Path, catalog: Catalog, tmp_path: Path) -> None:
    """ASCII terminals, readers that go away, closed and full places to write to."""
    register(catalog, range(1))
    catalog.close()
    query = "SELECT 'é☉' AS x"
    ours = child_environment(LIGHTLAKE_URL=str(here))
    done = subprocess.run(
        [*CHILD, "sql", query], env=ours | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\xe9\u2609" in done.stdout
    command = f"{shutil.which('env')} {' '.join(map(repr, CHILD))} schema"
    for redirected, code, told in (("| head -1", 0, ""), (">&-", 0, ""), (">/dev/full", 2, "disk is full")):
        script = f"set -o pipefail; {command} {redirected}"
        done = subprocess.run(["bash", "-c", script], env=ours, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert done.stderr.count("\n") == bool(told), done.stderr
        assert told in done.stderr


HOMELESS = """
import os, sys
from lake.cli import main

def run():
    for arguments in (
        ["archives"], ["status"], ["doctor", "--offline"], ["pull", "gaia"], ["refresh", "--plan"],
        ["targets", "add", "/list.csv", "--sample", "s"],
    ):
        try:
            main(arguments)
        except SystemExit as error:
            sys.stderr.flush()
            print("exit", error.code, arguments[0], flush=True)

run()  # as root: nobody else can import a Python below /root
sys.stdout.write("homeless\\n")
sys.stderr.write("homeless\\n")
del os.environ["HOME"]
os.setgroups([])
os.setgid(12345)
os.setuid(12345)
run()
"""


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.usefixtures("on_disk")
def test_without_a_home_as_a_user_whom_nobody_knows(here: Path, catalog: Catalog, tmp_path: Path) -> None:
    register(catalog, range(1))
    catalog.close()
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o777)
    ours = child_environment(LIGHTLAKE_URL=str(here), HOME=str(tmp_path), PREFECT_API_URL="http://127.0.0.1:9/api")
    ours["TMPDIR"] = str(tmp_path / "tmp")
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS], cwd="/", env=ours, capture_output=True, text=True, check=False
    )
    told = done.stdout.partition("homeless\n")[2]
    exits = [line.removeprefix("exit ") for line in told.splitlines() if line.startswith("exit ")]
    assert exits == ["0 archives", "0 status", "1 doctor", "2 pull", "0 refresh", "2 targets"], (
        done.stdout + done.stderr
    )
    lines = done.stderr.partition("homeless\n")[2].splitlines()
    assert len(lines) == 2, lines
    assert all(line.startswith("lightlake: ") for line in lines), lines
