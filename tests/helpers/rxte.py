"""RXTE's observations into a lake without a run: staged and committed as its engine does it."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.sources.protocol import Receipts
from tasks.sources.rxte.mission import Observation
from tasks.sources.rxte.observations import Extraction, Part, commit, fetch, mark_failed
from tasks.worker import lake_at


def part_of(url: str, observations: Sequence[Observation], extraction: Extraction) -> Part:
    """Return observations as one part."""
    return Part(url, str(lake_at(url).storage.staging / "rxte"), tuple(observations), extraction)


def extract_all(url: str, observations: Sequence[Observation], extraction: Extraction) -> Receipts:
    """Bring observations into the lake, all together; return what came of each."""
    return commit(url, fetch(part_of(url, observations, extraction), True))


def lose(url: str, observations: Sequence[Observation], extraction: Extraction, error: BaseException) -> Receipts:
    """Commit that observations are lost."""
    return commit(url, mark_failed(part_of(url, observations, extraction), error))
