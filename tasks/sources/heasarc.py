"""HEASARC: any of its tables that has times and positions, by TAP upload; each table is an archive of its own.

An event is stored once, as a source with the radius of its error circle, and matched to every target inside it.
A trigger has no flux and gets none; a fluence, energy or flux that the table has is kept in its own unit. Three
tables are built in; the setting `tables` adds more with a few lines each.
"""

from __future__ import annotations

import functools
import threading
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import ValidationError

from lake.errors import ConfigurationError, GranuleRejected
from lake.model.declared import FornaxRows, Views
from lake.names import unknown
from lake.science.motion import Paths, Span, julian_year
from lake.science.sky import hpx29, ranks, separation_arcsec
from lake.science.times import to_bmjd_tdb
from lake.settings import Settings
from lake.text import counted
from tasks.services.tap import Service
from tasks.services.values import dated, measured, places_of, undated_remark, whole_rows
from tasks.sources.base import Archive, Band, FetchResult, Granule
from tasks.sources.collector import Collector, Key
from tasks.sources.event_table import ARCSEC, EventTable

# The page that helps with errors from here.
HELP_TOPIC = "how-to/heasarc-table"

SERVICE = "heasarc"
ENDPOINT = "https://heasarc.gsfc.nasa.gov/xamin/vo/tap"

# Without TOP the service cuts every answer at so many rows, and does not say so (astroquery issues 3387, 3390).
CAP = 100_000

# Batches up to this size are queried synchronously.
_SYNC_TARGETS = 1000

# X-ray astronomy began in 1962 June; other data are hardly older.
SPAN = Span(1962.4, None, "at most: X-ray astronomy began then, R. Giacconi et al. 1962, PhRvL 9, 439")

# Added to the radius in queries for targets that move, so that rounding at the service loses no match.
_PAD_ARCSEC = 0.01


def fetch(table: EventTable, granule: Granule, settings: Settings) -> FetchResult:
    """Get the events of a table that belong to a batch of targets.

    Raises
    ------
    ArchiveError
        If the service does not answer, or not as it should.
    TruncatedAnswer
        If the answer was cut short.
    GranuleRejected
        If several events were found, or one target was asked for, and every id is that of several.
    """
    endpoint = settings.endpoints.get(SERVICE, ENDPOINT)
    service = Service(table.name, endpoint, settings.timeout_s, settings.task_timeout_s, CAP, SERVICE)
    upload = granule.targets.select(["target_id", "ra", "dec"])
    radius, paths = table.radius_of(granule.parameters), Paths(granule.targets, SPAN)
    moving = radius is not None and bool(paths.moves.any())
    if radius is not None and moving:  # all that is near a path, of which `harvest` keeps what a target was at
        reach = np.asarray(paths.reach(radius + _PAD_ARCSEC)) / 3600
        upload = pa.table({"target_id": upload["target_id"], "ra": paths.ra, "dec": paths.dec, "reach_deg": reach})
    found = service.query(
        table.adql(granule.parameters, moving=moving),
        {"targets": upload},
        maxrec=CAP,
        asynchronous=upload.num_rows > _SYNC_TARGETS,
    )
    without = _without_position(service, table.table)
    events = counted(without, f"event of {table.table} has", f"events of {table.table} have")
    remark = f"{events} no position and match nothing" if without else None
    return harvest(table, granule.targets, found, endpoint, remark, radius)


def harvest(
    table: EventTable,
    targets: pa.Table,
    found: pa.Table,
    endpoint: str | None = None,
    remark: str | None = None,
    radius_arcsec: float | None = None,
) -> FetchResult:
    """Convert pairs of targets and events to tables of the lake; nothing is read.

    Parameters
    ----------
    radius_arcsec
        How near an event a target has to have been at its time; None: what was found is near enough, as error circles
        are so large that no motion matters.
    """
    ids = [_texts(found[column]) for column in table.id_columns]
    found = found.append_column("source_id", pc.binary_join_element_wise(*ids, "/"))
    found, remarks = whole_rows(found, found["source_id"], f"events of {table.table}")
    remarks[:0] = [remark] if remark else []
    separation, near = _separation(table, targets, found, radius_arcsec)
    found = found.append_column("separation_arcsec", pa.array(separation)).filter(pa.array(near))
    names = [name for name in found.column_names if name not in ("target_id", "separation_arcsec")]
    events = found.group_by(names, use_threads=False).aggregate([])
    counts = events.group_by("source_id").aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1))
    if twice.num_rows:
        message = f"ids of {table.table} stand for several events, such as {twice['source_id'][0].as_py()}"
        if twice.num_rows == counts.num_rows and (twice.num_rows > 1 or targets.num_rows == 1):
            raise GranuleRejected(f"{twice.num_rows} {message}", hint="name more columns in id_columns")
        # What shares its id is rejected with all that breaks a rule, and its neighbours are not.
        remarks.append(f"{twice.num_rows} {message}: name more columns in id_columns")
    ra, dec = (_floats(events, name) for name in ("ra", "dec"))
    pixel = hpx29(ra, dec)
    scale = ARCSEC[table.error_unit]
    sources = pa.table(
        {
            "source_id": events["source_id"],
            "hpx29": pixel,
            "ra": ra,
            "dec": dec,
            "position_err_arcsec": _floats(events, table.error_column) * scale,
        }
    )
    n = events.num_rows
    mjd = _floats(events, table.time_column)
    known = dated(mjd)
    remarks += filter(None, [undated_remark(mjd, lambda mask: events["source_id"].filter(pa.array(mask)).to_pylist())])
    lightcurves = pa.table(
        {
            "band": [table.band] * n,
            "source_id": events["source_id"],
            "hpx29": pixel,
            "mjd": mjd,
            "bmjd_tdb": to_bmjd_tdb(
                np.where(known, mjd, np.nan), ra, dec, scale=table.time_scale.lower(), frame="geocentre"
            ),
            "unit": pa.array([table.unit] * n, pa.string()),
            "detected": [True] * n,
            "good": [True] * n,
        }
    )
    if table.value_column is not None:
        # A table without a value, as of triggers, has no flux that could be missing: its events are detections.
        flux, error = (_floats(events, name) for name in (table.value_column, table.value_err_column))
        lightcurves = lightcurves.append_column("flux", pa.array(flux)).append_column("flux_err", pa.array(error))
    lightcurves = lightcurves.filter(pa.array(known))
    remark = "; ".join(remarks) or None
    return FetchResult(sources, _matches(found), lightcurves, endpoint=endpoint, remark=remark)


