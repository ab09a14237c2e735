"""How things stand with the granules of a survey: what waits, what is in the lake, what was refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from lake.query import Lake

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class GranuleStatus(Generic[Piece]):
    """Which pieces are to be extracted, and how many the ledger knows."""

    waiting: list[Piece]
    done: int
    rejected: int


def granule_status(
    lake: Lake, archive: str, releases: Collection[str], pieces: Mapping[str, Piece], *, retry_failed: bool = False
) -> GranuleStatus[Piece]:
    """Return how things stand with some pieces, from the last attempt at each.

    What was rejected is not tried again by itself, since it is still the same file; what failed is.

    Parameters
    ----------
    pieces
        What there is, by the id of its granule.
    retry_failed
        Exactly those that were rejected or failed.
    """
    known = last_status(lake, archive, releases)
    states = [known.get(granule) for granule in pieces]
    wanted = ("rejected", "failed") if retry_failed else (None, "failed")
    return GranuleStatus(
        [piece for piece, state in zip(pieces.values(), states, strict=True) if state in wanted],
        sum(state in ("done", "empty") for state in states),
        states.count("rejected"),
    )


def last_status(lake: Lake, archive: str, releases: Iterable[str], granule: str | None = None) -> dict[str, str]:
    """Return the status of the last attempt at each granule of some releases, or at one."""
    rows = lake.sql(
        "SELECT granule, arg_max(status, attempt) AS status FROM ledger WHERE archive = $archive "
        "AND release IN (SELECT unnest($releases)) AND ($granule IS NULL OR granule = $granule) GROUP BY granule",
        {"archive": archive, "releases": sorted(releases), "granule": granule},
    )
    return dict(zip(rows["granule"].to_pylist(), rows["status"].to_pylist(), strict=True))
