"""Find out what each column of a target list holds: by UCD first, then by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import ConfigurationError
from lake.text import counted
from tasks.samples.cells import to_numbers
from tasks.samples.column_names import (
    BANDS,
    EPOCHS,
    EQUATORIAL,
    EQUINOXES,
    NAME_LIKE,
    NAMES,
    PM,
    REDSHIFTS,
    SYSTEMS,
    TRANSIT,
    is_magnitude,
    split_unit,
    without_brackets,
)
from tasks.samples.frames import Frame

_COMPUTED = {lon for lon, _ in EQUATORIAL[0]}


@dataclass(frozen=True)
class Column:
    """A column of a file, with what the file says about it.

    Parameters
    ----------
    name
        Its name in the file.
    read
        Reads its cells, one per row, as an Arrow array.
    unit, ucd
        As the file declares them; empty if it does not.
    frame
        The frame that the file declares for it.
    role
        ``lon``, ``lat``, ``pm_lon`` or ``pm_lat`` if the column is part of an astropy SkyCoord.
    also
        Another name that users may know it by (the ID of a VOTable field).
    description
        What the file says about it in words.
    parts, known_as
        For a column that is made from others: their names, and its own in `tasks.samples.column_names`.
    """

    name: str
    read: Callable[[], pa.Array]
    unit: str = ""
    ucd: str = ""
    frame: Frame | None = None
    role: str = ""
    also: str = ""
    description: str = ""
    parts: tuple[str, ...] = ()
    known_as: str = ""

    @property
    def plain_name(self) -> str:
        """The name in lower case, without blanks and unit, as in `tasks.samples.column_names`."""
        return self.known_as or split_unit(self.name)[0]

    @property
    def declared_unit(self) -> str | None:
        """The unit that the file declares, or else the one in brackets in the name."""
        return self.unit or (None if self.parts else split_unit(self.name)[1])

    @property
    def plain_ucd(self) -> str:
        """The UCD in lower case, without blanks."""
        return re.sub(r"\s", "", self.ucd.lower())

    @property
    def stem(self) -> str:
        """What stands before the last dot of the name: the SkyCoord that a part belongs to."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Position:
    """The columns that hold positions, with their frame and epoch.

    Parameters
    ----------
    lon, lat
        The columns.
    frame
        An astropy frame without data.
    epoch
        Julian year, if the file declares one.
    frame_from
        What states the frame; empty if nothing does.
    """

    lon: Column
    lat: Column
    frame: Any
    epoch: float | None = None
    frame_from: str = ""

    @property
    def is_equatorial(self) -> bool:
        """True if the longitude is a right ascension."""
        return "ra" in self.frame.get_representation_component_names()


def named(columns: Iterable[Column], name: str, where: str) -> Column:
    """Get the column that a user named, exactly so or in another case."""
    columns = list(columns)
    exact = [c for c in columns if name in (c.name, c.also, *c.parts)]
    loose = [c for c in columns if name.lower() in map(str.lower, (c.name, c.also, *c.parts))]
    for found in (exact, loose):
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigurationError(
                f"{where} has {counted(len(found), 'column')} called {name}", hint="give each column a name of its own"
            )
    raise ConfigurationError(
        f"column {name} not in {where}; it has: {listing(c.name for c in columns)}", hint="name one of these columns"
    )


def listing(columns: Iterable[str], most: int = 40) -> str:
    """List the names of columns for an error; the first ones, if there are hundreds."""
    names = list(columns)
    more = f", ... and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def find_name(columns: Sequence[Column]) -> Column | None:
    """Find the column with the targets' names."""
    found = by_ucds(columns, ("meta.id;meta.main", "id_main")) or first_named(columns, NAMES)
    if found is not None:
        return found
    # Such a column may also give the origin or kind of a row: then its values repeat.
    found = next((c for c in columns if NAME_LIKE.fullmatch(c.plain_name)), None)
    if found is None:
        return None
    cells = found.read()
    return found if pc.count_distinct(cells).as_py() == len(cells) else None


