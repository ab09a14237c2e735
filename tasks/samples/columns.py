"""Which column of a target list is what: by UCD first, then by the names that the field is used to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lake.errors import ConfigurationError
from tasks.samples.positions import frame_of

Pairs = tuple[tuple[str, str], ...]

# Names are compared in lower case, with blanks as underscores and without a unit in brackets: RA (deg) is ra.
# Of several groups in a file the first is taken; several pairs of one group are ambiguous.
EQUATORIAL: tuple[Pairs, ...] = (
    # computed by VizieR, beside what the catalogue itself gives
    (("_raj2000", "_dej2000"), ("_ra", "_de"), ("_ra.icrs", "_de.icrs"), ("_rab1950", "_deb1950")),
    # everybody's
    (
        *(("ra", dec) for dec in ("dec", "de", "decl")),
        *(("r.a.", "dec."), ("r.a.", "decl."), ("coord.ra", "coord.dec"), ("s_ra", "s_dec")),
        *(("ra_deg", "dec_deg"), ("ra_deg", "de_deg"), ("radeg", "decdeg"), ("radeg", "dedeg")),
        *(("ra_icrs", "de_icrs"), ("ra_icrs", "dec_icrs"), ("ra2000", "dec2000"), ("ra2000", "de2000")),
        *(
            ("raj2000", "dej2000"),
            ("raj2000", "decj2000"),
            ("ra_j2000", "dec_j2000"),
            ("ra_j2000", "de_j2000"),
        ),
        *(("rab1950", "deb1950"), ("ra1950", "dec1950"), ("ra1950", "de1950"), ("ra_b1950", "dec_b1950")),
        *(("alpha", "delta"), ("alpha_j2000", "delta_j2000"), ("right_ascension", "declination")),
        *(("ra_obj", "dec_obj"), ("ra_targ", "dec_targ")),
    ),
    # one survey's
    (("wise_ra", "wise_dec"), ("ramean", "decmean"), ("meanra", "meandec"), ("objra", "objdec")),
)
GALACTIC: tuple[Pairs, ...] = (
    (("_glon", "_glat"),),
    (("glon", "glat"), ("l", "b"), ("lii", "bii"), ("gal_lon", "gal_lat"), ("coord.l", "coord.b")),
)
NAMES = (
    *("name", "object_name", "object", "objname", "obj_name", "target", "target_name", "main_id"),
    *(
        "source_name",
        "designation",
        "wise_designation",
        "source_id",
        "sourceid",
        "objid",
        "object_id",
        "objectid",
    ),
    *("orig_id", "id"),
)
PM = (
    *(
        ("pmra", "pmdec"),
        ("pmra", "pmde"),
        ("pm_ra", "pm_dec"),
        ("pm_ra", "pm_de"),
        ("pm_ra_cosdec", "pm_dec"),
    ),
    *(("pmra_cosdec", "pmdec"), ("coord.pm_ra_cosdec", "coord.pm_dec")),
)
EPOCHS = ("ref_epoch", "refepoch", "epoch")
REDSHIFTS = ("redshift", "z_spec", "zspec", "spec_z", "specz", "z_best", "zbest", "sdss_redshift", "z")
# Beside one of these, z is a magnitude or an axis.
_NOT_REDSHIFT = {"u", "g", "r", "i", "y", "x"}

_IN_BRACKETS = re.compile(r"(.+?)[\s_]*[\[(]\s*(.+?)\s*[\])]")
_UNITS_IN_NAMES = {
    *("deg", "degree", "degrees", "rad", "radian", "radians", "h", "hr", "hour", "hours", "hourangle"),
    *("h:m:s", "hms", "hh:mm:ss", "d:m:s", "dms", "dd:mm:ss", "mas/yr"),
}


@dataclass(frozen=True)
class Frame:
    """A frame that a file declares.

    Parameters
    ----------
    title
        What the file calls it.
    get
        Gets it as an astropy frame without data. That fails for systems that are not of the sky.
    epoch
        The epoch that goes with it, Julian year.
    """

    title: str
    get: Callable[[], Any]
    epoch: float | None = None


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
    """

    name: str
    read: Callable[[], pa.Array]
    unit: str = ""
    ucd: str = ""
    frame: Frame | None = None
    role: str = ""
    also: str = ""

    @property
    def habit(self) -> str:
        """The name as the tables above have it."""
        return _split_unit(self.name)[0]

    @property
    def declared_unit(self) -> str | None:
        """The unit that the file declares, or else the one in brackets in the name."""
        return self.unit or _split_unit(self.name)[1]


