"""Magnitudes, fluxes and zero points. Fluxes are in mJy; errors are propagated to first order."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Flux of AB magnitude 0: 10**(-48.6 / 2.5) erg s-1 cm-2 Hz-1, J. B. Oke & J. E. Gunn 1983, ApJ 266, 713, eq. 1;
# by convention rounded to 3631 Jy (M. Fukugita et al. 1996, AJ 111, 1748, sect. 1).
AB_ZERO_POINT_JY = 3631.0

_LN = 2.5 / np.log(10)  # magnitudes in a factor e, 1.0857


def flux_mjy(mag: ArrayLike, zero_point_jy: float) -> NDArray[np.float64]:
    """Return the flux of a magnitude.

    Parameters
    ----------
    mag
        Magnitude, in the system of the zero point.
    zero_point_jy
        Flux of magnitude 0, in Jy: AB_ZERO_POINT_JY, or the band's own for Vega magnitudes.

    Returns
    -------
    numpy.ndarray
        Flux in mJy.
    """
    return np.asarray(zero_point_jy * 1e3 * 10 ** (-0.4 * np.asarray(mag, np.float64)))


def magnitude(flux: ArrayLike, zero_point_jy: float) -> NDArray[np.float64]:
    """Return the magnitude of a flux in mJy; NaN where the flux is not positive."""
    flux = np.asarray(flux, np.float64)
    return np.asarray(-2.5 * np.log10(np.where(flux > 0, flux, np.nan) / (zero_point_jy * 1e3)))


def magnitude_err(flux: ArrayLike, flux_err: ArrayLike) -> NDArray[np.float64]:
    """Return the error of a magnitude: 2.5 / ln 10 times the relative error of its flux; NaN where flux <= 0."""
    flux = np.asarray(flux, np.float64)
    return np.asarray(_LN * np.asarray(flux_err, np.float64) / np.where(flux > 0, flux, np.nan))


def flux_err(flux: ArrayLike, mag_err: ArrayLike) -> NDArray[np.float64]:
    """Return the error of a flux from the error of its magnitude, in the unit of the flux."""
    return np.asarray(np.asarray(flux, np.float64) * np.asarray(mag_err, np.float64) / _LN)
