"""`lightlake doctor`: on a healthy lake, and with much that is wrong at once; and Prefect as it may be."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers.checks import answering
from helpers.processes import child_environment
from helpers.servers import PrefectServer
from prefect import __version__ as ours
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_EPHEMERAL_ENABLED, temporary_settings

from deployments.cli import doctor
from flows.doctor import prefect
from lake.errors import ConfigurationError
from lake.store.catalog import Catalog
from lake.upkeep.doctor import Check

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; its exit status, and what it prints."""

    def run(*arguments: object) -> tuple[int, str]:
        done = doctor([*map(str, arguments)], result_action="return_value", print_error=False, exit_on_error=False)
        return done, capsys.readouterr().out

    return run


def rows_of(text: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(text)}


def test_it_is_a_command() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["lightlake.commands"]["doctor"] == "deployments.cli:doctor"


@pytest.mark.usefixtures("prefect_server", "on_disk")
def test_a_healthy_lake(
    run: Run, catalog: Catalog, pull_settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.close()
    (tmp_path / "survey" / "xte").mkdir(parents=True)
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", str(tmp_path / "survey"))
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__VIRAC", pull_settings["LIGHTLAKE_ENDPOINTS__HEASARC"])
    monkeypatch.setenv("LIGHTLAKE_WORKERS", "1")
    code, text = run("--output", "json", "--timeout-s", 30)
    rows = rows_of(text)
    assert (code, {row["status"] for row in rows.values()}) == (0, {"ok"}), text
    assert all(row["found"] and row["hint"] is None for row in rows.values())
    names = {
        "python",
        "packages",
        "extensions",
        "settings",
        "catalogue",
        "lake",
        "cache",
        "room for lake",
        "prefect",
        "archive heasarc",
        "archive ztf",
        "clock",
        "heasoft",
        "workers",
    }
    assert names <= set(rows)

    code, text = run("--offline", "--output", "csv")
    told = list(csv.DictReader(io.StringIO(text)))
    assert (code, [row["name"] for row in told if row["name"].startswith(("archive", "clock"))]) == (0, [])
    assert [row["name"] for row in told] == [name for name in rows if not name.startswith(("archive", "clock"))]
    code, text = run("--offline")
    assert (code, text.splitlines()[-1]) == (0, f"{len(told)} ok, 0 warn, 0 fail")
    assert run("--offline", "--output", "parquet", "--to", tmp_path / "checks.parquet")[0] == 0
    assert pq.read_table(tmp_path / "checks.parquet").column_names == ["status", "name", "found", "hint"]


def test_much_is_wrong_at_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for name in (
        "ALERCE",
        "GAIA_DATALINK",
        "HCV",
        "HEASARC",
        "HST",
        "ICECUBE",
        "NED",
        "TESS_KEPLER",
        "PANSTARRS",
        "RXTE",
        "SDSS",
        "SESAME",
        "SIMBAD",
        "VIRAC",
        "VIZIER",
        "WISE",
        "ZTF",
    ):
        monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name}", str(tmp_path))
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__GIAA", "http://127.0.0.1:9/tap")
    monkeypatch.setenv("LIGHTLAKE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with (
        answering({"/": (404, b"")}, clock_is_off_s=-1000) as slow,
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
    ):
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__GAIA", slow)
        code, text = run("--lake", tmp_path / "none", "--output", "json")
    rows = rows_of(text)
    assert code == 1
    assert {name: row["status"] for name, row in rows.items() if row["status"] != "ok"} == {
        "settings": "fail",
        "catalogue": "warn",
        "cache": "fail",
        "prefect": "fail",
        "archive gaia": "fail",
        "clock": "warn",
    }
    assert all(row["hint"] for row in rows.values() if row["status"] != "ok")


