"""Fetch whole files of archives into the cache, once, and resume downloads that broke off."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import filelock

from lake.errors import ArchiveError
from lake.settings import Settings
from lake.text import counted
from tasks.services.bounds import Failed, on_disk
from tasks.services.http import (
    PARTIAL_CONTENT,
    RANGE_NOT_SATISFIABLE,
    Client,
    check_status,
    failing,
    length_of,
    pieces_of,
)
from tasks.services.usage import received

if TYPE_CHECKING:
    import httpx

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def download(url: str, archive: str, settings: Settings, *, check: Callable[[Path], str | None]) -> Path:
    """Return the cached file of a URL, fetching it the first time.

    Several processes may call it at once: one fetches, the others wait. A file is in the cache only if it
    came whole and passed its check.

    Parameters
    ----------
    url
        Address of the file.
    archive
        Name for messages and the cache folder.
    settings
        Cache folder and timeout.
    check
        Returns what is wrong with a file, or None.

    Raises
    ------
    ArchiveError
        Transient for timeouts, resets, 429, 5xx, and bodies that are cut or damaged; final for 4xx.
    """
    name = Path(urlsplit(url).path).name  # only of the path: the host may have a password
    key = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
    final = settings.cache_dir.expanduser() / archive / f"{key}-{name}"
    if final.exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(final.with_suffix(".lock")):
        if final.exists():
            return final
        partial = final.with_suffix(f".{os.getpid()}.part")
        try:
            _stream(url, archive, settings, partial)
            problem = check(partial)
            if problem:
                raise ArchiveError(
                    f"what came is not the file: {problem}", archive=archive, endpoint=url, transient=True
                )
            partial.replace(final)
        finally:
            partial.unlink(missing_ok=True)
    return final


def resume(
    client: Client,
    url: str,
    part: Path,
    failed: Failed,
    settings: Settings,
    going_on: Callable[[], bool] = lambda: True,
) -> None:
    """Fetch a file, or the rest of it if its beginning is here.

    A part that broke off stays, with a note beside it of the file's ETag (or date) and size. The rest is requested by
    Range and If-Range. If the file has changed since, or the server has no ranges, the download begins again. Only one
    process at a time may do so.

    Parameters
    ----------
    client
        Sends the request.
    url
        Address of the file.
    part
        Where to write. It is whole when this returns, if the server states its length.
    failed
        Makes errors.
    settings
        Limits of time and size.
    going_on
        Called now and then; False interrupts the download, which can be resumed later.

    Raises
    ------
    ArchiveError
        Transient for timeouts, resets, 429, 5xx, and downloads that will begin again; final for other 4xx.
    OSError
        If it cannot be written.
    """
    note = part.with_name(f"{part.name}.json")
    known = _noted(note)
    at = part.stat().st_size if known and part.exists() else 0
    if known and at >= known["size"]:
        # Whole already: requesting the last byte again shows whether the file is still the same.
        at = known["size"] - 1
        os.truncate(part, at)
    headers = {"Accept-Encoding": "identity"}
    if at:
        headers |= {"Range": f"bytes={at}-", "If-Range": known["validator"]}
    budget = on_disk(failed, settings)
    with client.getting(url, budget, headers) as answer:
        if "Range" in headers and not _continues(answer, at, known):
            discard(part)
            raise failed("what came is not the rest of the file", transient=True)
        check_status(answer, failed, *[PARTIAL_CONTENT] * ("Range" in headers))
        if answer.status_code == PARTIAL_CONTENT:
            size = known["size"]
        else:
            discard(part)
            at, size = 0, length_of(answer)
            _note(note, {"validator": _validator(answer), "size": size})
        budget.expects(size or 0)
        with part.open("ab") as file:
            for piece in answer.iter_raw():
                received(len(piece))
                # These bytes are kept even if the process ends now.
                file.write(piece)
                file.flush()
                at += len(piece)
                if at != size and not going_on():
                    raise failed("interrupted", transient=True)
    if size is not None and at != size:
        raise failed(f"{at} of {counted(size, 'byte')} came", transient=True)


def discard(part: Path) -> None:
    """Remove the beginning of a file, and its note."""
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)


def replace_by(path: Path, text: str) -> None:
    """Replace a small file as a whole, or not at all."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        new.write_text(text)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _continues(answer: httpx.Response, at: int, known: dict[str, Any]) -> bool:
    """Say whether an answer to a Range is usable: the requested range, the whole file, or an error status."""
    if answer.status_code == RANGE_NOT_SATISFIABLE:
        return False
    if answer.status_code != PARTIAL_CONTENT:
        return True
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return (
        found is not None
        and found[1] == str(at)
        and found[2] == str(known["size"])
        and _validator(answer) == known["validator"]
    )


def _validator(answer: httpx.Response) -> str | None:
    """Return what distinguishes a file's versions: a strong ETag, or else its date."""
    tag: str = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def _noted(note: Path) -> dict[str, Any]:
    """Read the note beside a part; empty if there is none that can be used."""
    try:
        known = json.loads(note.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    fits = isinstance(known, dict) and isinstance(known.get("validator"), str) and isinstance(known.get("size"), int)
    return known if fits and known["size"] > 0 else {}


def _note(note: Path, what: dict[str, Any]) -> None:
    replace_by(note, json.dumps(what))


def _stream(url: str, archive: str, settings: Settings, path: Path) -> None:
    failed = failing(archive, url, f"check LIGHTLAKE_ENDPOINTS__{archive.upper()}")
    budget = on_disk(failed, settings)
    headers = {"Accept-Encoding": "identity"}
    with Client(settings.timeout_s) as client, client.getting(url, budget, headers) as answer, path.open("wb") as file:
        check_status(answer, failed)
        for piece in pieces_of(answer, budget):
            file.write(piece)
