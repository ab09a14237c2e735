"""A lake on a real S3 server: by command, pulled into, killed in mid-commit, behind faults, and for other clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import duckdb
import pytest
from helpers.crash import child, commit_and_die
from helpers.granules import committed, content, errors, expected, register, staged
from helpers.processes import Run
from helpers.s3 import S3, FaultyProxy

from lake.catalog import Catalog, extension_file
from lake.commit import commit
from lake.errors import CatalogError, ConfigurationError
from lake.maintenance import compact
from lake.query import Lake
from lake.settings import Settings, load_settings
from lake.staging import Manifest
from lake.storage import Storage

pytestmark = pytest.mark.server


@pytest.fixture
def place(s3_lake: str, tmp_path: Path) -> Settings:
    """Settings of a lake on S3 with its catalogue in SQLite."""
    return load_settings(url=s3_lake, catalog=f"sqlite:{tmp_path / 'catalog.sqlite'}", lock_timeout_s=60.0)


@pytest.fixture
def opened(place: Settings) -> Iterator[Catalog]:
    """Its open catalogue."""
    catalog = Catalog(Storage.from_url(place.url), place)
    catalog.create()
    yield catalog
    catalog.close()


@pytest.mark.usefixtures("prefect_server", "pull_settings")
def test_the_commands(s3_lake: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = tmp_path / "targets.csv"
    listing.write_text("name,ra,dec\nTXS 0506+056,77.3582,5.6931\nM 87,187.7059,12.3911\n")
    monkeypatch.setenv("LIGHTLAKE_URL", s3_lake)
    monkeypatch.setenv("LIGHTLAKE_CATALOG", f"sqlite:{tmp_path / 'catalog.sqlite'}")

    def told(*arguments: object) -> str:
        done = run(*arguments)
        assert done.code == 0, done
        return done.out

    assert told("init").startswith(f"made the lake at {s3_lake}")
    assert "2 new targets" in told("targets", "add", listing, "--sample", "mine")
    assert told("pull", "icecube").startswith("icecube: 2 of 2 targets answered")
    assert "nothing to do" in told("pull", "icecube")
    told("verify")
    told("compact")
    assert " 0 errors" in told("verify")
    rows = json.loads(told("sql", "SELECT status, count(*) AS n FROM coverage GROUP BY ALL", "--output", "json"))
    assert sum(row["n"] for row in rows) == 2
    (row,) = json.loads(told("status", "--output", "json"))
    assert (row["archive"], row["asked"]) == ("icecube", 2)


@pytest.mark.parametrize("step", ["after publish 3", "before COMMIT 1", "after COMMIT 1"])
def test_killed_at_a_step(opened: Catalog, place: Settings, step: str) -> None:
    register(opened, range(12))
    committed(opened, range(8), "g0")
    before = content(opened)
    manifest = staged(opened, {3: 2, 9: 1}, "g1")
    process = child(commit_and_die, place, manifest.folder, step)
    process.join(60)
    assert process.exitcode == -9
    assert content(opened) == (
        expected({**dict.fromkeys(range(8), 1), 3: 2, 9: 1}) if step[0] == "a" and "COMMIT" in step else before
    )
    assert {finding.check for finding in errors(opened)} <= {"orphans"}
    again = Manifest.read(opened.storage.staging / "g1-0")
    assert again is not None
    commit(opened, again)
    assert content(opened) == expected({**dict.fromkeys(range(8), 1), 3: 2, 9: 1})
    assert errors(opened) == []
    compact(opened)
    assert errors(opened) == []
    assert content(opened) == expected({**dict.fromkeys(range(8), 1), 3: 2, 9: 1})


def test_an_upload_that_was_broken_off_is_not_seen(opened: Catalog, s3: S3, s3_lake: str) -> None:
    register(opened, range(4))
    committed(opened, range(4), "g0")
    bucket, _, prefix = s3_lake.removeprefix("s3://").partition("/")
    client = botocore.session.Session().create_client("s3", endpoint_url=s3.endpoint)
    key = f"{prefix}/data/main/lightcurves/archive=ztf/broken.parquet"
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)
    client.upload_part(Bucket=bucket, Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=b"PAR1" * 1_500_000)
    assert errors(opened) == []
    assert len(list(opened.storage.table_files("lightcurves"))) == 1
    assert content(opened) == expected(dict.fromkeys(range(4), 1))
    client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload["UploadId"])
    client.close()


def test_a_stock_client_with_the_printed_lines(opened: Catalog, place: Settings) -> None:
    register(opened, range(4))
    committed(opened, range(4), "g0")
    with Lake(place.url, place) as lake:
        snippet = lake.attach_snippet()
    names = {"ducklake": "ducklake", "sqlite": "sqlite_scanner", "httpfs": "httpfs"}
    with duckdb.connect() as client:
        for line in snippet.splitlines():
            if line.startswith("INSTALL"):
                client.execute(f"LOAD '{extension_file(names[line.split()[1].rstrip(';')])}'")
            else:
                client.execute(line)
        assert client.execute("SELECT count(*) FROM lightcurves").fetchall() == [(24,)]


@pytest.mark.parametrize("kind", ["slowdown", "status:500", "reset"])
def test_a_commit_behind_faults_is_whole_or_not_at_all(
    opened: Catalog, place: Settings, s3: S3, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    register(opened, range(12))
    committed(opened, range(8), "g0")
    before = content(opened)
    manifest = staged(opened, {3: 2, 9: 1}, "g1")
    with FaultyProxy(s3.endpoint) as proxy:
        for name, value in s3.environment_at(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        options = {"endpoint_url": proxy.endpoint}
        other = Catalog(Storage(Storage.from_url(place.url).root.__class__(place.url, **options)), place)
        other.open()
        proxy.fault(kind, times=3, match="data/main")
        try:
            commit(other, manifest)
        except (CatalogError, OSError):
            assert content(opened) == before
            commit(opened, manifest)
        other.close()
    assert content(opened) == expected({**dict.fromkeys(range(8), 1), 3: 2, 9: 1})
    assert errors(opened) == []


def test_what_cannot_be_reached_is_told_in_one_line(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    catalog = f"sqlite:{tmp_path / 'catalog.sqlite'}"
    monkeypatch.setenv("LIGHTLAKE_STORAGE_OPTIONS", json.dumps({"key": s3.key, "secret": "wrong"}))
    refused = load_settings(url="s3://lakes/refused", catalog=catalog)
    with pytest.raises(ConfigurationError, match="cannot write to s3://lakes/refused") as error:
        Catalog(Storage.from_url(refused.url), refused).create()
    assert "LIGHTLAKE_STORAGE_OPTIONS" in str(error.value.hint)
