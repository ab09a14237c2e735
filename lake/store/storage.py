"""Where a lake lives, on a local disk or S3: its folders, how files get into them, and their checksums."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import TypeIs

from lake.errors import ConfigurationError
from lake.model.schema import TABLES
from lake.settings import load_settings
from lake.store import s3
from lake.store.row_groups import compact, encodings, row_groups
from lake.store.walk import files_below

if TYPE_CHECKING:
    from upath import UPath

# Small row groups make a query of one object cheap: 26-38 ms against 47 ms and more with larger ones,
# on 100 million rows.
ROW_GROUP_ROWS = 32_768

# A folder that Hive's readers take for a column's value.
_HIVE = re.compile(r"[^=]+=[^=]*$")

# Suffix of a copy that is not complete yet.
PARTIAL = ".part"

# Signs in the name of a lake below which DuckDB does not find files that are there (tried one by one).
_NOT_ON_S3 = r"&?[*\<>"
_NOT_ON_DISK = "\\"


def path_of(url: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> UPath:
    """Return a path of a lake: local, or s3:// with the options of the settings.

    Parameters
    ----------
    url
        A local path, file:// or s3:// URL.
    options
        Options of s3fs; None: those of LIGHTLAKE_STORAGE_OPTIONS. What they do not say comes from AWS's environment
        and configuration files: see lake.store.s3.

    Raises
    ------
    ConfigurationError
        If the URL is of another kind, an option is not known, or s3fs is not installed.
    """
    text = os.fspath(url).strip()
    if not text:
        raise ConfigurationError("the lake's URL is empty", hint="give a folder, or set LIGHTLAKE_URL")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", text)
    if text.startswith("s3://"):
        if not text.removeprefix("s3://").strip("/"):
            raise ConfigurationError(f"{text!r} names no bucket", hint="give s3://BUCKET/PREFIX")
        given = load_settings().storage_options if options is None else options
        try:
            from upath import UPath

            from lake.store.s3_files import use_s3_files

            use_s3_files()
            remote: UPath = UPath(text.rstrip("/"), **s3.access(given).options())
            return remote
        except ImportError as error:
            raise ConfigurationError(f"a lake on S3 needs s3fs: {error}", hint="run: pip install s3fs") from error
    if scheme and scheme[1] != "file":
        raise ConfigurationError(
            f"cannot keep a lake at {text!r}: {scheme[1]}:// is not supported",
            hint="give a local folder, such as ./lightlake, or s3://BUCKET/PREFIX",
        )
    return local_path(Path(text.removeprefix("file://")).expanduser().absolute())


def local_path(path: str | os.PathLike[str]) -> UPath:
    """Return a path on a disk of this machine, with the type of all paths of a lake.

    It is a `pathlib.Path`: loading UPath takes longer than many a query.
    """
    return cast("UPath", Path(path))


def is_local(path: UPath | Path) -> TypeIs[Path]:
    """Say whether a path is on a disk of this machine."""
    return isinstance(path, Path)


@dataclass(frozen=True)
class Storage:
    """The folders of one lake.

    ``data/main/<table>/`` holds what the catalogue knows; ``staging/`` what is not committed yet.
    """

    root: UPath

    @classmethod
    def from_url(cls, url: str | os.PathLike[str]) -> Storage:
        """Read a lake's URL: a local path, file:// or s3:// URL.

        Raises
        ------
        ConfigurationError
            If the URL is of another kind, or no lake can be there.
        """
        root = path_of(url)
        for folder in (part for part in root.parts if _HIVE.match(part)):
            # DuckDB, and with it DuckLake, takes the first such folder of a path for the value of the column.
            name = folder.partition("=")[0]
            if any(name.lower() in table.names for table in TABLES.values()):
                raise ConfigurationError(
                    f"no lake can be at {root}: readers take the folder {folder} for the {name} of every row",
                    hint="choose a folder whose path has none of that kind",
                )
        return cls(root)

    @property
    def is_local(self) -> bool:
        """Say whether the lake is on a disk of this machine."""
        return is_local(self.root)

    @property
    def data(self) -> UPath:
        """Return the folder below which DuckLake keeps its files."""
        return self.root / "data"

    @property
    def staging(self) -> UPath:
        """Return the folder of files that are not committed yet."""
        return self.root / "staging"

    def path(self, url: str) -> UPath:
        """Convert a text to a path of this lake."""
        return path_of(url, {} if self.is_local else self.root.storage_options)

    def table_folder(self, table: str, archive: str | None = None) -> UPath:
        """Return the folder of a table, or of one archive's partition of it."""
        folder = self.data / "main" / table
        return folder / f"archive={archive}" if archive else folder

    def table_files(self, table: str) -> Iterator[UPath]:
        """Yield every Parquet file in a table's folder.

        Raises
        ------
        OSError
            If a folder in it cannot be read: what is in there is not known, so it must not count as nothing.
        """
        folder = self.table_folder(table)
        if not is_local(folder):
            return folder.rglob("*.parquet")
        found = files_below(folder, "*.parquet", _raised, follow_links=False) if folder.exists() else ()
        return (local_path(path) for path, _ in found)

    def relative(self, path: UPath) -> str:
        """Return a file's path below data/main, as table files records it."""
        return path.relative_to(self.data / "main").as_posix()

    def create(self) -> None:
        """Make the folders; on S3, check that the bucket exists and can be written.

        Raises
        ------
        ConfigurationError
            If the place cannot be written.
        """
        _check_prefix(self.root)
        if not self.is_local:
            with s3.reached(self.root):
                probe = self.staging / "probe"
                probe.write_text("")
                remove(probe)
            return
        try:
            (self.data / "main").mkdir(parents=True, exist_ok=True)
            self.staging.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"cannot make a lake at {self.root}: {error.strerror}", hint="choose a folder that you may write to"
            ) from error
        if not os.access(str(self.root), os.W_OK):
            raise ConfigurationError(
                f"no permission to write to {self.root}", hint="choose a folder that you may write to"
            )

    def reached(self) -> AbstractContextManager[None]:
        """Report errors of a lake on S3 in one line: see `lake.store.s3.reached`."""
        return nullcontext() if self.is_local else s3.reached(self.root)

    def check_reachable(self) -> None:
        """Check that the bucket of a lake on S3 answers, before any work is done.

        Raises
        ------
        CatalogError
            If it does not; it names service and bucket.
        """
        if not self.is_local:
            with s3.reached(self.root):
                bucket, _, prefix = self.root.path.partition("/")
                self.root.fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{prefix}/", MaxKeys=1)


