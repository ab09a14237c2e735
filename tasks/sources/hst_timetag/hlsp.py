"""Write light curves as FITS under the names and keywords of the Lightcurve Legacy of COS and STIS (HST 13902)."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.errors import ConfigurationError
from lake.output import whole_file
from lake.text import file_name, one_line

Row = Mapping[str, Any]

PROPOSAL, NAME, ACRONYM = 13902, "The Lightcurve Legacy of COS and STIS", "LLOCS"

_FLUX = "erg s-1 cm-2 Angstrom-1"
# Columns in order: their names in the file and in table hst_bins, FITS formats and units.
COLUMNS: tuple[tuple[str, str, str, str | None], ...] = (
    ("dataset", "dataset", "J", None),
    ("times", "times_s", "D", "s"),
    ("mjd", "mjd", "D", "d"),
    ("bins", "bin_s", "D", "s"),
    ("gross", "gross", "D", "count"),
    ("background", "background", "D", "count"),
    ("counts", "counts", "D", "count"),
    ("net", "net", "D", "count s-1"),
    ("flux", "flux", "D", _FLUX),
    ("error", "error", "D", "count"),
    ("flux_error", "flux_err", "D", _FLUX),
    ("signal_to_noise", "signal_to_noise", "D", None),
)

# What names of SIMBAD have between their words, such as ``V* AE Aqr`` and ``[HB89] 1821+643``.
_BETWEEN = re.compile(r"[\s*\[\]]+")
_UNSAFE = re.compile(r"[^a-z0-9.+-]+")
_LONGEST_KEYWORD = 8


@dataclass(frozen=True)
class Product:
    """A light curve to write.

    Parameters
    ----------
    bins
        Its rows of table hst_bins.
    exposures
        Rows of table hst_exposures: of the exposure, or of the composite or its members.
    target
        Canonical name of its target; None: the name in the first exposure.
    wavelengths
        Common limits of a composite, Angstrom; None: those of its row.
    granule
        Granule of the light curve in the lake, which keyword GRANULE names; None: no keyword.
    keywords
        Further keywords of the primary header. Names of more than 8 characters are written by the HIERARCH convention.
    """

    bins: pa.Table
    exposures: Sequence[Row]
    target: str | None = None
    wavelengths: tuple[float, float] | None = None
    granule: str | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)


def exposure_file_name(exposure_id: str) -> str:
    """Return the name of the file of an exposure.

    Examples
    --------
    >>> exposure_file_name("ldfd01vnq")
    'ldfd01vnq_curve.fits'
    """
    return f"{file_name(_safe(exposure_id))}_curve.fits"


def composite_file_name(
    instrument: str, detector: str, target: str, grating: str, cenwave: int | str, aperture: str
) -> str:
    """Return the name of the file of a composite.

    Underscores separate the fields, so a field has none. Capital letters become small; blanks and SIMBAD's stars and
    brackets become hyphens. A field with other unsafe characters gets a hash at its end, so that names stay unique.

    Examples
    --------
    >>> composite_file_name("COS", "FUV", "V* AE Aqr", "G140L", 1105, "PSA")
    'hlsp_hstlc_hst_cos-fuv_v-ae-aqr_g140l_1105_psa_v1_sci.fits'
    """
    fields = [f"{_safe(instrument)}-{_safe(detector)}", _safe(target), _safe(grating), str(cenwave), _safe(aperture)]
    return f"{file_name('_'.join(['hlsp_hstlc_hst', *fields]))}_v1_sci.fits"


def _safe(text: str) -> str:
    """Return a text as a part of a file's name: small letters, digits, dots, signs."""
    plain = _BETWEEN.sub("-", text.lower()).strip("-")
    safe = _UNSAFE.sub("-", plain).strip("-.")
    if safe == plain and safe:
        return safe
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return f"{safe}-{digest}".lstrip("-")


def write_exposure(folder: Path, product: Product, *, overwrite: bool = False) -> Path:
    """Write the light curve of an exposure as ``ROOTNAME_curve.fits``.

    Raises
    ------
    ConfigurationError
        If the file is there and is not to be overwritten, or cannot be written.
    """
    exposure = product.exposures[0]
    limits = {
        **_wavelengths((exposure.get("wavelength_min"), exposure.get("wavelength_max"))),
        "XMIN": (exposure.get("x_min"), "[pixel] first column"),
        "XMAX": (exposure.get("x_max"), "[pixel] last column"),
        **_rows(exposure),
    }
    about = {
        "FILETYPE": ("LIGHTCURVE", "kind of product"),
        "ROOTNAME": (exposure["source_id"], "exposure"),
        "ASN_ID": (exposure.get("association"), "association"),
        "TARGNAME": (exposure.get("target_name"), "name of the target in the proposal"),
        **_configuration(product.exposures),
        "FPPOS": (exposure.get("fp_pos"), "position of the grating"),
        "PROPOSID": (exposure.get("proposal"), "proposal of the observation"),
        "CAL_VER": (exposure.get("calibration_version"), "version of the calibration pipeline"),
        **_place(exposure),
    }
    path = folder / exposure_file_name(str(exposure["source_id"]))
    return _write(path, product, about, limits, overwrite)


