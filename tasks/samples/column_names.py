"""Usual names of columns, and the units in them."""

from __future__ import annotations

import functools
import re

import astropy.units as u

Pairs = tuple[tuple[str, str], ...]

# Names are compared in lower case, with blanks as underscores and without a unit in brackets: RA (deg) is ra.
# The first group that a file has is used; several pairs of one group are ambiguous.
EQUATORIAL: tuple[Pairs, ...] = (
    # computed by VizieR, next to the catalogue's own
    (("_raj2000", "_dej2000"), ("_ra", "_de"), ("_ra.icrs", "_de.icrs"), ("_rab1950", "_deb1950")),
    # common
    (
        *(("ra", dec) for dec in ("dec", "de", "decl")),
        *(("raj", "decj"), ("r.a.", "dec."), ("r.a.", "decl."), ("coord.ra", "coord.dec"), ("s_ra", "s_dec")),
        *(("ra_deg", "dec_deg"), ("ra_deg", "de_deg"), ("radeg", "decdeg"), ("radeg", "dedeg")),
        *(("ra_icrs", "de_icrs"), ("ra_icrs", "dec_icrs"), ("ra2000", "dec2000"), ("ra2000", "de2000")),
        *(("raj2000", "dej2000"), ("raj2000", "decj2000"), ("ra_j2000", "dec_j2000"), ("ra_j2000", "de_j2000")),
        *(("rab1950", "deb1950"), ("ra1950", "dec1950"), ("ra1950", "de1950"), ("ra_b1950", "dec_b1950")),
        *(("alpha", "delta"), ("alpha_j2000", "delta_j2000"), ("right_ascension", "declination")),
        *(("ra_obj", "dec_obj"), ("ra_targ", "dec_targ"), ("target_ra", "target_dec"), ("targ_ra", "targ_dec")),
    ),
    # of one survey
    (("wise_ra", "wise_dec"), ("ramean", "decmean"), ("meanra", "meandec"), ("objra", "objdec")),
    # in parts: hours, minutes, seconds, ... (see `tasks.samples.parts`)
    (("parts:ra", "parts:dec"),),
)
GALACTIC: tuple[Pairs, ...] = (
    (("_glon", "_glat"),),
    (("glon", "glat"), ("l", "b"), ("lii", "bii"), ("gal_lon", "gal_lat"), ("coord.l", "coord.b")),
)
NAMES = (
    *("name", "object_name", "object", "objname", "obj_name", "target", "target_name", "main_id"),
    *("source_name", "designation", "wise_designation", "source_id", "sourceid", "objid", "object_id", "objectid"),
    *("orig_id", "id", "sdss_name", "pl_name", "hostname", "specobjid", "coadd_object_id"),
    *("ticid", "tic_id", "tic", "kepid", "kic", "epic", "hip"),
)
# A column of these names holds names only if each row has another value.
NAME_LIKE = re.compile(
    r"(.*[\W_])?(name|id|designation|identifier)|(ztf|iau|tns|gaia|toi|star|cat|src)_?(id|name)|source"
    r"|sdss|2mass|allwise|star|galaxy|quasar|planet|pulsar|psr"
)
PM = (
    *(("pmra", "pmdec"), ("pmra", "pmde"), ("pm_ra", "pm_dec"), ("pm_ra", "pm_de"), ("pm_ra_cosdec", "pm_dec")),
    *(("pmra_cosdec", "pmdec"), ("coord.pm_ra_cosdec", "coord.pm_dec"), ("sy_pmra", "sy_pmdec")),
    *(("pmracosde", "pmde"), ("pmracosdec", "pmdec"), ("pmra*cosde", "pmde"), ("pmra*cosdec", "pmdec")),
)
EPOCHS = ("ref_epoch", "refepoch", "reference_epoch", "coord_epoch", "pos_epoch", "epoch")
# Next to one of these columns, epoch is that of a transit or a pulse.
TRANSIT = re.compile(
    r"(.*_)?(orb(ital)?_?)?(per(iod)?|orbper)(_?(d|h|days?|hours?))?|p|p[-_]?orb|t0|tc|t14|p[01]|f[01]|(.*_)?(duration|depth)"
)
REDSHIFTS = ("redshift", "z_spec", "zspec", "spec_z", "specz", "z_best", "zbest", "sdss_redshift", "z")
# Next to one of these columns, with mag or without, z is a magnitude or an axis.
BANDS = {"u", "b", "v", "g", "r", "i", "y", "j", "h", "k", "ks", "x", "rp", "bp", "w1", "w2", "g_mean", "zerr_mag"}
# Next to one of these columns, l and b are luminosity and magnitude.
STARS = BANDS - {"x"} | {"teff", "logg", "lum", "logl", "mass", "radius", "feh", "sp", "sptype"}
EQUINOXES = ("equinox", "equinoxe", "eqnx", "eqx", "equin", "coord_equinox", "pos_equinox")
SYSTEMS = (
    "radesys",
    "radecsys",
    "coordsys",
    "coord_sys",
    "coordinate_system",
    "coord_system",
    "coord_frame",
    "frame",
    "refframe",
    "ref_frame",
    "reference_frame",
    "coosys",
    "coo_sys",
    "system",
)

