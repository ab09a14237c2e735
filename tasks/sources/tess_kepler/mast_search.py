"""Search MAST for light curves of TESS, Kepler and K2: a few requests for a whole batch of targets.

Places are asked for the targets of MAST that are there, these and those known by number for their observations, and
the observations for their files. The protocol is the portal's as astroquery.mast 0.4.11 speaks it; its own client polls
without a pause while a search runs, counts no rows, and keeps addresses in classes that threads share.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lake.errors import ArchiveError, TruncatedAnswer
from lake.science.sky import match
from lake.settings import Settings
from lake.text import counted
from tasks.services.bounds import parsed_json
from tasks.services.http import Session
from tasks.sources.tess_kepler.mast_choice import AUTHORS, Source, source_of
from tasks.sources.tess_kepler.mast_files import Found
from tasks.sources.tess_kepler.mast_products import named

Floats = NDArray[np.float64]
Row = dict[str, Any]
Rows = list[Row]

SERVICE = "/api/v0/invoke"

# The portal takes pages of up to 50,000 rows, each of some 30 values; smaller ones bound what is held at a time.
PAGE_ROWS = 5000
MOST_PAGES = 40

# Kepler's and K2's light curves have been of either type (lightkurve 2.6.0, search.py).
_TYPES = ("timeseries", "cube")
_MISSIONS = {"TESS": "TIC", "KEPLER": "KIC", "K2": "EPIC"}
_PREFIXES = {"tic": "TIC", "tess": "TIC", "kic": "KIC", "kplr": "KIC", "epic": "EPIC", "ktwo": "EPIC"}

# What is kept of a row: of observations, and of their files.
_KEPT = (
    "obsid",
    "obs_id",
    "obs_collection",
    "project",
    "provenance_name",
    "dataproduct_type",
    "target_name",
    "s_ra",
    "s_dec",
    "t_exptime",
    "parent_obsid",
    "obsID",
    "productFilename",
    "dataURI",
    "size",
)

# Observations whose files are asked for in one request: a list of these is some 10 kB.
_OBSERVATIONS = 1000
# Asked for beyond the radius, so that rounding at the service loses nothing.
_PAD_ARCSEC = 0.01
_FIRST_POLL_S, _LONGEST_POLL_S = 0.5, 10.0


def search(
    url: str,
    settings: Settings,
    ids: Mapping[str, Collection[int]],
    places: tuple[Floats, Floats],
    radius_arcsec: float,
    archive: str,
    authors: Sequence[str] = tuple(AUTHORS),
    remarks: list[str] | None = None,
) -> list[Found]:
    """Search all files of light curves of some targets at MAST.

    Parameters
    ----------
    url
        MAST's address, to which /api/v0/invoke is added.
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
    remarks = [] if remarks is None else remarks
    with Session(archive, url.rstrip("/") + SERVICE, settings.timeout_s, settings.task_timeout_s) as session:
        sources = {(catalogue, number) for catalogue, numbers in ids.items() for number in numbers}
        if len(places[0]):
            sources |= _at(session, places, radius_arcsec, authors, remarks)
        if not sources:
            return []
        filters = [
            {"paramName": "target_name", "values": _spelled(sources)},
            {"paramName": "dataproduct_type", "values": list(_TYPES)},
            {"paramName": "provenance_name", "values": list(authors)},
        ]
        observations = rows_of(session, "Mast.Caom.Filtered", {"columns": "*", "filters": filters})
        observations = _having(
            observations, lambda row: _value(row, "obsid", session), "observations without an id", remarks
        )
        obsids = list(dict.fromkeys(str(row["obsid"]) for row in observations))
        files: Rows = []
        for start in range(0, len(obsids), _OBSERVATIONS):
            asked = ",".join(obsids[start : start + _OBSERVATIONS])
            files += rows_of(session, "Mast.Caom.Products", {"obsid": asked})
        found = _found(observations, files, authors, session, remarks)
    return [file for file in found if source_of(file.named) in sources]


def rows_of(session: Session, service: str, params: Mapping[str, Any], data: Mapping[str, Any] | None = None) -> Rows:
    """Fetch all rows of the answer to a request of the portal, however many pages it has.

    Parameters
    ----------
    session
        Its url is that of the portal's API.
    service, params, data
        As the portal has them: mast.stsci.edu/api/v0, class MashupRequest.

    Returns
    -------
    list of dict
        Of each row what is used here, None where the service has nothing.

    Raises
    ------
    TruncatedAnswer
        If fewer rows came than there are, the next page is the one before, or there is no end to them.
    ArchiveError
        If the service says that it failed, the search does not end, or the answer is not the portal's.
    """
    # Without something new in it a request may be answered from what the portal remembers.
    request = {
        "service": service,
        "params": params,
        "format": "json",
        "pagesize": PAGE_ROWS,
        "cacheBreaker": uuid.uuid4().hex,
        **({"data": data} if data else {}),
    }

    def cut(what: str) -> TruncatedAnswer:
        return TruncatedAnswer(f"{service}: {what}", archive=session.archive, endpoint=session.url)

    rows: Rows = []
    before: Rows = []
    for page in range(1, MOST_PAGES + 1):
        answer = _complete(session, {**request, "page": page}, service)
        came, total = _page(answer, session, service)
        if page > 1 and came and came == before:
            raise cut(f"page {page} is page {page - 1} again")
        rows, before = rows + came, came
        if total is None and len(came) >= PAGE_ROWS:
            raise cut(f"{counted(len(came), 'row')} came, and it does not say of how many")
        if len(rows) > (total or len(rows)):
            raise cut(f"{counted(len(rows), 'row')} came of {total}")
        if total is None or len(rows) == total:
            return rows
        if len(came) < PAGE_ROWS:
            raise cut(f"{len(rows)} of {counted(total, 'row')} came")
    raise cut(f"no end after {counted(len(rows), 'row')}")


