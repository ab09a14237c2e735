"""Parquet files below a URL, in a local folder or on S3: listed, opened, and read a row group at a time.

Public buckets are read anonymously, unless AWS_ACCESS_KEY_ID is set. AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3)
points to another S3 service, such as a mirror. Whatever goes wrong is an ArchiveError that says whether asking
again may help: it may with overload (503 SlowDown), resets, time-outs, and objects that are damaged, have
changed or are gone, since archives replace their files while they are read; it does not with refusals.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from lake.errors import ArchiveError
from lake.settings import Settings
from tasks.services.bounds import in_memory, in_time, on_disk
from tasks.services.request_counters import not_counted
from tasks.services.values import integers, measured

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_Result = TypeVar("_Result")

# Words of S3 that asking again does not change; 404 is not among them: see the top.
_REFUSED = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|PermanentRedirect"
    r"|HTTP status (30\d|400|401|403|405)\b"
)
_GONE = re.compile(r"NO_SUCH_KEY|RESOURCE_NOT_FOUND|HTTP status 404\b")

# Rows decoded at a time: of plain columns, and of nested light curves with some hundred epochs each.
_ROWS, _NESTED_ROWS = 131_072, 512

# Bytes of a column that are read at a time from a local file.
_LOCAL_BUFFER = 1 << 20

# A file with more than this may have that much of a description at its end, which takes some times more in memory.
_LARGE_FOOTER, _FOOTER_IN_MEMORY = 16_000_000, 2

# The AWS client tries once: what failed is retried in one place, the engine or `with_retries`.
_ONCE = fs.AwsStandardS3RetryStrategy(max_attempts=1)


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
        Fingerprint of what the file system's client took from the environment: the same URL may be another place,
        or refused, with other settings.
    """

    archive: str
    url: str
    root: str
    filesystem: fs.FileSystem = field(repr=False, compare=False)
    settings: Settings = field(repr=False, compare=False)
    environment: str = ""

    def below(self, name: str) -> Store:
        """Return a folder in this one."""
        name = name.strip("/")
        return replace(self, url=f"{self.url}/{name}", root=f"{self.root}/{name}") if name else self

    def read(self, path: str) -> bytes | None:
        """Return the content of a file that fits into memory, or None if it is not there."""
        return self.in_time(partial(self._read, path), path)

    def _read(self, path: str) -> bytes | None:
        with self._asking(path):
            try:
                with self.filesystem.open_input_file(f"{self.root}/{path}") as stream:
                    in_memory(partial(self.trouble, path), self.settings).expects(size := stream.size(), "the file")
                    return bytes(stream.read(size))
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                if _GONE.search(str(error)):
                    return None
                raise

    def in_time(self, work: Callable[[], _Result], path: str = "") -> _Result:
        """Do what reads here; what is far away has its time, and then is left."""
        if isinstance(self.filesystem, fs.LocalFileSystem):
            return work()
        return in_time(work, in_memory(partial(self.trouble, path), self.settings))

    def files(self, folder: str = "", *, recursive: bool = False) -> list[str]:
        """Return the paths of the files in a folder, sorted; none if the folder is not there."""
        return self._listed(folder, fs.FileType.File, recursive=recursive)

    def folders(self, folder: str = "") -> list[str]:
        """Return the paths of the folders in a folder, sorted; none if it is not there."""
        return self._listed(folder, fs.FileType.Directory)

    def _listed(self, folder: str, kind: fs.FileType, *, recursive: bool = False) -> list[str]:
        found = self._information(folder, recursive=recursive)
        return sorted(info.path[len(self.root) + 1 :] for info in found if info.type == kind)

    def _information(self, folder: str, *, recursive: bool = False) -> list[fs.FileInfo]:
        """Return what is known of all that is in a folder."""
        base = f"{self.root}/{folder.strip('/')}".rstrip("/")
        selector = fs.FileSelector(base, allow_not_found=True, recursive=recursive)

        def ask() -> list[fs.FileInfo]:
            with self._asking(folder):
                return list(self.filesystem.get_file_info(selector))

        return self.in_time(ask, folder)

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
                # Far away, a row group's columns come in few requests that way, and a row group is all that is held.
                # Here it costs more than it saves: decoding takes 1.7 times as long.
                with pq.ParquetFile(stream, **self._buffering()) as file:
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
        leaves = _leaf_numbers(file)
        chosen = [n for leaf, n in leaves.items() if leaf in columns or leaf.split(".")[0] in columns]
        sizes = [file.metadata.row_group(group).column(n).total_uncompressed_size for n in chosen]
        if min(sizes, default=0) < 0:
            raise self.trouble(path, "the file is damaged: it has a column of negative size", transient=True)
        on_disk(partial(self.trouble, path), self.settings).expects(sum(sizes), f"row group {group}")

    def _buffering(self) -> dict[str, Any]:
        local = isinstance(self.filesystem, fs.LocalFileSystem)
        return {"buffer_size": _LOCAL_BUFFER} if local else {"pre_buffer": True}

    def _version(self, name: str, stream: pa.NativeFile) -> object:
        # On S3 the ETag, as times there are of seconds.
        info = None if (tag := stream.metadata().get("ETag")) else self.filesystem.get_file_info(name)
        return (stream.size(), info.mtime_ns if info else tag)

    def trouble(
        self, path: str, message: str, *, transient: bool = False, retry_after_s: float | None = None
    ) -> ArchiveError:
        """Return the error that a file's failure is."""
        hint = None if transient else f"check LIGHTLAKE_ENDPOINTS__{self.archive.upper()}"
        endpoint = f"{self.url}/{path}".rstrip("/")
        return ArchiveError(
            message,
            archive=self.archive,
            endpoint=endpoint,
            transient=transient,
            retry_after_s=retry_after_s,
            hint=hint,
        )

    @contextmanager
    def _asking(self, path: str) -> Iterator[None]:
        if not isinstance(self.filesystem, fs.LocalFileSystem):
            not_counted()
        try:
            yield
        except FileNotFoundError as error:
            raise self.trouble(path, "a file is gone", transient=True) from error
        except PermissionError as error:
            raise self.trouble(path, f"no permission: {_told(error)}") from error
        except pa.ArrowException as error:
            raise self.trouble(path, f"the file is damaged: {_told(error)}", transient=True) from error
        except OSError as error:
            if _GONE.search(str(error)):
                raise self.trouble(path, "a file is gone", transient=True) from FileNotFoundError(_told(error))
            refused = bool(_REFUSED.search(str(error)))
            raise self.trouble(path, f"reading failed: {_told(error)}", transient=not refused) from error


