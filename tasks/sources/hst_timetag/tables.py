"""The tables and views that HST's photons bring into a lake, their bands, and where they are from."""

from __future__ import annotations

from typing import Any

from lake.model.declared import ViewNote, Views
from lake.model.schema import TABLES as TABLES_OF_LAKE
from lake.model.table import Column, Table
from tasks.services.simbad import SIMBAD, SIMBAD_ENDPOINT
from tasks.sources.base import Band, Origin

NAME, SERVICE, ENDPOINT = "hst_timetag", "hst", "https://mast.stsci.edu"
EXPOSURE, COMPOSITE = PRODUCTS = ("exposure", "composite")
UNIT = "count.s**-1"
FLUX_UNIT = "erg.s**-1.cm**-2.Angstrom**-1"

# Optical elements that disperse or image light onto the photon-counting detectors: COS Instrument Handbook, table 5.1;
# STIS Instrument Handbook, table 4.1, the MAMA modes.
_ELEMENTS = {
    ("COS", "FUV"): ("G130M", "G160M", "G140L"),
    ("COS", "NUV"): ("G185M", "G225M", "G285M", "G230L", "MIRRORA", "MIRRORB"),
    ("STIS", "FUV-MAMA"): ("G140L", "G140M", "E140M", "E140H", "MIRFUV"),
    ("STIS", "NUV-MAMA"): ("G230L", "G230M", "E230M", "E230H", "PRISM", "MIRNUV"),
}


def band_of(instrument: str, detector: str, grating: str) -> str:
    """Return the band of an exposure.

    Examples
    --------
    >>> band_of("STIS", "NUV-MAMA", "E230M")
    'stis_nuvmama_e230m'
    """
    return "_".join(part.replace("-", "").lower() for part in (instrument, detector, grating))


BANDS = tuple(
    Band(
        band_of(instrument, detector, element),
        f"{instrument}/{detector}, {element}: counts per second less background, over the wavelengths of the exposure",
        UNIT,
    )
    for (instrument, detector), elements in _ELEMENTS.items()
    for element in elements
)


def _required(name: str, type: str, description: str, **more: Any) -> Column:
    return Column(name, type, description, required=True, **more)


def _columns(*columns: Column) -> tuple[Column, ...]:
    return (
        _required("archive", "VARCHAR", "Archive, by its name in table archives", ucd="meta.curation"),
        _required("release", "VARCHAR", "Data release of the archive", ucd="meta.version"),
        _required("source_id", "VARCHAR", "Exposure, by its rootname, or composite", ucd="meta.id"),
        TABLES_OF_LAKE["sources"].column("hpx29"),
        *columns,
        _required("granule", "VARCHAR", "Granule that brought the row; see table ledger", ucd="meta.id"),
    )


_PRODUCT = _required("product", "VARCHAR", "exposure or composite", ucd="meta.code", choices=PRODUCTS)
_ANGSTROM: dict[str, Any] = {"unit": "Angstrom", "ucd": "em.wl"}
_PIXEL: dict[str, Any] = {"unit": "pixel", "ucd": "pos.cartesian;instr.det"}
_PERIODS = tuple(
    column
    for band, range_ in (("short", "5 s to 10 min"), ("medium", "10 min to 1 h"), ("long", "1 h to 10 h"))
    for column in (
        Column(
            f"period_s_{band}",
            "DOUBLE",
            f"Most significant period of {range_}, equally spaced",
            unit="s",
            ucd="time.period",
        ),
        Column(f"power_{band}", "DOUBLE", "Its power, 0 to 1", ucd="stat.fourier"),
        Column(
            f"peak_period_s_{band}",
            "DOUBLE",
            f"Period of the highest peak from {range_}, on a grid uniform in frequency; NULL of many far apart",
            unit="s",
            ucd="time.period",
        ),
        Column(f"peak_power_{band}", "DOUBLE", "Its power, 0 to 1", ucd="stat.fourier"),
        Column(f"peak_fap_{band}", "DOUBLE", "Probability that noise alone has such a peak", ucd="stat.probability"),
    )
)

