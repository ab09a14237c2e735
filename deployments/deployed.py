"""What is deployed: one deployment for each flow. `lightlake serve` and prefect.yaml are made of this list."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import yaml
from prefect import Flow
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType

from deployments import schedules
from deployments.kept import KeptDeployment
from flows.maintenance import maintain, verify
from flows.pull import pull_archive
from flows.refresh import refresh
from flows.rxte import pull_rxte
from flows.virac import extract_virac
from lake.errors import LightlakeError
from lake.settings import load_settings
from tasks.events import LAKE, SAMPLE, TARGETS_ADDED
from tasks.pull.limits import of_archive
from tasks.pull.refresh import TURN as REFRESH
from tasks.sources.registry import find, known
from tasks.sources.rxte.mission import NAME as RXTE

# Every deployment has this name, and its runs this tag: `prefect deployment run pull/lightlake`.
NAME = "lightlake"

_HEAD = """\
# Every deployment of Lightlake, for workers of a work pool. Run from the checkout's root:
#   prefect work-pool create {pool} --type process
#   prefect deploy --all --prefect-file deployments/prefect.yaml
# Written by: lightlake deployments --to deployments/prefect.yaml
"""


@dataclass(frozen=True)
class Deployed:
    """A flow with when and how it runs; its description is the flow's.

    Parameters
    ----------
    flow
        The flow.
    tags
        What its runs can be found by.
    parameters
        Other than the flow's defaults.
    schedules
        When it runs by itself.
    triggers
        Events that it runs at.
    turn
        The turn that a run with given parameters waits for: see tasks.pull.limits.
    """

    flow: Flow[..., Any]
    tags: tuple[str, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    schedules: tuple[Schedule, ...] = ()
    triggers: tuple[DeploymentEventTrigger, ...] = ()
    turn: Callable[[dict[str, Any]], str | None] = lambda parameters: None

    @property
    def entrypoint(self) -> str:
        """Return where a process that runs it finds the flow."""
        return f"{self.flow.fn.__module__}.{self.flow.fn.__name__}"

    @property
    def full_name(self) -> str:
        """Return the name that `prefect deployment run` takes."""
        return f"{self.flow.name}/{NAME}"

    def as_runner(self, *, paused: bool = False, inactive: Collection[str | None] = ()) -> RunnerDeployment:
        """Return what Prefect's runner serves.

        Parameters
        ----------
        paused
            None of its schedules makes runs.
        inactive
            Schedules, by slug, that make none.
        """
        # No limit of Prefect's: it would count runs that are dead, and end those whose lease its server forgot.
        made = KeptDeployment.from_flow(
            self.flow,
            NAME,
            paused=paused,
            concurrency_limit=None,
            schedules=[replace(one, active=one.slug not in inactive) for one in self.schedules],
            parameters=self.parameters,
            triggers=list(self.triggers),
            tags=[NAME, *self.tags],
            version=version("lightlake"),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        # Said, so that one that was a work pool's before is not any more.
        made.work_pool_name = made.work_queue_name = None
        return made

    def as_yaml(self, pool: str) -> dict[str, Any]:
        """Return what `prefect deploy` reads."""
        told: dict[str, Any] = {
            "name": NAME,
            "flow_name": self.flow.name,
            "entrypoint": self.entrypoint,
            "version": "{{ lightlake.version }}",  # of the step below
            "tags": [NAME, *self.tags],
            "parameters": dict(self.parameters),
            # An empty list, so that nobody is asked for schedules.
            "schedules": [
                {"cron": one.cron, "timezone": one.timezone, "slug": one.slug, "parameters": one.parameters}
                for one in self.schedules
            ],
            "work_pool": {"name": pool},
        }
        if self.triggers:
            told["triggers"] = [
                {
                    "type": "event",
                    "name": trigger.name,
                    "description": trigger.description,
                    "expect": sorted(trigger.expect),
                    "match": trigger.model_dump(mode="json")["match"],
                    "parameters": trigger.parameters,
                }
                for trigger in self.triggers
            ]
        return told


def deployed(lake: str | None = None) -> list[Deployed]:
    """Return all deployments.

    Parameters
    ----------
    lake
        The lake that they keep; default: LIGHTLAKE_URL where they run.
    """
    given = {} if lake is None else {"lake": lake}
    nightly = schedules.refreshing(follow=load_settings().follow_releases)
    return [
        Deployed(pull_archive, ("archives",), given, schedules.pulls(known().values()), turn=_of_archive),
        Deployed(
            refresh, ("archives",), given, nightly, triggers=(new_targets(lake),), turn=lambda parameters: REFRESH
        ),
        Deployed(extract_virac, ("surveys",), given),
        Deployed(pull_rxte, ("surveys",), given, turn=lambda parameters: of_archive(RXTE)),
        Deployed(maintain, ("upkeep",), given, schedules.maintenance()),
        Deployed(verify, ("upkeep",), given, schedules.verification()),
    ]


def _of_archive(parameters: dict[str, Any]) -> str | None:
    """Return the turn of a pull; none if there is no such archive, which the run itself will say."""
    try:
        return of_archive(find(str(parameters.get("archive"))).name)
    except LightlakeError:
        return None


def new_targets(lake: str | None = None) -> DeploymentEventTrigger:
    """Return the trigger that pulls all frozen archives for a sample that has new targets."""
    return DeploymentEventTrigger(
        name="lightlake: new targets",
        description="Pulls the archives that are asked once for targets that `lightlake targets add` has added.",
        expect={TARGETS_ADDED},
        match={"prefect.resource.id": f"{SAMPLE}.*", **({} if lake is None else {LAKE: lake})},
        parameters={
            "archives": sorted(archive.name for archive in known().values() if archive.cadence == "frozen"),
            "sample": f"{{{{ event.resource['{SAMPLE}'] }}}}",
        },
    )


def installed_version() -> dict[str, str]:
    """Tell `prefect deploy` which version it deploys: a build step in prefect.yaml."""
    return {"version": version("lightlake")}


def as_yaml(pool: str = NAME) -> str:
    """Return prefect.yaml: what `prefect deploy --all` deploys to a work pool."""
    told = {
        "name": NAME,
        # The package is installed where workers run: there is no code to fetch.
        "pull": [],
        "build": [{f"{installed_version.__module__}.{installed_version.__name__}": {"id": "lightlake"}}],
        "deployments": [one.as_yaml(pool) for one in deployed()],
    }
    return _HEAD.format(pool=pool) + str(yaml.safe_dump(told, sort_keys=False, width=120))
