"""Read targets with their light curves, one row a target, in parts that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.model.schema import TABLES
from lake.model.table import Column, quoted
from lake.query import Lake
from lake.store.failures import query_failure

Ints = NDArray[np.int64]

HEALPIX_COLUMN = "_healpix_29"
NESTED = "lc"

# Measurements in a row group: a search of one target reads few others.
_GROUP_ROWS = 131_072
_BATCH_ROWS = 32_768

# Sources of a partition's targets are found by so many ranges of hpx29 an archive: DuckLake skips the files, and DuckDB
# the row groups, outside of each. Sources across a pixel's edge may be far away in hpx29.
_RANGES = 4

_OF_TARGETS = ("target_id", "name", "ra", "dec", "pm_ra", "pm_dec", "ref_epoch", "redshift")
_ADDED = (
    Column("labels", "VARCHAR", "Labels of the target in its samples, joined by '; '", ucd="meta.code.class"),
    Column("samples", "VARCHAR", "Samples that the target belongs to, joined by '; '", ucd="meta.dataset"),
)
_OF_MATCHES = ("rank", "separation_arcsec")
_NOT_NESTED = ("hpx29", "granule")


@dataclass(frozen=True)
class Selection:
    """What is exported.

    Parameters
    ----------
    snapshot
        Snapshot of the lake.
    sample
        Only targets of this sample; None: all.
    archives
        Only light curves of these archives; None: all.
    good
        Only measurements that pass the archive's own recommended cut.
    """

    snapshot: int
    sample: str | None = None
    archives: tuple[str, ...] | None = None
    good: bool = False

    def table(self, name: str) -> str:
        """Return the SQL of a table at the snapshot."""
        return f"{name} AT (VERSION => {self.snapshot})"

    @property
    def of_archives(self) -> str:
        """Return the condition on archives, as SQL."""
        return "true" if self.archives is None else f"archive IN ({', '.join(map(quoted, self.archives)) or 'NULL'})"


@dataclass(frozen=True)
class Targets:
    """The targets of a selection, sorted by hpx29, with the number of their measurements."""

    target_id: Ints
    hpx29: Ints
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    rows: Ints


def _nested_columns() -> list[pa.Field]:
    matched, measured = TABLES["matches"].arrow, TABLES["lightcurves"].arrow
    fields = [field for field in measured if field.name not in _NOT_NESTED]
    return [*fields, *(matched.field(name) for name in _OF_MATCHES)]


def schema() -> pa.Schema:
    """Return the Arrow schema of a row: the target, then a struct of lists; units, UCDs and descriptions in it."""
    targets = TABLES["targets"]
    added = pa.schema(
        [pa.field(one.name, pa.string(), metadata={"description": one.description, "ucd": one.ucd}) for one in _ADDED]
    )
    healpix = targets.arrow.field("hpx29").with_name(HEALPIX_COLUMN)
    lists = [
        pa.field(field.name, pa.list_(pa.field("element", field.type)), nullable=False, metadata=field.metadata)
        for field in _nested_columns()
    ]
    described = {"description": "Measurements, sorted by archive, band and mjd: lists of equal length"}
    nested = pa.field(NESTED, pa.struct(lists), nullable=False, metadata=described)
    return pa.schema([healpix, *(targets.arrow.field(name) for name in _OF_TARGETS), *added, nested])


def targets_of(lake: Lake, selection: Selection) -> Targets:
    """Read which targets a selection has, and how many measurements each brings."""
    found = lake.run(
        f"""
        SELECT target_id, hpx29, ra, dec, coalesce(counted.rows, 0)::BIGINT AS rows
        FROM {selection.table("targets")}
        LEFT JOIN (
            SELECT target_id, sum(n_rows) AS rows FROM {selection.table("coverage")}
            WHERE {selection.of_archives} GROUP BY target_id
        ) AS counted USING (target_id)
        WHERE $sample IS NULL
            OR target_id IN (SELECT target_id FROM {selection.table("labels")} WHERE sample = $sample)
        ORDER BY hpx29, target_id
        """,
        {"sample": selection.sample},
    )
    return Targets(*(found[name].to_numpy() for name in ("target_id", "hpx29", "ra", "dec", "rows")))


def rows(lake: Lake, selection: Selection, target_ids: Ints) -> Iterator[pa.Table]:
    """Yield the rows of some targets, in their order, as tables of `schema`; each has whole targets.

    Memory holds the measurements of a table, or of one target if that has more, beside what DuckDB needs to sort.
    """
    wanted = pa.table({"place": np.arange(len(target_ids), dtype=np.int64), "target_id": target_ids})
    near = f"target_id BETWEEN {target_ids.min()} AND {target_ids.max()}"
    heads = lake.run(
        f"""
        SELECT targets.hpx29 AS {HEALPIX_COLUMN}, {", ".join(f"targets.{name}" for name in _OF_TARGETS)},
            known.labels, known.samples
        FROM wanted JOIN (FROM {selection.table("targets")} WHERE {near}) AS targets USING (target_id)
        LEFT JOIN (
            SELECT target_id, string_agg(DISTINCT label, '; ' ORDER BY label) AS labels,
                string_agg(DISTINCT sample, '; ' ORDER BY sample) AS samples
            FROM {selection.table("labels")} WHERE {near} GROUP BY target_id
        ) AS known USING (target_id)
        ORDER BY place
        """,
        None,
        wanted=wanted,
    )
    links = lake.run(
        f"""
        SELECT place, archive, release, source_id, hpx29, rank, separation_arcsec
        FROM wanted JOIN (FROM {selection.table("matches")} WHERE {near} AND {selection.of_archives}) AS matches
            USING (target_id)
        LEFT JOIN (SELECT archive, release AS shown FROM {selection.table("archives")}) AS archives USING (archive)
        WHERE release = coalesce(shown, release)
        """,
        None,
        wanted=wanted,
    )
    made = schema()
    for first, last, part in _whole_targets(_measurements(lake, selection, links), len(target_ids)):
        head = heads.slice(first, last - first)
        columns = [head[field.name].cast(field.type) for field in made if field.name != NESTED]
        yield pa.table([*columns, pa.chunked_array([_nested(part, first, last, made.field(NESTED))])], schema=made)


def _measurements(lake: Lake, selection: Selection, links: pa.Table) -> Iterator[pa.Table]:
    """Yield the measurements of linked sources in parts, sorted by the places of their targets."""
    if not links.num_rows:
        return
    parts = []
    for archive in sorted(set(links["archive"].to_pylist())):
        pixels = links.filter(pc.equal(links["archive"], archive))["hpx29"].to_numpy()
        parts += [
            f"SELECT * FROM {selection.table('lightcurves')} "
            f"WHERE archive = {quoted(archive)} AND hpx29 BETWEEN {low} AND {high}"
            for low, high in _ranges(pixels)
        ]
    names = [field.name for field in _nested_columns()]
    columns = ", ".join(f"{'links' if name in _OF_MATCHES else 'near'}.{name}" for name in names)
    query = (
        f"SELECT links.place, {columns} FROM ({' UNION ALL '.join(parts)}) AS near "
        f"JOIN links USING (archive, release, hpx29, source_id) WHERE {'good' if selection.good else 'true'} "
        "ORDER BY place, archive, band, mjd, release, source_id, exposure_id, bmjd_tdb, flux"
    )
    with closing(lake.catalog.cursor()) as cursor:
        try:
            cursor.register("links", links)
            reader = cursor.execute(query).to_arrow_reader(_BATCH_ROWS)
            for batch in reader:
                yield pa.Table.from_batches([batch])
        except duckdb.Error as error:
            raise query_failure(error, lake.catalog.location, lake.storage) from error


def _ranges(pixels: Ints) -> list[tuple[int, int]]:
    """Return a few ranges that hold all pixels: those between the widest gaps."""
    there = np.unique(pixels)
    cuts = np.sort(np.argsort(-np.diff(there), kind="stable")[: _RANGES - 1]) + 1
    return [(int(one[0]), int(one[-1])) for one in np.split(there, cuts) if len(one)]


def _whole_targets(parts: Iterator[pa.Table], count: int) -> Iterator[tuple[int, int, pa.Table | None]]:
    """Cut sorted measurements at targets; yields the places from and to, without the last, and their rows."""
    held: list[pa.Table] = []
    first, rows, enough = 0, 0, _GROUP_ROWS
    for part in parts:
        if not part.num_rows:
            continue
        held.append(part)
        rows += part.num_rows
        if rows < enough:
            continue
        table = pa.concat_tables(held)
        newest = int(table["place"][-1].as_py())
        cut = int(np.searchsorted(table["place"].to_numpy(), newest))
        if cut:
            yield first, newest, table.slice(0, cut)
            first = newest
        held = [table.slice(cut)]
        rows = held[0].num_rows
        enough = max(_GROUP_ROWS, 2 * rows)  # a target with many is looked at again only when it has twice as many
    yield first, count, pa.concat_tables(held) if held else None


def _nested(rows: pa.Table | None, first: int, last: int, field: pa.Field) -> pa.StructArray:
    """Fold measurements into a list for each target from first to last."""
    counts: Sequence[int] | Ints = [0] * (last - first)
    if rows is not None:
        counts = np.bincount(rows["place"].to_numpy() - first, minlength=last - first)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    lists = []
    for child in field.type:
        values = (
            pa.array([], child.type.value_type)
            if rows is None
            else pa.concat_arrays([*rows[child.name].cast(child.type.value_type).chunks])
        )
        lists.append(pa.ListArray.from_arrays(offsets, values, type=child.type))
    return pa.StructArray.from_arrays(lists, fields=list(field.type))