def _check_prefix(root: UPath | Path) -> None:
    """Refuse names that DuckDB would read as patterns or parts of an address, and then not find."""
    text = str(root)
    found = [
        sign for sign in text if sign in (_NOT_ON_DISK if is_local(root) else _NOT_ON_S3) or not sign.isprintable()
    ]
    if not is_local(root) and "//" in text.removeprefix("s3://"):
        found.append("//")
    if found:
        raise ConfigurationError(
            f"no lake can be at {text!r}: DuckDB does not find files below a name with {' '.join(map(repr, found))}",
            hint="choose a name of letters, digits, '-', '_' and '.'",
        )


def _raised(error: OSError) -> None:
    raise error


def write_parquet(tables: pa.Table | Iterable[pa.Table], path: UPath | Path) -> int:
    """Write one Parquet file and push it to the disk; on S3 it is there whole or not at all.

    Parameters
    ----------
    tables
        The rows, or parts of them that are held one at a time; at least one.
    path
        The file.

    Returns
    -------
    int
        Rows written.
    """
    parts = iter([tables] if isinstance(tables, pa.Table) else tables)
    if is_local(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(path)  # after a crash it may be a second name of a file in the tree, which must not change
    first = next(parts)
    while not first.num_rows and (second := next(parts, None)) is not None:
        first = second  # encodings are chosen by rows
    rows = 0
    try:
        with (
            path.open("wb") as file,
            pq.ParquetWriter(file, first.schema, **encodings(first.slice(0, ROW_GROUP_ROWS))) as writer,
        ):
            # Readers take column types from here: those of the values, where rows have dictionaries.
            schema = decoded(first.slice(0, 0)).schema.serialize()
            writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(schema)})
            for group in row_groups(itertools.chain([first], parts), ROW_GROUP_ROWS):
                writer.write_table(compact(group), row_group_size=ROW_GROUP_ROWS)
                rows += group.num_rows
            if not rows:
                writer.write_table(first)
    except BaseException as error:
        with suppress(OSError):
            remove(path)  # closed, it looks as if it were whole
        # What a full disk says has no name. An error without a number, as of S3, is its text, which a name would hide.
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    flush(path)
    return rows


