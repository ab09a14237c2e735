"""IceCube's ten years of neutrino candidates for point-source searches, 2008 to 2018.

Release 20210126, IC40 to IC86-VII: one text file of events a season, in one zip. An event belongs to a
target if it is within max_search_radius_deg of it and closer than the event's own angular error. All such
events are kept; the three of highest energy, which the Fornax collector publishes, are a view.
"""

from __future__ import annotations

import io
import threading
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from lake.errors import ArchiveError
from lake.model.declared import FornaxRows, Views
from lake.science.sky import hpx29, ranks
from lake.science.times import to_bmjd_tdb
from lake.settings import Settings
from tasks.services.bounds import Budget, in_memory, on_disk, open_zip, read_file
from tasks.services.download import download
from tasks.services.http import failing
from tasks.sources.base import Archive, Band, FetchResult, Granule
from tasks.sources.collector import Collector, Key
from tasks.sources.icecube.release import BAND, NAME, Events, read_events

RELEASE = "20210126"
SEASONS = ("IC40", "IC59", "IC79", "IC86_I", "IC86_II", "IC86_III", "IC86_IV", "IC86_V", "IC86_VI", "IC86_VII")
FOLDER = "icecube_10year_ps"


def fetch(granule: Granule, settings: Settings) -> FetchResult:
    """Match a batch of targets with the events.

    Parameters
    ----------
    granule
        Targets; parameters max_search_radius_deg and seasons.
    settings
        Endpoint (zip by URL or path, or folder), cache and timeout.

    Raises
    ------
    ArchiveError
        If the release is not available, is damaged, or lacks a season that was asked for.
    """
    endpoint = ARCHIVE.endpoint_url(settings)
    events = _events(endpoint, tuple(granule.parameters["seasons"]), settings)
    return harvest(granule.targets, events, granule.parameters["max_search_radius_deg"], endpoint)


def harvest(
    targets: pa.Table, events: Events, max_search_radius_deg: float, endpoint: str | None = None
) -> FetchResult:
    """Convert the events of some targets to tables of the lake; nothing is read.

    An event is matched if its distance is at most max_search_radius_deg and less than its angular error.
    """
    ra, dec = targets["ra"].to_numpy(), targets["dec"].to_numpy()
    row, event, separation = events.index.within(
        ra, dec, max_search_radius_deg * 3600, closer_arcsec=events.angular_err_deg * 3600
    )
    seen, place = np.unique(event, return_inverse=True)
    pixel = hpx29(events.ra[seen], events.dec[seen])
    n = len(seen)
    sources = pa.table(
        {
            "source_id": events.source_ids(seen),
            "hpx29": pixel,
            "ra": events.ra[seen],
            "dec": events.dec[seen],
            "position_err_arcsec": events.angular_err_deg[seen] * 3600,
        }
    )
    matches = pa.table(
        {
            "target_id": targets["target_id"].combine_chunks().take(pa.array(row)),
            "source_id": sources["source_id"].take(pa.array(place)),
            "hpx29": pixel[place],
            "separation_arcsec": separation,
            "rank": ranks(row),
        }
    )
    lightcurves = pa.table(
        {
            "band": [BAND] * n,
            "source_id": sources["source_id"],
            "hpx29": pixel,
            "mjd": events.mjd[seen],
            "bmjd_tdb": to_bmjd_tdb(
                events.mjd[seen],
                events.ra[seen],
                events.dec[seen],
                scale=ARCHIVE.time_scale.lower(),
                frame=ARCHIVE.time_frame,
            ),
            "flux": 10 ** events.log10_energy[seen],
            "unit": ["GeV"] * n,
            "detected": [True] * n,
            "good": [True] * n,
            "exposure_id": events.season.take(pa.array(seen)),
        }
    )
    return FetchResult(sources, matches, lightcurves, events.exposures, endpoint, events.remark)


def _events(endpoint: str, seasons: tuple[str, ...], settings: Settings) -> Events:
    """Read the events of a release, once a process; the zip is downloaded only once."""
    if endpoint.startswith(("http://", "https://")):
        path = download(endpoint, NAME, settings, check=_check_zip)
    else:
        path = Path(endpoint).expanduser()
    try:
        parts = sorted(path.rglob("*_exp.csv")) if path.is_dir() else [path]
        stamp = tuple((str(part), part.stat().st_mtime_ns, part.stat().st_size) for part in parts)
    except FileNotFoundError as error:
        raise ArchiveError(
            "the release is not there", archive=NAME, endpoint=endpoint, hint="check LIGHTLAKE_ENDPOINTS__ICECUBE"
        ) from error
    with _READING:
        return _read_release(path, stamp, seasons, endpoint)


