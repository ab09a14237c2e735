"""COS and STIS event files for tests: from real raw events and their spectrum, or made of chosen events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

# Columns and formats of a COS corrtag file's EVENTS: COS Data Handbook, table 2.11.
COS_FORMATS = {
    "TIME": "1E",
    "RAWX": "1I",
    "RAWY": "1I",
    "XCORR": "1E",
    "YCORR": "1E",
    "XDOPP": "1E",
    "XFULL": "1E",
    "YFULL": "1E",
    "WAVELENGTH": "1E",
    "EPSILON": "1E",
    "DQ": "1I",
    "PHA": "1B",
}
BOX_KEYS = ("SP_LOC_A", "SP_HGT_A", "B_BKG1_A", "B_HGT1_A", "B_BKG2_A", "B_HGT2_A", "SDQFLAGS")


def events_hdu(columns: Mapping[str, Any], header: Mapping[str, Any], formats: Mapping[str, str] = COS_FORMATS) -> Any:
    """Return an EVENTS extension."""
    hdu = fits.BinTableHDU.from_columns(
        [fits.Column(name, form, array=np.asarray(columns[name])) for name, form in formats.items()], name="EVENTS"
    )
    hdu.header.update(header)
    return hdu


def gti_hdu(intervals: Sequence[tuple[float, float]]) -> Any:
    """Return a GTI extension."""
    values = np.array(intervals, float).reshape(-1, 2)
    return fits.BinTableHDU.from_columns(
        [fits.Column("START", "1D", array=values[:, 0]), fits.Column("STOP", "1D", array=values[:, 1])], name="GTI"
    )


def corrtag_of(rawtag: Path, x1d: Path, target: Path) -> Path:
    """Make a COS FUV corrtag file of real raw events and the spectrum that was extracted of them.

    The events are shifted along y by one value, which brings the ridge of the spectrum to the box's place.
    """
    with fits.open(rawtag) as raw, fits.open(x1d) as spectrum:
        found, header = raw["EVENTS"].data, spectrum["SCI"].header
        ridge = np.bincount(found["RAWY"][(found["RAWY"] > 380) & (found["RAWY"] < 560)]).argmax()
        y = found["RAWY"] + (header["SP_LOC_A"] - ridge)
        solution = spectrum["SCI"].data["WAVELENGTH"][0]
        columns = {
            "TIME": found["TIME"],
            "RAWX": found["RAWX"],
            "RAWY": found["RAWY"],
            "YCORR": y,
            "YFULL": y,
            "WAVELENGTH": np.interp(found["RAWX"], np.arange(len(solution)), solution),
            "EPSILON": np.ones(len(found)),
            "DQ": np.where((found["PHA"] < 2) | (found["PHA"] > 23), 512, 0),
            "PHA": found["PHA"],
            **dict.fromkeys(("XCORR", "XDOPP", "XFULL"), found["RAWX"]),
        }
        primary = spectrum[0].copy()
        primary.header["FILENAME"] = target.name
        known = {name: raw["EVENTS"].header[name] for name in ("EXPSTART", "EXPEND", "EXPTIME", "EXPFLAG")}
        events = events_hdu(columns, {**known, **{name: header[name] for name in BOX_KEYS}})
        fits.HDUList([primary, events, raw["GTI"].copy()]).writeto(target)
    return target


def cos_file(
    path: Path,
    *,
    times: Sequence[float] | Any,
    y: Any = 500.0,
    x: Any = 8000.0,
    wavelengths: Any = 1400.0,
    weights: Any = 1.0,
    flags: Any = 0,
    segment: str = "N/A",
    detector: str | None = None,
    boxes: Mapping[str, tuple[tuple[float, int], tuple[float, int], tuple[float, int]]] | None = None,
    good_times: Sequence[tuple[float, float]] | None = None,
    sun: Sequence[tuple[float, float]] | None = None,
    exposure_s: float | None = None,
    expflag: str = "NORMAL",
    serious: int = 8,
    start_mjd: float = 57934.2,
    obstype: str = "SPECTROSCOPIC",
    added: Mapping[str, Any] | None = None,
    without: Sequence[str] = (),
    primary: Mapping[str, Any] | None = None,
) -> Path:
    """Write a COS corrtag file of chosen events; what is one value is that of all events."""
    times = np.asarray(times, float)
    n = len(times)
    end = float(np.nanmax(times)) if n else 0.0
    columns = {
        "TIME": times,
        "YCORR": np.broadcast_to(y, n),
        "WAVELENGTH": np.broadcast_to(wavelengths, n),
        "EPSILON": np.broadcast_to(weights, n),
        "DQ": np.broadcast_to(flags, n),
        "PHA": np.full(n, 10),
        **dict.fromkeys(("RAWY", "YFULL"), np.broadcast_to(y, n)),
        **dict.fromkeys(("RAWX", "XCORR", "XDOPP", "XFULL"), np.broadcast_to(x, n)),
        **(added or {}),
    }
    formats = {name: form for name, form in COS_FORMATS.items() if name not in without}
    formats |= dict.fromkeys(added or {}, "1E")
    letter = segment[-1] if segment.startswith("FUV") else "A"
    header: dict[str, Any] = {"EXPSTART": start_mjd, "EXPFLAG": expflag, "SDQFLAGS": serious}
    header["EXPTIME"] = max(end, 1.0) if exposure_s is None else exposure_s
    for name, (source, one, other) in (
        boxes if boxes is not None else {letter: ((500, 20), (100, 10), (900, 10))}
    ).items():
        for key, (location, height) in (("SP_{}", source), ("B_{}1", one), ("B_{}2", other)):
            place, size = ("SP_LOC", "SP_HGT") if key == "SP_{}" else (f"B_BKG{key[-1]}", f"B_HGT{key[-1]}")
            header[f"{place}_{name}"], header[f"{size}_{name}"] = location, height
    first = fits.PrimaryHDU()
    first.header.update(
        {
            "TELESCOP": "HST",
            "INSTRUME": "COS",
            "ROOTNAME": path.name.split("_")[0],
            "TARGNAME": "SOME-STAR",
            "OBSTYPE": obstype,
            "OBSMODE": "TIME-TAG",
            "EXPTYPE": "EXTERNAL/SCI",
            "DETECTOR": detector or ("FUV" if segment.startswith("FUV") else "NUV"),
            "SEGMENT": segment,
            "OPT_ELEM": "G140L",
            "CENWAVE": 1105,
            "APERTURE": "PSA",
            "FPPOS": 3,
            "PROPOSID": 13902,
            "CAL_VER": "3.3.4",
            "RA_TARG": 10.0,
            "DEC_TARG": -20.0,
            **(primary or {}),
        }
    )
    hdus = [first, events_hdu(columns, header, formats)]
    hdus.append(gti_hdu(good_times if good_times is not None else [(0.0, max(end, 1.0))]))
    if sun is not None:
        values = np.array(sun, float)
        fields = [fits.Column("TIME", "1E", array=values[:, 0]), fits.Column("SUN_ALT", "1E", array=values[:, 1])]
        hdus.append(fits.BinTableHDU.from_columns(fields, name="TIMELINE"))
    fits.HDUList(hdus).writeto(path)
    return path


def table_hdu(columns: Mapping[str, Any]) -> Any:
    """Return a table extension of columns of text, numbers or arrays of numbers."""
    fields = []
    for name, values in columns.items():
        array = np.array(values)
        if array.dtype.kind == "U":
            form = f"{array.dtype.itemsize // 4 + 4}A"
        else:
            form = f"{array.shape[1] if array.ndim > 1 else 1}{'J' if array.dtype.kind == 'i' else 'D'}"
        fields.append(fits.Column(name, form, array=array))
    return fits.BinTableHDU.from_columns(fields)


def stis_file(
    path: Path, exposures: Mapping[str, Any], *, x: Any = 1000, y: Any = 1000, primary: Mapping[str, Any] | None = None
) -> Path:
    """Write a STIS tag file of chosen events: an EVENTS and a GTI extension for each exposure."""
    first = fits.PrimaryHDU()
    first.header.update(
        {
            "TELESCOP": "HST",
            "INSTRUME": "STIS",
            "ROOTNAME": path.name.split("_")[0],
            "ASN_ID": path.name.split("_")[0].upper(),
            "TARGNAME": "SOME-STAR",
            "OBSTYPE": "SPECTROSCOPIC",
            "OBSMODE": "TIME-TAG",
            "DETECTOR": "FUV-MAMA",
            "OPT_ELEM": "E140M",
            "CENWAVE": 1425,
            "APERTURE": "0.2X0.2",
            "CAL_VER": "                ",
            "PROPOSID": 13902,
            "RA_TARG": 10.0,
            "DEC_TARG": -20.0,
            "TEXPSTRT": 57934.2,
            **(primary or {}),
        }
    )
    hdus: list[Any] = [first]
    for name, times in exposures.items():
        seconds = np.asarray(times, float)
        n = len(seconds)
        # Times are whole numbers of 125 microseconds.
        time = fits.Column("TIME", "1J", unit="s", array=np.rint(seconds / 0.000125).astype(np.int32))
        places = [
            fits.Column(column, "1I", unit="pixel", array=np.broadcast_to(value, n).astype(np.int16))
            for column, value in (("AXIS1", x), ("AXIS2", y), ("DETAXIS1", x))
        ]
        events = fits.BinTableHDU.from_columns([time, *places], name="EVENTS")
        events.header["TSCAL1"], events.header["TZERO1"] = 0.000125, 0.0
        end = float(seconds.max()) if n else 0.0
        events.header.update(
            {"EXPNAME": name, "EXPSTART": 57934.2, "EXPTIME": end, "EXPFLAG": "NORMAL       ", "SDQFLAGS": 31743}
        )
        hdus += [events, gti_hdu([(0.0, end)])]
    fits.HDUList(hdus).writeto(path)
    return path
