"""Every table of the lake and every column of it: type, unit, UCD, description. The single source.

The catalogue's tables and comments, the checks before a commit, the units of astropy tables and the documentation are
made from it. Tables of single sources come with these: see lake.model.declared. Units are VOUnits (IVOA Recommendation 1.1), UCDs are UCD1+
(IVOA Recommendation 1.5).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lake.model.table import Column, Table

SCHEMA_VERSION = 9


def _required(name: str, type: str, description: str, **more: Any) -> Column:
    return Column(name, type, description, required=True, **more)


_ARCHIVE = _required("archive", "VARCHAR", "Archive, by its name in table archives", ucd="meta.curation")
_RELEASE = _required("release", "VARCHAR", "Data release of the archive", ucd="meta.version")
_GRANULE = _required("granule", "VARCHAR", "Granule that brought the row; see table ledger", ucd="meta.id")
_TARGET_ID = _required("target_id", "BIGINT", "Target, by its id in table targets", ucd="meta.id")
_SOURCE_ID = _required("source_id", "VARCHAR", "The archive's own id of its source", ucd="meta.id")
_BAND = _required("band", "VARCHAR", "Band, by its name in table bands", ucd="instr.bandpass")
_HPX29 = _required(
    "hpx29", "BIGINT", "HEALPix order 29, nested, of the ICRS position", ucd="pos.healpix", low=0, high=12 * 4**29 - 1
)
_RA = _required("ra", "DOUBLE", "Right ascension, ICRS", unit="deg", ucd="pos.eq.ra;meta.main", low=0, high=360)
_DEC = _required("dec", "DOUBLE", "Declination, ICRS", unit="deg", ucd="pos.eq.dec;meta.main", low=-90, high=90)
_PM_RA = Column("pm_ra", "DOUBLE", "Proper motion in RA, times cos(dec)", unit="mas.yr**-1", ucd="pos.pm;pos.eq.ra")
_PM_DEC = Column("pm_dec", "DOUBLE", "Proper motion in declination", unit="mas.yr**-1", ucd="pos.pm;pos.eq.dec")
_REF_EPOCH = Column(
    "ref_epoch", "DOUBLE", "Julian epoch of the position", unit="yr", ucd="meta.ref;time.epoch", low=1800, high=2200
)
# 1950-01-01 to 2100-01-01: a time outside this range has the wrong offset or unit.
_MJD_RANGE: dict[str, Any] = {"low": 33282.0, "high": 88069.0}

# fmt: off
TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "targets",
            "a target",
            (
                _required("target_id", "BIGINT", "hpx29 of the first registered position; stable for ever",
                    ucd="meta.id;meta.main"),
                Column("name", "VARCHAR", "Main name: as first registered, or given since; view target_names has all", ucd="meta.id"),
                _RA,
                _DEC,
                _HPX29,
                _PM_RA,
                _PM_DEC,
                _REF_EPOCH,
                Column("redshift", "DOUBLE", "Redshift", ucd="src.redshift"),
                _required("added_at", "TIMESTAMPTZ", "When the target was registered", ucd="time.creation"),
            ),
            key=("target_id",),
            sort=("hpx29",),
        ),
        Table(
            "labels",
            "a target in a sample",
            (
                _TARGET_ID,
                _required("sample", "VARCHAR", "Sample that the target belongs to", ucd="meta.dataset"),
                Column("label", "VARCHAR", "Label of the target in that sample", ucd="meta.code.class"),
                Column("bibcode", "VARCHAR", "Paper that lists it", ucd="meta.bib.bibcode"),
                Column("catalogue", "VARCHAR", "File or catalogue that lists it", ucd="meta.file"),
                Column("row_in_catalogue", "BIGINT", "Row there, from 1", ucd="meta.record"),
                Column(
                    "added_at", "TIMESTAMPTZ", "When it was put into the sample; NULL of those before schema version 7",
                    ucd="time.creation",
                ),
                Column(
                    "name", "VARCHAR", "Name of the target there; NULL where it has none, and before schema version 7",
                    ucd="meta.id",
                ),
            ),
            key=("target_id", "sample", "label", "catalogue", "row_in_catalogue", "name"),
            sort=("target_id",),
        ),
        Table(
            "aliases",
            "a name that was looked up, or that goes with one",
            (
                _required("name", "VARCHAR", "The name as it was asked for, or as the service has it", ucd="meta.id;src"),
                _required("canonical_name", "VARCHAR", "Main identifier of the object", ucd="meta.id;meta.main"),
                Column("service", "VARCHAR", "Service that was asked; NULL if none was", ucd="meta.ref"),
                _required("method", "VARCHAR", "How the canonical name was found", ucd="meta.code"),
                _required("asked_at", "TIMESTAMPTZ", "When", ucd="time.processing"),
                Column("target_id", "BIGINT", "Target of the lake that it is, by its id in table targets", ucd="meta.id"),
                Column("ra", "DOUBLE", "Right ascension, ICRS", unit="deg", ucd="pos.eq.ra", low=0, high=360),
                Column("dec", "DOUBLE", "Declination, ICRS", unit="deg", ucd="pos.eq.dec", low=-90, high=90),
                _PM_RA,
                _PM_DEC,
                _REF_EPOCH,
                Column("redshift", "DOUBLE", "Redshift", ucd="src.redshift"),
                Column("object_type", "VARCHAR", "Type of the object, in the service's words", ucd="src.class"),
            ),
            key=("name", "canonical_name", "method"),
            sort=("name",),
        ),
        Table(
            "sources",
            "an archive's own source",
            (
                _ARCHIVE,
                _SOURCE_ID,
                _RELEASE,
                _HPX29,
                _RA,
                _DEC,
                Column("position_err_arcsec", "DOUBLE", "Radius of the position's error circle, as the archive "
                    "defines it", unit="arcsec", ucd="stat.error;pos.eq", low=0),
                _PM_RA,
                _PM_DEC,
                _REF_EPOCH,
                _GRANULE,
                Column("ra_err", "DOUBLE", "One standard deviation of ra, times cos(dec)", unit="mas",
                    ucd="stat.error;pos.eq.ra", low=0),
                Column("dec_err", "DOUBLE", "One standard deviation of dec", unit="mas", ucd="stat.error;pos.eq.dec", low=0),
                Column("parallax", "DOUBLE", "Parallax", unit="mas", ucd="pos.parallax"),
                Column("parallax_err", "DOUBLE", "One standard deviation of parallax", unit="mas",
                    ucd="stat.error;pos.parallax", low=0),
                Column("pm_ra_err", "DOUBLE", "One standard deviation of pm_ra", unit="mas.yr**-1",
                    ucd="stat.error;pos.pm;pos.eq.ra", low=0),
                Column("pm_dec_err", "DOUBLE", "One standard deviation of pm_dec", unit="mas.yr**-1",
                    ucd="stat.error;pos.pm;pos.eq.dec", low=0),
                Column("astfit_chisq", "DOUBLE", "Chi squared of the astrometric fit", ucd="stat.fit.chi2", low=0),
                Column("astfit_params", "INTEGER", "Parameters of the astrometric fit: 5 with proper motion and parallax",
                    ucd="meta.number", low=0),
                Column("uwe", "DOUBLE", "Unit weight error of the astrometric fit", ucd="stat.fit.goodness", low=0),
                Column("duplicate", "BOOLEAN", "The archive takes it for another entry of a source", ucd="meta.code"),
                Column("left_out", "VARCHAR", "Why its light curve is not in the lake; NULL if it is", ucd="meta.code"),
            ),
            key=("archive", "release", "source_id"),
            partition="archive",
            sort=("hpx29",),
        ),
        Table(
            "matches",
            "a target and a source of an archive",
            (
                _ARCHIVE,
                _TARGET_ID,
                _RELEASE,
                _SOURCE_ID,
                _required("hpx29", "BIGINT", "hpx29 of the source, so that its rows are found at once",
                    ucd="pos.healpix", low=0, high=12 * 4**29 - 1),
                _required("separation_arcsec", "DOUBLE", "Angular distance of target and source", unit="arcsec",
                    ucd="pos.angDistance", low=0, high=648000),
                _required("rank", "INTEGER", "1 is the nearest source of the target", ucd="meta.number", low=1),
                _GRANULE,
            ),
            key=("archive", "release", "target_id", "source_id"),
            partition="archive",
            sort=("target_id", "rank"),
        ),
        Table(
            "lightcurves",
            "a measurement",
            (
                _ARCHIVE,
                _BAND,
                _SOURCE_ID,
                _RELEASE,
                _HPX29,
                _required("mjd", "DOUBLE", "MJD as the archive reports it, mid-exposure; scale and frame in table "
                    "archives", unit="d", ucd="time.epoch;meta.main", **_MJD_RANGE),
                Column("bmjd_tdb", "DOUBLE", "The same instant at the barycentre, TDB", unit="d", ucd="time.epoch",
                    **_MJD_RANGE),
                Column("flux", "FLOAT", "Flux (or energy, or rate), in the unit that column unit names",
                    ucd="phot.flux"),
                Column("flux_err", "FLOAT", "One standard deviation of flux", ucd="stat.error;phot.flux", low=0),
                Column("unit", "VARCHAR", "VOUnit of flux and flux_err; mJy where flux-calibrated", ucd="meta.unit"),
                Column("mag", "FLOAT", "Magnitude as reported; system in table bands", unit="mag", ucd="phot.mag",
                    low=-30, high=60),
                Column("mag_err", "FLOAT", "One standard deviation of mag", unit="mag", ucd="stat.error;phot.mag",
                    low=0),
                _required("detected", "BOOLEAN", "False: covered, not detected", ucd="meta.code"),
                _required("good", "BOOLEAN", "Passes the archive's own recommended cut", ucd="meta.code.qual"),
                Column("quality", "BIGINT", "The archive's flag word", ucd="meta.code.qual"),
                Column("exposure_id", "VARCHAR", "Exposure, by its id in table exposures", ucd="meta.id;obs.exposure"),
                Column("exposure_s", "FLOAT", "Exposure time", unit="s", ucd="time.duration;obs.exposure", low=0),
                Column("counts", "FLOAT", "Counts", unit="count", ucd="phot.count"),
                Column("background", "FLOAT", "Background, in the unit of flux", ucd="instr.background"),
                Column("chi", "FLOAT", "Goodness of the PSF fit", ucd="stat.fit.goodness"),
                Column("ast_res_chisq", "FLOAT", "Chi squared of the astrometric residual", ucd="stat.fit.chi2"),
                _GRANULE,
                Column("x", "FLOAT", "Position on the detector", unit="pixel", ucd="pos.cartesian.x;instr.det"),
                Column("y", "FLOAT", "Position on the detector", unit="pixel", ucd="pos.cartesian.y;instr.det"),
                Column("sky", "FLOAT", "Sky that was subtracted, in the detector's counts", unit="adu",
                    ucd="instr.skyLevel"),
                Column("cnf_ctr", "FLOAT", "Confidence map at the centre", ucd="stat.probability"),
                Column("diff_fit_ap", "FLOAT", "PSF magnitude less aperture magnitude", unit="mag",
                    ucd="phot.mag;arith.diff"),
                Column("ext", "FLOAT", "Extendedness, as the archive gives it", ucd="src.morph.type"),
                Column("cadence_s", "FLOAT", "Time from one measurement to the next in a regular series", unit="s",
                    ucd="time.resolution", low=0),
            ),
            key=("archive", "release", "source_id", "band", "mjd"),
            partition="archive",
            sort=("hpx29", "source_id", "band", "mjd"),
        ),
        Table(
            "exposures",
            "an exposure or observation",
            (
                _ARCHIVE,
                _required("exposure_id", "VARCHAR", "The archive's own id of the exposure", ucd="meta.id;obs.exposure"),
                _RELEASE,
                Column("band", "VARCHAR", "Band, by its name in table bands", ucd="instr.bandpass"),
                Column("mjd_start", "DOUBLE", "Start, in the archive's time scale", unit="d", ucd="time.start",
                    **_MJD_RANGE),
                Column("mjd_stop", "DOUBLE", "End, in the archive's time scale", unit="d", ucd="time.end", **_MJD_RANGE),
                Column("exposure_s", "DOUBLE", "Exposure or live time", unit="s", ucd="time.duration;obs.exposure",
                    low=0),
                Column("ra", "DOUBLE", "Right ascension of the pointing, ICRS", unit="deg", ucd="pos.eq.ra", low=0,
                    high=360),
                Column("dec", "DOUBLE", "Declination of the pointing, ICRS", unit="deg", ucd="pos.eq.dec", low=-90,
                    high=90),
                Column("details", "VARCHAR", "What else the archive says of it, as JSON", ucd="meta.note"),
                _GRANULE,
                Column("seeing_arcsec", "FLOAT", "Full width at half maximum of a point source", unit="arcsec",
                    ucd="instr.obsty.seeing", low=0),
                Column("sky_level", "FLOAT", "Sky, in the detector's counts", unit="adu", ucd="instr.skyLevel"),
                Column("ellipticity", "FLOAT", "Mean ellipticity of point sources", ucd="src.ellipticity", low=0),
            ),
            key=("archive", "release", "exposure_id"),
            partition="archive",
            sort=("exposure_id",),
        ),
        Table(
            "coverage",
            "a target x archive x release asked for",
            (
                _ARCHIVE,
                _TARGET_ID,
                _RELEASE,
                _required("status", "VARCHAR", "found, empty (asked, nothing there), rejected (the answer is bad) or failed "
                    "(no answer): see ledger", ucd="meta.code", choices=("found", "empty", "rejected", "failed")),
                _required("n_sources", "BIGINT", "Sources matched", ucd="meta.number", low=0),
                _required("n_rows", "BIGINT", "Measurements of those sources", ucd="meta.number", low=0),
                _required("parameters", "VARCHAR", "What was asked for, radius and the like, as JSON", ucd="meta.note"),
                _required("asked_at", "TIMESTAMPTZ", "When it was asked", ucd="time.processing"),
                _GRANULE,
            ),
            key=("archive", "release", "target_id"),
            partition="archive",
            sort=("target_id",),
        ),
        Table(
            "ledger",
            "an attempt at a granule",
            (
                _ARCHIVE,
                _RELEASE,
                _GRANULE,
                _required("status", "VARCHAR", "done, empty, split (asked again in halves), rejected or failed",
                    ucd="meta.code", choices=("done", "empty", "split", "rejected", "failed")),
                Column("reason", "VARCHAR", "Why it was rejected, failed or split, or what else is to be known of it, "
                    "in one line", ucd="meta.note"),
                _required("n_targets", "BIGINT", "Targets asked for", ucd="meta.number", low=0),
                _required("n_sources", "BIGINT", "Sources in the answer", ucd="meta.number", low=0),
                _required("n_rows", "BIGINT", "Measurements in the answer", ucd="meta.number", low=0),
                _required("bytes", "BIGINT", "Bytes of Parquet staged", unit="byte", ucd="meta.number", low=0),
                _required("attempt", "INTEGER", "1 for the first time", ucd="meta.number", low=1),
                Column("error_type", "VARCHAR", "Class of the error", ucd="meta.code.error"),
                Column("error", "VARCHAR", "The error, in full", ucd="meta.note"),
                _required("started_at", "TIMESTAMPTZ", "Start of the attempt", ucd="time.start"),
                _required("seconds", "DOUBLE", "Time it took to fetch and stage", unit="s", ucd="time.duration", low=0),
                Column("peak_rss_mb", "DOUBLE", "Peak memory of the process", unit="Mbyte", ucd="meta.number", low=0),
                Column("endpoint", "VARCHAR", "What was asked: URL or path", ucd="meta.ref.url"),
                _required("parameters", "VARCHAR", "Parameters of the request, as JSON", ucd="meta.note"),
                Column("input_checksum", "VARCHAR", "Checksum of the granule's inputs", ucd="meta.checksum"),
                _required("software", "VARCHAR", "Version of Lightlake", ucd="meta.software"),
                Column("snapshot_id", "BIGINT", "Snapshot of the catalogue that holds it", ucd="meta.id"),
                Column("n_found", "BIGINT", "Targets with a source in the answer", ucd="meta.number", low=0),
                Column("retries", "INTEGER", "Times that it, or a request of it, was tried again after a failure that "
                    "may pass", ucd="meta.number", low=0),
                Column("requests", "INTEGER", "HTTP requests that were sent for it; NULL where Arrow reads S3, which "
                    "does not say", ucd="meta.number", low=0),
                Column("run_id", "VARCHAR", "Run that made it, see table runs; NULL before schema version 9", ucd="meta.id"),
            ),
            key=("granule", "attempt"),
            sort=("started_at",),
        ),
        Table(
            "runs",
            "a start of a run; one that was resumed has several",
            (
                _required("run_id", "VARCHAR", "Run, by the name that its file gives it, or one of its own", ucd="meta.id"),
                _required("name", "VARCHAR", "What it does, in a few words", ucd="meta.title"),
                _required("state", "VARCHAR", "running (or its process is gone), done, incomplete (something is missing), "
                    "failed, stopped, or interrupted (its process was gone)", ucd="meta.code",
                    choices=("running", "done", "incomplete", "failed", "stopped", "interrupted")),
                Column("request", "VARCHAR", "What was asked for, as JSON", ucd="meta.note"),
                _required("host", "VARCHAR", "Machine of its first process", ucd="meta.id"),
                _required("process", "BIGINT", "Number of its first process there", ucd="meta.id", low=0),
                _required("started_at", "TIMESTAMPTZ", "When it was started", ucd="time.start"),
                Column("ended_at", "TIMESTAMPTZ", "When it ended, or was found to have ended", ucd="time.end"),
                Column("flow_run_id", "VARCHAR", "Its flow run, if Prefect ran it", ucd="meta.id"),
                Column("samples", "VARCHAR", "Samples that it added, by what was asked for each, as JSON", ucd="meta.note"),
                Column("message", "VARCHAR", "How it ended", ucd="meta.note"),
                Column("peak_rss_mb", "DOUBLE", "Peak memory of its first process", unit="Mbyte", ucd="meta.number", low=0),
            ),
            key=("run_id", "started_at"),
            sort=("started_at",),
        ),
        Table(
            "metrics",
            "a look at a process of a run, and at each archive in it",
            (
                _required("run_id", "VARCHAR", "Run, see table runs", ucd="meta.id"),
                _required("host", "VARCHAR", "Machine", ucd="meta.id"),
                _required("process", "BIGINT", "Number of the process there", ucd="meta.id", low=0),
                Column("archive", "VARCHAR", "Archive or survey that this is of; NULL: the whole process",
                    ucd="meta.curation"),
                _required("time", "TIMESTAMPTZ", "When", ucd="time"),
                _required("cpu_s", "DOUBLE", "Processor time since the process began; of an archive, of the threads that "
                    "worked for it in this run", unit="s", ucd="time.duration", low=0),
                Column("resident_bytes", "BIGINT", "Memory now; NULL of an archive", unit="byte", ucd="meta.number", low=0),
                Column("read_bytes", "BIGINT", "Bytes read from disks since the process began; NULL of an archive, and "
                    "where the system does not say", unit="byte", ucd="meta.number", low=0),
                Column("written_bytes", "BIGINT", "Bytes written to disks since then; NULL as before", unit="byte",
                    ucd="meta.number", low=0),
                _required("received_bytes", "BIGINT", "Bytes of answers of services, as they came over the network, "
                    "since the process began to work for the run", unit="byte", ucd="meta.number", low=0),
                _required("open_requests", "INTEGER", "Requests open now", ucd="meta.number", low=0),
            ),
            key=("run_id", "host", "process", "archive", "time"),
            sort=("run_id", "time"),
        ),
        Table(
            "statistics",
            "a source in a band",
            (
                _ARCHIVE,
                _SOURCE_ID,
                _RELEASE,
                _BAND,
                _HPX29,
                _required("n", "BIGINT", "Measurements", ucd="meta.number", low=1),
                _required("n_detected", "BIGINT", "Detections", ucd="meta.number", low=0),
                _required("n_good", "BIGINT", "Good detections; the statistics below are of these", ucd="meta.number",
                    low=0),
                _required("mjd_first", "DOUBLE", "First measurement", unit="d", ucd="time.start", **_MJD_RANGE),
                _required("mjd_last", "DOUBLE", "Last measurement", unit="d", ucd="time.end", **_MJD_RANGE),
                Column("unit", "VARCHAR", "VOUnit of the fluxes", ucd="meta.unit"),
                Column("flux_median", "DOUBLE", "Median flux", ucd="phot.flux;stat.median"),
                Column("flux_mean", "DOUBLE", "Mean flux", ucd="phot.flux;stat.mean"),
                Column("flux_std", "DOUBLE", "Sample standard deviation of flux", ucd="phot.flux;stat.stdev", low=0),
                Column("mag_median", "DOUBLE", "Median magnitude", unit="mag", ucd="phot.mag;stat.median"),
                _GRANULE,
            ),
            key=("archive", "release", "source_id", "band"),
            partition="archive",
            sort=("hpx29", "source_id", "band"),
        ),
        Table(
            "archives",
            "an archive",
            (
                _ARCHIVE,
                _required("title", "VARCHAR", "Full name", ucd="meta.title"),
                _RELEASE,
                _required("endpoint", "VARCHAR", "Public address", ucd="meta.ref.url"),
                _required("time_scale", "VARCHAR", "Scale of mjd: UTC, TAI, TT, TDB or TCB", ucd="time.scale"),
                _required("time_frame", "VARCHAR", "Where mjd is measured: topocentre, geocentre, heliocentre or "
                    "barycentre", ucd="time.scale"),
                Column("radius_arcsec", "DOUBLE", "Default match radius", unit="arcsec", ucd="pos.angDistance", low=0),
                _required("cadence", "VARCHAR", "frozen (asked once) or live", ucd="meta.code",
                    choices=("frozen", "live")),
                _required("licence", "VARCHAR", "Terms of use", ucd="meta.curation"),
                _required("acknowledgement", "VARCHAR", "Text that a paper should carry", ucd="meta.note"),
                Column("bibcode", "VARCHAR", "Paper to cite", ucd="meta.bib.bibcode"),
                Column("notes", "VARCHAR", "What a user of the numbers should know", ucd="meta.note"),
            ),
            key=("archive",),
        ),
        Table(
            "bands",
            "a band",
            (
                _ARCHIVE,
                _BAND,
                _required("description", "VARCHAR", "What is measured", ucd="meta.note"),
                Column("unit", "VARCHAR", "VOUnit of flux in this band", ucd="meta.unit"),
                Column("mag_system", "VARCHAR", "AB or Vega", ucd="meta.code"),
                Column("zero_point_jy", "DOUBLE", "Flux of magnitude 0", unit="Jy", ucd="phot.flux.density;arith.zp",
                    low=0),
                Column("zero_point_source", "VARCHAR", "Where the zero point comes from", ucd="meta.ref"),
                Column("wavelength_nm", "DOUBLE", "Effective wavelength", unit="nm", ucd="em.wl.effective", low=0),
                Column("svo_id", "VARCHAR", "Id in the SVO Filter Profile Service", ucd="meta.id"),
                Column("fornax_band", "VARCHAR", "Name in the Fornax light-curve collector", ucd="instr.bandpass"),
                Column("ab_minus_mag", "DOUBLE", "AB magnitude less mag: what makes an AB magnitude of one in "
                    "mag_system", unit="mag", ucd="phot.mag;arith.diff"),
                Column("ab_source", "VARCHAR", "Where ab_minus_mag comes from", ucd="meta.ref"),
            ),
            key=("archive", "band"),
        ),
        Table(
            "files",
            "a live Parquet file",
            (
                _required("path", "VARCHAR", "Path below data/main", ucd="meta.file"),
                _required("table_name", "VARCHAR", "Table that it belongs to", ucd="meta.table"),
                _required("rows", "BIGINT", "Rows in it", ucd="meta.number", low=0),
                _required("bytes", "BIGINT", "Its size", unit="byte", ucd="meta.number", low=0),
                _required("blake2b", "VARCHAR", "BLAKE2b-128 of its content, hexadecimal", ucd="meta.checksum"),
            ),
            key=("path",),
        ),
        Table(
            "schema_version",
            "a migration of this lake",
            (
                _required("version", "INTEGER", "Version of this schema", ucd="meta.version", low=1),
                _required("software", "VARCHAR", "Version of Lightlake that brought it", ucd="meta.software"),
                _required("applied_at", "TIMESTAMPTZ", "When", ucd="time.processing"),
                Column("lake_id", "VARCHAR", "Id of this lake, as its tree carries it in lake.json", ucd="meta.id"),
                Column("declared", "VARCHAR", "Checksum of the views and tables that its sources declare",
                    ucd="meta.checksum"),
            ),
            key=("version", "applied_at"),
        ),
    )
}

# fmt: on

# The tables with a source's rows, which exist once per (archive, release, source_id).
SOURCE_TABLES = ("sources", "lightcurves", "statistics")


def as_dict(tables: Iterable[Table]) -> dict[str, Any]:
    """Convert the schema of some tables to plain data, for JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tables": [
            {
                "name": table.name,
                "row": table.row,
                "partition": table.partition,
                "sort": list(table.sort),
                "key": list(table.key),
                "columns": [
                    {
                        "name": column.name,
                        "type": column.type,
                        "unit": column.unit,
                        "ucd": column.ucd,
                        "description": column.description,
                        "required": column.required,
                    }
                    for column in table.columns
                ],
            }
            for table in tables
        ],
    }


def as_markdown(tables: Iterable[Table]) -> str:
    """Convert the schema of some tables to Markdown."""
    lines = [f"# The tables of a lake (schema version {SCHEMA_VERSION})", ""]
    for table in tables:
        key = f" Key: {', '.join(table.key)}." if table.key else ""
        lines += [f"## {table.name}", "", f"One row per {table.row}.{key}"]
        if table.partition:
            lines[-1] += f" Partitioned by {table.partition}."
        if table.sort:
            lines[-1] += f" Sorted by {', '.join(table.sort)}."
        lines += ["", "| column | type | unit | UCD | description |", "|---|---|---|---|---|"]
        lines += [
            f"| {c.name} | {c.type}{' NOT NULL' if c.required else ''} | {c.unit or ''} | {c.ucd or ''} | {c.description} |"
            for c in table.columns
        ]
        lines.append("")
    return "\n".join(lines)
