"""RXTE's archive as folders and files: a local mirror, a bucket, or HEASARC's server of files by its listings.

Whatever is asked is asked again if that may help; then it is an ArchiveError.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from html import unescape
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote, urljoin, urlsplit

from lake.errors import ArchiveError
from lake.settings import Settings
from tasks.services.bounds import Failed, in_memory, on_disk, read_file
from tasks.services.http import GONE, NOT_FOUND, Client, body_of, check_status, failing
from tasks.services.parquet import Store, open_store
from tasks.services.retry import Answer, with_retries
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.mission import Observation

# One process asks for this many files at the same time, where they are far away.
CONNECTIONS = 8

_ARCHIVE = "data/archive"

# Folders below an observation's own.
_DEEPEST = 10

_HREF = re.compile(r"""<a\s[^<>]*href\s*=\s*["']([^"']+)["']""", re.I)


@dataclass(frozen=True)
class WebStore:
    """A folder on a server that lists its folders as pages of links.

    Parameters
    ----------
    url
        Address of the folder, without a slash at the end.
    settings
        Limits of time and size.
    """

    url: str
    settings: Settings
    client: Client = field(repr=False)

    def files(self, folder: str = "") -> list[str]:
        """Return the paths of the files in a folder, sorted; none if it is not there."""
        return [path for path in self._listed(folder) if not path.endswith("/")]

    def folders(self, folder: str = "") -> list[str]:
        """Return the paths of the folders in a folder, sorted; none if it is not there."""
        return [path.rstrip("/") for path in self._listed(folder) if path.endswith("/")]

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, or None if it is not there."""
        found = self._get(path)
        return None if found is None else found[1]

    def _listed(self, folder: str) -> list[str]:
        folder = folder.strip("/")
        found = self._get(f"{folder}/")
        if found is None:
            return []
        url, page = found[0], found[1].decode(errors="replace")
        # Links may be names, or start at the server's root, or have its name before that.
        here = urljoin(url, ".")
        links = {urljoin(here, unescape(link)) for link in _HREF.findall(page) if not link.startswith(("?", "#"))}
        below = [_place(link).removeprefix(_place(here)) for link in links if _place(link).startswith(_place(here))]
        names = {name for name in below if re.fullmatch(r"[^/]+/?", name) and name.strip("./")}
        # An empty folder has a link to the one above; a page of an overloaded server has none.
        if not names and _place(urljoin(here, "..")) not in map(_place, links):
            raise self._failing(folder)("what came is no listing of a folder", transient=True)
        return sorted(f"{folder}/{name}" for name in names)

    def _get(self, path: str) -> tuple[str, bytes] | None:
        """Return where a page or file is, after redirects, and its content; None if it is not there."""
        budget = in_memory(self._failing(path), self.settings)
        with self.client.getting(f"{self.url}/{quote(path)}", budget) as answer:
            if answer.status_code in (NOT_FOUND, GONE):
                return None
            check_status(answer, budget.failed)
            return str(answer.url), body_of(answer, budget)

    def _failing(self, path: str) -> Failed:
        return failing(rxte.NAME, f"{self.url}/{path}", "check LIGHTLAKE_ENDPOINTS__RXTE")


def _place(url: str) -> str:
    """Return server and path of an address, to be compared."""
    parts = urlsplit(url)
    return parts.netloc + unquote(parts.path)


