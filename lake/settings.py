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
        description="The catalogue database: sqlite:PATH or postgres:CONNINFO. "
        "Default: catalog.sqlite inside the lake.",
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="Options of s3fs for a lake on S3, as JSON: key, secret, endpoint_url and the like. "
        "Default: AWS's environment and configuration files.",
    )
    endpoints: dict[str, Annotated[str, AfterValidator(_parsable)]] = Field(
        default_factory=dict, repr=False, description="Where to reach an archive, instead of its public address."
    )
    tables: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="More tables of events, by name: see 'Adding a table' in the README."
    )
    cache_dir: Path = Field(Path("~/.cache/lightlake"), description="Folder of downloaded files.")
    runner: Literal["threads", "processes", "dask"] = Field(
        "threads", description="What runs the tasks of a flow: threads, processes or a Dask cluster."
    )
    workers: int = Field(4, ge=1, description="Tasks that run at the same time.")
    dask_address: str | None = Field(None, description="Scheduler of a running Dask cluster.")
    dask_cluster: Path | None = Field(
        None, description="File that describes a Dask cluster to start for each run, such as one of SLURM jobs."
    )
    archive_concurrency: int = Field(4, ge=1, description="Tasks at the same archive at the same time.")
    sources_at_once: int | None = Field(
        None, ge=1, description="Archives that a refresh pulls at the same time; default: all of them."
    )
    retries: int = Field(3, ge=0, description="Retries after a temporary failure of an archive.")
    retry_delay_s: float = Field(5.0, ge=0, description="Pause before the first retry; it doubles each time.")
    timeout_s: float = Field(60.0, gt=0, description="Longest silence of an archive before it counts as hung.")
    task_timeout_s: float = Field(3600.0, gt=0, description="Longest time for one task.")
    max_answer_mb: float = Field(
        512.0, gt=0, description="Largest answer, or file read whole, before and after unpacking, MB."
    )
    max_file_gb: float = Field(20.0, gt=0, description="Largest file that is downloaded, GB.")
    lock_timeout_s: float = Field(600.0, gt=0, description="Longest wait for other writers of the catalogue.")
    turn_timeout_s: float = Field(
        43_200.0, gt=0, description="Longest wait for another run of an archive, or for a connection slot there."
    )
    metrics_every_s: float = Field(
        5.0, ge=0, description="Seconds between looks at what each process of a run uses; 0: none."
    )
    quarantine_days: int = Field(
        30, ge=0, description="Days that unknown files are kept in the lake's folder quarantine."
    )
    backups: int = Field(7, ge=1, description="Backups of a SQLite catalogue to keep; compact makes them.")
    follow_releases: bool = Field(
        True, description="Whether scheduled runs pull new releases of archives, for all targets."
    )
    notify: str | None = Field(
        None, description="Prefect block that reports failed runs, such as slack-webhook/observers."
    )
    duckdb_memory: str | None = Field(None, description="DuckDB's memory limit, such as 4GB.")
    query_timeout_s: float = Field(60.0, gt=0, description="Longest time of a query through a confined handle.")
    duckdb_threads: int | None = Field(None, ge=1, description="DuckDB's threads.")


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
