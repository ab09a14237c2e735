"""MAST's portal: a few requests for the observations at some places, or of some targets, and for their files.

The protocol is the portal's as astroquery.mast 0.4.11 speaks it; its own client polls without a pause while a search
runs, counts no rows, and keeps addresses in classes that threads share.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lake.errors import ArchiveError, TruncatedAnswer
from lake.settings import Settings
from lake.text import counted
from tasks.services.bounds import parsed_json
from tasks.services.http import Session

Floats = NDArray[np.float64]
Row = dict[str, Any]
Rows = list[Row]

SERVICE = "/api/v0/invoke"

# The portal takes pages of up to 50,000 rows, each of some 30 values; smaller ones bound what is held at a time.
PAGE_ROWS = 5000
MOST_PAGES = 40

# Columns of observations that are kept; MAST's TAP service has the same.
OBSERVATION = (
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
)

# What is kept of a row: of observations, and of their files.
_KEPT = (*OBSERVATION, "parent_obsid", "obsID", "productFilename", "dataURI", "size")

# Observations whose files are asked for in one request: a list of these is some 10 kB.
_OBSERVATIONS = 1000
_FIRST_POLL_S, _LONGEST_POLL_S = 0.5, 10.0


class Portal:
    """The portal, as a context manager; all requests together have the time of a task.

    Parameters
    ----------
    url
        MAST's address, to which /api/v0/invoke is added.
    archive
        Name for messages and hints.
    """

    def __init__(self, url: str, settings: Settings, archive: str) -> None:
        self._session = Session(archive, url.rstrip("/") + SERVICE, settings.timeout_s, settings.task_timeout_s)

    def __enter__(self) -> Self:
        self._session.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._session.__exit__(*error)

    def near(self, ra: Floats, dec: Floats, reach_arcsec: float) -> Rows:
        """Return the observations of all missions within reach of some positions, ICRS degrees, and some beyond."""
        upload = {
            "fields": [{"name": name, "type": "float"} for name in ("ra", "dec")],
            "data": [{"ra": lon, "dec": lat} for lon, lat in zip(ra.tolist(), dec.tolist(), strict=True)],
        }
        params = {"raColumn": "ra", "decColumn": "dec", "radius": reach_arcsec / 3600}
        return rows_of(self._session, "Mast.Caom.Crossmatch", params, upload)

    def light_curves(self, names: Sequence[str], types: Sequence[str], authors: Sequence[str]) -> tuple[Rows, Rows]:
        """Return the observations of targets with these names, of these types and authors, and their files."""
        filters = [
            {"paramName": "target_name", "values": list(names)},
            {"paramName": "dataproduct_type", "values": list(types)},
            {"paramName": "provenance_name", "values": list(authors)},
        ]
        observations = rows_of(self._session, "Mast.Caom.Filtered", {"columns": "*", "filters": filters})
        obsids = list(dict.fromkeys(str(row["obsid"]) for row in observations if row.get("obsid") is not None))
        files: Rows = []
        for start in range(0, len(obsids), _OBSERVATIONS):
            asked = ",".join(obsids[start : start + _OBSERVATIONS])
            files += rows_of(self._session, "Mast.Caom.Products", {"obsid": asked})
        return observations, files

    def failed(self, message: str) -> ArchiveError:
        """Return the error that an answer amounts to which makes no sense; it may pass."""
        return _failed(message, self._session)


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


def _failed(message: str, session: Session) -> ArchiveError:
    hint = f"if it stays so, check LIGHTLAKE_ENDPOINTS__{session.archive.upper()}"
    return ArchiveError(message, archive=session.archive, endpoint=session.url, transient=True, hint=hint)
