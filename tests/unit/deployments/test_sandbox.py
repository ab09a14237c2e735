import io
import logging
import math
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from deployments.sandbox import icecube
from deployments.sandbox.server import Request, Response, Sandbox

TXS = (77.358, 5.693)
NGC1068 = (40.670, -0.013)
LAYOUT = {"events": "%17.8f%14.2f%14.2f%14.3f%14.3f%14.3f%14.3f\n", "uptime": "%17.8f%17.8f\n"}
CLIENT_ERRORS = {"reset": httpx.ReadError, "truncate": httpx.RemoteProtocolError}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("release") / icecube.ZIP_NAME
    return icecube.write_release(path, scale=0.05, targets=[TXS, NGC1068])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Sandbox, str, bytes]]:
    content = np.random.default_rng(1).bytes(300_001)
    file = tmp_path / "data.bin"
    file.write_bytes(content)
    with Sandbox() as box:
        box.mount_file("/data.bin", file)
        yield box, box.url("/data.bin"), content


def member(release: Path, name: str) -> str:
    with zipfile.ZipFile(release) as archive:
        return archive.read(f"{icecube.FOLDER}/{name}").decode("ascii")


def events(release: Path, season: str) -> np.ndarray:
    return np.loadtxt(io.StringIO(member(release, f"events/{season}_exp.csv")))


# --- the IceCube release ---


def test_lines_are_laid_out_as_in_the_real_release(release: Path, data_dir: Path) -> None:
    for kind in ["events", "uptime"]:
        real = (data_dir / "icecube" / kind / "IC40_exp.csv").read_text().splitlines(keepends=True)
        for season in icecube.SEASONS:
            made = member(release, f"{kind}/{season.name}_exp.csv").splitlines(keepends=True)
            assert made[0] == real[0]
            for line in (*made[1:], *real[1:]):
                assert line == LAYOUT[kind] % tuple(map(float, line.split()))


def test_members_counts_and_ranges(release: Path) -> None:
    with zipfile.ZipFile(release) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_DEFLATED}
    seasons = [season.name for season in icecube.SEASONS]
    assert set(names) == {"icecube_10year_ps/readme.txt"} | {
        f"icecube_10year_ps/{kind}/{name}_exp.csv" for kind in ("events", "uptime") for name in seasons
    }
    assert "NOT IceCube data" in member(release, "readme.txt")
    counts = icecube.season_counts(0.05)
    for season in icecube.SEASONS:
        rows = events(release, season.name)
        mjd, energy, angerr, ra, dec, azimuth, zenith = rows.T
        assert len(rows) == counts[season.name]
        assert (np.diff(mjd) >= 0).all()
        assert season.start <= mjd.min()
        assert mjd.max() <= season.stop
        assert energy.min() > 2
        assert energy.max() < 7
        assert angerr.min() == pytest.approx(0.2, abs=0.03)
        assert 2 < angerr.max() < 3
        for angle in (ra, azimuth):
            assert 0 <= angle.min() < 5
            assert 355 < angle.max() < 360
        assert np.abs(zenith - dec - 90).max() < 0.12
        assert np.median(energy[dec < -20]) > np.median(energy[dec > 0]) + 1.5


def test_counts_at_full_scale_are_those_of_the_release() -> None:
    counts = icecube.season_counts()
    assert sum(counts.values()) == 1_134_450
    assert (counts["IC40"], counts["IC86_VII"]) == (36900, 145750)
    with pytest.raises(ValueError, match="scale"):
        icecube.season_counts(0)


def test_events_fall_into_good_runs(release: Path) -> None:
    for season in icecube.SEASONS:
        runs = np.loadtxt(io.StringIO(member(release, f"uptime/{season.name}_exp.csv")))
        assert (runs[:, 1] > runs[:, 0]).all()
        assert (runs[1:, 0] >= runs[:-1, 1]).all()
        mjd = events(release, season.name)[:, 0]
        run = np.searchsorted(runs[:, 0], mjd, side="right") - 1
        assert (mjd <= runs[run, 1]).all()
        span = season.stop - (season.main or season.start)
        assert 0.85 < (runs[:, 1] - runs[:, 0]).sum() / span <= 1.01


def test_one_event_of_2015_is_there_twice(release: Path) -> None:
    for season in icecube.SEASONS:
        lines = member(release, f"events/{season.name}_exp.csv").splitlines()
        assert len(lines) - len(set(lines)) == (season.name == "IC86_V")


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    def make(name: str, **options: int) -> bytes:
        return icecube.write_release(tmp_path / name, scale=0.005, targets=[TXS], **options).read_bytes()

    first = make("a.zip")
    assert make("b.zip") == first
    assert make("c.zip", seed=7) != first


