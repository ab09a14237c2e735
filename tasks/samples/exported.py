"""Write targets of a lake as a list that `targets add` reads back: ECSV, VOTable, CSV or Parquet.

Each row is a name and a label of a target, with the target's position, so a target may have several rows. A file is
only written if its format can hold every value: the content is read back and compared first.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lake.commit.targets import MATCH_RADIUS_ARCSEC
from lake.errors import ConfigurationError
from lake.export.forms import convert
from lake.model.schema import TABLES
from lake.model.table import Column, Table
from lake.names import check_sample
from lake.output import whole_file
from lake.query import Lake
from lake.science.sky import SkyIndex
from lake.text import counted
from tasks.samples.files import read_targets
from tasks.samples.tables import FORMATS
from tasks.samples.target_file import TARGETS

_TARGET, _LABEL = TABLES["targets"].column, TABLES["labels"].column
COLUMNS = (
    replace(_TARGET("target_id"), ucd="meta.id"),
    Column("name", "VARCHAR", "Name; the first row of a target has its main one", ucd="meta.id;meta.main"),
    *(_TARGET(name) for name in ("ra", "dec", "pm_ra", "pm_dec", "ref_epoch", "redshift")),
    *(_LABEL(name) for name in ("sample", "label", "bibcode", "catalogue", "row_in_catalogue")),
)
_LIST = Table("list", "a name and a label of a target", COLUMNS, key=())
_ASTROMETRY = ("ra", "dec", "pm_ra", "pm_dec")

# Names without one of the chosen labels get the first of them.
_ROWS = """
    WITH chosen AS (FROM labels WHERE $sample IS NULL OR sample = $sample),
    listed AS (
        SELECT targets.target_id, coalesce(chosen.name, targets.name) AS name, sample, label, bibcode, catalogue,
            row_in_catalogue
        FROM targets LEFT JOIN chosen ON chosen.target_id = targets.target_id
        WHERE $sample IS NULL OR chosen.target_id IS NOT NULL
    ),
    named AS (
        FROM listed
        UNION ALL BY NAME
        SELECT target_id, own.name, sample, label
        FROM (SELECT target_id, name FROM targets UNION SELECT target_id, name FROM labels) AS own
        JOIN (SELECT DISTINCT ON (target_id) * FROM listed ORDER BY ALL) AS first USING (target_id)
        WHERE own.name IS NOT NULL AND NOT EXISTS (
            FROM listed WHERE listed.target_id = own.target_id AND listed.name = own.name
        )
    )
    SELECT {columns} FROM (SELECT * REPLACE (nullif(name, '') AS name) FROM named) AS named
    JOIN targets USING (target_id)
    ORDER BY targets.hpx29, target_id, named.name IS DISTINCT FROM targets.name, sample, label, catalogue,
        row_in_catalogue, named.name
"""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Parameters
    ----------
    rows, targets
        Numbers of rows and targets.
    notes
        What is lost when the list is read back.
    """

    rows: int
    targets: int
    notes: tuple[str, ...] = ()


def export_targets(lake: Lake, path: Path, *, sample: str | None = None, overwrite: bool = False) -> Exported:
    """Write the targets of a lake into a file, all or those of one sample, with all their names.

    Parameters
    ----------
    path
        The file; its extension chooses the format.
    overwrite
        Replace an existing file.

    Raises
    ------
    ConfigurationError
        If the extension is unknown, the file exists or cannot be written, the sample has no targets, or the format
        cannot hold one of their names.
    """
    kind = next((kind for kind in _WRITERS if path.suffix.lower() in FORMATS[kind]), None)
    if kind is None:
        known = ", ".join(suffix for one in _WRITERS for suffix in FORMATS[one])
        raise ConfigurationError(
            f"no list of targets is written as {path.suffix or path.name!r}", hint=f"extensions are {known}"
        )
    if path.exists() and not overwrite:
        raise ConfigurationError(
            f"{path} is there already", hint="name another file, or write over it with --overwrite"
        )
    check_sample(lake, sample)
    columns = ", ".join(f"named.{c.name}" if c.name == "name" else c.name for c in COLUMNS)
    found = lake.sql(_ROWS.format(columns=columns), {"sample": sample})
    if not found.num_rows:
        raise ConfigurationError("the lake has no targets", hint="add some with: lightlake targets add")
    rows = _LIST.cast(found)
    content = _WRITERS[kind](rows)
    notes = [note for note in (_check_read_back(rows, content, path, kind), _note_merging(rows)) if note]
    with whole_file(path) as file:
        file.write(content)
    return Exported(rows.num_rows, len(pc.unique(rows["target_id"])), tuple(notes))


