"""The command `lightlake export hlsp`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from lake.cli import LakeURL
from lake.output import say
from lake.text import counted

if TYPE_CHECKING:
    from tasks.sources.hst_timetag.hlsp_export import Written


def hlsp(
    *,
    to: Path,
    lake: LakeURL = None,
    product: Literal["exposure", "composite", "both"] = "both",
    where: str | None = None,
    again: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Write light curves of COS and STIS as FITS files.

    They have the names and keywords of their published form.

    Parameters
    ----------
    to
        Folder to write to.
    product
        Exposures, composites or both.
    where
        Only light curves for which this SQL is true, on the columns of table hst_exposures: "grating = 'G140L'".
    again
        Write all files anew that are there already; else those whose light curve was extracted again since.
    """
    from lake.query import Lake
    from tasks.sources.hst_timetag.hlsp_export import export_hlsp

    def tell(done: Written) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{counted(done.files, 'file')} written, {done.kept} kept ")

    with Lake(lake) as opened:
        done = export_hlsp(opened, to, product, where=where, again=again, progress=tell)
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    say(f"{done.files} light curves written to {to}; {done.kept} were there already")
    return 0
