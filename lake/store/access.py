"""Check the permissions to write a lake, of its SQLite catalogue and of its folders, before any work is done."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from lake.errors import ReadOnly
from lake.model.table import quoted

ASK_FOR_RIGHTS = "ask the owner of the catalogue's schema in PostgreSQL to run"

# What SQLite keeps beside a database, with the database's own mode.
_BESIDE = ("-wal", "-shm", "-journal")


def make_catalogue(path: Path) -> None:
    """Create the file of a SQLite catalogue with the umask and the group of any other file of the folder.

    SQLite itself creates files of mode 0644 whatever the umask, which nobody else of a group may write. An empty file
    is an empty database.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
        with suppress(OSError):  # only an owner who is in that group may
            shutil.chown(path, group=path.parent.stat().st_gid)


def share_catalogue(path: Path) -> None:
    """Let the group that may write a folder also write the catalogue in it, if this user owns that."""
    folder = path.parent.stat()
    for file in (path, *(path.with_name(path.name + end) for end in _BESIDE)):
        with suppress(OSError):  # not there, or somebody else's
            found = file.stat()
            if folder.st_mode & stat.S_IWGRP and folder.st_gid == found.st_gid:
                file.chmod(stat.S_IMODE(found.st_mode) | stat.S_IRGRP | stat.S_IWGRP)


def make_folders(tree: Path, tables: Iterable[str]) -> None:
    """Create the folder of each table, since DuckDB creates folders of mode 0755 whatever the umask."""
    for name in tables:
        (tree / name).mkdir(parents=True, exist_ok=True)


def check_catalogue(path: Path) -> None:
    """Check that this process may write a SQLite catalogue, its folder and the files beside it.

    Raises
    ------
    ReadOnly
        If not; names the file, its owner, and what to do.
    """
    beside = [path.with_name(path.name + end) for end in _BESIDE]
    _check(f"the catalogue {path}", [path, *beside, path.with_suffix(".lock"), path.parent, path.parent / "claims"])


def last_written(path: Path) -> float:
    """Return when a SQLite catalogue was last written, by the clock of its disk."""
    times = [0.0]
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-journal"))):
        with suppress(FileNotFoundError):
            times.append(file.stat().st_mtime)
    return max(times)


def check_folders(root: Path) -> None:
    """Check that this process may write the folders of a lake on a disk, including those of tables and archives.

    Raises
    ------
    ReadOnly
        If not; names the folder, its owner, and what to do.
    """
    tree = root / "data" / "main"
    _check(f"the lake at {root}", [root / "staging", root / "staging" / "publishing", tree, *_folders(tree)])


def _folders(tree: Path) -> Iterator[Path]:
    for table in sorted(tree.iterdir()) if tree.is_dir() and os.access(tree, os.R_OK) else ():
        if table.is_dir():
            yield table
            yield from sorted(table.glob("archive=*/"))


def _check(what: str, paths: list[Path]) -> None:
    for path in paths:
        found = _closed(path)
        if found is None:
            continue
        place = "it" if str(path) == what.removeprefix("the catalogue ") else str(path)
        if found.is_read_only_disk:
            raise ReadOnly(
                f"{what} cannot be written: {place} is on a disk that is mounted for reading only",
                hint="mount it for writing, or use another lake",
            )
        owner, group, mode = _user(found.uid), _group(found.gid), stat.S_IMODE(found.mode)
        change = f"chmod g+w{'xs' if stat.S_ISDIR(found.mode) else ''} {path}"
        if found.gid not in (os.getegid(), *os.getgroups()):
            change = f"chgrp GROUP {path} && {change}, with a group that you are in"
        raise ReadOnly(
            f"{what} cannot be written: {place} is {owner}'s, of group {group} and mode {mode:04o}, and you are "
            f"{_user(os.geteuid())}",
            hint=f"ask {owner} to run: {change}; or use another lake",
        )


@dataclass(frozen=True)
class _Closed:
    """A file or folder that this process may not write."""

    uid: int
    gid: int
    mode: int
    is_read_only_disk: bool


def _closed(path: Path) -> _Closed | None:
    """Describe a path that this process may not write; return None if it may, or if the path does not exist.

    SQLite removes its log with the last connection of another process, at any moment. So a file that is gone, or
    another one at the second look, is no evidence.
    """
    try:
        found = path.stat()
        if may(path, os.W_OK | (os.X_OK if stat.S_ISDIR(found.st_mode) else 0)):
            return None
        is_read_only_disk = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        if path.stat().st_ino != found.st_ino:
            return None
    except OSError:
        return None
    return _Closed(found.st_uid, found.st_gid, found.st_mode, is_read_only_disk)


def check_postgres(connection: duckdb.DuckDBPyConnection, schema: str, what: str) -> None:
    """Check that the PostgreSQL user may write an attached catalogue.

    Raises
    ------
    ReadOnly
        If not.
    """
    # DuckLake also creates tables there, for rows that stay in the catalogue.
    each = " AND ".join(f"has_table_privilege(c.oid, '{right}')" for right in ("SELECT", "INSERT", "UPDATE", "DELETE"))
    query = (
        f"SELECT current_user::text, coalesce(bool_and({each}), true) "
        f"AND has_schema_privilege({quoted(schema)}, 'CREATE') AS may, pg_is_in_recovery() AS standby, "
        "current_setting('default_transaction_read_only') = 'on' AS only "
        "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        f"WHERE n.nspname = {quoted(schema)} AND c.relkind IN ('r', 'p') "
        "AND c.relname SIMILAR TO '(ducklake|lightlake)%'"
    )
    user, granted, standby, only = connection.execute(
        "FROM postgres_query('__ducklake_metadata_lake', ?)", [query]
    ).fetchall()[0]
    if standby:
        raise ReadOnly(
            f"{what} cannot be written: the database is a standby", hint="name the primary server in LIGHTLAKE_CATALOG"
        )
    if only:
        raise ReadOnly(
            f"{what} cannot be written: transactions of {user} there are read-only",
            hint="name another user in LIGHTLAKE_CATALOG; see default_transaction_read_only",
        )
    if not granted:
        raise ReadOnly(
            f"{what} cannot be written: user {user} may not change all of its tables, or create new ones",
            hint=f'{ASK_FOR_RIGHTS}: GRANT ALL ON SCHEMA "{schema}" TO {user}; '
            f'GRANT ALL ON ALL TABLES IN SCHEMA "{schema}" TO {user}',
        )


def may(path: Path, mode: int) -> bool:
    """Say whether this process may read, write or enter a path."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def readable_in_place(path: Path) -> bool:
    """Say whether SQLite can read a catalogue in place, which writes its log."""
    return may(path, os.W_OK) and may(path.parent, os.W_OK | os.X_OK)
