"""Files of light curves of TESS, Kepler and K2: from MAST, a bucket or a folder, and kept in the cache.

A file is in the cache once it came whole, with its checksum beside it. The next process resumes what broke off.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import filelock

from lake.errors import ArchiveError, GranuleRejected
from lake.redact import redacted
from lake.settings import Settings
from lake.store.storage import checksum
from tasks.services.download import discard, replace_by, resume
from tasks.services.fits import hdus, naming, unpacked
from tasks.services.http import Client, failing
from tasks.services.request_counters import Threads
from tasks.services.retry import with_retries
from tasks.sources.tess_kepler.mast_bucket import MIRROR, Bucket, setting
from tasks.sources.tess_kepler.mast_products import Named

logger = logging.getLogger(__name__)

SERVICE = "mast"
ENDPOINT = "https://mast.stsci.edu"

# Files that one process fetches at the same time.
CONNECTIONS = 4

# Few locks instead of one a file: two files that share a lock only wait for each other.
_LOCKS = 4096

# How often a process that waits for a lock checks whether the file is still wanted, s.
_LOOK_UP_S = 0.5


@dataclass(frozen=True)
class Found:
    """A file of light curves that a search has found.

    Parameters
    ----------
    uri
        MAST's dataURI, as mast:TESS/product/tess2018206045859-s0001-0000000025155310-0120-s_lc.fits, or the path
        below a mirror's root.
    name
        The file's name.
    named
        What the name says: pipeline, target, sequence.
    cadence_s
        Time from one cadence to the next, s; None if the search does not say.
    size
        Bytes; None if the search does not say.
    ra, dec
        The target's position as the search or the file's primary header has it, ICRS degrees; None if neither is
        known.
    """

    uri: str
    name: str
    named: Named
    cadence_s: float | None = None
    size: int | None = None
    ra: float | None = None
    dec: float | None = None


class Files:
    """A source of files, as a context manager.

    Parameters
    ----------
    url
        MAST, or a service like it (https://): then LIGHTLAKE_ENDPOINTS__MAST_FILES, a folder or an s3:// prefix, is
        asked first if it is set, and the service for what is not there, since the public bucket has not all that MAST
        has. Or such a folder or prefix itself.
    settings
        The cache folder, timeouts and retries.
    archive
        Name for messages and hints.

    Raises
    ------
    ArchiveError
        If there is no such place.
    """

    def __init__(self, url: str, settings: Settings, archive: str = SERVICE) -> None:
        self.url, self.settings, self.archive = url.rstrip("/"), settings, archive
        self._root = settings.cache_dir.expanduser() / SERVICE
        self._client: Client | None = None
        self._bucket: Bucket | None = None
        mirror: str | None = url
        if _is_web(url):
            mirror = settings.endpoints.get(MIRROR)
            if mirror is not None and _is_web(mirror):
                self.url, mirror = mirror.rstrip("/"), None
        if mirror is not None:
            self._bucket = Bucket.at(mirror, settings, archive)
        if _is_web(url):
            self._client = Client(settings.timeout_s, CONNECTIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            self._client.close()

    def fetch(self, files: Sequence[Found]) -> Iterator[tuple[Found, Path]]:
        """Yield files and their paths on this machine, in the order given; some are fetched ahead, in parallel.

        Raises
        ------
        ArchiveError
            If one cannot be fetched, is nowhere, or cannot be written to the cache. Files fetched before stay there.
        """
        stop = threading.Event()
        rest = iter(files)
        waiting: deque[tuple[Found, Future[Path]]] = deque()
        pool = Threads(CONNECTIONS, thread_name_prefix=SERVICE)
        try:
            waiting.extend((found, pool.submit(self._got, found, stop)) for found in islice(rest, 2 * CONNECTIONS))
            while waiting:
                found, future = waiting.popleft()
                path = future.result()
                waiting.extend((following, pool.submit(self._got, following, stop)) for following in islice(rest, 1))
                yield found, path
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _got(self, found: Found, stop: threading.Event) -> Path:
        try:
            return self._from_anywhere(found, stop)
        except OSError as error:
            raise ArchiveError(
                f"the cache cannot be used: {error.strerror or error}",
                archive=self.archive,
                endpoint=str(error.filename or self._root),
                hint="make room there, or set LIGHTLAKE_CACHE_DIR",
            ) from error

    def _from_anywhere(self, found: Found, stop: threading.Event) -> Path:
        if self._bucket is not None:
            entry = self._at_hand(self._bucket, found)
            if entry is not None and self._bucket.is_local:
                return self._bucket.path(entry)
            if entry is not None:
                final = self._place(found, self._bucket.store.url)
                return self._cached(found, final, partial(self._copy, self._bucket, entry, found), stop)
        if self._client is None:
            raise self._failed(found, f"{self.url} does not have it", hint="try again later, if it was there")
        final = self._place(found, self.url)
        return self._cached(found, final, partial(self._download, self._client, found, stop), stop)

    def _at_hand(self, bucket: Bucket, found: Found) -> str | None:
        """Return where a file is below the root of a bucket or folder; None if it is not there."""
        is_known = not found.uri.startswith("mast:")
        if is_known or (not bucket.is_local and self._is_kept(self._place(found, bucket.store.url), found)):
            # If it is gone since it was listed, reading it says so.
            return found.uri if not bucket.is_local or bucket.path(found.uri).is_file() else None
        entry = bucket.locate(found.named, found.name)
        return None if entry is None else entry.path

    def _download(self, client: Client, found: Found, stop: threading.Event, part: Path) -> None:
        url = f"{self.url}/api/v0.1/Download/file?uri={quote(found.uri, safe=':/')}"
        failed = failing(self.archive, url, f"check {setting(self.url, self.settings, self.archive)}")
        resume(client, url, part, failed, self.settings, lambda: not stop.is_set())

    def _copy(self, bucket: Bucket, path: str, found: Found, part: Path) -> None:
        body = bucket.store.read(path)
        if body is None:
            raise self._failed(found, f"{path} is gone", hint="try again later")
        part.write_bytes(body)

    def _cached(self, found: Found, final: Path, get: Callable[[Path], None], stop: threading.Event) -> Path:
        """Return the cached file; fetch it if it is not there, damaged, or has changed at the archive."""
        part = final.with_name(f"{final.name}.part")

        def ask() -> None:
            if stop.is_set():
                raise self._failed(found, "interrupted")
            get(part)
            if problem := self._is_not(found, part):
                discard(part)
                raise self._failed(found, problem, transient=True)

        if self._is_kept(final, found):
            return final
        final.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(found, final, stop):
            if not self._is_kept(final, found, tell=True):
                with_retries(ask, self.settings, stop.wait)
                _keep(part, final, found)
        return final

    def _place(self, found: Found, url: str) -> Path:
        """Return the path of a file in the cache; names from a server cannot lead out of the cache."""
        parts = [part for part in found.uri.removeprefix("mast:").split("/") if part]
        if not parts or any(part in (".", "..") or re.search(r"[\\\0]", part) for part in parts):
            raise self._failed(found, f"{found.uri!r} is no name of a file")
        return (self._root if url == ENDPOINT else self._root / _folder_name(url)).joinpath(*parts)

    @contextlib.contextmanager
    def _locked(self, found: Found, final: Path, stop: threading.Event) -> Iterator[None]:
        locks = self._root / ".locks"
        locks.mkdir(exist_ok=True)
        number = int.from_bytes(hashlib.blake2b(str(final).encode(), digest_size=4).digest()) % _LOCKS
        lock = filelock.FileLock(locks / f"{number:03x}.lock")
        patience = time.monotonic() + self.settings.task_timeout_s
        while not lock.is_locked:
            try:
                lock.acquire(timeout=_LOOK_UP_S)
            except filelock.Timeout as error:
                if stop.is_set() or time.monotonic() > patience:
                    message = f"another process has been getting it for {self.settings.task_timeout_s:g} s"
                    raise self._failed(found, message, transient=True) from error
        try:
            yield
        finally:
            lock.release()

    def _is_kept(self, final: Path, found: Found, *, tell: bool = False) -> bool:
        """Say whether the cache has an undamaged copy of a file, with the size that the search states."""
        try:
            known = json.loads(_note_of(final).read_text())
            size, said = known["size"], known["said"]
            is_damaged = final.stat().st_size != size or checksum(final) != known["blake2b"]
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, TypeError):
            is_damaged, size, said = True, None, None
        is_other = found.size not in (None, size, said)
        if tell and (is_damaged or is_other):
            why = "is damaged in the cache" if is_damaged else f"has {found.size} bytes by now, and not {size}"
            logger.warning("%s: %s %s: it is fetched again", self.archive, final, why)
        return not (is_damaged or is_other)

    def _is_not(self, found: Found, part: Path) -> str | None:
        """Return what is wrong with a downloaded file; None if nothing is.

        A file of the size that the search states is accepted, even if broken: the archive has it so. Sizes of searches
        are not reliable (astroquery 0.4.11, mast/observations.py), so a whole FITS file of another size is right, too.
        """
        size = part.stat().st_size
        if size == found.size:
            return None
        problem = _broken(part, found.name)
        if problem is None and found.size is not None:
            logger.warning("%s: %s has %d bytes, and not %d", self.archive, found.uri, size, found.size)
        return problem and f"what came is not the file: {problem}"

    def _failed(self, found: Found, message: str, *, transient: bool = False, hint: str | None = None) -> ArchiveError:
        where = found.uri if found.uri.startswith("mast:") else f"{self.url}/{found.uri}"
        return ArchiveError(message, archive=self.archive, endpoint=where, transient=transient, hint=hint)


def _is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _folder_name(url: str) -> str:
    """Return a folder for an address: a file of the same name elsewhere is another file."""
    service = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    place = f"{url} {service}" if url.startswith("s3://") else url
    return (
        f"{re.sub(r'[^A-Za-z0-9.]+', '_', redacted(url))}-{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}"
    )


def _note_of(final: Path) -> Path:
    return final.with_name(f"{final.name}.json")


def _keep(part: Path, final: Path, found: Found) -> None:
    """Write the checksum of a whole file, then move it to its place in the cache."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    what = {"size": part.stat().st_size, "said": found.size, "blake2b": checksum(part)}
    replace_by(_note_of(final), json.dumps(what))
    part.replace(final)
    discard(part)


def _broken(path: Path, name: str) -> str | None:
    """Return why a file is not a complete FITS file with data; None if it is."""
    try:
        with naming(name):
            body = unpacked(path)
            parts = list(hdus(body))
    except GranuleRejected as error:
        return error.reason
    return f"{name}: it is cut short" if len(parts) < 2 or parts[-1].stop > len(body) else None
