"""Write the light curves of a lake as FITS files of the Lightcurve Legacy of COS and STIS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from lake.errors import ConfigurationError
from lake.query import Lake
from tasks.sources.hst_timetag.hlsp import (
    Product,
    composite_file_name,
    exposure_file_name,
    granule_of,
    write_composite,
    write_exposure,
)
from tasks.sources.hst_timetag.tables import COMPOSITE, NAME

Kind = Literal["exposure", "composite", "both"]


@dataclass(frozen=True)
class Written:
    """How many files were written, and how many were there already."""

    files: int = 0
    kept: int = 0


def export_hlsp(
    lake: Lake,
    to: Path,
    kind: Kind = "both",
    *,
    where: str | None = None,
    again: bool = False,
    progress: Callable[[Written], object] = lambda done: None,
) -> Written:
    """Write exposures as ROOTNAME_curve.fits, and composites under their names as products.

    Files that are there are written anew if the lake has extracted their light curves again since.

    Parameters
    ----------
    to
        Folder to write to.
    kind
        Which light curves.
    where
        Only rows of table hst_exposures for which this SQL is true.
    again
        Write all files anew, also those of others.
    progress
        Called after each file.

    Raises
    ------
    ConfigurationError
        If the lake has no such light curve, or a file cannot be written.
    """
    rows = _rows(lake, f"($kind = 'both' OR product = $kind) AND ({where or 'true'})", {"kind": kind})
    if not rows:
        raise ConfigurationError("the lake has no such light curve of HST", hint="pull some: lightlake hst --help")
    done = Written()
    for row in rows:
        path = to / _name(row)
        if path.exists() and not again and granule_of(path) in (None, row["granule"]):
            done = Written(done.files, done.kept + 1)
        else:
            _write(lake, to, row)
            done = Written(done.files + 1, done.kept)
        progress(done)
    return done


def bins_of(lake: Lake, source_id: str) -> pa.Table:
    """Return the rows of table hst_bins of an exposure or a composite."""
    rows: pa.Table = lake.sql(
        "SELECT * FROM hst_bins WHERE archive = ? AND source_id = ? ORDER BY dataset, times_s", [NAME, source_id]
    )
    return rows


def _rows(lake: Lake, where: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return rows of table hst_exposures, with the positions of their targets."""
    rows: list[dict[str, Any]] = lake.sql(
        "SELECT e.*, e.source_id AS exposure_id, s.ra, s.dec "
        f"FROM (SELECT * FROM hst_exposures WHERE {where}) AS e "
        "JOIN sources AS s USING (archive, release, source_id, hpx29) ORDER BY e.source_id",
        dict(values),
    ).to_pylist()
    return rows


def _name(row: Mapping[str, Any]) -> str:
    if row["product"] != COMPOSITE:
        return exposure_file_name(row["source_id"])
    fields = (row[name] for name in ("instrument", "detector", "canonical_name", "grating", "cenwave", "aperture"))
    return composite_file_name(*fields)


def _write(lake: Lake, to: Path, row: Mapping[str, Any]) -> None:
    bins = bins_of(lake, row["source_id"])
    if row["product"] != COMPOSITE:
        write_exposure(to, Product(bins, [row], granule=row["granule"]), overwrite=True)
        return
    members = list(dict.fromkeys(bins["exposure_id"].to_pylist()))
    known = {one["source_id"]: one for one in _rows(lake, "source_id IN (SELECT unnest($ids))", {"ids": members})}
    limits = (row["wavelength_min"], row["wavelength_max"])
    exposures = [known[name] for name in members if name in known] or [dict(row)]
    product = Product(bins, exposures, row["canonical_name"], None if None in limits else limits, row["granule"])
    write_composite(to, product, overwrite=True)
