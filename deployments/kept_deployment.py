"""Register a deployment again without changing its automations, or whether they are switched off."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.events.schemas.automations import Automation, AutomationCore


class KeptDeployment(RunnerDeployment):
    """A deployment that replaces its automations only if their definition has changed."""

    async def _create_triggers(self, deployment_id: UUID, client: PrefectClient) -> Any:
        found = await client.read_resource_related_automations(f"prefect.deployment.{deployment_id}")
        existing = {one.name: one for one in found}
        wanted = []
        for trigger in self.triggers:
            trigger.set_deployment_id(deployment_id)
            wanted.append(trigger.as_automation())
            if isinstance(trigger, DeploymentEventTrigger) and (kept := existing.get(wanted[-1].name)) is not None:
                trigger.enabled = kept.enabled
        if all(one.name in existing and definition(one) == definition(existing[one.name]) for one in wanted):
            return None
        return await super()._create_triggers(deployment_id, client)


def definition(automation: Automation | AutomationCore) -> dict[str, Any]:
    """Return the definition of an automation, without what Prefect adds to it."""
    fields = automation.model_dump(include={"description", "trigger", "actions"})
    fields["trigger"].pop("id", None)
    return fields
