"""What errors of the system, of databases and of S3 mean: one line, with what to do next."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from lake.errors import CatalogError, ConfigurationError, LightlakeError
from lake.store.walk import shown

# A disk with less than this is full: SQLite's log alone needs as much, and a commit some files.
_LEAST_BYTES = 1 << 20

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXT = re.compile(r"no space left on device|database or disk is full|disk quota exceeded|file too large", re.I)

# What databases say of a disk that may be full, or broken.
_DISK_TEXT = re.compile(r"disk I/O error|could not write|failed to (write|flush|sync)", re.I)

_PATH = re.compile(r"""["'](/[^"']+)["']""")


class NoRoom(ConfigurationError):
    """A disk is full: nothing can be written there until there is room."""


def has_room(folder: str | os.PathLike[str]) -> bool:
    """Say whether the disk that a folder is on has room for anything at all."""
    return (free := _free(Path(folder))) is None or free >= _LEAST_BYTES


def _free(folder: Path) -> int | None:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def no_room(error: BaseException | None, *places: str | os.PathLike[str]) -> NoRoom | None:
    """Return what to raise if an error, or one that it came from, is that of a full disk; None if it is another.

    Parameters
    ----------
    error
        The error; None: the places are known to be full.
    places
        Folders that were written to, as far as that is known.
    """
    named, is_full, is_disk = list[str](), error is None, False
    for one in _with_causes(error):
        text = str(one)
        is_full |= (isinstance(one, OSError) and one.errno in _FULL) or bool(_FULL_TEXT.search(text))
        is_disk |= bool(_DISK_TEXT.search(text))
        if isinstance(one, OSError) and one.filename is not None:
            named.append(os.fsdecode(one.filename) if isinstance(one.filename, bytes) else str(one.filename))
        named += _PATH.findall(text)
    candidates = [Path(place) for place in (*named, *places)]
    if not is_full and not (is_disk and any(not has_room(place) for place in candidates)):
        return None
    frees = [(free, place) for place in candidates if (free := _free(place)) is not None]
    if not frees:
        return NoRoom("no room left on the disk", hint="make room, and run it again: nothing committed is lost")
    free, place = min(frees, key=lambda one: one[0])
    return NoRoom(
        f"no room left at {shown(str(place))}: {free / 1e6:.1f} MB are free",
        hint="make room there, or see to quotas and limits of file sizes; then run it again: nothing committed is lost",
    )


def _with_causes(error: BaseException | None) -> Iterable[BaseException]:
    seen = list[BaseException]()
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return seen


def explained(error: BaseException) -> LightlakeError | None:
    """Return the one line that an error of the system or of a library deserves; None if it is a mistake of ours.

    Errors are told apart by the names of their modules: what is not imported has not failed.
    """
    if isinstance(error, LightlakeError):
        return error
    if (full := no_room(error)) is not None:
        return full
    kind = type(error).__module__.partition(".")[0]
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, OSError) and kind == "builtins":
        named = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        told = error.strerror or first or type(error).__name__
        hint = (
            "ask its owner for the right to"
            if isinstance(error, PermissionError)
            else "see whether it is as it must be"
        )
        return ConfigurationError(shown(": ".join([*named, told])), hint=hint)
    if isinstance(error, MemoryError):
        return ConfigurationError("there is not enough memory", hint="ask for less, or set LIGHTLAKE_DUCKDB_MEMORY")
    if isinstance(error, ImportError):
        return ConfigurationError(f"a package does not fit, or is missing: {first}", hint="run: lightlake doctor")
    if isinstance(error, RuntimeError) and "home directory" in first:
        return ConfigurationError("there is no home for ~ to stand for", hint="give the whole path, or set HOME")
    if kind == "pydantic_core" and hasattr(error, "errors"):
        wrong = error.errors()[0]
        told = f"{'.'.join(map(str, wrong['loc']))} is not valid: {wrong['msg']}"
        return ConfigurationError(f"{getattr(error, 'title', 'a setting')}: {told}", hint="run: lightlake doctor")
    if isinstance(error, UnicodeEncodeError):  # an argument or a name that came as bytes of another encoding
        return ConfigurationError(
            f"text that is not UTF-8: {shown(str(error.object))[:100]}", hint="give it in UTF-8: see LANG, and LC_ALL"
        )
    if kind in ("duckdb", "_duckdb", "sqlite3"):
        return CatalogError(f"the database failed: {first}", hint="run: lightlake doctor; and: lightlake verify")
    if kind in ("botocore", "aiobotocore", "aiohttp"):
        return ConfigurationError(
            f"S3 does not answer as it must: {first or type(error).__name__}",
            hint="check AWS_ENDPOINT_URL, the credentials (AWS_PROFILE, ...) and LIGHTLAKE_STORAGE_OPTIONS",
        )
    return None
