"""Write light curves as Parquet, with units and UCDs of fields, and as VOParquet (IVOA Note 1.0) besides."""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lake.export.rows import Rows
from lake.export.text import facts_json, widths_of
from lake.export.votable import without_data

_VERSION, _CONTENT = "IVOA.VOTable-Parquet.version", "IVOA.VOTable-Parquet.content"


def write_parquet(rows: Rows, file: BinaryIO) -> None:
    """Write a Parquet file; lists, structures and times stay what they are.

    Parameters
    ----------
    rows
        What to write.
    file
        Where to.
    """
    widths = widths_of(rows.whole.batches())
    notes = {f"lightlake.{name}": value for name, value in facts_json(rows).items()}
    # astropy's reader fails on NULL text without these.
    notes |= {f"table::len::{name}": str(width) for name, width in widths.items()}
    # Readers of pyarrow's schema find what is there from the start, and not what is added at the end.
    schema = rows.schema.with_metadata({**notes, _VERSION: "1.0", _CONTENT: without_data(rows, widths)})
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in rows.whole.batches():
            writer.write_batch(pa.record_batch(batch.columns, schema=schema))
