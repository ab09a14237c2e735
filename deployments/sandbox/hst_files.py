"""Files of COS and STIS as calcos and calstis leave them: corrtag, tag, x1d.

Keywords: COS Data Handbook, sections 2.4 and 3; STIS Data Handbook, section 2.3; headers of real files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from astropy.io import fits

from deployments.sandbox.hst_events import (
    BOXES,
    COS_COLUMNS,
    GTI_COLUMNS,
    ORDER_HEIGHT,
    STIS_COLUMNS,
    STIS_PIXELS,
    TICK_S,
    TIMELINE_COLUMNS,
    Array,
    Column,
    Exposure,
    cos_events,
    dtype_of,
    order_row,
    stis_events,
    timeline,
    wavelength_at,
)

BAD_PROPOSAL = 13_635
"""Proposal of exposures that are broken so."""

_BLOCK = 2880
_SERIOUS_COS, _SERIOUS_STIS = 8346, 31_743
_BOX_KEYS = (("SP_LOC", "SP_HGT"), ("B_BKG1", "B_HGT1"), ("B_BKG2", "B_HGT2"))


def write_corrtag(path: Path, exposure: Exposure, segment: str = "") -> Path:
    """Write a COS corrtag file, of a segment ("A", "B") in the FUV; it has EVENTS, GTI and TIMELINE."""
    broken = exposure.broken_of(segment)
    boxes = BOXES[exposure.of.detector] if not exposure.of.is_image else {}
    header: dict[str, Any] = {"SDQFLAGS": _SERIOUS_COS, **_times(exposure, broken)}
    for name in "ABC":
        has_box = name in boxes and segment in ("", name)
        for keys, box in zip(_BOX_KEYS, boxes[name] if has_box else ((-999.0, -999.0),) * 3, strict=True):
            header |= {f"{key}_{name}": value for key, value in zip(keys, box, strict=True)}
    first = _primary(exposure) | {"SEGMENT": f"FUV{segment}" if segment else "N/A", "FILENAME": path.name}
    with path.open("wb") as out:
        _write_primary(out, first)
        _write_table(out, _events_name(broken), COS_COLUMNS, cos_events(exposure, segment), header)
        _write_table(out, "GTI", GTI_COLUMNS, [np.array(exposure.good_times, dtype_of(GTI_COLUMNS))])
        _write_table(out, "TIMELINE", TIMELINE_COLUMNS, [timeline(exposure)])
    return _cut(path, broken)


def write_tag(path: Path, exposures: Sequence[Exposure]) -> Path:
    """Write a STIS tag file, named by association: EVENTS and GTI of each of its exposures."""
    name = path.name.split("_")[0]
    first = _primary(exposures[0]) | {"FILENAME": path.name, "ROOTNAME": name, "CAL_VER": " " * 16}
    first |= {"TEXPSTRT": exposures[0].start_mjd, "TEXPEND": _end_mjd(exposures[-1])}
    first |= {"TEXPTIME": sum(one.exposure_s for one in exposures)}
    with path.open("wb") as out:
        _write_primary(out, first)
        for number, one in enumerate(exposures, 1):
            header = {"TSCAL1": TICK_S, "TZERO1": 0.0, "EXPNAME": one.rootname, "ROOTNAME": name, "EXTVER": number}
            header |= {"SDQFLAGS": _SERIOUS_STIS, "SPORDER": 0 if one.of.is_image else 1, "SHIFTA1": 0.0}
            header |= {"SHIFTA2": 0.0, "SUN_ALT": 22.5, **_times(one, one.broken)}
            _write_table(out, _events_name(one.broken), STIS_COLUMNS, stis_events(one), header)
            _write_table(out, "GTI", GTI_COLUMNS, [np.array(one.good_times, dtype_of(GTI_COLUMNS))], {"EXTVER": number})
    return _cut(path, next((one.broken for one in exposures if one.broken == "cut"), None))


def write_x1d(path: Path, exposure: Exposure) -> Path:
    """Write the extracted spectrum: a row for each segment, stripe or order, with its wavelengths and counts."""
    of, is_cos = exposure.of, exposure.of.instrument == "COS"
    n = {"FUV": 16_384, "NUV": 1024}.get(of.detector, STIS_PIXELS // 2)
    if of.detector == "FUV":
        chosen = [(f"FUV{one}", of.spectra["AB".index(one)]) for one in exposure.segments]
    else:
        chosen = [(f"NUV{'ABC'[min(number, 2)]}", spectrum) for number, spectrum in enumerate(of.spectra)]
    columns: list[Column] = [("SEGMENT", "4A", "S4", "") if is_cos else ("SPORDER", "1I", ">i2", "")]
    columns += [("NELEM", "1J", ">i4", ""), ("WAVELENGTH", f"{n}D", (">f8", (n,)), "angstrom")]
    columns += [
        (name, f"{n}E", (">f4", (n,)), unit)
        for name, unit in (("FLUX", "erg /s /cm**2 /angstrom"), ("NET", "count /s"), ("GCOUNTS", "count"))
    ]
    columns += [("DQ", f"{n}I", (">i2", (n,)), "")]
    columns += [] if is_cos else [("A2CENTER", "1E", ">f4", "pixel"), ("EXTRSIZE", "1E", ">f4", "pixel")]
    rows = np.zeros(len(chosen), dtype_of(columns))
    x = np.arange(n) if is_cos else 2 * np.arange(n)
    for number, (name, spectrum) in enumerate(chosen):
        row, each_s = rows[number], exposure.rate / len(chosen) / of.columns
        row["NELEM"], row["WAVELENGTH"] = n, wavelength_at(of, spectrum, x)
        row["NET"], row["GCOUNTS"], row["FLUX"] = each_s, each_s * exposure.exposure_s, 1e-14
        if is_cos:
            row["SEGMENT"] = name
        else:
            row["SPORDER"], row["A2CENTER"], row["EXTRSIZE"] = 1 + number, order_row(number), ORDER_HEIGHT
    header = {"SDQFLAGS": _SERIOUS_COS if is_cos else _SERIOUS_STIS, "SHIFTA2": 0.0, **_times(exposure, None)}
    with path.open("wb") as out:
        _write_primary(
            out, _primary(exposure) | {"FILENAME": path.name, **({"SEGMENT": chosen[0][0]} if is_cos else {})}
        )
        _write_table(out, "SCI", columns, [rows], header)
    return path


# --- FITS ---


def _primary(exposure: Exposure) -> dict[str, Any]:
    of, is_cos = exposure.of, exposure.of.instrument == "COS"
    references = (
        {"FLUXTAB": "lref$23n1744el_phot.fits", "TDSTAB": "lref$23n1744nl_tds.fits"}
        if is_cos
        else {
            "PHOTTAB": "oref$y2r1559to_pht.fits",
            "TDSTAB": "oref$17n1515lo_tds.fits",
            "BPIXTAB": "oref$1b81946fo_bpx.fits",
            "PFLTFILE": "oref$mbj1658bo_pfl.fits",
            "LFLTFILE": "oref$k2910262o_lfl.fits",
        }
    )
    return {
        "TELESCOP": "HST",
        "INSTRUME": f"{of.instrument:<6}",
        "ROOTNAME": exposure.rootname,
        "IMAGETYP": "TIME-TAG",
        "TARGNAME": exposure.target,
        "RA_TARG": exposure.ra,
        "DEC_TARG": exposure.dec,
        "PROPOSID": BAD_PROPOSAL if exposure.broken == "proposal" else exposure.proposal,
        "CAL_VER": exposure.calibration,
        "OBSTYPE": "IMAGING" if of.is_image else "SPECTROSCOPIC",
        "OBSMODE": "TIME-TAG",
        "EXPTYPE": exposure.exptype,
        "DETECTOR": of.detector,
        "OPT_ELEM": of.grating,
        "CENWAVE": of.cenwave,
        "APERTURE": of.aperture,
        "PROPAPER": of.aperture,
        **({"FPPOS": exposure.fp_pos} if is_cos else {}),
        "MTFLAG": "T" if exposure.is_moving else "",
        "ASN_ID": (exposure.association or "NONE").upper(),
        **references,
        **exposure.primary,
    }


def _end_mjd(exposure: Exposure) -> float:
    return exposure.start_mjd + exposure.good_times[-1][1] / 86_400


def _times(exposure: Exposure, broken: str | None) -> dict[str, Any]:
    return {
        "EXPSTART": exposure.start_mjd,
        "EXPEND": _end_mjd(exposure),
        "EXPTIME": exposure.exposure_s,
        "EXPFLAG": f"{'INTERRUPTED' if broken == 'expflag' else 'NORMAL':<13}",
    }


def _events_name(broken: str | None) -> str:
    return "PROFILE" if broken == "no_table" else "EVENTS"


def _write_primary(out: IO[bytes], cards: Mapping[str, Any]) -> None:
    hdu = fits.PrimaryHDU()
    hdu.header["EXTEND"] = True
    hdu.header.update(cards)
    out.write(hdu.header.tostring().encode("ascii"))


def _write_table(
    out: IO[bytes],
    name: str,
    columns: Sequence[Column],
    chunks: Iterable[Array],
    cards: Mapping[str, Any] | None = None,
) -> None:
    """Write a table extension whose number of rows is known at its end."""
    header = fits.Header()
    header["XTENSION"], header["BITPIX"], header["NAXIS"] = "BINTABLE", 8, 2
    header["NAXIS1"], header["NAXIS2"] = dtype_of(columns).itemsize, 0
    header["PCOUNT"], header["GCOUNT"], header["TFIELDS"], header["EXTNAME"] = 0, 1, len(columns), name
    for number, (column, form, _, unit) in enumerate(columns, 1):
        header[f"TTYPE{number}"], header[f"TFORM{number}"] = column, form
        if unit:
            header[f"TUNIT{number}"] = unit
    header.update(cards or {})
    start, rows = out.tell(), 0
    out.write(header.tostring().encode("ascii"))
    for chunk in chunks:
        out.write(chunk.tobytes())
        rows += len(chunk)
    out.write(b"\0" * (-out.tell() % _BLOCK))
    end = out.tell()
    header["NAXIS2"] = rows
    out.seek(start)
    out.write(header.tostring().encode("ascii"))
    out.seek(end)


def _cut(path: Path, broken: str | None) -> Path:
    if broken == "cut":
        os.truncate(path, int(0.6 * path.stat().st_size))
    return path
