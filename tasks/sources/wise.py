"""WISE W1 and W2, from the unWISE time-domain catalogue (unTimely, neo7) that IRSA keeps on S3.

The catalogue has a row for each detection on the coadd of one visit, in Hive partitions by HEALPix pixel of order 5,
and does not say which detections are of one object. So a source here is a group of detections, of both bands and all
visits: those that are connected by steps of at most LINK_ARCSEC. That does not depend on targets, so that two targets
at one object get the same source with the same rows, whichever is asked first. A target's sources are those with a
detection within the radius, and they come whole.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.model.declared import FornaxRows, Views
from lake.science.motion import Paths, Span, julian_year
from lake.science.photometry import magnitude, magnitude_err
from lake.science.sky import SkyIndex, chord, hpx29, separation_arcsec, unit_vectors
from lake.settings import Settings
from lake.text import counted
from tasks.services.hats import Catalogue, Scan, partitions, scan
from tasks.services.store import Store
from tasks.services.values import dated, integers, measured, nullable, places, possible, undated_remark
from tasks.sources import hats
from tasks.sources.base import Archive, Band, FetchResult, Granule
from tasks.sources.collector import Collector, Key

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NAME = "wise"
RELEASE = "neo7"

# Of the mission, whatever the release.
SPAN = Span(2010.0, 2024.7, "E. L. Wright et al. 2010, AJ 140, 1868; the survey ended in 2024 August")

# The partitions' order; the files of pixel n are in a folder healpix_k5=n, wherever that is.
ORDER = 5
_PARTITION = re.compile(r"(?:.*/)?healpix_k5=(\d+)/")

# AB less Vega magnitudes of W1 and W2: WISE All-Sky Release Explanatory Supplement, sect. IV.4.h, table 3
# (T. H. Jarrett et al. 2011, ApJ 735, 112).
AB_MINUS_VEGA = {1: 2.699, 2: 3.339}

# Flux of one Vega nanomaggy in mJy: 10**(-0.4 (22.5 + AB_MINUS_VEGA - 23.9)) / 1000. Fluxes of the catalogue are
# Vega nanomaggies, of which 10**9 are magnitude 0 (A. M. Meisner et al. 2023, AJ 165, 36).
MJY_PER_NANOMAGGY = {1: 3.022734e-4, 2: 1.676486e-4}
NANOMAGGY_MAG = 22.5

# Of 483 real detections around one place (unTimely, 100 arcsec wide), groups by steps of up to 1.25 arcsec never hold
# two of one visit and band, so that no two objects are taken for one; those by 1.5 arcsec do. Bright detections of an
# object scatter by 0.5 arcsec, those near the limit by up to 2: what strays from all others stays a source by itself.
LINK_ARCSEC = 1.0

# So far beyond the radius detections are read, to have sources whole: a star of 0.5 arcsec/yr keeps its ten years.
REACH_ARCSEC = 6.0

_OPTIONAL = ("unwise_detid", "flags_unwise", "flags_info")
SCAN = Scan(
    ("flux", "dflux", "band", "MJDMEAN"),
    optional=_OPTIONAL,
    # What several overlapping coadds have detected is primary in one of them.
    where={"primary": (1,), "band": tuple(MJY_PER_NANOMAGGY)},
)


def fetch(granule: Granule, settings: Settings) -> FetchResult:
    """Get all detections of the objects at the targets.

    Parameters
    ----------
    granule
        Targets; parameter radius_arcsec.
    settings
        Endpoint (folder of the partitions) and time-out.

    Raises
    ------
    ArchiveError
        If the catalogue cannot be read, or is not in its form.
    """
    search = hats.search_of(ARCHIVE, SPAN, granule, settings, margin_arcsec=REACH_ARCSEC)
    catalogue = _catalogue(search.archive, settings)
    detections, _ = scan(catalogue, search.near, SCAN)
    made = harvest(granule.targets, detections, search.radius_arcsec, search.endpoint)
    remarks = [made.remark, _not_listed(search.paths, catalogue)]
    return replace(made, remark="; ".join(filter(None, remarks)) or None)


def _not_listed(targets: Paths, catalogue: Catalogue) -> str | None:
    """Remark on targets for which no file is listed: unWISE covers the whole sky, so one may be gone."""
    pixels = hpx29(targets.ra, targets.dec)
    missing = np.unique(pixels[~catalogue.covers(pixels)] >> 2 * (29 - ORDER))
    if not missing.size:
        return None
    some = ", ".join(map(str, missing[:5])) + (", ..." if missing.size > 5 else "")
    return (
        f"no file is listed for {counted(missing.size, 'partition that has', 'partitions that have')} targets, though "
        f"the whole sky is covered: {some}"
    )


def _catalogue(archive: Archive, settings: Settings) -> Catalogue:
    return hats.catalogue_of(archive, settings, read=list_partitions)


def list_partitions(store: Store) -> Catalogue:
    """List the partitions of a Hive dataset: its combined metadata would be 140 MB.

    Raises
    ------
    ArchiveError
        If there are none.
    """
    found = (_PARTITION.match(path) for path in store.files(recursive=True) if path.endswith(".parquet"))
    pixels = {(ORDER, int(folder[1])): folder[0] for folder in found if folder}
    return partitions(store, pixels, "ra", "dec")


def harvest(
    targets: pa.Table, detections: pa.Table | None, radius_arcsec: float, endpoint: str | None = None
) -> FetchResult:
    """Convert the detections at some targets to tables of the lake; nothing is read.

    Parameters
    ----------
    detections
        Columns ra and dec in degrees, band, flux and dflux in Vega nanomaggies, MJDMEAN in days; unwise_detid,
        flags_unwise and flags_info if there are. All that are within REACH_ARCSEC beyond the radius.
    """
    if detections is None:
        return hats.nothing(endpoint)
    placed = ~np.isnan(places(detections)[0])
    unplaced = int((~placed).sum())
    remarks = [f"measurements without a position, left out: {unplaced}"] if unplaced else []
    detections = detections.filter(pa.array(placed))
    time = measured(detections["MJDMEAN"])
    remarks += filter(None, [undated_remark(time, partial(_names, detections))])
    # In the order of time, so that a source's first row names it, and sums come out the same every time.
    detections = detections.append_column("time", pa.array(time)).filter(pa.array(dated(time)))
    detections = detections.sort_by([(name, "ascending") for name in ("time", "band", "ra", "dec")])
    ra, dec = places(detections)
    group = groups(ra, dec)
    paths, years = Paths(targets, SPAN), julian_year(detections["time"].to_numpy())
    pairs = paths.match(ra, dec, radius_arcsec, (np.arange(len(years)), years))
    if not len(pairs[0]):
        return hats.nothing(endpoint, "; ".join(remarks) or None)
    hit = np.unique(group[pairs[1]])
    rows = np.flatnonzero(np.isin(group, hit))
    remarks += filter(None, [_cut_short(paths, ra[rows], dec[rows], group[rows], radius_arcsec)])
    detections, source = detections.take(pa.array(rows)), np.searchsorted(hit, group[rows])
    _, first = np.unique(source, return_index=True)
    ids = _ids(detections.take(pa.array(first)))
    mean_ra, mean_dec = _means(ra[rows], dec[rows], source)
    (row, matched), whose = np.unique(
        np.stack([pairs[0], np.searchsorted(hit, group[pairs[1]])]), axis=1, return_inverse=True
    )
    nearest = np.full(len(row), np.inf)
    np.minimum.at(nearest, whose.reshape(-1), pairs[2])
    then = np.bincount(source, weights=years[rows]) / np.bincount(source)
    separation = separation_arcsec(*paths.at(row, then[matched]), mean_ra[matched], mean_dec[matched])
    # Of a source that stays where a target only passed, the mean says nothing; its detection then does.
    passed = separation > radius_arcsec + REACH_ARCSEC
    separation[passed] = nearest[passed]
    order = np.lexsort((matched, separation, row))
    sources, matches = hats.sources_and_matches(
        targets, ids, mean_ra, mean_dec, (row[order], matched[order], separation[order])
    )
    lightcurves = _lightcurves(detections, source, sources)
    return FetchResult(sources, matches, lightcurves, endpoint=endpoint, remark="; ".join(remarks) or None)


def groups(ra: Floats, dec: Floats) -> Ints:
    """Group detections: those connected by steps of at most LINK_ARCSEC are one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    steps = cKDTree(unit_vectors(ra, dec)).query_pairs(chord(LINK_ARCSEC), output_type="ndarray")
    graph = coo_array((np.ones(len(steps), np.int8), (steps[:, 0], steps[:, 1])), shape=(len(ra), len(ra)))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _cut_short(paths: Paths, ra: Floats, dec: Floats, group: Ints, radius_arcsec: float) -> str | None:
    """Remark on sources that may have detections farther out than what was read."""
    reach = paths.reach(radius_arcsec + REACH_ARCSEC - LINK_ARCSEC)
    _, inside, _ = SkyIndex(ra, dec).within(paths.ra, paths.dec, reach)
    n = len(np.unique(np.delete(group, np.unique(inside))))
    return f"sources that run on beyond {radius_arcsec + REACH_ARCSEC:g} arcsec of their target: {n}" if n else None


