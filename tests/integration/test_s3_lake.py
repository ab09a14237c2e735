"""A lake on a real S3 server: by command, pulled into, killed in mid-commit, behind faults, and for other clients."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import botocore.session
import duckdb
import pytest
from helpers.crash import child, commit_and_die
from helpers.granules import committed, content, errors, expected, register, staged, target_ids
from helpers.processes import Run
from helpers.s3 import REGION, S3, FaultyProxy

from lake.commit.commit import commit
from lake.commit.runs import is_stop_requested
from lake.commit.staging import Manifest
from lake.errors import CatalogError, ConfigurationError
from lake.query import Lake
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from lake.store.connection import extension_file
from lake.store.storage import Storage
from lake.upkeep.compaction import compact
from lake.upkeep.maintenance import verify

pytestmark = pytest.mark.server

FULL = bool(os.environ.get("LIGHTLAKE_TEST_FULL"))


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


@pytest.mark.parametrize("step", ["before COMMIT 1", "after COMMIT 1", *(["after publish 3"] if FULL else [])])
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


@pytest.mark.parametrize("kind", ["status:403", "reset"])
def test_errors_of_s3_that_last_are_one_line(
    opened: Catalog, place: Settings, s3: S3, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    register(opened, range(4))
    committed(opened, range(2), "g0")
    committed(opened, {1: 2, 2: 1}, "g1")
    manifest = staged(opened, {3: 1}, "g2")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with FaultyProxy(s3.endpoint) as proxy:
        for name, value in s3.environment_at(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        other = Catalog(Storage.from_url(place.url), place)
        other.open()
        changes: list[Callable[[Catalog], object]] = [lambda to: register(to, [9]), lambda to: commit(to, manifest)]
        for match, acts in (
            ("GET .*quarantine", [compact, verify]),
            ("HEAD .*data/main.*parquet", [compact, verify]),
            ("(PUT|POST) .*staging", changes[:1]),
            ("(PUT|POST) .*data/main", changes),
            ("GET .*staging.*parquet", changes[1:]),
        ):
            proxy.fault(kind, times=10_000, match=match)
            for act in acts:
                with pytest.raises(CatalogError, match=f"{proxy.endpoint}, bucket") as error:
                    act(other)
                assert "\n" not in str(error.value)
            proxy.heal()
        # What is committed is committed, even if what was staged cannot be removed.
        proxy.fault(kind, times=10_000, match="DELETE .*staging|POST .*delete")
        assert commit(other, manifest).status == "done"
        proxy.fault(kind, times=10_000, match="list-type")
        with pytest.raises(OSError, match=r"."):
            is_stop_requested(other.storage, "run")
        proxy.heal()
        other.close()
    with pytest.raises(OSError, match=r"Could not connect"):
        is_stop_requested(other.storage, "run")
    compact(opened)
    assert content(opened) == expected({0: 1, 1: 2, 2: 1, 3: 1})
    assert errors(opened) == []


def test_what_cannot_be_reached_is_told_in_one_line(
    opened: Catalog, place: Settings, s3: S3, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(opened, range(4))
    committed(opened, range(4), "g0")
    manifest = staged(opened, {2: 2}, "g1")
    dead = "http://127.0.0.1:1"
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for variable, value, named in (
        (
            "LIGHTLAKE_STORAGE_OPTIONS",
            json.dumps({"key": s3.key, "secret": "wrong"}),
            f"{s3.endpoint}, bucket {s3_bucket}: .*(Signature|AccessDenied|403|Forbidden)",
        ),
        ("AWS_ENDPOINT_URL", dead, f"{dead}, bucket {s3_bucket}: "),
    ):
        with monkeypatch.context() as wrong:
            wrong.setenv(variable, value)
            settings = load_settings(url=place.url, catalog=f"sqlite:{tmp_path / variable}")
            acts: list[Callable[[], object]] = [
                Catalog(Storage.from_url(place.url), settings).create,
                Catalog(Storage.from_url(place.url), place).open,
                lambda: commit(Catalog(Storage.from_url(place.url), place), manifest),
                lambda: _ask(place),
            ]
            for act in acts:
                with pytest.raises(CatalogError, match=named) as error:
                    act()
                assert "\n" not in str(error.value)
                assert "LIGHTLAKE_STORAGE_OPTIONS" in str(error.value.hint)
    assert content(opened) == expected(dict.fromkeys(range(4), 1))
    with pytest.raises(CatalogError, match=f"{s3.endpoint}, bucket nowhere: NoSuchBucket"):
        Storage.from_url("s3://nowhere/lake").check_reachable()
    Storage.from_url(f"s3://{s3_bucket}/nothing/yet").check_reachable()


def _ask(place: Settings, *, confined: bool = False) -> int:
    with Lake(place.url, place, confined=confined) as lake:
        return int(lake.light_curve(target_ids([1])[0]).num_rows)


@pytest.mark.parametrize("how", ["profile", "options"])
def test_reached_by_awss_own_files_or_by_s3fss_names(
    opened: Catalog, place: Settings, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    register(opened, range(4))
    committed(opened, range(4), "g0")
    opened.close()
    for name in s3.environment:
        monkeypatch.delenv(name)
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    if how == "profile":
        config.write_text(
            f"[profile lab]\nregion = {REGION}\nservices = lab\n[services lab]\ns3 =\n  endpoint_url = {s3.endpoint}\n"
        )
        credentials.write_text(f"[lab]\naws_access_key_id = {s3.key}\naws_secret_access_key = {s3.secret}\n")
        monkeypatch.setenv("AWS_PROFILE", "lab")
    else:
        options = {"username": s3.key, "password": s3.secret, "client_kwargs": {"endpoint_url": s3.endpoint}}
        monkeypatch.setenv("LIGHTLAKE_STORAGE_OPTIONS", json.dumps(options))
    assert _ask(place) == 6
    other = Catalog(Storage.from_url(place.url), place)
    other.open()
    committed(other, {1: 2, 5: 1}, "g1", targets=[1])
    compact(other)
    assert errors(other) == []
    other.close()
    assert _ask(place) == 6


def test_a_confined_handle_reaches_this_lake_alone(opened: Catalog, place: Settings, s3: S3, s3_bucket: str) -> None:
    register(opened, range(4))
    committed(opened, range(4), "g0")
    (opened.storage.root.parent / "other" / "secret.csv").write_text("a,b\n1,2\n")
    assert _ask(place, confined=True) == 6
    with Lake(place.url, place, confined=True) as lake:
        cursor = lake.catalog.cursor()
        for attack in (
            f"FROM read_csv('{opened.storage.root.parent}/other/secret.csv')",
            "FROM duckdb_secrets()",
            f"FROM read_text('{s3.endpoint}/{s3_bucket}')",
            "SELECT current_setting('s3_secret_access_key') AS a",
            f"COPY (SELECT 1) TO '{opened.storage.root.parent}/other/x.csv'",
            "CREATE SECRET (TYPE s3)",
        ):
            with pytest.raises(ConfigurationError):
                lake.sql(attack)
            if "secret" not in attack.lower() or "read_csv" in attack:  # DuckDB's own wall
                with pytest.raises(duckdb.PermissionException):
                    cursor.execute(attack)
        told = str(cursor.execute("FROM duckdb_secrets()").fetchall())
        assert s3.secret not in told
        committed(opened, range(2, 6), "g1")
        assert lake.sql("SELECT count(*) AS n FROM sources")["n"].to_pylist() == [6]
