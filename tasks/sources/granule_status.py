"""Tell which granules of a survey are to be extracted: the rule on what failed and what was rejected, in one place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from lake.commit.ledger import Select
from lake.query import Lake

Piece = TypeVar("Piece")

# Status of the last attempt at a granule, None if there was none, of those that a run asks for.
_WANTED: Mapping[Select, tuple[str | None, ...]] = {
    "pending": (None, "failed"),
    "failed": ("failed", "rejected"),
    "all": (None, "failed", "rejected"),  # what is in the lake has the same file: its version is in the granule's id
}


@dataclass(frozen=True)
class GranuleStatus(Generic[Piece]):
    """Pieces to be extracted; how many of all are in the lake, were rejected, and are skipped for that."""

    waiting: list[Piece]
    done: int
    rejected: int
    skipped: int


def granule_status(
    lake: Lake, archive: str, releases: Collection[str], pieces: Mapping[str, Piece], *, select: Select = "pending"
) -> GranuleStatus[Piece]:
    """Return the status of some pieces, from the last attempt at each.

    A rejected piece is skipped, since it is still the same file, unless the run retries what failed.

    Parameters
    ----------
    pieces
        All pieces, by the id of their granule.
    """
    known = last_status(lake, archive, releases)
    states = [known.get(granule) for granule in pieces]
    wanted, rejected = _WANTED[select], states.count("rejected")
    return GranuleStatus(
        [piece for piece, state in zip(pieces.values(), states, strict=True) if state in wanted],
        sum(state in ("done", "empty") for state in states),
        rejected,
        0 if "rejected" in wanted else rejected,
    )


def last_status(
    lake: Lake, archive: str, releases: Iterable[str], granule: str | None = None, parameters: str | None = None
) -> dict[str, str]:
    """Return the status of the last attempt at each granule of some releases, or only at one, or of one question."""
    rows = lake.sql(
        "SELECT granule, arg_max(status, attempt) AS status FROM ledger WHERE archive = $archive "
        "AND release IN (SELECT unnest($releases)) AND ($granule IS NULL OR granule = $granule) "
        "AND ($parameters IS NULL OR parameters = $parameters) GROUP BY granule",
        {"archive": archive, "releases": sorted(releases), "granule": granule, "parameters": parameters},
    )
    return dict(zip(rows["granule"].to_pylist(), rows["status"].to_pylist(), strict=True))
