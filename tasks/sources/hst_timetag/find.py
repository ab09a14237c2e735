"""Find exposures of COS and STIS in TIME-TAG mode at MAST, and their files.

Public science exposures are taken. Those of lamps, darks and the like are left out. Exposures of moving targets are
found by name only, since they are of no position. Columns are those of MAST's search of HST's science table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from lake.errors import ConfigurationError
from lake.science.motion import Paths, Span, julian_year
from lake.settings import Settings
from tasks.sources.hst_timetag.options import RADIUS_ARCSEC

Row = dict[str, Any]

# Beyond a degree a cone is a survey: ask for what is new instead.
_LARGEST_RADIUS_ARCSEC = 3600.0
# The service rounds in its own way; the angle here decides.
_PAD_ARCSEC = 0.01

SPAN = Span(1997.1, None, "STIS was installed in February 1997, COS in May 2009")

# Names that are no objects: what the Lightcurve Legacy of COS and STIS (HST 13902) leaves out.
CALIBRATION = ("DARK", "BIAS", "DEUTERIUM", "WAVE", "ANY", "NONE")
SUFFIXES = ("CORRTAG", "CORRTAG_A", "CORRTAG_B", "TAG", "X1D")

_CRITERIA = {
    "sci_instrume": "COS,STIS",
    # The service pads and spells it as the instrument's commanding does.
    "sci_operating_mode": "*TIME*TAG*",
    "sci_status": "PUBLIC",
    "sci_aec": "S",
}
_COLUMNS = (
    "sci_data_set_name",
    "sci_asn_id",
    "sci_targname",
    "sci_instrume",
    "sci_instrument_config",
    "sci_spec_1234",
    "sci_central_wavelength",
    "sci_aper_1234",
    "sci_obs_type",
    "sci_operating_mode",
    "sci_status",
    "sci_aec",
    "sci_ra",
    "sci_dec",
    "sci_start_time",
    "sci_actual_duration",
    "sci_expflag",
    "sci_pep_id",
    "sci_mtflag",
    "sci_release_date",
    "sci_generation_date",
)
_OBSTYPES = {"SPECTRUM": "SPECTROSCOPIC", "IMAGE": "IMAGING"}
_FILE = re.compile(r"([a-z0-9]{9})_(?:corrtag|corrtag_[ab]|tag|x1d)\.fits(?:\.gz)?", re.IGNORECASE)
_MJD_0 = datetime(1858, 11, 17, tzinfo=UTC)

_UTC = pa.timestamp("us", tz="UTC")
EXPOSURES = pa.schema(
    [
        ("exposure_id", pa.string()),
        ("association", pa.string()),
        ("target_name", pa.string()),
        ("instrument", pa.string()),
        ("detector", pa.string()),
        ("grating", pa.string()),
        ("cenwave", pa.int32()),
        ("aperture", pa.string()),
        ("obstype", pa.string()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("mjd_start", pa.float64()),
        ("exposure_s", pa.float64()),
        ("expflag", pa.string()),
        ("proposal", pa.int32()),
        ("released_at", _UTC),
        ("generated_at", _UTC),
        ("is_moving", pa.bool_()),
    ]
)
MATCHES = pa.schema([("target_id", pa.int64()), ("exposure_id", pa.string()), ("separation_arcsec", pa.float64())])
FILES = pa.schema(
    [
        ("exposure_id", pa.string()),
        ("dataset", pa.string()),
        ("filename", pa.string()),
        ("suffix", pa.string()),
        ("bytes", pa.int64()),
        ("product_key", pa.string()),
        ("uri", pa.string()),
    ]
)


@dataclass(frozen=True)
class Found:
    """What MAST lists.

    Parameters
    ----------
    exposures
        Rows of `EXPOSURES`, by exposure_id, each once. MAST lists associations under one name: until their files are
        known that name is the exposure_id, too. See `products`.
    matches
        Rows of `MATCHES`: which of them are near which target.
    remarks
        What was left out, counted by kind.
    """

    exposures: pa.Table
    matches: pa.Table = field(default_factory=MATCHES.empty_table)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Products:
    """The files of exposures.

    Parameters
    ----------
    exposures
        Rows of `EXPOSURES`, with associations resolved: one row for each exposure that has events. What only its own
        header says (mjd_start, exposure_s) is NULL for a member of an association of several. STIS names files by
        association: there exposure_id is the association's name until the file is read.
    files
        Rows of `FILES`: event files of exposures, and each exposure's own extracted spectrum.
    remarks
        What was left out, counted by kind.
    """

    exposures: pa.Table
    files: pa.Table
    remarks: tuple[str, ...] = ()


def near(targets: pa.Table, settings: Settings, *, radius_arcsec: float = RADIUS_ARCSEC) -> Found:
    """Find exposures near targets, where these were when they were observed.

    Parameters
    ----------
    targets
        Columns target_id, ra, dec, pm_ra, pm_dec and ref_epoch of table targets.
    settings
        Endpoint and limits.
    radius_arcsec
        Largest angle between the target and the position that was observed.

    Raises
    ------
    ArchiveError
        If the service does not answer, or not as it should.
    TruncatedAnswer
        If an answer is not all.
    ConfigurationError
        If the radius makes no sense.
    """
    from tasks.sources.hst_timetag.missions import Missions

    if not 0 < radius_arcsec <= _LARGEST_RADIUS_ARCSEC:
        raise ConfigurationError(
            f"a radius of {radius_arcsec} arcsec makes no sense here", hint=f"up to {_LARGEST_RADIUS_ARCSEC:g}"
        )
    paths = Paths(targets, SPAN)
    reach = np.broadcast_to(paths.reach(radius_arcsec), targets.num_rows) + _PAD_ARCSEC
    rows: dict[str, Row] = {}
    with Missions(settings) as missions:
        for ra, dec, radius in zip(paths.ra.tolist(), paths.dec.tolist(), reach.tolist(), strict=True):
            found = missions.search(_criteria(), _COLUMNS, (ra % 360.0, dec), radius)
            rows |= {row["sci_data_set_name"]: row for row in found}
    kept, remarks = _kept(rows.values(), without_moving=True)
    exposures = _table(kept).filter(
        pa.array([row["ra"] is not None and row["dec"] is not None for row in kept], pa.bool_())
    )
    ra, dec, mjd = (exposures[name].to_numpy().astype(np.float64) for name in ("ra", "dec", "mjd_start"))
    timed = np.flatnonzero(~np.isnan(mjd))
    i, j, separation = paths.match(ra, dec, radius_arcsec, (timed, julian_year(mjd[timed])))
    matches = pa.table(
        [targets["target_id"].take(pa.array(i)), exposures["exposure_id"].take(pa.array(j)), pa.array(separation)],
        schema=MATCHES,
    )
    return Found(exposures.take(pa.array(np.unique(j))), matches, remarks)


def named(names: Sequence[str], settings: Settings) -> Found:
    """Find exposures by the names that proposers gave their targets, moving ones among them.

    Parameters
    ----------
    names
        As in TARGNAME, in any case; blanks count as hyphens, and "*" stands for anything.
    settings
        Endpoint and limits.
    """
    from tasks.sources.hst_timetag.missions import Missions

    spelt = sorted({re.sub(r"\s+", "-", name.strip().upper()) for name in names} - {""})
    if wrong := [name for name in spelt if re.search(r"[,!<>]|\.\.", name)]:
        raise ConfigurationError(f"{wrong[0]!r} is not the name of a target of HST")
    if not spelt:
        return Found(EXPOSURES.empty_table())
    with Missions(settings) as missions:
        rows = missions.search(_criteria(sci_targname=",".join(spelt)), _COLUMNS)
    kept, remarks = _kept(rows)
    return Found(_table(kept), remarks=remarks)


def since(when: datetime, settings: Settings, *, what: Literal["released", "generated"] = "released") -> Found:
    """Find exposures that became public, or whose files were made, at a time or later.

    Parameters
    ----------
    when
        The time, with its zone.
    settings
        Endpoint and limits.
    what
        Whether the release counts, or the making of the files, which a new calibration repeats.
    """
    from tasks.sources.hst_timetag.missions import Missions

    when = when.astimezone(UTC)
    column = {"released": "sci_release_date", "generated": "sci_generation_date"}[what]
    # The service compares with midnight of a day; the exact time is looked at here.
    criteria = _criteria(**{column: f">{(when - timedelta(days=1)).date().isoformat()}"})
    with Missions(settings) as missions:
        rows = missions.search(criteria, _COLUMNS)
    kept, remarks = _kept(rows)
    kept = [row for row in kept if (row[f"{what}_at"] or when) >= when]
    return Found(_table(kept), remarks=remarks)


def products(exposures: pa.Table, settings: Settings, suffixes: Iterable[str] = SUFFIXES) -> Products:
    """List the files of exposures, and resolve associations to the exposures that have events.

    Parameters
    ----------
    exposures
        Rows of `EXPOSURES`, as MAST lists them.
    settings
        Endpoint and limits.
    suffixes
        Which files, in any case.

    Raises
    ------
    ArchiveError
        If the service does not answer, or not as it should.
    """
    from tasks.sources.hst_timetag.missions import Missions

    wanted, listed, left_out = {name.upper() for name in suffixes}, list[Row](), Counter[str]()
    with Missions(settings) as missions:
        for row in missions.products(exposures["exposure_id"].to_pylist()):
            suffix = str(row.get("file_suffix") or "").strip().upper()
            if suffix in wanted:
                file = _file(row, suffix, left_out)
                listed += [file] if file else []
    events = {row["exposure_id"] for row in listed if row["suffix"] != "X1D"}
    # An association and its members may each list the same files.
    files = {row["filename"]: row for row in reversed(listed) if row["exposure_id"] in events}
    by_dataset: dict[str, set[str]] = {}
    for row in listed:
        if row["suffix"] != "X1D":
            by_dataset.setdefault(row["dataset"], set()).add(row["exposure_id"])
    resolved: dict[str, Row] = {}
    for row in exposures.to_pylist():
        members = sorted(by_dataset.get(row["exposure_id"], ()))
        if not members:
            left_out["datasets without files of events"] += 1
        for member in members:
            if member == row["exposure_id"]:
                resolved[member] = row
            else:
                resolved.setdefault(member, _member(row, member, is_alone=len(members) == 1))
    table = pa.Table.from_pylist([resolved[name] for name in sorted(resolved)], EXPOSURES)
    rows = sorted(files.values(), key=lambda row: (row["exposure_id"], row["filename"]))
    return Products(table, pa.Table.from_pylist(rows, FILES), _remarks(left_out))


def url_of(uri: str, settings: Settings) -> str:
    """Return where to download a file, by the uri of its row."""
    from tasks.sources.hst_timetag.missions import endpoint

    return f"{endpoint(settings)}/search/hst/api/v0.1/retrieve_product?product_name={quote(uri, safe='')}"


def _criteria(**more: str) -> Mapping[str, str]:
    return {**_CRITERIA, "sci_targname": ",".join(f"!{name}" for name in CALIBRATION), **more}


def _kept(rows: Iterable[Row], *, without_moving: bool = False) -> tuple[list[Row], tuple[str, ...]]:
    """Return the rows that are to be taken, as rows of `EXPOSURES` by exposure_id, and what was left out."""
    kept, left_out = {}, Counter[str]()
    for row in rows:
        exposure = _exposure(row)
        reason = _reason(row, exposure)
        if reason is None and without_moving and exposure["is_moving"]:
            reason = "exposures of moving targets, which are found by name only"
        if reason is None:
            kept[exposure["exposure_id"]] = exposure
        else:
            left_out[reason] += 1
    return [kept[name] for name in sorted(kept)], _remarks(left_out)


def _reason(row: Row, exposure: Row) -> str | None:
    """Return why a row is not to be taken whatever the service understood by the criteria; None if it is."""
    if exposure["instrument"] not in ("COS", "STIS") or not re.search(
        "TIME.?TAG", _text(row, "sci_operating_mode") or ""
    ):
        return "exposures of another instrument or mode"
    if _text(row, "sci_status") != "PUBLIC":
        return "exposures that are not public"
    if _text(row, "sci_aec") != "S" or exposure["target_name"] in (None, *CALIBRATION):
        return "exposures for calibration"
    return None


def _remarks(left_out: Counter[str]) -> tuple[str, ...]:
    return tuple(f"{reason}, left out: {left_out[reason]}" for reason in sorted(left_out))


def _table(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), EXPOSURES)


def _exposure(row: Row) -> Row:
    config = (_text(row, "sci_instrument_config") or "").partition("/")
    obstype = _text(row, "sci_obs_type") or ""
    start = _time(row, "sci_start_time")
    ra, dec = _number(row, "sci_ra"), _number(row, "sci_dec")
    on_sky = ra is not None and dec is not None and 0 <= ra <= 360 and -90 <= dec <= 90
    cenwave, proposal = _number(row, "sci_central_wavelength"), _number(row, "sci_pep_id")
    is_image = obstype == "IMAGE"
    association = _text(row, "sci_asn_id")
    return {
        "exposure_id": row["sci_data_set_name"].lower(),
        "association": None if association in (None, "NONE") else association.lower(),
        "target_name": _text(row, "sci_targname"),
        "instrument": _text(row, "sci_instrume"),
        "detector": config[2] or None,
        "grating": _text(row, "sci_spec_1234"),
        # As in headers: an image has no central wavelength.
        "cenwave": 0 if is_image else None if cenwave is None else round(cenwave),
        "aperture": _text(row, "sci_aper_1234"),
        "obstype": _OBSTYPES.get(obstype, obstype) or None,
        "ra": ra if on_sky else None,
        "dec": dec if on_sky else None,
        "mjd_start": None if start is None else (start - _MJD_0) / timedelta(days=1),
        "exposure_s": _number(row, "sci_actual_duration"),
        "expflag": _text(row, "sci_expflag"),
        "proposal": None if proposal is None else int(proposal),
        "released_at": _time(row, "sci_release_date"),
        "generated_at": _time(row, "sci_generation_date"),
        "is_moving": _text(row, "sci_mtflag") in ("T", "TRUE"),
    }


def _member(row: Row, name: str, *, is_alone: bool) -> Row:
    """Return the row of an exposure of an association."""
    unknown = {} if is_alone else {"mjd_start": None, "exposure_s": None}
    return {**row, "exposure_id": name, "association": row["association"] or row["exposure_id"], **unknown}


def _file(row: Row, suffix: str, left_out: Counter[str]) -> Row | None:
    """Return a row of `FILES`; None for a product that is not public, or whose name is no file's of HST."""
    name, dataset, uri = (str(row.get(key) or "") for key in ("filename", "dataset", "uri"))
    match = _FILE.fullmatch(name)
    if match is None or not dataset or not uri.endswith(name):
        left_out["products with a name or address that is none"] += 1
        return None
    if str(row.get("access") or "PUBLIC").strip().upper() != "PUBLIC":
        left_out["products that are not public"] += 1
        return None
    size = row.get("size")
    return {
        "exposure_id": match[1].lower(),
        "dataset": dataset.lower(),
        "filename": name.lower(),
        "suffix": suffix,
        "bytes": size if type(size) is int and size > 0 else None,
        "product_key": row.get("product_key"),
        "uri": uri,
    }


def _text(row: Row, name: str) -> str | None:
    value = row.get(name)
    return str(value).strip().upper() or None if value is not None else None


def _number(row: Row, name: str) -> float | None:
    try:
        value = float(row[name])
    except (KeyError, TypeError, ValueError):
        return None
    return value if np.isfinite(value) else None


def _time(row: Row, name: str) -> datetime | None:
    try:
        value = datetime.fromisoformat(str(row[name]).strip())
    except (KeyError, ValueError):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
