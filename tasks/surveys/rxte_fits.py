"""Light curves and other tables of RXTE in FITS, read robustly: by column names, whole, and with nothing made up.

The FITS is read here, card by card and in whole columns, since an observation has up to 33 files and astropy takes ten
times as long for one. Whatever a file lacks is missing, never 0; whatever it contradicts itself in is a GranuleRejected
that says what. Sources: B.3 of the facts on RXTE; FITS Standard 4.0, sections 4 and 7.3.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from lake.errors import GranuleRejected
from lake.times import DAY_S, met_to_mjd
from tasks.surveys import rxte
from tasks.surveys.rxte import Product
from tasks.surveys.rxte_cut import ChannelCut

Floats = NDArray[np.float64]
Data = bytes | Path | UPath

# How files spell the unit of a rate: facts B.3, and the real files.
_RATE_UNITS = {"count/s", "counts/s", "ct/s", "cts/s", "count s-1", "counts s-1", "count s**-1", "count.s**-1"}
_COUNT_UNITS = {"count", "counts", "ct", "cts"}

# Keywords that come whole or as an integer and a fraction, by every form: facts B.3, and the real files.
_WHOLE = {
    form: name for name in ("MJDREF", "TIMEZERO", "TSTART", "TSTOP") for form in (name, f"{name[:7]}I", f"{name[:7]}F")
}

_BLOCK, _CARD = 2880, 80
_NOTHING = object()  # a card without a value, which is not a value of None
_VALUE = re.compile(r"= *(?:'((?:[^']|'')*)'|([^/]*))")
_FORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])")
_WIDTH = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_DTYPE = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}


@dataclass
class Header:
    """The keywords of an HDU."""

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def number(self, name: str) -> float | None:
        """Return a number, be it in one keyword or in two, NAMEI and NAMEF; None if there is none."""
        value, rest = self.values.get(name), 0.0
        if value is None:
            value, rest = self.values.get(f"{name[:7]}I"), self.values.get(f"{name[:7]}F") or 0.0
        return float(value) + float(rest) if isinstance(value, int | float) else None

    def text(self, name: str) -> str:
        """Return a text, in capitals; empty if there is none."""
        return str(self.values.get(name, "")).strip().upper()


@dataclass(frozen=True)
class Table:
    """A table: its keywords and the primary header's, columns' names in capitals, bytes, how many there should be."""

    header: Header
    names: list[str]
    data: bytes
    size: int

    @cached_property
    def _fields(self) -> dict[str, tuple[int, str, int, int]]:
        """Number, type, values in a row, and offset in it of each column that is numbers."""
        if len(self.data) < self.size:
            raise GranuleRejected(f"it is cut short: {len(self.data)} of {self.size} bytes of its table")
        fields: dict[str, tuple[int, str, int, int]] = {}
        at, length = 0, int(self.header.values.get("NAXIS1", 0))
        for number, name in enumerate(self.names, 1):
            form = _FORM.match(self.header.text(f"TFORM{number}"))
            if form is None:
                raise GranuleRejected(f"column {name} has the form {self.header.text(f'TFORM{number}')!r}")
            repeat = int(form[1] or 1)
            if form[2] in _DTYPE:
                fields.setdefault(name, (number, form[2], repeat, at))
            at += -(-repeat // 8) if form[2] == "X" else repeat * _WIDTH[form[2]]
        if at != length or len(self.data) < int(self.header.values.get("NAXIS2", 0)) * length:
            raise GranuleRejected(f"rows of {length} bytes do not hold columns of {at}")
        return fields

    @property
    def widths(self) -> dict[str, int]:
        """Return how many values a row has in each column that is numbers; GranuleRejected if it is not whole."""
        return {name: repeat for name, (_, _, repeat, _) in self._fields.items()}

    def column(self, name: str, part: slice = slice(None)) -> Floats:
        """Return one of `widths`, scaled, native, NaN for nulls: shape (rows,), or (rows, values of `part`)."""
        number, form, repeat, offset = self._fields[name]
        values = self.header.values
        length, n = (int(values.get(axis, 0)) for axis in ("NAXIS1", "NAXIS2"))
        shape = (repeat,) if repeat != 1 else ()
        kind = np.dtype({"names": ["x"], "formats": [(_DTYPE[form], shape)], "offsets": [offset], "itemsize": length})
        raw = np.frombuffer(self.data, kind, n)["x"][(slice(None), part)[: 1 + len(shape)]]
        column: Floats = raw.astype(np.float64) * values.get(f"TSCAL{number}", 1) + values.get(f"TZERO{number}", 0)
        if form in "BIJK" and f"TNULL{number}" in values:
            column[raw == values[f"TNULL{number}"]] = np.nan
        return column


class Clock(NamedTuple):
    """What a header says of times, MJDREF in days and in two; what of it is assumed, and remarks on that."""

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
        """Return its energy range: as it is asked for, and as the channels have it in a gain epoch, keV.

        Of a cut the channels are those that were counted; where nobody says them, those that were asked for.
        """
        nominal, channels = self.product.nominal_kev, self.channels
        told: dict[str, Any] = {} if nominal is None else {"nominal_kev": list(nominal)}
        if channels is None and isinstance(self.product, ChannelCut):
            channels = self.product.channels(epoch)
        if self.product.instrument == "pca" and channels:
            detector = "PCU0" if epoch == 5 and self.pcus == (0,) else None
            low, high = rxte.energy_range(*channels, epoch, detector)
            told |= {"channels": list(channels), "emin_kev": low, "emax_kev": high}
        return told


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


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Let a GranuleRejected say which file it is of, and be one if a header has no sense in it."""
    try:
        yield
    except GranuleRejected as error:
        raise GranuleRejected(f"{name}: {error.reason}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise GranuleRejected(f"{name}: its header makes no sense: {error}") from error


def clock(header: Header, bin_s: float) -> Clock:
    """Return what a header says of times, `bin_s` if not of a bin's length; GranuleRejected if not RXTE's, in TT."""
    for keyword, wanted in (("TELESCOP", "XTE"), ("TIMESYS", "TT")):
        if header.text(keyword) != wanted:
            raise GranuleRejected(f"{keyword} is {header.text(keyword) or 'absent'}, not {wanted}")
    ref = header.number("MJDREF")
    if ref is None:
        raise GranuleRejected("it has no MJDREF")
    # In two keywords the fraction has more digits than their sum.
    mjdref = (ref // 1, ref % 1)
    if "MJDREF" not in header.values:
        mjdref = (float(header.values["MJDREFI"]), float(header.values.get("MJDREFF") or 0))
    # TIMEZERO is 0 where there is none; without TIMEPIXR, TIME is the start of the bin for XTE: facts B.3.
    pixr, length, other = map(header.number, ("TIMEPIXR", "TIMEDEL", "DELTAT"))
    length = other if length is None else length
    absent = {"TIMEPIXR": 0.0} if pixr is None else {}
    absent |= {"TIMEDEL": bin_s} if length is None else {}
    pixr, length = absent.get("TIMEPIXR", pixr or 0.0), absent.get("TIMEDEL", length or 0.0)
    if not 0 < length < math.inf:
        raise GranuleRejected(f"TIMEDEL is {length}")
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
    dated = ~np.isnan(columns["TIME"])
    seconds = columns["TIME"][dated] + zero
    mjd = met_to_mjd(seconds + (0.5 - pixr) * bin_s, *mjdref)
    try:
        rxte.gain_epoch(mjd)
    except ValueError as error_:
        raise GranuleRejected(str(error_)) from error_
    given = map(header.number, ("TSTART", "TSTOP"))
    ends = [None if one is None else float(met_to_mjd(one, *mjdref, zero)) for one in given]
    if len(mjd):
        edges = float(mjd.min() - bin_s / 2 / DAY_S), float(mjd.max() + bin_s / 2 / DAY_S)
        ends = [edge if end is None else end for end, edge in zip(ends, edges, strict=True)]
    notes = "\n".join(header.notes)
    cuts = [re.search(rf"CH{end} for filtering was +(\d+)", notes) for end in ("MIN", "MAX")]
    low, high = (min(int(cut[1]), rxte.ABSOLUTE_CHANNELS - 1) if cut else None for cut in cuts)
    rows = " ".join(str(value) for key, value in header.values.items() if key.startswith("ROWID"))
    scaled = re.search(r"Expression: RATE \* ([\d.eE+-]+)", notes)
    undated = [] if dated.all() else [f"{(~dated).sum()} bins without TIME left out"]
    return LightCurve(
        product, seconds, mjd, rate[dated], error[dated], counts[dated], fracexp[dated], bin_s, pixr, mjdref, ends[0],
        ends[1], columns["BARYTIME"][dated] + zero if "BARYTIME" in columns else None,
        *pointing(header), tuple(sorted({int(number) for number in re.findall(r"Pcu(\d)", rows)})),
        None if low is None or high is None or low > high else (low, high), header.number("ONTIME"),
        {
            "columns": names, "extname": header.text("EXTNAME"), "object": header.text("OBJECT"),
            "hduclas2": header.text("HDUCLAS2"), "timezero_s": zero, "timepixr": pixr, "bin_s": bin_s,
            "assumed": times.assumed, "rate_factor": float(scaled[1]) if scaled else None,
        },
        (*times.remarks, *undated),
    )  # fmt: skip


def pointing(header: Header) -> tuple[float | None, float | None]:
    """Return where the telescope pointed, degrees; None, None if the header does not say."""
    for suffix in ("_PNT", "", "_OBJ"):
        ra, dec = header.number(f"RA{suffix}"), header.number(f"DEC{suffix}")
        if ra is not None and dec is not None and 0 <= ra <= 360 and -90 <= dec <= 90:
            return ra, dec
    return None, None


def unpacked(data: Data) -> bytes:
    """Return the bytes of a file that may be packed by gzip; GranuleRejected if it is cut short or damaged."""
    body = data if isinstance(data, bytes) else data.read_bytes()
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        return gzip.decompress(body)
    except (EOFError, OSError, zlib.error) as error:
        raise GranuleRejected(f"gzip: {error}") from error


def _count(header: Header, name: str, default: int | None = None) -> int:
    """Return a number of axes or columns; FITS 4.0, sections 4.4.1 and 7.3.1: at most 999."""
    number = int(header.values[name] if default is None else header.values.get(name, default))
    if not 0 <= number <= 999:
        raise GranuleRejected(f"a header speaks of {name} {number}")
    return number


def read_tables(body: bytes) -> list[Table]:
    """Return the binary tables of a file in order; GranuleRejected if it is no FITS or its headers are broken."""
    if not body.startswith(b"SIMPLE  ="):
        raise GranuleRejected("it is empty" if not body else "it is no FITS file")
    tables = []
    primary = Header()
    for header, data, size in _hdus(body):
        if header.text("XTENSION") == "BINTABLE":
            names = [header.text(f"TTYPE{n + 1}") for n in range(_count(header, "TFIELDS", 0))]
            # The table's own TSTART is of all its rows, in whatever form; the primary header's may not be.
            own = {_WHOLE.get(name, name) for name in header.values} | {"EXTNAME"}
            values = {name: value for name, value in primary.values.items() if _WHOLE.get(name, name) not in own}
            tables.append(Table(Header({**values, **header.values}, header.notes), names, data, size))
        elif "SIMPLE" in header.values:
            primary = header
    return tables


def _rate_table(body: bytes) -> tuple[Header, list[str], dict[str, Floats]]:
    """Return the header of the table of rates, its columns' names, and those that are numbers, rates in count/s."""
    tables = read_tables(body)
    fits = [one for one in tables if "TIME" in one.names and {"RATE", "COUNT", "COUNTS"} & set(one.names)]
    named = [one for one in tables if one.header.text("EXTNAME") == "RATE"]
    if not fits or (named and named[0] not in fits):
        seen = "; ".join(", ".join(one.names) for one in named or tables) or "no table at all"
        raise GranuleRejected(f"it has no table RATE of TIME and RATE, but {seen}")
    table = (named or fits)[0]
    columns = {name: table.column(name) for name, width in table.widths.items() if width == 1}
    for name in columns:
        unit = str(table.header.values.get(f"TUNIT{table.names.index(name) + 1}", "")).strip().lower()
        allowed = {"RATE": _RATE_UNITS, "COUNT": _COUNT_UNITS, "COUNTS": _COUNT_UNITS, "TIME": {"s", "sec"}}.get(name)
        if unit and allowed and unit not in allowed:
            raise GranuleRejected(f"the unit of {name} is {unit!r}, not {min(allowed)}")
    if "TIME" not in columns or not {"RATE", "COUNT", "COUNTS"} & set(columns):
        raise GranuleRejected("its columns TIME and RATE are no numbers")
    return table.header, table.names, columns


def _hdus(body: bytes) -> Iterator[tuple[Header, bytes, int]]:
    """Yield the header, the data, and the size that the data should have, of each HDU."""
    at = 0
    while at < len(body) and (at == 0 or body[at : at + 8] == b"XTENSION"):
        header = Header()
        ended = False
        while not ended:
            block = body[at : at + _BLOCK].decode("latin-1")
            if len(block) < _BLOCK:
                raise GranuleRejected("it is cut short: a header does not end")
            at += _BLOCK
            for start in range(0, _BLOCK, _CARD):
                key, value = _card(block[start : start + _CARD])
                if ended := key == "END":
                    break
                if key in ("COMMENT", "HISTORY"):
                    header.notes.append(value)
                elif value is not _NOTHING:
                    header.values.setdefault(key, value)
        values = header.values
        try:
            axes = [int(values[f"NAXIS{n + 1}"]) for n in range(_count(header, "NAXIS"))]
            each = abs(int(values["BITPIX"])) // 8 * int(values.get("GCOUNT", 1))
        except KeyError as error:
            raise GranuleRejected(f"a header has no {error}") from error
        size = each * (math.prod(axes) + int(values.get("PCOUNT", 0))) if axes else 0
        if size < 0:
            raise GranuleRejected(f"a header speaks of {size} bytes")
        yield header, body[at : at + size], size
        at += -(-size // _BLOCK) * _BLOCK


@lru_cache(maxsize=1 << 14)
def _card(card: str) -> tuple[str, Any]:
    """Return the keyword and value of a card; cards of one archive's files are nearly all the same."""
    key, text = card[:8].rstrip(), card[8:]
    if key in ("COMMENT", "HISTORY"):
        return key, text.strip()
    found = _VALUE.match(text)
    return key, _value(found) if found else _NOTHING


def _value(found: re.Match[str]) -> Any:
    if found[1] is not None:
        return found[1].replace("''", "'").rstrip()
    text = found[2].strip()
    if text in ("T", "F"):
        return text == "T"
    try:
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text.replace("D", "E"))
    except ValueError:
        return None
