"""HEASARC: any of its tables that has times and positions, by TAP upload; each table is an archive of its own.

An event is stored once, as a source with the radius of its error circle, and matched to every target inside it.
A trigger has no flux and gets none; a fluence, energy or flux that the table has is kept in its own unit. Three
tables are built in; the setting `tables` adds more with a few lines each.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lake.errors import ConfigurationError, GranuleRejected
from lake.model.declared import FornaxRows, Views
from lake.science.motion import Paths, Span, julian_year
from lake.science.sky import hpx29, ranks, separation_arcsec
from lake.science.times import to_bmjd_tdb
from lake.settings import Settings
from lake.text import counted
from tasks.services.tap import Service
from tasks.services.values import dated, measured, places_of, undated_remark, whole_rows
from tasks.sources.base import Archive, Band, FetchResult, Granule, wrong_name
from tasks.sources.collector import Collector, Key

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

_ARCSEC = {"deg": 3600.0, "arcmin": 60.0, "arcsec": 1.0}


class EventTable(BaseModel):
    """A table of HEASARC: its columns, and which targets an event belongs to.

    An event belongs to a target that is inside its error circle (`error_column`), or within `radius_arcsec` of
    it if its table has none; in either case no farther than `max_search_radius_deg`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    table: str = Field(pattern=r"^[A-Za-z_][\w.]*$")
    title: str
    band: str
    id_columns: tuple[str, ...] = ("name",)
    time_column: str = "time"
    time_scale: Literal["UTC", "TT", "TDB", "TAI"] = "UTC"
    error_column: str | None = "error_radius"
    error_unit: Literal["deg", "arcmin", "arcsec"] = "deg"
    radius_arcsec: float | None = Field(None, gt=0)
    max_error_radius_deg: float | None = Field(None, gt=0)
    max_search_radius_deg: float | None = Field(None, gt=0, le=180)
    strict: bool = False
    value_column: str | None = None
    value_err_column: str | None = None
    unit: str | None = None
    cadence: Literal["frozen", "live"] = "frozen"
    max_age_days: float | None = Field(None, gt=0)
    release: str = "HEASARC"
    batch_size: int = Field(10_000, gt=0)
    description: str = "Events"
    fornax_band: str | None = None
    bibcode: str | None = None
    notes: str | None = None

    @field_validator("name")
    @classmethod
    def _folder_rule(cls, name: str) -> str:
        if message := wrong_name(name):
            raise ValueError(message)
        return name

    @model_validator(mode="after")
    def _radius_rule(self) -> EventTable:
        if self.error_column is None and self.radius_arcsec is None:
            raise ValueError("error_column or radius_arcsec must say which targets an event belongs to")
        if (self.value_column is None) != (self.unit is None):
            raise ValueError("value_column and unit go together")
        return self

    def parameters(self) -> dict[str, Any]:
        """Return the parameters that a pull may change."""
        names = ("max_error_radius_deg", "max_search_radius_deg", "radius_arcsec")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def columns(self) -> list[str]:
        """Return the columns to ask for, each once."""
        optional = (self.error_column, self.value_column, self.value_err_column)
        wanted = (*self.id_columns, "ra", "dec", self.time_column, *optional)
        return list(dict.fromkeys(column for column in wanted if column))

    def radius_of(self, parameters: Mapping[str, Any]) -> float | None:
        """Return the match radius, arcsec; None if each event has its own."""
        if self.error_column is not None:
            return None
        return float(min(parameters["radius_arcsec"], 3600 * (parameters.get("max_search_radius_deg") or 180)))

    def adql(self, parameters: Mapping[str, Any], *, moving: bool = False) -> str:
        """Return the query for uploaded targets, with a reach each if some move; `time` is a reserved word: quoted."""
        chosen = ", ".join(f"e.{_name(column)}" for column in self.columns())
        target, event = "POINT('ICRS', t.ra, t.dec)", "POINT('ICRS', e.ra, e.dec)"
        reach = parameters.get("max_search_radius_deg")
        conditions = []
        if (radius := self.radius_of(parameters)) is not None:
            reach = "t.reach_deg" if moving else radius / 3600
        elif self.error_column is not None:
            error, per_deg = f"e.{_name(self.error_column)}", 3600 / _ARCSEC[self.error_unit]
            circle = error if per_deg == 1 else f"{error} / {per_deg}"
            if (limit := parameters.get("max_error_radius_deg")) is not None:
                conditions.append(f"{error} < {limit * per_deg}")
            if reach is not None or self.strict:
                conditions.append(f"DISTANCE({target}, {event}) {'<' if self.strict else '<='} {circle}")
        # Around the target where the radius lets us choose: services have their events, not ours, in an index.
        around = f"{event}, CIRCLE('ICRS', t.ra, t.dec, {reach})"
        if reach is None:
            around = f"{target}, CIRCLE('ICRS', e.ra, e.dec, {circle})"
        conditions.append(f"1 = CONTAINS({around})")
        return (
            f"SELECT t.target_id, {chosen}\nFROM {self.table} AS e, tap_upload.targets AS t\n"
            f"WHERE {' AND '.join(conditions)}"
        )


def _name(column: str) -> str:
    return f'"{column}"' if column.lower() == "time" else column


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
    service = Service(table.name, endpoint, settings.timeout_s, settings.task_timeout_s, CAP)
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
    scale = _ARCSEC[table.error_unit]
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
            first = error.errors()[0]
            message = ": ".join([*map(str, first["loc"]), first["msg"].removeprefix("Value error, ")])
            raise ConfigurationError(
                f"LIGHTLAKE_TABLES__{name.upper()}: {message}", hint="correct it, or unset it"
            ) from error
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
    notes="A trigger has no flux. Error circles are statistical, 1 sigma; only those below max_error_radius_deg are "
    "matched.",
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
    notes="The same events as archive icecube; without a name, an event is known by its time and place. flux is the "
    "muon's reconstructed energy.",
)
ARCHIVES = tuple(archive(table) for table in (FERMIGTRIG, SAXGRBMGRB, ICECUBEPSC))
