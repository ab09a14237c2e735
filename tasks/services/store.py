"""Files anywhere: in a local folder, on S3, or on a web server that lists its folders as pages of links.

Public buckets are read anonymously, unless AWS_ACCESS_KEY_ID is set. AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3)
points to another S3 service, such as a mirror. Every failure is an ArchiveError that says whether a retry may help: it
may with overload (503 SlowDown), resets, time-outs, and objects that are damaged, have changed or are gone, since
archives replace their files while they are read; it does not with refusals.

Folders and S3 are read by Arrow's file systems, which decode Parquet without a detour through Python. The web is read
by httpx: fsspec's HTTP file system limits neither the time of a whole answer nor its size, and has no If-Range.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from lake.errors import ArchiveError
from lake.settings import Settings
from tasks.services.bounds import in_memory, in_time, on_disk
from tasks.services.http import GONE, NOT_FOUND, Client, body_of, check_status
from tasks.services.parquet import leaf_numbers
from tasks.services.request_counters import not_counted
from tasks.services.usage import received, requesting

_Result = TypeVar("_Result")

# Words of S3 that a retry does not change; 404 is not among them: see the top.
_REFUSED = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|PermanentRedirect"
    r"|HTTP status (30\d|400|401|403|405)\b"
)
_GONE = re.compile(r"NO_SUCH_KEY|RESOURCE_NOT_FOUND|HTTP status 404\b")

# Bytes of a column that are read at a time from a local file.
_LOCAL_BUFFER = 1 << 20

# A file with more than this may have that much of a description at its end, which takes some times more in memory.
_LARGE_FOOTER, _FOOTER_IN_MEMORY = 16_000_000, 2

# The AWS client tries once: what failed is retried in one place, the engine or `with_retries`.
_ONCE = fs.AwsStandardS3RetryStrategy(max_attempts=1)

_LINK = re.compile(r"""<a\s[^<>]*href\s*=\s*["']([^"']+)["']""", re.I)


class Entry(NamedTuple):
    """A file in a listing: its path below the store's folder, bytes, and time of change in ns; 0 if not known."""

    path: str
    size: int
    mtime: int

    @property
    def name(self) -> str:
        """Return the file's name."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Store:
    """A folder of files at a URL.

    Parameters
    ----------
    archive
        Name for messages and hints.
    url
        Address of the folder, without a slash at the end.
    root
        The same as the file system names it.
    settings
        Limits of time and size.
    environment
        Fingerprint of what the file system's client took from the environment: with other settings, the same URL may
        be another folder, or refused.
    """

    archive: str
    url: str
    root: str
    filesystem: fs.FileSystem = field(repr=False, compare=False)
    settings: Settings = field(repr=False, compare=False)
    environment: str = ""

    @property
    def is_local(self) -> bool:
        """Say whether it is on a disk of this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def close(self) -> None:
        """Close its connections."""

    def path(self, below: str = "") -> Path:
        """Return the path of a file or folder of a local store."""
        return Path(self.root) / below

    def below(self, name: str) -> Store:
        """Return a folder in this one."""
        name = name.strip("/")
        return replace(self, url=f"{self.url}/{name}", root=f"{self.root}/{name}") if name else self

    def read(self, path: str) -> bytes | None:
        """Return the content of a file that fits into memory, or None if there is no such file."""

        def reading() -> bytes | None:
            with self._asking(path):
                try:
                    with self.filesystem.open_input_file(f"{self.root}/{path}") as stream:
                        size = stream.size()
                        in_memory(partial(self.trouble, path), self.settings).expects(size, "the file")
                        return bytes(stream.read(size))
                except (FileNotFoundError, NotADirectoryError):
                    return None
                except OSError as error:
                    if _GONE.search(str(error)):
                        return None
                    raise

        return self.in_time(reading, path)

    def beginning(self, path: str, size: int) -> bytes:
        """Return the first bytes of a file."""

        def reading() -> bytes:
            with self._asking(path), self.filesystem.open_input_file(f"{self.root}/{path}") as stream:
                return bytes(stream.read(size))

        return self.in_time(reading, path)

    def in_time(self, work: Callable[[], _Result], path: str = "") -> _Result:
        """Do what reads here; give up on it once its time is over, unless it reads a local disk."""
        return work() if self.is_local else in_time(work, in_memory(partial(self.trouble, path), self.settings))

    def files(self, folder: str = "", *, recursive: bool = False) -> list[str]:
        """Return the paths of the files in a folder, sorted; an empty list if there is no such folder."""
        return [entry.path for entry in self.entries(folder, recursive=recursive)[0]]

    def folders(self, folder: str = "") -> list[str]:
        """Return the paths of the folders in a folder, sorted; an empty list if there is no such folder."""
        return self.entries(folder)[1]

    def entries(self, folder: str = "", *, recursive: bool = False) -> tuple[list[Entry], list[str]]:
        """Return the files and the folders in a folder, sorted by path; empty lists if there is no such folder."""
        base = f"{self.root}/{folder.strip('/')}".rstrip("/")
        selector = fs.FileSelector(base, allow_not_found=True, recursive=recursive)

        def reading() -> list[fs.FileInfo]:
            with self._asking(folder):
                return sorted(self.filesystem.get_file_info(selector), key=lambda info: str(info.path))

        found = [(info.path[len(self.root) + 1 :], info) for info in self.in_time(reading, folder)]
        files = [Entry(path, info.size, info.mtime_ns or 0) for path, info in found if info.type == fs.FileType.File]
        return files, [path for path, info in found if info.type == fs.FileType.Directory]

    def exists(self) -> bool:
        """Say whether there is such a folder."""

        def reading() -> bool:
            with self._asking(""):
                return bool(self.filesystem.get_file_info(self.root).type == fs.FileType.Directory)

        return self.in_time(reading)

    @contextmanager
    def parquet(self, path: str) -> Iterator[pq.ParquetFile]:
        """Open a Parquet file; what fails while it is open is its failure.

        Raises
        ------
        ArchiveError
            If it cannot be read, is damaged, or was replaced while it was read.
        """
        name = f"{self.root}/{path}"
        with self._asking(path):
            with self.filesystem.open_input_file(name) as stream:
                before = self._version(name, stream)
                self._check_size(path, stream)
                # On S3, a row group's columns come in few requests that way, and a row group is all that is held.
                # On a disk it costs more than it saves: decoding takes 1.7 times as long.
                buffering = {"buffer_size": _LOCAL_BUFFER} if self.is_local else {"pre_buffer": True}
                with pq.ParquetFile(stream, **buffering) as file:
                    yield file
            with self.filesystem.open_input_file(name) as stream:
                after = self._version(name, stream)
        if before != after:
            raise self.trouble(path, "the file changed while it was read", transient=True)

    def _check_size(self, path: str, stream: pa.NativeFile) -> None:
        """Raise an ArchiveError if a file, or the description at its end, which is read as a whole, is too large."""
        failed = partial(self.trouble, path)
        on_disk(failed, self.settings).expects(size := stream.size(), "the file")
        if size > _LARGE_FOOTER:
            stream.seek(size - 8)
            footer = int.from_bytes(stream.read(4), "little")
            stream.seek(0)
            in_memory(failed, self.settings).expects(_FOOTER_IN_MEMORY * footer, "its metadata, in memory,")

    def check_group(self, path: str, file: pq.ParquetFile, group: int, columns: Sequence[str]) -> None:
        """Raise an ArchiveError if a row group says that some of its columns are larger than a file may be."""
        leaves = leaf_numbers(file)
        chosen = [n for leaf, n in leaves.items() if leaf in columns or leaf.split(".")[0] in columns]
        sizes = [file.metadata.row_group(group).column(n).total_uncompressed_size for n in chosen]
        if min(sizes, default=0) < 0:
            raise self.trouble(path, "the file is damaged: it has a column of negative size", transient=True)
        on_disk(partial(self.trouble, path), self.settings).expects(sum(sizes), f"row group {group}")
        if not self.is_local:  # they are read next
            received(sum(file.metadata.row_group(group).column(n).total_compressed_size for n in chosen))

    def _version(self, name: str, stream: pa.NativeFile) -> object:
        # On S3 the ETag, as times there are of seconds.
        info = None if (tag := stream.metadata().get("ETag")) else self.filesystem.get_file_info(name)
        return (stream.size(), info.mtime_ns if info else tag)

    def trouble(
        self, path: str, message: str, *, transient: bool = False, retry_after_s: float | None = None
    ) -> ArchiveError:
        """Return the error of a file."""
        return ArchiveError(
            message,
            archive=self.archive,
            endpoint=f"{self.url}/{path}".rstrip("/"),
            transient=transient,
            retry_after_s=retry_after_s,
            hint=None if transient else f"check LIGHTLAKE_ENDPOINTS__{self.archive.upper()}",
        )

    @contextmanager
    def _asking(self, path: str) -> Iterator[None]:
        if not self.is_local:
            not_counted()
        try:
            with nullcontext() if self.is_local else requesting():
                yield
        except FileNotFoundError as error:
            raise self.trouble(path, "a file is gone", transient=True) from error
        except PermissionError as error:
            raise self.trouble(path, f"no permission: {_first_line(error)}") from error
        except pa.ArrowException as error:
            raise self.trouble(path, f"the file is damaged: {_first_line(error)}", transient=True) from error
        except OSError as error:
            if _GONE.search(str(error)):
                raise self.trouble(path, "a file is gone", transient=True) from FileNotFoundError(_first_line(error))
            refused = bool(_REFUSED.search(str(error)))
            raise self.trouble(path, f"reading failed: {_first_line(error)}", transient=not refused) from error


