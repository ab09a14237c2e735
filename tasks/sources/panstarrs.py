"""Pan-STARRS1 DR2 (3-pi survey): objects and their detections, from the HATS catalogues that MAST keeps on S3.

Objects (otmo: ObjectThin and MeanObject) are matched by position. Detections are joined by objID alone, as the archive
advises: their own positions only tell which partitions and row groups to read.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.model.declared import FornaxRows, Views
from lake.model.fornax import IS_BEST_BAND
from lake.model.schema import TABLES
from lake.science.motion import Paths, Span, julian_year
from lake.science.photometry import AB_ZERO_POINT_JY
from lake.settings import Settings
from tasks.services.hats import Catalogue, Near, Scan, scan
from tasks.services.values import dated, integers, measured, nullable, places, undated_remark
from tasks.sources import hats
from tasks.sources.base import Archive, Band, FetchResult, Granule
from tasks.sources.collector import Collector, Key

Floats = NDArray[np.float64]

NAME = "panstarrs"
RELEASE = "DR2"
OBJECTS, DETECTIONS = "otmo", "detection"

# filterID of the release (PS1 Filter table).
FILTERS = {1: "g", 2: "r", 3: "i", 4: "z", 5: "y"}

# The archive's value for what is not known (PS1 database tables, column "default value").
MISSING = -999.0

MJY_PER_JY = 1e3

# The survey ran from 2010 May to 2014 March; its catalogues hold months before and after.
SPAN = Span(2009.4, 2015.2, "K. C. Chambers et al. 2016, arXiv:1612.05560, and a year about")

# Detections are within this of their object: MAST's own catalogues of detections have margins of 10 arcsec.
DETECTIONS_ARCSEC = 10.0

# infoFlag of a detection whose measurement failed or that is no source, by the PS1 Detection Flags page of MAST.
BAD_FLAGS = {
    "FAIL": 0x8,
    "SATSTAR": 0x80,
    "BADPSF": 0x400,
    "DEFECT": 0x800,
    "SATURATED": 0x1000,
    "CR_LIMIT": 0x2000,
    "MOMENTS_FAILURE": 0x8000,
    "SKY_FAILURE": 0x10000,
    "SKYVAR_FAILURE": 0x20000,
}
BAD = sum(BAD_FLAGS.values())

# Part of a detection's PSF that is on good pixels: MAST's own notebooks on light curves of PS1 cut there.
LEAST_QF_PERFECT = 0.9

SCAN_OBJECTS = Scan(("objID",), optional=("raMeanErr", "decMeanErr", "epochMean"), distinct=True)
_COLUMNS = ("objID", "filterID", "obsTime", "psfFlux", "psfFluxErr")
_OPTIONAL = ("apFlux", "apFluxErr", "infoFlag", "infoFlag2", "infoFlag3", "expTime", "psfChiSq", "psfQfPerfect")


def fetch(granule: Granule, settings: Settings) -> FetchResult:
    """Get all objects at the targets, and their detections.

    Parameters
    ----------
    granule
        Targets; parameter radius_arcsec.
    settings
        Endpoint (folder of the catalogues otmo and detection) and time-out.

    Raises
    ------
    ArchiveError
        If a catalogue cannot be read, or is not in its form.
    """
    search = hats.search_of(ARCHIVE, SPAN, granule, settings)
    objects, _ = scan(_objects(search.archive, settings), search.near, SCAN_OBJECTS)
    detections = None
    if objects is not None and search.paths.moves.any():
        # Only those that a target was at: the circle around a path holds others.
        pairs = search.paths.match(*places(objects), search.radius_arcsec, _mean_epochs(objects))
        objects = objects.take(pa.array(np.unique(pairs[1]))) if len(pairs[1]) else None
    if objects is not None:
        ids = integers(objects["objID"]).drop_null().to_numpy()
        around = Near(objects["ra"].to_numpy(), objects["dec"].to_numpy(), DETECTIONS_ARCSEC)
        wanted = Scan(_COLUMNS, optional=_OPTIONAL, where={"objID": ids, "filterID": tuple(FILTERS)}, by_position=False)
        detections, _ = scan(hats.catalogue_of(search.archive, settings, DETECTIONS), around, wanted)
    return harvest(granule.targets, objects, detections, search.radius_arcsec, search.endpoint)


def _objects(archive: Archive, settings: Settings) -> Catalogue:
    return hats.catalogue_of(archive, settings, OBJECTS)


def harvest(
    targets: pa.Table,
    objects: pa.Table | None,
    detections: pa.Table | None,
    radius_arcsec: float,
    endpoint: str | None = None,
) -> FetchResult:
    """Convert the detections of some objects to tables of the lake; nothing is read.

    Parameters
    ----------
    objects
        Columns objID, ra and dec in degrees; raMeanErr and decMeanErr in arcsec and epochMean in MJD, if there are.
    detections
        Columns of the archive's table detection: objID, filterID, obsTime in days (TAI), psfFlux and psfFluxErr in
        Jy; apFlux, apFluxErr, expTime in s, psfChiSq and the flags if there are.
    """
    if objects is None:
        return hats.nothing(endpoint)
    number = integers(objects["objID"]).combine_chunks()
    ra, dec = places(objects)
    of_object = None if detections is None else pc.index_in(integers(detections["objID"]), value_set=number)
    paths = Paths(targets, SPAN)
    if paths.moves.any():
        kept, pairs = hats.only_matched(paths.match(ra, dec, radius_arcsec, _epochs(objects, detections, of_object)))
        objects, number, ra, dec = objects.take(pa.array(kept)), number.take(pa.array(kept)), ra[kept], dec[kept]
        if detections is not None:
            detections = detections.filter(pc.is_in(integers(detections["objID"]), value_set=number))
    else:
        pairs = paths.match(ra, dec, radius_arcsec)
    epoch = _column(objects, "epochMean")
    more = {
        "position_err_arcsec": nullable(np.fmax(_column(objects, "raMeanErr"), _column(objects, "decMeanErr"))),
        "ref_epoch": nullable(np.where(dated(epoch), julian_year(epoch), np.nan)),
    }
    sources, matches = hats.sources_and_matches(targets, number.cast(pa.string()), ra, dec, pairs, **more)
    if detections is None:
        return FetchResult(sources, matches, TABLES["lightcurves"].empty(), endpoint=endpoint)
    time = _column(detections, "obsTime")
    whose = detections["objID"].cast(pa.string())
    remark = undated_remark(time, lambda mask: whose.filter(pa.array(mask)).to_pylist())
    detections = detections.filter(pa.array(dated(time)))
    place = pc.index_in(integers(detections["objID"]), value_set=number)
    parts = [_lightcurves(detections, place, sources, "psf", "", "infoFlag3")]
    if "apFlux" in detections.column_names:
        parts.append(_lightcurves(detections, place, sources, "ap", "_ap", "infoFlag2"))
    return FetchResult(sources, matches, pa.concat_tables(parts), endpoint=endpoint, remark=remark)


def _mean_epochs(objects: pa.Table) -> tuple[NDArray[np.int64], Floats]:
    """Return which objects have a mean epoch, by their rows, and these in Julian years."""
    epoch = _column(objects, "epochMean")
    row = np.flatnonzero(dated(epoch))
    return row, julian_year(epoch[row])


def _epochs(
    objects: pa.Table, detections: pa.Table | None, of_object: pa.ChunkedArray | None
) -> tuple[NDArray[np.int64], Floats]:
    """Return when objects were seen: their mean epochs, or the times of their detections if they have none."""
    row, year = _mean_epochs(objects)
    if detections is None or of_object is None:
        return row, year
    time, whose = _column(detections, "obsTime"), of_object.to_numpy()
    use = dated(time) & ~np.isin(whose, row)
    return np.concatenate([row, whose[use].astype(np.int64)]), np.concatenate([year, julian_year(time[use])])


def _lightcurves(
    detections: pa.Table, place: pa.ChunkedArray, sources: pa.Table, kind: str, suffix: str, second_flags: str
) -> pa.Table:
    """Make rows of the table lightcurves from fluxes of one kind, psf or ap."""
    time = _column(detections, "obsTime")
    flux, error = (_column(detections, f"{kind}Flux{what}") for what in ("", "Err"))
    flags, more = (_flags(detections, name) for name in ("infoFlag", second_flags))
    bands = pa.array([f"ps1_{letter}{suffix}" for letter in FILTERS.values()])
    which = pc.index_in(integers(detections["filterID"]), value_set=pa.array(FILTERS))
    chi = _column(detections, "psfChiSq") if kind == "psf" else np.full(len(time), np.nan)
    return hats.measurements(
        ARCHIVE,
        sources,
        place.to_numpy(),
        time,
        bands.take(which.combine_chunks()),
        flux=nullable(flux * MJY_PER_JY),
        flux_err=nullable(error * MJY_PER_JY),
        detected=np.isfinite(flux),
        good=pc.and_(
            pa.array(np.isfinite(flux) & _is_whole(detections)),
            pc.equal(pc.bit_wise_and(pc.fill_null(flags, BAD), pa.scalar(BAD)), 0),
        ),
        quality=pc.bit_wise_or(flags, pc.shift_left(pc.fill_null(more, 0), 32)),
        exposure_s=nullable(_column(detections, "expTime")),
        chi=nullable(chi),
    )


def _is_whole(detections: pa.Table) -> NDArray[np.bool_]:
    """Say which detections have hardly a masked pixel; catalogues without that column are judged by flags alone."""
    if "psfQfPerfect" not in detections.column_names:
        return np.ones(detections.num_rows, bool)
    part = _column(detections, "psfQfPerfect")
    return np.asarray((part >= LEAST_QF_PERFECT) & np.isfinite(part))


def _column(table: pa.Table, name: str) -> Floats:
    """Convert a column to float64, NaN where nothing is known."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return measured(table[name], sentinel=MISSING)


