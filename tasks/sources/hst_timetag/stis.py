"""Give the events of a STIS `tag` file what a corrtag file has: wavelengths, weights and flags."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lake.errors import GranuleRejected
from lake.text import one_line
from tasks.sources.hst_timetag.events import Array, EventTable, Photons
from tasks.sources.hst_timetag.extract import Prepared
from tasks.sources.hst_timetag.headers import UNREADABLE, text
from tasks.sources.hst_timetag.reference import STIS_FINE_PIXELS, stis_bad_pixels, stis_flat


@dataclass(frozen=True)
class Order:
    """A spectral order of an extracted spectrum.

    Parameters
    ----------
    wavelength
        Angstrom, of each of 1,024 pixels.
    centre, half_height
        Rows of fine pixels that belong to it: |y - centre| < half_height. None: all rows, of a spectrum that has one
        order alone.
    """

    wavelength: Array
    centre: float | None = None
    half_height: float | None = None


def orders(table: EventTable, x1d: Path | None) -> list[Order]:
    """Return the orders by which events get their wavelengths.

    Without an extracted spectrum every event has the central wavelength. Images have none.

    Parameters
    ----------
    x1d
        The extracted spectrum of the exposure.

    Raises
    ------
    GranuleRejected
        If that cannot be read, or has no wavelengths.
    """
    if table.is_image:
        return []
    if x1d is None:
        return [Order(np.full(STIS_FINE_PIXELS // 2, float(table.cenwave)))]
    try:
        found = _orders(table, x1d)
    except (*UNREADABLE, Warning) as error:
        raise GranuleRejected(f"{x1d.name} cannot be read as an extracted spectrum: {one_line(str(error))}") from error
    if not any(np.isfinite(order.wavelength).any() for order in found):
        raise GranuleRejected(f"{x1d.name} has no wavelengths")
    return found


def _orders(table: EventTable, x1d: Path) -> list[Order]:
    from astropy.io import fits

    with fits.open(x1d, memmap=False) as hdus:
        # A file of several exposures has a table of each.
        mine = [hdu for hdu in hdus[1:] if (text(hdu.header, "EXPNAME") or "").lower() == table.exposure_id]
        hdu = mine[0] if mine else hdus[1]
        shift, rows = float(hdu.header.get("SHIFTA2") or 0.0), hdu.data
        if not table.grating.startswith("E"):
            return [Order(_wavelengths(rows["WAVELENGTH"][0]))]
        return [
            Order(_wavelengths(row["WAVELENGTH"]), float(row["A2CENTER"]) + shift, float(row["EXTRSIZE"]))
            for row in rows
        ]


def _wavelengths(values: Array) -> Array:
    found = np.asarray(values, float)
    if found.shape != (STIS_FINE_PIXELS // 2,):
        raise ValueError(f"{found.size} wavelengths, not {STIS_FINE_PIXELS // 2}")
    return found


def preparation(
    table: EventTable, x1d: Path | None, environment: Mapping[str, str] = os.environ
) -> tuple[Prepared, list[str]]:
    """Return what completes the events of a `tag` file, and what could not be done for want of files.

    Weights are 1 / flat, and 1 without flat fields; flags are those of bad pixels, and 0 without their table.
    """
    found = orders(table, x1d)
    flat, bad = stis_flat(table, environment), stis_bad_pixels(table, environment)
    missing = [
        what
        for what, is_missing in (
            ("x1d", x1d is None and not table.is_image),
            ("flat fields", flat is None),
            ("bad pixels", bad is None),
        )
        if is_missing
    ]

    def prepared(table: EventTable, photons: Photons) -> Photons:
        # Events are numbered from 1.
        x, y = photons.x.astype(np.int64) - 1, photons.y.astype(np.int64) - 1
        on_detector = (x >= 0) & (x < STIS_FINE_PIXELS) & (y >= 0) & (y < STIS_FINE_PIXELS)
        x, y = np.clip(x, 0, STIS_FINE_PIXELS - 1), np.clip(y, 0, STIS_FINE_PIXELS - 1)
        weight = np.ones(len(photons)) if flat is None else _inverse(flat[y, x])
        return replace(
            photons,
            wavelength=wavelengths(found, photons),
            # Where there is no detector nothing was measured.
            weight=np.where(on_detector, weight, 0.0),
            quality=photons.quality if bad is None else np.where(on_detector, bad[y, x], 0),
        )

    return prepared, missing


def _inverse(flat: Array) -> Array:
    return np.divide(1.0, flat, out=np.zeros(len(flat)), where=flat > 0)


def wavelengths(found: Sequence[Order], photons: Photons) -> Array:
    """Return the wavelength of each event, Angstrom; 0 where it belongs to no order, so that it is not selected.

    Where orders overlap an event belongs to the one whose centre is nearest.
    """
    pixel = np.clip(np.rint(photons.x).astype(np.int64), 0, STIS_FINE_PIXELS - 1) // 2
    result, nearest = np.zeros(len(photons)), np.full(len(photons), np.inf)
    for order in found:
        if order.centre is None or order.half_height is None:
            return order.wavelength[pixel]
        distance = np.abs(photons.y - order.centre)
        mine = (distance < order.half_height) & (distance < nearest)
        result[mine], nearest[mine] = order.wavelength[pixel[mine]], distance[mine]
    return result
