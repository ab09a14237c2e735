"""MAST's observations over TAP: one query for many places, and one for the light curves of many targets.

What is published on https://mast.stsci.edu/vo-tap/api/v0.1/caom, the address in MAST's notebook
beginner_tess_tap_search (spacetelescope/mast_notebooks):

- It takes no uploaded tables: capabilities declare none, and TAP_UPLOAD is an unknown table. It ends answers after
  100,000 rows, and marks those with OVERFLOW (hombit/hats-api, tap-conformance/references/MAST.json, 2026-09-16).
- CONTAINS(POINT, CIRCLE) does not use its index: the gateway ends such a query after 60 s. Ranges of s_ra and s_dec
  take a second or two, and many of them in one query little more: one star took 1.6 s, and 50 stars 9 s, most of it for
  their rows (Fabmat1/ASTRA, MastArchiveClient.cpp, 2026-08).
- dbo.obspointing has the portal's columns of observations (astroquery's mast/catalog_collection.py). Its objid is the
  planetid of dbo.caomplane and dbo.caomartifact; the latter has the files, in columns datauri, productfilename and
  contentlength (triple7/SwiftMAST, greedy_mast_tap_selection.py).

So positions go into the query as ranges, and circles are cut out of the answer here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lake.errors import ArchiveError, TruncatedAnswer
from lake.settings import Settings
from tasks.services import tap
from tasks.services.retry import with_retries
from tasks.sources.tess_kepler.mast_portal import OBSERVATION

Floats = NDArray[np.float64]
Row = dict[str, Any]
Rows = list[Row]
Range = tuple[float, float]

# The setting of its address, and where it is below MAST's.
SETTING = "mast_tap"
PATH = "/vo-tap/api/v0.1/caom"

# The service's own limit: an answer of so many rows is not all.
MAXREC = 100_000
# Places in a query: so many have been tried, and took a sixth of the time that the gateway gives.
PLACES = 50
# Names in a query. No target was in more than half of 100 sectors, each with two light curves by SPOC, one by TESS-SPOC
# and one by QLP: half as many rows as an answer may have.
NAMES = 250

_HINT = f"if it stays so, LIGHTLAKE_ENDPOINTS__{SETTING.upper()}= (empty) lets MAST's portal search"

# MAST writes Kepler; headers of its files KEPLER.
_COLLECTIONS = "'TESS', 'Kepler', 'KEPLER', 'K2', 'HLSP'"
# Columns of files, as the portal calls them.
_FILE = {"productfilename": "productFilename", "datauri": "dataURI", "contentlength": "size"}


def tap_url(url: str, settings: Settings) -> str:
    """Return the address of MAST's TAP service; empty if the portal is to search for all targets.

    Parameters
    ----------
    url
        MAST's address. Its TAP service is below it, unless LIGHTLAKE_ENDPOINTS__MAST_TAP says another; that may be
        empty.
    """
    return settings.endpoints.get(SETTING, url.rstrip("/") + PATH)


class Caom:
    """MAST's TAP service with the Common Archive Observation Model (CAOM).

    Parameters
    ----------
    url
        Its address, to which /sync is added.
    settings
        Time-outs and retries.
    archive
        Name for messages.
    """

    def __init__(self, url: str, settings: Settings, archive: str) -> None:
        self._settings = settings
        self._service = tap.Service(archive, url, settings.timeout_s, settings.task_timeout_s, service=SETTING)

    def near(self, ra: Floats, dec: Floats, reach_arcsec: float) -> Rows:
        """Return the observations of TESS, Kepler and K2 within reach of some positions, ICRS degrees, and some beyond.

        Raises
        ------
        TruncatedAnswer
            If an answer is not all.
        ArchiveError
            If the service does not answer, or not as it should.
        """
        places = list(zip(ra.tolist(), dec.tolist(), strict=True))
        return [row for some in _portions(places, PLACES) for row in self._rows(places_adql(some, reach_arcsec / 3600))]

    def light_curves(self, names: Sequence[str], types: Sequence[str], authors: Sequence[str]) -> tuple[Rows, Rows]:
        """Return the observations of targets with these names, of these types and authors, and their light curves."""
        joined = [
            row
            for some in _portions(names, NAMES)
            for row in self._rows(names_adql(some, authors))
            if str(row.get("dataproduct_type")).lower() in types
        ]
        unique = {(row["obsid"], row["obs_id"]): row for row in joined}
        observations = [{name: row[name] for name in OBSERVATION} for row in unique.values()]
        files = [
            {"parent_obsid": row["obsid"], "obs_id": row["obs_id"], **{new: row[name] for name, new in _FILE.items()}}
            for row in joined
        ]
        return observations, files

    def failed(self, message: str) -> ArchiveError:
        """Return the error that an answer amounts to which makes no sense; it may pass."""
        archive, url = self._service.archive, self._service.url
        return ArchiveError(message, archive=archive, endpoint=url, transient=True, hint=_HINT)

    def _rows(self, adql: str) -> Rows:
        ask = partial(self._service.query, adql, maxrec=MAXREC)
        try:
            rows: Rows = with_retries(ask, self._settings).to_pylist()
        except TruncatedAnswer:
            raise
        except ArchiveError as error:
            error.hint = error.hint or _HINT
            raise
        return rows


def places_adql(places: Iterable[tuple[float, float]], reach_deg: float) -> str:
    """Write the query for the observations around some positions, ICRS degrees."""
    return (
        f"SELECT {', '.join(OBSERVATION)}\nFROM dbo.obspointing\nWHERE obs_collection IN ({_COLLECTIONS}) AND (\n"
        + "\nOR ".join(_box(*ranges(ra, dec, reach_deg)) for ra, dec in places)
        + ")"
    )


def names_adql(names: Iterable[str], authors: Iterable[str]) -> str:
    """Write the query for the observations by some authors of targets with some names, and for their light curves."""
    columns = ", ".join([*(f"o.{name}" for name in OBSERVATION), *(f"a.{name}" for name in _FILE)])
    return (
        f"SELECT {columns}\nFROM dbo.obspointing AS o\n"
        "JOIN dbo.caomplane AS p ON p.planetid = o.objid\nJOIN dbo.caomartifact AS a ON a.planetid = p.planetid\n"
        f"WHERE o.obs_collection IN ({_COLLECTIONS}) AND o.target_name IN ({_quoted(names)})\n"
        f"AND o.provenance_name IN ({_quoted(authors)}) AND a.productfilename LIKE '%lc.fits%'"
    )


def ranges(ra: float, dec: float, reach_deg: float) -> tuple[Range, list[Range]]:
    """Return the declinations and right ascensions of a circle, degrees: two ranges across 0, all of them at a pole.

    Examples
    --------
    >>> ranges(10.0, 0.0, 0.5)
    ((-0.5, 0.5), [(9.5, 10.5)])
    >>> ranges(0.25, 0.0, 0.5)
    ((-0.5, 0.5), [(359.75, 360.0), (0.0, 0.75)])
    """
    south, north = dec - reach_deg, dec + reach_deg
    if south <= -90 or north >= 90:
        return (max(south, -90.0), min(north, 90.0)), [(0.0, 360.0)]
    width = float(np.degrees(np.arcsin(min(np.sin(np.radians(reach_deg)) / np.cos(np.radians(dec)), 1.0))))
    west, east = ra - width, ra + width
    if west < 0:
        return (south, north), [(west + 360, 360.0), (0.0, east)]
    if east > 360:
        return (south, north), [(west, 360.0), (0.0, east - 360)]
    return (south, north), [(west, east)]


def _box(dec: Range, ra: Sequence[Range]) -> str:
    either = " OR ".join(f"s_ra BETWEEN {west:.9f} AND {east:.9f}" for west, east in ra)
    return f"(s_dec BETWEEN {dec[0]:.9f} AND {dec[1]:.9f} AND ({either}))"


def _quoted(texts: Iterable[str]) -> str:
    return ", ".join("'{}'".format(text.replace("'", "''")) for text in texts)


def _portions(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
