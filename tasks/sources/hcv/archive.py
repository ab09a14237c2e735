"""Hubble Catalog of Variables: variables of the Hubble Source Catalog v3, and their light curves in every filter.

A request to MAST's REST API finds the sources in a field of targets; one more for each source gets its light curves.
"""

from __future__ import annotations

import queue
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.commit.sound import named
from lake.errors import ArchiveError
from lake.model.declared import Views
from lake.model.schema import TABLES
from lake.science.motion import Paths, Span, julian_year
from lake.science.photometry import AB_ZERO_POINT_JY, flux_err, flux_mjy
from lake.science.times import to_bmjd_tdb
from lake.settings import Settings
from tasks.services.http import Session
from tasks.services.request_counters import Threads
from tasks.services.values import as_number, as_whole, columns_of, dated, nullable, on_sky, undated_remark
from tasks.sources.base import Archive, Band, FetchResult, Granule
from tasks.sources.collector import DEG, Collector, Key
from tasks.sources.hats import only_matched, sources_and_matches
from tasks.sources.hcv.fields import MOST_RADIUS_DEG, place_of, rows_in
from tasks.sources.hcv.pages import NAME, Ask, Row, Rows, id_of, pages

Floats = NDArray[np.float64]
Place = tuple[float, float]

SUMMARY, CURVES = "hcvsummary", "hcv"

# Of the images of the HSC v3: from the first ones with corrected optics on.
SPAN = Span(1993.9, 2017.8, "B. C. Whitmore et al. 2016, AJ 151, 134; v3 has images that were public by 2017 October")

# Added to the radius in queries, so that rounding at the service loses nothing; distances are measured here.
_PAD_ARCSEC = 0.01

# Requests of a batch at the same time.
_AT_ONCE = 3

# Archives write impossible magnitudes, such as 99 and -999, where there is none.
_RANGES = {"mag": (-30.0, 60.0), "corrmag": (-30.0, 60.0), "magerr": (0.0, 10.0), "ci": (-90.0, 90.0)}

# Columns of table hcv that are numbers; in the notebooks of MAST the aperture magnitude is Mag.
_NUMBERS = ("mjd", "mag", "corrmag", "magerr", "ci")
_FLAGS = ("autoclass", "expertclass", "filterdetflag")
_COUNTS, _NO_FLAGS = ("numlc", *_FLAGS), dict.fromkeys(_FLAGS)

# Filters of the images that the HSC v3 was made of: ACS, WFC3 and WFPC2 Instrument Handbooks (WFPC2: 10.0, chapter 3).
FILTERS = {
    "ACS": "F435W F475W F502N F550M F555W F606W F625W F658N F660N F775W F814W F850LP F892N",
    "WFC3": "F098M F105W F110W F125W F126N F127M F128N F130N F132N F139M F140W F153M F160W F164N F167N F200LP F218W "
    "F225W F275W F280N F300X F336W F343N F350LP F373N F390M F390W F395N F410M F438W F467M F469N F475W F475X F487N "
    "F502N F547M F555W F600LP F606W F621M F625W F631N F645N F656N F657N F658N F665N F673N F680N F689M F763M F775W "
    "F814W F845M F850LP F953N",
    "WFPC2": "F122M F130LP F160BW F165LP F170W F185W F218W F255W F300W F336W F343N F375N F380W F390N F410M F437N "
    "F439W F450W F467M F469N F487N F502N F547M F555W F569W F588N F606W F622W F631N F656N F658N F673N F675W F702W "
    "F785LP F791W F814W F850LP F953N F1042M",
}  # fmt: skip


