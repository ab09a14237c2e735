"""List files in local folders without skipping anything silently; and show names that are not text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path


def files_below(
    root: str | os.PathLike[str], pattern: str, unreadable: Callable[[OSError], None], *, follow_links: bool
) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files in a folder, and in those below, whose names match a pattern, with their size and times.

    Each folder is listed once, and real folders before linked ones. So links neither lead in circles nor change the
    paths of files in the folder itself.

    Parameters
    ----------
    root
        The folder.
    pattern
        Shell pattern for names; case matters.
    unreadable
        Called with the error of each folder, or file with a matching name, that cannot be read; it may raise it.
    follow_links
        Also list linked folders.
    """
    folders, links, seen = [Path(root)], list[Path](), set[tuple[int, int]]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            here = folder.stat()
            if (here.st_dev, here.st_ino) in seen:
                continue
            seen.add((here.st_dev, here.st_ino))
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            unreadable(error)
            continue
        below = []
        for entry in listed:
            fits = fnmatchcase(entry.name, pattern)
            try:
                if entry.is_dir(follow_symlinks=False):
                    below.append(Path(entry.path))
                elif entry.is_dir():
                    links += [Path(entry.path)] if follow_links else []
                elif fits and entry.is_file():
                    yield Path(entry.path), entry.stat()
                elif fits or (follow_links and entry.is_symlink()):
                    entry.stat()  # raises for a broken link, such as to a disk that is not mounted
            except OSError as error:
                if fits or follow_links:
                    unreadable(error)
        folders += reversed(below)


def shown(text: str) -> str:
    r"""Make a text printable as UTF-8: other bytes of a file's name, such as Latin-1, become ``\xe9``."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, not from a file's name
        return text.encode("utf-8", "backslashreplace").decode()
