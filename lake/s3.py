"""How DuckDB reaches a lake on S3: a secret made of what the S3 file system uses."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from lake.errors import ConfigurationError
from lake.storage import Storage
from lake.table import quoted


def s3_secret(storage: Storage) -> str:
    """Return the SQL of a DuckDB secret for a lake's bucket and prefix.

    Key, secret, token, region and endpoint are those of the storage options, or of the usual AWS chain
    (environment, profile, instance), as s3fs finds them. Short-lived tokens are read once, when a lake is opened.

    Raises
    ------
    ConfigurationError
        If there are no credentials, and anonymous access was not asked for.
    """
    options = dict(storage.root.storage_options)
    client = {**options.get("client_kwargs", {})}
    endpoint = s3_endpoint(storage)
    values: dict[str, Any] = {"SCOPE": str(storage.root)}
    if not options.get("anon"):
        values |= _credentials(options, storage)
    region = client.get("region_name") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    values["REGION"] = region or "us-east-1"
    if endpoint:
        parts = urlsplit(endpoint if "//" in endpoint else f"https://{endpoint}")
        # Servers of one's own rarely have a name for each bucket.
        values |= {"ENDPOINT": parts.netloc, "URL_STYLE": "path", "USE_SSL": parts.scheme == "https"}
    given = ", ".join(f"{name} {str(value).lower() if isinstance(value, bool) else quoted(value)}"
                      for name, value in values.items())  # fmt: skip
    return f"CREATE OR REPLACE SECRET lightlake (TYPE s3, {given})"


def s3_endpoint(storage: Storage) -> str | None:
    """Return the address of the S3 service of a lake, where it is not that of AWS."""
    options = storage.root.storage_options
    endpoint = options.get("endpoint_url") or options.get("client_kwargs", {}).get("endpoint_url")
    return endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _credentials(options: dict[str, Any], storage: Storage) -> dict[str, str]:
    if options.get("key"):
        found = (options["key"], options.get("secret", ""), options.get("token"))
    else:
        import botocore.session

        session = botocore.session.Session(profile=options.get("profile"))
        credentials = session.get_credentials()
        if credentials is None:
            raise ConfigurationError(
                f"no credentials for {storage.root}",
                hint="set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or LIGHTLAKE_STORAGE_OPTIONS",
            )
        frozen = credentials.get_frozen_credentials()
        found = (frozen.access_key, frozen.secret_key, frozen.token)
    key, secret, token = found
    return {"KEY_ID": key, "SECRET": secret, **({"SESSION_TOKEN": token} if token else {})}
