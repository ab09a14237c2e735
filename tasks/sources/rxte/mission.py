"""RXTE: names and folders of observations, their products and bands, and gain epochs.

Nothing is read here. An observation (ObsID) is a granule, an exposure and a source of its own: a target's light curve
over sixteen years is that of all sources that match it. So one ObsID can be pulled again, and replaced, without the
others, and every row says which ObsID it is of.

Sources: HEASARC's RXTE guest observer facility (https://heasarc.gsfc.nasa.gov/docs/xte/)
and the folders of its archive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lake.science.times import to_bmjd_tdb
from tasks.sources.base import Band, Origin
from tasks.sources.rxte.views import CHANNELS, VIEWS

Ints = NDArray[np.int64]

NAME = "rxte"
RELEASE = "stdprod"
UNIT = "count.s**-1"

# MJDREFI, MJDREFF: 1994.0 UTC in TT.
MJDREFI, MJDREFF = 49353, 0.000696574074

# Of column quality.
NO_RATE, SLEW, SCAN, TIMEPIXR_ASSUMED, EPOCH_EDGE, PARTIAL = 1, 2, 4, 8, 16, 32

# Gain epochs, and the MJD(UTC) from which each holds: 1995-12-30, 1996-03-21T18:33, 1996-04-15T23:05,
# 1999-03-22T17:37, 2000-05-13T00:00.
GAIN_EPOCHS = (
    (1, 50081.0),
    (2, 50163 + (18 * 60 + 33) / 1440),
    (3, 50188 + (23 * 60 + 5) / 1440),
    (4, 51259 + (17 * 60 + 37) / 1440),
    (5, 51677.0),
)
# The day of the end, 2012-01-05, is still of the mission.
END_MJD = 55932.0

# Where HEASARC and its mirrors have an observation, below https://heasarc.gsfc.nasa.gov/FTP, s3://nasa-heasarc or
# SciServer's /FTP: the service says xte today, older copies rxte.
PREFIXES = ("xte", "rxte")
S3_BUCKET = "s3://nasa-heasarc"
STDPROD = "stdprod"

_OBSID = re.compile(r"([0-9]{5})-([0-9]{2})-([0-9]{2})-([0-9]{2})([0-9A-Z]?)")
_MERGED = re.compile(r"([0-9]{5})-([0-9]{2})_e([1-5])")
_FILE = re.compile(r"x([ph])([0-9]{11}[0-9A-Z]?|[0-9]{7}_e[1-5])_([sbn])([012])([a-e])\.lc(?:\.gz)?")


@dataclass(frozen=True)
class ObsId:
    """The name of an observation, such as 94002-01-15-00 or 94002-01-15-00A, in its parts.

    Parameters
    ----------
    text
        The name as it is.
    proposal, target
        Number of the proposal, five digits, and of its target.
    viewing, sequence, piece
        Of the observation; piece is the 15th character, or empty. None, None and empty for a mission-long product,
        20033-01_e3: HEASARC's merger of all observations of a proposal's target in a gain epoch.
    """

    text: str
    proposal: str
    target: str
    viewing: str | None = None
    sequence: str | None = None
    piece: str = ""

    @property
    def stem(self) -> str:
        """Return the part of its files' names after xp or xh."""
        return self.text.replace("-", "")

    @property
    def is_slew(self) -> bool:
        """Say whether it is a slew to (A) or away from (Z) the target."""
        return self.piece in ("A", "Z")

    @property
    def is_scan(self) -> bool:
        """Say whether it is a raster scan (S) or grid (R)."""
        return self.piece in ("S", "R")

    @property
    def is_merged(self) -> bool:
        """Say whether it is a mission-long product."""
        return self.viewing is None


def parse_obsid(text: str) -> ObsId:
    """Parse the name of an observation; ValueError if it is none."""
    if found := _OBSID.fullmatch(text):
        return ObsId(text, *found.groups())
    if found := _MERGED.fullmatch(text):
        return ObsId(text, found[1], found[2])
    raise ValueError(f"{text!r} is no ObsID: NNNNN-TT-VV-SS and a letter or digit at most")


