"""A light curve with a known median and scatter, that gets new points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from helpers.granules import staged, tables
from lake.commit.commit import commit
from lake.commit.staging import stage
from lake.store.catalog import Catalog

MEDIAN, SCATTER, ERROR = 100.0, 4.0, 3.0  # a point's sigma is 5


def bring(catalog: Catalog, fluxes: Sequence[float], granule: str, again: int) -> None:
    """Bring source 0 in band g with a flux a day, from MJD 58000 on; its statistics are those above."""
    made = tables([0], granule)
    rows = [made["lightcurves"].to_pylist()[0] for _ in fluxes]
    for number, (row, flux) in enumerate(zip(rows, fluxes, strict=True)):
        row |= {"flux": flux, "flux_err": ERROR, "mjd": 58000.0 + number, "good": True}
    (of_source, *_) = made["statistics"].to_pylist()
    of_source |= {name: len(fluxes) for name in ("n", "n_detected", "n_good")}
    of_source |= {"flux_median": MEDIAN, "flux_std": SCATTER, "mjd_last": 58000.0 + len(fluxes) - 1}
    made["lightcurves"], made["statistics"] = pa.Table.from_pylist(rows), pa.Table.from_pylist([of_source])
    manifest = staged(catalog, [0], f"m-{granule}", again=again)
    commit(catalog, stage(catalog.storage.staging / granule, replace(manifest.attempt, granule=granule), made))
