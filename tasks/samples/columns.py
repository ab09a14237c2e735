"""Which column of a target list is what: by UCD first, then by the names that the field is used to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import ConfigurationError
from tasks.samples.frames import Frame, frame_in_name, frame_in_words, same
from tasks.samples.habits import (
    BANDS,
    EPOCHS,
    EQUATORIAL,
    EQUINOXES,
    GALACTIC,
    NAME_LIKE,
    NAMES,
    PM,
    REDSHIFTS,
    STARS,
    SYSTEMS,
    TRANSIT,
    Pairs,
    bare,
    is_magnitude,
    split_unit,
    without_brackets,
)
from tasks.samples.positions import frame_of, is_angle, to_numbers

# VizieR's: Right ascension (ICRS) at Ep=2016.0
_EPOCH_IN_WORDS = re.compile(r"\bEp(?:och)?=J?((?:19|20)\d\d(?:\.\d+)?)")
# Ecliptic, supergalactic and horizontal longitudes.
_OTHER = re.compile(r"_?(e|ecl|ecliptic)_?(l|lon|long|longitude)|elong|lambda|sgl|super_?gal(actic)?_?.*|az|azimuth|ha")
_COMPUTED = {lon for lon, _ in EQUATORIAL[0]}


@dataclass(frozen=True)
class Column:
    """A column of a file, with what the file says about it.

    Parameters
    ----------
    name
        Its name in the file.
    read
        Gets its cells, one per row, as an Arrow array.
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
        Of a column that is put together from others: their names, and its own in the tables of habits.
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
    def habit(self) -> str:
        """The name as the tables above have it."""
        return self.known_as or split_unit(self.name)[0]

    @property
    def declared_unit(self) -> str | None:
        """The unit that the file declares, or else the one in brackets in the name."""
        return self.unit or (None if self.parts else split_unit(self.name)[1])


@dataclass(frozen=True)
class Position:
    """The columns that hold positions, the frame and epoch they are in, and what says so (empty: nothing does)."""

    lon: Column
    lat: Column
    frame: Any
    epoch: float | None = None
    said: str = ""

    @property
    def is_equatorial(self) -> bool:
        """True if the longitude is a right ascension."""
        return "ra" in self.frame.get_representation_component_names()


def find_position(
    columns: Sequence[Column],
    where: str,
    *,
    ra_column: str | None = None,
    dec_column: str | None = None,
    frame: str | None = None,
    declared: Sequence[Frame] = (),
    notes: str = "",
) -> Position | None:
    """Find the columns that hold the positions.

    Parameters
    ----------
    columns
        All columns of the file.
    where
        The file's name, for errors.
    ra_column, dec_column
        The columns that the user asks for; the same twice if one holds both coordinates.
    frame
        The frame that the user asks for. It goes before what the file says.
    declared
        The frames that the file declares without saying for which columns.
    notes
        Comments and descriptions of the file.

    Returns
    -------
    Position or None
        None if the file has no columns that are known to be positions.

    Raises
    ------
    ConfigurationError
        If there is no column of that name, or more than one choice.
    """
    asked = frame_of(frame) if frame else None
    if ra_column or dec_column:
        if not (ra_column and dec_column):
            raise ConfigurationError(
                f"{where}: ra_column and dec_column go together",
                hint="give both; the same name twice if one column holds both coordinates",
            )
        found: tuple[Column, Column] | None = (named(columns, ra_column, where), named(columns, dec_column, where))
    elif asked is None:
        columns = [c for c in columns if c.habit not in ("l", "b") or _is_galactic(c, columns)]
        found = _skycoord(columns, where) or _equatorial(columns, where) or _galactic(columns, where)
    else:
        lon_name, lat_name = list(asked.get_representation_component_names())[:2]
        if lon_name == "ra":
            found = _equatorial(columns, where)
        elif asked.name == "galactic":
            found = _galactic(columns, where)
        else:
            found = _by_habit(columns, (((lon_name, lat_name),),), where)
    if found is None:
        return None
    lon, lat = found
    if lon.frame and lat.frame and lon.frame.title != lat.frame.title:
        raise ConfigurationError(
            f"{where}: {lon.name} is in {lon.frame.title} and {lat.name} in {lat.frame.title}",
            hint="name two columns of one frame with ra_column and dec_column",
        )
    for one, other in ((lon, lat), (lat, lon)):
        if one.declared_unit in ("rad", "radian", "radians", "arcmin", "arcsec", "mas") and not other.declared_unit:
            raise ConfigurationError(
                f"{where}: {one.name} is in {one.declared_unit}, and {other.name} says no unit",
                hint="say the units of both",
            )
    # Frames without data are false in astropy: ask for None.
    if asked is not None:
        return Position(lon, lat, asked, lon.frame.epoch if lon.frame else None, "asked for")
    known, epoch, said_by = _declared(lon, where, declared)
    if epoch is None and (at := _EPOCH_IN_WORDS.search(lon.description)):
        epoch = float(at[1])
    if known is None and _OTHER.fullmatch(lon.habit):
        raise ConfigurationError(
            f"{where}: {lon.name} is no right ascension by its name", hint="say what its frame is with frame"
        )
    has_ra = known is None or "ra" in known.get_representation_component_names()
    if not has_ra and _is_equatorial(lon):
        raise ConfigurationError(
            f"{where}: {lon.name} is a right ascension, and the file says {said_by}",
            hint="say which with frame, and name the columns with ra_column and dec_column",
        )
    if has_ra and (in_words := frame_in_words(lon.description, is_of_position=True)) is not None:
        if known is not None and not same(known, in_words[0]):
            raise ConfigurationError(
                f"{where}: the description of {lon.name} says {in_words[1]}, and the file says {said_by}",
                hint="say which with frame",
            )
        return Position(lon, lat, in_words[0], epoch, said_by or f"{in_words[1]} in the description")
    if known is None and (in_words := frame_in_words(notes)) is not None and find_frames(columns) == (None, None):
        raise ConfigurationError(
            f"the comments in {where} say {in_words[1]}, and nothing says whether {lon.name} is in it",
            hint="say what its frame is with frame (icrs, if it is not)",
        )
    return Position(lon, lat, known if known is not None else frame_of("icrs"), epoch, said_by)


