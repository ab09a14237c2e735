"""RXTE's observations into a lake without a run: staged and committed as its engine does it."""

from __future__ import annotations

from collections.abc import Sequence

from lake.commit.commit import Receipt
from tasks.pull import lake_at
from tasks.sources.rxte.mission import Observation
from tasks.sources.rxte.observations import Extraction, Observations, Part, fetch


def part_of(url: str, observations: Sequence[Observation], extraction: Extraction) -> Part:
    """Return observations as one part."""
    return Part(url, str(lake_at(url).storage.staging / "rxte"), tuple(observations), extraction)


def extract_all(
    url: str, observations: Sequence[Observation], extraction: Extraction
) -> list[tuple[str | None, Receipt]]:
    """Bring observations into the lake, all together; return what came of each."""
    return Observations("here").commit(url, fetch(part_of(url, observations, extraction), True))


def lose(
    url: str, observations: Sequence[Observation], extraction: Extraction, error: BaseException
) -> list[tuple[str | None, Receipt]]:
    """Commit that observations are lost."""
    work = Observations("here")
    return work.commit(url, work.mark_failed(part_of(url, observations, extraction), error))
