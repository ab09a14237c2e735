"""Tell schedules that a service paused at its end from those that somebody paused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.variables import Variable

# The Prefect variable with the deployments that services paused at their end.
PAUSED = "lightlake_paused_by_service"


@dataclass(frozen=True)
class DeploymentState:
    """What Prefect knows of a deployment when the service starts.

    Parameters
    ----------
    paused
        True if somebody paused all of its schedules.
    inactive
        Slugs of schedules that are switched off.
    lake
        The lake that it has filled so far, if it has one.
    """

    paused: bool = False
    inactive: frozenset[str | None] = frozenset()
    lake: str | None = None

    @property
    def description(self) -> str:
        """Describe what is paused; empty if nothing is."""
        if self.paused:
            return "paused, not by this service"
        if self.inactive:
            return f"{', '.join(sorted(map(str, self.inactive)))} paused, not by this service"
        return ""


def read_state(
    client: SyncPrefectClient, name: str, ours: Collection[str] | None, former: str | None = None
) -> DeploymentState:
    """Read the state of a deployment.

    Parameters
    ----------
    name
        Its full name.
    former
        The full name that it had before, if it may be known by that one only.
    ours
        Deployments that services have paused: see paused_by_services. None if no service has noted any.
    """
    deployment = _read(client, name)
    if deployment is None and former is not None:
        deployment, name = _read(client, former), former
    if deployment is None:
        return DeploymentState()
    inactive = frozenset(one.slug for one in deployment.schedules if not one.active)
    paused = deployment.paused and ours is not None and name not in ours
    return DeploymentState(paused, inactive, deployment.parameters.get("lake"))


def paused_by_services() -> list[str] | None:
    """Return the deployments that services paused at their end; None if no service has noted any."""
    names: Any = Variable.get(PAUSED)
    return None if names is None else list(names)


def note_paused(names: Sequence[str]) -> None:
    """Note the deployments that a service is about to pause."""
    Variable.set(PAUSED, list(names), overwrite=True)


def pause(client: SyncPrefectClient, names: Sequence[str], lake: str) -> list[str]:
    """Pause the deployments that run and still fill this lake; return their names.

    Deployments of another lake were taken over by its service.
    """
    mine = {
        name: deployment.id
        for name in names
        if (deployment := _read(client, name)) is not None
        and not deployment.paused
        and deployment.parameters.get("lake") == lake
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