@dataclass(frozen=True)
class Observation:
    """An observation before its files are read, from xtemaster or a user.

    Parameters
    ----------
    obsid
        Its name, see ObsId.
    target_name
        As the observer called the target.
    ra, dec
        Position of the target as HEASARC has it, ICRS degrees; None: the files' pointing stands in.
    mjd_start
        Start, MJD(UTC).
    exposure_s
        Exposure, seconds; slews and scans have none.
    cycle, prnb
        Announcement of opportunity, and number of the proposal; None: of the ObsID.
    """

    obsid: str
    target_name: str | None = None
    ra: float | None = None
    dec: float | None = None
    mjd_start: float | None = None
    exposure_s: float | None = None
    cycle: int | None = None
    prnb: str | None = None

    def __post_init__(self) -> None:
        parse_obsid(self.obsid)

    @cached_property
    def id(self) -> ObsId:
        """Return its name in its parts."""
        return parse_obsid(self.obsid)

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the folders that it may be in: see archive_paths."""
        return archive_paths(self.obsid, self.cycle, self.prnb)


def ao_number(proposal: str) -> int:
    """Derive the announcement of opportunity from a proposal: 1 of 10004, 10 of 91129.

    The first digit if it is below 9, else 9 and the second digit.
    """
    return int(proposal[0]) if proposal[0] < "9" else 9 + int(proposal[1])


def archive_paths(obsid: str, cycle: int | None = None, prnb: str | None = None) -> tuple[str, ...]:
    """Return the folders that an observation may be in, the likeliest first, below the archive's root.

    Parameters
    ----------
    obsid
        Its name; ValueError if it is none.
    cycle, prnb
        As xtemaster has them; None: of the ObsID.
    """
    proposal = prnb or parse_obsid(obsid).proposal
    ao = ao_number(proposal) if cycle is None else cycle
    return tuple(f"{prefix}/data/archive/AO{ao}/P{proposal}/{obsid}/" for prefix in PREFIXES)


@dataclass(frozen=True)
class Product:
    """A standard product: the light curve of an instrument in a band.

    Parameters
    ----------
    instrument
        pca, hexte0 or hexte1.
    kind
        n: net, the background subtracted; s: source and background; b: background. Never mixed.
    letter
        a to e for PCA, a to c for HEXTE.
    """

    instrument: str
    kind: str
    letter: str

    @property
    def band(self) -> str:
        """Return the name of its band in the lake."""
        return f"{self.instrument}_{self.letter}{ {'n': '', 's': '_src', 'b': '_bkg'}[self.kind] }"

    @property
    def nominal_kev(self) -> tuple[float, float]:
        """Return the ends of its energy range as the archive names them, keV."""
        return (_PCA_KEV if self.instrument == "pca" else _HEXTE_KEV)[self.letter]

    @property
    def bin_s(self) -> float:
        """Return the length of its bins, seconds."""
        return 16.0 if self.instrument == "pca" else 128.0

    def file_name(self, obsid: ObsId) -> str:
        """Return the name of its file in folder stdprod."""
        letter, number = ("p", "2") if self.instrument == "pca" else ("h", self.instrument[-1])
        return f"x{letter}{obsid.stem}_{self.kind}{number}{self.letter}.lc.gz"


_PCA_KEV = {"a": (2.0, 9.0), "b": (2.0, 4.0), "c": (4.0, 9.0), "d": (9.0, 20.0), "e": (20.0, 40.0)}
_HEXTE_KEV = {"a": (15.0, 30.0), "b": (30.0, 60.0), "c": (60.0, 250.0)}
_KINDS = {"n": "net", "s": "source and background", "b": "background"}

PRODUCTS = {
    product.band: product
    for product in (
        *(Product("pca", kind, letter) for letter in _PCA_KEV for kind in _KINDS),
        *(Product(f"hexte{cluster}", kind, letter) for cluster in (0, 1) for letter in _HEXTE_KEV for kind in _KINDS),
    )
}


def product_of(file_name: str) -> tuple[str, Product] | None:
    """Parse a file's name into the observation's part (see ObsId.stem) and its product; None if it is of another kind.

    Parameters
    ----------
    file_name
        Such as xp94002011500_n2a.lc.gz; folders before it do not matter.
    """
    found = _FILE.fullmatch(file_name.rpartition("/")[2])
    if found is None or (found[1] == "p") != (found[4] == "2"):
        return None
    product = Product("pca" if found[1] == "p" else f"hexte{found[4]}", found[3], found[5])
    return (found[2], product) if product.band in PRODUCTS else None


def gain_epoch(mjd_tt: ArrayLike) -> Ints:
    """Return the gain epoch, 1 to 5, at each MJD(TT); ValueError if one is not of the mission."""
    mjd = np.asarray(mjd_tt, np.float64)
    starts, _ = _edges_tt()
    odd = ~is_of_mission(mjd)
    if odd.any():
        raise ValueError(not_of_mission(mjd[odd].flat[0]))
    return np.asarray(np.searchsorted(starts, mjd, side="right"), np.int64)


def not_of_mission(mjd: float) -> str:
    """Return the reason why a time is refused."""
    return f"MJD {mjd:.5f} is not of RXTE's life, 1995-12-30 to 2012-01-05"


def is_of_mission(mjd_tt: ArrayLike) -> NDArray[np.bool_]:
    """Say of each MJD(TT) whether RXTE observed then."""
    mjd = np.asarray(mjd_tt, np.float64)
    starts, end = _edges_tt()
    return np.asarray((mjd >= starts[0]) & (mjd < end))


def utc_to_tt(mjd_utc: ArrayLike) -> NDArray[np.float64]:
    """Convert MJD(UTC) to MJD(TT), to 2 ms: it is TDB."""
    return to_bmjd_tdb(mjd_utc, 0.0, 0.0, scale="utc", frame="barycentre")


@lru_cache(maxsize=1)
def _edges_tt() -> tuple[NDArray[np.float64], float]:
    edges = utc_to_tt([start for _, start in GAIN_EPOCHS] + [END_MJD])
    return edges[:-1], float(edges[-1])


def _band(product: Product) -> Band:
    low, high = product.nominal_kev
    name = "PCA" if product.instrument == "pca" else f"HEXTE cluster {product.instrument[-1]}"
    return Band(
        product.band, f"{name}, {low:g} to {high:g} keV, {_KINDS[product.kind]}; {product.bin_s:g} s bins", UNIT
    )


ORIGIN = Origin(
    name=NAME,
    command="lightlake rxte",
    views=VIEWS,
    tables=(CHANNELS,),
    title="RXTE standard products: PCA and HEXTE light curves",
    release=RELEASE,
    endpoint="https://heasarc.gsfc.nasa.gov/FTP",
    time_scale="TT",
    time_frame="topocentre",
    bands=tuple(_band(product) for product in PRODUCTS.values()),
    cadence="frozen",
    licence="Public: all data of RXTE at HEASARC are",
    acknowledgement="This research has made use of data and/or software provided by the High Energy Astrophysics "
    "Science Archive Research Center (HEASARC), which is a service of the Astrophysics Science Division at NASA/GSFC.",
    bibcode="2006ApJS..163..401J",
    access="HEASARC's table xtemaster finds the observations, its archive of files has their standard light curves. "
    "LIGHTLAKE_ENDPOINTS__RXTE is https://.../FTP, s3://nasa-heasarc or a folder such as SciServer's /FTP; "
    "LIGHTLAKE_ENDPOINTS__HEASARC another TAP service.",
    matching="Observations whose pointing is within radius_deg (0.1) of a target. Slews are left out unless asked for; "
    "scans are kept. source_id and exposure_id are the ObsID; a target's light curve is that of all sources that match "
    "it.",
    quality="good: there is a rate and an exposure, and it is neither slew nor scan. quality: 1 no rate, 2 slew, 4 "
    "raster scan, 8 TIMEPIXR taken to be 0, 16 the observation spans two gain epochs, 32 exposed for a part of the "
    "bin.",
    corrections="mjd is the middle of the bin in TT on the satellite's clock: MJDREFI + MJDREFF + (TIMEZERO + TIME) / "
    "86400. Rates are as the file has them; a bin whose rate is NaN is a row with detected = false and no flux. The "
    "same channels have other energies in each gain epoch: exposures.details has epoch, PCUs and energies, so that a "
    "band is not taken for one range of energies over sixteen years.",
    notes="bmjd_tdb takes the satellite to be at the Earth's centre: 23 ms off at most. exposure_s is TIMEDEL times "
    "FRACEXP. Source, background and net rates are bands of their own. Channels that a user chooses are a release of "
    "archive rxte_pca.",
)