def decoded(table: pa.Table, names: Collection[str] | None = None) -> pa.Table:
    """Replace dictionary-encoded columns by their values; some columns, or all."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and (names is None or field.name in names):
            plain = field.type.value_type
            table = table.set_column(place, field.with_type(plain), table[place].cast(plain))
    return table


def read_parquet(path: UPath | Path, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file, its columns only: no column comes from the names of folders.

    Pages are compared with their checksums, where they have any; that takes about 5 % longer (benchmarks.damage).
    """
    with path.open("rb") as file:
        return decoded(pq.ParquetFile(file, page_checksum_verification=True).read(columns))


def parquet_content(content: bytes, dictionaries: Collection[str] = ()) -> pa.Table:
    """Read the content of a small Parquet file, some of its columns as dictionaries."""
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=list(dictionaries), page_checksum_verification=True)
    return file.read(use_threads=False)


def parquet_rows(path: UPath | Path) -> int:
    """Return the number of rows in a Parquet file's footer."""
    with path.open("rb") as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def write_text(path: UPath | Path, text: str) -> None:
    """Write a small file in one step: a reader sees all of it or none."""
    if not is_local(path):
        path.write_text(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(PARTIAL)
    partial.write_text(text)
    flush(partial)
    partial.replace(path)
    flush(path.parent)


def flush(path: UPath | Path) -> None:
    """Push a file or folder to the disk: a commit must not outlive the files that it names."""
    if not is_local(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(staged: UPath | Path, final: UPath | Path) -> None:
    """Place a staged file into the tree, in one step; the staged one stays until its commit has ended."""
    if not is_local(final):
        if is_local(staged):
            final.fs.put_file(str(staged), final.path)
        else:
            final.fs.cp_file(staged.path, final.path)
        return
    if not is_local(staged):
        raise ConfigurationError(f"{staged} is on S3, but the lake is not", hint="stage on the disk of the lake")
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(staged, final)
    except OSError:
        # A file system without hard links, or staging on another one.
        partial = final.with_suffix(PARTIAL)
        shutil.copyfile(staged, partial)
        flush(partial)
        partial.replace(final)
    flush(final.parent)


def changed_at(path: UPath | Path) -> float:
    """Return when a file or its name was changed last: placing one into the tree is such a change."""
    found = path.stat()
    return float(max(found.st_mtime, found.st_ctime) if is_local(path) else found.st_mtime)


def remove(path: UPath | Path) -> None:
    """Remove a file that may be gone already."""
    with suppress(FileNotFoundError):
        path.unlink()


def remove_folder(path: UPath | Path) -> None:
    """Remove a staging folder and its content; the next compaction removes what cannot be removed now."""
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.fs.rm(path.path, recursive=True)


def checksum(path: UPath | Path) -> str:
    """Return the BLAKE2b-128 of a file's content, hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def checksum_of(content: bytes) -> str:
    """Return the same of a content in memory."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
