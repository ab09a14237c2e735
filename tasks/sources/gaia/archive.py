"""Gaia DR3: which sources are at a target, and the epoch photometry of those that have any.

Sources come from the archive's TAP service by uploaded positions, epoch photometry from its DataLink service.
Every source within the radius is kept and ranked, with epoch photometry or without: the nearest source may be
one that has none. What DataLink sends is read in tasks/sources/gaia/epochs.py.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.commit.sound import rejected_remark, without_sources
from lake.errors import ArchiveError
from lake.model.declared import FornaxRows, Views
from lake.science.motion import positions_at
from lake.science.photometry import AB_ZERO_POINT_JY
from lake.science.sky import apply_proper_motion, hpx29, ranks, separation_arcsec
from lake.settings import Settings
from lake.text import counted
from tasks.services.http import Session
from tasks.services.tap import Service
from tasks.services.values import measured, places_of, whole_rows
from tasks.sources.base import Archive, Band, FetchResult, Granule
from tasks.sources.collector import DEG, Collector, Key
from tasks.sources.gaia import epochs as gaia_epochs
from tasks.sources.gaia.layouts import EMPTY

NAME = "gaia"
RELEASE = "DR3"
TABLE = "gaiadr3.gaia_source"
DATALINK = "https://gea.esac.esa.int/data-server/data"

# Gaia's positions are of this Julian year (Gaia Collaboration 2023, A&A 674, A1, sect. 2).
EPOCH_YR = 2016.0

# The largest proper motion known, Barnard's star: 10.39 arcsec/yr (Gaia DR3). Bounds how far from its place at
# the target's epoch a source may be found.
MAX_PM_ARCSEC_YR = 10.4

# The archive's own limit on a DataLink request (www.cosmos.esa.int/web/gaia-users/archive/datalink-products).
DATALINK_IDS = 5000

# Names that the archive has had for the layouts of its products, in the order in which they are tried.
STRUCTURES = ("RAW", "DATAMODEL_GAIA", "INDIVIDUAL", "DATAMODEL_STANDARD", "COMBINED")

_REFUSED_STRUCTURE = re.compile(r"invalid[ _]data[ _]?structure", re.I)

# Batches up to this size are asked synchronously: Gaia's synchronous queries are cut off after 60 s.
_SYNC_TARGETS = 500
_MAXREC = 1_000_000

# A NULL proper motion makes the last condition unknown, so the one before it stands alone.
_ADQL = """
SELECT t.target_id, s.source_id, s.ra, s.dec, s.ra_error, s.dec_error, s.pmra, s.pmdec, s.ref_epoch,
    s.has_epoch_photometry, s.random_index
