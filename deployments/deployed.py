"""The list of deployments, one for each flow; `lightlake serve` and prefect.yaml are made from it."""

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
from deployments.kept_deployment import KeptDeployment
from flows.hst import pull_hst
from flows.maintenance import maintain, verify
from flows.pull import pull_archive
from flows.refresh import refresh
from flows.run import run_by_file
from flows.rxte import pull_rxte
from flows.virac import extract_virac
from lake.errors import LightlakeError
from lake.settings import load_settings
from tasks.events import LAKE, SAMPLE, TARGETS_ADDED
from tasks.pull.limits import of_archive
from tasks.pull.refresh import TURN as REFRESH
from tasks.sources.hst_timetag.tables import NAME as HST
from tasks.sources.registry import find, known
from tasks.sources.rxte.mission import NAME as RXTE

# Every deployment and each of its runs has this tag; so is what holds all of them called.
NAME = "lightlake"

_HEAD = """\
# Every deployment of Lightlake, for workers of a work pool. Run from the checkout's root:
#   prefect work-pool create {pool} --type process
#   prefect deploy --all --prefect-file deployments/prefect.yaml
# Written by: lightlake deployments --to deployments/prefect.yaml
"""


@dataclass(frozen=True)
class Deployed:
    """A flow with its schedules, events and parameters.

    Parameters
    ----------
    flow
        The flow.
    name
        What the deployment does: `prefect deployment run FLOW/NAME`.
    tags
        Tags of its runs.
    parameters
        Parameters that differ from the flow's defaults.
    schedules
        When it runs by itself.
    triggers
        Events that start it.
    pull_lock
        Returns the name of the lock that a run with given parameters needs: see tasks.pull.limits.
    """

    flow: Flow[..., Any]
    name: str
    tags: tuple[str, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    schedules: tuple[Schedule, ...] = ()
    triggers: tuple[DeploymentEventTrigger, ...] = ()
    pull_lock: Callable[[dict[str, Any]], str | None] = lambda parameters: None

    @property
    def entrypoint(self) -> str:
        """Return the import path of the flow."""
        return f"{self.flow.fn.__module__}.{self.flow.fn.__name__}"

    @property
    def full_name(self) -> str:
        """Return the name that `prefect deployment run` takes."""
        return f"{self.flow.name}/{self.name}"

    def as_runner(self, *, paused: bool = False, inactive: Collection[str | None] = ()) -> RunnerDeployment:
        """Convert it to a deployment for Prefect's runner.

        Parameters
        ----------
        paused
            Pause all of its schedules.
        inactive
            Slugs of single schedules to pause.
        """
        # No limit of Prefect's: it would count dead runs, and end those whose lease its server has forgotten.
        deployment = KeptDeployment.from_flow(
            self.flow,
            self.name,
            paused=paused,
            concurrency_limit=None,
            schedules=[replace(one, active=one.slug not in inactive) for one in self.schedules],
            parameters=self.parameters,
            triggers=list(self.triggers),
            tags=[NAME, *self.tags],
            version=version("lightlake"),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        # Set explicitly, for a deployment that belonged to a work pool before.
        deployment.work_pool_name = deployment.work_queue_name = None
        return deployment

    def as_yaml(self, pool: str) -> dict[str, Any]:
        """Convert it to an entry of prefect.yaml."""
        entry: dict[str, Any] = {
            "name": self.name,
            "flow_name": self.flow.name,
            "entrypoint": self.entrypoint,
            "version": "{{ lightlake.version }}",  # of the step below
            "tags": [NAME, *self.tags],
            "parameters": dict(self.parameters),
            # Without an empty list, `prefect deploy` asks for schedules.
            "schedules": [
                {"cron": one.cron, "timezone": one.timezone, "slug": one.slug, "parameters": one.parameters}
                for one in self.schedules
            ],
            "work_pool": {"name": pool},
        }
        if self.triggers:
            entry["triggers"] = [
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
        return entry


def deployed(lake: str | None = None) -> list[Deployed]:
    """Return all deployments.

    Parameters
    ----------
    lake
        The lake that they fill; default: LIGHTLAKE_URL where they run.
    """
    given = {} if lake is None else {"lake": lake}
    nightly = schedules.refreshing(follow=load_settings().follow_releases)
    return [
        Deployed(
            pull_archive,
            "pull-one-archive",
            ("archives",),
            given,
            schedules.pulls(known().values()),
            pull_lock=_lock_of_pull,
        ),
        Deployed(
            refresh,
            "refresh-all-archives",
            ("archives",),
            given,
            nightly,
            triggers=(new_targets(lake),),
            pull_lock=lambda parameters: REFRESH,
        ),
        Deployed(run_by_file, "run-by-file", ("archives",), given),
        Deployed(extract_virac, "extract-virac-tiles", ("surveys",), given),
        Deployed(
            pull_rxte, "extract-rxte-observations", ("surveys",), given, pull_lock=lambda parameters: of_archive(RXTE)
        ),
        Deployed(
            pull_hst,
            "extract-hst-photons",
            ("surveys",),
            given,
            schedules.new_exposures(),
            pull_lock=lambda parameters: of_archive(HST),
        ),
        Deployed(maintain, "compact-the-lake", ("upkeep",), given, schedules.maintenance()),
        Deployed(verify, "verify-the-lake", ("upkeep",), given, schedules.verification()),
    ]


def _lock_of_pull(parameters: dict[str, Any]) -> str | None:
    """Return the lock of a pull; None for an unknown archive, which the run itself will report."""
    try:
        return of_archive(find(str(parameters.get("archive"))).name)
    except LightlakeError:
        return None


def new_targets(lake: str | None = None) -> DeploymentEventTrigger:
    """Make the trigger that pulls all frozen archives for a sample with new targets."""
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
    """Write prefect.yaml, with which `prefect deploy --all` deploys to a work pool."""
    content = {
        "name": NAME,
        # The package is installed where workers run, so there is no code to fetch.
        "pull": [],
        "build": [{f"{installed_version.__module__}.{installed_version.__name__}": {"id": "lightlake"}}],
        "deployments": [one.as_yaml(pool) for one in deployed()],
    }
    return _HEAD.format(pool=pool) + str(yaml.safe_dump(content, sort_keys=False, width=120))
