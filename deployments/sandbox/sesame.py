"""Stand-in for Sesame, the name resolver of CDS: its text about a name, from databases by the letters S, N and V.

The first database that knows a name answers, in the order of the letters. Its ways to fail are those of the service:
pages in HTML with status 200, databases that are away, positions of VizieR with few digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from deployments.sandbox.server import Request, Response
from deployments.sandbox.simbad_objects import KNOWN

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

PATH = "/cgi-bin/nph-sesame"

_TITLES = {"S": "S=Simbad (via url)", "N": "N=NED (CORS)", "V": "V=VizieR (local)"}
_DONE = "#====Done (2026-Nov-29,12:00:00z)===="
_OPTIONS = re.compile(r"-o[A-Za-z]+")


def _text(*lines: str) -> str:
    return "\n".join(lines)


def _of_simbad() -> dict[str, str]:
    """Texts about objects by what SIMBAD's fuzzy matching knows them by, beside their identifiers."""
    fuzzy = {"eta car": "* eta Car", "eta carinae": "* eta Car", "barnard": "NAME Barnard's star"}
    known = {one.names[0]: one for one in KNOWN}
    texts = {}
    for name, main in fuzzy.items():
        one = known[main]
        texts[name] = _text(
            "%@ 503952",
            f"%I.0 {main}",
            f"%C.0 {one.otype}",
            f"%J {one.ra:.5f} {one.dec:+.5f} = 10:45:03.54 -59:41:03.9",
            "%J.E [21.00 17.00 90] A 2020yCat.1350....0G",
            f"%P {one.pmra} {one.pmdec} [0.1 0.1 0] A 2020yCat.1350....0G",
            f"%V v {one.rvz_redshift or 0.0:.6f} [0.3] A",
            "%#B 4711",
        )
    return texts


OBJECTS: Mapping[str, Mapping[str, str]] = {
    "S": _of_simbad(),
    "N": {
        "ngc 6079": _text(
            "%J 241.1216 +69.66578 = 16:04:29.20 +69:39:56.8",
            "%J.E [1250.00 1250.00 0] 20032MASX.C.......:",
            "%V v 7449.84363 [38.07365] 2003AJ....126.2268W",
            "%T E",
            "%MAG 13.74",
            "%I.0 NGC 6079 =[G]",
            "#B 17",
        ),
        "three digits": _text("%J 100.123 -20.456 = 06:40:29.5 -20:27:21", "%I.0 THREE DIGITS"),
    },
    "V": {
        "ngc 3642": _text("%J 170.56 +59.08 = 11:22.2     +59:05", "%I.0 {NGC} 3642"),
        "sdss j112218.01+590427.2": _text("%J 170.57 +59.07 = 11:22.3     +59:04", "%I.0 {SDSS} J112218.01+590427.2"),
    },
}
"""Texts about objects, by database and by name in small letters."""


@dataclass
class Sesame:
    """The service.

    Attributes
    ----------
    objects
        As `OBJECTS`; change them.
    away
        Letters of databases that do not answer it.
    several
        Names, in small letters, that a database knows several objects by.
    asked
        Names that were asked for.
    """

    url: str
    objects: dict[str, dict[str, str]] = field(
        default_factory=lambda: {letter: dict(texts) for letter, texts in OBJECTS.items()}
    )
    away: set[str] = field(default_factory=set)
    several: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Do nothing: it holds nothing."""

    def answer(self, request: Request) -> Response:
        """Answer a request for a name."""
        letters = next((part for part in reversed(request.path.split("/")) if not _OPTIONS.fullmatch(part)), "")
        name = " ".join(unquote(request.query, errors="replace").split())
        self.asked.append(name)
        lines = [f"# {name}\t#Q2672097"]
        for letter in letters if letters.strip("SNV") == "" else "SNV":
            if letter in self.away:
                lines.append(f"#!{_TITLES[letter]}: *** connection refused ***")
            elif name.lower() in self.several:
                lines.append("#! *** Multiple objects of that name ***")
                break
            elif text := self.objects[letter].get(name.lower()):
                lines += [f"#={_TITLES[letter]}:    1     7ms", text, "", ""]
                break
        else:
            lines.append("#! *** Nothing found *** ")
        return Response("\n".join([*lines, _DONE, ""]).encode(), content_type="text/plain; charset=utf-8")


def serve(sandbox: Sandbox) -> Sesame:
    """Serve the resolver, and return it."""
    service = Sesame(sandbox.url(PATH))
    sandbox.mount(PATH, service.answer)
    return service


def mount(
    sandbox: Sandbox, root: Path, *, seed: int = 0, scale: float = 1.0, targets: Iterable[tuple[float, float]] = ()
) -> str:
    """Serve the resolver, and return the endpoint; the service is ``sandbox.services["sesame"]``."""
    service = sandbox.services["sesame"] = serve(sandbox)
    return service.url
