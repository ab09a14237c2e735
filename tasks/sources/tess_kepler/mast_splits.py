"""What a search has found for a granule whose files were too many: its parts are not searched again.

A granule is searched as a whole, and split until its files fit into memory. The parts are fetched next, by the same
process. Each part takes what was found for it once: what is asked anew is searched anew.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.sources.tess_kepler.mast_choice import Source
from tasks.sources.tess_kepler.mast_files import Found

# Files, and remarks on rows that were left out.
Answer = tuple[list[Found], list[str]]

# Searches that a process remembers, and for how long: until a granule's last part has its files.
_MOST, _SECONDS = 16, 3600.0


@dataclass(frozen=True)
class Question:
    """What was asked of a service.

    Parameters
    ----------
    how
        Addresses, radius and authors.
    ids, places
        Sources by number, and positions.
    """

    how: tuple[Any, ...]
    ids: frozenset[Source]
    places: frozenset[tuple[float, float]]

    @classmethod
    def of(cls, how: tuple[Any, ...], ids: Iterable[Source], ra: Sequence[float], dec: Sequence[float]) -> Question:
        """Return a question; positions are rounded to what no survey tells apart, 0.004 mas."""
        places = ((round(lon, 9), round(lat, 9)) for lon, lat in zip(ra, dec, strict=True))
        return cls(how, frozenset(ids), frozenset(places))

    def is_part_of(self, other: Question) -> bool:
        """Say whether another question asked for all of this."""
        return self.how == other.how and self.ids <= other.ids and self.places <= other.places

    def without(self, part: Question) -> Question:
        """Return what is left of it."""
        return replace(self, ids=self.ids - part.ids, places=self.places - part.places)


@dataclass
class _Kept:
    at: float
    whole: Question
    left: Question
    answer: Answer


class Searches:
    """Searches of granules that are being split.

    Parameters
    ----------
    clock
        Returns the time, s.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._kept: deque[_Kept] = deque(maxlen=_MOST)

    def keep(self, asked: Question, answer: Answer) -> None:
        """Remember what a search has found, for the parts that it is split into; once, if it is such a part itself."""
        with self._lock:
            if self._of(asked) is None:
                self._kept.appendleft(_Kept(self._clock(), asked, asked, answer))

    def find(self, asked: Question) -> Answer | None:
        """Return what a search of all of this, and more, has found; None if there was none of late."""
        with self._lock:
            kept = self._of(asked)
            return None if kept is None else kept.answer

    def forget(self, part: Question) -> None:
        """Forget what was found for a part that is fetched now."""
        with self._lock:
            for kept in self._kept:
                kept.left = kept.left.without(part) if kept.left.how == part.how else kept.left

    def _of(self, asked: Question) -> _Kept | None:
        now = self._clock()
        fresh = (kept for kept in self._kept if now - kept.at < _SECONDS and asked != kept.whole)
        return next((kept for kept in fresh if asked.is_part_of(kept.left)), None)


SEARCHES = Searches()
