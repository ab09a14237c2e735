"""Convert cells of a target list, degrees or sexagesimal in any frame of astropy, to ICRS degrees."""

from __future__ import annotations

import re
import warnings
from typing import Any

import astropy.units as u
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from astropy.coordinates import ICRS, Angle, SkyCoord, frame_transform_graph
from astropy.coordinates.errors import ConvertError
from astropy.time import Time
from astropy.utils.exceptions import AstropyWarning

from lake.errors import ConfigurationError
from tasks.samples.cells import Floats, is_missing, plain_text, to_numbers

# With the signs that tables have: 12:34:56.7, 12 34 56.7, 12h34m56.7s, +12d34m56.7s, +12°34′56.7″.
SEXAGESIMAL = (
    r"(?P<sign>[+-]?) *(?P<whole>\d{1,3}) *(?P<mark>[:hHdD° ]) *"
    r"(?P<minutes>\d{1,2}) *[:mM′' ] *(?P<seconds>\d{1,2}(?:\.\d*)?) *[sS″\"]?"
)
_LIKE_SEXAGESIMAL = re.compile(r"\d\s*[:hHdD°]|\d\s+\d")
# J2000 designations, with or without a prefix: SDSS J000116.00+141123.0. Names from B1950 have a B in place of the J
# and do not match. A designation without seconds is too coarse to be a position.
_DESIGNATION = re.compile(r"(?:.*[Jj\s])?(\d\d)(\d\d)(\d\d(?:\.\d*)?)([+-]\d\d)(\d\d)(\d\d(?:\.\d*)?)", flags=re.ASCII)
_TWO_IN_ONE = re.compile(r"([^+-].*?)(?:\s*,\s*|\s+)([+-].+)|(\S+?)(?:\s*,\s*|\s+)(\S+)")

# Units as catalogues write them, which astropy spells otherwise or takes for something else.
_SPELLINGS = {
    **dict.fromkeys(("deg", "degs", "degree", "degrees", "d", "°", "d:m:s", "dd:mm:ss", "dms"), "deg"),
    **dict.fromkeys(("h", "hr", "hour", "hours", "hourangle", "hrs", "h:m:s", "hh:mm:ss", "hms"), "hourangle"),
    **dict.fromkeys(("rad", "rads", "radian", "radians"), "rad"),
}
_SYSTEMS = {
    "eq_fk5": "fk5",
    "eq_fk4": "fk4",
    "fk4-no-e": "fk4noeterms",
    "super_galactic": "supergalactic",
    "ecl_fk5": "barycentricmeanecliptic",
    "ecliptic": "barycentricmeanecliptic",
}


def frame_of(text: str, equinox: str | None = None) -> Any:
    """Get an astropy frame by its name.

    Parameters
    ----------
    text
        ``icrs``, ``fk5``, ``fk4``, ``galactic`` or another name that astropy knows, with an optional
        equinox (``fk5 J1975``), or a system of a VOTable's COOSYS (``eq_FK5``).
    equinox
        The equinox, if the file has it separately.

    Raises
    ------
    ConfigurationError
        If there is no such frame.
    """
    system, _, rest = text.strip().partition(" ")
    name = _SYSTEMS.get(system.lower(), system.lower())
    kind = frame_transform_graph.lookup_name(name)
    hint = "frames are icrs, fk5, fk4, galactic or another name of astropy, with an equinox as in 'fk5 J1975'"
    if kind is None:
        raise ConfigurationError(f"no frame is called '{text}'", hint=hint)
    year = (rest or equinox or "").strip()
    if not year or "equinox" not in kind.frame_attributes:
        return kind()
    try:
        return kind(equinox=year_of(year, besselian=name.startswith("fk4")))
    except ValueError as error:
        raise ConfigurationError(f"'{year}' is not an equinox", hint=hint) from error


def year_of(text: str, *, besselian: bool = False) -> Any:
    """Read the year of an equinox or epoch, such as ``J2000``, ``2000.``, ``B1950`` or ``1950.0``."""
    letter = text[0].upper() if text[0].isalpha() else ("B" if besselian else "J")
    return Time(float(text.lstrip("BbJj")), format="byear" if letter == "B" else "jyear", scale="tt")


