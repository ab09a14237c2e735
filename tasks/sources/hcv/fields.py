"""Ask for cones that lie close together by one request, and find here what is in each of them.

Few targets of a large sample have HST images; that there is nothing is known of a whole field at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lake.errors import TruncatedAnswer
from lake.science.sky import separation_arcsec, unit_vectors
from tasks.services.values import as_number, on_sky
from tasks.sources.hcv.pages import Ask, Row, Rows, id_of, page, pages

Cone = Mapping[str, float]
Each = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]

# The service's limit on a cone (MAST's notebook HCV_API_demo).
MOST_RADIUS_DEG = 0.5

# Radii of fields; the second where the first one has too many rows.
_RADII_DEG = (MOST_RADIUS_DEG, MOST_RADIUS_DEG / 10)

# A field of more rows is not asked for as a whole: most of them would be of no target.
FIELD_ROWS = 1000

# So much wider is a field than its cones, so that rounding loses nothing.
_PAD_DEG = 1e-6


def rows_in(ask: Ask, endpoint: str, table: str, cones: Sequence[Cone], each: Each) -> Rows:
    """Return the rows of a table that lie in cones.

    Parameters
    ----------
    ask, endpoint, table
        As for `tasks.sources.hcv.pages.pages`.
    cones
        Columns ra, dec and radius, in degrees.
    each
        Calls a function for each of a list, some of them at the same time.

    Raises
    ------
    TruncatedAnswer, ArchiveError
        As from `pages`.
    """
    rows: Rows = []
    for most in _RADII_DEG:
        asked = fields(cones, most)
        answers = each(lambda field: _of_field(ask, endpoint, table, field), asked)
        rows += [row for answer in answers for row in answer or ()]
        cones = [cone for field, answer in zip(asked, answers, strict=True) if answer is None for cone in field]
    return rows + [row for answer in each(lambda cone: pages(ask, endpoint, table, cone), cones) for row in answer]


def fields(cones: Sequence[Cone], most_radius_deg: float = MOST_RADIUS_DEG) -> list[list[Cone]]:
    """Put cones into fields; begin at the edge each time, so that there are few.

    Examples
    --------
    >>> near = [{"ra": ra, "dec": 20.0, "radius": 0.001} for ra in (10.0, 10.2, 200.0)]
    >>> [len(field) for field in fields(near)]
    [1, 2]
    """
    at, left, made = _directions(cones), np.arange(len(cones)), list[list[Cone]]()
    while left.size:
        first = left[np.argmax(np.linalg.norm(at[left] - at[left].mean(axis=0), axis=1))]
        apart = np.linalg.norm(at[left] - at[first], axis=1)
        order = left[np.argsort(apart, kind="stable")][: np.count_nonzero(apart <= 2 * np.radians(most_radius_deg))]
        n = 1
        while n < order.size and _around([cones[place] for place in order[: n + 1]])["radius"] <= most_radius_deg:
            n += 1
        made.append([cones[place] for place in order[:n]])
        left = np.setdiff1d(left, order[:n])
    return made


def place_of(row: Row) -> tuple[str, float | None, float | None]:
    """Return the id of a row's source, empty if it has none, and its position in degrees, None for what is no number.

    Examples
    --------
    >>> place_of({"matchid": 7, "ra": "10.5", "dec": None})
    ('7', 10.5, nan)
    """
    return id_of(row), as_number(row.get("ra")), as_number(row.get("dec"))


def _of_field(ask: Ask, endpoint: str, table: str, field: Sequence[Cone]) -> Rows | None:
    """Return the rows in a field's cones; None if they have to be asked for alone.

    That is where the field has more rows than an answer should, or some without an id or a position.
    """
    if len(field) == 1:
        return None
    try:
        rows = page(ask, endpoint, table, _around(field), FIELD_ROWS)
    except TruncatedAnswer:
        return None
    places = [place_of(row) for row in rows]
    ra, dec = np.array([place[1:] for place in places], np.float64).reshape(-1, 2).T
    if len(rows) >= FIELD_ROWS or not all(name for name, *_ in places) or not on_sky(ra, dec).all():
        return None
    wanted = np.zeros(len(rows), bool)
    for cone in field:
        wanted |= separation_arcsec(cone["ra"], cone["dec"], ra, dec) <= 3600 * cone["radius"]
    return [row for row, mine in zip(rows, wanted, strict=True) if mine]


def _around(cones: Sequence[Cone]) -> Cone:
    """Return the cone around the middle of neighbouring cones that holds them all."""
    at = _directions(cones)
    x, y, z = at.sum(axis=0)
    ra, dec = np.degrees([np.arctan2(y, x) % (2 * np.pi), np.arctan2(z, np.hypot(x, y))]).tolist()
    apart = separation_arcsec(ra, dec, [cone["ra"] for cone in cones], [cone["dec"] for cone in cones]) / 3600
    return {"ra": ra, "dec": dec, "radius": float(max(apart + [cone["radius"] for cone in cones])) + _PAD_DEG}


def _directions(cones: Sequence[Cone]) -> NDArray[np.float64]:
    return unit_vectors([cone["ra"] for cone in cones], [cone["dec"] for cone in cones])