def open_store(url: str, archive: str, settings: Settings) -> Store:
    """Open a folder at a URL: a path, file:// or s3://.

    Parameters
    ----------
    url
        The folder.
    archive
        Name for messages.
    settings
        Longest wait for a connection, or for bytes; longest time and largest size.

    Raises
    ------
    ArchiveError
        If the URL is of another kind, or its bucket cannot be found.
    """
    url = url.rstrip("/")
    kind = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", url)
    if kind is None or kind[1] == "file":
        root = str(Path(url.removeprefix("file://")).expanduser().absolute())
        return Store(archive, url, root, fs.LocalFileSystem(), settings)
    if kind[1] != "s3":
        raise ArchiveError(
            f"{kind[1]}:// cannot be read", archive=archive, endpoint=url, hint="give a folder, file:// or s3://"
        )
    root = url.removeprefix("s3://")
    bucket = root.partition("/")[0]
    environment = _aws_environment()
    try:
        filesystem = _s3(bucket, environment, settings.timeout_s)
    except OSError as error:
        raise ArchiveError(
            f"the bucket cannot be found: {_told(error)}",
            archive=archive,
            endpoint=url,
            transient=not _REFUSED.search(str(error)),
        ) from error
    return Store(archive, url, root, filesystem, settings, environment)