def _declared(lon: Column, where: str, declared: Sequence[Frame]) -> tuple[Any, float | None, str]:
    """Get the frame that the file or the longitude's name says, its epoch, and what says so; None if nothing does."""
    in_name = frame_in_name(lon.habit, lon.ucd)
    said = lon.frame
    if said is None and in_name is not None and declared:
        said = next((f for f in declared if f.is_like(in_name)), None)
        if said is None and len(declared) == 1 and in_name.name != "galactic":
            raise ConfigurationError(
                f"{where}: the name of {lon.name} says one frame, and the file says {declared[0].title}",
                hint="say which with frame",
            )
    elif said is None and len(declared) > 1:
        choice = ", ".join(f.title for f in declared)
        raise ConfigurationError(
            f"{where} declares several frames ({choice}) and does not say which one its positions are in",
            hint="say which with frame",
        )
    elif said is None and declared:
        said = declared[0]
    if said is None:
        return in_name, None, "name" if in_name is not None else ""
    known = said.get()
    if in_name is not None and "1950" in lon.habit and not same(known, in_name):
        raise ConfigurationError(
            f"{where}: the name of {lon.name} says B1950, and the file says {said.title}", hint="say which with frame"
        )
    return known, said.epoch, said.title


def _is_equatorial(lon: Column) -> bool:
    return not lon.role and any(lon.habit == name for group in EQUATORIAL for name, _ in group)


def named(columns: Iterable[Column], name: str, where: str) -> Column:
    """Get the column that a user named: exactly so, or but for upper and lower case."""
    columns = list(columns)
    exact = [c for c in columns if name in (c.name, c.also, *c.parts)]
    loose = [c for c in columns if name.lower() in map(str.lower, (c.name, c.also, *c.parts))]
    for found in (exact, loose):
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigurationError(
                f"{where} has {len(found)} columns called {name}", hint="give each column a name of its own"
            )
    raise ConfigurationError(
        f"column {name} not in {where}; it has: {listing(c.name for c in columns)}", hint="name one of these columns"
    )


