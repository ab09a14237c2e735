"""Whether Lightlake is installed as it has to be: Python, packages, extensions, settings, cores and memory.

A check is a plain function that returns what it found. What is broken must not keep others from being looked at, so
nothing here needs more than the standard library, packaging and the settings until it is called.
"""

from __future__ import annotations

import difflib
import os
import platform
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal, get_origin

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from pydantic import ValidationError
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource, SettingsError

from lake.errors import ConfigurationError, LightlakeError
from lake.redact import safe_line
from lake.settings import Settings, not_json, wrong_values
from lake.text import counted

# Packages whose versions are always shown: most faults come with them.
_TOLD = ("duckdb", "pyarrow", "prefect", "fastapi", "sqlalchemy", "astropy", "pandas", "numpy")

# Extras that a lake may need; the others are for those who work on Lightlake.
_EXTRAS = ("s3", "dask", "cluster")

_PREFIX, _OF_TESTS = "LIGHTLAKE_", "LIGHTLAKE_TEST_"

# A worker with less memory may fail with large granules; a thread waits for archives most of its time.
_WORKER_BYTES, _THREADS_OF_A_CORE = 512 << 20, 8

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Parameters
    ----------
    name
        What was checked.
    status
        ok; warn: it works, but not for long, not for everything or not as intended; fail: something does not work.
    found
        What was found.
    hint
        What to do next, if it is not ok.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    hint: str | None = None

    def __post_init__(self) -> None:
        """Remove secrets."""
        object.__setattr__(self, "found", safe_line(self.found))
        if self.hint is not None:
            object.__setattr__(self, "hint", safe_line(self.hint))


def guarded(name: str, check: Callable[[], Iterable[Check]], *raises: type[Exception]) -> list[Check]:
    """Run a check; if the check itself fails, report that.

    Parameters
    ----------
    name
        Name of the check, for that case.
    raises
        Exceptions to report; any other is a mistake of the program.
    """
    try:
        return list(check())
    except LightlakeError as error:
        return [Check(name, "fail", error.message, error.hint)]
    except raises as error:
        return [Check(name, "fail", f"this check failed: {first_line(error)}", "fix the other problems, and try again")]


def first_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def python(distribution: str = "lightlake") -> list[Check]:
    """Compare the version of Python with the one that the program requires."""
    asked = metadata(distribution)["Requires-Python"]
    found = f"{platform.python_version()}, {sys.executable}"
    if SpecifierSet(asked).contains(platform.python_version(), prereleases=True):
        return [Check("python", "ok", found)]
    return [Check("python", "fail", f"{found}; {asked} is needed", f"make an environment with Python {asked}")]


def packages(extras: Collection[str] = (), distribution: str = "lightlake") -> list[Check]:
    """Compare installed packages with the version ranges that the program requires.

    Parameters
    ----------
    extras
        Extras that are needed here. Packages of other extras may be missing, and a wrong version is a warning.
    distribution
        The distribution whose ranges are read.
    """
    wrong, fitting = [], dict[str, str]()
    for requirement in map(Requirement, requires(distribution) or ()):
        in_any, needed = (
            requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *some))
            for some in (_EXTRAS, extras)
        )
        if not in_any:
            continue
        asked = f"{requirement.name}{'[' + ','.join(requirement.extras) + ']' if requirement.extras else ''}"
        asked += str(requirement.specifier)
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            if needed:
                wrong.append(_wrong_package(requirement, "not installed", asked, needed=True))
            continue
        if requirement.specifier.contains(found, prereleases=True):
            fitting[requirement.name] = found
        else:
            message = f"{found} is installed, {requirement.specifier} is needed"
            wrong.append(_wrong_package(requirement, message, asked, needed=needed))
    versions = ", ".join(f"{name} {fitting[name]}" for name in _TOLD if name in fitting)
    return wrong or [Check("packages", "ok", f"{len(fitting)} have suitable versions; {versions}")]


def _wrong_package(requirement: Requirement, found: str, asked: str, *, needed: bool) -> Check:
    return Check(f"package {requirement.name}", "fail" if needed else "warn", found, f"run: pip install '{asked}'")