TABLES = (
    Table(
        "hst_exposures",
        "an exposure of COS or STIS, or a composite of several",
        _columns(
            _PRODUCT,
            Column("association", "VARCHAR", "Association that it belongs to", ucd="meta.id.assoc"),
            _required("target_name", "VARCHAR", "TARGNAME of its header", ucd="meta.id;src"),
            _required(
                "canonical_name",
                "VARCHAR",
                "Name by which composites are made; see table aliases",
                ucd="meta.id;meta.main",
            ),
            _required("is_moving", "BOOLEAN", "A moving target, such as a planet", ucd="meta.code"),
            _required("instrument", "VARCHAR", "COS or STIS", ucd="instr"),
            _required("detector", "VARCHAR", "FUV, NUV, FUV-MAMA or NUV-MAMA", ucd="instr.det"),
            _required("grating", "VARCHAR", "OPT_ELEM: grating or mirror", ucd="instr.filter"),
            _required("cenwave", "INTEGER", "Central wavelength setting; 0 of images", **_ANGSTROM),
            _required("aperture", "VARCHAR", "Aperture", ucd="instr"),
            Column(
                "fp_pos",
                "INTEGER",
                "FP-POS of COS: offset of the grating; NULL where exposures differ",
                ucd="instr.setup",
            ),
            _required("obstype", "VARCHAR", "SPECTROSCOPIC or IMAGING", ucd="meta.code"),
            Column("proposal", "INTEGER", "Proposal", ucd="meta.id"),
            Column("calibration_version", "VARCHAR", "CAL_VER: version of calcos or calstis", ucd="meta.version"),
            _required(
                "mjd_start", "DOUBLE", "EXPSTART: UTC of time 0", unit="d", ucd="time.start", low=33282, high=88069
            ),
            _required(
                "exposure_s",
                "DOUBLE",
                "EXPTIME, in good time intervals; of composites: sum of bins",
                unit="s",
                ucd="time.duration;obs.exposure",
                low=0,
            ),
            _required("bin_s", "DOUBLE", "Length of a bin", unit="s", ucd="time.interval", low=0),
            _required("bins", "BIGINT", "Bins", ucd="meta.number", low=0),
            _required("members", "INTEGER", "Exposures that it is made of", ucd="meta.number", low=1),
            Column("wavelength_min", "DOUBLE", "Events have longer wavelengths than this", **_ANGSTROM),
            Column("wavelength_max", "DOUBLE", "Events have shorter wavelengths than this", **_ANGSTROM),
            Column("x_min", "DOUBLE", "First column", **_PIXEL),
            Column("x_max", "DOUBLE", "Column after the last", **_PIXEL),
            *(
                Column(f"y_{end}_{name}", "DOUBLE", f"{word} of the source, segment or stripe {name.upper()}", **_PIXEL)
                for name in "abc"
                for end, word in (("min", "First row"), ("max", "Row after the last"))
            ),
            Column("serious_dq", "INTEGER", "Bits of DQ that make an event unusable", ucd="meta.code.qual"),
            _required("flux_calibrated", "BOOLEAN", "The reference files for fluxes were at hand", ucd="meta.code"),
            _required(
                "has_background", "BOOLEAN", "A background was measured: not of images, nor of STIS", ucd="meta.code"
            ),
            Column("has_empty_bin", "BOOLEAN", "An observed bin has no counts", ucd="meta.code"),
            Column("reference_files", "VARCHAR", "Reference files of the header, as JSON", ucd="meta.file"),
            Column("files", "VARCHAR", "Files that it was read from, with bytes, as JSON", ucd="meta.file"),
            _required("parameters", "VARCHAR", "How it was extracted, as JSON", ucd="meta.code"),
        ),
        key=("archive", "release", "source_id"),
        partition="archive",
        sort=("source_id",),
    ),
    Table(
        "hst_bins",
        "a bin of an exposure of COS or STIS, or of a composite",
        _columns(
            _PRODUCT,
            _required(
                "dataset",
                "INTEGER",
                "1; of composites the number of the exposure, in order of time",
                ucd="meta.number",
                low=1,
            ),
            _required("exposure_id", "VARCHAR", "Exposure, by its rootname", ucd="meta.id;obs.exposure"),
            _required("times_s", "DOUBLE", "Left edge of the bin since EXPSTART", unit="s", ucd="time"),
            _required(
                "mjd", "DOUBLE", "The same, UTC at the spacecraft", unit="d", ucd="time.epoch", low=33282, high=88069
            ),
            _required("bin_s", "DOUBLE", "Length of the bin", unit="s", ucd="time.interval", low=0),
            _required(
                "exposure_fraction", "DOUBLE", "Part of the bin that was observed", ucd="obs.exposure", low=0, high=1
            ),
            Column(
                "gross",
                "DOUBLE",
                "Weighted events of the source region; NULL where nothing was observed",
                unit="count",
                ucd="phot.count",
            ),
            Column(
                "background",
                "DOUBLE",
                "Weighted events of the background, scaled to the source region",
                unit="count",
                ucd="phot.count;instr.background",
            ),
            Column("counts", "DOUBLE", "gross less background", unit="count", ucd="phot.count"),
            Column("net", "DOUBLE", "counts / bin_s", unit="count.s**-1", ucd="phot.count;arith.rate"),
            Column(
                "flux",
                "DOUBLE",
                "Mean flux over the wavelengths; NULL without reference files",
                unit=FLUX_UNIT,
                ucd="phot.flux.density;em.wl",
            ),
            Column(
                "flux_err",
                "DOUBLE",
                "One standard deviation of flux",
                unit=FLUX_UNIT,
                ucd="stat.error;phot.flux.density",
                low=0,
            ),
            Column("error", "DOUBLE", "sqrt(gross + background)", unit="count", ucd="stat.error;phot.count", low=0),
            Column("signal_to_noise", "DOUBLE", "gross / error, as published", ucd="stat.snr"),
            Column("snr_net", "DOUBLE", "counts / error", ucd="stat.snr"),
        ),
        key=("archive", "release", "source_id", "dataset", "times_s"),
        partition="archive",
        sort=("source_id", "dataset", "times_s"),
    ),
    Table(
        "hst_statistics",
        "an exposure of COS or STIS, or a composite",
        _columns(
            _PRODUCT,
            _required("total", "BIGINT", "Whole part of the sum of counts", unit="count", ucd="phot.count;arith.sum"),
            Column("mean", "DOUBLE", "Mean of counts", unit="count", ucd="phot.count;stat.mean"),
            Column("mu", "DOUBLE", "Square root of the mean: the scatter of a constant source", ucd="stat.stdev"),
            Column("stdev", "DOUBLE", "Population standard deviation of counts", unit="count", ucd="stat.stdev", low=0),
            Column("poisson_factor", "DOUBLE", "stdev / mu: 1 for a constant source", ucd="stat.variance", low=0),
            Column("pearson_r", "DOUBLE", "Correlation of counts with time", ucd="stat.correlation", low=-1, high=1),
            Column(
                "pearson_p",
                "DOUBLE",
                "Probability of such a correlation by chance",
                ucd="stat.probability",
                low=0,
                high=1,
            ),
            _required("periodogram", "BOOLEAN", "A significant period has a power of 0.3 or more", ucd="meta.code"),
            *_PERIODS,
        ),
        key=("archive", "release", "source_id"),
        partition="archive",
        sort=("source_id",),
    ),
    Table(
        "events",
        "an event of an exposure of COS or STIS; only on request",
        _columns(
            _required("exposure_id", "VARCHAR", "Exposure, by its rootname", ucd="meta.id;obs.exposure"),
            Column("segment", "VARCHAR", "FUVA or FUVB; else the detector", ucd="instr.det"),
            _required("time_s", "DOUBLE", "Time since EXPSTART", unit="s", ucd="time"),
            Column("x", "FLOAT", "XCORR, or AXIS1 of STIS", **_PIXEL),
            Column("y", "FLOAT", "YCORR, or AXIS2 of STIS", **_PIXEL),
            Column("wavelength", "FLOAT", "Wavelength; 0 where it has none", **_ANGSTROM),
            Column("weight", "FLOAT", "EPSILON: correction for flat field and dead time", ucd="arith.factor"),
            Column("dq", "INTEGER", "Quality flags", ucd="meta.code.qual"),
            Column("pha", "INTEGER", "Pulse height of COS FUV", ucd="phys.electCharge"),
        ),
        key=(),  # events may be the same in everything
        partition="archive",
        sort=("source_id", "time_s"),
    ),
)

