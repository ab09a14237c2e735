"""An exposure's photons as rows of the lake: its bins, what it is, its statistics, and a light curve as all have it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.commit.ledger import canonical
from lake.commit.sound import sound
from lake.commit.staging import joined
from lake.errors import GranuleRejected
from lake.model.declared import table_named
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from lake.science.times import to_bmjd_tdb
from tasks.sources.hst_timetag.composites import has_empty_bin
from tasks.sources.hst_timetag.events import Array, EventTable
from tasks.sources.hst_timetag.exposure import Exposure
from tasks.sources.hst_timetag.extract import SECONDS_PER_DAY, Curve
from tasks.sources.hst_timetag.tables import COMPOSITE, ORIGIN, UNIT, band_of
from tasks.sources.hst_timetag.variability import BANDS, bands, is_periodic, statistics
from tasks.sources.statistics import statistics_of_sorted

# Events of a segment in a part of table events.
EVENTS = 1 << 17


@dataclass(frozen=True)
class Made:
    """A light curve that is to go into the lake.

    Parameters
    ----------
    source_id
        Rootname of the exposure, or name of the composite.
    product
        exposure or composite.
    first
        Its first event table: what the headers say.
    canonical_name
        Name of the target by which composites are made.
    exposures
        Rootname of each exposure, in order of time, with its curve.
    files
        That an exposure was read from, by name, with what finds them again.
    parameters
        How it was extracted.
    """

    source_id: str
    product: str
    first: EventTable
    canonical_name: str
    exposures: Sequence[tuple[str, Curve]]
    files: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


def bin_rows(exposures: Sequence[tuple[str, Curve]], product: str) -> pa.Table:
    """Return the bins of some exposures, by rootname in order of time, with columns of table hst_bins beside them."""
    parts = []
    for number, (exposure_id, curve) in enumerate(exposures, start=1):
        n = curve.table.num_rows
        front = {
            "product": pa.repeat(product, n),
            "dataset": pa.repeat(pa.scalar(number, pa.int32()), n),
            "exposure_id": pa.repeat(exposure_id, n),
            "bin_s": pa.repeat(curve.bins.step_s, n),
        }
        parts.append(pa.table({**front, **{name: curve.table[name] for name in curve.table.column_names}}))
    return pa.concat_tables(parts)


def tables_of(made: Made, granule: str) -> dict[str, pa.Table]:
    """Return the rows of the lake of a light curve, by table.

    A composite has no light curve of its own in the lake: its exposures have theirs.

    Raises
    ------
    GranuleRejected
        If no header says where HST pointed.
    """
    ra, dec = _position(made.first)
    keys = {
        "archive": ORIGIN.name,
        "release": ORIGIN.release,
        "source_id": made.source_id,
        "hpx29": int(hpx29(ra, dec)),
        "granule": granule,
    }
    rows, source = bin_rows(made.exposures, made.product), {"ra": ra, "dec": dec}
    tables = {
        "hst_bins": _with(rows, keys),
        "hst_exposures": _one_row(_facts(made, rows), keys),
        "hst_statistics": _one_row(_statistics(made, rows), keys),
    }
    if made.product == COMPOSITE:
        tables["sources"] = _one_row({**source, "left_out": COMPOSITE}, keys)
    else:
        tables["sources"] = _one_row(source, keys)
        tables["exposures"] = _exposure(made, keys)
        tables["lightcurves"] = light = _light_curve(made, rows, keys)
        if light.num_rows:
            tables["statistics"] = statistics_of_sorted(light)
    # Rows of different exposures are joined: all of them have all columns.
    return {name: table if name == "lightcurves" else table_named(name).cast(table) for name, table in tables.items()}


def joined_tables(parts: Sequence[Mapping[str, pa.Table]]) -> dict[str, pa.Table]:
    """Return the rows of several exposures together, by table."""
    names = dict.fromkeys(name for tables in parts for name in tables)
    return {name: joined([tables[name] for tables in parts if name in tables]) for name in names}


def event_parts(exposure: Exposure, sources: pa.Table) -> Iterator[pa.Table]:
    """Yield all events of an exposure as rows of table events, in order of time, `EVENTS` of a segment at a time.

    Parameters
    ----------
    sources
        Rows of table sources, with the exposure's among them.
    """
    names = ("archive", "release", "source_id", "hpx29", "granule")
    (keys,) = sources.filter(pc.equal(sources["source_id"], exposure.exposure_id)).select(names).to_pylist()
    for part in _in_time_order([_events(exposure, table) for table in exposure.tables]):
        cleaned, _ = sound({"events": _with(part, {**keys, "exposure_id": exposure.exposure_id})})
        yield table_named("events").cast(cleaned["events"])


def _in_time_order(segments: Sequence[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """Merge parts of several segments, each in order of time."""
    going, held = dict(enumerate(segments)), dict[int, pa.Table]()
    while going or held:
        for number in list(going):
            if number not in held:
                part = next(going[number], None)
                if part is None:
                    del going[number]
                else:
                    held[number] = part
        # Until then no segment has a further event.
        until = min((held[number]["time_s"][-1].as_py() for number in going), default=np.inf)
        parts = []
        for number, part in list(held.items()):
            n = int(np.searchsorted(_values(part, "time_s"), until, side="right"))
            parts.append(part.slice(0, n))
            held[number] = part.slice(n)
            if n == part.num_rows:
                del held[number]
        merged = joined(parts) if parts else None
        if merged is not None and merged.num_rows:
            yield merged.sort_by("time_s") if len(segments) > 1 else merged


def _events(exposure: Exposure, table: EventTable) -> Iterator[pa.Table]:
    has_pha, first = "PHA" in table.events.names, 0
    for chunk in table.chunks(EVENTS):
        photons = chunk if exposure.prepared is None else exposure.prepared(table, chunk)
        n = len(photons)
        pha = table.events.values("PHA", slice(first, first + n), np.int32) if has_pha else None
        first += n
        part = pa.table(
            {
                "time_s": photons.time.astype(np.float64),
                **{name: getattr(photons, name).astype(np.float32) for name in ("x", "y", "wavelength", "weight")},
                "dq": photons.quality.astype(np.int32),
                "pha": pa.nulls(n, pa.int32()) if pha is None else pa.array(pha),
            }
        )
        yield _with(part, {"segment": table.segment or table.detector})


def _values(rows: pa.Table, name: str) -> Array:
    values: Array = rows[name].to_numpy(zero_copy_only=False).astype(float)
    return values


def _position(first: EventTable) -> tuple[float, float]:
    if first.ra is None or first.dec is None:
        raise GranuleRejected(f"{first.path.name} does not say where HST pointed: RA_TARG and DEC_TARG")
    if not (0 <= first.ra <= 360 and -90 <= first.dec <= 90):
        raise GranuleRejected(f"{first.path.name}: RA_TARG {first.ra:g} and DEC_TARG {first.dec:g} are no position")
    return first.ra, first.dec


def _light_curve(made: Made, rows: pa.Table, keys: Mapping[str, Any]) -> pa.Table:
    """Return the rows of table lightcurves: bins of which something was observed."""
    first, fraction = made.first, _values(rows, "exposure_fraction")
    ra, dec = _position(first)
    rows = rows.filter(pa.array(fraction > 0))
    fraction, n, step_s = fraction[fraction > 0], rows.num_rows, made.exposures[0][1].bins.step_s
    if not n:
        return TABLES["lightcurves"].empty()
    observed_s = step_s * fraction
    mjd = _values(rows, "mjd") + step_s / 2 / SECONDS_PER_DAY
    counts, error, background = (_values(rows, name) for name in ("counts", "error", "background"))
    numbers = {
        "flux": counts / observed_s,
        "flux_err": error / observed_s,
        "counts": counts,
        "background": background / observed_s,
        "exposure_s": observed_s,
    }
    table = pa.table(
        {
            "band": [band_of(first.instrument, first.detector, first.grating)] * n,
            "mjd": mjd,
            "bmjd_tdb": to_bmjd_tdb(mjd, ra, dec, scale="utc", frame="geocentre"),
            "unit": [UNIT] * n,
            "detected": [True] * n,
            "good": fraction >= 1,
            "exposure_id": rows["exposure_id"],
            **{name: pa.array(values.astype(np.float32), from_pandas=True) for name, values in numbers.items()},
        }
    )
    return _with(table, keys)


def _exposure(made: Made, keys: Mapping[str, Any]) -> pa.Table:
    """Return the row of table exposures."""
    first = made.first
    details = {
        "target_name": first.target_name,
        "instrument": first.instrument,
        "detector": first.detector,
        "grating": first.grating,
        "cenwave": first.cenwave,
        "aperture": first.aperture,
        "proposal": first.proposal,
    }
    known = {name: value for name, value in keys.items() if name not in ("source_id", "hpx29")}
    row = {
        "exposure_id": made.source_id,
        "band": band_of(first.instrument, first.detector, first.grating),
        "mjd_start": first.expstart_mjd,
        "mjd_stop": first.expstart_mjd + _end_s(made) / SECONDS_PER_DAY,
        "exposure_s": first.exposure_s,
        "ra": first.ra,
        "dec": first.dec,
        "details": json.dumps(details),
    }
    return _one_row(row, known)


def _end_s(made: Made) -> float:
    bins = made.exposures[-1][1].bins
    return bins.start_s + bins.step_s * bins.number


def _facts(made: Made, rows: pa.Table) -> dict[str, Any]:
    """Return the row of table hst_exposures."""
    first, curves = made.first, [curve for _, curve in made.exposures]
    limits, is_composite = curves[0].limits, made.product == COMPOSITE
    fraction = _values(rows, "exposure_fraction")
    edges = {name.lower() or "a": edge for name, edge in limits.rows.items()}
    return {
        "product": made.product,
        "association": None if is_composite else first.association,
        "target_name": first.target_name,
        "canonical_name": made.canonical_name,
        "is_moving": first.is_moving,
        "instrument": first.instrument,
        "detector": first.detector,
        "grating": first.grating,
        "cenwave": first.cenwave,
        "aperture": first.aperture,
        "fp_pos": None if is_composite else first.fp_pos,
        "obstype": first.obstype,
        "proposal": None if is_composite else first.proposal,
        "calibration_version": first.calibration_version,
        "mjd_start": first.expstart_mjd,
        "exposure_s": float(fraction.sum() * curves[0].bins.step_s) if is_composite else first.exposure_s,
        "bin_s": curves[0].bins.step_s,
        "bins": rows.num_rows,
        "members": len(curves),
        "wavelength_min": None if first.is_image else limits.wavelengths[0],
        "wavelength_max": None if first.is_image else limits.wavelengths[1],
        "x_min": limits.columns[0],
        "x_max": limits.columns[1],
        **{f"y_min_{name}": edge[0] for name, edge in edges.items()},
        **{f"y_max_{name}": edge[1] for name, edge in edges.items()},
        "serious_dq": first.serious_dq,
        "flux_calibrated": all(curve.is_flux_calibrated for curve in curves),
        "has_background": all(curve.has_background for curve in curves),
        "has_empty_bin": any(has_empty_bin(curve) for curve in curves),
        "reference_files": None if is_composite else json.dumps(dict(first.reference_files)),
        "files": None if is_composite else json.dumps(made.files),
        "parameters": canonical(made.parameters),
    }


def _statistics(made: Made, rows: pa.Table) -> dict[str, Any]:
    """Return the row of table hst_statistics: of bins that were observed in full, since others have fewer counts."""
    full = rows.filter(pa.array(_values(rows, "exposure_fraction") >= 1))
    counts, net, mjd = (_values(full, name) for name in ("counts", "net", "mjd"))
    found = bands(net, mjd)
    row: dict[str, Any] = {"product": made.product, **statistics(counts, mjd), "periodogram": is_periodic(found)}
    for name in BANDS:
        band, peak = found[name], found[name].peak
        best = None
        if band.highest is not None:
            best = float(band.periods_s[band.significant][np.argmax(band.powers[band.significant])])
        row |= {f"period_s_{name}": best, f"power_{name}": band.highest}
        if peak is not None:
            row |= {
                f"peak_period_s_{name}": peak.period,
                f"peak_power_{name}": peak.power,
                f"peak_fap_{name}": peak.false_alarm_probability,
            }
    return row


def _one_row(values: Mapping[str, Any], keys: Mapping[str, Any]) -> pa.Table:
    return pa.table({name: [value] for name, value in {**keys, **values}.items() if value is not None})


def _zeros(n: int) -> pa.Array:
    """Return zeros, which all columns of one value share: a table of events has many."""
    return _zero_events().slice(0, n) if n <= EVENTS else pa.array(np.zeros(n, np.int32))


@cache
def _zero_events() -> pa.Array:
    return pa.array(np.zeros(EVENTS, np.int32))


def _with(table: pa.Table, keys: Mapping[str, Any]) -> pa.Table:
    """Add columns that have one value each."""
    for name, value in keys.items():
        column = pa.repeat(value, table.num_rows)
        if isinstance(value, str):
            column = pa.DictionaryArray.from_arrays(_zeros(table.num_rows), pa.array([value]))
        table = table.append_column(name, column)
    return table
