"""What must hold for a granule before it may enter the lake."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import GranuleRejected
from lake.schema import TABLES
from lake.sky import hpx29
from lake.table import Column, Table

_UNIQUE_IN_GRANULE = ("sources", "matches", "coverage", "exposures", "statistics")


def validate(
    archive: str,
    release: str,
    tables: Mapping[str, pa.Table],
    band_units: Mapping[str, str | None] | None = None,
) -> None:
    """Check a granule's tables against the schema and against each other.

    Parameters
    ----------
    archive, release
        What every row must belong to.
    tables
        Tables in the lake's schema, by name.
    band_units
        VOUnit of flux by band; None: units are not checked.

    Raises
    ------
    GranuleRejected
        With the first rule broken, how many rows break it, and one of them.
    """
    for name, table in tables.items():
        spec = TABLES[name]
        for column in spec.columns:
            _check_values(spec, column, table[column.name])
        for column_name, expected in (("archive", archive), ("release", release)):
            if column_name in spec.names:
                _refuse(name, column_name, table[column_name], pc.not_equal(table[column_name], expected),
                    f"is not {expected!r}")  # fmt: skip
        if name in _UNIQUE_IN_GRANULE:
            _check_unique(spec, table)
    if "sources" in tables:
        _check_positions(tables["sources"])
    known = tables["sources"] if "sources" in tables else TABLES["sources"].empty()
    for name in ("lightcurves", "matches", "statistics"):
        if name in tables:
            _check_source_known(name, tables[name], known)
    if "matches" in tables:
        asked = tables["coverage"] if "coverage" in tables else TABLES["coverage"].empty()
        target_ids = tables["matches"]["target_id"]
        unknown = pc.invert(pc.is_in(target_ids, value_set=asked["target_id"].combine_chunks()))
        _refuse("matches", "target_id", target_ids, unknown, "is not among the granule's coverage")
    if band_units is not None and "lightcurves" in tables:
        _check_units(tables["lightcurves"], band_units)


def _refuse(table: str, column: str, values: pa.ChunkedArray, broken: pa.ChunkedArray, rule: str) -> None:
    """Reject if any value breaks a rule; a NULL breaks none."""
    broken = pc.fill_null(broken, False)
    count = pc.sum(broken).as_py() or 0
    if count:
        first = values.filter(broken)[0].as_py()
        raise GranuleRejected(f"{table}.{column} {rule} in {count} of {len(values)} rows, such as {first!r}")


def _check_values(spec: Table, column: Column, values: pa.ChunkedArray) -> None:
    if column.required and values.null_count:
        raise GranuleRejected(f"{spec.name}.{column.name} is NULL in {values.null_count} of {len(values)} rows")
    if pa.types.is_floating(values.type):
        _refuse(spec.name, column.name, values, pc.invert(pc.is_finite(values)), "is not a finite number")
    if column.low is not None:
        low = pa.scalar(column.low, values.type)
        _refuse(spec.name, column.name, values, pc.less(values, low), f"is below {column.low:g}")
    if column.high is not None:
        high = pa.scalar(column.high, values.type)
        _refuse(spec.name, column.name, values, pc.greater(values, high), f"is above {column.high:g}")
    if column.choices:
        allowed = pa.array(column.choices, pa.string())
        unknown = pc.invert(pc.is_in(values, value_set=allowed))
        _refuse(spec.name, column.name, values, unknown, f"is none of {', '.join(column.choices)}")


def _check_unique(spec: Table, table: pa.Table) -> None:
    keys = table.select(list(spec.key)).group_by(list(spec.key)).aggregate([([], "count_all")])
    twice = keys.filter(pc.greater(keys["count_all"], 1))
    if twice.num_rows:
        first = {name: twice[name][0].as_py() for name in spec.key}
        raise GranuleRejected(f"{spec.name} has {twice.num_rows} keys more than once, such as {first}")


def _check_positions(sources: pa.Table) -> None:
    expected = hpx29(sources["ra"].to_numpy(), sources["dec"].to_numpy())
    off = pa.chunked_array([pa.array(np.asarray(expected) != sources["hpx29"].to_numpy())])
    _refuse("sources", "hpx29", sources["hpx29"], off, "is not the pixel of ra, dec")


def _check_source_known(name: str, table: pa.Table, sources: pa.Table) -> None:
    unknown = pc.invert(pc.is_in(table["source_id"], value_set=sources["source_id"].combine_chunks()))
    _refuse(name, "source_id", table["source_id"], unknown, "is not among the granule's sources")
    place = pc.index_in(table["source_id"], value_set=sources["source_id"].combine_chunks())
    other = pc.not_equal(table["hpx29"], sources["hpx29"].take(place))
    _refuse(name, "hpx29", table["hpx29"], other, "differs from its source's")


def _check_units(lightcurves: pa.Table, band_units: Mapping[str, str | None]) -> None:
    seen = lightcurves.select(["band", "unit"]).group_by(["band", "unit"]).aggregate([])
    for band, unit in zip(seen["band"].to_pylist(), seen["unit"].to_pylist(), strict=True):
        if band not in band_units:
            raise GranuleRejected(f"lightcurves.band {band!r} is none of {', '.join(sorted(band_units))}")
        if unit != band_units[band]:
            raise GranuleRejected(f"lightcurves.unit of band {band} is {unit!r}, not {band_units[band]!r}")
