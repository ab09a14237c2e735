"""What a table of events says of itself: its columns, which targets an event belongs to, and its query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.sources.base import wrong_name

ARCSEC = {"deg": 3600.0, "arcmin": 60.0, "arcsec": 1.0}


class EventTable(BaseModel):
    """A table of events: its columns, and which targets an event belongs to.

    An event belongs to a target that is inside its error circle (`error_column`), or within `radius_arcsec` of
    it if its table has none; in either case no farther than `max_search_radius_deg`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="What the lake calls it; in a setting, the end of the variable's name.")
    table: str = Field(
        pattern=r"^[A-Za-z_][\w.]*$", description="What the service calls it. Default in a setting: the name."
    )
    title: str = Field(description="Its title. Default in a setting: the service and the name.")
    band: str = Field(description="Its one band. Default in a setting: the name, in upper case.")
    id_columns: tuple[str, ...] = Field(("name",), description="Columns that together are an event's id.")
    time_column: str = Field("time", description="Column of the time, MJD.")
    time_scale: Literal["UTC", "TT", "TDB", "TAI"] = Field("UTC", description="Scale of the time.")
    error_column: str | None = Field(
        "error_radius", description="Radius of the error circle; null if the table has none."
    )
    error_unit: Literal["deg", "arcmin", "arcsec"] = Field("deg", description="Unit of that radius.")
    radius_arcsec: float | None = Field(
        None, gt=0, description="Match radius in arcsec, where there is no error circle."
    )
    max_error_radius_deg: float | None = Field(
        None, gt=0, description="Leave out error circles larger than this, in degrees."
    )
    max_search_radius_deg: float | None = Field(
        None, gt=0, le=180, description="Search no farther than this, in degrees."
    )
    strict: bool = Field(False, description="A target on the edge of an error circle does not match.")
    value_column: str | None = Field(None, description="What is kept as flux; without it there is no flux.")
    value_err_column: str | None = Field(None, description="Its error.")
    unit: str | None = Field(None, description="Its VOUnit; it goes with value_column.")
    cadence: Literal["frozen", "live"] = Field("frozen", description="frozen: asked once; live: again when too old.")
    max_age_days: float | None = Field(None, gt=0, description="After so many days a live table is asked again.")
    release: str = Field("HEASARC", description="What the lake calls its release.")
    batch_size: int = Field(10_000, gt=0, description="Targets in one upload.")
    description: str = Field("Events", description="What its band is.")
    fornax_band: str | None = Field(None, description="The band's name in the Fornax frames.")
    bibcode: str | None = Field(None, description="The paper to cite.")
    corrections: str | None = Field(None, description="What is corrected of the table's own numbers, and why.")
    notes: str | None = Field(None, description="What else a user must know.")

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

    @property
    def matching(self) -> str:
        """Return which events belong to a target, in words."""
        farthest = "" if self.max_search_radius_deg is None else " and not farther than max_search_radius_deg"
        if self.error_column is None:
            return f"An event is matched to every target within radius_arcsec of it at its time{farthest}."
        largest = "" if self.max_error_radius_deg is None else ", if that is smaller than max_error_radius_deg"
        return (
            "An event is a source with the radius of its error circle. It is matched to every target inside it"
            f"{largest}{farthest}; proper motion is not followed, as error circles are larger. Events without a "
            "position match nothing, and the ledger counts them."
        )

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
            error, per_deg = f"e.{_name(self.error_column)}", 3600 / ARCSEC[self.error_unit]
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
