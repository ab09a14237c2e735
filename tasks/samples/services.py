"""The services that samples are got from: where they are, how long they may take, and what to do when they fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from lake.errors import ArchiveError
from lake.settings import Settings
from tasks.services.bounds import Budget, parsed_votable
from tasks.services.http import Reply, Session, excerpt
from tasks.services.retry import with_retries
from tasks.services.simbad import SIMBAD_ENDPOINT

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class SampleService:
    """A service that gives targets.

    Parameters
    ----------
    name, title
        Short name, which is the one of its setting; and name for people.
    url
        Public address.
    advice
        What to do when it does not answer.
    probe
        Path below it that answers at once if it works; None: none is known.
    """

    name: str
    title: str
    url: str
    advice: str
    probe: str | None = None

    @property
    def setting(self) -> str:
        """Return the name of the setting of its address."""
        return f"LIGHTLAKE_ENDPOINTS__{self.name.upper()}"

    def endpoint(self, settings: Settings) -> str:
        """Return its address: the public one, or that of the settings."""
        return settings.endpoints.get(self.name, self.url).rstrip("/")

    def failed(self, message: str, url: str, *, transient: bool = True, hint: str | None = None) -> ArchiveError:
        """Return the error of an answer that cannot be taken."""
        message = " ".join(message.split())
        return ArchiveError(message, archive=self.name, endpoint=url, transient=transient, hint=hint)


NED = SampleService(
    "ned",
    "NED",
    "https://ned.ipac.caltech.edu/cgi-bin",
    "NED goes up and down for hours: try again later",
    "/objsearch",
)
VIZIER = SampleService(
    "vizier",
    "VizieR",
    "https://vizier.cds.unistra.fr/viz-bin",
    "try again later, or use one of VizieR's mirrors",
    "/votable",
)
SIMBAD = SampleService("simbad", "SIMBAD", SIMBAD_ENDPOINT, "try again later, or use SIMBAD's mirror")
SDSS = SampleService(
    "sdss",
    "SkyServer of SDSS",
    "https://skyserver.sdss.org",
    "try again in some minutes: SkyServer limits queries per minute, and refuses some networks",
)
ALERCE = SampleService(
    "alerce", "ALeRCE", "https://api.alerce.online/ztf/v1", "try again later", "/objects?page_size=1"
)

SERVICES: dict[str, SampleService] = {one.name: one for one in (NED, VIZIER, SIMBAD, SDSS, ALERCE)}


class Asking:
    """One conversation with a service: its requests are counted, limited in time and size, and never kept on a disk."""

    def __init__(self, service: SampleService, settings: Settings) -> None:
        self.service, self.settings = service, settings
        self.asked_at = datetime.now(UTC)
        self.requests = 0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return how long it has taken."""
        return time.monotonic() - self._started

    def ask(self, method: str, path: str, read: Callable[[Reply, Budget], Answer], **more: Any) -> Answer:
        """Send a request and read its answer, again if that may help.

        Parameters
        ----------
        path
            What follows the service's address.
        read
            Reads the answer; what it raises may be transient.
        more
            As httpx has them: params, content.
        """
        url = f"{self.service.endpoint(self.settings)}/{path}"

        def once() -> Answer:
            self.requests += 1
            with Session(self.service.name, url, self.settings.timeout_s, self.settings.task_timeout_s) as session:
                # Messages have the address without the question, which may be long.
                return read(replace(session.request(method, url, **more), url=url), session.budget())

        with explaining(self.service):
            return with_retries(once, self.settings)


@contextmanager
def explaining(service: SampleService) -> Iterator[None]:
    """Add to an error of a service, whose retries are over, what to do."""
    try:
        yield
    except ArchiveError as error:
        if error.transient or " HTTP 403" in error.message:
            refused = "it refuses this computer; " if " HTTP 403" in error.message else ""
            error.hint = f"{refused}{service.advice}; another address: {service.setting}"
        raise


def read_votable(reply: Reply, budget: Budget, service: SampleService, url: str) -> Any:
    """Parse a VOTable that is an answer, if it is whole.

    Returns
    -------
    astropy.io.votable.tree.VOTableFile

    Raises
    ------
    ArchiveError
        Transient, for an answer that is no VOTable, such as a page of maintenance, or a part of one.
    """
    body = reply.content
    if not body.strip():
        raise service.failed("the answer is empty", url)
    if b"VOTABLE" not in body[:2000]:
        raise service.failed(f"the answer is no VOTable: {excerpt(body)}", url)
    try:
        document = parsed_votable(body, budget)
    except ArchiveError:
        raise
    except Exception as error:  # expat's, astropy's and numpy's
        raise service.failed(f"the answer is no VOTable, or a part of one: {error}", url) from error
    for resource in document.resources:
        for info in (*resource.infos, *(one for table in resource.tables for one in table.infos)):
            if info.name == "QUERY_STATUS" and str(info.value).upper() == "OVERFLOW":
                raise service.failed(f"the answer is cut: {info.content or 'overflow'}", url, transient=False)
    return document


def query_text(method: str, url: str, parameters: Mapping[str, Any] | str) -> str:
    """Return a request as one line, for the ledger."""
    said = (
        parameters if isinstance(parameters, str) else "&".join(f"{name}={value}" for name, value in parameters.items())
    )
    return f"{method} {urlsplit(url).path}?{' '.join(said.split())}"