def write_composite(folder: Path, product: Product, *, overwrite: bool = False) -> Path:
    """Write a composite under its name as a High-Level Science Product.

    Raises
    ------
    ConfigurationError
        If the file is there and is not to be overwritten, or cannot be written.
    """
    first = product.exposures[0]
    target = product.target or first.get("canonical_name") or first["target_name"]
    about = {
        "PROPOSID": (PROPOSAL, "HST programme of the product"),
        "HLSPLEAD": (None, "lead of the product"),
        **dict.fromkeys(("PR_INV_L", "PR_INV_F", "PR_INV_M"), (None, "investigator")),
        "HLSPNAME": (NAME, ""),
        "HLSPACRN": (ACRONYM, "acronym of the product"),
        "CITATION": ("", "paper of the product"),
        **_place(first),
        "TARGNAME": (target, "target"),
        "TARDESCR": (first.get("target_description"), "target description"),
        "TARDESC2": (None, "target description, continued"),
        **_configuration(product.exposures),
    }
    instrument, detector, grating, aperture = (
        str(first[name] or "") for name in ("instrument", "detector", "grating", "aperture")
    )
    path = folder / composite_file_name(instrument, detector, target, grating, first["cenwave"] or 0, aperture)
    limits = {**_wavelengths(product.wavelengths or _own_limits(first)), **_members(product.bins)}
    return _write(path, product, about, limits, overwrite)


def granule_of(path: Path) -> str | None:
    """Return the granule that a file was made of; None if it does not say, or cannot be read."""
    from astropy.io import fits

    try:
        granule = fits.getheader(path, 0).get("GRANULE")
    except (OSError, ValueError, KeyError):
        return None
    return None if granule is None else str(granule)


def _write(path: Path, product: Product, about: Mapping[str, Any], limits: Mapping[str, Any], overwrite: bool) -> Path:
    from astropy.io import fits

    if path.exists() and not overwrite:
        raise ConfigurationError(f"{path} exists", hint="allow it to be overwritten, or name another folder")
    bins = product.bins.sort_by([("dataset", "ascending"), ("mjd", "ascending")])
    primary, table = fits.PrimaryHDU(), _curve(bins)
    times = _times(bins)
    steps = sorted(set(bins["bin_s"].to_pylist()))
    step = {"STEPSIZE": (steps[0] if len(steps) == 1 else None, "[s] length of a bin")}
    _set(primary.header, {"EXTNAME": ("PRIMARY", ""), **about, **times, **step, **_sources(product.exposures)})
    _set(primary.header, _versions())
    if product.granule is not None:
        _set(primary.header, {"GRANULE": (product.granule, "granule in the lake")})
    _set(primary.header, {name: (value, "") for name, value in product.keywords.items()})
    _set(table.header, {**times, **step, **limits})
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        fits.HDUList([primary, table]).writeto(file, checksum=True, output_verify="exception")
    return path


def _curve(bins: pa.Table) -> Any:
    from astropy.io import fits

    columns = [fits.Column(name, form, unit=unit, array=_values(bins[column])) for name, column, form, unit in COLUMNS]
    return fits.BinTableHDU.from_columns(columns, name="LIGHTCURVE")


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column's values; NULL is NaN, which FITS knows as undefined."""
    if pa.types.is_integer(column.type):
        return np.asarray(column.to_numpy())
    return np.asarray(pc.fill_null(column.cast(pa.float64()), math.nan).to_numpy())


def _members(bins: pa.Table) -> dict[str, Any]:
    """Return which exposure each dataset is, and whether one of its bins is empty: ROOT0001, EMPT0001 and so on.

    A table of them would be in the way: astropy's Table.read warns where a file has more than one.
    """
    found = bins.group_by(["dataset", "exposure_id"]).aggregate([("gross", "min")]).sort_by("dataset").to_pylist()
    named = {f"ROOT{row['dataset']:04d}": (row["exposure_id"], "exposure of the dataset") for row in found}
    empty = {f"EMPT{row['dataset']:04d}": (row["gross_min"] == 0, "a bin has no event") for row in found}
    return {**named, **empty}


def _own_limits(row: Row) -> tuple[float | None, float | None]:
    """Return the limits of a composite's row; an exposure's are not those of the composite."""
    if row.get("product") != "composite":
        return None, None
    return row.get("wavelength_min"), row.get("wavelength_max")


