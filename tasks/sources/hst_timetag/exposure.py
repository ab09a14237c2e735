"""Extract an exposure of the files that it consists of: its segments together, judged before anything is counted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lake.errors import GranuleRejected
from tasks.sources.hst_timetag.bins import exposure_fraction
from tasks.sources.hst_timetag.events import EventTable, open_events
from tasks.sources.hst_timetag.extract import Curve, Prepared, Selection, Sensitivity, extract
from tasks.sources.hst_timetag.quality import reasons
from tasks.sources.hst_timetag.reference import sensitivities
from tasks.sources.hst_timetag.stis import preparation

# What files of an exposure are called: ROOTNAME_SUFFIX.fits, perhaps packed. COS FUV has a file for each segment.
_NAME = re.compile(
    r"(?P<rootname>[A-Za-z0-9]+)_(?P<suffix>corrtag_a|corrtag_b|corrtag|tag|x1d)\.fits(\.gz)?", re.IGNORECASE
)
EVENT_SUFFIXES = ("corrtag_a", "corrtag_b", "corrtag", "tag")
SUFFIXES = (*EVENT_SUFFIXES, "x1d")

# Segments of an exposure begin within a second.
_TOGETHER_DAYS = 1 / 86_400


def split_name(name: str) -> tuple[str, str] | None:
    """Return rootname and suffix of a file, in small letters; None if it is of no use here.

    Examples
    --------
    >>> split_name("LDFD01VNQ_corrtag_a.fits"), split_name("ldfd01010_x1dsum.fits")
    (('ldfd01vnq', 'corrtag_a'), None)
    """
    found = _NAME.fullmatch(name)
    return (found["rootname"].lower(), found["suffix"].lower()) if found else None


@dataclass(frozen=True)
class Exposure:
    """An exposure whose files are open.

    Parameters
    ----------
    tables
        Of its segments, A before B; one of all else.
    x1d
        Its extracted spectrum, which STIS's events get their wavelengths from.
    environment
        Says where reference files are: lref and oref.
    """

    tables: tuple[EventTable, ...]
    x1d: Path | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    @property
    def first(self) -> EventTable:
        """Return the table whose header speaks for the exposure."""
        return self.tables[0]

    @property
    def exposure_id(self) -> str:
        """Return its rootname."""
        return self.first.exposure_id

    @property
    def is_science(self) -> bool:
        """Say whether it is of the sky: not a lamp's, nor a calibration's."""
        return all(table.is_science for table in self.tables)

    def check(self) -> None:
        """See that it makes a light curve.

        Raises
        ------
        GranuleRejected
            If not; the message has all reasons, the first one first.
        """
        if found := reasons(self.tables):
            raise GranuleRejected("; ".join(found))

    @cached_property
    def sensitivities(self) -> dict[str, Sensitivity]:
        """Return the sensitivities of its segments or stripes, by name, where reference files have them."""
        return {name: one for table in self.tables for name, one in sensitivities(table, self.environment).items()}

    @cached_property
    def prepared(self) -> Prepared | None:
        """Return what gives events their wavelengths, weights and flags; None if they have them."""
        if self.first.kind != "stis_tag":
            return None
        return preparation(self.first, self.x1d, self.environment)[0]

    def curve(self, selection: Selection) -> Curve:
        """Bin its events.

        Raises
        ------
        GranuleRejected
            If it is shorter than a bin, or a COS spectrum has no extraction box.
        """
        curve = extract(self.tables, selection, self.sensitivities, self.prepared)
        if not curve.bins.number:
            raise GranuleRejected(f"Short Exposure: its events span less than a bin of {selection.step_s:g} s")
        if not exposure_fraction(curve.bins, self.first.good_times).any():
            raise GranuleRejected("Short Exposure: GTI has no good time while there are events")
        return curve


@contextmanager
def open_exposures(files: Sequence[Path], environment: Mapping[str, str] = os.environ) -> Iterator[list[Exposure]]:
    """Open the exposures that some files of one rootname have: one, but for STIS files of several.

    Parameters
    ----------
    files
        Event files, and the extracted spectrum.

    Raises
    ------
    GranuleRejected
        If there is no event file, or one that cannot be read.
    """
    by_suffix = {parts[1]: path for path in files if (parts := split_name(path.name))}
    events = [by_suffix[suffix] for suffix in EVENT_SUFFIXES if suffix in by_suffix]
    if not events:
        raise GranuleRejected(f"no event file among {', '.join(path.name for path in files) or 'no files'}")
    if "corrtag" in by_suffix and "tag" in by_suffix:  # made of it
        events.remove(by_suffix["tag"])
    with ExitStack() as stack:
        tables = [table for path in events for table in stack.enter_context(open_events(path))]
        if len(events) > 1:  # segments of one exposure, whatever each says of its name
            same = tuple(replace(table, exposure_id=tables[0].exposure_id) for table in tables)
            _check_together(tables)
            yield [Exposure(same, environment=environment)]
        else:
            yield [Exposure((table,), by_suffix.get("x1d"), environment) for table in tables]


def _check_together(tables: Sequence[EventTable]) -> None:
    """See that tables are the segments of one exposure."""
    first, names = tables[0], " and ".join(table.path.name for table in tables)
    segments = [table.segment for table in tables if table.segment is not None]
    if len(set(segments)) < len(segments):
        raise GranuleRejected(f"{names} are of the same segment, {first.segment}")
    for table in tables[1:]:
        if abs(table.expstart_mjd - first.expstart_mjd) > _TOGETHER_DAYS:
            raise GranuleRejected(f"{names} began at different times: MJD {first.expstart_mjd}, {table.expstart_mjd}")
        for name in ("instrument", "detector", "target_name", "grating", "cenwave", "aperture"):
            if getattr(table, name) != getattr(first, name):
                raise GranuleRejected(f"{names} differ: {name} is {getattr(first, name)}, {getattr(table, name)}")


@contextmanager
def open_exposure(
    files: Sequence[Path], exposure_id: str, environment: Mapping[str, str] = os.environ
) -> Iterator[Exposure]:
    """Open one exposure of some files of one rootname.

    Raises
    ------
    GranuleRejected
        If a file cannot be read, or none has the exposure.
    """
    with open_exposures(files, environment) as found:
        mine = [one for one in found if one.exposure_id == exposure_id]
        if not mine:
            raise GranuleRejected(f"{', '.join(path.name for path in files)}: no exposure {exposure_id}")
        yield mine[0]