FROM {table} AS s, tap_upload.targets AS t
WHERE 1 = CONTAINS(POINT('ICRS', s.ra, s.dec), CIRCLE('ICRS', t.ra, t.dec, t.reach_deg)){moving}
"""
_MOVING = """
    AND (DISTANCE(POINT('ICRS', s.ra, s.dec), POINT('ICRS', t.ra, t.dec)) <= t.radius_deg
        OR DISTANCE(POINT('ICRS', s.ra, s.dec), POINT('ICRS', t.ra, t.dec))
            <= t.radius_deg + t.years * SQRT(s.pmra * s.pmra + s.pmdec * s.pmdec) / 3600000.0)"""


def fetch(granule: Granule, settings: Settings) -> FetchResult:
    """Get the sources of a batch of targets, and their light curves.

    Parameters
    ----------
    granule
        Targets; parameters radius_arcsec and data_structure.
    settings
        Endpoints (gaia: TAP, gaia_datalink: DataLink) and time-outs.

    Raises
    ------
    ArchiveError
        If a service does not answer, or not as it should.
    TruncatedAnswer
        If the list of sources was cut short.
    """
    endpoint = ARCHIVE.endpoint_url(settings)
    service = Service(NAME, endpoint, settings.timeout_s, settings.task_timeout_s)
    upload = positions(granule.targets, granule.parameters["radius_arcsec"])
    found = service.query(
        adql(upload), {"targets": upload}, maxrec=_MAXREC, asynchronous=upload.num_rows > _SYNC_TARGETS
    )
    found, remarks = whole_rows(found, found["source_id"].cast(pa.string()), "rows of the list of sources")
    pairs = pair(granule.targets, found, granule.parameters["radius_arcsec"])
    sources = pairs.group_by("source_id", use_threads=False).aggregate(
        [(name, "first") for name in pairs.column_names if name not in ("source_id", "target_id")]
    )
    sources = sources.rename_columns([name.removesuffix("_first") for name in sources.column_names])
    ids = sources.filter(sources["has_epoch_photometry"])["source_id"].to_numpy()
    epochs, missing, broken = _epochs(ids, settings, granule.parameters["data_structure"])
    remarks += filter(None, [gaia_epochs.out_of_time(epochs), gaia_epochs.out_of_band(epochs)])
    if missing:
        some = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        remarks.append(
            f"DataLink has no epoch photometry of {counted(len(missing), 'source')} that should have it: {some}"
        )
    made = {"sources": _sources(sources), "matches": _matches(pairs)}
    without_answer = frozenset[int]()
    if broken:
        remarks.append(str(rejected_remark(broken)))
        of = set(made["matches"]["target_id"].to_pylist())
        made = without_sources(made, broken)
        without_answer = frozenset(of - set(made["matches"]["target_id"].to_pylist()))
    return FetchResult(
        **made,
        lightcurves=gaia_epochs.lightcurves(epochs, made["sources"]),
        endpoint=endpoint,
        remark="; ".join(remarks) or None,
        unanswered=without_answer,
    )


def positions(targets: pa.Table, radius_arcsec: float) -> pa.Table:
    """Make the table to upload: the position of each target at Gaia's epoch, and the radius to search.

    A target whose own proper motion is known is moved to Gaia's epoch. For one whose epoch alone is known, any
    source may be the one that could have been there then, so that the reach grows with the years between.
    """
    ra, dec, moves, years = _at_gaia_epoch(targets)
    years = np.where(moves, 0.0, years)
    return pa.table(
        {
            "target_id": targets["target_id"],
            "ra": ra,
            "dec": dec,
            "radius_deg": np.full(len(ra), radius_arcsec / 3600),
            "reach_deg": (radius_arcsec + years * MAX_PM_ARCSEC_YR) / 3600,
            "years": years,
        }
    )


def adql(upload: pa.Table) -> str:
    """Write the query for an uploaded table; it uses proper motions only where needed."""
    moving = _MOVING if pc.max(upload["years"]).as_py() else ""
    return _ADQL.format(table=TABLE, moving=moving).strip()


def pair(targets: pa.Table, found: pa.Table, radius_arcsec: float) -> pa.Table:
    """Select the pairs of a TAP answer that are within the radius at the target's epoch, nearest first.

    Returns
    -------
    pa.Table
        The columns found, with separation_arcsec and rank, sorted by target and rank.
    """
    ra, dec, moves, _ = _at_gaia_epoch(targets)
    place = places_of(targets, found["target_id"])
    epoch = _floats(targets, "ref_epoch")[place]
    own = moves[place] | np.isnan(epoch)
    at = np.nan_to_num(_floats(found, "ref_epoch"), nan=EPOCH_YR)
    pm_ra, pm_dec = (np.where(np.isfinite(pm), pm, np.nan) for pm in (_floats(found, "pmra"), _floats(found, "pmdec")))
    source_ra, source_dec = apply_proper_motion(
        _floats(found, "ra"), _floats(found, "dec"), pm_ra, pm_dec, at, np.where(own, at, epoch)
    )
    separation = separation_arcsec(ra[place], dec[place], source_ra, source_dec)
    near = separation <= radius_arcsec
    pairs = found.append_column("separation_arcsec", pa.array(separation)).filter(pa.array(near))
    pairs = pairs.sort_by([(name, "ascending") for name in ("target_id", "separation_arcsec", "source_id")])
    pairs = pairs.set_column(pairs.column_names.index("source_id"), "source_id", pairs["source_id"].cast(pa.int64()))
    return pairs.append_column("rank", pa.array(ranks(pairs["target_id"].to_numpy())))


def _at_gaia_epoch(targets: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return positions, whether the target's own motion took them to Gaia's epoch, and years from its own."""
    ra, dec, moves = positions_at(targets, EPOCH_YR)
    return ra, dec, moves, np.nan_to_num(np.abs(EPOCH_YR - _floats(targets, "ref_epoch")))


