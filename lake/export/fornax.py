"""Write light curves as the Parquet file that the Fornax notebooks read: a pandas frame with four index levels."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lake.errors import ConfigurationError
from lake.export.provenance import Provenance, current_snapshot, provenance
from lake.model.declared import declarations
from lake.model.fornax import fornax_rows, labels
from lake.names import check_sample
from lake.output import whole_file
from lake.query import Lake
from lake.store.failures import query_failure

# The page that helps with errors from here.
HELP_TOPIC = "how-to/from-fornax"

INDEX = ("objectid", "label", "band", "time")

_BATCH_ROWS = 32_768
_GROUP_ROWS = 1 << 18


@dataclass(frozen=True)
class Frame:
    """What was written.

    Parameters
    ----------
    rows, targets
        Rows of the frame, and targets that have any.
    units
        Units of flux and err in each band.
    ids
        File with the targets of the numbers.
    """

    rows: int
    targets: int
    units: dict[str, list[str]]
    ids: Path | None


def export_frame(
    lake: Lake,
    to: Path,
    *,
    v24: bool = False,
    exploded: bool = False,
    numbered: bool = False,
    sample: str | None = None,
) -> Frame:
    """Write the rows of view fornax as a Parquet file that pandas reads as the collector's frame.

    It has the index levels objectid, label, band and time, sorted, and the columns flux and err; ``frame.attrs`` has
    the units of each band, the snapshot and the terms of the archives. Rows are sorted by DuckDB, within the memory
    that the settings give it and on disk, and written in parts.

    Parameters
    ----------
    lake
        The lake.
    to
        The file.
    v24
        Bands have their names of 2024: zg, W1, "panstarrs g", G.
    exploded
        A row for each label of a target, instead of labels joined by "; ".
    numbered
        objectid runs from 1; the targets of the numbers are in a second file, which ends in ``_ids.ecsv``.
    sample
        Only targets of this sample, with the labels that it gives them; None: all.

    Raises
    ------
    ConfigurationError
        If there is no such sample, no row, or a file cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> with lake.open("my-lake") as opened:
    ...     done = export_frame(opened, Path("quasars.parquet"), sample="quasars", numbered=True)
    >>> frame = pd.read_parquet("quasars.parquet")
    >>> frame.index.names, list(frame.columns), frame.attrs["units"]
    (FrozenList(['objectid', 'label', 'band', 'time']), ['flux', 'err'], {'g': ['mJy'], 'r': ['mJy']})
    """
    check_sample(lake, sample)
    numbers = f"""
        SELECT row_number() OVER (ORDER BY added_at, target_id) AS objectid, target_id, name, ra, dec, redshift,
            known.label
        FROM targets JOIN ({labels(exploded=False, sample=_NAME if sample else None)}) AS known USING (target_id)
    """
    found = fornax_rows(
        declarations(),
        v24=v24,
        known=labels(exploded=exploded, sample=_NAME if sample else None),
        objectid="numbers.objectid" if numbered else "rows.target_id",
        joins=" JOIN numbers USING (target_id)" if numbered else "",
    )
    query = (
        f"WITH {f'numbers AS ({numbers}), ' if numbered else ''}found AS ({found}) "
        f"SELECT flux, err, {', '.join(INDEX)}, unit FROM found ORDER BY {', '.join(INDEX)}, flux, err"
    )
    parameters = {"sample": sample} if sample else None
    with lake.snapshot() as cursor:
        try:
            snapshot = current_snapshot(lake, cursor)
            table = lake.run(f"{numbers} ORDER BY objectid", parameters, within=cursor) if numbered else None
            reader = cursor.execute(query, parameters).to_arrow_reader(_BATCH_ROWS)
            with whole_file(to) as file:
                rows, targets, units = _write(file, reader, provenance(lake, snapshot, sample))
                if not rows:
                    raise ConfigurationError("no light curve to export", hint="pull some first: lightlake pull ARCHIVE")
        except duckdb.Error as error:
            raise query_failure(error, lake.catalog.location, lake.storage) from error
    return Frame(rows, targets, units, None if table is None else _write_ids(to, table))


_NAME = "$sample"


def _schema() -> pa.Schema:
    """Return the schema of the collector's frame, with what pandas notes of its index."""
    index = pd.MultiIndex.from_tuples([(1, "label", "band", 1.0)], names=INDEX)
    return pa.Schema.from_pandas(pd.DataFrame({"flux": [1.0], "err": [1.0]}, index=index))


def _write(
    file: BinaryIO, reader: Iterator[pa.RecordBatch], source: Provenance
) -> tuple[int, int, dict[str, list[str]]]:
    schema = _schema()
    count, targets, newest = 0, 0, None
    seen = set[tuple[str, str]]()
    # With a stored Arrow schema, pandas would not see keys that are added at the end.
    with pq.ParquetWriter(file, schema, compression="zstd", store_schema=False) as writer:
        for part in _parts(reader):
            both = part.select(["band", "unit"]).group_by(["band", "unit"]).aggregate([])
            seen |= {(row["band"], row["unit"]) for row in both.to_pylist() if row["unit"] is not None}
            ids = part["objectid"].unique()
            targets += len(ids) - (ids[0].as_py() == newest)
            newest = ids[-1].as_py()
            count += part.num_rows
            writer.write_table(part.select(schema.names).cast(schema), row_group_size=_GROUP_ROWS)
        units = {band: sorted(unit for of, unit in seen if of == band) for band in sorted({band for band, _ in seen})}
        attributes = json.loads(json.dumps({"units": units, **source.as_dict()}, default=str))
        writer.add_key_value_metadata({**schema.metadata, "PANDAS_ATTRS": json.dumps(attributes)})
    return count, targets, units


def _parts(reader: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in reader:
        if batch.num_rows:
            held.append(batch)
        if sum(one.num_rows for one in held) >= _GROUP_ROWS:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _write_ids(to: Path, table: pa.Table) -> Path:
    """Write the targets of the numbers as ECSV, with units, beside the frame."""
    from lake.export.forms import convert

    path = to.with_name(f"{re.sub(r'[.]parquet$', '', to.name)}_ids.ecsv")
    made = convert(table, "astropy")
    with whole_file(path) as file:
        text = io.StringIO()
        made.write(text, format="ascii.ecsv")
        file.write(text.getvalue().encode())
    return path
