"""Find RXTE's observations of targets in HEASARC's table xtemaster: over TAP, or in a copy of its rows.

The service joins the uploaded targets with its table; the angle on the sphere, computed here, then decides which
observation is within the radius of which target. Rows of proposals that were never observed are unusable.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from lake.errors import ConfigurationError, GranuleRejected
from lake.science.sky import hpx29, match, ranks
from lake.settings import Settings
from tasks.services.tap import Service
from tasks.services.values import integers, places
from tasks.sources import heasarc
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.mission import Observation, archive_paths, parse_obsid
from tasks.sources.rxte.options import RADIUS_DEG

TABLE = "xtemaster"

# The service searches a little more than the radius, since it rounds in its own way; the angle here decides.
_PAD_DEG = 1e-4

# Larger batches run as jobs, for which services allow more time.
_SYNC_TARGETS = 1000

_COLUMNS = {
    "target_name": pa.string(),
    "cycle": pa.int64(),
    "prnb": pa.string(),
    "obsid": pa.string(),
    "time": pa.float64(),
    "exposure": pa.float64(),
    "ra": pa.float64(),
    "dec": pa.float64(),
}
_REQUIRED = ("obsid", "time", "exposure", "ra", "dec")

_FOUND = pa.schema(
    [
        ("target_id", pa.int64()),
        ("obsid", pa.string()),
        ("target_name", pa.string()),
        ("cycle", pa.int64()),
        ("prnb", pa.string()),
        ("mjd_start", pa.float64()),
        ("exposure_s", pa.float64()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("separation_arcsec", pa.float64()),
        ("is_slew", pa.bool_()),
        ("is_scan", pa.bool_()),
        ("path", pa.string()),
    ]
)


@dataclass(frozen=True)
class Found:
    """Rows of xtemaster near some targets.

    Parameters
    ----------
    observations
        A row per target and observation, each once, by target and time: target_id, obsid, target_name, cycle, prnb,
        mjd_start (MJD, UTC), exposure_s (NULL for slews and scans), ra and dec (ICRS degrees), separation_arcsec,
        is_slew, is_scan, path (below the archive's root).
    unusable
        Rows without an observation that can be pulled, by target: target_id, the columns of xtemaster,
        separation_arcsec and reason.
    """

    observations: pa.Table
    unusable: pa.Table

    def without_slews(self) -> Found:
        """Return it without the slews to and from targets."""
        return Found(self.observations.filter(pc.invert(self.observations["is_slew"])), self.unusable)

    def limited(self, limit: int | None) -> Found:
        """Return it with only the first observations of each target; None: all."""
        if limit is None:
            return self
        number = ranks(self.observations["target_id"].to_numpy())
        return Found(self.observations.filter(pa.array(number <= limit)), self.unusable)

    def each(self) -> list[Observation]:
        """Return each observation once, in order of time."""
        once: dict[str, Observation] = {}
        for row in self.observations.sort_by([("mjd_start", "ascending"), ("obsid", "ascending")]).to_pylist():
            facts = {name: row[name] for name in Observation.__dataclass_fields__}
            once.setdefault(row["obsid"], Observation(**facts))
        return list(once.values())

    def matches(self) -> pa.Table:
        """Return rows of table matches, without archive, release and granule: an observation is a source."""
        found = self.observations
        order = [(name, "ascending") for name in ("target_id", "separation_arcsec", "mjd_start", "obsid")]
        found = found.sort_by(order)
        return pa.table(
            {
                "target_id": found["target_id"],
                "source_id": found["obsid"],
                "hpx29": hpx29(found["ra"].to_numpy(), found["dec"].to_numpy()),
                "separation_arcsec": found["separation_arcsec"],
                "rank": pa.array(ranks(found["target_id"].to_numpy())),
            }
        )


def find(targets: pa.Table, settings: Settings, *, radius_deg: float = RADIUS_DEG) -> Found:
    """Find the observations of targets in HEASARC's xtemaster, by upload join.

    Parameters
    ----------
    targets
        Columns target_id, ra and dec, ICRS degrees.
    settings
        LIGHTLAKE_ENDPOINTS__HEASARC, if it is not the public service, and time-outs.
    radius_deg
        Largest angle between target and observation, degrees.

    Raises
    ------
    ArchiveError
        If the service does not answer, or answers wrongly.
    TruncatedAnswer
        If the answer was cut short: ask for fewer targets.
    ConfigurationError
        If the radius is out of range.
    """
    check_radius(radius_deg)
    endpoint = settings.endpoints.get(heasarc.SERVICE, heasarc.ENDPOINT)
    service = Service(rxte.NAME, endpoint, settings.timeout_s, settings.task_timeout_s, heasarc.CAP)
    upload = targets.select(["target_id", "ra", "dec"])
    answer = service.query(
        adql(radius_deg), {"targets": upload}, maxrec=heasarc.CAP, asynchronous=upload.num_rows > _SYNC_TARGETS
    )
    return select(targets, answer, radius_deg=radius_deg)


def check_radius(radius_deg: float) -> None:
    """Raise a ConfigurationError if a radius is out of range."""
    if not 0 < radius_deg <= 5:
        raise ConfigurationError(f"radius_deg cannot be {radius_deg:g}", hint="0 to 5 degrees; default: 0.1")


def adql(radius_deg: float) -> str:
    """Return the query for uploaded targets. `time` is a reserved word in ADQL, and quoted."""
    columns = ", ".join(f'e."{name}"' if name == "time" else f"e.{name}" for name in _COLUMNS)
    around = f"CIRCLE('ICRS', t.ra, t.dec, {radius_deg + _PAD_DEG:.6f})"
    return (
        f"SELECT t.target_id, {columns}\nFROM {TABLE} AS e, tap_upload.targets AS t\n"
        f"WHERE 1 = CONTAINS(POINT('ICRS', e.ra, e.dec), {around})"
    )


def read_csv(path: str) -> pa.Table:
    """Read rows of xtemaster that were saved as CSV, in any order of columns.

    Raises
    ------
    GranuleRejected
        If a required column is missing, or has another type.
    """
    from upath import UPath  # which takes longer to load than many a query

    try:
        with UPath(path).open("rb") as file:
            text = csv.ConvertOptions(
                column_types={"prnb": pa.string(), "obsid": pa.string()}, strings_can_be_null=True
            )
            return _typed(csv.read_csv(file, convert_options=text))
    except pa.ArrowInvalid as error:
        raise GranuleRejected(f"{path} is no table of observations: {error}") from error


def select(targets: pa.Table, rows: pa.Table, *, radius_deg: float = RADIUS_DEG) -> Found:
    """Find the observations of targets among rows of xtemaster.

    Parameters
    ----------
    targets
        Columns target_id, ra and dec, ICRS degrees.
    rows
        Of xtemaster, in any number of copies. Without a column cycle the path follows from the proposal's number.
    radius_deg
        Largest angle between target and observation, degrees.

    Raises
    ------
    GranuleRejected
        If a required column is missing.
    """
    check_radius(radius_deg)
    rows = _typed(rows)
    # The join has a row for each nearby target; a copy of the table may have repeated rows.
    rows = rows.group_by(rows.column_names, use_threads=False).aggregate([])
    t, e, separation = match(_floats(targets, "ra"), _floats(targets, "dec"), *places(rows), radius_deg * 3600)
    reasons = [_reason(row) for row in rows.select(["obsid", "time", "exposure"]).to_pylist()]
    times = Counter(row for row, reason in zip(rows["obsid"].to_pylist(), reasons, strict=True) if reason is None)
    twice = [reason is None and times[row] > 1 for row, reason in zip(rows["obsid"].to_pylist(), reasons, strict=True)]
    reasons = ["several rows, and they differ" if odd else reason for odd, reason in zip(twice, reasons, strict=True)]
    usable = np.array([reason is None for reason in reasons], bool)
    ids = targets["target_id"].to_numpy()[t]
    pairs = rows.take(pa.array(e)).add_column(0, "target_id", pa.array(ids, pa.int64()))
    pairs = pairs.append_column("separation_arcsec", pa.array(separation, pa.float64()))
    order = [("target_id", "ascending"), ("time", "ascending"), ("obsid", "ascending")]
    unusable = pairs.append_column("reason", pa.array([reasons[row] for row in e], pa.string()))
    unusable = unusable.filter(pa.array(~usable[e])).sort_by(order)
    return Found(_observations(pairs.filter(pa.array(usable[e])).sort_by(order)), unusable)


def _observations(pairs: pa.Table) -> pa.Table:
    parsed = [parse_obsid(obsid) for obsid in pairs["obsid"].to_pylist()]
    where = zip(pairs["obsid"].to_pylist(), pairs["cycle"].to_pylist(), pairs["prnb"].to_pylist(), strict=True)
    # An exposure of 0 is none: slews and scans have no exposure.
    known = pc.and_(pc.greater(pairs["exposure"], 0), pc.is_finite(pairs["exposure"]))
    exposure = pc.if_else(known, pairs["exposure"], pa.scalar(None, pa.float64()))
    return (
        pa.table(
            {
                **{name: pairs[name] for name in ("target_id", "obsid", "target_name", "cycle", "prnb", "ra", "dec")},
                "mjd_start": pairs["time"],
                "exposure_s": exposure,
                "separation_arcsec": pairs["separation_arcsec"],
                "is_slew": pa.array([one.is_slew for one in parsed], pa.bool_()),
                "is_scan": pa.array([one.is_scan for one in parsed], pa.bool_()),
                "path": pa.array([archive_paths(*one)[0] for one in where], pa.string()),
            }
        )
        .select(_FOUND.names)
        .cast(_FOUND)
    )


def _reason(row: dict[str, Any]) -> str | None:
    """Return why a row of xtemaster is unusable; None if it is an observation."""
    if row["obsid"] is None or row["time"] is None:
        return "accepted, not observed"
    if not rxte.GAIN_EPOCHS[0][1] <= row["time"] <= rxte.END_MJD:
        return "not at a time of the mission"
    if not re.fullmatch(r"[0-9]{5}(-[0-9]{2}){3}[0-9A-Z]?", row["obsid"]):
        return "not an ObsID"
    # Parts of an observation that end in a letter have no exposure there.
    if not row["exposure"] and not row["obsid"][-1].isalpha():
        return "no exposure"
    return None


def _typed(rows: pa.Table) -> pa.Table:
    """Return the required columns in their types; empty text, and a missing optional column, become NULL."""
    absent = [name for name in _REQUIRED if name not in rows.column_names]
    if absent:
        raise GranuleRejected(f"rows of {TABLE} lack {', '.join(absent)}")
    try:
        columns = {
            name: _as(_trimmed(rows[name]), kind) if name in rows.column_names else pa.nulls(rows.num_rows, kind)
            for name, kind in _COLUMNS.items()
        }
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise GranuleRejected(f"rows of {TABLE}: {error}") from error
    # As a number it lost its leading zeros.
    columns["prnb"] = pc.utf8_lpad(columns["prnb"], 5, "0")
    return pa.table(columns)


def _as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return integers(column) if pa.types.is_integer(kind) else column.cast(kind)


def _trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_string(column.type):
        return column
    text = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table[name].cast(pa.float64()).to_numpy(), np.float64)
