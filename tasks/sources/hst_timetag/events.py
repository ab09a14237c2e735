"""Read the event tables of COS and STIS TIME-TAG files: COS `corrtag`, STIS `tag` and STIS `corrtag`.

Columns and keywords: COS Data Handbook, sections 2.4 and 3; STIS Data Handbook, sections 2.3 and 5.4.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lake.errors import GranuleRejected
from lake.text import one_line
from tasks.sources.hst_timetag.find import CALIBRATION
from tasks.sources.hst_timetag.headers import (
    UNREADABLE,
    check_whole,
    first_of,
    lower,
    merged,
    number,
    pairs,
    text,
    upper,
    whole,
)

Kind = Literal["cos_corrtag", "stis_tag", "stis_corrtag"]
Array = NDArray[Any]

# The columns without which a table is not of a kind. Calibration adds columns now and then, so there may be more.
_CORRTAG = frozenset(["TIME", "RAWX", "RAWY", "XCORR", "YCORR", "WAVELENGTH", "EPSILON", "DQ"])
_KINDS: tuple[tuple[Kind, frozenset[str]], ...] = (
    ("cos_corrtag", _CORRTAG | frozenset(["XDOPP", "XFULL", "YFULL", "PHA"])),
    ("stis_corrtag", _CORRTAG),
    ("stis_tag", frozenset(["TIME", "AXIS1", "AXIS2", "DETAXIS1"])),
)

# Rows that are read at a time: 1.4 MB of a COS table, which stay in a core's cache while column after column is read.
CHUNK = 1 << 15

# Bits of COS's DQ that screening by time and pulse height sets: calcos leaves such events out of images and spectra
# whatever SDQFLAGS says (calcos, timetag.py: burst 64, pulse height out of bounds 512, bad time 2048).
COS_SCREENED = 64 | 512 | 2048

# MJD of HST's launch, and the last one that the lake has.
FIRST_MJD, LAST_MJD = 48_005.0, 88_069.0

# Primary keywords with a reference file each.
_REFERENCES = ("FLUXTAB", "TDSTAB", "PHOTTAB", "BPIXTAB", "PFLTFILE", "LFLTFILE")


@dataclass(frozen=True)
class Box:
    """Rows of a detector, low <= y < high, in pixels."""

    low: float
    high: float

    @classmethod
    def at(cls, location: float, height: int) -> Box:
        """Return the rows of an extraction box: all of its height, half of it on either side of its location.

        Half an odd height must not be rounded: with 51 // 2 on either side a row of the spectrum is lost.
        """
        return cls(location - height / 2, location + height / 2)

    @property
    def height(self) -> float:
        """Return how many rows it has."""
        return self.high - self.low


@dataclass(frozen=True)
class Boxes:
    """Where the spectrum of a segment (FUV) or stripe (NUV) of COS falls, and its two background regions."""

    name: str
    source: Box
    background: tuple[Box, Box]


@dataclass(frozen=True)
class Photons:
    """Events of a table, in its order.

    Parameters
    ----------
    time
        Seconds since EXPSTART.
    x, y
        Corrected position on the detector, pixels: XCORR and YCORR of COS, AXIS1 and AXIS2 of STIS.
    wavelength
        Angstrom. 0 where it has none: images, and STIS events outside all orders.
    weight
        EPSILON: correction for the flat field and for dead time.
    quality
        DQ flags.
    """

    time: Array
    x: Array
    y: Array
    wavelength: Array
    weight: Array
    quality: Array

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.time)

    def take(self, rows: Array) -> Photons:
        """Return the events at some indices."""
        return Photons(*(getattr(self, one.name)[rows] for one in fields(self)))


@dataclass(frozen=True)
class Times:
    """What the times of a table's events are like; infinite if it has none.

    Parameters
    ----------
    first, last
        Earliest and latest, seconds since EXPSTART.
    is_sorted
        They never decrease from row to row.
    is_singular
        All are the same.
    """

    first: float
    last: float
    is_sorted: bool
    is_singular: bool


@dataclass(frozen=True, kw_only=True)
class EventTable:
    """An EVENTS extension, with what the headers say of it.

    Parameters
    ----------
    exposure_id
        Rootname of the exposure, in small letters. STIS names files by association: there it is EXPNAME of the
        extension.
    exposure_s
        EXPTIME: seconds in good time intervals.
    expstart_mjd
        MJD (UTC) of time 0.
    good_times
        START and STOP of GTI, seconds since EXPSTART, shape (n, 2), in order and without overlaps; None if the file
        has no such table.
    sun
        TIME and SUN_ALT of COS's TIMELINE (seconds, degrees), shape (n, 2); None if the file has none.
    boxes
        Of each segment or stripe that the table has; none of STIS, which has no box.
    serious_dq
        The bits of DQ that make an event unusable: SDQFLAGS, and for COS those that screening sets.
    reference_files
        Names of the reference files of the header, by keyword, such as ``lref$23n1744el_phot.fits``.
    """

    path: Path
    kind: Kind
    exposure_id: str
    association: str | None
    instrument: str
    detector: str
    segment: str | None
    grating: str
    cenwave: int
    aperture: str
    fp_pos: int
    obstype: str
    target_name: str
    is_moving: bool
    is_science: bool
    ra: float | None
    dec: float | None
    proposal: int | None
    calibration_version: str | None
    expstart_mjd: float
    exposure_s: float
    expflag: str
    serious_dq: int
    sporder: int | None
    boxes: tuple[Boxes, ...]
    good_times: Array | None
    sun: Array | None
    reference_files: Mapping[str, str]
    rows: int
    events: Rows = field(repr=False)

    @property
    def without_events(self) -> EventTable:
        """Return what its header says, which stays when the file is closed."""
        return replace(self, events=Rows.none())

    @property
    def is_image(self) -> bool:
        """Say whether it is an image, whose events have no wavelength."""
        return self.obstype == "IMAGING"

    @cached_property
    def time_range(self) -> Times:
        """Return the range and order of all times, which are read once."""
        first, last, before, is_sorted = np.inf, -np.inf, -np.inf, True
        for times in self.times():
            # A time that is no number is in no order, nor is an infinite one.
            if (
                is_sorted
                and np.isfinite(times[[0, -1]]).all()
                and times[0] >= before
                and np.all(times[1:] >= times[:-1])
            ):
                first, last = min(first, times[0]), max(last, times[-1])
            else:
                is_sorted = False
                first, last = min(first, times.min()), max(last, times.max())
            before = times[-1]
        return Times(float(first), float(last), is_sorted, is_sorted and bool(first == last))

    def chunks(self, size: int = CHUNK) -> Iterator[Photons]:
        """Yield the events, at most `size` at a time."""
        for first in range(0, self.rows, size):
            rows = slice(first, first + size)
            time = self.events.values("TIME", rows, np.float64)
            if self.kind == "stis_tag":
                number = len(time)
                x, y = (self.events.values(name, rows) for name in ("AXIS1", "AXIS2"))
                wavelength, weight, quality = np.zeros(number, np.float32), np.ones(number, np.float32), None
            else:
                x, y, wavelength, weight = (
                    self.events.values(name, rows) for name in ("XCORR", "YCORR", "WAVELENGTH", "EPSILON")
                )
                quality = self.events.values("DQ", rows, np.int32)
            yield Photons(time, x, y, wavelength, weight, np.zeros(len(time), np.int32) if quality is None else quality)

    def times(self, size: int = CHUNK) -> Iterator[Array]:
        """Yield the times of the events alone, in seconds since EXPSTART."""
        for first in range(0, self.rows, size):
            yield self.events.values("TIME", slice(first, first + size), np.float64)


class Rows:
    """Columns of a table extension, which are read in parts.

    A slice of astropy's own table takes a millisecond to make, and an exposure has a hundred of them.
    """

    def __init__(self, hdu: Any) -> None:
        self._scales = {
            column.name.upper(): (column.name, column.bscale, column.bzero) for column in hdu.columns.columns
        }
        self._raw = np.asarray(hdu.data)

    @classmethod
    def none(cls) -> Rows:
        """Return no rows."""
        made = cls.__new__(cls)
        made._scales, made._raw = {}, np.empty(0)
        return made

    @property
    def names(self) -> frozenset[str]:
        """Return the names of its columns."""
        return frozenset(self._scales)

    def values(self, name: str, rows: slice, dtype: type = np.float32) -> Array:
        """Return some rows of a column."""
        found, scale, zero = self._scales[name]
        raw: Array = self._raw[found][rows]
        is_scaled = scale not in ("", None, 1) or zero not in ("", None, 0)
        if not is_scaled:
            return raw.astype(dtype)
        return (raw.astype(np.float64) * float(scale or 1.0) + float(zero or 0.0)).astype(dtype)


@contextmanager
def open_events(path: Path) -> Iterator[list[EventTable]]:
    """Open the event tables of a file; a STIS file may have several, one an exposure.

    Raises
    ------
    GranuleRejected
        If the file cannot be read, has no EVENTS extension, or one that is of no known kind.
    """
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyUserWarning

    with ExitStack() as stack:
        try:
            opened = stack.enter_context(path.open("rb"))
            # Filters of warnings are those of all threads, so that what astropy only warns of is looked at here.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AstropyUserWarning)
                hdus = stack.enter_context(fits.open(opened, memmap=True, lazy_load_hdus=False))
            check_whole(path, hdus)
            tables = _tables(path, hdus)
        except (*UNREADABLE, AstropyUserWarning) as error:
            raise GranuleRejected(f"{path.name} cannot be read as an event file: {one_line(str(error))}") from error
        yield tables


def _tables(path: Path, hdus: Any) -> list[EventTable]:
    primary = hdus[0].header
    numbers = [number for number, hdu in enumerate(hdus) if hdu.name == "EVENTS"]
    if not numbers:
        raise GranuleRejected(f"{path.name} has no EVENTS extension")
    found = []
    for place, here in enumerate(numbers):
        # The extensions after its EVENTS, up to the next one, belong to an exposure.
        last = numbers[place + 1] if place + 1 < len(numbers) else len(hdus)
        beside = {hdu.name: hdu for hdu in hdus[here + 1 : last]}
        found.append(_table(path, primary, hdus[here], beside))
    return found


def _table(path: Path, primary: Any, events: Any, beside: Mapping[str, Any]) -> EventTable:
    header = events.header
    columns = frozenset(name.upper() for name in events.columns.names)
    kind = next((kind for kind, needed in _KINDS if needed <= columns), None)
    if kind is None:
        raise GranuleRejected(
            f"{path.name} is no corrtag or tag file: its events have the columns {', '.join(sorted(columns))}"
        )
    rootname = text(header, "EXPNAME") or text(header, "ROOTNAME") or text(primary, "ROOTNAME")
    if rootname is None:
        rootname = path.name.split("_")[0]
    obstype = (text(primary, "OBSTYPE") or "").upper()
    exptype = (text(primary, "EXPTYPE") or text(header, "EXPTYPE") or "EXTERNAL/SCI").upper()
    good, target = pairs(beside.get("GTI"), "START", "STOP"), (text(primary, "TARGNAME") or "").upper()
    expstart_mjd = float(first_of(header, primary, "EXPSTART", "TEXPSTRT"))
    if not FIRST_MJD <= expstart_mjd <= LAST_MJD:
        raise ValueError(f"EXPSTART is {expstart_mjd:g}, which is no day of HST's")
    return EventTable(
        path=path,
        kind=kind,
        exposure_id=rootname.lower(),
        association=lower(text(primary, "ASN_ID")),
        instrument=(text(primary, "INSTRUME") or ("COS" if kind.startswith("cos") else "STIS")).upper(),
        detector=(text(primary, "DETECTOR") or "").upper(),
        segment=upper(text(primary, "SEGMENT")),
        grating=(text(primary, "OPT_ELEM") or "").upper(),
        # An image has no central wavelength.
        cenwave=0 if obstype == "IMAGING" else whole(primary, "CENWAVE") or 0,
        aperture=(text(primary, "APERTURE") or text(primary, "PROPAPER") or "").upper(),
        fp_pos=whole(primary, "FPPOS") or 0,
        obstype=obstype,
        target_name=target,
        is_moving=bool(primary.get("MTFLAG") in (True, "T", "t", "1")),
        is_science=exptype == "EXTERNAL/SCI" and target not in CALIBRATION,
        ra=number(primary.get("RA_TARG")),
        dec=number(primary.get("DEC_TARG")),
        proposal=whole(primary, "PROPOSID"),
        calibration_version=text(primary, "CAL_VER"),
        expstart_mjd=expstart_mjd,
        exposure_s=float(first_of(header, primary, "EXPTIME", "TEXPTIME")),
        expflag=text(header, "EXPFLAG") or text(primary, "EXPFLAG") or "",
        serious_dq=(whole(header, "SDQFLAGS") or 0) | (COS_SCREENED if kind == "cos_corrtag" else 0),
        sporder=whole(header, "SPORDER"),
        boxes=_boxes(header) if kind == "cos_corrtag" else (),
        good_times=None if good is None else merged(good),
        sun=pairs(beside.get("TIMELINE"), "TIME", "SUN_ALT"),
        reference_files={name: value for name in _REFERENCES if (value := text(primary, name)) not in (None, "N/A")},
        rows=int(header["NAXIS2"]),
        events=Rows(events),
    )


def _boxes(header: Any) -> tuple[Boxes, ...]:
    """Return the boxes of each segment or stripe; calibration leaves -999 in those that the table has not."""
    found = []
    for name in "ABC":
        values = [
            (number(header.get(f"{place}_{name}")), header.get(f"{height}_{name}"))
            for place, height in (("SP_LOC", "SP_HGT"), ("B_BKG1", "B_HGT1"), ("B_BKG2", "B_HGT2"))
        ]
        boxes = [
            Box.at(location, int(height))
            for location, height in values
            if location is not None and height is not None and location >= 0 and height > 0
        ]
        if len(boxes) == 3:
            found.append(Boxes(name, boxes[0], (boxes[1], boxes[2])))
    return tuple(found)