def _check_read_back(rows: pa.Table, content: bytes, path: Path, kind: str) -> str | None:
    """Read a list back and return what changed; raise an error if another format would keep it."""
    with tempfile.TemporaryDirectory(prefix="lightlake-") as folder:
        copy = Path(folder) / f"targets{path.suffix.lower()}"
        copy.write_bytes(content)
        change = None
        try:
            read = read_targets(copy, label_column="label")
        except ConfigurationError as error:
            if kind == "parquet":
                raise
            change = str(error)
    if change is None:
        if read.bad_rows:
            change = read.bad_rows[0].reason
        else:
            names = [name for name in TARGETS.names if name in rows.column_names and name != "row_in_catalogue"]
            change = next((found for name in names if (found := _changed(name, rows, read.targets))), None)
    if change is None or kind == "parquet":
        return change
    odd = [name for name in pc.unique(rows["name"]).to_pylist() if name is not None and not name.isprintable()]
    which = (
        f" ({counted(len(odd), 'name has', 'names have')} line breaks or control characters, such as {odd[0]!r})"
        if odd
        else ""
    )
    raise ConfigurationError(
        f"as {kind}, these targets could not be read back: {change}{which}; nothing was written",
        hint="Parquet keeps every name: FILE.parquet",
    )


def _changed(name: str, rows: pa.Table, read: pa.Table) -> str | None:
    mine, theirs = (table[name].combine_chunks() for table in (rows, read))
    if mine.equals(theirs):
        return None
    pairs = zip(mine.to_pylist(), theirs.to_pylist(), strict=True)
    return next((f"{name} {one!r} comes back as {other!r}" for one, other in pairs if one != other), None)


def _note_merging(rows: pa.Table) -> str | None:
    """Return a note on targets that would merge when the list is added with the default radius."""
    first = rows.group_by("target_id").aggregate([("ra", "min"), ("dec", "min")])
    positions = np.unique(np.stack([first["ra_min"].to_numpy(), first["dec_min"].to_numpy()]), axis=1)
    if same := first.num_rows - positions.shape[1]:
        return f"{counted(same, 'target')} at the position of another: adding this list merges them"
    if near := int((~SkyIndex(*positions).is_alone(MATCH_RADIUS_ARCSEC)).sum()):
        return (
            f"{counted(near, 'target')} within {MATCH_RADIUS_ARCSEC:g} arcsec of another: adding the list merges them, "
            "unless --match-radius is smaller"
        )
    return None


def _astropy(rows: pa.Table) -> Any:
    from astropy.table import Table

    table = Table(convert(rows, "astropy"), copy=False)  # whose columns carry UCDs, which quantities do not
    for column in COLUMNS:
        table[column.name].description = column.description
        table[column.name].meta["ucd"] = column.ucd
    return table


def _ecsv(rows: pa.Table) -> bytes:
    # Below its header, ECSV with commas is CSV. Astropy takes ten times as long to write it.
    empty, text = _astropy(rows.slice(0, 0)), io.StringIO()
    empty.meta["RADESYS"] = "ICRS"
    empty.write(text, format="ascii.ecsv", delimiter=",")
    header = "".join(line for line in text.getvalue().splitlines(keepends=True) if line.startswith("#"))
    return header.encode() + _csv(rows)


def _votable(rows: pa.Table) -> bytes:
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import CooSys

    document, content = from_table(_astropy(rows)), io.BytesIO()
    document.resources[0].coordinate_systems.append(CooSys(ID="icrs", system="ICRS"))
    for field in document.get_first_table().fields:
        if field.name in _ASTROMETRY:
            field.ref = "icrs"
    document.to_xml(content)
    return content.getvalue()


def _csv(rows: pa.Table) -> bytes:
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(rows.column_names)
    lines.writerows(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    return text.getvalue().encode()


def _parquet(rows: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(rows.replace_schema_metadata({"RADESYS": "ICRS"}), content)
    return content.getvalue()


_WRITERS: dict[str, Callable[[pa.Table], bytes]] = {
    "ecsv": _ecsv,
    "votable": _votable,
    "csv": _csv,
    "parquet": _parquet,
}
