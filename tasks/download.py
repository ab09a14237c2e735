"""Fetch whole files that an archive publishes, once, into the cache; resume what broke off; ask again what may pass."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import filelock
import httpx

from lake.errors import ArchiveError
from lake.settings import Settings
from tasks.effort import request_sent, tried_again

Answer = TypeVar("Answer")

TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Failed(Protocol):
    """Makes the error of a request that failed."""

    def __call__(self, message: str, *, transient: bool = False, retry_after_s: float | None = None) -> ArchiveError:
        """Return the error."""
        ...


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


def patiently(ask: Callable[[], Answer], settings: Settings, pause: Callable[[float], object] = time.sleep) -> Answer:
    """Ask, and ask again as often as the settings say, with pauses that double, as long as that may help.

    Parameters
    ----------
    ask
        What may fail.
    settings
        How often, and the first pause.
    pause
        Waits for some seconds.

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
            tried_again(error)
            wait = settings.retry_delay_s * 2**tries * (1 + random.random() / 2)  # noqa: S311
            pause(max(wait, min(error.retry_after_s or 0.0, settings.timeout_s)))
    raise AssertionError("unreachable")


@contextmanager
def connecting(failed: Failed, timeout_s: float) -> Iterator[None]:
    """Let what a connection does wrong be an ArchiveError: silence and resets may pass, wrong addresses do not."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise failed(f"no answer for {timeout_s:g} s", transient=True) from error
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise failed(f"the connection failed: {error}", transient=True) from error
    except httpx.TooManyRedirects as error:
        raise failed(str(error)) from error
    except httpx.InvalidURL as error:
        raise failed(f"not a URL: {error}") from error


def check_status(answer: httpx.Response, failed: Failed, *fine: int) -> None:
    """Raise an ArchiveError if an answer has another status than 200, or one that is fine as well."""
    if answer.status_code not in (httpx.codes.OK, *fine):
        raise failed(
            f"HTTP {answer.status_code} {answer.reason_phrase}",
            transient=answer.status_code in TRANSIENT_STATUS,
            retry_after_s=_retry_after_s(answer.headers.get("Retry-After", "")),
        )


def resume(
    client: httpx.Client,
    url: str,
    part: Path,
    failed: Failed,
    settings: Settings,
    going_on: Callable[[], bool] = lambda: True,
) -> None:
    """Fetch a file, or what is missing of it if its beginning is here.

    What breaks off stays, with a note beside it of which file it is the beginning of. The rest is asked for by Range
    and If-Range, and must be of a file of the same ETag (or date) and size; else it begins again, as it does where a
    server knows no ranges. Only one process at a time may do so.

    Parameters
    ----------
    client
        Follows redirects, and gives up after `settings.timeout_s` of silence.
    url
        Address of the file.
    part
        Where to write. It is whole when this returns, as far as the server says how long it is.
    failed
        Makes errors.
    settings
        Timeouts.
    going_on
        Asked now and then; if it says no, the rest is for another time.

    Raises
    ------
    ArchiveError
        Transient for timeouts, resets, 429, 5xx, and whatever begins again next time; final for other 4xx.
    OSError
        If it cannot be written.
    """
    note = part.with_name(f"{part.name}.json")
    known = _noted(note)
    at = part.stat().st_size if known and part.exists() else 0
    if known and at >= known["size"]:
        # Whole already: the last byte is asked for again, with whether the file is still the same.
        at = known["size"] - 1
        os.truncate(part, at)
    headers = {"Accept-Encoding": "identity"}
    if at:
        headers |= {"Range": f"bytes={at}-", "If-Range": known["validator"]}
    deadline = time.monotonic() + settings.task_timeout_s
    request_sent()
    with connecting(failed, settings.timeout_s), client.stream("GET", url, headers=headers) as answer:
        if "Range" in headers and not _continues(answer, at, known):
            discard(part)
            raise failed("what came is not the rest of the file", transient=True)
        check_status(answer, failed, *[httpx.codes.PARTIAL_CONTENT] * ("Range" in headers))
        if answer.status_code == httpx.codes.PARTIAL_CONTENT:
            size = known["size"]
        else:
            discard(part)
            at, size = 0, _length(answer)
            _note(note, {"validator": _validator(answer), "size": size})
        with part.open("ab") as file:
            for chunk in answer.iter_raw():
                # What came is kept even if the process ends now.
                file.write(chunk)
                file.flush()
                at += len(chunk)
                if at != size and not going_on():
                    raise failed("interrupted", transient=True)
                if time.monotonic() > deadline:
                    raise failed(f"still not through after {settings.task_timeout_s:g} s", transient=True)
    if size is not None and at != size:
        raise failed(f"{at} of {size} bytes came", transient=True)


def discard(part: Path) -> None:
    """Forget the beginning of a file."""
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)


def replace_by(path: Path, text: str) -> None:
    """Write a small file, or leave it as it is."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        new.write_text(text)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _continues(answer: httpx.Response, at: int, known: dict[str, Any]) -> bool:
    """Say whether an answer to a Range is what was asked for, or the whole file, or no file at all."""
    if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        return False
    if answer.status_code != httpx.codes.PARTIAL_CONTENT:
        return True
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return (
        found is not None
        and found[1] == str(at)
        and found[2] == str(known["size"])
        and _validator(answer) == known["validator"]
    )


def _validator(answer: httpx.Response) -> str | None:
    """Return what a file's versions differ by: its ETag, if equal bytes are meant by it, or its date."""
    tag: str = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def _length(answer: httpx.Response) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _noted(note: Path) -> dict[str, Any]:
    """Return which file a part is the beginning of; nothing if that is not known, or cannot be known again."""
    try:
        known = json.loads(note.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    fits = isinstance(known, dict) and isinstance(known.get("validator"), str) and isinstance(known.get("size"), int)
    return known if fits and known["size"] > 0 else {}


def _note(note: Path, what: dict[str, Any]) -> None:
    replace_by(note, json.dumps(what))


def _retry_after_s(text: str) -> float | None:
    """Return seconds to wait, of a number or a date: RFC 9110, section 10.2.3."""
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _stream(url: str, archive: str, settings: Settings, path: Path) -> None:
    def failed(message: str, *, transient: bool = False, retry_after_s: float | None = None) -> ArchiveError:
        return ArchiveError(
            message, archive=archive, endpoint=url, transient=transient, retry_after_s=retry_after_s,
            hint=None if transient else f"check LIGHTLAKE_ENDPOINTS__{archive.upper()}",
        )  # fmt: skip

    deadline = time.monotonic() + settings.task_timeout_s
    request_sent()
    with connecting(failed, settings.timeout_s):
        with (
            httpx.stream("GET", url, timeout=settings.timeout_s, follow_redirects=True) as answer,
            path.open("wb") as file,
        ):
            check_status(answer, failed)
            for chunk in answer.iter_bytes(1 << 20):
                file.write(chunk)
                if time.monotonic() > deadline:
                    raise failed(f"still not through after {settings.task_timeout_s:g} s", transient=True)
        size = _length(answer)
        if size is not None and "Content-Encoding" not in answer.headers and path.stat().st_size != size:
            raise failed(f"{path.stat().st_size} of {size} bytes came", transient=True)
