"""What HST's reference files say of an exposure: sensitivity and its decline (COS), flat fields and bad pixels (STIS).

The files are those of the Calibration Reference Data System. Headers name them as ``lref$NAME`` and ``oref$NAME``;
the environment variables of those names say in which folder they are, as for calcos and calstis.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lake.errors import GranuleRejected
from lake.text import counted
from tasks.sources.hst_timetag.events import Array, EventTable
from tasks.sources.hst_timetag.extract import Sensitivity

# SLOPE of a TDSTAB is in percent a year: calcos, cosutil.py, getTDSFactor.
DAYS_PER_YEAR, PERCENT = 365.25, 100.0

# FPOFFSET of a table is FP-POS less this.
_CENTRAL_FP_POS = 3

# Pixels of STIS's MAMA detectors: as they are read out, and the halves of them in which events are recorded.
STIS_PIXELS, STIS_FINE_PIXELS = 1024, 2048


def find(table: EventTable, keyword: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return where a reference file of an exposure is; None if its header names none, or if it is not there."""
    name = table.reference_files.get(keyword)
    if name is None:
        return None
    folder, dollar, file = name.rpartition("$")
    root = environment.get(folder) if dollar else None
    path = Path(root or "", file)
    return path if root and path.is_file() else None


def sensitivities(table: EventTable, environment: Mapping[str, str] = os.environ) -> dict[str, Sensitivity]:
    """Return the sensitivity of each segment or stripe of a COS spectrum that the reference files know.

    Raises
    ------
    GranuleRejected
        If more than one row of a reference file fits.
    """
    flux_file, decline_file = find(table, "FLUXTAB", environment), find(table, "TDSTAB", environment)
    if table.instrument != "COS" or table.is_image or flux_file is None or decline_file is None:
        return {}
    found = {}
    for boxes in table.boxes:
        # FUV's tables name segments, NUV's stripes.
        segment = (table.segment or f"FUV{boxes.name}") if table.detector == "FUV" else f"NUV{boxes.name}"
        keys = {"SEGMENT": segment, "OPT_ELEM": table.grating, "APERTURE": table.aperture}
        # Later tables have rows for each setting: calcos 3.6, extract.py, doFluxCorr.
        cenwave, offset = {"CENWAVE": table.cenwave}, {"FPOFFSET": table.fp_pos - _CENTRAL_FP_POS}
        response, _ = _row(flux_file, {**keys, **cenwave}, offset)
        decline, header = _row(decline_file, keys, cenwave)
        if response is None or decline is None:
            continue
        found[boxes.name] = Sensitivity(
            _Interpolated(np.asarray(response["WAVELENGTH"], float), np.asarray(response["SENSITIVITY"], float)),
            _decline(decline, header, table.expstart_mjd),
        )
    return found


@dataclass(frozen=True)
class _Interpolated:
    """Values by wavelength, linear between those known, the first and the last beyond."""

    wavelengths: Array
    values: Array

    def __call__(self, wavelengths: Array) -> Array:
        """Return the values at some wavelengths."""
        return np.interp(wavelengths, self.wavelengths, self.values)


def _decline(row: Any, header: Any, expstart_mjd: float) -> _Interpolated:
    """Return the factor by which the sensitivity has changed since the reference time, by wavelength.

    The slopes are those of the last time before the exposure; an exposure before all of them has the first ones, as in
    calcos. Only the first NWL wavelengths and NT times of the table's arrays mean something.
    """
    n_wavelengths, n_times = int(row["NWL"]), int(row["NT"])
    times = np.asarray(row["TIME"], float)[:n_times]
    wavelengths = np.asarray(row["WAVELENGTH"], float)[:n_wavelengths]
    at = max(int(np.searchsorted(times, expstart_mjd, side="left")) - 1, 0)
    slope, intercept = (
        np.asarray(row[name], float).reshape(-1, len(row["WAVELENGTH"]))[at, :n_wavelengths]
        for name in ("SLOPE", "INTERCEPT")
    )
    reference = float(row["REF_TIME"] if "REF_TIME" in row.array.names else header["REF_TIME"])
    return _Interpolated(wavelengths, (expstart_mjd - reference) * slope / (DAYS_PER_YEAR * PERCENT) + intercept)


def _row(path: Path, keys: Mapping[str, Any], where_there: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the row of a reference table that fits, and the table's header; None if there is no such row.

    Columns of `where_there` are not in every table.
    """
    from astropy.io import fits

    with fits.open(path, memmap=False) as hdus:
        data, header = hdus[1].data, hdus[1].header
        fits_all = np.ones(len(data), bool)
        columns = {name.upper() for name in data.columns.names}
        for name, value in {**keys, **{name: one for name, one in where_there.items() if name in columns}}.items():
            column = data[name]
            fits_all &= np.char.strip(column) == value if isinstance(value, str) else column == value
        rows = np.flatnonzero(fits_all)
        if len(rows) > 1:
            named = ", ".join(f"{name} {value}" for name, value in keys.items())
            raise GranuleRejected(f"{path.name} has {counted(len(rows), 'row')} for {named}: one was expected")
        return (data[rows[0]], header) if len(rows) else (None, header)


def stis_flat(table: EventTable, environment: Mapping[str, str] = os.environ) -> Array | None:
    """Return STIS's flat field in fine pixels, (y, x), the product of pixel and low-order flat; None without either."""
    from astropy.io import fits

    flat = None
    for keyword in ("PFLTFILE", "LFLTFILE"):
        path = find(table, keyword, environment)
        if path is not None:
            with fits.open(path, memmap=False) as hdus:
                image = np.asarray(next(hdu.data for hdu in hdus if hdu.name == "SCI" or hdu.data is not None), float)
            fine = _enlarged(image)
            flat = fine if flat is None else flat * fine
    return flat


def stis_bad_pixels(table: EventTable, environment: Mapping[str, str] = os.environ) -> Array | None:
    """Return the DQ flags of STIS's fine pixels, (y, x), from BPIXTAB; None without it."""
    from astropy.io import fits

    path = find(table, "BPIXTAB", environment)
    if path is None:
        return None
    flags = np.zeros((STIS_PIXELS, STIS_PIXELS), np.int32)
    with fits.open(path, memmap=False) as hdus:
        for row in hdus[1].data:
            first_x, first_y, length = int(row["PIX1"]) - 1, int(row["PIX2"]) - 1, int(row["LENGTH"])
            # AXIS 1: a run of pixels along x; 2: along y.
            if int(row["AXIS"]) == 1:
                flags[first_y, max(first_x, 0) : first_x + length] |= int(row["VALUE"])
            else:
                flags[max(first_y, 0) : first_y + length, first_x] |= int(row["VALUE"])
    return _enlarged(flags)


def _enlarged(image: Array) -> Array:
    """Return an image with each pixel repeated until it has STIS's fine pixels."""
    rows, columns = (STIS_FINE_PIXELS // size for size in image.shape)
    return np.repeat(np.repeat(image, rows, axis=0), columns, axis=1)