# Threads that need the same release wait for the first to read it, rather than read it once each.
_READING = threading.Lock()


@lru_cache(maxsize=2)
def _read_release(
    path: Path, stamp: tuple[tuple[str, int, int], ...], seasons: tuple[str, ...], endpoint: str
) -> Events:
    """Read a release from a folder or zip; its stamp distinguishes a changed one."""
    failed = failing(NAME, endpoint, "check LIGHTLAKE_ENDPOINTS__ICECUBE")
    if path.is_dir():
        folder = path / FOLDER if (path / FOLDER).is_dir() else path
        return read_events({season: _member(folder, season, in_memory(failed)) for season in seasons}, endpoint)
    files: dict[str, tuple[IO[bytes] | None, IO[bytes] | None]] = {}
    try:
        with open_zip(path, in_memory(failed)) as archive:
            names = set(archive.names)
            for season in seasons:
                parts = [f"{FOLDER}/{part}/{season}_exp.csv" for part in ("events", "uptime")]
                events, uptime = (io.BytesIO(archive.read(part)) if part in names else None for part in parts)
                files[season] = (events, uptime)
    except (zipfile.BadZipFile, OSError) as error:
        raise ArchiveError(f"the release cannot be read: {error}", archive=NAME, endpoint=endpoint) from error
    return read_events(files, endpoint)


def _member(folder: Path, season: str, budget: Budget) -> tuple[IO[bytes] | None, IO[bytes] | None]:
    files = [folder / part / f"{season}_exp.csv" for part in ("events", "uptime")]
    events, uptime = (io.BytesIO(read_file(file, budget)) if file.is_file() else None for file in files)
    return events, uptime


def _check_zip(path: Path) -> str | None:
    """Return what is wrong with a downloaded release, if anything."""
    try:
        # What is in it beside the events and the up-times is not read later.
        with open_zip(path, on_disk(failing(NAME, str(path), "check LIGHTLAKE_ENDPOINTS__ICECUBE"))) as archive:
            damaged = archive.damaged()
            return f"{damaged} in it is damaged" if damaged else None
    except (zipfile.BadZipFile, OSError) as error:
        return str(error)


ARCHIVE = Archive(
    name=NAME,
    views=Views(as_published=(FornaxRows(rows=f"brightest_events('{NAME}', 3)", err="0.0"),)),
    title="IceCube neutrino candidates for point-source searches, 2008-2018",
    release=RELEASE,
    endpoint="http://icecube.wisc.edu/data-releases/20210126_PS-IC40-IC86_VII.zip",
    probe="",
    time_scale="UTC",
    time_frame="topocentre",
    bands=(Band(BAND, "Reconstructed energy of a muon through the detector", "GeV", fornax_band="IceCube"),),
    radius_arcsec=None,
    batch_size=5000,
    cadence="frozen",
    licence="Free for research with citation, as the release's page asks",
    acknowledgement="IceCube Collaboration (2021): IceCube Data for Neutrino Point-Source Searches: Years 2008-2018, "
    "Dataset, DOI 10.21234/sxvs-mt83",
    bibcode="2021arXiv210109836I",
    access="One zip of text files, kept in the cache. LIGHTLAKE_ENDPOINTS__ICECUBE is a folder, a zip, or a URL of "
    "one.",
    matching="An event belongs to a target that is within max_search_radius_deg of it and closer than its own angular "
    "error. All such events are kept; proper motion is not followed, as errors are larger. matches has the distance, "
    "sources the angular error.",
    quality="Every event is good, and quality is NULL: the release has no flags.",
    corrections="All events that match are kept; the Fornax collector had the three of highest energy of each target, "
    "with an error of 0. The energies have no error, so flux_err is NULL. The release's readme names UT1 for its "
    "times; they are taken for UTC, which differs by less than 0.9 s.",
    notes="flux is the muon's reconstructed energy, not a flux density. Positions are good to position_err_arcsec "
    "(0.2 deg at best), so bmjd_tdb is good to 1.7 s a degree of error.",
    fetch=fetch,
    parameters={"max_search_radius_deg": 2.0, "seasons": list(SEASONS)},
    collector=Collector(
        "icecube",
        {
            "max_search_radius": Key("max_search_radius_deg"),
            "icecube_select_topn": Key(
                note="all events are kept; those of most energy: lightlake sql "
                "\"FROM brightest_events('icecube', {value})\""
            ),
        },
        is_core=True,
    ),
)