def _flags(table: pa.Table, name: str) -> pa.Array:
    """Return a flag word of 32 bits; NULL for the sentinel, larger values, and absent columns."""
    if name not in table.column_names:
        return pa.nulls(table.num_rows, pa.int64())
    flags = integers(table[name]).combine_chunks()
    fits = pc.and_(pc.greater_equal(flags, -(1 << 31)), pc.less(flags, 1 << 32))
    unknown = pc.or_(pc.equal(flags, int(MISSING)), pc.invert(fits))
    return pc.if_else(unknown, pa.scalar(None, pa.int64()), pc.bit_wise_and(flags, pa.scalar(0xFFFFFFFF)))


# Effective wavelengths: J. L. Tonry et al. 2012, ApJ 750, 99, table 4.
_WAVELENGTH_NM = {"g": 481.0, "r": 617.0, "i": 752.0, "z": 866.0, "y": 962.0}


def _band(letter: str, suffix: str = "") -> Band:
    how = "aperture" if suffix else "PSF"
    return Band(
        f"ps1_{letter}{suffix}",
        f"Pan-STARRS1 {letter}, {how} photometry of single exposures",
        "mJy",
        mag_system="AB",
        zero_point_jy=AB_ZERO_POINT_JY,
        zero_point_source="AB: 3631 Jy; fluxes are reported in Jy (Tonry et al. 2012, ApJ 750, 99)",
        ab_minus_mag=0.0,
        ab_source="AB as reported",
        wavelength_nm=_WAVELENGTH_NM[letter],
        svo_id=f"PAN-STARRS/PS1.{letter}",
        fornax_band=None if suffix else f"Pan-STARRS {letter}",
    )


