"""Papers whose samples the sandbox's services list: as many objects as the real ones, most of them invented.

The objects of MacLeod et al. (2016), that of LaMassa et al. (2015) among them, are where they really are. Those of
Green et al. (2022) are at places of no meaning. All archives have something at each, generated like the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from deployments.sandbox.papers import Papers, Published
from deployments.sandbox.vizier import Catalogue
from tasks.samples.literature import LITERATURE
from tasks.samples.selection import Near

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

SERVICES = ("ned", "vizier")
"""Who lists them."""

_GREEN = LITERATURE["green22"]
# So many of its objects are the sample, and so many more are in its table.
_CHANGING, _OTHERS = _GREEN.expected or 0, 8
# Places all over the sky, none near another: multiples of powers of 1 over the plastic number.
_RA_STEP, _DEC_STEP = 0.7548776662, 0.5698402910


def _listed(key: str) -> list[Published]:
    """Return the objects of a sample that is chosen by position, where they are."""
    chosen = (one for one in LITERATURE[key].conditions if isinstance(one, Near))
    return [Published(f"SDSS J{_short(*place)}", *place) for near in chosen for place in near.positions]


def _designation(ra: float, dec: float) -> str:
    """Return a position as names have it: hhmmss.ss+ddmmss.s.

    Examples
    --------
    >>> _designation(222.49224, 17.91796)
    '144958.14+175504.7'
    """
    hours, arcsec = round(ra / 15 * 360_000), round(abs(dec) * 36_000)
    parts = f"{hours // 360_000:02d}{hours // 6_000 % 60:02d}{hours % 6_000 / 100:05.2f}"
    sign = "-" if dec < 0 else "+"
    return f"{parts}{sign}{arcsec // 36_000:02d}{arcsec // 600 % 60:02d}{arcsec % 600 / 10:04.1f}"


def _short(ra: float, dec: float) -> str:
    """Return a position as short names have it: hhmm+ddmm, cut and not rounded."""
    long = _designation(ra, dec)
    return f"{long[:4]}{long[9:14]}"


def _green() -> pa.Table:
    """Return the table of Green et al. at VizieR: two spectra of each object, of which the first has its notes."""
    rows = []
    for number in range(_CHANGING + _OTHERS):
        ra = round(360 * (_RA_STEP * (number + 1) % 1), 5)
        dec = round(-5 + 60 * (_DEC_STEP * (number + 1) % 1), 5)
        noted = {"B": "CLQ" if number < _CHANGING else "EVQ", "D": None}
        rows += [
            {"_RA": ra, "_DE": dec, "SDSS": f"J{_designation(ra, dec)}", "State": state, "zspec": 0.3, "Notes": notes}
            for state, notes in noted.items()
        ]
    return pa.Table.from_pylist(rows)


def papers() -> Papers:
    """Return the objects that NED lists, by their papers."""
    return {LITERATURE[key].bibcode: _listed(key) for key in ("lamassa15", "macleod16_own")}


def places() -> list[tuple[float, float]]:
    """Return where the objects of all samples are: right ascension and declination, deg."""
    of_ned = [(one.ra, one.dec) for objects in papers().values() for one in objects]
    green = _green().filter(pa.compute.field("Notes") == "CLQ").select(["_RA", "_DE"])
    return list(dict.fromkeys([*of_ned, *zip(*green.to_pydict().values(), strict=True)]))


def add(sandbox: Sandbox) -> None:
    """Add the papers to the services that are mounted."""
    if "ned" in sandbox.services:
        sandbox.services["ned"].papers.update(papers())
    if "vizier" in sandbox.services and _GREEN.table:
        sandbox.services["vizier"].catalogues[_GREEN.table] = Catalogue(_GREEN.bibcode, _green())
