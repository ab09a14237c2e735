"""Whether archives can be reached, what their clocks show, and whether HEASoft is here."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from lake.errors import ArchiveError, ConfigurationError, LightlakeError
from lake.settings import Settings, load_settings
from lake.text import counted
from lake.upkeep.checks import skew_s
from lake.upkeep.doctor import Check, first_line
from tasks.samples.services import SERVICES
from tasks.services.bounds import in_memory
from tasks.services.http import Client
from tasks.services.sesame import SESAME, SESAME_ENDPOINT
from tasks.services.simbad import SIMBAD, SIMBAD_ENDPOINT
from tasks.services.store import open_store
from tasks.sources.base import Archive
from tasks.sources.declared import origins
from tasks.sources.registry import known
from tasks.sources.rxte.heasoft import find_tools

_REFUSED = (401, 403, 407)
_GONE = (404, 410)


@dataclass(frozen=True)
class Endpoint:
    """The address of an archive, or of several.

    Parameters
    ----------
    name
        Of its setting, LIGHTLAKE_ENDPOINTS__<NAME>, in small letters.
    url
        A folder, s3:// or https://.
    probe
        Path below it that answers at once if the service works; None: none is known.
    is_public
        True if it is not from the settings.
    """

    name: str
    url: str
    probe: str | None
    is_public: bool


@dataclass(frozen=True)
class Answer:
    """The check of an endpoint, and how far this machine's clock is ahead of the server's, if that is known."""

    check: Check
    host: str | None = None
    skew_s: float | None = None


def endpoints(settings: Settings) -> list[Endpoint]:
    """Return the endpoints of all archives, surveys and services of names and samples, each once."""
    found: dict[str, Endpoint] = {}
    for origin in origins():
        name = origin.service or origin.name
        url = settings.endpoints.get(name, origin.public_url)
        if isinstance(origin, Archive):
            url = origin.endpoint_url(settings)
        is_public = not {name, *origin.former_names} & set(settings.endpoints)
        found.setdefault(name, Endpoint(name, url, origin.probe, is_public))
        for other, public in origin.extra_endpoints.items():
            given = settings.endpoints.get(other)
            if url := given or public:
                found.setdefault(other, Endpoint(other, url, None, given is None))
    of_names = ((SIMBAD, SIMBAD_ENDPOINT, None), (SESAME, SESAME_ENDPOINT, None))
    of_samples = ((one.name, one.url, one.probe) for one in SERVICES.values())
    for other, public, probe in (*of_names, *of_samples):
        given = settings.endpoints.get(other)
        found.setdefault(other, Endpoint(other, given or public, probe, given is None))
    return [found[name] for name in sorted(found)]


def unknown_endpoints(settings: Settings, there: list[Endpoint]) -> list[Check]:
    """Report endpoints of the settings that no archive has."""
    names = [one.name for one in there]
    checks = []
    former = {name for archive in known().values() for name in archive.former_names}
    for name in sorted(set(settings.endpoints) - set(names) - former):
        near = difflib.get_close_matches(name, names, 1)
        hint = f"rename it to {_variable(near[0])}, if that is meant; " if near else ""
        message = f"{_variable(name)} is of no archive, and does nothing"
        checks.append(Check("settings", "fail", message, f"{hint}there are: {', '.join(names)}"))
    return checks


def look(there: list[Endpoint], patience_s: float) -> list[Answer]:
    """Check endpoints, all at the same time.

    Parameters
    ----------
    patience_s
        Longest wait for a connection, and for an answer.
    """
    if not there:
        return []
    workers = ThreadPoolExecutor(len(there))
    asked = [workers.submit(_look, one, patience_s) for one in there]
    # Longer than each of them takes: a name may resolve slowly, and S3 is asked for a bucket's region first.
    done, _ = wait(asked, timeout=3 * patience_s)
    workers.shutdown(wait=False, cancel_futures=True)
    return [
        future.result() if future in done else Answer(_missing(one, f"no answer for {3 * patience_s:g} s"))
        for one, future in zip(there, asked, strict=True)
    ]


def heasoft() -> list[Check]:
    """Report whether HEASoft is installed; few need it."""
    try:
        return [Check("heasoft", "ok", str(find_tools().headas))]
    except ConfigurationError:
        return [Check("heasoft", "ok", "not installed; only lightlake rxte --method heasoft needs it")]


def _look(endpoint: Endpoint, patience_s: float) -> Answer:
    if endpoint.url.startswith(("http://", "https://")):
        return _ask(endpoint, patience_s)
    try:
        found = _listed(endpoint, patience_s)
    except ArchiveError as error:
        return Answer(Check(_title(endpoint), "fail", error.message, _hint(endpoint)))
    except OSError as error:
        return Answer(_missing(endpoint, error.strerror or first_line(error)))
    if found is None:
        return Answer(_missing(endpoint, "there is nothing"))
    return Answer(Check(_title(endpoint), "ok", f"{endpoint.url}: {found}"))


def _listed(endpoint: Endpoint, patience_s: float) -> str | None:
    """Return what is in a folder or bucket, or None if nothing is."""
    if "://" not in endpoint.url or endpoint.url.startswith("file://"):
        path = Path(endpoint.url.removeprefix("file://")).expanduser()
        if path.is_file():
            with path.open("rb") as file:
                file.read(1)
            return "a file"
        path.stat()
    store = open_store(endpoint.url, endpoint.name, load_settings(timeout_s=patience_s))
    entries = store.folders() or store.files()
    return f"{counted(len(entries), 'folder or file', 'folders or files')}" if entries else None


def _ask(endpoint: Endpoint, patience_s: float) -> Answer:
    url = f"{endpoint.url.rstrip('/')}{endpoint.probe}" if endpoint.probe else endpoint.url
    before = time.time()
    # A header may come in drips, too.
    budget = replace(in_memory(lambda message, **_: LightlakeError(message)), seconds=2 * patience_s, deadline=None)
    try:
        # The body is not read.
        with Client(patience_s) as client, client.getting(url, budget) as answer:
            after, status = time.time(), answer.status_code
    except LightlakeError as error:
        message = f"no answer for {patience_s:g} s" if budget.is_over else first_line(error)
        return Answer(_missing(endpoint, message))
    message = f"HTTP {status} {answer.reason_phrase}".strip()
    broken = status >= 500 or status in _REFUSED or (status in _GONE and endpoint.probe is not None)
    check = Check(_title(endpoint), "ok", f"{endpoint.url} answers")
    if broken:
        check = _missing(endpoint, message)
    # After redirects the time is that of the last server, a moment later.
    return Answer(check, urlsplit(str(answer.url)).hostname, skew_s(answer, before, after))


def _missing(endpoint: Endpoint, why: str) -> Check:
    return Check(_title(endpoint), "fail", f"{endpoint.url}: {why}", _hint(endpoint))


def _title(endpoint: Endpoint) -> str:
    return f"archive {endpoint.name}"


def _hint(endpoint: Endpoint) -> str:
    if not endpoint.is_public:
        return f"check {_variable(endpoint.name)}"
    return f"see whether this machine may reach it (HTTPS_PROXY), or name a mirror: {_variable(endpoint.name)}"


def _variable(name: str) -> str:
    return f"LIGHTLAKE_ENDPOINTS__{name.upper()}"


def skews(answers: list[Answer]) -> dict[str, float]:
    """Return the seconds by which this machine's clock is ahead of each host that gave the time."""
    return dict(_skews(answers))


def _skews(answers: list[Answer]) -> Iterator[tuple[str, float]]:
    for answer in answers:
        if answer.host is not None and answer.skew_s is not None:
            yield answer.host, answer.skew_s