def _means(ra: Floats, dec: Floats, source: Ints) -> tuple[Floats, Floats]:
    """Return the mean position of each source's detections, ICRS degrees."""
    vectors = unit_vectors(ra, dec)
    x, y, z = (np.bincount(source, weights=vectors[:, axis]) for axis in range(3))
    return np.mod(np.degrees(np.arctan2(y, x)), 360.0), np.degrees(np.arctan2(z, np.hypot(x, y)))


def _ids(firsts: pa.Table) -> pa.Array:
    """Name sources after their first detections: by its id, or by its order-29 pixel."""
    pixels = pa.array(hpx29(measured(firsts["ra"]), measured(firsts["dec"]))).cast(pa.string())
    if "unwise_detid" not in firsts.column_names:
        return pixels
    names = firsts["unwise_detid"].cast(pa.string()).combine_chunks()
    return pc.if_else(pc.fill_null(pc.not_equal(names, ""), False), names, pixels)


def _names(detections: pa.Table, mask: NDArray[np.bool_]) -> list[str]:
    return list(_ids(detections.filter(pa.array(mask))).to_pylist())


def _lightcurves(detections: pa.Table, source: Ints, sources: pa.Table) -> pa.Table:
    number = integers(detections["band"]).combine_chunks()
    scale = np.where(number.to_numpy(zero_copy_only=False) == 1, MJY_PER_NANOMAGGY[1], MJY_PER_NANOMAGGY[2])
    flux, error = measured(detections["flux"]), measured(detections["dflux"])
    known = possible(flux, "flux")
    time = detections["time"].to_numpy()
    flags = [_flags(detections, name) for name in ("flags_unwise", "flags_info")]
    bands = pa.array([f"W{one}" for one in MJY_PER_NANOMAGGY])
    return hats.measurements(
        ARCHIVE,
        sources,
        source,
        time,
        bands.take(pc.index_in(number, value_set=pa.array(MJY_PER_NANOMAGGY))),
        flux=nullable(flux * scale),
        flux_err=nullable(error * scale),
        mag=nullable(magnitude(known, 10 ** (0.4 * NANOMAGGY_MAG) / 1e3)),
        mag_err=nullable(magnitude_err(known, possible(error, "flux_err"))),
        detected=np.isfinite(flux),
        good=np.isfinite(flux),
        quality=pc.bit_wise_or(flags[0], pc.shift_left(flags[1], 32)),
    )


