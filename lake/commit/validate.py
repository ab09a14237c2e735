"""Check that a granule keeps the rules of the lake, before its commit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import GranuleRejected
from lake.model.declared import is_of_sources, table_named
from lake.model.schema import TABLES
from lake.model.table import Column, Table
from lake.science.sky import hpx29
from lake.store.storage import decoded
from lake.text import counted


class _Broken(Exception):
    """A broken rule, and the rows of the table that break it."""

    def __init__(self, reason: str, rows: pa.ChunkedArray) -> None:
        super().__init__(reason)
        self.reason, self.rows = reason, rows

    def of(self, table: pa.Table) -> GranuleRejected:
        """Convert it to the exception for the caller, with the sources that broke the rule."""
        ids = table.filter(self.rows)["source_id"].to_pylist() if "source_id" in table.column_names else []
        return GranuleRejected(self.reason, sources=(one for one in ids if one is not None))


_UNIQUE_IN_GRANULE = ("sources", "matches", "coverage", "exposures", "statistics")


def validate(
    archive: str,
    release: str,
    tables: Mapping[str, pa.Table],
    band_units: Mapping[str, str | None] | None = None,
    *,
    known: pa.Table | None = None,
    checked: Collection[str] = (),
) -> None:
    """Check a granule's tables against the schema and against each other.

    Parameters
    ----------
    archive, release
        Archive and release that every row must have.
    tables
        Tables in the lake's schema, by name.
    band_units
        VOUnit of flux by band; None: units are not checked.
    known
        Columns source_id and hpx29 of sources in the lake: matches may also refer to these.
    checked
        Names of tables that passed before, together and as they are now: of these, only what the others say is checked.

    Raises
    ------
    GranuleRejected
        Names the first broken rule, how many rows break it, and one of them.
    """
    own = tables["sources"] if "sources" in tables else TABLES["sources"].empty()
    names = ["source_id", "hpx29"]
    matched = own.select(names)
    if known is not None:
        matched = pa.concat_tables([matched, known.select(names).cast(matched.schema)])
    # Sources first: rows of other tables inherit their faults.
    for name, table in sorted(tables.items(), key=lambda item: item[0] != "sources"):
        if name in checked:
            continue
        places = validate_rows(archive, release, name, table, matched if name == "matches" else own, band_units)
        if name in _UNIQUE_IN_GRANULE or name not in TABLES:
            # The ids of known sources may be among those of the granule, too.
            _check_unique(table_named(name), table, places if known is None else None)
        if name == "sources":
            try:
                _check_positions(table)
            except _Broken as error:
                raise error.of(table) from None
    if "matches" in tables:
        asked = tables["coverage"] if "coverage" in tables else TABLES["coverage"].empty()
        target_ids = tables["matches"]["target_id"]
        unknown = pc.invert(pc.is_in(target_ids, value_set=asked["target_id"].combine_chunks()))
        try:
            _refuse("matches", "target_id", target_ids, unknown, "is not among the granule's coverage")
        except _Broken as error:
            raise GranuleRejected(error.reason) from None


def validate_rows(
    archive: str,
    release: str,
    name: str,
    table: pa.Table,
    sources: pa.Table,
    band_units: Mapping[str, str | None] | None = None,
) -> pa.ChunkedArray | None:
    """Check some rows of a table, such as a part of a granule's light curves.

    Parameters
    ----------
    name
        The table's name.
    table
        Rows in the lake's schema; columns of text may be dictionaries.
    sources
        All sources of the granule.
    archive, release, band_units
        As in validate.

    Returns
    -------
    pa.ChunkedArray or None
        Of rows that belong to sources, the number of each one's source.

    Raises
    ------
    GranuleRejected
        Names the first broken rule.
    """
    try:
        return _check_rows(archive, release, name, table, sources, band_units)
    except _Broken as error:
        if any(pa.types.is_dictionary(kind) for kind in table.schema.types):
            # A dictionary may have values that no row has, and the error must count rows.
            return validate_rows(archive, release, name, decoded(table), sources, band_units)
        raise error.of(table) from None


def _check_rows(
    archive: str,
    release: str,
    name: str,
    table: pa.Table,
    sources: pa.Table,
    band_units: Mapping[str, str | None] | None,
) -> pa.ChunkedArray | None:
    spec, places = table_named(name), None
    for column in spec.columns:
        _check_values(spec, column, _values(table[column.name]))
    for column_name, expected in (("archive", archive), ("release", release)):
        if column_name in spec.names:
            values = _values(table[column_name])
            _refuse(name, column_name, values, pc.not_equal(values, expected), f"is not {expected!r}")
    if name != "sources" and is_of_sources(spec):
        places = _check_source_known(name, table, sources)
    if band_units is not None and name == "lightcurves":
        _check_units(table, band_units)
    return places


def _values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column, or the values of its dictionaries, which stand for all rows."""
    if not pa.types.is_dictionary(column.type) or column.null_count:
        return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return pa.chunked_array([chunk.dictionary for chunk in column.chunks], column.type.value_type)


def _refuse(table: str, column: str, values: pa.ChunkedArray, broken: pa.ChunkedArray, rule: str) -> None:
    """Reject the table if any value breaks a rule; NULL breaks none."""
    broken = pc.fill_null(broken, False)
    count = pc.sum(broken).as_py() or 0
    if count:
        first = values.filter(broken)[0].as_py()
        raise _Broken(f"{table}.{column} {rule} in {count} of {counted(len(values), 'row')}, such as {first!r}", broken)