@dataclass(frozen=True)
class Position:
    """The columns that hold positions, and the frame and epoch they are in."""

    lon: Column
    lat: Column
    frame: Any
    epoch: float | None = None

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
        found: tuple[Column, Column] | None = (
            named(columns, ra_column, where),
            named(columns, dec_column, where),
        )
    elif asked is None:
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
    # Frames without data are false in astropy: ask for None.
    known = asked
    if known is None:
        known = lon.frame.get() if lon.frame else _frame_in_name(lon)
    if known is None and len(declared) > 1:
        choice = ", ".join(f.title for f in declared)
        raise ConfigurationError(
            f"{where} declares several frames ({choice}) and does not say which one its positions are in",
            hint="say which with frame",
        )
    said = lon.frame or (declared[0] if known is None and declared else None)
    if known is None:
        known = said.get() if said else frame_of("icrs")
    return Position(lon, lat, known, said.epoch if said else None)


def named(columns: Iterable[Column], name: str, where: str) -> Column:
    """Get the column that a user named: exactly so, or but for upper and lower case."""
    columns = list(columns)
    exact = [c for c in columns if name in (c.name, c.also)]
    loose = [c for c in columns if name.lower() in (c.name.lower(), c.also.lower())]
    for found in (exact, loose):
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigurationError(
                f"{where} has {len(found)} columns called {name}", hint="give each column a name of its own"
            )
    raise ConfigurationError(
        f"column {name} not in {where}; it has: {listing(columns)}", hint="name one of these columns"
    )


def listing(columns: Iterable[Column], most: int = 40) -> str:
    """List the names of columns for an error; not all of them, where there are hundreds."""
    names = [c.name for c in columns]
    more = f", ... and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def find_name(columns: Sequence[Column]) -> Column | None:
    """Find the column with the targets' names."""
    return _by_ucds(columns, ("meta.id;meta.main", "id_main")) or _first(columns, NAMES)


def find_redshift(columns: Sequence[Column]) -> Column | None:
    """Find the column with redshifts. One called ``z`` counts if no other band or axis is beside it."""
    habits = [c for c in REDSHIFTS if c != "z" or not _NOT_REDSHIFT & {c.habit for c in columns}]
    free = [c for c in columns if not c.unit]
    return _by_ucds(free, ("src.redshift", "src.redshift;meta.main", "redshift_hc", "redshift")) or _first(free, habits)


def find_epoch(columns: Sequence[Column]) -> Column | None:
    """Find the column with the epochs of the positions."""
    return _by_ucds(columns, ("meta.ref;time.epoch",)) or _first(columns, EPOCHS)


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


def _split_unit(name: str) -> tuple[str, str | None]:
    plain, unit = name.strip().lower(), None
    if match := _IN_BRACKETS.fullmatch(plain):
        if match[2] in _UNITS_IN_NAMES:
            plain, unit = match[1], match[2]
        elif match[2] in ("j2000", "j2000.0", "icrs"):
            plain = match[1]
    return re.sub(r"\s+", "_", plain), unit


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
    return (
        _by_ucd_pair(columns, ("pos.eq.ra", "pos.eq.dec"), ("pos_eq_ra", "pos_eq_dec"), EQUATORIAL, where)
        or _by_habit(columns, EQUATORIAL, where)
    )  # fmt: skip


def _galactic(columns: Sequence[Column], where: str) -> tuple[Column, Column] | None:
    ucds = ("pos.galactic.lon", "pos.galactic.lat"), ("pos_gal_lon", "pos_gal_lat")
    return _by_ucd_pair(columns, *ucds, GALACTIC, where) or _by_habit(columns, GALACTIC, where)


def _by_ucd_pair(
    columns: Sequence[Column],
    new: tuple[str, str],
    old: tuple[str, str],
    habits: tuple[Pairs, ...],
    where: str,
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
    by_habit: dict[str, list[Column]] = {}
    for column in columns:
        by_habit.setdefault(column.habit, []).append(column)
    for group in groups:
        pairs = [
            (lon, lat)
            for lon_name, lat_name in group
            for lon in by_habit.get(lon_name, [])
            for lat in by_habit.get(lat_name, [])
        ]
        if pairs:
            return _only(pairs, where)
    return None


def _only(pairs: list[tuple[Column, Column]], where: str) -> tuple[Column, Column] | None:
    if len(pairs) > 1:
        choice = ", ".join(dict.fromkeys(f"{lon.name} with {lat.name}" for lon, lat in pairs))
        raise ConfigurationError(
            f"{where} has positions in more than one place: {choice}",
            hint="say which with ra_column and dec_column",
        )
    return pairs[0] if pairs else None


def _frame_in_name(lon: Column) -> Any:
    if _ucd(lon).startswith(("pos.galactic", "pos_gal")) or any(
        lon.habit == name for group in GALACTIC for name, _ in group
    ):
        return frame_of("galactic")
    # J2000 in a name is taken as ICRS: FK5 of J2000 is the same to 0.03 arcsec.
    return frame_of("fk4 B1950") if "1950" in lon.habit else None
