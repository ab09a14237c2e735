"""Commands about archives and targets."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow.compute as pc
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
    from tasks.events import announce
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
        url = str(opened.storage.root)
    say(f"{added.rows} rows of {file.name}: {added.new} new targets, {added.known} known, {added.labels} new labels")
    if (added.new or added.labels) and (trouble := announce(sample, url, added)):
        say(f"Prefect was not told, so that nothing is pulled by itself (run: lightlake refresh): {trouble}")
    return 0


@targets.command(name="list")
def list_targets(*, sample: str | None = None, lake: LakeURL = None, output: Output = "table") -> int:
    """List the targets, all or of one sample, with their labels."""
    from lake.query import Lake

    with Lake(lake) as opened:
        show(opened.targets(sample), output)
    return 0


def plot(
    target: str,
    *,
    to: Path,
    lake: LakeURL = None,
    archive: str | None = None,
    band: Annotated[list[str] | None, Parameter(negative=())] = None,
    normalised: Annotated[bool, Parameter(negative=())] = False,
    period: float | None = None,
    epoch: float | None = None,
) -> int:
    """Draw the good measurements of a target on an HTML page, to zoom and pan; it needs no network.

    Parameters
    ----------
    target
        Its name.
    to
        File to write.
    archive
        Only of this one.
    band
        Only of this band; may be given several times.
    normalised
        Draw fluxes over their median, as view normalised has them.
    period
        Fold times at the barycentre by this many days.
    epoch
        MJD (TDB, barycentre) of phase 0; default: the first measurement.
    """
    from lake.query import Lake
    from tasks.plots import MOST_POINTS, Fold, light_curve_page

    if period is not None and not 0 < period < math.inf:
        raise ConfigurationError(f"--period cannot be {period:g}", hint="give days, more than 0")
    if epoch is not None and period is None:
        raise ConfigurationError("--epoch is of a period", hint="add: --period DAYS")
    with Lake(lake) as opened:
        rows = opened.sql(
            f"""
            SELECT name, archive, band, mjd, bmjd_tdb, flux, unit, detected, good, separation_arcsec
            FROM {"normalised" if normalised else "target_lightcurves"}
            WHERE target_id = $target AND ($archive IS NULL OR archive = $archive)
                AND ($bands IS NULL OR list_contains($bands, band)) AND good AND detected AND flux > 0
            ORDER BY archive, band, mjd
            """,
            {"target": opened.target_id(target), "archive": archive, "bands": band},
        )
    if not rows.num_rows:
        raise ConfigurationError(
            f"the lake has no good, positive fluxes of {target} of that kind",
            hint="see what it has with: lightlake sql 'SELECT name, archive, band, count(*) FROM target_lightcurves "
            "GROUP BY ALL'",
        )
    fold = None
    if period is not None:
        first = pc.min(rows["bmjd_tdb"]).as_py()
        if first is None:
            raise ConfigurationError(f"no time of {target} is known at the barycentre", hint="leave out --period")
        fold = Fold(period, first if epoch is None else epoch)
    light_curve_page(rows, f"{target}{', over its median' if normalised else ''}", to, fold=fold)
    thinned = f", {MOST_POINTS} of them at most are drawn" if rows.num_rows > MOST_POINTS else ""
    say(f"{to}: {rows.num_rows} measurements of {target}{thinned}")
    return 0