def _complete(session: Session, request: Mapping[str, Any], service: str) -> Row:
    """Send a request until the search has ended, and return the answer."""
    pause = _FIRST_POLL_S
    while True:
        answer = _parsed(session.post(session.url, data={"request": json.dumps(request)}).content, session)
        status, message = answer.get("status"), " ".join(str(answer.get("msg") or "").split())
        if status == "COMPLETE":
            if re.search(r"truncat|exceed|too many", message, re.IGNORECASE):
                raise TruncatedAnswer(f"{service}: {message[:200]}", archive=session.archive, endpoint=session.url)
            return answer
        if status != "EXECUTING":
            raise _failed(f"{service}: status {status}: {message[:200] or 'it does not say why'}", session)
        if time.monotonic() + pause > session.deadline:
            raise _failed(f"{service}: still {status} after {session.deadline_s:g} s, given up", session)
        time.sleep(pause)
        pause = min(1.5 * pause, _LONGEST_POLL_S)


def _parsed(body: bytes, session: Session) -> Row:
    try:
        answer = parsed_json(body, session.budget())
    except ValueError as error:
        excerpt = " ".join(re.sub(r"<[^>]*>", " ", body[:20_000].decode(errors="replace")).split())[:200]
        raise _failed(f"the answer is no JSON, or part of one: {excerpt}", session) from error
    if not isinstance(answer, dict):
        raise _failed("the answer is not the portal's", session)
    return answer


def _page(answer: Row, session: Session, service: str) -> tuple[Rows, int | None]:
    """Return the rows of a page, and how many there are on all pages if it says so."""
    data = answer.get("data")
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise _failed(f"{service}: the answer has no rows", session)
    paging = answer.get("paging")
    total = paging.get("rowsTotal") if isinstance(paging, dict) else None
    if total is not None and not isinstance(total, int):
        raise _failed(f"{service}: the answer has {total!r} rows", session)
    return [{name: row[name] for name in _KEPT if name in row} for row in data], total


def _at(
    session: Session, places: tuple[Floats, Floats], radius_arcsec: float, authors: Sequence[str], remarks: list[str]
) -> set[Source]:
    """Return the sources observed at some positions. The service returns the observations of all missions."""
    ra, dec = np.mod(places[0], 360.0), places[1]
    upload = {
        "fields": [{"name": name, "type": "float"} for name in ("ra", "dec")],
        "data": [{"ra": lon, "dec": lat} for lon, lat in zip(ra.tolist(), dec.tolist(), strict=True)],
    }
    reach, wanted = radius_arcsec + _PAD_ARCSEC, {author.lower() for author in authors}
    params = {"raColumn": "ra", "decColumn": "dec", "radius": reach / 3600}
    rows = [
        row
        for row in rows_of(session, "Mast.Caom.Crossmatch", params, upload)
        if str(row.get("dataproduct_type")).lower() in _TYPES
        and str(row.get("obs_collection")).upper() in (*_MISSIONS, "HLSP")
        and (row.get("provenance_name") is None or str(row["provenance_name"]).lower() in wanted)
    ]
    rows = _having(rows, lambda row: _place(row, session), "observations without a place", remarks)
    there = np.array([_place(row, session) for row in rows], np.float64).reshape(-1, 2)
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
    observations: Rows, files: Rows, authors: Sequence[str], session: Session, remarks: list[str]
) -> list[Found]:
    """Return the light curves among the files of observations, each with its observation's position, if it has one."""
    taken = {AUTHORS[author].name for author in authors}
    # A file belongs to the observation that was asked for; the one that made it may be another.
    by_obsid = {str(row["obsid"]): row for row in observations}
    by_name = {row.get("obs_id"): row for row in observations}
    by_source = {source: row for row in observations for source in _sources(row)}
    placed = _having(observations, lambda row: _place(row, session), "observations without a place", remarks)
    place_of = {str(row["obsid"]): _place(row, session) for row in placed}
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
            raise _failed(f"Mast.Caom.Products: it answered with {name}, unasked", session)
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
        _value(unaddressed[0], "dataURI", session)
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


def _place(row: Row, session: Session) -> tuple[float, float]:
    ra, dec = _value(row, "s_ra", session), _value(row, "s_dec", session)
    if not (isinstance(ra, int | float) and isinstance(dec, int | float) and 0 <= ra <= 360 and -90 <= dec <= 90):
        raise _failed(f"an observation of {row.get('target_name')} is at {ra!r}, {dec!r}", session)
    return float(ra), float(dec)


def _value(row: Row, name: str, session: Session) -> Any:
    if row.get(name) is None:
        raise _failed(f"rows come without {name}", session)
    return row[name]


def _failed(message: str, session: Session) -> ArchiveError:
    hint = f"if it stays so, check LIGHTLAKE_ENDPOINTS__{session.archive.upper()}"
    return ArchiveError(message, archive=session.archive, endpoint=session.url, transient=True, hint=hint)
