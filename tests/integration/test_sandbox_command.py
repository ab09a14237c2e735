"""`lightlake sandbox` serves simulated archives until it is told to end."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import pyvo
from helpers.processes import Run, child_environment

from deployments.sandbox import server
from deployments.sandbox.server import Sandbox
from lake.errors import GranuleRejected
from lake.settings import load_settings
from tasks.doctor import endpoints
from tasks.sources.virac.tile import open_tile


def test_settings_lead_to_archives_that_answer(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from lake.cli import main; main()", "sandbox", tmp_path / "data"]
    more = ["--archive", "hcv", "--env", tmp_path / ".env"]
    with subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, text=True, env=child_environment(), cwd=tmp_path
    ) as process:
        try:
            assert process.stdout
            while (line := process.stdout.readline()) and "serving" not in line:
                pass
            lines = (tmp_path / ".env").read_text().splitlines()
            url = {name: url for name, _, url in (line.partition("=") for line in lines)}
            answer = httpx.get(f"{url['LIGHTLAKE_ENDPOINTS__HCV']}/hcv/metadata")
            assert answer.status_code == 200
            # Nobody takes real measurements for simulated ones: all other archives and services lead nowhere.
            there = endpoints(load_settings(endpoints={name.rpartition("__")[2].lower(): url[name] for name in url}))
            assert {urlsplit(one.url).hostname for one in there} == {"127.0.0.1", None}
            nowhere = [one for one in url.values() if "not-simulated" in one]
            assert {httpx.get(one).status_code for one in nowhere if one.startswith("http")} == {404}
            assert not any(Path(one).exists() for one in nowhere if not one.startswith("http"))
            assert len(nowhere) == len(url) - 3  # HCV; SIMBAD and Sesame for names
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_an_unknown_archive_is_named(run: Run) -> None:
    done = run("sandbox", "--archive", "nobody")
    assert done.code == 2
    assert "no simulated nobody (there are: icecube, gaia" in done.err


def test_rxte_beside_heasarc_has_one_service(tmp_path: Path) -> None:
    with Sandbox.start(tmp_path, archives=["rxte", "heasarc"], scale=0.001) as box:
        assert set(box.endpoints) == {"heasarc", "rxte"}
        service = pyvo.dal.TAPService(box.endpoints["heasarc"])
        for table in ("fermigtrig", "xtemaster"):
            assert len(service.run_sync(f"SELECT ra FROM {table}").to_table()) > 1
        listing = httpx.get(f"{box.endpoints['rxte']}/xte/data/archive/")
        assert "AO" in listing.text


def test_rxte_is_served_only_if_it_is_named(tmp_path: Path) -> None:
    with Sandbox.start(tmp_path, archives=["rxte"], scale=0.001) as box:
        assert set(box.endpoints) == {"heasarc", "rxte"}
    assert "rxte" not in server.ARCHIVES


def test_tiles_some_of_them_broken(run: Run) -> None:
    done = run("sandbox", "tiles", "tiles", "--tiles", 3, "--broken", 1, "--sources", 20)
    assert (done.code, done.out.split(",")[:2]) == (0, ["tiles: 3 tiles", " 1 broken"])
    readable = 0
    for path in Path("tiles").glob("*.hdf5"):
        with suppress(GranuleRejected), open_tile(path) as tile:
            readable += len(tile) == 20
    assert readable == 2


@pytest.mark.parametrize("given", [["--broken", 4], ["--tiles", 0], ["--sources", 1]])
def test_tiles_that_cannot_be(run: Run, given: list[object]) -> None:
    done = run("sandbox", "tiles", "tiles", "--tiles", 3, *given)
    assert done.code == 2
    assert not Path("tiles").exists()