@dataclass(frozen=True)
class _Web(Store):
    """A folder on a server that lists its folders as pages of links; each page and file is one request."""

    client: Client = field(kw_only=True, repr=False, compare=False)

    def close(self) -> None:
        self.client.close()

    def read(self, path: str) -> bytes | None:
        found = self._get(path)
        return None if found is None else found[1]

    def entries(self, folder: str = "", *, recursive: bool = False) -> tuple[list[Entry], list[str]]:
        folder = folder.strip("/")
        found = self._get(f"{folder}/")
        if found is None:
            return [], []
        url, page = found[0], found[1].decode(errors="replace")
        # Links may be names, or start at the server's root, or have its name before that.
        here = urljoin(url, ".")
        links = {urljoin(here, unescape(link)) for link in _LINK.findall(page) if not link.startswith(("?", "#"))}
        start = _server_and_path(here)
        below = [link.removeprefix(start) for link in map(_server_and_path, links) if link.startswith(start)]
        names = sorted({name for name in below if re.fullmatch(r"[^/]+/?", name) and name.strip("./")})
        # An empty folder has a link to the one above; a page of an overloaded server has none.
        if not names and _server_and_path(urljoin(here, "..")) not in map(_server_and_path, links):
            raise self.trouble(folder, "what came is no listing of a folder", transient=True)
        files = [Entry(f"{folder}/{name}", 0, 0) for name in names if not name.endswith("/")]
        return files, [f"{folder}/{name.rstrip('/')}" for name in names if name.endswith("/")]

    def _get(self, path: str) -> tuple[str, bytes] | None:
        """Return the address of a page or file, after redirects, and its content; None if there is none."""
        budget = in_memory(partial(self.trouble, path), self.settings)
        with self.client.getting(f"{self.url}/{quote(path)}", budget) as answer:
            if answer.status_code in (NOT_FOUND, GONE):
                return None
            check_status(answer, budget.failed)
            return str(answer.url), body_of(answer, budget)


