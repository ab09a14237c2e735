"""Files of light curves of TESS, Kepler and K2: from MAST, a bucket or a folder, and kept in the cache.

A file is in the cache once it came whole, with its checksum beside it. The next process resumes what broke off.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
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

from lake.errors import ArchiveError, GranuleRejected
from lake.redact import redacted
from lake.settings import Settings
from tasks.services.download import resume
from tasks.services.file_cache import FileCache
from tasks.services.fits import hdus, naming, unpacked
from tasks.services.http import Client, failing
from tasks.services.request_counters import Threads
from tasks.sources.tess_kepler.mast_bucket import MIRROR, Bucket, setting
from tasks.sources.tess_kepler.mast_products import Named

logger = logging.getLogger(__name__)

SERVICE = "mast"
ENDPOINT = "https://mast.stsci.edu"

# Files that one process fetches at the same time.
CONNECTIONS = 4


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
            waiting.extend(
                (found, pool.submit(self._from_anywhere, found, stop)) for found in islice(rest, 2 * CONNECTIONS)
            )
            while waiting:
                found, future = waiting.popleft()
                path = future.result()
                waiting.extend(
                    (following, pool.submit(self._from_anywhere, following, stop)) for following in islice(rest, 1)
                )
                yield found, path
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _from_anywhere(self, found: Found, stop: threading.Event) -> Path:
        if self._bucket is not None:
            entry = self._at_hand(self._bucket, found)
            if entry is not None and self._bucket.is_local:
                return self._bucket.path(entry)
            if entry is not None:
                get = partial(self._copy, self._bucket, entry, found)
                return self._cached(found, self._bucket.store.url, get, stop)
        if self._client is None:
            raise self._failed(found, f"{self.url} does not have it", hint="try again later, if it was there")
        return self._cached(found, self.url, partial(self._download, self._client, found, stop), stop)

    def _at_hand(self, bucket: Bucket, found: Found) -> str | None:
        """Return where a file is below the root of a bucket or folder; None if it is not there."""
        is_known = not found.uri.startswith("mast:")
        if is_known or (not bucket.is_local and self._is_kept(found, bucket.store.url)):
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

    def _cache(self, url: str, stop: threading.Event | None = None) -> FileCache:
        """Return the cache of an address's files."""
        root = self._root if url == ENDPOINT else self._root / _folder_name(url)
        if stop is None:
            return FileCache(root, self.archive, self.settings)
        return FileCache(root, self.archive, self.settings, lambda: not stop.is_set(), stop.wait)

    def _cached(self, found: Found, url: str, get: Callable[[Path], None], stop: threading.Event) -> Path:
        """Return the cached file; fetch it if it is not there, damaged, or has changed at the archive."""
        failed, check = partial(self._failed, found), partial(self._is_not, found)
        return self._cache(url, stop).get(_name(found), found.size, get, failed, check)

    def _is_kept(self, found: Found, url: str) -> bool:
        cache = self._cache(url)
        return cache.has(cache.path(_name(found), partial(self._failed, found)), found.size)

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


def _name(found: Found) -> str:
    return found.uri.removeprefix("mast:")


def _broken(path: Path, name: str) -> str | None:
    """Return why a file is not a complete FITS file with data; None if it is."""
    try:
        with naming(name):
            body = unpacked(path)
            parts = list(hdus(body))
    except GranuleRejected as error:
        return error.reason
    return f"{name}: it is cut short" if len(parts) < 2 or parts[-1].stop > len(body) else None
