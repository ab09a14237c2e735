"""Walk through folders of this machine without passing over anything in silence, and show names that are no text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path


def files_below(
    root: str | os.PathLike[str], pattern: str, unreadable: Callable[[OSError], None], *, follow_links: bool
) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files in a folder, and in those below, whose names fit a pattern, with their size and times.

    Each folder is looked into once, and real ones before those that links lead to: links neither lead in circles nor
    change the paths of what lies in the folder itself.

    Parameters
    ----------
    root
        The folder.
    pattern
        Of names, as a shell takes it; case counts.
    unreadable
        Is given the error of each folder, or file whose name fits, that cannot be looked at: it raises it or notes it.
    follow_links
        Look into folders that links lead to, too.
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
                    entry.stat()  # a link to nothing, such as a disk that is not mounted, raises
            except OSError as error:
                if fits or follow_links:
                    unreadable(error)
        folders += reversed(below)


def shown(text: str) -> str:
    r"""Return a text that UTF-8 can hold: bytes of a file's name that are none, such as Latin-1, become ``\xe9``."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, of no file's name
        return text.encode("utf-8", "backslashreplace").decode()
