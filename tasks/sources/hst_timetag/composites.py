"""Put the exposures of a target in one configuration together, over the wavelengths that all of them have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import GranuleRejected
from tasks.sources.hst_timetag.events import EventTable
from tasks.sources.hst_timetag.exposure import Exposure
from tasks.sources.hst_timetag.extract import Curve, Selection, extract

# Angstrom, both ends excluded: events beyond do not count when the common range is looked for.
_HARD_LIMITS = {("COS", "FUV"): (912.0, 1800.0)}
_OTHER_LIMITS = (912.0, 9000.0)

NO_VALID_EVENTS, NO_BINS = "No valid events", "No bins"

PUBLISHED = Selection()

MEMBERS = pa.schema(
    {
        "dataset": pa.int32(),
        "exposure_id": pa.string(),
        "mjd_start": pa.float64(),
        "bins": pa.int64(),
        "has_empty_bin": pa.bool_(),
        "wavelength_min": pa.float64(),
        "wavelength_max": pa.float64(),
        "flux_calibrated": pa.bool_(),
        "reason": pa.string(),
    }
)


@dataclass(frozen=True, order=True)
class Group:
    """What the exposures of a composite have in common."""

    instrument: str
    detector: str
    target: str
    grating: str
    cenwave: int
    aperture: str

    @classmethod
    def of(cls, table: EventTable, target: str) -> Group:
        """Return the group of an exposure; `target` is the canonical name of what it observed."""
        return cls(table.instrument, table.detector, target, table.grating, table.cenwave, table.aperture)

    @property
    def source_id(self) -> str:
        """Return the id of its composite."""
        return (
            f"{self.instrument}-{self.detector}_{self.target}_{self.grating}_{self.cenwave}_{self.aperture}"
        ).lower()


@dataclass(frozen=True)
class Member:
    """An exposure of a composite, and how to open its files."""

    exposure_id: str
    open: Callable[[], AbstractContextManager[Exposure]]


@dataclass(frozen=True)
class Composite:
    """Light curves of the exposures of a group, over common wavelengths.

    Parameters
    ----------
    first
        What the header of the first exposure says, without its events.
    curves
        Rootname and light curve of each exposure that has bins, in order of time.
    members
        One row an exposure, in order of time: columns of `MEMBERS`. `dataset` is NULL and `reason` says why for those
        that have no light curve. `has_empty_bin`: a bin that was observed has no event.
    wavelengths
        Common limits, Angstrom; None for images.
    """

    first: EventTable
    curves: tuple[tuple[str, Curve], ...]
    members: pa.Table
    wavelengths: tuple[float, float] | None


def has_empty_bin(curve: Curve) -> bool:
    """Say whether a bin that was observed has no event at all."""
    return bool(pc.any(pc.equal(curve.table["gross"], 0.0)).as_py())


def wavelength_range(opened: Exposure) -> tuple[float, float] | None:
    """Return the shortest and the longest wavelength of the good events of an exposure, of all its segments.

    Events of images have wavelength 0. None if there is no good event.
    """
    shortest, longest = np.inf, -np.inf
    serious = int(np.bitwise_or.reduce([table.serious_dq for table in opened.tables]))
    for table in opened.tables:
        low, high = _HARD_LIMITS.get((table.instrument, table.detector), _OTHER_LIMITS)
        for chunk in table.chunks():
            photons = chunk if opened.prepared is None else opened.prepared(table, chunk)
            good = ((photons.quality & serious) == 0) & (photons.x >= 0) & (photons.y >= 0)
            if not table.is_image:
                good &= (photons.wavelength > low) & (photons.wavelength < high)
            wavelengths = photons.wavelength[good]
            if len(wavelengths):
                shortest = min(shortest, float(wavelengths.min()))
                longest = max(longest, float(wavelengths.max()))
    return (shortest, longest) if shortest <= longest else None


@dataclass(frozen=True)
class _Looked:
    """Result of the first pass over a member."""

    member: Member
    mjd_start: float | None = None
    is_image: bool = False
    wavelengths: tuple[float, float] | None = None
    reason: str | None = None


def composite(members: Sequence[Member], selection: Selection = PUBLISHED) -> Composite:
    """Extract the exposures of a group again, over the wavelengths that all of them have.

    The files of one exposure are open at a time. Exposures are numbered from 1 in order of time. One that cannot be
    used is left out, with a reason.

    Parameters
    ----------
    members
        Exposures of one group.
    selection
        Which events are used; the common wavelengths replace its own.

    Raises
    ------
    GranuleRejected
        If no exposure can be used, or if their wavelengths have nothing in common.
    """
    looked = sorted((_look(member) for member in members), key=_order)
    used = [one for one in looked if one.reason is None]
    if not used:
        reasons = ", ".join(f"{one.member.exposure_id}: {one.reason}" for one in looked)
        raise GranuleRejected(f"no exposure of the composite can be used ({reasons})")
    common = _common(used)
    first: EventTable | None = None
    curves: list[tuple[str, Curve]] = []
    rows: list[dict[str, object]] = []
    for one in looked:
        row = _member_row(one)
        if one.reason is None:
            try:
                with one.member.open() as opened:
                    chosen = replace(selection, wavelengths=common)
                    curve = extract(opened.tables, chosen, opened.sensitivities, opened.prepared)
                    header = opened.first.without_events
            except GranuleRejected as error:
                row["reason"] = str(error)
            else:
                row |= {
                    "bins": curve.bins.number,
                    "has_empty_bin": has_empty_bin(curve),
                    "flux_calibrated": curve.is_flux_calibrated,
                }
                if curve.bins.number:
                    first = first or header
                    curves.append((one.member.exposure_id, curve))
                    row["dataset"] = len(curves)
                else:
                    row["reason"] = NO_BINS
        rows.append(row)
    if first is None:
        reasons = ", ".join(f"{row['exposure_id']}: {row['reason']}" for row in rows)
        raise GranuleRejected(f"no exposure of the composite can be used ({reasons})")
    return Composite(first, tuple(curves), pa.Table.from_pylist(rows, MEMBERS), common)


def _look(member: Member) -> _Looked:
    try:
        with member.open() as opened:
            first, found = opened.tables[0], wavelength_range(opened)
            reason = NO_VALID_EVENTS if found is None else None
            return _Looked(member, first.expstart_mjd, first.is_image, found, reason)
    except GranuleRejected as error:
        return _Looked(member, reason=str(error))


def _order(one: _Looked) -> tuple[float, str]:
    return (np.inf if one.mjd_start is None else one.mjd_start, one.member.exposure_id)


def _common(used: Sequence[_Looked]) -> tuple[float, float] | None:
    """Return the common wavelengths of members.

    An exposure whose events all have one wavelength, such as one of STIS without an extracted spectrum, limits nothing.
    """
    ranges = {
        one.member.exposure_id: one.wavelengths
        for one in used
        if not one.is_image and one.wavelengths is not None and one.wavelengths[0] < one.wavelengths[1]
    }
    if not ranges:
        return None
    shortest, longest = max(low for low, _ in ranges.values()), min(high for _, high in ranges.values())
    if not shortest < longest:
        named = ", ".join(f"{name} {low:.1f} to {high:.1f}" for name, (low, high) in ranges.items())
        raise GranuleRejected(f"the exposures have no wavelength in common, in Angstrom: {named}")
    return shortest, longest


def _member_row(one: _Looked) -> dict[str, object]:
    low, high = one.wavelengths if one.wavelengths is not None and not one.is_image else (None, None)
    return {
        "dataset": None,
        "exposure_id": one.member.exposure_id,
        "mjd_start": one.mjd_start,
        "bins": 0,
        "has_empty_bin": False,
        "wavelength_min": low,
        "wavelength_max": high,
        "flux_calibrated": False,
        "reason": one.reason,
    }
