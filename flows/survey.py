"""Pull a survey by Prefect's tasks: what the flows of all surveys have in common."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.living import living
from flows.report import Watch, state_of
from flows.runners import PrefectRunner
from lake.query import Lake
from lake.settings import Settings
from tasks.pull.driver import Run
from tasks.pull.report import SurveyReport
from tasks.sources.base import Origin


def surveyed(
    lake: Lake, settings: Settings, pulled: Callable[[Run], tuple[Origin, SurveyReport]]
) -> State[SurveyReport]:
    """Pull a survey, leave its report as artifacts, and return the state that the flow ends with."""
    log = get_run_logger()
    with living(lake):
        with Watch(log) as watch, PrefectRunner(settings, settings.workers) as runner:
            name = flow_run.name or "of a script"
            run = Run(lake, runner, log, str(flow_run.id or uuid.uuid4()), name, watch, settings)
            origin, report = run.alone(lambda: pulled(run))
        return state_of(report, log, lake, origin)