def find_redshift(columns: Sequence[Column]) -> tuple[Column | None, str | None]:
    """Find the column with redshifts, or the reason why one called ``z`` has none.

    It has redshifts if no band or axis is beside it, and all of its values can be redshifts.
    """
    free = [c for c in columns if (c.declared_unit or "").strip() in ("", "-", "---", "1")]
    found = by_ucds(free, ("src.redshift", "src.redshift;meta.main", "redshift_hc", "redshift"))
    found = found or first_named([c for c in free if not c.ucd or "redshift" in c.plain_ucd], REDSHIFTS)
    if found is None or found.plain_name != "z" or "redshift" in found.plain_ucd:
        return found, None
    others = BANDS | {"teff", "logg", "feh", "fe/h", "logage"}
    beside = next(
        (c.name for c in columns if re.sub("_?(mag|psf)(_?psf)?$", "", c.plain_name.strip("[]")) in others), None
    )
    if beside:
        return None, f"{found.name} is not taken as a redshift: {beside} is beside it"
    values = to_numbers(found.read())
    # In a catalogue of magnitudes, a value above 8 is a magnitude.
    most = 8.0 if any(is_magnitude(c.plain_name) for c in columns) else 12.0
    if ((values > most) & (values < 99.0)).any():
        return None, f"{found.name} is not taken as a redshift: it holds {np.nanmax(values[values < 99.0]):g}"
    return found, None


def find_epoch(columns: Sequence[Column], position: Position) -> tuple[Column | None, str | None]:
    """Find the column with the epochs of the positions, or the reason why one called epoch has none."""
    ours = [c for c in columns if c is not position.lon and c is not position.lat]
    found = by_ucds(ours, ("meta.ref;time.epoch",)) or first_named(ours, EPOCHS)
    if found is None:
        return None, None
    reason, unit = None, (found.declared_unit or "").strip().strip("'\"").lower()
    if unit not in ("", "yr", "a", "y", "year", "years", "jyear", "jyr", "julian year", "julian years", "yrs"):
        reason = f"it is in {unit}"
    elif position.epoch is not None and not (found.frame and position.lon.frame is found.frame):
        reason = f"the frame of {position.lon.name} has epoch {position.epoch:g}"
    elif found.frame and position.lon.frame and found.frame is not position.lon.frame:
        reason = f"it belongs to {found.frame.title}"
    elif found.plain_name == "epoch" and (
        beside := next((c.name for c in ours if TRANSIT.fullmatch(without_brackets(c.name))), None)
    ):
        reason = f"{beside} is beside it"
    elif position.lon.plain_name in _COMPUTED:
        reason = f"VizieR computed {position.lon.name} for an epoch of its own"
    return (None, f"{found.name} is not taken as the epoch of the positions: {reason}") if reason else (found, None)


def find_frames(columns: Sequence[Column]) -> tuple[Column | None, Column | None]:
    """Find the columns that give the frame and the equinox of each row."""
    return first_named(columns, SYSTEMS), first_named(columns, EQUINOXES)


def find_proper_motion(columns: Sequence[Column], position: Position) -> tuple[Column, Column] | None:
    """Find the columns with the proper motion, in the frame of the position or in right ascension."""
    parts = [c for c in columns if c.role in ("pm_lon", "pm_lat") and c.stem == position.lon.stem]
    if len(parts) == 2:
        return (parts[0], parts[1]) if parts[0].role == "pm_lon" else (parts[1], parts[0])
    for lon, lat in (("pos.pm;pos.eq.ra", "pos.pm;pos.eq.dec"), ("pos_eq_pmra", "pos_eq_pmdec")):
        first, second = by_ucds(columns, (lon,)), by_ucds(columns, (lat,))
        if first and second:
            return first, second
    for names in PM:
        first, second = first_named(columns, names[:1]), first_named(columns, names[1:])
        if first and second:
            return first, second
    return None


def first_named(columns: Iterable[Column], names: Iterable[str]) -> Column | None:
    """Get the column that has the first of these plain names."""
    by_name: dict[str, Column] = {}
    for column in columns:
        by_name.setdefault(column.plain_name, column)
    return next((by_name[name] for name in names if name in by_name), None)


def by_ucds(columns: Iterable[Column], ucds: tuple[str, ...]) -> Column | None:
    """Get the first column that has one of these UCDs."""
    return next((c for c in columns if c.plain_ucd in ucds), None)