def listing(columns: Iterable[str], most: int = 40) -> str:
    """List the names of columns for an error; not all of them, where there are hundreds."""
    names = list(columns)
    more = f", ... and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def find_name(columns: Sequence[Column]) -> Column | None:
    """Find the column with the targets' names."""
    found = _by_ucds(columns, ("meta.id;meta.main", "id_main")) or _first(columns, NAMES)
    if found is not None:
        return found
    # These may as well say where a row comes from, or what kind it is of.
    found = next((c for c in columns if NAME_LIKE.fullmatch(c.habit)), None)
    if found is None:
        return None
    cells = found.read()
    return found if pc.count_distinct(cells).as_py() == len(cells) else None


def find_redshift(columns: Sequence[Column]) -> tuple[Column | None, str | None]:
    """Find the column with redshifts, and say why one called ``z`` is none.

    It is one if no band or axis is beside it, and all that it holds can be a redshift.
    """
    free = [c for c in columns if (c.declared_unit or "").strip() in ("", "-", "---", "1")]
    found = _by_ucds(free, ("src.redshift", "src.redshift;meta.main", "redshift_hc", "redshift"))
    found = found or _first([c for c in free if not c.ucd or "redshift" in _ucd(c)], REDSHIFTS)
    if found is None or found.habit != "z" or "redshift" in _ucd(found):
        return found, None
    others = BANDS | {"teff", "logg", "feh", "fe/h", "logage"}
    beside = next((c.name for c in columns if re.sub("_?(mag|psf)(_?psf)?$", "", c.habit.strip("[]")) in others), None)
    if beside:
        return None, f"{found.name} is not taken as a redshift: {beside} is beside it"
    values = to_numbers(found.read())
    # No redshift of a catalogue of magnitudes is above 8; magnitudes are.
    most = 8.0 if any(is_magnitude(c.habit) for c in columns) else 12.0
    if ((values > most) & (values < 99.0)).any():
        return None, f"{found.name} is not taken as a redshift: it holds {np.nanmax(values[values < 99.0]):g}"
    return found, None


def find_epoch(columns: Sequence[Column], position: Position) -> tuple[Column | None, str | None]:
    """Find the column with the epochs of the positions, and say why one that is called so is none."""
    ours = [c for c in columns if c is not position.lon and c is not position.lat]
    found = _by_ucds(ours, ("meta.ref;time.epoch",)) or _first(ours, EPOCHS)
    if found is None:
        return None, None
    reason, unit = None, (found.declared_unit or "").strip().strip("'\"").lower()
    if unit not in ("", "yr", "a", "y", "year", "years", "jyear", "jyr", "julian year", "julian years", "yrs"):
        reason = f"it is in {unit}"
    elif position.epoch is not None and not (found.frame and position.lon.frame is found.frame):
        reason = f"the frame of {position.lon.name} has epoch {position.epoch:g}"
    elif found.frame and position.lon.frame and found.frame is not position.lon.frame:
        reason = f"it belongs to {found.frame.title}"
    elif found.habit == "epoch" and (
        beside := next((c.name for c in ours if TRANSIT.fullmatch(without_brackets(c.name))), None)
    ):
        reason = f"{beside} is beside it"
    elif position.lon.habit in _COMPUTED:
        reason = f"VizieR computed {position.lon.name} for an epoch of its own"
    return (None, f"{found.name} is not taken as the epoch of the positions: {reason}") if reason else (found, None)


def find_frames(columns: Sequence[Column]) -> tuple[Column | None, Column | None]:
    """Find the columns that give the frame and the equinox of each row."""
    return _first(columns, SYSTEMS), _first(columns, EQUINOXES)


def _is_galactic(column: Column, columns: Sequence[Column]) -> bool:
    """Say whether a column called l or b is a coordinate: by unit or UCD, or in lower case without stars' columns."""
    if _ucd(column):
        return _ucd(column).startswith(("pos.galactic", "pos_gal"))
    if column.declared_unit:
        return is_angle(column.declared_unit)
    names = [c.name for c in columns]
    both = "l" in names and "b" in names and names.index("b") == names.index("l") + 1
    return both and not any(re.sub("_?mag$", "", c.habit) in STARS for c in columns if c.habit not in ("l", "b"))