def to_degrees(
    cells: pa.Array,
    *,
    what: str,
    unit: str | None = None,
    hours: bool = False,
    limits: tuple[float, float] = (-90.0, 90.0),
) -> tuple[Floats, dict[int, str]]:
    """Convert one coordinate of each row to degrees.

    Rows are independent, so degrees and sexagesimal may mix within a column.

    Parameters
    ----------
    cells
        Numbers or text.
    what
        The coordinate's name, for the reasons.
    unit
        The unit that the file declares for numbers; degrees if it declares none.
    hours
        True if sexagesimal cells count hours (right ascension), unless they say degrees (``12d34m56s``).
    limits
        The least and the greatest value allowed, deg.

    Returns
    -------
    tuple
        Degrees, NaN where a cell is no coordinate, and the reason for each such row.

    Examples
    --------
    >>> to_degrees(pa.array(["12:30:49.42", "187.7", "north"]), what="ra", hours=True, limits=(0, 360))
    (array([187.70591667, 187.7       ,          nan]), {2: "ra 'north' is neither degrees nor sexagesimal"})
    """
    declared = unit_of(unit, what)
    is_latitude = limits[0] == -90.0
    if is_latitude and declared == u.hourangle:
        raise ConfigurationError(f"the {what} is in '{unit}', and only right ascension is", hint="correct the unit")
    values = to_numbers(cells)
    if declared == u.hourangle:
        values *= 15.0  # astropy's own factor is off in the last digit
    elif declared is not None:
        values *= declared.to(u.deg)
    missing = pc.is_null(cells).to_numpy(zero_copy_only=False)
    reasons: dict[int, str] = {}
    if pa.types.is_floating(cells.type):
        missing = missing | np.isnan(values)
    elif not pa.types.is_integer(cells.type) and not pa.types.is_decimal(cells.type):
        text = plain_text(cells)
        missing = missing | _flags(is_missing(text))
        # A column declared in degrees with 12:34:56 contradicts itself; a guess may be off by a factor of 15.
        contradictory = hours and declared == u.deg and ":" not in (unit or "") and (unit or "").lower() != "dms"
        in_hours = hours and (declared is None or declared == u.hourangle)
        packed = _flags(pc.match_substring_regex(text, r"^[-+]?0\d{5}(\.|$)"))
        reasons |= {row: f"{what} {text[row]} looks like HHMMSS or DDMMSS" for row in np.flatnonzero(packed).tolist()}
        _read_sexagesimal(
            text, values, missing, reasons, what, in_hours=in_hours, contradictory=contradictory, no_hours=is_latitude
        )
    reasons |= dict.fromkeys(np.flatnonzero(missing).tolist(), f"no {what}")
    low, high = limits
    with np.errstate(invalid="ignore"):
        outside = ~missing & ~((values >= low) & (values <= high))
    for row in np.flatnonzero(outside).tolist():
        reasons.setdefault(row, f"{what} {cells[row].as_py()} is outside {low:g} to {high:g} deg")
    values[list(reasons)] = np.nan
    return values, reasons


def unit_of(text: str | None, what: str, like: Any = u.deg) -> Any:
    """Parse a unit as catalogues write it; None stays None, a unit of another kind is an error."""
    if not text:
        return None
    plain = text.strip().strip("\"'")
    found = u.Unit(_SPELLINGS.get(plain.lower(), plain) if like == u.deg else plain, parse_strict="silent")
    if isinstance(found, u.UnrecognizedUnit) or not found.is_equivalent(like):
        raise ConfigurationError(
            f"the {what} is in '{text}', and that is no unit for it",
            hint=f"convert the column to {like} and declare that, or leave the unit out",
        )
    return found


def is_angle(text: str) -> bool:
    """Return whether a unit is one of angles."""
    try:
        return unit_of(text, "") is not None
    except ConfigurationError:
        return False


def like_hours(lon: Floats, lat: Floats, cells: pa.Array) -> bool:
    """Return whether numbers without a unit look like hours: below 24, at declinations all over the sky."""
    known = np.isfinite(lon) & np.isfinite(lat)
    if known.sum() < 5 or lon[known].max() >= 24.0 or np.isnan(to_numbers(cells)[known]).any():
        return False
    return bool(np.ptp(lon[known]) > 12.0 and np.ptp(lat[known]) > 45.0)


def refuse_offsets(name: str, unit: str | None, lon: Floats, lat: Floats) -> None:
    """Raise an error if positions in arcmin or less are all within a degree of 0, 0: they look like offsets."""
    known = np.isfinite(lon) & np.isfinite(lat)
    if unit in ("arcmin", "arcsec", "mas") and known.any() and np.abs([lon[known], lat[known]]).max() < 1.0:
        raise ConfigurationError(
            f"{name} in {unit} is never beyond a degree: it looks like an offset or an error, and no position",
            hint="name the columns that hold positions with --ra and --dec (ra_column, dec_column), or give degrees",
        )


