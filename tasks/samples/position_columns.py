"""Find the columns of a target list that hold the positions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lake.errors import ConfigurationError
from tasks.samples.column_names import EPOCHS, EQUATORIAL, GALACTIC, STARS, Pairs, bare
from tasks.samples.columns import Column, Position, find_frames, named
from tasks.samples.frames import Frame, frame_in_name, frame_in_words, same
from tasks.samples.positions import frame_of, is_angle

# VizieR's: Right ascension (ICRS) at Ep=2016.0
_EPOCH_IN_WORDS = re.compile(r"\bEp(?:och)?=J?((?:19|20)\d\d(?:\.\d+)?)")
# Ecliptic, supergalactic and horizontal longitudes.
_OTHER_LONGITUDE = re.compile(
    r"_?(e|ecl|ecliptic)_?(l|lon|long|longitude)|elong|lambda|sgl|super_?gal(actic)?_?.*|az|azimuth|ha"
)


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
        The columns that the user named; the same twice if one holds both coordinates.
    frame
        The frame that the user gave. It overrides the file's.
    declared
        The frames that the file declares for no particular columns.
    notes
        Comments and descriptions of the file.

    Returns
    -------
    Position or None
        None if no columns of the file are known to be positions.

    Raises
    ------
    ConfigurationError
        If there is no column of that name, or more than one choice.
    """
    asked = frame_of(frame) if frame else None
    if ra_column or dec_column:
        if not (ra_column and dec_column):
            raise ConfigurationError(
                f"{where}: --ra and --dec (ra_column, dec_column) go together",
                hint="give both; the same name twice if one column holds both coordinates",
            )
        found: tuple[Column, Column] | None = (named(columns, ra_column, where), named(columns, dec_column, where))
    elif asked is None:
        columns = [c for c in columns if c.plain_name not in ("l", "b") or _is_galactic(c, columns)]
        found = _skycoord(columns, where) or _equatorial(columns, where) or _galactic(columns, where)
    else:
        lon_name, lat_name = list(asked.get_representation_component_names())[:2]
        if lon_name == "ra":
            found = _equatorial(columns, where)
        elif asked.name == "galactic":
            found = _galactic(columns, where)
        else:
            found = _by_name(columns, (((lon_name, lat_name),),), where)
    if found is None:
        return None
    lon, lat = found
    if lon.frame and lat.frame and lon.frame.title != lat.frame.title:
        raise ConfigurationError(
            f"{where}: {lon.name} is in {lon.frame.title} and {lat.name} in {lat.frame.title}",
            hint="name two columns of one frame with --ra and --dec (ra_column, dec_column)",
        )
    for one, other in ((lon, lat), (lat, lon)):
        if one.declared_unit in ("rad", "radian", "radians", "arcmin", "arcsec", "mas") and not other.declared_unit:
            raise ConfigurationError(
                f"{where}: {one.name} is in {one.declared_unit}, and {other.name} says no unit",
                hint="say the units of both",
            )
    # Astropy's frames without data are false, so compare with None.
    if asked is not None:
        return Position(lon, lat, asked, lon.frame.epoch if lon.frame else None, "asked for")
    known, epoch, stated_by = _declared(lon, where, declared)
    if epoch is None and (at := _EPOCH_IN_WORDS.search(lon.description)):
        epoch = float(at[1])
    if known is None and _OTHER_LONGITUDE.fullmatch(lon.plain_name):
        raise ConfigurationError(
            f"{where}: {lon.name} is no right ascension by its name", hint="say what its frame is with frame"
        )
    has_ra = known is None or "ra" in known.get_representation_component_names()
    if not has_ra and _is_equatorial(lon):
        raise ConfigurationError(
            f"{where}: {lon.name} is a right ascension, and the file says {stated_by}",
            hint="say which with --frame, and name the columns with --ra and --dec (ra_column, dec_column)",
        )
    if has_ra and (in_words := frame_in_words(lon.description, is_of_position=True)) is not None:
        if known is not None and not same(known, in_words[0]):
            raise ConfigurationError(
                f"{where}: the description of {lon.name} says {in_words[1]}, and the file says {stated_by}",
                hint="say which with frame",
            )
        return Position(lon, lat, in_words[0], epoch, stated_by or f"{in_words[1]} in the description")
    if known is None and (in_words := frame_in_words(notes)) is not None and find_frames(columns) == (None, None):
        raise ConfigurationError(
            f"the comments in {where} say {in_words[1]}, and nothing says whether {lon.name} is in it",
            hint="say what its frame is with frame (icrs, if it is not)",
        )
    return Position(lon, lat, known if known is not None else frame_of("icrs"), epoch, stated_by)