def extensions(names: Iterable[str]) -> list[Check]:
    """Load DuckDB's extensions from their wheels and check their signatures, as a lake does."""
    import duckdb

    from lake.model.table import quoted
    from lake.store.connection import extension_file

    loaded, wrong = [], []
    with duckdb.connect(
        config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    ) as connection:
        for name in names:
            try:
                connection.execute(f"LOAD {quoted(str(extension_file(name)))}")
                loaded.append(name)
            except ConfigurationError as error:
                wrong.append(Check(f"extension {name}", "fail", error.message, error.hint))
            except duckdb.Error as error:
                wheel = f"duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}"
                hint = f"run: pip install --force-reinstall --no-deps {wheel}"
                wrong.append(Check(f"extension {name}", "fail", f"it does not load: {first_line(error)}", hint))
    return wrong or [Check("extensions", "ok", f"{', '.join(loaded)} load from their wheels")]


def settings() -> list[Check]:
    """Check that every LIGHTLAKE_* variable, in the environment or a .env file, is a setting with a valid value."""
    given = {**DotEnvSettingsSource(Settings).env_vars, **EnvSettingsSource(Settings).env_vars}
    names = sorted(name.upper() for name in given if not name.upper().startswith(_OF_TESTS))
    ours = [name for name in names if name.startswith(_PREFIX)]
    wrong = [_unknown(name) for name in ours if not _is_setting(name)]
    for name in set(names) - set(ours):
        if near := difflib.get_close_matches(
            name, [f"{_PREFIX}{field.upper()}" for field in Settings.model_fields], 1, 0.85
        ):
            message = f"{name} is not a setting, and does nothing"
            wrong.append(Check("settings", "warn", message, f"rename it if you mean {near[0]}"))
    try:
        Settings()
    except ValidationError as error:
        wrong += [Check("settings", "fail", one.message, one.hint) for one in wrong_values(error)]
    except SettingsError as error:
        wrong.append(Check("settings", "fail", not_json(error).message, not_json(error).hint))
    return wrong or [Check("settings", "ok", f"set: {', '.join(ours)}" if ours else "none is set: defaults are used")]


def _is_setting(name: str) -> bool:
    field, _, nested = name.removeprefix(_PREFIX).lower().partition("__")
    return field in Settings.model_fields and (not nested or field in _nested())


def _nested() -> list[str]:
    return [name for name, field in Settings.model_fields.items() if get_origin(field.annotation) is dict]


def _unknown(name: str) -> Check:
    field, underscores, nested = name.removeprefix(_PREFIX).lower().partition("__")
    single = [one for one in _nested() if field.startswith(f"{one}_")]
    if field in Settings.model_fields:
        meant = field
    elif single:  # LIGHTLAKE_ENDPOINTS_GAIA
        meant = f"{single[0]}__{field.removeprefix(f'{single[0]}_')}{underscores}{nested}"
    else:
        near = difflib.get_close_matches(field, Settings.model_fields, 1)
        meant = f"{near[0]}{underscores}{nested}" if near else ""
    hint = f"rename it if you mean {_PREFIX}{meant.upper()}" if meant else "see: lightlake help reference/settings"
    return Check("settings", "fail", f"{name} is not a setting, and does nothing", hint)


def workers(settings: Settings) -> list[Check]:
    """Compare LIGHTLAKE_WORKERS with the cores and memory available to this process."""
    cores, memory = _cores(), _memory()
    room = "" if memory is None else f", {memory / 2**30:.1f} GiB of memory"
    found = f"{counted(settings.workers, 'worker')} ({settings.runner}) on {cores} core{'s'[: cores > 1]}{room}"
    if settings.runner == "dask" and (elsewhere := settings.dask_address or settings.dask_cluster):
        return [Check("workers", "ok", f"{settings.workers} of the Dask cluster of {elsewhere}")]
    most = cores * (_THREADS_OF_A_CORE if settings.runner == "threads" else 1)
    if memory is not None:
        most = min(most, max(1, memory // _WORKER_BYTES))
    if settings.workers <= most:
        return [Check("workers", "ok", found)]
    return [Check("workers", "warn", found, f"set LIGHTLAKE_WORKERS to {most} or less, which is faster")]


def _cores() -> int:
    # Batch systems give a job some of the machine's cores.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int | None:
    """Return the memory available to this process, bytes: the machine's, or that of its control group."""
    limits = []
    if "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        groups = []
    for group in groups:
        _, kinds, path = group.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        base, name = (_CGROUP / "memory", "memory.limit_in_bytes") if kinds else (_CGROUP, "memory.max")
        folder = base / path.lstrip("/")
        for place in (folder, *folder.parents):
            text = _text(place / name)
            if text.isdigit():
                limits.append(int(text))
            if place == base:
                break
    return min(limits, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
