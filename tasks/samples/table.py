"""One table of a file, as it is, and what astropy's headers declare about its columns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from astropy.coordinates import SkyCoord
from astropy.table import Table

from tasks.samples.cells import to_text
from tasks.samples.columns import Column
from tasks.samples.frames import Frame

_ROLES = {"lon": "lon", "lat": "lat", "d_lon_coslat": "pm_lon", "d_lat": "pm_lat"}


@dataclass(frozen=True)
class InputTable:
    """One table of a file.

    Parameters
    ----------
    title
        Its name in the file; empty if the file holds one table.
    columns
        Its columns.
    n_rows
        Number of rows.
    frames
        The frames that it declares for no particular columns.
    lines, texts
        Line number and text of each row, for text files.
    broken
        Rows that can't be split into cells, with the reason.
    skipped
        Columns that hold arrays.
    has_header
        False if the columns have no names, and are called col1, col2, ...
    blanks
        True if only blanks separate the cells.
    notes
        Its comments and descriptions.
    remarks
        Doubts about the whole table.
    """

    title: str
    columns: tuple[Column, ...]
    n_rows: int
    frames: tuple[Frame, ...] = ()
    lines: Sequence[int] = ()
    texts: Sequence[str] = ()
    broken: Mapping[int, str] = field(default_factory=dict)
    skipped: Sequence[str] = ()
    has_header: bool = True
    blanks: bool = False
    notes: str = ""
    remarks: Sequence[str] = ()


def describe(datatype: list[dict[str, Any]], empty: Table) -> dict[str, dict[str, Any]]:
    """Get what astropy's header declares about each stored column; SkyCoords are split into their parts."""
    about: dict[str, dict[str, Any]] = {
        d["name"]: {
            "unit": str(d.get("unit", "")),
            "ucd": str(dict(d.get("meta") or {}).get("ucd", "")),
            "description": str(d.get("description", "")),
        }
        for d in datatype
    }
    for name in empty.colnames:
        sky = empty[name]
        if isinstance(sky, SkyCoord):
            parts = sky.get_representation_component_names() | sky.get_representation_component_names("s")
            obstime = getattr(sky, "obstime", None)
            if obstime is not None and obstime == getattr(sky, "equinox", None):
                obstime = None  # astropy's default in FK4
            epoch = float(obstime.jyear) if obstime is not None and obstime.isscalar else None
            frame = Frame(name, sky.frame.replicate_without_data, epoch)
            for part, generic in parts.items():
                if generic in _ROLES:
                    stored = about.setdefault(f"{name}.{part}", {})
                    stored |= {"role": _ROLES[generic], "frame": frame}
    return about


def apply_masks(columns: list[Column]) -> tuple[Column, ...]:
    """Empty the cells that a column ``<name>.mask`` of astropy's masks."""
    by_name = {c.name: c for c in columns}
    return tuple(
        replace(c, read=functools.partial(_masked, c.read, by_name[mask].read))
        if (mask := f"{c.name}.mask") in by_name
        else c
        for c in columns
    )


def _masked(read: Callable[[], pa.Array], read_mask: Callable[[], pa.Array]) -> pa.Array:
    cells, hidden = read(), pc.equal(pc.utf8_lower(to_text(read_mask())), "true")
    return pc.if_else(pc.fill_null(hidden, False), pa.scalar(None, cells.type), cells)
