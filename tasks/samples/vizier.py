"""Ask VizieR for a table of a paper, in the forms that astroquery sends: how many rows it has, and then all of them.

VizieR cuts answers at 50 rows, and says nothing, unless all are asked for; when its database is away it answers with
an error in a VOTable, or with a page, and status 200.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from lake.text import counted
from tasks.samples.answers import Answer, Objects, position_in
from tasks.samples.services import VIZIER, Asking, query_text, read_votable
from tasks.services.bounds import Budget
from tasks.services.http import Reply
from tasks.services.tap import to_arrow

_PATH = "votable"
# Rows at which VizieR cuts an answer unless more are asked for.
_USUAL_LIMIT = 50

# Positions that VizieR computes, ICRS or J2000 in degrees; then those of the catalogue.
_RA = ("_RA.icrs", "_RA", "_RAJ2000", "RA_ICRS", "RAJ2000", "RAdeg")
_DEC = ("_DE.icrs", "_DE", "_DEJ2000", "DE_ICRS", "DEJ2000", "DEdeg")
_NAMES = ("SDSS", "Name", "Names", "OName", "Source", "Object", "ID", "IAUName")
_REDSHIFTS = ("z", "zspec", "zsp", "redshift")


def objects_of(asking: Asking, bibcode: str, table: str) -> Objects:
    """Return the rows of a table, which must be as many as VizieR says that it has.

    Raises
    ------
    ArchiveError
        If it does not answer, or not with the whole table, or if rows have no position.
    """
    url = f"{VIZIER.endpoint(asking.settings)}/{_PATH}"
    found = asking.ask("POST", _PATH, _read_tables, content=_find(bibcode))
    stated = found.get(table)
    if found and stated is None:
        raise VIZIER.failed(
            f"of {bibcode} it has no table {table}: it has {', '.join(sorted(found)[:20])}", url, transient=False
        )
    payload = _payload(table)

    def read(reply: Reply, budget: Budget) -> Answer:
        return _read_rows(reply, budget, table, stated)

    answer = asking.ask("POST", _PATH, read, content=payload)
    names = _names(answer)
    if answer.find(*_RA) is None or answer.find(*_DEC) is None:
        ra, dec = _positions_in(answer, names)
    else:
        ra, dec = answer.positions(_RA, _DEC)
        answer.check_names(names, ra, dec)
    rows = answer.table["recno"].to_pylist() if "recno" in answer.table.column_names else range(1, len(ra) + 1)
    return Objects(
        answer,
        query_text("POST", url, payload.replace("\n", "&")),
        names,
        ra,
        dec,
        answer.redshifts(*_REDSHIFTS),
        list(rows),
        table,
        has_stable_rows=True,
    )


def _find(bibcode: str) -> str:
    """Return the request that lists the tables of a paper, as astroquery's find_catalogs sends it."""
    return f"-words={bibcode}&-meta"


def _payload(table: str) -> str:
    """Return the request of all rows of a table, as astroquery's get_catalogs composes it."""
    from astroquery.vizier import VizierClass

    return str(VizierClass(row_limit=-1).get_catalogs_async(table, get_query_payload=True))


def _read(reply: Reply, budget: Budget) -> Any:
    document = read_votable(reply, budget, VIZIER, reply.url)
    infos = [*document.infos, *(info for resource in document.resources for info in resource.infos)]
    errors = [str(info.value).strip() for info in infos if info.name == "Error"]
    is_error = any(info.name == "QUERY_STATUS" and str(info.value).upper() == "ERROR" for info in infos)
    if is_error or any(errors):
        said = next(filter(None, errors), "an error without words")
        raise VIZIER.failed(f"it says: {said}", reply.url)
    for info in infos:
        if re.search(r"truncated", f"{info.value} {info.content}", re.IGNORECASE):
            raise VIZIER.failed(f"the answer is cut: {info.value}", reply.url, transient=False)
    return document


def _read_tables(reply: Reply, budget: Budget) -> dict[str, int | None]:
    """Return the tables that an answer lists, each with its number of rows."""
    return {table.name: table.nrows or None for table in _read(reply, budget).iter_tables()}


def _read_rows(reply: Reply, budget: Budget, name: str, stated: int | None) -> Answer:
    tables = {table.name: table for table in _read(reply, budget).iter_tables()}
    if name not in tables:
        held = f": it has {', '.join(tables)}" if tables else ""
        raise VIZIER.failed(f"the answer has no table {name}{held}", reply.url)
    table = tables[name]
    rows = len(table.array)
    if stated is not None and rows != stated:
        raise VIZIER.failed(f"the answer has {rows} of the {counted(stated, 'row')} of {name}", reply.url)
    if stated is None and rows in (0, _USUAL_LIMIT):
        raise VIZIER.failed(
            f"the answer has {counted(rows, 'row')} of {name}, and it does not say how many there are", reply.url
        )
    return Answer(VIZIER, to_arrow({one.name: table.array[one.ID] for one in table.fields}, keep_case=True), reply.url)


def _names(answer: Answer) -> list[str | None]:
    found = answer.find(*_NAMES) or next(filter(lambda name: _carries(answer, name), answer.table.column_names), None)
    if found is None:
        return [None] * answer.table.num_rows
    names = answer.texts(found)
    if found != "SDSS":
        return names
    return [name and f"SDSS {name if name.startswith('J') else f'J{name}'}" for name in names]


def _carries(answer: Answer, column: str) -> bool:
    """Say whether each text of a column carries a position."""
    return all(text and position_in(text) for text in answer.texts(column))


def _positions_in(answer: Answer, names: list[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions that names carry, where the table has no columns of positions."""
    places = [position_in(name) if name else None for name in names]
    if not all(places):
        held = ", ".join(answer.table.column_names[:40])
        raise VIZIER.failed(
            f"the table has no column of positions, and no names that carry one: it has {held}",
            answer.url,
            transient=False,
        )
    both = np.array(places, float)
    return both[:, 0], both[:, 1]
