"""The files of exposures: from MAST, a folder, or a bucket such as s3://stpubdata; kept in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from lake.redact import redacted
from lake.settings import Settings
from lake.text import counted
from tasks.services.download import resume
from tasks.services.file_cache import FileCache
from tasks.services.http import Client, failing
from tasks.services.store import Store, open_store
from tasks.sources.hst_timetag.exposure import EVENT_SUFFIXES, split_name
from tasks.sources.hst_timetag.find import url_of
from tasks.sources.hst_timetag.tables import NAME, SERVICE

CONNECTIONS = 4


@dataclass(frozen=True)
class File:
    """A file of an exposure.

    Parameters
    ----------
    name
        Its name.
    location
        Its uri at MAST, or its path below a folder.
    size
        Bytes; 0 if nobody says.
    version
        What else tells it from a later one of the same name: when MAST made it, or when it changed in the folder.
    folder
        The folder or bucket; None: MAST.
    """

    name: str
    location: str
    size: int
    version: str = ""
    folder: str | None = None


@dataclass(frozen=True)
class Piece:
    """The files of one rootname: an exposure, but for STIS files of several.

    Parameters
    ----------
    rootname
        In small letters.
    files
        Event files and the extracted spectrum, by name.
    """

    rootname: str
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """Return how large it is."""
        return sum(file.size for file in self.files)

    @property
    def folder(self) -> str | None:
        """Return the folder or bucket of its files; None: MAST."""
        return self.files[0].folder

    @property
    def version(self) -> tuple[str, ...]:
        """Return what changes when it is calibrated anew."""
        return tuple(f"{file.name} {file.size} {file.version}" for file in self.files)


def pieces_of(products: pa.Table, exposures: pa.Table) -> list[Piece]:
    """Return what MAST lists as pieces, by rootname.

    Parameters
    ----------
    products, exposures
        Tables `FILES` and `EXPOSURES` of tasks.sources.hst_timetag.find.
    """
    made = dict(zip(exposures["exposure_id"].to_pylist(), exposures["generated_at"].to_pylist(), strict=True))
    rows: dict[str, list[File]] = {}
    for row in products.to_pylist():
        rootname, when = row["exposure_id"], made.get(row["exposure_id"])
        version = when.isoformat() if when is not None else ""
        rows.setdefault(rootname, []).append(File(row["filename"], row["uri"], row["bytes"] or 0, version))
    return [Piece(name, tuple(sorted(files, key=lambda file: file.name))) for name, files in sorted(rows.items())]


def _pieces(entries: Iterable[tuple[str, int, int]], folder: str) -> list[Piece]:
    """Return the files of a folder as pieces: paths, sizes and times of change."""
    rows: dict[str, dict[str, File]] = {}
    for path, size, changed in entries:
        name = path.rpartition("/")[2]
        parts = split_name(name)
        if parts is not None:
            # Of copies in several folders the first is taken.
            rows.setdefault(parts[0], {}).setdefault(name.lower(), File(name, path, size, str(changed), folder))
    found = []
    for rootname, files in sorted(rows.items()):
        suffixes = {parts[1] for file in files.values() if (parts := split_name(file.name))}
        if suffixes & set(EVENT_SUFFIXES):
            found.append(Piece(rootname, tuple(files[name] for name in sorted(files))))
    return found


class Files:
    """Where files are fetched from, as a context manager.

    Parameters
    ----------
    url
        A folder or s3:// prefix; None: MAST.
    settings
        Cache folder, time-outs and retries.

    Raises
    ------
    ArchiveError
        If there is no such folder.
    """

    def __init__(self, url: str | None, settings: Settings) -> None:
        self.settings, self.url = settings, url
        self._client: Client | None = None
        self._store: Store | None = None
        if url is None:
            self._client = Client(settings.timeout_s, CONNECTIONS)
        else:
            self._store = open_store(url, NAME, settings)
        root = settings.cache_dir.expanduser() / NAME
        if url is not None:  # files of the same name elsewhere are others
            root /= _short_hash(redacted(url))
        self._cache = FileCache(root, NAME, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *why: object) -> None:
        if self._client is not None:
            self._client.close()
        if self._store is not None:
            self._store.close()

    @property
    def is_local(self) -> bool:
        """Say whether the files are on a disk of this machine."""
        return self._store is not None and self._store.is_local

    @property
    def endpoint(self) -> str:
        """Return the address for messages and the ledger."""
        return url_of("", self.settings).partition("?")[0] if self._store is None else self._store.url

    def pieces(self) -> list[Piece]:
        """List what a folder has.

        Raises
        ------
        ArchiveError
            If it has no event files, or is not there.
        """
        if self._store is None:
            return []
        if not self._store.exists():
            raise self._store.trouble("", "there is no such folder")
        found = _pieces(self._store.entries(recursive=True)[0], str(self.url))
        if not found:
            raise self._store.trouble("", "there are no corrtag or tag files in it")
        return found

    def fetch(self, piece: Piece) -> list[Path]:
        """Return the files of a piece on a disk of this machine.

        Raises
        ------
        ArchiveError
            If one cannot be fetched.
        """
        return [self._fetched(file) for file in piece.files]

    def _fetched(self, file: File) -> Path:
        if self._store is not None and self._store.is_local:
            path = self._store.path(file.location)
            if not path.is_file():
                raise self._store.trouble(file.location, "the file is gone")
            return path
        check = partial(_wrong_size, size=file.size)
        # A file that was calibrated anew may be as long as before.
        kept = f"{_short_hash(file.version)}/{file.location}"
        if self._store is not None:
            failed = partial(self._store.trouble, file.location)
            return self._cache.get(kept, file.size or None, partial(self._copy, file), failed, check)
        assert self._client is not None  # noqa: S101 - MAST is asked where there is no store
        url = url_of(file.location, self.settings)
        failed_web = failing(NAME, url, f"check LIGHTLAKE_ENDPOINTS__{SERVICE.upper()}")
        return self._cache.get(
            kept,
            file.size or None,
            lambda part: resume(self._client, url, part, failed_web, self.settings),  # type: ignore[arg-type]
            failed_web,
            check,
        )

    def _copy(self, file: File, part: Path) -> None:
        store: Any = self._store
        body = store.read(file.location)
        if body is None:
            raise store.trouble(file.location, "the file is gone")
        part.write_bytes(body)


def _short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _wrong_size(path: Path, size: int) -> str | None:
    found = path.stat().st_size
    return f"what came is not the file: {found} of {counted(size, 'byte')}" if size and found != size else None


def located(piece: Piece) -> dict[str, dict[str, Any]]:
    """Return what table hst_exposures keeps of files, so that composites find them again."""
    return {
        file.name: {"bytes": file.size, "location": file.location, "version": file.version, "folder": file.folder}
        for file in piece.files
    }


def relocated(files: Mapping[str, Mapping[str, Any]]) -> Piece:
    """Return the piece of what table hst_exposures keeps of files."""
    kept = [
        File(name, one["location"], one["bytes"], one["version"], one["folder"]) for name, one in sorted(files.items())
    ]
    return Piece(next(parts[0] for file in kept if (parts := split_name(file.name))), tuple(kept))
