"""Search MAST for light curves of TESS, Kepler and K2: a few requests for a whole batch of targets.

Places are asked for the targets of MAST that are there, these and those known by number for their observations, and
the observations for their files. Few targets are searched by the portal, many over TAP: both list the same database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lake.errors import ArchiveError
from lake.science.sky import match
from lake.settings import Settings
from tasks.services.retry import with_retries
from tasks.sources.tess_kepler.mast_choice import AUTHORS, Source, source_of
from tasks.sources.tess_kepler.mast_files import Found
from tasks.sources.tess_kepler.mast_portal import Portal
from tasks.sources.tess_kepler.mast_products import named
from tasks.sources.tess_kepler.mast_tap import Caom, tap_url

Floats = NDArray[np.float64]
Row = dict[str, Any]
Rows = list[Row]
Places = tuple[Floats, Floats]

# Targets in one search of the portal, which takes three requests; more are searched over TAP, or by several searches.
# Nothing is published on how many positions the portal matches in reasonable time: so many have always been asked here.
# A granule whose answer over TAP is cut is split, and so gets to the portal at last.
PORTAL_TARGETS = 20

# Kepler's and K2's light curves have been of either type (lightkurve 2.6.0, search.py).
_TYPES = ("timeseries", "cube")
_MISSIONS = {"TESS": "TIC", "KEPLER": "KIC", "K2": "EPIC"}
_PREFIXES = {"tic": "TIC", "tess": "TIC", "kic": "KIC", "kplr": "KIC", "epic": "EPIC", "ktwo": "EPIC"}

# Asked for beyond the radius, so that rounding at the service loses nothing.
_PAD_ARCSEC = 0.01


class Service(Protocol):
    """What lists MAST's observations and files: rows with the portal's columns."""

    def near(self, ra: Floats, dec: Floats, reach_arcsec: float) -> Rows:
        """Return the observations within reach of some positions; others do no harm."""

    def light_curves(self, names: Sequence[str], types: Sequence[str], authors: Sequence[str]) -> tuple[Rows, Rows]:
        """Return the observations of targets with these names, of these types and authors, and their files."""

    def failed(self, message: str) -> ArchiveError:
        """Return the error that an answer amounts to which makes no sense."""


def search(
    url: str,
    settings: Settings,
    ids: Mapping[str, Collection[int]],
    places: Places,
    radius_arcsec: float,
    archive: str,
    authors: Sequence[str] = tuple(AUTHORS),
    remarks: list[str] | None = None,
) -> list[Found]:
    """Search all files of light curves of some targets at MAST, and retry what may pass.

    Parameters
    ----------
    url
        MAST's address.
    settings
        Time-outs and retries; the address of MAST's TAP service, if it is another (see `mast_tap.tap_url`).
    ids
        Numbers by catalogue: "TIC", "KIC", "EPIC".
    places
        Right ascensions and declinations, ICRS degrees: whatever was observed there is searched for, too, and all
        that there is of it.
    radius_arcsec
        How far from a place an observation's target may be.
    archive
        Name for messages and hints.
    authors
        Keys of AUTHORS.
    remarks
        Takes remarks on rows that lack what a row must have; they take no other with them.

    Raises
    ------
    TruncatedAnswer
        If an answer is not all, or does not come to an end.
    ArchiveError
        If the service does not answer, or not as it should; with the time to wait, if it says one.
    """
    odd: list[str] = []
    wanted = [(catalogue, number) for catalogue, numbers in ids.items() for number in dict.fromkeys(numbers)]
    if len(wanted) + len(places[0]) > PORTAL_TARGETS and (tap := tap_url(url, settings)):
        found = _found_by(Caom(tap, settings, archive), wanted, places, radius_arcsec, authors, odd)
    else:
        found = []
        for sources, where in _portions(wanted, places):
            asked = (url, settings, archive, sources, where, radius_arcsec, authors)
            some, words = with_retries(partial(_by_portal, *asked), settings)
            found += some
            odd += words
    if remarks is not None:
        remarks += dict.fromkeys(odd)
    return list({file.uri: file for file in found}.values())


def _portions(wanted: Sequence[Source], places: Places) -> Iterator[tuple[Sequence[Source], Places]]:
    """Yield sources and places, so many at a time as the portal is asked for."""
    for start in range(0, len(wanted) + len(places[0]), PORTAL_TARGETS):
        end = start + PORTAL_TARGETS
        first, last = max(start - len(wanted), 0), max(end - len(wanted), 0)
        yield wanted[start:end], (places[0][first:last], places[1][first:last])


def _by_portal(
    url: str,
    settings: Settings,
    archive: str,
    wanted: Sequence[Source],
    places: Places,
    radius_arcsec: float,
    authors: Sequence[str],
) -> tuple[list[Found], list[str]]:
    odd: list[str] = []
    with Portal(url, settings, archive) as portal:
        return _found_by(portal, wanted, places, radius_arcsec, authors, odd), odd


def _found_by(
    service: Service,
    wanted: Sequence[Source],
    places: Places,
    radius_arcsec: float,
    authors: Sequence[str],
    remarks: list[str],
) -> list[Found]:
    sources = set(wanted)
    if len(places[0]):
        sources |= _at(service, places, radius_arcsec, authors, remarks)
    if not sources:
        return []
    observations, files = service.light_curves(_spelled(sources), _TYPES, authors)
    observations = _having(
        observations, lambda row: _value(row, "obsid", service), "observations without an id", remarks
    )
    found = _found(observations, files, authors, service, remarks)
    return [file for file in found if source_of(file.named) in sources]


def _at(
    service: Service, places: Places, radius_arcsec: float, authors: Sequence[str], remarks: list[str]
) -> set[Source]:
    """Return the sources observed at some positions. The service returns the observations of all missions."""
    ra, dec = np.mod(places[0], 360.0), places[1]
    reach, wanted = radius_arcsec + _PAD_ARCSEC, {author.lower() for author in authors}
    rows = [
        row
        for row in service.near(ra, dec, reach)
        if str(row.get("dataproduct_type")).lower() in _TYPES
        and str(row.get("obs_collection")).upper() in (*_MISSIONS, "HLSP")
        and (row.get("provenance_name") is None or str(row["provenance_name"]).lower() in wanted)
    ]
    rows = _having(rows, lambda row: _place(row, service), "observations without a place", remarks)
    there = np.array([_place(row, service) for row in rows], np.float64).reshape(-1, 2)
    _, near, _ = match(ra, dec, there[:, 0], there[:, 1], reach)
    return {source for place in np.unique(near).tolist() for source in _sources(rows[place])}


def _sources(row: Row) -> list[Source]:
    """Return the sources that an observation's target could be: HLSPs name it by its number alone."""
    called = re.fullmatch(r"(tic|tess|kic|kplr|epic|ktwo)?[ _-]*(\d{1,16})", str(row.get("target_name")), re.IGNORECASE)
    if called is None:
        return []
    missions = [_MISSIONS.get(str(row.get(column)).upper()) for column in ("project", "obs_collection")]
    known = _PREFIXES[called[1].lower()] if called[1] else next(filter(None, missions), None)
    return [(catalogue, int(called[2])) for catalogue in ([known] if known else _MISSIONS.values())]