_SAME = """
    dataset, exposure_id, times_s AS times, mjd, bin_s AS bins, gross, background, counts, net, flux, error,
    flux_err AS flux_error, signal_to_noise, snr_net, exposure_fraction
"""
# Statistics of composites with what they are of.
_STATISTICS = """
    SELECT e.canonical_name AS target, e.instrument, e.detector, e.grating, e.cenwave, e.aperture, e.exposure_s,
           e.members, s.* EXCLUDE (archive, release, product, granule)
    FROM hst_statistics s JOIN hst_exposures e USING (archive, release, source_id)
    WHERE s.product = 'composite'
"""
# A light curve varies more than photons alone do: the published threshold.
INTERESTING = 1.2

# Views, by name: the published columns of single exposures and of composites.
VIEWS = {
    "hst_timetag": f"SELECT source_id, {_SAME} FROM hst_bins WHERE product = 'exposure'",
    "hst_composites": f"SELECT source_id, {_SAME} FROM hst_bins WHERE product = 'composite'",
    "hst_interesting": f"{_STATISTICS} AND s.poisson_factor >= {INTERESTING}",
    "hst_boring": f"{_STATISTICS} AND s.poisson_factor < {INTERESTING}",
    "hst_null": f"{_STATISTICS} AND s.poisson_factor IS NULL",
}
_ABOVE = f"""
CREATE OR REPLACE MACRO hst_above(threshold) AS TABLE
    {_STATISTICS} AND s.poisson_factor >= threshold
"""

