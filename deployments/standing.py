"""Which schedules are paused, and by whom: this service, when it ended, or somebody, who will know why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.variables import Variable

# A variable of Prefect's: deployments that a service has paused when it ended.
PAUSED = "lightlake_paused_by_service"


@dataclass(frozen=True)
class Standing:
    """How a deployment is found when the service starts, as somebody has left it.

    Parameters
    ----------
    paused
        All its schedules are, by hand.
    inactive
        Schedules that are switched off, by slug.
    lake
        The lake that it has kept so far, if any in particular.
    """

    paused: bool = False
    inactive: frozenset[str | None] = frozenset()
    lake: str | None = None

    @property
    def told(self) -> str:
        """Return what it keeps from running; nothing if nothing."""
        if self.paused:
            return "paused, not by this service"
        if self.inactive:
            return f"{', '.join(sorted(map(str, self.inactive)))} paused, not by this service"
        return ""


def found(client: SyncPrefectClient, name: str, ours: Collection[str] | None) -> Standing:
    """Look how a deployment stands.

    Parameters
    ----------
    name
        Its full name.
    ours
        What services have paused: see paused_by_services. None: no service has said, as before it did so.
    """
    there = _read(client, name)
    if there is None:
        return Standing()
    inactive = frozenset(one.slug for one in there.schedules if not one.active)
    return Standing(there.paused and ours is not None and name not in ours, inactive, there.parameters.get("lake"))


def paused_by_services() -> list[str] | None:
    """Return deployments that a service has paused when it ended; None if none has ever said."""
    told: Any = Variable.get(PAUSED)
    return None if told is None else list(told)


def note_paused(names: Sequence[str]) -> None:
    """Note what a service pauses, before it does."""
    Variable.set(PAUSED, list(names), overwrite=True)


def pause(client: SyncPrefectClient, names: Sequence[str], lake: str) -> list[str]:
    """Pause deployments, those that are not paused yet and still keep this lake; return which.

    Those that keep another lake were taken over by its service.
    """
    mine = {
        name: there.id
        for name in names
        if (there := _read(client, name)) is not None and not there.paused and there.parameters.get("lake") == lake
    }
    note_paused(sorted({*mine, *(paused_by_services() or ())}))
    for one in mine.values():
        client.pause_deployment(one)
    return list(mine)


def _read(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None