def fetch(granule: Granule, settings: Settings) -> FetchResult:
    """Get the variables at a batch of targets, and their light curves.

    Parameters
    ----------
    granule
        Targets; parameter radius_arcsec.
    settings
        Endpoint (folder of the tables hcvsummary and hcv) and time-outs.

    Raises
    ------
    ArchiveError
        If the service does not answer, or not as it should; with the time to wait, if it says one. If the radius is
        more than the service takes.
    TruncatedAnswer
        If an answer does not come to an end.
    """
    endpoint, radius = ARCHIVE.endpoint_url(settings).rstrip("/"), granule.parameters["radius_arcsec"]
    paths = Paths(granule.targets, SPAN)
    reach = np.broadcast_to(paths.reach(radius), paths.ra.shape) / 3600
    if radius < 0 or (reach > MOST_RADIUS_DEG).any():
        message = f"radius_arcsec {radius:g} is not of 0 to {MOST_RADIUS_DEG * 3600:g} around a target's path"
        raise ArchiveError(message, archive=NAME, endpoint=endpoint, hint="the service takes no larger cones")
    reach = np.minimum(reach + _PAD_ARCSEC / 3600, MOST_RADIUS_DEG)
    cones = [
        {"ra": float(np.mod(ra, 360.0)), "dec": float(dec), "radius": float(around)}
        for ra, dec, around in zip(paths.ra, paths.dec, reach, strict=True)
    ]
    with _asking(endpoint, settings) as ask:
        summary = rows_in(ask, endpoint, SUMMARY, cones, _few_at_a_time)
        sources, matches = found(granule.targets, summary, radius, endpoint)
        ids = sources["source_id"].to_pylist()
        answers = _few_at_a_time(lambda number: pages(ask, endpoint, CURVES, {"MatchID": number}), ids)
        curves = [row for answer in answers for row in answer]
    if ids and paths.moves.any():
        sources, matches = found(granule.targets, summary, radius, endpoint, curves)
        left = set(ids) - set(sources["source_id"].to_pylist())
        curves = [row for row in curves if id_of(row) not in left]
    made = harvest(sources, matches, summary, curves, endpoint)
    return replace(made, unanswered=unanswered(granule.targets, summary, matches, radius))


@contextmanager
def _asking(endpoint: str, settings: Settings) -> Iterator[Ask]:
    """Yield a function that requests a table, each over a session, and so a connection, of its own."""
    idle: queue.SimpleQueue[Session] = queue.SimpleQueue()
    with ExitStack() as stack:
        for _ in range(_AT_ONCE):
            session = Session(NAME, endpoint, settings.timeout_s, settings.task_timeout_s)
            idle.put(stack.enter_context(session))

        def ask(table: str, query: Mapping[str, Any]) -> bytes:
            session = idle.get()
            try:
                session.url = f"{endpoint}/{table}.json"
                return bytes(session.get(session.url, params=dict(query)).content)
            finally:
                idle.put(session)

        yield ask


def _few_at_a_time(ask: Callable[[Any], Any], asked: Sequence[Any]) -> list[Any]:
    """Return all answers in order; after the first failure no more requests are sent."""
    with Threads(_AT_ONCE, thread_name_prefix=NAME) as pool:
        futures = [pool.submit(ask, one) for one in asked]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def found(
    targets: pa.Table, summary: Rows, radius_arcsec: float, endpoint: str, curves: Rows | None = None
) -> tuple[pa.Table, pa.Table]:
    """Return the tables sources and matches for rows of hcvsummary, of which a source has one a filter.

    Sources of which no light curve is known may be at any place of a target's path.

    Raises
    ------
    ArchiveError
        If no row has an id and a position on the sky.
    """
    places, odd, twice = _places(summary)
    if odd and not places and not twice:
        raise _without(SUMMARY, endpoint)
    if not places:
        return TABLES["sources"].empty(), TABLES["matches"].empty()
    numbers = np.array(sorted(places), np.int64)
    ra, dec = np.array([places[number] for number in numbers.tolist()], np.float64).T
    pairs = Paths(targets, SPAN).match(ra, dec, radius_arcsec, _times(curves or (), numbers))
    # The service was asked for a little more than the radius.
    near, pairs = only_matched(pairs)
    ids = pa.array(numbers[near]).cast(pa.string())
    return sources_and_matches(targets, ids, ra[near], dec[near], pairs)


