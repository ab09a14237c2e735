"""Get the targets of a user's file as a sample."""

from __future__ import annotations

import pyarrow as pa

from lake.errors import ConfigurationError
from lake.settings import Settings
from lake.store.walk import shown
from lake.text import counted
from tasks.samples.files import read_targets
from tasks.samples.options import FileOptions
from tasks.samples.sample import Collected


def listed(options: FileOptions, settings: Settings) -> Collected:
    """Read a list of targets, all of them or none.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, or a row is bad.
    """
    found = read_targets(
        options.path,
        label_column=options.label_column,
        ra_column=options.ra,
        dec_column=options.dec,
        frame=options.frame,
        epoch=options.epoch,
    )
    if found.bad_rows:
        first = found.bad_rows[0]
        raise ConfigurationError(
            f"{counted(len(found.bad_rows), 'row')} of {options.path} cannot be used, the first is line {first.line}: "
            f"{first.reason}; nothing was added",
            hint=f"see them all with: lightlake targets add {options.path} --dry-run",
        )
    n = found.targets.num_rows
    file = shown(options.path.name)
    sample = options.sample or shown(options.path.stem)
    columns = {name: found.targets[name] for name in found.targets.column_names}
    labels = columns["label"].to_pylist()
    columns["label"] = [label or options.label or sample for label in labels]
    columns |= {"catalogue": [file] * n, "bibcode": [options.bibcode] * n}
    schema = pa.schema([*found.targets.schema, ("catalogue", pa.string()), ("bibcode", pa.string())])
    return Collected(
        sample=sample,
        targets=pa.table(columns, schema),
        service="file",
        endpoint=shown(str(options.path)),
        query="",
        answered=n,
        expected=n,
        remarks=tuple(found.remarks),
    )