def _floats(table: pa.Table, name: str) -> np.ndarray:
    return measured(table[name])


def _sources(found: pa.Table) -> pa.Table:
    ra, dec = _floats(found, "ra"), _floats(found, "dec")
    return pa.table(
        {
            "source_id": found["source_id"].cast(pa.string()),
            "hpx29": hpx29(ra, dec),
            "ra": ra,
            "dec": dec,
            # One standard deviation along the worse of the two axes; the archive gives mas.
            "position_err_arcsec": pc.divide(pc.max_element_wise(found["ra_error"], found["dec_error"]), 1000.0),
            "pm_ra": found["pmra"],
            "pm_dec": found["pmdec"],
            "ref_epoch": found["ref_epoch"],
        }
    )


def _matches(pairs: pa.Table) -> pa.Table:
    return pa.table(
        {
            "target_id": pairs["target_id"],
            "source_id": pairs["source_id"].cast(pa.string()),
            "hpx29": hpx29(_floats(pairs, "ra"), _floats(pairs, "dec")),
            "separation_arcsec": pairs["separation_arcsec"],
            "rank": pairs["rank"],
        }
    )


def _epochs(ids: np.ndarray, settings: Settings, structure: str) -> tuple[pa.Table, list[int], dict[str, str]]:
    """Fetch the epoch photometry of some sources; return also the sources without any, and why others are broken."""
    parts = [EMPTY]
    wanted = [int(source) for source in np.sort(ids)]
    missing: list[int] = []
    broken: dict[int, str] = {}
    for start in range(0, len(wanted), DATALINK_IDS):
        chunk = wanted[start : start + DATALINK_IDS]
        # What an answer lacks is asked for once more, by itself, before it counts as not there.
        for _ in range(2):
            part, odd = _datalink(chunk, settings, structure)
            parts.append(part)
            chunk = sorted(set(chunk) - set(part["source_id"].to_pylist()))
            if not chunk:
                break
        broken |= {source: odd[source] for source in chunk if source in odd}
        missing += [source for source in chunk if source not in odd]
    if len(broken) == len(wanted) > 1:  # it is not the sources that are odd
        raise _garbled(next(iter(broken.values())), settings)
    return pa.concat_tables(parts), missing, {str(source): reason for source, reason in broken.items()}


def _garbled(reason: str, settings: Settings) -> ArchiveError:
    url = settings.endpoints.get("gaia_datalink", DATALINK)
    return ArchiveError(f"DataLink: {reason}", archive=NAME, endpoint=url, transient=True)


def _datalink(ids: list[int], settings: Settings, structure: str) -> tuple[pa.Table, dict[int, str]]:
    url = settings.endpoints.get("gaia_datalink", DATALINK)
    structures = (structure, *(name for name in STRUCTURES if name != structure))
    for number, name in enumerate(structures):
        form = {
            "RETRIEVAL_TYPE": "EPOCH_PHOTOMETRY",
            "ID": ",".join(map(str, ids)),
            "RELEASE": "Gaia DR3",
            "DATA_STRUCTURE": name,
            "FORMAT": "votable",
            "VALID_DATA": "false",  # rejected transits, too
            "USE_ZIP_ALWAYS": "true",
        }
        try:
            with Session(NAME, url, settings.timeout_s, settings.task_timeout_s) as session:
                body, budget = session.post(url, data=form).content, session.budget()
        except ArchiveError as error:
            # The archive has renamed its structures more than once; one that it does not know it refuses.
            # Some refusals come as HTTP 500, which else is trouble that may pass.
            is_refused = not error.transient and "HTTP 4" in error.message
            is_refused = is_refused or _REFUSED_STRUCTURE.search(error.message) is not None
            if not is_refused or number == len(structures) - 1:
                raise
            continue
        broken: dict[int, str] = {}
        try:
            return gaia_epochs.read(body, ids, budget, broken), broken
        except ValueError as error:
            raise _garbled(str(error), settings) from error
    raise AssertionError("every structure is tried, and the last one raises")


_SVO = {"G": "G", "BP": "Gbp", "RP": "Grp"}


