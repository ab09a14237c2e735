"""Read what services answer: columns under each name that any version gives them, positions, names that carry one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lake.science.sky import separation_arcsec
from lake.text import counted
from tasks.samples.services import SampleService

# A designation by position, as in SDSS J015957.64+003310.4; catalogues of journals have a Unicode minus.
_DESIGNATION = re.compile(
    r"(?<![0-9])([0-2]\d)([0-5]\d)([0-5]\d(?:\.\d+)?)\s?([-+−–])([0-8]\d|90)([0-5]\d)([0-5]\d(?:\.\d*)?)(?![0-9])"
)
_SEXAGESIMAL = re.compile(r"\s*[-+−–]?\d{1,3}[:\s]\d{1,2}[:\s]\d{1,2}(\.\d*)?\s*")

# Names by position are cut, not rounded: 0.15 arcsec in right ascension. A column that is none of this object's
# position is further away by far.
NAME_TOLERANCE_ARCSEC = 10.0


@dataclass(frozen=True)
class Answer:
    """A table as a service gave it.

    Parameters
    ----------
    table
        Its columns, by their own names.
    url
        What was asked, for messages.
    """

    service: SampleService
    table: pa.Table
    url: str

    def find(self, *names: str) -> str | None:
        """Return the name of the column that has one of these names, the first that is there."""
        held = self.table.column_names
        for name in names:
            if name in held:
                return name
        folded: dict[str, list[str]] = {}
        for column in held:
            folded.setdefault(_folded(column), []).append(column)
        for name in names:
            if len(found := folded.get(_folded(name), [])) == 1:
                return found[0]
        return None

    def column(self, *names: str) -> pa.ChunkedArray:
        """Return the column that has one of these names.

        Raises
        ------
        ArchiveError
            If there is none; it names those that there are.
        """
        if (found := self.find(*names)) is None:
            held = ", ".join(self.table.column_names[:40])
            raise self.service.failed(
                f"the answer has no column {' or '.join(names)}: it has {held}",
                self.url,
                transient=False,
                hint="the service has changed its columns: please report it",
            )
        return self.table[found]

    def positions(self, ra: Sequence[str], dec: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of all rows in degrees, ICRS or J2000; texts are sexagesimal, hours and degrees."""
        pair = [_numbers(self.column(*ra), hours=True), _numbers(self.column(*dec), hours=False)]
        self.check_positions(*pair)
        return pair[0], pair[1]

    def check_positions(self, ra: np.ndarray, dec: np.ndarray) -> None:
        """Check that each row has a position on the sky."""
        bad = ~((ra >= 0.0) & (ra <= 360.0) & (np.abs(dec) <= 90.0))
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise self.service.failed(
                f"{int(bad.sum())} of {counted(len(bad), 'row has', 'rows have')} no position, the "
                f"first is row {first + 1} with "
                f"{ra[first]} {dec[first]}",
                self.url,
                transient=False,
            )

    def texts(self, *names: str) -> list[str | None]:
        """Return a column of texts, blanks joined; None where the answer has nothing, or no such column."""
        if (found := self.find(*names)) is None:
            return [None] * self.table.num_rows
        return [
            " ".join(str(value).split()) or None if value is not None else None
            for value in self.table[found].to_pylist()
        ]

    def redshifts(self, *names: str) -> pa.Array:
        """Return a column of redshifts; NULL where the answer has none, or no such column."""
        if (found := self.find(*names)) is None or not pa.types.is_floating(self.table[found].type):
            return pa.nulls(self.table.num_rows, pa.float64())
        values = self.table[found].to_numpy().astype(float)
        return pa.array(values, mask=~(values > -1.0))

    def check_names(self, names: Sequence[str | None], ra: np.ndarray, dec: np.ndarray) -> None:
        """Check that names that carry a position are where the columns say."""
        carried = [position_in(name) if name else None for name in names]
        rows = [row for row, place in enumerate(carried) if place is not None]
        if not rows:
            return
        named = np.array([carried[row] for row in rows], float)
        apart = separation_arcsec(named[:, 0], named[:, 1], ra[rows], dec[rows])
        if (apart > NAME_TOLERANCE_ARCSEC).any():
            worst = rows[int(np.argmax(apart))]
            raise self.service.failed(
                f"row {worst + 1} is at {ra[worst]:.5f} {dec[worst]:+.5f}, and its name is {names[worst]}: its columns "
                "are not degrees, or not this object's",
                self.url,
                transient=False,
            )


def position_in(name: str) -> tuple[float, float] | None:
    """Return the position that a designation carries, deg; None if it carries none.

    Examples
    --------
    >>> ra, dec = position_in("SDSS J015957.64+003310.4")
    >>> round(ra, 5), round(dec, 5)
    (29.99017, 0.55289)
    >>> position_in("Mrk 1018") is None
    True
    """
    found = _DESIGNATION.search(name)
    if found is None:
        return None
    hours, minutes, seconds, sign, degrees, arcmin, arcsec = found.groups()
    ra = 15.0 * (int(hours) + int(minutes) / 60.0 + float(seconds) / 3600.0)
    dec = int(degrees) + int(arcmin) / 60.0 + float(arcsec) / 3600.0
    return (ra, dec if sign == "+" else -dec) if ra < 360.0 and dec <= 90.0 else None


def _folded(name: str) -> str:
    """Return a column's name as the versions of astroquery and of services have in common: CLQ? and CLQ_ are one."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).rstrip("_")


def _numbers(column: pa.ChunkedArray, *, hours: bool) -> np.ndarray:
    """Return a column of coordinates as degrees; NaN where it has none."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), float)
    return np.array([_degrees(text, hours=hours) for text in column.to_pylist()], float)


def _degrees(text: object, *, hours: bool) -> float:
    said = str(text or "").translate(str.maketrans("−–", "--")).strip()
    if _SEXAGESIMAL.fullmatch(said):
        first, second, third = (float(part) for part in re.split(r"[:\s]+", said.lstrip("+-")))
        value = first + second / 60.0 + third / 3600.0
        return (15.0 if hours else -1.0 if said.startswith("-") else 1.0) * value
    try:
        return float(said)
    except ValueError:
        return float("nan")


@dataclass(frozen=True)
class Objects:
    """The objects of a paper, as a service lists them.

    Parameters
    ----------
    answer
        All columns.
    query
        What was asked.
    names, ra, dec, redshifts, rows
        Of each object; positions in degrees, rows from 1.
    catalogue
        Where the rows are.
    has_stable_rows
        Whether the rows have the same numbers whenever it is asked.
    """

    answer: Answer
    query: str
    names: list[str | None]
    ra: np.ndarray
    dec: np.ndarray
    redshifts: pa.Array
    rows: list[int]
    catalogue: str
    has_stable_rows: bool = False
