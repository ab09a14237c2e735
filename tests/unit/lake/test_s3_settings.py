"""One reading of S3's options and AWS's configuration, for the file system and for DuckDB."""

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import CatalogError, ConfigurationError
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.s3 import access, s3_secret, s3_trouble
from lake.store.storage import Storage, path_of

CONFIG = """
[default]
region = eu-central-1
[profile theirs]
region = eu-west-3
services = own
s3 =
  addressing_style = virtual
[profile everything]
endpoint_url = https://all.example.org
[services own]
s3 =
  endpoint_url = http://127.0.0.1:9000
"""
CREDENTIALS = """
[default]
aws_access_key_id = default-key
aws_secret_access_key = default-secret
[theirs]
aws_access_key_id = their-key
aws_secret_access_key = their-secret
aws_session_token = their-token
[everything]
aws_access_key_id = every-key
aws_secret_access_key = every-secret
"""


@pytest.fixture(autouse=True)
def aws(monkeypatch, tmp_path):
    """Configuration files of a user, and nothing in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for variable, name, text in (
        ("AWS_CONFIG_FILE", "config", CONFIG),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", CREDENTIALS),
    ):
        (tmp_path / name).write_text(text)
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def _told(options):
    """What s3fs's own client, and DuckDB's secret, are told: endpoint, region, key, secret, token, path style."""
    root = path_of("s3://bucket/lake", options)
    file_system = root.fs
    client = file_system.connect(refresh=True)
    held = client._request_signer._credentials
    frozen = (held.access_key, held.secret_key, held.token) if held else (None, None, None)
    style = (client.meta.config.s3 or {}).get("addressing_style")
    endpoint = client.meta.endpoint_url
    mine = (None if "amazonaws" in endpoint else endpoint, client.meta.region_name, *frozen, style == "path")
    secret = s3_secret(Storage(root))
    values = dict(part.split(" ", 1) for part in secret.partition("TYPE s3, ")[2].rstrip(")").split(", "))
    values = {name: value.strip("'") for name, value in values.items()}
    scheme = "https" if values.get("USE_SSL") == "true" else "http"
    theirs = (
        f"{scheme}://{values['ENDPOINT']}" if "ENDPOINT" in values else None,
        values["REGION"],
        values.get("KEY_ID"),
        values.get("SECRET"),
        values.get("SESSION_TOKEN"),
        values["URL_STYLE"] == "path",
    )
    return mine, theirs


OWN = "http://127.0.0.1:9000"


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ({}, {}, (None, "eu-central-1", "default-key", "default-secret", None, False)),
        ({"profile": "theirs"}, {}, (OWN, "eu-west-3", "their-key", "their-secret", "their-token", False)),
        ({}, {"AWS_PROFILE": "theirs"}, (OWN, "eu-west-3", "their-key", "their-secret", "their-token", False)),
        (
            {},
            {"AWS_PROFILE": "everything"},
            ("https://all.example.org", "us-east-1", "every-key", "every-secret", None, True),
        ),
        (
            {"profile": "theirs"},
            {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            (None, "eu-west-3", "their-key", "their-secret", "their-token", False),
        ),
        (
            {},
            {"AWS_ENDPOINT_URL": "http://h:1", "AWS_REGION": "here"},
            ("http://h:1", "here", "default-key", "default-secret", None, True),
        ),
        (
            {},
            {"AWS_ENDPOINT_URL": "http://h:1", "AWS_ENDPOINT_URL_S3": "http://s:2"},
            ("http://s:2", "eu-central-1", "default-key", "default-secret", None, True),
        ),
        (
            {"endpoint_url": "minio:9000", "use_ssl": False, "username": "u", "password": "p"},
            {"AWS_ENDPOINT_URL": "http://h:1"},
            ("http://minio:9000", "eu-central-1", "u", "p", None, True),
        ),
        (
            {"key": "k", "secret": "s", "token": "t", "client_kwargs": {"region_name": "there", "endpoint_url": OWN}},
            {"AWS_PROFILE": "theirs"},
            (OWN, "there", "k", "s", "t", False),
        ),
        (
            {
                "client_kwargs": {"aws_access_key_id": "k", "aws_secret_access_key": "s"},
                "config_kwargs": {"s3": {"addressing_style": "path"}},
            },
            {},
            (None, "eu-central-1", "k", "s", None, True),
        ),
    ],
)
def test_the_file_system_and_duckdb_are_told_the_same(options, environment, expected, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    mine, theirs = _told(options)
    assert mine == expected
    assert theirs == expected
    # A path of a lake is made again from the options of the lake's root.
    root = path_of("s3://bucket/lake", options)
    assert path_of("s3://bucket/lake/data", root.storage_options).storage_options == root.storage_options


def test_anonymous_access_needs_no_credentials(monkeypatch):
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    root = path_of("s3://bucket/lake", {"anon": True})
    assert "KEY_ID" not in s3_secret(Storage(root))
    with pytest.raises(ConfigurationError, match="no credentials for s3://bucket/lake"):
        s3_secret(Storage(path_of("s3://bucket/lake", {})))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"keyy": "k"}, "did you mean key"),
        ({"endpoint": OWN}, "endpoint_url"),
        ({"aws_access_key_id": "k"}, "aws_access_key_id"),
        ({"client_kwargs": {"region": "x"}}, "region_name"),
        ({"client_kwargs": {"verify": False}}, "verify"),
        ({"key": "k"}, "no secret"),
        ({"key": "k", "username": "u", "secret": "s"}, "key and username"),
        ({"endpoint_url": "ftp://host"}, "ftp://host"),
        ({"endpoint_url": "http://user:hunter2@host/"}, "http://host"),
        ({"profile": "nobody"}, "nobody"),
        ({"key": 7, "secret": "hunter2"}, "key is not text"),
        ({"client_kwargs": "hunter2"}, "client_kwargs is not an object"),
        ({"use_ssl": "no"}, "use_ssl is not true or false"),
    ],
)
def test_what_cannot_be_is_named(options, named):
    with pytest.raises(ConfigurationError) as error:
        path_of("s3://bucket/lake", options)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)
    assert error.value.hint


def test_configuration_that_is_broken(tmp_path, monkeypatch):
    (tmp_path / "config").write_text("[profile\nregion")
    with pytest.raises(ConfigurationError, match="config") as error:
        path_of("s3://bucket/lake", {})
    assert "\n" not in str(error.value)


@given(
    st.sampled_from([None, "http://h:1", "https://h", "h:9", "h"]),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, "path", "virtual", "auto"]),
    st.sampled_from([None, "x-1"]),
    st.booleans(),
)
def test_reading_options_again_changes_nothing(endpoint, secure, style, region, anonymous):
    given_ = {"endpoint_url": endpoint, "use_ssl": secure}
    options = {name: value for name, value in given_.items() if value is not None} | (
        {"anon": True} if anonymous else {}
    )
    options |= {"client_kwargs": {"region_name": region}} if region else {}
    options |= {"config_kwargs": {"s3": {"addressing_style": style}}} if style else {}
    once = access(options).options()
    assert access(once).options() == once
    assert access(once).endpoint == access(options).endpoint
    assert access(once).path_style == access(options).path_style


@pytest.mark.parametrize("sign", ["&", "?", "[", "*", "\\", "<", "//", "\n"])
def test_a_prefix_below_which_duckdb_finds_nothing_is_refused(sign, tmp_path):
    settings = load_settings(url=f"s3://bucket/a{sign}b/lake", catalog=f"sqlite:{tmp_path / 'c.sqlite'}")
    with pytest.raises(ConfigurationError) as error:
        Catalog(Storage.from_url(settings.url), settings).create()
    assert repr(sign) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "c.sqlite").exists()


def test_a_service_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        settings = load_settings(url="s3://bucket/lake", catalog=f"sqlite:{tmp_path / 'c.sqlite'}")
        with pytest.raises(CatalogError) as error:
            Catalog(Storage.from_url(settings.url), settings).create()
        assert endpoint in str(error.value)
        assert "bucket bucket" in str(error.value)
        assert "\n" not in str(error.value)


def test_what_s3_says_is_told_without_its_wrapping():
    from botocore.exceptions import ClientError

    response = {"Error": {"Code": "ExpiredToken", "Message": "The provided token has expired."}}
    error = OSError("[Errno 5] ...")
    error.__cause__ = ClientError(response, "PutObject")
    told = str(s3_trouble(path_of("s3://bucket/lake", {}), error))
    assert "ExpiredToken: The provided token has expired." in told
    assert "bucket bucket" in told
