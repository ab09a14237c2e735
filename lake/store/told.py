"""What a catalogue's database says of a failure, and what it means for whoever reads or writes the lake."""

from __future__ import annotations

import re
from collections.abc import Iterable

import duckdb

from lake.errors import CatalogError, ConfigurationError, Interrupted, LightlakeError, ReadOnly
from lake.redact import redacted
from lake.store import s3
from lake.store.access import ASK_FOR_RIGHTS
from lake.store.fence import is_overtaken
from lake.store.location import CatalogLocation
from lake.store.storage import Storage
from lake.store.trouble import NoRoom, no_room

# What to tell one who tries to write where only reading is meant.
READING_ONLY = "rows are added by commands such as lightlake targets add and lightlake pull"

# Of PostgreSQL's client library: a connection that was there is gone, or there is none just now.
_LOST = re.compile(
    r"server closed the connection|terminating connection|connection to server|connection not open|"
    r"no connection to the server|could not (receive|send) data|SSL SYSCALL error|connection reset|broken pipe|"
    r"lost synchronization|unexpected (response|message)|message contents do not agree|insufficient data|"
    r"could not serialize access|deadlock detected|"
    r"the database system is|too many clients|connection slots|too many connections|"
    r'failed to execute query "(ROLLBACK|COMMIT|BEGIN[^"]*)": *$',
    re.I | re.M,
)
# PostgreSQL's own words, and those that refuse a right.
_SAID = re.compile(r"\bERROR: .*")
_DENIED = re.compile(r"\bERROR: +(permission denied|must be owner)")
_FINAL = re.compile(r"FATAL: ++(?!the database system is|terminating|sorry, too many|remaining|too many)")


def is_lost(error: BaseException) -> bool:
    """Say whether the connection to PostgreSQL is gone, or there is none just now: it may be there again soon."""
    text = str(error)
    return bool(_LOST.search(text)) and not _FINAL.search(text)


def first_line(error: BaseException) -> str:
    """Return the first line of what a database says, without secrets; of PostgreSQL's own words, if it has any.

    Those are behind the statement that failed, which may be long.
    """
    text = str(error).strip()
    said = _SAID.search(text)
    return redacted(said[0] if said else text.splitlines()[0])


def of_writing(error: duckdb.Error, location: CatalogLocation, storage: Storage, folders: Iterable[str]) -> Exception:
    """Return what to raise for an error of a commit, or of maintenance."""
    if (full := no_room(error, *folders)) is not None:
        return full
    if "read-only" in str(error):
        return ReadOnly(f"the lake at {storage.root} is for reading only: {first_line(error)}", hint=READING_ONLY)
    if _DENIED.search(str(error)):
        return ReadOnly(
            f"the catalogue {location} cannot be written: {first_line(error)}",
            hint=f"{ASK_FOR_RIGHTS}: GRANT ALL ON ALL TABLES IN SCHEMA {location.schema} TO USER",
        )
    if (lost := _interrupted(error, location)) is not None:
        return lost
    if isinstance(error, duckdb.IOException) and not storage.is_local and "HTTP" in str(error):
        return s3.s3_trouble(storage.root, error)
    hint = "the lake is as it was before; see what the database says"
    if "database is locked" in str(error):
        hint = "end the query that keeps a SQLite catalogue busy, and this process; then try again"
    elif "lightlake_fence" in str(error):
        hint = (
            f"the catalogue's fence is missing, or may not be used: see {location}; run: lightlake init {storage.root}"
        )
    return CatalogError(f"cannot write the catalogue {location}: {first_line(error)}", hint=hint)


def overtaken(location: CatalogLocation) -> Interrupted:
    """Return what to raise for a writer that has lost its lock, and another has it."""
    return Interrupted(
        f"another writer has taken over the catalogue {location}",
        hint="see why locks are lost: a network file system, a firewall that ends quiet connections",
    )


def _interrupted(error: duckdb.Error, location: CatalogLocation) -> Interrupted | None:
    if is_overtaken(error):
        return overtaken(location)
    if location.kind == "postgres" and is_lost(error):
        return Interrupted(
            f"the connection to the catalogue {location} is lost: {_reason(error)}",
            hint="see whether the database is up; then run it again: nothing committed is lost",
        )
    if isinstance(error, duckdb.TransactionException) and "database is locked" not in str(error):
        # Only writers that do not take our lock can conflict: another tool on PostgreSQL.
        return Interrupted(
            f"cannot write the catalogue {location}: {first_line(error)}", hint="see what else writes to it"
        )
    return None


def _reason(error: duckdb.Error) -> str:
    """Return the line that says it, which may be behind one of DuckLake's own and a long query."""
    lines = redacted(str(error)).strip().splitlines()
    found = next((line for line in lines if _LOST.search(line)), lines[0])
    return found[-200:].strip()


def of_reading(error: duckdb.Error, location: CatalogLocation, folders: Iterable[str]) -> CatalogError | NoRoom:
    """Return what to raise if a catalogue cannot be attached or read."""
    if (full := no_room(error, *folders)) is not None:
        return full
    if location.kind == "postgres" and is_lost(error):
        return Interrupted(
            f"cannot reach the catalogue {location}: {_reason(error)}",
            hint="see whether the database is up and has connections to spare, and LIGHTLAKE_CATALOG",
        )
    hint = "check LIGHTLAKE_CATALOG and the database"
    if location.kind == "sqlite":
        hint += "; a damaged SQLite file comes back by: lightlake restore"
    if "database is locked" in str(error):
        hint = "end the process that holds it, or raise LIGHTLAKE_LOCK_TIMEOUT_S"
    return CatalogError(f"cannot read the catalogue {location}: {first_line(error)}", hint=hint)


def of_asking(error: duckdb.Error, location: CatalogLocation, storage: Storage) -> LightlakeError:
    """Return what to raise for an error of a question in SQL."""
    if location.kind == "postgres" and is_lost(error):
        return of_reading(error, location, ())
    if isinstance(error, duckdb.IOException):
        if not storage.is_local and "HTTP" in str(error):
            return s3.s3_trouble(storage.root, error)
        return CatalogError(f"a file of the lake cannot be read: {error}", hint="run: lightlake verify")
    # Less the copy of the SQL with a caret under it.
    told = " ".join(str(error).partition("\n\n")[0].split())
    return ConfigurationError(f"the SQL failed: {told}", hint="see the tables with: lightlake schema")
