"""Units and UCDs as the forms spell them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

# What VOUnit 1.1 does not know must be quoted.
_UNKNOWN_TO_VOUNIT = re.compile(r"\b(electron|DN)\b")

# Wavelengths in nm, up to which light is of a part of the spectrum in UCD1+.
_PARTS = ((300.0, "em.UV"), (1000.0, "em.opt"), (100_000.0, "em.IR"))


def vounit(unit: str | None) -> str | None:
    """Return a unit as VOUnit 1.1 wants it.

    Examples
    --------
    >>> vounit("electron.s**-1"), vounit("mJy")
    ("'electron'.s**-1", 'mJy')
    """
    return _UNKNOWN_TO_VOUNIT.sub(r"'\1'", unit) if unit else None


def fits_unit(unit: str | None) -> str | None:
    """Return a unit as FITS 4.0 wants it; one that FITS does not know stays as it is.

    Examples
    --------
    >>> fits_unit("mas.yr**-1"), fits_unit("electron.s**-1")
    ('mas yr-1', 'electron.s**-1')
    """
    if not unit:
        return None
    import astropy.units

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", astropy.units.UnitsWarning)  # VOUnit prefers other units than erg
        try:
            return str(astropy.units.Unit(unit).to_string("fits"))
        except ValueError:
            return unit


def flux_ucd(ucd: str, unit: str | None, band: Mapping[str, Any] | None) -> str:
    """Return the UCD of a flux in a unit: a density, counts or an energy, and where in the spectrum.

    Examples
    --------
    >>> flux_ucd("stat.error;phot.flux", "mJy", {"wavelength_nm": 3352.6})
    'stat.error;phot.flux.density;em.IR'
    >>> flux_ucd("phot.flux", "GeV", None)
    'phys.energy'
    """
    if not ucd.endswith("phot.flux") or unit is None:
        return ucd
    if unit.endswith("Jy"):
        wavelength = (band or {}).get("wavelength_nm")
        where = next((part for upto, part in _PARTS if wavelength and wavelength <= upto), None)
        return ucd.replace("phot.flux", "phot.flux.density") + (f";{where}" if where else "")
    if unit.endswith("eV"):
        return ucd.replace("phot.flux", "phys.energy")
    if unit.startswith(("count", "electron", "ct", "adu")):
        return ucd.replace("phot.flux", "phot.count")
    return ucd
