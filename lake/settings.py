"""Read the settings of Lightlake from LIGHTLAKE_* variables and a .env file."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from lake.errors import ConfigurationError

# The page that helps with errors from here.
HELP_TOPIC = "reference/settings"


def _parsable(url: str) -> str:
    # A later parser's message may show a part of a password as host or port.
    try:
        _ = urlsplit(url).port if "://" in url else None
    except ValueError:
        raise ValueError("not a URL; in a user name or password write / as %2F, @ as %40, # as %23") from None
    return url


def _see(page: str) -> dict[str, Any]:
    """Name the page of the documentation that says more of a setting."""
    return {"page": page}


class Settings(BaseSettings):
    """Settings with their defaults; each is the variable LIGHTLAKE_<NAME>.

    Entries of a mapping take a double underscore: ``LIGHTLAKE_ENDPOINTS__ICECUBE=/data/icecube``.
    """

    model_config = SettingsConfigDict(
        env_prefix="LIGHTLAKE_", env_nested_delimiter="__", env_file=".env", extra="ignore", frozen=True
    )

    url: str = Field("lightlake", description="The lake: a local folder, or s3://bucket/prefix.")
    catalog: str | None = Field(
        None,
        repr=False,
        description="The catalogue database: sqlite:PATH; or, for several machines, "
        "postgres:host=... dbname=... user=... [schema=NAME]. Default: catalog.sqlite inside the lake.",
        json_schema_extra=_see("how-to/postgresql.md"),
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="Options of s3fs for a lake on S3, as JSON: key, secret, endpoint_url and the like. "
        "Default: AWS's environment and configuration files.",
        json_schema_extra=_see("how-to/s3.md"),
    )
    endpoints: dict[str, Annotated[str, AfterValidator(_parsable)]] = Field(
        default_factory=dict,
        repr=False,
        description="Where to reach an archive or a service, instead of its public address: "
        "LIGHTLAKE_ENDPOINTS__NAME is a mirror, a folder, a simulated archive.",
    )
    tables: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="More tables of events: LIGHTLAKE_TABLES__NAME describes one, as JSON, and it becomes an archive.",
        json_schema_extra=_see("reference/settings.md#tables"),
    )
    cache_dir: Path = Field(
        Path("~/.cache/lightlake"),
        description="Folder of files that archives publish whole, and of the locks that runs on one machine share.",
    )
    runner: Literal["threads", "processes", "dask"] = Field(
        "threads",
        description="What runs the tasks of a flow: threads, processes or a Dask cluster, with the extra dask or "
        "cluster.",
        json_schema_extra=_see("how-to/cluster.md"),
    )
    workers: int = Field(4, ge=1, description="Tasks that run at the same time.")
    dask_address: str | None = Field(
        None, description="Scheduler of a running Dask cluster. Default: each run starts one of local processes."
    )
    dask_cluster: Path | None = Field(
        None,
        description="File that describes a Dask cluster to start for each run, such as one of SLURM jobs.",
        json_schema_extra=_see("how-to/cluster.md"),
    )
    archive_concurrency: int = Field(
        4,
        ge=1,
        description="Tasks that use one archive or service at the same time, over all runs on this machine that share "
        "the cache folder.",
    )
    sources_at_once: int | None = Field(
        None, ge=1, description="Archives that a refresh pulls at the same time. Default: all of them."
    )
    retries: int = Field(3, ge=0, description="Retries after a temporary failure of an archive.")
    retry_delay_s: float = Field(5.0, ge=0, description="Seconds before the first retry; the pause doubles each time.")
    timeout_s: float = Field(60.0, gt=0, description="Seconds of silence after which an archive counts as hung.")
    task_timeout_s: float = Field(3600.0, gt=0, description="Longest time for one download or task, in seconds.")
    max_answer_mb: float = Field(
        512.0,
        gt=0,
        description="Largest answer in MB, before and after unpacking; also of a file that is read whole, yours too.",
    )
    max_file_gb: float = Field(20.0, gt=0, description="Largest file in GB that is downloaded, or read as Parquet.")
    lock_timeout_s: float = Field(
        600.0, gt=0, description="Longest wait for other writers of the catalogue, in seconds."
    )
    turn_timeout_s: float = Field(
        43_200.0,
        gt=0,
        description="Longest wait for another run of an archive, or for a free connection slot there, in seconds.",
    )
    metrics_every_s: float = Field(
        5.0,
        ge=0,
        description="Seconds between looks at what each process of a run uses; 0: none.",
        json_schema_extra=_see("how-to/runs.md"),
    )
    quarantine_days: int = Field(
        30,
        ge=0,
        description="Days that unknown files are kept in the lake's folder quarantine.",
        json_schema_extra=_see("how-to/keep-a-lake.md"),
    )
    backups: int = Field(
        7,
        ge=1,
        description="Backups of a SQLite catalogue to keep; compact makes them.",
        json_schema_extra=_see("how-to/backups.md"),
    )
    follow_releases: bool = Field(
        True,
        description="Whether scheduled runs pull new releases of archives, for all targets.",
        json_schema_extra=_see("how-to/prefect.md"),
    )
    notify: str | None = Field(
        None,
        description="Prefect block that reports failed runs, such as slack-webhook/observers.",
        json_schema_extra=_see("how-to/prefect.md"),
    )
    duckdb_memory: str | None = Field(
        None, description="DuckDB's memory limit, such as 4GB. Default: DuckDB's own; 1GB of a confined handle."
    )
    query_timeout_s: float = Field(
        60.0,
        gt=0,
        description="Longest time of a query through a confined handle, in seconds.",
        json_schema_extra=_see("how-to/queries.md"),
    )
    duckdb_threads: int | None = Field(None, ge=1, description="DuckDB's threads. Default: DuckDB's own.")


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; arguments that are not None override them.

    Raises
    ------
    ConfigurationError
        If a variable has a value that its setting does not take.

    Examples
    --------
    >>> load_settings(url="my-lake", workers=2).workers
    2
    """
    check_env_file()
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise wrong_values(error)[0] from None  # its text shows the values
    except SettingsError as error:
        raise not_json(error) from None


