"""Answers of the service of the Hubble Catalog of Variables: pages of rows, in JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lake.errors import ArchiveError, TruncatedAnswer
from lake.text import counted
from tasks.services.bounds import in_memory, parsed_json
from tasks.services.http import failing
from tasks.services.values import as_whole

Row = dict[str, Any]
Rows = list[Row]
Ask = Callable[[str, Mapping[str, Any]], bytes]

NAME = "hcv"

# Example queries in catalogs.mast.stsci.edu/docs/hsc.html ask for up to 5001; larger pages might be cut without notice.
PAGE_ROWS = 5000
MOST_PAGES = 20


def id_of(row: Row) -> str:
    """Return the id of a row's source; empty if it has none.

    Examples
    --------
    >>> id_of({"matchid": 1905457}), id_of({"matchid": None})
    ('1905457', '')
    """
    return str(as_whole(row.get("matchid")) or "")


def pages(ask: Ask, endpoint: str, table: str, query: Mapping[str, Any]) -> Rows:
    """Fetch all rows of an answer, however many pages it has.

    Raises
    ------
    TruncatedAnswer
        If there is no end to the pages, or the next page is the one before.
    ArchiveError
        If an answer is not the service's.
    """
    url = f"{endpoint}/{table}.json"
    rows: Rows = []
    before: Rows = []
    for number in range(1, MOST_PAGES + 1):
        found = page(ask, endpoint, table, {**query, **({"page": number} if number > 1 else {})}, PAGE_ROWS)
        if found and found == before:
            raise TruncatedAnswer(f"page {number} is page {number - 1} again", archive=NAME, endpoint=url)
        rows += found
        if len(found) < PAGE_ROWS:
            return rows
        before = found
    raise TruncatedAnswer(
        f"no end after {counted(len(rows), 'row')}", archive=NAME, endpoint=url, hint="a smaller radius_arcsec"
    )


def page(ask: Ask, endpoint: str, table: str, query: Mapping[str, Any], n_rows: int) -> Rows:
    """Fetch one page of an answer; if it is full, there may be more.

    Raises
    ------
    TruncatedAnswer, ArchiveError
        As from `parse`.
    """
    return parse(ask(table, {**query, "pagesize": n_rows}), f"{endpoint}/{table}.json")


def parse(body: bytes, url: str) -> Rows:
    """Parse the rows of an answer in JSON, by the names of columns in small letters.

    Rows are lists, named by `info` or `fields`, or objects. An empty body is the service's
    answer where it has no rows.

    Raises
    ------
    TruncatedAnswer
        If the answer states more rows than it has.
    ArchiveError
        If it is not JSON, is cut, or is not a table: a retry may help.
    """
    if not body.strip():
        return []

    def failed(what: str) -> ArchiveError:
        excerpt = " ".join(re.sub(r"<[^>]*>", " ", body[:20_000].decode(errors="replace")).split())[:200]
        hint = "if it stays so, check LIGHTLAKE_ENDPOINTS__HCV"
        return ArchiveError(f"{what}: {excerpt}", archive=NAME, endpoint=url, transient=True, hint=hint)

    try:
        answer = parsed_json(body, in_memory(failing(NAME, url, "check LIGHTLAKE_ENDPOINTS__HCV")))
    except ValueError as error:
        raise failed("the answer is no JSON, or part of one") from error
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list):
        raise failed("the answer is not a table")
    columns = answer.get("info") or answer.get("fields") or []
    try:
        if (total := int((answer.get("paging") or {}).get("rowsTotal", 0))) > len(data):
            raise TruncatedAnswer(f"{len(data)} of {counted(total, 'row')} came", archive=NAME, endpoint=url)
        names = [str(column["name"]).lower() for column in columns]
        pairs = [row.items() if isinstance(row, dict) else zip(names, row, strict=True) for row in data]
        return [{name.lower(): value for name, value in row} for row in pairs]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise failed("the answer's rows do not fit its columns") from error
