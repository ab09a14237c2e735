"""Convert errors of the system, of databases and of S3 into one line that says what to do next."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from lake.errors import CatalogError, ConfigurationError, Interrupted, LightlakeError, ReadOnly
from lake.redact import redacted
from lake.store import s3
from lake.store.access import ASK_FOR_RIGHTS
from lake.store.fence import is_overtaken
from lake.store.location import CatalogLocation
from lake.store.storage import Storage
from lake.store.walk import shown

_UPKEEP = "how-to/keep-a-lake"
# No page helps with all others: they are of the system, and may come from any command.
HELP_TOPIC = ""

# The hint for writes through a handle that only reads.
READING_ONLY = "rows are added by commands such as lightlake targets add and lightlake pull"

# With less free space a disk counts as full: SQLite's log alone needs as much, and a commit writes some files.
_LEAST_BYTES = 1 << 20

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXT = re.compile(r"no space left on device|database or disk is full|disk quota exceeded|file too large", re.I)

# What databases say when a disk may be full, or broken.
_DISK_TEXT = re.compile(r"disk I/O error|could not write|failed to (write|flush|sync)", re.I)

_PATH = re.compile(r"""["'](/[^"']+)["']""")

# What PostgreSQL's client library says when it lost its connection, or cannot get one just now.
_DISCONNECTED = re.compile(
    r"server closed the connection|terminating connection|connection to server|connection not open|"
    r"no connection to the server|could not (receive|send) data|SSL SYSCALL error|connection reset|broken pipe|"
    r"lost synchronization|unexpected (response|message)|message contents do not agree|insufficient data|"
    r"could not serialize access|deadlock detected|"
    r"current transaction is aborted|fetch from an unsuccessful query result|"  # once it is lost
    r"the database system is|too many clients|connection slots|too many connections|"
    r'failed to execute query "(ROLLBACK|COMMIT|BEGIN[^"]*)": *$',
    re.I | re.M,
)
# What DuckDB says when S3 does not answer.
_OF_S3 = re.compile(r"\bHTTP (GET|HEAD|PUT|POST|DELETE)\b|\bHTTP \d{3}\b|HTTP code \d{3}")
# PostgreSQL's own words; and those of them that deny a right.
_SAID = re.compile(r"\bERROR: .*")
_DENIED = re.compile(r"\bERROR: +(permission denied|must be owner)")
_FINAL = re.compile(r"FATAL: ++(?!the database system is|terminating|sorry, too many|remaining|too many)")


class DiskFull(ConfigurationError):
    """A disk is full: nothing can be written there until there is free space."""

    advice = "Free some space, then run it again. Nothing committed is lost."
    topic = "how-to/keep-a-lake"


@contextmanager
def converted(convert: Callable[[duckdb.Error], Exception]) -> Iterator[None]:
    """Raise what a function makes of a database error, without its cause: its text may contain a password."""
    try:
        yield
    except duckdb.Error as error:
        raise convert(error) from None


def has_free_space(folder: str | os.PathLike[str]) -> bool:
    """Say whether the disk of a folder has space for anything at all."""
    return (free := _free(Path(folder))) is None or free >= _LEAST_BYTES


def check_free_space(folders: Iterable[str | os.PathLike[str]]) -> None:
    """Check that the disks of some folders have space for anything at all.

    Raises
    ------
    DiskFull
        If one has not.
    """
    found = list(folders)
    if not all(map(has_free_space, found)) and (full := disk_full(None, *found)):
        raise full


def _free(folder: Path) -> int | None:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def disk_full(error: BaseException | None, *folders: str | os.PathLike[str]) -> DiskFull | None:
    """Return the exception to raise if an error, or one of its causes, comes from a full disk; None for other errors.

    Parameters
    ----------
    error
        The error; None: the folders are known to be full.
    folders
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
    candidates = [Path(folder) for folder in (*named, *folders)]
    if not is_full and not (is_disk and any(not has_free_space(folder) for folder in candidates)):
        return None
    sizes = [(free, folder) for folder in candidates if (free := _free(folder)) is not None]
    if not sizes:
        return DiskFull("the disk is full", hint="free some space, and run it again: nothing committed is lost")
    free, folder = min(sizes, key=lambda one: one[0])
    return DiskFull(
        f"no space left at {shown(str(folder))}: {free / 1e6:.1f} MB are free",
        hint="free some space, or check quotas and limits of file sizes; then run it again: nothing committed is lost",
    )


