"""Whether archives can be reached: every kind of endpoint, and what may be wrong with it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from helpers.checks import answering

from deployments.sandbox.server import Sandbox
from lake.settings import load_settings
from lake.upkeep.doctor import Check
from tasks.doctor import Answer, Endpoint, endpoints, heasoft, look, skews, unknown_endpoints
from tasks.sources.registry import REGISTRY
from tasks.sources.rxte.heasoft import TOOLS


def seen(url: object, probe: str | None = None, *, is_public: bool = False) -> Check:
    (answer,) = look([Endpoint("sky", str(url), probe, is_public)], 1.0)
    assert answer.check.name == "archive sky"
    return answer.check


def test_every_archive_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ZTF", "/data/ztf")
    there = {one.name: one for one in endpoints(load_settings())}
    assert {archive.service or archive.name for archive in REGISTRY.values()} < set(there)
    assert {"gaia_datalink", "rxte", "virac", "ned", "vizier", "alerce"} < set(there)
    assert (there["ztf"].url, there["ztf"].is_public) == ("/data/ztf", False)
    assert [one.name for one in there.values() if not one.is_public] == ["ztf"]
    assert there["wise"].url.startswith("s3://nasa-irsa-wise/unwise/neo")
    assert {one.name for one in there.values() if one.url.startswith("http") and one.probe is None} == {
        "gaia_datalink",
        "hst",
        "simbad",
        "sdss",
        "sesame",
        "tess_kepler",
        "rxte",
    }


def test_an_endpoint_of_no_archive_is_named_with_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__PANSTARS", "/data")
    (check,) = unknown_endpoints(load_settings(), endpoints(load_settings()))
    assert (check.status, check.found) == ("fail", "LIGHTLAKE_ENDPOINTS__PANSTARS is of no archive, and does nothing")
    assert str(check.hint).startswith("rename it to LIGHTLAKE_ENDPOINTS__PANSTARRS, if that is meant; ")


def test_an_address_that_nobody_needs_is_looked_at_where_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mast_files" not in {one.name for one in endpoints(load_settings())}
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__MAST_FILES", "/data/mast")
    there = endpoints(load_settings())
    assert [(one.url, one.is_public) for one in there if one.name == "mast_files"] == [("/data/mast", False)]
    assert unknown_endpoints(load_settings(), there) == []


def test_the_stand_ins_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox.start(tmp_path, archives=("gaia", "heasarc", "hcv"), scale=0.001) as sandbox:
        for name, url in sandbox.endpoints.items():
            monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", url)
        asked = [one for one in endpoints(load_settings()) if one.name in sandbox.endpoints]
        answers = look(asked, 5.0)
        assert [answer.check.status for answer in answers] == ["ok"] * 4, answers
        assert all(abs(value) < 60 for value in skews(answers).values())
        assert set(skews(answers)) == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("probe", "status", "verdict"),
    [
        ("/up", 200, "ok"),
        ("/up", 400, "ok"),
        ("/up", 404, "fail"),
        (None, 404, "ok"),
        ("", 404, "fail"),
        (None, 403, "fail"),
        (None, 503, "fail"),
        (None, 405, "ok"),
    ],
)
def test_what_a_server_says(probe: str | None, status: int, verdict: str) -> None:
    path = "/up" if probe == "/up" else "/"
    with answering({path: (status, b"")}) as url:
        check = seen(url, probe)
    assert check.status == verdict
    assert (f"HTTP {status}" in check.found) == (verdict == "fail")
    assert check.hint == (None if verdict == "ok" else "check LIGHTLAKE_ENDPOINTS__SKY")


def test_a_wrong_port_a_wrong_name_and_silence() -> None:
    with socket.socket() as taken, socket.socket() as mute:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        refused = seen(f"http://me:secret@127.0.0.1:{taken.getsockname()[1]}/tap")
        assert (refused.status, "Connection refused" in refused.found) == ("fail", True), refused
        assert "secret" not in refused.found
        silent = seen(f"http://127.0.0.1:{mute.getsockname()[1]}/tap", is_public=True)
    assert (silent.status, silent.found.endswith("no answer for 1 s")) == ("fail", True), silent
    assert "mirror: LIGHTLAKE_ENDPOINTS__SKY" in str(silent.hint)
    assert seen("http://[/tap").status == "fail"
    assert seen("ftp://127.0.0.1/tap").status == "fail"


def test_folders_and_files(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    missing = seen(folder)
    assert (missing.status, missing.found) == ("fail", f"{folder}: No such file or directory")
    folder.mkdir()
    assert seen(folder).found == f"{folder}: there is nothing"
    (folder / "release.zip").write_bytes(b"zip")
    assert seen(f"file://{folder}") == Check("archive sky", "ok", f"file://{folder}: 1 folder or file")
    assert seen(folder / "release.zip").found.endswith(": a file")


def test_clocks_of_those_who_answered() -> None:
    with answering({}, clock_is_off_s=300) as wrong, answering({}, clock_is_off_s=None) as mute:
        there = [Endpoint("a", wrong, None, True), Endpoint("b", mute, None, True), Endpoint("c", "/", None, False)]
        (skew,) = skews(look(there, 5.0)).values()
    assert skew == pytest.approx(-300, abs=60)
    assert look([], 1.0) == []
    assert skews([Answer(Check("a", "ok", ""), "a.org", 1.0)]) == {"a.org": 1.0}


def test_heasoft_is_told_of_whether_it_is_there_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADAS", raising=False)
    (none,) = heasoft()
    assert (none.status, none.found.startswith("not installed")) == ("ok", True)
    for name in TOOLS:
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.touch(mode=0o755)
    (tmp_path / "syspfiles").mkdir()
    monkeypatch.setenv("HEADAS", str(tmp_path))
    assert heasoft() == [Check("heasoft", "ok", str(tmp_path))]