def check_env_file() -> None:
    """Check that a .env file is readable, if one exists; Prefect reads it, too, when it is imported.

    Raises
    ------
    ConfigurationError
        If it is not readable.
    """
    name = Settings.model_config.get("env_file")
    if name is None:
        return
    path = Path(str(name)).absolute()
    try:
        path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path} is not UTF-8: see line {line}", hint="save it as UTF-8") from None
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror or error}", hint="ask its owner, or run this in another folder"
        ) from error


def wrong_values(error: ValidationError) -> list[ConfigurationError]:
    """Return an error for each variable with a wrong value; values that may be secret are not shown."""
    wrong = []
    for one in error.errors():
        name = "LIGHTLAKE_" + "__".join(str(part) for part in one["loc"]).upper()
        value = f"={one['input']!r}" if one["loc"][0] in _SHOWN else ""
        message = f"{name}{value} is not valid: {one['msg']}"
        wrong.append(ConfigurationError(message, hint="correct it, or unset it"))
    return wrong


def not_json(error: SettingsError) -> ConfigurationError:
    """Return the error of a variable with invalid JSON, without its value, which may be secret."""
    field = re.search(r'field "(\w+)"', str(error))
    name = f"LIGHTLAKE_{field[1].upper()}" if field else "a LIGHTLAKE_ variable"
    return ConfigurationError(f"{name} is not valid JSON: {error.__cause__}", hint="quote it for the shell: '{...}'")


# Settings whose wrong values messages may show; the others may hold secrets, even in a wrong form.
_SHOWN = frozenset(name for name, field in Settings.model_fields.items() if field.repr)


@cache
def settings() -> Settings:
    """Read the settings of this process once, and return them."""
    return load_settings()
