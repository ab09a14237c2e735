"""Where a lake lives: its folders, how files get into them, and their checksums."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lake.errors import ConfigurationError

# Small row groups make a query of one object cheap: 26-38 ms against 47 ms and more with larger ones,
# on 100 million rows (design of the lake, section 2).
ROW_GROUP_ROWS = 32_768

# Suffix of a copy that is not complete yet.
PARTIAL = ".part"


@dataclass(frozen=True)
class Storage:
    """The folders of one lake.

    ``data/main/<table>/`` holds what the catalogue knows; ``staging/`` what is not committed yet.
    """

    root: Path

    @classmethod
    def from_url(cls, url: str | os.PathLike[str]) -> Storage:
        """Read a lake's URL: a local path or file:// URL.

        Raises
        ------
        ConfigurationError
            If the URL is of another kind.
        """
        text = os.fspath(url).strip()
        if not text:
            raise ConfigurationError("the lake's URL is empty", hint="give a folder, or set LIGHTLAKE_URL")
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", text)
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        elif scheme:
            raise ConfigurationError(
                f"cannot keep a lake at {text!r}: {scheme[1]}:// is not supported",
                hint="give a local folder, such as ./lightlake",
            )
        return cls(Path(text).expanduser().absolute())

    @property
    def data(self) -> Path:
        """Return the folder below which DuckLake keeps its files."""
        return self.root / "data"

    @property
    def staging(self) -> Path:
        """Return the folder of what is not committed yet."""
        return self.root / "staging"

    def table_folder(self, table: str, archive: str | None = None) -> Path:
        """Return the folder of a table, or of one archive's partition of it."""
        folder = self.data / "main" / table
        return folder / f"archive={archive}" if archive else folder

    def table_files(self, table: str) -> Iterator[Path]:
        """Yield every Parquet file in a table's folder."""
        return self.table_folder(table).rglob("*.parquet")

    def relative(self, path: Path) -> str:
        """Return a file's path below data/main, as table files records it."""
        return path.relative_to(self.data / "main").as_posix()

    def create(self) -> None:
        """Make the folders.

        Raises
        ------
        ConfigurationError
            If the place cannot be written.
        """
        try:
            (self.data / "main").mkdir(parents=True, exist_ok=True)
            self.staging.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"cannot make a lake at {self.root}: {error.strerror}",
                hint="choose a folder that you may write to",
            ) from error
        if not os.access(self.root, os.W_OK):
            raise ConfigurationError(
                f"no permission to write to {self.root}", hint="choose a folder that you may write to"
            )


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write one Parquet file and push it to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)  # after a crash it may be a second name of a file in the tree, which must not change
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_statistics=True)
    flush(path)


def flush(path: Path) -> None:
    """Push a file or folder to the disk: a commit must not outlive the files that it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(staged: Path, final: Path) -> None:
    """Show a staged file in the tree, in one step; the staged one stays until its commit is through."""
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


def remove(path: Path) -> None:
    """Remove a file that may be gone already."""
    with suppress(FileNotFoundError):
        path.unlink()


def checksum(path: Path) -> str:
    """Return the BLAKE2b-128 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