def find_proper_motion(columns: Sequence[Column], position: Position) -> tuple[Column, Column] | None:
    """Find the columns with the proper motion, in the frame of the position or in right ascension."""
    parts = [c for c in columns if c.role in ("pm_lon", "pm_lat") and _stem(c) == _stem(position.lon)]
    if len(parts) == 2:
        return (parts[0], parts[1]) if parts[0].role == "pm_lon" else (parts[1], parts[0])
    for lon, lat in (("pos.pm;pos.eq.ra", "pos.pm;pos.eq.dec"), ("pos_eq_pmra", "pos_eq_pmdec")):
        first, second = _by_ucds(columns, (lon,)), _by_ucds(columns, (lat,))
        if first and second:
            return first, second
    for names in PM:
        first, second = _first(columns, names[:1]), _first(columns, names[1:])
        if first and second:
            return first, second
    return None


def _stem(column: Column) -> str:
    return column.name.rpartition(".")[0]


def _first(columns: Iterable[Column], habits: Iterable[str]) -> Column | None:
    by_habit: dict[str, Column] = {}
    for column in columns:
        by_habit.setdefault(column.habit, column)
    return next((by_habit[h] for h in habits if h in by_habit), None)


def _by_ucds(columns: Iterable[Column], ucds: tuple[str, ...]) -> Column | None:
    return next((c for c in columns if _ucd(c) in ucds), None)


def _ucd(column: Column) -> str:
    return re.sub(r"\s", "", column.ucd.lower())


def _skycoord(columns: Sequence[Column], where: str) -> tuple[Column, Column] | None:
    pairs = [
        (lon, lat)
        for lon in columns
        if lon.role == "lon"
        for lat in columns
        if lat.role == "lat" and _stem(lon) == _stem(lat)
    ]
    return _only(pairs, where)


def _equatorial(columns: Sequence[Column], where: str) -> tuple[Column, Column] | None:
    # An epoch in the file goes with the catalogue's own positions, not with what VizieR computed.
    groups = EQUATORIAL
    if any(c.habit in EPOCHS for c in columns):
        groups = (EQUATORIAL[1], EQUATORIAL[0], *EQUATORIAL[2:])
    ucds = ("pos.eq.ra", "pos.eq.dec"), ("pos_eq_ra", "pos_eq_dec")
    return _by_ucd_pair(columns, *ucds, groups, where) or _by_habit(columns, groups, where)


def _galactic(columns: Sequence[Column], where: str) -> tuple[Column, Column] | None:
    ucds = ("pos.galactic.lon", "pos.galactic.lat"), ("pos_gal_lon", "pos_gal_lat")
    return _by_ucd_pair(columns, *ucds, GALACTIC, where) or _by_habit(columns, GALACTIC, where)


def _by_ucd_pair(
    columns: Sequence[Column], new: tuple[str, str], old: tuple[str, str], habits: tuple[Pairs, ...], where: str
) -> tuple[Column, Column] | None:
    for new_tail, old_tail in ((";meta.main", "_main"), ("", "")):
        lons, lats = (
            [c for c in columns if _ucd(c) in (n + new_tail, o + old_tail)] for n, o in zip(new, old, strict=True)
        )
        if len(lons) == len(lats) == 1:
            return lons[0], lats[0]
        if lons and lats:
            return _by_habit([*lons, *lats], habits, where) or _only([*zip(lons, lats, strict=False)] * 2, where)
    return None


def _by_habit(columns: Sequence[Column], groups: tuple[Pairs, ...], where: str) -> tuple[Column, Column] | None:
    # RA_hours beside Dec_deg: with their units they are no pair.
    for names in ([c.habit for c in columns], [c.known_as or bare(c.name) for c in columns]):
        by_name: dict[str, list[Column]] = {}
        for name, column in zip(names, columns, strict=True):
            by_name.setdefault(name, []).append(column)
        for group in groups:
            pairs = [
                (lon, lat)
                for lon_name, lat_name in group
                for lon in by_name.get(lon_name, [])
                for lat in by_name.get(lat_name, [])
            ]
            if pairs:
                return _only(pairs, where)
    return None


def _only(pairs: list[tuple[Column, Column]], where: str) -> tuple[Column, Column] | None:
    if len(pairs) > 1:
        choice = ", ".join(dict.fromkeys(f"{lon.name} with {lat.name}" for lon, lat in pairs))
        raise ConfigurationError(
            f"{where} has positions in more than one place: {choice}", hint="say which with ra_column and dec_column"
        )
    return pairs[0] if pairs else None
