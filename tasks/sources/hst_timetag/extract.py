"""Bin the events of an exposure: source, background, rates and fluxes.

The rules are those of the Lightcurve Legacy of COS and STIS (HST programme 13902), with its defects mended: the
background is scaled by the rows of both of its regions, gaps are no zeros, and what is not known is NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from lake.errors import GranuleRejected
from tasks.sources.hst_timetag.bins import Bins, bins, exposure_fraction, good_intervals, inside
from tasks.sources.hst_timetag.events import Array, Box, Boxes, EventTable, Photons
from tasks.sources.hst_timetag.options import STEP_S

SECONDS_PER_DAY = 86_400.0

# Lyman alpha and the O I triplet of the Earth's atmosphere, Angstrom: events from the first wavelength to the second
# are left out, both ends included.
AIRGLOW = ((1208.0, 1225.0), (1298.0, 1312.0))

# Angstrom and pixels that are used, if nothing else is asked for.
_WAVELENGTHS = {"FUV": (915.0, 1800.0), "NUV": (915.0, 3200.0), "STIS": (2.0, 10_000.0)}
_COLUMNS = {"COS": (0.0, 16_384.0), "STIS": (0.0, 2048.0)}
# Images have no wavelengths: 0 is between these.
_IMAGE_WAVELENGTHS, _IMAGE_COLUMNS, _IMAGE_ROWS = (-1.0, 1.0), (0.0, 1024.0), (0.0, 512.0)

# What a response to light is: wavelengths of events to events per unit of flux, for a segment.
Response = Callable[[Array], Array]
# What gives STIS events their wavelengths, weights and flags.
Prepared = Callable[[EventTable, Photons], Photons]


@dataclass(frozen=True)
class Selection:
    """Which events are used.

    Parameters
    ----------
    wavelengths
        Angstrom, both ends excluded; None: those of the detector.
    columns
        Pixels along the dispersion, first <= x < second; None: all.
    without_airglow
        Leave out the lines of the Earth's atmosphere.
    step_s
        Length of a bin, seconds.
    sun_below_deg
        Leave out times with the Sun higher than this, degrees; None: leave out none.
    """

    wavelengths: tuple[float, float] | None = None
    columns: tuple[float, float] | None = None
    without_airglow: bool = True
    step_s: float = STEP_S
    sun_below_deg: float | None = None


@dataclass(frozen=True)
class Limits:
    """The limits that were used of an exposure, as its products name them: Angstrom and pixels."""

    wavelengths: tuple[float, float]
    columns: tuple[float, float]
    rows: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """A light curve of an exposure: one row a bin, and the limits that were used."""

    table: pa.Table
    bins: Bins
    limits: Limits
    is_flux_calibrated: bool
    has_background: bool


@dataclass
class _Sums:
    """What is summed over the events of a segment or stripe, bin by bin."""

    grid: Bins
    gross: Array = field(init=False)
    background: Array = field(init=False)
    gross_flux: Array = field(init=False)
    background_flux: Array = field(init=False)
    response: float = 0.0
    events: int = 0
    first_x: float = np.inf
    last_x: float = -np.inf

    def __post_init__(self) -> None:
        for name in ("gross", "background", "gross_flux", "background_flux"):
            setattr(self, name, np.zeros(self.grid.number))


@dataclass(frozen=True)
class Sensitivity:
    """How a segment turns light into events.

    Parameters
    ----------
    response
        Events per second, per unit of flux in erg / s / cm2 / Angstrom and per pixel, by wavelength.
    decline
        What is left of it at the time of the exposure, by wavelength: see the STScI's TDSTAB.
    """

    response: Response
    decline: Response


def extract(
    tables: Sequence[EventTable],
    selection: Selection = Selection(),
    sensitivities: Mapping[str, Sensitivity] | None = None,
    prepared: Prepared | None = None,
) -> Curve:
    """Bin the events of an exposure.

    Parameters
    ----------
    tables
        Its segments: A and B of COS FUV, or one table of all else.
    selection
        Which events are used.
    sensitivities
        By name of segment or stripe. A flux needs all of them; without, it is NULL.
    prepared
        Gives STIS events their wavelengths, weights and flags; None: they have them.

    Returns
    -------
    Curve
        Its table has, bin by bin, times_s (left edge since EXPSTART), mjd (the same, UTC), exposure_fraction, gross,
        background, counts = gross - background, net = counts / step, flux and flux_err in erg / s / cm2 / Angstrom,
        error = sqrt(gross + background), signal_to_noise = gross / error and snr_net = counts / error. Bins that were
        not observed at all, and quotients by 0, are NULL.

    Raises
    ------
    GranuleRejected
        If a COS spectrum has no extraction box.
    """
    limits = _limits(tables, selection)
    grid = bins(tables, selection.step_s)
    sums: dict[str, tuple[_Sums, Boxes | None]] = {}
    fractions = []
    known = sensitivities or {}
    for table in tables:
        observed = good_intervals(table, selection.sun_below_deg)
        fractions.append(exposure_fraction(grid, observed))
        regions = _regions(table)
        for name, boxes in regions.items():
            sums[name] = (_Sums(grid), boxes)
        for chunk in table.chunks():
            photons = _usable(table, chunk, list(regions.values()), limits, selection.without_airglow, prepared)
            at = grid.index(photons.time)
            timely = (at >= 0) & (at < grid.number)
            if observed is not None:
                timely &= inside(photons.time, observed)
            for name in regions:
                one, boxes = sums[name]
                _add(one, boxes, photons, at, timely, known.get(name))
    return _curve(tables, grid, sums, np.min(fractions, axis=0), limits, known)


def _limits(tables: Sequence[EventTable], selection: Selection) -> Limits:
    table = tables[0]
    wavelengths = _WAVELENGTHS.get(table.detector if table.instrument == "COS" else "STIS", _WAVELENGTHS["NUV"])
    columns = _COLUMNS["COS" if table.instrument == "COS" else "STIS"]
    rows = {name: (boxes.source.low, boxes.source.high) for t in tables for name, boxes in _named(t) if boxes}
    if table.is_image:
        wavelengths = _IMAGE_WAVELENGTHS
        if table.instrument == "COS":
            columns, rows = _IMAGE_COLUMNS, {"": _IMAGE_ROWS}
    if table.instrument == "STIS":
        rows = {"": (0.0, 2048.0)}
    if selection.wavelengths is not None and not table.is_image:
        wavelengths = selection.wavelengths
    return Limits(wavelengths, selection.columns or columns, rows)


def _named(table: EventTable) -> list[tuple[str, Boxes | None]]:
    return list(_regions(table).items())


def _regions(table: EventTable) -> dict[str, Boxes | None]:
    """Return the regions of a detector whose events are summed: segments, stripes, or all of it."""
    if table.instrument == "STIS" or table.is_image:
        return {"": None}
    if table.detector == "FUV" and table.segment is not None:
        letter = table.segment[-1]
        boxes = [box for box in table.boxes if box.name == letter]
    else:
        boxes = list(table.boxes)
    if not boxes:
        raise GranuleRejected(f"{table.path.name} has no extraction box: SP_LOC, SP_HGT and those of the background")
    return {box.name: box for box in boxes}


def _usable(
    table: EventTable,
    photons: Photons,
    regions: Sequence[Boxes | None],
    limits: Limits,
    without_airglow: bool,
    prepared: Prepared | None,
) -> Photons:
    """Return the events with good flags, in a region and within the limits.

    Most events of many exposures are in no region, so all else is done for the rest alone.
    """
    if None in regions:
        usable = _in_box(photons.y, Box(*limits.rows[""]))
    else:
        boxes = [box for one in regions if one is not None for box in (one.source, *one.background)]
        usable = _in_box(photons.y, boxes[0])
        for box in boxes[1:]:
            usable |= _in_box(photons.y, box)
    usable &= (photons.quality & table.serious_dq) == 0
    if prepared is not None:
        photons = prepared(table, photons.take(np.flatnonzero(usable)))
        # The flags of a tag file come with its references.
        usable = (photons.quality & table.serious_dq) == 0
    # What has no weight cannot be counted.
    usable &= (photons.weight >= 0) & (photons.weight < np.inf)
    low, high = limits.wavelengths
    wavelength, x = photons.wavelength, photons.x
    usable &= (wavelength > low) & (wavelength < high) & (x >= limits.columns[0]) & (x < limits.columns[1])
    if without_airglow:
        for first, last in AIRGLOW:
            usable &= (wavelength < first) | (wavelength > last)
    return photons.take(np.flatnonzero(usable))


def _in_box(y: Array, box: Box) -> Array:
    return (y >= box.low) & (y < box.high)


def _add(
    sums: _Sums, boxes: Boxes | None, photons: Photons, at: Array, timely: Array, sensitivity: Sensitivity | None
) -> None:
    """Add the events of a region to its sums; `at` is the bin of each, `timely` says whether there is one."""
    number, background = sums.grid.number, None
    if boxes is None:
        source = np.flatnonzero(timely)
    else:
        source = np.flatnonzero(timely & _in_box(photons.y, boxes.source))
        one, other = boxes.background
        background = np.flatnonzero(timely & (_in_box(photons.y, one) | _in_box(photons.y, other)))
    sums.gross += np.bincount(at[source], photons.weight[source], minlength=number)
    if background is not None:
        sums.background += np.bincount(at[background], photons.weight[background], minlength=number)
    if sensitivity is None:
        return
    if len(source):
        x = photons.x[source]
        sums.first_x, sums.last_x = min(sums.first_x, float(x.min())), max(sums.last_x, float(x.max()))
    sums.response += float(sensitivity.response(photons.wavelength[source].astype(np.float64)).sum())
    sums.events += len(source)
    sums.gross_flux += _over_decline(photons, at, source, sensitivity, number)
    if background is not None:
        sums.background_flux += _over_decline(photons, at, background, sensitivity, number)


def _over_decline(photons: Photons, at: Array, rows: Array, sensitivity: Sensitivity, number: int) -> Array:
    """Return the weights of some events, each over what is left of the sensitivity, summed by bin."""
    decline = sensitivity.decline(photons.wavelength[rows].astype(np.float64))
    return np.bincount(at[rows], photons.weight[rows].astype(np.float64) / decline, minlength=number)


def background_scale(boxes: Boxes) -> float:
    """Return how many rows of the source there are for each row of the background, which counts rows of both once."""
    one, other = boxes.background
    common = max(0.0, min(one.high, other.high) - max(one.low, other.low))
    return boxes.source.height / (one.height + other.height - common)


def _curve(
    tables: Sequence[EventTable],
    grid: Bins,
    sums: Mapping[str, tuple[_Sums, Boxes | None]],
    fraction: Array,
    limits: Limits,
    known: Mapping[str, Sensitivity],
) -> Curve:
    gross, background, flux = np.zeros(grid.number), np.zeros(grid.number), np.zeros(grid.number)
    has_background = all(boxes is not None for _, boxes in sums.values())
    is_calibrated = bool(known) and all(name in known for name in sums)
    for one, boxes in sums.values():
        scale = background_scale(boxes) if boxes is not None else 0.0
        gross += one.gross
        background += scale * one.background
        if is_calibrated and one.events:
            # The published rule: the mean over the pixels that have events, at the mean response of the source.
            first, last = max(one.first_x, limits.columns[0]), min(one.last_x, limits.columns[1])
            pixels = round(last) - round(first) + 1
            mean = one.response / one.events
            flux += (one.gross_flux - scale * one.background_flux) / (grid.step_s * mean * pixels)
    counts = gross - background
    error = np.sqrt(gross + background)
    observed = fraction > 0
    times = grid.left
    columns: dict[str, Array | None] = {
        "gross": gross,
        "background": background if has_background else None,
        "counts": counts,
        "net": counts / grid.step_s,
        "flux": flux if is_calibrated else None,
        "error": error,
        "flux_err": _quotient(error * np.abs(flux), np.abs(counts)) if is_calibrated else None,
        "signal_to_noise": _quotient(gross, error),
        "snr_net": _quotient(counts, error),
    }
    arrays = {name: _nullable(values, observed) for name, values in columns.items()}
    known_of_all = {
        "times_s": pa.array(times),
        "mjd": pa.array(tables[0].expstart_mjd + times / SECONDS_PER_DAY),
        "exposure_fraction": pa.array(fraction),
    }
    return Curve(pa.table({**known_of_all, **arrays}), grid, limits, is_calibrated, has_background)


def _quotient(above: Array, below: Array) -> Array:
    quotient: Array = np.divide(above, below, out=np.full(len(above), np.nan), where=below != 0)
    return quotient


def _nullable(values: Array | None, observed: Array) -> pa.Array:
    if values is None:
        return pa.nulls(len(observed), pa.float64())
    return pa.array(values, mask=~(observed & np.isfinite(values)))