def _flags(detections: pa.Table, name: str) -> pa.Array:
    if name not in detections.column_names:
        return pa.nulls(detections.num_rows, pa.int64())
    return integers(detections[name]).combine_chunks()


def _band(number: int, wavelength_nm: float) -> Band:
    return Band(
        f"W{number}",
        f"WISE W{number}, PSF photometry on the coadd of one visit",
        "mJy",
        mag_system="Vega",
        zero_point_jy=MJY_PER_NANOMAGGY[number] * 10 ** (0.4 * NANOMAGGY_MAG) / 1e3,
        zero_point_source=f"Vega nanomaggies, and AB less Vega = {AB_MINUS_VEGA[number]} (WISE All-Sky Explanatory "
        "Supplement, IV.4.h)",
        ab_minus_mag=AB_MINUS_VEGA[number],
        ab_source="WISE All-Sky Explanatory Supplement, IV.4.h",
        wavelength_nm=wavelength_nm,
        svo_id=f"WISE/WISE.W{number}",
        fornax_band=f"WISE_W{number}",
    )


# The Fornax collector has no flux of 0 or below.
_AS_PUBLISHED = FornaxRows(
    rows=f"(SELECT * FROM target_lightcurves WHERE archive = '{NAME}')",
    where="rows.good AND rows.detected AND rows.flux > 0",
)

