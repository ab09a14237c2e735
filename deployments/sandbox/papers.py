"""Stand-ins for the services that samples are got from: NED, VizieR, SIMBAD, SkyServer and ALeRCE, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

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


def mount(sandbox: Sandbox, papers: Papers) -> None:
    """Serve papers at NED, and at SIMBAD if it is mounted, and the other services with what they generate.

    They are in the sandbox's endpoints and services.
    """
    for name in ("ned", "vizier", "sdss", "alerce"):
        if name not in sandbox.services:
            sandbox.endpoints[name] = import_module(f"deployments.sandbox.{name}").mount(sandbox, Path())
    sandbox.services["ned"].papers.update(papers)
    if "simbad" in sandbox.services:
        from deployments.sandbox import simbad_papers

        simbad_papers.add(sandbox.services["simbad"], papers)
