"""The files of a HATS collection: partitions, what describes them, indexes and properties."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lake.export.healpix import Pixel
from lake.export.nested import HEALPIX_COLUMN, NESTED
from lake.export.provenance import Provenance
from lake.science.sky import HPX_ORDER
from lake.store.migrations import SOFTWARE
from lake.store.storage import PARTIAL, flush, is_local, remove, write_text

if TYPE_CHECKING:
    from upath import UPath

TARGETS = "targets"
COLLECTION = "collection.properties"
_HATS_VERSION = "v1.0"
_INDEX_GROUP_ROWS = 100_000
_MEASUREMENTS = b"lightlake_measurements"

Footers = Mapping[Pixel, pq.FileMetaData]


def margin_name(margin_arcsec: float) -> str:
    """Return the name of a margin cache.

    Examples
    --------
    >>> margin_name(10.0), margin_name(2.5)
    ('targets_10arcs', 'targets_2p5arcs')
    """
    return f"{TARGETS}_{f'{margin_arcsec:g}'.replace('.', 'p')}arcs"


def write_rows(path: UPath, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    """Write a Parquet file, a row group for each part; it is there whole or not at all."""
    if is_local(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL) if is_local(path) else path
    nested = NESTED in schema.names
    try:
        with partial.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            count = 0
            for part in parts:
                writer.write_table(part, row_group_size=max(1, part.num_rows))
                count += sum(len(chunk.field(0).flatten()) for chunk in part[NESTED].chunks) if nested else 0
            writer.add_key_value_metadata({_MEASUREMENTS: str(count)})
    except BaseException:
        with suppress(OSError):
            remove(partial)
        raise
    flush(partial)
    if partial is not path:
        partial.rename(path)


def footer(path: UPath, name: str) -> pq.FileMetaData:
    """Read the footer of a file, for the file _metadata that names it."""
    with path.open("rb") as file:
        found = pq.ParquetFile(file).metadata
    found.set_file_path(name)
    return found


def measurements(found: pq.FileMetaData) -> int:
    """Return the number of measurements in a file, as its footer says."""
    return int(found.metadata[_MEASUREMENTS])


def finish_catalogue(folder: UPath, schema: pa.Schema, footers: Footers) -> int:
    """Write what describes the partitions of a catalogue; return the bytes of all of them."""
    dataset = folder / "dataset"
    if is_local(folder):
        dataset.mkdir(parents=True, exist_ok=True)
    ordered = dict(sorted(footers.items(), key=lambda one: (one[0].low, one[0].order)))
    _write_metadata(dataset / "_common_metadata", schema)
    _write_metadata(dataset / "_metadata", schema, list(ordered.values()))
    lines = ["Norder,Npix", *(f"{pixel.order},{pixel.number}" for pixel in ordered)]
    write_text(folder / "partition_info.csv", "".join(f"{line}\n" for line in lines))
    return sum((dataset / pixel.folder).stat().st_size for pixel in ordered)


def write_index(folder: UPath, column: str, rows: pa.Table) -> int:
    """Write an index: the pixel of each value of a column, sorted; return its bytes."""
    place = "index/part.0.parquet"
    path = folder / "dataset" / place
    ordered = rows.sort_by(column)
    groups = (ordered.slice(n, _INDEX_GROUP_ROWS) for n in range(0, max(1, ordered.num_rows), _INDEX_GROUP_ROWS))
    write_rows(path, ordered.schema, groups)
    _write_metadata(path.parents[1] / "_metadata", ordered.schema, [footer(path, place)])
    _write_metadata(path.parents[1] / "_common_metadata", ordered.schema)
    return int(path.stat().st_size)


def _write_metadata(path: UPath, schema: pa.Schema, footers: Sequence[pq.FileMetaData] = ()) -> None:
    """Write a footer without rows: of the schema, and of the row groups of other files."""
    empty = io.BytesIO()
    pq.ParquetWriter(empty, schema).close()
    found = pq.read_metadata(io.BytesIO(empty.getvalue()))
    for one in footers:
        found.append_row_groups(one)
    with path.open("wb") as file:
        found.write_metadata_file(file)


def write_properties(
    work: UPath,
    name: str,
    source: Provenance,
    footers: Mapping[str, Footers],
    indexes: Mapping[str, str],
    *,
    margin_arcsec: float,
    size: int,
    rows: int,
) -> None:
    """Write the properties of a collection and its catalogues, with the provenance; the collection's own last."""
    main, margin = footers[TARGETS], margin_name(margin_arcsec)
    made = {
        "hats_builder": SOFTWARE,
        "hats_creation_date": f"{source.made_at:%Y-%m-%dT%H:%MUTC}",
        "hats_version": _HATS_VERSION,
        **_terms(source, rows),
    }
    columns = {
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": HEALPIX_COLUMN,
        "hats_col_healpix_order": HPX_ORDER,
        "hats_npix_suffix": ".parquet",
    }
    _write(work / TARGETS, {
        "obs_collection": name, "dataproduct_type": "object", **columns, **_sizes(main), **made,
    })  # fmt: skip
    if margin_arcsec > 0:
        _write(work / margin, {
            "obs_collection": f"{name}_{margin.removeprefix(f'{TARGETS}_')}", "dataproduct_type": "margin",
            "hats_primary_table_url": TARGETS, "hats_margin_threshold": f"{margin_arcsec:g}", **columns,
            **_sizes(footers.get(margin, {})), **made,
        })  # fmt: skip
    for column, folder in indexes.items():
        _write(work / folder, {
            "obs_collection": f"{name}_{column}", "dataproduct_type": "index", "hats_primary_table_url": TARGETS,
            "hats_index_column": column, **made,
        })  # fmt: skip
    write_text(work / "provenance.json", json.dumps(source.as_dict(), indent=2, default=str) + "\n")
    of_margin = {"all_margins": margin, "default_margin": margin} if margin_arcsec > 0 else {}
    collection = {
        "obs_collection": name,
        "hats_primary_table_url": TARGETS,
        **of_margin,
        "all_indexes": " ".join(f"{column} {folder}" for column, folder in indexes.items()),
        "default_index": next(iter(indexes)),
        "hats_estsize": size // 1024,
        **made,
    }
    write_text(work / COLLECTION, properties(collection, "HATS Collection"))


