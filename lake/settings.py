"""Every setting of Lightlake: one class, read from LIGHTLAKE_* variables and a .env file."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from lake.errors import ConfigurationError


def _parsable(url: str) -> str:
    # Else what fails to parse it may tell a part of a password as host or port.
    try:
        _ = urlsplit(url).port if "://" in url else None
    except ValueError:
        raise ValueError("it is no URL; in a user name or password write / as %2F, @ as %40, # as %23") from None
    return url


class Settings(BaseSettings):
    """Settings with their defaults; each is the variable LIGHTLAKE_<NAME>.

    Nested ones take a double underscore: ``LIGHTLAKE_ENDPOINTS__ICECUBE=/data/icecube``.
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
        default_factory=dict,
        description="Tables of events to add as archives, by name: see 'Adding a table' in the README.",
    )
    cache_dir: Path = Field(
        Path("~/.cache/lightlake"), description="Downloads that archives publish as whole files, kept."
    )
    runner: Literal["threads", "processes", "dask"] = Field(
        "threads", description="What runs the tasks of a flow: threads, processes or a Dask cluster."
    )
    workers: int = Field(4, ge=1, description="Tasks that run at the same time.")
    dask_address: str | None = Field(None, description="Scheduler of a running Dask cluster.")
    dask_cluster: Path | None = Field(
        None, description="File that describes the Dask cluster to make for each run, such as one of SLURM jobs."
    )
    archive_concurrency: int = Field(4, ge=1, description="Tasks at the same archive at the same time.")
    sources_at_once: int | None = Field(
        None, ge=1, description="Archives that a refresh pulls at the same time; default: all of them."
    )
    retries: int = Field(3, ge=0, description="Times that a passing failure of an archive is tried again.")
    retry_delay_s: float = Field(5.0, ge=0, description="First pause before trying again; doubles each time.")
    timeout_s: float = Field(60.0, gt=0, description="Longest silence of an archive before it counts as hung.")
    task_timeout_s: float = Field(3600.0, gt=0, description="Longest time for one task.")
    max_answer_mb: float = Field(
        512.0, gt=0, description="Largest answer, or file read as a whole, as it comes and once it is unpacked, MB."
    )
    max_file_gb: float = Field(20.0, gt=0, description="Largest file that is downloaded, GB.")
    lock_timeout_s: float = Field(600.0, gt=0, description="Longest wait for other writers of the catalogue.")
    turn_timeout_s: float = Field(
        43_200.0, gt=0, description="Longest wait of a run for another one of its archive, or for its places there."
    )
    quarantine_days: int = Field(
        30, ge=0, description="Days that files which nothing knows are kept in the lake's folder quarantine."
    )
    backups: int = Field(7, ge=1, description="Backups of a SQLite catalogue that are kept; compact makes them.")
    follow_releases: bool = Field(
        True, description="Whether runs by schedule pull new releases of archives, for all targets."
    )
    notify: str | None = Field(
        None, description="Prefect's block that tells of runs that fail, such as slack-webhook/observers."
    )
    duckdb_memory: str | None = Field(None, description="DuckDB's memory limit, such as 4GB.")
    query_timeout_s: float = Field(60.0, gt=0, description="Longest time of a query through a confined handle.")
    duckdb_threads: int | None = Field(None, ge=1, description="DuckDB's threads.")


def load_settings(**overrides: Any) -> Settings:
    """Read the settings, with some given by hand.

    Raises
    ------
    ConfigurationError
        If a variable holds a value that its setting does not take.
    """
    check_env_file()
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise wrong_values(error)[0] from None  # its text has the values
    except SettingsError as error:
        raise not_json(error) from None


def check_env_file() -> None:
    """See that a .env file, if there is one, can be read, by Prefect, too, which reads it when it is imported.

    Raises
    ------
    ConfigurationError
        If it cannot.
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
    """Return an error for each variable that has a value which its setting does not take; secrets are not told."""
    wrong = []
    for one in error.errors():
        name = "LIGHTLAKE_" + "__".join(str(part) for part in one["loc"]).upper()
        value = f"={one['input']!r}" if one["loc"][0] in _TOLD else ""
        told = f"{name}{value} is not valid: {one['msg']}"
        wrong.append(ConfigurationError(told, hint="see 'Settings' in the README"))
    return wrong


def not_json(error: SettingsError) -> ConfigurationError:
    """Return the error of a variable that should be JSON, without its value, which may be a secret."""
    field = re.search(r'field "(\w+)"', str(error))
    name = f"LIGHTLAKE_{field[1].upper()}" if field else "a LIGHTLAKE_ variable"
    return ConfigurationError(f"{name} is not valid JSON: {error.__cause__}", hint="see 'Settings' in the README")


# Settings whose wrong values may be told: the others hold what may be secret, in any form as long as they are wrong.
_TOLD = frozenset(name for name, field in Settings.model_fields.items() if field.repr)


@cache
def settings() -> Settings:
    """Return the settings of this process, read once."""
    return load_settings()
