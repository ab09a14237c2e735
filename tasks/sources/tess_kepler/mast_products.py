"""Light curves of TESS, Kepler and K2 at MAST: their pipelines, names and layout of files, and bands.

Sources:

- TESS Science Data Products Description Document, EXP-TESS-ARC-ICD-0014 (SPOC and TESS-SPOC);
- Kepler Archive Manual, KDMC-10008-006, section 2.3 (Kepler and K2);
- data product descriptions of the HLSPs QLP, K2SFF and EVEREST at archive.stsci.edu/hlsp;
- lightkurve 2.6.0, `lightkurve.utils` for the masks and `lightkurve.io` for who is who.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lake.science.times import BKJD_OFFSET, BTJD_OFFSET
from tasks.sources.base import Band

Floats = NDArray[np.float64]

# VOUnit of the files' "e-/s"; light curves that are divided by their median have no dimension: VOUnits 1.1, section 2.
ELECTRONS = "electron.s**-1"
RELATIVE = ""

# lightkurve 2.6.0, KeplerQualityFlags.DEFAULT_BITMASK, of Table 2.3 of the Kepler Archive Manual: attitude tweak 1,
# safe mode 2, coarse point 4, Earth point 8, desaturation 32, manual exclude 256, detector anomaly 16384, no data
# 65536, thruster firing 1048576; together 1130799.
KEPLER_MASK = 1 | 2 | 4 | 8 | 32 | 256 | 16384 | 65536 | 1048576

# lightkurve 2.6.0, TessQualityFlags.DEFAULT_BITMASK, of flags in the TESS document: attitude tweak 1, safe mode 2,
# coarse point 4, Earth point 8, argabrightening 16, desaturation 32, manual exclude 128, impulsive outlier 512, bad
# calibration 16384; together 17087.
TESS_MASK = 1 | 2 | 4 | 8 | 16 | 32 | 128 | 512 | 16384

# Cadences of 20 s and 120 s are of target pixels, SPOC's own; longer ones, 200 s at least, are of full frame images.
FFI_CADENCE_S = 150.0


@dataclass(frozen=True)
class Mission:
    """A mission: its names in headers, and when it observed.

    Parameters
    ----------
    telescop
        Keyword TELESCOP, in capitals.
    catalogue, id_keyword
        Prefix of a source's id, and the keyword of its number.
    sequence
        What its observations are counted by: the keyword in small letters.
    bjdref
        BJD(TDB) that column TIME counts from, days.
    offset_mjd
        MJD(TDB) of that, days.
    first_mjd, last_mjd
        Launch, and the end of operations.
    mask
        Bits of quality that are never good.
    """

    name: str
    telescop: str
    catalogue: str
    id_keyword: str
    sequence: str
    bjdref: float
    offset_mjd: float
    first_mjd: float
    last_mjd: float
    mask: int


# Launches: TESS 2018-04-18, Kepler 2009-03-07. Kepler left its field in 2013 and K2 began in 2014, so 2014-01-01 parts
# them; it was switched off on 2018-10-30 (NASA's mission pages). TESS still observes: its end is that of the schema.
TESS = Mission("tess", "TESS", "TIC", "TICID", "sector", 2457000, BTJD_OFFSET, 58226, 88069, TESS_MASK)
KEPLER = Mission("kepler", "KEPLER", "KIC", "KEPLERID", "quarter", 2454833, BKJD_OFFSET, 54897, 56658, KEPLER_MASK)
K2 = Mission("k2", "KEPLER", "EPIC", "KEPLERID", "campaign", 2454833, BKJD_OFFSET, 56658, 58421, KEPLER_MASK)


@dataclass(frozen=True)
class Flux:
    """A kind of flux in a file: its column, that of its error if there is one, its band and unit."""

    column: str
    error: str | None
    band: str
    unit: str
    description: str


@dataclass(frozen=True)
class Pipeline:
    """Who made a light curve, and how their files are laid out.

    Parameters
    ----------
    name
        As lightkurve calls the author, in small letters with underscores.
    is_own
        The mission's own format: all columns must be there, times must be said to be barycentric, and HDUs must have
        the checksums that they state.
    extname
        Name of the table; None: the first that has the columns.
    time, quality, cadence, background, x, y
        Columns; None where there is none, or its unit or meaning is not that of the lake's column.
    """

    name: str
    mission: Mission
    is_own: bool
    extname: str | None
    fluxes: tuple[Flux, ...]
    time: str = "TIME"
    quality: str | None = "QUALITY"
    cadence: str = "CADENCENO"
    background: str | None = None
    x: str | None = None
    y: str | None = None


def _own(name: str, mission: Mission, prefix: str, quality: str) -> Pipeline:
    fluxes = (
        Flux("SAP_FLUX", "SAP_FLUX_ERR", f"{prefix}_sap", ELECTRONS, "simple aperture photometry"),
        Flux("PDCSAP_FLUX", "PDCSAP_FLUX_ERR", f"{prefix}_pdcsap", ELECTRONS, "systematics and crowding corrected"),
    )
    return Pipeline(
        name, mission, True, "LIGHTCURVE", fluxes, quality=quality, background="SAP_BKG", x="MOM_CENTR1", y="MOM_CENTR2"
    )


SPOC = _own("spoc", TESS, "tess_spoc", "QUALITY")
TESS_SPOC = _own("tess_spoc", TESS, "tess_tess_spoc", "QUALITY")
KEPLER_SOC = _own("kepler", KEPLER, "kepler", "SAP_QUALITY")
K2_SOC = _own("k2", K2, "k2", "SAP_QUALITY")
# QLP's background has another unit than its fluxes, and so has no place.
QLP = Pipeline(
    "qlp",
    TESS,
    False,
    None,
    (
        Flux("SAP_FLUX", None, "tess_qlp_sap", RELATIVE, "aperture photometry over its median"),
        Flux("KSPSAP_FLUX", "KSPSAP_FLUX_ERR", "tess_qlp_kspsap", RELATIVE, "detrended by splines, sectors 1 to 55"),
        Flux("DET_FLUX", "DET_FLUX_ERR", "tess_qlp_det", RELATIVE, "detrended, from sector 56"),
        Flux("SYS_RM_FLUX", None, "tess_qlp_sys_rm", RELATIVE, "systematics removed, from sector 56"),
    ),
    x="SAP_X",
    y="SAP_Y",
)
K2SFF = Pipeline(
    "k2sff",
    K2,
    False,
    "BESTAPER",
    (
        Flux("FRAW", None, "k2_k2sff_raw", RELATIVE, "aperture photometry over its median, best aperture"),
        Flux("FCOR", None, "k2_k2sff_cor", RELATIVE, "the same, self-flat-fielded"),
    ),
    time="T",
    quality=None,
)
# EVEREST gives the error of the raw flux alone.
EVEREST = Pipeline(
    "everest",
    K2,
    False,
    None,
    (
        Flux("FRAW", "FRAW_ERR", "k2_everest_raw", ELECTRONS, "aperture photometry"),
        Flux("FLUX", None, "k2_everest_flux", ELECTRONS, "detrended by pixel-level decorrelation"),
        Flux("FCOR", None, "k2_everest_cor", ELECTRONS, "the same, with cotrending basis vectors taken off"),
    ),
    cadence="CADN",
)

PIPELINES = {one.name: one for one in (SPOC, TESS_SPOC, QLP, KEPLER_SOC, K2_SOC, K2SFF, EVEREST)}

# Upstream's bands are whole missions: its name goes to what an astronomer takes of each, and to nothing else.
_FORNAX = {"tess_spoc_pdcsap": "TESS", "kepler_pdcsap": "Kepler", "k2_pdcsap": "K2"}
# SVO Filter Profile Service; TESS's wavelength: Ricker et al. 2015, JATIS 1, 014003.
_FILTERS = {"TESS": ("TESS/TESS.Red", 786.5), "KEPLER": ("Kepler/Kepler.K", None)}

BANDS = tuple(
    Band(
        flux.band,
        f"{pipeline.mission.name}, {pipeline.name}: {flux.description}",
        flux.unit,
        wavelength_nm=_FILTERS[pipeline.mission.telescop][1],
        svo_id=_FILTERS[pipeline.mission.telescop][0],
        fornax_band=_FORNAX.get(flux.band),
    )
    for pipeline in PIPELINES.values()
    for flux in pipeline.fluxes
)
BAND_UNITS = {band.band: band.unit for band in BANDS}

_NAMES = (
    (SPOC, r"tess\d{13}-s(?P<sequence>\d{4})-(?P<target>\d{16})-\d{4}-\w_(?:fast-)?lc\.fits"),
    (TESS_SPOC, r"hlsp_tess-spoc_tess_phot_(?P<target>\d{16})-s(?P<sequence>\d{4})_tess_v\d+_lc\.fits"),
    (QLP, r"hlsp_qlp_tess_ffi_s(?P<sequence>\d{4})-(?P<target>\d{16})_tess_v\d+_llc\.fits"),
    (KEPLER_SOC, r"kplr(?P<target>\d{9})-\d{13}_[ls]lc\.fits"),
    (K2_SOC, r"ktwo(?P<target>\d{9})-c(?P<sequence>\d{2,3})_[ls]lc\.fits"),
    (K2SFF, r"hlsp_k2sff_k2_lightcurve_(?P<target>\d{9})-c(?P<sequence>\d{2,3})_kepler_v\d+_llc\.fits"),
    (EVEREST, r"hlsp_everest_k2_[ls]lc_(?P<target>\d{9})-c(?P<sequence>\d{2,3})_kepler_v[\d.]+_lc\.fits"),
)


@dataclass(frozen=True)
class Named:
    """A parsed file name: pipeline, target, and sector or campaign if it has one."""

    pipeline: Pipeline
    target: int
    sequence: int | None


def named(name: str) -> Named | None:
    """Parse a file's name, with or without folders and .gz; None if it is named otherwise."""
    last = name.rsplit("/", 1)[-1].removesuffix(".gz")
    for pipeline, pattern in _NAMES:
        if found := re.fullmatch(pattern, last):
            parts = found.groupdict()
            sequence = parts.get("sequence")
            return Named(pipeline, int(parts["target"]), None if sequence is None else int(sequence))
    return None


