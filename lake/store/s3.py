"""How a lake on S3 is reached: options and AWS's configuration, read once for the file system and for DuckDB."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lake.errors import CatalogError, ConfigurationError, LightlakeError
from lake.model.table import quoted

if TYPE_CHECKING:
    from upath import UPath

    from lake.store.storage import Storage

# The page that helps with errors from here.
HELP_TOPIC = "how-to/s3"

# Options of s3fs that say how to reach S3; both it and DuckDB receive these.
_ACCESS = (
    "key",
    "username",
    "secret",
    "password",
    "token",
    "anon",
    "endpoint_url",
    "use_ssl",
    "profile",
    "client_kwargs",
    "config_kwargs",
)
_CLIENT = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "endpoint_url", "region_name", "use_ssl")

# And those that only tune it. Listings are not remembered unless asked for: other processes add files, and one that
# is not seen would count as missing.
_TUNING = (
    "use_listings_cache",
    "listings_expiry_time",
    "max_paths",
    "default_block_size",
    "default_fill_cache",
    "default_cache_type",
    "max_concurrency",
    "fixed_upload_size",
    "local_expiry_check",
    "s3_additional_kwargs",
    "skip_instance_cache",
)


class S3Unreachable(ConnectionError):
    """S3 cannot be reached, or broke off its answer, at each of a few tries; it may answer later."""


_HINT = "check LIGHTLAKE_STORAGE_OPTIONS, which takes s3fs's options, and AWS's environment and files"
AWS = "https://s3.amazonaws.com"


@dataclass(frozen=True)
class Access:
    """How to reach S3: what s3fs and DuckDB both receive.

    Parameters
    ----------
    endpoint
        Address of the service; None: that of AWS.
    region
        Its region.
    path_style
        Buckets are the first part of the path, not of the host's name.
    anonymous
        Requests are not signed.
    given
        Key, secret and token that the options have; without them botocore finds some.
    profile
        Of ~/.aws/config, if the options name one.
    others
        What only s3fs receives.
    """

    endpoint: str | None
    region: str
    path_style: bool
    anonymous: bool
    given: tuple[str, str, str | None] | None = None
    profile: str | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """Return the options of s3fs."""
        found: dict[str, Any] = {"use_listings_cache": False, **self.others}
        config = dict(found.get("config_kwargs") or {})
        if self.path_style:
            config["s3"] = {**config.get("s3", {}), "addressing_style": "path"}
        key, secret, token = self.given or (None, None, None)
        found |= {
            "anon": self.anonymous or None,
            "endpoint_url": self.endpoint,
            "profile": self.profile,
            "key": key,
            "secret": secret,
            "token": token,
            "client_kwargs": {"region_name": self.region},
            "config_kwargs": config,
        }
        return {name: value for name, value in found.items() if value is not None and value != {}}

    def credentials(self) -> tuple[str, str, str | None] | None:
        """Return key, secret and token: those of the options, or of AWS's usual chain; None without any."""
        if self.given:
            return self.given
        found = _session(self.profile).get_credentials()
        if found is None:
            return None
        frozen = found.get_frozen_credentials()
        return frozen.access_key, frozen.secret_key, frozen.token


def access(options: Mapping[str, Any]) -> Access:
    """Read options of s3fs, and for what they do not say AWS's environment and configuration files.

    Raises
    ------
    ConfigurationError
        If an option is misspelt, contradicts another or is not supported, or there is no such profile.
    """
    _check_names(options, (*_ACCESS, *_TUNING), "")
    _check_kinds(options, "")
    client = dict(options.get("client_kwargs") or {})
    _check_names(client, _CLIENT, "client_kwargs: ")
    _check_kinds(client, "client_kwargs: ")
    config = dict(options.get("config_kwargs") or {})
    profile = options.get("profile")
    key = _one_of(options, client, "key", "username", "aws_access_key_id")
    secret = _one_of(options, client, "secret", "password", "aws_secret_access_key")
    token = _one_of(options, client, "token", "aws_session_token")
    if bool(key) != bool(secret):
        raise ConfigurationError(
            f"the S3 options have a {'key' if key else 'secret'} but no {'secret' if key else 'key'}", hint=_HINT
        )
    configured = _configured(profile, _environment())
    endpoint = _one_of(options, client, "endpoint_url") or configured.endpoint
    secure = options.get("use_ssl", client.get("use_ssl")) is not False
    if endpoint and "://" not in endpoint:
        endpoint = f"http{'s' if secure else ''}://{endpoint}"
    if endpoint is None and not secure:
        endpoint = AWS.replace("https", "http")
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.username:
            raise ConfigurationError(
                f"the S3 endpoint {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path} is none: "
                "http://HOST:PORT is",
                hint=_HINT,
            )
        endpoint = f"{parts.scheme}://{parts.netloc}"
    style = (config.get("s3") or {}).get("addressing_style") or configured.style
    return Access(
        endpoint=endpoint,
        region=client.get("region_name") or configured.region or "us-east-1",
        # Servers of one's own rarely have a name for each bucket.
        path_style=style == "path" or (style != "virtual" and endpoint is not None),
        anonymous=bool(options.get("anon")),
        given=(str(key), str(secret), token) if key else None,
        profile=profile,
        others={name: options[name] for name in (*_TUNING, "config_kwargs") if name in options},
    )