def _aws_environment() -> str:
    """Return a fingerprint of the environment's AWS settings: it tells them apart, and tells no secret."""
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    return hashlib.blake2b(repr(settings).encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=16)
def _s3(bucket: str, environment: str, timeout_s: float) -> fs.FileSystem:
    """Return a client for a bucket, made of the environment of that fingerprint, which is the one there is."""
    service = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options = {
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
    # A bucket's region is its own: what the environment says is where this program runs.
    return fs.S3FileSystem(region=fs.resolve_s3_region(bucket), **options)


def _told(error: BaseException) -> str:
    """Return an error's first line, cut to what a reader needs."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def column_names(file: pq.ParquetFile) -> dict[str, str]:
    """Return the names of a file's columns, by their names in lower case: archives are not always consistent."""
    return {name.lower(): name for name in file.schema_arrow.names}


def bounds(file: pq.ParquetFile, group: int, column: str) -> tuple[float, float] | None:
    """Return the least and the greatest value of a column in a row group, as its statistics say, or None."""
    number = _leaf_numbers(file).get(column)
    if number is None:
        return None
    statistics = file.metadata.row_group(group).column(number).statistics
    if statistics is None or not statistics.has_min_max:
        return None
    return statistics.min, statistics.max


def _leaf_numbers(file: pq.ParquetFile) -> dict[str, int]:
    return {file.schema.column(number).path: number for number in range(len(file.schema))}


def nested_paths(file: pq.ParquetFile, nested: str, fields: Sequence[str]) -> list[str] | None:
    """Return the paths of the leaves that hold a nested column's fields, or those of plain list columns.

    Parameters
    ----------
    nested
        Column of light curves: a list of structs or a struct of lists. Where there is none, columns named like
        the fields are meant.
    fields
        Names of the values of an epoch.

    Returns
    -------
    list or None
        None if any is missing.
    """
    paths = []
    for name in fields:
        inside = [path for path in _leaf_numbers(file) if path.startswith(f"{nested}.") and name in path.split(".")]
        plain = [path for path in _leaf_numbers(file) if path.split(".")[0] == name]
        if not inside and not plain:
            return None
        paths.append((inside or plain)[0])
    return paths


def epochs(table: pa.Table, nested: str, fields: Sequence[str]) -> tuple[Ints, dict[str, pa.Array]]:
    """Return the epochs of nested light curves: the row that each belongs to, and its values by field.

    Parameters
    ----------
    table
        Rows with the nested column, or with a list column for each field.
    nested, fields
        As in nested_paths.

    Raises
    ------
    pa.ArrowInvalid
        If the fields are not of one length in any row. A row among others of which they are not has one epoch, of
        which nothing is known.
    """
    lists = {}
    if nested in table.column_names:
        column = table[nested].combine_chunks()
        if pa.types.is_struct(column.type):
            lists = {name: pc.struct_field(column, name) for name in fields}
        else:
            row = pc.list_parent_indices(column).to_numpy().astype(np.int64)
            values = pc.list_flatten(column)
            return row, {name: pc.struct_field(values, name) for name in fields}
    else:
        lists = {name: table[name].combine_chunks() for name in fields}
    lengths = [pc.fill_null(pc.list_value_length(column), 0).to_numpy() for column in lists.values()]
    same = np.logical_and.reduce([length == lengths[0] for length in lengths])
    if not same.all():
        if not same.any():
            raise pa.ArrowInvalid(f"the lists {', '.join(fields)} of a light curve differ in length")
        nothing = pa.array([[None]])
        lists = {
            name: pc.if_else(pa.array(same), column, nothing.cast(column.type)[0]) for name, column in lists.items()
        }
    rows = pc.list_parent_indices(next(iter(lists.values()))).to_numpy()
    return rows.astype(np.int64), {name: pc.list_flatten(column) for name, column in lists.items()}


def excluded(known: tuple[float, float] | None, values: Ints) -> bool:
    """Say whether a column's bounds leave no room for any of some values."""
    return known is not None and not np.any((values >= known[0]) & (values <= known[1]))


def pick(
    file: pq.ParquetFile,
    group: int,
    columns: Mapping[str, str],
    allowed: Mapping[str, Ints],
    near: Callable[[Floats, Floats], Ints] | None,
) -> tuple[pa.Table, Ints]:
    """Return the rows of a row group that are wanted, and where in it they are.

    Parameters
    ----------
    columns
        Columns to return, by the names to give them.
    allowed
        Values that a row must have one of, by name.
    near
        Tells which of some positions are wanted (columns ra and dec, in degrees); None for all.
    """
    parts, places, offset = [], [np.empty(0, np.int64)], 0
    real = list(dict.fromkeys(columns.values()))
    for batch in file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=real, use_threads=False):
        keep = np.arange(batch.num_rows)
        for name, values in allowed.items():
            found = pc.is_in(integers(batch[columns[name]]), value_set=pa.array(values))
            keep = keep[found.to_numpy(zero_copy_only=False)[keep]]
        if near is not None and len(keep):
            keep = keep[near(*(measured(batch[columns[name]])[keep] for name in ("ra", "dec")))]
        if len(keep):
            rows = pa.table({name: batch[real].take(pa.array(keep)) for name, real in columns.items()})
            for name in ("ra", "dec") if near is not None else ():
                rows = rows.set_column(rows.column_names.index(name), name, rows[name].cast(pa.float64()))
            parts.append(rows)
            places.append(keep + offset)
        offset += batch.num_rows
    return pa.concat_tables(parts) if parts else pa.table({}), np.concatenate(places)


def pick_epochs(
    file: pq.ParquetFile, group: int, taken: Ints, nested: str, fields: Sequence[str], paths: Sequence[str]
) -> pa.Table:
    """Return the epochs of the light curves of some rows of a row group; column row counts the rows taken."""
    parts, offset = [], 0
    for batch in file.iter_batches(batch_size=_NESTED_ROWS, row_groups=[group], columns=paths, use_threads=False):
        begin, end = np.searchsorted(taken, (offset, offset + batch.num_rows))
        if end > begin:
            chosen = pa.Table.from_batches([batch]).take(pa.array(taken[begin:end] - offset))
            row, values = epochs(chosen, nested, fields)
            parts.append(pa.table({"row": row + begin, **values}))
        offset += batch.num_rows
        if end == len(taken):
            break
    return pa.concat_tables(parts)