def test_folder_holds_what_the_zip_holds(tmp_path: Path) -> None:
    zipped = icecube.write_release(tmp_path / "x.zip", scale=0.002)
    folder = icecube.write_folder(tmp_path / icecube.FOLDER, scale=0.002)
    with zipfile.ZipFile(zipped) as archive:
        for name in archive.namelist():
            assert (tmp_path / name).read_bytes() == archive.read(name)
    assert (folder / "events").is_dir()


# --- the server ---


def test_start_makes_the_data_once(tmp_path: Path) -> None:
    options = {"archives": ["icecube"], "scale": 0.002, "targets": [TXS]}
    with Sandbox.start(tmp_path, **options) as box:
        assert box.endpoints == {"icecube": box.url("/data-releases/20210126_PS-IC40-IC86_VII.zip")}
        first = httpx.get(box.endpoints["icecube"])
        assert zipfile.ZipFile(io.BytesIO(first.content)).testzip() is None
    with Sandbox.start(tmp_path, **options) as box:
        assert httpx.head(box.endpoints["icecube"]).headers["ETag"] == first.headers["ETag"]
    with Sandbox.start(tmp_path, archives=["icecube"], scale=0.003, targets=[TXS]) as box:
        assert httpx.get(box.endpoints["icecube"]).content != first.content


def test_start_refuses_an_archive_it_has_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no stand-in for nowhere"):
        Sandbox.start(tmp_path, archives=["nowhere"])


def test_a_failed_start_leaves_no_server(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="scale"):
        Sandbox.start(tmp_path, scale=-1)
    assert threading.active_count() == before


def test_get_and_head(served: tuple[Sandbox, str, bytes]) -> None:
    box, url, content = served
    got, head = httpx.get(url), httpx.head(url)
    assert got.content == content
    assert head.content == b""
    for name in ("Content-Length", "Content-Type", "ETag", "Last-Modified", "Accept-Ranges"):
        assert head.headers[name] == got.headers[name]
    assert head.headers["Content-Length"] == str(len(content))
    assert httpx.get(url, headers={"If-None-Match": got.headers["ETag"]}).status_code == 304
    assert httpx.get(url, headers={"If-Modified-Since": got.headers["Last-Modified"]}).status_code == 304
    assert httpx.get(box.url("/other?x=1")).status_code == 404
    assert box.requests == [
        ("GET", "/data.bin", 200),
        ("HEAD", "/data.bin", 200),
        ("GET", "/data.bin", 304),
        ("GET", "/data.bin", 304),
        ("GET", "/other?x=1", 404),
    ]


def test_range(served: tuple[Sandbox, str, bytes]) -> None:
    for asked, part in [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=300000-999999", slice(300_000, None)),
    ]:
        _, url, content = served
        got = httpx.get(url, headers={"Range": asked})
        first, stop, _ = part.indices(len(content))
        assert got.status_code == 206
        assert got.content == content[part]
        assert got.headers["Content-Range"] == f"bytes {first}-{stop - 1}/{len(content)}"
        assert got.headers["Content-Length"] == str(stop - first)