def split_positions(cells: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Split cells that hold both coordinates.

    Such a cell is a J2000 designation with seconds (``SDSS J000116.00+141123.0``; names are truncated, so their
    positions are as coarse as the last digit), or two coordinates (``00 01 16.00 +14 11 23.0``).
    """
    lon: list[str | None] = []
    lat: list[str | None] = []
    for cell in plain_text(cells).to_pylist():
        if cell is None:
            found: tuple[str | None, str | None] = (None, None)
        elif match := _DESIGNATION.fullmatch(cell):
            found = (":".join(match.groups()[:3]), ":".join(match.groups()[3:]))
        elif match := _TWO_IN_ONE.fullmatch(cell):
            found = (match[1] or match[3], match[2] or match[4])
        else:
            found = (cell, cell)  # no position, and the reason will quote it
        lon.append(found[0])
        lat.append(found[1])
    return pa.array(lon, pa.string()), pa.array(lat, pa.string())


def to_icrs(
    lon: Floats, lat: Floats, frame: Any, pm_lon: Floats, pm_lat: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Convert positions and proper motions from a frame to ICRS.

    Parameters
    ----------
    lon, lat
        Position in ``frame``, deg.
    frame
        An astropy frame without data. Positions in ICRS are returned unchanged.
    pm_lon, pm_lat
        Proper motion in ``frame``, mas/yr, the first with the cosine of the latitude; NaN where unknown.

    Returns
    -------
    tuple
        Right ascension in [0, 360) and declination, deg, and the proper motion, mas/yr.
    """
    if isinstance(frame, ICRS):
        return np.where(lon == 360.0, 0.0, lon), lat, pm_lon, pm_lat
    moving = np.isfinite(pm_lon) & np.isfinite(pm_lat)
    if frame.name.startswith("fk4") and moving.any():
        # FK4 itself rotates against the sky: the matrices of astropy leave that out of proper motions.
        raise ConfigurationError(
            "proper motions in FK4 are not converted", hint="give them in FK5 or ICRS, or take the columns out"
        )
    try:
        sky = SkyCoord(lon * u.deg, lat * u.deg, frame=frame).icrs
        ra, dec = np.array(sky.ra.deg), np.array(sky.dec.deg)
        pm_ra, pm_dec = np.full(lon.shape, np.nan), np.full(lon.shape, np.nan)
        if moving.any():
            first, second = list(frame.get_representation_component_names("s"))[:2]
            motion = {first: pm_lon[moving] * u.mas / u.yr, second: pm_lat[moving] * u.mas / u.yr}
            sky = SkyCoord(lon[moving] * u.deg, lat[moving] * u.deg, frame=frame, **motion).icrs
            pm_ra[moving] = sky.pm_ra_cosdec.to_value(u.mas / u.yr)
            pm_dec[moving] = sky.pm_dec.to_value(u.mas / u.yr)
    except (ConvertError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"positions in the frame {frame.name} can't be turned into ICRS: {error}", hint="give ICRS positions"
        ) from error
    return np.where(ra >= 360.0, 0.0, ra), dec, pm_ra, pm_dec


def _flags(mask: pa.Array) -> npt.NDArray[np.bool_]:
    flags: npt.NDArray[np.bool_] = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
    return flags


def _read_sexagesimal(
    text: pa.Array,
    values: Floats,
    missing: npt.NDArray[np.bool_],
    reasons: dict[int, str],
    what: str,
    *,
    in_hours: bool,
    contradictory: bool,
    no_hours: bool,
) -> None:
    """Convert the sexagesimal cells among those that were no numbers, and add reasons for the rest."""
    todo = np.flatnonzero(np.isnan(values) & ~missing)
    if not len(todo):
        return
    left = text.take(pa.array(todo))
    parts = pc.extract_regex(left, f"^(?:{SEXAGESIMAL})$")
    whole, minutes, seconds = (to_numbers(pc.struct_field(parts, p)) for p in ("whole", "minutes", "seconds"))
    mark, sign = (pc.utf8_lower(pc.struct_field(parts, p)) for p in ("mark", "sign"))
    degrees = whole + minutes / 60.0 + seconds / 3600.0
    says_degrees = _flags(pc.is_in(mark, value_set=pa.array(["d", "°"])))
    degrees[(_flags(pc.equal(mark, "h")) | in_hours) & ~says_degrees] *= 15.0
    degrees[_flags(pc.equal(sign, "-"))] *= -1.0
    # 12:34:56 S is south.
    south = _flags(pc.is_in(mark, value_set=pa.array([":", " "]))) & _flags(pc.match_substring_regex(left, "S$"))
    degrees[south] = np.nan
    too_many = (minutes >= 60.0) | (seconds >= 60.0)
    ambiguous = contradictory & ~_flags(pc.match_substring_regex(left, "[hHdD°]"))
    degrees[too_many | ambiguous] = np.nan
    hours = _flags(pc.match_substring_regex(left, "[hH]")) & no_hours
    degrees[hours] = np.nan
    values[todo] = degrees
    # The rest is rare or wrong. Astropy reads rare forms (12h34.5m).
    for at in np.flatnonzero(np.isnan(degrees)).tolist():
        row, cell = int(todo[at]), left[at].as_py()
        if too_many[at]:
            reasons[row] = f"{what} {cell!r} counts {minutes[at]:g} minutes and {seconds[at]:g} seconds"
        elif hours[at]:
            reasons[row] = f"{what} {cell!r} is in hours"
        elif ambiguous[at] and _LIKE_SEXAGESIMAL.search(cell):
            reasons[row] = f"{what} {cell!r} is sexagesimal in a column declared in degrees"
        elif np.isnan(value := _read_angle(cell, "hourangle" if in_hours else "deg")):
            reasons[row] = f"{what} {cell!r} is neither degrees nor sexagesimal"
        else:
            values[row] = value


def _read_angle(cell: str, unit: str) -> float:
    if not _LIKE_SEXAGESIMAL.search(cell):
        return np.nan
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", AstropyWarning)  # 12:60 is only a warning to astropy
            return float(Angle(cell, unit=unit).deg)
    except (ValueError, TypeError, AstropyWarning):
        return np.nan