def exposure_id(
    pipeline: Pipeline, sequence: int, target: int, cadence_s: float | None, first_day: float | None
) -> str:
    """Return the id of a target's light curve in one sector, quarter or campaign, at one cadence, by one pipeline.

    Parameters
    ----------
    sequence
        Sector, quarter or campaign.
    target
        Number in TIC, KIC or EPIC.
    cadence_s
        Time from one cadence to the next, s; None if nobody says.
    first_day
        First time, in days of the mission. Kepler's id has it, as a quarter has three files at short cadence and some
        campaigns come in two.
    """
    mission = pipeline.mission
    width = (4, 16) if mission is TESS else (2, 9)
    parts = [mission.name, f"{mission.sequence[0]}{sequence:0{width[0]}d}", f"{target:0{width[1]}d}"]
    parts += [] if cadence_s is None else [f"{cadence_s:.0f}s"]
    parts += [] if mission is TESS or first_day is None else [f"d{int(first_day):04d}"]
    return "-".join(parts if pipeline in (SPOC, KEPLER_SOC, K2_SOC) else [*parts, pipeline.name])


class Curve(NamedTuple):
    """One kind of flux, and its error, NaN where there is none."""

    flux: Floats
    error: Floats


@dataclass(frozen=True)
class Product:
    """A light curve as its file has it, cadences in order of time.

    Parameters
    ----------
    name
        The file's name.
    pipeline
        Who made it, and of which mission.
    target
        Number in TIC, KIC or EPIC.
    sequence
        Sector, quarter or campaign.
    ra, dec
        RA_OBJ and DEC_OBJ of the primary header, the catalogue's position, ICRS degrees. The table's are of the epoch
        of observation in TESS's files, in right ascension alone.
    time
        Column TIME: BTJD or BKJD, days.
    cadence
        Cadence numbers; NaN where the file says none.
    quality
        Flag words; NaN where the file says none.
    is_good
        Has none of the bits that lightkurve drops by default; without a flag word only where the pipeline has none.
    curves
        Fluxes by band.
    background
        In the unit of the fluxes; NaN where there is none, as are x and y.
    x, y
        Column and row of the flux-weighted centroid, pixels.
    cadence_s
        Time from one cadence to the next, s; None if the header does not say.
    mjd_start, mjd_stop
        TSTART and TSTOP, MJD(TDB) at the barycentre; of the cadences where there are none.
    exposure_s
        Time on source, s.
    undated
        How many cadences were left out, having no time.
    details
        What else is to be kept of it.
    remarks
        What had to be assumed or left out.
    """

    name: str
    pipeline: Pipeline
    target: int
    sequence: int
    ra: float
    dec: float
    time: Floats
    cadence: Floats
    quality: Floats
    is_good: NDArray[np.bool_]
    curves: Mapping[str, Curve]
    background: Floats
    x: Floats
    y: Floats
    cadence_s: float | None
    mjd_start: float | None
    mjd_stop: float | None
    exposure_s: float | None
    undated: int
    details: Mapping[str, Any]
    remarks: tuple[str, ...] = ()

    @property
    def mjd(self) -> Floats:
        """Return the middles of the cadences, MJD(TDB) at the barycentre."""
        return self.time + self.pipeline.mission.offset_mjd

    @property
    def source_id(self) -> str:
        """Return the catalogue and the number in it."""
        return f"{self.pipeline.mission.catalogue} {self.target}"

    @property
    def exposure_id(self) -> str:
        """Return the id of the exposure."""
        first = float(self.time[0]) if len(self.time) else None
        return exposure_id(self.pipeline, self.sequence, self.target, self.cadence_s, first)
