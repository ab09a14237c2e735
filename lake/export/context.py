"""What a lake knows of the archives, bands and exposures of some rows, for forms that say it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import ConfigurationError
from lake.model.declared import declarations

# Whose clock: MJD (TDB) at the barycentre, the same for all archives, or the archive's own.
Clock = Literal["barycentre", "archive"]
CLOCKS: tuple[Clock, ...] = ("barycentre", "archive")

# The columns of a clock.
CLOCK_COLUMNS: dict[Clock, str] = {"barycentre": "bmjd_tdb", "archive": "mjd"}

Row = Mapping[str, Any]
Ask = Callable[[str, list[Any] | None], pa.Table]


@dataclass(frozen=True)
class Context:
    """Rows of tables archives, bands and exposures, by what they are about.

    Parameters
    ----------
    archives
        By archive.
    bands
        By archive and band.
    details
        Details of exposures that are light curves of their own, by archive, release and exposure.
    clock
        Which clock a column `time` has.
    """

    archives: Mapping[str, Row] = field(default_factory=dict)
    bands: Mapping[tuple[str, str], Row] = field(default_factory=dict)
    details: Mapping[tuple[str, str, str], Row] = field(default_factory=dict)
    clock: Clock = "barycentre"

    def time_system(self, archives: list[str]) -> tuple[str, str]:
        """Return scale and frame of a column `time` for rows of some archives.

        Raises
        ------
        ConfigurationError
            If they have several clocks, or one is not known.
        """
        if self.clock == "barycentre":
            return "tdb", "barycentre"
        systems = {name: self._system(name) for name in archives}
        if len(set(systems.values())) > 1:
            listed = ", ".join(f"{name} has {scale} at the {frame}" for name, (scale, frame) in systems.items())
            raise ConfigurationError(
                f"the archives' own times are of several clocks: {listed}",
                hint="name one archive, or take clock='barycentre'",
            )
        return next(iter(systems.values()), ("utc", "topocentre"))

    def _system(self, archive: str) -> tuple[str, str]:
        if archive not in self.archives:
            raise ConfigurationError(f"the lake does not say which clock {archive} has", hint="take clock='barycentre'")
        row = self.archives[archive]
        return row["time_scale"].lower(), row["time_frame"]


def archives_where_exposures_are_curves() -> set[str]:
    """Return the archives whose exposures (a sector, a quarter) are light curves of their own."""
    return {one.archive for one in declarations() if one.views.exposure_is_curve}


def load_context(rows: pa.Table, ask: Ask, clock: Clock, *, exposures: bool) -> Context:
    """Look up what the lake knows of some rows.

    Parameters
    ----------
    ask
        Runs SQL in the lake.
    exposures
        Look for details of exposures, too.

    Raises
    ------
    ConfigurationError
        If there is no such clock.
    """
    if clock not in CLOCKS:
        raise ConfigurationError(f"there is no clock {clock!r}", hint=f"use {' or '.join(CLOCKS)}")
    if "archive" not in rows.column_names or not pa.types.is_string(rows["archive"].type):
        return Context(clock=clock)
    names = [name for name in pc.unique(rows["archive"]).to_pylist() if name is not None]
    archives = ask("SELECT * FROM archives WHERE archive IN (SELECT unnest(?::VARCHAR[]))", [names]).to_pylist()
    bands = ask("SELECT * FROM bands WHERE archive IN (SELECT unnest(?::VARCHAR[]))", [names]).to_pylist()
    details: dict[tuple[str, str, str], Row] = {}
    own = sorted(archives_where_exposures_are_curves() & set(names)) if exposures else []
    if own and {"release", "exposure_id"} <= set(rows.column_names):
        ids = pc.unique(rows.filter(pc.is_in(rows["archive"], pa.array(own)))["exposure_id"]).to_pylist()
        found = ask(
            "SELECT archive, release, exposure_id, details FROM exposures "
            "WHERE archive IN (SELECT unnest(?::VARCHAR[])) AND exposure_id IN (SELECT unnest(?::VARCHAR[]))",
            [own, ids],
        ).to_pylist()
        details = {(row["archive"], row["release"], row["exposure_id"]): json.loads(row["details"]) for row in found}
    return Context(
        {row["archive"]: row for row in archives}, {(row["archive"], row["band"]): row for row in bands}, details, clock
    )
