"""Light curves of TESS, Kepler and K2 that never were, in files as MAST has them: seeded, columns, units and keywords.

The layouts of SPOC, TESS-SPOC, Kepler and K2 are those of real files, to the keyword. QLP, K2SFF and EVEREST are as
lightkurve's readers and the pipelines' own writers have them; no real file of theirs was at hand.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from astropy.io import fits

_DAY_S = 86400.0
# Mission, keyword of the sequence, BJD of time 0, its first time in the real files, TIMEDEL in seconds.
_KINDS: dict[str, tuple[str, str, int, float, float]] = {
    "spoc": ("TESS", "SECTOR", 2457000, 1325.2953, 120.0),
    "tess_spoc": ("TESS", "SECTOR", 2457000, 2307.2421, 600.0),
    "qlp": ("TESS", "SECTOR", 2457000, 1325.3244, 1800.0),
    "kepler": ("Kepler", "QUARTER", 2454833, 131.5130, 0.02043359821692 * _DAY_S),
    "k2": ("K2", "CAMPAIGN", 2454833, 2306.6106, 0.02043359821692 * _DAY_S),
    "k2sff": ("K2", "CAMPAIGN", 2454833, 2306.6106, 0.02043359821692 * _DAY_S),
    "everest": ("K2", "CAMPAIGN", 2454833, 2306.6106, 0.02043359821692 * _DAY_S),
}
KINDS = tuple(_KINDS)
OWN = ("spoc", "tess_spoc", "kepler", "k2")

Columns = dict[str, tuple[str, str | None, Any]]


def name_of(kind: str, target: int = 25155310, sequence: int = 1) -> str:
    """Return the name that MAST gives to a file."""
    return {
        "spoc": f"tess2018206045859-s{sequence:04d}-{target:016d}-0120-s_lc.fits",
        "tess_spoc": f"hlsp_tess-spoc_tess_phot_{target:016d}-s{sequence:04d}_tess_v1_lc.fits",
        "qlp": f"hlsp_qlp_tess_ffi_s{sequence:04d}-{target:016d}_tess_v01_llc.fits",
        "kepler": f"kplr{target:09d}-2009166043257_llc.fits",
        "k2": f"ktwo{target:09d}-c{sequence:02d}_llc.fits",
        "k2sff": f"hlsp_k2sff_k2_lightcurve_{target:09d}-c{sequence:02d}_kepler_v1_llc.fits",
        "everest": f"hlsp_everest_k2_llc_{target:09d}-c{sequence:02d}_kepler_v2.0_lc.fits",
    }[kind]


def product(
    kind: str = "spoc",
    *,
    seed: int = 1,
    n: int = 50,
    target: int = 25155310,
    sequence: int = 1,
    columns: Columns | None = None,
    drop: tuple[str, ...] = (),
    units: dict[str, str | None] | None = None,
    primary: dict[str, Any] | None = None,
    extname: str | None = None,
    checksum: bool = True,
    place: tuple[float, float] | None = None,
    first: float | None = None,
    cadence_s: float | None = None,
    **header: Any,
) -> bytes:
    """Make a file of a pipeline; a keyword of None is left out, as is a column in `drop`.

    Its position (right ascension, declination, deg), first time (days of the mission) and cadence are those of the
    target, the kind's real files and the kind, unless others are given.
    """
    mission, sequence_key, zero, usual_first, usual_cadence_s = _KINDS[kind]
    first, cadence_s = first or usual_first, cadence_s or usual_cadence_s
    made = _columns(kind, np.random.default_rng(seed), n, first, cadence_s, zero) | (columns or {})
    for name, unit in (units or {}).items():
        made[name] = (made[name][0], unit, made[name][2])
    catalogue, id_key = {"TESS": ("TIC", "TICID"), "Kepler": ("KIC", "KEPLERID"), "K2": ("EPIC", "KEPLERID")}[mission]
    telescop = "TESS" if mission == "TESS" else "Kepler"
    rng = np.random.default_rng(target)
    ra, dec = place or (round(rng.uniform(0, 360), 6), round(rng.uniform(-90, 90), 6))
    head: dict[str, Any] = {
        "ORIGIN": "MIT/QLP" if kind == "qlp" else "NASA/Ames",
        "TELESCOP": telescop,
        id_key: target,
        "CREATOR": "1 LightCurveExporterPipelineModule" if mission == "TESS" else "1 FluxExporter2PipelineModule",
        "OBJECT": f"{catalogue} {target}",
        sequence_key: sequence,
        "RADESYS": "ICRS",
        "EQUINOX": 2000.0,
        "RA_OBJ": ra,
        "DEC_OBJ": dec,
        "DATA_REL": 1,
    }
    head |= {"CAMERA": 4, "CCD": 1} if mission == "TESS" else {"MISSION": mission, "CHANNEL": 11}
    keys: dict[str, Any] = {
        "TELESCOP": telescop,
        id_key: target,
        "TIMEREF": "SOLARSYSTEM",
        "TIMESYS": "TDB",
        "TIMEUNIT": "d",
        "BJDREFI": zero,
        "BJDREFF": 0.0,
        "TIMEDEL": cadence_s / _DAY_S,
        "TIMEPIXR": 0.5,
        "TASSIGN": "SPACECRAFT",
        "TSTART": first - cadence_s / 2 / _DAY_S,
        "TSTOP": first + (n - 0.5) * cadence_s / _DAY_S,
        "EXPOSURE": 0.8 * n * cadence_s / _DAY_S,
        # As in TESS's files, the table's position is moved to the epoch of observation, in right ascension alone.
        "RA_OBJ": head["RA_OBJ"] + 0.0009,
        "DEC_OBJ": head["DEC_OBJ"],
    }
    if kind in OWN:
        keys |= {"CROWDSAP": 0.97, "FLFRCSAP": 0.85, "NUM_FRM": 60, "INT_TIME": 1.98, "DEADC": 0.792}
    if kind == "k2sff":  # what its tables do not say
        keys = {}
    names = {"k2sff": "BESTAPER", "everest": "LC ARRAYS"}
    arrays = [fits.Column(k, form, unit, array=v) for k, (form, unit, v) in made.items() if k not in drop]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = fits.BinTableHDU.from_columns(arrays, name=extname or names.get(kind, "LIGHTCURVE"))
        hdus = fits.HDUList([fits.PrimaryHDU(), table])
        if kind == "everest":
            hdus[0].header["COMMENT"] = "*     EVEREST INFO     *"
        for hdu, values in ((hdus[0], head | (primary or {})), (table, keys | header)):
            for key, value in values.items():
                if value is not None:
                    hdu.header[key] = value
        if kind in OWN:
            mask = np.full((4, 5), 65, np.int32)
            mask[1:3, 2:4] = 75
            hdus.append(fits.ImageHDU(mask, name="APERTURE"))
            hdus[2].header["NPIXSAP"] = 4
            hdus[2].header["CRVAL1P"], hdus[2].header["CRVAL2P"] = 934, 1091
        out = io.BytesIO()
        hdus.writeto(out, checksum=checksum and kind in OWN)
    return out.getvalue()


def _columns(kind: str, rng: np.random.Generator, n: int, first: float, cadence_s: float, zero: int) -> Columns:
    """Columns of a table, in order; some cadences have no time and no flux, some a flag, some a time and no flux."""
    time = first + np.arange(n) * cadence_s / _DAY_S
    missing = rng.random(n) < 0.05
    time[missing] = np.nan
    missing |= rng.random(n) < 0.05
    level = 10 ** rng.uniform(2, 5)
    flux = np.where(missing, np.nan, rng.normal(level, level**0.5, n)).astype(np.float32)
    error = np.where(missing, np.nan, level**0.5).astype(np.float32)
    quality = np.where(rng.random(n) < 0.1, 1 << rng.integers(0, 15, n), 0).astype(np.int32)
    quality[np.isnan(time)] |= 16384 if kind == "spoc" else 65536
    numbers = np.arange(70000, 70000 + n, dtype=np.int32)
    unit = f"BJD - {zero}, days" if zero == 2457000 else f"BJD - {zero}"
    small = rng.normal(0, 0.01, (4, n)).astype(np.float32)
    if kind == "k2sff":
        moving = (rng.random(n) < 0.02).astype(np.int32)
        return {
            "T": ("D", unit, time),
            "FRAW": ("D", None, flux / level),
            "FCOR": ("D", None, flux / level),
            "ARCLENGTH": ("D", "arcsec", small[0].astype(float)),
            "MOVING": ("J", None, moving),
            "CADENCENO": ("J", None, numbers),
        }
    if kind == "everest":
        wide = flux.astype(float)
        return {
            "CADN": ("D", None, numbers.astype(float)),
            "FLUX": ("D", "e-/s", wide),
            "FRAW": ("D", "e-/s", wide * 1.01),
            "FRAW_ERR": ("D", "e-/s", error.astype(float)),
            "QUALITY": ("J", None, quality),
            "TIME": ("D", unit, time),
            "FCOR": ("D", "e-/s", wide * 0.99),
            "CBV01": ("D", None, small[0].astype(float)),
        }
    if kind == "qlp":
        relative = (flux / level).astype(np.float32)
        return {
            "TIME": ("D", unit, time),
            "CADENCENO": ("J", None, numbers),
            "SAP_FLUX": ("E", None, relative),
            "KSPSAP_FLUX": ("E", None, relative * np.float32(0.99)),
            "KSPSAP_FLUX_ERR": ("E", None, (error / level).astype(np.float32)),
            "QUALITY": ("J", None, quality),
            "ORBITID": ("J", None, np.full(n, 9, np.int32)),
            "SAP_X": ("E", "pixel", small[0] + 945),
            "SAP_Y": ("E", "pixel", small[1] + 1104),
            "SAP_BKG": ("E", None, small[2] * 100),
            "SAP_BKG_ERR": ("E", None, small[3] ** 2),
            "KSPSAP_FLUX_SML": ("E", None, relative),
            "KSPSAP_FLUX_LAG": ("E", None, relative),
        }
    columns: Columns = {
        "TIME": ("D", unit, time),
        "TIMECORR": ("E", "d", small[0]),
        "CADENCENO": ("J", None, numbers),
        "SAP_FLUX": ("E", "e-/s", flux),
        "SAP_FLUX_ERR": ("E", "e-/s", error),
        "SAP_BKG": ("E", "e-/s", (level / 10 + small[1]).astype(np.float32)),
        "SAP_BKG_ERR": ("E", "e-/s", small[2] ** 2),
        "PDCSAP_FLUX": ("E", "e-/s", flux * np.float32(1.2)),
        "PDCSAP_FLUX_ERR": ("E", "e-/s", error * np.float32(1.2)),
        "QUALITY" if kind in ("spoc", "tess_spoc") else "SAP_QUALITY": ("J", None, quality),
    }
    nothing = np.full(n, np.nan)
    for fit, at in (("PSF", nothing), ("MOM", small[0] + 945.0)):
        for axis in (1, 2):
            columns[f"{fit}_CENTR{axis}"] = ("D", "pixel", at.astype(float) + 160 * (axis - 1))
            columns[f"{fit}_CENTR{axis}_ERR"] = ("E", "pixel", at.astype(np.float32) * 0)
    return columns | {f"POS_CORR{axis}": ("E", "pixels", small[axis]) for axis in (1, 2)}
