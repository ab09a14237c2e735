"""What a search has found for a granule whose files were too many: its halves are not searched again.

A granule is searched as a whole, and split until its files fit into memory. The parts are fetched next, by the same
process. They are strictly less than what was asked, so that a target that is asked anew is always searched anew.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
        """Say whether another question asked for all of this, and for more."""
        return self != other and self.how == other.how and self.ids <= other.ids and self.places <= other.places


class Searches:
    """Searches of granules that are being split.

    Parameters
    ----------
    clock
        Returns the time, s.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._kept: deque[tuple[float, Question, Answer]] = deque(maxlen=_MOST)

    def keep(self, asked: Question, answer: Answer) -> None:
        """Remember what a search has found."""
        with self._lock:
            self._kept.appendleft((self._clock(), asked, answer))

    def find(self, asked: Question) -> Answer | None:
        """Return what a search of all of this, and more, has found; None if there was none of late."""
        with self._lock:
            now = self._clock()
            fresh = (answer for at, whole, answer in self._kept if now - at < _SECONDS and asked.is_part_of(whole))
            return next(fresh, None)


SEARCHES = Searches()
