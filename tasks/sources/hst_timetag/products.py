"""An exposure's photons as rows of the lake: its bins, what it is, its statistics, and a light curve as all have it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lake.errors import GranuleRejected
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from lake.science.times import to_bmjd_tdb
from tasks.sources.hst_timetag.events import Array, EventTable
from tasks.sources.hst_timetag.extract import SECONDS_PER_DAY, Curve
from tasks.sources.hst_timetag.tables import ORIGIN, UNIT, band_of
from tasks.sources.hst_timetag.variability import BANDS, bands, is_periodic, statistics
from tasks.sources.statistics import statistics_of_sorted


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
        That it was read from.
    """

    source_id: str
    product: str
    first: EventTable
    canonical_name: str
    exposures: Sequence[tuple[str, Curve]]
    files: Sequence[Path]

    @property
    def rows(self) -> pa.Table:
        """Return the bins of all exposures, with their number and name."""
        parts = []
        for number, (exposure_id, curve) in enumerate(self.exposures, start=1):
            n = curve.table.num_rows
            numbered = curve.table.append_column("dataset", pa.array(np.full(n, number, np.int32)))
            parts.append(numbered.append_column("exposure_id", pa.array([exposure_id] * n, pa.string())))
        return pa.concat_tables(parts)


def tables_of(made: Made, granule: str) -> dict[str, pa.Table]:
    """Return the rows of the lake of a light curve, by table.

    A composite has its bins, its statistics and a row of table hst_exposures: its exposures have the rest.

    Raises
    ------
    GranuleRejected
        If no header says where HST pointed.
    """
    ra, dec = _position(made.first)
    keys = {"archive": ORIGIN.name, "release": ORIGIN.release, "source_id": made.source_id, "granule": granule}
    rows, step_s = made.rows, made.exposures[0][1].bins.step_s
    bins = rows.append_column("product", pa.array([made.product] * rows.num_rows, pa.string()))
    tables = {
        "hst_bins": _with(bins.append_column("bin_s", pa.array(np.full(rows.num_rows, step_s))), keys),
        "hst_exposures": _one_row(_facts(made, rows), keys),
        "hst_statistics": _one_row(_statistics(made, rows), keys),
    }
    if made.product == "composite":
        return tables
    light = _light_curve(made, rows, keys)
    tables["sources"] = _one_row({"hpx29": int(hpx29(ra, dec)), "ra": ra, "dec": dec}, keys)
    tables["exposures"] = _exposure(made, keys)
    tables["lightcurves"] = light
    if light.num_rows:
        tables["statistics"] = statistics_of_sorted(light)
    return tables


def _values(rows: pa.Table, name: str) -> Array:
    values: Array = rows[name].to_numpy(zero_copy_only=False).astype(float)
    return values


def _position(first: EventTable) -> tuple[float, float]:
    if first.ra is None or first.dec is None:
        raise GranuleRejected(f"{first.path.name} does not say where HST pointed: RA_TARG and DEC_TARG")
    return first.ra, first.dec


def _light_curve(made: Made, rows: pa.Table, keys: Mapping[str, str]) -> pa.Table:
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
            "hpx29": np.full(n, int(hpx29(ra, dec)), np.int64),
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


def _exposure(made: Made, keys: Mapping[str, str]) -> pa.Table:
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
    known = {name: value for name, value in keys.items() if name != "source_id"}
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
    limits, is_composite = curves[0].limits, made.product == "composite"
    gross, fraction = rows["gross"], _values(rows, "exposure_fraction")
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
        "has_empty_bin": bool(np.any(gross.to_numpy(zero_copy_only=False) == 0)),
        "reference_files": json.dumps(dict(first.reference_files)),
        "files": json.dumps({path.name: path.stat().st_size for path in made.files}),
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


def _one_row(values: Mapping[str, Any], keys: Mapping[str, str]) -> pa.Table:
    return pa.table({name: [value] for name, value in {**keys, **values}.items() if value is not None})


def _with(table: pa.Table, keys: Mapping[str, str]) -> pa.Table:
    for name, value in keys.items():
        table = table.append_column(
            name, pa.DictionaryArray.from_arrays(pa.array(np.zeros(table.num_rows, np.int32)), pa.array([value]))
        )
    return table
