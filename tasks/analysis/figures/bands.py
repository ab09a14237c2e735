"""One colour and one shape for each band, the same in every figure.

Colours follow the wavelength, from violet to brown, so that g of one survey looks like g of another; the shape of a
mark tells the survey. Both palettes are Paul Tol's, which colour-blind readers can tell apart: SRON technical note
SRON/EPS/TN/09-002, https://sronpersonalpages.nl/~pault/.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

# "Smooth rainbow", from purple to brown.
_RAINBOW = [
    "6F4C9B",
    "6059A9",
    "5568B8",
    "4E79C5",
    "4D8AC6",
    "4E96BC",
    "549EB3",
    "59A5A9",
    "60AB9E",
    "69B190",
    "77B77D",
    "8CBC68",
    "A6BE54",
    "BEBC48",
    "D1B541",
    "DDAA3C",
    "E49C39",
    "E78C35",
    "E67932",
    "E4632D",
    "DF4828",
    "DA2222",
    "B8221E",
    "95211B",
    "721E17",
    "521A13",
]

# "Bright", for bands without a wavelength; where an archive has more of them, those of "muted" that differ from these.
_BRIGHT = ["4477AA", "EE6677", "228833", "CCBB44", "66CCEE", "AA3377", "777777"]
_MORE = ["332288", "44AA99", "882255", "999933", "DDCC77"]

# What stands aside of another band, such as its background, has that one's colour, darker or lighter.
_ASIDE = re.compile(r"_(?:src|bkg)$")
_TINTS = {"": (0, 0.0), "_src": (0, 0.45), "_bkg": (255, 0.5)}

# Where a wavelength in nm lies in the rainbow: optical bands, which are many, get most of it.
_WAVELENGTHS = (120, 250, 360, 475, 510, 620, 760, 870, 960, 1250, 1650, 2150, 3400, 4600)
_AT = (0, 3, 6, 9, 11.5, 16, 19, 20.5, 21.5, 22, 23, 23.6, 24.2, 25)

# Paths in Vega's units, a square from -1 to 1, for shapes that it does not have.
_STAR = "M0,-1L0.26,-0.36L0.95,-0.31L0.42,0.14L0.59,0.81L0,0.44L-0.59,0.81L-0.42,0.14L-0.95,-0.31L-0.26,-0.36Z"
_PENTAGON = "M0,-1L0.95,-0.31L0.59,0.81L-0.59,0.81L-0.95,-0.31Z"
_HEXAGON = "M0.5,-0.87L1,0L0.5,0.87L-0.5,0.87L-1,0L-0.5,-0.87Z"
_DIAGONAL = "M-1,-0.7L-0.7,-1L0,-0.3L0.7,-1L1,-0.7L0.3,0L1,0.7L0.7,1L0,0.3L-0.7,1L-1,0.7L-0.3,0Z"
_BAR = "M-0.5,-1L0.5,-1L0.5,1L-0.5,1Z"
_SHAPES = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "cross",
    _STAR,
    "triangle-right",
    _PENTAGON,
    _DIAGONAL,
    "triangle-left",
    _HEXAGON,
    _BAR,
    "triangle-down",
    "wedge",
)

# HST's filters carry their wavelength: F814W is at 814 nm, F160W of an infrared camera at 1600 nm.
_FILTER = re.compile(r"(?:^|_)F(\d{3})(?:[A-Z]|$)")


@dataclass(frozen=True)
class Style:
    """How a band is drawn.

    Parameters
    ----------
    colour
        Hexadecimal.
    shape
        A shape of Vega's, or a path.
    wavelength_nm
        What the colour follows from; None: nothing is known.
    """

    colour: str
    shape: str
    wavelength_nm: float | None = None


def colour_of(wavelength_nm: float) -> str:
    """Return the colour of a wavelength.

    Examples
    --------
    >>> colour_of(474.6), colour_of(636.6), colour_of(4602.8)
    ('#69b190', '#e59637', '#521a13')
    """
    at = float(np.interp(np.log(wavelength_nm), np.log(_WAVELENGTHS), _AT))
    first = min(int(at), len(_RAINBOW) - 2)
    ends = [np.array([int(one[i : i + 2], 16) for i in (0, 2, 4)]) for one in _RAINBOW[first : first + 2]]
    mixed = ends[0] + (at - first) * (ends[1] - ends[0])
    return "#" + "".join(f"{round(part):02x}" for part in mixed)


def wavelength_of(band: str, wavelength_nm: float | None) -> float | None:
    """Return a band's wavelength in nm: as declared, or as the name of one of HST's filters says.

    Examples
    --------
    >>> wavelength_of("ACS_F850LP", None), wavelength_of("ztf_g", 474.6), wavelength_of("pca_a", None)
    (850.0, 474.6, None)
    """
    if wavelength_nm is not None and wavelength_nm > 0:
        return float(wavelength_nm)
    found = _FILTER.search(band)
    return float(found[1]) if found else None


def styles(
    bands: Iterable[tuple[str, str, float | None]], archives: Sequence[str] = ()
) -> dict[tuple[str, str], Style]:
    """Return the style of each band.

    Parameters
    ----------
    bands
        Archive, band, wavelength in nm. A band without one gets a colour by its place in its archive, so give all bands
        of an archive, drawn or not.
    archives
        Every archive there is: the shape goes by its place among them. That of an unknown one goes by its name.

    Examples
    --------
    >>> both = styles([("ztf", "ztf_g", 474.6), ("panstarrs", "ps1_g", 481.0)], ["panstarrs", "ztf"])
    >>> both["ztf", "ztf_g"].colour, both["ztf", "ztf_g"].shape, both["panstarrs", "ps1_g"].shape
    ('#69b190', 'square', 'circle')
    """
    found = {}
    known = sorted(archives)
    wanted = sorted(bands, key=lambda one: one[:2])
    unknown: dict[str, list[str]] = {}
    for archive, band, declared in wanted:
        main, others = _ASIDE.sub("", band), unknown.setdefault(archive, [])
        if wavelength_of(band, declared) is None and main not in others:
            others.append(main)
    for archive, band, declared in wanted:
        number = known.index(archive) if archive in known else zlib.crc32(archive.encode())
        shape = _SHAPES[number % len(_SHAPES)]
        wavelength = wavelength_of(band, declared)
        if wavelength is None:
            others, main = unknown[archive], _ASIDE.sub("", band)
            palette = _BRIGHT if len(others) <= len(_BRIGHT) else [*_BRIGHT, *_MORE]
            colour = _tinted(palette[(others.index(main) + number) % len(palette)], band.removeprefix(main))
        else:
            colour = colour_of(wavelength)
        found[archive, band] = Style(colour, shape, wavelength)
    return found


def _tinted(colour: str, aside: str) -> str:
    """Return the colour of a band, or of what stands aside of it, from that of the band."""
    towards, share = _TINTS[aside]
    parts = (int(colour[i : i + 2], 16) for i in (0, 2, 4))
    return "#" + "".join(f"{round(part + share * (towards - part)):02x}" for part in parts)
