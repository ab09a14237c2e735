"""What stays as it is when the service is started anew: automations, and what somebody has switched off."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.events.schemas.automations import Automation, AutomationCore


class KeptDeployment(RunnerDeployment):
    """A deployment whose automations are made anew only if they are to be others."""

    async def _create_triggers(self, deployment_id: UUID, client: PrefectClient) -> Any:
        found = await client.read_resource_related_automations(f"prefect.deployment.{deployment_id}")
        there = {one.name: one for one in found}
        wanted = []
        for trigger in self.triggers:
            trigger.set_deployment_id(deployment_id)
            wanted.append(trigger.as_automation())
            if isinstance(trigger, DeploymentEventTrigger) and (kept := there.get(wanted[-1].name)) is not None:
                trigger.enabled = kept.enabled
        if all(one.name in there and defined(one) == defined(there[one.name]) for one in wanted):
            return None
        return await super()._create_triggers(deployment_id, client)


def defined(automation: Automation | AutomationCore) -> dict[str, Any]:
    """Return what an automation does, without what Prefect adds to it."""
    told = automation.model_dump(include={"description", "trigger", "actions"})
    told["trigger"].pop("id", None)
    return told
