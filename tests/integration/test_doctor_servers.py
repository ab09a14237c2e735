"""The doctor's checks of S3 and PostgreSQL, on real servers."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.s3 import S3, FaultyProxy

from lake.model.schema import SCHEMA_VERSION
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from lake.store.s3_files import S3Files
from lake.store.storage import Storage
from lake.upkeep.checks import catalogue, clock_of_s3, storage_rights
from lake.upkeep.doctor import Check
from tasks.doctor import Endpoint, look

pytestmark = pytest.mark.server


def one(checks: list[Check]) -> Check:
    (check,) = checks
    return check


def lake_on(settings: Settings) -> Check:
    S3Files.clear_instance_cache()  # it keeps clients as the environment was when they were made
    return one(storage_rights(Storage.from_url(settings.url), settings.storage_options, 2.0))


def test_postgres(postgres: str, tmp_path: Path) -> None:
    settings = load_settings(url=str(tmp_path / "lake"), catalog=f"postgres:{postgres} schema=doctor")
    storage = Storage.from_url(settings.url)
    none = one(catalogue(storage, settings, 5.0))
    assert none.status == "warn"
    assert none.hint.startswith(f"make one with: lightlake init {storage.root}; ")
    catalog = Catalog(storage, settings)
    catalog.create()
    catalog.close()
    found = one(catalogue(storage, settings, 5.0))
    assert (found.status, found.found.split(", ")[-1]) == ("ok", f"schema version {SCHEMA_VERSION}")


def test_a_postgres_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        given = f"postgres:host=127.0.0.1 port={mute.getsockname()[1]} user=me password=secret dbname=lake"
        settings = load_settings(url=str(tmp_path / "lake"), catalog=given)
        check = one(catalogue(Storage.from_url(settings.url), settings, 2.0))
    assert (check.status, "timeout" in check.found, "secret" in check.found) == ("fail", True, False), check


def test_a_lake_on_s3(s3_lake: str) -> None:
    settings = load_settings(url=s3_lake, catalog="sqlite:unused")
    check = lake_on(settings)
    assert (check.status, check.found) == ("ok", f"{s3_lake}: objects can be written, copied, read and removed")
    storage = Storage.from_url(s3_lake)
    assert not list(storage.root.rglob("*"))
    assert one(clock_of_s3(storage, 5.0)).status == "ok"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch: The request signature"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId: The access key ID"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Could not connect to the endpoint URL"),
    ],
)
def test_s3_that_refuses_is_quoted(
    s3_lake: str, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    check = lake_on(load_settings(url=s3_lake, catalog="sqlite:unused"))
    assert (check.status, words in check.found) == ("fail", True), check
    assert "AWS_" in str(check.hint)


def test_s3_that_hangs(s3: S3, s3_lake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.fault("hang", times=50)
        check = lake_on(load_settings(url=s3_lake, catalog="sqlite:unused"))
        assert (check.status, "timeout" in check.found.lower()) == ("fail", True), check
        there = Endpoint("sky", s3_lake, None, is_public=False)
        (answer,) = look([there], 0.5)
        assert answer.check.status == "fail", answer


def test_archives_on_s3(s3: S3, s3_bucket: str, s3_lake: str) -> None:
    s3.filesystem.open_output_stream(f"{s3_bucket}/sky/release/part.parquet").close()
    there = Endpoint("sky", f"s3://{s3_bucket}/sky", None, is_public=True)
    places = [there, replace(there, url=f"{there.url}/nothing"), replace(there, url="s3://doctor-has-none/sky")]
    full, empty, none = (answer.check for answer in look(places, 5.0))
    assert (full.status, full.found) == ("ok", f"{there.url}: 1 folder or file")
    assert (empty.status, none.status) == ("fail", "fail")
    assert "there is nothing" in empty.found
