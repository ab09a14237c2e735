"""Convert magnitudes and fluxes. Fluxes are in mJy; errors are propagated to first order."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Flux of AB magnitude 0: 10**(-48.6 / 2.5) erg s-1 cm-2 Hz-1, J. B. Oke & J. E. Gunn 1983, ApJ 266, 713, eq. 1;
# by convention rounded to 3631 Jy (M. Fukugita et al. 1996, AJ 111, 1748, sect. 1).
AB_ZERO_POINT_JY = 3631.0

_LN = 2.5 / np.log(10)  # magnitudes in a factor e, 1.0857


def flux_mjy(mag: ArrayLike, zero_point_jy: float) -> NDArray[np.float64]:
    """Convert magnitudes to fluxes.

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

    Examples
    --------
    >>> float(flux_mjy(16.4, AB_ZERO_POINT_JY).round(3))
    1.0
    """
    return np.asarray(zero_point_jy * 1e3 * 10 ** (-0.4 * np.asarray(mag, np.float64)))


def magnitude(flux: ArrayLike, zero_point_jy: float) -> NDArray[np.float64]:
    """Convert fluxes in mJy to magnitudes; NaN where the flux is not positive.

    Parameters
    ----------
    flux
        Fluxes, mJy.
    zero_point_jy
        Flux of magnitude 0, Jy.

    Examples
    --------
    >>> float(magnitude(3.631, AB_ZERO_POINT_JY))
    15.0
    """
    flux = np.asarray(flux, np.float64)
    return np.asarray(-2.5 * np.log10(np.where(flux > 0, flux, np.nan) / (zero_point_jy * 1e3)))


def magnitude_err(flux: ArrayLike, flux_err: ArrayLike) -> NDArray[np.float64]:
    """Convert errors of fluxes to errors of magnitudes, 2.5 / ln 10 times the relative error; NaN where flux <= 0.

    Parameters
    ----------
    flux
        Fluxes.
    flux_err
        One standard deviation of each, in the same unit.

    Examples
    --------
    >>> float(magnitude_err(100.0, 1.0).round(4))
    0.0109
    """
    flux = np.asarray(flux, np.float64)
    return np.asarray(_LN * np.asarray(flux_err, np.float64) / np.where(flux > 0, flux, np.nan))


def flux_err(flux: ArrayLike, mag_err: ArrayLike) -> NDArray[np.float64]:
    """Convert errors of magnitudes to errors of fluxes, in the unit of the flux.

    Parameters
    ----------
    flux
        Fluxes.
    mag_err
        One standard deviation of each magnitude.

    Examples
    --------
    >>> float(flux_err(100.0, 0.0109).round(2))
    1.0
    """
    return np.asarray(np.asarray(flux, np.float64) * np.asarray(mag_err, np.float64) / _LN)