# The Fornax collector takes the nearest object, and makes no cut on flags or sign. Rows without a measurement (-999)
# are left out here; the collector once masked them, and does not any more.
_AS_PUBLISHED = FornaxRows(
    rows=f"(SELECT * FROM target_lightcurves WHERE archive = '{NAME}')",
    where=f"rows.rank = 1 AND {IS_BEST_BAND} AND rows.flux IS NOT NULL",
)

ARCHIVE = Archive(
    name=NAME,
    views=Views(
        as_published=(_AS_PUBLISHED,),
        fornax_v24={_band(letter, "").band: f"panstarrs {letter}" for letter in FILTERS.values()},
    ),
    title="Pan-STARRS1 3-pi detections",
    release=RELEASE,
    endpoint="s3://stpubdata/panstarrs/ps1/public/hats",
    time_scale="TAI",
    time_frame="topocentre",
    bands=tuple(_band(letter, suffix) for suffix in ("", "_ap") for letter in FILTERS.values()),
    radius_arcsec=1.0,
    batch_size=2000,
    cadence="frozen",
    licence="Public; see https://outerspace.stsci.edu/display/PANSTARRS",
    acknowledgement="The Pan-STARRS1 Surveys (PS1) and the PS1 public science archive have been made possible through "
    "contributions by the Institute for Astronomy, the University of Hawaii, the Pan-STARRS Project Office, the "
    "Max-Planck Society and its participating institutes, and others listed at "
    "https://outerspace.stsci.edu/display/PANSTARRS/Pan-STARRS1+data+archive+home+page.",
    bibcode="2016arXiv161205560C",
    span=SPAN,
    access=hats.ACCESS.format("PANSTARRS"),
    matching="All objects whose mean position is within radius_arcsec of where the target was at their mean epoch are "
    "kept and ranked; detections are theirs by objID.",
    quality="good: there is a flux, of either sign; psfQfPerfect is 0.9 or more, where the catalogue has it; and "
    "infoFlag is known, with none of the bits FAIL, SATSTAR, BADPSF, DEFECT, SATURATED, CR_LIMIT, MOMENTS_FAILURE, "
    "SKY_FAILURE, SKYVAR_FAILURE. quality: infoFlag in bits 0 to 31; from bit 32 on infoFlag3 in PSF rows, infoFlag2 "
    "in aperture rows.",
    corrections="What the archive gives as -999 is NULL. Fluxes in Jy become mJy; those of 0 and below stay. mjd is "
    "obsTime, TAI, which is 34 to 35 s ahead of UTC: bmjd_tdb takes that into account.",
    notes="Times are of the middle of the exposure. A detection is two rows: PSF flux in bands ps1_g to ps1_y, "
    "aperture flux in ps1_g_ap to ps1_y_ap.",
    plan=partial(hats.plan, catalogue=_objects),
    fetch=fetch,
    parameters={"radius_arcsec": 1.0},
    collector=Collector("panstarrs", {"radius": Key("radius_arcsec")}),
)
