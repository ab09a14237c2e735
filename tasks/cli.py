"""Commands about archives and targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from lake.cli import LakeURL, Output, say, show
from lake.errors import ArchiveError, ConfigurationError
from lake.settings import Settings, load_settings

if TYPE_CHECKING:
    from tasks.archives.base import Archive

archives = App(name="archives")
targets = App(name="targets", help="Register targets, and list them.")

# Bad rows beyond this many are counted, not listed.
_BAD_ROWS_TOLD = 20


@archives.default
def list_archives(*, as_json: Annotated[bool, Parameter(name="--json")] = False, releases: bool = False) -> int:
    """List the archives: release, bands, times, endpoint, cadence, licence and citation.

    Parameters
    ----------
    releases
        Ask the archives for the releases that they have; exit with 1 if one cannot be asked.
    """
    from tasks.archives import known as known_archives

    settings = load_settings()
    known = [archive for _, archive in sorted(known_archives().items())]
    if releases:
        return _list_releases(known, settings, as_json)
    if as_json:
        rows = [
            {**archive.row(), "endpoint": archive.reach(settings), "public_endpoint": archive.address,
             "parameters": dict(archive.parameters), "bands": archive.band_rows()}
            for archive in known
        ]  # fmt: skip
        say(json.dumps(rows, indent=2))
        return 0
    for archive in known:
        say(f"{archive.name}: {archive.title}")
        for name, value in (
            ("release", archive.release),
            ("bands", ", ".join(band.band for band in archive.bands)),
            ("times", f"MJD ({archive.time_scale}), {archive.time_frame}"),
            ("endpoint", archive.reach(settings)),
            ("cadence", archive.cadence),
            ("parameters", json.dumps(dict(archive.parameters))),
            ("licence", archive.licence),
            ("cite", archive.bibcode),
            ("acknowledge", archive.acknowledgement),
            ("notes", archive.notes),
        ):
            if value:
                say(f"  {name:12}{value}")
    return 0


def _list_releases(known: list[Archive], settings: Settings, as_json: bool) -> int:
    from tasks.archives.releases import found

    rows: list[dict[str, Any]] = []
    for archive in known:
        if "{release}" not in archive.pattern(settings):
            continue
        try:
            rows.append({"archive": archive.name, "pulled": archive.release, "found": found(archive, settings)})
        except ArchiveError as error:
            rows.append({"archive": archive.name, "pulled": archive.release, "error": str(error)})
    if as_json:
        say(json.dumps(rows, indent=2))
    else:
        for row in rows:
            say(f"{row['archive']}: {', '.join(row.get('found', ())) or row.get('error') or 'none found'}")
    return int(any("error" in row for row in rows))


@targets.command
def add(
    file: Path,
    *,
    sample: str,
    label: str | None = None,
    match_radius: float = 1.0,
    ra: str | None = None,
    dec: str | None = None,
    frame: str | None = None,
    bibcode: str | None = None,
    lake: LakeURL = None,
) -> int:
    """Register the targets of a file under a sample. If any row is bad, none is added.

    Parameters
    ----------
    file
        ECSV, CSV, VOTable, FITS or Parquet.
    sample
        Name of the sample.
    label
        Column that holds each target's label; default: the sample's name labels them all.
    match_radius
        A row within this many arcsec of a known target is that target.
    ra, dec
        Columns of the position, if they are not found by themselves.
    frame
        Frame of the position, as astropy names it, if the file does not say: icrs, fk5, galactic.
    bibcode
        Paper that lists the targets.
    """
    from lake.query import Lake
    from lake.targets import add_targets
    from tasks.samples.files import read_targets

    if match_radius < 0:
        raise ConfigurationError(f"--match-radius cannot be {match_radius:g}", hint="give arcsec, 0 or more")
    with Lake(lake) as opened:
        found = read_targets(file, label_column=label, ra_column=ra, dec_column=dec, frame=frame)
        if found.bad_rows:
            for row in found.bad_rows[:_BAD_ROWS_TOLD]:
                say(f"{file}:{row.line}: {row.reason}: {row.text}")
            if len(found.bad_rows) > _BAD_ROWS_TOLD:
                say(f"... and {len(found.bad_rows) - _BAD_ROWS_TOLD} more")
            raise ConfigurationError(
                f"{len(found.bad_rows)} of {len(found.bad_rows) + found.targets.num_rows} rows of {file} are bad; "
                "nothing was added",
                hint="mend or remove them",
            )
        added = add_targets(
            opened.catalog,
            found.targets,
            sample,
            catalogue=file.name,
            bibcode=bibcode,
            radius_arcsec=match_radius,
        )
    say(f"{added.rows} rows of {file.name}: {added.new} new targets, {added.known} known, {added.labels} new labels")
    return 0


@targets.command(name="list")
def list_targets(*, sample: str | None = None, lake: LakeURL = None, output: Output = "table") -> int:
    """List the targets, all or of one sample, with their labels."""
    from lake.query import Lake

    with Lake(lake) as opened:
        show(opened.targets(sample), output)
    return 0