def is_within(values: pa.ChunkedArray, low: float | None, high: float | None) -> bool:
    """Say whether all numbers are finite and in a range; NULL and NaN count for nothing."""
    least, most = -np.inf if low is None else low, np.inf if high is None else high
    for chunk in values.chunks:
        if chunk.null_count == len(chunk):
            continue
        # The numbers with what is below NULL, which is mostly NaN or 0: thirty times as fast as Arrow's extremes.
        every = np.frombuffer(chunk.buffers()[1], chunk.type.to_pandas_dtype())[chunk.offset :][: len(chunk)]
        if not _is_finite_within(np.fmin.reduce(every), np.fmax.reduce(every), least, most):
            lowest, highest = pc.min_max(chunk).as_py().values()
            if not _is_finite_within(lowest, highest, least, most):
                return False
    return True


def _is_finite_within(lowest: float, highest: float, low: float, high: float) -> bool:
    return bool(np.isfinite(lowest) and np.isfinite(highest) and lowest >= low and highest <= high)


def _check_values(spec: Table, column: Column, values: pa.ChunkedArray) -> None:
    if column.required and values.null_count:
        reason = f"{spec.name}.{column.name} is NULL in {values.null_count} of {counted(len(values), 'row')}"
        raise _Broken(reason, values.is_null())
    is_number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    if is_number and is_within(values, column.low, column.high):
        return  # the quickest check, for most columns; the rest finds what is wrong
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


def _check_unique(spec: Table, table: pa.Table, places: pa.ChunkedArray | None) -> None:
    # Numbers of sources are compared faster than their ids.
    number = "number of the source"
    numbered = table if places is None else table.append_column(number, places)
    key = [name if places is None or name != "source_id" else number for name in spec.key]
    if not key or _is_unique(numbered, key):
        return
    keys = decoded(table.select(list(spec.key))).group_by(list(spec.key)).aggregate([([], "count_all")])
    twice = keys.filter(pc.greater(keys["count_all"], 1))
    if twice.num_rows:
        first = {name: twice[name][0].as_py() for name in spec.key}
        whose = twice["source_id"].to_pylist() if "source_id" in twice.column_names else []
        reason = f"{spec.name} has {counted(twice.num_rows, 'key')} more than once, such as {first}"
        raise GranuleRejected(reason, sources=whose)


def _is_unique(table: pa.Table, key: Sequence[str]) -> bool:
    """Say whether no two rows have the same key; it takes a third of the time that finding those that have takes.

    False also if a key is not of texts and whole numbers, or has too many values.
    """
    code, most = np.zeros(table.num_rows, np.int64), 1
    for name in key:
        column = decoded(table.select([name]))[name].combine_chunks()
        if not (pa.types.is_string(column.type) or pa.types.is_integer(column.type)):
            return False
        values = column.dictionary_encode("encode")
        n = len(values.dictionary)
        most *= max(n, 1)
        if n == table.num_rows:
            return True
        if most >= 1 << 62:
            return False
        if n > 1:
            code = code * n + values.indices.to_numpy()
    code.sort()
    return not (code[1:] == code[:-1]).any()


def _check_positions(sources: pa.Table) -> None:
    expected = hpx29(sources["ra"].to_numpy(), sources["dec"].to_numpy())
    off = pa.chunked_array([pa.array(np.asarray(expected) != sources["hpx29"].to_numpy())])
    _refuse("sources", "hpx29", sources["hpx29"], off, "is not the pixel of ra, dec")


def _check_source_known(name: str, table: pa.Table, sources: pa.Table) -> pa.ChunkedArray:
    known, pixels = (sources[column].combine_chunks() for column in ("source_id", "hpx29"))
    places = [
        _places(chunk.dictionary, known).take(chunk.indices)
        if pa.types.is_dictionary(chunk.type)
        else _places(chunk, known)
        for chunk in table["source_id"].chunks
    ]
    found = pa.chunked_array(places, pa.int32())
    _refuse(name, "source_id", table["source_id"], pc.is_null(found), "is not among the granule's sources")
    theirs = [pixels.take(place) for place in places]
    other = pc.not_equal(table["hpx29"], pa.chunked_array(theirs, pixels.type))
    _refuse(name, "hpx29", table["hpx29"], other, "differs from its source's")
    return found


def _places(ids: pa.Array, known: pa.Array) -> pa.Array:
    """Return where ids are among the known ones; NULL for others."""
    if ids.equals(known):  # one row for each source, such as an event
        return pa.array(np.arange(len(ids), dtype=np.int32))
    return pc.index_in(ids, value_set=known)


def _check_units(lightcurves: pa.Table, band_units: Mapping[str, str | None]) -> None:
    seen = lightcurves.select(["band", "unit"]).unify_dictionaries().group_by(["band", "unit"]).aggregate([])
    for band, unit in zip(seen["band"].to_pylist(), seen["unit"].to_pylist(), strict=True):
        if band not in band_units:
            raise GranuleRejected(f"lightcurves.band {band!r} is none of {', '.join(sorted(band_units))}")
        if unit != band_units[band]:
            raise GranuleRejected(f"lightcurves.unit of band {band} is {unit!r}, not {band_units[band]!r}")
