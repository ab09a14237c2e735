"""Keep whole files in a folder of the cache, each with its checksum beside it; several processes share them.

A file is in the cache once it came whole and passed its check. What broke off is continued by the next to ask.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from lake.errors import ArchiveError
from lake.settings import Settings
from lake.store.storage import checksum
from lake.text import counted
from tasks.services.bounds import Failed
from tasks.services.download import discard, replace_by
from tasks.services.retry import with_retries

logger = logging.getLogger(__name__)

# Locks are few, and not one a file: two files that share one wait for each other, and no more.
_LOCKS = 4096

# Seconds between two looks of a process that waits for a lock.
_LOOK_AGAIN_S = 0.5


@dataclass(frozen=True)
class FileCache:
    """A folder of files that came from elsewhere.

    Parameters
    ----------
    root
        The folder.
    archive
        Name for messages.
    settings
        Retries, and the longest time that another process may take for a file.
    is_wanted
        Asked now and then; if it says no, waiting and fetching end.
    pause
        Waits so many seconds before a retry.
    """

    root: Path
    archive: str
    settings: Settings
    is_wanted: Callable[[], bool] = lambda: True
    pause: Callable[[float], object] = time.sleep

    def path(self, name: str, failed: Failed) -> Path:
        """Return where a file is kept: words of a server cannot lead out of the cache.

        Raises
        ------
        ArchiveError
            If the name leads elsewhere.
        """
        parts = [part for part in name.split("/") if part]
        if not parts or any(part in (".", "..") or re.search(r"[\\\0]", part) for part in parts):
            raise failed(f"{name!r} is no name of a file")
        return self.root.joinpath(*parts)

    def get(
        self,
        name: str,
        size: int | None,
        fetch: Callable[[Path], None],
        failed: Failed,
        check: Callable[[Path], str | None],
    ) -> Path:
        """Return a file, fetching it if it is not there, damaged, or another by now.

        Parameters
        ----------
        name
            Its name, with folders.
        size
            Bytes that it should have; None if nobody says.
        fetch
            Writes it to a path, or what is missing of it there.
        failed
            Makes errors.
        check
            Returns what is wrong with a file that came; None if nothing is.

        Raises
        ------
        ArchiveError
            The last failure of fetching it, or that the cache cannot be written.
        """
        final = self.path(name, failed)
        part = final.with_name(f"{final.name}.part")

        def ask() -> None:
            if not self.is_wanted():
                raise failed("interrupted")
            fetch(part)
            if problem := check(part):
                discard(part)
                raise failed(problem, transient=True)

        with self._usable():
            if self._has(final, size):
                return final
            final.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(final, failed):
                if not self._has(final, size, warn=True):
                    with_retries(ask, self.settings, self.pause)
                    _keep(part, final, size)
        return final

    def has(self, final: Path, size: int | None) -> bool:
        """Say whether a file is in the cache, as it came, and has the size that it should have.

        Raises
        ------
        ArchiveError
            If the cache cannot be read.
        """
        with self._usable():
            return self._has(final, size)

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """Report errors of the disk as the cache's."""
        try:
            yield
        except OSError as error:
            raise ArchiveError(
                f"the cache cannot be used: {error.strerror or error}",
                archive=self.archive,
                endpoint=str(error.filename or self.root),
                hint="make room there, or set LIGHTLAKE_CACHE_DIR",
            ) from error

    def _has(self, final: Path, size: int | None, *, warn: bool = False) -> bool:
        try:
            known = json.loads(_note_of(final).read_text())
            kept, expected = known["size"], known["said"]
            is_damaged = final.stat().st_size != kept or checksum(final) != known["blake2b"]
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, TypeError):
            is_damaged, kept, expected = True, None, None
        is_other = size not in (None, kept, expected)
        if warn and (is_damaged or is_other):
            other = f"has {counted(size or 0, 'byte')} by now, and not {kept}"
            why = "is damaged in the cache" if is_damaged else other
            logger.warning("%s: %s %s: it is fetched again", self.archive, final, why)
        return not (is_damaged or is_other)

    @contextlib.contextmanager
    def _locked(self, final: Path, failed: Failed) -> Iterator[None]:
        locks = self.root / ".locks"
        locks.mkdir(exist_ok=True)
        number = int.from_bytes(hashlib.blake2b(str(final).encode(), digest_size=4).digest()) % _LOCKS
        lock = filelock.FileLock(locks / f"{number:03x}.lock")
        patience = time.monotonic() + self.settings.task_timeout_s
        while not lock.is_locked:
            try:
                lock.acquire(timeout=_LOOK_AGAIN_S)
            except filelock.Timeout as error:
                if not self.is_wanted() or time.monotonic() > patience:
                    message = f"another process has been fetching it for {self.settings.task_timeout_s:g} s"
                    raise failed(message, transient=True) from error
        try:
            yield
        finally:
            lock.release()


def _note_of(final: Path) -> Path:
    return final.with_name(f"{final.name}.json")


def _keep(part: Path, final: Path, size: int | None) -> None:
    """Put a whole file into its place, after its checksum: what has another is not taken for it."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    known = {"size": part.stat().st_size, "said": size, "blake2b": checksum(part)}
    replace_by(_note_of(final), json.dumps(known))
    part.replace(final)
    discard(part)
