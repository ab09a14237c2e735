"""RXTE's observations as rows of the lake: many at once, since an observation has few rows of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.commit.sound import sound
from lake.commit.staging import Tables
from lake.errors import GranuleRejected
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from lake.science.times import to_bmjd_tdb
from tasks.services.fits import Floats
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.fits import LightCurve
from tasks.sources.rxte.products import Extracted
from tasks.sources.statistics import statistics_of_sorted

# Numbers of table exposures.
_EXPOSURE = ("mjd_start", "mjd_stop", "exposure_s", "ra", "dec")

# A batch with odd values is done again in so many parts, until only the observations that have some are done alone.
_PARTS = 8


@dataclass(frozen=True)
class Reading:
    """An observation's tables by name, and its remarks for the ledger."""

    tables: Tables
    remark: str | None = None


def readings(many: Sequence[Extracted]) -> list[Reading | Exception]:
    """Convert observations of one archive and release to tables of the lake, with sound values.

    All are done at once, which takes a fifth of the time; the few that have odd values are done alone, so that each
    has the remarks on its own, or its own error.

    Returns
    -------
    list
        Tables sources, lightcurves, exposures and statistics of each; or the error of its values.
    """
    if not many:
        return []
    try:
        tables, remarks = sound(tables_of(many))
        if not remarks or len(many) == 1:
            return _completed(many, tables, remarks)
    except (GranuleRejected, ArithmeticError, LookupError, TypeError, ValueError) as error:
        if len(many) == 1:
            return [error]
    size = -(-len(many) // _PARTS)
    return list(chain.from_iterable(readings(many[first : first + size]) for first in range(0, len(many), size)))


def tables_of(many: Sequence[Extracted]) -> dict[str, pa.Table]:
    """Convert observations to tables sources, exposures and lightcurves, which is sorted but for the order of them."""
    pixels = hpx29([one.ra for one in many], [one.dec for one in many])
    keys = {
        "archive": [one.origin.name for one in many],
        "release": [one.origin.release for one in many],
        "granule": [one.granule for one in many],
    }
    obsids = [one.observation.obsid for one in many]
    place = {"ra": [one.ra for one in many], "dec": [one.dec for one in many]}
    left_out = pa.array([one.left_out for one in many], pa.string())
    texts = {"details": pa.array([one.exposure["details"] for one in many], pa.string())}
    numbers = {name: pa.array([one.exposure[name] for one in many], pa.float64()) for name in _EXPOSURE}
    return {
        "sources": pa.table({**keys, "source_id": obsids, "hpx29": pixels, **place, "left_out": left_out}),
        "exposures": pa.table({**keys, "exposure_id": obsids, **numbers, **texts}),
        "lightcurves": _rows(many, {**keys, "source_id": obsids, "exposure_id": obsids}, pixels),
    }


def _completed(many: Sequence[Extracted], tables: Tables, remarks: Sequence[str]) -> list[Reading | Exception]:
    """Add column bmjd_tdb and table statistics, and return each observation's part; remarks are of the only one."""
    rows, sources = tables["lightcurves"], tables["sources"]
    made = TABLES["statistics"].empty()
    lengths = [rows.num_rows] if len(many) == 1 else [one.n for one in many]
    if rows.num_rows:
        ra, dec = (np.repeat(sources[axis].to_numpy(), lengths) for axis in ("ra", "dec"))
        bmjd_tdb = to_bmjd_tdb(rows["mjd"].to_numpy(), ra, dec, scale="tt", frame="geocentre")
        rows = rows.append_column("bmjd_tdb", pa.array(bmjd_tdb))
        made = statistics_of_sorted(rows)
    of_each = dict(zip(*made["granule"].combine_chunks().value_counts().flatten(), strict=True))
    complete: list[Reading | Exception] = []
    row = row_made = 0
    for number, (one, n) in enumerate(zip(many, lengths, strict=True)):
        n_made = of_each[sources["granule"][number]].as_py() if n else 0
        parts = {name: tables[name].slice(number, 1) for name in ("sources", "exposures")}
        parts |= {"lightcurves": rows.slice(row, n), "statistics": made.slice(row_made, n_made)}
        complete.append(Reading(parts, "; ".join(filter(None, [one.remark, *remarks])) or None))
        row, row_made = row + n, row_made + n_made
    return complete


def _rows(many: Sequence[Extracted], texts: Mapping[str, list[str]], pixels: NDArray[np.int64]) -> pa.Table:
    """Make the rows of table lightcurves, except bmjd_tdb; `texts` are the same in all rows of an observation."""
    each = [(number, one, curve) for number, one in enumerate(many) for curve in one.curves]
    if not each:
        return TABLES["lightcurves"].empty()
    lengths = [len(curve.mjd) for _, _, curve in each]

    def of_all(name: str) -> Floats:
        return np.concatenate([getattr(curve, name) for _, _, curve in each])

    def of_each(values: Sequence[Any], dtype: Any) -> NDArray[Any]:
        return np.repeat(np.array(values, dtype), lengths)

    mjd, rate, fracexp = of_all("mjd"), of_all("rate"), of_all("fracexp")
    row = of_each([number for number, _, _ in each], np.int32)
    bands = sorted({curve.product.band for _, _, curve in each})
    unknown = ~np.isfinite(rate)  # what is infinite becomes NULL with all other odd values: lake/commit/sound.py
    quality: NDArray[Any] = np.where(unknown, rxte.NO_RATE, 0) | np.where(fracexp < 1, rxte.PARTIAL, 0)
    quality = quality | of_each([_quality(one, curve) for _, one, curve in each], np.int64)
    on_target = [not (one.observation.id.is_slew or one.observation.id.is_scan) for _, one, _ in each]
    numbers = {
        "flux": rate,
        "flux_err": np.where(unknown, np.nan, of_all("error")),
        "counts": of_all("counts"),
        "exposure_s": of_each([curve.bin_s for _, _, curve in each], np.float64) * fracexp,
    }
    return pa.table(
        {
            **{name: _coded(values, row) for name, values in texts.items()},
            "hpx29": pixels[row],
            "band": _coded(bands, of_each([bands.index(curve.product.band) for _, _, curve in each], np.int32)),
            "mjd": mjd,
            "unit": _coded([rxte.UNIT], np.zeros_like(row)),
            "detected": ~unknown,
            "good": ~unknown & ~(fracexp <= 0) & of_each(on_target, bool),
            "quality": quality.astype(np.int64),
            **{name: pa.array(values.astype(np.float32), from_pandas=True) for name, values in numbers.items()},
        }
    )


def _quality(one: Extracted, curve: LightCurve) -> int:
    """Return what holds for all bins of a light curve."""
    of_observation = rxte.SLEW * one.observation.id.is_slew | rxte.SCAN * one.observation.id.is_scan
    of_curve = rxte.TIMEPIXR_ASSUMED * ("TIMEPIXR" in curve.details["assumed"])
    return of_observation | of_curve | rxte.EPOCH_EDGE * (len(one.epochs) > 1)


def _coded(values: Sequence[str], index: NDArray[np.int32]) -> pa.Array:
    """Return texts as a dictionary in which each is once, as whatever compares dictionaries expects."""
    known = {value: number for number, value in enumerate(dict.fromkeys(values))}
    if len(known) < len(values):
        index = np.array([known[value] for value in values], np.int32)[index]
    return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(list(known), pa.string()))