def test_wrong_settings_leave_what_needs_none(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_WORKERS", "many")
    with temporary_settings({PREFECT_HOME: tmp_path, PREFECT_API_URL: None, PREFECT_SERVER_EPHEMERAL_ENABLED: True}):
        code, text = run("--output", "json")
    rows = rows_of(text)
    assert (code, rows["settings"]["found"].startswith("LIGHTLAKE_WORKERS='many' is not valid")) == (1, True)
    assert rows["lake"]["status"] == "warn"
    assert {"python", "packages", "extensions", "prefect", "heasoft"} <= set(rows)
    assert "catalogue" not in rows


def test_a_lake_that_cannot_be(run: Run, tmp_path: Path) -> None:
    with temporary_settings({PREFECT_HOME: tmp_path, PREFECT_API_URL: None, PREFECT_SERVER_EPHEMERAL_ENABLED: True}):
        code, text = run("--offline", "--lake", "gs://bucket/lake", "--output", "json")
    assert (code, rows_of(text)["lake"]["status"]) == (1, "fail")
    assert "gs:// is not supported" in rows_of(text)["lake"]["found"]
    with pytest.raises(ConfigurationError, match="--timeout-s cannot be 0"):
        run("--timeout-s", 0)


# --- Prefect ---


def asked(url: str) -> Check:
    with temporary_settings({PREFECT_API_URL: url}):
        (check,) = prefect(2.0)
    return check


def test_a_prefect_server(prefect_server: PrefectServer) -> None:
    (check,) = prefect(30.0)
    assert check == Check("prefect", "ok", f"{prefect_server.api}, server {ours}, client {ours}")
    without = asked(prefect_server.api.removesuffix("/api"))
    assert (without.status, without.hint) == ("fail", f"PREFECT_API_URL ends in /api: try {prefect_server.api}")


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        ((200, b'"2.20.1"'), "fail", "their first numbers must be the same"),
        ((200, b'"3.0.1"'), "warn", "the server is older"),
        ((200, b'"3.999.0"'), "ok", "server 3.999.0"),
        ((200, b"<!DOCTYPE html>"), "fail", "is not Prefect's API"),
        ((200, b'"soon"'), "fail", "is not Prefect's API"),
        ((200, b"[1]"), "fail", "is not Prefect's API"),
        ((401, b"{}"), "fail", "HTTP 401"),
        ((503, b"{}"), "fail", "HTTP 503"),
    ],
)
def test_a_server_of_another_version_or_kind(answer: tuple[int, bytes], status: str, told: str) -> None:
    with answering({"/api/admin/version": answer}) as url:
        check = asked(f"{url}/api")
    assert (check.status, told in check.found) == (status, True), check
    assert (check.hint is None) == (status == "ok")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/api", "nonsense", "http://127.0.0.1:9/"])
def test_a_wrong_address(url: str) -> None:
    check = asked(url)
    assert (check.status, check.found.startswith(f"{url} does not answer: ")) == ("fail", True), check
    assert ("ends in /api" in str(check.hint)) == (not url.endswith("/api"))


def test_no_address(tmp_path: Path) -> None:
    with temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: tmp_path, PREFECT_SERVER_EPHEMERAL_ENABLED: True}):
        (check,) = prefect(1.0)
        assert (check.status, str(tmp_path) in check.found) == ("ok", True)
    with temporary_settings({PREFECT_API_URL: None, PREFECT_SERVER_EPHEMERAL_ENABLED: False}):
        assert prefect(1.0)[0].status == "fail"
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "home"
    with temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: home, PREFECT_SERVER_EPHEMERAL_ENABLED: True}):
        (check,) = prefect(1.0)
        assert (check.status, check.name) == ("fail", "prefect")


def test_a_setting_of_prefect_that_is_wrong(tmp_path: Path) -> None:
    code = "from flows.doctor import prefect; (check,) = prefect(1.0); print(check.status, check.found)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(PREFECT_HOME=str(tmp_path), PREFECT_API_REQUEST_TIMEOUT="soon"),
    )
    assert done.stdout.startswith("fail request_timeout of Prefect's APISettings is not valid: "), done.stderr
