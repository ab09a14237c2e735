"""Fetch whole files that an archive publishes, once, into the cache; and ask again what may pass."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import filelock
import httpx

from lake.errors import ArchiveError
from lake.settings import Settings

Answer = TypeVar("Answer")

TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}


def download(url: str, archive: str, settings: Settings, *, check: Callable[[Path], str | None]) -> Path:
    """Return the cached file of a URL, fetching it the first time.

    Several processes may ask at once: one fetches, the others wait. A file is in the cache only if it
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
    name = Path(url.partition("?")[0]).name
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


def patiently(ask: Callable[[], Answer], settings: Settings) -> Answer:
    """Ask, and ask again as often as the settings say, with pauses that double, as long as that may help.

    Raises
    ------
    ArchiveError
        The last one, or the first that asking again does not mend.
    """
    for tries in range(settings.retries + 1):
        try:
            return ask()
        except ArchiveError as error:
            if not error.transient or tries == settings.retries:
                raise
            pause = settings.retry_delay_s * 2**tries * (1 + random.random() / 2)  # noqa: S311
            time.sleep(max(pause, min(error.retry_after_s or 0.0, settings.timeout_s)))
    raise AssertionError("unreachable")


def _stream(url: str, archive: str, settings: Settings, path: Path) -> None:
    def failed(message: str, *, transient: bool = True, retry_after_s: float | None = None) -> ArchiveError:
        return ArchiveError(
            message, archive=archive, endpoint=url, transient=transient, retry_after_s=retry_after_s,
            hint=None if transient else f"check LIGHTLAKE_ENDPOINTS__{archive.upper()}",
        )  # fmt: skip

    deadline = time.monotonic() + settings.task_timeout_s
    try:
        with (
            httpx.stream("GET", url, timeout=settings.timeout_s, follow_redirects=True) as answer,
            path.open("wb") as file,
        ):
            if answer.status_code != httpx.codes.OK:
                wait = answer.headers.get("Retry-After", "")
                raise failed(
                    f"HTTP {answer.status_code} {answer.reason_phrase}",
                    transient=answer.status_code in TRANSIENT_STATUS,
                    retry_after_s=float(wait) if wait.isdigit() else None,
                )
            for chunk in answer.iter_bytes(1 << 20):
                file.write(chunk)
                if time.monotonic() > deadline:
                    raise failed(f"still not through after {settings.task_timeout_s:g} s")
            expected = answer.headers.get("Content-Length")
        if expected is not None and "Content-Encoding" not in answer.headers and path.stat().st_size != int(expected):
            raise failed(f"{path.stat().st_size} of {expected} bytes came")
    except httpx.TimeoutException as error:
        raise failed(f"no answer for {settings.timeout_s:g} s") from error
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise failed(f"the connection failed: {error}") from error
    except httpx.TooManyRedirects as error:
        raise failed(str(error), transient=False) from error
    except httpx.InvalidURL as error:
        raise failed(f"not a URL: {error}", transient=False) from error
