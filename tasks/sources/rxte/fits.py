"""Read light curves and other tables of RXTE in FITS: by column names, complete, and without invented values.

Whatever a file lacks is missing, never 0; whatever it contradicts itself in is a GranuleRejected that says what.
Source: HEASARC's RXTE guest observer facility (https://heasarc.gsfc.nasa.gov/docs/xte/).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lake.errors import GranuleRejected
from lake.science.times import DAY_S, met_to_mjd
from lake.text import counted
from tasks.services.fits import BLOCK, Data, Floats, Header, Table, naming, read_tables, unpacked
from tasks.sources.rxte import energies
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.cut import ChannelCut
from tasks.sources.rxte.mission import Product

# How files spell the unit of a rate, as real files have it.
_RATE_UNITS = {"count/s", "counts/s", "ct/s", "cts/s", "count s-1", "counts s-1", "count s**-1", "count.s**-1"}
_COUNT_UNITS = {"count", "counts", "ct", "cts"}

# What comments say of the channels, first and last, and of a factor; and names of PCUs.
_CUTS = [re.compile(rf"CH{end} for filtering was +(\d+)") for end in ("MIN", "MAX")]
_SCALED, _PCU = re.compile(r"Expression: RATE \* ([\d.eE+-]+)"), re.compile(r"Pcu(\d)")


class Clock(NamedTuple):
    """The clock in a header, MJDREF in two parts, days; what of it is assumed, and remarks on that."""

    mjdref: tuple[float, float]
    timezero_s: float
    timepixr: float
    bin_s: float
    assumed: list[str]
    remarks: list[str]


@dataclass(frozen=True)
class LightCurve:
    """A light curve as its file has it; times are TT on the satellite's clock, values NaN where there are none.

    Parameters
    ----------
    product
        Which standard product, or which cut of the channels.
    seconds
        Column TIME, with TIMEZERO added.
    mjd
        Middles of the bins, MJD(TT).
    rate, error, counts, fracexp
        count/s, count/s, counts (only if the file counts), and the exposed part of a bin.
    bin_s, timepixr
        Length of a bin, and the place in it that TIME is: 0 start, 0.5 middle.
    mjd_start, mjd_stop
        TSTART and TSTOP, MJD(TT); of the bins where there are none.
    barytime_s
        Column BARYTIME, seconds in TDB since MJDREF; None if there is none.
    ra, dec
        Pointing, degrees; None if the header has none.
    pcus
        Numbers of the PCUs that were used; empty where the header does not say.
    channels
        First and last absolute channel; None where the header does not say.
    details
        What else is to be kept of it.
    remarks
        What had to be assumed.
    """

    product: Product | ChannelCut
    seconds: Floats
    mjd: Floats
    rate: Floats
    error: Floats
    counts: Floats
    fracexp: Floats
    bin_s: float
    timepixr: float
    mjdref: tuple[float, float]
    mjd_start: float | None
    mjd_stop: float | None
    barytime_s: Floats | None
    ra: float | None
    dec: float | None
    pcus: tuple[int, ...]
    channels: tuple[int, int] | None
    ontime_s: float | None
    details: Mapping[str, Any]
    remarks: tuple[str, ...] = ()

    def energies(self, epoch: int) -> dict[str, Any]:
        """Return its energy range, keV: as requested, and that of the channels in a gain epoch.

        Of a cut the channels are those that were counted; where nobody says them, those that were asked for.
        """
        nominal, channels = self.product.nominal_kev, self.channels
        found: dict[str, Any] = {} if nominal is None else {"nominal_kev": list(nominal)}
        if channels is None and isinstance(self.product, ChannelCut):
            channels = self.product.channels(epoch)
        if self.product.instrument == "pca" and channels:
            detector = "PCU0" if epoch == 5 and self.pcus == (0,) else None
            low, high = energies.energy_range(*channels, epoch, detector)
            found |= {"channels": list(channels), "emin_kev": low, "emax_kev": high}
        return found


def read_light_curve(data: Data, product: Product | ChannelCut, name: str = "") -> LightCurve:
    """Read a light curve, packed by gzip or not.

    Parameters
    ----------
    data
        The file, or where it is.
    product
        Which product its name says it is, or which cut it was made for.
    name
        The file's name, for messages.

    Raises
    ------
    GranuleRejected
        If it is not whole, no light curve, or not the product it is called.
    OSError
        If it cannot be read.
    """
    with naming(name or (product.band if isinstance(data, bytes) else data.name)):
        return _light_curve(unpacked(data), product)


def clock(header: Header, bin_s: float) -> Clock:
    """Read the clock in a header, with `bin_s` if it has no bin length; GranuleRejected if it is not RXTE's, in TT."""
    for keyword, wanted in (("TELESCOP", "XTE"), ("TIMESYS", "TT")):
        if header.text(keyword) != wanted:
            raise GranuleRejected(f"{keyword} is {header.text(keyword) or 'absent'}, not {wanted}")
    # Of all times of a header; a column's own unit is checked where it is read.
    if (unit := header.text("TIMEUNIT")) not in ("", "S", "SEC", "SECOND", "SECONDS"):
        raise GranuleRejected(f"TIMEUNIT is {unit}, not s")
    ref = header.number("MJDREF")
    if ref is None:
        raise GranuleRejected("it has no MJDREF")
    # In two keywords the fraction has more digits than their sum.
    mjdref = (ref // 1, ref % 1)
    if "MJDREF" not in header.values:
        mjdref = (float(header.values["MJDREFI"]), float(header.values.get("MJDREFF") or 0))
    # TIMEZERO is 0 where there is none; without TIMEPIXR, TIME is the start of the bin for XTE.
    pixr, length, other = map(header.number, ("TIMEPIXR", "TIMEDEL", "DELTAT"))
    length = other if length is None else length
    absent = {"TIMEPIXR": 0.0} if pixr is None else {}
    absent |= {"TIMEDEL": bin_s} if length is None else {}
    pixr, length = absent.get("TIMEPIXR", pixr or 0.0), absent.get("TIMEDEL", length or 0.0)
    if not 0 < length < math.inf:
        raise GranuleRejected(f"TIMEDEL is {length}")
    if not 0 <= pixr <= 1:
        raise GranuleRejected(f"TIMEPIXR is {pixr}, no place in a bin")
    remarks = [f"{name} is absent, {value:g} assumed" for name, value in absent.items()]
    return Clock(mjdref, header.number("TIMEZERO") or 0.0, pixr, length, list(absent), remarks)


def _light_curve(body: bytes, product: Product | ChannelCut) -> LightCurve:
    header, names, columns = _rate_table(body)
    times = clock(header, product.bin_s)
    is_net = header.text("HDUCLAS2") == "NET"
    if header.text("HDUCLAS2") and is_net != (product.kind == "n"):
        raise GranuleRejected(f"it is called {product.band}, but its HDUCLAS2 is {header.text('HDUCLAS2')}")
    mjdref, zero, pixr, bin_s = times[:4]
    none = np.full(len(columns["TIME"]), np.nan)
    rate, error, counts = columns.get("RATE"), columns.get("ERROR", columns.get("RATE_ERR", none)), none
    fracexp = columns.get("FRACEXP", none)
    if rate is None:
        counts = columns.get("COUNTS", columns.get("COUNT", none))
        exposed = np.where(fracexp > 0, fracexp, np.nan) * bin_s
        rate, error = counts / exposed, error / exposed
    dated = np.isfinite(columns["TIME"])
    seconds = columns["TIME"][dated] + zero
    mjd = met_to_mjd(seconds + (0.5 - pixr) * bin_s, *mjdref)
    possible = rxte.is_of_mission(mjd)
    if not possible.all():
        # A few times that cannot be are no times; if none can be, it is the clock that is wrong.
        if not possible.any():
            raise GranuleRejected(rxte.not_of_mission(mjd[0]))
        dated[dated], seconds, mjd = possible, seconds[possible], mjd[possible]
    given = [header.number(name) for name in ("TSTART", "TSTOP")]
    times_given = met_to_mjd([np.nan if one is None else one for one in given], *mjdref, zero)
    whether = zip(given, rxte.is_of_mission(times_given), strict=True)
    odd = [one is not None and not is_possible for one, is_possible in whether]
    ends = [
        None if one is None or is_odd else float(end) for one, is_odd, end in zip(given, odd, times_given, strict=True)
    ]
    if len(mjd) and None in ends:
        edges = float(mjd.min() - bin_s / 2 / DAY_S), float(mjd.max() + bin_s / 2 / DAY_S)
        ends = [edge if end is None else end for end, edge in zip(ends, edges, strict=True)]
    notes = "\n".join(header.notes)
    cuts = [cut.search(notes) for cut in _CUTS]
    low, high = (min(int(cut[1]), energies.ABSOLUTE_CHANNELS - 1) if cut else None for cut in cuts)
    rows = " ".join([str(header.values[key]) for key in header.values if key[:5] == "ROWID"])
    scaled = _SCALED.search(notes)
    if not (every := bool(dated.all())):
        rate, error, counts, fracexp = (column[dated] for column in (rate, error, counts, fracexp))
    remarks = [] if every else [f"{counted((~dated).sum(), 'bin')} without TIME left out"]
    remarks += [
        f"{name} is none of the mission" for name, is_odd in zip(("TSTART", "TSTOP"), odd, strict=True) if is_odd
    ]
    return LightCurve(
        product,
        seconds,
        mjd,
        rate,
        error,
        counts,
        fracexp,
        bin_s,
        pixr,
        mjdref,
        ends[0],
        ends[1],
        columns["BARYTIME"][dated] + zero if "BARYTIME" in columns else None,
        *pointing(header),
        tuple(sorted({int(number) for number in _PCU.findall(rows)})),
        None if low is None or high is None or low > high else (low, high),
        header.number("ONTIME"),
        {
            "columns": names,
            "extname": header.text("EXTNAME"),
            "object": header.text("OBJECT"),
            "hduclas2": header.text("HDUCLAS2"),
            "timezero_s": zero,
            "timepixr": pixr,
            "bin_s": bin_s,
            "assumed": times.assumed,
            "rate_factor": float(scaled[1]) if scaled else None,
        },
        (*times.remarks, *remarks),
    )


def pointing(header: Header) -> tuple[float | None, float | None]:
    """Return the telescope's pointing, degrees; None, None if the header has none."""
    for suffix in ("_PNT", "", "_OBJ"):
        ra, dec = header.number(f"RA{suffix}"), header.number(f"DEC{suffix}")
        if ra is not None and dec is not None and 0 <= ra <= 360 and -90 <= dec <= 90:
            return ra, dec
    return None, None


def _table_of_rates(body: bytes) -> Table:
    """Return table RATE; without one of that name, the first that has rates. What comes after it is not read."""
    tables = []
    for table in read_tables(body):
        tables.append(table)
        if table.header.text("EXTNAME") == "RATE":
            break
    fits = [one for one in tables if "TIME" in one.names and {"RATE", "COUNT", "COUNTS"} & set(one.names)]
    named = [one for one in tables if one.header.text("EXTNAME") == "RATE"]
    if not fits or (named and named[0] not in fits):
        seen = "; ".join(", ".join(one.names) for one in named or tables) or "no table at all"
        raise GranuleRejected(f"it has no table RATE of TIME and RATE, but {seen}")
    return (named or fits)[0]


def _rate_table(body: bytes) -> tuple[Header, list[str], dict[str, Floats]]:
    """Return the header of the table of rates, its columns' names, and those that are numbers, rates in count/s."""
    table = _table_of_rates(body)
    columns = {name: table.column(name) for name, width in table.widths.items() if width == 1}
    for name in columns:
        unit = str(table.header.values.get(f"TUNIT{table.names.index(name) + 1}", "")).strip().lower()
        allowed = {"RATE": _RATE_UNITS, "COUNT": _COUNT_UNITS, "COUNTS": _COUNT_UNITS, "TIME": {"s", "sec"}}.get(name)
        if unit and allowed and unit not in allowed:
            raise GranuleRejected(f"the unit of {name} is {unit!r}, not {min(allowed)}")
    if "TIME" not in columns or not {"RATE", "COUNT", "COUNTS"} & set(columns):
        raise GranuleRejected("its columns TIME and RATE are no numbers")
    if len(body) % BLOCK:
        raise GranuleRejected(
            f"it is cut short: {counted(len(body), 'byte is not', 'bytes are not')} whole blocks of {BLOCK}"
        )
    return table.header, table.names, columns