def _spelled(sources: Iterable[Source]) -> list[str]:
    """Return the names that targets have at MAST; those of EPIC have two, one of them in HLSPs."""
    forms = {"TIC": ("{}",), "KIC": ("kplr{:09d}",), "EPIC": ("ktwo{:09d}", "{}")}
    return sorted({form.format(number) for catalogue, number in sources for form in forms[catalogue]})


def _found(
    observations: Rows, files: Rows, authors: Sequence[str], service: Service, remarks: list[str]
) -> list[Found]:
    """Return the light curves among the files of observations, each with its observation's position, if it has one."""
    taken = {AUTHORS[author].name for author in authors}
    # A file belongs to the observation that was asked for; the one that made it may be another.
    by_obsid = {str(row["obsid"]): row for row in observations}
    by_name = {row.get("obs_id"): row for row in observations}
    by_source = {source: row for row in observations for source in _sources(row)}
    placed = _having(observations, lambda row: _place(row, service), "observations without a place", remarks)
    place_of = {str(row["obsid"]): _place(row, service) for row in placed}
    found, unaddressed = [], list[Row]()
    for row in files:
        name = str(row.get("productFilename") or "")
        what = named(name)
        if what is None or what.pipeline.name not in taken:
            continue
        parents = (by_obsid.get(str(row.get(key))) for key in ("parent_obsid", "obsID"))
        of_name = by_name.get(row.get("obs_id")), by_source.get(source_of(what))
        observation = next(filter(None, (*parents, *of_name)), None)
        if observation is None:
            raise service.failed(f"it answered with {name}, unasked")
        if row.get("dataURI") is None:
            unaddressed.append(row)
            continue
        ra, dec = place_of.get(str(observation["obsid"]), (None, None))
        uri, size, cadence_s = row["dataURI"], row.get("size"), observation.get("t_exptime")
        found.append(
            Found(
                uri=str(uri),
                name=name,
                named=what,
                ra=ra,
                dec=dec,
                cadence_s=float(cadence_s) if isinstance(cadence_s, int | float) else None,
                size=size if isinstance(size, int) and size > 0 else None,
            )
        )
    if unaddressed and not found:
        _value(unaddressed[0], "dataURI", service)
    remarks += [f"files without an address, left out: {len(unaddressed)}"] if unaddressed else []
    return found


def _having(rows: Rows, look: Callable[[Row], Any], what: str, remarks: list[str]) -> Rows:
    """Keep the rows for which `look` succeeds, and remark on the others; raise its error if none is left."""
    kept, errors = Rows(), list[ArchiveError]()
    for row in rows:
        try:
            look(row)
        except ArchiveError as error:
            errors.append(error)
        else:
            kept.append(row)
    if errors and not kept:
        raise errors[0]
    remarks += [f"{what}: {len(errors)}"] if errors else []
    return kept


def _place(row: Row, service: Service) -> tuple[float, float]:
    ra, dec = _value(row, "s_ra", service), _value(row, "s_dec", service)
    if not (isinstance(ra, int | float) and isinstance(dec, int | float) and 0 <= ra <= 360 and -90 <= dec <= 90):
        raise service.failed(f"an observation of {row.get('target_name')} is at {ra!r}, {dec!r}")
    return float(ra), float(dec)


def _value(row: Row, name: str, service: Service) -> Any:
    if row.get(name) is None:
        raise service.failed(f"rows come without {name}")
    return row[name]
