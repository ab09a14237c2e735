"""RXTE's archive as folders and files: a local mirror, a bucket, or HEASARC's web server by its listings.

Requests are retried if that may help; what fails then is an ArchiveError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from lake.errors import ArchiveError
from lake.settings import Settings
from tasks.services.bounds import on_disk
from tasks.services.retry import Answer, with_retries
from tasks.services.store import open_store
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.mission import Observation

# One process asks for this many files at the same time, where they are far away.
CONNECTIONS = 8

_ARCHIVE = "data/archive"

# Folders below an observation's own.
_DEEPEST = 10


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
        self.store = open_store(self.url, rxte.NAME, settings, web_connections=CONNECTIONS)
        self.prefixes = [f"{prefix}/{_ARCHIVE}" for prefix in rxte.PREFIXES]
        if self.store.is_local:
            if not self.store.path().is_dir():
                raise self._nowhere("there is no such folder")
            # A mirror may begin at the folders of the cycles.
            self.prefixes = [prefix for prefix in (*self.prefixes, ".") if self.store.path(prefix).is_dir()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.store.close()

    @property
    def is_local(self) -> bool:
        """Say whether it is on a disk of this machine."""
        return self.store.is_local

    def _nowhere(self, message: str) -> ArchiveError:
        return ArchiveError(message, archive=rxte.NAME, endpoint=self.url, hint="check LIGHTLAKE_ENDPOINTS__RXTE")

    def folder(self, observation: Observation) -> str | None:
        """Find the folder of an observation, below the address; None if there is none."""
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
        """Copy a folder and all below it to this machine, unless it is here; return its path."""
        if self.store.is_local:
            return self.store.path(folder)
        budget = on_disk(partial(self.store.trouble, folder), self.settings)
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
