"""WASP-126 as TESS saw it in sector 1, with a planet that passes before it: a simulation with published numbers.

The period and the time of a transit are those of Maxted et al. 2016 (A&A 591, A55), the depth and duration those of
TESS's object of interest 114.01, the brightness about the star's. All else is generated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deployments.sandbox.mast_stars import star

if TYPE_CHECKING:
    from deployments.sandbox.mast_stars import Star

TIC, SECTOR = 25155310, 1
PLACE = (63.37389, -69.22679)
PERIOD = 3.28880
"""Days."""
EPOCH = 2456890.3191
"""Middle of a transit, BJD (TDB)."""
DEPTH, DURATION, INGRESS = 0.0070, 0.1432, 0.0130
"""Of the flux outside; days from the first contact to the last; days from the first to the second."""

Floats = NDArray[np.float64]

_BTJD = 2457000.0
# TESS's sector 1: 27.9 days every two minutes, with a gap where the data were sent.
_FIRST, _CADENCES, _CADENCE = 1325.2953, 20_076, 120.0 / 86400
_GAP = (1338.52, 1339.66)
_FLUX, _NOISE = 8_700.0, 9.0


def transit(bjd: Floats) -> Floats:
    """Return the flux at some times, BJD (TDB), as a part of that outside transits: a trapezoid.

    Examples
    --------
    >>> transit(np.array([EPOCH, EPOCH + 1, EPOCH + 10 * PERIOD]))
    array([0.993, 1.   , 0.993])
    """
    from_middle = np.abs((bjd - EPOCH + PERIOD / 2) % PERIOD - PERIOD / 2)
    return np.asarray(1 - DEPTH * np.clip((DURATION / 2 - from_middle) / INGRESS, 0, 1))


def wasp_126(seed: int) -> Star:
    """Return the file of its light curve, in two-minute cadences."""
    rng = np.random.default_rng(seed)
    time: Floats = _FIRST + np.arange(_CADENCES, dtype=np.float64) * _CADENCE
    flux = _FLUX * transit(time + _BTJD) + rng.normal(0, _NOISE, _CADENCES)
    # The instrument's drift, which PDCSAP is without; and cadences that the pipeline flags.
    drift = 1 + 0.004 * np.sin((time - _FIRST) / 4.3)
    flagged = rng.random(_CADENCES) < 0.005
    out = (time > _GAP[0]) & (time < _GAP[1])
    quality = np.where(out, 16384, np.where(flagged, 128, 0)).astype(np.int32)
    time, flux = np.where(out, np.nan, time), np.where(out, np.nan, flux)
    error = np.where(out, np.nan, _NOISE).astype(np.float32)
    columns = {
        "TIME": ("D", f"BJD - {_BTJD:.0f}, days", time),
        "SAP_FLUX": ("E", "e-/s", (0.85 * flux * drift).astype(np.float32)),
        "SAP_FLUX_ERR": ("E", "e-/s", error),
        "PDCSAP_FLUX": ("E", "e-/s", flux.astype(np.float32)),
        "PDCSAP_FLUX_ERR": ("E", "e-/s", error),
        "QUALITY": ("J", None, quality),
    }
    return star("spoc", TIC, SECTOR, PLACE, seed=seed, n=_CADENCES, columns=columns)