def _band(band: str, description: str, wavelength_nm: float) -> Band:
    points = gaia_epochs.ZERO_POINTS[band]
    difference = points.ab - points.vega
    return Band(
        band,
        description,
        "mJy",
        mag_system="Vega",
        zero_point_jy=AB_ZERO_POINT_JY * 10 ** (-0.4 * difference),
        zero_point_source=f"3631 Jy and the zero points of {gaia_epochs.ZERO_POINT_SOURCE}: Vega {points.vega}, "
        f"AB {points.ab}",
        ab_minus_mag=difference,
        ab_source=f"{gaia_epochs.ZERO_POINT_SOURCE}, AB less Vega",
        wavelength_nm=wavelength_nm,
        svo_id=f"GAIA/GAIA3.{_SVO[band]}",
        fornax_band=f"Gaia_{band}",
    )


# The Fornax collector's Gaia fluxes are half a day too late, and of Vega magnitudes taken for AB ones, with
# 10**(-48.6/2.5) erg s-1 cm-2 Hz-1 instead of 3631 Jy. It looks at one flag only, rejected_by_photometry, the lowest
# bit of quality, and has no row without a magnitude.
_VEGA_AS_AB = "pow(10, 0.4 * bands.ab_minus_mag) * 3630.7805477 / 3631"
_AS_PUBLISHED = FornaxRows(
    rows=f"(SELECT * FROM target_lightcurves WHERE archive = '{NAME}')",
    time="rows.mjd + 0.5",
    flux=f"rows.flux::DOUBLE * {_VEGA_AS_AB}",
    err=f"rows.flux_err::DOUBLE * {_VEGA_AS_AB}",
    where="rows.flux > 0 AND rows.quality & 1 = 0",
)

ARCHIVE = Archive(
    name=NAME,
    views=Views(as_published=(_AS_PUBLISHED,), fornax_v24={band: band for band in ("G", "BP", "RP")}),
    title="Gaia DR3 epoch photometry",
    release=RELEASE,
    endpoint="https://gea.esac.esa.int/tap-server/tap",
    time_scale="TCB",
    time_frame="barycentre",
    # Pivot wavelengths: www.cosmos.esa.int/web/gaia/edr3-passbands.
    bands=(
        _band("G", "Gaia G, per transit over the field", 621.79),
        _band("BP", "Gaia blue photometer, per transit", 510.97),
        _band("RP", "Gaia red photometer, per transit", 776.91),
    ),
    radius_arcsec=1.0,
    batch_size=2000,
    cadence="frozen",
    licence="CC BY-SA 3.0 IGO",
    acknowledgement="This work has made use of data from the European Space Agency (ESA) mission Gaia "
    "(https://www.cosmos.esa.int/gaia), processed by the Gaia Data Processing and Analysis Consortium (DPAC).",
    bibcode="2023A&A...674A...1G",
    access="TAP finds the sources, DataLink sends their epoch photometry. LIGHTLAKE_ENDPOINTS__GAIA is another TAP "
    "service, LIGHTLAKE_ENDPOINTS__GAIA_DATALINK another DataLink service.",
    matching="Every source within radius_arcsec is kept and ranked by distance, with epoch photometry or without: "
    "only variable sources have any. A target with proper motion is moved to 2016.0, the epoch of Gaia's positions. A "
    "target with only an epoch (ref_epoch) is compared with the positions of Gaia's sources at that epoch.",
    quality="Rejected and noisy transits stay, with good = false. " + gaia_epochs.QUALITY_NOTE,
    corrections="mjd is the archive's time, days since 2010-01-01T00:00 TCB, + 55197.0; the Fornax collector added "
    "55197.5, half a day too much. Fluxes are made from the electron rate and the AB zero point: Gaia's magnitudes "
    "are Vega, and taken for AB they would be 11 % too bright in G, 39 % in RP. mag is Vega, as reported; mag + "
    "ab_minus_mag of table bands is AB.",
    notes="exposure_id is the transit.",
    probe="/capabilities",
    extra_endpoints={"gaia_datalink": DATALINK},
    fetch=fetch,
    parameters={"radius_arcsec": 1.0, "data_structure": STRUCTURES[0]},
    collector=Collector("gaia", {"search_radius": Key("radius_arcsec", DEG)}, is_core=True),
)