def _declared(lon: Column, where: str, declared: Sequence[Frame]) -> tuple[Any, float | None, str]:
    """Get the frame that the file or the longitude's name states, its epoch, and which of them did; None if none."""
    in_name = frame_in_name(lon.plain_name, lon.ucd)
    stated = lon.frame
    if stated is None and in_name is not None and declared:
        stated = next((f for f in declared if f.is_like(in_name)), None)
        if stated is None and len(declared) == 1 and in_name.name != "galactic":
            raise ConfigurationError(
                f"{where}: the name of {lon.name} says one frame, and the file says {declared[0].title}",
                hint="say which with frame",
            )
    elif stated is None and len(declared) > 1:
        choice = ", ".join(f.title for f in declared)
        raise ConfigurationError(
            f"{where} declares several frames ({choice}) and does not say which one its positions are in",
            hint="say which with frame",
        )
    elif stated is None and declared:
        stated = declared[0]
    if stated is None:
        return in_name, None, "name" if in_name is not None else ""
    known = stated.get()
    if in_name is not None and "1950" in lon.plain_name and not same(known, in_name):
        raise ConfigurationError(
            f"{where}: the name of {lon.name} says B1950, and the file says {stated.title}", hint="say which with frame"
        )
    return known, stated.epoch, stated.title


def _is_equatorial(lon: Column) -> bool:
    return not lon.role and any(lon.plain_name == name for group in EQUATORIAL for name, _ in group)


def _is_galactic(column: Column, columns: Sequence[Column]) -> bool:
    """Return whether a column called l or b is a coordinate: by unit or UCD, or without columns of stars beside it."""
    if column.plain_ucd:
        return column.plain_ucd.startswith(("pos.galactic", "pos_gal"))
    if column.declared_unit:
        return is_angle(column.declared_unit)
    names = [c.name for c in columns]
    both = "l" in names and "b" in names and names.index("b") == names.index("l") + 1
    return both and not any(
        re.sub("_?mag$", "", c.plain_name) in STARS for c in columns if c.plain_name not in ("l", "b")
    )


def _skycoord(columns: Sequence[Column], where: str) -> tuple[Column, Column] | None:
    pairs = [
        (lon, lat)
        for lon in columns
        if lon.role == "lon"
        for lat in columns
        if lat.role == "lat" and lon.stem == lat.stem
    ]
    return _only(pairs, where)


def _equatorial(columns: Sequence[Column], where: str) -> tuple[Column, Column] | None:
    # An epoch in the file belongs to the catalogue's own positions, not to those that VizieR computed.
    groups = EQUATORIAL
    if any(c.plain_name in EPOCHS for c in columns):
        groups = (EQUATORIAL[1], EQUATORIAL[0], *EQUATORIAL[2:])
    ucds = ("pos.eq.ra", "pos.eq.dec"), ("pos_eq_ra", "pos_eq_dec")
    return _by_ucd_pair(columns, *ucds, groups, where) or _by_name(columns, groups, where)


def _galactic(columns: Sequence[Column], where: str) -> tuple[Column, Column] | None:
    ucds = ("pos.galactic.lon", "pos.galactic.lat"), ("pos_gal_lon", "pos_gal_lat")
    return _by_ucd_pair(columns, *ucds, GALACTIC, where) or _by_name(columns, GALACTIC, where)


def _by_ucd_pair(
    columns: Sequence[Column], new: tuple[str, str], old: tuple[str, str], names: tuple[Pairs, ...], where: str
) -> tuple[Column, Column] | None:
    for new_tail, old_tail in ((";meta.main", "_main"), ("", "")):
        lons, lats = (
            [c for c in columns if c.plain_ucd in (n + new_tail, o + old_tail)] for n, o in zip(new, old, strict=True)
        )
        if len(lons) == len(lats) == 1:
            return lons[0], lats[0]
        if lons and lats:
            return _by_name([*lons, *lats], names, where) or _only([*zip(lons, lats, strict=False)] * 2, where)
    return None


def _by_name(columns: Sequence[Column], groups: tuple[Pairs, ...], where: str) -> tuple[Column, Column] | None:
    # RA_hours and Dec_deg pair only without their units.
    for names in ([c.plain_name for c in columns], [c.known_as or bare(c.name) for c in columns]):
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
            f"{where} has positions in more than one place: {choice}",
            hint="say which with --ra and --dec (ra_column, dec_column)",
        )
    return pairs[0] if pairs else None
