"""ZTF DR24 light curves, from the HATS collection that IRSA keeps on S3.

A ZTF object is a source in one field, readout channel and filter, so that a star has several: all within the
radius are kept, each a source of its own, and ranked by distance together. Keeping only the nearest would lose
epochs. The older bulk files, one row an object with plain lists, are read as well.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.model.declared import FornaxRows, Views
from lake.science.motion import Paths, Span, julian_year
from lake.science.photometry import AB_ZERO_POINT_JY, flux_err, flux_mjy
from lake.settings import Settings
from tasks.services.hats import Scan, scan
from tasks.services.values import dated, integers, measured, nullable, places, possible, undated_remark
from tasks.sources import hats
from tasks.sources.base import Archive, Band, FetchResult, Granule
from tasks.sources.collector import DEG, WORKERS, Collector, Key

NAME = "ztf"
RELEASE = "DR24"

# filterid of the release (ZTF Science Data System Explanatory Supplement, light-curve files).
BANDS = {1: "ztf_g", 2: "ztf_r", 3: "ztf_i"}

# Bit 15 of catflags: the epoch's photometry is bad or unusable (the same supplement, sect. on quality flags).
BAD_CATFLAGS = 32_768

SPAN = Span(
    2018.2, None, "F. J. Masci et al. 2019, PASP 131, 018003: since 2018 March; releases follow every two months"
)

NESTED = "lightcurve"
FIELDS = ("hmjd", "mag", "magerr", "catflags")
SCAN = Scan(("objectid", "filterid"), where={"filterid": tuple(BANDS)}, nested=NESTED, fields=FIELDS, distinct=True)


def fetch(granule: Granule, settings: Settings) -> FetchResult:
    """Get the light curves of all ZTF objects at the targets.

    Parameters
    ----------
    granule
        Targets; parameter radius_arcsec.
    settings
        Endpoint (folder of the collection) and time-out.

    Raises
    ------
    ArchiveError
        If the collection cannot be read, or is not in its form.
    """
    search = hats.search_of(ARCHIVE, SPAN, granule, settings)
    objects, epochs = scan(hats.catalogue_of(search.archive, settings), search.near, SCAN)
    return harvest(granule.targets, objects, epochs, search.radius_arcsec, search.endpoint)


def harvest(
    targets: pa.Table,
    objects: pa.Table | None,
    epochs: pa.Table | None,
    radius_arcsec: float,
    endpoint: str | None = None,
) -> FetchResult:
    """Convert the light curves of some objects to tables of the lake; nothing is read.

    Parameters
    ----------
    objects
        Columns objectid, filterid, ra and dec in degrees.
    epochs
        Columns row (of objects), hmjd in days, mag and magerr (AB), catflags.
    """
    if objects is None or epochs is None:
        return hats.nothing(endpoint)
    ra, dec = places(objects)
    ids = integers(objects["objectid"]).cast(pa.string()).combine_chunks()
    hmjd = measured(epochs["hmjd"])
    row = epochs["row"].to_numpy()
    paths = Paths(targets, SPAN)
    if paths.moves.any():
        seen = dated(hmjd)
        pairs = paths.match(ra, dec, radius_arcsec, (row[seen], julian_year(hmjd[seen])))
        # The circle around a path holds objects that no target was at.
        kept, pairs = hats.only_matched(pairs)
        objects, ids, ra, dec = objects.take(pa.array(kept)), ids.take(pa.array(kept)), ra[kept], dec[kept]
        here = np.isin(row, kept)
        epochs, hmjd, row = epochs.filter(pa.array(here)), hmjd[here], np.searchsorted(kept, row[here])
    else:
        pairs = paths.match(ra, dec, radius_arcsec)
    sources, matches = hats.sources_and_matches(targets, ids, ra, dec, pairs)
    remarks = [undated_remark(hmjd, lambda mask: ids.take(pa.array(row[mask])).to_pylist())]
    if pa.types.is_float32(epochs["hmjd"].type):
        remarks.append("hmjd is kept as float32 there: times are good to 3 min (0.002 d)")
    epochs = epochs.filter(pa.array(dated(hmjd)))
    row, hmjd = row[dated(hmjd)], hmjd[dated(hmjd)]
    mag, mag_err = measured(epochs["mag"]), measured(epochs["magerr"])
    flags = integers(epochs["catflags"])
    usable = pc.and_(pc.less(flags, BAD_CATFLAGS), pc.greater_equal(flags, 0))
    # What is no magnitude, as -999, is counted and made NULL with all other odd values: lake/commit/sound.py.
    flux = flux_mjy(possible(mag, "mag"), AB_ZERO_POINT_JY)
    place, bands = pa.array(row), pa.array(BANDS.values())
    of_object = pc.index_in(integers(objects["filterid"]), value_set=pa.array(BANDS)).combine_chunks()
    lightcurves = hats.measurements(
        ARCHIVE,
        sources,
        row,
        hmjd,
        bands.take(of_object.take(place)),
        flux=nullable(flux),
        flux_err=nullable(flux_err(flux, possible(mag_err, "mag_err"))),
        mag=nullable(mag),
        mag_err=nullable(mag_err),
        detected=np.isfinite(flux),
        good=pc.fill_null(pc.and_(pa.array(np.isfinite(flux)), usable), False),
        quality=flags,
    )
    return FetchResult(
        sources, matches, lightcurves, endpoint=endpoint, remark="; ".join(filter(None, remarks)) or None
    )


def _band(band: str, wavelength_nm: float) -> Band:
    letter = band[-1]
    return Band(
        band,
        f"ZTF {letter}, PSF photometry of single exposures",
        "mJy",
        mag_system="AB",
        zero_point_jy=AB_ZERO_POINT_JY,
        zero_point_source="AB: 3631 Jy. Magnitudes are in the PS1 system, without colour term (Masci et al. 2019, "
        "PASP 131, 018003)",
        ab_minus_mag=0.0,
        ab_source="AB as reported",
        wavelength_nm=wavelength_nm,
        svo_id=f"Palomar/ZTF.{letter}",
        fornax_band=band,
    )


# The Fornax collector takes the nearest ZTF object in each band, 10**(-48.6/2.5) erg s-1 cm-2 Hz-1 for 3631 Jy, and
# errors from the magnitudes a standard deviation above and below.
_AS_PUBLISHED = FornaxRows(
    rows=f"""(
        SELECT * FROM target_lightcurves WHERE archive = '{NAME}'
        QUALIFY rank = min(rank) OVER (PARTITION BY target_id, band)
    )""",
    flux="rows.flux::DOUBLE * 3630.7805477 / 3631",
    err="rows.flux::DOUBLE * 3630.7805477 / 3631 * sinh(0.4 * ln(10) * rows.mag_err::DOUBLE)",
    where="rows.good",
)

ARCHIVE = Archive(
    name=NAME,
    views=Views(as_published=(_AS_PUBLISHED,), fornax_v24={f"ztf_{letter}": f"z{letter}" for letter in "gri"}),
    title="ZTF light curves",
    release=RELEASE,
    endpoint="s3://ipac-irsa-ztf/ztf/enhanced/{release}/lc/hats",
    time_scale="UTC",
    time_frame="heliocentre",
    # Reference wavelengths: SVO Filter Profile Service, Palomar/ZTF.
    bands=(_band("ztf_g", 474.648), _band("ztf_r", 636.638), _band("ztf_i", 782.903)),
    radius_arcsec=1.0,
    # A target has up to some thousand epochs, of some 500 bytes while a granule is worked on, all at once.
    batch_size=250,
    cadence="frozen",
    licence="Public; see https://irsa.ipac.caltech.edu/data_use_terms.html",
    acknowledgement="Based on observations obtained with the Samuel Oschin Telescope 48-inch and the 60-inch Telescope "
    "at the Palomar Observatory as part of the Zwicky Transient Facility project. ZTF is supported by the National "
    "Science Foundation under Grants No. AST-1440341 and AST-2034437.",
    bibcode="2019PASP..131a8003M",
    span=SPAN,
    access=hats.ACCESS.format("ZTF"),
    matching="A source is a ZTF object: a star has one for each field, readout channel and filter. All within "
    "radius_arcsec of where the target was at any of the object's times are kept and ranked, not only the nearest.",
    quality="quality is catflags. good: there is a magnitude, and catflags is below 32768, the archive's bit for "
    "unusable.",
    corrections="mjd stays heliocentric (HMJD), as published, up to 8.3 minutes off the Earth's clock; bmjd_tdb "
    "undoes the correction to the Sun, and applies that to the barycentre. Fluxes are made from the AB magnitudes and "
    "3631 Jy. Colour terms are not applied.",
    notes="What is known of hmjd does not say whether it is of the start or the middle of the exposure; in IRSA's rows "
    "of single epochs hjd is mjd, the start, corrected to the Sun (to 21 ms), with no half exposure (15 s) added.",
    plan=hats.plan,
    fetch=fetch,
    parameters={"radius_arcsec": 1.0},
    collector=Collector(
        "ztf",
        {"match_radius": Key("radius_arcsec", DEG), "radius": Key("radius_arcsec"), "nworkers": Key(note=WORKERS)},
        is_core=True,
    ),
)
