"""IceCube's ten years of neutrino candidates for point-source searches, 2008 to 2018.

Release 20210126, IC40 to IC86-VII: one text file of events a season, in one zip. An event belongs to a
target if it is within max_search_radius_deg of it and closer than the event's own angular error. All such
events are kept; the three of highest energy, which the Fornax collector publishes, are a view.
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from lake.commit.sound import named
from lake.errors import ArchiveError
from lake.model.declared import FornaxRows, Views
from lake.science.sky import SkyIndex, hpx29, ranks
from lake.science.times import to_bmjd_tdb
from lake.settings import Settings
from tasks.services.bounds import Budget, in_memory, on_disk, open_zip, read_file
from tasks.services.download import download
from tasks.services.http import failing
from tasks.services.values import dated
from tasks.sources.base import Archive, Band, FetchResult, Granule
from tasks.sources.collector import Collector, Key

NAME = "icecube"
RELEASE = "20210126"
BAND = "IceCube"
SEASONS = ("IC40", "IC59", "IC79", "IC86_I", "IC86_II", "IC86_III", "IC86_IV", "IC86_V", "IC86_VI", "IC86_VII")
FOLDER = "icecube_10year_ps"

# Columns of events/<season>_exp.csv, as the release's readme lists them.
_EVENT_COLUMNS = ("MJD[days]", "log10(E/GeV)", "AngErr[deg]", "RA[deg]", "Dec[deg]", "Azimuth[deg]", "Zenith[deg]")


@dataclass(frozen=True)
class Events:
    """The events of some seasons, in the order of the files, and an index over the sky.

    Parameters
    ----------
    source_id
        Season and MJD as printed in the file, which identify an event: IC40-54562.37911273. A second
        event of the same season and MJD gets the suffix -2.
    mjd
        UTC, days; log10_energy in GeV; angular_err_deg; ra and dec in degrees (J2000, taken as ICRS: the
        frames differ by 0.02 arcsec, the positions are good to 0.2 deg at best).
    """

    season: pa.StringArray
    source_id: pa.StringArray
    mjd: NDArray[np.float64]
    log10_energy: NDArray[np.float64]
    angular_err_deg: NDArray[np.float64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    exposures: pa.Table
    remark: str | None = None
    index: SkyIndex = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", SkyIndex(self.ra, self.dec))


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
            "source_id": events.source_id.take(pa.array(seen)),
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


def read_events(files: dict[str, tuple[IO[bytes] | None, IO[bytes] | None]], endpoint: str) -> Events:
    """Read the events, and the detector's up-time, of seasons.

    Raises
    ------
    ArchiveError
        If a season's events are missing, or a file is not in the release's form.
    """
    tables, exposures = [], []
    for season, (events, uptime) in files.items():
        if events is None:
            raise ArchiveError(
                f"the release has no events/{season}_exp.csv",
                archive=NAME,
                endpoint=endpoint,
                hint="get the whole release, or ask for fewer seasons",
            )
        table = _read_columns(events, f"events/{season}_exp.csv", _EVENT_COLUMNS, endpoint)
        printed = table[_EVENT_COLUMNS[0]].combine_chunks()
        mjd = _numbers(printed)
        same = {"season": pa.repeat(season, len(printed)), "source_id": _source_ids(season, printed), "mjd": mjd}
        tables.append(pa.table({**same, **{name: table[name] for name in _EVENT_COLUMNS[1:5]}}))
        exposures.append(_exposure(season, mjd, uptime, endpoint))
    every = pa.concat_tables(tables).combine_chunks()
    mjd, log10_energy, angular_err_deg, ra, dec = (every[name].to_numpy() for name in ("mjd", *_EVENT_COLUMNS[1:5]))
    is_sound = dated(mjd) & (angular_err_deg >= 0) & (np.abs(dec) <= 90) & (ra >= 0) & (ra <= 360)
    odd = every["source_id"].filter(pa.array(~is_sound)).to_pylist()
    season, source_id = (every[name].combine_chunks().filter(pa.array(is_sound)) for name in ("season", "source_id"))
    return Events(
        season=season,
        source_id=source_id,
        mjd=mjd[is_sound],
        log10_energy=log10_energy[is_sound],
        angular_err_deg=angular_err_deg[is_sound],
        ra=ra[is_sound],
        dec=dec[is_sound],
        exposures=pa.Table.from_pylist(exposures),
        remark=f"events without a time, a place or its error, left out: {len(odd)}{named(odd)}" if odd else None,
    )


def _source_ids(season: str, printed: pa.StringArray) -> pa.StringArray:
    """Return what identifies events: season and time as printed, and a number from the second of the same on."""
    ids = pc.binary_join_element_wise(season, printed, "-")
    codes = printed.dictionary_encode().indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    number = np.empty(len(codes), np.int32)
    number[order] = ranks(codes[order])
    again = pa.array(number > 1)
    numbered = pc.binary_join_element_wise(ids, pa.array(number).cast(pa.string()), "-")
    return pc.if_else(again, numbered, ids)


def _numbers(printed: pa.StringArray) -> NDArray[np.float64]:
    """Convert text to numbers, NaN for what is none."""
    try:
        return np.asarray(printed.cast(pa.float64()))
    except pa.ArrowInvalid:
        import pandas as pd

        return pd.to_numeric(pd.Series(printed.to_pylist(), dtype=object), errors="coerce").to_numpy(float)


def _exposure(season: str, times: NDArray[np.float64], uptime: IO[bytes] | None, endpoint: str) -> dict[str, object]:
    """Return the row of table exposures for a season: its good runs, where the release lists them."""
    same = {"exposure_id": season, "band": BAND}
    if uptime is None:
        return {**same, **_ends(times, times), "details": "{}"}
    runs = _read_columns(uptime, f"uptime/{season}_exp.csv", ("MJD_start[days]", "MJD_stop[days]"), endpoint)
    start, stop = _numbers(runs[0].combine_chunks()), runs[1].to_numpy()
    known = dated(start) & dated(stop) & (stop >= start)
    return {
        **same,
        **_ends(start[known], stop[known]),
        "exposure_s": float((stop - start)[known].sum() * 86400),
        "details": json.dumps({"good_runs": int(known.sum())}),
    }


def _ends(start: NDArray[np.float64], stop: NDArray[np.float64]) -> dict[str, object]:
    start, stop = start[dated(start)], stop[dated(stop)]
    return {"mjd_start": start.min() if start.size else None, "mjd_stop": stop.max() if stop.size else None}


def _read_columns(file: IO[bytes], name: str, columns: tuple[str, ...], endpoint: str) -> pa.Table:
    """Read a file of the release: white space between columns, a header that starts with '#'.

    The first column comes as text, the others as float64, NaN for what is no number.
    """
    header = file.readline().decode(errors="replace")
    if header.lstrip("#").split() != list(columns):
        raise ArchiveError(
            f"{name} does not start with the release's header: {header.strip()[:80]!r}", archive=NAME, endpoint=endpoint
        )
    body = file.read()
    try:
        table = _read_regular(body, columns)
        if table is None:
            table = _read_irregular(body, columns)
        if not table.num_rows or any(np.isnan(table[column].to_numpy()).all() for column in columns[1:]):
            raise ValueError("rows or values are missing")
    except ValueError as error:  # of which pandas' own are kinds
        raise ArchiveError(f"{name} is damaged: {error}", archive=NAME, endpoint=endpoint) from error
    return table


def _read_regular(body: bytes, columns: tuple[str, ...]) -> pa.Table | None:
    """Read lines that all have as many numbers as there are columns; None if some have not."""
    text = np.frombuffer(body, np.uint8)
    is_blank, is_end = text == ord(" "), text == ord("\n")
    # One blank between two values, none at either end of a line.
    after, before = np.append(True, (is_blank | is_end)[:-1]), np.append(is_end[1:], True)
    tidy = text[~(is_blank & (after | before))]
    types = {column: (pa.string() if column == columns[0] else pa.float64()) for column in columns}
    try:
        table: pa.Table = csv.read_csv(
            pa.BufferReader(tidy.tobytes()),
            csv.ReadOptions(column_names=list(columns)),
            csv.ParseOptions(delimiter=" ", quote_char=False),
            csv.ConvertOptions(column_types=types, null_values=[]),
        )
    except pa.ArrowInvalid:
        return None
    return table if pc.all(pc.greater(pc.binary_length(table[0]), 0)).as_py() else None


def _read_irregular(body: bytes, columns: tuple[str, ...]) -> pa.Table:
    """Read all as text, which takes longer: a line that is cut short lacks its last values, an odd value is no damage.

    Raises
    ------
    ValueError
        If values are missing.
    """
    import pandas as pd

    frame = pd.read_csv(
        io.BytesIO(body),
        sep=r"\s+",
        header=None,
        names=list(columns),
        index_col=False,
        dtype=str,
        keep_default_na=False,
    )
    if (frame.isna() | (frame == "")).any(axis=None):
        raise ValueError("rows or values are missing")
    numbers = {column: pd.to_numeric(frame[column], errors="coerce").to_numpy(float) for column in columns[1:]}
    return pa.table({columns[0]: pa.array(frame[columns[0]], pa.string()), **numbers})


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
