"""Conditions on the rows of an answer, as facts: which objects of a paper's list are the sample, and who says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lake.science.sky import separation_arcsec
from lake.text import counted
from tasks.samples.answers import Answer


class Condition(Protocol):
    """A condition on rows."""

    def holds(self, answer: Answer, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Say of each row whether it holds."""
        ...


@dataclass(frozen=True)
class Above:
    """A column's value is larger than a number; an empty cell is not."""

    column: str
    value: float

    def holds(self, answer: Answer, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Say of each row whether it holds."""
        return np.asarray(_floats(answer, self.column) > self.value)

    def __str__(self) -> str:
        return f"{self.column} > {self.value:g}"


@dataclass(frozen=True)
class Contains:
    """A column's text has a word in it."""

    column: str
    text: str

    def holds(self, answer: Answer, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Say of each row whether it holds."""
        return np.array([self.text in str(value or "") for value in answer.column(self.column).to_pylist()], bool)

    def __str__(self) -> str:
        return f"{self.column} contains {self.text}"


@dataclass(frozen=True)
class OneOf:
    """A column's value is one of some numbers, within a tolerance."""

    column: str
    values: tuple[float, ...]
    tolerance: float

    def holds(self, answer: Answer, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Say of each row whether it holds."""
        apart = np.abs(_floats(answer, self.column)[:, None] - np.array(self.values)[None, :])
        return np.asarray((apart <= self.tolerance).any(axis=1))

    def __str__(self) -> str:
        return f"{self.column} within {self.tolerance:g} of {', '.join(f'{value:g}' for value in self.values)}"


@dataclass(frozen=True)
class Near:
    """The position is one of some positions, within a radius."""

    positions: tuple[tuple[float, float], ...]
    radius_arcsec: float

    def holds(self, answer: Answer, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Say of each row whether it holds."""
        held = np.zeros(len(ra), bool)
        for place in self.positions:
            held |= separation_arcsec(place[0], place[1], ra, dec) <= self.radius_arcsec
        return held

    def __str__(self) -> str:
        places = f"one of {counted(len(self.positions), 'position')}"
        if len(self.positions) == 1:
            ((ra, dec),) = self.positions
            places = f"{ra:.4f} {dec:+.4f}"
        return f"within {self.radius_arcsec:g} arcsec of {places}"


def _floats(answer: Answer, column: str) -> np.ndarray:
    values = answer.column(column).to_pylist()
    return np.array([np.nan if value is None or value == "" else float(value) for value in values], float)


def as_text(conditions: Sequence[Condition]) -> str:
    """Return conditions as one line.

    Examples
    --------
    >>> as_text([Above("CLQ?", 0), Above("Nsigma", 3)])
    'CLQ? > 0 and Nsigma > 3'
    """
    return " and ".join(map(str, conditions))
