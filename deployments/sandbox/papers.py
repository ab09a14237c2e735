"""Stand-ins for the services that samples are got from: NED, VizieR, SIMBAD, SkyServer and ALeRCE, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from deployments.sandbox.server import Response

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox


@dataclass(frozen=True)
class Published:
    """An object of a paper: ICRS degrees."""

    name: str
    ra: float
    dec: float
    redshift: float | None = None
    kind: str = "QSO"


Papers = Mapping[str, Sequence[Published]]
"""Objects by the bibcode of the paper that lists them."""


@dataclass
class Faults:
    """Ways to fail that only one service has: each spoils the next answers."""

    kinds: frozenset[str]
    waiting: list[str] = field(default_factory=list)

    def add(self, kind: str, times: int = 1) -> None:
        """Spoil the next answers."""
        if kind not in self.kinds:
            raise ValueError(f"unknown fault {kind!r}: there are {', '.join(sorted(self.kinds))}")
        self.waiting += [kind] * times

    def take(self) -> str:
        """Return the next fault, or nothing."""
        return self.waiting.pop(0) if self.waiting else ""


def refused(status: int = 403) -> Response:
    """Return the page with which a gate before a service refuses a client."""
    page = (
        f"<html><head><title>{status} Forbidden</title></head><body><h1>{escape('Access denied')}</h1></body></html>\n"
    )
    return Response(page.encode(), status, "text/html; charset=utf-8")


def mount(sandbox: Sandbox, papers: Papers, *, quasars: int = 2_000, seed: int = 20210126) -> None:
    """Serve them all, and enter them in the sandbox's endpoints and services; SIMBAD's papers if it is mounted."""
    from deployments.sandbox import alerce, ned, simbad_papers, skyserver, vizier

    mounted: dict[str, Any] = {
        "ned": ned.Ned(sandbox, papers),
        "vizier": vizier.Vizier(sandbox, {}),
        "sdss": skyserver.SkyServer(sandbox, quasars, seed=seed),
        "alerce": alerce.Alerce(sandbox, alerce.generated(40, seed=seed)),
    }
    for name, service in mounted.items():
        sandbox.services[name], sandbox.endpoints[name] = service, service.url
    if "simbad" in sandbox.services:
        simbad_papers.add(sandbox.services["simbad"], papers)
