"""Find the data releases of an archive by listing the folders beside the one that is pulled."""

from __future__ import annotations

import re

from lake.settings import Settings
from tasks.services.retry import with_retries
from tasks.services.store import open_store
from tasks.sources.base import Archive

# Stands for the newest release, where a release is chosen.
NEWEST = "newest"

_NUMBERED = re.compile(r"(.*?)(\d+)")


def found(archive: Archive, settings: Settings) -> list[str]:
    """Return the releases of an archive, oldest first; none if they do not lie side by side.

    A release counts if its folder has files: the folder of a new release may exist before its data.

    Raises
    ------
    ArchiveError
        If they cannot be listed.
    """
    before, mark, after = archive.url_template(settings).partition("{release}")
    numbered = _NUMBERED.fullmatch(archive.release)
    if not mark or not numbered:
        return []
    folder, _, prefix = before.rpartition("/")
    store = open_store(folder, archive.name, settings)
    suffix = after.partition("/")[0].replace(mark, archive.release.lower())
    pattern = re.compile(re.escape(prefix + numbered[1].lower()) + r"(\d+)" + re.escape(suffix))
    numbers = sorted(int(match[1]) for match in map(pattern.fullmatch, with_retries(store.folders, settings)) if match)
    names = [f"{numbered[1]}{number}" for number in numbers]
    return [name for name in names if _is_there(archive.at_release(name), settings)]


def newer(archive: Archive, settings: Settings) -> list[str]:
    """Return the releases of an archive that are newer than its own, oldest first.

    Raises
    ------
    ArchiveError
        If they cannot be listed.
    """
    return [name for name in found(archive, settings) if _number(name) > _number(archive.release)]


def newest(archive: Archive, settings: Settings) -> str:
    """Return the newest release of an archive, which may be its own.

    Raises
    ------
    ArchiveError
        If they cannot be listed.
    """
    return [archive.release, *newer(archive, settings)][-1]


def _number(release: str) -> int:
    numbered = _NUMBERED.fullmatch(release)
    return int(numbered[2]) if numbered else 0


def _is_there(archive: Archive, settings: Settings) -> bool:
    store = open_store(archive.endpoint_url(settings), archive.name, settings)
    return with_retries(lambda: bool(store.folders() or store.files()), settings)