# The parts around the band in the name of a magnitude; and a colour.
_MAGNITUDE = re.compile(
    r"mag(nitude)?s?|psf|c?model|petro|auto|aper(ture)?|kron|fiber\d?|mean|err(or)?|sdss|ps1|[_\d.]"
)
_COLOUR = re.compile(r"[ugriz][-_][griz]")

_IN_BRACKETS = re.compile(r"(.+?)[\s_]*[\[(]\s*(.+?)\s*[\])]")
_HMS = re.compile(r"hh?[\s:]*mm?[\s:]*ss?(?:\.s+)?|hour\s*angle")
_DMS = re.compile(r"(?:[+-±]?dd?d?|deg|°)[\s:]*(?:mm?|am|')[\s:]*(?:ss?|as|\")(?:\.s+)?")
_ANGLE = r"hours?|hrs?|degrees?|degs?|radians?|rads?|hms|dms|arcmin|arcsec|mas"
_RATE = r"(?P<angle>milliarcsec|mas|arcsec|asec|as|deg)_?(?:per_?)?(?P<time>years?|yr|century|cent|cy)"
_SUFFIXED = re.compile(rf"(?P<name>.+?)_(?:(?P<unit>{_ANGLE}|h)|{_RATE})")
_ATTACHED = re.compile(rf"(?P<name>(?:.*_)?(?:ra|dec|decl|glon|glat))(?P<unit>{_ANGLE})")
_KNOWN = {name for group in EQUATORIAL + GALACTIC for pair in group for name in pair}


@functools.cache
def split_unit(name: str) -> tuple[str, str | None]:
    """Split a column's name into its plain form, in lower case without blanks, and the unit in it.

    Examples
    --------
    >>> split_unit("RA (deg)"), split_unit("pmRA"), split_unit("DEC_J2000")
    (('ra', 'deg'), ('pmra', None), ('dec_j2000', None))
    """
    plain, unit = name.strip().lower(), None
    if match := _IN_BRACKETS.fullmatch(plain):
        inside = match[2].replace("_", " ")
        if inside in ("j2000", "j2000.0", "2000", "2000.0", "icrs"):
            plain = match[1]
        elif re.fullmatch(r"(?:fk4|b?1950(?:\.0)?)(?:[\s,]+b?1950(?:\.0)?)?", inside):
            plain = f"{match[1]}_b1950"
        elif found := _unit_in(inside):
            plain, unit = match[1], found
    plain = re.sub(r"\s+", "_", plain)
    match = _SUFFIXED.fullmatch(plain) or _ATTACHED.fullmatch(plain)
    if unit is None and match and match["name"] not in ("e", "err", "sigma"):
        parts = match.groupdict()
        unit = f"{parts['angle']}/{parts['time']}" if parts.get("angle") else parts["unit"]
        plain = plain if plain in _KNOWN else match["name"]
    return plain, unit


def bare(name: str) -> str:
    """Return a plain name without a unit, even if it is usual with one."""
    plain_name = split_unit(name)[0]
    match = _SUFFIXED.fullmatch(plain_name) or _ATTACHED.fullmatch(plain_name)
    return match["name"] if match else plain_name


def without_brackets(name: str) -> str:
    """Return a column's name in lower case, without anything in brackets."""
    return re.sub(r"\s+", "_", re.sub(r"[\[(].*?[\])]", "", name.strip().lower()).strip())


def is_magnitude(plain_name: str) -> bool:
    """Return whether a plain name is that of a magnitude or a colour, such as ``psfmag_u`` or ``g-r``."""
    is_decorated = "mag" in plain_name or "psf" in plain_name
    return bool(_COLOUR.fullmatch(plain_name)) or (is_decorated and _MAGNITUDE.sub("", plain_name) in BANDS | {"z", ""})


def _unit_in(inside: str) -> str | None:
    """Return the text of brackets if it is a unit, else None."""
    if _HMS.fullmatch(inside):
        return "h:m:s"
    if _DMS.fullmatch(inside):
        return "d:m:s"
    if re.fullmatch(rf"{_ANGLE}|h|d|°", inside) or (
        re.search(r"[\s/]|yr|\^|-1", inside) and motion_unit(inside) is not None
    ):
        return inside
    unit = u.Unit(inside, parse_strict="silent")
    return None if isinstance(unit, u.UnrecognizedUnit) or unit == u.dimensionless_unscaled else inside


def motion_unit(inside: str) -> u.UnitBase | None:
    """Parse a unit of proper motion as catalogues write it; None if it is none."""
    text = inside.strip().strip("'").lower()
    for pattern, word in (
        (r"\bmilli-?arcsec(?:ond)?s?\b", "mas"),
        (r"\barcsec(?:ond)?s?\b|\basec\b|(?<![a-z])as\b|\"|″|''", "arcsec"),
        (r"\bjyear\b|\byears?\b|\by\b|\ba\b", "yr"),
        (r"\bcentury\b|\bcent\b|\bcy\b", "hyr"),
        (r"\s+per\s+", "/"),
        (r"\b(h?yr)\s*(?:\^|\*\*)?\s*\(?-1\)?", r"\1**-1"),
    ):
        text = re.sub(pattern, word, text)
    unit = u.Unit(re.sub(r"\s*/\s*", "/", text).replace(" ", "."), parse_strict="silent")
    return unit if not isinstance(unit, u.UnrecognizedUnit) and unit.is_equivalent(u.mas / u.yr) else None