ARCHIVE = Archive(
    name=NAME,
    views=Views(as_published=(_AS_PUBLISHED,), fornax_v24={"W1": "W1", "W2": "W2"}),
    title="unWISE time-domain catalogue",
    release=RELEASE,
    endpoint="s3://nasa-irsa-wise/unwise/{release}/catalogs/time_domain/healpix_k5/"
    "unwise-{release}-time_domain-healpix_k5.parquet",
    time_scale="UTC",
    time_frame="geocentre",
    # Isophotal wavelengths: T. H. Jarrett et al. 2011, ApJ 735, 112, table 1.
    bands=(_band(1, 3352.6), _band(2, 4602.8)),
    radius_arcsec=1.0,
    batch_size=4000,
    cadence="frozen",
    licence="Public; see https://irsa.ipac.caltech.edu/data_use_terms.html",
    acknowledgement="This publication makes use of data products from the Wide-field Infrared Survey Explorer, a joint "
    "project of the University of California, Los Angeles, and the Jet Propulsion Laboratory/California Institute of "
    "Technology, and from NEOWISE, funded by the National Aeronautics and Space Administration.",
    bibcode="2023AJ....165...36M",
    span=SPAN,
    access=hats.ACCESS.format("WISE"),
    matching="The catalogue does not join detections: a source is a group of primary detections of both bands "
    "connected by steps of at most 1 arcsec, named by the unwise_detid of the first (or, where there is none, the "
    "order-29 HEALPix pixel), placed at their mean. A target has every source with a detection within radius_arcsec "
    "of where it was then, whole: the mean, and so separation_arcsec, may lie somewhat beyond the radius.",
    quality="good: there is a flux, of either sign, as in all archives: a cut at 0 would brighten what is near the "
    "limit. quality: flags_unwise in bits 0 to 31, flags_info from bit 32 on.",
    corrections="Fluxes are published as Vega nanomaggies, and become mJy with AB less Vega of 2.699 in W1 and 3.339 "
    "in W2. Magnitudes are made from them, Vega; a flux of 0 or below has none. Fluxes of 0 and below stay, which the "
    "Fornax collector left out.",
    notes="A row is a detection on the coadd of one visit (a day or so, every half year); mjd is MJDMEAN, the mean of "
    "its exposures.",
    plan=partial(hats.plan, catalogue=_catalogue),
    fetch=fetch,
    parameters={"radius_arcsec": 1.0},
    collector=Collector(
        "wise",
        {
            "radius": Key("radius_arcsec"),
            "bandlist": Key(note="all bands are pulled; choose some of them when you read, plot or export"),
        },
        is_core=True,
    ),
)
