"""Check whether flows can run: Prefect with its server, or with one for a single command; and Dask's cluster."""

from __future__ import annotations

import shutil

from pydantic import ValidationError

from lake.settings import Settings
from lake.upkeep.checks import check_writable
from lake.upkeep.doctor import Check, first_line

_SETTING = "PREFECT_API_URL"


def prefect(patience_s: float) -> list[Check]:
    """Ask Prefect's API for its version, or check that a temporary server can keep its database.

    Parameters
    ----------
    patience_s
        Longest wait for an answer.
    """
    try:
        from prefect.settings import get_current_settings

        settings = get_current_settings()
    except ValidationError as error:  # as soon as it is imported
        wrong = error.errors()[0]
        message = f"{'.'.join(map(str, wrong['loc']))} of Prefect's {error.title} is not valid: {wrong['msg']}"
        return [Check("prefect", "fail", message, "check the PREFECT_* variables, and Prefect's profile")]
    if settings.api.url:
        return [_server(settings.api.url, patience_s)]
    if not settings.server.ephemeral.enabled:
        return [
            Check(
                "prefect",
                "fail",
                f"{_SETTING} is not set, and Prefect may start no server of its own",
                f"set {_SETTING}, or PREFECT_SERVER_EPHEMERAL_ENABLED=true",
            )
        ]
    kept = check_writable("prefect", settings.home, "PREFECT_HOME")
    if kept.status != "ok":
        return [kept]
    message = f"{_SETTING} is not set: commands do without; those with --prefect start one, kept in {settings.home}"
    return [Check("prefect", "ok", message)]


def _server(url: str, patience_s: float) -> Check:
    import httpx
    import prefect
    from packaging.version import InvalidVersion, Version
    from prefect.client.base import ServerType
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    shown, ours = url, prefect.__version__
    # A running server accepts connections at once, however busy it is.
    limits = httpx.Timeout(patience_s, connect=min(patience_s, 10.0))
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings={"timeout": limits}) as client,
        ):
            if client.server_type == ServerType.CLOUD:
                client.hello()
                return Check("prefect", "ok", f"{shown} answers; client {ours}")
            theirs = client.api_version()
        server = Version(theirs)
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        hint = "set PREFECT_API_AUTH_STRING or PREFECT_API_KEY" if code in (401, 403) else _hint(url)
        return Check("prefect", "fail", f"{shown}: HTTP {code} {error.response.reason_phrase}", hint)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Check("prefect", "fail", f"{shown} does not answer: {first_line(error)}", _hint(url))
    except (ValueError, TypeError, InvalidVersion):  # a page for people, or another service
        return Check("prefect", "fail", f"what answers at {shown} is not Prefect's API", _hint(url))
    found = f"{shown}, server {server}, client {ours}"
    client_version = Version(ours)
    if server.major != client_version.major:
        return Check(
            "prefect", "fail", f"{found}: their first numbers must be the same", f"install Prefect {ours} there"
        )
    if server < client_version:
        return Check("prefect", "warn", f"{found}: the server is older", f"update the server to Prefect {ours}")
    return Check("prefect", "ok", found)


def _hint(url: str) -> str:
    if not url.rstrip("/").endswith("/api"):
        return f"{_SETTING} ends in /api: try {url.rstrip('/')}/api"
    return f"start it with: prefect server start; or unset {_SETTING} (prefect config unset {_SETTING})"


def dask(settings: Settings) -> list[Check]:
    """Check that the cluster of LIGHTLAKE_DASK_CLUSTER can be made: its class and the command that starts jobs exist.

    Raises
    ------
    ConfigurationError
        If the file, or its class, is wrong.
    """
    from flows.runners import dask_cluster

    described = dask_cluster(settings)["cluster_class"]
    found = f"{described.__module__.split('.')[0]}.{described.__name__}, by {settings.dask_cluster}"
    command = getattr(getattr(described, "job_cls", None), "submit_command", None)
    if command and shutil.which(command.split()[0]) is None:
        message = f"{found}: the command {command.split()[0]} is not in PATH"
        return [Check("dask cluster", "fail", message, "run flows where jobs can be submitted")]
    return [Check("dask cluster", "ok", found)]