def _times(curves: Sequence[Row], numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    """Return when sources were measured, in Julian years, by their indices among some sorted ids."""
    known = {str(number): place for place, number in enumerate(numbers.tolist())}
    at = [(known.get(id_of(row)), as_number(row.get("mjd"))) for row in curves]
    seen = [(place, mjd) for place, mjd in at if place is not None]
    row, time = np.array(seen, np.float64).reshape(-1, 2).T
    return row[dated(time)].astype(np.int64), julian_year(time[dated(time)])


def _places(summary: Rows) -> tuple[dict[int, Place], list[str], dict[int, list[Place]]]:
    """Return sources' positions, the rows without an id or position on the sky, and sources with several positions."""
    places: dict[int, list[Place]] = {}
    odd = list[str]()
    for row in summary:
        name, *at = place_of(row)
        ra, dec = np.array(at, np.float64)
        if not (name and on_sky(ra, dec)):
            odd.append(name or str(row.get("matchid")))
            continue
        if (place := (float(ra), float(dec))) not in places.setdefault(int(name), []):
            places[int(name)].append(place)
    twice = {number: found for number, found in places.items() if len(found) > 1}
    return {number: found[0] for number, found in places.items() if number not in twice}, odd, twice


def unanswered(targets: pa.Table, summary: Rows, matches: pa.Table, radius_arcsec: float) -> frozenset[int]:
    """Return the targets that have only sources with several positions."""
    places = [place for found in _places(summary)[2].values() for place in found]
    if not places:
        return frozenset()
    ra, dec = np.array(places, np.float64).T
    row, _, _ = Paths(targets, SPAN).match(ra, dec, radius_arcsec)
    near = set(targets["target_id"].take(pa.array(np.unique(row))).to_pylist())
    return frozenset(near - set(matches["target_id"].to_pylist()))


def harvest(sources: pa.Table, matches: pa.Table, summary: Rows, curves: Rows, endpoint: str) -> FetchResult:
    """Convert light curves to tables of the lake; nothing is read.

    Parameters
    ----------
    sources, matches
        As from `found`.
    summary, curves
        Rows of the archive's tables hcvsummary and hcv, with names of columns in small letters.

    Raises
    ------
    ArchiveError
        If rows lack columns, have what is no number in them, or are of other sources.
    """
    ids = set(sources["source_id"].to_pylist())
    try:
        counts, wrong = columns_of([{**_NO_FLAGS, **row} for row in summary], ("matchid", "filter"), _COUNTS, _RANGES)
    except ValueError as error:
        raise _without(SUMMARY, endpoint) from error
    summaries = {
        (id_of(row), str(row["filter"])): (flag_word(row), n) for row, n in zip(summary, counts[:, 0], strict=True)
    }
    distinct = list({str(row): row for row in curves}.values())
    try:
        values, odd = columns_of(distinct, ("matchid", "filter"), _NUMBERS, _RANGES)
    except ValueError as error:
        raise _without(CURVES, endpoint) from error
    rows = [(id_of(row), str(row["filter"]), row) for row in distinct if id_of(row)]
    values = values[[bool(id_of(row)) for row in distinct]]
    points = Counter(row[:2] for row in rows)
    lit = {number for number, _ in points}
    if others := sorted(lit - ids):
        raise ArchiveError(f"it answered with source {others[0]}, unasked", archive=NAME, endpoint=endpoint)
    known = np.flatnonzero([band in _KNOWN for _, band, _ in rows])
    values, kept = values[known], dated(values[known, 0])
    short = [f"{key[0]} {key[1]}" for key, (_, n) in sorted(summaries.items()) if key[0] in lit and points[key] < n]
    _, nowhere, twice = _places(summary)
    remarks = [
        _remark("rows of the summary without an id or a place, left out", nowhere),
        _remark("sources with two positions, rejected", list(map(str, twice))),
        _remark("measurements without an id, left out", [str(row["filter"]) for row in distinct if not id_of(row)]),
        *wrong,
        *odd,
        undated_remark(values[:, 0], lambda mask: [rows[number][0] for number in known[mask]]),
        _remark("measurements in filters that have no band, left out", [b for _, b, _ in rows if b not in _KNOWN]),
        _remark("sources without a light curve", sorted(ids - lit)),
        _remark("light curves with less points than their NumLC", short),
    ]
    chosen = [rows[number] for number in known[kept]]
    flags = pa.array([summaries.get((number, band), (None, 0))[0] for number, band, _ in chosen], pa.int64())
    made = (_lightcurves(sources, chosen, values[kept].T, flags, *kind) for kind in (("corrmag", ""), ("mag", "_ap")))
    lightcurves = pa.concat_tables(made)
    remark = "; ".join(filter(None, remarks)) or None
    return FetchResult(sources, matches, lightcurves, endpoint=endpoint, remark=remark)


def flag_word(row: Row) -> int | None:
    """Pack the summary's flags of a source in a filter into one number; NULL if there are none.

    Bits 0 and 1 are AutoClass, 2 to 4 ExpertClass, 5 FilterDetFlag, and from bit 6 on two bits a letter of
    VarQualFlag (CI, D, MagErr, MagAper2 - MagAuto, point to point): 1 for A, 2 for B, 3 for C, 0 for none.
    """
    auto, expert, detected = (as_whole(row.get(name)) for name in _FLAGS)
    letters = str(row.get("varqualflag") or "")
    if auto is None and expert is None and detected is None and not letters:
        return None
    word = ((auto or 0) & 3) | ((expert or 0) & 7) << 2 | ((detected or 0) & 1) << 5
    for place, letter in enumerate(letters[:5]):
        word |= ("ABC".find(letter) + 1) << (6 + 2 * place)
    return word


def _lightcurves(
    sources: pa.Table, rows: Sequence[tuple[str, str, Row]], values: Floats, flags: pa.Array, column: str, suffix: str
) -> pa.Table:
    """Make rows of the table lightcurves from magnitudes of one kind, corrected or not."""
    ids = pa.array([number for number, _, _ in rows], pa.string())
    place = pc.index_in(ids, value_set=sources["source_id"].combine_chunks())
    at = np.asarray(place.to_numpy(zero_copy_only=False), np.int64)
    columns = dict(zip(_NUMBERS, values, strict=True))
    time, mag = columns["mjd"], columns[column]
    mag_err = np.where(np.isnan(mag), np.nan, columns["magerr"])
    flux = flux_mjy(mag, AB_ZERO_POINT_JY)
    return pa.table(
        {
            "band": pa.array([band + suffix for _, band, _ in rows], pa.string()),
            "source_id": ids,
            "hpx29": sources["hpx29"].take(place),
            "mjd": time,
            "bmjd_tdb": to_bmjd_tdb(
                time, sources["ra"].to_numpy()[at], sources["dec"].to_numpy()[at],
                scale=ARCHIVE.time_scale.lower(), frame=ARCHIVE.time_frame,
            ),
            "flux": nullable(flux),
            "flux_err": nullable(flux_err(flux, mag_err)),
            "unit": pa.repeat("mJy", len(rows)),
            "mag": nullable(mag),
            "mag_err": nullable(mag_err),
            "detected": np.isfinite(mag),
            "good": np.isfinite(mag) & np.isfinite(mag_err),
            "quality": flags,
            "exposure_id": pa.array([str(row.get("imagename") or "") or None for _, _, row in rows], pa.string()),
            "ext": nullable(columns["ci"]),
        }
    )  # fmt: skip


def _remark(what: str, which: Sequence[str]) -> str | None:
    return f"{what}: {len(which)}{named(which)}" if which else None


def _without(table: str, endpoint: str) -> ArchiveError:
    return ArchiveError(
        f"rows of table {table} come without columns or values that they should have", archive=NAME, endpoint=endpoint,
        hint="the service has changed, or LIGHTLAKE_ENDPOINTS__HCV is another's",
    )  # fmt: skip


def _band(camera: str, name: str, suffix: str = "") -> Band:
    how = "aperture magnitude (MagAper2)" if suffix else "magnitude corrected for its image (CorrMag)"
    digits = re.sub(r"\D", "", name)
    # A filter's name is its nominal wavelength, that of long-pass and very wide ones where they begin.
    nominal = float(digits) * (10 if camera == "WFC3" and digits < "200" else 1)
    return Band(
        f"{camera}_{name}{suffix}", f"HST {camera} {name}, {how}", "mJy", mag_system="AB",
        zero_point_jy=AB_ZERO_POINT_JY,
        zero_point_source="AB: 3631 Jy; magnitudes are ABMAG (B. C. Whitmore et al. 2016, AJ 151, 134)",
        ab_minus_mag=0.0, ab_source="AB as reported",
        wavelength_nm=None if name.endswith(("LP", "X")) else nominal,
        svo_id=f"HST/ACS_WFC.{name}" if camera == "ACS" else None,
        fornax_band="HST_F814W" if (camera, name, suffix) == ("ACS", "F814W", "") else None,
    )  # fmt: skip


_KNOWN = frozenset(f"{camera}_{name}" for camera, names in FILTERS.items() for name in names.split())

ARCHIVE = Archive(
    name=NAME,
    title="Hubble Catalog of Variables",
    release="HSCv3",
    endpoint="https://catalogs.mast.stsci.edu/api/v0.1/hsc/v3",
    time_scale="UTC",
    time_frame="topocentre",
    bands=tuple(
        _band(camera, name, suffix)
        for suffix in ("", "_ap") for camera, names in FILTERS.items() for name in names.split()
    ),
    radius_arcsec=1.0,
    batch_size=100,
    cadence="frozen",
    licence="Public; see https://archive.stsci.edu/publishing/data-use",
    acknowledgement="Based on observations made with the NASA/ESA Hubble Space Telescope, and obtained from the Hubble "
    "Legacy Archive, which is a collaboration between the Space Telescope Science Institute (STScI/NASA), the Space "
    "Telescope European Coordinating Facility (ST-ECF/ESA) and the Canadian Astronomy Data Centre (CADC/NRC/CSA). The "
    "Hubble Catalog of Variables: Bonanos et al. 2019, A&A 630, A92.",
    bibcode="2019A&A...630A..92B",
    span=SPAN,
    access="MAST's REST API: one request for the sources of a field of targets, up to a degree wide; one for a target "
    "where the field has too many; one more for the light curves of each source. Three at a time. "
    "LIGHTLAKE_ENDPOINTS__HCV is another service. The ledger's reason names what the catalogue did not return: a light "
    "curve, a time, a filter without a band here.",
    matching="All sources within radius_arcsec are kept and ranked, constant ones too. A target with proper motion is "
    "compared at the time of each measurement.",
    quality="good: there are a magnitude and an error. quality: AutoClass in bits 0 and 1, ExpertClass (1 certain, 2 "
    "probable, 4 possible artefact) in 2 to 4, FilterDetFlag (varies in this filter) in 5, from bit 6 on two bits a "
    "letter of VarQualFlag (CI, D, MagErr, MagAper2 - MagAuto, point to point): 1 A, 2 B, 3 C, 0 none.",
    corrections="The catalogue's magnitudes are AB, and fluxes are made from them with 3631 Jy in every filter. The "
    "Fornax collector took Vega zero points of a web page, and a count rate for a flux; those zero points are not "
    "recorded, so view fornax_as_published leaves the HCV out. Impossible magnitudes, such as 99, are NULL.",
    notes="A measurement is two rows: CorrMag in the band of camera and filter, such as ACS_F814W, and the aperture "
    "magnitude, column Mag, in a band that ends in _ap; both with MagErr. mjd is the archive's MJD, UTC, of the image "
    "exposure_id (ImageName); ext is CI. Wavelengths in bands are nominal.",
    probe=f"/{SUMMARY}/metadata",
    fetch=fetch, parameters={"radius_arcsec": 1.0}, collector=Collector("hcv", {"radius": Key("radius_arcsec", DEG)}),
    # as_published: the zero points of the Fornax collector came from a web page, for each first night
    views=Views(as_published=(), fornax_v24={"ACS_F814W": "F814W"}),
)  # fmt: skip
