"""Events of COS and STIS in TIME-TAG mode, drawn for sources of known rate, period and background: any number, seeded.

What a light curve should count is drawn apart from what it should leave out (airglow, flagged events, gaps), so that
the rates are exact. Columns: COS Data Handbook, section 2.4; STIS Data Handbook, section 2.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Column = tuple[str, str, Any, str]
"""Name, TFORM, NumPy type and unit."""

BROKEN = ("expflag", "no_events", "times", "singular", "proposal", "short", "cut", "no_table")
"""Ways to be useless: the rules of quality in their order, a file that is cut off, one without table of events."""


_SLICE = 400_000  # events that are made at a time
_ORBIT_S = 5_713.0
_AIRGLOW = ((1208.0, 1225.0), (1298.0, 1312.0))  # what light curves leave out
_LINES = ((1214.5, 1217.0), (1301.5, 1306.5))  # where the lines are
_FLAGS = (8, 64, 512, 2048, 8192)
TICK_S = 0.000125
_ROWS_COS, STIS_PIXELS = 1024, 2048

ORDER_HEIGHT = 7.0

# Of each segment or stripe: source box and two background regions, as location and height. The heights differ.
BOXES = {
    "FUV": {"A": ((462.8, 51), (414.0, 31), (606.0, 21)), "B": ((522.1, 51), (474.0, 31), (665.0, 21))},
    "NUV": dict(zip("ABC", (((place, 57), (45.0, 41), (950.0, 31)) for place in (186.0, 287.0, 413.0)), strict=True)),
}

COS_COLUMNS: tuple[Column, ...] = (
    ("TIME", "1E", ">f4", "s"),
    ("RAWX", "1I", ">i2", "pixel"),
    ("RAWY", "1I", ">i2", "pixel"),
    ("XCORR", "1E", ">f4", "pixel"),
    ("YCORR", "1E", ">f4", "pixel"),
    ("XDOPP", "1E", ">f4", "pixel"),
    ("XFULL", "1E", ">f4", "pixel"),
    ("YFULL", "1E", ">f4", "pixel"),
    ("WAVELENGTH", "1E", ">f4", "angstrom"),
    ("EPSILON", "1E", ">f4", ""),
    ("DQ", "1I", ">i2", ""),
    ("PHA", "1B", "u1", ""),
)
STIS_COLUMNS: tuple[Column, ...] = (
    ("TIME", "1J", ">i4", "s"),
    ("AXIS1", "1I", ">i2", "pixel"),
    ("AXIS2", "1I", ">i2", "pixel"),
    ("DETAXIS1", "1I", ">i2", "pixel"),
)
GTI_COLUMNS: tuple[Column, ...] = (("START", "1D", ">f8", "s"), ("STOP", "1D", ">f8", "s"))
TIMELINE_COLUMNS: tuple[Column, ...] = tuple(
    (name, "1E", ">f4", unit)
    for name, unit in (
        ("TIME", "s"),
        ("LONGITUDE", "degree"),
        ("LATITUDE", "degree"),
        ("SUN_ALT", "degree"),
        ("LYMAN_ALPHA", "count /s"),
        ("OI_1304", "count /s"),
        ("OI_1356", "count /s"),
        ("DARKRATE", "count /s /pixel"),
    )
)


@dataclass(frozen=True)
class Setup:
    """How an instrument observes; `spectra` are wavelengths (Angstrom) at both ends of segments, stripes or orders."""

    instrument: str
    detector: str
    grating: str
    cenwave: int
    aperture: str
    spectra: tuple[tuple[float, float], ...] = ()

    @property
    def is_image(self) -> bool:
        """Say whether it takes images."""
        return not self.spectra

    @property
    def first_column(self) -> int:
        """First detector column with light."""
        return 1000 if self.detector == "FUV" else 0

    @property
    def columns(self) -> int:
        """Detector columns with light."""
        return 14_400 if self.detector == "FUV" else STIS_PIXELS if self.instrument == "STIS" else 1024


SETUPS = {
    "cos_fuv": Setup("COS", "FUV", "G130M", 1291, "PSA", ((1292.0, 1433.0), (1137.0, 1277.0))),
    "cos_fuv_low": Setup("COS", "FUV", "G140L", 1105, "PSA", ((1118.0, 2280.0), (900.0, 1117.0))),
    "cos_nuv": Setup("COS", "NUV", "G185M", 1953, "PSA", ((1825.0, 1860.0), (1927.0, 1962.0), (2028.0, 2063.0))),
    "cos_image": Setup("COS", "NUV", "MIRRORA", 0, "PSA"),
    "stis": Setup("STIS", "FUV-MAMA", "G140L", 1425, "52X0.2", ((1140.0, 1730.0),)),
    "stis_echelle": Setup(
        "STIS", "NUV-MAMA", "E230M", 1978, "0.2X0.2", tuple((1610.0 + 32 * n, 1650.0 + 32 * n) for n in range(20))
    ),
    "stis_image": Setup("STIS", "FUV-MAMA", "MIRFUV", 0, "F25SRF2"),
}


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """An exposure, and what its light does.

    Parameters
    ----------
    length_s
        From the first to the last good time, with gaps.
    gaps
        Start and end of each, seconds.
    rate
        Counts per second that a light curve should have, without background, outside flares, eclipses and waves.
    background
        Counts per second in each row of the detector (STIS: of 2,048), of those that a light curve should count.
    period_s, amplitude
        Of a sine wave, relative to the rate.
    flare
        Start, height relative to the rate, and time of decay, seconds.
    eclipse
        Start, end and depth.
    segments
        Which of COS FUV's there are.
    broken, broken_in
        One of `BROKEN`, and in which segments.
    """

    rootname: str
    setup: str = "cos_fuv"
    association: str | None = None
    target: str = "SOME-STAR"
    ra: float = 10.0
    dec: float = -20.0
    proposal: int = 13_902
    start_mjd: float = 57_934.208_433_87
    length_s: float = 400.0
    gaps: tuple[tuple[float, float], ...] = ()
    rate: float = 30.0
    background: float = 0.01
    period_s: float | None = None
    amplitude: float = 0.5
    flare: tuple[float, float, float] | None = None
    eclipse: tuple[float, float, float] | None = None
    segments: str = "AB"
    fp_pos: int = 3
    is_moving: bool = False
    exptype: str = "EXTERNAL/SCI"
    calibration: str = "3.4.5 (2023-03-15)"
    broken: str | None = None
    broken_in: str = "ABC"
    seed: int = 1
    primary: Mapping[str, Any] = field(default_factory=dict)

    def broken_of(self, segment: str = "") -> str | None:
        """Return how a segment is broken."""
        return self.broken if not segment or segment in self.broken_in else None

    @property
    def of(self) -> Setup:
        """How it was observed."""
        return SETUPS[self.setup]

    @property
    def good_times(self) -> list[tuple[float, float]]:
        """Start and end of each good time interval, seconds."""
        if self.broken == "short":
            return [(0.0, 0.4)]
        edges = [0.0, *(edge for gap in self.gaps for edge in gap), self.length_s]
        return list(zip(edges[::2], edges[1::2], strict=True))

    @property
    def exposure_s(self) -> float:
        """EXPTIME: seconds in good time intervals."""
        return sum(stop - start for start, stop in self.good_times)

    def level(self, times: Array) -> Array:
        """Rate relative to the quiet one, at times in seconds."""
        level = np.ones(len(times))
        if self.period_s is not None:
            level += self.amplitude * np.sin(2 * np.pi * times / self.period_s)
        if self.flare is not None:
            start, height, decay_s = self.flare
            level += np.where(times >= start, height * np.exp(-np.maximum(times - start, 0) / decay_s), 0.0)
        if self.eclipse is not None:
            start, stop, depth = self.eclipse
            level = np.where((times >= start) & (times < stop), level * (1 - depth), level)
        return level

    @property
    def highest(self) -> float:
        """Highest level there can be."""
        return 1 + (self.amplitude if self.period_s else 0.0) + (self.flare[1] if self.flare else 0.0)


Placed = Callable[[Any, int], Array]
Part = tuple[float, bool, Placed]
"""Counts per second, whether they follow the light of the source, and what places so many of them."""


# --- where events fall ---


def wavelength_at(of: Setup, spectrum: tuple[float, float], x: Any) -> Any:
    """Return wavelengths (Angstrom) of columns of the detector."""
    return spectrum[0] + (x - of.first_column) * (spectrum[1] - spectrum[0]) / of.columns


def _pixels(of: Setup, spectrum: tuple[float, float]) -> Array:
    """Columns whose light a light curve uses: away from airglow and from the ends of its wavelengths."""
    x = of.first_column + np.arange(of.columns - 1)
    at, margin = wavelength_at(of, spectrum, x), 0.6
    used = (at > 915.0 + margin) & (at < (1800.0 if of.detector == "FUV" else 3200.0) - margin)
    for low, high in _AIRGLOW:
        used &= (at < low - margin) | (at > high + margin)
    return np.asarray(x[used])


def _lines(of: Setup, spectrum: tuple[float, float]) -> Array:
    """Columns in lines of airglow."""
    x = of.first_column + np.arange(of.columns - 1)
    at = wavelength_at(of, spectrum, x)
    return np.asarray(x[np.any([(at > low) & (at < high) for low, high in _LINES], axis=0)])


def _cos_parts(exposure: Exposure, segment: str) -> Iterator[Part]:
    """Yield what falls on a detector or segment: x, y, wavelength and flag of each event."""
    of, sky = exposure.of, exposure.background * _ROWS_COS
    if of.is_image:
        yield exposure.rate, True, lambda rng, n: np.stack([*rng.normal([[512], [300]], 5, (2, n)), *np.zeros((2, n))])
        yield sky, False, lambda rng, n: np.stack([*rng.uniform(0, 1024, (2, n)), *np.zeros((2, n))])
        return
    names = [segment] if segment else list("ABC"[: len(of.spectra)])
    share = exposure.rate / (len(exposure.segments) if segment else len(names))
    for name in names:
        spectrum, (location, height) = of.spectra["ABC".index(name)], BOXES[of.detector][name][0]

        def source(
            rng: Any,
            n: int,
            columns: Array,
            flags: Sequence[int] = (0,),
            spectrum: Any = spectrum,
            at: Any = (location, height),
        ) -> Array:
            x = rng.choice(columns, n) + rng.random(n)
            y = at[0] + np.clip(rng.normal(0, 5, n), 1 - at[1] / 2, at[1] / 2 - 1)
            return np.stack([x, y, wavelength_at(of, spectrum, x), rng.choice(flags, n)])

        used, lines = _pixels(of, spectrum), _lines(of, spectrum)
        yield share, True, partial(source, columns=used)
        yield 0.05 * share, True, partial(source, columns=used, flags=_FLAGS)
        if len(lines):
            yield 0.3 * share, False, partial(source, columns=lines)

    def background(rng: Any, n: int) -> Array:
        y = rng.uniform(0, _ROWS_COS, n)
        # Of the NUV's stripes each row has the wavelengths of the nearest one.
        nearest = np.abs(y[:, None] - [BOXES[of.detector][name][0][0] for name in names]).argmin(axis=1)
        x, wavelength = np.empty(n), np.empty(n)
        for number, name in enumerate(names):
            mine = nearest == number
            spectrum = of.spectra["ABC".index(name)]
            x[mine] = rng.choice(_pixels(of, spectrum), mine.sum()) + rng.random(mine.sum())
            wavelength[mine] = wavelength_at(of, spectrum, x[mine])
        return np.stack([x, y, wavelength, np.zeros(n)])

    yield sky, False, background


def _cos_rows(rng: Any, times: Array, placed: Array) -> Array:
    order = np.argsort(times, kind="stable")
    x, y, wavelength, flags = placed[:, order]
    rows = np.zeros(len(times), dtype_of(COS_COLUMNS))
    rows["TIME"], rows["WAVELENGTH"], rows["DQ"] = times[order], wavelength, flags
    rows["RAWX"], rows["RAWY"] = np.clip(x, 0, 16_383), np.clip(y, 0, 1023)
    for name in ("XCORR", "XDOPP", "XFULL"):
        rows[name] = x
    for name in ("YCORR", "YFULL"):
        rows[name] = y
    rows["EPSILON"] = rng.uniform(0.95, 1.05, len(times))
    rows["PHA"] = np.where(flags == 512, 30, rng.integers(3, 23, len(times)))
    return rows


def order_row(number: Any) -> Any:
    """Return where an order of an echelle is on the detector."""
    return 80.0 + 95.0 * number


def cos_events(exposure: Exposure, segment: str = "") -> Iterator[Array]:
    """Yield the events of an exposure of COS, of a segment ("A", "B") in the FUV, in their order, some at a time."""
    rng, parts = _generator(exposure, segment), list(_cos_parts(exposure, segment))

    def rows(low: float, high: float) -> Array:
        times = [_drawn(exposure, rng, rate, follows, low, high) for rate, follows, _ in parts]
        placed = [place(rng, len(drawn)) for drawn, (_, _, place) in zip(times, parts, strict=True)]
        return _cos_rows(rng, np.concatenate(times), np.concatenate(placed, axis=1))

    return _chunks(exposure, rows, exposure.broken_of(segment), 1.0)


def stis_events(exposure: Exposure) -> Iterator[Array]:
    """Yield the events of an exposure of STIS in their order, some at a time."""
    return _chunks(exposure, _stis_rows(exposure), exposure.broken, round(1.0 / TICK_S))


def _stis_rows(exposure: Exposure) -> Callable[[float, float], Array]:
    """Return what makes the events of some seconds."""
    of, rng = exposure.of, _generator(exposure)
    columns = [_pixels(of, spectrum) for spectrum in of.spectra]

    def placed(n: int) -> Array:
        if of.is_image:
            return np.asarray(rng.normal(1024, 10, (2, n)))
        order = rng.integers(0, len(columns), n)
        x = np.empty(n)
        for number, used in enumerate(columns):
            x[order == number] = rng.choice(used, int((order == number).sum())) + 1
        centre, half = (order_row(order), 5.0) if len(columns) > 1 else (1024.0, 30.0)
        return np.stack([x, centre + rng.uniform(-half, half, n)])

    def rows(low: float, high: float) -> Array:
        source = _drawn(exposure, rng, exposure.rate, True, low, high)
        sky = _drawn(exposure, rng, exposure.background * STIS_PIXELS, False, low, high)
        anywhere = rng.integers(1, STIS_PIXELS + 1, (2, len(sky)))
        if columns:
            anywhere[0] = rng.choice(np.concatenate(columns), len(sky)) + 1
        found = np.zeros(len(source) + len(sky), dtype_of(STIS_COLUMNS))
        found["TIME"] = np.rint(np.concatenate([source, sky]) / TICK_S)
        found["AXIS1"], found["AXIS2"] = np.concatenate([placed(len(source)), anywhere], axis=1)
        found["DETAXIS1"] = found["AXIS1"]
        return found[np.argsort(found["TIME"], kind="stable")]

    return rows


# --- when they fall ---


def _generator(exposure: Exposure, segment: str = "") -> Any:
    return np.random.default_rng([exposure.seed, *f"{exposure.rootname}{segment}{exposure.calibration}".encode()])


def _drawn(exposure: Exposure, rng: Any, rate: float, follows: bool, low: float, high: float) -> Array:
    """Draw times of events, in no order; those in gaps are left out."""
    highest = exposure.highest if follows else 1.0
    times = rng.uniform(low, high, rng.poisson(rate * highest * (high - low)))
    kept = np.any([(times >= start) & (times < stop) for start, stop in exposure.good_times], axis=0)
    if follows:
        kept &= rng.random(len(times)) * highest < exposure.level(times)
    return np.asarray(times[kept])


def _chunks(
    exposure: Exposure, rows: Callable[[float, float], Array], broken: str | None, second: float
) -> Iterator[Array]:
    """Yield the events of an exposure in their order, a few at a time, broken as it should be."""
    if broken == "no_events":
        return
    length = exposure.good_times[-1][1]
    expected = length * (1.4 * exposure.rate * exposure.highest + exposure.background * STIS_PIXELS)
    edges = np.linspace(0.0, length, 1 + max(1, int(np.ceil(expected / _SLICE))))
    for low, high in pairwise(edges.tolist()):
        found = rows(low, high)
        if broken == "times" and len(found) > 1:
            found["TIME"][[0, -1]] = found["TIME"][[-1, 0]]
        if broken == "singular":
            found["TIME"] = second
        yield found


def timeline(exposure: Exposure) -> Array:
    """Return rows of TIMELINE, of a second each; the Sun rises and sets once an orbit."""
    rows = np.zeros(int(np.ceil(exposure.good_times[-1][1])), dtype_of(TIMELINE_COLUMNS))
    phase = 2 * np.pi * (np.arange(len(rows)) / _ORBIT_S + exposure.start_mjd * 86_400 / _ORBIT_S)
    rows["TIME"], rows["SUN_ALT"] = np.arange(len(rows)), 24 + 90 * np.sin(phase)
    rows["LONGITUDE"], rows["LATITUDE"] = np.degrees(phase) % 360, 28.5 * np.sin(phase)
    rows["LYMAN_ALPHA"], rows["OI_1304"], rows["OI_1356"], rows["DARKRATE"] = 20.0, 2.0, 0.5, 1e-6
    return rows


def dtype_of(columns: Sequence[Column]) -> np.dtype[Any]:
    """Return NumPy's type of rows."""
    return np.dtype([(name, *(kind if isinstance(kind, tuple) else (kind,))) for name, _, kind, _ in columns])
