"""RXTE's standard products as rows of the lake, one observation at a time.

An observation gives one source (a target's light curve is that of all that match it), one exposure, and a row for each
bin of each product that there is. A product that is absent is named in the exposure's details: absence is no error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.commit.sound import sound
from lake.commit.staging import Tables, joined
from lake.errors import GranuleRejected
from lake.model.schema import TABLES
from lake.science.sky import hpx29, separation_arcsec
from lake.science.times import DAY_S, met_to_mjd, to_bmjd_tdb
from lake.text import counted
from tasks.services.fits import Data, Floats
from tasks.sources.base import Origin
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.fits import LightCurve, read_light_curve
from tasks.sources.rxte.mission import PRODUCTS, Observation, product_of
from tasks.sources.statistics import statistics_of_sorted

# Of column left_out of table sources.
NO_PRODUCTS = "no_standard_products"


@dataclass(frozen=True)
class Reading:
    """An observation's tables by name, and its remarks for the ledger."""

    tables: dict[str, pa.Table]
    remark: str | None = None

    def sound(self) -> Reading:
        """Return it with sound values, and remarks on the others."""
        tables, remarks = sound(self.tables)
        return Reading(tables, "; ".join(filter(None, [self.remark, *remarks])) or None)


def barytime_difference(curve: LightCurve, ra: float | None = None, dec: float | None = None) -> Floats | None:
    """Subtract the file's BARYTIME from bmjd_tdb, seconds, bin by bin; None if the file has no BARYTIME.

    Parameters
    ----------
    ra, dec
        Direction of the source, ICRS degrees; None: of the header, as FXBARY took it.
    """
    ra, dec = curve.ra if ra is None else ra, curve.dec if dec is None else dec
    if curve.barytime_s is None or ra is None or dec is None:
        return None
    read = met_to_mjd(curve.seconds, *curve.mjdref)
    ours = to_bmjd_tdb(read, ra, dec, scale="tt", frame="geocentre")
    return np.asarray((ours - met_to_mjd(curve.barytime_s, *curve.mjdref)) * DAY_S)


def read_observation(files: Mapping[str, Data], observation: Observation, granule: str) -> Reading:
    """Convert the products of one observation to tables of the lake.

    Parameters
    ----------
    files
        Light curves by their files' names, which say what they are, or by names of bands; an empty mapping is a valid
        answer, of which the absence is recorded. Files of other kinds are left alone, and named in details.
    observation
        What is known of it before.
    granule
        Id of the granule.

    Returns
    -------
    Reading
        Tables sources, lightcurves and exposures; `completed` adds the rest.

    Raises
    ------
    GranuleRejected
        If a file is broken or of another observation, or nobody says where the telescope pointed.
    OSError
        If a file cannot be read.
    """
    chosen, left_alone = _choose(files, observation)
    curves = [read_light_curve(files[name], PRODUCTS[band], name) for band, name in sorted(chosen.items())]
    curves = [distinct(curve, chosen[curve.product.band]) for curve in curves]
    absent = [band for band in PRODUCTS if band not in chosen]
    more = {"absent": absent, "not_read": left_alone, "files": chosen}
    return tables_of(curves, observation, granule, rxte.ORIGIN, more, NO_PRODUCTS)


def tables_of(
    curves: list[LightCurve],
    observation: Observation,
    granule: str,
    origin: Origin,
    more: Mapping[str, Any],
    nothing: str,
) -> Reading:
    """Convert the light curves of one observation to tables of the lake.

    Parameters
    ----------
    curves
        Light curves, each of another band, `distinct`; none is a valid answer, too.
    observation
        What is known of it before.
    granule
        Id of the granule.
    origin
        Archive and release that the rows are of.
    more
        What else the exposure's details are to say.
    nothing
        Why there is no light curve, where there is none: column left_out of table sources.

    Raises
    ------
    GranuleRejected
        If nobody says where the telescope pointed, or the times are not of the mission.
    """
    ra, dec = _position(curves, observation)
    keys = {"archive": origin.name, "release": origin.release, "granule": granule}
    pixel = int(hpx29(ra, dec))
    epochs = _epochs(curves, observation)
    sources = pa.table(
        {
            **{name: [value] for name, value in keys.items()},
            "source_id": [observation.obsid],
            "hpx29": [pixel],
            "ra": [ra],
            "dec": [dec],
            "left_out": pa.array([None if curves else nothing], pa.string()),
        }
    )
    tables = {"sources": sources, "exposures": _exposure(curves, observation, keys, epochs, more)}
    tables["lightcurves"] = (
        _rows(curves, observation, keys, pixel, len(epochs) > 1) if curves else TABLES["lightcurves"].empty()
    )
    return Reading(tables, _remark(curves, nothing))