@dataclass(frozen=True)
class DiskStore:
    """A folder on a disk of this machine."""

    root: Path
    settings: Settings

    def files(self, folder: str = "") -> list[str]:
        """Return the paths of the files in a folder, sorted; none if it is not there."""
        return self._listed(folder, is_folder=False)

    def folders(self, folder: str = "") -> list[str]:
        """Return the paths of the folders in a folder, sorted; none if it is not there."""
        return self._listed(folder, is_folder=True)

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, or None if it is not there."""
        try:
            failed = failing(rxte.NAME, str(self.root / path), "check LIGHTLAKE_ENDPOINTS__RXTE")
            return read_file(self.root / path, in_memory(failed, self.settings))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._trouble(path, error) from error

    def _listed(self, folder: str, *, is_folder: bool) -> list[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(f"{folder}/{entry.name}" for entry in entries if entry.is_dir() == is_folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._trouble(folder, error) from error

    def _trouble(self, path: str, error: OSError) -> ArchiveError:
        return ArchiveError(
            f"reading failed: {error.strerror}",
            archive=rxte.NAME,
            endpoint=str(self.root / path),
            transient=not isinstance(error, PermissionError),
        )


class Mirror:
    """RXTE's archive at an address.

    Parameters
    ----------
    settings
        LIGHTLAKE_ENDPOINTS__RXTE, a folder, s3:// or https://, below which there is xte/data/archive or
        rxte/data/archive; a local folder may as well be that archive itself. And how
        often to try, and how long to wait.

    Raises
    ------
    ArchiveError
        If there is no such place.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = settings.endpoints.get(rxte.NAME, rxte.ORIGIN.endpoint).rstrip("/")
        kind = self.url.partition("://")[0] if "://" in self.url else "file"
        self.store: DiskStore | Store | WebStore
        self.prefixes = [f"{prefix}/{_ARCHIVE}" for prefix in rxte.PREFIXES]
        if kind == "file":
            root = Path(self.url.removeprefix("file://")).expanduser().absolute()
            if not root.is_dir():
                raise self._nowhere("there is no such folder")
            self.store = DiskStore(root, settings)
            # A mirror may begin at the folders of the cycles.
            self.prefixes = [prefix for prefix in (*self.prefixes, ".") if (root / prefix).is_dir()]
        elif kind in ("http", "https"):
            self.store = WebStore(self.url, settings, Client(settings.timeout_s, CONNECTIONS))
        else:
            self.store = open_store(self.url, rxte.NAME, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections."""
        if isinstance(self.store, WebStore):
            self.store.client.close()

    @property
    def is_local(self) -> bool:
        """Say whether it is on a disk of this machine."""
        return isinstance(self.store, DiskStore)

    def _nowhere(self, message: str) -> ArchiveError:
        return ArchiveError(message, archive=rxte.NAME, endpoint=self.url, hint="check LIGHTLAKE_ENDPOINTS__RXTE")

    def folder(self, observation: Observation) -> str | None:
        """Return where an observation lies, below the address; None if it is nowhere."""
        for path in self._candidates(observation):
            if self._tried(partial(self.store.folders, path)) or self.files(path):
                return path
        return None

    def light_curves(self, observation: Observation) -> list[str] | None:
        """Return the paths of the files in an observation's stdprod; None if there is no such observation.

        Not every band exists for every observation, and pieces of one often have no standard products at all: an
        empty list is an answer.
        """
        for path in self._candidates(observation):
            if found := self.files(f"{path}/{rxte.STDPROD}"):
                return found
        return None if self.folder(observation) is None else []

    def files(self, folder: str) -> list[str]:
        """Return the paths of the files in a folder."""
        return self._tried(partial(self.store.files, folder))

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises
        ------
        ArchiveError
            If it cannot be read, or is gone since it was listed.
        """
        content = self._tried(partial(self.store.read, path))
        if content is None:
            raise ArchiveError(
                "a file is gone", archive=rxte.NAME, endpoint=f"{self.url}/{path}", hint="try again later"
            )
        return content

    def fetch(self, folder: str, into: Path) -> Path:
        """Copy a folder and all below it to this machine, unless it is here; return where it is."""
        if isinstance(self.store, DiskStore):
            return self.store.root / folder
        budget = on_disk(failing(rxte.NAME, f"{self.url}/{folder}", "check LIGHTLAKE_ENDPOINTS__RXTE"), self.settings)
        for path in self._walk(folder):
            copy = into / path.removeprefix(folder).strip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            body = self.read(path)
            budget.took(len(body))
            copy.write_bytes(body)
        return into

    def _walk(self, folder: str, depth: int = 0) -> Iterator[str]:
        if depth > _DEEPEST:
            raise self._nowhere(f"{folder} is a folder in a folder without end")
        yield from self.files(folder)
        for below in self._tried(partial(self.store.folders, folder)):
            yield from self._walk(below, depth + 1)

    def _candidates(self, observation: Observation) -> list[str]:
        below = observation.paths[0].partition(f"{_ARCHIVE}/")[2].strip("/")
        return [f"{prefix}/{below}".removeprefix("./") for prefix in self.prefixes]

    def _tried(self, ask: Callable[[], Answer]) -> Answer:
        return with_retries(ask, self.settings)
