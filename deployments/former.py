"""Deployments of former names: those that were all called `lightlake`, before each was named for what it does."""

from __future__ import annotations

from collections.abc import Iterable

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound

FORMER = "lightlake"


def former_name(full_name: str) -> str:
    """Return what a deployment was called before, by the name that `prefect deployment run` takes.

    Examples
    --------
    >>> former_name("refresh/refresh-all-archives")
    'refresh/lightlake'
    """
    return f"{full_name.partition('/')[0]}/{FORMER}"


def former_deployments(client: SyncPrefectClient, full_names: Iterable[str]) -> dict[str, DeploymentResponse]:
    """Return the deployments that Prefect still has under their former names, by these."""
    found = {}
    for name in map(former_name, full_names):
        try:
            found[name] = client.read_deployment_by_name(name)
        except ObjectNotFound:
            continue
    return found


def keep_switched_off(client: SyncPrefectClient, former: DeploymentResponse, deployment: RunnerDeployment) -> None:
    """Switch the triggers of a deployment off that somebody has switched off under its former name."""
    related = client.read_resource_related_automations(f"prefect.deployment.{former.id}")
    off = {automation.name for automation in related if not automation.enabled}
    for trigger in deployment.triggers:
        if isinstance(trigger, DeploymentEventTrigger) and trigger.name in off:
            trigger.enabled = False


def remove(client: SyncPrefectClient, former: DeploymentResponse) -> None:
    """Remove a deployment of a former name with its automations and scheduled runs; runs that ended stay."""
    client.delete_resource_owned_automations(f"prefect.deployment.{former.id}")
    client.delete_deployment(former.id)