def completed(readings: Sequence[Tables]) -> list[Tables]:
    """Add to the tables of each observation what is computed for many at once, the quicker way.

    Parameters
    ----------
    readings
        Tables of `tables_of`; those of an observation that gave none may be empty.

    Returns
    -------
    list
        The same, with column bmjd_tdb in table lightcurves, and with table statistics.
    """
    lengths = [tables["lightcurves"].num_rows if tables else 0 for tables in readings]
    lit = [tables for tables, n in zip(readings, lengths, strict=True) if n]
    if not lit:
        return list(readings)
    rows = joined([tables["lightcurves"] for tables in lit])
    of = np.repeat(np.arange(len(lit)), [n for n in lengths if n])
    ra, dec = (np.array([tables["sources"][axis][0].as_py() for tables in lit])[of] for axis in ("ra", "dec"))
    bmjd_tdb = to_bmjd_tdb(rows["mjd"].to_numpy(), ra, dec, scale="tt", frame="geocentre")
    rows = rows.append_column("bmjd_tdb", pa.array(bmjd_tdb))
    made = statistics_of_sorted(rows)
    counts = dict(zip(*made["granule"].combine_chunks().value_counts().flatten(), strict=True))
    complete: list[Tables] = []
    row = row_made = 0
    for tables, n in zip(readings, lengths, strict=True):
        if not n:
            complete.append(tables)
            continue
        n_made = counts[tables["sources"]["granule"][0]].as_py()
        parts = {"lightcurves": rows.slice(row, n), "statistics": made.slice(row_made, n_made)}
        complete.append({**tables, **parts})
        row, row_made = row + n, row_made + n_made
    return complete


def _choose(files: Mapping[str, Data], observation: Observation) -> tuple[dict[str, str], list[str]]:
    """Return the file of each band, and the files that belong to none."""
    chosen: dict[str, str] = {}
    left_alone = []
    for name in sorted(files):
        known = (observation.id.stem, PRODUCTS[name]) if name in PRODUCTS else product_of(name)
        if known is None or known[1].band in chosen:
            left_alone.append(name)  # such as good time intervals; or unpacked beside its packed self
        elif known[0] != observation.id.stem:
            raise GranuleRejected(f"{name} is not of observation {observation.obsid}")
        else:
            chosen[known[1].band] = name
    return chosen, left_alone


def _position(curves: list[LightCurve], observation: Observation) -> tuple[float, float]:
    pointings = [(curve.ra, curve.dec) for curve in curves]
    for ra, dec in ((observation.ra, observation.dec), *pointings):
        if ra is not None and dec is not None:
            return ra, dec
    raise GranuleRejected(f"neither xtemaster nor a file says where {observation.obsid} pointed")


def _epochs(curves: list[LightCurve], observation: Observation) -> list[int]:
    """Return the gain epochs of an observation, in order: one, unless it spans an edge; none without a time."""
    times = np.concatenate([[], *(curve.mjd for curve in curves)])
    if not times.size and observation.mjd_start is not None:
        times = rxte.utc_to_tt([observation.mjd_start])
    try:
        return [int(epoch) for epoch in np.unique(rxte.gain_epoch(times))]
    except ValueError as error:
        raise GranuleRejected(f"{observation.obsid}: {error}") from error


def _rows(
    curves: list[LightCurve], observation: Observation, keys: Mapping[str, str], pixel: int, spans_edge: bool
) -> pa.Table:
    """Make the rows of table lightcurves, sorted as it is, except bmjd_tdb."""
    lengths = [len(curve.mjd) for curve in curves]
    n = sum(lengths)

    def of_all(name: str) -> Floats:
        return np.concatenate([getattr(curve, name) for curve in curves])

    def of_each(values: list[Any]) -> NDArray[Any]:
        return np.repeat(values, lengths)

    mjd, rate, fracexp = of_all("mjd"), of_all("rate"), of_all("fracexp")
    unknown = ~np.isfinite(rate)  # what is infinite becomes NULL with all other odd values: lake/commit/sound.py
    of_observation = rxte.SLEW * observation.id.is_slew | rxte.SCAN * observation.id.is_scan
    quality: NDArray[Any] = np.where(unknown, rxte.NO_RATE, 0) | np.where(fracexp < 1, rxte.PARTIAL, 0)
    quality = quality | of_observation | rxte.EPOCH_EDGE * spans_edge
    quality = quality | of_each([rxte.TIMEPIXR_ASSUMED * ("TIMEPIXR" in curve.details["assumed"]) for curve in curves])
    on_target = not (observation.id.is_slew or observation.id.is_scan)
    numbers = {
        "flux": rate,
        "flux_err": np.where(unknown, np.nan, of_all("error")),
        "counts": of_all("counts"),
        "exposure_s": of_each([curve.bin_s for curve in curves]) * fracexp,
    }
    bands = pa.array([curve.product.band for curve in curves])
    # What the table is sorted by is plain: dictionaries cannot be sorted.
    return pa.table(
        {
            **{name: _same(value, n) for name, value in keys.items()},
            "source_id": _same(observation.obsid, n).cast(pa.string()),
            "exposure_id": _same(observation.obsid, n),
            "hpx29": np.full(n, pixel, np.int64),
            "band": bands.take(pa.array(of_each(list(range(len(curves)))))),
            "mjd": mjd,
            "unit": _same(rxte.UNIT, n),
            "detected": ~unknown,
            "good": ~unknown & ~(fracexp <= 0) & on_target,
            "quality": quality.astype(np.int64),
            **{name: pa.array(values.astype(np.float32), from_pandas=True) for name, values in numbers.items()},
        }
    )