def _terms(source: Provenance, rows: int) -> dict[str, Any]:
    """Return provenance and terms, by the names that HiPS and HATS have for them, then our own."""
    archives = source.archives
    return {
        "obs_title": f"Light curves of {f'sample {source.sample}' if source.sample else 'all targets'} from a lake",
        "prov_progenitor": "; ".join(f"{one['archive']} {one['release']}" for one in archives),
        "bib_reference": " ".join(sorted({one["bibcode"] for one in archives if one["bibcode"]})),
        "obs_copyright": "; ".join(f"{one['archive']}: {one['licence']}" for one in archives),
        "obs_ack": " ".join(dict.fromkeys(one["acknowledgement"] for one in archives)),
        "lightlake_lake_id": source.lake_id or "",
        "lightlake_snapshot_id": source.snapshot_id,
        "lightlake_sample": source.sample or "",
        "lightlake_measurements": rows,
    }


def _sizes(footers: Footers) -> dict[str, Any]:
    sizes = [one.num_rows for one in footers.values()]
    covered = sum(1 / (12 * 4**pixel.order) for pixel in footers)
    return {
        "hats_nrows": sum(sizes),
        "hats_max_rows": max(sizes, default=0),
        "hats_order": max((pixel.order for pixel in footers), default=0),
        "moc_sky_fraction": f"{covered:.5f}",
    }


def _write(folder: UPath, values: Mapping[str, Any]) -> None:
    """Write the properties of a catalogue under both names that readers look for."""
    for name in ("hats.properties", "properties"):
        write_text(folder / name, properties(values, "HATS catalog"))


def properties(values: Mapping[str, Any], title: str) -> str:
    r"""Convert values to the text of a file of Java's properties, ASCII, a line each.

    Examples
    --------
    >>> properties({"obs_ack": "Thank\nyou: ü"}, "HATS catalog")
    '#HATS catalog\nobs_ack=Thank you: \\u00fc\n'
    """
    lines = [f"#{title}"]
    for key, value in values.items():
        text = " ".join(str(value).split()).replace("\\", "\\\\")
        units = np.frombuffer(text.encode("utf-16-be"), ">u2").tolist()
        signs = [chr(one) if 32 <= one < 127 else f"\\u{one:04x}" for one in units]
        lines.append(f"{key}={''.join(signs)}")
    return "".join(f"{line}\n" for line in lines)
