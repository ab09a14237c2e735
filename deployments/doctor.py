"""Run the checks of `lightlake doctor`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement

from lake.errors import ConfigurationError
from lake.settings import Settings, load_settings
from lake.upkeep.doctor import Check, extensions, guarded, packages, python, settings, workers

if TYPE_CHECKING:
    from lake.store.storage import Storage

_EXTENSIONS = ("ducklake", "sqlite_scanner", "postgres_scanner")


def examine(url: str | None, *, offline: bool, timeout_s: float) -> list[Check]:
    """Run all checks, also after a failed one.

    Parameters
    ----------
    url
        The lake; None: LIGHTLAKE_URL.
    offline
        Do not check archives.
    timeout_s
        Longest wait for a connection, and for an answer.
    """
    given = guarded("settings", settings, OSError, ValueError)
    try:
        loaded = load_settings(url=url)
    except (ConfigurationError, OSError, ValueError):
        loaded = None
    on_s3 = loaded is not None and loaded.url.startswith("s3://")
    extras = [*(["s3"] if on_s3 else []), *(["dask"] if loaded is not None and loaded.runner == "dask" else [])]
    names = (*_EXTENSIONS, "httpfs") if on_s3 else _EXTENSIONS
    checks = guarded("python", python, PackageNotFoundError)
    checks += guarded("packages", lambda: packages(extras), PackageNotFoundError, InvalidRequirement)
    checks += guarded("extensions", lambda: extensions(names), ImportError, OSError)
    checks += given
    if loaded is None:
        skipped = "the lake, its disks, the archives and the clock were not checked"
        checks.append(Check("lake", "warn", skipped, "correct the settings and run this again"))
    else:
        checks += guarded("lake", lambda: _lake(loaded, timeout_s), ImportError, OSError)
    checks += guarded("prefect", lambda: _prefect(timeout_s), ImportError, OSError, ValueError)
    if loaded is not None and not offline:
        checks += guarded("archives", lambda: _archives(loaded, timeout_s), ImportError, OSError)
    checks += guarded("heasoft", _heasoft, ImportError, OSError)
    if loaded is not None and loaded.runner == "dask" and loaded.dask_cluster:
        checks += guarded("dask cluster", lambda: _dask_cluster(loaded), ImportError, OSError)
    if loaded is not None:
        checks += guarded("workers", lambda: workers(loaded), OSError, ValueError)
    return checks


def _lake(settings: Settings, timeout_s: float) -> list[Check]:
    import duckdb

    from lake.store.storage import Storage
    from lake.upkeep import checks as lake_checks

    storage = Storage.from_url(settings.url)
    checks = guarded("catalogue", lambda: lake_checks.catalogue(storage, settings, timeout_s), duckdb.Error, OSError)
    checks += guarded("lake", lambda: _write_access(storage, settings, timeout_s), ImportError, OSError)
    checks += guarded("cache", lambda: [lake_checks.cache(settings)], OSError)
    checks += guarded("room", lambda: lake_checks.check_free_space(storage, settings), OSError)
    if not storage.is_local:
        checks += guarded("clock of S3", lambda: lake_checks.clock_of_s3(storage, timeout_s), OSError)
    return checks


def _write_access(storage: Storage, settings: Settings, timeout_s: float) -> list[Check]:
    from lake.upkeep.checks import storage_rights

    return storage_rights(storage, settings.storage_options, timeout_s)


def _prefect(timeout_s: float) -> list[Check]:
    from flows.cli import quiet

    quiet()
    from flows.doctor import prefect

    checks = prefect(timeout_s)
    return [*checks, *former_deployments_check()] if all(one.status == "ok" for one in checks) else checks


def former_deployments_check() -> list[Check]:
    """Find deployments of former names at the Prefect server, if there is one."""
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    from deployments.deployed import deployed
    from deployments.former import former_deployments

    if not get_current_settings().api.url:
        return []
    with get_client(sync_client=True) as client:
        left = former_deployments(client, [one.full_name for one in deployed()])
    if not left:
        return []
    advice = "; ".join(f"prefect deployment delete {name}" for name in left)
    return [Check("deployments", "warn", f"of former names: {', '.join(left)}", f"their schedules run twice: {advice}")]


def _dask_cluster(settings: Settings) -> list[Check]:
    from flows.doctor import dask

    return dask(settings)


def _archives(settings: Settings, timeout_s: float) -> list[Check]:
    from lake.upkeep.checks import clock
    from tasks.doctor import endpoints, look, skews, unknown_endpoints

    known = endpoints(settings)
    answers = look(known, timeout_s)
    checks = [*unknown_endpoints(settings, known), *(answer.check for answer in answers)]
    return checks + clock("clock", skews(answers))


def _heasoft() -> list[Check]:
    from tasks.doctor import heasoft

    return heasoft()