def test_ranges_that_cannot_be_had(served: tuple[Sandbox, str, bytes]) -> None:
    _, url, content = served
    beyond = httpx.get(url, headers={"Range": f"bytes={len(content)}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(content)}")
    changed = httpx.get(url, headers={"Range": "bytes=5-", "If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, content)
    same = httpx.get(url, headers={"Range": "bytes=5-", "If-Range": changed.headers["ETag"]})
    assert (same.status_code, same.content) == (206, content[5:])
    assert httpx.get(url, headers={"Range": "lines=1-2"}).status_code == 200


def test_fault_breaks_off_the_body(served: tuple[Sandbox, str, bytes]) -> None:
    for kind in ["reset", "truncate"]:
        box, url, content = served
        box.fault("/data.bin", kind)
        got = b""
        with httpx.Client() as client:
            with pytest.raises(CLIENT_ERRORS[kind]), client.stream("GET", url) as answer:  # noqa: PT012
                assert answer.headers["Content-Length"] == str(len(content))
                for chunk in answer.iter_bytes():
                    got += chunk
            assert content.startswith(got)
            assert len(got) < len(content)
            if kind == "truncate":
                assert len(got) == len(content) // 2
            assert client.get(url).content == content


def test_fault_short_is_consistent_with_itself(served: tuple[Sandbox, str, bytes]) -> None:
    box, url, content = served
    box.fault("/data.bin", "short", times=2)
    for _ in range(2):
        got = httpx.get(url)
        assert (got.status_code, got.content) == (200, content[: len(content) // 2])
        assert got.headers["Content-Length"] == str(len(content) // 2)
    assert httpx.get(url).content == content


def test_fault_garbage(served: tuple[Sandbox, str, bytes]) -> None:
    box, url, _ = served
    box.fault("/data.bin", "garbage")
    got = httpx.get(url)
    assert got.status_code == 200
    assert got.headers["Content-Type"].startswith("text/html")
    assert "maintenance" in got.text


def test_fault_endless(served: tuple[Sandbox, str, bytes]) -> None:
    box, url, content = served
    box.fault("/data.bin", "endless")
    with httpx.Client() as client:
        with client.stream("GET", url) as answer:
            assert "Content-Length" not in answer.headers
            got = 0
            for chunk in answer.iter_bytes():
                got += len(chunk)
                if got > 1_000_000:
                    break
        assert client.get(url).content == content


def test_fault_status(served: tuple[Sandbox, str, bytes]) -> None:
    for method in ["GET", "HEAD"]:
        for status in [404, 429, 503]:
            box, url, _ = served
            box.fault("/data.bin", f"status:{status}")
            got = httpx.request(method, url)
            assert got.status_code == status
            assert got.headers.get("Retry-After") == ("1" if status == 429 else None)
            assert httpx.request(method, url).status_code == 200
            assert [seen.status for seen in box.requests[-2:]] == [status, 200]


def test_fault_slow(served: tuple[Sandbox, str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    box, url, content = served
    box.drip = (100_000, 0.01)
    box.fault("/data.bin", "slow")
    pauses: list[float | None] = []
    wait = box.closing.wait
    monkeypatch.setattr(box.closing, "wait", lambda pause: pauses.append(pause) or wait(pause))
    assert httpx.get(url).content == content
    assert pauses == [0.01] * math.ceil(len(content) / 100_000)


def test_fault_hang(served: tuple[Sandbox, str, bytes]) -> None:
    box, url, content = served
    box.fault("/data.bin", "hang")
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(url, timeout=0.2)
    assert box.requests == [("GET", "/data.bin", 0)]
    assert httpx.get(url).content == content


def test_head_leaves_faults_of_the_body(served: tuple[Sandbox, str, bytes]) -> None:
    box, url, _ = served
    box.fault("/data.bin", "garbage")
    assert httpx.head(url).headers["Content-Type"] == "application/octet-stream"
    assert "maintenance" in httpx.get(url).text


def test_unknown_fault(served: tuple[Sandbox, str, bytes]) -> None:
    with pytest.raises(ValueError, match="unknown fault 'status:9'"):
        served[0].fault("/data.bin", "status:9")


@pytest.mark.parametrize("kind", ["hang", "slow"])
def test_close_frees_clients_at_once(served: tuple[Sandbox, str, bytes], kind: str) -> None:
    box, url, _ = served
    box.drip = (10, 30.0)
    box.fault("/data.bin", kind)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            httpx.get(url, timeout=60)
        except httpx.TransportError as error:
            errors.append(error)

    client = threading.Thread(target=ask)
    client.start()
    while not box.requests:
        time.sleep(0.01)
    with httpx.Client() as idle:
        idle.get(url)
        box.close()
        box.close()
        client.join(25)  # less than the pauses of "slow", and than the client's patience
    assert not client.is_alive()
    assert len(errors) == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_mounted_handler(served: tuple[Sandbox, str, bytes]) -> None:
    box, url, content = served
    asked: list[Request] = []

    def tap(request: Request) -> Response:
        asked.append(request)
        return Response(request.body.upper(), 201, "text/csv", {"X-Job": "7"})

    box.mount("/tap", lambda request: Response(b"outer"))
    box.mount("/tap/sync/", tap)
    got = httpx.post(box.url("/tap/sync/a%20b?LANG=ADQL"), content=b"select", headers={"X-Who": "me"})
    assert (got.status_code, got.content, got.headers["X-Job"]) == (201, b"SELECT", "7")
    assert got.headers["Content-Type"] == "text/csv"
    (request,) = asked
    assert (request.method, request.path, request.query) == ("POST", "/tap/sync/a b", "LANG=ADQL")
    assert request.headers["x-who"] == "me"
    assert httpx.get(box.url("/tap/other")).content == b"outer"
    assert httpx.get(box.url("/tapas")).status_code == 404
    box.fault("/tap", "status:503")
    assert httpx.post(box.url("/tap/sync"), content=b"x").status_code == 503
    assert httpx.get(url).content == content


def test_a_broken_handler_is_logged(served: tuple[Sandbox, str, bytes], caplog: pytest.LogCaptureFixture) -> None:
    box, _, _ = served
    box.mount("/broken", lambda request: Response(status=1 // 0))
    with caplog.at_level(logging.ERROR), pytest.raises(httpx.RemoteProtocolError):
        httpx.get(box.url("/broken"))
    assert "ZeroDivisionError" in caplog.text


def test_many_clients_at_once(served: tuple[Sandbox, str, bytes]) -> None:
    _, url, content = served
    results: list[bool] = []

    def ask() -> None:
        with httpx.Client() as client:
            results.extend(client.get(url).content == content for _ in range(5))

    clients = [threading.Thread(target=ask) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(30)
    assert results == [True] * 40