_BIN_COLUMNS = (
    Column("times", "DOUBLE", "Left edge of the bin since EXPSTART", unit="s", ucd="time"),
    Column("bins", "DOUBLE", "Length of the bin", unit="s", ucd="time.interval"),
    Column(
        "flux_error", "DOUBLE", "One standard deviation of flux", unit=FLUX_UNIT, ucd="stat.error;phot.flux.density"
    ),
)
_TARGET = (Column("target", "VARCHAR", "Name by which composites are made", ucd="meta.id;meta.main"),)


def _of_bins(text: str, example: str) -> ViewNote:
    return ViewNote(text=text, example=example, columns=_BIN_COLUMNS, tables=("hst_bins",))


def _of_composites(text: str, example: str, **more: Any) -> ViewNote:
    return ViewNote(text=text, example=example, columns=_TARGET, tables=("hst_statistics", "hst_exposures"), **more)


_PUBLISHED = "with the columns of the Lightcurve Legacy of COS and STIS"
_NOTES = {
    "hst_timetag": _of_bins(
        f"Bins of exposures, {_PUBLISHED}.", "SELECT times, gross, net FROM hst_timetag WHERE exposure_id = 'lb4c05afq'"
    ),
    "hst_composites": _of_bins(
        f"Bins of composites, {_PUBLISHED}.", "SELECT source_id, count(*) FROM hst_composites GROUP BY source_id"
    ),
    "hst_interesting": _of_composites(
        f"Composites that vary: a Poisson factor of {INTERESTING} and more.",
        "SELECT target, grating, poisson_factor FROM hst_interesting ORDER BY poisson_factor DESC",
    ),
    "hst_boring": _of_composites(
        f"Composites with a Poisson factor below {INTERESTING}.",
        "SELECT target, grating, poisson_factor FROM hst_boring",
    ),
    "hst_null": _of_composites("Composites without a Poisson factor.", "SELECT target, grating FROM hst_null"),
    "hst_above": _of_composites(
        "Composites with a Poisson factor of a threshold and more.",
        "SELECT target, grating, poisson_factor FROM hst_above(2.0)",
        arguments={"threshold": "the least Poisson factor"},
    ),
}

ORIGIN = Origin(
    name=NAME,
    command="lightlake hst",
    title="HST COS and STIS photons (TIME-TAG mode), binned",
    release="MAST",
    endpoint=ENDPOINT,
    service=SERVICE,
    extra_endpoints={SIMBAD: SIMBAD_ENDPOINT},
    time_scale="UTC",
    time_frame="topocentre",
    bands=BANDS,
    cadence="live",
    licence="public domain; proprietary exposures are left out until they are public",
    acknowledgement=(
        "Based on observations made with the NASA/ESA Hubble Space Telescope, obtained from the data archive at the "
        "Space Telescope Science Institute, which is operated by AURA under NASA contract NAS 5-26555."
    ),
    access="MAST's search, and its corrtag, tag and x1d files, which go to the cache; or those of a folder or an s3:// "
    "prefix. LIGHTLAKE_ENDPOINTS__HST is another address of MAST, LIGHTLAKE_ENDPOINTS__SIMBAD another TAP service for "
    "names.",
    matching="Public science exposures in TIME-TAG mode within radius_arcsec (5) of a target. Lamps, darks, "
    "proprietary exposures and, near a position, moving targets are left out. Exposures of one target in one "
    "configuration become a composite.",
    quality="good: the bin was observed in full. quality is NULL. An exposure is in the lake whole or not at all; the "
    "ledger has the reasons: Bad EXPFLAG, No events, Non-linear time, Singular event, Bad Proposal, Short Exposure.",
    corrections="Gaps in good time are not zeros: exposure_fraction says how much of a bin was observed, and a bin "
    "without any of it is NULL. COS's background is scaled by the rows of its regions, and both segments of COS FUV "
    "are judged, as the Lightcurve Legacy of COS and STIS did not. STIS has no background here. Without reference "
    "files flux in hst_bins is NULL, not a number without calibration.",
    notes="mjd is the middle of a bin; bmjd_tdb takes HST to be at the Earth's centre: 23 ms off at most. source_id "
    "and exposure_id are the exposure's rootname. flux is the count rate less background over the time observed. "
    "Fluxes, where reference files allow them, are in table hst_bins.",
    views=Views(
        statements=(*(f"CREATE OR REPLACE VIEW {name} AS {query}" for name, query in VIEWS.items()), _ABOVE),
        notes=_NOTES,
    ),
    tables=TABLES,
)