def _with_causes(error: BaseException | None) -> Iterable[BaseException]:
    seen = list[BaseException]()
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return seen


def is_disconnected(error: BaseException) -> bool:
    """Say whether the connection to PostgreSQL is gone, or cannot be made just now: it may work again soon."""
    text = str(error)
    return bool(_DISCONNECTED.search(text)) and not _FINAL.search(text)


def first_line(error: BaseException) -> str:
    """Return the first line of a database's message, without secrets; PostgreSQL's own line, if there is one.

    PostgreSQL's line comes after the statement that failed, which may be long.
    """
    text = str(error).strip()
    said = _SAID.search(text)
    return redacted(said[0] if said else text.splitlines()[0])


def write_failure(
    error: duckdb.Error, location: CatalogLocation, storage: Storage, folders: Iterable[str]
) -> Exception:
    """Return the exception to raise when a commit or maintenance failed."""
    if (full := disk_full(error, *folders)) is not None:
        return full
    if "read-only" in str(error):
        return ReadOnly(f"the lake at {storage.root} is for reading only: {first_line(error)}", hint=READING_ONLY)
    if _DENIED.search(str(error)):
        return ReadOnly(
            f"the catalogue {location} cannot be written: {first_line(error)}",
            hint=f"{ASK_FOR_RIGHTS}: GRANT ALL ON ALL TABLES IN SCHEMA {location.schema} TO USER",
        )
    if (interrupted := _interrupted(error, location)) is not None:
        return interrupted
    if isinstance(error, duckdb.IOException) and not storage.is_local and "HTTP" in str(error):
        return s3.s3_trouble(storage.root, error)
    hint = "the lake is unchanged; read the database's message"
    if "database is locked" in str(error):
        hint = "end the query that keeps a SQLite catalogue busy, and this process; then try again"
    elif "lightlake_fence" in str(error):
        hint = f"the catalogue's fence is missing, or not usable: check {location}; run: lightlake init {storage.root}"
    return CatalogError(f"cannot write the catalogue {location}: {first_line(error)}", hint=hint, topic=_UPKEEP)


def overtaken(location: CatalogLocation) -> Interrupted:
    """Return the exception for a writer that lost its lock to another writer."""
    return Interrupted(
        f"another writer has taken over the catalogue {location}",
        hint="find out why locks are lost: a network file system, a firewall that ends quiet connections",
    )


def _interrupted(error: duckdb.Error, location: CatalogLocation) -> Interrupted | None:
    if is_overtaken(error):
        return overtaken(location)
    if location.kind == "postgres" and is_disconnected(error):
        return Interrupted(
            f"the connection to the catalogue {location} is lost: {_reason(error)}",
            hint="check that the database is up; then run it again: nothing committed is lost",
        )
    if isinstance(error, duckdb.TransactionException) and "database is locked" not in str(error):
        # Only writers that do not take our lock can conflict: another tool on PostgreSQL.
        return Interrupted(
            f"cannot write the catalogue {location}: {first_line(error)}", hint="find out what else writes to it"
        )
    return None


def _reason(error: BaseException) -> str:
    """Return the line with the reason, which may come after a line of DuckLake's and a long query in quotes."""
    lines = redacted(str(error)).strip().splitlines()
    found = next((line for line in lines if _DISCONNECTED.search(line)), lines[0])
    return (found.rpartition('": ')[2].strip() or found)[-200:].strip()


def read_failure(error: duckdb.Error, location: CatalogLocation, folders: Iterable[str]) -> CatalogError | DiskFull:
    """Return the exception to raise when a catalogue cannot be attached or read."""
    if (full := disk_full(error, *folders)) is not None:
        return full
    if location.kind == "postgres" and is_disconnected(error):
        return Interrupted(
            f"cannot reach the catalogue {location}: {_reason(error)}",
            hint="check LIGHTLAKE_CATALOG, and that the database is up and has free connections",
        )
    hint = "check LIGHTLAKE_CATALOG and the database"
    if location.kind == "sqlite":
        hint += "; a damaged SQLite file comes back by: lightlake restore"
    if "database is locked" in str(error):
        hint = "end the process that holds it, or raise LIGHTLAKE_LOCK_TIMEOUT_S"
    return CatalogError(f"cannot read the catalogue {location}: {first_line(error)}", hint=hint, topic=_UPKEEP)


