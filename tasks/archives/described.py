"""Describe archives: all of them on a screen, or one with everything that is known of it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lake.redact import redacted
from lake.settings import Settings
from lake.terminal import table_text
from tasks.sources.base import Archive, Origin

_HEAD = ("archive", "release", "asked", "bands", "what")


def overview(archives: Sequence[Origin], width: int | None) -> Iterator[str]:
    """Write a line for each archive: as wide as the terminal is, and cut there.

    Where there is no room for all, what is told of an archive loses the number of bands first, then how often it is
    asked, then the release.
    """
    rows = [(one.name, one.release, _asked(one), str(len(one.bands)), one.title) for one in archives]
    room = 80 if width is None else width
    columns = next(
        (kept for kept in ((0, 1, 2, 3, 4), (0, 1, 2, 4), (0, 1, 4)) if _fixed(rows, kept) + 30 <= room), (0, 4)
    )
    for row in (_HEAD, *rows):
        cells = [row[at].ljust(_widest(rows, at)) for at in columns[:-1]]
        line = "  ".join((*cells, row[4]))
        yield line if width is None or len(line) <= width else f"{line[: width - 3].rstrip()}..."


def _widest(rows: Sequence[Sequence[str]], at: int) -> int:
    return max(len(row[at]) for row in (_HEAD, *rows))


def _fixed(rows: Sequence[Sequence[str]], columns: Sequence[int]) -> int:
    return sum(_widest(rows, at) + 2 for at in columns[:-1])


def _asked(archive: Origin) -> str:
    if archive.cadence == "frozen":
        return "once"
    days = archive.max_age_days if isinstance(archive, Archive) else None
    return "for what is new" if days is None else f"every {days:g} d"


def facts(archive: Origin, endpoint: str) -> dict[str, str]:
    """Return what is known of an archive or a survey, but its bands, by what it is about.

    Parameters
    ----------
    archive
        The archive, or where a survey's files are from.
    endpoint
        Its address.
    """
    known = {
        "release": archive.release,
        "asked": _asked(archive),
        "times": f"MJD ({archive.time_scale}), {archive.time_frame}",
        "radius": None if archive.radius_arcsec is None else f"{archive.radius_arcsec:g} arcsec",
        "endpoint": endpoint,
        "command": archive.command or f"lightlake pull {archive.name}",
        "observed": archive.span.description if isinstance(archive, Archive) and archive.span else None,
        "parameters": json.dumps(dict(archive.parameters)) if isinstance(archive, Archive) else None,
        "licence": archive.licence,
        "cite": archive.bibcode,
        "acknowledge": archive.acknowledgement,
        **archive.words,
    }
    return {name: value for name, value in known.items() if value}


def described(archive: Origin, settings: Settings, width: int | None) -> Iterator[str]:
    """Write all that is known of an archive or a survey: words, and a table of its bands."""
    yield f"{archive.name}: {archive.title}"
    for name, value in facts(archive, _endpoint(archive, settings)).items():
        yield textwrap.fill(
            value,
            width or 10_000,
            initial_indent=f"  {name:13}",
            subsequent_indent=15 * " ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    yield "\nbands"
    yield table_text(bands_table(archive), width)


def _endpoint(archive: Origin, settings: Settings) -> str:
    if isinstance(archive, Archive):
        return redacted(archive.endpoint_url(settings))
    return redacted(settings.endpoints.get(archive.service or archive.name, archive.public_url))


def bands_table(archive: Origin) -> pa.Table:
    """Return a row for each band: unit, system and zero point of magnitudes, wavelength."""
    kept = ("band", "unit", "mag_system", "zero_point_jy", "wavelength_nm", "description")
    rows = [{name: getattr(band, name) for name in kept} for band in archive.bands]
    numbers = {"zero_point_jy", "wavelength_nm"}
    schema = pa.schema([(name, pa.float64() if name in numbers else pa.string()) for name in kept])
    empty = {name for name in numbers | {"mag_system"} if all(row[name] is None for row in rows)}
    return pa.Table.from_pylist(rows, schema=schema).drop_columns(sorted(empty))


def row_of(archive: Origin, settings: Settings) -> dict[str, Any]:
    """Return all that is known of an archive or a survey as plain data, with its bands."""
    return {
        **archive.row(),
        **dict.fromkeys(("access", "matching", "quality", "corrections", "notes")),
        **archive.words,
        "endpoint": _endpoint(archive, settings),
        "public_endpoint": archive.public_url,
        "parameters": dict(archive.parameters) if isinstance(archive, Archive) else {},
        "bands": archive.band_rows(),
    }


def as_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return a table of archives: their parameters as JSON, their bands by name."""
    flat = [
        {**row, "parameters": json.dumps(row["parameters"]), "bands": " ".join(band["band"] for band in row["bands"])}
        for row in rows
    ]
    return pa.Table.from_pylist(flat)