def _server_and_path(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc + unquote(parts.path)


def open_store(url: str, archive: str, settings: Settings, *, web_connections: int | None = None) -> Store:
    """Open a folder at a URL: a path, file://, s3://, or https:// where folders are listed as pages.

    Parameters
    ----------
    url
        The folder.
    archive
        Name for messages.
    settings
        Longest wait for a connection, or for bytes; longest time and largest size.
    web_connections
        Connections to a web server that are kept open; None: https:// is refused.

    Raises
    ------
    ArchiveError
        If the URL is of another kind, or its bucket cannot be found.
    """
    url = url.rstrip("/")
    kind = url.partition("://")[0].lower() if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", url) else "file"
    if kind == "file":
        root = str(Path(url.removeprefix("file://")).expanduser().absolute())
        return Store(archive, url, root, fs.LocalFileSystem(), settings)
    if kind in ("http", "https") and web_connections is not None:
        return _Web(archive, url, url, None, settings, client=Client(settings.timeout_s, web_connections))
    if kind != "s3":
        raise ArchiveError(
            f"{kind}:// cannot be read", archive=archive, endpoint=url, hint="give a folder, file:// or s3://"
        )
    root = url.removeprefix("s3://")
    environment = _aws_environment()
    try:
        filesystem = _s3(root.partition("/")[0], environment, settings.timeout_s)
    except OSError as error:
        raise ArchiveError(
            f"the bucket cannot be found: {_first_line(error)}",
            archive=archive,
            endpoint=url,
            transient=not _REFUSED.search(str(error)),
        ) from error
    return Store(archive, url, root, filesystem, settings, environment)


def _aws_environment() -> str:
    """Return a fingerprint of the environment's AWS settings, which reveals none of them."""
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    return hashlib.blake2b(repr(settings).encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=16)
def _s3(bucket: str, environment: str, timeout_s: float) -> fs.FileSystem:
    """Return a client for a bucket, by the environment's settings; their fingerprint is a key of the cache."""
    service = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {
        "anonymous": not os.environ.get("AWS_ACCESS_KEY_ID"),
        "connect_timeout": timeout_s,
        "request_timeout": timeout_s,
        "retry_strategy": _ONCE,
    }
    if service:
        parts = urlsplit(service if "://" in service else f"https://{service}")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return fs.S3FileSystem(
            endpoint_override=f"{parts.netloc}{parts.path}".rstrip("/"), scheme=parts.scheme, region=region, **options
        )
    # A bucket has a region of its own: the environment's is that of this program.
    return fs.S3FileSystem(region=fs.resolve_s3_region(bucket), **options)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