def query_failure(error: duckdb.Error, location: CatalogLocation, storage: Storage) -> LightlakeError:
    """Return the exception to raise when a user's query failed."""
    if location.kind == "postgres" and is_disconnected(error):
        return read_failure(error, location, ())
    if isinstance(error, duckdb.IOException):
        if not storage.is_local and "HTTP" in str(error):
            return s3.s3_trouble(storage.root, error)
        return unreadable_file(error)
    # Without the copy of the SQL with a caret under it.
    message = " ".join(str(error).partition("\n\n")[0].split())
    return ConfigurationError(
        f"the SQL failed: {message}", hint="see the tables with: lightlake schema", topic="how-to/queries"
    )


def unreadable_file(why: object) -> CatalogError:
    """Return the exception to raise when a Parquet file of the lake is damaged, or its owner's only; why names it."""
    return CatalogError(f"a file of the lake cannot be read: {why}", hint="run: lightlake verify", topic=_UPKEEP)


def explain(error: BaseException) -> LightlakeError | None:
    """Return the one line for an error of the system or of a library; None for a mistake of the program.

    Errors are recognised by the names of their modules, so that no module is imported for it.
    """
    if isinstance(error, LightlakeError):
        return error
    if (full := disk_full(error)) is not None:
        return full
    kind = type(error).__module__.partition(".")[0]
    first = (str(error).strip().splitlines() or [""])[0]
    of_s3 = kind in ("botocore", "aiobotocore", "aiohttp") or isinstance(error, s3.S3Unreachable)
    if isinstance(error, OSError) and kind == "builtins":
        named = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        message = error.strerror or first or type(error).__name__
        hint = (
            "ask its owner for the right to" if isinstance(error, PermissionError) else "check that it is as it must be"
        )
        return ConfigurationError(shown(": ".join([*named, message])), hint=hint)
    if isinstance(error, MemoryError):
        return ConfigurationError("there is not enough memory", hint="ask for less, or set LIGHTLAKE_DUCKDB_MEMORY")
    if isinstance(error, ImportError):
        return ConfigurationError(f"a package does not fit, or is missing: {first}", hint="run: lightlake doctor")
    if isinstance(error, RuntimeError) and "home directory" in first:
        return ConfigurationError("the home folder for ~ is not known", hint="give the whole path, or set HOME")
    if kind == "pydantic_core" and hasattr(error, "errors"):
        wrong = error.errors()[0]
        message = f"{'.'.join(map(str, wrong['loc']))} is not valid: {wrong['msg']}"
        return ConfigurationError(
            f"{getattr(error, 'title', 'a setting')}: {message}",
            hint="run: lightlake doctor",
            topic="reference/settings",
        )
    if isinstance(error, UnicodeEncodeError):  # an argument or a name in bytes of another encoding
        return ConfigurationError(
            f"text that is not UTF-8: {shown(str(error.object))[:100]}", hint="give it in UTF-8: see LANG, and LC_ALL"
        )
    if kind in ("duckdb", "_duckdb") and is_disconnected(error):
        return Interrupted(
            f"the connection to the catalogue is lost: {_reason(error)}",
            hint="check LIGHTLAKE_CATALOG and the database; then run it again: nothing committed is lost",
            topic="how-to/postgresql",
        )
    of_database = kind in ("duckdb", "_duckdb", "sqlite3")
    if of_s3 or (of_database and _OF_S3.search(first)):
        return ConfigurationError(
            f"S3 does not answer as it should: {first or type(error).__name__}",
            hint="check AWS_ENDPOINT_URL, the credentials (AWS_PROFILE, ...) and LIGHTLAKE_STORAGE_OPTIONS",
            topic="how-to/s3",
        )
    if of_database:
        return CatalogError(
            f"the database failed: {first}", hint="run: lightlake doctor; and: lightlake verify", topic=_UPKEEP
        )
    return None