def _wavelengths(limits: tuple[float | None, float | None]) -> dict[str, Any]:
    low, high = limits
    return {"WMIN": (low, "[Angstrom] shortest wavelength"), "WMAX": (high, "[Angstrom] longest wavelength")}


def _rows(exposure: Row) -> dict[str, Any]:
    """Return the rows of the detector that were used: of each segment or stripe of COS, or of the whole detector."""
    whole = exposure.get("instrument") == "STIS" or exposure.get("obstype") == "IMAGING"
    found = {}
    for letter in "a" if whole else "abc":
        low, high = exposure.get(f"y_min_{letter}"), exposure.get(f"y_max_{letter}")
        if low is not None and high is not None:
            end = "" if whole else f"_{letter.upper()}"
            found[f"YMIN{end}"], found[f"YMAX{end}"] = (low, "[pixel] first row"), (high, "[pixel] last row")
    return found


def _configuration(exposures: Sequence[Row]) -> dict[str, Any]:
    return {
        "TELESCOP": ("HST", "telescope"),
        **_one_or_multi("INSTRUME", "instrument", [row.get("instrument") for row in exposures]),
        **_one_or_multi("DETECTOR", "detector", [row.get("detector") for row in exposures]),
        **_one_or_multi("FILTER", "grating, mirror or filter", [row.get("grating") for row in exposures]),
        **_one_or_multi("CENWAVE", "[Angstrom] central wavelength", [row.get("cenwave") for row in exposures]),
        **_one_or_multi("APERTURE", "aperture", [row.get("aperture") for row in exposures]),
    }


def _one_or_multi(keyword: str, comment: str, values: Iterable[Any]) -> dict[str, Any]:
    """Return a keyword. Where exposures differ, it is MULTI, and numbered keywords have the values."""
    different = list(dict.fromkeys(value for value in values if value is not None))
    if len(different) < 2:
        return {keyword: (different[0] if different else None, comment)}
    numbered = {
        f"{keyword[: _LONGEST_KEYWORD - 2]}{number:02d}": (value, comment)
        for number, value in enumerate(different[:99], 1)
    }
    return {keyword: ("MULTI", comment), **numbered}


def _place(exposure: Row) -> dict[str, Any]:
    return {
        "RA_TARG": (exposure.get("ra"), "[deg] right ascension of the target"),
        "DEC_TARG": (exposure.get("dec"), "[deg] declination of the target"),
        "EQUINOX": (2000.0, "equinox of the position"),
    }


def _times(bins: pa.Table) -> dict[str, Any]:
    from astropy.time import Time

    first, last = (pc.min_max(bins["mjd"]).as_py()[end] for end in ("min", "max"))
    day = None if first is None else Time(first, format="mjd", scale="utc").isot
    return {
        "DATE-OBS": (day, "start of the first bin, UTC"),
        "TIMESYS": ("UTC", "time scale"),
        "EXPSTART": (first, "[d] MJD of the start of the first bin, UTC"),
        "EXPEND": (last, "[d] MJD of the start of the last bin, UTC"),
        "EXPTIME": (float(pc.sum(bins["bin_s"]).as_py() or 0.0), "[s] sum of bins"),
    }


def _sources(exposures: Sequence[Row]) -> dict[str, Any]:
    """Return the names of the files of exposures: keywords SRC00001, SRC00002 and so on."""
    names = [name for row in exposures for name in json.loads(row.get("files") or "{}")]
    return {f"SRC{number:05d}": (name, "") for number, name in enumerate(names[:99_999], 1)}


def _versions() -> dict[str, Any]:
    return {
        "GEN_DATE": (datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"), "when this file was made, UTC"),
        **{
            key: (version(package), f"version of {package}")
            for key, package in (
                ("LC_VER", "lightlake"),
                ("AP_VER", "astropy"),
                ("NP_VER", "numpy"),
                ("SP_VER", "scipy"),
            )
        },
    }


def _set(header: Any, keywords: Mapping[str, tuple[Any, str]]) -> None:
    """Set keywords. Unknown ones have no value; names of more than 8 characters become HIERARCH cards."""
    for name, (given, comment) in keywords.items():
        key = re.sub(r"[^A-Z0-9_-]", "_", name.upper())
        value = given
        if isinstance(given, str):
            value = _text(given)
            if len(value) + len(comment) > 50:
                comment = ""  # long texts leave no room for it
        elif isinstance(given, float) and not math.isfinite(given):
            value = None
        header[key if len(key) <= _LONGEST_KEYWORD else f"HIERARCH {key}"] = (value, comment)


def _text(text: str) -> str:
    """Return a text in the characters that FITS headers may have."""
    return one_line(text).encode("ascii", "backslashreplace").decode()