def _same(value: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value]))


def _exposure(
    curves: list[LightCurve],
    observation: Observation,
    keys: Mapping[str, str],
    epochs: list[int],
    more: Mapping[str, Any],
) -> pa.Table:
    """Make the row of table exposures."""
    starts = [curve.mjd_start for curve in curves if curve.mjd_start is not None]
    stops = [curve.mjd_stop for curve in curves if curve.mjd_stop is not None]
    if not starts and observation.mjd_start is not None:
        starts = [float(rxte.utc_to_tt(observation.mjd_start))]
    # PCA's time on source before HEXTE's, which turns to the background every now and then.
    ontimes = [
        curve.ontime_s
        for curve in sorted(curves, key=lambda curve: curve.product.instrument != "pca")
        if curve.ontime_s is not None
    ]
    pointing = next(((c.ra, c.dec) for c in curves if c.ra is not None and c.dec is not None), None)
    pcus = next((curve.pcus for curve in curves if curve.pcus), ())
    if observation.id.is_merged:  # its header is that of the first observation
        ontimes, pcus = [], ()
    found = [curve.product.band for curve in curves]
    details: dict[str, Any] = {
        "target_name": observation.target_name,
        "is_slew": observation.id.is_slew,
        "is_scan": observation.id.is_scan,
        "epoch": epochs[0] if epochs else None,
        "epochs": epochs,
        "pcus": list(pcus) or None,
        "pcu_count": len(pcus) or None,
        "found": found,
        "exposure_from": "xtemaster" if observation.exposure_s is not None else "ONTIME" if ontimes else None,
        "path": None if observation.id.is_merged else observation.paths[0],
        "energies": {curve.product.band: curve.energies(epochs[0]) for curve in curves if epochs},
        "products": {curve.product.band: curve.details for curve in curves},
        **more,
    }
    if pointing and observation.ra is not None and observation.dec is not None:
        details["offset_arcsec"] = round(float(separation_arcsec(*pointing, observation.ra, observation.dec)), 3)
    ra, dec = pointing or (observation.ra, observation.dec)
    numbers = {
        "mjd_start": min(starts, default=None),
        "mjd_stop": max(stops, default=None),
        "exposure_s": observation.exposure_s if observation.exposure_s is not None else next(iter(ontimes), None),
        "ra": ra,
        "dec": dec,
    }
    return pa.table(
        {
            **{name: [value] for name, value in keys.items()},
            "exposure_id": [observation.obsid],
            **{name: pa.array([value], pa.float64()) for name, value in numbers.items()},
            "details": [json.dumps(details)],
        }
    )


def _remark(curves: list[LightCurve], nothing: str) -> str | None:
    """Join the remarks for the ledger in one line."""
    if not curves:
        return nothing.replace("_", " ")
    bands_by_remark: dict[str, list[str]] = {}
    for curve in curves:
        for remark in curve.remarks:
            bands_by_remark.setdefault(remark, []).append(curve.product.band)
    parts = [f"{remark} ({', '.join(bands)})" for remark, bands in bands_by_remark.items()]
    return "; ".join(parts) or None


def distinct(curve: LightCurve, name: str) -> LightCurve:
    """Sort a light curve by time, each bin once.

    Raises
    ------
    GranuleRejected
        If a bin comes twice with different values.
    """
    if (np.diff(curve.seconds) > 0).all():
        return curve
    columns = {one: getattr(curve, one) for one in ("seconds", "mjd", "rate", "error", "counts", "fracexp")}
    if curve.barytime_s is not None:
        columns["barytime_s"] = curve.barytime_s
    order = np.argsort(curve.seconds, kind="stable")
    again = np.append(False, np.diff(curve.seconds[order]) == 0)
    for at in np.flatnonzero(again):
        if any(not np.array_equal(v[order[at]], v[order[at - 1]], equal_nan=True) for v in columns.values()):
            raise GranuleRejected(f"{name}: the bin at TIME {curve.seconds[order[at]]} comes twice, and differs")
    kept = order[~again]
    remarks = (*curve.remarks, f"{counted(again.sum(), 'bin')} came twice") if again.any() else curve.remarks
    return replace(curve, **{one: values[kept] for one, values in columns.items()}, remarks=remarks)