def _separation(
    table: EventTable, targets: pa.Table, found: pa.Table, radius_arcsec: float | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Measure distances of events from targets, and say which match: targets that move, at the event's time."""
    place = places_of(targets, found["target_id"])
    ra, dec = (_floats(found, name) for name in ("ra", "dec"))
    if radius_arcsec is None:
        here = _floats(targets, "ra")[place], _floats(targets, "dec")[place]
        return separation_arcsec(*here, ra, dec), np.ones(len(place), bool)
    paths, mjd = Paths(targets, SPAN), _floats(found, table.time_column)
    moves, known = paths.moves[place], dated(mjd)
    then = separation_arcsec(*paths.at(place, julian_year(np.where(known, mjd, 0.0))), ra, dec)
    # One without a time may be of any.
    separation = np.where(moves & ~known, paths.closest(place, ra, dec), then)
    return separation, ~moves | (separation <= radius_arcsec)


def _matches(found: pa.Table) -> pa.Table:
    pairs = pa.table(
        {
            "target_id": found["target_id"],
            "source_id": found["source_id"],
            "hpx29": hpx29(_floats(found, "ra"), _floats(found, "dec")),
            "separation_arcsec": found["separation_arcsec"],
        }
    ).sort_by([(name, "ascending") for name in ("target_id", "separation_arcsec", "source_id")])
    return pairs.append_column("rank", pa.array(ranks(pairs["target_id"].to_numpy())))


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert values to text for ids; numbers with all their digits."""
    return pc.utf8_trim_whitespace(column.cast(pa.string()))


def _floats(table: pa.Table, name: str | None) -> np.ndarray:
    if name is None:
        return np.full(table.num_rows, np.nan)
    return measured(table[name])


_COUNTING = threading.Lock()


def _without_position(service: Service, table: str) -> int:
    """Count the rows of a table that have no position, by one query a process."""
    with _COUNTING:
        return _count_without_position(service, table)


@lru_cache(maxsize=64)
def _count_without_position(service: Service, table: str) -> int:
    counted = service.query(f"SELECT COUNT(*) AS n FROM {table} WHERE ra IS NULL OR dec IS NULL", maxrec=2)
    return int(counted["n"][0].as_py())


# The Fornax collector gives triggers a flux and an error of 0.1, so that a mark appears in the plot. It has the three
# events of highest energy of each target.
_MARKS = FornaxRows(
    rows="(SELECT * FROM target_lightcurves WHERE archive IN ('fermigtrig', 'saxgrbmgrb'))", flux="0.1", err="0.1"
)
# The collaboration's own release has the same events: once is enough.
_ONCE = """(rows.archive <> 'icecubepsc' OR NOT EXISTS (
    SELECT 1 FROM coverage
    WHERE coverage.archive = 'icecube' AND coverage.target_id = rows.target_id AND coverage.status IN ('found', 'empty')
))"""
_VIEWS = {
    "fermigtrig": Views(as_published=(_MARKS,)),
    "saxgrbmgrb": Views(as_published=()),  # with the other triggers
    "icecubepsc": Views(
        fornax_where=_ONCE, as_published=(FornaxRows(rows="brightest_events('icecubepsc', 3)", err="0.0", where=_ONCE),)
    ),
}

_COLLECTOR = {
    **{
        name: Collector(
            "heasarc",
            {f"{key}.{name}": Key("max_error_radius_deg") for key in ("catalog_error_radii", "catalog_constraints")},
            is_core=True,
        )
        for name in ("fermigtrig", "saxgrbmgrb")
    },
    "icecubepsc": Collector(
        "heasarc",
        {
            "catalog_constraints.icecubepsc.max_search_radius": Key("max_search_radius_deg"),
            "catalog_constraints.icecubepsc.select_topn": Key(
                note="all events are kept; those of most energy: lightlake sql "
                "\"FROM brightest_events('icecubepsc', {value})\""
            ),
        },
        is_asked=False,
    ),
}


def archive(table: EventTable) -> Archive:
    """Make an archive of a table."""
    return Archive(
        name=table.name,
        views=_VIEWS.get(table.name, Views()),
        title=table.title,
        release=table.release,
        endpoint=ENDPOINT,
        probe="/capabilities",
        service=SERVICE,
        time_scale=table.time_scale,
        time_frame="geocentre",
        bands=(Band(table.band, table.description, table.unit, fornax_band=table.fornax_band),),
        radius_arcsec=table.radius_arcsec,
        batch_size=table.batch_size,
        cadence=table.cadence,
        max_age_days=table.max_age_days,
        licence="Public; HEASARC asks to be acknowledged",
        acknowledgement="This research has made use of data and/or software provided by the High Energy Astrophysics "
        "Science Archive Research Center (HEASARC), which is a service of the Astrophysics Science Division at "
        "NASA/GSFC.",
        bibcode=table.bibcode,
        access="TAP: targets are uploaded. LIGHTLAKE_ENDPOINTS__HEASARC is another service for all of its tables. It "
        "cuts answers at 100,000 rows and does not say so: a batch with as many is split.",
        matching=table.matching,
        quality="Every event is good: tables of events have no flags here.",
        corrections=table.corrections or "None: values are those of the table, in its own units.",
        notes=table.notes,
        fetch=functools.partial(fetch, table),
        span=SPAN if table.error_column is None else None,
        parameters=table.parameters(),
        collector=_COLLECTOR.get(table.name),
    )


def configured(settings: Settings) -> list[Archive]:
    """Return the tables that the settings add.

    Raises
    ------
    ConfigurationError
        If one is not described as it must be.
    """
    archives = []
    for name, given in settings.tables.items():
        described = {"name": name, "table": name, "band": name.upper(), "title": f"HEASARC table {name}", **given}
        try:
            archives.append(archive(EventTable.model_validate(described)))
        except ValidationError as error:
            first, setting = error.errors()[0], f"LIGHTLAKE_TABLES__{name.upper()}"
            if first["type"] == "extra_forbidden":
                raise unknown("key", str(first["loc"][0]), EventTable.model_fields, f"in {setting}") from error
            message = ": ".join([*map(str, first["loc"]), first["msg"].removeprefix("Value error, ")])
            raise ConfigurationError(f"{setting}: {message}", hint="correct it, or unset it") from error
    return archives


FERMIGTRIG = EventTable(
    name="fermigtrig",
    table="fermigtrig",
    title="Fermi GBM triggers",
    band="FERMIGTRIG",
    fornax_band="FERMIGTRIG",
    description="A trigger of the Gamma-ray Burst Monitor, whatever set it off; no flux",
    max_error_radius_deg=1.0,
    cadence="live",
    max_age_days=7.0,
    corrections="A trigger has no flux, and gets none. The Fornax collector gave it a flux and an error of 0.1.",
    notes="Error circles are statistical, 1 sigma.",
)
SAXGRBMGRB = EventTable(
    name="saxgrbmgrb",
    table="saxgrbmgrb",
    title="BeppoSAX GRBM gamma-ray bursts",
    band="SAXGRBMGRB",
    fornax_band="SAXGRBMGRB",
    description="Fluence of a burst, 40 to 700 keV; NULL where the catalogue has none",
    max_error_radius_deg=3.0,
    value_column="fluence",
    unit="erg.cm**-2",
    bibcode="2009ApJS..180..192F",
    corrections="A burst has its fluence. The Fornax collector gave it a flux and an error of 0.1.",
    notes="About a quarter of the bursts have no position; they match nothing, and the ledger counts them.",
)
ICECUBEPSC = EventTable(
    name="icecubepsc",
    table="icecubepsc",
    title="IceCube neutrino candidates for point-source searches, HEASARC's copy",
    band="IceCube",
    fornax_band="IceCube",
    description="Reconstructed energy of a muon through the detector",
    id_columns=("time", "ra", "dec"),
    max_search_radius_deg=2.0,
    strict=True,
    value_column="event_energy",
    unit="GeV",
    batch_size=500,
    bibcode="2021arXiv210109836I",
    corrections="All events that match are kept. The Fornax collector had the three of highest energy of each target, "
    "with an error of 0; here flux_err is NULL.",
    notes="The same events as archive icecube; without a name, an event is known by its time and place. flux is the "
    "muon's reconstructed energy.",
)
ARCHIVES = tuple(archive(table) for table in (FERMIGTRIG, SAXGRBMGRB, ICECUBEPSC))
