"""Add targets that a program has: a table of pandas, polars, astropy or Arrow, a file, or names."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lake.commit.targets import MATCH_RADIUS_ARCSEC, Added, add_targets
from lake.errors import ConfigurationError
from lake.names import check_not_blank
from lake.query import Lake
from lake.store.walk import shown
from lake.text import counted, one_line
from tasks.events import announce
from tasks.samples.by_name import Names, file_of, names_given, read_list
from tasks.samples.target_file import BadRow, Taken, TargetFile

# Rows that a message names.
_ROWS_NAMED = 3


@dataclass(frozen=True)
class AddedTargets(Added):
    """What came of adding a table of targets.

    Parameters
    ----------
    taken
        The columns that were read, and as what.
    bad_rows
        Rows that were left out, with the reason.
    remarks
        What is in doubt.
    """

    taken: tuple[Taken, ...] = ()
    bad_rows: tuple[BadRow, ...] = ()
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        new, labels = counted(self.new, "new target"), counted(self.labels, "new label")
        counts = f"{counted(self.rows, 'row')}: {new}, {self.known} known, {labels}"
        read = ", ".join(f"{one.quantity} from {one.column}{one.unit and f' ({one.unit})'}" for one in self.taken)
        bad = f"{counted(len(self.bad_rows), 'bad row')} left out" if self.bad_rows else ""
        return f"<{one_line('; '.join(filter(None, (counts, read, bad, *self.remarks))))}>"


def add_given(
    lake: Lake,
    targets: Any,
    sample: str,
    *,
    match_radius_arcsec: float = MATCH_RADIUS_ARCSEC,
    catalogue: str | None = None,
    bibcode: str | None = None,
    skip_bad: bool = False,
    again: bool = False,
    **columns: Any,
) -> AddedTargets:
    """Add targets to a lake that is open for writing. If a row is bad, none is added.

    Parameters
    ----------
    targets
        A DataFrame of pandas or polars, a Table of astropy or Arrow, a dict of columns, the path of a file, a name,
        or a list of names.
    sample
        Name of the sample.
    match_radius_arcsec
        A row this close to a known target is that target. With 0 each row is a target of its own.
    catalogue
        What to call the list in the lake; None: the name of the file.
    bibcode
        Paper that lists the targets.
    skip_bad
        Add the other rows.
    again
        Look names up that the lake knows already, too.
    **columns
        label_column, ra_column, dec_column, name_column, frame, epoch: see `tasks.samples.files.read_targets`.

    Raises
    ------
    ConfigurationError
        If the table has neither positions nor names, or a row is bad.
    ArchiveError
        If a service of names does not answer, after retries.
    """
    check_not_blank("sample", sample)
    if match_radius_arcsec < 0:
        raise ConfigurationError(f"match_radius_arcsec cannot be {match_radius_arcsec:g}", hint="give 0 or more")
    names = Names(lake.settings, lake, again, match_radius_arcsec)
    found, of_file = _read(targets, names, columns)
    if found.bad_rows and not (skip_bad and found.targets.num_rows):
        n, total = len(found.bad_rows), len(found.bad_rows) + found.targets.num_rows
        listed = "; ".join(f"row {row.line}: {row.reason}" for row in found.bad_rows[:_ROWS_NAMED])
        more = f"; and {n - _ROWS_NAMED} more" if n > _ROWS_NAMED else ""
        raise ConfigurationError(
            one_line(f"nothing was added, for {counted(n, 'bad row')} of {total}: {listed}{more}"),
            hint="mend or remove them, or add the others with skip_bad=True",
        )
    added = add_targets(
        lake.catalog,
        found.targets,
        sample,
        catalogue=catalogue if catalogue is not None else of_file,
        bibcode=bibcode,
        radius_arcsec=match_radius_arcsec,
        aliases=found.aliases,
    )
    trouble = announce(sample, str(lake.storage.root), added) if added.new or added.labels else None
    remarks = (*found.remarks, f"Prefect was not told: {trouble}") if trouble else found.remarks
    return AddedTargets(
        added.rows, added.new, added.known, added.labels, taken=found.taken, bad_rows=found.bad_rows, remarks=remarks
    )


def _read(targets: Any, names: Names, columns: dict[str, Any]) -> tuple[TargetFile, str | None]:
    """Return what a list holds, and the name of its file."""
    if isinstance(targets, str | Path) or _are_names(targets):
        listed = [str(targets)] if isinstance(targets, str | Path) else list(targets)
        if isinstance(targets, Path) or file_of(listed) is not None:
            path = Path(listed[0])
            return read_list(path, names, **columns), shown(path.name)
        if given := [name for name, value in columns.items() if value is not None]:
            raise ConfigurationError(f"names have no {', '.join(given)}", hint="give a table")
        return names.located(names_given(listed)), None
    with tempfile.TemporaryDirectory(prefix="lightlake-") as folder:
        return read_list(_written(targets, Path(folder)), names, **columns), None


def _are_names(targets: Any) -> bool:
    return isinstance(targets, list | tuple | set) and all(isinstance(one, str) for one in targets)


def _written(table: Any, folder: Path) -> Path:
    """Write a table to a file that keeps its units, and frames of coordinates."""
    if hasattr(table, "colnames"):  # astropy's
        path = folder / "table.ecsv"
        table.write(path, format="ascii.ecsv")
        return path
    path = folder / "table.parquet"
    pq.write_table(_as_arrow(table), path)
    return path


def _as_arrow(table: Any) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, dict):
        table = {
            name: values if isinstance(values, Sequence | np.ndarray) and not isinstance(values, str) else [values]
            for name, values in table.items()
        }
    try:
        if isinstance(table, dict):
            return pa.table(table)
        if hasattr(table, "to_arrow"):  # polars'
            return table.to_arrow()
        if hasattr(table, "reset_index"):  # pandas'
            frame = table.reset_index() if any(name is not None for name in table.index.names) else table
            return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise ConfigurationError(
            one_line(f"the table cannot be read: {error}"), hint="give columns of one type"
        ) from error
    raise ConfigurationError(
        f"a {type(table).__name__} is no list of targets",
        hint="give a DataFrame, an astropy or Arrow table, a dict of columns, a path, or a list of names",
    )