def _check_names(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ConfigurationError(
                f"the S3 option {where}{name} is not known" + (f": did you mean {near[0]}?" if near else ""),
                hint=f"known are {', '.join(known)}",
            )


def _check_kinds(given: Mapping[str, Any], where: str) -> None:
    for name, value in given.items():
        kind: type = str
        called = "text"
        if name.endswith("_kwargs"):
            kind, called = dict, "an object"
        elif name in ("anon", "use_ssl"):
            kind, called = bool, "true or false"
        elif name in _TUNING:
            continue
        if value is not None and not isinstance(value, kind):  # which may be a secret
            raise ConfigurationError(f"the S3 option {where}{name} is not {called}", hint=_HINT)


def _one_of(options: Mapping[str, Any], client: Mapping[str, Any], *names: str) -> str | None:
    """Return the value that goes by one of several names; two of them may not differ."""
    found = {name: of[name] for of in (client, options) for name in names if of.get(name)}
    if len(set(found.values())) > 1:
        raise ConfigurationError(f"the S3 options {' and '.join(found)} say different things", hint="give one of them")
    return next(iter(found.values()), None)


@dataclass(frozen=True)
class _Configured:
    endpoint: str | None
    region: str | None
    style: str | None


def _environment() -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))


@lru_cache(maxsize=16)
def _configured(profile: str | None, environment: tuple[tuple[str, str], ...]) -> _Configured:
    """Return what AWS's environment and files say for a profile; the environment is the key of the cache."""
    from botocore.configprovider import ConfiguredEndpointProvider
    from botocore.exceptions import BotoCoreError

    session = _session(profile)
    try:
        scoped, whole = session.get_scoped_config(), session.full_config
        ignored = session.get_config_variable("ignore_configured_endpoint_urls")
        endpoint = None if ignored else ConfiguredEndpointProvider(whole, scoped, client_name="s3").provide()
        region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    except BotoCoreError as error:
        raise ConfigurationError(f"AWS's configuration cannot be used: {_line(error)}", hint=_HINT) from error
    own = scoped.get("s3")
    return _Configured(endpoint, region, own.get("addressing_style") if isinstance(own, dict) else None)


def _session(profile: str | None) -> Any:
    try:
        import botocore.session
    except ImportError as error:
        raise ConfigurationError(f"a lake on S3 needs s3fs: {error}", hint="run: pip install s3fs") from error
    return botocore.session.Session(profile=profile)


def s3_secret(storage: Storage) -> str:
    """Return the SQL of a DuckDB secret for a lake's bucket and prefix.

    Key, secret, token, region and endpoint are those of the file system. Short-lived tokens are read once, when a lake
    is opened.

    Raises
    ------
    ConfigurationError
        If there are no credentials, and anonymous access was not asked for.
    """
    from botocore.exceptions import BotoCoreError

    found = access(storage.root.storage_options)
    values: dict[str, Any] = {"SCOPE": str(storage.root)}
    if not found.anonymous:
        try:
            credentials = found.credentials()
        except BotoCoreError as error:
            raise ConfigurationError(
                f"no credentials for {storage.root}: {_line(error)}", hint="log in anew, or set AWS_PROFILE"
            ) from error
        if credentials is None:
            raise ConfigurationError(
                f"no credentials for {storage.root}",
                hint="set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or LIGHTLAKE_STORAGE_OPTIONS",
            )
        key, secret, token = credentials
        values |= {"KEY_ID": key, "SECRET": secret, **({"SESSION_TOKEN": token} if token else {})}
    values["REGION"] = found.region
    if found.endpoint:
        parts = urlsplit(found.endpoint)
        values |= {"ENDPOINT": parts.netloc, "USE_SSL": parts.scheme == "https"}
    values["URL_STYLE"] = "path" if found.path_style else "vhost"
    given = ", ".join(
        f"{name} {str(value).lower() if isinstance(value, bool) else quoted(value)}" for name, value in values.items()
    )
    return f"CREATE OR REPLACE SECRET lightlake (TYPE s3, {given})"


def s3_endpoint(storage: Storage) -> str | None:
    """Return the address of the S3 service of a lake, where it is not that of AWS."""
    return access(storage.root.storage_options).endpoint


@contextmanager
def reached(root: UPath) -> Iterator[None]:
    """Say of S3 that is not there, or that refuses, in one line which service and bucket were asked, and for what.

    Raises
    ------
    CatalogError
        For whatever botocore, s3fs or Arrow raise of a lake on S3.
    """
    try:
        yield
    except LightlakeError:
        raise
    except Exception as error:
        if not is_s3_trouble(error):
            raise
        raise s3_trouble(root, error) from error


def is_s3_trouble(error: BaseException) -> bool:
    """Say whether an exception may come from a file system on S3."""
    from aiohttp import ClientError as BrokenOff  # in the middle of a file
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, OSError):
        of_this_disk = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        return not of_this_disk and not str(error.filename or "").startswith("/")
    return isinstance(error, BotoCoreError | ClientError | BrokenOff)


def s3_trouble(root: UPath, error: BaseException) -> CatalogError:
    """Return the error of a lake on S3 that cannot be reached: which service and bucket, and what it said."""
    bucket = str(root).removeprefix("s3://").partition("/")[0]
    endpoint = access(root.storage_options).endpoint or AWS
    return CatalogError(
        f"S3 at {endpoint}, bucket {bucket}: {said(error)}",
        hint="check the bucket, AWS_ENDPOINT_URL, the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID, ...) and "
        "LIGHTLAKE_STORAGE_OPTIONS",
    )


def said(error: BaseException) -> str:
    """Return what S3 said, with its code."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, Mapping) and "Error" in response:
            details = response["Error"]
            return f"{details.get('Code', '')}: {details.get('Message', '')}".strip(": ")
    return _line(error)


def _line(error: BaseException) -> str:
    return " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())[:300]
