"""The commands `lightlake export hats` and `lightlake export fornax`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from lake.cli import LakeURL
from lake.output import say
from lake.settings import Settings, load_settings
from lake.text import counted

# What DuckDB sorts in; the rest goes to the disk. Its own default is most of the machine's memory.
_MEMORY = "1GB"

_Flag = Parameter(negative=())
_Several = Parameter(negative=())


def export_hats(
    *,
    to: str,
    lake: LakeURL = None,
    sample: str | None = None,
    archive: Annotated[list[str] | None, _Several] = None,
    good: Annotated[bool, _Flag] = False,
    margin: float = 10.0,
    rows: int = 1_000_000,
    workers: int = 4,
    again: Annotated[bool, _Flag] = False,
) -> int:
    """Write a sample as a HATS collection for LSDB: targets with nested light curves, margin cache and indexes.

    The folder appears when all of it is written. An export that was stopped goes on when it is run again, if the lake
    has not changed since.

    Parameters
    ----------
    to
        Folder to write, or s3://BUCKET/PREFIX.
    sample
        Only targets of this sample; default: all.
    archive
        Only light curves of this archive; may be given several times.
    good
        Only measurements that pass the archive's own recommended cut.
    margin
        Radius of the margin cache, arcsec: crossmatches work up to it. 0: none.
    rows
        Measurements in a file. Memory grows with it, times --workers.
    workers
        Files that are written at the same time.
    again
        Replace a collection that is there.
    """
    from lake.export.hats import export_collection
    from lake.query import Lake

    started = time.monotonic()

    def tell(done: int, of: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done} of {counted(of, 'file')}, {time.monotonic() - started:.0f} s ")

    with Lake(lake, _settings()) as opened:
        done = export_collection(
            opened, to, sample=sample, archives=archive, good=good, rows_per_file=rows, margin_arcsec=margin,
            workers=workers, again=again, progress=tell,
        )  # fmt: skip
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    kept = f", {done.kept} of the files were there already" if done.kept else ""
    say(
        f"{to}: {counted(done.targets, 'target')}, {counted(done.rows, 'measurement')} in "
        f"{counted(done.partitions, 'partition')}, {counted(done.in_margins, 'target')} in margins, "
        f"{done.bytes / 1e6:.1f} MB, in {time.monotonic() - started:.1f} s{kept}"
    )
    return 0


def export_fornax(
    *,
    to: Path,
    lake: LakeURL = None,
    sample: str | None = None,
    v24: Annotated[bool, _Flag] = False,
    exploded: Annotated[bool, _Flag] = False,
    ids: Literal["targets", "numbered"] = "targets",
) -> int:
    """Write light curves as the Parquet file that the Fornax notebooks read into pandas.

    The frame has the index levels objectid, label, band and time, and the columns flux and err; frame.attrs has the
    units of each band.

    Parameters
    ----------
    to
        File to write.
    sample
        Only targets of this sample, with the labels that it gives them; default: all.
    v24
        Name bands as the machine-learning notebooks do: zg, W1, "panstarrs g", G.
    exploded
        Write a row for each label of a target, instead of labels joined by "; ".
    ids
        Make objectid the lake's target_id, or number targets from 1; FILE_ids.ecsv then has their ids and positions.
    """
    from lake.export.fornax import export_frame
    from lake.query import Lake

    started = time.monotonic()
    with Lake(lake, _settings()) as opened:
        done = export_frame(opened, to, v24=v24, exploded=exploded, numbered=ids == "numbered", sample=sample)
    say(
        f"{to}: {counted(done.rows, 'row')} of {counted(done.targets, 'target')} in "
        f"{counted(len(done.units), 'band')} with units, in {time.monotonic() - started:.1f} s"
    )
    if done.ids is not None:
        say(f"{done.ids}: the targets of the numbers")
    return 0


def _settings() -> Settings:
    """Return the settings, with a limit on DuckDB's memory if they have none."""
    given = load_settings()
    return given if given.duckdb_memory else given.model_copy(update={"duckdb_memory": _MEMORY})
