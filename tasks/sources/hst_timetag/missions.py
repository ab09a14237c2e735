"""Ask MAST's missions API: a search with criteria, page by page, and the products of datasets.

astroquery.mast.MastMissions 0.4.11 composes the requests. Its own client would send them without a limit of size, to an
address that the whole process shares, and would drop the number of rows that the service counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from astroquery.exceptions import InvalidQueryError
from astroquery.mast.missions import MastMissionsClass
from astroquery.mast.services import ServiceAPI

from lake.errors import ArchiveError, TruncatedAnswer
from lake.settings import Settings
from lake.text import counted, one_line
from tasks.services.bounds import Budget, parsed_json
from tasks.services.http import Reply, Session, failing
from tasks.sources.hst_timetag.tables import ENDPOINT, NAME, SERVICE

Row = dict[str, Any]

MISSION = "hst"

# Rows that are asked for at a time, some 600 bytes each, and the most of all pages, which are in memory together.
PAGE_ROWS = 5_000
MOST_ROWS = 200_000
# Datasets whose products are asked for at a time: each has some 20, of 400 bytes.
DATASETS = 250

DATASET = "sci_data_set_name"


def endpoint(settings: Settings) -> str:
    """Return the address of MAST."""
    return settings.endpoints.get(SERVICE, ENDPOINT).rstrip("/")


class _MissionsSession(Session):
    """A session whose errors name the setting of the endpoint."""

    # astroquery takes it for a session of requests, and asks for this one.
    headers: ClassVar = {"User-Agent": "lightlake"}

    def budget(self) -> Budget:
        hint = f"check LIGHTLAKE_ENDPOINTS__{SERVICE.upper()}"
        return replace(super().budget(), failed=failing(NAME, self.url, hint))


class _Requests(ServiceAPI):  # type: ignore[misc]  # astroquery comes without types
    """Sends what astroquery asks through a session with limits, to an address of its own."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.SERVICE_URL = session.url

    def _request(self, method: str, url: str, **more: Any) -> Reply:
        reply: Reply = self._session.request(method, url, json=more["data"], headers=more["headers"])
        return reply


class _Astroquery(MastMissionsClass):  # type: ignore[misc]
    def __init__(self, session: Session) -> None:
        super().__init__(mission=MISSION)
        self._service_api_connection = _Requests(session)
        self.mission = MISSION  # which sets the paths of its requests

    def get_column_list(self) -> Mapping[str, list[str]]:
        """Return the names of columns, against which criteria are checked; asked for once."""
        if MISSION not in self.columns:
            session: Session = self._service_api_connection._session
            url = f"{session.url}/search/util/api/v0.1/column_list"
            answer = _parsed(session.get(url, params={"mission": MISSION}), session)
            if not isinstance(answer, list) or not all(
                isinstance(one, dict) and one.get("column_name") for one in answer
            ):
                raise _failed("the list of columns is none", session)
            self.columns[MISSION] = {"name": [one["column_name"] for one in answer]}
        names: Mapping[str, list[str]] = self.columns[MISSION]
        return names


class Missions:
    """MAST's missions API, from construction until the end of ``with``.

    Parameters
    ----------
    settings
        Endpoint LIGHTLAKE_ENDPOINTS__HST, if it is not to be the public service, and limits of time and size.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = endpoint(settings)
        self._session = _MissionsSession(NAME, self.url, settings.timeout_s, settings.task_timeout_s)
        self._astroquery = _Astroquery(self._session)

    def __enter__(self) -> Missions:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.__exit__(*error)

    def search(
        self,
        criteria: Mapping[str, str],
        columns: Sequence[str],
        place: tuple[float, float] | None = None,
        radius_arcsec: float = 0.0,
    ) -> list[Row]:
        """Return all rows that fulfil criteria, however many pages they have.

        Parameters
        ----------
        criteria
            By column: values joined by commas, negated by "!", with wildcards "*", or ranges such as ">2020-01-01".
        columns
            What to return of each row; the dataset's name comes with it.
        place, radius_arcsec
            Centre of a cone, ICRS degrees, and its radius.

        Raises
        ------
        TruncatedAnswer
            If fewer rows came than the service counts, or some came twice.
        ArchiveError
            If the service does not answer, or not as it should.
        """
        from astropy.coordinates import SkyCoord
        from astropy.units import arcsec

        cone = {} if place is None else {"coordinates": SkyCoord(*place, unit="deg"), "radius": radius_arcsec * arcsec}
        rows: dict[str, Row] = {}
        while True:
            try:
                reply = self._astroquery.query_criteria_async(
                    **cone,
                    limit=PAGE_ROWS,
                    offset=len(rows),
                    select_cols=list(columns),
                    # Without an order pages may have rows twice, and others not at all.
                    sort_by=[DATASET],
                    sort_desc=[False],
                    **criteria,
                )
            except InvalidQueryError as error:
                raise self._session.budget().failed(one_line(str(error))) from error
            came, total = self._page(reply)
            for row in came:
                name = str(row[DATASET]).strip()
                if name in rows:
                    raise self._cut(f"{name} came twice")
                rows[name] = {column: row.get(column) for column in columns} | {DATASET: name}
            if total > MOST_ROWS:
                raise self._cut(f"{counted(total, 'row is', 'rows are')} more than the {MOST_ROWS} that are read")
            if len(rows) > total or (len(rows) < total and not came):
                raise self._cut(f"{counted(len(rows), 'row')} came of {total}")
            if len(rows) == total:
                return list(rows.values())

    def products(self, datasets: Sequence[str]) -> Iterator[Row]:
        """Yield the products of datasets, as many as are asked for at a time."""
        names = list(dict.fromkeys(name.upper() for name in datasets))
        for start in range(0, len(names), DATASETS):
            reply = self._astroquery.get_product_list_async(names[start : start + DATASETS])
            answer = _parsed(reply, self._session)
            found = answer.get("products") if isinstance(answer, dict) else None
            # Some answers have the list in a list.
            found = found[0] if isinstance(found, list) and found and isinstance(found[0], list) else found
            if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
                raise _failed("the answer has no products", self._session)
            yield from found

    def _page(self, reply: Reply) -> tuple[list[Row], int]:
        """Return the rows of a page, and how many there are on all pages."""
        answer = _parsed(reply, self._session)
        rows, total = (answer.get(name) if isinstance(answer, dict) else None for name in ("results", "totalResults"))
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row.get(DATASET) for row in rows):
            raise _failed("the answer has no rows, or rows without a dataset", self._session)
        if not isinstance(total, int):
            raise _failed("the answer does not say how many rows there are", self._session)
        return rows, total

    def _cut(self, message: str) -> TruncatedAnswer:
        return TruncatedAnswer(message, archive=NAME, endpoint=self.url)


def _parsed(reply: Reply, session: Session) -> Any:
    try:
        return parsed_json(reply.content, session.budget())
    except ValueError as error:
        text = one_line(re.sub(r"<[^>]*>", " ", reply.content[:20_000].decode(errors="replace")))
        raise _failed(f"the answer is no JSON, or part of one: {text[:200]}", session) from error


def _failed(message: str, session: Session) -> ArchiveError:
    hint = f"if it stays so, check LIGHTLAKE_ENDPOINTS__{SERVICE.upper()}"
    return ArchiveError(message, archive=NAME, endpoint=session.url, transient=True, hint=hint)
